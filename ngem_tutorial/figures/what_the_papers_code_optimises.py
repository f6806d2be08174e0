"""Figures of the page on what the paper's code optimises."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ngem_tutorial.figures.style import MARKERS, PALETTE, label_panel, style

__all__ = ["bias_and_cost", "log_odds_steps", "square_root_law"]

_CODE = PALETTE["nGEM, paper's code"]


def square_root_law(table: pd.DataFrame) -> Figure:
    """Learned weights against the shares of the data, and against the fixed-point equation.

    Args:
        table: a row per component of a mixture: `K`, `overlap` (a boolean), `share`, `weight`
            (learned), `scaled` (`weight` times the sum of the roots of the mixture's shares) and
            `solved` (the weight by the fixed-point equation).

    Returns:
        Two panels; a marker per number of components, hollow where components overlap.
    """
    grid = np.linspace(0.0, 1.0, 200)
    with style():
        figure, (left, right) = plt.subplots(1, 2, figsize=(6.6, 3.1))
        left.plot(grid, np.sqrt(grid), color="black", lw=1.0)
        left.plot(grid, grid, ":", color=PALETTE["truth"], lw=1.0)
        right.plot(grid, grid, color="black", lw=1.0)
        for marker, (k, rows) in zip("os^", table.groupby("K"), strict=False):
            for overlap, part in rows.groupby("overlap"):
                look = {
                    "ls": "", "marker": marker, "ms": 5, "mec": _CODE, "alpha": 0.9,
                    "mfc": "white" if overlap else _CODE,
                    "label": f"K = {k}" + (", overlap" if overlap else ""),
                }  # fmt: skip
                left.plot(part["share"], part["scaled"], **look)
                right.plot(part["solved"], part["weight"], **look)
        left.set(xlabel="share $w_k$ of the data", ylabel=r"learned $\pi_k \sum_j \sqrt{w_j}$")
        right.set(xlabel="solution of the equation", ylabel=r"learned weight $\pi_k$")
        right.legend(fontsize=8, loc="upper left", handletextpad=0.1, borderaxespad=0.0)
    return figure


def bias_and_cost(cost: Mapping[int, np.ndarray], shares: np.ndarray) -> Figure:
    """The weight of the square-root law for two components, and what the law costs.

    Args:
        cost: for each number of components the divergence from the truth to the law in nats, where
            one component has the share and the others divide the rest evenly, shape `(T,)`.
        shares: the shares, between 0 and 1, shape `(T,)`.

    Returns:
        Two panels.
    """
    law = np.sqrt(shares) / (np.sqrt(shares) + np.sqrt(1 - shares))
    with style():
        figure, (left, right) = plt.subplots(1, 2, figsize=(6.6, 2.9))
        left.plot(shares, shares, ":", color=PALETTE["truth"], lw=1.2, label="truth")
        left.plot(shares, law, color=_CODE, lw=2.0, label="paper's code, K = 2")
        left.set(xlabel="share $w_1$", ylabel=r"weight $\pi_1$", xlim=(0, 1), ylim=(0, 1))
        left.legend(fontsize=9)
        for line, (k, values) in zip(("-", "--", "-.", ":"), cost.items(), strict=False):
            right.plot(shares, values, line, color=_CODE, lw=2.0, label=f"K = {k}")
        right.set(xlabel="share $w_1$", ylabel="cost (nats)", xlim=(0, 1), ylim=(0, None))
        right.legend(fontsize=9)
    return figure


def log_odds_steps(
    runs: Mapping[str, Sequence[np.ndarray]], target: float, lost: pd.DataFrame
) -> Figure:
    """Full-batch natural steps of the log-odds, and how many stochastic runs were lost.

    Args:
        runs: for each label the log-odds before each step, of several starts.
        target: the log-odds of the truth.
        lost: a row per method and setting: `method`, `spread` (predicted standard deviation of
            the log-odds) and `lost` (share of the runs that collapsed or were not finite).

    Returns:
        A panel per label and one for the lost runs.
    """
    with style():
        figure, axes = plt.subplots(1, len(runs) + 1, figsize=(2.7 * (len(runs) + 1), 2.8))
        for axis, (label, several) in zip(axes, runs.items(), strict=False):
            axis.axhline(target, color="black", lw=0.8)
            for path in several:
                axis.plot(path, ".-", color=PALETTE["nGEM, as derived"], lw=1.0, ms=4)
            axis.set(xlabel="step", ylabel="log-odds", ylim=(-12, 12))
            label_panel(axis, label)
        _lost(axes[-1], lost)
    return figure


def _lost(axis: Axes, lost: pd.DataFrame) -> None:
    for method, rows in lost.groupby("method", sort=False):
        axis.plot(
            rows["spread"], rows["lost"], ls="", marker=MARKERS[str(method)],
            color=PALETTE[str(method)], label=method, ms=5,
        )  # fmt: skip
    axis.set(xscale="log", xlabel="predicted spread", ylabel="runs lost")
    axis.legend(fontsize=8)
    label_panel(axis, "stochastic steps")
