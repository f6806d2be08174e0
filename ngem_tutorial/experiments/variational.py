"""Variational inference: seven choices on targets of known difficulty.

The targets and starts are those of Arenz et al. (2023), Arenz et al. (2020), Lin et al. (2020) and
Blessing et al. (2024). The methods are the published combinations of the seven modules and those
that differ from the recommended one, SAMTRON, in one letter.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial

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
from ngem_tutorial.vi.component_updates import TrustRegion
from ngem_tutorial.vi.targets import Target

__all__ = [
    "ABLATION",
    "PRESETS",
    "PUBLISHED",
    "TARGETS",
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
    """At most."""
    evaluations: int = 500_000
    """Of the target; the run ends after the block in which it has had so many."""
    samples: int = 100
    """Effective number of samples for each component."""
    reuse: float = 2.0
    """How many times that many old samples count."""
    every: int = 30
    """Iterations between two additions."""
    components: int = 20
    """At the start of a method with a fixed number of components, if the target's has fewer."""
    step: float = 1e-3
    """First step size of the rules without a trust region."""


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings of a preset."""

    tasks: tuple[Task, ...]
    seeds: tuple[int, ...] = tuple(range(1, 11))
    fresh: int = 20_000
    """Samples that a fit is judged by, which are not counted as evaluations."""
    points: int = 12
    """How many points of each run's curve are kept."""


PRESETS: dict[str, Config] = {
    "quick": Config(
        tasks=(
            Task("banana", ("SAMTRON", "SEPYFUX"), 60, 20_000, components=4, step=0.05),
            Task("grid", ("SAMTRON",), 120, 20_000, every=10),
        ),
        seeds=(1, 2),
        fresh=2_000,
    ),
    "paper": Config(
        tasks=(
            Task("GMM20", (*PUBLISHED, *ABLATION)),
            Task("GMM100", ("SAMTRON", "SEPYFUX")),
            Task("STM20", (*PUBLISHED, *ABLATION), 600, 2_000_000, samples=200, reuse=0.0),
            Task("planar robot", ("SAMTRON", "SEPYFUX"), 300, 3_000_000, reuse=0.0, every=10),
            Task("breast cancer", (*PUBLISHED, *ABLATION), 400, samples=200, reuse=0.0, every=10),
            Task("German credit", PUBLISHED, 300, samples=200, reuse=0.0, every=10),
            Task("funnel", PUBLISHED, 600, every=10),
            Task("40 Gaussians", PUBLISHED, every=10, components=40),
            Task("40 Gaussians, d = 50", PUBLISHED, every=10, components=40),
            Task("Student products", PUBLISHED, every=10),
            Task("ring", PUBLISHED, 600, every=10),
            Task("banana", PUBLISHED, 600, every=10),
            Task("grid", PUBLISHED, 600, every=10, components=25),
        )
    ),
}
"""Settings by name: `quick` takes a minute, `paper` has the size of the stored results."""


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
    sampling = dataclasses.replace(chosen.sampling, number=task.samples)
    if codeword[2] == "M":  # samples of the mixture are not used again, as published
        sampling = dataclasses.replace(sampling, reuse=task.reuse)
    adaptation = chosen.adaptation
    if isinstance(adaptation, AdaptiveNumber):
        adaptation = dataclasses.replace(adaptation, every=task.every)
    update = chosen.component_update
    if not isinstance(update, TrustRegion):
        update = dataclasses.replace(update, first_step=task.step)
    return dataclasses.replace(
        chosen, sampling=sampling, adaptation=adaptation, component_update=update
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
    return target, fit_density(
        target.log_density,
        target.dim,
        key=key,
        method=design(task, codeword),
        num_iterations=task.iterations,
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
            20.0,
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
