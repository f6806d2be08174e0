"""Figures of the page on natural gradient descent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import matplotlib.pyplot as plt
import numpy as np
from jax.typing import ArrayLike
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Ellipse

from ngem_tutorial.figures.style import PALETTE, label_panel, style
from ngem_tutorial.fisher import gaussian_fisher

__all__ = ["empirical_fisher", "half_plane", "kl_expansion", "two_coordinates"]

_PLAIN, _NATURAL = PALETTE["NLL"], PALETTE["damped nGEM"]
_EMPIRICAL = PALETTE["fully damped nGEM"]
_GREY = PALETTE["truth"]


def kl_expansion(
    grid: Sequence[ArrayLike],
    divergence: ArrayLike,
    centre: Sequence[float],
    levels: Sequence[float],
    steps: ArrayLike,
    remainders: Mapping[str, ArrayLike],
) -> Figure:
    """Balls of the divergence and of its quadratic part, and the size of what is left out.

    Args:
        grid: means, shape `(M,)`, and scales, shape `(S,)`, of Gaussians.
        divergence: KL from the Gaussian in the centre to those of the grid, `(S, M)`, in nats.
        centre: mean and scale of the Gaussian in the centre.
        levels: radii of the balls, in nats, increasing.
        steps: lengths of steps, shape `(T,)`.
        remainders: for each family the absolute difference of divergence and quadratic part
            at each of these lengths, shape `(T,)`.

    Returns:
        Left the balls on the half-plane, right the remainders in a log-log plot.
    """
    colours = (
        PALETTE["damped nGEM"],
        PALETTE["NLL"],
        PALETTE["nGEM, as derived"],
        PALETTE["fully damped nGEM"],
    )
    markers = "os^D"
    with style():
        figure, (left, right) = plt.subplots(1, 2, figsize=(6.5, 3.4))
        left.contour(*grid, divergence, levels=levels, colors=_NATURAL, linewidths=1.5)
        for level in levels:
            left.add_patch(_circle(centre, level, ls="--", lw=1.2, ec=_GREY, fc="none"))
        left.plot(*centre, "o", color="black", ms=3)
        left.legend(
            [Line2D([], [], color=_NATURAL), Line2D([], [], color=_GREY, ls="--")],
            ["KL", "quadratic part"],
            loc="upper center",
            ncols=2,
            fontsize=9,
            handlelength=1.5,
            columnspacing=1.0,
        )
        left.set(xlabel="mean μ", ylabel="scale σ", aspect="equal")
        left.set(xlim=(np.min(grid[0]), np.max(grid[0])), ylim=(np.min(grid[1]), np.max(grid[1])))
        label_panel(left, "Balls around one Gaussian")

        steps = np.asarray(steps)
        for (name, error), colour, marker in zip(
            remainders.items(), colours, markers, strict=False
        ):
            right.loglog(steps, np.asarray(error), marker=marker, ms=4, color=colour, label=name)
        guide = 0.1 * min(float(np.asarray(e)[-1]) for e in remainders.values())
        right.loglog(
            steps, guide * (steps / steps[-1]) ** 3, ls="--", color=_GREY, label="third order"
        )
        right.set(xlabel="length of the step", ylabel="|KL − quadratic part|")
        right.legend(fontsize=9, loc="upper left")
        right.margins(y=0.1)
        label_panel(right, "What the quadratic part leaves out")
    return figure


def two_coordinates(
    panels: Mapping[str, Mapping[str, tuple[ArrayLike, ArrayLike]]], optimum: Sequence[float]
) -> Figure:
    """Flows and steps that were computed in several coordinates, drawn in one.

    Args:
        panels: for each panel, the first of plain and the second of natural gradients, and for
            each coordinate a flow, shape `(T, 2)`, and steps, shape `(n, 2)`, as mean and scale.
        optimum: mean and scale of the best Gaussian.

    Returns:
        A panel for each method; lines are flows, symbols the steps.
    """
    looks = [("-", "o", 3.2), ("--", "s", 1.4)]
    with style():
        figure, axes = plt.subplots(1, len(panels), figsize=(6.3, 3.3), sharex=True, sharey=True)
        for axis, colour, (label, runs) in zip(
            axes, (_PLAIN, _NATURAL), panels.items(), strict=True
        ):
            for (ls, marker, width), (name, (flow, steps)) in zip(looks, runs.items(), strict=True):
                # The wide line lies under the narrow one, so that both show where they agree.
                axis.plot(
                    *np.asarray(flow).T, ls, color=colour if ls == "-" else "black", lw=width,
                    alpha=0.5 if ls == "-" else 1.0,
                )  # fmt: skip
                axis.plot(
                    *np.asarray(steps).T, marker, ms=5, mew=1.0, label=name,
                    mfc=colour if marker == "o" else "white",
                    mec=colour if marker == "o" else "black",
                )  # fmt: skip
            axis.plot(*optimum, "*", color="black", mfc="white", ms=12, zorder=5)
            axis.set(xlabel="mean μ")
            axis.legend(title="computed in", fontsize=9, title_fontsize=9, loc="upper right")
            label_panel(axis, label)
        axes[0].set(ylabel="scale σ")
    return figure


def empirical_fisher(
    distances: ArrayLike,
    lengths: Mapping[str, ArrayLike],
    grid: Sequence[ArrayLike],
    excess: ArrayLike,
    paths: Mapping[str, Sequence[ArrayLike]],
    optimum: ArrayLike,
) -> Figure:
    """Steps with the Fisher matrix and with the empirical one.

    Args:
        distances: from the optimum of the mean of a Gaussian, shape `(T,)`.
        lengths: for each label the length of a step at these distances, shape `(T,)`; the
            first is that of the Fisher matrix.
        grid: intercepts, shape `(A,)`, and slopes, shape `(B,)`, of lines.
        excess: mean loss above its minimum on the grid, shape `(B, A)`, in nats.
        paths: for the labels of the gradient, the empirical and the true Fisher matrix, in
            this order, the steps from several starts, shape `(n, 2)` each.
        optimum: intercept and slope of the best line, shape `(2,)`.

    Returns:
        Left the lengths of steps in a log-log plot, right the steps on contours of the loss.
    """
    with style():
        figure, (left, right) = plt.subplots(1, 2, figsize=(6.5, 3.9))
        looks = [(_NATURAL, "-"), (_EMPIRICAL, "-"), (_EMPIRICAL, "--"), (_EMPIRICAL, ":")]
        for (colour, ls), (name, length) in zip(looks, lengths.items(), strict=False):
            left.loglog(distances, length, ls, color=colour, lw=2, label=name)
        left.set(xlabel="distance from the optimum", ylabel="length of the step")
        left.set_ylim(top=3e2)
        left.legend(fontsize=8.5, loc="upper left", handlelength=1.8)
        label_panel(left, "One mean")

        levels = np.geomspace(0.1, 0.9 * float(np.max(excess)), 9)
        right.contour(*grid, excess, levels=levels, colors="0.82", linewidths=0.8)
        looks = [(_PLAIN, "o"), (_EMPIRICAL, "^"), (_NATURAL, "s")]
        for (colour, marker), (name, runs) in zip(looks, paths.items(), strict=True):
            for i, path in enumerate(runs):
                right.plot(
                    *np.asarray(path).T, color=colour, marker=marker, ms=3.5, lw=1.2,
                    label=name if i == 0 else None,
                )  # fmt: skip
        right.plot(*np.asarray(optimum), "*", color="black", mfc="white", ms=12, zorder=5)
        right.set(xlabel="intercept", ylabel="slope")
        right.legend(fontsize=8.5, loc="lower left", handlelength=1.5)
        label_panel(right, "Linear regression")
    return figure


def half_plane(
    panels: Mapping[str, Sequence[ArrayLike]],
    marks: Sequence[int],
    optimum: Sequence[float],
    centres: ArrayLike,
    radius: float,
) -> Figure:
    """Flows on the half-plane of means and scales of a Gaussian, with Fisher circles.

    Args:
        panels: for each panel, the first of plain and the second of natural gradients, the
            flows from several starts as mean and scale, shape `(T, 2)` each.
        marks: indices of the points of a flow that get a dot.
        optimum: mean and scale where the flows end.
        centres: of the circles, as mean and scale, shape `(M, 2)`.
        radius: of the circles, as a divergence in nats, to second order.

    Returns:
        A panel for each method.
    """
    with style():
        figure, axes = plt.subplots(len(panels), 1, figsize=(5.6, 5.9), sharex=True, sharey=True)
        for axis, colour, (label, flows) in zip(
            axes, (_PLAIN, _NATURAL), panels.items(), strict=True
        ):
            _circles(axis, centres, radius)
            for flow in map(np.asarray, flows):
                axis.plot(*flow.T, color=colour, lw=1.8)
                axis.plot(*flow[0], "s", color=colour, mfc="white", ms=5)
                axis.plot(*flow[list(marks)].T, "o", color=colour, ms=4)
            axis.plot(*optimum, "*", color="black", mfc="white", ms=12, zorder=5)
            axis.axhline(0.0, color="black", lw=1)
            axis.set(ylabel="scale σ", aspect="equal", ylim=(-0.08, None))
            label_panel(axis, label)
        axes[-1].set(xlabel="mean μ")
    return figure


def _circles(axis: Axes, centres: ArrayLike, radius: float) -> None:
    """Draw Fisher circles around the centres."""
    for centre in np.asarray(centres):
        axis.add_patch(_circle(centre, radius, fc="0.9", ec="0.6", lw=0.7))


def _circle(centre: Sequence[float], radius: float, **looks: Any) -> Ellipse:
    """All Gaussians at which the quadratic part of the divergence from the centre is `radius`."""
    fisher = jax.device_get(gaussian_fisher(np.float64(centre[1])))
    width, height = (2 * np.sqrt(2 * radius / float(f)) for f in (fisher.means, fisher.scales))
    return Ellipse((float(centre[0]), float(centre[1])), width, height, **looks)
