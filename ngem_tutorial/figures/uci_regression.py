"""Figures of the page on regression with real data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from ngem_tutorial.figures.style import DASHES, PALETTE, label_panel, style

__all__ = ["differences", "learning_curves", "train_and_test"]

_ROW = 0.145  # of a method, where the distance of two optimizers is 1


def differences(
    pairs: pd.DataFrame, quantities: Mapping[str, str], *, reach: float = 3.0
) -> Figure:
    """How far nGEM is from NLL with the same optimizer: the paper and our runs, with intervals.

    Args:
        pairs: what `comparison.pairs` returned for Table 5, its methods named "Adam + nGEM", for
            instance.
        quantities: the label of the axis for each quantity to draw.
        reach: a panel reaches to this multiple of the paper's largest bound at most. A dot that
            lies outside of it is a triangle at its edge.

    Returns:
        A row of panels for each condition and a column for each quantity, negative differences on
        the left of a line; optimizers in groups.
    """
    conditions = list(dict.fromkeys(pairs["condition"]))
    optimizers = list(dict.fromkeys(pairs["method"].str.split(" + ", regex=False).str[0]))
    with style():
        figure, axes = plt.subplots(
            len(conditions),
            len(quantities),
            figsize=(3.1 * len(quantities), 0.8 * len(optimizers) * len(conditions) + 0.9),
            sharey=True,
            squeeze=False,
        )
        for i, j in np.ndindex(axes.shape):
            axis: Any = axes[i, j]
            quantity = list(quantities)[j]
            own = pairs[pairs["condition"].eq(conditions[i]) & pairs["quantity"].eq(quantity)]
            limit = _reach(own, reach)
            for row in own.itertuples():
                optimizer, _, method = row.method.partition(" + ")
                _interval(axis, optimizers.index(optimizer), row, method, limit)
            axis.axvline(0.0, color="black", lw=0.8, zorder=0)
            axis.set_xlim(-limit, limit)
            axis.xaxis.set_major_locator(MaxNLocator(5))
            axis.set_yticks(range(len(optimizers)), optimizers)
            label_panel(axis, conditions[i])
            if i == len(conditions) - 1:
                axis.set_xlabel(f"method − NLL: {quantities[quantity]}")
        axes[0, 0].invert_yaxis()
        legend = {  # each name once
            label: handle
            for axis in axes.flat
            for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)
        }
        figure.legend(legend.values(), legend, loc="outside upper center", ncols=3)
    return figure


def _reach(own: pd.DataFrame, reach: float) -> float:
    """Half the width of a panel."""
    paper = np.abs(own[["paper", "paper_low", "paper_high"]].to_numpy()).max()
    ours = np.abs(own[["ours", "low", "high"]].to_numpy())
    ours = np.append(ours[np.isfinite(ours)], 0.0)
    return 1.08 * max(paper, min(ours.max(), reach * paper))


def _interval(axis: Axes, group: int, row: Any, method: str, limit: float) -> None:
    """A dot and its interval; with the first of the methods, the paper's above it."""
    methods = [
        "nGEM, paper's code", "nGEM, as derived", "undamped nGEM", "damped nGEM", "whitened NLL",
    ]  # fmt: skip
    marks = [(methods.index(method) - 1.5, row.ours, row.low, row.high, method)]
    if method == methods[0]:
        marks.insert(0, (-2.5, row.paper, row.paper_low, row.paper_high, "paper"))
    for place, mean, low, high, name in marks:
        if not np.isfinite(mean):
            continue
        y = group + _ROW * place
        colour = PALETTE["truth" if name == "paper" else name]
        outside = abs(mean) > limit
        if not outside and np.isfinite(low):
            axis.plot([low, high], [y, y], color=colour, lw=1.4)
        shape = (">" if mean > 0 else "<") if outside else "D" if name == "paper" else "o"
        axis.plot(
            [np.clip(mean, -0.97 * limit, 0.97 * limit) if outside else mean], [y],
            marker=shape, ms=4.5, ls="", color=colour, label=name,
        )  # fmt: skip


