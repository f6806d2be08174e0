/**
 * One Gaussian q fitted to two Gaussians p, in reverse and in forward: the mathematics, without a page.
 *
 * The target p has two modes of scale one, at minus and plus half of their distance; `mass` is that of
 * the right one. A fit is a mean and a scale. Integrals are sums over even steps, which err by less
 * than 1e-8 here.
 *
 * @typedef {{distance: number, mass: number}} Target
 * @typedef {{mean: number, scale: number, settled?: boolean}} Fit
 */

const LOG_2PI = Math.log(2 * Math.PI);
const GRID = 0.1; // step of the sums
const REACH = 8; // scales on each side of a mean that they cover
const LONGEST = 0.1; // of a step, in the mean and in the logarithm of the scale
const FLATTEST = 1e-3; // curvature that a step counts with at least

/** Logarithm of p at a point, its slope and its curvature. */
export function target({ distance, mass }, x) {
  const left = Math.log(1 - mass) - 0.5 * (x + distance / 2) ** 2;
  const right = Math.log(mass) - 0.5 * (x - distance / 2) ** 2;
  const share = 1 / (1 + Math.exp(left - right)); // responsibility of the right mode
  return {
    value: Math.max(left, right) + Math.log1p(Math.exp(-Math.abs(left - right))) - 0.5 * LOG_2PI,
    slope: distance * (share - 0.5) - x,
    curvature: distance ** 2 * share * (1 - share) - 1,
  };
}

/** Expectations under a Gaussian of all the numbers that `f` returns at a point. */
function expectation({ mean, scale }, f) {
  const last = Math.ceil((REACH * scale) / GRID);
  const total = f(mean).map(() => 0);
  for (let i = -last; i <= last; i++) {
    const density = Math.exp(-0.5 * ((i * GRID) / scale) ** 2);
    const values = f(mean + i * GRID);
    for (let n = 0; n < values.length; n++) total[n] += density * values[n];
  }
  return total.map((value) => (value * GRID) / (scale * Math.sqrt(2 * Math.PI)));
}

/** Logarithm of a Gaussian density at a point. */
export const logGaussian = ({ mean, scale }, x) =>
  -0.5 * ((x - mean) / scale) ** 2 - Math.log(scale) - 0.5 * LOG_2PI;

/** KL(q || p) in nats. @param {Target} p @param {Fit} q */
export const reverse = (p, q) => expectation(q, (x) => [logGaussian(q, x) - target(p, x).value])[0];

/** KL(p || q) in nats. @param {Target} p @param {Fit} q */
export function forward(p, q) {
  const excess = (x) => [target(p, x).value - logGaussian(q, x)];
  const [left, right] = [-0.5, 0.5].map(
    (side) => expectation({ mean: side * p.distance, scale: 1 }, excess)[0],
  );
  return (1 - p.mass) * left + p.mass * right;
}

/** The least KL(p || q): mean and variance of p. @param {Target} p @returns {Fit} */
export const forwardFit = ({ distance, mass }) => ({
  mean: distance * (mass - 0.5),
  scale: Math.sqrt(1 + mass * (1 - mass) * distance ** 2),
});

/** What doing without the other mode costs in reverse when the modes are far apart. */
export const price = ({ mass }, { mean }) => -Math.log(mean > 0 ? mass : 1 - mass);

/**
 * One step down KL(q || p), by the method of Newton in the mean and the logarithm of the scale.
 *
 * Steps are short, so that q stays with its mode; where the divergence bends down they are still downhill.
 *
 * @param {Target} p
 * @param {Fit} q
 * @returns {Fit} the next one, or `q` itself, `settled` if that is a minimum
 */
export function step(p, q) {
  const [f1, f1z, f2, f2z, f2zz] = expectation(q, (x) => {
    const { slope, curvature } = target(p, x);
    const z = x - q.mean;
    return [slope, slope * z, curvature, curvature * z, curvature * z * z];
  });
  const [g, h] = [-f1, -1 - f1z]; // gradient
  const [a, b, c] = [-f2, -f2z, -f2zz - f1z]; // second derivatives
  const lowest = (a + c) / 2 - Math.hypot((a - c) / 2, b);
  if (Math.max(Math.abs(g), Math.abs(h)) < 1e-9) return { ...q, settled: true };
  const shift = Math.max(0, FLATTEST - lowest);
  const determinant = (a + shift) * (c + shift) - b * b;
  const along = [b * h - (c + shift) * g, b * g - (a + shift) * h].map((x) => x / determinant);
  let size = Math.min(1, LONGEST / Math.max(...along.map(Math.abs)));
  const move = () => ({
    mean: q.mean + size * along[0],
    scale: q.scale * Math.exp(size * along[1]),
  });
  for (const now = reverse(p, q) + 1e-13; reverse(p, move()) > now && size > 1e-9;) size /= 2;
  return { ...move(), settled: size <= 1e-9 }; // rounding alone is left
}

/** The minimum of KL(q || p) that is reached from `q`. @param {Target} p @param {Fit} q */
export function reverseFit(p, q) {
  for (let i = 0; i < 1000 && !q.settled; i++) q = step(p, q);
  return q;
}

/**
 * Divergences of the reverse fit at every distance from zero to `largest`, as it follows from that at
 * the present one in small steps.
 *
 * @param {Target} p
 * @param {Fit} q the reverse fit to p
 * @returns {{distance: number, reverse: number, forward: number}[]}
 */
export function branch(p, q, largest, by = 0.2) {
  const follow = (distances) => {
    let fit = q;
    return distances.map((distance) => {
      const moved = { ...p, distance };
      fit = reverseFit(moved, { ...fit, settled: false });
      return { distance, reverse: reverse(moved, fit), forward: forward(moved, fit) };
    });
  };
  const all = Array.from({ length: Math.round(largest / by) + 1 }, (_, i) => i * by);
  const before = all.filter((distance) => distance < p.distance).reverse();
  return [
    ...follow(before).reverse(),
    ...follow([p.distance, ...all.filter((d) => d > p.distance)]),
  ];
}
