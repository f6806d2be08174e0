/**
 * The picture that moves: two modes part, and one Gaussian is fitted to them in reverse and in forward.
 *
 * It is put into the element `#two-modes` of the page `book/variational/reverse_kl.md`. Nothing moves
 * before a reader asks for it, and where less motion is wished for, each press is one step.
 */

import * as drawing from "../laboratory/drawing.js";
import * as fits from "./fits.js";

const LARGEST = 10; // distance
const TOP = 3.2; // nats in the chart
const SLOW = 1.5; // change of the distance in a second, when it plays
const FAST = 20; // and when it follows the slider
const DESCENT = 3; // steps of the reverse fit for a picture
const FRAME = 1 / 60; // seconds
const HEIGHT = 210; // pixels of both pictures
const REVERSE = { colour: drawing.STYLES["damped nGEM"].colour, dash: "" };
const FORWARD = { colour: drawing.STYLES.NLL.colour, dash: "3.7 1.6" };

const BOX = `<svg width="34" height="12" aria-hidden="true"><rect width="34" height="12"/></svg>`;
const key = (piece, name) => `<span class="two-modes-key">${piece} ${name}</span>`;
const MARKUP = `
<form>
<label>distance of the modes
<input type="range" name="distance" min="0" max="${LARGEST}" step="0.1"><span></span></label>
<label>mass of the right mode
<input type="range" name="mass" min="0.05" max="0.95" step="0.05"><span></span></label>
<div class="lab-buttons">
<button type="button" data-two="play"></button>
<button type="button" data-two="other">Other mode</button>
<button type="button" data-two="middle">Start in the middle</button>
</div>
</form>
<div class="lab-panels">
<figure>
<figcaption>Target p and its fits q<br>${key(BOX, "p")}
${key(drawing.swatch(REVERSE), "reverse fit")} ${key(drawing.swatch(FORWARD), "forward fit")}</figcaption>
<svg role="img" data-two="densities"></svg>
</figure>
<figure>
<figcaption>Reverse fit, nats against distance<br>
${key(drawing.swatch(REVERSE), "KL(q‖p)")} ${key(drawing.swatch(FORWARD), "KL(p‖q)")}</figcaption>
<svg role="img" data-two="chart" aria-label="Both divergences of the reverse fit against the
distance of the modes. The numbers are in the table."></svg>
</figure>
</div>
<table>
<thead><tr><td>nats</td><th scope="col">reverse, KL(q‖p)</th><th scope="col">forward, KL(p‖q)</th></tr></thead>
<tbody>
<tr><th scope="row">reverse fit</th><td></td><td></td></tr>
<tr><th scope="row">forward fit</th><td></td><td></td></tr>
</tbody>
</table>
<p data-two="price"></p>
<div class="visually-hidden" role="status"></div>`;

/** A number with two digits, or one, and a minus sign. */
const fixed = (value, digits = 2) =>
  drawing.minus((Math.abs(value) < 0.005 ? 0 : value).toFixed(digits));

/** Target and both fits, as the markup of a picture. */
function densities(width, p, reverseFit, forwardFit) {
  const domains = { x: [-9, 9], y: [0, 0.45] };
  const frame = drawing.frameOf({ width, height: HEIGHT }, domains, [9, 3]);
  const grid = Array.from({ length: 181 }, (_, i) => -9 + i / 10);
  const curve = (log) => grid.map((x) => [frame.x(x), frame.y(Math.exp(log(x)))]);
  const area = [[frame.x(-9), frame.y(0)], ...curve((x) => fits.target(p, x).value)];
  const shape = drawing.polyline([...area, [frame.x(9), frame.y(0)]]);
  const lines = [
    drawing.line(
      FORWARD,
      curve((x) => fits.logGaussian(forwardFit, x)),
    ),
    drawing.line(
      REVERSE,
      curve((x) => fits.logGaussian(reverseFit, x)),
      2.5,
    ),
  ];
  const markup = `<polygon points="${shape}"/>${lines.join("")}`;
  return drawing.axes(frame) + drawing.clipped("two-modes-densities", frame, markup);
}

/** Both divergences of the reverse fit against the distance, with the present ones marked. */
function chart(width, curve, price, distance, values) {
  const domains = { x: [0, LARGEST], y: [0, TOP] };
  const frame = drawing.frameOf({ width, height: HEIGHT }, domains, [5, 4]);
  const along = (name) => curve.map((at) => [frame.x(at.distance), frame.y(at[name])]);
  const lines = drawing.line(FORWARD, along("forward")) + drawing.line(REVERSE, along("reverse"));
  const mark = ({ colour }, value) => {
    const [x, y] = [frame.x(distance), frame.y(Math.min(value, TOP))].map(drawing.round);
    const shape =
      value > TOP ? `M${x},${y}l7,11h-14z` : `M${x - 5},${y}a5,5 0 1 0 10,0a5,5 0 1 0 -10,0z`;
    return `<path d="${shape}" fill="${colour}"/>`; // an arrow where it is out of the picture
  };
  return (
    drawing.axes(frame) +
    drawing.level(frame, price) +
    drawing.clipped("two-modes-chart", frame, lines) +
    mark(FORWARD, values.forward) +
    mark(REVERSE, values.reverse)
  );
}

