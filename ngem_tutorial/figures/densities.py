"""Figures of densities in one and two dimensions and of conditional ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from jax.typing import ArrayLike
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ngem_tutorial.figures.style import PALETTE, label_panel, style
from ngem_tutorial.mixtures import GaussianMixture

__all__ = [
    "conditional_densities",
    "densities_with_components",
    "density_grid",
    "density_with_marginals",
    "forward_and_inverse",
    "mean_trajectories",
    "one_and_two_modes",
]


def density_with_marginals(
    panels: Mapping[str, GaussianMixture],
    truth: GaussianMixture,
    *,
    points: ArrayLike | None = None,
    extent: float = 4.5,
) -> Figure:
    """Learned densities in two dimensions, with their marginals against the truth's.

    Args:
        panels: mixtures of `D = 2`, batch shape `()`, by the label of their panel.
        truth: the mixture that the data were drawn from; its means are stars.
        points: the data, shape `(N, 2)`, drawn as crosses if given.
        extent: half the width of the square that is shown, in the units of the data.

    Returns:
        A panel for each mixture: a heat map with the marginals above and to the right.
    """
    grid = jnp.linspace(-extent, extent, 161)
    square = jnp.stack(jnp.meshgrid(grid, grid), axis=-1)
    with style():
        figure = plt.figure(figsize=(4.2 * len(panels), 4.2))
        for subfigure, (label, mixture) in zip(
            figure.subfigures(1, len(panels), squeeze=False)[0], panels.items(), strict=True
        ):
            axes = subfigure.subplot_mosaic(
                [["top", "."], ["map", "right"]], height_ratios=(1, 4), width_ratios=(4, 1)
            )
            density = jnp.exp(mixture.log_prob(square))
            axes["map"].pcolormesh(grid, grid, density, cmap="Blues", shading="gouraud")
            if points is not None:
                axes["map"].plot(*np.asarray(points).T, "x", color=PALETTE["truth"], ms=2, mew=0.5)
            axes["map"].plot(
                *truth.means.T, "*", color="black", mfc="white", ms=11, label="true mean"
            )
            axes["map"].plot(
                *mixture.means.T, "o", color=PALETTE["NLL"], ms=5, label="learned mean"
            )
            axes["map"].set(xlabel="$y_1$", ylabel="$y_2$", aspect="equal")
            axes["map"].legend(loc="lower right", fontsize=8)
            _marginal(axes["top"], grid, truth.marginal(0), mixture.marginal(0))
            _marginal(axes["right"], grid, truth.marginal(1), mixture.marginal(1), flip=True)
            label_panel(axes["map"], label)
    return figure


def density_grid(
    rows: Mapping[str, Sequence[GaussianMixture]], truth: GaussianMixture, *, extent: float = 4.5
) -> Figure:
    """Learned densities of several runs in two dimensions, a row per method.

    Args:
        rows: for each method its mixtures of `D = 2`, batch shape `()`, as many in each row.
        truth: the mixture that the data were drawn from; its means are stars.
        extent: half the width of the squares that are shown, in the units of the data.

    Returns:
        Heat maps; dots are the learned means.
    """
    grid = jnp.linspace(-extent, extent, 121)
    points = jnp.stack(jnp.meshgrid(grid, grid), axis=-1)
    columns = len(next(iter(rows.values())))
    with style():
        figure, axes = plt.subplots(
            len(rows),
            columns,
            figsize=(1.7 * columns + 0.4, 1.7 * len(rows)),
            sharex=True,
            sharey=True,
            squeeze=False,
        )
        for row, (label, mixtures) in zip(axes, rows.items(), strict=True):
            for axis, mixture in zip(row, mixtures, strict=True):
                density = jnp.exp(mixture.log_prob(points))
                axis.pcolormesh(
                    grid, grid, density, cmap="Blues", shading="gouraud", rasterized=True
                )
                axis.plot(*truth.means.T, "*", color="black", mfc="white", ms=7)
                axis.plot(*mixture.means.T, "o", color=PALETTE["NLL"], ms=3)
                axis.set(aspect="equal", xticks=[], yticks=[])
            row[0].set_ylabel(label)
    return figure


def mean_trajectories(
    panels: Mapping[str, GaussianMixture], truth: GaussianMixture, *, extent: float = 4.0
) -> Figure:
    """Where the component means went during training.

    Args:
        panels: for each label the recorded mixtures of one run, batch shape `(R,)`, `D = 2`.
        truth: the mixture that the data were drawn from.
        extent: half the width of the square that is shown, in the units of the data.

    Returns:
        A panel for each run: a path for each component from its square to its circle, a dot for
        each recorded point.
    """
    with style():
        figure, axes = plt.subplots(
            1, len(panels), figsize=(3.8 * len(panels), 3.8), sharey=True, squeeze=False
        )
        for axis, (label, path) in zip(axes[0], panels.items(), strict=True):
            colour = PALETTE.get(label.split(",")[0], PALETTE["truth"])
            for k in range(path.num_components):
                x, y = np.asarray(path.means)[:, k].T
                axis.plot(x, y, ".-", color=colour, lw=1, ms=4)
                axis.plot(x[0], y[0], "s", color=colour, mfc="white", ms=7)
                axis.plot(x[-1], y[-1], "o", color=colour, ms=7)
            axis.plot(*truth.means.T, "*", color="black", mfc="white", ms=12)
            axis.set(xlim=(-extent, extent), ylim=(-extent, extent), aspect="equal")
            axis.set(xlabel="$y_1$")
            label_panel(axis, label)
        axes[0, 0].set_ylabel("$y_2$")
    return figure


def one_and_two_modes(gaussian: GaussianMixture, mixture: GaussianMixture) -> Figure:
    """A Gaussian beside a mixture with the same mean, in one dimension.

    Args:
        gaussian: one component, `D = 1`, batch shape `()`.
        mixture: several components, `D = 1`, batch shape `()`.

    Returns:
        Two panels with one vertical axis; the dashed line is the mean.
    """
    grid = jnp.linspace(-6.0, 6.0, 400)
    with style():
        figure, axes = plt.subplots(1, 2, figsize=(7.5, 2.8), sharey=True)
        for axis, density in zip(axes, (gaussian, mixture), strict=True):
            total = jnp.exp(density.log_prob(grid[:, None]))
            parts = density.weights * jnp.exp(density.component_log_prob(grid[:, None]))
            axis.plot(grid, total, color=PALETTE["damped nGEM"])
            axis.fill_between(grid, total, color=PALETTE["damped nGEM"], alpha=0.15, lw=0)
            if density.num_components > 1:
                axis.plot(grid, parts, color=PALETTE["truth"], lw=0.8, ls=":")
            axis.axvline(float(density.mean[0]), color=PALETTE["truth"], lw=0.8, ls="--")
            axis.set(xlabel="$y$")
            k = density.num_components
            label_panel(axis, "one Gaussian" if k == 1 else f"mixture of {k} Gaussians")
        axes[0].set(ylabel="density", ylim=(0, None))
    return figure


def forward_and_inverse(
    x: jax.Array, y: jax.Array, grid: jax.Array, forward: jax.Array, mean: jax.Array
) -> Figure:
    """A function with noise, and the same points with the axes swapped.

    Args:
        x: inputs of the inverse problem, shape `(N, 1)`.
        y: its targets, shape `(N, 1)`.
        grid: points of both axes, shape `(G,)`.
        forward: the function that maps a target to its input, at `grid`, shape `(G,)`.
        mean: the conditional mean of the target at the inputs `grid`, shape `(G,)`.

    Returns:
        Two panels: `x` against `y` with the function, `y` against `x` with the conditional mean.
    """
    dots: Any = {"ls": "", "marker": ".", "ms": 3, "color": PALETTE["truth"], "alpha": 0.35}
    with style():
        figure, axes = plt.subplots(1, 2, figsize=(7.5, 3.2))
        axes[0].plot(y[:, 0], x[:, 0], **dots)
        axes[0].plot(grid, forward, color=PALETTE["damped nGEM"])
        axes[0].set(xlabel="$y$", ylabel="$x$", ylim=(-0.2, 1.2))
        axes[1].plot(x[:, 0], y[:, 0], **dots)
        axes[1].plot(grid, mean, color=PALETTE["NLL"])
        axes[1].set(xlabel="$x$", ylabel="$y$", xlim=(-0.2, 1.2), ylim=(-0.05, 1.05))
        label_panel(axes[0], "forward: one answer")
        label_panel(axes[1], "inverse: several answers")
    return figure


def densities_with_components(panels: Mapping[str, GaussianMixture], y: jax.Array) -> Figure:
    """Densities in one dimension over a histogram of the data, with their weighted components.

    Args:
        panels: for each label a mixture of `D = 1`, batch shape `()`.
        y: the data, shape `(N, 1)`.

    Returns:
        A row of panels: the density is solid, its weighted components are dashed.
    """
    margin = 0.1 * float(y.max() - y.min())
    grid = jnp.linspace(y.min() - margin, y.max() + margin, 500)
    with style():
        figure, axes = plt.subplots(
            1, len(panels), figsize=(3.75 * len(panels), 2.8), sharey=True, squeeze=False
        )
        for axis, (label, mixture) in zip(axes[0], panels.items(), strict=True):
            axis.hist(
                np.asarray(y[:, 0]), bins=30, density=True, color=PALETTE["truth"], alpha=0.25
            )
            log_parts = mixture.log_weights + mixture.component_log_prob(grid[:, None])
            axis.plot(grid, jnp.exp(mixture.log_prob(grid[:, None])), color=PALETTE["damped nGEM"])
            axis.plot(grid, jnp.exp(log_parts), color="black", lw=0.9, ls="--")
            axis.set(xlabel="$y$")
            label_panel(axis, label)
        axes[0, 0].set_ylabel("density")
    return figure


def conditional_densities(
    panels: Mapping[str, GaussianMixture], x: jax.Array, *, extent: float = 4.5, columns: int = 3
) -> Figure:
    """Conditional densities of a target in one dimension, with their component means.

    Args:
        panels: for each label the mixtures at the inputs `x`, batch shape `(G,)`, `D = 1`.
        x: increasing inputs, shape `(G,)`.
        extent: the targets shown are from `-extent` to `extent`.
        columns: panels in a row.

    Returns:
        A heat map of the density for each panel, all on one colour scale. The means are dots with
        an area proportional to their weight, of another colour and shape for each component.
    """
    grid = jnp.linspace(-extent, extent, 181)
    rows = -(-len(panels) // columns)
    densities = {
        label: np.asarray(jnp.exp(mixture.log_prob(grid[:, None, None])))
        for label, mixture in panels.items()
    }
    # One scale for all panels; narrow peaks at single inputs saturate.
    top = max(float(np.quantile(density.max(axis=0), 0.5)) for density in densities.values())
    marks = (("#D55E00", "o"), ("#000000", "D"), ("#009E73", "s"))
    with style():
        figure, axes = plt.subplots(
            rows, columns, figsize=(2.5 * columns, 2.1 * rows), sharex=True, sharey=True,
            squeeze=False,
        )  # fmt: skip
        for axis in axes.flat[len(panels) :]:
            axis.axis("off")
        for axis, (label, mixture) in zip(axes.flat, panels.items(), strict=False):
            axis.pcolormesh(
                x, grid, densities[label], cmap="Blues", vmin=0, vmax=top, rasterized=True
            )
            for k in range(mixture.num_components):
                colour, shape = marks[k % len(marks)]
                area = 12.0 * np.asarray(mixture.weights)[::4, k]
                axis.scatter(x[::4], mixture.means[::4, k, 0], s=area, c=colour, marker=shape, lw=0)
            axis.set(ylim=(-extent, extent))
            label_panel(axis, label)
        for axis in axes[-1]:
            axis.set_xlabel("$x$")
        for axis in axes[:, 0]:
            axis.set_ylabel("$y$")
    return figure


def _marginal(
    axis: Axes, grid: jax.Array, truth: GaussianMixture, learned: GaussianMixture,
    *, flip: bool = False,
) -> None:  # fmt: skip
    true, own = (jnp.exp(m.log_prob(grid[:, None])) for m in (truth, learned))
    fill = axis.fill_betweenx if flip else axis.fill_between
    fill(grid, true, facecolor="none", edgecolor="gray", hatch="////", lw=0.5)
    fill(grid, own, color=PALETTE["NLL"], alpha=0.35, lw=0)
    axis.axis("off")
