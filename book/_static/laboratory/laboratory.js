/**
 * The page of the laboratory: its controls, its clock, and what it shows and says.
 *
 * The elements are those of `book/laboratory.md`. Settings live in the address, so that a link
 * gives the same picture to everyone. Nothing moves before a reader asks for it, and where less
 * motion is wished for, running goes to the end at once.
 */

import { enableDragging } from "./dragging.js";
import { likelihoodChart, picture, STYLES, swatch, weightsChart } from "./drawing.js";
import { weightsOf } from "./mixture.js";
import * as choices from "./settings.js";
import { Training } from "./training.js";

const FRAMES = 400; // pictures of a whole run
const BUDGET = 25; // milliseconds of computing for a picture

const lab = document.getElementById("lab");
const form = lab.querySelector("form");
const at = (name) => lab.querySelector(`[data-lab="${name}"]`);
const calm = window.matchMedia("(prefers-reduced-motion: reduce)");

/** @type {choices.Settings} */
let settings = choices.DEFAULTS;
/** @type {Training} */
let training;
/** @type {(() => void)[]} */
let drawings = [];
let running = false;

// What is said

const fixed = (values, digits = 2) =>
  values.map((value) => value.toFixed(digits).replace("-", "−"));

/** Negative log-likelihood and weights of a run, in words. */
function summary(run) {
  const { nll, weights } = run.history.at(-1);
  const state = `${fixed([nll], 3)} nats, weights ${fixed(weights).join(", ")}`;
  return run.failedAt === null
    ? state
    : `not finite after update ${run.failedAt}; before: ${state}`;
}

/** The components of a run, in words. */
function components(run) {
  const weights = fixed(weightsOf(run.mixture));
  const { means, logScales } = run.mixture;
  const one = (mean, k) =>
    `component ${k + 1} of weight ${weights[k]} at ${fixed(mean).join(", ")} ` +
    `with scale ${fixed(logScales[k].map(Math.exp)).join(", ")}`;
  return `${run.objective}: ${means.map(one).join("; ")}.`;
}

/** Tell a screen reader, and the address, where the training is. */
function tell(message = "") {
  const { done, runs, finished } = training;
  const state = running ? "Running" : finished ? "Finished" : done ? "Paused" : "At the start";
  const all = runs.map((run) => `${run.objective}: ${summary(run)}.`).join(" ");
  at("message").textContent = message;
  at("status").textContent = `${message} ${state}, update ${done} of ${settings.updates}. ${all}`;
  lab.querySelectorAll("[data-run]").forEach((svg) => {
    svg.setAttribute("aria-label", components(runs[Number(svg.dataset.run)]));
  });
  const query = choices.format({ ...settings, at: done });
  history.replaceState(null, "", query ? `?${query}#lab-run` : location.pathname + location.hash);
}

// What is shown

/** An SVG element of a picture with its drawing function. */
function place(svg, make, ...more) {
  const { size, background, foreground } = make(training, Math.max(svg.clientWidth, 200), svg.id);
  svg.setAttribute("viewBox", `0 0 ${size.width} ${size.height}`);
  svg.innerHTML = `${background}<g></g>`;
  const moving = svg.lastElementChild;
  return () => (moving.innerHTML = foreground(...more));
}

/** A panel of a run. */
const panel = (run, i) => `
  <figure class="lab-panel">
    <figcaption>${swatch(STYLES[run.objective])} <strong>${run.objective}</strong><span></span></figcaption>
    <svg id="lab-picture-${i}" role="img" aria-label="Points and components" data-run="${i}"></svg>
    <svg id="lab-weights-${i}" role="img" aria-label="Weights against updates. The numbers are in the text above."></svg>
  </figure>`;

/** Make everything that is shown anew, for another training or another width. */
function build() {
  const truth = fixed(weightsOf(training.truth)).join(", ");
  at("truth").textContent =
    `Dashed: the truth, with ${fixed([training.truthNll], 3)} nats and weights ${truth}.`;
  at("panels").innerHTML = training.runs.map(panel).join("");
  drawings = training.runs.flatMap((run, i) => {
    const svg = (name) => document.getElementById(`lab-${name}-${i}`);
    const caption = at("panels").children[i].querySelector("figcaption span");
    return [
      place(svg("picture"), picture, run),
      place(svg("weights"), weightsChart, run),
      () => (caption.textContent = summary(run)),
    ];
  });
  drawings.push(place(at("likelihood"), likelihoodChart));
  draw();
}

function draw() {
  drawings.forEach((drawing) => drawing());
  at("update").textContent = `Update ${training.done} of ${settings.updates}`;
  at("panels").classList.toggle("lab-start", !training.done);
  at("run").textContent = running ? "Pause" : "Run";
  at("run").disabled = at("one").disabled = at("ten").disabled = training.finished;
}

// What runs

/** Begin a training of the settings, up to the update that they name. */
function restart(message) {
  running = false;
  training = new Training(settings);
  training.advance(settings.at);
  settings.at = 0;
  build();
  tell(message);
}

function rest() {
  const hadFocus = document.activeElement === at("run");
  running = false;
  draw();
  if (hadFocus && training.finished) at("reset").focus();
  tell();
}

function run() {
  running = true;
  draw();
  tell();
  requestAnimationFrame(frame);
}

/** Some updates and a picture, until the end or a pause; for less motion only the last picture. */
function frame() {
  if (!running) return;
  const number = calm.matches ? Infinity : Math.max(1, Math.round(settings.updates / FRAMES));
  const start = performance.now();
  for (let i = 0; i < number && !training.finished; i++) {
    training.advance(1);
    if (performance.now() - start > BUDGET) break;
  }
  if (training.finished) return rest();
  if (!calm.matches) draw();
  requestAnimationFrame(frame);
}

