"""Figures of what an update costs."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from ngem_tutorial.figures.style import PALETTE, label_panel, style

__all__ = ["ratio_intervals", "time_by_size"]


def ratio_intervals(
    ratios: pd.DataFrame, medians: pd.DataFrame, *, limits: tuple[float, float] | None = None
) -> Figure:
    """Time of each method over that of NLL: every repetition, the median and its interval.

    Args:
        ratios: columns `task`, `method` and `ratio`.
        medians: a row per task and method: `task`, `method`, `median`, `low` and `high`.
        limits: of the horizontal axis; what lies outside of them is not shown.

    Returns:
        A panel for each task, in the order of the table.
    """
    tasks = list(dict.fromkeys(ratios["task"]))
    methods = [method for method in PALETTE if method in set(ratios["method"])]
    with style():
        figure, axes = plt.subplots(
            1, len(tasks), figsize=(3.2 * len(tasks), 0.45 * len(methods) + 1.1),
            sharex=True, sharey=True, squeeze=False,
        )  # fmt: skip
        for axis, task in zip(axes[0], tasks, strict=True):
            for row, method in enumerate(methods):
                values = ratios[(ratios["task"] == task) & (ratios["method"] == method)]["ratio"]
                found = medians[(medians["task"] == task) & (medians["method"] == method)].iloc[0]
                heights = row + 0.28 + 0.02 * (np.arange(len(values)) % 5 - 2)
                colour = PALETTE[method]
                axis.plot(values, heights, ".", color=colour, ms=3, alpha=0.6)
                error = [[found["median"] - found["low"]], [found["high"] - found["median"]]]
                axis.errorbar(found["median"], row, xerr=error, fmt="o", ms=5, color=colour)
            axis.axvline(1.0, color=PALETTE["truth"], lw=0.8, zorder=0)
            axis.set(yticks=range(len(methods)), yticklabels=methods)
            axis.set_xlabel("time over that of NLL")
            axis.set_ylim(len(methods) - 0.4, -0.5)
            if limits is not None:
                axis.set_xlim(limits)
            label_panel(axis, task)
    return figure


def time_by_size(medians: pd.DataFrame) -> Figure:
    """Time of an update against the number of components, for each dimension of the target.

    Args:
        medians: columns `num_components`, `dim`, `method`, and `median`, `low` and `high` in
            microseconds for an update.

    Returns:
        A panel for each dimension, both axes logarithmic.
    """
    dims = sorted(medians["dim"].unique())
    methods = [method for method in PALETTE if method in set(medians["method"])]
    with style():
        figure, axes = plt.subplots(
            1, len(dims), figsize=(3.6 * len(dims), 3.2), sharey=True, squeeze=False
        )
        for axis, dim in zip(axes[0], dims, strict=True):
            for method in methods:
                rows = medians[(medians["dim"] == dim) & (medians["method"] == method)]
                rows = rows.sort_values("num_components")
                error = np.stack([rows["median"] - rows["low"], rows["high"] - rows["median"]])
                axis.errorbar(
                    rows["num_components"], rows["median"], error,
                    fmt="o-", ms=4, lw=1, color=PALETTE[method], label=method,
                )  # fmt: skip
            counts = sorted(medians["num_components"].unique())
            axis.set(xscale="log", yscale="log", xlabel="components $K$")
            axis.set_xticks(counts, [str(count) for count in counts])
            axis.minorticks_off()
            label_panel(axis, f"D = {dim}")
        axes[0, 0].set_ylabel("microseconds for an update")
        axes[0, -1].legend(fontsize=8)
    return figure
