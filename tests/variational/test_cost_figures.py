"""Figures of what fits to densities cost."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from ngem_tutorial import results
from ngem_tutorial.figures import variational_cost as draw


def test_growth_draws_lines_with_the_exponents() -> None:
    values = np.asarray([2, 4, 8, 16])
    medians = pd.concat(
        [
            pd.DataFrame({"method": "SAMTRON", "axis": a, a: values, "ms": 3.0 * values**power})
            for a, power in (("dim", 2.0), ("components", 1.5), ("samples", 1.0))
        ]
    )
    exponents = pd.DataFrame(
        {
            "method": "SAMTRON",
            "axis": ["dim", "components", "samples"],
            "from": 4,
            "to": 16,
            "exponent": [2.0, 1.5, 1.0],
        }
    )
    figure = draw.growth(medians, exponents)
    for axis, power in zip(figure.axes, (2.0, 1.5, 1.0), strict=True):
        dots, line = axis.get_lines()
        np.testing.assert_array_equal(dots.get_xdata(), values)
        np.testing.assert_allclose(line.get_ydata(), 3.0 * np.asarray([4.0, 16.0]) ** power)
        assert axis.get_xscale() == axis.get_yscale() == "log"
    plt.close(figure)


def test_against_draws_losses_above_the_level_that_its_label_names() -> None:
    curves = pd.DataFrame(
        {
            "target": ["a"] * 4 + ["b"] * 4,
            "setting": "one",
            "code": ["ngem_tutorial", "ngem_tutorial", "gmmvi", "gmmvi"] * 2,
            "seed": 1,
            "seconds": [1.0, 2.0, 10.0, 20.0] * 2,
            "loss": [1.0, 1e-6, 1.0, -1e-6, 80.0, 78.26, 80.0, 78.4],
        }
    )
    figure = draw.against(curves, {"a": "one", "b": "one"})
    first, second = figure.axes
    assert first.get_ylabel() == "loss in nats"
    assert second.get_ylabel() == "loss above 78.2 nats"
    ours, theirs = (line.get_ydata() for line in first.get_lines())
    np.testing.assert_allclose(ours, [1.0, 1e-3])
    np.testing.assert_allclose(theirs, [1.0, 1e-3])
    ours, theirs = (line.get_ydata() for line in second.get_lines())
    np.testing.assert_allclose(ours, [1.8, 0.06], rtol=1e-6)
    np.testing.assert_allclose(theirs, [1.8, 0.2], rtol=1e-6)
    plt.close(figure)


def test_nothing_grows_faster_than_the_bound() -> None:
    """Of `O(K d^3 + K N d^2)`, and of the regression of MORE."""
    table = results.load("vi_growth/exponents").table
    assert not table["above"].any()
    assert (table["high"] <= table["bound"] + 0.05).all()
    samtron = table[table["method"] == "SAMTRON"].set_index("axis")["exponent"]
    assert samtron["dim"] == pytest.approx(1.65, abs=0.01)
    assert samtron["components"] == pytest.approx(1.67, abs=0.01)
    assert samtron["samples"] == pytest.approx(0.99, abs=0.01)
    regression = table[table["method"] == "ZAMTRUX"].set_index("axis")
    assert regression.loc["dim", "exponent"] == pytest.approx(2.03, abs=0.01)
    assert regression.loc["components", "exponent"] == pytest.approx(1.29, abs=0.01)
    assert regression.loc["dim", "bound"] == 6.0


def test_what_the_page_says_of_the_comparison() -> None:
    table = results.load("vi_against_gmmvi/ratios").table
    losses = table[table["measure"].eq("loss") & table["both"].ge(3)]
    ratio = losses.set_index(["target", "setting", "level", "cost"])["ratio"].sort_index()
    late = losses[
        losses["cost"].eq("seconds")
        & losses["target"].eq("GMM20")
        & losses["setting"].eq("no reuse")
        & losses["level"].le(0.3)
    ]
    assert late["ratio"].between(9.5, 11.5).all()
    assert (round(late["low"].min()), round(late["high"].max())) == (7, 19)
    assert ratio.xs("seconds with compiling", level="cost").min() == pytest.approx(0.5, abs=0.02)
    cancer = ratio.loc[("breast cancer", "no reuse")]
    first = [cancer.loc[(level, "seconds")] for level in (80.0, 79.0)]
    assert first == pytest.approx([2.0, 2.0], abs=0.3)
    assert cancer.loc[(78.3, "seconds")] > 5.0
    assert cancer.loc[(78.6, "seconds with compiling")] < 1.0
    runs = results.load("vi_against_gmmvi/runs").table
    ours = runs[runs["code"].eq("ngem_tutorial")]["compile_seconds"]
    assert ours.min() > 19.0
    assert ours.max() < 42.0
    assert set(runs[runs["setting"].eq("no reuse")]["seed"]) == {1, 2, 3, 4}
    plain = runs[runs["setting"].eq("no reuse")].set_index(["target", "code"]).sort_index()
    done = plain["iterations"].groupby(level=["target", "code"]).agg(["min", "max"])
    assert done.loc[("GMM20", "gmmvi")].tolist() == [810, 840]
    assert done.loc[("GMM20", "ngem_tutorial")].tolist() == [900, 900]
    assert done.loc[("breast cancer", "gmmvi")].tolist() == [300, 300]
    assert done.loc[("breast cancer", "ngem_tutorial")].tolist() == [330, 330]
    assert sorted(plain.loc[("GMM20", "gmmvi"), "modes"]) == [9, 10, 10, 10]
