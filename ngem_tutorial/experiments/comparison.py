"""The paper's numbers beside ours, with a verdict for each.

The rules are the same for every number of Tables 1 to 6:

- *replicates*: the 95 % interval of the difference between our mean and the paper's (Welch: both
  standard deviations, the paper's over five runs, both rounded as printed) contains zero;
- *in order only*: it does not, but in the paper and here the method is on the same side of the
  one that it is compared with (nGEM and NLL of the same table and optimizer; a baseline and nGEM
  with Adam), and here the 95 % interval of that difference does not contain zero;
- *does not replicate*: neither;
- *cannot be compared*: for the reason given, or because half of our runs or more were not finite
  (otherwise the mean is that of the finite ones).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from scipy import special  # type: ignore[import-untyped]  # comes with JAX, which depends on it

from ngem_tutorial.experiments.published import PUBLISHED, Published

__all__ = ["OURS", "VERDICTS", "compare", "counterpart", "pairs", "show"]

VERDICTS = ("replicates", "in order only", "does not replicate", "cannot be compared")

OURS = "nGEM, paper's code"
"""What the paper's nGEM is compared with: the code that its Appendix C prints."""

_PAPER_RUNS = 5
_KEYS = ["table", "condition", "quantity", "method"]
_COLUMNS = [
    *_KEYS, "paper", "paper_sd", "ours", "ours_sd", "runs", "failed", "difference", "low", "high",
    "verdict", "why", "decimals", "sd_decimals",
]  # fmt: skip


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
        A row per number of the paper, in its order: the keys, `paper`, `paper_sd`, `ours`,
        `ours_sd`, `runs`, `failed` (not finite, left out of the mean), `difference` (ours minus
        the paper's), `low` and `high` (its 95 % interval), `verdict` and `why`. Numbers of which
        we have no run at all are left out.

    Raises:
        ValueError: if a column is missing.
    """
    runs = _runs(measured)
    rows = []
    for number in PUBLISHED:
        values = runs.get(_key(number, number.method))
        if values is None:
            continue
        other = runs.get(_key(number, counterpart(number.method)))
        reason = (reasons or {}).get((number.table, number.quantity), "")
        rows.append(_row(number, values, other, reason))
    return pd.DataFrame(rows, columns=_COLUMNS)


def pairs(measured: pd.DataFrame) -> pd.DataFrame:
    """Compare nGEM with NLL, in the paper and in our runs.

    Args:
        measured: as in `compare`.

    Returns:
        For each pair of nGEM and NLL in a table of the paper, and each nGEM of ours that was
        run: the keys (`method` is ours), `paper` (the paper's nGEM minus its NLL), `paper_low`
        and `paper_high` (Welch's 95 % interval from the printed standard deviations), `ours`,
        `low` and `high` (NaN if fewer than two runs of one of them are finite).

    Raises:
        ValueError: if a column is missing.
    """
    runs = _runs(measured)
    printed = {_key(number, number.method): number for number in PUBLISHED}
    rows = []
    for number in PUBLISHED:
        if not number.method.endswith("nGEM"):
            continue
        ours, other = _key(number, number.method), _key(number, counterpart(number.method))
        nll = printed[other]
        half = _half_width(
            number.sd + number.sd_step / 2, _PAPER_RUNS, nll.sd + nll.sd_step / 2, _PAPER_RUNS
        )
        difference = number.mean - nll.mean
        prefix = ours[3].removesuffix(OURS)
        for variant in (OURS, "nGEM, as derived", "undamped nGEM", "damped nGEM"):
            key = (*ours[:3], prefix + variant)
            if key not in runs or other not in runs:
                continue
            mean, width = _difference(runs[key], runs[other])
            rows.append(
                {
                    **dict(zip(_KEYS, key, strict=True)),
                    "paper": difference,
                    "paper_low": difference - half,
                    "paper_high": difference + half,
                    "ours": mean,
                    "low": mean - width,
                    "high": mean + width,
                }
            )
    return pd.DataFrame(rows)


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
        the verdict and why, with as many decimals as the paper prints.
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
                "ours": f"{row.ours:.{d}f} ± {row.ours_sd:.{d}f}" if finite else "—",
                "runs": f"{finite}" + (f" of {row.runs}" if row.failed else ""),
                "difference": f"{row.difference:+.{d}f} ({row.low:+.{d}f} to {row.high:+.{d}f})"
                if math.isfinite(row.low)
                else "—",
                "verdict": row.verdict,
                "why": row.why,
            }
        )
    return pd.DataFrame(rows)


def _runs(measured: pd.DataFrame) -> dict[Any, np.ndarray]:
    """The values of the runs by their keys."""
    if missing := [name for name in [*_KEYS, "seed", "value"] if name not in measured]:
        raise ValueError(f"measured must have the columns {missing}, got {list(measured)}")
    return {
        key: group["value"].to_numpy(dtype=float)
        for key, group in measured.groupby(_KEYS, sort=False)
    }


def _key(number: Published, method: str) -> tuple[str, str, str, str]:
    """Where our runs of a method of the paper are."""
    optimizer, plus, objective = method.rpartition(" + ")
    ours = OURS if objective == "nGEM" else objective
    return (number.table, number.condition, number.quantity, optimizer + plus + ours)


def _row(
    number: Published, values: np.ndarray, other: np.ndarray | None, reason: str
) -> dict[str, Any]:
    finite = values[np.isfinite(values)]
    failed = len(values) - len(finite)
    mean = finite.mean() if len(finite) else math.nan
    sd = finite.std(ddof=1) if len(finite) > 1 else math.nan
    # Rounding: the paper's mean may be half a unit off, its standard deviation half a unit larger.
    half = _half_width(
        number.sd + number.sd_step / 2, _PAPER_RUNS, sd if len(finite) > 1 else 0.0, len(finite)
    )
    difference = mean - number.mean
    half += number.mean_step / 2
    verdict, why = _verdict(number, finite, failed, other, difference, half, reason)
    if failed:
        why = "; ".join(filter(None, [why, f"{failed} of {len(values)} runs not finite"]))
    return {
        **{key: getattr(number, key) for key in _KEYS},
        "paper": number.mean,
        "paper_sd": number.sd,
        "ours": mean,
        "ours_sd": sd,
        "runs": len(values),
        "failed": failed,
        "difference": difference,
        "low": difference - half,
        "high": difference + half,
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
    values: np.ndarray,
    failed: int,
    other: np.ndarray | None,
    difference: float,
    half: float,
    reason: str,
) -> tuple[str, str]:
    if reason:
        return "cannot be compared", reason
    if 2 * failed >= len(values) + failed:
        return "cannot be compared", "" if len(values) else "no run is finite"
    if abs(difference) <= half:
        return "replicates", ""
    if other is not None and _same_order(number, values, other):
        return "in order only", ""
    return "does not replicate", ""


def _same_order(number: Published, values: np.ndarray, other: np.ndarray) -> bool:
    """Say whether the two methods differ here, and in the direction of the paper."""
    printed = {(p.table, p.condition, p.quantity, p.method): p.mean for p in PUBLISHED}
    key = (number.table, number.condition, number.quantity, counterpart(number.method))
    if key not in printed:
        return False
    ours, half = _difference(values, other)
    return abs(ours) > half and ours * (number.mean - printed[key]) > 0


def _difference(values: np.ndarray, other: np.ndarray) -> tuple[float, float]:
    """The difference of the means of the finite runs, and half its interval."""
    a, b = (v[np.isfinite(v)] for v in (values, other))
    if min(len(a), len(b)) < 2:
        return math.nan, math.nan
    return a.mean() - b.mean(), _half_width(a.std(ddof=1), len(a), b.std(ddof=1), len(b))


def _half_width(sd_1: float, n_1: int, sd_2: float, n_2: int) -> float:
    """Half the 95 % interval of a difference of means: Welch's, with his degrees of freedom."""
    v_1, v_2 = sd_1**2 / n_1, sd_2**2 / max(n_2, 1)
    if v_1 + v_2 == 0:
        return 0.0
    second = v_2**2 / (n_2 - 1) if n_2 > 1 else 0.0
    freedom = (v_1 + v_2) ** 2 / (v_1**2 / (n_1 - 1) + second)
    return float(special.stdtrit(freedom, 0.975) * math.sqrt(v_1 + v_2))
