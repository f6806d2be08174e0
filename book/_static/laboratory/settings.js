/**
 * What a reader chooses, as text in an address, and the data and the start that follow from it.
 *
 * Everything is drawn from seeds: an address gives the same picture to everyone.
 *
 * @typedef {import("./mixture.js").Mixture} Mixture
 * @typedef {{
 *   data: string, share: number, k: number, start: string, seed: number, components: number[][],
 *   objectives: string[], rate: number, batch: number, relaxed: boolean, updates: number, at: number,
 * }} Settings
 */

/** Number of points. */
export const SIZE = 200;

/** The shares of a true mixture are that of its first component, and even ones for the rest. */
export const DATA = {
  pair: {
    label: "Two Gaussians in the plane",
    means: [
      [-2, -2],
      [2, 2],
    ],
    scale: 0.5,
  },
  triangle: {
    label: "Three Gaussians in the plane",
    means: [
      [-2, -1.5],
      [2, -1.5],
      [0, 2],
    ],
    scale: 0.6,
  },
  line: { label: "Three Gaussians on a line", means: [[-3], [0], [4]], scale: 1 },
};

export const STARTS = {
  random: "drawn at random",
  together: "all in the middle",
  first: "all on the first Gaussian",
  far: "the last one far away",
  own: "as set below",
};

/** The objectives in an address. */
export const SHORT = {
  nll: "NLL",
  code: "nGEM, paper's code",
  derived: "nGEM, as derived",
  damped: "damped nGEM",
};

export const RATES = [0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1];
export const BATCHES = [200, 20, 1];
export const LENGTHS = [100, 300, 1000, 3000];
export const MOST_COMPONENTS = 5;

/** @type {Settings} */
export const DEFAULTS = {
  data: "pair",
  share: 0.8,
  k: 2,
  start: "random",
  seed: 1,
  components: [],
  objectives: ["code", "damped"],
  rate: 0.1,
  batch: 200,
  relaxed: true,
  updates: 300,
  at: 0,
};

const oneOf = (choices) => (text, old) => (choices.map(String).includes(text) ? text : old);
const numberOf = (choices) => (text, old) => (choices.includes(Number(text)) ? Number(text) : old);
const between = (low, high) => (text, old) =>
  text.trim() !== "" && Number(text) >= low && Number(text) <= high ? Number(text) : old;
const whole = (low, high) => (text, old) => Math.round(between(low, high)(text, old));

/** How the text of each setting is read; text that makes no sense leaves the default. */
const READ = {
  data: oneOf(Object.keys(DATA)),
  share: between(0.4, 0.97),
  k: whole(1, MOST_COMPONENTS),
  start: oneOf(Object.keys(STARTS)),
  seed: whole(0, 9999),
  components: (text) => text.split(";").map((row) => row.split(",").map(Number)),
  objectives: (text, old) => {
    const known = Object.keys(SHORT).filter((name) => text.split(",").includes(name));
    return known.length ? known : old;
  },
  rate: numberOf(RATES),
  batch: numberOf(BATCHES),
  relaxed: (text) => text !== "0",
  updates: numberOf(LENGTHS),
  at: whole(0, Math.max(...LENGTHS)),
};

/**
 * Settings from the query of an address.
 *
 * @param {string} query with or without `?`; what it does not name has its default
 * @returns {Settings}
 */
export function parse(query) {
  const settings = { ...DEFAULTS };
  for (const [name, text] of new URLSearchParams(query)) {
    if (name in READ) settings[name] = READ[name](text, settings[name]);
  }
  settings.at = Math.min(settings.at, settings.updates);
  if (!areComponents(settings.components, settings)) settings.components = [];
  if (settings.start === "own" && !settings.components.length) settings.start = DEFAULTS.start;
  return settings;
}

/** Whether `components` is K rows of a weight, D coordinates of a mean, and a scale. */
export function areComponents(components, { k, data }) {
  const dim = DATA[data].means[0].length;
  return (
    components.length === k &&
    components.every(
      (row) =>
        row.length === dim + 2 &&
        row.every(Number.isFinite) &&
        row[0] >= 0.001 &&
        row[0] <= 1 &&
        row.slice(1, -1).every((m) => Math.abs(m) <= 20) &&
        row[dim + 1] >= 0.05 &&
        row[dim + 1] <= 10,
    )
  );
}

