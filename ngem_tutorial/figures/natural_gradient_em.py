"""Figures of the page on natural gradient EM."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import jax
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from ngem_tutorial.figures.style import PALETTE, label_panel, style
from ngem_tutorial.mixtures import GaussianMixture

__all__ = ["rescaled_training", "steps_on_half_plane", "weights_on_simplex"]


def steps_on_half_plane(
    start: GaussianMixture,
    steps: Mapping[str, GaussianMixture],
    optimum: tuple[float, float],
    *,
    longest: float = 1.6,
) -> Figure:
    """One step of a single Gaussian from each point of a grid of means and scales.

    Args:
        start: the Gaussians, `K = D = 1`, batch shape `(G,)`.
        steps: for each method what is added to `means` and `scales`, as a mixture of that shape.
        optimum: mean and scale of the best Gaussian.
        longest: a step longer than this is not drawn; a cross stands in its place.

    Returns:
        A panel for each method, one above the other, with the steps in their true length.
    """
    mu, sigma = np.asarray(start.means).ravel(), np.asarray(start.scales).ravel()
    with style():
        figure, axes = plt.subplots(
            len(steps), 1, figsize=(5.2, 2.8 * len(steps)), sharex=True, squeeze=False
        )
        for axis, (name, step) in zip(axes[:, 0], steps.items(), strict=True):
            u, v = np.asarray(step.means).ravel(), np.asarray(step.scales).ravel()
            short = np.hypot(u, v) <= longest
            axis.quiver(
                mu[short], sigma[short], u[short], v[short], color=PALETTE[name],
                angles="xy", scale_units="xy", scale=1, width=0.005, headwidth=4, headlength=4,
                headaxislength=3.5, minlength=0, zorder=3,
            )  # fmt: skip
            axis.plot(mu[short], sigma[short], ".", color=PALETTE[name], ms=3)
            axis.plot(mu[~short], sigma[~short], "x", color="black", ms=6, mew=1.2)
            axis.plot(*optimum, "*", color="black", mfc="white", ms=13, zorder=4)
            margin = 0.3
            axis.set(xlim=(mu.min() - margin, mu.max() + margin), ylim=(0, sigma.max() + margin))
            axis.set(ylabel=r"scale $\sigma$", aspect="equal")
            label_panel(axis, name)
        axes[-1, 0].set_xlabel(r"mean $\mu$")
    return figure


def weights_on_simplex(
    paths: Mapping[str, Sequence[jax.Array]],
    target: ArrayLike,
    *,
    other: tuple[str, ArrayLike] | None = None,
    colours: Mapping[str, str] | None = None,
    every: int = 5,
) -> Figure:
    """Paths of three weights in the simplex.

    Args:
        paths: for each label the paths of the weights, each of shape `(T, 3)`; a circle at the
            start and a dot every `every` updates.
        target: the averages of the responsibilities, shape `(3,)`; a star.
        other: a label of `paths` and the point, shape `(3,)`, at which its paths end instead; a
            square in that panel.
        colours: for each label the name of its colour in `PALETTE`; the label by default.
        every: updates between dots.

    Returns:
        Two panels in a row; each corner is a weight of one.
    """
    corners = np.array([[0.0, 0.0], [1.0, 0.0], [0.5, np.sqrt(0.75)]])
    rows = -(-len(paths) // 2)
    with style():
        figure, axes = plt.subplots(rows, 2, figsize=(5.2, 2.4 * rows), squeeze=False)
        for axis in axes.flat:
            axis.axis("off")
        for axis, (name, several) in zip(axes.flat, paths.items(), strict=False):
            colour = PALETTE[(colours or {}).get(name, name)]
            _triangle(axis, corners)
            for path in several:
                points = np.asarray(path) @ corners
                axis.plot(*points.T, "-", color=colour, lw=0.9)
                axis.plot(*points[::every].T, ".", color=colour, ms=4)
                axis.plot(*points[0], "o", color=colour, mfc="white", ms=6)
            axis.plot(*(np.asarray(target) @ corners), "*", color="black", mfc="white", ms=13)
            if other is not None and other[0] == name:
                axis.plot(*(np.asarray(other[1]) @ corners), "s", color="black", mfc="white", ms=7)
            label_panel(axis, name)
    return figure


def rescaled_training(curves: Mapping[str, Mapping[float, jax.Array]], labels: str) -> Figure:
    """Excess of the likelihood during training, the same data in several units.

    Args:
        curves: for each method, and for each factor of the units, the mean negative
            log-likelihood above the best value before each update, shape `(T,)`.
        labels: how a factor is written, a format string with one field.

    Returns:
        A panel for each method with a logarithmic axis of updates.
    """
    lines = ("-", "--", ":", "-.")
    with style():
        figure, axes = plt.subplots(
            1, len(curves), figsize=(2.9 * len(curves), 2.8), sharey=True, squeeze=False
        )
        for axis, (name, by_factor) in zip(axes[0], curves.items(), strict=True):
            for line, (factor, excess) in zip(lines, by_factor.items(), strict=False):
                updates = np.arange(1, len(excess) + 1)
                axis.plot(
                    updates, excess, line, color=PALETTE[name], lw=1.8, label=labels.format(factor)
                )
            axis.set(xscale="log", xlabel="update", xlim=(20, None))
            axis.legend(fontsize=9)
            label_panel(axis, name)
        axes[0, 0].set_ylabel("excess NLL (nats)")
    return figure


def _triangle(axis: Axes, corners: np.ndarray) -> None:
    axis.fill(*corners.T, facecolor="#F4F4F4", edgecolor=PALETTE["truth"], lw=0.8)
    places: tuple[tuple[float, float, str, str], ...] = (
        (-0.03, -0.03, "right", "top"),
        (0.03, -0.03, "left", "top"),
        (0.0, 0.03, "center", "bottom"),
    )
    for k, ((x, y), (right, up, ha, va)) in enumerate(zip(corners, places, strict=True)):
        axis.text(x + right, y + up, rf"$\pi_{k + 1}$", ha=ha, va=va, fontsize=10)
    axis.set(xlim=(-0.12, 1.12), ylim=(-0.12, 1.0), aspect="equal")
