"""Colours, the style of all figures, and writing them to files."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backend_bases import FigureCanvasBase
from matplotlib.figure import Figure

from ngem_tutorial._files import write_atomically

__all__ = [
    "DASHES",
    "MARKERS",
    "PALETTE",
    "by_method",
    "check_format",
    "label_panel",
    "style",
    "write",
]

PALETTE: dict[str, str] = {
    "NLL": "#D55E00",
    "SGEM": "#E69F00",
    "whitened NLL": "#7033CC",
    "damped nGEM": "#0072B2",
    "undamped nGEM": "#000000",
    "nGEM, paper's code": "#56B4E9",
    "nGEM, as derived": "#009E73",
    "fully damped nGEM": "#CC79A7",
    "truth": "#555555",
}
"""Colours of Okabe and Ito, and a violet, which people with any kind of colour vision can
tell apart."""

DASHES: dict[str, Any] = {
    "NLL": "",
    "SGEM": (1, 1),
    "whitened NLL": "",
    "damped nGEM": "",
    "undamped nGEM": (6, 1.5, 1, 1.5),
    "nGEM, paper's code": (4, 1.5),
    "nGEM, as derived": (1, 1),
    "fully damped nGEM": (4, 1, 1, 1),
}
"""The dashes of each method, as seaborn takes them: lines differ without colour too."""

MARKERS: dict[str, str] = {
    "NLL": "o",
    "SGEM": "p",
    "whitened NLL": "*",
    "damped nGEM": "D",
    "undamped nGEM": "P",
    "nGEM, paper's code": "s",
    "nGEM, as derived": "^",
    "fully damped nGEM": "v",
}
"""The marker of each method, as Matplotlib takes it."""

_STYLE: Any = {
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.dpi": 110,
    "figure.constrained_layout.use": True,
    "figure.facecolor": "white",
    "font.size": 10,
    "legend.frameon": False,
}


def check_format(path: Path) -> None:
    """Refuse a path whose ending names no format that `write` can write.

    Args:
        path: where a figure is to be written.

    Raises:
        ValueError: if the format is unknown.
    """
    known = sorted(FigureCanvasBase.get_supported_filetypes())
    if path.suffix.removeprefix(".").lower() not in known:
        raise ValueError(f"figure must end in one of {', '.join(known)}, got {path}")


def write(figure: Figure, path: Path) -> None:
    """Write a figure to a file, all or nothing.

    Args:
        figure: what a function of this file returned.
        path: where to; its ending names the format.

    Raises:
        ValueError: if the format is unknown.
        OSError: if the file system refuses.
    """
    check_format(path)
    content = io.BytesIO()
    figure.savefig(content, format=path.suffix.removeprefix(".").lower())
    write_atomically(path, content.getvalue())


@contextmanager
def style(**changes: Any) -> Iterator[None]:
    """Set the style for a while.

    `plt.rc_context` would restore every parameter, `interactive` too, which a notebook's backend
    sets when the first figure is made: later figures of the notebook would not be shown.

    Args:
        changes: parameters of Matplotlib beside or instead of the usual ones.

    Yields:
        Nothing.
    """
    style = {**_STYLE, **changes}
    before = {name: plt.rcParams[name] for name in style}
    plt.rcParams.update(style)
    try:
        yield
    finally:
        plt.rcParams.update(before)


def by_method(table: pd.DataFrame) -> dict[str, Any]:
    """Seaborn's arguments for a curve per method.

    Args:
        table: a column `method`.

    Returns:
        Arguments by name: colours and dashes, the methods in the order of `PALETTE`.
    """
    methods = [method for method in PALETTE if method in set(table["method"])]
    return {
        "hue": "method",
        "style": "method",
        "hue_order": methods,
        "style_order": methods,
        "palette": PALETTE,
        "dashes": DASHES,
    }


def label_panel(axis: Axes, text: str) -> None:
    """Name a panel above its upper left corner.

    Args:
        axis: the panel.
        text: its name.
    """
    axis.text(0.0, 1.02, text, transform=axis.transAxes, ha="left", va="bottom", fontsize=10)
