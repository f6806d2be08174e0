"""Two-Gaussians: a free mixture of two components fitted by stochastic gradients.

Section 4.1 of the paper: Figures 2, 4 and 5 and Table 1 at the settings of its Table 7, then the
same from many more initialisations. Neither the coordinates of the Gaussians nor the distribution
of the initial parameters are printed in the paper; ours are in `Config` and `_shared.draw_mixture`.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping
from functools import cache, partial
from typing import Any

import jax
import optax
import pandas as pd

from ngem_tutorial import em, loop
from ngem_tutorial.datasets import Sample, two_gaussians
from ngem_tutorial.experiments._shared import draw_mixture, mixture_of
from ngem_tutorial.fisher import Coordinate
from ngem_tutorial.loop import Run
from ngem_tutorial.methods import get_method, slug
from ngem_tutorial.metrics import weight_entropy
from ngem_tutorial.networks import PlainMixture
from ngem_tutorial.objectives import nll
from ngem_tutorial.runs import Unit

__all__ = [
    "INITIALISATIONS",
    "PARAMETRISATIONS",
    "PRESETS",
    "TOLERANCE",
    "Config",
    "best_nll",
    "data",
    "measured",
    "outcomes",
    "run",
    "succeeded",
    "train",
    "units",
]

PARAMETRISATIONS: dict[str, Coordinate] = {"σ": "scale", "log σ": "log_scale"}
"""What is trained for the scales; the Fisher block acts in the same coordinate."""

INITIALISATIONS: dict[str, tuple[float, float]] = {"σ = 1": (1.0, 1.0), "σ ~ U(0, 1)": (0.0, 1.0)}
"""From which interval the initial scales are drawn."""

TOLERANCE = 0.2
"""A run succeeds if it ends within this many nats of the best known likelihood. A run that leaves
one component to cover both Gaussians ends two nats away."""


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings; the defaults are those of the paper's Table 7 where it gives them."""

    size: int = 200
    epochs: int = 50
    batch_size: int = 1
    learning_rates: tuple[float, ...] = (1e-1, 1e-2, 1e-3)
    seeds: tuple[int, ...] = (1, 2, 3, 4, 5)
    methods: tuple[str, ...] = (
        "NLL",
        "SGEM",
        "nGEM, paper's code",
        "nGEM, as derived",
        "undamped nGEM",
        "damped nGEM",
        "whitened NLL",
    )
    parametrisations: tuple[str, ...] = ("σ", "log σ")
    initialisations: tuple[str, ...] = ("σ = 1",)
    data_seed: int = 0
    record_every: int = 100
    """Updates between two recorded points."""
    curve_seeds: tuple[int, ...] = (1, 2, 3, 4, 5)
    """The seeds whose recorded points are kept in the stored results."""

    @property
    def record_at(self) -> tuple[int, ...]:
        """The recorded points, the last of them the end."""
        updates = self.epochs * (self.size // self.batch_size)
        return (*range(0, updates, self.record_every), updates)


PRESETS: dict[str, Config] = {
    "quick": Config(seeds=tuple(range(1, 21)), epochs=10, parametrisations=("σ",)),
    "paper": Config(seeds=tuple(range(1, 1001)), initialisations=tuple(INITIALISATIONS)),
}
"""The paper has the seeds 1 to 5 only. With a thousand of them and two starts a combination of the
other settings still takes a few seconds."""


def data(config: Config) -> Sample:
    """Draw the points of a configuration, shared by all of its runs.

    Args:
        config: the settings.

    Returns:
        The points and the mixture that they were drawn from.
    """
    return two_gaussians(jax.random.key(config.data_seed), config.size)


def train(
    config: Config,
    method: str,
    parametrisation: str,
    learning_rate: float,
    initialisation: str = "σ = 1",
) -> Run:
    """Train one method at one rate; `probes["mixture"]` holds the mixtures on the way.

    Without a network the natural step has the right units by itself: those of the target.

    Args:
        config: the settings.
        method: one of `methods.METHODS`.
        parametrisation: one of `PARAMETRISATIONS`.
        learning_rate: of plain stochastic gradient descent.
        initialisation: one of `INITIALISATIONS`.

    Returns:
        The run; runs that turn non-finite are in its `failures`.

    Raises:
        ValueError: if a name is unknown.
    """
    for name, value, choices in (
        ("parametrisation", parametrisation, PARAMETRISATIONS),
        ("initialisation", initialisation, INITIALISATIONS),
    ):
        if value not in choices:
            raise ValueError(f"{name} must be one of {', '.join(choices)}, got {value!r}")
    coordinate = PARAMETRISATIONS[parametrisation]
    chosen = get_method(method, coordinate=coordinate, unit="target")
    return loop.train(
        _model_maker(coordinate, INITIALISATIONS[initialisation]),
        chosen,
        None,
        data(config).y,
        epochs=config.epochs,
        batch_size=config.batch_size,
        learning_rate=learning_rate,
        optimizer=optax.sgd,
        seeds=config.seeds,
        metrics={"nll": nll, "entropy": weight_entropy},
        probes={"mixture": mixture_of},
        record_at=config.record_at,
        on_nonfinite="record",
        label=f"{method}, {parametrisation}, β = {learning_rate:g}",
    )


def run(config: Config) -> pd.DataFrame:
    """Train every method, parametrisation and rate of a configuration.

    Args:
        config: the settings.

    Returns:
        A row for each recorded point of each run: `initialisation`, `parametrisation`, `method`,
        `learning_rate`, `seed`, `update`, `nll` (nats), `entropy` (nats) and `failed_at`, the
        update after which the run had a non-finite value, -1 if it never had. `nll` and
        `entropy` are missing from then on.
    """
    return pd.concat([_table(config, settings) for settings in _grid(config)], ignore_index=True)


_SETTINGS = ("initialisation", "parametrisation", "method", "learning_rate")


def _grid(config: Config) -> list[dict[str, Any]]:
    """The combinations of settings, as arguments of `train`."""
    choices = (
        config.initialisations, config.parametrisations, config.methods, config.learning_rates,
    )  # fmt: skip
    return [dict(zip(_SETTINGS, chosen, strict=True)) for chosen in itertools.product(*choices)]


def _table(config: Config, settings: dict[str, Any]) -> pd.DataFrame:
    result = train(config, **settings)
    table = pd.DataFrame(result.columns()).drop(columns="loss")
    for position, (name, value) in enumerate(settings.items()):
        table.insert(position, name, value)
    return table


def units(config: Config) -> list[Unit]:
    """The parts of the experiment: one combination of settings each, with all of the seeds.

    Args:
        config: the settings.

    Returns:
        Units with the tables `curves` (the rows of `run` for `curve_seeds`, to six decimals and
        without `failed_at`) and `outcomes` (a row per run; see `outcomes`).
    """
    seconds = 1.0 + 2.2e-7 * config.record_at[-1] * len(config.seeds)
    return [
        Unit(_name(**chosen), partial(_run_unit, config, chosen), seconds)
        for chosen in _grid(config)
    ]


def _name(initialisation: str, parametrisation: str, method: str, learning_rate: float) -> str:
    """A combination of settings in the characters that files take."""
    low, high = INITIALISATIONS[initialisation]
    coordinate = PARAMETRISATIONS[parametrisation]
    return f"{slug(method)}-{coordinate}-start={low:g}-{high:g}-lr={learning_rate:g}"


def _run_unit(config: Config, settings: dict[str, Any]) -> dict[str, pd.DataFrame]:
    table = _table(config, settings)
    curves = table[table["seed"].isin(config.curve_seeds)].drop(columns="failed_at")
    rounded = {name: curves[name].astype(float).round(6) for name in ("nll", "entropy")}
    return {
        "curves": curves.assign(**rounded).reset_index(drop=True),
        "outcomes": outcomes(table, best_nll(config)),
    }


def measured(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """The final entropy of each run from scales of one, for the comparison with Table 1.

    The paper says neither what is trained for the scales nor where they start. The conditions
    without an addition are those of the scales themselves, in which its code takes gradients.

    Args:
        tables: those of `units`.

    Returns:
        The rows that `comparison.compare` takes.
    """
    runs = tables["outcomes"]
    runs = runs[runs["initialisation"] == "σ = 1"]
    rates = runs["learning_rate"].map("β = {:g}".format)
    added = runs["parametrisation"].map({"σ": "", "log σ": ", log σ"})
    rows = runs[["method", "seed"]].assign(
        table="Table 1", condition=rates + added, quantity="entropy", value=runs["entropy"]
    )
    return rows.reset_index(drop=True)


def best_nll(config: Config, num_steps: int = 100) -> float:
    """The best known negative log-likelihood of the data: exact EM from the true mixture.

    Args:
        config: the settings.
        num_steps: steps of EM.

    Returns:
        Nats per point.
    """
    sample = data(config)
    _, log_likelihood = em.iterate(em.em_step, sample.truth, sample.y, num_steps)
    return -float(log_likelihood[-1])


def outcomes(table: pd.DataFrame, best: float, tolerance: float = TOLERANCE) -> pd.DataFrame:
    """Reduce the recorded points of `run` to one row per run.

    Args:
        table: what `run` returned.
        best: the negative log-likelihood to compare with, nats; see `best_nll`.
        tolerance: how near is near, nats.

    Returns:
        The settings and `seed` of the run, `excess_nll` (final, nats above `best`, to four
        decimals), `entropy` (final, to four decimals), `first_within` (first recorded update
        within the tolerance, -1 if none) and `failed_at`.
    """
    keys = [*_SETTINGS, "seed"]
    excess = table["nll"] - best
    within = table[excess < tolerance].groupby(keys)["update"].min().rename("first_within")
    last = table[table["update"] == table["update"].max()].copy()
    last["excess_nll"] = excess[last.index].round(4)
    last["entropy"] = last["entropy"].round(4)
    last = last.join(within, on=keys)
    last["first_within"] = last["first_within"].fillna(-1).astype(int)
    order = [*keys, "excess_nll", "entropy", "first_within", "failed_at"]
    return last[order].reset_index(drop=True)


def succeeded(outcomes: pd.DataFrame, tolerance: float = TOLERANCE) -> pd.Series:
    """Which runs ended within the tolerance of the best known likelihood.

    Args:
        outcomes: what `outcomes` returned.
        tolerance: how near is near, nats.

    Returns:
        A boolean for each row, false for a run that was not finite.
    """
    return outcomes["excess_nll"] < tolerance


@cache
def _model_maker(
    coordinate: Coordinate, initial_scale: tuple[float, float]
) -> partial[PlainMixture]:
    return partial(draw_mixture, coordinate=coordinate, initial_scale=initial_scale)
