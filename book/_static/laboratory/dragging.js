/** Dragging the means of the start with a mouse, as the table of the start sets them by keyboard. */

const REACH = 20; // pixels

/** The index of the spot that is nearest to a position and within reach, or undefined. */
export function nearest(spots, [x, y]) {
  const distances = spots.map(([a, b]) => Math.hypot(a - x, b - y));
  const least = Math.min(...distances);
  return least <= REACH ? distances.indexOf(least) : undefined;
}

/**
 * Let a mouse or a pen drag what is in pictures; a finger scrolls.
 *
 * @param {Element} panels contains the pictures
 * @param {(svg: Element) => {spots: number[][], place: (at: number[]) => number[]} | null} gripsOf
 *   where the means are in a picture, in pixels, and the mean for a position; null: nothing moves
 * @param {(k: number, mean: number[]) => void} change called while component `k` is dragged
 */
export function enableDragging(panels, gripsOf, change) {
  panels.addEventListener("pointerdown", (event) => {
    const svg = event.target.closest("svg[data-run]");
    const grips = svg && event.pointerType !== "touch" && gripsOf(svg);
    if (!grips) return;
    const box = svg.getBoundingClientRect();
    const position = ({ clientX, clientY }) => [clientX - box.left, clientY - box.top];
    const k = nearest(grips.spots, position(event));
    if (k === undefined) return;
    event.preventDefault();
    const move = (later) => change(k, grips.place(position(later)));
    window.addEventListener("pointermove", move);
    for (const end of ["pointerup", "pointercancel"]) {
      window.addEventListener(end, () => window.removeEventListener("pointermove", move), {
        once: true,
      });
    }
  });
}
