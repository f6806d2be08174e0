"""Tables as bytes: a CSV file that gives back exactly what was written, and its summary."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Final

import numpy as np
import pandas as pd

__all__ = ["PARSE_ERRORS", "check", "encode", "kind", "parse", "summary"]

PARSE_ERRORS: Final = (ValueError, TypeError, KeyError, OverflowError, csv.Error)
"""What `parse` raises if the bytes are not the table."""


def check(table: pd.DataFrame, allow_missing: Collection[str]) -> list[str]:
    """Reject what would be lost or would not be tidy; return the columns with missing values."""
    if isinstance(allow_missing, str):
        raise ValueError(f"allow_missing must be a collection of names, got {allow_missing!r}")
    if table.empty:
        raise ValueError(f"table is empty: it has the shape {table.shape}")
    if table.index.names != [None]:
        raise ValueError(
            f"table has the named index {list(table.index.names)}, which would be lost: "
            "call reset_index() first"
        )
    strange = [column for column in table.columns if not isinstance(column, str) or not column]
    if strange:
        raise ValueError(f"table has columns whose names are not strings: {strange}")
    if not table.columns.is_unique:
        doubled = sorted(set(table.columns[table.columns.duplicated()]))
        raise ValueError(f"table has more than one column called {doubled}")
    if unknown := sorted(set(allow_missing) - set(table.columns)):
        raise ValueError(f"allow_missing names columns that the table does not have: {unknown}")
    for column in table.columns:
        _check_column(table[column], column in allow_missing)
    return sorted(allow_missing)


def _check_column(values: pd.Series, may_be_missing: bool) -> None:
    """Reject missing values, and infinite ones, where they are not announced."""
    is_float = isinstance(values.dtype, np.dtype) and values.dtype.kind == "f"
    if may_be_missing and not is_float:
        raise ValueError(
            f"allow_missing names the column {values.name!r} of dtype {values.dtype}; "
            "only floating-point columns can have missing values"
        )
    if is_float:
        bad = ~np.isfinite(values.to_numpy())
        if bad.any() and not may_be_missing:
            first = int(np.argmax(bad))
            raise ValueError(
                f"table has {bad.sum()} values that are not finite in the column {values.name!r}, "
                f"the first in row {first}: {values.iloc[first]}; announce it in allow_missing if "
                "that is meant"
            )
    elif values.isna().any():
        raise ValueError(f"table has missing values in the column {values.name!r}")


def kind(table: pd.DataFrame, column: str) -> str:
    """Return the name of a column's dtype: a NumPy one, or `str`."""
    values = table[column]
    if isinstance(values.dtype, np.dtype) and values.dtype.kind in "biuf":
        return str(values.dtype)
    if pd.api.types.infer_dtype(values, skipna=False) == "string":
        return "str"
    raise ValueError(
        f"table has the dtype {values.dtype} in the column {column!r}; "
        "booleans, numbers and strings can be saved"
    )


def encode(table: pd.DataFrame, columns: Mapping[str, str], missing: Collection[str]) -> bytes:
    """Return the CSV file of a table, once it is known that reading it gives the table.

    The index is not kept, and strings come back with the dtype `str`.
    """
    content = table.to_csv(index=False, lineterminator="\n", na_rep="nan").encode(
        errors="surrogatepass"
    )
    try:
        again = parse(content, columns, missing)
        same = again.equals(table.reset_index(drop=True).astype(dict(columns)))
    except PARSE_ERRORS:
        same = False
    if not same:
        raise ValueError(
            "table cannot be read back from a CSV file as it is: look for unusual characters in "
            f"its column names {list(columns)} and in its strings"
        )
    return content


def parse(content: bytes, columns: Mapping[str, str], missing: Collection[str]) -> pd.DataFrame:
    """Return the table of a CSV file whose columns must be `columns`, from names to dtypes.

    Numbers are read by Python, which rounds correctly; pandas does so in some versions only.
    """
    header, *rows = csv.reader(io.StringIO(content.decode(), newline=""), strict=True)
    if header != list(columns):
        raise ValueError(f"its columns are {header}, not {list(columns)}")
    if ragged := [i for i, row in enumerate(rows) if len(row) != len(header)]:
        raise ValueError(f"row {ragged[0]} has {len(rows[ragged[0]])} fields, not {len(header)}")
    cells = zip(*rows, strict=True) if rows else ((),) * len(header)
    table = {
        name: _convert(values, columns[name], name in missing)
        for name, values in zip(header, cells, strict=True)
    }
    return pd.DataFrame(table)


def _convert(values: Sequence[str], kind: str, may_be_missing: bool) -> pd.Series:
    """Return the cells of a column with its dtype."""
    if kind == "str":
        return pd.Series(values, dtype="str")
    dtype = np.dtype(kind)
    readers: dict[str, Callable[[str], Any]] = {
        "b": {"True": True, "False": False}.__getitem__,
        "i": int,
        "u": int,
        "f": float,
    }
    numbers = np.array([readers[dtype.kind](value) for value in values], dtype=dtype)
    if not may_be_missing and not np.isfinite(numbers).all():
        raise ValueError("it has values that are not finite and not announced")
    return pd.Series(numbers)


# ----------------------------------------------------------------------------------- the summary

_MANY: Final = 20


def summary(table: pd.DataFrame) -> dict[str, Any]:
    """Say what is in each column, in a few numbers: what a reader of a diff can compare.

    Of numbers the least, the mean and the largest, to six digits, and how many are not finite; of
    strings and booleans how often each occurs, or how many there are if they are more than 20.
    """
    return {name: _summary(table[name]) for name in table.columns}


def _summary(values: pd.Series) -> dict[str, Any]:
    if not isinstance(values.dtype, np.dtype) or values.dtype.kind not in "iuf":
        counts = values.astype(str).value_counts(sort=False)
        if len(counts) > _MANY:
            return {"distinct": len(counts)}
        return {"counts": {str(name): int(count) for name, count in sorted(counts.items())}}
    numbers = values.to_numpy()
    finite = numbers[np.isfinite(numbers)].astype(np.float64)
    found: dict[str, Any] = {}
    if finite.size:
        with np.errstate(over="ignore"):  # a mean of the largest numbers may be infinite
            mean = finite.mean()
        trio = {"min": finite.min(), "mean": mean, "max": finite.max()}
        found = {name: float(f"{x:.6g}") for name, x in trio.items() if np.isfinite(x)}
    if missing := numbers.size - finite.size:
        found["not_finite"] = missing
    return found
