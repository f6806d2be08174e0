"""Figures, drawn from tables and mixtures. The same method has the same colour everywhere."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.backend_bases import FigureCanvasBase
from matplotlib.figure import Figure

from ngem_tutorial._files import write_atomically
from ngem_tutorial.metrics import wilson_interval
from ngem_tutorial.mixtures import GaussianMixture

__all__ = [
    "DASHES",
    "PALETTE",
    "check_format",
    "conditional_densities",
    "convergence",
    "densities_with_components",
    "density_grid",
    "density_with_marginals",
    "forward_and_inverse",
    "image_grid",
    "mean_trajectories",
    "one_and_two_modes",
    "outcome_distribution",
    "seed_curves",
    "success_curves",
    "success_rates",
    "write",
]

PALETTE: dict[str, str] = {
    "NLL": "#D55E00",
    "SGEM": "#E69F00",
    "nGEM": "#0072B2",
    "nGEM (listing)": "#56B4E9",
    "nGEM (derived)": "#009E73",
    "nGEM (damped)": "#CC79A7",
    "truth": "#555555",
}
"""Colours of Okabe and Ito, which people with any kind of colour vision can tell apart."""

DASHES: dict[str, Any] = {
    "NLL": "",
    "SGEM": (1, 1),
    "nGEM": "",
    "nGEM (listing)": (4, 1.5),
    "nGEM (derived)": (1, 1),
    "nGEM (damped)": (4, 1, 1, 1),
}

_STYLE: Any = {
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.dpi": 110,
    "figure.constrained_layout.use": True,
    "figure.facecolor": "white",
    "font.size": 10,
    "legend.frameon": False,
}


def convergence(
    table: pd.DataFrame,
    *,
    panels: str = "learning_rate",
    best: float | None = None,
    limits: tuple[float, float] | None = None,
    share_y: bool = True,
) -> Figure:
    """Negative log-likelihood against updates: the mean over seeds and a band of one deviation.

    Args:
        table: columns `method`, `seed`, `update`, `nll` (nats) and the one that `panels` names.
            Runs without a value at a point are left out of it.
        panels: the column with a panel for each of its values.
        best: the best known value, drawn as a line.
        limits: of the vertical axis, nats.
        share_y: whether the panels have one vertical axis.

    Returns:
        A row of panels: numbers in falling order, names in the order of the table.
    """
    values = list(dict.fromkeys(table[panels]))
    if panels == "learning_rate":
        values.sort(reverse=True)
    with _style():
        figure, axes = plt.subplots(
            1, len(values), figsize=(3.4 * len(values), 3.2), sharey=share_y, squeeze=False
        )
        for axis, value in zip(axes[0], values, strict=True):
            sns.lineplot(
                table[table[panels] == value],
                x="update",
                y="nll",
                errorbar="sd",
                ax=axis,
                legend="brief" if axis is axes[0, -1] else False,
                err_kws={"alpha": 0.15, "linewidth": 0},
                **_by_method(table),
            )
            axis.set(
                xlabel="update",
                ylabel="negative log-likelihood (nats)" if axis is axes[0, 0] else "",
            )
            _label(axis, f"β = {value:g}" if panels == "learning_rate" else str(value))
            if limits is not None:
                axis.set_ylim(limits)
            if best is not None:
                axis.axhline(best, color=PALETTE["truth"], linewidth=0.8, zorder=0)
        axes[0, 0].set_ylabel("negative log-likelihood (nats)")
        legend = axes[0, -1].get_legend()
        if legend is not None:
            legend.set_title(None)
    return figure


def success_curves(
    table: pd.DataFrame, *, best: float, tolerance: float, panels: str, confidence: float = 0.95
) -> Figure:
    """Share of runs that are near the best known likelihood, against updates.

    Args:
        table: columns `method`, `seed`, `update`, `nll` (nats, missing once a run was not
            finite) and the one that `panels` names.
        best: the best known value, nats.
        tolerance: how near is near, nats.
        panels: the column with a panel for each of its values.
        confidence: of the Wilson intervals, the bands.

    Returns:
        A row of panels, in the order of the table.
    """
    values = list(dict.fromkeys(table[panels]))
    methods = [method for method in PALETTE if method in set(table["method"])]
    with _style():
        figure, axes = plt.subplots(
            1, len(values), figsize=(3.6 * len(values), 3.2), sharey=True, squeeze=False
        )
        for axis, value in zip(axes[0], values, strict=True):
            for method in methods:
                runs = table[table[panels].eq(value) & table["method"].eq(method)]
                near = (runs["nll"] - best < tolerance).groupby(runs["update"])
                count, total = near.sum(), near.size()
                low, high = wilson_interval(count, total, confidence)
                (line,) = axis.plot(count.index, count / total, color=PALETTE[method], label=method)
                if DASHES[method]:
                    line.set_dashes(DASHES[method])
                axis.fill_between(count.index, low, high, color=PALETTE[method], alpha=0.2, lw=0)
            axis.set(xlabel="update", ylim=(0, 1.02))
            _label(axis, f"start {value}" if panels == "initialisation" else str(value))
        axes[0, 0].set_ylabel(f"share of runs within {tolerance:g} nats")
        axes[0, 0].legend(loc="lower right")
    return figure


def success_rates(table: pd.DataFrame, *, confidence: float = 0.95) -> Figure:
    """Share of successful runs by method, with Wilson's intervals, and of non-finite ones.

    Args:
        table: a row per run with `initialisation`, `parametrisation`, `method`, `learning_rate`,
            `success` (boolean) and `failed_at` (-1 if the run stayed finite).
        confidence: of the intervals.

    Returns:
        A grid of panels, a row per initialisation and a column per learning rate;
        parametrisations in groups. Points are successes, crosses the non-finite runs.
    """
    rows = list(dict.fromkeys(table["initialisation"]))
    rates = sorted(table["learning_rate"].unique(), reverse=True)
    groups = list(dict.fromkeys(table["parametrisation"]))
    methods = [method for method in PALETTE if method in set(table["method"])]
    with _style():
        figure, axes = plt.subplots(
            len(rows),
            len(rates),
            figsize=(3.0 * len(rates), 2.6 * len(rows) + 0.4),
            sharex=True,
            sharey=True,
            squeeze=False,
        )
        for i, j in np.ndindex(axes.shape):
            axis: Any = axes[i, j]
            panel = table[table["initialisation"].eq(rows[i]) & table["learning_rate"].eq(rates[j])]
            for offset, method in enumerate(methods):
                x = np.arange(len(groups)) + (offset - (len(methods) - 1) / 2) * 0.16
                runs = panel[panel["method"] == method].groupby("parametrisation")
                total = runs.size().reindex(groups)
                count = runs["success"].sum().reindex(groups)
                low, high = wilson_interval(count, total, confidence)
                share = (count / total).to_numpy()
                error = np.abs(np.stack([share - low, high - share]))
                axis.errorbar(x, share, error, fmt="o", ms=4, color=PALETTE[method], label=method)
                bad = runs["failed_at"].agg(lambda update: (update >= 0).mean()).reindex(groups)
                axis.plot(x, bad, "x", ms=5, color=PALETTE[method])
            axis.set(xticks=range(len(groups)), xticklabels=groups, ylim=(-0.03, 1.05))
            _label(axis, f"start {rows[i]}, β = {rates[j]:g}")
        figure.supylabel("share of runs", fontsize=10)
        figure.supxlabel("trained for the scale", fontsize=10)
        handles, labels = axes[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=len(methods))
    return figure


def outcome_distribution(table: pd.DataFrame) -> Figure:
    """Cumulative distribution of the final excess likelihood over runs.

    Args:
        table: a row per run with `method`, `learning_rate` and `excess_nll` (nats). Runs without
            a value count as worse than all others: their curves end below one.

    Returns:
        A row of panels, one for each learning rate.
    """
    rates = sorted(table["learning_rate"].unique(), reverse=True)
    methods = [method for method in PALETTE if method in set(table["method"])]
    with _style():
        figure, axes = plt.subplots(
            1, len(rates), figsize=(3.4 * len(rates), 3.2), sharey=True, squeeze=False
        )
        for axis, rate in zip(axes[0], rates, strict=True):
            for method in methods:
                runs = table[(table["learning_rate"] == rate) & (table["method"] == method)]
                excess = np.sort(runs["excess_nll"].to_numpy())
                share = np.arange(1, len(excess) + 1) / len(excess)
                finite = np.isfinite(excess)
                (line,) = axis.step(
                    np.maximum(excess[finite], 1e-3),  # EM from the truth is not always best
                    share[finite],
                    where="post",
                    color=PALETTE[method],
                    label=method,
                )
                if DASHES[method]:
                    line.set_dashes(DASHES[method])
            axis.set(xscale="log", ylim=(0, 1), xlabel="nats above the best known likelihood")
            _label(axis, f"β = {rate:g}")
        axes[0, 0].set_ylabel("share of runs")
        axes[0, -1].legend(loc="upper left", fontsize=8)
    return figure


def density_with_marginals(
    panels: Mapping[str, GaussianMixture], truth: GaussianMixture, *, extent: float = 4.5
) -> Figure:
    """Learned densities in two dimensions, with their marginals against the truth's.

    Args:
        panels: mixtures of `D = 2`, batch shape `()`, by the label of their panel.
        truth: the mixture that the data were drawn from; its means are stars.
        extent: half the width of the square that is shown, in the units of the data.

    Returns:
        A panel for each mixture: a heat map with the marginals above and to the right.
    """
    grid = jnp.linspace(-extent, extent, 161)
    points = jnp.stack(jnp.meshgrid(grid, grid), axis=-1)
    with _style():
        figure = plt.figure(figsize=(4.2 * len(panels), 4.2))
        for subfigure, (label, mixture) in zip(
            figure.subfigures(1, len(panels), squeeze=False)[0], panels.items(), strict=True
        ):
            axes = subfigure.subplot_mosaic(
                [["top", "."], ["map", "right"]], height_ratios=(1, 4), width_ratios=(4, 1)
            )
            density = jnp.exp(mixture.log_prob(points))
            axes["map"].pcolormesh(grid, grid, density, cmap="Blues", shading="gouraud")
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
            _label(axes["map"], label)
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
    with _style():
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
    with _style():
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
            _label(axis, label)
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
    with _style():
        figure, axes = plt.subplots(1, 2, figsize=(7.5, 2.8), sharey=True)
        for axis, density in zip(axes, (gaussian, mixture), strict=True):
            total = jnp.exp(density.log_prob(grid[:, None]))
            parts = density.weights * jnp.exp(density.component_log_prob(grid[:, None]))
            axis.plot(grid, total, color=PALETTE["nGEM"])
            axis.fill_between(grid, total, color=PALETTE["nGEM"], alpha=0.15, lw=0)
            if density.num_components > 1:
                axis.plot(grid, parts, color=PALETTE["truth"], lw=0.8, ls=":")
            axis.axvline(float(density.mean[0]), color=PALETTE["truth"], lw=0.8, ls="--")
            axis.set(xlabel="$y$")
            k = density.num_components
            _label(axis, "one Gaussian" if k == 1 else f"mixture of {k} Gaussians")
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
    with _style():
        figure, axes = plt.subplots(1, 2, figsize=(7.5, 3.2))
        axes[0].plot(y[:, 0], x[:, 0], **dots)
        axes[0].plot(grid, forward, color=PALETTE["nGEM"])
        axes[0].set(xlabel="$y$", ylabel="$x$", ylim=(-0.2, 1.2))
        axes[1].plot(x[:, 0], y[:, 0], **dots)
        axes[1].plot(grid, mean, color=PALETTE["NLL"])
        axes[1].set(xlabel="$x$", ylabel="$y$", xlim=(-0.2, 1.2), ylim=(-0.05, 1.05))
        _label(axes[0], "forward: one answer")
        _label(axes[1], "inverse: several answers")
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
    with _style():
        figure, axes = plt.subplots(
            1, len(panels), figsize=(3.75 * len(panels), 2.8), sharey=True, squeeze=False
        )
        for axis, (label, mixture) in zip(axes[0], panels.items(), strict=True):
            axis.hist(
                np.asarray(y[:, 0]), bins=30, density=True, color=PALETTE["truth"], alpha=0.25
            )
            log_parts = mixture.log_weights + mixture.component_log_prob(grid[:, None])
            axis.plot(grid, jnp.exp(mixture.log_prob(grid[:, None])), color=PALETTE["nGEM"])
            axis.plot(grid, jnp.exp(log_parts), color="black", lw=0.9, ls="--")
            axis.set(xlabel="$y$")
            _label(axis, label)
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
    with _style():
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
            _label(axis, label)
        for axis in axes[-1]:
            axis.set_xlabel("$x$")
        for axis in axes[:, 0]:
            axis.set_ylabel("$y$")
    return figure


def seed_curves(
    table: pd.DataFrame, columns: Mapping[str, str], lines: Mapping[str, Mapping[str, float]]
) -> Figure:
    """Columns of a table against updates, a curve for each seed.

    Args:
        table: `method`, `seed`, `update` and the columns to draw; one method.
        columns: the label of the vertical axis for each column to draw.
        lines: for a column, levels to mark, by their label.

    Returns:
        A panel for each column.
    """
    colour = PALETTE[table["method"].iloc[0]]
    with _style():
        figure, axes = plt.subplots(
            1, len(columns), figsize=(3.75 * len(columns), 3.0), squeeze=False
        )
        for axis, (column, label) in zip(axes[0], columns.items(), strict=True):
            for _, run in table.groupby("seed"):
                axis.plot(run["update"], run[column], color=colour, lw=1, alpha=0.7)
            for name, level in lines.get(column, {}).items():
                axis.axhline(level, color=PALETTE["truth"], lw=0.8, ls="--")
                axis.annotate(
                    name, (1.0, level), xycoords=("axes fraction", "data"), fontsize=8,
                    xytext=(0, 2), textcoords="offset points", ha="right", va="bottom",
                    bbox={"facecolor": "white", "alpha": 0.8, "lw": 0, "pad": 1},
                )  # fmt: skip
            axis.set(xlabel="update", ylabel=label)
    return figure


def image_grid(
    panels: Mapping[str, GaussianMixture], classes: Sequence[int], *, shape: tuple[int, int]
) -> Figure:
    """Component means as images with their weights, a row per component and method.

    Args:
        panels: for each method one mixture per class, batch shape `(C,)`, means flattened images.
        classes: which of the classes to show, a column each.
        shape: height and width of an image.

    Returns:
        A block of rows for each method; the number in a corner is the component's weight.
    """
    num_components = next(iter(panels.values())).num_components
    rows = [(method, k) for method in panels for k in range(num_components)]
    with _style(**{"figure.constrained_layout.use": False}):
        figure, axes = plt.subplots(
            len(rows),
            len(classes),
            figsize=(0.8 * len(classes) + 0.9, 0.8 * len(rows)),
            squeeze=False,
            gridspec_kw={"wspace": 0.06, "hspace": 0.06},
        )
        for row, (method, k) in zip(axes, rows, strict=True):
            mixture = panels[method]
            for axis, label in zip(row, classes, strict=True):
                image = np.asarray(mixture.means[label, k]).reshape(shape)
                axis.imshow(image, cmap="gray_r", vmin=0, vmax=1)
                weight = float(mixture.weights[label, k])
                axis.text(
                    0.04, 0.04, f"{weight:.2f}", transform=axis.transAxes, fontsize=7,
                    color=PALETTE["NLL"],
                )  # fmt: skip
                axis.set(xticks=[], yticks=[])
                for spine in axis.spines.values():
                    spine.set(visible=True, color=PALETTE.get(method, "black"), linewidth=0.8)
            row[0].set_ylabel(f"{method}\nk = {k + 1}", fontsize=7, rotation=0, ha="right")
    return figure


def check_format(path: Path) -> None:
    """Raise a `ValueError` if `write` cannot write the format that the path's ending names."""
    known = sorted(FigureCanvasBase.get_supported_filetypes())
    if path.suffix.removeprefix(".").lower() not in known:
        raise ValueError(f"figure must end in one of {', '.join(known)}, got {path}")


