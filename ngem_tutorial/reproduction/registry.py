"""The experiments by name: run, resume, list and compare them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from ngem_tutorial import results, runs
from ngem_tutorial.experiments import (
    default_study,
    inverse_mnist,
    mode_collapse,
    objective_study,
    two_gaussians,
    two_sinusoids,
    uci_regression,
    update_cost,
    variational,
)
from ngem_tutorial.reproduction import comparison
from ngem_tutorial.runs import Experiment

__all__ = [
    "EXPERIMENTS",
    "check",
    "compare",
    "load",
    "overview",
    "provenance",
    "reproduce",
    "select",
]

_ALL = (
    Experiment(
        name="two_gaussians",
        title="a free mixture of two Gaussians, from a thousand starts",
        items=("Figures 2, 4, 5", "Table 1"),
        module=two_gaussians.__name__,
        presets=two_gaussians.PRESETS,
        units=two_gaussians.units,
        measured=two_gaussians.measured,
    ),
    Experiment(
        name="two_sinusoids",
        title="two sine waves, a network with K = 2",
        items=("Figures 6-7", "Table 2"),
        module=two_sinusoids.__name__,
        presets=two_sinusoids.PRESETS,
        units=two_sinusoids.units,
        measured=two_sinusoids.measured,
    ),
    Experiment(
        name="mode_collapse",
        title="learned weights against the true ones, even and uneven",
        items=("Section 4.2",),
        module=mode_collapse.__name__,
        presets=mode_collapse.PRESETS,
        units=mode_collapse.units,
    ),
    *(
        Experiment(
            name="inverse_mnist" if k == 3 else f"inverse_mnist_{k}",
            title=f"images of digits given their class, K = {k}",
            items=items,
            module=inverse_mnist.__name__,
            presets=inverse_mnist.PRESETS[k],
            units=inverse_mnist.units,
            measured=inverse_mnist.measured,
        )
        for k, items in ((3, ("Figures 8-10", "Table 3")), (10, ("Table 4",)), (20, ()))
    ),
    Experiment(
        name="uci_regression",
        title="regression on UCI data: objectives and optimisers",
        items=("Table 5",),
        module=uci_regression.__name__,
        presets=uci_regression.PRESETS,
        units=uci_regression.units,
        measured=uci_regression.measured,
    ),
    Experiment(
        name="objective_study",
        title="which objective to use: candidates on every task",
        items=(),
        module=objective_study.__name__,
        presets=objective_study.PRESETS,
        units=objective_study.units,
    ),
    Experiment(
        name="default_study",
        title="which objective to recommend: a family, judged on held-out data",
        items=(),
        module=default_study.__name__,
        presets=default_study.PRESETS,
        units=default_study.units,
    ),
    Experiment(
        name="update_cost",
        title="what an update of each objective costs",
        items=("Table 6",),
        module=update_cost.__name__,
        presets=update_cost.PRESETS,
        units=update_cost.units,
        measured=update_cost.measured,
        reasons={("Table 6", "seconds"): "another machine"},
    ),
    Experiment(
        name="variational",
        title="mixtures fitted to densities: seven choices on ten targets",
        items=(),
        module=variational.__name__,
        presets=variational.PRESETS,
        units=variational.units,
    ),
    Experiment(
        name="variational_large",
        title="mixtures fitted to densities: large targets and budgets",
        items=(),
        module=variational.__name__,
        presets=variational.LARGE,
        units=variational.units,
    ),
)

EXPERIMENTS: dict[str, Experiment] = {experiment.name: experiment for experiment in _ALL}
"""Experiments by name, in the order of the paper."""


def select(names: Sequence[str] = ()) -> list[Experiment]:
    """Return experiments by name.

    Args:
        names: keys of `EXPERIMENTS`; all of them if empty.

    Returns:
        The experiments.

    Raises:
        ValueError: if there is no such experiment.
    """
    if unknown := [name for name in names if name not in EXPERIMENTS]:
        raise ValueError(f"experiment must be one of {', '.join(EXPERIMENTS)}, got {unknown[0]!r}")
    return [EXPERIMENTS[name] for name in names or EXPERIMENTS]


def reproduce(
    experiment: str,
    preset: str,
    directory: str | os.PathLike[str] | None = None,
    *,
    jobs: int = 1,
    methods: Sequence[str] = (),
    force: bool = False,
) -> dict[str, pd.DataFrame]:
    """Run one preset of an experiment, or what is left of it, and publish its tables.

    Tables that are there already, made by the present code at the present settings, are kept.

    Args:
        experiment: a key of `EXPERIMENTS`.
        preset: a key of the experiment's presets.
        directory: where results are kept; see `results.save`.
        jobs: how many parts to compute side by side; see `runs.run`.
        methods: run these alone and add their rows to the stored tables; see `runs.run`.
        force: replace stored tables of other code or settings.

    Returns:
        The tables by name, as published in the set `<experiment>/<preset>`.

    Raises:
        ValueError: if there is no such experiment or preset, `jobs` is not positive, or `methods`
            cannot be chosen.
        results.ResultError: if tables of other code are stored and `force` is not given, or if no
            `directory` is given and the package is not in a checkout.
        OSError: if the directory cannot be made. All three before any computing.
        runs.LockError: if another process runs the same.
        runs.UnitError: if a part of it fails.
    """
    (selected,) = select([experiment])
    folder = _folder(directory, writing=True)
    if methods or not runs.is_finished(selected, preset, folder):
        runs.check(selected, preset, folder, jobs=jobs, methods=methods, force=force)
        folder.mkdir(parents=True, exist_ok=True)
        runs.run(selected, preset, folder, jobs=jobs, methods=methods, force=force)
    return load(experiment, preset, folder)


def check(
    names: Sequence[str],
    preset: str,
    directory: str | os.PathLike[str] | None = None,
    *,
    jobs: int = 1,
    methods: Sequence[str] = (),
    force: bool = False,
) -> None:
    """Say what keeps `reproduce` from starting with any of several experiments.

    Args:
        names: keys of `EXPERIMENTS`; all of them if empty.
        preset: see `reproduce`.
        directory: see `reproduce`.
        jobs: see `reproduce`.
        methods: see `reproduce`.
        force: see `reproduce`.

    Raises:
        ValueError: as `reproduce`.
        results.ResultError: as `reproduce`.
        OSError: if the directory cannot be made.
    """
    folder = _folder(directory, writing=True)
    for experiment in select(names):
        if methods or not runs.is_finished(experiment, preset, folder):
            runs.check(experiment, preset, folder, jobs=jobs, methods=methods, force=force)
    folder.mkdir(parents=True, exist_ok=True)


def load(
    experiment: str, preset: str, directory: str | os.PathLike[str] | None = None
) -> dict[str, pd.DataFrame]:
    """Read the stored tables of a preset.

    Args:
        experiment: a key of `EXPERIMENTS`.
        preset: a key of the experiment's presets.
        directory: where results are kept; see `results.load`.

    Returns:
        The tables by name; empty if none is stored.

    Raises:
        ValueError: if there is no such experiment or preset.
        results.ResultError: if a file is unreadable or does not match its provenance.
    """
    (selected,) = select([experiment])
    selected.preset(preset)
    folder = _folder(directory)
    if not (folder / experiment / preset).exists():
        return {}
    return dict(results.load_set(f"{experiment}/{preset}", folder).tables)


def _folder(directory: str | os.PathLike[str] | None, *, writing: bool = False) -> Path:
    if directory is None:
        return results.default_directory(writing=writing)
    return Path(directory).expanduser()


def compare(
    preset: str = "paper", directory: str | os.PathLike[str] | None = None
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Compare all stored results with the paper.

    Args:
        preset: which of the presets.
        directory: where results are kept; see `results.load`.

    Returns:
        What `comparison.compare` and `comparison.pairs` return, with the column `experiment`, for
        all of the experiments that have results, in the order of the paper.

    Raises:
        ValueError: if there is no such preset.
        results.ResultError: if a file is unreadable or does not match its provenance.
    """
    numbers, pairs = [], []
    for experiment in EXPERIMENTS.values():
        tables = load(experiment.name, preset, directory)
        if not tables or experiment.measured is None:
            continue
        measured = experiment.measured(tables)
        numbers.append(comparison.compare(measured, experiment.reasons))
        pairs.append(comparison.pairs(measured))
        for part in (numbers[-1], pairs[-1]):
            part.insert(0, "experiment", experiment.name)
    by_table = {"by": "table", "kind": "stable", "ignore_index": True}
    return (
        _joined(numbers).sort_values(**by_table),
        _joined(pairs).sort_values(**by_table),
    )


