"""Figures of the page on the seven choices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from jax.typing import ArrayLike
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ngem_tutorial.figures.style import label_panel, style

__all__ = ["curves", "side_by_side"]

_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7")  # as in variational.py
_LINES = ("-", "--", "-.", ":")


def curves(
    x: ArrayLike,
    lines: Mapping[str, ArrayLike],
    labels: Sequence[str],
    *,
    log: Sequence[str] = (),
    level: float | None = None,
) -> Figure:
    """Some quantities over one axis.

    Args:
        x: shape `(N,)`.
        lines: shape `(N,)` each, by name; four at most.
        labels: of the two axes.
        log: which axes are logarithmic: `"x"`, `"y"`.
        level: where a dotted line is drawn.

    Returns:
        One panel.
    """
    with style():
        figure, axis = plt.subplots(figsize=(5.6, 3.0))
        _draw(axis, x, lines, level)
        axis.set(xlabel=labels[0], ylabel=labels[1])
        for name in log:
            axis.set(**{f"{name}scale": "log"})
        axis.legend()
    return figure


def side_by_side(
    x: ArrayLike,
    panels: Mapping[str, Mapping[str, ArrayLike]],
    label: str,
    levels: Sequence[float | None] | None = None,
    *,
    log: Sequence[str] = (),
    limits: Mapping[str, tuple[float, float]] | None = None,
) -> Figure:
    """Some panels over the same axis.

    Args:
        x: shape `(N,)`.
        panels: the lines of each panel, as `curves` takes them, by what its second axis shows.
        label: of the first axis.
        levels: where each panel has a dotted line; None for none.
        log: names of the panels whose second axis is logarithmic.
        limits: ends of the second axis of some panels, by their names.

    Returns:
        A row of panels, with one legend.
    """
    with style():
        figure, axes = plt.subplots(1, len(panels), figsize=(7.5, 2.9), squeeze=False)
        for position, (axis, (name, lines)) in enumerate(zip(axes[0], panels.items(), strict=True)):
            _draw(axis, x, lines, levels[position] if levels else None)
            axis.set_xlabel(label)
            if name in log:
                axis.set_yscale("log")
            if limits and name in limits:
                axis.set_ylim(limits[name])
            label_panel(axis, name)
        axes[0, 0].legend()
    return figure


def _draw(axis: Axes, x: ArrayLike, lines: Mapping[str, ArrayLike], level: float | None) -> None:
    for (name, y), colour, line in zip(lines.items(), _COLOURS, _LINES, strict=False):
        axis.plot(np.asarray(x), np.asarray(y), color=colour, ls=line, label=name)
    if level is not None:
        axis.axhline(level, color="0.4", ls=":", lw=1.0)
