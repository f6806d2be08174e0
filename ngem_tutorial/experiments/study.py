"""An experiment in parts: each is kept as soon as it is finished, and a stopped run goes on.

An experiment is a list of units. `run` computes them in order and writes each to a folder of
unfinished results; the tables of all of them, in the same order, are the result. A run that was
stopped therefore ends with the same tables as one that was not.
"""

from __future__ import annotations

import ast
import concurrent.futures
import dataclasses
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

from ngem_tutorial import results, training

__all__ = [
    "Experiment",
    "Progress",
    "Tables",
    "Unit",
    "fingerprint",
    "is_finished",
    "origin",
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


_NUMERICS: Final = (
    "mixtures",
    "fisher",
    "objectives",
    "variants",
    "methods",
    "em",
    "networks",
    "optimizers",
    "datasets",
    "tabular",
    "training",
    "metrics",
)
"""The parts of the package that decide the numbers, besides the experiment's own module."""

_PACKAGES: Final = ("jax", "jaxlib", "flax", "optax", "numpy")


def run(
    experiment: Experiment,
    preset: str,
    directory: Path,
    *,
    jobs: int = 1,
    show: bool | None = None,
) -> None:
    """Compute what is not kept yet, and save the tables as `<experiment>/<preset>/<table>`.

    Args:
        experiment: what to run.
        preset: a key of its presets.
        directory: the folder of the results.
        jobs: how many units to compute side by side, each in a process of its own.
        show: show the progress and the time left on the standard error output; by default unless
            the environment variable `NGEM_PROGRESS` is 0.

    Raises:
        ValueError: if there is no such preset, or `jobs` is not positive.
        OSError: if the file system refuses.
    """
    config = experiment.preset(preset)
    if jobs < 1:
        raise ValueError(f"jobs must be at least 1, got {jobs}")
    units = experiment.units(config)
    _check_names(units)
    mark = fingerprint(experiment, config)
    kept = _kept(experiment, preset, directory, mark)
    kept.mkdir(parents=True, exist_ok=True)
    commit = results.current_commit()
    left = [i for i, unit in enumerate(units) if not (kept / unit.name).is_dir()]
    tasks = [(experiment, preset, i, kept, commit) for i in left]
    with _progress(f"{experiment.name}/{preset}", units, left, show) as report:
        for i, seconds in _in_turn(tasks) if jobs == 1 else _side_by_side(tasks, jobs):
            report(units[i], seconds)
    _finish(experiment, preset, directory, [kept / unit.name for unit in units], mark, commit)
    for folder in _unfinished(experiment, preset, directory):
        shutil.rmtree(folder)


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
        True if there is at least one table and all of them do.

    Raises:
        ValueError: if there is no such preset.
    """
    wanted = fingerprint(experiment, experiment.preset(preset))
    files = sorted((directory / experiment.name / preset).glob("*.json"))
    return bool(files) and all(
        json.loads(file.read_text(encoding="utf-8"))["extra"].get("fingerprint") == wanted
        for file in files
    )


def fingerprint(experiment: Experiment, config: Any) -> str:
    """Return what decides the numbers, as a short hash.

    Args:
        experiment: whose code counts, besides that of the package's lower layers.
        config: its settings.

    Returns:
        Sixteen hexadecimal digits, of the settings, the code without comments and docstrings,
        and the versions of the numerical packages.
    """
    package = Path(results.__file__).parent
    sources = [package / f"{name}.py" for name in _NUMERICS]
    sources = [path for path in sources if path.is_file()]
    sources += _modules(experiment.module)
    parts = [json.dumps(dataclasses.asdict(config), sort_keys=True, default=str)]
    parts += [f"{name} {importlib.metadata.version(name)}" for name in _PACKAGES]
    parts += [_code(path) for path in sources]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def origin(provenance: Mapping[str, Any]) -> str:
    """Say how a stored table came about.

    Args:
        provenance: that of a table which `run` saved.

    Returns:
        Time, machine, date, version of JAX and commit in Markdown, without a full stop; the same
        for rows that were added later, after a semicolon.
    """
    parts = [_origin(provenance)]
    for part in provenance["extra"].get("added", ()):
        parts.append(f"{', '.join(part['methods'])} later, in {_origin(part)}")
    return "; ".join(parts)


def _origin(part: Mapping[str, Any]) -> str:
    device = part["device"]
    return (
        f"{_duration(part['wall_time_s'])} on {device['cpu_model']} ({device['platform']}, "
        f"{device['cpu_cores']} cores), {part['date'][:10]}, JAX {part['versions']['jax']}, "
        f"commit `{part['commit']['hash'][:7]}`"
    )


def _modules(name: str) -> list[Path]:
    """The files of an experiment's module and of the other experiments that it imports."""
    names, files = [name], []
    for name in names:
        spec = importlib.util.find_spec(name)
        assert spec is not None, name
        files.append(Path(str(spec.origin)))
        tree = ast.parse(files[-1].read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module == __package__:
                names += [
                    module
                    for module in (f"{__package__}.{alias.name}" for alias in node.names)
                    if module not in (*names, __name__)
                ]
    return files


def _code(path: Path) -> str:
    """The syntax tree of a file without its docstrings."""
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

_Task = tuple[Experiment, str, int, Path, Mapping[str, Any]]


def _compute(task: _Task) -> tuple[int, float]:
    """Compute and keep one unit; return its position and the seconds that it took."""
    experiment, preset, index, kept, commit = task
    unit = experiment.units(experiment.preset(preset))[index]
    start = time.perf_counter()
    with training.quiet():
        tables = unit.run()
    seconds = time.perf_counter() - start
    _keep(kept / unit.name, tables, seconds, commit)
    return index, seconds


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


def _unfinished(experiment: Experiment, preset: str, directory: Path) -> list[Path]:
    return sorted((directory / ".partial").glob(f"{experiment.name}-{preset}-" + "?" * 16))


def _keep(folder: Path, tables: Tables, seconds: float, commit: Mapping[str, Any]) -> None:
    """Write the tables of a unit so that its folder is there only when it is whole."""
    temporary = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    for name, table in tables.items():
        if table.empty:
            continue
        results.save(
            table,
            name,
            configuration={},
            seeds=(),
            wall_time_s=seconds,
            directory=temporary,
            allow_missing=_with_missing(table),
            extra={"peak_memory_mib": _peak_memory()},
            commit=commit,
        )
    os.replace(temporary, folder)


def _finish(
    experiment: Experiment,
    preset: str,
    directory: Path,
    folders: Sequence[Path],
    mark: str,
    commit: Mapping[str, Any],
) -> None:
    """Save the tables of all units in their order."""
    configuration = dataclasses.asdict(experiment.preset(preset))
    seeds = configuration.pop("seeds")
    for name in sorted({path.stem for folder in folders for path in folder.glob("*.json")}):
        having = [folder for folder in folders if (folder / f"{name}.json").is_file()]
        parts = [results.load(name, folder) for folder in having]
        table = pd.concat([part.table for part in parts], ignore_index=True)
        results.save(
            table,
            f"{experiment.name}/{preset}/{name}",
            configuration=configuration,
            seeds=seeds,
            wall_time_s=sum(part.provenance["wall_time_s"] for part in parts),
            directory=directory,
            allow_missing=_with_missing(table),
            extra={
                "fingerprint": mark,
                "peak_memory_mib": max(
                    part.provenance["extra"]["peak_memory_mib"] for part in parts
                ),
                "units": len(folders),
            },
            commit=commit,
        )


def _with_missing(table: pd.DataFrame) -> list[str]:
    return [
        name
        for name in table
        if table[name].dtype.kind == "f" and not np.isfinite(table[name]).all()
    ]


def _peak_memory() -> int:
    """The largest resident memory of this process so far, MiB; 0 where it is not known."""
    try:
        import resource
    except ImportError:  # Windows
        return 0
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit // 2**20


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
            f"{label}: {finished} of {units}, {unit.name} in {_duration(seconds)}; "
            f"about {_duration(left)} left",
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


def _duration(seconds: float) -> str:
    """A time in words: seconds, minutes or hours."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = seconds / 60
    return f"{minutes:.0f} min" if minutes < 100 else f"{minutes / 60:.1f} h"