def _joined(tables: list[pd.DataFrame]) -> pd.DataFrame:
    """All rows; `concat` of pandas 2 warns of a column that is missing throughout one table."""
    rows = [row for table in tables for row in table.to_dict("records")]
    return pd.DataFrame(rows, columns=tables[0].columns, dtype=object)


def provenance(
    preset: str = "paper", directory: str | os.PathLike[str] | None = None
) -> pd.DataFrame:
    """Tell how the stored results of each experiment came about.

    Args:
        preset: which of the presets.
        directory: where results are kept; see `results.load`.

    Returns:
        A row for each part of the results of an experiment: `experiment`, `tables`, `methods`
        (those that were added later, else empty), `units` (how many, 0 if that was not recorded),
        `hours`, `peak_memory_gib` (of a process), `machine`, `jax` (version), `commit`, `date`.

    Raises:
        ValueError: if there is no such preset.
        results.ResultError: if a file is unreadable or does not match its provenance.
    """
    folder = _folder(directory)
    rows = []
    for experiment in EXPERIMENTS.values():
        experiment.preset(preset)
        if (folder / experiment.name / preset).exists():
            stored = results.read_provenance(f"{experiment.name}/{preset}", folder)
            rows += [{"experiment": experiment.name, **_made(part)} for part in stored["parts"]]
    return pd.DataFrame(rows)


