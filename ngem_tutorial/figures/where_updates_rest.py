"""Figures of the page on what an update is, and where it rests."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse
from numpy.typing import ArrayLike

from ngem_tutorial.figures.style import PALETTE, label_panel, style

__all__ = [
    "covariances_by_exponent",
    "estimates_and_ratios",
    "two_projections",
    "way_to_the_rest",
]

_LINES: dict[str, dict[str, Any]] = {
    "p = 0": {"color": PALETTE["NLL"], "linestyle": "-"},
    "p = 1/2": {"color": "#882255", "linestyle": (0, (5, 1.5))},
    "p = 1": {"color": PALETTE["undamped nGEM"], "linestyle": (0, (5, 1.5, 1, 1.5))},
    "p from 1 to 0": {"color": PALETTE["damped nGEM"], "linestyle": (0, (1, 1))},
}
"""One for each exponent, the same in all figures: those of NLL and of undamped nGEM at the ends."""


def two_projections(
    start: ArrayLike, target: ArrayLike, direction: ArrayLike, scales: ArrayLike
) -> Figure:
    """One target and two norms: where the outputs that a network can reach come closest to it.

    Args:
        start: the outputs for two inputs, shape `(2,)`.
        target: where their natural gradient step leads, shape `(2,)`.
        direction: the only direction in which the network can move its outputs, shape `(2,)`.
        scales: of the two Gaussians, shape `(2,)`; the Fisher matrix is diagonal, with one over
            their squares.

    Returns:
        A panel with circles around the target, and one with the ellipses of the Fisher norm.
    """
    start, target, direction, scales = (
        np.asarray(a, float) for a in (start, target, direction, scales)
    )
    norms = {"Euclidean norm: nGEM": np.ones(2), "Fisher norm: NLL": scales**-2}
    feet = {
        label: start + direction * ((w * direction) @ (target - start)) / (w @ direction**2)
        for label, w in norms.items()
    }
    colors = (PALETTE["undamped nGEM"], PALETTE["NLL"])
    with style():
        figure, axes = plt.subplots(1, 2, figsize=(7.0, 3.9), sharey=True)
        for axis, (label, w), color in zip(axes, norms.items(), colors, strict=True):
            foot = feet[label]
            axis.axline(start, start + direction, color="#999999", lw=1.2)
            radius = np.sqrt(w @ (foot - target) ** 2)
            for share in (1 / 3, 2 / 3, 1.0):
                width, height = 2 * share * radius / np.sqrt(w)
                axis.add_patch(
                    Ellipse(target, width, height, fill=False, ec=color, lw=1.0, alpha=0.6)  # type: ignore[arg-type]
                )
            between = np.stack(list(feet.values()))
            axis.plot(*between.T, color="#999999", lw=7, alpha=0.45, solid_capstyle="butt")
            axis.plot(*np.stack([target, foot]).T, color=color, lw=1.5, ls=(0, (4, 2)))
            axis.annotate(
                "", foot, start, arrowprops={"arrowstyle": "->", "color": color, "lw": 2.2}
            )
            axis.plot(*target, "*", color="black", ms=13)
            axis.plot(*start, "o", color="black", ms=6)
            axis.plot(*foot, "s", color=color, ms=7)
            axis.annotate(r"$\phi_t$", start, (6, -13), textcoords="offset points", fontsize=11)
            axis.annotate(r"$\hat\phi$", target, (-16, 6), textcoords="offset points", fontsize=11)
            axis.set_aspect("equal")
            axis.set(xlim=(-2.2, 2.0), ylim=(-1.1, 3.1))
            axis.set_xlabel("output for the first input")
            label_panel(axis, label)
        axes[0].set_ylabel("output for the second input")
        axes[0].text(-0.68, -1.02, "within reach", rotation=45, color="#666666", fontsize=9)
    return figure


def estimates_and_ratios(
    estimates: Mapping[str, ArrayLike],
    predicted: Mapping[str, float],
    spreads: ArrayLike,
    ratios: Mapping[str, ArrayLike],
    simulated: Mapping[str, tuple[ArrayLike, ArrayLike]],
) -> Figure:
    """How the estimates of a shared mean scatter, and what that costs.

    Args:
        estimates: for each exponent the estimates from many data sets, shape `(R,)`.
        predicted: for each exponent their standard deviation.
        spreads: ratios of the larger scale to the smaller, shape `(S,)`.
        ratios: for each exponent the variance relative to that of NLL, shape `(S,)`.
        simulated: for each exponent a few ratios of scales and the simulated variance there.

    Returns:
        Histograms with the predicted densities, and the ratios of variances.
    """
    with style():
        figure, (left, right) = plt.subplots(1, 2, figsize=(7.2, 3.5))
        edge = 3.2 * max(predicted.values())
        grid, bins = np.linspace(-edge, edge, 801), np.linspace(-edge, edge, 121)
        for label, values in estimates.items():
            line, deviation = _LINES[label], predicted[label]
            left.hist(np.asarray(values), bins=bins, density=True, color=line["color"], alpha=0.18)
            density = np.exp(-0.5 * (grid / deviation) ** 2) / (deviation * np.sqrt(2 * np.pi))
            left.plot(grid, density, lw=1.6, label=label, **line)
        left.set(xlabel="estimate of the mean", ylabel="density")
        left.legend(loc="upper right")
        label_panel(left, "many data sets")
        for label, values in ratios.items():
            right.loglog(spreads, values, lw=1.8, label=label, **_LINES[label])
            if label in simulated:
                at, found = simulated[label]
                right.loglog(at, found, "o", ms=5, color=_LINES[label]["color"])
        right.set(xlabel="ratio of the scales", ylabel="variance, relative to NLL")
        right.set_ylim(0.8, None)
        label_panel(right, "what the exponent costs")
    return figure


def way_to_the_rest(paths: Mapping[str, ArrayLike], fading: int) -> Figure:
    """A shared mean during training, with several exponents.

    Args:
        paths: for each exponent the mean before each update, shape `(T,)`.
        fading: number of updates after which a fading exponent is zero.

    Returns:
        The means against the updates.
    """
    with style():
        figure, axis = plt.subplots(figsize=(5.6, 3.3))
        for label, values in paths.items():
            values = np.asarray(values)
            axis.plot(values, lw=2, label=label, **_LINES[label])
            axis.axhline(values[-1], color="#BBBBBB", lw=0.8, zorder=0)
        axis.axvline(fading, color="#999999", lw=0.8, ls=(0, (2, 2)), zorder=0)
        axis.set(xlabel="update", ylabel="shared mean")
        axis.margins(x=0.0)
        axis.legend(loc="upper right")
    return figure


def covariances_by_exponent(scales: ArrayLike, num_points: int = 60, seed: int = 0) -> Figure:
    r"""Scores of three Gaussians in mean and log-scale, multiplied by a power of the Fisher matrix.

    Args:
        scales: of the Gaussians, shape `(3,)`.
        num_points: targets drawn from each, the same in units of its scale.
        seed: of the draw.

    Returns:
        A panel for each exponent 0, 1/2 and 1: the points, and the ellipse of one standard
        deviation of each Gaussian.
    """
    z = np.random.default_rng(seed).normal(size=num_points)
    colors, markers = ("#009E73", "#E69F00", "#0072B2"), ("o", "s", "^")
    with style():
        figure, axes = plt.subplots(1, 3, figsize=(7.4, 2.9), sharey=True)
        for axis, (label, p) in zip(
            axes, {"p = 0": 0.0, "p = 1/2": 0.5, "p = 1": 1.0}.items(), strict=True
        ):
            lines = zip(np.asarray(scales), colors, markers, (4.0, 2.4, 1.1), strict=True)
            for sigma, color, marker, width in lines:  # broad below narrow, so that all are seen
                mean, scale = sigma ** (2 * p - 1), 2.0 ** (0.5 - p)
                x, y = mean * z, scale * (z**2 - 1) / np.sqrt(2.0)
                axis.plot(x, y, marker, color=color, ms=2 + width / 2, alpha=0.6, mew=0)
                axis.add_patch(Ellipse((0, 0), 2 * mean, 2 * scale, fill=False, ec=color, lw=width))
                axis.plot([], [], marker, color=color, label=rf"$\sigma$ = {sigma:g}")
            axis.set_aspect("equal")
            axis.set(xlim=(-4.0, 4.0), ylim=(-1.8, 3.4))
            axis.set_xlabel("entry of the mean")
            label_panel(axis, label)
        axes[0].set_ylabel("entry of the log-scale")
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure
