"""Figures of the page on damped nGEM."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from ngem_tutorial.figures.style import DASHES, MARKERS, PALETTE, label_panel, style

__all__ = ["median_curves", "sorted_outcomes", "success_by_candidate"]

_SHADES = ("#0072B2", "#009E73", "#E69F00", "#D55E00")
_MARKS = ("o", "s", "D", "^")


def success_by_candidate(runs: pd.DataFrame, candidates: Sequence[str]) -> Figure:
    """Share of successful runs of each candidate, for every start, rate and share of the data.

    Args:
        runs: a row per run with `start`, `learning_rate`, `weight`, `method` and `succeeded`.
        candidates: their names, from top to bottom.

    Returns:
        A grid of panels, a row for each start and a column for each learning rate, the largest
        first. A mark for each weight of the data; at most four weights.
    """
    starts, weights = list(dict.fromkeys(runs["start"])), sorted(runs["weight"].unique())
    rates = sorted(runs["learning_rate"].unique(), reverse=True)
    share = runs.groupby(["start", "learning_rate", "weight", "method"])["succeeded"].mean()
    rows = np.arange(len(candidates))[::-1]
    with style():
        figure, axes = plt.subplots(
            len(starts), len(rates), sharex=True, sharey=True, squeeze=False,
            figsize=(7.5, 0.9 + len(starts) * 0.21 * len(candidates)),
        )  # fmt: skip
        for line, start in zip(axes, starts, strict=True):
            for axis, rate in zip(line, rates, strict=True):
                for i, weight in enumerate(weights):
                    own = share[start, rate, weight].reindex(list(candidates))
                    axis.plot(
                        own, rows + 0.18 * (1.5 - i), _MARKS[i], ms=4, color=_SHADES[i],
                        label=f"{weight:g}", clip_on=False, mew=0,
                    )  # fmt: skip
                axis.axvline(0.95, color="black", lw=0.7, ls=":")
                axis.set(xlim=(0, 1), yticks=rows, yticklabels=list(candidates))
                axis.set_xticks((0, 0.5, 1), ("0", "0.5", "1"))
                axis.tick_params(axis="y", length=0, labelsize=8)
                axis.set_ylim(-0.7, len(candidates) - 0.3)
                axis.grid(axis="y", lw=0.3)
                label_panel(axis, f"{start}, β = {rate:g}")
        figure.supxlabel("share of runs that succeed", fontsize=10)
        handles, labels = axes[0, 0].get_legend_handles_labels()
        figure.legend(
            handles, labels, loc="outside upper center", ncols=4, title="share of the larger mode",
            title_fontsize=9, fontsize=9,
        )  # fmt: skip
    return figure


def sorted_outcomes(runs: pd.DataFrame, level: float) -> Figure:
    """What every run ended with, sorted: a cumulative distribution for each method and panel.

    Args:
        runs: a row per run with `panel`, `method` and `excess` (nats; missing where the run was
            not finite).
        level: what counts as a success, drawn as a line.

    Returns:
        A row of panels in the order of the table; excess above `level` on a logarithmic scale,
        below it on a linear one. Runs without a value are missing on the right.
    """
    names = list(dict.fromkeys(runs["panel"]))
    with style():
        figure, axes = plt.subplots(
            1, len(names), figsize=(7.5, 2.8), sharex=True, sharey=True, squeeze=False
        )
        for axis, name in zip(axes[0], names, strict=True):
            for method in [m for m in PALETTE if m in set(runs["method"])]:
                own = runs[runs["panel"].eq(name) & runs["method"].eq(method)]
                values = np.sort(own["excess"].dropna())
                rank = (np.arange(len(values)) + 0.5) / max(len(own), 1)
                axis.plot(rank, values, MARKERS[method], ms=3, color=PALETTE[method], label=method)
            axis.axhline(level, color="black", lw=0.7, ls=":")
            axis.set_yscale("symlog", linthresh=level, linscale=0.6)
            axis.set(xlim=(0, 1), xticks=(0, 0.5, 1))
            label_panel(axis, name)
        axes[0, 0].set_ylabel("nats above the truth")
        figure.supxlabel("runs, the best first (share)", fontsize=10)
        figure.legend(
            *axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=4,
            markerscale=1.6,
        )  # fmt: skip
    return figure


def median_curves(curves: pd.DataFrame) -> Figure:
    """The median distance from the best likelihood during training.

    Args:
        curves: a row per recorded point with `panel`, `method`, `update` and `median_excess`
            (nats).

    Returns:
        A row of panels in the order of the table, both axes logarithmic; what is below a
        thousandth of a nat is drawn there.
    """
    names = list(dict.fromkeys(curves["panel"]))
    with style():
        figure, axes = plt.subplots(1, len(names), figsize=(7.5, 2.8), sharey=True, squeeze=False)
        for axis, name in zip(axes[0], names, strict=True):
            for method in [m for m in PALETTE if m in set(curves["method"])]:
                own = curves[curves["panel"].eq(name) & curves["method"].eq(method)]
                (line,) = axis.loglog(
                    own["update"], own["median_excess"].clip(lower=1e-3),
                    color=PALETTE[method], label=method,
                )  # fmt: skip
                if DASHES.get(method):
                    line.set_dashes(DASHES[method])
            label_panel(axis, name)
        axes[0, 0].set_ylabel("nats above the best, median")
        figure.supxlabel("updates", fontsize=10)
        figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=4)
    return figure
