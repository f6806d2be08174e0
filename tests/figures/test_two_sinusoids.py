"""Figures of Two-Sinusoids: what is drawn equals what plain Python computes."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from statistics import median
from typing import Any

import numpy as np
import pytest

matplotlib = pytest.importorskip("matplotlib")
pd = pytest.importorskip("pandas")
pytest.importorskip("seaborn")

import matplotlib.pyplot as plt  # noqa: E402
from matplotlib.axes import Axes  # noqa: E402
from matplotlib.colors import same_color  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402

from ngem_tutorial.figures import two_sinusoids as draw  # noqa: E402
from ngem_tutorial.figures.style import MARKERS, PALETTE  # noqa: E402

METHODS = ("damped nGEM", "NLL")  # not in the order of the palette
RATES = (0.001, 0.01)
SEEDS = (1, 2, 3)
UPDATES = (0, 1, 10, 100)
TRUTH = 0.9


@pytest.fixture(autouse=True)
def _close_figures() -> Iterator[None]:
    yield
    plt.close("all")


def curves() -> Any:
    """Seed 2 of NLL fails after update 10, seed 3 is far above the limits at the end."""
    generator = np.random.default_rng(0)
    rows = []
    for rate, method, seed, update in itertools.product(RATES, METHODS, SEEDS, UPDATES):
        fails = method == "NLL" and seed == 2
        nll = generator.uniform(1.0, 3.0)
        if seed == 3 and update == 100:
            nll = 1e9
        if fails and update >= 10:
            nll = math.nan
        rows.append((rate, method, seed, update, nll, 10 if fails else -1))
    names = ["learning_rate", "method", "seed", "update", "nll", "failed_at"]
    return pd.DataFrame(rows, columns=names)


def final() -> Any:
    generator = np.random.default_rng(1)
    rows = [
        (rate, method, seed, generator.uniform(0.0, 0.69), excess)
        for rate, method in itertools.product(RATES, METHODS)
        for seed, excess in zip(SEEDS, (-0.05, 0.5, 1e9), strict=True)
    ]
    names = ["learning_rate", "method", "seed", "entropy", "excess_nll"]
    return pd.DataFrame(rows, columns=names)


def densities() -> Any:
    """Two runs of each method; one of NLL has no values. A weight goes from 1 to 0."""
    x = np.linspace(0.0, 4.0, 5)
    parts = []
    for method, seed in itertools.product(METHODS, (1, 2)):
        table = pd.DataFrame(
            {
                "x": x,
                "weight_1": [1.0, 0.8, 0.5, 0.2, 0.0],
                "mean_1": np.sin(x),
                "scale_1": 0.1,
                "mean_2": -np.sin(x),
                "scale_2": 0.2,
            }
        )
        if (method, seed) == ("NLL", 2):
            table.iloc[:, 1:] = math.nan
        parts.append(table.assign(method=method, seed=seed))
    return pd.concat(parts, ignore_index=True)


EXAMPLES = np.linspace(0.0, 4.0, 20)[:, None], np.linspace(-2.0, 2.0, 20)[:, None]
DRAWINGS = {
    "likelihoods": (lambda: draw.likelihoods(curves(), truth=TRUTH), 2),
    "every_run": (lambda: draw.every_run(curves(), truth=TRUTH), 4),
    "components": (lambda: draw.components(densities(), *EXAMPLES, methods=METHODS), 4),
    "entropy_and_likelihood": (lambda: draw.entropy_and_likelihood(final()), 2),
}


def test_every_figure_is_drawn_here() -> None:
    assert set(draw.__all__) == set(DRAWINGS)


@pytest.mark.parametrize("drawing", DRAWINGS)
def test_a_figure_has_its_panels_and_leaves_the_style_as_it_was(drawing: str) -> None:
    function, number = DRAWINGS[drawing]
    before = dict(plt.rcParams)
    figure = function()
    assert dict(plt.rcParams) == before
    assert len(figure.axes) == number
    assert not any(axis.get_title() for axis in figure.axes)
    figure.draw_without_rendering()


@pytest.mark.parametrize("drawing", ["likelihoods", "entropy_and_likelihood"])
def test_a_method_has_its_colour_in_the_legend(drawing: str) -> None:
    (legend,) = DRAWINGS[drawing][0]().legends
    labels = [text.get_text() for text in legend.get_texts()]
    assert labels == ["NLL", "damped nGEM"]
    for label, handle in zip(labels, legend.legend_handles, strict=True):
        assert same_color(handle.get_color(), PALETTE[label])


def line_of(axis: Axes, method: str) -> Any:
    (line,) = (line for line in axis.lines if same_color(line.get_color(), PALETTE[method]))
    return line


def values(rate: float, method: str, update: int) -> list[float]:
    """Sorted, with infinity for what is missing."""
    own = [
        row.nll
        for row in curves().itertuples()
        if (row.learning_rate, row.method, row.update) == (rate, method, update)
    ]
    return sorted(math.inf if math.isnan(value) else value for value in own)


def test_likelihoods_show_medians_with_failures_as_the_worst() -> None:
    figure = draw.likelihoods(curves(), truth=TRUTH)
    for axis, rate in zip(figure.axes, (0.01, 0.001), strict=True):
        assert axis.texts[0].get_text() == f"β = {rate:g}"
        for method in METHODS:
            line = line_of(axis, method)
            assert list(line.get_xdata()) == list(UPDATES)
            expected = [median(values(rate, method, update)) for update in UPDATES]
            np.testing.assert_array_equal(line.get_ydata(), expected)
        assert axis.lines[-1].get_ydata()[0] == TRUTH


def test_every_run_is_drawn_and_a_failed_one_ends_with_a_cross() -> None:
    figure = draw.every_run(curves(), truth=TRUTH, limits=(0.8, 3.4))
    cells = itertools.product(("NLL", "damped nGEM"), (0.01, 0.001))
    for axis, (method, rate) in zip(figure.axes, cells, strict=True):
        table = curves()
        table = table[table["method"].eq(method) & table["learning_rate"].eq(rate)]
        lines = [line for line in axis.lines if same_color(line.get_color(), PALETTE[method])]
        assert len(lines) == len(SEEDS)
        for line, seed in zip(lines, SEEDS, strict=True):
            own = [min(v, 3.4) for v in table[table["seed"] == seed]["nll"] if not math.isnan(v)]
            np.testing.assert_array_equal(line.get_ydata(), own)
        crosses = [line.get_xdata()[0] for line in axis.lines if line.get_marker() == "x"]
        assert crosses == ([10] if method == "NLL" else [])


def rows_of(figure: Figure) -> Iterator[tuple[Axes, str, int]]:
    for axis, (method, seed) in zip(figure.axes, itertools.product(METHODS, (1, 2)), strict=True):
        yield axis, method, seed


def test_components_show_means_deviations_and_weights() -> None:
    figure = draw.components(densities(), *EXAMPLES, methods=METHODS)
    for axis, method, seed in rows_of(figure):
        if (method, seed) == ("NLL", 2):
            assert [text.get_text() for text in axis.texts if text.get_text() == "not finite"]
            assert not axis.collections
            continue
        for k, sign, scale in ((0, 1.0, 0.1), (1, -1.0, 0.2)):
            band, line = axis.collections[2 * k : 2 * k + 2]
            shares = [0.9, 0.65, 0.35, 0.1] if k == 0 else [0.1, 0.35, 0.65, 0.9]
            for i, share in enumerate(shares):
                shift = np.array([0.0, scale])
                ends = np.array([[i, sign * math.sin(i)], [i + 1, sign * math.sin(i + 1)]])
                np.testing.assert_allclose(line.get_segments()[i], ends)
                corners = band.get_paths()[i].vertices[:4]
                expected = np.concatenate([ends - shift, ends[::-1] + shift])
                np.testing.assert_allclose(corners, expected)
                assert band.get_facecolors()[i, 3] == pytest.approx(0.5 * share)
                assert line.get_linewidths()[i] == pytest.approx(0.3 + 2.2 * share)
        one, two = (axis.collections[i].get_colors()[0][:3] for i in (1, 3))
        assert not same_color(one, two)


def test_entropy_and_likelihood_shows_each_run() -> None:
    figure = draw.entropy_and_likelihood(final(), furthest=10.0)
    for axis, rate in zip(figure.axes, (0.01, 0.001), strict=True):
        for method in METHODS:
            line = line_of(axis, method)
            assert line.get_marker() == MARKERS[method]
            np.testing.assert_allclose(line.get_xdata(), [-0.05, 0.5, 10.0])
            own = final()
            own = own[own["method"].eq(method) & own["learning_rate"].eq(rate)]
            np.testing.assert_array_equal(line.get_ydata(), own["entropy"])
