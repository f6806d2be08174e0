/**
 * Mixtures of diagonal Gaussians and the gradients of four objectives, in double precision.
 *
 * A mixture of K components in D dimensions is an object of three arrays: `logits` (K), `means`
 * (K of D) and `logScales` (K of D), the logarithms of the standard deviations. These are what is
 * trained. A target is an array of D numbers. Symbols are those of the book's notation: pi weights,
 * rho responsibilities, ratio rho / pi, z distances in scales. No page is needed here: everything is
 * a function of its arguments.
 *
 * @typedef {{logits: number[], means: number[][], logScales: number[][]}} Mixture
 */

const LOG_2PI = Math.log(2 * Math.PI);
const LARGEST_EXPONENT = 0.5 * Math.log(Number.MAX_VALUE);
const DAMPING = 0.25;

/** The natural gradient of a Gaussian, times `weight`, with respect to its mean and log-scale. */
const naturalGaussian = (weight, scale, z) => [-weight * scale * z, 0.5 * weight * (1 - z * z)];

/** The plain gradient of a Gaussian, equations (55) and (56) of the paper with the other sign. */
const plainGaussian = (weight, scale, z) => [(-weight * z) / scale, weight * (1 - z * z)];

/**
 * What each objective makes of an E-step: the gradient of the logits, the weight of each component
 * on the gradient of its Gaussian, and that gradient. `relaxed`: trained with a relaxed start.
 */
export const OBJECTIVES = {
  NLL: {
    logits: ({ pi, rho }) => pi.map((p, k) => p - rho[k]),
    weights: ({ rho }) => rho,
    gaussian: plainGaussian,
    relaxed: false,
  },
  "nGEM, paper's code": {
    logits: ({ pi, ratio }) => {
      const total = sum(ratio);
      return pi.map((p, k) => p * total - ratio[k]);
    },
    weights: ({ ratio }) => ratio,
    gaussian: naturalGaussian,
    relaxed: false,
  },
  "nGEM, as derived": {
    logits: ({ ratio }) => {
      const mean = sum(ratio) / ratio.length;
      return ratio.map((r) => mean - r);
    },
    weights: ({ ratio }) => ratio,
    gaussian: naturalGaussian,
    relaxed: false,
  },
  "damped nGEM": {
    logits: ({ pi, rho }) => pi.map((p, k) => p - rho[k]),
    weights: ({ pi, rho }) => rho.map((r, k) => r / (pi[k] + DAMPING)),
    gaussian: naturalGaussian,
    relaxed: true,
  },
};

/** Sum of numbers. */
export const sum = (values) => values.reduce((total, value) => total + value, 0);

/** Logarithm of the sum of the exponentials of numbers. */
function logSumExp(values) {
  const largest = Math.max(...values);
  return largest + Math.log(sum(values.map((value) => Math.exp(value - largest))));
}

/** Normalised logarithms of weights, log pi for logits. */
function logSoftmax(values) {
  const total = logSumExp(values);
  return values.map((value) => value - total);
}

/** Weights pi of a mixture. */
export const weightsOf = (mixture) => logSoftmax(mixture.logits).map(Math.exp);

/** Exponential that saturates at the root of the largest number instead of at infinity. */
const boundedExp = (value) => Math.exp(Math.min(value, LARGEST_EXPONENT));

/**
 * What does not depend on the target: weights, scales, and log pi_k minus the logarithm of the
 * constant of N_k.
 */
function prepare({ logits, means, logScales }) {
  const logPi = logSoftmax(logits);
  const scales = logScales.map((row) => row.map(Math.exp));
  const constant = logPi.map(
    (value, k) => value - sum(logScales[k]) - 0.5 * LOG_2PI * means[k].length,
  );
  return { logPi, pi: logPi.map(Math.exp), means, scales, constant };
}

/** Distances of a target from each mean in scales, and the logarithms of pi_k N_k(y). */
function locate({ means, scales, constant }, y) {
  const z = means.map((mean, k) => mean.map((m, d) => (y[d] - m) / scales[k][d]));
  return { z, logJoint: z.map((row, k) => constant[k] - 0.5 * sum(row.map((x) => x * x))) };
}

