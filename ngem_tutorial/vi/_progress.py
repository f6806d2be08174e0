"""The progress bar of `fit_density`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TypeAlias

import numpy as np
from rich import progress as rich_progress
from rich.console import Console

from ngem_tutorial._training.progress import shows_progress

__all__ = ["progress_bar"]

Columns: TypeAlias = Mapping[str, Sequence[np.ndarray]]


@contextmanager
def progress_bar(
    show: bool | None, done: int, stop: int
) -> Iterator[Callable[[int, Columns], None]]:
    """Show a bar on the standard error, with ELBO, components, evaluations and the time left.

    Args:
        show: as `_training.progress.progress_bar` takes it.
        done: iterations that there were.
        stop: iterations that there will be.

    Yields:
        A function of the iterations done and the history.
    """
    if not shows_progress(show):
        yield lambda done, history: None
        return
    columns = (
        rich_progress.TextColumn("{task.description}"),
        rich_progress.BarColumn(),
        rich_progress.MofNCompleteColumn(),
        rich_progress.TextColumn("iterations, left"),
        rich_progress.TimeRemainingColumn(),
    )
    with rich_progress.Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("", total=stop, completed=done)

        def update(done: int, history: Columns) -> None:
            elbo, number, evaluations = (
                history[name][-1][-1] for name in ("elbo", "num_components", "evaluations")
            )
            text = f"ELBO {elbo:.3f}, {number} components, {evaluations} evaluations"
            bar.update(task, completed=done, description=text)

        yield update
