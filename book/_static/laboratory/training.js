/**
 * Training several objectives side by side, from one start and on the same points.
 *
 * @typedef {import("./settings.js").Settings} Settings
 * @typedef {import("./mixture.js").Mixture} Mixture
 */

import {
  descend,
  gradient,
  isFinite,
  meanNll,
  OBJECTIVES,
  relaxationAt,
  weightsOf,
} from "./mixture.js";
import { mixtureOf, points, SHORT, shuffle, SIZE, startRows, truth, uniform } from "./settings.js";

const RECORDS = 300;

/** A training of the chosen objectives, which goes on when it is told to. */
export class Training {
  /** @param {Settings} settings */
  constructor(settings) {
    this.settings = settings;
    this.points = points(settings);
    this.truth = truth(settings);
    this.truthNll = meanNll(this.truth, this.points);
    this.stride = Math.max(1, settings.updates / RECORDS);
    this.done = 0;
    this.next = uniform(settings.seed + 1);
    this.order = [];
    const mixture = mixtureOf(startRows(settings));
    this.runs = settings.objectives.map((short) => new Run(SHORT[short], mixture));
    this.runs.forEach((run) => run.record(0, this.points));
  }

  /** Whether nothing is left to do. */
  get finished() {
    return this.done >= this.settings.updates || this.runs.every((run) => run.failedAt !== null);
  }

  /** Do some updates, fewer if the training ends before. @param {number} number */
  advance(number) {
    for (let i = 0; i < number && !this.finished; i++) this.update();
  }

  update() {
    const { rate, relaxed, updates } = this.settings;
    const batch = this.batch();
    const relaxation = relaxed ? relaxationAt(updates, this.done) : 0;
    this.done += 1;
    for (const run of this.runs.filter((run) => run.failedAt === null)) {
      const eps = OBJECTIVES[run.objective].relaxed ? relaxation : 0;
      const recorded = this.done % this.stride < 1 || this.done === updates;
      run.go(gradient(run.objective, run.mixture, batch, eps), rate, this.done);
      if (recorded && run.failedAt === null) run.record(this.done, this.points);
    }
  }

  /** The points of the next update: all, or the next ones of a shuffled round. */
  batch() {
    const { batch } = this.settings;
    if (batch >= SIZE) return this.points;
    if (!this.order.length) this.order = shuffle([...this.points.keys()], this.next);
    return this.order.splice(0, batch).map((i) => this.points[i]);
  }
}

/** One objective: its mixture now, and what it was. */
export class Run {
  /** @param {string} objective @param {Mixture} mixture where it starts */
  constructor(objective, mixture) {
    this.objective = objective;
    this.mixture = mixture;
    /** Update after which a parameter was no longer a finite number. @type {number | null} */
    this.failedAt = null;
    /** @type {{update: number, nll: number, weights: number[], means: number[][]}[]} */
    this.history = [];
  }

  /** Take a step, unless it leads to what is not a finite number. */
  go(direction, rate, done) {
    const next = descend(this.mixture, direction, rate);
    if (isFinite(next)) this.mixture = next;
    else this.failedAt = done;
  }

  /** Note down the state; a likelihood that is not finite is a failure. */
  record(update, points) {
    const nll = meanNll(this.mixture, points);
    const { means } = this.mixture;
    if (!Number.isFinite(nll)) this.failedAt = update;
    else this.history.push({ update, nll, weights: weightsOf(this.mixture), means });
  }
}
