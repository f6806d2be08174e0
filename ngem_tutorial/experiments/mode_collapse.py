"""Mode collapse: are the learned weights right, and not merely even?

Section 4.2 of the paper measures collapse by the entropy of the learned weights on data whose
components have equal shares: the more, the better. With unequal shares the entropy can also be too
high. Here both tasks are run with a larger share of 0.5 to 0.97, and the weights are compared with
the generator's.
"""

from __future__ import annotations

import dataclasses
from functools import partial

import jax
import numpy as np
import optax
import pandas as pd
from flax import nnx

from ngem_tutorial import em, loop
from ngem_tutorial.datasets import Sample, two_gaussians
from ngem_tutorial.experiments import two_sinusoids as conditional
from ngem_tutorial.experiments._shared import draw_mixture, mixture_of
from ngem_tutorial.loop import Run
from ngem_tutorial.methods import get_method, slug
from ngem_tutorial.metrics import collapse, weight_entropy
from ngem_tutorial.networks import PlainMixture
from ngem_tutorial.objectives import nll
from ngem_tutorial.runs import Unit

__all__ = [
    "FREE",
    "PRESETS",
    "Config",
    "data",
    "outcomes",
    "train",
    "units",
]

FREE = "free mixture"
"""What stands in the place of a reading in the rows of Two-Gaussians: there is no network."""

