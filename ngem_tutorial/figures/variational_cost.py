"""What fits to densities cost: how an iteration grows, and the time to a loss of two codes."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from ngem_tutorial.figures.style import label_panel, style

__all__ = ["against", "growth"]

_AXES = {"dim": "dimension $d$", "components": "components $K$", "samples": "samples of each"}
_METHODS = {"SAMTRON": ("#0072B2", "o"), "ZAMTRUX": ("#009E73", "s")}
_CODES = {"ngem_tutorial": ("#0072B2", "-"), "gmmvi": ("#E69F00", (0, (4, 1.5)))}


def growth(medians: pd.DataFrame, exponents: pd.DataFrame) -> Figure:
    """How the time of an iteration grows.

    Args:
        medians: columns `method`, `axis` (what was changed), that number under the name of the
            axis (`dim`, `components`, `samples`), and `ms`.
        exponents: columns `method`, `axis`, `from` and `to` (the range of the fit), `exponent`.

    Returns:
        A panel for each axis with both logarithmic; the lines have the fitted exponents and end
        where the fit does.
    """
    with style():
        figure, axes = plt.subplots(1, len(_AXES), figsize=(7.5, 2.6), sharey=True)
        for axis, (name, label) in zip(axes, _AXES.items(), strict=True):
            for method, (colour, marker) in _METHODS.items():
                mine = medians["method"].eq(method) & medians["axis"].eq(name)
                points = medians[mine].sort_values(name)
                if points.empty:
                    continue
                axis.plot(points[name], points["ms"], marker, color=colour, ms=4.5, label=method)
                fit = exponents[exponents["method"].eq(method) & exponents["axis"].eq(name)]
                ends = fit[["from", "to"]].to_numpy(float)[0]
                power = float(fit["exponent"].iloc[0])
                upper = points[points[name].ge(ends[0])]
                level = np.mean(np.log(upper["ms"]) - power * np.log(upper[name]))
                axis.plot(ends, np.exp(level) * ends**power, color=colour, lw=1.2)
                axis.annotate(
                    f"{power:.2f}",
                    (ends[1], np.exp(level) * ends[1] ** power),
                    xytext=(-6, 5),
                    textcoords="offset points",
                    ha="right",
                    color=colour,
                )
            axis.set(xscale="log", yscale="log", xlabel=label)
        axes[0].set_ylabel("ms an iteration")
        axes[0].legend()
    return figure


def against(curves: pd.DataFrame, settings: Mapping[str, str], floor: float = 1e-3) -> Figure:
    """The loss of two codes by the seconds that they took.

    Args:
        curves: a row for each checkpoint, with the columns `target`, `setting`, `code`, `seed`,
            `seconds` and `loss`.
        settings: for each target the setting that is shown, a panel each.
        floor: losses are shown above the least loss of the panel, or above zero if that is lower,
            and not below this.

    Returns:
        A thin line for each seed, both axes logarithmic.
    """
    with style():
        size = (3.75 * len(settings), 2.9)
        figure, axes = plt.subplots(1, len(settings), figsize=size, squeeze=False)
        for axis, (target, setting) in zip(axes[0], settings.items(), strict=True):
            runs = curves[curves["target"].eq(target) & curves["setting"].eq(setting)]
            least = float(runs["loss"].min())
            zero = 0.0 if abs(least) < 0.05 else np.floor(10.0 * least) / 10.0
            for code, (colour, dashes) in _CODES.items():
                for number, (_, run) in enumerate(runs[runs["code"].eq(code)].groupby("seed")):
                    axis.plot(
                        run["seconds"],
                        np.maximum(run["loss"] - zero, floor),
                        color=colour,
                        ls=dashes,
                        lw=1.0,
                        alpha=0.8,
                        label=None if number else code,
                    )
            axis.set(xscale="log", yscale="log", xlabel="seconds")
            axis.yaxis.set_minor_formatter(NullFormatter())
            axis.set_ylabel("loss in nats" if not zero else f"loss above {zero:g} nats")
            label_panel(axis, target)
        axes[0, -1].legend(loc="lower left")
    return figure
