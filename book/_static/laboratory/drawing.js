/**
 * Pictures of a training as SVG markup: functions of a training to text, without a page.
 *
 * A unit is a CSS pixel. Each picture has a background, which a training does not change, and a
 * foreground. Colours and dashes are those of the methods in all figures of the book.
 *
 * @typedef {import("./training.js").Training} Training
 * @typedef {import("./training.js").Run} Run
 */

import { logDensities, weightsOf } from "./mixture.js";

export const STYLES = {
  NLL: { colour: "#D55E00", dash: "" },
  "nGEM, paper's code": { colour: "#56B4E9", dash: "4 1.5" },
  "nGEM, as derived": { colour: "#009E73", dash: "1 1" },
  "damped nGEM": { colour: "#0072B2", dash: "" },
};

const MARGIN = { left: 34, right: 10, top: 8, bottom: 22 };
const STRIP = 0.3; // part of a picture on a line that shows the path of the means

/** An affine map of an interval to another; its inverse stays inside of the first. */
function linear([a, b], [c, d]) {
  const map = (x) => c + ((x - a) / (b - a)) * (d - c);
  map.inverse = (y) => Math.max(a, Math.min(b, a + ((y - c) / (d - c)) * (b - a)));
  return map;
}

/** The scales of a picture: its size, its domains, and how many numbers are on its axes. */
export const frameOf = (size, domains, counts) => ({
  size,
  domains,
  x: linear(domains.x, [MARGIN.left, size.width - MARGIN.right]),
  y: linear(domains.y, [size.height - MARGIN.bottom, MARGIN.top]),
  counts,
});

export const round = (x) => Math.round(x * 100) / 100;
export const polyline = (pairs) => pairs.map(([x, y]) => `${round(x)},${round(y)}`).join(" ");

/** A line in a colour and dashes, such as those of a method. */
export function line({ colour, dash }, pairs, width = 2) {
  const dashes = dash && `stroke-dasharray="${dash.split(" ").map((x) => x * width)}"`;
  return `<polyline points="${polyline(pairs)}" fill="none" stroke="${colour}" stroke-width="${width}" ${dashes}/>`;
}

/** About `count` round numbers in an interval. */
export function ticks([low, high], count) {
  const rough = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((x) => x * power).find((x) => x >= rough) ?? power;
  const first = Math.ceil(low / step - 1e-9);
  const last = Math.floor(high / step + 1e-9);
  return Array.from({ length: last - first + 1 }, (_, i) =>
    Number(((first + i) * step).toPrecision(12)),
  );
}

/** A frame with numbers at its left and lower edge. */
export function axes({ x, y, domains, size, counts: [nx, ny] }) {
  const [left, right] = [MARGIN.left, size.width - MARGIN.right];
  const [top, bottom] = [MARGIN.top, size.height - MARGIN.bottom];
  const below = ticks(domains.x, nx).map(
    (t) => `<text x="${round(x(t))}" y="${bottom + 15}" text-anchor="middle">${minus(t)}</text>`,
  );
  const beside = ticks(domains.y, ny).map(
    (t) => `<text x="${left - 5}" y="${round(y(t)) + 4}" text-anchor="end">${minus(t)}</text>`,
  );
  const frame = `<path class="lab-frame" d="M${left},${top}V${bottom}H${right}"/>`;
  return frame + below.join("") + beside.join("");
}

/** A number with a minus sign instead of a hyphen. */
export const minus = (number) => String(number).replace("-", "−");

/** The lower and upper end of what a picture shows of each coordinate. */
function extent({ truth, runs, points }) {
  const starts = runs.flatMap((run) => run.history.slice(0, 1)).flatMap((state) => state.means);
  const all = [...points, ...truth.means, ...starts].flat();
  const pad = 1.2;
  return [Math.min(...all) - pad, Math.max(...all) + pad];
}

/** Sizes and scales of a square picture of the plane. */
function planeFrame(training, width) {
  const domain = extent(training);
  const height = width - MARGIN.left - MARGIN.right + MARGIN.top + MARGIN.bottom;
  return frameOf({ width, height }, { x: domain, y: domain }, [5, 5]);
}

/** An ellipse of one standard deviation. */
function ellipse(frame, mean, logScales, attributes) {
  const radius = (axis, d) => round(Math.abs(axis(Math.exp(Math.min(logScales[d], 20))) - axis(0)));
  return (
    `<ellipse cx="${round(frame.x(mean[0]))}" cy="${round(frame.y(mean[1]))}" ` +
    `rx="${radius(frame.x, 0)}" ry="${radius(frame.y, 1)}" ${attributes}/>`
  );
}

/** The number of a component. */
const label = (x, y, k) =>
  `<text class="lab-number" x="${round(x)}" y="${round(y) + 4}" text-anchor="middle">${k + 1}</text>`;

