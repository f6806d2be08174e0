"""An experiment in parts: each is kept as soon as it is finished, and a stopped run goes on.

An experiment is a list of units. `run` computes them in order and writes each to a folder of
unfinished results; the tables of all of them, in the same order, are the result. A run that was
stopped therefore ends with the same tables as one that was not.
"""

from __future__ import annotations

from ngem_tutorial import _pandas  # noqa: F401  # isort: skip  # first, for its error

import ast
import concurrent.futures
import dataclasses
import functools
import hashlib
import importlib.metadata
import importlib.util
import json
import multiprocessing
import os
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import pandas as pd
from rich import progress as rich_progress
from rich.console import Console

from ngem_tutorial import _machine, loop, results
from ngem_tutorial._files import LockError, RemediableError, locked

__all__ = [
    "Experiment",
    "LockError",
    "Progress",
    "Tables",
    "Unit",
    "UnitError",
    "check",
    "fingerprint",
    "is_finished",
    "progress",
    "run",
]

Tables = Mapping[str, pd.DataFrame]
"""Tables by name."""


class Unit(NamedTuple):
    """A part of an experiment that is computed and kept on its own."""

    name: str
    """Unique within the experiment: letters, digits and `. _ - + =`."""
    run: Callable[[], Tables]
    """Gives tables by name, of the same columns as those of every other unit; may be empty."""
    seconds: float
    """Expected time on one core of the machine that the stored results name."""


@dataclasses.dataclass(frozen=True)
class Experiment:
    """An experiment of the paper, or one beside it.

    Attributes:
        name: what its folder of results is called.
        title: one line.
        items: the figures and tables of the paper that it reproduces.
        module: the name of the module that its settings and numbers come from.
        presets: settings by name, dataclasses with a field `seeds`.
        units: from settings to the parts.
        measured: from the tables to the rows that `comparison.compare` takes; None if the paper
            has no numbers for it.
        reasons: why numbers of a `(table, quantity)` of the paper cannot be compared.
    """

    name: str
    title: str
    items: tuple[str, ...]
    module: str
    presets: Mapping[str, Any]
    units: Callable[[Any], Sequence[Unit]]
    measured: Callable[[Tables], pd.DataFrame] | None = None
    reasons: Mapping[tuple[str, str], str] = dataclasses.field(default_factory=dict)

    def preset(self, name: str) -> Any:
        """Return the settings of a preset.

        Args:
            name: a key of `presets`.

        Returns:
            The settings.

        Raises:
            ValueError: if there is no such preset.
        """
        if name not in self.presets:
            raise ValueError(
                f"preset must be one of {', '.join(self.presets)} for {self.name}, got {name!r}"
            )
        return self.presets[name]


class Progress(NamedTuple):
    """How far a preset is."""

    finished: int
    """Units that are kept."""
    units: int
    """Units in all."""
    seconds_left: float
    """Expected time of the others."""


_PACKAGE: Final = "ngem_tutorial"

_LIBRARIES: Final = ("jax", "jaxlib", "flax", "optax", "numpy", "kfac-jax")
"""The packages that decide the numbers."""

_BOOKKEEPING: Final = (
    "_files",
    "_flax",
    "_install",
    "_machine",
    "_pandas",
    "_plot",
    "_tables",
    "results",
    "runs",
    "figures",
)
"""The parts of this package that do not, although experiments import them."""


class UnitError(RuntimeError):
    """A unit could not be computed; the message names it and says what was wrong.

    Args:
        message: what it says.
        remediable: whether the user can mend it, as a data set or package that is missing: then
            the message says how, and no traceback is needed.
    """

    def __init__(self, message: str, remediable: bool = False) -> None:
        super().__init__(message, remediable)
        self.remediable = remediable

    def __str__(self) -> str:
        return str(self.args[0])


def run(
    experiment: Experiment,
    preset: str,
    directory: Path,
    *,
    jobs: int = 1,
    methods: Sequence[str] = (),
    force: bool = False,
    show: bool | None = None,
) -> None:
    """Compute what is not kept yet, and publish the tables as the set `<experiment>/<preset>`.

    Args:
        experiment: what to run.
        preset: a key of its presets.
        directory: the folder of the results.
        jobs: how many units to compute side by side, each in a process of its own.
        methods: run these methods alone and add their rows to the stored set, instead of running
            the whole preset.
        force: replace the stored set, if there is one.
        show: show the progress and the time left on the standard error output; by default unless
            the environment variable `NGEM_PROGRESS` is 0.

    Raises:
        ValueError: if there is no such preset, `jobs` is not positive, or `methods` cannot be
            chosen.
        results.ResultError: if a set is stored and is not to be replaced, or none is there to
            which `methods` could be added.
        LockError: if another process runs the same.
        UnitError: if a unit fails; those finished before are kept.
        OSError: if the file system refuses.
    """
    check(experiment, preset, directory, jobs=jobs, methods=methods, force=force)
    config = _chosen(experiment, preset, methods)
    units = experiment.units(config)
    _check_names(units)
    mark = fingerprint(experiment, config)
    name = f"{experiment.name}/{preset}"
    kept = _kept(experiment, preset, directory, mark)
    with locked(directory / ".partial" / f"{experiment.name}-{preset}.lock", name):
        kept.mkdir(parents=True, exist_ok=True)
        commit = results.current_commit()
        left = [i for i, unit in enumerate(units) if not (kept / unit.name).is_dir()]
        tasks = [_Task(experiment, config, i, kept, mark, commit, name) for i in left]
        with _progress(name, units, left, show) as report:
            for i, seconds in _in_turn(tasks) if jobs == 1 else _side_by_side(tasks, jobs):
                report(units[i], seconds)
        made = [results.load_set(unit.name, kept) for unit in units]
        _publish(name, config, made, directory, methods, force)
        shutil.rmtree(kept)  # units of other settings stay


def check(
    experiment: Experiment,
    preset: str,
    directory: Path,
    *,
    jobs: int = 1,
    methods: Sequence[str] = (),
    force: bool = False,
) -> None:
    """Say what keeps `run` from starting, before anything is computed.

    Args:
        experiment: see `run`.
        preset: see `run`.
        directory: see `run`.
        jobs: see `run`.
        methods: see `run`.
        force: see `run`.

    Raises:
        ValueError: if an argument is out of range.
        results.ResultError: if a set is stored that would be overwritten, or if one is missing
            or has the methods already.
    """
    _chosen(experiment, preset, methods)
    if jobs < 1:
        raise ValueError(f"jobs must be at least 1, got {jobs}")
    name = f"{experiment.name}/{preset}"
    if methods:
        stored = results.read_provenance(name, directory)
        if known := [m for m in methods if m in stored["configuration"].get("methods", ())]:
            raise results.ResultError(f"{directory / name}: has the method {known[0]!r} already")
    elif (directory / name).exists() and not force:
        raise results.ResultError(
            f"{directory / name}: results are stored{_by(name, directory)}, of other code or "
            "settings than the present. Name another folder (--out), compare them (--compare), or "
            "compute them anew and replace them (--force)"
        )


def _by(name: str, directory: Path) -> str:
    """Which commits made a set, as a part of a sentence."""
    try:
        parts = results.read_provenance(name, directory)["parts"]
    except results.ResultError:
        return ""
    commits = dict.fromkeys(made["commit"]["hash"][:7] for made in parts)
    return f" (commit {', '.join(commits)})" if commits else ""


def _chosen(experiment: Experiment, preset: str, methods: Sequence[str]) -> Any:
    """The settings of a preset, with other methods if some are given."""
    config = experiment.preset(preset)
    if not methods:
        return config
    if not hasattr(config, "methods"):
        raise ValueError(f"methods cannot be chosen for {experiment.name}, got {list(methods)}")
    return dataclasses.replace(config, methods=tuple(methods))


def progress(experiment: Experiment, preset: str, directory: Path) -> Progress:
    """Return how far a preset is.

    Args:
        experiment: what to look at.
        preset: a key of its presets.
        directory: the folder of the results.

    Returns:
        Numbers of units and the expected time that is left.

    Raises:
        ValueError: if there is no such preset.
    """
    config = experiment.preset(preset)
    units = experiment.units(config)
    if is_finished(experiment, preset, directory):
        return Progress(len(units), len(units), 0.0)
    kept = _kept(experiment, preset, directory, fingerprint(experiment, config))
    left = [unit for unit in units if not (kept / unit.name).is_dir()]
    return Progress(len(units) - len(left), len(units), sum(unit.seconds for unit in left))


def is_finished(experiment: Experiment, preset: str, directory: Path) -> bool:
    """Say whether the stored tables come from the present code, settings and versions.

    Args:
        experiment: what to look at.
        preset: a key of its presets.
        directory: the folder of the results.

    Returns:
        True if there is a set, all parts of it do, and it is of all units; of those of added
        methods too.

    Raises:
        ValueError: if there is no such preset.
    """
    config = experiment.preset(preset)
    try:
        parts = results.read_provenance(f"{experiment.name}/{preset}", directory)["parts"]
    except results.ResultError:
        return False
    configs = {(): config}
    for part in parts:
        added = tuple(part.get("methods", ()))
        if added and not hasattr(config, "methods"):  # made by settings of another form
            return False
        configs[added] = _chosen(experiment, preset, added)
    wanted = {added: fingerprint(experiment, chosen) for added, chosen in configs.items()}
    made = sorted(name for part in parts for name in part["units"])
    units = sorted(unit.name for chosen in configs.values() for unit in experiment.units(chosen))
    current = (part["fingerprint"] == wanted[tuple(part.get("methods", ()))] for part in parts)
    return made == units and all(current)


def fingerprint(experiment: Experiment, config: Any) -> str:
    """Return what decides the numbers, as a short hash.

    Args:
        experiment: whose code counts, with what it imports from this package.
        config: its settings.

    Returns:
        Sixteen hexadecimal digits, of the settings, the code without comments and docstrings, the
        versions of the numerical packages, and whether JAX computes in 64 bits.
    """
    parts = [json.dumps(dataclasses.asdict(config), sort_keys=True, default=str)]
    parts += [f"{name} {_version(name)}" for name in _LIBRARIES]
    parts += [f"x64 {_machine.x64()}"]
    parts += [_code(path, path.stat().st_mtime_ns) for path in _sources(experiment.module)]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def _version(library: str) -> str:
    try:
        return importlib.metadata.version(library)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _sources(module: str) -> list[Path]:
    """The files of a module and of what it imports from this package, and so on."""
    names, files = [module], []
    for name in names:
        spec = importlib.util.find_spec(name)
        assert spec is not None, name
        file = Path(str(spec.origin))
        files.append(file)
        names += [n for n in _imported(file, file.stat().st_mtime_ns) if n not in names]
    return files


@functools.cache
def _imported(path: Path, changed: int) -> list[str]:
    """The modules of this package that a file, changed at that time, imports for its numbers."""
    found: list[str] = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names if _is_own(node.module) else ():
                whole = f"{node.module}.{alias.name}"
                found.append(whole if _is_module(whole) else node.module)
    own = [name for name in dict.fromkeys(found) if _is_own(name)]
    return [name for name in own if (*name.split("."), "")[1] not in _BOOKKEEPING]


def _is_own(name: str) -> bool:
    return name.partition(".")[0] == _PACKAGE


def _is_module(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:  # what it is in is not a package
        return False


@functools.cache
def _code(path: Path, changed: int) -> str:
    """The syntax tree of a file, which was changed at that time, without its docstrings."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            node.body = [line for line in body if not _is_docstring(line)]  # type: ignore[attr-defined]
    return ast.dump(tree)


def _is_docstring(node: ast.AST) -> bool:
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )


# --------------------------------------------------------------------------------- computing


class _Task(NamedTuple):
    """What a process needs to know to compute a unit."""

    experiment: Experiment
    config: Any
    position: int
    kept: Path
    fingerprint: str
    commit: Mapping[str, Any]
    name: str


def _compute(task: _Task) -> tuple[int, float]:
    """Compute and keep one unit; return its position and the seconds that it took."""
    unit = task.experiment.units(task.config)[task.position]
    start = time.perf_counter()
    try:
        with loop.quiet():
            tables = unit.run()
        seconds = time.perf_counter() - start
        _keep(task, unit.name, tables, seconds)
    except Exception as error:
        raise UnitError(
            f"{task.name}: the unit {unit.name} failed with {type(error).__name__}: {error}",
            isinstance(error, (ImportError, RemediableError)),
        ) from error
    return task.position, seconds


def _in_turn(tasks: Sequence[_Task]) -> Iterator[tuple[int, float]]:
    return map(_compute, tasks)


def _side_by_side(tasks: Sequence[_Task], jobs: int) -> Iterator[tuple[int, float]]:
    """Compute in fresh processes: JAX cannot be forked."""
    spawn = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(jobs, mp_context=spawn) as pool:
        futures = [pool.submit(_compute, task) for task in tasks]
        try:
            for future in concurrent.futures.as_completed(futures):
                yield future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


# ----------------------------------------------------------------------------------- the parts


def _check_names(units: Sequence[Unit]) -> None:
    names = [unit.name for unit in units]
    if bad := [name for name in names if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._+=-]*", name)]:
        raise ValueError(f"names of units must be letters, digits and . _ - + =, got {bad[0]!r}")
    if doubled := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"names of units must be unique, got more than one {doubled[0]!r}")


def _kept(experiment: Experiment, preset: str, directory: Path, mark: str) -> Path:
    """Where the finished units of a run are: not mixed with those of other code or settings."""
    return directory / ".partial" / f"{experiment.name}-{preset}-{mark}"


def _keep(task: _Task, name: str, tables: Tables, seconds: float) -> None:
    """Publish the tables of a unit as a set of its own."""
    tables = {key: table for key, table in tables.items() if not table.empty}
    made = results.part(
        tables, seconds, units=[name], fingerprint=task.fingerprint, commit=task.commit
    )
    try:
        results.save(
            tables,
            name,
            configuration={},
            seeds=(),
            parts=[made],
            directory=task.kept,
            allow_missing=_with_missing(tables),
        )
    except results.ResultError:
        if not (task.kept / name).is_dir():  # a process that outlived its run may be faster
            raise


def _publish(
    name: str,
    config: Any,
    made: Sequence[results.ResultSet],
    directory: Path,
    methods: Sequence[str],
    force: bool,
) -> None:
    """Publish the tables of all units in their order, below the stored ones if methods join."""
    settings = dataclasses.asdict(config)
    seeds = settings.pop("seeds")
    tables, parts = results.combine(made)
    extra: Mapping[str, Any] = {}
    if methods:
        remarks = {"methods": list(methods), "configuration": settings, "seeds": seeds}
        added = results.ResultSet(tables, {"name": name, "parts": [p | remarks for p in parts]})
        stored = results.load_set(name, directory)
        tables, parts = results.combine([stored, added])
        settings, seeds, extra = (stored.provenance[k] for k in ("configuration", "seeds", "extra"))
        settings = settings | {"methods": [*settings["methods"], *methods]}
    results.save(
        tables,
        name,
        configuration=settings,
        seeds=seeds,
        parts=parts,
        directory=directory,
        allow_missing=_with_missing(tables),
        extra=extra,
        replace=force or bool(methods),
    )


def _with_missing(tables: Tables) -> dict[str, list[str]]:
    """The columns of each table that have missing or infinite numbers."""
    return {
        name: [
            column
            for column in table
            if table[column].dtype.kind == "f" and not np.isfinite(table[column]).all()
        ]
        for name, table in tables.items()
    }


# --------------------------------------------------------------------------------- the progress


@contextmanager
def _progress(
    label: str, units: Sequence[Unit], left: Sequence[int], show: bool | None
) -> Iterator[Callable[[Unit, float], None]]:
    """Give a function that reports a finished unit and its seconds."""
    if show is None:
        show = os.environ.get("NGEM_PROGRESS") != "0"
    total = sum(unit.seconds for unit in units)
    done = total - sum(units[i].seconds for i in left)
    if not show:
        yield lambda unit, seconds: None
    elif sys.stderr.isatty():
        with _bar(label, total, done) as report:
            yield report
    else:
        yield _lines(label, len(units), len(units) - len(left), total - done)


def _lines(
    label: str, units: int, finished: int, expected_left: float
) -> Callable[[Unit, float], None]:
    """Give a function that prints a line for each unit."""
    start, expected_done = time.perf_counter(), 0.0

    def report(unit: Unit, seconds: float) -> None:
        nonlocal finished, expected_left, expected_done
        finished += 1
        expected_done += unit.seconds
        expected_left -= unit.seconds
        left = expected_left * (time.perf_counter() - start) / expected_done
        print(
            f"{label}: {finished} of {units}, {unit.name} in {results.duration(seconds)}; "
            f"about {results.duration(left)} left",
            file=sys.stderr,
            flush=True,
        )

    return report


@contextmanager
def _bar(label: str, total: float, done: float) -> Iterator[Callable[[Unit, float], None]]:
    columns = (
        rich_progress.TextColumn("{task.description}"),
        rich_progress.BarColumn(),
        rich_progress.TaskProgressColumn(),
        rich_progress.TextColumn("left"),
        rich_progress.TimeRemainingColumn(elapsed_when_finished=True),
        rich_progress.TextColumn("{task.fields[last]}"),
    )
    with rich_progress.Progress(
        *columns, console=Console(stderr=True), speed_estimate_period=3600
    ) as bar:
        task = bar.add_task(label, total=total, last="")
        bar.update(task, completed=done)
        yield lambda unit, _: bar.update(task, advance=unit.seconds, last=unit.name)
