"""Figures of the page on EM and natural gradients."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator
from numpy.typing import ArrayLike

from ngem_tutorial.figures.style import DASHES, PALETTE, label_panel, style

__all__ = ["concept_map", "error_orders", "fitted_slope", "step_paths", "training_differences"]

_LINES: tuple[dict[str, Any], ...] = (
    {"color": PALETTE["damped nGEM"], "marker": "o", "linestyle": "-"},
    {"color": PALETTE["nGEM, as derived"], "marker": "D", "linestyle": (0, (1, 1))},
    {"color": PALETTE["NLL"], "marker": "s", "linestyle": (0, (4, 1.5))},
    {"color": PALETTE["fully damped nGEM"], "marker": "^", "linestyle": (0, (4, 1, 1, 1))},
)
"""One for each coordinate system, the same in all figures: mean parameters first."""


def training_differences(updates: ArrayLike, moved: ArrayLike, apart: ArrayLike) -> Figure:
    """How far the network of the NLL is from its start, and that of SGEM from it.

    Args:
        updates: numbers of updates, shape `(T,)`.
        moved: largest absolute difference of a parameter from its start, shape `(T,)`.
        apart: largest absolute difference of a parameter of the two networks, shape `(T,)`.

    Returns:
        Both against the updates; zeros have no place on the logarithmic axis and are left out.
    """
    updates = np.asarray(updates)
    with style():
        figure, axis = plt.subplots(figsize=(5.0, 3.2))
        for method, label, values in (
            ("NLL", "NLL, from its start", np.asarray(moved)),
            ("SGEM", "SGEM, from the NLL's network", np.asarray(apart)),
        ):
            shown = values > 0
            (line,) = axis.plot(
                updates[shown], values[shown], color=PALETTE[method], label=label, lw=2
            )
            if DASHES[method]:
                line.set_dashes(DASHES[method])
        axis.set(xlabel="update", ylabel="largest difference\nof a parameter", yscale="log")
        axis.set_ylim(1e-17, 1e1)
        axis.yaxis.set_major_locator(LogLocator(numticks=7))
        axis.yaxis.set_minor_locator(NullLocator())
        axis.legend(loc="center right")
    return figure


def step_paths(
    paths: Mapping[str, tuple[jax.Array, jax.Array]],
    start: tuple[jax.Array, jax.Array],
    end: tuple[jax.Array, jax.Array],
) -> Figure:
    """The same natural gradient, followed along the straight lines of several coordinates.

    Args:
        paths: for each coordinate system the means and scales along its straight line, each of
            shape `(S, K)`, at step lengths from 0 to 1.
        start: means and scales before the step, each of shape `(K,)`.
        end: those after an exact EM step.

    Returns:
        A panel for each component, mean and scale on the axes.
    """
    num_components = len(start[0])
    with style():
        figure, axes = plt.subplots(
            1, num_components, figsize=(3.3 * num_components, 3.6), squeeze=False
        )
        for k, axis in enumerate(axes[0]):
            for line, (label, (means, scales)) in zip(_LINES, paths.items(), strict=False):
                # A marker where the step of length one ends.
                axis.plot(
                    means[:, k], scales[:, k], lw=2, ms=6, markevery=[-1], label=label, **line
                )
            axis.plot(start[0][k], start[1][k], "o", color="black", ms=6, label=r"$\theta_t$")
            axis.plot(
                end[0][k], end[1][k], "o", mfc="none", mec="black", ms=12, mew=1.5, label="EM"
            )
            axis.set(xlabel=rf"mean $\mu_{k + 1}$", ylabel=rf"scale $\sigma_{k + 1}$")
            axis.margins(0.12)
            label_panel(axis, f"component {k + 1}")
        figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


def fitted_slope(step: ArrayLike, error: ArrayLike) -> float:
    """Slope of a line through the logarithms, the order of the error.

    Args:
        step: lengths of the steps, shape `(T,)`, positive.
        error: their errors, shape `(T,)`, positive.

    Returns:
        The slope by least squares.
    """
    return float(np.polyfit(np.log(np.asarray(step)), np.log(np.asarray(error)), 1)[0])


def error_orders(
    full: Mapping[str, tuple[jax.Array, jax.Array]],
    known_weights: Mapping[str, tuple[jax.Array, jax.Array]],
    *,
    shortest: int = 7,
    rounding: float = 1e-13,
) -> Figure:
    """Distance between a unit natural gradient step and an EM step, against the EM step's length.

    Args:
        full: for each coordinate system of a mixture the lengths and the distances, `(T,)` each.
        known_weights: the same for mixtures whose weights are known.
        shortest: how many of the shortest steps the slopes are fitted to; they come first.
        rounding: curves below it are rounding errors and get no slope.

    Returns:
        A panel for each of the two, with the fitted slopes in the legends.
    """
    titles = ("all parameters unknown", "only the means unknown")
    with style():
        figure, axes = plt.subplots(1, 2, figsize=(6.6, 4.6), sharey=True)
        for axis, title, curves, lines in zip(
            axes,
            titles,
            (full, known_weights),
            (_LINES, ({"color": "black", "marker": "x", "linestyle": "-"},)),
            strict=True,
        ):
            for line, (label, curve) in zip(lines, curves.items(), strict=False):
                step, error = (np.asarray(values) for values in curve)
                if (error < rounding).all():
                    text = f"{label}: rounding"
                else:
                    text = f"{label}: slope {fitted_slope(step[:shortest], error[:shortest]):.2f}"
                axis.loglog(step, np.maximum(error, 1e-17), ms=5, lw=1.5, label=text, **line)
            axis.set_xlabel("length of the EM step")
            axis.set_ylim(1e-18, 1e2)
            axis.set_yticks(10.0 ** np.arange(-16, 1, 4))
            axis.yaxis.set_minor_locator(NullLocator())
            axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.18), fontsize=10)
            label_panel(axis, title)
        axes[0].set_ylabel("distance between the two steps")
    return figure


class _Node(NamedTuple):
    position: tuple[float, float]
    name: str
    text: str
    color: str


_NODES = {
    "NLL": _Node((1.6, 7.4), "NLL", "gradient descent on\nthe observed data", PALETTE["NLL"]),
    "SGEM": _Node((8.4, 7.4), "SGEM", "E-step, then one\ngradient step", PALETTE["SGEM"]),
    "NGD": _Node((1.6, 0.9), "NGD", "inverse Fisher matrix\ntimes gradient", PALETTE["truth"]),
    "EM": _Node((8.4, 0.9), "EM", "E-step, then\nexact M-step", PALETTE["truth"]),
    "nGEM": _Node((5.0, 4.15), "nGEM", "SGEM's gradient,\npreconditioned", PALETTE["damped nGEM"]),
}


def concept_map() -> Figure:
    """The methods of the page and what leads from one to another, with the paper's numbers.

    Returns:
        Boxes for NLL, SGEM, EM, NGD and nGEM, and labelled arrows.
    """
    with style():
        figure, axis = plt.subplots(figsize=(6.4, 5.6))
        axis.set(xlim=(-0.2, 10.2), ylim=(-0.1, 8.5))
        axis.axis("off")
        for node in _NODES.values():
            _box(axis, node)
        both, one = "<->", "->"
        _arrow(axis, (3.1, 7.4), (6.9, 7.4), both)
        _label(axis, (5.0, 7.5), "equal gradients\nCor. 3.2", va="bottom")
        _arrow(axis, (3.1, 0.9), (6.9, 0.9), both)
        _label(axis, (5.0, 1.0), "unit step in\nmean parameters\nProp. 3.3", va="bottom")
        _arrow(axis, (8.4, 1.75), (8.4, 6.55), one)
        _label(axis, (8.55, 4.15), "M-step by\ngradient\n(16)", ha="left")
        _arrow(axis, (1.6, 6.55), (1.6, 1.75), one, linestyle=(0, (3, 2)))
        _label(axis, (1.45, 4.15), "observed-\ndata Fisher:\nno closed\nform (B.5)", ha="right")
        _arrow(axis, (7.2, 6.55), (5.9, 5.0), one)
        _label(axis, (6.1, 6.0), "gradient\n(18)", ha="right")
        _arrow(axis, (2.8, 1.75), (4.1, 3.3), one)
        _label(axis, (3.15, 2.95), "complete-\ndata Fisher\nProp. 3.4", ha="right", va="center")
    return figure


def _box(axis: Axes, node: _Node) -> None:
    x, y = node.position
    frame = {"boxstyle": "round,pad=0.5", "facecolor": "white", "edgecolor": node.color, "lw": 2}
    axis.text(
        x,
        y,
        f"$\\mathbf{{{node.name}}}$\n{node.text}",
        ha="center",
        va="center",
        bbox=frame,
        fontsize=10,
    )


def _arrow(
    axis: Axes, start: tuple[float, float], end: tuple[float, float], kind: str, **changes: Any
) -> None:
    properties = {"arrowstyle": kind, "color": "black", "lw": 1.3, "mutation_scale": 14}
    axis.annotate("", xy=end, xytext=start, arrowprops={**properties, **changes})


def _label(
    axis: Axes, position: tuple[float, float], text: str, ha: str = "center", va: str = "center"
) -> None:
    axis.text(*position, text, ha=ha, va=va, fontsize=10, color="#333333")
