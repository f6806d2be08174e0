"""The figures of the regression page: what is drawn equals what plain Python computes."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

matplotlib = pytest.importorskip("matplotlib")
pd = pytest.importorskip("pandas")

import matplotlib.pyplot as plt  # noqa: E402
from matplotlib.colors import same_color  # noqa: E402

from ngem_tutorial.figures import PALETTE, uci_regression  # noqa: E402

SETS = ("energy", "housing")
OPTIMIZERS = ("Adam", "K-FAC")
VARIANTS = ("nGEM, paper's code", "nGEM, as derived", "undamped nGEM", "damped nGEM")
QUANTITIES = {"nll": "NLL (nats)", "rmse × 10": "RMSE"}


@pytest.fixture(autouse=True)
def _close_figures() -> Iterator[None]:
    yield
    plt.close("all")


def pairs() -> Any:
    """As of `comparison.pairs`: one difference is far away, one interval and one mean missing."""
    generator = np.random.default_rng(0)
    rows = []
    for q, s, o, m in itertools.product(QUANTITIES, SETS, OPTIMIZERS, VARIANTS):
        paper, ours = generator.uniform(-1, 1, 2)
        half = generator.uniform(0.1, 0.2)
        if m == "nGEM, as derived" and o == "Adam":
            ours = 1e8 if s == "energy" else math.nan
        low, high = (
            (math.nan,) * 2 if m == "undamped nGEM" and o == "K-FAC" else (ours - half, ours + half)
        )
        rows.append((s, q, f"{o} + {m}", paper, paper - 0.3, paper + 0.3, ours, low, high))
    ours_and_paper = ["paper", "paper_low", "paper_high", "ours", "low", "high"]
    return pd.DataFrame(rows, columns=["condition", "quantity", "method", *ours_and_paper])


def final() -> Any:
    """Runs, one of which is missing and one far away."""
    generator = np.random.default_rng(1)
    rows = [
        (s, m, *generator.uniform(-2, -1, 2))
        for s, m, _ in itertools.product(SETS, ("damped nGEM", "NLL", "MSE"), range(9))
    ]
    table = pd.DataFrame(rows, columns=["dataset", "method", "train_nll", "nll"])
    table.loc[0, "nll"] = 1e6
    table.loc[1, ["train_nll", "nll"]] = math.nan
    return table


def curves() -> Any:
    """Curves of two seeds; the first value is far above the others, one run diverges."""
    generator = np.random.default_rng(2)
    rows = []
    for s, m, seed, update in itertools.product(
        SETS, ("damped nGEM", "NLL", "β-NLL"), (1, 2), range(21)
    ):
        nll = 50.0 if update == 0 else generator.uniform(-2, -1)
        lost = (m, seed) == ("damped nGEM", 2) and update > 18
        rows.append((s, m, seed, update, 1e9 if lost else nll, generator.uniform(0, 1)))
    return pd.DataFrame(rows, columns=["dataset", "method", "seed", "update", "nll", "entropy"])


def points(axis: Any, colour: str, markers: str) -> list[tuple[float, float]]:
    """Where the marks of a colour are, from top to bottom."""
    marks = [
        (float(line.get_xdata()[0]), float(line.get_ydata()[0]))
        for line in axis.lines
        if line.get_marker() in markers and same_color(line.get_color(), colour)
    ]
    return sorted(marks, key=lambda mark: mark[1])


def segments(axis: Any, colour: str) -> list[list[float]]:
    lines = [
        line
        for line in axis.lines
        if line.get_marker() == "None"
        and len(line.get_xdata()) == 2
        and same_color(line.get_color(), colour)
        and line.get_ydata()[0] == line.get_ydata()[1]
    ]
    return [list(map(float, line.get_xdata())) for line in lines]


def test_differences_are_those_of_the_table() -> None:
    table = pairs()
    figure = uci_regression.differences(table, QUANTITIES)
    assert len(figure.axes) == 4
    for axis, (s, q) in zip(figure.axes, itertools.product(SETS, QUANTITIES), strict=True):
        own = table[table["condition"].eq(s) & table["quantity"].eq(q)].set_index("method")
        limit = axis.get_xlim()[1]
        assert axis.get_xlim()[0] == -limit
        if q == "nll":  # the panels of a row share their labels
            assert [label.get_text() for label in axis.get_yticklabels()] == list(OPTIMIZERS)
        paper = [own.loc[f"{o} + nGEM, paper's code"] for o in OPTIMIZERS]
        assert [x for x, _ in points(axis, PALETTE["truth"], "D")] == [row.paper for row in paper]
        assert segments(axis, PALETTE["truth"]) == [[r.paper_low, r.paper_high] for r in paper]
        for variant in VARIANTS:
            marks = points(axis, PALETTE[variant], "o<>")
            expected = [own.loc[f"{o} + {variant}"] for o in OPTIMIZERS]
            shown = [row for row in expected if math.isfinite(row.ours)]
            for (x, _), row in zip(marks, shown, strict=True):
                if abs(row.ours) > limit:
                    assert abs(x) < limit
                    assert points(axis, PALETTE[variant], ">" if row.ours > 0 else "<")[0][0] == x
                else:
                    assert x == row.ours
            assert segments(axis, PALETTE[variant]) == [
                [row.low, row.high]
                for row in shown
                if math.isfinite(row.low) and abs(row.ours) <= limit
            ]


@pytest.mark.parametrize("reach", [1.0, 3.0])
def test_a_far_difference_does_not_stretch_a_panel(reach: float) -> None:
    table = pairs()
    figure = uci_regression.differences(table, QUANTITIES, reach=reach)
    own = table[table["condition"].eq("energy") & table["quantity"].eq("nll")]
    largest = max(own["paper_low"].abs().max(), own["paper_high"].abs().max())
    assert figure.axes[0].get_xlim()[1] == pytest.approx(1.08 * reach * largest)


def test_every_run_has_its_dot_or_is_counted() -> None:
    table = final()
    figure = uci_regression.train_and_test(table)
    *panels, last = figure.axes[:3]
    for axis, s in zip(panels, SETS, strict=True):
        (low, high), own = axis.get_xlim(), table[table["dataset"] == s]
        assert axis.get_ylim() == (low, high)
        for line in axis.lines[:2]:
            method = line.get_label()
            assert same_color(line.get_color(), PALETTE[method])
            np.testing.assert_array_equal(
                np.transpose(line.get_data()), own[own["method"] == method][["train_nll", "nll"]]
            )
        assert "MSE" not in [line.get_label() for line in axis.lines]
        kept = own[own["method"].isin(PALETTE)].dropna()
        inside = kept["nll"].between(low, high) & kept["train_nll"].between(low, high)
        (label,) = [text.get_text() for text in axis.texts]
        assert label == ("energy (1 outside)" if s == "energy" else "housing")
        assert (~inside).sum() == (s == "energy")
    assert not last.axison


def test_learning_curves_show_every_run_and_the_later_values() -> None:
    table = curves()
    figure = uci_regression.learning_curves(table, {"nll": "nats", "entropy": "H"})
    for axis, (s, q) in zip(figure.axes, itertools.product(SETS, ("nll", "entropy")), strict=True):
        own = table[table["dataset"].eq(s) & table["method"].isin(PALETTE)]
        runs = list(own.groupby(["method", "seed"]))
        assert len(axis.lines) == len(runs) == 4  # none of β-NLL
        for line, ((method, _), run) in zip(axis.lines, runs, strict=True):
            assert same_color(line.get_color(), PALETTE[method])
            np.testing.assert_array_equal(line.get_ydata(), run[q])
        late = own.loc[(own["update"] >= 2) & (own[q] < 1e8), q]
        low, high = axis.get_ylim()
        assert low < late.min()
        assert late.max() < high < late.max() + 0.2


@pytest.mark.parametrize(
    "draw",
    [
        lambda: uci_regression.differences(pairs(), QUANTITIES),
        lambda: uci_regression.train_and_test(final()),
        lambda: uci_regression.learning_curves(curves(), {"nll": "nats"}),
    ],
)
def test_a_figure_has_one_legend_no_title_and_leaves_the_style_as_it_was(draw: Any) -> None:
    before = dict(plt.rcParams)
    figure = draw()
    assert dict(plt.rcParams) == before
    assert not any(axis.get_title() for axis in figure.axes)
    assert not figure.get_suptitle()
    legends = [axis.get_legend() for axis in figure.axes if axis.get_legend()] + figure.legends
    (legend,) = legends
    labels = [text.get_text() for text in legend.get_texts()]
    assert len(set(labels)) == len(labels)
    figure.draw_without_rendering()
