"""Sets of tables with their provenance: published in one step, checked when they are read.

A set is a folder: a CSV file for each of its tables, compressed if it is large, and
`provenance.json`, which says how they came about (configuration, seeds, and for each part of the
rows the machine, versions, commit, date and duration) and what they must look like (columns, rows,
SHA-256; and a summary of each column, so that a change can be read in a diff). The folder gets its
name when it is whole: tables of two runs never lie side by side. Needs pandas, which is in the
extra `plot`.
"""

from __future__ import annotations

from ngem_tutorial import _pandas  # noqa: F401  # isort: skip  # first, for its error

import contextlib
import dataclasses
import datetime
import hashlib
import json
import lzma
import math
import os
import re
import shutil
import uuid
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd

from ngem_tutorial import _machine, _tables
from ngem_tutorial._files import RemediableError, exchange, write_atomically

__all__ = [
    "Result",
    "ResultError",
    "ResultSet",
    "combine",
    "current_commit",
    "default_directory",
    "duration",
    "load",
    "load_set",
    "origin",
    "part",
    "read_provenance",
    "save",
    "seconds",
]

_FORMAT: Final = 2
_PROVENANCE: Final = "provenance.json"
_SHIPPED: Final = "_results"
"""The folder of the installed package with the results; see pyproject.toml."""
_LARGE: Final = 2**16
"""Tables of more bytes are compressed."""
_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+=-]*(/[A-Za-z0-9_][A-Za-z0-9_.+=-]*)*")
_FIELDS: Final = ("format", "name", "configuration", "seeds", "extra", "tables", "parts")
_TABLE_FIELDS: Final = ("file", "rows", "sha256", "columns", "allow_missing", "summary")
_PART_FIELDS: Final = (
    "date",
    "seconds",
    "peak_memory_mib",
    "device",
    "versions",
    "commit",
    "fingerprint",
    "units",
    "rows",
)


class ResultError(RemediableError):
    """A result is missing or does not match its provenance; the message says what to do."""


@dataclasses.dataclass(frozen=True)
class Result:
    """A table and how its set came about.

    Attributes:
        table: the table, with the dtypes that it was saved with and the index 0, 1, ...
        provenance: the content of the JSON file of its set, see `save`.
    """

    table: pd.DataFrame
    provenance: Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class ResultSet:
    """Tables that were published together, and how they came about.

    Attributes:
        tables: by name, each with the dtypes that it was saved with and the index 0, 1, ...
        provenance: the content of the JSON file, see `save`.
    """

    tables: Mapping[str, pd.DataFrame]
    provenance: Mapping[str, Any]


def save(
    tables: Mapping[str, pd.DataFrame],
    name: str,
    *,
    configuration: Mapping[str, Any],
    seeds: Sequence[int],
    parts: Sequence[Mapping[str, Any]],
    directory: str | os.PathLike[str] | None = None,
    allow_missing: Mapping[str, Collection[str]] | None = None,
    extra: Mapping[str, Any] | None = None,
    replace: bool = False,
) -> Path:
    """Publish a set of tables with its provenance; `load` returns exactly what was saved.

    Everything is written to a folder of another name, which is renamed at the end: after an
    interruption there is the old set or the new one (a set is replaced by one exchange of names
    where the system has that, as Linux and macOS do). The index of a table is not kept.

    Args:
        tables: tidy tables by name: one observation a row, columns of booleans, numbers or
            strings.
        name: the name of the set, which may begin with folders: `two_gaussians/paper`.
        configuration: what was run: JSON values, NumPy scalars and tuples, nested as needed.
        seeds: the seeds that were used; may be empty if nothing was random.
        parts: how the rows came about: what `part` returned, or `combine` for several. Together
            they have each row of each table once.
        directory: the folder of the results; by default `results` in the checkout that holds the
            package.
        allow_missing: for each table, the floating-point columns that may hold NaN or infinite
            values.
        extra: further remarks, of the same kind as `configuration`.
        replace: replace a set of that name; without it, one that is there is an error.

    Returns:
        The path of the set's folder.

    Raises:
        ValueError: if an argument cannot be saved so that it can be read back; the message names
            the argument and the column or entry.
        ResultError: if there is a set of that name, or if no `directory` is given and the package
            is not in a checkout.
        OSError: if the file system refuses.
    """
    root, folder = _place(name, directory, writing=True)
    if folder.exists() and not replace:
        raise _present(folder)
    missing = dict(allow_missing or {})
    if unknown := sorted(set(missing) - set(tables)):
        raise ValueError(f"allow_missing names tables that the set does not have: {unknown}")
    files: dict[str, bytes] = {}
    described = {}
    for key, table in tables.items():
        described[key], content = _describe(key, table, missing.get(key, ()))
        files[described[key]["file"]] = content
    provenance = {
        "format": _FORMAT,
        "name": name,
        "configuration": _plain(configuration, "configuration"),
        "seeds": [_seed(seed) for seed in seeds],
        "extra": _plain(extra or {}, "extra"),
        "tables": described,
        "parts": [_plain(made, f"parts[{i}]") for i, made in enumerate(parts)],
    }
    if problem := _problem_of_parts(provenance):
        raise ValueError(f"parts {problem}")
    text = json.dumps(provenance, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    _publish(files | {_PROVENANCE: _short(text).encode()}, folder, root / ".partial", replace)
    return folder


def part(
    tables: Mapping[str, pd.DataFrame],
    seconds: float,
    *,
    units: Sequence[str] = (),
    fingerprint: str | None = None,
    commit: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Say how tables came about that were made here and now, by one process.

    Args:
        tables: the tables, by name.
        seconds: how long it took.
        units: the names of the units of work that made them.
        fingerprint: of the code and settings, if known; see `runs.fingerprint`.
        commit: what made them, as `current_commit` said before the run; asked now if left out.

    Returns:
        `date`, `seconds`, `peak_memory_mib` (of the process), `device`, `versions`, `commit`,
        `fingerprint`, `units` and `rows`: for each table a list of pairs `[first, end)`.

    Raises:
        ValueError: if `seconds` is not a number of seconds.
    """
    if not isinstance(seconds, (int, float)) or not 0.0 <= seconds < math.inf:
        raise ValueError(f"seconds must be a number of seconds, got {seconds!r}")
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "seconds": round(float(seconds), 3),
        "peak_memory_mib": _machine.peak_memory_mib(),
        "device": _machine.device(),
        "versions": _machine.versions(),
        "commit": dict(current_commit() if commit is None else commit),
        "fingerprint": fingerprint,
        "units": list(units),
        "rows": {name: [[0, len(table)]] for name, table in tables.items()},
    }


def combine(sets: Sequence[ResultSet]) -> tuple[dict[str, pd.DataFrame], list[dict[str, Any]]]:
    """Put the tables of several sets one below the other.

    Args:
        sets: in the order of their rows. Not all of them need to have all of the tables.

    Returns:
        The tables by name, and the parts with the rows that are now theirs. What one machine made
        by one commit, versions and settings becomes one part, with the latest of the dates, the
        sum of the seconds and the largest of the memories.

    Raises:
        ResultError: if the same table has other columns in another set.
    """
    tables: dict[str, list[pd.DataFrame]] = {}
    ends: dict[str, int] = {}
    parts: dict[str, dict[str, Any]] = {}
    for one in sets:
        for made in one.provenance["parts"]:
            moved = {
                name: [[ends.get(name, 0) + first, ends.get(name, 0) + end] for first, end in rows]
                for name, rows in made["rows"].items()
            }
            _merge(parts, {**made, "rows": moved})
        for name, table in one.tables.items():
            above = tables.setdefault(name, [])
            if above and list(above[0]) != list(table):
                raise ResultError(
                    f"{one.provenance['name']}: the table {name!r} has the columns {list(table)}, "
                    f"those above it have {list(above[0])}"
                )
            above.append(table)
            ends[name] = ends.get(name, 0) + len(table)
    joined = {name: pd.concat(tables[name], ignore_index=True) for name in sorted(tables)}
    return joined, list(parts.values())


def load(name: str, directory: str | os.PathLike[str] | None = None) -> Result:
    """Read a table and the provenance of its set, and check that they belong together.

    Args:
        name: the name of the set and that of the table: `two_gaussians/paper/curves`.
        directory: the folder of the results; by default `default_directory()`.

    Returns:
        The table, with the dtypes that it was saved with, and the provenance.

    Raises:
        ValueError: if `name` is not the name of a table in a set.
        ResultError: if a file is missing or unreadable, or the table does not match its
            provenance.
    """
    parent, _, table = name.rpartition("/") if isinstance(name, str) else ("", "", "")
    if not parent:
        raise ValueError(f"name must be that of a set and a table, SET/TABLE, got {name!r}")
    _, folder = _place(parent, directory)
    provenance = read_provenance(parent, directory)
    return Result(_read_table(folder, table, provenance), provenance)


def load_set(name: str, directory: str | os.PathLike[str] | None = None) -> ResultSet:
    """Read all tables of a set and their provenance, and check that they belong together.

    Args:
        name: the name of the set: `two_gaussians/paper`.
        directory: see `load`.

    Returns:
        The tables and the provenance.

    Raises:
        ValueError: if `name` is not the name of a set.
        ResultError: if a file is missing or unreadable, or a table does not match its provenance.
    """
    _, folder = _place(name, directory)
    provenance = read_provenance(name, directory)
    tables = {table: _read_table(folder, table, provenance) for table in provenance["tables"]}
    return ResultSet(tables, provenance)


def read_provenance(
    name: str, directory: str | os.PathLike[str] | None = None
) -> Mapping[str, Any]:
    """Read how a set came about, without its tables.

    Args:
        name: the name of the set.
        directory: see `load`.

    Returns:
        The content of its `provenance.json`, see `save`.

    Raises:
        ValueError: if `name` is not the name of a set.
        ResultError: if the file is missing or is not the provenance of that set.
    """
    _, folder = _place(name, directory)
    path = folder / _PROVENANCE
    try:
        provenance = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise _unusable(path, f"cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise _unusable(path, f"is not valid JSON ({error})") from error
    if not isinstance(provenance, dict):
        raise _unusable(path, "is not the provenance of a set")
    if absent := [field for field in _FIELDS if field not in provenance]:
        raise _unusable(path, f"lacks {', '.join(absent)}")
    if provenance["format"] != _FORMAT:
        raise _unusable(path, f"has the format {provenance['format']!r}, not {_FORMAT}")
    if provenance["name"] != name:
        raise _unusable(path, f"is the provenance of {provenance['name']!r}")
    try:
        problem = _problem_of_parts(provenance)
    except (TypeError, AttributeError, ValueError, KeyError) as error:
        raise _unusable(path, f"is not the provenance of a set ({error!r})") from error
    if problem:
        raise _unusable(path, f"has parts that {problem}")
    return provenance


def current_commit() -> dict[str, Any]:
    """Return the commit of the package's repository.

    Returns:
        `hash`, and `dirty`: whether the package's files differ from it. Outside of a repository
        that tracks the package they are `"unknown"` and None.
    """
    return _machine.commit(_machine.PACKAGE)


def default_directory(*, writing: bool = False) -> Path:
    """Return the folder of the results where none is named.

    In a checkout it is `results`, for reading and writing. An installed package brings a copy
    of that folder, which is for reading.

    Args:
        writing: whether something is to be written there.

    Returns:
        Its path, whether or not it is there yet.

    Raises:
        ResultError: if the package is not in a checkout, and `writing` is set or it has no copy.
    """
    package = _machine.PACKAGE
    if (package.parent / "pyproject.toml").is_file():
        return package.parent / "results"
    if not writing and (package / _SHIPPED).is_dir():
        return package / _SHIPPED
    raise ResultError(
        f"The package is installed in {package}, not used from a checkout with a folder of "
        "results: name the folder (--out FOLDER; in Python: directory=)."
    )


def seconds(provenance: Mapping[str, Any]) -> float:
    """Return how long it took to make a set.

    Args:
        provenance: that of the set.

    Returns:
        The sum over its parts, in seconds.
    """
    return float(sum(made["seconds"] for made in provenance["parts"]))


def origin(provenance: Mapping[str, Any]) -> str:
    """Say how a set came about.

    Args:
        provenance: that of the set.

    Returns:
        Time, machine, date, version of JAX and commit in Markdown, without a full stop; where
        these differ between parts, one after the other.
    """
    spent: dict[tuple[str, str], float] = {}
    for made in provenance["parts"]:
        later = f"{', '.join(made['methods'])} later, in " if made.get("methods") else ""
        key = later, _where(made)
        spent[key] = spent.get(key, 0.0) + made["seconds"]
    return "; ".join(
        f"{later}{duration(time)} on {where}" for (later, where), time in spent.items()
    )


def duration(seconds: float) -> str:
    """Return a time in words.

    Args:
        seconds: the time.

    Returns:
        Seconds, minutes or hours: `"30 s"`, `"10 min"`, `"2.0 h"`.
    """
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = seconds / 60
    return f"{minutes:.0f} min" if minutes < 100 else f"{minutes / 60:.1f} h"


# --------------------------------------------------------------------------------------- files


def _place(
    name: str, directory: str | os.PathLike[str] | None, *, writing: bool = False
) -> tuple[Path, Path]:
    """Return the folder of the results and that of a set."""
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ValueError(
            f"name must be letters, digits and . _ - + =, with / between folders, got {name!r}"
        )
    root = default_directory(writing=writing) if directory is None else Path(directory).expanduser()
    return root, root / name


def _unusable(path: Path, problem: str) -> ResultError:
    """Return the error for a result that cannot be used."""
    remedy = "Restore the folder of the set from version control, or run its experiment again."
    return ResultError(f"{path}: {problem}. {remedy}")


def _present(folder: Path) -> ResultError:
    return ResultError(f"{folder}: there is a set of this name, which is kept unless replace=True")


def _publish(files: Mapping[str, bytes], folder: Path, scratch: Path, replace: bool) -> None:
    """Make a folder of files that is there as a whole or not at all."""
    label = f"{folder.relative_to(scratch.parent)}-{uuid.uuid4().hex}".replace("/", "-")
    new, old = scratch / f"{label}.new", scratch / f"{label}.old"
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        new.mkdir(parents=True)
        for name, content in files.items():
            write_atomically(new / name, content)
        if replace and folder.exists():
            if exchange(new, folder):
                return
            os.rename(folder, old)
        try:
            os.rename(new, folder)
        except OSError as error:
            if folder.exists():  # somebody else was faster
                raise _present(folder) from error
            raise
    except BaseException:
        if old.exists() and not folder.exists():
            os.rename(old, folder)
        raise
    finally:
        for left in (new, old):
            shutil.rmtree(left, ignore_errors=True)
        with contextlib.suppress(OSError):  # others may have something in it
            scratch.rmdir()


def _short(text: str) -> str:
    """Put lists of numbers, such as seeds and rows, on one line."""
    return re.sub(r"\[\n[\s\d,.eE+-]*\]", lambda m: " ".join(m[0].split()), text)


# -------------------------------------------------------------------------------------- tables


def _describe(
    name: str, table: pd.DataFrame, allow_missing: Collection[str]
) -> tuple[dict[str, Any], bytes]:
    """Return the provenance of a table and the content of its file."""
    if not isinstance(name, str) or not _NAME.fullmatch(name) or "/" in name:
        raise ValueError(f"tables must have names of letters and digits, got {name!r}")
    try:
        missing = _tables.check(table, allow_missing)
        columns = {column: _tables.kind(table, column) for column in table.columns}
        content = _tables.encode(table, columns, missing)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error
    large = len(content) > _LARGE
    described = {
        "file": f"{name}.csv.xz" if large else f"{name}.csv",
        "rows": len(table),
        "sha256": hashlib.sha256(content).hexdigest(),
        "columns": columns,
        "allow_missing": missing,
        "summary": _tables.summary(table),
    }
    return described, _compress(content) if large else content


def _compress(content: bytes) -> bytes:
    """The same bytes for the same content: the format keeps neither name nor date."""
    return lzma.compress(content, preset=9 | lzma.PRESET_EXTREME)


def _read_table(folder: Path, name: str, provenance: Mapping[str, Any]) -> pd.DataFrame:
    """Return a table of a set once its bytes, columns and rows are those of the provenance."""
    tables = provenance["tables"]
    if name not in tables:
        raise _unusable(folder, f"has no table {name!r}, but {', '.join(tables) or 'none'}")
    described = tables[name]
    path = folder / described["file"]
    try:
        content = path.read_bytes()
        if path.suffix == ".xz":
            content = lzma.decompress(content)
    except OSError as error:
        raise _unusable(path, f"cannot be read ({error.strerror})") from error
    except lzma.LZMAError as error:
        raise _unusable(path, f"does not match its provenance: {error}") from error
    digest = hashlib.sha256(content).hexdigest()
    if digest != described["sha256"]:
        hint = " (its lines end in CR LF, they must end in LF)" if b"\r\n" in content else ""
        raise _unusable(
            path,
            f"does not match its provenance: its SHA-256 is {digest}, "
            f"not {described['sha256']}{hint}",
        )
    try:
        table = _tables.parse(content, described["columns"], described["allow_missing"])
    except _tables.PARSE_ERRORS as error:
        raise _unusable(path, f"does not match its provenance: {error}") from error
    if len(table) != described["rows"]:
        problem = f"has {len(table)} rows where its provenance says {described['rows']}"
        raise _unusable(path, problem)
    return table


# --------------------------------------------------------------------------------------- parts


def _problem_of_parts(provenance: Mapping[str, Any]) -> str | None:
    """Say what the parts or the entries of tables lack, or None if they have each row once."""
    for name, described in provenance["tables"].items():
        if absent := [field for field in _TABLE_FIELDS if field not in described]:
            return f"lack {', '.join(absent)} of the table {name!r}"
        ranges = sorted(
            pair for made in provenance["parts"] for pair in made.get("rows", {}).get(name, [])
        )
        ends = [0, *(end for _, end in ranges)]
        starts = [*(first for first, _ in ranges), described["rows"]]
        if ends != starts:
            return f"do not have each of the {described['rows']} rows of {name!r} once: {ranges}"
    for i, made in enumerate(provenance["parts"]):
        if absent := [field for field in _PART_FIELDS if field not in made]:
            return f"lack {', '.join(absent)} in number {i}"
    return None


def _merge(parts: dict[str, dict[str, Any]], made: dict[str, Any]) -> None:
    """Add a part to those of the same origin, or as another one."""
    summed = ("date", "seconds", "peak_memory_mib", "units", "rows")
    key = json.dumps({name: made[name] for name in made if name not in summed}, sort_keys=True)
    if key not in parts:
        parts[key] = made
        return
    before = parts[key]
    rows = {name: list(pairs) for name, pairs in before["rows"].items()}
    for name, pairs in made["rows"].items():
        for first, end in pairs:
            known = rows.setdefault(name, [])
            if known and known[-1][1] == first:
                known[-1] = [known[-1][0], end]
            else:
                known.append([first, end])
    parts[key] = {
        **before,
        "date": max(before["date"], made["date"]),
        "seconds": round(before["seconds"] + made["seconds"], 3),
        "peak_memory_mib": max(before["peak_memory_mib"], made["peak_memory_mib"]),
        "units": [*before["units"], *made["units"]],
        "rows": rows,
    }


def _where(made: Mapping[str, Any]) -> str:
    device = made["device"]
    return (
        f"{device['cpu_model']} ({device['platform']}, {device['cpu_cores']} cores), "
        f"{made['date'][:10]}, JAX {made['versions']['jax']}, "
        f"commit `{made['commit']['hash'][:7]}`"
    )


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
