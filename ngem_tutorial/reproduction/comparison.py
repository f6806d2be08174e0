"""The paper's numbers beside ours, with a verdict for each that can fail.

A *margin* is fixed beforehand, by a rule that reads the paper's printed numbers alone: half the
median gap, without its sign, between the paper's nGEM and its NLL. Entropies have one margin, for
they run from 0 to log K wherever they are measured; likelihoods and errors have one for each data
set, because they are in the units of its target, or at least on its level (`margins`). A method
that moves by less than the margin has not moved half the way to the other in a typical pair.

The 95 % interval of the difference between our mean and the paper's is Welch's, from the standard
deviations of both, the paper's over five runs, and is widened by what the rounding of the printed
numbers can hide. The verdict on a number is

- *replicates*: the whole interval lies within the margin;
- *differs*: the whole interval lies outside of it;
- *inconclusive*: neither, or there is one run only, whose interval nobody knows;
- *cannot be compared*: for the reason given, or because half of our runs or more were not finite
  (otherwise the mean is that of the finite ones).

The first is two one-sided tests against the two ends of the margin. At the usual 5 % they would
ask for the 90 % interval; we take the 95 % interval, which every table shows, and so test at
2.5 %. Much spread and few runs give wide intervals, and wide intervals cannot replicate.

Whether a method is *in order* is another question, and has another column: on which side of its
counterpart the method is (`counterpart`), in the paper and here, each side with its own 95 %
interval. *Same* or *opposite* needs both intervals without zero; otherwise the order is
*undecided*, and the column says by whom.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from ngem_tutorial.metrics import MeanDifference, Moments, moments, welch_interval
from ngem_tutorial.reproduction.published import PUBLISHED, Published

__all__ = [
    "ORDERS", "OURS", "VERDICTS", "compare", "compare_ratios", "counterpart", "judge", "margins",
    "pairs", "show",
]  # fmt: skip

VERDICTS = ("replicates", "inconclusive", "differs", "cannot be compared")
"""What `judge` can say of a number of the paper, best first."""

ORDERS = (
    "same", "opposite", "undecided in the paper", "undecided here", "undecided in both",
    "not known",
)  # fmt: skip
"""On which side of its counterpart a method is, here and in the paper. It is not known where fewer
than two finite runs, or no more than half of them, are left of one of the two methods here."""

OURS = "nGEM, paper's code"
"""What the paper's nGEM is compared with: the code that its Appendix C prints."""

_VARIANTS = (OURS, "nGEM, as derived", "undamped nGEM", "damped nGEM", "whitened NLL")
_PAPER_RUNS = 5
_MAX_FAILED = 0.05
"""Up to this share of runs that are not finite the mean of the others can replicate a number."""
_KEYS = ["table", "condition", "quantity", "method"]
_COLUMNS = [
    *_KEYS, "paper", "paper_sd", "paper_half_width", "ours", "ours_sd", "runs", "failed",
    "difference", "low", "high", "margin", "verdict", "why", "order", "decimals", "sd_decimals",
]  # fmt: skip


def margins() -> pd.DataFrame:
    """Derive the margins from the paper's numbers.

    Returns:
        A row per margin: `quantity`, `data` (the data set, or `all`), `tables`, `pairs` (of nGEM
        and NLL with the same optimizer), `gap` (the median of their absolute differences),
        `margin` (half of it) and `closer` (how many pairs are no further apart than the margin:
        there a number that replicates may still be on the other method's side). Times have none.
    """
    gaps: dict[tuple[str, str], list[tuple[str, float]]] = {}
    for number in PUBLISHED:
        if number.method.endswith("nGEM") and number.quantity != "seconds":
            gap = abs(number.mean - _printed()[_counterpart_key(number)].mean)
            gaps.setdefault(_scale(number), []).append((number.table, gap))
    rows = []
    for (quantity, data), found in gaps.items():
        sizes = np.array([gap for _, gap in found])
        margin = float(np.median(sizes)) / 2
        rows.append(
            {
                "quantity": quantity,
                "data": data,
                "tables": ", ".join(dict.fromkeys(table.split()[1] for table, _ in found)),
                "pairs": len(sizes),
                "gap": 2 * margin,
                "margin": margin,
                "closer": int((sizes <= margin).sum()),
            }
        )
    return pd.DataFrame(rows)


def judge(low: float, high: float, margin: float) -> str:
    """Give the verdict on an interval of a difference.

    Args:
        low: the lower end of the interval.
        high: the upper end.
        margin: up to which difference, positive or negative, two numbers count as the same.

    Returns:
        *replicates*, *differs* or *inconclusive*.

    Raises:
        ValueError: if a number is not finite, the ends are in the wrong order or the margin is
            not positive.
    """
    if not (all(map(math.isfinite, (low, high, margin))) and low <= high and margin > 0):
        raise ValueError(
            f"low, high and margin must be finite, low at most high and margin positive, got "
            f"{low}, {high}, {margin}"
        )
    if -margin <= low and high <= margin:
        return "replicates"
    return "differs" if low > margin or high < -margin else "inconclusive"


def compare(
    measured: pd.DataFrame, reasons: Mapping[tuple[str, str], str] | None = None
) -> pd.DataFrame:
    """Compare the means of our runs with the numbers of the paper.

    Args:
        measured: a row per run: `table` (`"Table 2"`), `condition`, `quantity`, `method` (in our
            names), `seed` and `value`, NaN or infinite where a run was not finite. Rows for which
            the paper has no number are left out.
        reasons: why the numbers of a `(table, quantity)` cannot be compared, if they cannot.

    Returns:
        A row per number of the paper, in its order: the keys, `paper`, `paper_sd`,
        `paper_half_width` (of the 95 % interval of the paper's mean alone), `ours`, `ours_sd`,
        `runs`, `failed` (not finite, left out of the mean), `difference` (ours minus the
        paper's), `low` and `high` (its 95 % interval, NaN with fewer than two finite runs),
        `margin` (NaN if the quantity has none), `verdict`, `why` and `order` (of `ORDERS`).
        Numbers of which we have no run at all are left out.

    Raises:
        ValueError: if a column is missing.
    """
    runs = _runs(measured)
    by_scale = margins().set_index(["quantity", "data"])["margin"].to_dict()
    rows = []
    for number in PUBLISHED:
        values = runs.get(_key(number, number.method))
        if values is None:
            continue
        other = runs.get(_key(number, counterpart(number.method)))
        rows.append(
            {
                **_row(
                    number,
                    values,
                    by_scale.get(_scale(number), math.nan),
                    (reasons or {}).get((number.table, number.quantity), ""),
                ),
                "order": _order(_paper_difference(number), _difference(values, other)),
            }
        )
    return pd.DataFrame(rows, columns=_COLUMNS)


def compare_ratios(measured: pd.DataFrame) -> pd.DataFrame:
    """Compare how much longer nGEM takes than NLL, by the same rule: a ratio has no machine.

    The paper's ratio is that of its printed means, its standard deviation that of a ratio of two
    independent times. The margin is half the median distance of its ratios from one.

    Args:
        measured: as in `compare`, with the quantity `ratio to NLL` in Table 6, a value for each
            repetition.

    Returns:
        A row per data set that was timed: `condition`, `paper`, `paper_sd`, `ours` (the mean),
        `ours_sd`, `runs`, `difference`, `low`, `high`, `margin`, `verdict`.

    Raises:
        ValueError: if a column is missing, or a data set has fewer than two finite ratios.
    """
    runs = _runs(measured)
    printed = {
        number: _printed()[_counterpart_key(number)]
        for number in PUBLISHED
        if number.table == "Table 6" and number.method == "nGEM"
    }
    margin = float(np.median([abs(a.mean / b.mean - 1) for a, b in printed.items()])) / 2
    rows = []
    for ngem, nll in printed.items():
        values = runs.get(("Table 6", ngem.condition, "ratio to NLL", OURS))
        if values is None:
            continue
        ratio, ours = ngem.mean / nll.mean, moments(values)
        relative_sd = math.hypot(*(_paper_moments(n).sd / n.mean for n in (ngem, nll)))
        rounding = ratio * sum(n.mean_step / 2 / n.mean for n in (ngem, nll))
        paper = Moments(ratio, ratio * relative_sd, _PAPER_RUNS)
        interval = _widened(welch_interval(ours, paper), rounding)
        rows.append(
            {
                "condition": ngem.condition,
                "paper": ratio,
                "paper_sd": paper.sd,
                "ours": ours.mean,
                "ours_sd": ours.sd,
                "runs": ours.n,
                **interval._asdict(),
                "margin": margin,
                "verdict": judge(interval.low, interval.high, margin),
            }
        )
    return pd.DataFrame(rows)


