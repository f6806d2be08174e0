"""The experiments by name, with what each of their presets computes and keeps."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from ngem_tutorial import datasets, results
from ngem_tutorial.experiments import inverse_mnist, two_gaussians

__all__ = ["EXPERIMENTS", "Task", "reproduce"]


class Task(NamedTuple):
    """One preset of an experiment: its configuration, and what makes the table from it."""

    config: Any
    run: Callable[[Any], pd.DataFrame]


def _inverse_mnist(config: inverse_mnist.Config) -> pd.DataFrame:
    return inverse_mnist.run(config, datasets.mnist("train"))


EXPERIMENTS: dict[str, dict[str, Task]] = {
    "two_gaussians": {
        "quick": Task(two_gaussians.PRESETS["quick"], two_gaussians.run),
        "paper": Task(two_gaussians.PRESETS["paper"], two_gaussians.run),
        "initialisations": Task(
            two_gaussians.PRESETS["initialisations"], two_gaussians.run_outcomes
        ),
    },
    "inverse_mnist": {
        name: Task(config, _inverse_mnist) for name, config in inverse_mnist.PRESETS.items()
    },
}
"""Tasks by the names of experiment and preset."""


def reproduce(
    experiment: str, preset: str, directory: str | os.PathLike[str] | None = None
) -> Path:
    """Run one preset and save its table with provenance as `<experiment>/<preset>`.

    Args:
        experiment: a key of `EXPERIMENTS`.
        preset: a key of the experiment's presets.
        directory: where results are kept; see `results.save`.

    Returns:
        The path of the CSV file.

    Raises:
        ValueError: if there is no such experiment or preset.
        results.ResultError: if no `directory` is given and the package is not in a checkout.
        OSError: if the directory cannot be made. All three before any computing.
    """
    if experiment not in EXPERIMENTS:
        raise ValueError(f"experiment must be one of {', '.join(EXPERIMENTS)}, got {experiment!r}")
    presets = EXPERIMENTS[experiment]
    if preset not in presets:
        raise ValueError(f"preset must be one of {', '.join(presets)}, got {preset!r}")
    task = presets[preset]
    folder = results.default_directory() if directory is None else Path(directory).expanduser()
    folder.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    table = task.run(task.config)
    configuration = dataclasses.asdict(task.config)
    seeds = configuration.pop("seeds")
    missing = [
        name
        for name in table
        if table[name].dtype.kind == "f" and not np.isfinite(table[name]).all()
    ]
    return results.save(
        table,
        f"{experiment}/{preset}",
        configuration=configuration,
        seeds=seeds,
        wall_time_s=time.perf_counter() - start,
        directory=folder,
        allow_missing=missing,
    )
