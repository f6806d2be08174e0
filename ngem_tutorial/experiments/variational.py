"""Variational inference: seven choices on targets of known difficulty.

The targets and starts are those of Arenz et al. (2023), Arenz et al. (2020), Lin et al. (2020) and
Blessing et al. (2024). The methods are the published combinations of the seven modules and those
that differ from the recommended one, SAMTRON, in one letter.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

from ngem_tutorial.runs import Unit
from ngem_tutorial.vi import (
    Design,
    TargetError,
    VIFit,
    fit_density,
    get_design,
    initial_mixture,
    modes_found,
)
from ngem_tutorial.vi import targets as generators
from ngem_tutorial.vi.adaptation import AdaptiveNumber
from ngem_tutorial.vi.targets import Target

__all__ = [
    "ABLATION",
    "LARGE",
    "PRESETS",
    "PUBLISHED",
    "TARGETS",
    "TUNING_SEED",
    "Config",
    "Task",
    "design",
    "fit",
    "units",
]

PUBLISHED = ("SAMTRON", "ZAMTRUX", "SEPIFUX", "SEPYFUX")
"""Recommended by Arenz et al. (2023); VIPS; iBayes-GMM, and with the improved learning rule."""

ABLATION = ("SEMTRON", "SAPTRON", "SAMYRON", "SAMTFON", "SAMTRUN", "SAMTROX")
"""SAMTRON with one letter changed; for the estimator see ZAMTRUX."""

TARGETS: dict[str, Callable[[jax.Array], Target]] = {
    "GMM20": lambda key: generators.gaussian_mixture(key, 20),
    "GMM100": lambda key: generators.gaussian_mixture(key, 100),
    "STM20": lambda key: generators.student_mixture(key, 20),
    "STM300": lambda key: generators.student_mixture(key, 300, harder=True),
    "planar robot": lambda key: generators.planar_robot(),
    "breast cancer": lambda key: generators.breast_cancer(),
    "German credit": lambda key: generators.german_credit(),
    "funnel": lambda key: generators.funnel(),
    "40 Gaussians": lambda key: generators.unit_gaussians(key, 2),
    "40 Gaussians, d = 50": lambda key: generators.unit_gaussians(key, 50),
    "Student products": lambda key: generators.student_products(key, 10),
    "ring": lambda key: generators.ring(),
    "banana": lambda key: generators.banana(),
    "grid": lambda key: generators.gaussian_grid(),
}
"""Targets by name; those that are drawn take the key of the run's seed."""


@dataclasses.dataclass(frozen=True)
class Task:
    """A target and what is run on it."""

    target: str
    """A key of `TARGETS`."""
    methods: tuple[str, ...] = PUBLISHED
    """Codewords."""
    iterations: int = 1000
    """At most, of a method that samples each component."""
    evaluations: int = 300_000
    """Of the target; the run ends after the block in which it has had so many."""
    samples: int = 100
    """Effective number of samples for each component."""
    reuse: float = 2.0
    """How many times that many old samples count."""
    mixture_samples: int = 1000
    """Samples of an iteration of a method that samples the mixture."""
    every: int = 30
    """Iterations between two additions."""
    components: int = 20
    """At the start of a method with a fixed number of components, if the target's has fewer."""
    steps: tuple[tuple[str, float, float], ...] = ()
    """Codewords of methods without a trust region, with the step sizes of components and weights.
    Those of `PRESETS` had the lowest loss, of 12 pairs or, for logistic regressions, of 3, in a run
    with the seed `TUNING_SEED`."""
    seconds: float = 10.0
    """What a run takes, about, on one core."""


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings of a preset."""

    tasks: tuple[Task, ...]
    seeds: tuple[int, ...] = tuple(range(1, 11))
    fresh: int = 20_000
    """Samples that a fit is judged by, which are not counted as evaluations."""
    points: int = 12
    """How many points of each run's curve are kept."""


TUNING_SEED = 101
"""Step sizes were chosen with this one, which is none of a preset's seeds."""


def _ibayes(first: tuple[float, float], second: tuple[float, float]) -> tuple[Any, ...]:
    """Step sizes of the direct and of the improved rule."""
    return ("SEPIFUX", *first), ("SEPYFUX", *second)


