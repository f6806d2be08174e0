"""Figures of the page on reverse and forward divergence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from jax.typing import ArrayLike
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse

from ngem_tutorial.components import FullGaussianMixture
from ngem_tutorial.figures.style import PALETTE, label_panel, style

__all__ = ["frames", "missing_mode", "plane"]

_REVERSE, _FORWARD = PALETTE["damped nGEM"], PALETTE["NLL"]
_GREY = PALETTE["truth"]


def frames(
    grid: ArrayLike,
    target: ArrayLike,
    rows: Mapping[tuple[str, str], ArrayLike],
    moments: Sequence[int],
) -> Figure:
    """Densities on their way to a target, a row for each fit and a column for each moment.

    Args:
        grid: points on the line, shape `(G,)`.
        target: its density at them, shape `(G,)`.
        rows: the densities of a fit at the grid, shape `(T, G)`, by the divergence, `"reverse"`
            or `"forward"`, and the name of the row.
        moments: after how many updates each of the `T` densities was drawn.

    Returns:
        A table of panels: the target is grey, the fit has the colour of its divergence.
    """
    x, shade = np.asarray(grid), np.asarray(target)
    top = 1.05 * max(shade.max(), *(float(np.max(densities)) for densities in rows.values()))
    with style():
        figure, axes = plt.subplots(
            len(rows),
            len(moments),
            figsize=(7.5, 1.25 * len(rows) + 0.5),
            sharex=True,
            sharey=True,
            squeeze=False,
        )
        for line, ((divergence, name), densities) in zip(axes, rows.items(), strict=True):
            reverse = divergence == "reverse"
            for axis, density in zip(line, np.asarray(densities), strict=True):
                axis.fill_between(x, shade, color="0.85", lw=0)
                axis.plot(
                    x, density, color=_REVERSE if reverse else _FORWARD, ls="-" if reverse else "--"
                )
                axis.set(yticks=[], xlim=(x[0], x[-1]), ylim=(0.0, top))
            line[0].set_ylabel(name, fontsize=9)
        for axis, moment in zip(axes[0], moments, strict=True):
            label_panel(axis, "start" if moment == 0 else f"{moment} updates")
        for axis in axes[-1]:
            axis.set_xlabel("x")
    return figure


def missing_mode(
    shares: ArrayLike, reverse: ArrayLike, forward: ArrayLike, limit: float, mass: float
) -> Figure:
    """What it costs to give a mode too little mass.

    Args:
        shares: mass that the approximation gives to the mode, shape `(E,)`, increasing.
        reverse: least reverse divergence with this mass, in nats, shape `(E,)`.
        forward: least forward divergence, likewise.
        limit: the reverse divergence without any mass there.
        mass: of the target on the mode.

    Returns:
        Two curves over a logarithmic axis, the limit dotted.
    """
    x = np.asarray(shares)
    with style():
        figure, axis = plt.subplots(figsize=(5.6, 3.2))
        axis.plot(x, np.asarray(forward), color=_FORWARD, ls="--", label="forward, KL(p ‖ q)")
        axis.plot(x, np.asarray(reverse), color=_REVERSE, label="reverse, KL(q ‖ p)")
        axis.axhline(limit, color=_GREY, ls=":", lw=1.2)
        axis.text(x[0], limit + 0.04, f"{limit:.3f}", color=_GREY, va="bottom", ha="left")
        axis.plot(mass, 0.0, "*", color="black", ms=9, clip_on=False, zorder=4)
        axis.set(xscale="log", xlim=(x[0], x[-1]), ylim=(0.0, None))
        axis.set(xlabel="mass of q on the mode", ylabel="divergence (nats)")
        axis.legend()
    return figure


def plane(
    grid: Sequence[ArrayLike],
    target: ArrayLike,
    panels: Mapping[str, FullGaussianMixture],
) -> Figure:
    """A density in the plane and the components of mixtures that were fitted to it.

    Args:
        grid: the two coordinates, shapes `(X,)` and `(Y,)`.
        target: the density, not normalised, shape `(Y, X)`.
        panels: a mixture in the plane for each label.

    Returns:
        A row of panels. The ellipses are one and two standard deviations wide, and the fainter
        the smaller the weight.
    """
    first, second = (np.asarray(axis) for axis in grid)
    with style():
        figure, axes = plt.subplots(1, len(panels), figsize=(7.5, 3.3), sharey=True, squeeze=False)
        for axis, (label, mixture) in zip(axes[0], panels.items(), strict=True):
            axis.contourf(first, second, np.asarray(target), levels=8, cmap="Greys")
            weights = np.asarray(mixture.weights)
            for weight, mean, covariance in zip(
                weights, np.asarray(mixture.means), np.asarray(mixture.covariances), strict=True
            ):
                values, vectors = np.linalg.eigh(covariance)
                angle = float(np.degrees(np.arctan2(vectors[1, 1], vectors[0, 1])))
                strength = float(0.15 + 0.85 * weight / weights.max())
                for radius in (1.0, 2.0):
                    axis.add_patch(
                        Ellipse(
                            (float(mean[0]), float(mean[1])),
                            2.0 * radius * float(values[1]) ** 0.5,
                            2.0 * radius * float(values[0]) ** 0.5,
                            angle=angle,
                            fc="none",
                            ec=_REVERSE,
                            lw=1.2,
                            alpha=strength,
                        )
                    )
            axis.set(xlim=(first[0], first[-1]), ylim=(second[0], second[-1]), xlabel="$x_1$")
            label_panel(axis, label)
        axes[0, 0].set_ylabel("$x_2$")
    return figure
