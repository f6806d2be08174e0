"""Figures of the page on Fisher matrices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from jax.typing import ArrayLike
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from ngem_tutorial.figures.style import PALETTE, label_panel, style

__all__ = ["logit_gradient_sizes", "matrices_with_blocks", "missing_information"]

_DIVERGING = LinearSegmentedColormap.from_list(
    "orange to blue", [PALETTE["NLL"], "white", PALETTE["damped nGEM"]]
)
_UNIT = Normalize(-1.0, 1.0)
_CHOICES = {  # the choices of `Variant.logits`, each with the colour of its method
    "plain": ("plain, $\\pi - \\rho$", PALETTE["truth"], "-"),
    "eq68": ("eq. (68), $1 - r$", PALETTE["nGEM, paper's code"], "-"),
    "natural": ("Moore-Penrose", PALETTE["nGEM, as derived"], (0, (4, 2))),
    "damped": ("damped", PALETTE["fully damped nGEM"], "-"),
}


def logit_gradient_sizes(
    weights: ArrayLike, sizes: Mapping[str, Mapping[str, ArrayLike]], ratios: Mapping[str, float]
) -> Figure:
    """How large a logit's entry is as the weight of its component falls, on two log scales.

    Args:
        weights: the weights of the starving component, shape `(W,)`, positive.
        sizes: for the label of each panel the sizes by choice of `Variant.logits`, each of
            shape `(W,)`. Zeros are left out.
        ratios: for the label of each panel a level to mark with a dotted line: the limit of
            `rho / pi`; none where it would lie outside of the panel.

    Returns:
        A panel for each label, with one vertical axis.
    """
    with style():
        figure, axes = plt.subplots(
            1, len(sizes), figsize=(3.3 * len(sizes), 3.6), sharey=True, squeeze=False
        )
        for axis, (label, curves) in zip(axes[0], sizes.items(), strict=True):
            for name, values in curves.items():
                text, colour, dashes = _CHOICES[name]
                size = np.asarray(values)
                axis.loglog(
                    weights,
                    np.where(size > 0, size, np.nan),
                    color=colour,
                    linestyle=dashes,
                    linewidth=2,
                    label=text,
                )
            if label in ratios:
                axis.axhline(ratios[label], color="black", linestyle=":", linewidth=1)
            axis.set_xlabel("weight of the starving component")
            axis.invert_xaxis()
            axis.set_xticks(10.0 ** np.arange(0, -13, -4))
            label_panel(axis, label)
        axes[0, 0].set_ylabel("size of the entry of its logit")
        axes[0, 0].legend(loc="lower left")
    return figure


def matrices_with_blocks(
    matrices: Mapping[str, ArrayLike],
    ticks: Sequence[Sequence[str]],
    blocks: Sequence[Sequence[int]],
    *,
    columns: int = 3,
) -> Figure:
    """Symmetric matrices as heat maps, the blocks on the diagonal framed.

    Args:
        matrices: by the label of their panel, each of shape `(P, P)`, entries from -1 to 1.
        ticks: for each panel the names of its blocks, or of its rows if there are as many.
        blocks: for each panel the sizes of its blocks, which add up to `P`.
        columns: how many panels lie side by side.

    Returns:
        A panel for each matrix, with one scale of colours.
    """
    rows = -(-len(matrices) // columns)
    with style():
        figure, axes = plt.subplots(
            rows, columns, figsize=(2.2 * columns + 0.8, 2.5 * rows), squeeze=False
        )
        for axis, (label, matrix), names, sizes in zip(
            axes.ravel(), matrices.items(), ticks, blocks, strict=True
        ):
            values = np.asarray(matrix)
            axis.imshow(values, cmap=_DIVERGING, norm=_UNIT)
            starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
            for start, size in zip(starts, sizes, strict=True):
                axis.add_patch(
                    Rectangle(
                        (start - 0.5, start - 0.5), size, size, fill=False, edgecolor="black", lw=1
                    )
                )
            middle = starts + (np.asarray(sizes) - 1) / 2
            at = np.arange(len(values)) if len(names) == len(values) else middle
            axis.set_xticks(at, names)
            axis.set_yticks(at, names)
            axis.tick_params(length=0, labelsize=13)
            axis.spines[:].set_visible(True)
            label_panel(axis, label)
        colours = ScalarMappable(_UNIT, _DIVERGING)
        figure.colorbar(colours, ax=axes, shrink=0.75, pad=0.02, ticks=[-1, -0.5, 0, 0.5, 1])
    return figure


def missing_information(
    separations: ArrayLike, fractions: ArrayLike, measured: Mapping[float, float]
) -> Figure:
    """How much information is missing, and how slow EM is, against the separation.

    Args:
        separations: distances of the two means in scales, shape `(S,)`.
        fractions: eigenvalues of the inverse complete-data Fisher matrix times the missing one,
            ascending, without those that are zero everywhere, shape `(S, E)`.
        measured: the ratio of successive steps of EM, once settled, for some of the separations.

    Returns:
        Two panels: the eigenvalues, and the steps of EM for one more digit.
    """
    x, values = np.asarray(separations), np.asarray(fractions)
    with style():
        figure, (left, right) = plt.subplots(1, 2, figsize=(6.8, 3.4))
        left.plot(x, values[:, -1], color=PALETTE["damped nGEM"], lw=2.5, label="largest")
        for index in range(values.shape[1] - 1):
            label = "others" if index == 0 else None
            left.plot(x, values[:, index], color=PALETTE["truth"], lw=1, label=label)
        dots = {"marker": "o", "ls": "", "color": PALETTE["NLL"], "ms": 6, "label": "measured"}
        at, rates = np.array(list(measured)), np.array(list(measured.values()))
        left.plot(at, rates, **dots)
        left.set(ylabel="fraction of information missing", ylim=(-0.03, 1.05))
        left.legend(loc="upper right", handlelength=1.2)
        with np.errstate(divide="ignore"):
            right.semilogy(x, -1 / np.log10(values[:, -1]), color=PALETTE["damped nGEM"], lw=2.5)
        right.semilogy(at, -1 / np.log10(rates), **dots)
        right.set(ylabel="steps of EM for one more digit", ylim=(0.3, 3e5))
        for axis, label in ((left, "missing information"), (right, "speed of EM")):
            axis.set_xlabel("distance of the means in scales")
            label_panel(axis, label)
    return figure