/**
 * Log-densities of a mixture at targets.
 *
 * @param {Mixture} mixture
 * @param {number[][]} points targets of D numbers each
 * @returns {number[]} in nats
 */
export function logDensities(mixture, points) {
  const prepared = prepare(mixture);
  return points.map((y) => logSumExp(locate(prepared, y).logJoint));
}

/**
 * Mean negative log-likelihood of targets.
 *
 * @param {Mixture} mixture
 * @param {number[][]} points targets
 * @returns {number} in nats
 */
export function meanNll(mixture, points) {
  return -sum(logDensities(mixture, points)) / points.length;
}

/**
 * E-step at one target; each component gets the share `relaxation / K` of it, and distances are
 * limited to `1 / (2 relaxation)`.
 */
function eStep(prepared, y, relaxation) {
  const { pi, logPi } = prepared;
  const { z, logJoint } = locate(prepared, y);
  const logRho = logSoftmax(logJoint);
  const exact = {
    z,
    pi,
    rho: logRho.map(Math.exp),
    ratio: logRho.map((r, k) => boundedExp(r - logPi[k])),
  };
  return relaxation === 0 ? exact : relax(exact, logPi, relaxation);
}

function relax({ z, pi, rho, ratio }, logPi, relaxation) {
  const K = pi.length;
  const limit = 0.5 / relaxation;
  const mix = (value, even) => value + relaxation * (even - value);
  return {
    z: z.map((row) => row.map((x) => Math.max(-limit, Math.min(limit, x)))),
    pi,
    rho: rho.map((value) => mix(value, 1 / K)),
    ratio: ratio.map((value, k) => mix(value, boundedExp(-logPi[k]) / K)),
  };
}

/**
 * Gradient of the mean of an objective over targets, to be minimised along.
 *
 * @param {string} objective one of `OBJECTIVES`
 * @param {Mixture} mixture
 * @param {number[][]} points targets
 * @param {number} relaxation from 0 to 1
 * @returns {Mixture} with respect to logits, means and log-scales
 */
export function gradient(objective, mixture, points, relaxation = 0) {
  const { logits, weights, gaussian } = OBJECTIVES[objective];
  const prepared = prepare(mixture);
  const total = map(mixture, () => 0);
  for (const y of points) {
    const step = eStep(prepared, y, relaxation);
    const weight = weights(step);
    logits(step).forEach((value, k) => (total.logits[k] += value));
    step.z.forEach((row, k) =>
      row.forEach((x, d) => {
        const [mean, logScale] = gaussian(weight[k], prepared.scales[k][d], x);
        total.means[k][d] += mean;
        total.logScales[k][d] += logScale;
      }),
    );
  }
  return map(total, (value) => value / points.length);
}

/**
 * One step of gradient descent.
 *
 * @param {Mixture} mixture
 * @param {Mixture} direction a gradient
 * @param {number} rate learning rate
 * @returns {Mixture} a new one
 */
export function descend(mixture, direction, rate) {
  return map(mixture, (value, g) => value - rate * g, direction);
}

/** Apply a function to each parameter of a mixture, and of another beside it. */
function map(mixture, f, other = mixture) {
  const rows = (name) =>
    mixture[name].map((row, k) => row.map((value, d) => f(value, other[name][k][d])));
  return {
    logits: mixture.logits.map((value, k) => f(value, other.logits[k])),
    means: rows("means"),
    logScales: rows("logScales"),
  };
}

/**
 * Relaxation of an update: down from 0.1 to zero in the first tenth of the training.
 *
 * @param {number} numUpdates length of the training
 * @param {number} done updates done
 * @returns {number} from 0 to 0.1
 */
export function relaxationAt(numUpdates, done) {
  const end = Math.max(1, Math.round(0.1 * numUpdates));
  return done < end ? 0.1 * (1 - done / end) : 0;
}

/** Whether every parameter of a mixture is a finite number and every scale is positive. */
export function isFinite(mixture) {
  const scales = mixture.logScales.flat().map(Math.exp);
  const all = [...mixture.logits, ...mixture.means.flat(), ...mixture.logScales.flat(), ...scales];
  return all.every(Number.isFinite) && scales.every((scale) => scale > 0);
}
