"""Figures of the page on Two-Sinusoids."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from ngem_tutorial.figures.style import DASHES, MARKERS, PALETTE, label_panel, style

__all__ = ["components", "entropy_and_likelihood", "every_run", "likelihoods"]

COMPONENTS = ("#CC6677", "#332288")
"""Colours of the two components: not those of any method."""


def likelihoods(
    curves: pd.DataFrame, *, truth: float, limits: tuple[float, float] = (0.8, 3.4)
) -> Figure:
    """Negative log-likelihood against updates: the median over seeds and the middle half.

    Args:
        curves: columns `method`, `learning_rate`, `seed`, `update` and `nll` (nats). A run
            without a value counts as worse than all others.
        truth: the value of the generator, nats.
        limits: of the vertical axis, nats.

    Returns:
        A panel for each learning rate, in falling order; updates on a logarithmic axis from 1.
    """

    def draw(axis: Axes, runs: pd.DataFrame, method: str) -> None:
        values = runs.assign(nll=runs["nll"].fillna(np.inf)).groupby("update")["nll"]
        low, middle, high = (values.quantile(q, interpolation="nearest") for q in (0.25, 0.5, 0.75))
        (line,) = axis.plot(middle.index, middle, color=PALETTE[method], label=method)
        if DASHES[method]:
            line.set_dashes(DASHES[method])
        top = high.clip(upper=10 * limits[1])  # a band to infinity is not drawn
        axis.fill_between(
            low.index, low.clip(upper=top), top, color=PALETTE[method], alpha=0.18, lw=0
        )

    figure = _by_rate(curves, draw)
    for axis in figure.axes:
        axis.axhline(truth, color=PALETTE["truth"], lw=0.9, ls=":", zorder=0)
        axis.set(xscale="log", xlim=(1, curves["update"].max()), ylim=limits, xlabel="update")
    figure.axes[0].set_ylabel("negative log-likelihood (nats)")
    return figure


def every_run(
    curves: pd.DataFrame, *, truth: float, limits: tuple[float, float] = (0.8, 3.4)
) -> Figure:
    """Negative log-likelihood against updates, a curve for each run.

    Args:
        curves: as in `likelihoods`, and `failed_at`, the update after which a run was not
            finite, -1 if it never was; such a run ends with a cross.
        truth: the value of the generator, nats.
        limits: of the vertical axis, nats; what is above is drawn at the upper limit.

    Returns:
        A grid of panels, a row for each method and a column for each learning rate.
    """
    methods, rates = _methods(curves), _rates(curves)
    with style():
        figure, axes = plt.subplots(
            len(methods), len(rates), figsize=(7.5, 1.6 * len(methods) + 0.4),
            sharex=True, sharey=True, squeeze=False,
        )  # fmt: skip
        for i, j in np.ndindex(axes.shape):
            axis: Any = axes[i, j]
            own = curves[curves["method"].eq(methods[i]) & curves["learning_rate"].eq(rates[j])]
            colour = PALETTE[methods[i]]
            for _, run in own.groupby("seed"):
                finite = run[run["nll"].notna()]
                axis.plot(
                    finite["update"], finite["nll"].clip(upper=limits[1]),
                    color=colour, lw=0.8, alpha=0.6,
                )  # fmt: skip
                if run["failed_at"].max() >= 0:
                    axis.plot(run["failed_at"].max(), limits[1], "x", color="black", clip_on=False)
            axis.axhline(truth, color=PALETTE["truth"], lw=0.9, ls=":")
            axis.set(xlim=(0, curves["update"].max()), ylim=limits)
            if i == 0:
                label_panel(axis, f"β = {rates[j]:g}")
            if j == 0:
                axis.set_ylabel(methods[i])
        figure.supxlabel("update", fontsize=10)
        figure.supylabel("negative log-likelihood (nats)", fontsize=10)
    return figure


def components(
    densities: pd.DataFrame, x: ArrayLike, y: ArrayLike, *, methods: Sequence[str]
) -> Figure:
    """Means and deviations of the two components against the input, for several runs.

    Args:
        densities: for each run, named by `method` and `seed`, a row per input: `x` (radians),
            `weight_1`, `mean_1`, `scale_1`, `mean_2`, `scale_2`; missing if it was not finite.
        x: inputs of the training examples, shape `(N, 1)` or `(N,)`, radians.
        y: their targets, likewise; every eighth example is drawn.
        methods: those to show, in this order.

    Returns:
        A grid of panels, a row for each method and a column for each seed. A component's line is
        the thicker, and its band of one deviation the darker, the larger its weight.
    """
    seeds = sorted(densities["seed"].unique())
    x, y = np.ravel(x), np.ravel(y)
    limit = 1.15 * float(np.abs(y).max())
    with style():
        figure, axes = plt.subplots(
            len(methods), len(seeds), figsize=(7.5, 1.45 * len(methods) + 0.3),
            sharex=True, sharey=True, squeeze=False, dpi=95,  # twenty-five panels are heavy
        )  # fmt: skip
        for i, j in np.ndindex(axes.shape):
            axis: Any = axes[i, j]
            axis.plot(x[::8], y[::8], ".", color="0.8", ms=1, zorder=0, rasterized=True)
            run = densities[densities["method"].eq(methods[i]) & densities["seed"].eq(seeds[j])]
            if run["weight_1"].isna().any():
                axis.text(
                    0.5, 0.5, "not finite", transform=axis.transAxes, ha="center", va="center"
                )
            else:
                for k, weight in ((1, run["weight_1"]), (2, 1.0 - run["weight_1"])):
                    _component(axis, run["x"], run[f"mean_{k}"], run[f"scale_{k}"], weight, k)
            axis.set(xlim=(x.min(), x.max()), ylim=(-limit, limit), xticks=[], yticks=[])
            if i == 0:
                label_panel(axis, f"seed {seeds[j]}")
            if j == 0:
                axis.set_ylabel(methods[i], fontsize=9)
    return figure


def _component(
    axis: Axes, x: pd.Series, mean: pd.Series, scale: pd.Series, weight: pd.Series, k: int
) -> None:
    """Draw one component, piece by piece between the inputs."""
    colour = COMPONENTS[k - 1]
    line, low, high = (
        np.stack([x, curve], axis=-1) for curve in (mean, mean - scale, mean + scale)
    )
    share = ((weight + weight.shift(-1)) / 2).to_numpy()[:-1]
    pieces = np.stack([low[:-1], low[1:], high[1:], high[:-1]], axis=1)
    bands = [to_rgba(colour, 0.5 * w) for w in share]
    axis.add_collection(PolyCollection(list(pieces), facecolors=bands, lw=0, antialiaseds=False))
    axis.add_collection(
        LineCollection(
            list(np.stack([line[:-1], line[1:]], axis=1)),
            colors=[to_rgba(colour, 0.15 + 0.85 * w) for w in share],
            linewidths=0.3 + 2.2 * share,
        )
    )


def entropy_and_likelihood(
    final: pd.DataFrame, *, best: float = float(np.log(2.0)), furthest: float = 10.0
) -> Figure:
    """Final entropy of the weights against the final excess likelihood, a mark for each run.

    Args:
        final: a row per run with `method`, `learning_rate`, `entropy` and `excess_nll` (nats).
            Runs without values are left out.
        best: the entropy of the generator's weights, nats.
        furthest: runs further above the generator are drawn here, nats.

    Returns:
        A panel for each learning rate, in falling order.
    """

    def draw(axis: Axes, runs: pd.DataFrame, method: str) -> None:
        axis.plot(
            runs["excess_nll"].clip(upper=furthest), runs["entropy"], MARKERS[method],
            color=PALETTE[method], ms=5, mfc="none", label=method,
        )  # fmt: skip

    figure = _by_rate(final, draw)
    for axis in figure.axes:
        axis.axhline(best, color=PALETTE["truth"], lw=0.9, ls=":", zorder=0)
        axis.axvline(0.0, color=PALETTE["truth"], lw=0.9, ls=":", zorder=0)
        axis.set_xscale("symlog", linthresh=0.1)
        axis.set(xlim=(-0.1, 1.3 * furthest), ylim=(-0.03, 0.75))
        axis.set_xticks([0.0, 0.1, 1.0, 10.0], ["0", "0.1", "1", "10"])
    figure.axes[0].set_ylabel("entropy of the weights (nats)")
    figure.supxlabel("nats above the generator's likelihood", fontsize=10)
    return figure


def _by_rate(table: pd.DataFrame, draw: Callable[[Axes, pd.DataFrame, str], None]) -> Figure:
    """A row of panels, one for each learning rate, with what `draw` adds for each method."""
    rates = _rates(table)
    with style():
        figure, axes = plt.subplots(
            1, len(rates), figsize=(7.5, 3.2), sharex=True, sharey=True, squeeze=False
        )
        for axis, rate in zip(axes[0], rates, strict=True):
            for method in _methods(table):
                own = table["learning_rate"].eq(rate) & table["method"].eq(method)
                draw(axis, table[own], method)
            label_panel(axis, f"β = {rate:g}")
        handles, labels = axes[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=len(labels), fontsize=9)
    return figure


def _methods(table: pd.DataFrame) -> list[str]:
    return [method for method in PALETTE if method in set(table["method"])]


def _rates(table: pd.DataFrame) -> list[float]:
    return sorted(table["learning_rate"].unique(), reverse=True)
