"""The progress bar of a training."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from rich import progress as rich_progress
from rich.console import Console

__all__ = ["progress_bar", "quiet", "shows_progress"]

_QUIET: ContextVar[bool] = ContextVar("quiet", default=False)


@contextmanager
def quiet() -> Iterator[None]:
    """Show no progress bars of `fit` and `train` within: for a caller with a bar of its own.

    Yields:
        Nothing.
    """
    token = _QUIET.set(True)
    try:
        yield
    finally:
        _QUIET.reset(token)


def shows_progress(show: bool | None) -> bool:
    """Say whether to show a bar.

    Args:
        show: None: where the output is a terminal and `NGEM_PROGRESS` is not 0.

    Returns:
        Whether to.
    """
    if show is None:
        switched_off = _QUIET.get() or os.environ.get("NGEM_PROGRESS") == "0"
        return sys.stderr.isatty() and not switched_off
    return show


@contextmanager
def progress_bar(show: bool | None, label: str, total: int) -> Iterator[Callable[[int], None]]:
    """Show a bar on the standard error, with the time that is left.

    Args:
        show: None: where the output is a terminal and `NGEM_PROGRESS` is not 0.
        label: what stands before the bar.
        total: number of updates.

    Yields:
        A function to move the bar on by a number of updates.
    """
    if shows_progress(show):
        with _bar(label, total) as advance:
            yield advance
    else:
        yield lambda _: None


@contextmanager
def _bar(label: str, total: int) -> Iterator[Callable[[int], None]]:
    columns = (
        rich_progress.TextColumn("{task.description}"),
        rich_progress.BarColumn(),
        rich_progress.MofNCompleteColumn(),
        rich_progress.TextColumn("updates, left"),
        rich_progress.TimeRemainingColumn(),
    )
    with rich_progress.Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(label, total=total)
        yield lambda updates: bar.advance(task, updates)
