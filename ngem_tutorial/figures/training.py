"""Figures of training: likelihoods, shares of successful runs, their distribution."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from ngem_tutorial.figures.style import DASHES, PALETTE, by_method, label_panel, style
from ngem_tutorial.metrics import wilson_interval

__all__ = ["convergence", "outcome_distribution", "seed_curves", "success_curves", "success_rates"]


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
    with style():
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
                **by_method(table),
            )
            axis.set(
                xlabel="update",
                ylabel="negative log-likelihood (nats)" if axis is axes[0, 0] else "",
            )
            label_panel(axis, f"β = {value:g}" if panels == "learning_rate" else str(value))
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
    with style():
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
            label_panel(axis, f"start {value}" if panels == "initialisation" else str(value))
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
    with style():
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
            label_panel(axis, f"start {rows[i]}, β = {rates[j]:g}")
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
    with style():
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
            label_panel(axis, f"β = {rate:g}")
        axes[0, 0].set_ylabel("share of runs")
        handles, labels = axes[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=len(labels), fontsize=9)
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
    with style():
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
