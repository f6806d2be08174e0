"""The numbers of Tables 1 to 6 of the paper, as printed."""

from __future__ import annotations

import re
from typing import NamedTuple

__all__ = ["PUBLISHED", "Published"]


class Published(NamedTuple):
    """A mean over five seeds, or five runs in Table 6, as the paper prints it."""

    table: str
    condition: str
    quantity: str
    method: str
    mean: float
    sd: float
    """Standard deviation over the five."""
    mean_step: float
    """One unit of the last printed digit of the mean."""
    sd_step: float
    """The same of the standard deviation."""


_RATES_1 = ("β = 0.1", "β = 0.01", "β = 0.001")
_RATES_2 = ("β = 0.001", "β = 0.0001", "β = 1e-05")
_SETS = ("kin8nm", "energy", "housing")

_TABLES: tuple[tuple[str, str, tuple[str, ...], dict[str, tuple[str, ...]]], ...] = (
    (
        "Table 1",
        "entropy",
        _RATES_1,
        {
            "nGEM": ("0.660 ± 0.03", "0.691 ± 0.00", "0.692 ± 0.00"),
            "NLL": ("0.010 ± 0.00", "0.687 ± 0.01", "0.669 ± 0.02"),
        },
    ),
    (
        "Table 2",
        "entropy",
        _RATES_2,
        {
            "nGEM": ("0.693 ± 0.00", "0.693 ± 0.00", "0.693 ± 0.00"),
            "NLL": ("0.416 ± 0.38", "0.555 ± 0.31", "0.413 ± 0.38"),
        },
    ),
    ("Table 3", "nll", ("K = 3",), {"nGEM": ("-1529.7 ± 101",), "NLL": ("-1392.8 ± 178",)}),
    ("Table 3", "entropy", ("K = 3",), {"nGEM": ("0.454 ± 0.15",), "NLL": ("0.207 ± 0.22",)}),
    ("Table 4", "nll", ("K = 10",), {"nGEM": ("-1601.4 ± 146",), "NLL": ("-1470.0 ± 148",)}),
    ("Table 4", "entropy", ("K = 10",), {"nGEM": ("0.688 ± 0.00",), "NLL": ("0.456 ± 0.32",)}),
    (
        "Table 5",
        "nll",
        _SETS,
        {
            "Adam + nGEM": ("-1.73 ± 0.04", "-3.29 ± 0.13", "-0.39 ± 0.06"),
            "Adam + NLL": ("-1.67 ± 0.06", "-3.09 ± 0.24", "-0.67 ± 0.12"),
            "K-FAC + nGEM": ("-0.69 ± 0.02", "-0.43 ± 0.01", "1.15 ± 0.06"),
            "K-FAC + NLL": ("-1.64 ± 0.08", "-0.96 ± 0.08", "1.24 ± 0.05"),
            "Muon + nGEM": ("-1.84 ± 0.05", "-3.19 ± 0.08", "-0.19 ± 0.02"),
            "Muon + NLL": ("-1.80 ± 0.06", "-2.68 ± 0.17", "-0.24 ± 0.01"),
            "SOAP + nGEM": ("-1.96 ± 0.05", "-4.18 ± 0.10", "-0.48 ± 0.14"),
            "SOAP + NLL": ("-1.93 ± 0.06", "-3.99 ± 0.18", "-0.79 ± 0.11"),
            "Adam + β-NLL": ("-1.60 ± 0.02", "-2.55 ± 0.16", "-0.22 ± 0.05"),
        },
    ),
    (
        "Table 5",
        "rmse × 10",
        _SETS,
        {
            "Adam + nGEM": ("0.17 ± 0.01", "0.49 ± 0.04", "0.81 ± 0.07"),
            "Adam + NLL": ("0.33 ± 0.03", "0.95 ± 0.12", "1.02 ± 0.05"),
            "K-FAC + nGEM": ("0.65 ± 0.03", "1.51 ± 0.03", "4.43 ± 0.60"),
            "K-FAC + NLL": ("0.31 ± 0.02", "2.11 ± 0.35", "5.11 ± 0.80"),
            "Muon + nGEM": ("0.15 ± 0.00", "0.53 ± 0.01", "1.03 ± 0.11"),
            "Muon + NLL": ("0.25 ± 0.00", "1.32 ± 0.18", "1.51 ± 0.11"),
            "SOAP + nGEM": ("0.11 ± 0.01", "0.30 ± 0.01", "0.77 ± 0.09"),
            "SOAP + NLL": ("0.21 ± 0.01", "0.72 ± 0.05", "1.00 ± 0.09"),
            "Adam + β-NLL": ("0.40 ± 0.01", "0.97 ± 0.04", "1.65 ± 0.10"),
            "Adam + MSE": ("0.39 ± 0.01", "0.95 ± 0.02", "1.42 ± 0.04"),
        },
    ),
    (
        "Table 6",
        "seconds",
        _SETS,
        {
            "nGEM": ("9.38 ± 0.08", "9.40 ± 0.05", "9.37 ± 0.05"),
            "NLL": ("9.33 ± 0.06", "9.31 ± 0.08", "9.31 ± 0.11"),
        },
    ),
)


def _step(digits: str) -> float:
    """One unit of the last digit of a printed number."""
    return 10.0 ** -len(digits.partition(".")[2])


def _parse(table: str, condition: str, quantity: str, method: str, printed: str) -> Published:
    match = re.fullmatch(r"(-?[\d.]+) ± ([\d.]+)", printed)
    assert match is not None, printed
    mean, sd = match.groups()
    return Published(
        table, condition, quantity, method, float(mean), float(sd), _step(mean), _step(sd)
    )


PUBLISHED: tuple[Published, ...] = tuple(
    _parse(table, condition, quantity, method, printed)
    for table, quantity, conditions, rows in _TABLES
    for method, numbers in rows.items()
    for condition, printed in zip(conditions, numbers, strict=True)
)
"""Every number of Tables 1 to 6 with its spread: the entropies of the weights (nats), negative
log-likelihoods (nats; per image in Tables 3 and 4), root mean squared errors times ten and wall
times (seconds)."""
