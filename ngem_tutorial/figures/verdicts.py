"""The figure of the summary: how far our numbers are from the paper's."""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ngem_tutorial.figures.style import label_panel, style

__all__ = ["differences"]

_MARKS: dict[str, dict[str, Any]] = {  # by shape and fill, for colours belong to methods
    "replicates": {"marker": "o", "mfc": "black"},
    "inconclusive": {"marker": "o", "mfc": "white"},
    "differs": {"marker": "x"},
}
_LINEAR = 2.0  # margins to both sides; beyond, the axis is logarithmic


def differences(numbers: pd.DataFrame, *, reach: float = 100.0) -> Figure:
    """Ours minus the paper's in units of the margin, with its interval, for each number.

    Args:
        numbers: what `comparison.compare` returned. Numbers without a verdict on an interval are
            left out.
        reach: the axes end at this multiple of the margin, and so do longer intervals.

    Returns:
        A panel for Tables 1 to 4 and one for each quantity of Table 5; the margin is a band.
    """
    drawn = numbers[numbers["verdict"].isin(list(_MARKS)) & numbers["low"].notna()]
    last = drawn["table"].eq("Table 5")
    panels = {"Tables 1 to 4": drawn[~last]} | {
        f"Table 5: {quantity}": rows
        for quantity, rows in drawn[last].groupby("quantity", sort=False)
    }
    panels = {title: rows for title, rows in panels.items() if len(rows)}
    with style():
        figure, axes = plt.subplots(
            1,
            len(panels),
            figsize=(3.6 * len(panels), 0.19 * max(map(len, panels.values())) + 1.2),
            squeeze=False,
        )
        for axis, (title, rows) in zip(axes.flat, panels.items(), strict=True):
            _panel(axis, rows, reach)
            label_panel(axis, title)
        handles = [
            Line2D([], [], ls="", color="black", ms=4.5, label=name, **mark)
            for name, mark in _MARKS.items()
        ]
        figure.legend(handles=handles, loc="outside upper center", ncols=len(handles))
    return figure


def _panel(axis: Axes, rows: pd.DataFrame, reach: float) -> None:
    """The numbers of a panel from top to bottom."""
    axis.axvspan(-1.0, 1.0, color="0.88", zorder=0)
    for place, row in enumerate(rows.itertuples()):
        low, middle, high = np.clip(
            np.array([row.low, row.difference, row.high]) / row.margin, -reach, reach
        )
        axis.plot([low, high], [place, place], color="black", lw=1.0)
        axis.plot(
            [middle], [place], color="black", ls="", ms=4.5, label=row.verdict,
            **_MARKS[row.verdict],
        )  # fmt: skip
    axis.set_xscale("symlog", linthresh=_LINEAR)
    axis.set_xlim(-reach, reach)
    ticks = [-100, -10, -1, 0, 1, 10, 100]
    axis.set_xticks(ticks, [f"{tick}" for tick in ticks], fontsize=8)
    axis.minorticks_off()
    axis.set_xlabel("ours − paper's, in margins")
    axis.set_ylim(len(rows) - 0.4, -0.6)
    axis.set_yticks(range(len(rows)), [_label(row) for row in rows.itertuples()], fontsize=7)


def _label(row: Any) -> str:
    """Which number it is, inside its panel."""
    if row.table == "Table 5":
        return f"{row.condition}, {row.method}"
    return f"{row.table.removeprefix('Table ')}: {row.condition}, {row.quantity}, {row.method}"