_SINUSOIDS = conditional.Config(record_at=(0, 15_000))


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings; those that the paper prints are those of its Tables 7 and 8."""

    seeds: tuple[int, ...] = tuple(range(1, 301))
    """Of Two-Gaussians; Two-Sinusoids takes the first ones."""
    weights: tuple[float, ...] = (0.5, 0.7, 0.9, 0.97)
    """Larger share of the components in Two-Gaussians."""
    learning_rates: tuple[float, ...] = (1e-1, 1e-2, 1e-3)
    """Of stochastic gradient descent on Two-Gaussians."""
    methods: tuple[str, ...] = (
        "NLL",
        "SGEM",
        "nGEM, paper's code",
        "undamped nGEM",
        "nGEM, as derived",
        "damped nGEM",
    )
    size: int = 200
    epochs: int = 50
    batch_size: int = 1
    data_seed: int = 0
    sinusoids: conditional.Config = _SINUSOIDS
    """Settings of Two-Sinusoids, but for the weights and readings."""
    sinusoid_runs: tuple[tuple[float, conditional.Reading], ...] = (
        (0.7, conditional.Reading(num_seeds=10, learning_rates=(1e-3,))),
        (0.9, conditional.Reading(num_seeds=10, learning_rates=(1e-3, 1e-4))),
        (0.9, conditional.Reading("two trunks", trunks=2, num_seeds=5, learning_rates=(1e-3,))),
    )
    """Larger share of the waves in Two-Sinusoids, and what is run with it. Equal shares are in
    the results of `two_sinusoids`."""


_QUICK = ("NLL", "nGEM, paper's code", "undamped nGEM", "damped nGEM")

PRESETS: dict[str, Config] = {
    "quick": Config(
        seeds=tuple(range(1, 51)),
        weights=(0.5, 0.9),
        learning_rates=(1e-2,),
        methods=_QUICK,
        epochs=20,
        sinusoids=conditional.Config(epochs=100, record_at=(0, 1500)),
        sinusoid_runs=(
            (0.9, conditional.Reading(num_seeds=1, methods=_QUICK, learning_rates=(1e-3,))),
        ),
    ),
    "paper": Config(),
}
"""Settings by name: `quick` takes seconds, `paper` has the size of the stored results."""


def data(config: Config, weight: float) -> Sample:
    """Draw the points of Two-Gaussians, shared by all runs of a share.

    Args:
        config: the settings.
        weight: share of the first component.

    Returns:
        The points, exactly that share of them from the first component, and the generator.
    """
    key = jax.random.key(config.data_seed)
    return two_gaussians(key, config.size, weights=(weight, 1.0 - weight))


def train(config: Config, weight: float, method: str, learning_rate: float) -> Run:
    """Train free mixtures on Two-Gaussians from all seeds; log-deviations are trained.

    Args:
        config: the settings.
        weight: share of the first component in the data.
        method: one of `methods.METHODS`.
        learning_rate: of plain stochastic gradient descent.

    Returns:
        The run, evaluated at the end only; `probes["mixture"]` holds the mixtures.

    Raises:
        ValueError: if a setting is out of range or the method is unknown.
    """
    updates = config.epochs * (config.size // config.batch_size)
    chosen = get_method(method, coordinate="log_scale", unit="target")
    return loop.train(
        _make_model,
        chosen,
        None,
        data(config, weight).y,
        epochs=config.epochs,
        batch_size=config.batch_size,
        learning_rate=learning_rate,
        optimizer=optax.sgd,
        seeds=config.seeds,
        metrics={"nll": nll, "entropy": weight_entropy},
        probes={"mixture": mixture_of},
        record_at=(updates,),
        on_nonfinite="record",
        label=f"{method}, weight {weight:g}, β = {learning_rate:g}",
    )


def _make_model(rngs: nnx.Rngs) -> PlainMixture:
    """Logits and means from N(0, 1), scales of one."""
    return draw_mixture(rngs, "log_scale", (1.0, 1.0))


def outcomes(config: Config, weight: float, result: Run) -> pd.DataFrame:
    """Reduce runs of Two-Gaussians to what they ended with.

    Args:
        config: the settings.
        weight: share of the first component in the data.
        result: what `train` returned.

    Returns:
        A row per run: `seed`, `excess_nll` (above that of exact EM from the truth, on the training
        points), `entropy` (nats), `largest_weight`, `collapsed_inputs` (1 if the mixture has
        collapsed, else 0), `mean_error` (see `two_sinusoids.outcome`) and `failed_at`; all but
        `seed` and `failed_at` missing if the run was not finite.
    """
    sample = data(config, weight)
    _, log_likelihood = em.iterate(em.em_step, sample.truth, sample.y, 100)
    mixture = jax.tree.map(lambda leaf: leaf[:, -1], result.probes["mixture"])
    end = collapse(sample.truth, mixture, conditional.COLLAPSED)
    failed = pd.DataFrame(result.columns())["failed_at"]
    values = pd.DataFrame(
        {
            "excess_nll": result.metrics["nll"][:, -1] + float(log_likelihood[-1]),
            "entropy": result.metrics["entropy"][:, -1],
            "largest_weight": end["largest_weight"],
            "collapsed_inputs": end["collapsed"],
            "mean_error": np.sqrt(end["squared_error"]),
        },
        dtype=np.float64,
    )
    values = values.where(failed < 0, np.nan).round(4)
    return values.assign(seed=result.seeds, failed_at=failed)[["seed", *values, "failed_at"]]


def units(config: Config) -> list[Unit]:
    """The parts of the experiment: a share of Two-Gaussians, or a method on Two-Sinusoids.

    Args:
        config: the settings.

    Returns:
        Units with the table `runs`, a row per run: `task`, `reading` (`"free mixture"` or that of
        the network), `weight` (the larger share in the data), `method`, `learning_rate`, and what
        `outcomes` has.
    """
    rates = len(config.learning_rates)
    gaussians = [
        Unit(
            slug(f"gaussians-weight={weight:g}"),
            partial(_run_gaussians, config, weight),
            len(config.methods) * (3.0 + rates * len(config.seeds) * config.epochs * 3e-5),
        )
        for weight in config.weights
    ]
    sinusoids = [
        Unit(
            f"sinusoids-weight={weight:g}-{unit.name}",
            partial(_run_sinusoids, weight, unit),
            unit.seconds,
        )
        for weight, reading in config.sinusoid_runs
        for unit in conditional.units(
            dataclasses.replace(
                config.sinusoids, weights=(weight, 1.0 - weight), readings=(reading,)
            )
        )
    ]
    return gaussians + sinusoids


def _run_gaussians(config: Config, weight: float) -> dict[str, pd.DataFrame]:
    rows = []
    for method in config.methods:
        for rate in config.learning_rates:
            table = outcomes(config, weight, train(config, weight, method, rate))
            settings = {"reading": FREE, "weight": weight, "method": method, "learning_rate": rate}
            rows.append(table.assign(task="Two-Gaussians", **settings))
    return {"runs": pd.concat(rows, ignore_index=True)[_COLUMNS]}


def _run_sinusoids(weight: float, unit: Unit) -> dict[str, pd.DataFrame]:
    final = unit.run()["final"]
    return {"runs": final.assign(task="Two-Sinusoids", weight=weight)[_COLUMNS]}


_COLUMNS = [
    "task",
    "reading",
    "weight",
    "method",
    "learning_rate",
    "seed",
    "excess_nll",
    "entropy",
    "largest_weight",
    "collapsed_inputs",
    "mean_error",
    "failed_at",
]
