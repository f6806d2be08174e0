"""The demonstration: NLL against damped nGEM on Two-Gaussians and on small digits."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table

from ngem_tutorial import datasets, figures
from ngem_tutorial.experiments import inverse_mnist, two_gaussians
from ngem_tutorial.loop import Run

__all__ = ["METHODS", "check", "compare", "main"]

METHODS = ("NLL", "damped nGEM")
"""What the demonstration trains, by name."""


def check(figure: Path) -> None:
    """Refuse what would fail after the training.

    Args:
        figure: path of the picture; its ending names the format.

    Raises:
        ValueError: if the figure's format is unknown.
        OSError: if its folder cannot be written to.
    """
    figures.check_format(figure)
    figure.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=figure.parent):
        pass


def main(figure: Path, num_seeds: int) -> None:
    """Train, print the comparison and write the figure.

    Args:
        figure: path of the picture; see `check`.
        num_seeds: runs of each method on each task.

    Raises:
        OSError: if the figure cannot be written.
    """
    start = time.perf_counter()
    curves = compare(tuple(range(1, num_seeds + 1)))
    console = Console()
    console.print(_summary(curves))
    figures.write(figures.convergence(curves, panels="task", share_y=False), figure)
    console.print(f"The curves are in {figure}. {time.perf_counter() - start:.0f} s in all.")


def compare(seeds: tuple[int, ...]) -> pd.DataFrame:
    """Train each method on each task.

    Args:
        seeds: of the runs, the same for each method and task.

    Returns:
        A row for each recorded point of each run: `task`, `method`, `seed`, `update`, `nll` and
        `entropy` (nats), NaN once a run was not finite.
    """
    gaussians = two_gaussians.Config(seeds=seeds, record_every=50, epochs=15)
    images = datasets.digits()
    digits = inverse_mnist.Config(
        seeds=seeds,
        hidden=(64, 64),
        epochs=40,
        batch_size=64,
        learning_rate=1e-3,
        min_scale=0.05,
    )

    def rows(task: str, method: str, result: Run) -> pd.DataFrame:
        table = pd.DataFrame(result.columns()).drop(columns=["loss", "failed_at"])
        return table.assign(task=task, method=method)

    return pd.concat(
        [
            rows(
                "Two-Gaussians",
                method,
                two_gaussians.train(gaussians, method, "log σ", learning_rate=1e-2),
            )
            for method in METHODS
        ]
        + [
            rows("digits given their class", method, inverse_mnist.train(digits, method, images))
            for method in METHODS
        ],
        ignore_index=True,
    )


def _summary(curves: pd.DataFrame) -> Table:
    """The comparison as a table for the terminal."""
    table = Table(title="At the end of training, mean and standard deviation over seeds")
    for column in ("task", "method", "negative log-likelihood", "entropy of the weights", "seeds"):
        text = column in ("task", "method")
        table.add_column(column, justify="left" if text else "right", no_wrap=text)
    for (task, method), runs in curves.groupby(["task", "method"], sort=False):
        last = runs[runs["update"] == runs["update"].max()]
        table.add_row(
            str(task), str(method), _spread(last["nll"]), _spread(last["entropy"]), f"{len(last)}"
        )
    return table


def _spread(values: pd.Series) -> str:
    numbers = values.to_numpy()
    if not np.isfinite(numbers).all():
        return f"not finite in {(~np.isfinite(numbers)).sum()} of {len(numbers)} runs"
    sd = f" ± {numbers.std(ddof=1):.2f}" if len(numbers) > 1 else ""
    return f"{numbers.mean():.2f}{sd}"
