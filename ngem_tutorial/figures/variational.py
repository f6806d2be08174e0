"""Figures of the page of experiments with densities."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from jax.typing import ArrayLike
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse

from ngem_tutorial.components import FullGaussianMixture
from ngem_tutorial.figures.style import label_panel, style

__all__ = ["arms", "modes", "settling"]

_BLUE, _ORANGE, _GREEN, _PINK = "#0072B2", "#E69F00", "#009E73", "#CC79A7"
_LOOKS = {"SAMTRON": (_BLUE, "o"), "ZAMTRUX": (_GREEN, "s"), "SEPIFUX": (_ORANGE, "^"),
          "SEPYFUX": (_PINK, "v")}  # fmt: skip


def settling(
    targets: Mapping[str, Callable[[jax.Array], jax.Array]],
    fits: Mapping[str, Mapping[str, FullGaussianMixture]],
    extents: Mapping[str, tuple[float, float, float, float]],
) -> Figure:
    """Components on their way to targets in the plane.

    Args:
        targets: log densities by name, of a point `(2,)`.
        fits: for each of these names mixtures of `d = 2`, by the label of their column.
        extents: for each name the least and largest first, then second coordinate that are shown.

    Returns:
        A row of panels for each target, grey where its density is high. Ellipses are one standard
        deviation wide, and the fainter the less weight a component has.
    """
    labels = list(next(iter(fits.values())))
    with style():
        size = (2.0 * len(labels) + 0.4, 2.1 * len(targets))
        figure, axes = plt.subplots(len(targets), len(labels), figsize=size, squeeze=False)
        for row, (name, log_density) in zip(axes, targets.items(), strict=True):
            left, right, low, high = extents[name]
            x, y = np.linspace(left, right, 121), np.linspace(low, high, 121)
            points = jnp.stack(jnp.meshgrid(x, y), axis=-1)
            density = np.exp(np.asarray(jax.vmap(jax.vmap(log_density))(points)))
            for axis, label in zip(row, labels, strict=True):
                axis.pcolormesh(x, y, density, cmap="Greys", shading="gouraud", rasterized=True)
                _ellipses(axis, fits[name][label])
                axis.set(xticks=[], yticks=[], xlim=(left, right), ylim=(low, high))
            row[0].set_ylabel(name)
        for axis, label in zip(axes[0], labels, strict=True):
            axis.set_title(label, fontsize=10)
    return figure


def _ellipses(axis: Axes, mixture: FullGaussianMixture) -> None:
    weights = np.asarray(mixture.weights)
    for weight, mean, factor in zip(weights, mixture.means, mixture.factors, strict=True):
        axes, singular, _ = np.linalg.svd(np.asarray(factor, np.float64))
        angle = float(np.degrees(np.arctan2(axes[1, 0], axes[0, 0])))
        axis.add_patch(
            Ellipse(
                (float(mean[0]), float(mean[1])),
                2.0 * singular[0],
                2.0 * singular[1],
                angle=angle,
                facecolor="none",
                edgecolor=_BLUE,
                lw=1.4,
                alpha=float(0.08 + 0.92 * min(1.0, weight / weights.max() * 2.0)),
            )
        )


def arms(angles: ArrayLike, weights: ArrayLike, goals: ArrayLike) -> Figure:
    """A robot's arm in many postures.

    Args:
        angles: of the joints, each relative to the link before, shape `(N, J)`.
        weights: how dark each posture is drawn, at most 1, shape `(N,)`.
        goals: where the end may be, shape `(G, 2)`.

    Returns:
        Arms of unit links from the origin, and the goals as crosses.
    """
    headings = np.cumsum(np.asarray(angles, np.float64), axis=1)
    joints = np.stack([np.cos(headings), np.sin(headings)], axis=-1).cumsum(axis=1)
    joints = np.concatenate([np.zeros((len(joints), 1, 2)), joints], axis=1)
    with style():
        figure, axis = plt.subplots(figsize=(4.6, 4.6))
        for arm, weight in zip(joints, np.asarray(weights, np.float64), strict=True):
            axis.plot(*arm.T, color=_BLUE, lw=1.0, alpha=float(weight), solid_capstyle="round")
        axis.plot(*np.asarray(goals).T, "x", color="#D55E00", ms=10, mew=2.5, zorder=3)
        axis.plot(0.0, 0.0, "o", color="black", ms=5, zorder=3)
        axis.set(aspect="equal", xlim=(-8.5, 8.5), ylim=(-8.5, 8.5), xlabel="$x$", ylabel="$y$")
    return figure


def modes(table: pd.DataFrame, targets: Sequence[str], methods: Sequence[str]) -> Figure:
    """How many of a target's modes each run found.

    Args:
        table: a row for each run, with the columns `target`, `method`, `modes_found`, `num_modes`.
        targets: one panel each.
        methods: one row of a panel each.

    Returns:
        A dot for each run, spread in its row; the dotted line is the number of modes.
    """
    with style():
        figure, axes = plt.subplots(1, len(targets), figsize=(7.5, 2.5), sharey=True, squeeze=False)
        for axis, target in zip(axes[0], targets, strict=True):
            for row, method in enumerate(methods):
                runs = table[(table["target"] == target) & (table["method"] == method)]
                found = np.sort(runs["modes_found"].dropna().to_numpy())
                spread = np.linspace(-0.25, 0.25, len(found))
                colour, marker = _LOOKS.get(method, ("0.3", "o"))
                axis.plot(found, row + spread, marker, color=colour, ms=4, alpha=0.7, mew=0)
            number = float(table.loc[table["target"] == target, "num_modes"].max())
            axis.axvline(number, color="0.4", ls=":", lw=1.0)
            axis.set(xlim=(-0.04 * number, 1.06 * number), yticks=range(len(methods)))
            axis.set_yticklabels(methods)
            axis.set_xlabel("modes found")
            label_panel(axis, target)
        axes[0, 0].invert_yaxis()
    return figure