def _made(part: Mapping[str, Any]) -> dict[str, Any]:
    """How a part of a result came about, for a reader."""
    device = part["device"]
    return {
        "tables": ", ".join(part["rows"]),
        "methods": ", ".join(part.get("methods", ())),
        "units": len(part["units"]),
        "hours": part["seconds"] / 3600,
        "peak_memory_gib": part["peak_memory_mib"] / 1024,
        "machine": f"{device['platform']}: {device['cpu_model']}, {device['cpu_cores']} cores",
        "jax": part["versions"]["jax"],
        "commit": part["commit"]["hash"][:10],
        "date": part["date"][:10],
    }


def overview(
    names: Sequence[str] = (), directory: str | os.PathLike[str] | None = None
) -> pd.DataFrame:
    """List the presets of experiments with their expected times and how far they are.

    Args:
        names: keys of `EXPERIMENTS`; all of them if empty.
        directory: where results are kept; see `results.load`.

    Returns:
        A row per preset: `experiment`, `title`, `items`, `preset`, `seconds` (expected, one core
        of the machine that the stored results name), `finished` and `units`, and `stored`: the
        commit, ten digits, that made the tables which are there, empty if there are none. Tables
        by other code than the present are stored, but no part of them is finished.

    Raises:
        ValueError: if there is no such experiment.
        results.ResultError: if no `directory` is given and the package is not in a checkout.
    """
    folder = _folder(directory)
    rows = []
    for experiment in select(names):
        for preset, config in experiment.presets.items():
            state = runs.progress(experiment, preset, folder)
            rows.append(
                {
                    "experiment": experiment.name,
                    "title": experiment.title,
                    "items": ", ".join(experiment.items),
                    "preset": preset,
                    "seconds": sum(unit.seconds for unit in experiment.units(config)),
                    "finished": state.finished,
                    "units": state.units,
                    "stored": _commit_of(f"{experiment.name}/{preset}", folder),
                }
            )
    return pd.DataFrame(rows)


def _commit_of(name: str, folder: Path) -> str:
    """The commit that made the first part of a set, empty if there is none."""
    if not (folder / name).exists():
        return ""
    parts = results.read_provenance(name, folder)["parts"]
    return str(parts[0]["commit"]["hash"])[:10] if parts else ""