/** Points and true components in the plane. */
function planeBackground(training, frame) {
  const dots = training.points.map((p) => `M${round(frame.x(p[0]))},${round(frame.y(p[1]))}h0`);
  const { means, logScales } = training.truth;
  const truths = means.map((mean, k) => ellipse(frame, mean, logScales[k], 'class="lab-truth"'));
  return `<path class="lab-dots" d="${dots.join("")}"/>${truths.join("")}`;
}

/** Components and paths of their means in the plane. */
function planeForeground(training, run, frame) {
  const weights = weightsOf(run.mixture);
  const { colour } = STYLES[run.objective];
  const at = (mean) => [frame.x(mean[0]), frame.y(mean[1])];
  return run.mixture.means
    .map((mean, k) => {
      const fill = `fill="${colour}" fill-opacity="${round(0.05 + 0.5 * weights[k])}" stroke="${colour}"`;
      const path = [...run.history.map((state) => at(state.means[k])), at(mean)];
      return (
        ellipse(frame, mean, run.mixture.logScales[k], fill) +
        `<polyline class="lab-path" points="${polyline(path)}"/>` +
        label(...at(mean), k)
      );
    })
    .join("");
}

/** Sizes and scales of a picture of densities on a line, with the path of the means beneath. */
function lineFrame(training, width) {
  const domain = extent(training);
  const height = width - MARGIN.left - MARGIN.right + MARGIN.top + MARGIN.bottom;
  const bottom = height - MARGIN.bottom;
  const floor = bottom - STRIP * (bottom - MARGIN.top);
  const grid = Array.from(
    { length: 161 },
    (_, i) => domain[0] + ((domain[1] - domain[0]) * i) / 160,
  );
  const tallest = Math.max(
    ...density(training.truth, grid),
    ...histogram(training.points, domain).map((bar) => bar[2]),
  );
  return {
    size: { width, height },
    domains: { x: domain, y: [0, 1.3 * tallest] },
    x: linear(domain, [MARGIN.left, width - MARGIN.right]),
    y: linear([0, 1.3 * tallest], [floor, MARGIN.top]),
    time: linear([0, training.settings.updates], [floor + 6, bottom]),
    counts: [5, 3],
    grid,
  };
}

const density = (mixture, grid) =>
  logDensities(
    mixture,
    grid.map((x) => [x]),
  ).map(Math.exp);

/** Bars of even width and area one: left end, right end, height. */
export function histogram(points, [low, high], number = 30) {
  const width = (high - low) / number;
  const counts = new Array(number).fill(0);
  for (const [y] of points) counts[Math.min(number - 1, Math.floor((y - low) / width))] += 1;
  return counts.map((count, i) => [
    low + i * width,
    low + (i + 1) * width,
    count / (points.length * width),
  ]);
}

/** Histogram of the points and true density on a line. */
function lineBackground(training, frame) {
  const { x, y, grid } = frame;
  const bars = histogram(training.points, frame.domains.x).map(([a, b, h]) => {
    const [left, top] = [round(x(a)), round(y(h))];
    return `<rect class="lab-bar" x="${left}" y="${top}" width="${round(x(b) - left)}" height="${round(y(0) - top)}"/>`;
  });
  const truth = density(training.truth, grid).map((p, i) => [x(grid[i]), y(p)]);
  const floor = `<path class="lab-frame" d="M${x(frame.domains.x[0])},${y(0)}H${x(frame.domains.x[1])}"/>`;
  return `${bars.join("")}<polyline class="lab-truth" points="${polyline(truth)}"/>${floor}`;
}

/** Density, components and paths of their means on a line. */
function lineForeground(training, run, frame) {
  const { x, y, grid, time } = frame;
  const { logits, means, logScales } = run.mixture;
  const weights = weightsOf(run.mixture);
  const curve = (mixture, factor) =>
    density(mixture, grid).map((p, i) => [x(grid[i]), y(factor * p)]);
  const parts = means.map((mean, k) => {
    const one = { logits: [0], means: [mean], logScales: [logScales[k]] };
    const area = [[x(grid[0]), y(0)], ...curve(one, weights[k]), [x(grid.at(-1)), y(0)]];
    const path = [
      ...run.history.map((s) => [x(s.means[k][0]), time(s.update)]),
      [x(mean[0]), time(training.done)],
    ];
    const fill = `fill="${STYLES[run.objective].colour}" fill-opacity="${round(0.05 + 0.5 * weights[k])}"`;
    return (
      `<polygon points="${polyline(area)}" ${fill}/>` +
      `<polyline class="lab-path" points="${polyline(path)}"/>` +
      label(x(mean[0]), Math.min(path.at(-1)[1] + 8, frame.size.height - MARGIN.bottom - 6), k)
    );
  });
  return parts.join("") + line(STYLES[run.objective], curve({ logits, means, logScales }, 1));
}

