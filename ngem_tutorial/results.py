"""Tables of results with their provenance: written in one step, checked when they are read.

A result is two files: `<name>.csv`, a tidy table that can be compared line by line, and
`<name>.json`, which says how the table came about (configuration, seeds, versions, device, commit,
duration, date) and what it must look like (columns, rows, SHA-256). Needs pandas, which is in the
extra `plot`.
"""

from __future__ import annotations

import csv
import dataclasses
import datetime
import hashlib
import importlib.metadata
import io
import json
import math
import os
import platform
import re
import subprocess
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import jax
import numpy as np
import pandas as pd

from ngem_tutorial._files import write_atomically

__all__ = ["Result", "ResultError", "current_commit", "default_directory", "load", "save"]

_FORMAT: Final = 1
_PACKAGE: Final = Path(__file__).resolve().parent
_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*(/[A-Za-z0-9_][A-Za-z0-9_.-]*)*")
_PARSE_ERRORS: Final = (ValueError, TypeError, KeyError, OverflowError, csv.Error)
_FIELDS: Final = (
    "format",
    "name",
    "date",
    "wall_time_s",
    "configuration",
    "seeds",
    "extra",
    "versions",
    "device",
    "commit",
    "columns",
    "allow_missing",
    "rows",
    "sha256",
)


class ResultError(RuntimeError):
    """A result is missing or does not match its provenance; the message says what to do."""


@dataclasses.dataclass(frozen=True)
class Result:
    """A table and how it came about.

    Attributes:
        table: the table, with the dtypes that it was saved with and the index 0, 1, ...
        provenance: the content of the JSON file, see `save`.
    """

    table: pd.DataFrame
    provenance: Mapping[str, Any]