PRESETS: dict[str, Config] = {
    "quick": Config(
        tasks=(
            Task(
                "banana",
                ("SAMTRON", "SEPYFUX"),
                60,
                20_000,
                components=4,
                steps=(("SEPYFUX", 0.05, 0.01),),
            ),
            Task("grid", ("SAMTRON",), 120, 20_000, every=10),
        ),
        seeds=(1, 2),
        fresh=2_000,
    ),
    "paper": Config(
        tasks=(
            Task("ring", every=10, iterations=600, steps=_ibayes((0.1, 0.01), (0.03, 1e-4))),
            Task("banana", every=10, iterations=600, steps=_ibayes((0.1, 1e-4), (0.03, 0.01))),
            Task(
                "grid",
                every=10,
                iterations=600,
                components=25,
                steps=_ibayes((0.1, 0.01), (0.1, 0.01)),
            ),
            Task(
                "GMM20",
                (*PUBLISHED, *ABLATION),
                steps=_ibayes((0.03, 1.0), (0.03, 1e-4)),
            ),
            Task(
                "breast cancer",
                ("SAMTRON", "SEPIFUX", "SEPYFUX", "SEMTRON", "SAPTRON", "SAMYRON"),
                evaluations=500_000,
                samples=200,
                reuse=0.0,
                mixture_samples=100,
                every=10,
                components=1,
                steps=_ibayes((1e-4, 1e-4), (3e-4, 1e-4)),
            ),
            Task(
                "STM20",
                evaluations=1_650_000,
                samples=200,
                reuse=0.0,
                every=10,
                steps=_ibayes((0.1, 0.01), (0.1, 0.01)),
                seconds=30.0,
            ),
            Task("40 Gaussians", every=10, components=40, steps=_ibayes((0.1, 0.01), (0.03, 1e-4))),
            Task("funnel", iterations=600, every=20, steps=_ibayes((0.1, 1e-4), (0.1, 0.01))),
            Task("Student products", steps=_ibayes((0.1, 0.01), (0.1, 0.01))),
            Task(
                "German credit",
                ("SAMTRON", "SEPIFUX", "SEPYFUX"),
                samples=200,
                reuse=0.0,
                mixture_samples=100,
                every=10,
                components=1,
                steps=_ibayes((1e-4, 1e-4), (3e-4, 1e-4)),
            ),
        )
    ),
}
"""Settings by name: `quick` takes a minute, `paper` has the size of the stored results.

The regression of `Z` wants `(d + 1)(d + 2) / 2` samples for each component, so ZAMTRUX is run up to
20 dimensions."""

LARGE: dict[str, Config] = {
    "quick": Config(
        tasks=(Task("GMM100", ("SAMTRON",), 40, 20_000, every=10),), seeds=(1,), fresh=2_000
    ),
    "paper": Config(
        tasks=(
            Task("GMM100", ("SAMTRON",), iterations=600, seconds=60.0),
            Task("40 Gaussians, d = 50", ("SAMTRON",), iterations=400, every=10, seconds=60.0),
            Task(
                "breast cancer",
                ("SAMTRON",),
                evaluations=2_400_000,
                samples=200,
                reuse=0.0,
                every=10,
                seconds=60.0,
            ),
            Task(
                "planar robot",
                ("SAMTRON",),
                evaluations=3_000_000,
                samples=25,
                reuse=0.0,
                every=10,
                seconds=120.0,
            ),
        )
    ),
    "widest": Config(
        tasks=(
            Task(
                "STM300",
                ("SAMTRON",),
                iterations=100,
                evaluations=500_000,
                samples=200,
                reuse=0.0,
                every=10,
                seconds=400.0,
            ),
        ),
        seeds=(1, 2, 3, 4, 5),
    ),
}
"""Settings of the largest targets and budgets, for which only the recommended method is run:
`paper` from ten seeds, `widest` in 300 dimensions from five."""


def design(task: Task, codeword: str) -> Design:
    """Return a method with a task's options.

    Args:
        task: the settings.
        codeword: seven letters.

    Returns:
        The design.

    Raises:
        ValueError: if a letter is unknown.
    """
    chosen = get_design(codeword)
    if codeword[2] == "M":
        number, reuse = task.samples, task.reuse
    else:  # samples of the mixture are not used again, as published
        number, reuse = task.mixture_samples, 0.0
    sampling = dataclasses.replace(chosen.sampling, number=number, reuse=reuse)
    adaptation, update, weights = chosen.adaptation, chosen.component_update, chosen.weight_update
    if isinstance(adaptation, AdaptiveNumber):
        adaptation = dataclasses.replace(adaptation, every=task.every)
    for name, step, weight_step in task.steps:
        if name == codeword:
            update = dataclasses.replace(update, first_step=step)
            weights = dataclasses.replace(weights, first_step=weight_step)
    return dataclasses.replace(
        chosen,
        sampling=sampling,
        adaptation=adaptation,
        component_update=update,
        weight_update=weights,
    )


def fit(task: Task, codeword: str, seed: int) -> tuple[Target, VIFit]:
    """Fit one target by one method.

    Args:
        task: the settings.
        codeword: seven letters.
        seed: of the target where it is drawn, of the start and of the run.

    Returns:
        The target and the fit.

    Raises:
        ValueError: if a name is unknown.
        TargetError: if the target is not a number at a sample.
    """
    target_key, start_key, key = jax.random.split(jax.random.key(seed), 3)
    target = TARGETS[task.target](target_key)
    start = target.start(start_key)
    if codeword[1] == "E" and start.num_components < task.components:
        scale = jnp.diagonal(start.factors[0])
        start = initial_mixture(start_key, target.dim, task.components, spread=scale, scale=scale)
    iterations = task.iterations
    if codeword[2] == "P":
        iterations = -(-task.evaluations // task.mixture_samples)
    return target, fit_density(
        target.log_density,
        target.dim,
        key=key,
        method=design(task, codeword),
        num_iterations=iterations,
        max_evaluations=task.evaluations,
        start=start,
    )


def units(config: Config) -> list[Unit]:
    """The parts of the experiment: one target, method and seed each.

    Args:
        config: the settings.

    Returns:
        Units with the tables `outcomes`, a row, and `curves`, a row for each kept point. A run
        whose target was not a number has missing values and the reason in `failure`.
    """
    return [
        Unit(
            f"{_slug(task.target)}-{codeword}-{seed}",
            partial(_run_unit, config, task, codeword, seed),
            task.seconds,
        )
        for task in config.tasks
        for codeword in task.methods
        for seed in config.seeds
    ]


def _slug(name: str) -> str:
    return "".join(c if c.isalnum() else "_" for c in name)


_OUTCOMES = (
    "loss", "loss_error", "forward_kl", "forward_error", "modes_found", "num_modes",
    "num_components", "iterations", "evaluations", "refused", "rejected", "seconds",
    "compile_seconds",
)  # fmt: skip


def _run_unit(config: Config, task: Task, codeword: str, seed: int) -> dict[str, pd.DataFrame]:
    head = {"target": task.target, "method": codeword, "seed": seed}
    try:
        target, found = fit(task, codeword, seed)
    except TargetError as error:
        row = head | dict.fromkeys(_OUTCOMES, np.nan) | {"failure": str(error)}
        return {"outcomes": pd.DataFrame([row]), "curves": _curve(config, head, None)}
    outcome = _outcome(config, target, found, seed)
    row = head | outcome | {"failure": ""}
    return {"outcomes": pd.DataFrame([row]), "curves": _curve(config, head, found)}


def _outcome(config: Config, target: Target, found: VIFit, seed: int) -> dict[str, float]:
    """What fresh samples say of a fit, in the order of `_OUTCOMES`."""
    own_key, target_key = jax.random.split(jax.random.fold_in(jax.random.key(seed), 1))
    log_evidence = target.log_evidence or 0.0
    x = found.mixture.sample(own_key, config.fresh)
    loss = np.asarray(found.mixture.log_prob(x) - jax.vmap(target.log_density)(x), np.float64)
    loss += log_evidence
    forward = np.full(2, np.nan)
    if target.sample is not None:
        y = target.sample(target_key, config.fresh)
        forward = np.asarray(
            jax.vmap(target.log_density)(y) - found.mixture.log_prob(y), np.float64
        )
        forward -= log_evidence
    modes = target.modes
    history = found.history
    values = (
        loss.mean(), _error(loss), forward.mean(), _error(forward),
        np.nan if modes is None else modes_found(found.mixture, modes),
        np.nan if modes is None else len(modes),
        found.mixture.num_components, history["iteration"][-1], found.evaluations,
        found.refused, found.rejected, history["seconds"][-1], found.compile_seconds,
    )  # fmt: skip
    rounded = (float(np.round(value, 5)) for value in values)
    return dict(zip(_OUTCOMES, rounded, strict=True))


def _error(values: np.ndarray) -> float:
    """Standard error of a mean; missing where that is not finite."""
    if not np.isfinite(values).all():
        return np.nan
    return float(values.std(ddof=1) / np.sqrt(len(values)))


def _curve(config: Config, head: dict[str, object], found: VIFit | None) -> pd.DataFrame:
    """Points of a run, evenly spread in the logarithm of the iterations."""
    columns = ["iteration", "evaluations", "elbo", "num_components", "seconds"]
    if found is None:
        return pd.DataFrame(columns=[*head, *columns])
    history = found.history
    last = len(history["iteration"])
    stops = np.unique(np.geomspace(min(10, last), last, config.points).astype(int))
    table = pd.DataFrame({name: history[name][stops - 1] for name in columns})
    # An iteration's own estimate is rough: the mean of the last tenth of the iterations so far.
    table["elbo"] = [history["elbo"][stop - max(1, stop // 10) : stop].mean() for stop in stops]
    table = table.astype(float).round(4)
    for position, (name, value) in enumerate(head.items()):
        table.insert(position, name, value)
    return table
