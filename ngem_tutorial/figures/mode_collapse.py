"""Figures of the page on mode collapse."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from ngem_tutorial.figures.style import MARKERS, PALETTE, label_panel, style
from ngem_tutorial.metrics import wilson_interval

__all__ = ["collapse_rates", "entropies", "weights"]

_WIDTH = 0.16  # of a method, where the distance of two groups is 1


def weights(runs: pd.DataFrame) -> Figure:
    """The larger learned weight of every run, beside the larger weight of the generator.

    Args:
        runs: a row per run with `panel` (its name), `weight` (of the generator), `method` and
            `largest_weight`. Runs without a value are left out.

    Returns:
        Panels one above the other, in the order of the table, with a group for each weight. The
        runs of a method are sorted, so that its dots are a cumulative distribution on its side. A
        solid line is the generator's weight, a dotted one the square-root law.
    """

    def draw(axis: Axes, x: float, own: pd.DataFrame, method: str) -> None:
        values = np.sort(own["largest_weight"].dropna())
        spread = (np.arange(len(values)) + 0.5) / len(values) - 0.5 if len(values) else values
        axis.plot(
            x + 0.85 * _WIDTH * spread, values, ".", color=PALETTE[method],
            ms=3 if len(values) > 30 else 6, label=method,
        )  # fmt: skip

    figure = _panels(runs, draw, height=2.2)
    for axis in figure.axes:
        for x, weight in enumerate(sorted(runs["weight"].unique())):
            for level, dashes in ((weight, "-"), (square_root_law(weight), ":")):
                axis.hlines(level, x - 0.46, x + 0.46, color="black", lw=0.9, ls=dashes, zorder=0)
        axis.set_ylim(0.48, 1.02)
    figure.supylabel("larger learned weight", fontsize=10)
    return figure


def collapse_rates(runs: pd.DataFrame, *, confidence: float = 0.95) -> Figure:
    """Share of the runs that collapsed, with Wilson's interval, and of those not finite.

    Args:
        runs: a row per run with `panel`, `weight` (of the generator), `method`, `collapsed`
            (boolean) and `failed_at` (-1 if the run stayed finite).
        confidence: of the intervals.

    Returns:
        Panels one above the other, in the order of the table, with a group for each weight. Marks
        are collapsed runs, crosses those that were not finite.
    """

    def draw(axis: Axes, x: float, own: pd.DataFrame, method: str) -> None:
        count, total = own["collapsed"].sum(), len(own)
        low, high = wilson_interval(count, total, confidence)
        share = count / total
        axis.errorbar(
            [x], [share], [[share - low], [high - share]], fmt=MARKERS[method], ms=5,
            color=PALETTE[method], label=method,
        )  # fmt: skip
        axis.plot(x + 0.05, (own["failed_at"] >= 0).mean(), "x", ms=5, color=PALETTE[method])

    figure = _panels(runs, draw, height=1.8)
    for axis in figure.axes:
        axis.set_ylim(-0.05, 1.05)
    figure.supylabel("share of runs", fontsize=10)
    return figure


def entropies(runs: pd.DataFrame) -> Figure:
    """Learned entropy of the weights against the generator's: the median and the middle 90 %.

    Args:
        runs: a row per run with `panel`, `weight` (of the generator), `method` and `entropy`
            (nats). Runs without a value are left out.

    Returns:
        A row of panels, in the order of the table. The solid line is the generator's entropy, the
        dotted one that of the square-root law.
    """
    names, grid = list(dict.fromkeys(runs["panel"])), np.linspace(0.5, 0.999, 200)
    methods = _methods(runs)
    with style():
        figure, axes = plt.subplots(
            1, len(names), figsize=(7.5, 3.4), sharex=True, sharey=True, squeeze=False
        )
        for axis, name in zip(axes[0], names, strict=True):
            axis.plot(binary_entropy(grid), binary_entropy(grid), "k-", lw=0.9, zorder=0)
            axis.plot(
                binary_entropy(grid), binary_entropy(square_root_law(grid)), "k:", lw=0.9, zorder=0
            )
            for position, method in enumerate(methods):
                own = runs[runs["panel"].eq(name) & runs["method"].eq(method)]
                quantiles = own.groupby("weight")["entropy"].quantile([0.05, 0.5, 0.95]).unstack()
                x = binary_entropy(quantiles.index) + 0.012 * (position - (len(methods) - 1) / 2)
                low, middle, high = quantiles.to_numpy().T
                axis.errorbar(
                    x, middle, [middle - low, high - middle], fmt=MARKERS[method], ms=4,
                    lw=0.9, color=PALETTE[method], label=method,
                )  # fmt: skip
            axis.set(xlim=(0, 0.75), ylim=(-0.03, 0.75))
            label_panel(axis, name)
        axes[0, 0].set_ylabel("entropy of the learned weights (nats)")
        figure.supxlabel("entropy of the generator's weights (nats)", fontsize=10)
        _legend(figure, axes[0, 0])
    return figure


def square_root_law(weight: ArrayLike) -> Any:
    """Where the larger weight of the paper's code comes to rest.

    Args:
        weight: the larger of two weights of separated components, any shape.

    Returns:
        `sqrt(w) / (sqrt(w) + sqrt(1 - w))`, of that shape.
    """
    root, other = np.sqrt(weight), np.sqrt(1.0 - np.asarray(weight))
    return root / (root + other)


def binary_entropy(weight: ArrayLike) -> Any:
    """Entropy of two weights, nats.

    Args:
        weight: one of them, strictly between 0 and 1, any shape.

    Returns:
        The entropy, of that shape.
    """
    w = np.asarray(weight)
    return -w * np.log(w) - (1.0 - w) * np.log1p(-w)


def _panels(
    runs: pd.DataFrame, draw: Callable[[Axes, float, pd.DataFrame, str], None], *, height: float
) -> Figure:
    """Panels one above the other; `draw` adds the runs of a weight and method at its position."""
    names, true = list(dict.fromkeys(runs["panel"])), sorted(runs["weight"].unique())
    methods = _methods(runs)
    with style():
        figure, axes = plt.subplots(
            len(names), 1, figsize=(7.5, height * len(names) + 0.6), sharex=True, sharey=True,
            squeeze=False,
        )  # fmt: skip
        for axis, name in zip(axes[:, 0], names, strict=True):
            for position, method in enumerate(methods):
                offset = _WIDTH * (position - (len(methods) - 1) / 2)
                for x, weight in enumerate(true):
                    own = runs["panel"].eq(name) & runs["weight"].eq(weight)
                    own &= runs["method"].eq(method)
                    if own.any():
                        draw(axis, x + offset, runs[own], method)
            axis.set(xlim=(-0.5, len(true) - 0.5), xticks=range(len(true)))
            axis.set_xticklabels([f"{weight:g}" for weight in true])
            label_panel(axis, name)
        figure.supxlabel("larger weight of the generator", fontsize=10)
        _legend(figure, *axes[:, 0])
    return figure


def _legend(figure: Figure, *axes: Axes) -> None:
    """One entry for each method, in the order of the palette."""
    entries: dict[str, Any] = {}
    for axis in axes:
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
            entries.setdefault(label, handle)
    labels = [method for method in PALETTE if method in entries]
    handles = [entries[label] for label in labels]
    figure.legend(
        handles, labels, loc="outside upper center", ncols=len(labels), fontsize=9,
        markerscale=max(1.0, 6.0 / _size(handles[0])),
    )  # fmt: skip


def _size(handle: Any) -> float:
    """Size of the mark of a line, or of that of an error bar."""
    return float(getattr(handle, "lines", [handle])[0].get_markersize())


def _methods(runs: pd.DataFrame) -> list[str]:
    return [method for method in PALETTE if method in set(runs["method"])]
