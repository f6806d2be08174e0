"""What `python -m ngem_tutorial reproduce` does and prints."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from rich import box
from rich.console import Console
from rich.table import Table

from ngem_tutorial import results, runs
from ngem_tutorial.reproduction import comparison, registry

__all__ = ["main"]


def main(
    names: Sequence[str],
    preset: str,
    directory: Path | None = None,
    *,
    jobs: int = 1,
    methods: Sequence[str] = (),
    force: bool = False,
    show: bool = False,
    compare_only: bool = False,
) -> None:
    """List, run or compare experiments.

    Args:
        names: keys of `registry.EXPERIMENTS`; all of them if empty.
        preset: a key of their presets.
        directory: where results are kept; by default `results` in the checkout.
        jobs: how many parts to compute side by side.
        methods: run these alone and add their rows to the stored tables.
        force: replace stored tables that other code or settings made.
        show: list the experiments and do nothing else.
        compare_only: compare what is stored and run nothing.

    Raises:
        results.ResultError: if there is no folder of results, or stored ones are in the way.
        OSError: if the folder of results cannot be made.
        runs.LockError: if another process runs the same.
        runs.UnitError: if a part of an experiment fails.
    """
    selected = registry.select(names)
    console = Console()
    reads = show or compare_only
    folder = directory or results.default_directory(writing=not reads)
    folder = folder.expanduser()
    if show:
        _print(console, "", _listed(registry.overview(names, folder)))
        return
    for experiment in selected:
        if compare_only:
            tables = registry.load(experiment.name, preset, folder)
        else:
            tables = registry.reproduce(
                experiment.name, preset, folder, jobs=jobs, methods=methods, force=force
            )
        place = folder / experiment.name / preset
        if not tables:
            console.print(f"{experiment.name}: nothing in {place}", soft_wrap=True)
            continue
        console.print(f"{experiment.name}: {', '.join(tables)} in {place}", soft_wrap=True)
        if experiment.measured is not None:
            _compare(console, experiment, preset, tables)


def _compare(
    console: Console, experiment: runs.Experiment, preset: str, tables: runs.Tables
) -> None:
    assert experiment.measured is not None
    found = comparison.compare(experiment.measured(tables), experiment.reasons)
    if found.empty:
        return
    title = f"{experiment.title}: the paper's numbers and ours"
    if preset != "paper":
        title += f" (preset {preset}: shorter runs, not to be compared as they are)"
    shown = comparison.show(found)
    _print(
        console,
        title,
        pd.DataFrame(
            {
                "": shown[""] + ", " + shown["quantity"],
                "method": shown["method"],
                "paper": shown["paper"],
                "ours": shown["ours"],
                "margin": shown["margin"],
                "verdict": shown["verdict"]
                + ["" if not why else f": {why}" for why in shown["why"]],
                "in order": shown["in order"],
            }
        ),
    )


def _listed(overview: pd.DataFrame) -> pd.DataFrame:
    """The overview for a reader."""
    state = [_state(row.finished, row.units, row.stored) for row in overview.itertuples()]
    return pd.DataFrame(
        {
            "name": overview["experiment"],
            "preset": overview["preset"],
            "expected": [_time(seconds) for seconds in overview["seconds"]],
            "state": state,
            "in the paper": overview["items"],
        }
    )


def _state(finished: int, units: int, stored: str) -> str:
    if finished == units:
        return "finished"
    parts = [f"{finished} of {units} parts"] if finished or not stored else []
    return ", ".join([*parts, f"stored ({stored[:7]})"] if stored else parts)


def _time(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{math.ceil(seconds / 60)} min"


def _print(console: Console, title: str, rows: pd.DataFrame) -> None:
    table = Table(
        title=title or None, box=box.SIMPLE_HEAD, title_justify="left", pad_edge=False,
        collapse_padding=True,
    )  # fmt: skip
    for name in rows:
        words = " ".join(map(str, rows[name])).split()
        table.add_column(str(name), min_width=max(map(len, words), default=0))
    for row in rows.itertuples(index=False):
        table.add_row(*map(str, row))
    console.print(table)
