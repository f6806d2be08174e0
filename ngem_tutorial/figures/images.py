"""Figures of mixtures over images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from ngem_tutorial.figures.style import PALETTE, style
from ngem_tutorial.mixtures import GaussianMixture

__all__ = ["image_grid"]


def image_grid(
    panels: Mapping[str, GaussianMixture], classes: Sequence[int], *, shape: tuple[int, int]
) -> Figure:
    """Component means as images with their weights, a row per component and method.

    Args:
        panels: for each method one mixture per class, batch shape `(C,)`, means flattened images.
        classes: which of the classes to show, a column each.
        shape: height and width of an image.

    Returns:
        A block of rows for each method; the number in a corner is the component's weight.
    """
    num_components = next(iter(panels.values())).num_components
    rows = [(method, k) for method in panels for k in range(num_components)]
    with style(**{"figure.constrained_layout.use": False}):
        figure, axes = plt.subplots(
            len(rows),
            len(classes),
            figsize=(0.8 * len(classes) + 0.9, 0.8 * len(rows)),
            squeeze=False,
            gridspec_kw={"wspace": 0.06, "hspace": 0.06},
        )
        for row, (method, k) in zip(axes, rows, strict=True):
            mixture = panels[method]
            for axis, label in zip(row, classes, strict=True):
                image = np.asarray(mixture.means[label, k]).reshape(shape)
                axis.imshow(image, cmap="gray_r", vmin=0, vmax=1)
                weight = float(mixture.weights[label, k])
                axis.text(
                    0.04, 0.04, f"{weight:.2f}", transform=axis.transAxes, fontsize=7,
                    bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.6},
                )  # fmt: skip
                axis.set(xticks=[], yticks=[])
                for spine in axis.spines.values():
                    spine.set(visible=True, color=PALETTE.get(method, "black"), linewidth=0.8)
            row[0].set_ylabel(f"{method}\nk = {k + 1}", fontsize=7, rotation=0, ha="right")
    return figure