/**
 * The query of settings, without what has its default.
 *
 * @param {Settings} settings
 * @returns {string} without `?`
 */
export function format(settings) {
  const texts = {
    ...settings,
    components: settings.start === "own" ? settings.components.join(";") : "",
    objectives: settings.objectives.join(","),
    relaxed: settings.relaxed ? 1 : 0,
  };
  const usual = {
    ...DEFAULTS,
    components: "",
    objectives: DEFAULTS.objectives.join(","),
    relaxed: 1,
  };
  return Object.keys(DEFAULTS)
    .filter((name) => String(texts[name]) !== String(usual[name]))
    .map((name) => `${name}=${texts[name]}`)
    .join("&");
}

/**
 * A generator of numbers from 0 to 1, of period 2^32: the hash of a counter.
 *
 * @param {number} seed whole number
 * @returns {() => number}
 */
export function uniform(seed) {
  let counter = Math.imul(seed + 1, 0x9e3779b9);
  return () => {
    counter = (counter + 0x6d2b79f5) | 0;
    let hash = Math.imul(counter ^ (counter >>> 15), counter | 1);
    hash ^= hash + Math.imul(hash ^ (hash >>> 7), hash | 61);
    return ((hash ^ (hash >>> 14)) >>> 0) / 4294967296;
  };
}

/**
 * A generator of standard normal numbers, by the method of Box and Muller.
 *
 * @param {number} seed whole number
 * @returns {() => number}
 */
export function normal(seed) {
  const next = uniform(seed);
  return () => Math.sqrt(-2 * Math.log(1 - next())) * Math.cos(2 * Math.PI * next());
}

/** Shuffle an array in place, by the method of Fisher and Yates, and return it. */
export function shuffle(array, next) {
  for (let i = array.length - 1; i > 0; i--) {
    const j = Math.floor(next() * (i + 1));
    [array[i], array[j]] = [array[j], array[i]];
  }
  return array;
}

/** The mixture that the points are drawn from. @returns {Mixture} */
export function truth({ data, share }) {
  const { means, scale } = DATA[data];
  const rest = (1 - share) / (means.length - 1);
  return {
    logits: means.map((_, k) => Math.log(k ? rest : share)),
    means: means.map((mean) => [...mean]),
    logScales: means.map((mean) => mean.map(() => Math.log(scale))),
  };
}

/** Numbers of points, by the largest remainder, in the shares of a mixture. */
function counts(shares) {
  const exact = shares.map((share) => Math.round(share * SIZE * 1e9) / 1e9);
  const whole = exact.map(Math.floor);
  const order = exact.map((_, k) => k).sort((a, b) => exact[b] - whole[b] - (exact[a] - whole[a]));
  const missing = SIZE - whole.reduce((a, b) => a + b);
  for (const k of order.slice(0, missing)) whole[k] += 1;
  return whole;
}

/** The points of a data set: a fixed number from each component. @returns {number[][]} */
export function points(settings) {
  const { means, logScales, logits } = truth(settings);
  const next = normal(0);
  return counts(logits.map(Math.exp)).flatMap((count, k) =>
    Array.from({ length: count }, () =>
      means[k].map((m, d) => m + Math.exp(logScales[k][d]) * next()),
    ),
  );
}

/** Where training starts, in rows of weight, mean and scale. @returns {number[][]} */
export function startRows(settings) {
  const { k, start, seed } = settings;
  if (start === "own") return settings.components;
  const { means } = DATA[settings.data];
  const next = normal(seed);
  const spread = { random: 1.5, far: 1, together: 0.3, first: 0.3 }[start];
  return Array.from({ length: k }, (_, i) => {
    const mean = means[0].map((m) => (start === "first" ? m : 0) + spread * next());
    const away = start === "far" && i === k - 1;
    return [1 / k, ...(away ? means[0].map(() => 8) : mean), 1].map(
      (x) => Math.round(x * 1e3) / 1e3,
    );
  });
}

/** The mixture of such rows; weights are divided by their sum. @returns {Mixture} */
export function mixtureOf(rows) {
  return {
    logits: rows.map((row) => Math.log(row[0])),
    means: rows.map((row) => row.slice(1, -1)),
    logScales: rows.map((row) => row.slice(1, -1).map(() => Math.log(row.at(-1)))),
  };
}
