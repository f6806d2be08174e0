"""Regression on three UCI data sets: objectives and optimisers, on the standard splits.

Section 4.4 of the paper: Table 5 at the settings of its Table 10. The paper states neither the
scaling of features and targets, nor the splits, nor the exponent of the beta-NLL, nor how the
scales are made positive and started; ours are in `Config`. `protocol` holds the search for the
scaling that comes nearest to the paper's numbers.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from functools import cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from flax import nnx

from ngem_tutorial import loop
from ngem_tutorial.datasets import SCALINGS, rescale, uci_split
from ngem_tutorial.methods import Method, get_method, slug
from ngem_tutorial.metrics import (
    least_squared_error,
    regression_scores,
    squared_error,
    weight_entropy,
)
from ngem_tutorial.mixtures import GaussianMixture
from ngem_tutorial.networks import MixtureDensityNetwork
from ngem_tutorial.objectives import Objective, beta_nll, mse, nll
from ngem_tutorial.optimizers import get_optimizer
from ngem_tutorial.runs import Unit

__all__ = [
    "OPTIMIZERS",
    "PRESETS",
    "TABLE_10",
    "Config",
    "Run",
    "Task",
    "measured",
    "runs",
    "train",
    "units",
]

OPTIMIZERS: dict[str, str] = {"Adam": "adam", "K-FAC": "kfac", "Muon": "muon", "SOAP": "soap"}
"""Optimisers as the tables name them, and as `optimizers.get_optimizer` does."""

SINGLE: tuple[str, ...] = ("β-NLL", "MSE")
"""The methods whose network has one Gaussian, and not a mixture."""


class Task(NamedTuple):
    """How a data set is trained."""

    dataset: str
    learning_rate: float
    epochs: int
    batch_size: int
    costly_seeds: int = 5
    """How many of the seeds run with the optimisers other than Adam."""


TABLE_10 = (
    Task("kin8nm", 1e-3, 250, 128),
    Task("energy", 1e-4, 125, 16, costly_seeds=10),
    Task("housing", 1e-4, 125, 32, costly_seeds=10),
)
"""The settings of the paper's Table 10."""


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings; the defaults are those of the paper's Table 10 where it gives them.

    The run of seed `s` is trained and tested on split `s - 1`.
    """

    tasks: tuple[Task, ...] = TABLE_10
    num_components: int = 3
    hidden: tuple[int, ...] = (128, 128)
    optimizers: tuple[str, ...] = tuple(OPTIMIZERS)
    methods: tuple[str, ...] = (
        "NLL",
        "nGEM, paper's code",
        "nGEM, as derived",
        "undamped nGEM",
        "whitened NLL",
    )
    adam_methods: tuple[str, ...] = ("SGEM", "damped nGEM", "β-NLL", "MSE")
    """Methods that run with Adam only, besides the others."""
    seeds: tuple[int, ...] = tuple(range(1, 21))
    """Of the runs with Adam; see `Task.costly_seeds` for the others."""
    scaling: str = "[0, 1]"
    """Of features and target, fitted on the training data."""
    protocol_scalings: tuple[str, ...] = SCALINGS
    """What is tried with Adam, `protocol_methods` and `protocol_seeds`."""
    protocol_seeds: tuple[int, ...] = (1, 2, 3, 4, 5)
    protocol_methods: tuple[str, ...] = ("NLL", "nGEM, paper's code", "β-NLL", "MSE")
    beta: float = 0.5
    """Exponent of the beta-NLL: the recommendation of its authors."""
    min_scale: float = 1e-3
    """Floor of the scales, in units of the scaled target."""
    initial_scale: float = 1.0
    """Where the scales start, likewise."""
    points: int = 20
    """Number of evaluations during training, after the one of the initial network."""
    curve_seeds: tuple[int, ...] = (1, 2, 3, 4, 5)
    """The runs whose evaluations during training are kept."""


PRESETS: dict[str, Config] = {
    "quick": Config(
        tasks=(Task("housing", 1e-3, 20, 32, costly_seeds=1),),
        optimizers=("Adam", "Muon"),
        methods=("NLL", "nGEM, paper's code"),
        adam_methods=("β-NLL",),
        seeds=(1, 2, 3),
        protocol_scalings=(),
    ),
    "paper": Config(),
}
"""Settings by name: `quick` takes seconds, `paper` has the size of the stored results."""


class Run(NamedTuple):
    """One setting and the seeds that it runs with."""

    task: Task
    scaling: str
    optimizer: str
    method: str
    seeds: tuple[int, ...]


def runs(config: Config) -> list[Run]:
    """List what a configuration trains, each combination of settings once.

    Args:
        config: the settings.

    Returns:
        The runs in our scaling, those with Adam first, then the search for the scaling.
    """

    def with_optimizer(optimizer: str) -> list[Run]:
        adam = optimizer == "Adam"
        methods = (*config.methods, *config.adam_methods) if adam else config.methods
        return [
            Run(task, config.scaling, optimizer, method, config.seeds[:number])
            for task in config.tasks
            for number in [len(config.seeds) if adam else task.costly_seeds]
            for method in methods
        ]

    search = [
        Run(task, scaling, "Adam", method, config.protocol_seeds)
        for task in config.tasks
        for method in config.protocol_methods
        for scaling in config.protocol_scalings
        if scaling != config.scaling  # these are among the runs of Adam
    ]
    ours = [run for optimizer in config.optimizers for run in with_optimizer(optimizer)]
    return sorted(ours, key=lambda run: run.optimizer != "Adam") + search


# ------------------------------------------------------------------------------------ one run


_METRICS: dict[str, Objective] = {
    "nll": nll,
    "rmse_min": least_squared_error,
    "rmse_mean": squared_error,
    "entropy": weight_entropy,
}


@nnx.jit
def _scores(model: Any, x: jax.Array, y: jax.Array) -> dict[str, jax.Array]:
    return regression_scores(model(x), y)


def train(config: Config, run: Run) -> dict[str, pd.DataFrame]:
    """Train a setting from each of its seeds, each on its own split.

    Args:
        config: the settings that all runs share.
        run: the setting and the seeds.

    Returns:
        `final`, a row per seed: what was run; the scores of `scores` on the test data, in units
        of the scaled target; `train_nll` and `train_rmse_min`; `target_scale`, whose logarithm
        added to `nll` gives nats of the raw target, and by which the others are to be multiplied;
        `failed_at`, the update after which the run had a non-finite value, -1 if it never had.
        `nll` is missing for "MSE", and all scores for a run that was not finite. `curves`: for
        the seeds and points that are kept, `update`, `loss` (mean of the objective since the
        point before) and the scores on the test data.

    Raises:
        ValueError: if a name is unknown.
    """
    if run.optimizer not in OPTIMIZERS:
        raise ValueError(f"optimizer must be one of {', '.join(OPTIMIZERS)}, got {run.optimizer!r}")
    parts = [_train_one(config, run, seed) for seed in run.seeds]
    return {name: pd.concat([part[name] for part in parts], ignore_index=True) for name in parts[0]}


def _train_one(config: Config, run: Run, seed: int) -> dict[str, pd.DataFrame]:
    data, _, target_scale = rescale(uci_split(run.task.dataset, seed - 1), run.scaling)
    updates = run.task.epochs * (len(data.y_train) // run.task.batch_size)
    method = _method(run.method, config.beta)
    result = loop.train(
        model_maker(config, data.x_train.shape[1], 1 if run.method in SINGLE else None),
        method,
        data.x_train,
        data.y_train,
        epochs=run.task.epochs,
        batch_size=run.task.batch_size,
        learning_rate=run.task.learning_rate,
        optimizer=get_optimizer(OPTIMIZERS[run.optimizer]),
        seeds=(seed,),
        metrics=_METRICS,
        evaluation=(data.x_test, data.y_test),
        record_at=np.unique(np.linspace(0, updates, config.points + 1).astype(int)).tolist(),
        on_nonfinite="record",
        label=f"{run.task.dataset}, {run.optimizer}, {run.method}, seed {seed}",
    )
    curves = pd.DataFrame(result.columns())
    failed_at = int(curves.pop("failed_at").iloc[-1])
    curves[["rmse_min", "rmse_mean"]] **= 0.5  # the mean is taken, now the root
    model = result.model()
    test = _scores(model, jnp.asarray(data.x_test), jnp.asarray(data.y_test))
    train = _scores(model, jnp.asarray(data.x_train), jnp.asarray(data.y_train))
    row = {name: float(value) for name, value in test.items()}
    row |= {f"train_{name}": float(train[name]) for name in ("nll", "rmse_min")}
    if failed_at >= 0:
        row = dict.fromkeys(row, math.nan)
    final = pd.DataFrame([{"seed": seed, **row, "target_scale": target_scale}])
    final["failed_at"] = failed_at
    if run.method == "MSE":  # its scale is not trained
        final[["nll", "train_nll"]] = math.nan
        curves["nll"] = math.nan
    kept = run.scaling == config.scaling and seed in config.curve_seeds
    curves = _labelled(run, curves)
    return {"final": _labelled(run, final), "curves": curves[: len(curves) if kept else 0]}


def _labelled(run: Run, rows: pd.DataFrame) -> pd.DataFrame:
    """Put what was run before the rows; round to what is worth keeping."""
    labels = {
        "dataset": run.task.dataset,
        "scaling": run.scaling,
        "optimizer": run.optimizer,
        "method": run.method,
    }
    for position, (name, label) in enumerate(labels.items()):
        rows.insert(position, name, label)
    numbers = rows.select_dtypes("floating").columns
    rounded = rows[numbers].map(lambda value: float(f"{value:.6g}")).astype("float64")
    return rows.assign(**rounded)


@cache
def model_maker(config: Config, features: int, components: int | None) -> partial:
    """What builds the network; the same object each time, so that programs are reused."""
    return partial(
        _make_model, features, components or config.num_components, config.hidden,
        config.min_scale, config.initial_scale,
    )  # fmt: skip


def _make_model(
    features: int,
    components: int,
    hidden: Sequence[int],
    min_scale: float,
    initial_scale: float,
    rngs: nnx.Rngs,
) -> MixtureDensityNetwork:
    return MixtureDensityNetwork(
        features, components, 1,
        hidden=hidden, min_scale=min_scale, initial_scale=initial_scale, rngs=rngs,
    )  # fmt: skip


@dataclasses.dataclass(frozen=True)
class _BetaNLL:
    """`beta_nll` at one exponent; equal ones hash equal."""

    beta: float

    def __call__(self, mixture: GaussianMixture, y: jax.Array) -> jax.Array:
        return beta_nll(mixture, y, self.beta)


def _method(name: str, beta: float) -> Method:
    if name in SINGLE:
        return Method(name, mse if name == "MSE" else _BetaNLL(beta))
    return get_method(name)


# ---------------------------------------------------------------------------------- all of them

_MILLISECONDS = {
    "Adam": (0.2, 0.05, 0.1),
    "Muon": (0.8, 0.5, 0.7),
    "SOAP": (0.8, 0.6, 1.0),
    "K-FAC": (1.3, 1.0, 1.3),
}
"""Of an update, by the optimiser and the data set in the order of `TABLE_10`."""

_COMPILE_SECONDS = {"Adam": 4.0, "Muon": 5.0, "SOAP": 6.0, "K-FAC": 8.0}

_EXAMPLES = {"kin8nm": 7373, "energy": 691, "housing": 455}


def units(config: Config) -> list[Unit]:
    """The parts of the experiment: a setting with as many seeds as fit into about 100 seconds.

    Args:
        config: the settings; the data are read when a part is computed.

    Returns:
        Units with the tables `final` and `curves`; see `train`.
    """
    found = []
    for run in runs(config):
        seconds = _seconds(run)
        size = max(1, int(100.0 / seconds))
        for start in range(0, len(run.seeds), size):
            part = run._replace(seeds=run.seeds[start : start + size])
            expected = _COMPILE_SECONDS[run.optimizer] + seconds * len(part.seeds)
            found.append(Unit(_name(part), partial(train, config, part), expected))
    return found


def _seconds(run: Run) -> float:
    """Expected time of one seed, compilation apart."""
    names = [task.dataset for task in TABLE_10]
    milliseconds = _MILLISECONDS[run.optimizer][names.index(run.task.dataset)]
    batches = _EXAMPLES[run.task.dataset] // run.task.batch_size
    return 1e-3 * milliseconds * run.task.epochs * batches + 0.2


def _name(run: Run) -> str:
    method = slug(run.method.replace("β", "beta"))
    scaling = {"[0, 1]": "unit", "[-1, 1]": "symmetric"}.get(run.scaling, run.scaling)
    seeds = f"seeds={run.seeds[0]}-{run.seeds[-1]}"
    return f"{run.task.dataset}-{scaling}-{run.optimizer}-{method}-{seeds}"


def measured(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """The final numbers of each run in our scaling, for the comparison with Table 5 of the paper.

    Args:
        tables: those of `units`.

    Returns:
        The rows that `comparison.compare` takes: the condition is the data set, the method
        "Adam + NLL", for instance, the quantities are "nll" (nats of the scaled target) and
        "rmse × 10" (ten times `rmse_min`, in units of the scaled target).
    """
    final = tables["final"]
    ours = final[final["scaling"] == final["scaling"].iloc[0]]  # the order of `runs`
    ours = ours.assign(
        table="Table 5",
        condition=ours["dataset"],
        method=ours["optimizer"] + " + " + ours["method"],
        **{"rmse × 10": 10.0 * ours["rmse_min"]},
    )
    rows = ours.melt(
        ["table", "condition", "method", "seed"],
        ["nll", "rmse × 10"],
        var_name="quantity",
        value_name="value",
    )
    no_density = rows["method"].str.endswith("MSE") & rows["quantity"].eq("nll")
    return rows[~no_density].reset_index(drop=True)