def pairs(measured: pd.DataFrame) -> pd.DataFrame:
    """Compare nGEM with NLL, in the paper and in our runs.

    Args:
        measured: as in `compare`.

    Returns:
        For each pair of nGEM and NLL in a table of the paper, and each nGEM of ours that was
        run: the keys (`method` is ours), `paper` (the paper's nGEM minus its NLL), `paper_low`
        and `paper_high` (Welch's 95 % interval from the printed standard deviations, widened by
        the rounding), `ours`, `low` and `high` (NaN where the order is not known), and `order`
        (of `ORDERS`).

    Raises:
        ValueError: if a column is missing.
    """
    runs = _runs(measured)
    rows = []
    for number in PUBLISHED:
        if not number.method.endswith("nGEM"):
            continue
        ours, other = _key(number, number.method), _key(number, counterpart(number.method))
        paper = _paper_difference(number)
        for variant in _VARIANTS:
            key = (*ours[:3], ours[3].removesuffix(OURS) + variant)
            if key not in runs or other not in runs:
                continue
            here = _difference(runs[key], runs[other])
            rows.append(
                {
                    **dict(zip(_KEYS, key, strict=True)),
                    **dict(zip(("paper", "paper_low", "paper_high"), paper, strict=True)),
                    **dict(zip(("ours", "low", "high"), here, strict=True)),
                    "order": _order(paper, here),
                }
            )
    columns = [*_KEYS, "paper", "paper_low", "paper_high", "ours", "low", "high", "order"]
    return pd.DataFrame(rows, columns=columns)


def counterpart(method: str) -> str:
    """Return the method of the paper that a method is compared with.

    Args:
        method: one of the paper's.

    Returns:
        Another of the paper's: NLL for nGEM, nGEM for NLL, with the same optimizer; nGEM with
        Adam for the other baselines.
    """
    optimizer, plus, objective = method.rpartition(" + ")
    return optimizer + plus + ("NLL" if objective == "nGEM" else "nGEM")


def show(comparison: pd.DataFrame) -> pd.DataFrame:
    """Lay the comparison out for a reader.

    Args:
        comparison: what `compare` returned.

    Returns:
        Strings: paper and ours with their standard deviations, the difference with its interval,
        the margin, the verdict and why, and the order, with as many decimals as the paper prints
        (the margin with two more).
    """
    rows = []
    for row in comparison.itertuples():
        d = int(row.decimals)
        finite = row.runs - row.failed
        rows.append(
            {
                "": f"{row.table}, {row.condition}",
                "quantity": row.quantity,
                "method": row.method,
                "paper": f"{row.paper:.{d}f} ± {row.paper_sd:.{row.sd_decimals}f}",
                "ours": _with_sd(row.ours, row.ours_sd, d),
                "runs": f"{finite}" + (f" of {row.runs}" if row.failed else ""),
                "difference": f"{row.difference:+.{d}f} ({row.low:+.{d}f} to {row.high:+.{d}f})"
                if math.isfinite(row.low)
                else "—",
                "margin": f"{row.margin:.3g}" if math.isfinite(row.margin) else "—",
                "verdict": row.verdict,
                "why": row.why,
                "in order": row.order,
            }
        )
    columns = [
        "", "quantity", "method", "paper", "ours", "runs", "difference", "margin", "verdict",
        "why", "in order",
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=columns)


def _with_sd(mean: float, sd: float, decimals: int) -> str:
    """A mean with its standard deviation, as far as there is one."""
    if not math.isfinite(mean):
        return "—"
    return f"{mean:.{decimals}f}" + (f" ± {sd:.{decimals}f}" if math.isfinite(sd) else "")


def _scale(number: Published) -> tuple[str, str]:
    """The quantity and the data set whose numbers have one margin."""
    if number.quantity == "entropy":
        return ("entropy", "all")
    return (
        number.quantity,
        "inverse MNIST" if number.condition.startswith("K") else number.condition,
    )


def _printed() -> dict[tuple[str, str, str, str], Published]:
    return {(p.table, p.condition, p.quantity, p.method): p for p in PUBLISHED}


def _counterpart_key(number: Published) -> tuple[str, str, str, str]:
    return (number.table, number.condition, number.quantity, counterpart(number.method))


def _runs(measured: pd.DataFrame) -> dict[Any, np.ndarray]:
    """The values of the runs by their keys."""
    if missing := [name for name in [*_KEYS, "seed", "value"] if name not in measured]:
        raise ValueError(f"measured must have the columns {missing}, got {list(measured)}")
    if (again := measured.duplicated([*_KEYS, "seed"])).any():
        keys = ", ".join(str(measured.loc[again.idxmax(), key]) for key in [*_KEYS, "seed"])
        raise ValueError(f"measured must have one row per run, got seed more than once: {keys}")
    return {
        key: group["value"].to_numpy(dtype=float)
        for key, group in measured.groupby(_KEYS, sort=False)
    }


