"""Figures of mode collapse: what is drawn equals what plain Python computes."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from scipy import stats

matplotlib = pytest.importorskip("matplotlib")
pd = pytest.importorskip("pandas")
pytest.importorskip("seaborn")

import matplotlib.pyplot as plt  # noqa: E402
from matplotlib.colors import same_color  # noqa: E402

from ngem_tutorial.figures import mode_collapse as draw  # noqa: E402
from ngem_tutorial.figures.style import PALETTE  # noqa: E402

METHODS = ("damped nGEM", "NLL")  # not in the order of the palette
WEIGHTS = (0.5, 0.9)
PANELS = ("β = 0.1", "β = 0.01")


@pytest.fixture(autouse=True)
def _close_figures() -> Iterator[None]:
    yield
    plt.close("all")


def runs() -> Any:
    """Twenty runs of each kind; some of NLL at the first rate are missing."""
    generator = np.random.default_rng(0)
    rows = []
    for panel, weight, method, seed in itertools.product(PANELS, WEIGHTS, METHODS, range(20)):
        bad = method == "NLL" and panel == "β = 0.1" and seed % 4 == 0
        largest = math.nan if bad else generator.uniform(0.5, 1.0)
        entropy = math.nan if bad else stats.entropy([largest, 1.0 - largest])
        rows.append(
            (panel, weight, method, seed, largest, entropy, largest > 0.9, 7 if bad else -1)
        )
    names = ["panel", "weight", "method", "seed", "largest_weight", "entropy"]
    return pd.DataFrame(rows, columns=[*names, "collapsed", "failed_at"])


def own(panel: str, weight: float, method: str) -> Any:
    table = runs()
    return table[table["panel"].eq(panel) & table["weight"].eq(weight) & table["method"].eq(method)]


DRAWINGS = {
    "weights": (lambda: draw.weights(runs()), (2, 1)),
    "collapse_rates": (lambda: draw.collapse_rates(runs()), (2, 1)),
    "entropies": (lambda: draw.entropies(runs()), (1, 2)),
}


def test_every_figure_is_drawn_here() -> None:
    assert set(draw.__all__) == set(DRAWINGS)


@pytest.mark.parametrize("drawing", DRAWINGS)
def test_a_figure_has_its_panels_and_leaves_the_style_as_it_was(drawing: str) -> None:
    function, shape = DRAWINGS[drawing]
    before = dict(plt.rcParams)
    figure = function()
    assert dict(plt.rcParams) == before
    assert figure.axes[0].get_gridspec().get_geometry() == shape
    assert [axis.texts[0].get_text() for axis in figure.axes] == list(PANELS)
    assert not any(axis.get_title() for axis in figure.axes)
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["NLL", "damped nGEM"]
    figure.draw_without_rendering()


def test_weights_show_every_run_sorted_beside_the_truth() -> None:
    for axis, panel in zip(draw.weights(runs()).axes, PANELS, strict=True):
        for i, weight in enumerate(WEIGHTS):
            for method in METHODS:
                values = sorted(v for v in own(panel, weight, method)["largest_weight"] if v == v)
                lines = [li for li in axis.lines if same_color(li.get_color(), PALETTE[method])]
                np.testing.assert_allclose(lines[i].get_ydata(), values)
                assert (np.diff(lines[i].get_xdata()) > 0).all()
                assert (np.abs(lines[i].get_xdata() - i) < 0.5).all()
        levels = [band.get_segments()[0][0, 1] for band in axis.collections]
        np.testing.assert_allclose(levels, [0.5, 0.5, 0.9, 0.75])  # sqrt 9 : sqrt 1


def test_collapse_rates_show_shares_intervals_and_failures() -> None:
    for axis, panel in zip(draw.collapse_rates(runs(), confidence=0.9).axes, PANELS, strict=True):
        bars = iter(axis.containers)
        crosses = iter([line for line in axis.lines if line.get_marker() == "x"])
        for method, weight in itertools.product(("NLL", "damped nGEM"), WEIGHTS):
            points, _, (bar,) = next(bars)
            table = own(panel, weight, method)
            count = sum(table["collapsed"])
            interval = stats.binomtest(count, 20).proportion_ci(0.9, method="wilson")
            assert points.get_ydata()[0] == pytest.approx(count / 20)
            np.testing.assert_allclose(
                sorted(bar.get_segments()[0][:, 1]), [interval.low, interval.high], atol=1e-9
            )
            assert same_color(points.get_color(), PALETTE[method])
            assert next(crosses).get_ydata()[0] == pytest.approx(sum(table["failed_at"] >= 0) / 20)


def test_entropies_show_the_median_and_most_of_the_runs() -> None:
    for axis, panel in zip(draw.entropies(runs()).axes, PANELS, strict=True):
        for container, method in zip(axis.containers, ("NLL", "damped nGEM"), strict=True):
            points, _, (bar,) = container
            for i, weight in enumerate(sorted(WEIGHTS)):
                values = own(panel, weight, method)["entropy"].to_numpy()
                low, middle, high = np.nanpercentile(values, [5, 50, 95])
                assert points.get_ydata()[i] == pytest.approx(middle)
                np.testing.assert_allclose(bar.get_segments()[i][:, 1], [low, high])
                true = stats.entropy([weight, 1 - weight])
                assert points.get_xdata()[i] == pytest.approx(true, abs=0.02)
        truth, law = axis.lines[:2]
        np.testing.assert_allclose(truth.get_xdata(), truth.get_ydata())
        at = np.argmin(np.abs(law.get_xdata() - stats.entropy([0.9, 0.1])))
        assert law.get_ydata()[at] == pytest.approx(stats.entropy([0.75, 0.25]), abs=0.01)
