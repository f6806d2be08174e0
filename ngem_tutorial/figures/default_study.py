"""Figures of the study of the default: every candidate on every task, and what cannot be had."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap, TwoSlopeNorm
from matplotlib.figure import Figure

from ngem_tutorial.figures.style import MARKERS, PALETTE, style

__all__ = ["CRITERIA", "differences", "frontier", "intervals", "success_by_modes"]

_LARGEST: Final = 0.5  # nats, where the colours end
_AHEAD, _LEVEL, _BEHIND = (0.0, 0.447, 0.698), (1.0, 1.0, 1.0), (0.835, 0.369, 0.0)
_LINES: Final = (
    "#000000", "#E69F00", "#56B4E9", "#009E73", "#D55E00", "#0072B2", "#CC79A7", "#999999",
)  # fmt: skip

CRITERIA: Final[Mapping[str, str]] = {
    "not_behind": "not behind\nNLL",
    "success": "runs that\nsucceed",
    "faster": "a third of\nthe updates",
    "weights": "weights\nwithin 0.01",
}
"""The columns of `frontier` that are its axes, with their labels; each is a share."""


def differences(judged: pd.DataFrame, methods: Sequence[str], margin: float) -> Figure:
    """The held-out likelihood of each candidate on each task, less that of NLL.

    Args:
        judged: what `experiments.default_study.judge` returns.
        methods: the candidates, from top to bottom.
        margin: in nats; an interval that lies wholly beyond it gets a mark.

    Returns:
        A grid, a row for each candidate and a column for each task: blue is better than NLL, orange
        worse. A dot marks a candidate that is ahead, a cross one that is behind.
    """
    values, low, high = (
        _grid(judged, methods, name) for name in ("minus_nll", "minus_nll_low", "minus_nll_high")
    )
    with style():
        figure, axis = _panel(values)
        image = axis.imshow(
            np.clip(values.to_numpy(), -_LARGEST, _LARGEST), _colours(), aspect="auto",
            norm=TwoSlopeNorm(0.0, -_LARGEST, _LARGEST),
        )  # fmt: skip
        for marker, marked in (("o", high < -margin), ("x", low > margin)):
            row, column = np.nonzero(marked.to_numpy())
            axis.plot(column, row, marker, color="black", ms=3.5, mew=0.9, ls="")
        bar = figure.colorbar(image, ax=axis, shrink=0.4, pad=0.02)
        bar.set_label("nats more than NLL", fontsize=9)
    return figure


def intervals(judged: pd.DataFrame, methods: Sequence[str], margin: float) -> Figure:
    """The held-out likelihood of a few candidates less that of NLL, with its intervals.

    Args:
        judged: as in `differences`.
        methods: the candidates, at most four, each with a line and a marker of its own.
        margin: in nats, drawn as a band around zero.

    Returns:
        A row for each task, from top to bottom. What is beyond the colours of `differences` is
        drawn as an arrow at the edge.
    """
    tasks = list(dict.fromkeys(judged["task"]))
    with style():
        figure, axis = plt.subplots(figsize=(7.5, 1.2 + 0.27 * len(tasks)))
        axis.axvspan(-margin, margin, color="0.9", lw=0)
        axis.axvline(0.0, color="0.4", lw=0.8)
        for i, name in enumerate(methods):
            own = judged[judged["method"] == name].set_index("task").reindex(tasks)
            at = np.arange(len(tasks)) + 0.18 * (i - (len(methods) - 1) / 2)
            middle, low, high = (
                own[column].to_numpy(float)
                for column in ("minus_nll", "minus_nll_low", "minus_nll_high")
            )
            colour = PALETTE.get(name, _LINES[i])
            shown = np.abs(middle) <= _LARGEST
            ends = np.clip([low, high], -_LARGEST, _LARGEST)
            axis.hlines(at[shown], *ends[:, shown], color=colour, lw=1.4)
            axis.plot(
                middle[shown], at[shown], MARKERS.get(name, "o"), color=colour, ms=5, ls="",
                label=name,
            )  # fmt: skip
            for marker, beyond in ((">", middle > _LARGEST), ("<", middle < -_LARGEST)):
                if not beyond.any():
                    continue
                edge = _LARGEST if marker == ">" else -_LARGEST
                axis.plot(
                    np.full(beyond.sum(), edge), at[beyond], marker, color=colour, ms=6, ls="",
                    clip_on=False,
                )  # fmt: skip
        axis.set_yticks(range(len(tasks)), tasks, fontsize=8)
        axis.set(ylim=(len(tasks) - 0.4, -0.6), xlim=(-_LARGEST, _LARGEST))
        axis.set_xlabel("nats more than NLL: left is better")
        figure.legend(loc="outside lower center", ncols=len(methods), fontsize=8)
    return figure


def success_by_modes(judged: pd.DataFrame, methods: Mapping[str, str]) -> Figure:
    """The share of runs on free mixtures that succeed, by the number of modes.

    Args:
        judged: as in `differences`; tasks of other kinds are left out.
        methods: the candidates, at most eight, and what they are called in the legend.

    Returns:
        A panel for as many components as modes and one for twice as many. A point is the mean over
        the tasks with that number of modes.
    """
    names = judged["task"].str.extract(r"^(\d+) modes, K=(\d+)").astype(float)
    free = judged.assign(modes=names[0], factor=names[1] / names[0]).dropna(subset=["factor"])
    shares = free.groupby(["factor", "method", "modes"])["success"].mean()
    with style():
        figure, axes = plt.subplots(1, 2, figsize=(7.5, 3.2), sharey=True)
        for axis, (factor, title) in zip(
            axes, ((1.0, "as many components as modes"), (2.0, "twice as many")), strict=True
        ):
            for i, (name, label) in enumerate(methods.items()):
                own = shares[factor][name]
                shift = 1.0 + 0.012 * (i - (len(methods) - 1) / 2)  # lines that would hide others
                axis.plot(
                    own.index * shift, own, marker=MARKERS.get(name, "os^vDP*X"[i]), ms=5,
                    color=PALETTE.get(name, _LINES[i]), lw=1.4, label=label,
                )  # fmt: skip
            axis.set(xscale="log", xlabel="modes", title=title, ylim=(-0.04, 1.04))
            modes = np.unique(free["modes"])
            axis.set_xticks(modes, [f"{m:.0f}" for m in modes])
            axis.minorticks_off()
        axes[0].set_ylabel("share of runs that succeed")
        axes[0].set_yticks((0, 0.25, 0.5, 0.75, 1.0))
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=2, fontsize=8)
    return figure


def frontier(table: pd.DataFrame, methods: Sequence[str]) -> Figure:
    """What each of a few candidates is worth by every criterion, and what none has together.

    Args:
        table: a row for each candidate, with the columns of `CRITERIA`, shares from 0 to 1.
        methods: the candidates to be drawn, at most eight.

    Returns:
        An axis for each criterion, up is better, and a line for each candidate.
    """
    at = np.arange(len(CRITERIA))
    with style():
        figure, axis = plt.subplots(figsize=(7.5, 4.2))
        for i, (name, colour) in enumerate(zip(methods, _LINES, strict=False)):
            shares = table.loc[name, list(CRITERIA)].to_numpy(float)
            shift = 0.006 * (i - (len(methods) - 1) / 2)  # lines that would hide each other
            axis.plot(at, shares + shift, "o-", color=colour, ms=4, lw=1.5, label=name)
        for x in range(len(CRITERIA)):
            axis.axvline(x, color="0.7", lw=0.7, zorder=0)
        axis.set(xticks=at, xticklabels=list(CRITERIA.values()), ylim=(-0.03, 1.03))
        axis.set_yticks((0, 0.5, 1), ("none", "half", "all"))
        axis.set_xlim(-0.2, len(CRITERIA) - 0.8)
        figure.legend(loc="outside lower center", ncols=2, fontsize=8)
    return figure


def _grid(judged: pd.DataFrame, methods: Sequence[str], name: str) -> pd.DataFrame:
    """A row for each candidate and a column for each task, both in their order."""
    tasks = list(dict.fromkeys(judged["task"]))
    table = judged.pivot(index="method", columns="task", values=name)
    return table.reindex(index=list(methods), columns=tasks)


def _panel(values: pd.DataFrame) -> tuple[Figure, Axes]:
    rows, columns = values.shape
    figure, axis = plt.subplots(figsize=(7.5, 1.9 + 0.19 * rows))
    axis.set_xticks(range(columns), values.columns, rotation=55, ha="right", fontsize=7.5)
    axis.set_yticks(range(rows), values.index, fontsize=7.5)
    axis.tick_params(length=0)
    axis.set_facecolor("0.9")
    return figure, axis


def _colours() -> ListedColormap:
    """From blue over white to orange."""
    part = np.linspace(0.0, 1.0, 128)[:, None]
    below = (1 - part) * np.array(_AHEAD) + part * np.array(_LEVEL)
    above = (1 - part) * np.array(_LEVEL) + part * np.array(_BEHIND)
    return ListedColormap(np.concatenate([below, above]))