def _key(number: Published, method: str) -> tuple[str, str, str, str]:
    """Where our runs of a method of the paper are."""
    optimizer, plus, objective = method.rpartition(" + ")
    ours = OURS if objective == "nGEM" else objective
    return (number.table, number.condition, number.quantity, optimizer + plus + ours)


def _row(number: Published, values: np.ndarray, margin: float, reason: str) -> dict[str, Any]:
    finite = values[np.isfinite(values)]
    failed = len(values) - len(finite)
    interval = MeanDifference(math.nan, math.nan, math.nan)
    if len(finite) > 1:
        interval = _widened(
            welch_interval(moments(finite), _paper_moments(number)), number.mean_step / 2
        )
    elif len(finite) == 1:
        interval = interval._replace(difference=finite[0] - number.mean)
    verdict, why = _verdict(number, interval, margin, len(finite), failed, reason)
    if failed:
        why = "; ".join(filter(None, [why, f"{failed} of {len(values)} runs not finite"]))
    return {
        **{key: getattr(number, key) for key in _KEYS},
        "paper": number.mean,
        "paper_sd": number.sd,
        "paper_half_width": _paper_half_width(number),
        "ours": finite.mean() if len(finite) else math.nan,
        "ours_sd": finite.std(ddof=1) if len(finite) > 1 else math.nan,
        "runs": len(values),
        "failed": failed,
        **interval._asdict(),
        "margin": margin,
        "verdict": verdict,
        "why": why,
        "decimals": _decimals(number.mean_step),
        "sd_decimals": _decimals(number.sd_step),
    }


def _decimals(step: float) -> int:
    """How many decimals a number with this last digit has."""
    return round(-math.log10(step))


def _verdict(
    number: Published,
    interval: MeanDifference,
    margin: float,
    finite: int,
    failed: int,
    reason: str,
) -> tuple[str, str]:
    if reason:
        return "cannot be compared", reason
    if 2 * failed >= finite + failed:
        return "cannot be compared", "" if finite else "no run is finite"
    if not math.isfinite(margin):
        return "cannot be compared", f"{number.quantity} has no margin"
    if finite == 1:
        return "inconclusive", "one run"
    verdict = judge(interval.low, interval.high, margin)
    if verdict == "replicates" and failed > _MAX_FAILED * (finite + failed):
        return "inconclusive", "the mean is of the runs that stayed finite"
    if verdict == "inconclusive" and _paper_half_width(number) > margin:
        return verdict, "the paper's own interval is wider than the margin"
    return verdict, ""


def _paper_moments(number: Published) -> Moments:
    """As printed; the standard deviation is as large as its rounding allows."""
    return Moments(number.mean, number.sd + number.sd_step / 2, _PAPER_RUNS)


def _paper_half_width(number: Published) -> float:
    """Half the 95 % interval of the paper's mean: what is left if ours were known exactly."""
    alone = welch_interval(_paper_moments(number), Moments(number.mean, 0.0, _PAPER_RUNS))
    return alone.high + number.mean_step / 2


def _widened(interval: MeanDifference, rounding: float) -> MeanDifference:
    """An interval of a difference of numbers that are rounded by so much together."""
    return interval._replace(low=interval.low - rounding, high=interval.high + rounding)


def _paper_difference(number: Published) -> MeanDifference:
    """How far a number of the paper is from its counterpart."""
    other = _printed()[_counterpart_key(number)]
    interval = welch_interval(_paper_moments(number), _paper_moments(other))
    return _widened(interval, (number.mean_step + other.mean_step) / 2)


def _difference(values: np.ndarray, other: np.ndarray | None) -> MeanDifference:
    """The difference of the means of the finite runs; NaN where too few of them are finite."""
    samples = [] if other is None else [values, other]
    finite = [sample[np.isfinite(sample)] for sample in samples]
    enough = [
        len(f) >= 2 and 2 * len(f) > len(sample) for f, sample in zip(finite, samples, strict=True)
    ]
    if not (enough and all(enough)):
        return MeanDifference(math.nan, math.nan, math.nan)
    return welch_interval(moments(finite[0]), moments(finite[1]))


def _order(paper: MeanDifference, here: MeanDifference) -> str:
    """Say whether a method is on the same side of its counterpart here as in the paper."""
    if math.isnan(here.difference):
        return "not known"
    open_there, open_here = (side.low <= 0 <= side.high for side in (paper, here))
    if open_there or open_here:
        both = open_there and open_here
        return "undecided " + ("in both" if both else "in the paper" if open_there else "here")
    return "same" if (paper.low > 0) == (here.low > 0) else "opposite"
