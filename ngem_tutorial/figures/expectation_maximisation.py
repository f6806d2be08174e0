"""Figures of the page on expectation maximisation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse
from numpy.typing import ArrayLike

from ngem_tutorial.figures.style import PALETTE, label_panel, style
from ngem_tutorial.mixtures import GaussianMixture

__all__ = ["fits", "floors", "gains", "starts", "steps", "touching_bounds"]

_ORDER = (
    PALETTE["NLL"],
    PALETTE["damped nGEM"],
    PALETTE["nGEM, as derived"],
    PALETTE["fully damped nGEM"],
)
_MARKS = ("o", "D", "s")
_INK = "black"


def touching_bounds(
    grid: ArrayLike,
    log_likelihood: ArrayLike,
    panels: Mapping[str, tuple[ArrayLike, ArrayLike, ArrayLike]],
    limits: Sequence[tuple[float, float, float, float]],
    xlabel: str,
) -> Figure:
    """A log-likelihood along a line, and the lower bounds of successive E-steps.

    Args:
        grid: values of the parameter, shape `(G,)`.
        log_likelihood: at `grid`, in nats, shape `(G,)`.
        panels: for each label the parameters at which the E-steps were made, shape `(T,)`, the
            log-likelihoods there, `(T,)`, and the bounds at `grid`, `(T, G)`; `T` at most 4.
        limits: left, right, bottom and top of each panel.
        xlabel: name of the parameter, with its unit.

    Returns:
        A row of panels: the log-likelihood is black, each bound has a dot where it touches and a
        dashed line from its top up to the log-likelihood, where the next one touches.
    """
    x = np.asarray(grid)
    with style():
        figure, axes = plt.subplots(1, len(panels), figsize=(7.5, 3.4), squeeze=False)
        for axis, (label, (at, value, bounds)), box in zip(
            axes[0], panels.items(), limits, strict=True
        ):
            left, right, bottom, top = box
            points, values, curves = np.asarray(at), np.asarray(value), np.asarray(bounds)
            axis.plot(x, np.asarray(log_likelihood), color=_INK, lw=1.8)
            side = 9 if points[0] > points[-1] else -8  # where the next step is not
            for i, (point, height, curve) in enumerate(zip(points, values, curves, strict=True)):
                axis.plot(x, curve, color=_ORDER[i], lw=1.3)
                axis.plot(point, height, "o", color=_ORDER[i], ms=6, zorder=3)
                axis.annotate(
                    str(i), (point, height), (side, 5), ha="center", textcoords="offset points",
                    color=_ORDER[i],
                )  # fmt: skip
                if i + 1 < len(points):
                    peak = curve.max()
                    here = points[i + 1]
                    axis.plot([here] * 2, [peak, values[i + 1]], color="gray", lw=1, ls=":")
            axis.set(xlim=(left, right), ylim=(bottom, top), xlabel=xlabel)
            label_panel(axis, label)
        axes[0, 0].set_ylabel("mean log-likelihood (nats)")
    return figure


def fits(
    panels: Mapping[str, GaussianMixture],
    y: ArrayLike,
    groups: ArrayLike,
    names: Sequence[str],
    labels: tuple[str, str],
) -> Figure:
    """Points in two dimensions and the components of mixtures as ellipses of two scales.

    Args:
        panels: for each label a mixture of `D = 2`, batch shape `()`.
        y: the data, shape `(N, 2)`.
        groups: the group of each point, integers from 0, shape `(N,)`.
        names: names of the groups, at most three.
        labels: names of the two coordinates.

    Returns:
        A row of panels. The groups have different marks; the ellipses know nothing of them.
    """
    points, group = np.asarray(y), np.asarray(groups)
    margin = 0.12 * np.ptp(points, axis=0)
    low, high = points.min(axis=0) - margin, points.max(axis=0) + margin
    with style():
        figure, axes = plt.subplots(
            2, -(-len(panels) // 2), figsize=(7.0, 5.6), sharex=True, sharey=True, squeeze=False
        )
        for axis, (label, mixture) in zip(axes.flat, panels.items(), strict=True):
            for g, name in enumerate(names):
                axis.scatter(
                    *points[group == g].T, s=12, color=PALETTE["truth"], marker=_MARKS[g],
                    facecolors="none" if g == 1 else None, alpha=0.55, lw=0.8, label=name,
                )  # fmt: skip
            for k in range(mixture.num_components):
                mean, scale = np.asarray(mixture.means)[k], np.asarray(mixture.scales)[k]
                ellipse: Any = {"angle": 0.0, "edgecolor": _ORDER[k % len(_ORDER)], "lw": 1.8}
                axis.add_patch(Ellipse(mean, *(4.0 * scale), facecolor="none", **ellipse))
                axis.plot(*mean, "+", color=_ORDER[k % len(_ORDER)], ms=9, mew=1.8)
            axis.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]))
            label_panel(axis, label)
        for axis in axes[-1]:
            axis.set_xlabel(labels[0])
        for axis in axes[:, 0]:
            axis.set_ylabel(labels[1])
        handles, texts = axes[0, 0].get_legend_handles_labels()
        figure.legend(handles, texts, loc="outside lower center", ncols=len(names))
    return figure


def gains(log_likelihood: ArrayLike, q: ArrayLike, divergence: ArrayLike) -> Figure:
    """How much each EM step gains, and of what the gain consists.

    Args:
        log_likelihood: mean log-likelihood before each step and after the last, shape `(T + 1,)`.
        q: by how much each step raised the objective of the M-step, shape `(T,)`.
        divergence: divergence of the new responsibilities from the old, shape `(T,)`.

    Returns:
        Two panels: the log-likelihood, and the two parts of its increments, stacked.
    """
    values, first, second = (np.asarray(a) for a in (log_likelihood, q, divergence))
    step = np.arange(1, len(first) + 1)
    with style():
        figure, axes = plt.subplots(1, 2, figsize=(7.5, 3.2))
        axes[0].plot(np.arange(len(values)), values, color=_INK, marker=".")
        axes[0].set(xlabel="EM steps", ylabel="mean log-likelihood (nats)")
        axes[1].plot(step, first + second, color=_INK, marker=".", label="gain")
        axes[1].plot(step, first, color=PALETTE["damped nGEM"], ls="--", label="rise of $Q$")
        axes[1].plot(step, second, color=PALETTE["NLL"], ls=":", lw=2, label="divergence")
        axes[1].set(xlabel="EM step", ylabel="nats", yscale="log")
        axes[1].legend()
    return figure


_STEPS: dict[str, tuple[str, Any]] = {
    "EM": (_INK, "-"),
    "natural": (PALETTE["damped nGEM"], "-"),
    "gradient": (PALETTE["NLL"], "-"),
}
_LINES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1, 1.2)))


def steps(panels: Mapping[str, Mapping[str, ArrayLike]]) -> Figure:
    """How far below the maximum several kinds of step are.

    Args:
        panels: for each label and each kind of step, as `"EM"`, `"natural, 0.5"` or
            `"gradient, 0.1"`, what is missing to the maximum of the mean log-likelihood before each
            step and after the last, in nats, shape `(T + 1,)`.

    Returns:
        A row of panels with a logarithmic axis. The colour is the kind, the dashes are the rate, in
        the order in which the rates are given.
    """
    with style():
        figure, axes = plt.subplots(1, len(panels), figsize=(7.5, 4.4), sharey=True, squeeze=False)
        for axis, (label, curves) in zip(axes[0], panels.items(), strict=True):
            seen: dict[str, int] = {}
            for name, curve in curves.items():
                kind = name.split(",")[0]
                line = _LINES[seen.setdefault(kind, 0)]
                seen[kind] += 1
                # Below this, what is left is rounding.
                gap = np.maximum(np.asarray(curve), 1e-12)
                axis.plot(gap, color=_STEPS[kind][0], ls=line, lw=1.4, label=name)
            axis.set(xlabel="steps", yscale="log", ylim=(1e-10, 20))
            label_panel(axis, label)
            axis.legend(
                loc="upper center", bbox_to_anchor=(0.5, -0.18), ncols=2, fontsize=8,
                handlelength=2.6, columnspacing=1.0,
            )  # fmt: skip
        axes[0, 0].set_ylabel("below the maximum (nats)")
    return figure


def starts(panels: Mapping[str, tuple[ArrayLike, float | None]]) -> Figure:
    """Where EM ends from many random starts.

    Args:
        panels: for each label the mean log-likelihoods that were reached, in nats, shape `(S,)`,
            and that of the truth if it is known.

    Returns:
        A row of histograms, the truth as a dashed line.
    """
    with style():
        figure, axes = plt.subplots(1, len(panels), figsize=(7.5, 3.0), squeeze=False)
        for axis, (label, (reached, truth)) in zip(axes[0], panels.items(), strict=True):
            counts, edges, _ = axis.hist(np.asarray(reached), bins=40, color=PALETTE["damped nGEM"])
            for count, left, right in zip(counts, edges[:-1], edges[1:], strict=True):
                if count:
                    at = (left + right) / 2
                    axis.text(at, count, f"{count:.0f}", ha="center", va="bottom", fontsize=8)
            axis.margins(y=0.12)
            axis.locator_params(axis="x", nbins=5)
            if truth is not None:
                axis.axvline(truth, color=_INK, ls="--", lw=1.2, label="truth")
                axis.legend(loc="upper left")
            axis.set(xlabel="mean log-likelihood reached (nats)")
            label_panel(axis, label)
        axes[0, 0].set_ylabel("number of starts")
    return figure


def floors(
    scale: Mapping[str, ArrayLike], floor: ArrayLike, best: ArrayLike, on_floor: ArrayLike
) -> Figure:
    """A component that collapses, and the best likelihood as a function of the floor.

    Args:
        scale: for each label the smallest scale of a mixture before each EM step and after the
            last, shape `(T + 1,)`, in the units of the data; where not positive it is not drawn.
        floor: floors of the scales, shape `(F,)`.
        best: highest mean log-likelihood that many starts found with each floor, shape `(F,)`.
        on_floor: whether the mixture that has it has a scale on the floor, shape `(F,)`.

    Returns:
        Two panels with logarithmic axes for the scales.
    """
    x, y, on = (np.asarray(a) for a in (floor, best, on_floor))
    with style():
        figure, axes = plt.subplots(1, 2, figsize=(7.5, 3.2))
        colours = (PALETTE["NLL"], PALETTE["damped nGEM"])
        for (label, values), colour, line in zip(scale.items(), colours, ("-", "--"), strict=True):
            smallest = np.asarray(values)
            kept = np.where(smallest > 0, smallest, np.nan)
            axes[0].plot(kept, color=colour, ls=line, label=label)
        axes[0].set(xlabel="EM steps", ylabel="smallest scale (cm)", yscale="log")
        axes[0].legend()
        axes[1].plot(x, y, color="gray", lw=1, zorder=1)
        for mask, colour, mark, label in (
            (on, PALETTE["NLL"], "D", "has a scale on the floor"),
            (~on, PALETTE["damped nGEM"], "o", "free of the floor"),
        ):
            axes[1].plot(x[mask], y[mask], ls="", marker=mark, color=colour, label=label)
        axes[1].set(xlabel="floor of the scales (cm)", ylabel="best mean log-likelihood (nats)")
        axes[1].set_xscale("log")
        axes[1].legend()
    return figure
