"""The figure of the verdicts: what is drawn is the interval divided by the margin."""

from __future__ import annotations

import math

import pytest

matplotlib = pytest.importorskip("matplotlib")
pd = pytest.importorskip("pandas")

import matplotlib.pyplot as plt  # noqa: E402

from ngem_tutorial.figures import verdicts  # noqa: E402

COLUMNS = [
    "table", "condition", "quantity", "method", "difference", "low", "high", "margin", "verdict",
]  # fmt: skip
ROWS = [
    ("Table 1", "β = 0.1", "entropy", "NLL", 0.1, 0.0, 0.2, 0.4, "replicates"),
    ("Table 3", "K = 3", "nll", "nGEM", math.nan, math.nan, math.nan, 60.0, "inconclusive"),
    ("Table 5", "energy", "nll", "Adam + NLL", 4.0, 1.0, 7.0, 2.0, "inconclusive"),
    ("Table 5", "energy", "nll", "Adam + nGEM", -99.0, -999.0, -9.0, 2.0, "differs"),
    ("Table 6", "energy", "seconds", "NLL", 1.0, 0.0, 2.0, math.nan, "cannot be compared"),
]


def test_each_number_is_its_interval_in_margins() -> None:
    figure = verdicts.differences(pd.DataFrame(ROWS, columns=COLUMNS), reach=100.0)
    try:
        first, second = figure.axes
        lines = [line.get_xydata().tolist() for line in (*first.lines, *second.lines)]
        assert lines[:2] == [[[0.0, 0.0], [0.5, 0.0]], [[0.25, 0.0]]]
        assert lines[2:4] == [[[0.5, 0.0], [3.5, 0.0]], [[2.0, 0.0]]]
        assert lines[4:] == [[[-100.0, 1.0], [-4.5, 1.0]], [[-49.5, 1.0]]]
        shapes = [(line.get_marker(), line.get_markerfacecolor()) for line in second.lines[1::2]]
        assert shapes[0] == ("o", "white")
        assert shapes[1][0] == "x"
        labels = [tick.get_text() for tick in second.get_yticklabels()]
        assert labels == ["energy, Adam + NLL", "energy, Adam + nGEM"]
        assert [t.get_text() for t in first.get_yticklabels()] == ["1: β = 0.1, entropy, NLL"]
    finally:
        plt.close(figure)