def save(
    table: pd.DataFrame,
    name: str,
    *,
    configuration: Mapping[str, Any],
    seeds: Sequence[int],
    wall_time_s: float,
    directory: str | os.PathLike[str] | None = None,
    allow_missing: Collection[str] = (),
    extra: Mapping[str, Any] | None = None,
    commit: Mapping[str, Any] | None = None,
) -> Path:
    """Write a table and its provenance; `load` returns exactly what was saved.

    The CSV is written first, then the JSON that holds its SHA-256, each in one step: after an
    interruption, `load` finds the old result or refuses. The index of the table is not kept.

    Args:
        table: a tidy table: one observation a row, columns of booleans, numbers or strings.
        name: the name of the result, which may begin with folders: `two_gaussians/success`.
        configuration: what was run: JSON values, NumPy scalars and tuples, nested as needed.
        seeds: the seeds that were used; may be empty if nothing was random.
        wall_time_s: how long the run took, in seconds.
        directory: the folder of the results; by default `results` in the checkout that holds the
            package.
        allow_missing: the floating-point columns that may hold NaN or infinite values.
        extra: further remarks, of the same kind as `configuration`.
        commit: what made the table, as `current_commit` said before the run; asked now if left
            out.

    Returns:
        The path of the CSV file.

    Raises:
        ValueError: if an argument cannot be saved so that it can be read back; the message names
            the argument and the column or entry.
        ResultError: if no `directory` is given and the package is not in a checkout.
        OSError: if the file system refuses.
    """
    csv_path, json_path = _paths(name, directory)
    missing = _check_table(table, allow_missing)
    columns = {column: _kind(table, column) for column in table.columns}
    content = table.to_csv(index=False, lineterminator="\n", na_rep="nan").encode(
        errors="surrogatepass"
    )
    if not _comes_back(content, columns, missing, table):
        raise ValueError(
            "table cannot be read back from a CSV file as it is: look for unusual characters in "
            f"its column names {list(columns)} and in its strings"
        )
    if not isinstance(wall_time_s, (int, float)) or not 0.0 <= wall_time_s < math.inf:
        raise ValueError(f"wall_time_s must be a number of seconds, got {wall_time_s!r}")
    provenance = {
        "format": _FORMAT,
        "name": name,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "wall_time_s": float(wall_time_s),
        "configuration": _plain(configuration, "configuration"),
        "seeds": [_seed(seed) for seed in seeds],
        "extra": _plain(extra or {}, "extra"),
        "versions": _versions(),
        "device": _device(),
        "commit": _plain(current_commit() if commit is None else commit, "commit"),
        "columns": columns,
        "allow_missing": missing,
        "rows": len(table),
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    text = json.dumps(provenance, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    encoded = text.encode()
    write_atomically(csv_path, content)
    write_atomically(json_path, encoded)
    return csv_path


def load(name: str, directory: str | os.PathLike[str] | None = None) -> Result:
    """Read a table and its provenance, and check that they belong together.

    Args:
        name: the name that the result was saved with.
        directory: the folder of the results; by default `results` in the checkout that holds the
            package.

    Returns:
        The table, with the dtypes that it was saved with, and its provenance.

    Raises:
        ValueError: if `name` is not the name of a result.
        ResultError: if a file is missing or unreadable, or the table does not match its
            provenance.
    """
    csv_path, json_path = _paths(name, directory)
    provenance = _read_provenance(json_path)
    try:
        content = csv_path.read_bytes()
    except OSError as error:
        raise _unusable(csv_path, f"cannot be read ({error.strerror})") from error
    if provenance["name"] != name:
        raise _unusable(json_path, f"is the provenance of {provenance['name']!r}")
    digest = hashlib.sha256(content).hexdigest()
    if digest != provenance["sha256"]:
        hint = " (its lines end in CR LF, they must end in LF)" if b"\r\n" in content else ""
        raise _unusable(
            csv_path,
            f"does not match its provenance: its SHA-256 is {digest}, "
            f"not {provenance['sha256']}{hint}",
        )
    try:
        table = _parse(content, provenance["columns"], provenance["allow_missing"])
    except _PARSE_ERRORS as error:
        raise _unusable(csv_path, f"does not match its provenance: {error}") from error
    if len(table) != provenance["rows"]:
        problem = f"has {len(table)} rows where its provenance says {provenance['rows']}"
        raise _unusable(csv_path, problem)
    return Result(table, provenance)


def current_commit() -> dict[str, Any]:
    """Return the commit of the package's repository.

    Returns:
        `hash`, and `dirty`: whether the package's files differ from it. Outside of a repository
        that tracks the package they are `"unknown"` and None.
    """
    return _commit(_PACKAGE)


def default_directory() -> Path:
    """Return the folder `results` of the checkout that holds the package.

    Returns:
        Its path, whether or not it is there yet.

    Raises:
        ResultError: if the package is not in a checkout.
    """
    if (_PACKAGE.parent / "pyproject.toml").is_file():
        return _PACKAGE.parent / "results"
    raise ResultError(
        f"The package is installed in {_PACKAGE}, not used from a checkout with a folder of "
        "results: name the folder by the argument directory."
    )


# --------------------------------------------------------------------------------------- files


def _paths(name: str, directory: str | os.PathLike[str] | None) -> tuple[Path, Path]:
    """Return where the table and the provenance of a result are."""
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ValueError(
            "name must be letters, digits, '_', '-' and '.', with '/' between folders, "
            f"got {name!r}"
        )
    folder = default_directory() if directory is None else Path(directory).expanduser()
    return folder / f"{name}.csv", folder / f"{name}.json"


def _unusable(path: Path, problem: str) -> ResultError:
    """Return the error for a result that cannot be used."""
    remedy = "Restore both files of the result from version control, or run its experiment again."
    return ResultError(f"{path}: {problem}. {remedy}")


def _read_provenance(path: Path) -> dict[str, Any]:
    """Return the content of the provenance file, with all its fields."""
    try:
        provenance = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise _unusable(path, f"cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise _unusable(path, f"is not valid JSON ({error})") from error
    if not isinstance(provenance, dict):
        raise _unusable(path, "is not the provenance of a result")
    if absent := [field for field in _FIELDS if field not in provenance]:
        raise _unusable(path, f"lacks {', '.join(absent)}")
    if provenance["format"] != _FORMAT:
        raise _unusable(path, f"has the format {provenance['format']!r}, not {_FORMAT}")
    return provenance


# --------------------------------------------------------------------------------------- table


def _check_table(table: pd.DataFrame, allow_missing: Collection[str]) -> list[str]:
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


def _kind(table: pd.DataFrame, column: str) -> str:
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


def _comes_back(
    content: bytes, columns: Mapping[str, str], missing: Collection[str], table: pd.DataFrame
) -> bool:
    """Say whether reading `content` gives `table`, up to its index and the dtype of strings."""
    try:
        again = _parse(content, columns, missing)
    except _PARSE_ERRORS:
        return False
    return again.equals(table.reset_index(drop=True).astype(dict(columns)))


def _parse(content: bytes, columns: Mapping[str, str], missing: Collection[str]) -> pd.DataFrame:
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


# ---------------------------------------------------------------------------------- provenance


def _plain(value: Any, where: str) -> Any:
    """Return a value as JSON keeps it, or name the entry that JSON cannot keep."""
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    if isinstance(value, (list, tuple)):
        return [_plain(entry, f"{where}[{i}]") for i, entry in enumerate(value)]
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise ValueError(f"{where} has the key {key!r}, which is not a string")
        return {key: _plain(entry, f"{where}[{key!r}]") for key, entry in value.items()}
    raise ValueError(
        f"{where} cannot be kept as JSON: {value!r} of type {type(value).__name__}; "
        "use None, booleans, finite numbers, strings, lists and dictionaries"
    )


def _seed(seed: Any) -> int:
    """Return a seed as an integer."""
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)):
        raise ValueError(f"seeds must be whole numbers, got {seed!r}")
    return int(seed)


def _versions() -> dict[str, str | None]:
    """Return the versions of Python and of the packages that decide the numbers."""
    packages = ("ngem-tutorial", "jax", "jaxlib", "flax", "optax", "numpy", "pandas")
    versions: dict[str, str | None] = {"python": platform.python_version()}
    for package in packages:
        try:
            versions[package.replace("-", "_")] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package.replace("-", "_")] = None
    return versions


def _device() -> dict[str, Any]:
    """Return what JAX computes on, and the machine's processor."""
    devices = jax.devices()
    return {
        "platform": devices[0].platform,
        "kind": devices[0].device_kind,
        "count": len(devices),
        "cpu_model": _cpu_model(),
        "cpu_cores": os.cpu_count(),
        "system": platform.system(),
    }


def _cpu_model() -> str:
    """Return the name of the processor, `unknown` if the system does not tell."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return next(iter(names), platform.processor()) or "unknown"


def _commit(package: Path) -> dict[str, Any]:
    """Return the commit of the package's repository, and whether the package differs from it.

    `dirty` looks at the package's folder only: the tables that a run writes are not part of what
    made them. Outside of a repository that tracks the package, the commit is `unknown`.
    """
    environment = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(package), *arguments]
        return subprocess.run(
            command, capture_output=True, text=True, check=True, timeout=30, env=environment
        ).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", "__init__.py")
        return {
            "hash": git("rev-parse", "HEAD"),
            "dirty": bool(git("status", "--porcelain", "--", ".")),
        }
    except (OSError, subprocess.SubprocessError):
        return {"hash": "unknown", "dirty": None}