/** Cut off what is outside of a frame. */
export function clipped(id, { size }, markup) {
  const box =
    `x="${MARGIN.left}" y="${MARGIN.top}" width="${size.width - MARGIN.left - MARGIN.right}" ` +
    `height="${size.height - MARGIN.top - MARGIN.bottom}"`;
  return `<clipPath id="${id}"><rect ${box}/></clipPath><g clip-path="url(#${id})">${markup}</g>`;
}

/**
 * The picture of a run: points, true and learned components.
 *
 * @param {Training} training
 * @param {number} width in pixels
 * @param {string} id of this picture, unique on the page
 * @returns {{size: {width: number, height: number}, background: string,
 *   foreground: (run: Run) => string, grips: (run: Run) => {spots: number[][],
 *   place: (at: number[]) => number[]}}} `grips`: where the numbers of the components are at the
 *   start, and which mean has its number at a position
 */
export function picture(training, width, id) {
  const plane = training.truth.means[0].length === 2;
  const frame = plane ? planeFrame(training, width) : lineFrame(training, width);
  const background = plane ? planeBackground(training, frame) : lineBackground(training, frame);
  const foreground = plane ? planeForeground : lineForeground;
  return {
    size: frame.size,
    background: axes(frame) + clipped(`${id}-back`, frame, background),
    foreground: (run) => clipped(`${id}-front`, frame, foreground(training, run, frame)),
    grips: ({ mixture }) => ({
      spots: mixture.means.map(([m, n]) => [frame.x(m), plane ? frame.y(n) : frame.time(0) + 8]),
      place: ([x, y]) => [frame.x.inverse(x), ...(plane ? [frame.y.inverse(y)] : [])],
    }),
  };
}

/** Sizes and scales of a chart against updates. */
const chartFrame = (training, width, height, domain, count) =>
  frameOf({ width, height }, { x: [0, training.settings.updates], y: domain }, [4, count]);

/** A horizontal line of what is true. */
export function level(frame, value) {
  const y = round(frame.y(value));
  return `<path class="lab-truth" d="M${MARGIN.left},${y}H${frame.size.width - MARGIN.right}"/>`;
}

/**
 * The chart of a run's weights against updates, with the true ones; called as `picture`.
 */
export function weightsChart(training, width, id) {
  const frame = chartFrame(training, width - 14, 120, [0, 1], 2);
  const levels = weightsOf(training.truth).map((weight) => level(frame, weight));
  return {
    size: { width, height: 120 },
    background: axes(frame) + levels.join(""),
    foreground: (run) =>
      clipped(`${id}-front`, frame, weightLines(run, frame)) + numbers(run, frame),
  };
}

const weightLines = (run, { x, y }) =>
  run.mixture.logits
    .map((_, k) =>
      line(
        STYLES[run.objective],
        run.history.map((s) => [x(s.update), y(s.weights[k])]),
      ),
    )
    .join("");

/** The numbers of the components at the end of their lines, apart from each other. */
function numbers(run, { x, y }) {
  const last = run.history.at(-1);
  const order = last.weights.map((weight, k) => ({ k, at: y(weight) })).sort((a, b) => a.at - b.at);
  order.forEach((one, i) => {
    if (i) one.at = Math.max(one.at, order[i - 1].at + 12);
  });
  return order.map(({ k, at }) => label(x(last.update) + 9, at, k)).join("");
}

/**
 * The chart of all runs' negative log-likelihoods against updates; called as `picture`.
 *
 * What lies more than 2.5 nats above the truth, as the start often does, is cut off.
 */
export function likelihoodChart(training, width, id) {
  const starts = training.runs.flatMap((run) => run.history.slice(0, 1)).map((state) => state.nll);
  const excess = Math.max(...starts) - training.truthNll;
  const span = Math.min(2.5, Math.max(0.5, excess));
  const height = 200;
  const frame = chartFrame(
    training,
    width - 14,
    height,
    [training.truthNll - 0.12 * span, training.truthNll + span],
    4,
  );
  return {
    size: { width, height },
    background: axes(frame) + level(frame, training.truthNll),
    foreground: () => {
      const one = (run) =>
        line(
          STYLES[run.objective],
          run.history.map((s) => [frame.x(s.update), frame.y(s.nll)]),
          2.2,
        );
      return clipped(`${id}-front`, frame, training.runs.map(one).join(""));
    },
  };
}

/** A piece of a line, for a legend. */
export const swatch = (style) =>
  `<svg class="lab-swatch" width="34" height="10" aria-hidden="true">${line(
    style,
    [
      [1, 5],
      [33, 5],
    ],
    2.6,
  )}</svg>`;