function start(place) {
  let p = { distance: 6, mass: 0.3 };
  let fit = fits.reverseFit(p, { mean: -3, scale: 1 });
  place.innerHTML = MARKUP;
  place.classList.add("lab", "two-modes");
  place.hidden = false;
  document.getElementById("two-modes-absent").hidden = true;
  const at = (name) => place.querySelector(`[data-two="${name}"]`);
  const { distance: distances, mass: masses } = place.querySelector("form").elements;
  const cells = place.querySelectorAll("tbody td");
  const calm = window.matchMedia("(prefers-reduced-motion: reduce)");

  let curve = [];
  let goals = []; // distances to go to, one after the other
  let waiting = []; // the same while it pauses
  let playing = false;
  let rising = true; // the way of single steps
  let last; // time of the picture before; undefined when nothing moves

  const busy = () => goals.length > 0 || !fit.settled;

  /** Move the modes towards the next goal, and the reverse fit downhill. */
  function advance(seconds) {
    if (goals.length) {
      const most = seconds * (playing ? SLOW : FAST);
      const rest = goals[0] - p.distance;
      const distance = Math.abs(rest) > most ? p.distance + Math.sign(rest) * most : goals.shift();
      p = { ...p, distance };
      fit = { ...fit, settled: false };
    }
    for (let i = 0; i < DESCENT && !fit.settled; i++) fit = fits.step(p, fit);
  }

  function draw() {
    const other = fits.forwardFit(p);
    const values = [fit, other].flatMap((q) => [fits.reverse(p, q), fits.forward(p, q)]);
    const price = fits.price(p, fit);
    const [missing, mass] = fit.mean > 0 ? ["left", 1 - p.mass] : ["right", p.mass];
    const without =
      `To do without the ${missing} mode, of mass ${fixed(mass)}, costs −log(1 − ${fixed(mass)}) = ` +
      `${fixed(price)} nats in reverse when the modes are far apart (thin dashed line).`;
    const pictures = {
      densities: (width) => densities(width, p, fit, other),
      chart: (width) =>
        chart(width, curve, price, p.distance, { reverse: values[0], forward: values[1] }),
    };
    for (const [name, make] of Object.entries(pictures)) {
      const width = Math.max(at(name).clientWidth, 200);
      at(name).setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
      at(name).innerHTML = make(width);
    }
    values.forEach((value, i) => (cells[i].textContent = fixed(value)));
    at("price").textContent = without;
    if (playing || !goals.length) distances.value = p.distance;
    distances.nextSibling.textContent = fixed(p.distance, 1);
    masses.nextSibling.textContent = fixed(p.mass);
    at("play").textContent = calm.matches ? "One step" : playing ? "Pause" : "Play";
    return { other, values, without };
  }

  /** What holds when nothing moves any more: the chart, and what a screen reader is told. */
  function settle() {
    playing = false;
    last = undefined;
    curve = fits.branch(p, fit, LARGEST);
    const { other, values, without } = draw();
    const say = (name, { mean, scale }, [reverse, forward]) =>
      `${name} fit at ${fixed(mean)} with scale ${fixed(scale)}: ` +
      `reverse ${fixed(reverse)}, forward ${fixed(forward)} nats.`;
    const both = `${say("Reverse", fit, values)} ${say("Forward", other, values.slice(2))}`;
    const modes = `Distance ${fixed(p.distance, 1)}, mass of the right mode ${fixed(p.mass)}.`;
    place.querySelector("[role=status]").textContent = `${modes} ${both} ${without}`;
    at("densities").setAttribute(
      "aria-label",
      `Densities of the target and of both fits. ${modes} ${both}`,
    );
  }

  function frame(now) {
    const passed = Math.min(0.1, Math.max(FRAME, (now - last) / 1000));
    for (let rest = passed; rest > 0; rest -= FRAME) advance(Math.min(rest, FRAME));
    last = now;
    if (!busy()) return settle();
    draw();
    requestAnimationFrame(frame);
  }

  /** Go on until all is settled: picture by picture, or at once where less motion is wished for. */
  function go() {
    if (calm.matches) {
      while (busy()) advance(FRAME);
      settle();
    } else if (last === undefined) {
      last = performance.now();
      requestAnimationFrame(frame);
    }
  }

  /** Leave what was playing, for something else. */
  function change(next) {
    playing = false;
    goals = waiting = [];
    next();
    go();
  }

  function play() {
    if (calm.matches) return change(() => (goals = [oneStep()]));
    if (playing) [waiting, goals] = [goals, []];
    else [goals, waiting] = [waiting.length ? waiting : [LARGEST, 0, p.distance], []];
    playing = !playing;
    go();
  }

  function oneStep() {
    if (p.distance >= LARGEST) rising = false;
    if (p.distance <= 0) rising = true;
    return rising ? Math.floor(p.distance) + 1 : Math.ceil(p.distance) - 1;
  }

  const restart = (mean) => () => change(() => (fit = { mean: mean(), scale: 1 }));
  at("play").addEventListener("click", play);
  at("other").addEventListener(
    "click",
    restart(() => (Math.sign(-fit.mean) || 1) * (p.distance / 2)),
  );
  at("middle").addEventListener(
    "click",
    restart(() => 0),
  );
  distances.addEventListener("input", () => change(() => (goals = [Number(distances.value)])));
  masses.addEventListener("input", () =>
    change(() => {
      p = { ...p, mass: Number(masses.value) };
      fit = { ...fit, settled: false };
    }),
  );
  place.querySelector("form").addEventListener("submit", (event) => event.preventDefault());
  calm.addEventListener("change", draw);
  new ResizeObserver(draw).observe(place);
  masses.value = p.mass;
  settle();
}

const place = document.getElementById("two-modes");
if (place) {
  const options = { rel: "stylesheet", href: new URL("two_modes.css", import.meta.url).href };
  const sheet = Object.assign(document.createElement("link"), options);
  document.head.append(sheet);
  await new Promise((done) => (sheet.onload = sheet.onerror = done));
  start(place);
}
