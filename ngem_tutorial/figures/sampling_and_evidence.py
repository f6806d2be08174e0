"""Figures of the page on sampling and evidence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from jax.typing import ArrayLike
from matplotlib.figure import Figure

from ngem_tutorial.figures.style import PALETTE, label_panel, style

__all__ = ["agreement", "marginals", "solutions", "weight_tails"]

_MIXTURE, _OTHER, _GREY = PALETTE["damped nGEM"], PALETTE["NLL"], PALETTE["truth"]
_SOLUTIONS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")
_LINES = ("-", "--", "-.", ":")


def agreement(panels: Mapping[str, tuple[ArrayLike, ArrayLike]], labels: Sequence[str]) -> Figure:
    """The same quantities by two ways, one against the other.

    Args:
        panels: the values by the first and by the second way, of equal shapes, by what they are.
        labels: names of the two ways.

    Returns:
        A row of panels with the diagonal; the nearer to it, the better they agree.
    """
    with style():
        figure, axes = plt.subplots(1, len(panels), figsize=(7.5, 2.7), squeeze=False)
        for axis, (name, values) in zip(axes[0], panels.items(), strict=True):
            first, second = (np.ravel(np.asarray(v, float)) for v in values)
            low, high = min(first.min(), second.min()), max(first.max(), second.max())
            edge = 0.05 * (high - low)
            ends = (low - edge, high + edge)
            axis.plot(ends, ends, color=_GREY, lw=0.8, zorder=1)
            axis.plot(first, second, "o", ms=3.5, mfc="none", color=_MIXTURE, zorder=2)
            axis.set(xlim=ends, ylim=ends, aspect="equal", xlabel=labels[0])
            label_panel(axis, name)
        axes[0, 0].set_ylabel(labels[1])
    return figure


def weight_tails(log_weights: Mapping[str, ArrayLike]) -> Figure:
    """How large the largest importance weights are.

    Args:
        log_weights: shape `(n,)` each, not normalised, by the name of the fit.

    Returns:
        For each fit the share of samples whose weight is above the value on the axis, as a
        multiple of the mean weight, on logarithmic axes. A straight line is the tail of a Pareto
        distribution, with the slope `-1 / k`.
    """
    with style():
        figure, axis = plt.subplots(figsize=(5.6, 3.0))
        colours, largest = (_GREY, _OTHER, _MIXTURE), 1.0
        for (name, values), colour, line in zip(log_weights.items(), colours, _LINES, strict=False):
            w = np.exp(np.asarray(values, float) - np.max(values))
            ordered = np.sort(w / w.mean())[::-1]
            share = np.arange(1, len(ordered) + 1) / len(ordered)
            axis.plot(ordered, share, color=colour, ls=line, label=name)
            largest = max(largest, float(ordered[0]))
        axis.set(xscale="log", yscale="log", xlim=(0.1, 1.5 * largest))
        axis.set(xlabel="weight / mean weight", ylabel="share of larger weights")
        axis.legend()
    return figure


def solutions(
    grid: ArrayLike,
    target: ArrayLike,
    approximation: ArrayLike,
    chains: ArrayLike,
    arms: ArrayLike,
    goals: ArrayLike,
) -> Figure:
    """The solutions of a problem of two angles, and who found them.

    Args:
        grid: values of each angle, shape `(G,)`.
        target: density at the grid, shape `(G, G)`, the second angle first.
        approximation: that of the mixture, likewise.
        chains: draws of Markov chains, shape `(chains, draws, 2)`.
        arms: joints of the arm in each solution, shape `(solutions, joints, 2)`; four at most.
        goals: shape `(goals, 2)`.

    Returns:
        Three panels: the arm, a contour line of the mixture over the target in grey, and
        the draws of the chains over it.
    """
    x, height = np.asarray(grid), np.asarray(target)
    levels = height.max() * np.array([0.01, 0.1, 0.4, 1.0])
    with style():
        figure, axes = plt.subplots(1, 3, figsize=(7.5, 2.8))
        for joints, colour, line in zip(np.asarray(arms), _SOLUTIONS, _LINES, strict=False):
            axes[0].plot(*joints.T, color=colour, ls=line, marker="o", ms=3.5)
        axes[0].plot(*np.asarray(goals).T, "*", color="black", ms=11, ls="none", zorder=4)
        axes[0].set(aspect="equal", xlabel="horizontal", ylabel="vertical")
        for axis in axes[1:]:
            axis.contourf(x, x, height, levels=levels, colors=("0.8", "0.6", "0.4"))
            axis.set(xlabel="first angle", xlim=(x[0], x[-1]), ylim=(x[0], x[-1]))
        axes[1].contour(
            x, x, np.asarray(approximation), levels=levels[:1], colors=_MIXTURE, linewidths=1.2
        )
        axes[1].set_ylabel("second angle")
        for chain in np.asarray(chains):
            axes[2].plot(*chain.T, ".", ms=1.0, color=_OTHER)
        for axis, name in zip(axes, ("the arm", "mixture", "chains"), strict=True):
            label_panel(axis, name)
    return figure


def marginals(
    grid: ArrayLike, truth: ArrayLike, samples: Mapping[str, tuple[ArrayLike, ArrayLike | None]]
) -> Figure:
    """A density on a line, and weighted samples that should be of it.

    Args:
        grid: points, shape `(G,)`, evenly spaced.
        truth: the density there, shape `(G,)`.
        samples: points of shape `(n,)` and their weights, None for equal ones, by name.

    Returns:
        One panel: the truth grey, a line for each set of samples.
    """
    x = np.asarray(grid)
    with style():
        figure, axis = plt.subplots(figsize=(5.6, 2.8))
        axis.fill_between(x, np.asarray(truth), color="0.85", lw=0, label="truth")
        bins = np.linspace(x[0], x[-1], 61)
        colours = (_MIXTURE, _OTHER, "black")
        for (name, (values, weights)), colour, line in zip(
            samples.items(), colours, _LINES, strict=False
        ):
            given = np.asarray(values, float)
            share = np.ones(len(given)) if weights is None else np.asarray(weights, float)
            height = np.histogram(given, bins, weights=share / share.sum())[0] / np.diff(bins)
            axis.stairs(height, bins, color=colour, ls=line, lw=1.3, label=name)
        axis.set(xlim=(x[0], x[-1]), ylim=(0.0, None), xlabel="$x_1$", ylabel="density")
        axis.legend(loc="upper right")
    return figure