def learning_curves(curves: pd.DataFrame, quantities: Mapping[str, str]) -> Figure:
    """Quantities against updates, a line for each run.

    Args:
        curves: columns `dataset`, `method`, `seed`, `update` and the quantities. Points without a
            value are left out, and runs of methods without a colour.
        quantities: the label of the axis for each quantity to draw.

    Returns:
        A row of panels for each data set and a column for each quantity. The vertical axes have
        the range of the values after the first tenth of the updates, outliers left out.
    """
    datasets = list(dict.fromkeys(curves["dataset"]))
    methods = [method for method in PALETTE if method in set(curves["method"])]
    with style():
        figure, axes = plt.subplots(
            len(datasets),
            len(quantities),
            figsize=(3.2 * len(quantities), 2.2 * len(datasets) + 0.4),
            squeeze=False,
        )
        for i, j in np.ndindex(axes.shape):
            axis: Any = axes[i, j]
            quantity, label = list(quantities.items())[j]
            own = curves[curves["dataset"].eq(datasets[i]) & curves["method"].isin(methods)]
            for (method, _), run in own.groupby(["method", "seed"]):
                (line,) = axis.plot(
                    run["update"], run[quantity], lw=1, alpha=0.75, color=PALETTE[method]
                )
                if DASHES[method]:
                    line.set_dashes(DASHES[method])
            late = own[own["update"] >= 0.1 * own["update"].max()]
            axis.set(xlabel="update" if i == len(datasets) - 1 else "", ylabel=label)
            axis.set_ylim(_limits(late[quantity].to_numpy()))
            axis.xaxis.set_major_locator(MaxNLocator(4))
            label_panel(axis, datasets[i])
        handles = [Line2D([], [], color=PALETTE[method]) for method in methods]
        for handle, method in zip(handles, methods, strict=True):
            if DASHES[method]:
                handle.set_dashes(DASHES[method])
        figure.legend(handles, methods, loc="outside upper center", ncols=4)
    return figure


def train_and_test(final: pd.DataFrame) -> Figure:
    """Negative log-likelihood of the test data against that of the training data, a dot per run.

    Args:
        final: columns `dataset`, `method`, `train_nll` and `nll` (nats). Runs without a value are
            left out, and those of methods without a colour.

    Returns:
        A square panel for each data set and, in the last place, the legend. The line is equality.
        The panels leave outliers out and say how many.
    """
    datasets = list(dict.fromkeys(final["dataset"]))
    methods = [method for method in PALETTE if method in set(final["method"])]
    columns = 2
    rows = len(datasets) // columns + 1
    with style():
        figure, axes = plt.subplots(rows, columns, figsize=(6.0, 2.8 * rows), squeeze=False)
        for axis, dataset in zip(axes.flat, datasets, strict=False):
            own = final[final["dataset"].eq(dataset) & final["method"].isin(methods)]
            values = own[["train_nll", "nll"]].dropna().to_numpy()
            low, high = _limits(values)
            for method in methods:
                runs = own[own["method"] == method]
                axis.plot(
                    runs["train_nll"], runs["nll"], "o", ms=4, alpha=0.75,
                    color=PALETTE[method], mec="white", mew=0.3, label=method,
                )  # fmt: skip
            axis.plot([low, high], [low, high], color="black", lw=0.8, zorder=0)
            axis.set(xlim=(low, high), ylim=(low, high), xlabel="training data (nats)")
            axis.set_ylabel("test data (nats)")
            axis.xaxis.set_major_locator(MaxNLocator(4))
            axis.yaxis.set_major_locator(MaxNLocator(4))
            outside = int(((values < low) | (values > high)).any(axis=1).sum())
            label_panel(axis, dataset + (f" ({outside} outside)" if outside else ""))
        for axis in axes.flat[len(datasets) :]:
            axis.axis("off")
        handles, labels = axes[0, 0].get_legend_handles_labels()
        axes.flat[-1].legend(handles, labels, loc="center")
    return figure


def _limits(values: np.ndarray) -> tuple[float, float]:
    """The range of the values, those beyond Tukey's outer fences left out, and a margin."""
    values = values[np.isfinite(values)]
    low, high = np.quantile(values, [0.25, 0.75])
    reach = 3.0 * (high - low)
    values = values[(values >= low - reach) & (values <= high + reach)]
    margin = 0.05 * max(np.ptp(values), 1e-3)
    return float(values.min() - margin), float(values.max() + margin)
