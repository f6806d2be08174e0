"""Figures of the page on damped nGEM: what is drawn equals what plain Python computes."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

matplotlib = pytest.importorskip("matplotlib")
pd = pytest.importorskip("pandas")
pytest.importorskip("seaborn")

import matplotlib.pyplot as plt  # noqa: E402
from matplotlib.colors import same_color  # noqa: E402

from ngem_tutorial.figures import damped_ngem as draw  # noqa: E402
from ngem_tutorial.figures.style import PALETTE  # noqa: E402

METHODS = ("damped nGEM", "NLL")  # not in the order of the palette


@pytest.fixture(autouse=True)
def _close_figures() -> Iterator[None]:
    yield
    plt.close("all")


def test_success_by_candidate_draws_every_share() -> None:
    starts, rates, weights, candidates = ("a", "b"), (0.01, 0.1, 1.0), (0.5, 0.9), ("x", "NLL")
    generator = np.random.default_rng(0)
    keys = ["start", "learning_rate", "weight", "method"]
    rows = [
        (*cell, bool(generator.integers(2)))
        for cell in itertools.product(starts, rates, weights, candidates)
        for _ in range(5)
    ]
    runs = pd.DataFrame(rows, columns=[*keys, "succeeded"])
    figure = draw.success_by_candidate(runs, candidates)
    assert len(figure.axes) == 6
    panels = itertools.product(starts, sorted(rates, reverse=True))
    for axis, (start, rate) in zip(figure.axes, panels, strict=True):
        assert axis.texts[0].get_text() == f"{start}, β = {rate:g}"
        for line, weight in zip(axis.lines, weights, strict=False):
            expected = []
            for candidate in candidates:
                own = [r[-1] for r in rows if r[:4] == (start, rate, weight, candidate)]
                expected.append(sum(own) / 5)
            np.testing.assert_allclose(line.get_xdata(), expected)
            assert line.get_label() == f"{weight:g}"
            assert np.diff(line.get_ydata()) == pytest.approx(-1.0)  # from top to bottom
        if rate == max(rates):  # the first column names them for its row
            assert [t.get_text() for t in axis.get_yticklabels()] == list(candidates)


def test_sorted_outcomes_leave_room_for_runs_that_were_lost() -> None:
    runs = pd.DataFrame(
        {
            "panel": ["p"] * 8,
            "method": ["damped nGEM"] * 4 + ["NLL"] * 4,
            "excess": [0.3, -0.1, 0.2, 0.0, 1.0, np.nan, 0.5, np.nan],
        }
    )
    (axis,) = draw.sorted_outcomes(runs, 0.05).axes
    nll, ngem = axis.lines[:2]
    assert same_color(nll.get_color(), PALETTE["NLL"])
    assert nll.get_ydata().tolist() == [0.5, 1.0]
    assert nll.get_xdata().tolist() == [0.125, 0.375]
    assert ngem.get_ydata().tolist() == [-0.1, 0.0, 0.2, 0.3]
    assert ngem.get_xdata().tolist() == [0.125, 0.375, 0.625, 0.875]
    assert axis.lines[2].get_ydata()[0] == 0.05


def test_median_curves_are_floored() -> None:
    rows: list[Any] = [
        (panel, method, update, 1.0 / update - 0.2)
        for panel, method, update in itertools.product(("p", "q"), METHODS, (1, 2, 10))
    ]
    curves = pd.DataFrame(rows, columns=["panel", "method", "update", "median_excess"])
    figure = draw.median_curves(curves)
    assert [axis.texts[0].get_text() for axis in figure.axes] == ["p", "q"]
    for axis in figure.axes:
        assert [line.get_label() for line in axis.lines] == ["NLL", "damped nGEM"]
        for line in axis.lines:
            np.testing.assert_allclose(line.get_ydata(), [0.8, 0.3, 1e-3])
            assert line.get_xdata().tolist() == [1, 2, 10]