function step(number) {
  training.advance(number);
  rest();
}

async function copy() {
  try {
    await navigator.clipboard.writeText(location.href);
    tell("Link copied.");
  } catch {
    tell("The link is in the address bar: copy it from there.");
  }
}

// What is chosen

const option = ([value, text]) => `<option value="${value}">${text}</option>`;
const labels = (object) => Object.entries(object).map(option).join("");
const values = (list) => list.map((value) => option([value, value])).join("");

/** Fill the lists of choices. */
function furnish() {
  const { data, k, start, rate, batch, updates } = form.elements;
  data.innerHTML = Object.entries(choices.DATA)
    .map(([name, set]) => option([name, set.label]))
    .join("");
  k.innerHTML = values(Array.from({ length: choices.MOST_COMPONENTS }, (_, i) => i + 1));
  start.innerHTML = labels(choices.STARTS);
  rate.innerHTML = values(choices.RATES);
  updates.innerHTML = values(choices.LENGTHS);
  batch.innerHTML = choices.BATCHES.map((n) => option([n, n === choices.SIZE ? "all" : n])).join(
    "",
  );
  at("objectives").innerHTML += Object.entries(choices.SHORT)
    .map(
      ([short, name]) =>
        `<label><input type="checkbox" name="objectives" value="${short}"> ${swatch(STYLES[name])} ${name}</label>`,
    )
    .join("");
}

/** Set the controls to the settings. */
function show() {
  const { data, share, k, start, seed, rate, batch, relaxed, updates } = form.elements;
  Object.entries({ data, share, k, start, seed, rate, batch, updates }).forEach(
    ([name, control]) => {
      control.value = settings[name];
    },
  );
  relaxed.checked = settings.relaxed;
  form.querySelectorAll("[name=objectives]").forEach((box) => {
    box.checked = settings.objectives.includes(box.value);
  });
  at("share").textContent = fixed([settings.share]);
  showRows();
}

/** Make the table of the start. */
function showRows() {
  const rows = choices.startRows(settings);
  const names = ["weight", ...(rows[0].length === 4 ? ["mean, x", "mean, y"] : ["mean"]), "scale"];
  const limits = (i, n) => (i === 0 ? [0.001, 1] : i === n - 1 ? [0.05, 10] : [-20, 20]);
  const cell = (value, i, k, n) => {
    const [low, high] = limits(i, n);
    const name = `component ${k + 1}: ${names[i]}`;
    return `<td><input type="number" step="any" min="${low}" max="${high}" required value="${value}" aria-label="${name}"></td>`;
  };
  const head = names.map((name) => `<th scope="col">${name}</th>`).join("");
  const body = rows.map(
    (row, k) =>
      `<tr><th scope="row">${k + 1}</th>${row.map((v, i) => cell(v, i, k, row.length)).join("")}</tr>`,
  );
  at("rows").innerHTML =
    `<thead><tr><th scope="col">k</th>${head}</tr></thead><tbody>${body.join("")}</tbody>`;
}

/** Move the start of a component. */
function moveStart(k, mean) {
  const components = choices.startRows(settings);
  const rounded = mean.map((m) => Math.round(m * 100) / 100);
  components[k] = [components[k][0], ...rounded, components[k].at(-1)];
  settings = { ...settings, start: "own", components };
  show();
  restart("");
}

/** Where the means of a picture can be taken hold of: at the start only. */
function gripsOf(svg) {
  const run = training.runs[Number(svg.dataset.run)];
  return training.done ? null : picture(training, svg.clientWidth, svg.id).grips(run);
}

/** The table of the start as numbers. */
function readRows() {
  const rows = [...at("rows").querySelectorAll("tbody tr")];
  return rows.map((row) => [...row.querySelectorAll("input")].map((input) => Number(input.value)));
}

/** Read the controls and begin anew. */
function choose(event) {
  if (!event.target.reportValidity()) return;
  const inRows = at("rows").contains(event.target);
  const data = new FormData(form);
  const fields = Object.fromEntries(data);
  fields.objectives = data.getAll("objectives").join(",");
  fields.relaxed = form.elements.relaxed.checked ? "1" : "0";
  if (inRows) fields.start = "own";
  if (fields.start === "own") fields.components = readRows().join(";");
  settings = choices.parse(new URLSearchParams(fields).toString());
  if (inRows) form.elements.start.value = settings.start;
  else show();
  restart("New settings.");
}

/** Take the settings of the address. */
function follow() {
  settings = choices.parse(location.search);
  show();
  restart("");
}

/** Take the settings of a link on this page without loading it again, and run them. */
function followLink(event) {
  if (event.ctrlKey || event.metaKey || event.shiftKey) return; // for another tab
  event.preventDefault();
  history.pushState(null, "", event.currentTarget.href);
  follow();
  document.getElementById("lab-run").scrollIntoView();
  if (!calm.matches) run();
}

furnish();
lab.hidden = false;
document.getElementById("lab-absent").hidden = true;
follow();
form.addEventListener("change", choose);
form.addEventListener("submit", (event) => event.preventDefault());
at("run").addEventListener("click", () => (running ? rest() : run()));
at("one").addEventListener("click", () => step(1));
at("ten").addEventListener("click", () => step(10));
at("reset").addEventListener("click", () => restart(""));
at("copy").addEventListener("click", copy);
enableDragging(at("panels"), gripsOf, moveStart);
window.addEventListener("popstate", follow);
document.querySelectorAll('a[href^="?"]').forEach((a) => a.addEventListener("click", followLink));
if (location.hash === "#lab-run") document.getElementById("lab-run").scrollIntoView();
let width = lab.clientWidth;
new ResizeObserver(() => {
  if (lab.clientWidth !== width) build();
  width = lab.clientWidth;
}).observe(lab);
