"""Figures of the study of the default show the numbers that they are given."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from ngem_tutorial.figures import default_study as draw


@pytest.fixture
def judged() -> pd.DataFrame:
    """Two candidates on two tasks; "new" is ahead on one and behind on the other."""
    rows = [
        ("one", "NLL", 0.0, 0.0, 0.0, 0.5),
        ("one", "new", -0.2, -0.3, -0.1, 1.0),
        ("two", "NLL", 0.0, 0.0, 0.0, np.nan),
        ("two", "new", 0.9, 0.8, 1.0, np.nan),
    ]
    names = ["task", "method", "minus_nll", "minus_nll_low", "minus_nll_high", "success"]
    return pd.DataFrame(rows, columns=names)


def test_what_is_ahead_has_a_dot_and_what_is_behind_a_cross(judged: pd.DataFrame) -> None:
    axis = draw.differences(judged, ["NLL", "new"], 0.01).axes[0]
    shown = axis.get_images()[0].get_array()
    np.testing.assert_allclose(shown, [[0.0, 0.0], [-0.2, 0.5]])  # cut at half a nat
    marks = {line.get_marker(): line.get_xydata().tolist() for line in axis.get_lines()}
    assert marks == {"o": [[0.0, 1.0]], "x": [[1.0, 1.0]]}
    assert [label.get_text() for label in axis.get_yticklabels()] == ["NLL", "new"]


def test_a_difference_within_the_margin_has_no_mark(judged: pd.DataFrame) -> None:
    axis = draw.differences(judged, ["new"], 0.9).axes[0]
    assert [len(line.get_xydata()) for line in axis.get_lines()] == [0, 0]


def test_intervals_are_those_of_the_table_and_what_is_far_is_an_arrow(
    judged: pd.DataFrame,
) -> None:
    axis = draw.intervals(judged, ["NLL", "new"], 0.01).axes[0]
    points = {line.get_label(): line for line in axis.get_lines()}
    np.testing.assert_allclose(points["NLL"].get_xdata(), [0.0, 0.0])
    np.testing.assert_allclose(points["new"].get_xdata(), [-0.2])
    arrows = [line for line in axis.get_lines() if line.get_marker() == ">"]
    assert [line.get_xdata().tolist() for line in arrows] == [[0.5]]
    segments = [s for c in axis.collections if hasattr(c, "get_segments") for s in c.get_segments()]
    ends = [sorted(segment[:, 0].tolist()) for segment in segments]
    assert [-0.3, -0.1] in [np.round(pair, 6).tolist() for pair in ends]
    assert [label.get_text() for label in axis.get_yticklabels()] == ["one", "two"]


def test_success_by_modes_is_the_mean_over_the_tasks_of_a_number() -> None:
    rows = [
        ("2 modes, K=2, even", "NLL", 0.2),
        ("2 modes, K=2, uneven", "NLL", 0.6),
        ("10 modes, K=10, even", "NLL", 0.1),
        ("2 modes, K=4, even", "NLL", 0.9),
        ("kin8nm, fixed", "NLL", np.nan),
    ]
    judged = pd.DataFrame(rows, columns=["task", "method", "success"])
    left, right = draw.success_by_modes(judged, {"NLL": "plain"}).axes
    np.testing.assert_allclose(left.get_lines()[0].get_ydata(), [0.4, 0.1])
    np.testing.assert_allclose(left.get_lines()[0].get_xdata(), [2.0, 10.0], rtol=0.02)
    np.testing.assert_allclose(right.get_lines()[0].get_ydata(), [0.9])


def test_the_frontier_has_a_line_for_each_candidate() -> None:
    table = pd.DataFrame(
        [[1.0, 0.5, 0.25, 0.0], [0.0, 0.5, 0.75, 1.0]],
        index=["a", "b"],
        columns=list(draw.CRITERIA),
    )
    figure = draw.frontier(table, ["b", "a"])
    lines = {line.get_label(): line.get_ydata() for line in figure.axes[0].get_lines()}
    np.testing.assert_allclose(lines["a"], table.loc["a"], atol=0.01)
    np.testing.assert_allclose(lines["b"], table.loc["b"], atol=0.01)
