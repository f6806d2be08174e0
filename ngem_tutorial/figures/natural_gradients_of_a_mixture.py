"""Figures of the page on the natural gradients of a mixture that is fitted to a density."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from jax.typing import ArrayLike
from matplotlib.figure import Figure

from ngem_tutorial.figures.style import PALETTE, label_panel, style

__all__ = ["cosines", "touching_bounds", "update"]

_INK = "black"
_GREY = PALETTE["truth"]
_ORDER = tuple(PALETTE[m] for m in ("damped nGEM", "NLL", "nGEM, as derived", "fully damped nGEM"))


def touching_bounds(
    grid: ArrayLike,
    elbo: ArrayLike,
    at: ArrayLike,
    values: ArrayLike,
    bounds: ArrayLike,
    limits: Sequence[float],
) -> Figure:
    """The ELBO along a line, and the lower bounds that touch it.

    Args:
        grid: values of the parameter, shape `(G,)`.
        elbo: at `grid`, in nats, shape `(G,)`.
        at: where the bounds were taken, shape `(T,)`, `T` at most 4.
        values: of the ELBO there, shape `(T,)`.
        bounds: at `grid`, shape `(T, G)`.
        limits: left, right, bottom and top.

    Returns:
        The ELBO is black, each bound has a dot where it touches and a dotted line from its top up
        to the ELBO.
    """
    x, points = np.asarray(grid), np.asarray(at)
    heights, curves, ink = np.asarray(values), np.asarray(bounds), np.asarray(elbo)
    with style():
        figure, axis = plt.subplots(figsize=(5.6, 3.3))
        axis.plot(x, ink, color=_INK, lw=1.8)
        for i, (point, height, curve) in enumerate(zip(points, heights, curves, strict=True)):
            axis.plot(x, curve, color=_ORDER[i], lw=1.3)
            axis.plot(point, height, "o", color=_ORDER[i], ms=6, zorder=3)
            axis.annotate(
                str(i), (point, height), (-8, 5), ha="center", textcoords="offset points",
                color=_ORDER[i],
            )  # fmt: skip
            top = int(curve.argmax())
            axis.plot([x[top]] * 2, [curve[top], ink[top]], color="gray", lw=1, ls=":")
        axis.set(xlim=limits[:2], ylim=limits[2:])
        axis.set(xlabel="mean of the first component", ylabel="ELBO (nats)")
    return figure


def update(
    grid: ArrayLike,
    target: ArrayLike,
    mixtures: Mapping[str, tuple[ArrayLike, ArrayLike]],
    reward: ArrayLike,
) -> Figure:
    """A mixture before and after an update, and what the update was made from.

    Args:
        grid: points on the line, shape `(G,)`.
        target: its density, shape `(G,)`.
        mixtures: for each label, two of them, the density, shape `(G,)`, and its parts, the
            components times their weights, shape `(G, K)`.
        reward: `rho` of the first mixture, shape `(G,)`.

    Returns:
        Three panels below one another: the first mixture, `rho`, the second mixture.
    """
    x = np.asarray(grid)
    panels = list(mixtures.items())
    order = [panels[0], None, panels[1]]
    with style():
        figure, axes = plt.subplots(3, 1, figsize=(5.6, 5.4), sharex=True)
        for axis, panel in zip(axes, order, strict=True):
            if panel is None:
                axis.plot(x, np.asarray(reward), color=_INK, lw=1.5)
                axis.axhline(0.0, color=_GREY, lw=0.8, ls=":")
                axis.set_ylabel("nats")
                label_panel(axis, "ρ = log p̃ − log q of the mixture above")
                continue
            label, (density, parts) = panel
            axis.fill_between(x, np.asarray(target), color="0.85", lw=0)
            axis.plot(x, np.asarray(density), color=_INK, lw=1.0, ls="--")
            for part, colour in zip(np.asarray(parts).T, _ORDER, strict=False):
                axis.plot(x, part, color=colour, lw=1.8)
            axis.set(yticks=[], ylim=(0.0, None), ylabel="density")
            label_panel(axis, label)
        axes[-1].set(xlim=(x[0], x[-1]), xlabel="x")
    return figure


def cosines(distances: ArrayLike, values: ArrayLike) -> Figure:
    """How far two natural gradients point apart, by the distance of two components.

    Args:
        distances: of the means, in scales, shape `(D,)`.
        values: the cosines, shape `(D,)`.

    Returns:
        A curve.
    """
    with style():
        figure, axis = plt.subplots(figsize=(5.2, 2.8))
        axis.axhline(1.0, color=_GREY, lw=0.8, ls=":")
        axis.plot(np.asarray(distances), np.asarray(values), color=_ORDER[0])
        axis.set(xlabel="distance of the two means, in scales", ylabel="cosine")
    return figure
