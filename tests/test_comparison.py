"""The paper's numbers as printed, and the verdicts against SciPy's Welch test."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import stats

pytest.importorskip("pandas")
import pandas as pd

from ngem_tutorial.experiments import comparison
from ngem_tutorial.experiments.published import PUBLISHED

NUMBERS = {(p.table, p.condition, p.quantity, p.method): p for p in PUBLISHED}


def runs(method: str, values: Any, **keys: str) -> pd.DataFrame:
    keys = {"table": "Table 3", "condition": "K = 3", "quantity": "nll"} | keys
    values = np.asarray(values, dtype=float)
    return pd.DataFrame({"method": method, "seed": range(len(values)), "value": values} | keys)


def test_every_number_of_the_tables_is_there_once() -> None:
    assert len(NUMBERS) == len(PUBLISHED) == 6 + 6 + 4 + 4 + 9 * 3 + 10 * 3 + 6
    assert NUMBERS["Table 2", "β = 1e-05", "entropy", "NLL"][4:] == (0.413, 0.38, 1e-3, 1e-2)
    assert NUMBERS["Table 3", "K = 3", "nll", "nGEM"][4:] == (-1529.7, 101.0, 0.1, 1.0)
    for published in PUBLISHED:
        other = (*published[:3], comparison.counterpart(published.method))
        assert other in NUMBERS, published


def test_a_number_within_the_interval_replicates_as_scipy_finds_it() -> None:
    ours = np.array([-1400.0, -1420.0, -1450.0, -1380.0, -1390.0, -1401.0])
    (row,) = comparison.compare(runs("nGEM, paper's code", ours)).to_dict("records")
    paper = stats.norm.ppf((np.arange(5) + 0.5) / 5)  # any five numbers with the printed moments
    paper = -1529.7 + (101.0 + 0.5) * (paper - paper.mean()) / paper.std(ddof=1)
    interval = stats.ttest_ind(ours, paper, equal_var=False).confidence_interval(0.95)
    assert row["difference"] == pytest.approx(ours.mean() + 1529.7)
    assert row["low"] == pytest.approx(interval.low - 0.05)
    assert row["high"] == pytest.approx(interval.high + 0.05)
    assert row["verdict"] == ("replicates" if interval.low - 0.05 <= 0 else "does not replicate")
    assert (row["runs"], row["failed"]) == (6, 0)
    assert row["ours_sd"] == pytest.approx(ours.std(ddof=1))


@pytest.mark.parametrize(
    ("ngem", "nll", "verdict"),
    [
        (-1529.0, -1390.0, "replicates"),
        (-900.0, -700.0, "in order only"),  # both far off, nGEM lower: as in the paper
        (-700.0, -900.0, "does not replicate"),
        (-700.0, -700.0, "does not replicate"),
    ],
)
def test_verdicts(ngem: float, nll: float, verdict: str) -> None:
    noise = np.array([-2.0, -1.0, 0.0, 1.0, 2.0])
    measured = pd.concat([runs("nGEM, paper's code", ngem + noise), runs("NLL", nll + noise)])
    found = comparison.compare(measured).set_index("method")["verdict"]
    assert found["nGEM"] == verdict
    assert set(found) <= set(comparison.VERDICTS)


def test_runs_that_are_not_finite_are_counted_and_left_out() -> None:
    keys = {"table": "Table 1", "condition": "β = 0.1", "quantity": "entropy"}
    some = runs("NLL", [0.01, np.nan, 0.012, np.inf, 0.008], **keys)
    (row,) = comparison.compare(some).to_dict("records")
    assert (row["runs"], row["failed"]) == (5, 2)
    assert row["ours"] == pytest.approx(0.01)
    assert row["why"] == "2 of 5 runs not finite"
    assert row["verdict"] == "replicates"
    most = runs("NLL", [0.01, np.nan, np.nan, 0.012], **keys)
    (row,) = comparison.compare(most).to_dict("records")
    assert (row["verdict"], row["why"]) == ("cannot be compared", "2 of 4 runs not finite")
    (row,) = comparison.compare(runs("NLL", [np.nan] * 3, **keys)).to_dict("records")
    assert row["verdict"] == "cannot be compared"
    assert row["why"].startswith("no run is finite")
    assert comparison.show(pd.DataFrame([row]))["ours"].tolist() == ["—"]


def test_a_reason_stands_above_the_numbers() -> None:
    keys = {"table": "Table 6", "condition": "energy", "quantity": "seconds"}
    measured = runs("NLL", [9.31, 9.3, 9.32], **keys)
    (row,) = comparison.compare(measured, {("Table 6", "seconds"): "another machine"}).to_dict(
        "records"
    )
    assert (row["verdict"], row["why"]) == ("cannot be compared", "another machine")


def test_without_spread_rounding_decides() -> None:
    """0.693 ± 0.00: our 0.6931 agrees; the paper's deviation may be up to 0.005."""
    keys = {"table": "Table 2", "condition": "β = 0.001", "quantity": "entropy"}
    half = 0.0005 + 0.005 / np.sqrt(5) * stats.t.ppf(0.975, 4)
    for offset, verdict in ((0.9, "replicates"), (1.1, "does not replicate")):
        measured = runs("nGEM, paper's code", [0.693 - offset * half] * 4, **keys)
        (row,) = comparison.compare(measured).to_dict("records")
        assert row["verdict"] == verdict


def test_pairs_are_compared_as_scipy_compares_them() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(-1000.0, 10.0, 7), rng.normal(-1005.0, 20.0, 9)
    measured = pd.concat(
        [runs("nGEM, as derived", a), runs("NLL", b), runs("undamped nGEM", [1.0])]
    )
    rows = comparison.pairs(measured).set_index("method")
    interval = stats.ttest_ind(a, b, equal_var=False).confidence_interval(0.95)
    row = rows.loc["nGEM, as derived"]
    assert row["ours"] == pytest.approx(a.mean() - b.mean())
    assert (row["low"], row["high"]) == pytest.approx((interval.low, interval.high))
    assert row["paper"] == pytest.approx(-1529.7 + 1392.8)
    wide = stats.t.interval(0.95, 6.0, -136.9, np.hypot(101.5, 178.5) / np.sqrt(5))
    assert row["paper_low"] == pytest.approx(wide[0], abs=3.0)  # six degrees of freedom or so
    assert np.isnan(rows.loc["undamped nGEM", "low"])


def test_the_table_for_readers_has_the_decimals_of_the_paper() -> None:
    shown = comparison.show(comparison.compare(runs("NLL", [-1390.02, -1395.13]))).iloc[0]
    assert shown["paper"] == "-1392.8 ± 178"
    assert shown["ours"].startswith("-1392.6 ± 3.6")
    assert shown["runs"] == "2"
    keys = {"table": "Table 2", "condition": "β = 0.001", "quantity": "entropy"}
    shown = comparison.show(comparison.compare(runs("NLL", [0.4, 0.5], **keys))).iloc[0]
    assert shown["paper"] == "0.416 ± 0.38"


def test_without_a_number_of_the_paper_the_comparison_is_empty() -> None:
    found = comparison.compare(runs("NLL", [1.0], condition="K = 20"))
    assert found.empty
    assert set(found["verdict"]) == set()
    assert comparison.show(found).empty


def test_columns_that_are_missing_are_named() -> None:
    with pytest.raises(ValueError, match=r"must have the columns \['seed'\]"):
        comparison.compare(runs("NLL", [1.0]).drop(columns="seed"))
