"""The paper's numbers as printed, the margins by hand, and verdicts that can fail."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from scipy import stats

pytest.importorskip("pandas")
import pandas as pd

from ngem_tutorial.reproduction import comparison
from ngem_tutorial.reproduction.comparison import OURS
from ngem_tutorial.reproduction.published import PUBLISHED

NUMBERS = {(p.table, p.condition, p.quantity, p.method): p for p in PUBLISHED}
IMAGES = {"table": "Table 3", "condition": "K = 3", "quantity": "nll"}
ENTROPY = {"table": "Table 1", "condition": "β = 0.1", "quantity": "entropy"}
ERROR = {"table": "Table 5", "condition": "energy", "quantity": "rmse × 10"}


def runs(method: str, values: Any, **keys: str) -> pd.DataFrame:
    values = np.asarray(values, dtype=float)
    return pd.DataFrame(
        {"method": method, "seed": range(len(values)), "value": values} | IMAGES | keys
    )


def verdict(method: str, values: Any, **keys: str) -> Any:
    (row,) = comparison.compare(runs(method, values, **keys)).to_dict("records")
    return row


def with_moments(mean: float, sd: float, n: int = 5) -> Any:
    """Any numbers with exactly these moments."""
    values = stats.norm.ppf((np.arange(n) + 0.5) / n)
    return mean + sd * (values - values.mean()) / values.std(ddof=1)


def test_every_number_of_the_tables_is_there_once() -> None:
    assert len(NUMBERS) == len(PUBLISHED) == 6 + 6 + 4 + 4 + 9 * 3 + 10 * 3 + 6
    assert NUMBERS["Table 2", "β = 1e-05", "entropy", "NLL"][4:] == (0.413, 0.38, 1e-3, 1e-2)
    assert NUMBERS["Table 3", "K = 3", "nll", "nGEM"][4:] == (-1529.7, 101.0, 0.1, 1.0)
    for published in PUBLISHED:
        other = (*published[:3], comparison.counterpart(published.method))
        assert other in NUMBERS, published


# --------------------------------------------------------------------------------- the margins


def test_the_margins_are_those_that_a_reader_of_the_paper_finds() -> None:
    """Half the median gap; the gaps are typed from the tables of the paper."""
    gaps = {
        ("entropy", "all"): [0.650, 0.004, 0.023, 0.277, 0.138, 0.280, 0.247, 0.232],
        ("nll", "inverse MNIST"): [136.9, 131.4],
        ("nll", "kin8nm"): [0.06, 0.95, 0.04, 0.03],
        ("nll", "energy"): [0.20, 0.53, 0.51, 0.19],
        ("nll", "housing"): [0.28, 0.09, 0.05, 0.31],
        ("rmse × 10", "kin8nm"): [0.16, 0.34, 0.10, 0.10],
        ("rmse × 10", "energy"): [0.46, 0.60, 0.79, 0.42],
        ("rmse × 10", "housing"): [0.21, 0.68, 0.48, 0.23],
    }
    found = comparison.margins().set_index(["quantity", "data"])
    assert set(found.index) == set(gaps)
    for key, values in gaps.items():
        ordered, middle = sorted(values), len(values) // 2
        median = (ordered[middle - 1] + ordered[middle]) / 2
        assert found.loc[key, "gap"] == pytest.approx(median)
        assert found.loc[key, "margin"] == pytest.approx(median / 2)
        assert found.loc[key, "pairs"] == len(values)
        assert found.loc[key, "closer"] == sum(value < median / 2 for value in values)
    assert found.loc[("entropy", "all"), "tables"] == "1, 2, 3, 4"


def test_the_margins_do_not_know_our_runs() -> None:
    before = comparison.margins()
    far = verdict(OURS, with_moments(5000.0, 1.0))
    near = verdict(OURS, with_moments(-1529.7, 1000.0))
    assert far["margin"] == near["margin"] == pytest.approx((136.9 + 131.4) / 4)
    pd.testing.assert_frame_equal(comparison.margins(), before)


# -------------------------------------------------------------------------------- the verdicts


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (-0.9, 0.9, "replicates"),
        (0.2, 0.9, "replicates"),  # zero need not be in it
        (-1.0, 1.0, "replicates"),
        (-1.1, 0.1, "inconclusive"),
        (0.5, 1.5, "inconclusive"),
        (-9.0, 9.0, "inconclusive"),  # contains zero, and everything else
        (1.0, 2.0, "inconclusive"),
        (1.1, 2.0, "differs"),
        (-2.0, -1.1, "differs"),
    ],
)
def test_the_verdict_on_an_interval(low: float, high: float, expected: str) -> None:
    assert comparison.judge(low, high, 1.0) == expected


@pytest.mark.parametrize(
    "arguments", [(1.0, 0.0, 1.0), (0.0, 1.0, 0.0), (np.nan, 1.0, 1.0), (0.0, np.inf, 1.0)]
)
def test_what_is_no_interval_has_no_verdict(arguments: tuple[float, float, float]) -> None:
    with pytest.raises(ValueError, match="low, high and margin must be finite"):
        comparison.judge(*arguments)


def test_two_runs_far_apart_replicate_nothing() -> None:
    """-1.0 and -3.5: the interval is 32 nats wide, zero is in it, and nothing is known."""
    row = verdict("Adam + NLL", [-1.0, -3.5], **ERROR | {"quantity": "nll"})
    assert row["low"] < 0 < row["high"]
    assert row["verdict"] == "inconclusive"


def test_one_run_has_no_interval() -> None:
    row = verdict("NLL", [-1392.8])
    assert (row["verdict"], row["why"]) == ("inconclusive", "one run")
    assert row["difference"] == pytest.approx(0.0)
    assert np.isnan([row["low"], row["high"], row["ours_sd"]]).all()
    shown = comparison.show(pd.DataFrame([row])).iloc[0]
    assert (shown["ours"], shown["difference"]) == ("-1392.8", "—")


def test_more_runs_of_the_same_spread_make_the_interval_narrower() -> None:
    rows = [verdict("Adam + NLL", with_moments(0.95, 0.3, n), **ERROR) for n in (2, 3, 10, 20)]
    widths = [row["high"] - row["low"] for row in rows]
    assert all(a > b for a, b in itertools.pairwise(widths))
    assert [row["verdict"] for row in rows] == ["inconclusive"] * 2 + ["replicates"] * 2


@pytest.mark.parametrize(
    ("mean", "sd", "expected"),
    [
        (0.49, 0.01, "replicates"),
        (0.60, 0.01, "replicates"),  # away from the paper's number, surely, and within the margin
        (0.75, 0.01, "inconclusive"),  # the margin, 0.265, is in the interval
        (0.49, 1.00, "inconclusive"),
        (0.95, 0.01, "differs"),  # the paper's NLL
        (0.10, 0.01, "differs"),
    ],
)
def test_verdicts_of_ten_runs(mean: float, sd: float, expected: str) -> None:
    row = verdict(f"Adam + {OURS}", with_moments(mean, sd, 10), **ERROR)
    assert (row["verdict"], row["why"]) == (expected, "")
    assert row["verdict"] in comparison.VERDICTS


@pytest.mark.parametrize("data", ["kin8nm", "energy", "housing"])
@pytest.mark.parametrize("optimizer", ["Adam", "K-FAC", "Muon", "SOAP"])
def test_errors_as_those_of_the_other_method_never_replicate(data: str, optimizer: str) -> None:
    """Each margin is smaller than the gap of each pair, so that a method is not its rival."""
    keys = ERROR | {"condition": data}
    rival = NUMBERS["Table 5", data, "rmse × 10", f"{optimizer} + NLL"].mean
    row = verdict(f"{optimizer} + {OURS}", with_moments(rival, 0.001, 20), **keys)
    assert row["verdict"] != "replicates"


def test_the_interval_is_that_of_scipy() -> None:
    ours = np.array([-1400.0, -1420.0, -1450.0, -1380.0, -1390.0, -1401.0])
    row = verdict(OURS, ours)
    paper = with_moments(-1529.7, 101.0 + 0.5)
    interval = stats.ttest_ind(ours, paper, equal_var=False).confidence_interval(0.95)
    assert row["difference"] == pytest.approx(ours.mean() + 1529.7)
    assert row["low"] == pytest.approx(interval.low - 0.05)
    assert row["high"] == pytest.approx(interval.high + 0.05)
    assert (row["runs"], row["failed"]) == (6, 0)
    assert row["ours_sd"] == pytest.approx(ours.std(ddof=1))


def test_where_the_papers_runs_leave_no_room_the_table_says_so() -> None:
    """178 over five runs: 221 nats to both sides, where the margin is 67."""
    row = verdict("NLL", with_moments(-1392.8, 0.1, 1000))
    assert row["verdict"] == "inconclusive"
    assert row["why"] == "the paper's own interval is wider than the margin"
    assert verdict("NLL", with_moments(0.0, 0.1, 1000))["verdict"] == "differs"


def test_rounding_is_taken_into_account() -> None:
    """0.010 ± 0.00 may be up to 0.0105, with a deviation of up to 0.005."""
    half = 0.0005 + 0.005 / np.sqrt(5) * stats.t.ppf(0.975, 4)
    margin = 0.11975
    for offset, expected in (
        (margin - 1.01 * half, "replicates"),
        (margin - 0.99 * half, "inconclusive"),
        (margin + 0.99 * half, "inconclusive"),
        (margin + 1.01 * half, "differs"),
    ):
        row = verdict("NLL", [0.010 + offset] * 4, **ENTROPY)
        assert row["high"] - row["low"] == pytest.approx(2 * half)
        assert row["verdict"] == expected


def test_a_run_is_counted_once() -> None:
    rows = runs("NLL", [0.01, 0.012, 0.008], **ENTROPY)
    with pytest.raises(ValueError, match=r"seed more than once: .*, NLL, \d"):
        comparison.compare(pd.concat([rows, rows.iloc[[1]]], ignore_index=True))


def test_runs_that_are_not_finite_are_counted_and_left_out() -> None:
    row = verdict("NLL", [0.01, np.nan, 0.012, np.inf, 0.008], **ENTROPY)
    assert (row["runs"], row["failed"]) == (5, 2)
    assert row["ours"] == pytest.approx(0.01)
    # The interval lies within the margin; it is that of the runs that stayed finite.
    why = "the mean is of the runs that stayed finite; 2 of 5 runs not finite"
    assert (row["verdict"], row["why"]) == ("inconclusive", why)
    row = verdict("NLL", [0.01, 0.012, 0.008] * 13 + [np.inf], **ENTROPY)
    assert (row["verdict"], row["why"]) == ("replicates", "1 of 40 runs not finite")
    row = verdict("NLL", [0.01, np.nan, np.nan, 0.012], **ENTROPY)
    assert (row["verdict"], row["why"]) == ("cannot be compared", "2 of 4 runs not finite")
    row = verdict("NLL", [np.nan] * 3, **ENTROPY)
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
    (row,) = comparison.compare(measured).to_dict("records")
    assert (row["verdict"], row["why"]) == ("cannot be compared", "seconds has no margin")


# ----------------------------------------------------------------------------------- the order


@pytest.mark.parametrize(
    ("ngem", "nll", "spread", "expected"),
    [
        (0.2, 0.5, 0.01, "same"),  # the paper: 0.49 ± 0.04 and 0.95 ± 0.12
        (0.5, 0.2, 0.01, "opposite"),
        (0.5, 0.2, 1.0, "undecided here"),
    ],
)
def test_the_order_is_a_question_of_its_own(
    ngem: float, nll: float, spread: float, expected: str
) -> None:
    measured = pd.concat(
        [
            runs(f"Adam + {OURS}", with_moments(ngem, spread), **ERROR),
            runs("Adam + NLL", with_moments(nll, spread), **ERROR),
        ]
    )
    assert comparison.compare(measured)["order"].tolist() == [expected] * 2
    assert comparison.pairs(measured)["order"].tolist() == [expected]
    assert expected in comparison.ORDERS


def test_an_order_that_the_paper_leaves_open_cannot_be_kept() -> None:
    """-1529.7 ± 101 and -1392.8 ± 178 over five runs."""
    for noise, expected in ((1.0, "undecided in the paper"), (500.0, "undecided in both")):
        measured = pd.concat(
            [
                runs(OURS, with_moments(-1529.7, noise)),
                runs("NLL", with_moments(-1392.8, noise)),
            ]
        )
        assert comparison.compare(measured)["order"].tolist() == [expected] * 2


@pytest.mark.parametrize(
    "nll", [None, [0.95], [0.95, 0.96, np.nan, np.nan], [np.nan, np.nan, np.nan]]
)
def test_without_runs_to_compare_with_the_order_is_not_known(nll: list[float] | None) -> None:
    measured = runs(f"Adam + {OURS}", with_moments(0.49, 0.01), **ERROR)
    if nll is not None:
        measured = pd.concat([measured, runs("Adam + NLL", nll, **ERROR)])
        assert comparison.pairs(measured)["order"].tolist() == ["not known"]
    assert set(comparison.compare(measured)["order"]) == {"not known"}


def test_a_number_may_be_in_order_and_differ() -> None:
    measured = pd.concat(
        [
            runs(f"Adam + {OURS}", with_moments(2.0, 0.01), **ERROR),
            runs("Adam + NLL", with_moments(3.0, 0.01), **ERROR),
        ]
    )
    found = comparison.compare(measured)
    assert found["verdict"].tolist() == ["differs"] * 2
    assert found["order"].tolist() == ["same"] * 2


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
    paper = stats.ttest_ind(
        with_moments(-1529.7, 101.5), with_moments(-1392.8, 178.5), equal_var=False
    ).confidence_interval(0.95)
    assert row["paper_low"] == pytest.approx(paper.low - 0.1)  # two numbers, each half a digit off
    assert row["paper_high"] == pytest.approx(paper.high + 0.1)
    assert np.isnan(rows.loc["undamped nGEM", "low"])


# ------------------------------------------------------------------------------- ratio of times


def ratios(values: Any) -> pd.DataFrame:
    keys = {"table": "Table 6", "condition": "kin8nm", "quantity": "ratio to NLL"}
    return runs(OURS, values, **keys)


@pytest.mark.parametrize(
    ("mean", "sd", "expected"),
    [(1.005, 0.001, "inconclusive"), (1.5, 0.1, "differs"), (0.5, 0.1, "differs")],
)
def test_the_ratio_of_the_paper_beside_ours(mean: float, sd: float, expected: str) -> None:
    (row,) = comparison.compare_ratios(ratios(with_moments(mean, sd, 15))).itertuples()
    assert row.verdict == expected
    assert row.paper == pytest.approx(9.38 / 9.33)
    assert row.paper_sd == pytest.approx(np.hypot(0.085 / 9.38, 0.065 / 9.33), rel=0.01)
    assert row.margin == pytest.approx(np.median([9.38 / 9.33, 9.40 / 9.31, 9.37 / 9.31]) / 2 - 0.5)
    interval = stats.ttest_ind(
        with_moments(mean, sd, 15), with_moments(row.paper, row.paper_sd), equal_var=False
    ).confidence_interval(0.95)
    assert row.low == pytest.approx(interval.low - 2 * 0.005 / 9.35, abs=1e-5)
    assert row.high == pytest.approx(interval.high + 2 * 0.005 / 9.35, abs=1e-5)


# --------------------------------------------------------------------------------- for readers


def test_the_table_for_readers_has_the_decimals_of_the_paper() -> None:
    shown = comparison.show(comparison.compare(runs("NLL", [-1390.02, -1395.13]))).iloc[0]
    assert shown["paper"] == "-1392.8 ± 178"
    assert shown["ours"].startswith("-1392.6 ± 3.6")
    assert (shown["runs"], shown["margin"]) == ("2", "67.1")
    keys = {"table": "Table 2", "condition": "β = 0.001", "quantity": "entropy"}
    shown = comparison.show(comparison.compare(runs("NLL", [0.4, 0.5], **keys))).iloc[0]
    assert shown["paper"] == "0.416 ± 0.38"


def test_without_a_number_of_the_paper_the_comparison_is_empty() -> None:
    measured = runs("NLL", [1.0], condition="K = 20")
    found = comparison.compare(measured)
    assert found.empty
    assert set(found["verdict"]) == set()
    assert comparison.show(found).empty
    assert comparison.pairs(measured).empty


def test_columns_that_are_missing_are_named() -> None:
    with pytest.raises(ValueError, match=r"must have the columns \['seed'\]"):
        comparison.compare(runs("NLL", [1.0]).drop(columns="seed"))