def write(figure: Figure, path: Path) -> None:
    """Write a figure to a file, all or nothing.

    Args:
        figure: what a function of this file returned.
        path: where to; its ending names the format.

    Raises:
        ValueError: if the format is unknown.
        OSError: if the file system refuses.
    """
    check_format(path)
    content = io.BytesIO()
    figure.savefig(content, format=path.suffix.removeprefix(".").lower())
    write_atomically(path, content.getvalue())


@contextmanager
def _style(**changes: Any) -> Iterator[None]:
    """Set the style for a while.

    `plt.rc_context` would restore every parameter, `interactive` too, which a notebook's backend
    sets when the first figure is made: later figures of the notebook would not be shown.
    """
    style = {**_STYLE, **changes}
    before = {name: plt.rcParams[name] for name in style}
    plt.rcParams.update(style)
    try:
        yield
    finally:
        plt.rcParams.update(before)


def _by_method(table: pd.DataFrame) -> dict[str, Any]:
    """Seaborn's arguments for a curve per method."""
    methods = [method for method in PALETTE if method in set(table["method"])]
    return {
        "hue": "method",
        "style": "method",
        "hue_order": methods,
        "style_order": methods,
        "palette": PALETTE,
        "dashes": DASHES,
    }


def _marginal(
    axis: Axes, grid: jax.Array, truth: GaussianMixture, learned: GaussianMixture,
    *, flip: bool = False,
) -> None:  # fmt: skip
    true, own = (jnp.exp(m.log_prob(grid[:, None])) for m in (truth, learned))
    fill = axis.fill_betweenx if flip else axis.fill_between
    fill(grid, true, facecolor="none", edgecolor="gray", hatch="////", lw=0.5)
    fill(grid, own, color=PALETTE["NLL"], alpha=0.35, lw=0)
    axis.axis("off")


def _label(axis: Axes, text: str) -> None:
    """Name a panel above its upper left corner."""
    axis.text(0.0, 1.02, text, transform=axis.transAxes, ha="left", va="bottom", fontsize=10)
