"""Which objective to use: candidates on every task, with many seeds.

Not from the paper. Each candidate is a way to form the gradient, alone or with a schedule. They are
judged by how often a run succeeds, how soon, and whether the weights are right. All of them run
with the same initial networks, the same batches and the same learning rate, which falls to zero
along a cosine: at a constant rate the noise of the last updates hides what is to be compared.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any, Final

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pandas as pd
from flax import nnx
from jax.typing import ArrayLike

from ngem_tutorial import em, loop
from ngem_tutorial.datasets import ConditionalSample, Sample, mnist, rescale, uci_split
from ngem_tutorial.experiments import inverse_mnist, update_cost
from ngem_tutorial.experiments import two_gaussians as free
from ngem_tutorial.experiments import uci_regression as regression
from ngem_tutorial.experiments._shared import (
    Falling,
    conditional_sample,
    draw_mixture,
    evaluate,
    geometric_points,
    judged,
    mixture_of,
    separated_modes,
    significant,
    with_axis,
)
from ngem_tutorial.fisher import Coordinate
from ngem_tutorial.loop import Run
from ngem_tutorial.methods import METHODS, Method, get_method, slug
from ngem_tutorial.metrics import regression_scores, weight_entropy
from ngem_tutorial.mixtures import GaussianMixture
from ngem_tutorial.networks import MixtureDensityNetwork, PlainMixture
from ngem_tutorial.objectives import (
    RelaxationSchedule,
    ngem,
    nll,
    relaxation_schedule,
    with_gradient,
)
from ngem_tutorial.runs import Unit
from ngem_tutorial.variants import Variant

__all__ = ["CANDIDATES", "PRESETS", "SUCCESS", "Config", "Free", "Network", "Regression", "units"]

SUCCESS = 0.05
"""A run succeeds if it ends within this many nats of the best known likelihood of its data."""

# --------------------------------------------------------------------------------- the candidates


@dataclasses.dataclass(frozen=True)
class Annealed:
    """Damped nGEM with responsibilities `softmax((p log pi + log N) / T)`, annealed to its own.

    `p` goes from `power` to 1 and `T` from `temperature` to 1, both as `relaxation` goes from 1 to
    0: with `power` 0 from the uniform prior of the paper's code, with `temperature` above 1 as
    deterministic annealing does.
    """

    power: float
    temperature: float

    def __call__(
        self,
        mixture: GaussianMixture,
        y: jax.Array,
        *,
        unit: ArrayLike = 1.0,
        relaxation: ArrayLike = 0.0,
    ) -> jax.Array:
        """The value of `nll`, the gradient of `gradient`."""
        options = {"unit": unit, "relaxation": relaxation}
        return with_gradient(self.gradient, mixture, y, name="Annealed", **options)

    def gradient(
        self,
        mixture: GaussianMixture,
        y: jax.Array,
        *,
        unit: ArrayLike = 1.0,
        relaxation: ArrayLike = 0.0,
    ) -> GaussianMixture:
        """That of damped nGEM, but for the responsibilities."""
        p = 1.0 + relaxation * (self.power - 1.0)
        log_t = relaxation * np.log(self.temperature)
        joint = p * mixture.log_weights + mixture.component_log_prob(y)
        rho = jax.nn.softmax(joint / jnp.exp(log_t), axis=-1)
        z, sigma = mixture.standardize(y), mixture.scales
        weight = (rho / (mixture.weights + Variant().damping))[..., None]
        means = -weight * sigma * z / jnp.square(unit)
        scales = 0.5 * weight * (1.0 - z**2) / sigma
        return GaussianMixture.tree_unflatten(None, [mixture.weights - rho, means, scales])


@dataclasses.dataclass(frozen=True)
class Dirichlet:
    """Damped nGEM with a prior on the weights: the mode of the posterior."""

    strength: float = 0.1

    def __call__(
        self, mixture: GaussianMixture, y: jax.Array, *, unit: ArrayLike = 1.0
    ) -> jax.Array:
        """The value of `nll`, the gradient of `ngem` and of the prior."""
        prior = jnp.mean(mixture.log_weights, axis=-1)
        return ngem(mixture, y, unit=unit) - self.strength * (prior - jax.lax.stop_gradient(prior))


@dataclasses.dataclass(frozen=True)
class Relaxation:
    """What makes a `relaxation_schedule` from this start; equal ones hash equal."""

    initial: float

    def __call__(self, num_updates: int) -> RelaxationSchedule:
        """Return the schedule of a training."""
        return relaxation_schedule(num_updates, self.initial)


_ANNEALED = Relaxation(1.0)

CANDIDATES: Final[dict[str, Method]] = {
    method.name: method
    for method in (
        METHODS["NLL"],
        Method("NLL, relaxed", Variant(gaussians="plain"), relaxation_schedule),
        METHODS["nGEM, as derived"],
        METHODS["nGEM, paper's code"],
        METHODS["undamped nGEM"],
        Method("not relaxed", ngem, None, "batch"),
        Method("annealed prior", Annealed(0.0, 1.0), _ANNEALED, "batch"),
        Method("tempered", Annealed(1.0, 10.0), _ANNEALED, "batch"),
        Method("Dirichlet prior", Dirichlet(), None, "batch"),
        Method("weight ρ", Variant(gaussians="rho"), relaxation_schedule, "batch"),
        Method("weight ρ/π", Variant(gaussians="rho/pi"), relaxation_schedule, "batch"),
        Method("natural logits", Variant(logits="damped"), relaxation_schedule, "batch"),
        Method("target units", ngem, relaxation_schedule),
        METHODS["damped nGEM"],
    )
}
"""By the names of the tables. Those without a family name differ from damped nGEM in what they are
called after."""

MAIN: Final = (
    "NLL",
    "NLL, relaxed",
    "nGEM, paper's code",
    "undamped nGEM",
    "not relaxed",
    "damped nGEM",
)
"""What runs on the tasks that take longer."""


def _candidate(name: str, coordinate: Coordinate | None) -> Method:
    """A candidate, the paper's variants in the coordinate that is trained."""
    return get_method(name, coordinate=coordinate) if name in _OF_THE_PAPER else CANDIDATES[name]


_OF_THE_PAPER: Final = ("nGEM, as derived", "nGEM, paper's code", "undamped nGEM")


# -------------------------------------------------------------------------------------- the tasks


@dataclasses.dataclass(frozen=True)
class Free:
    """Free mixtures on separated Gaussians: initial logits and means from N(0, 1)."""

    modes: int = 2
    """Of the data. Two are those of Two-Gaussians, more lie on a circle, six deviations apart."""
    components: int = 2
    weight: float = 0.5
    """Share of the first mode; the others share the rest evenly."""
    start: str = "σ = 1"
    """Where the scales start, one of `two_gaussians.INITIALISATIONS`."""
    methods: tuple[str, ...] = ("NLL", "nGEM, paper's code", "not relaxed", "damped nGEM")
    learning_rates: tuple[float, ...] = (1e-1, 1e-2, 1e-3)
    """Of stochastic gradient descent on batches of one."""
    seeds: int = 100
    size: int = 200
    epochs: int = 50


@dataclasses.dataclass(frozen=True)
class Network:
    """A network on one of the conditional tasks, with Adam."""

    task: str = "Two-Sinusoids"
    """Or `"Junction"`, whose inputs and targets are standardised."""
    components: int = 2
    weight: float = 0.5
    """Share of the first wave; on Junction the weights are the generator's."""
    unit: float = 1.0
    """The targets are multiplied by it."""
    methods: tuple[str, ...] = ("NLL", "nGEM, paper's code", "damped nGEM")
    learning_rates: tuple[float, ...] = (3e-3,)
    seeds: int = 40
    hidden: tuple[int, ...] = (64, 64, 64, 64)
    updates: int = 5000
    batch_size: int = 128
    size: int = 2000


@dataclasses.dataclass(frozen=True)
class Regression:
    """A data set of `uci_regression` at its settings, but for the falling rate."""

    dataset: str
    methods: tuple[str, ...] = ("NLL", "nGEM, paper's code", "damped nGEM")
    seeds: int = 20


@dataclasses.dataclass(frozen=True)
class Config:
    """What is run. The number of a task's seeds is its own; they count from 1."""

    free: tuple[Free, ...] = ()
    networks: tuple[Network, ...] = ()
    regressions: tuple[Regression, ...] = ()
    image_seeds: tuple[int, ...] = ()
    """Of damped nGEM on inverse MNIST with three components, at the constant rate of
    `inverse_mnist`, whose stored results have the other methods."""
    timed: tuple[update_cost.Task, ...] = ()
    """Of `update_cost`: NLL and damped nGEM with its schedule, fifteen times each."""
    data_seed: int = 0
    seeds: tuple[int, ...] = ()
    """The seeds are those of the tasks."""


_WEIGHTS = (0.5, 0.7, 0.9, 0.97)

PRESETS: dict[str, Config] = {
    "quick": Config(
        free=(Free(weight=0.9, methods=("NLL", "damped nGEM"), seeds=10, epochs=5),),
        networks=(
            Network(
                "Junction", 3, methods=("NLL", "damped nGEM"), seeds=1, updates=100, hidden=(16,)
            ),
        ),
        regressions=(),
    ),
    "paper": Config(
        free=(
            *(
                Free(weight=weight, start=start, methods=tuple(CANDIDATES))
                for weight in _WEIGHTS
                for start in free.INITIALISATIONS
            ),
            *(
                Free(components=k, weight=weight, start=start, learning_rates=(1e-1, 1e-2))
                for k in (3, 5, 10)
                for weight in _WEIGHTS
                for start in free.INITIALISATIONS
            ),
            *(
                Free(modes=k, components=k, weight=weight, start=start, learning_rates=(1e-1, 1e-2))
                for k, weight in ((3, 0.7), (5, 0.5), (10, 0.5))
                for start in free.INITIALISATIONS
            ),
        ),
        networks=(
            *(Network(weight=weight) for weight in _WEIGHTS),
            Network(weight=0.9, methods=("not relaxed", "target units", "NLL, relaxed"), seeds=20),
            Network(weight=0.9, learning_rates=(1e-2, 1e-3, 1e-4), seeds=10),
            *(Network(components=k, weight=0.9, seeds=20) for k in (3, 5, 10)),
            Network(
                weight=0.9, unit=0.05, methods=("NLL", "target units", "damped nGEM"), seeds=20
            ),
            *(
                Network(
                    "Junction", k, hidden=(64, 64), updates=3000, methods=MAIN, seeds=30, size=8000
                )
                for k in (3, 5)
            ),
        ),
        regressions=tuple(Regression(task.dataset) for task in regression.TABLE_10),
        image_seeds=(1, 2, 3, 4, 5),
        timed=tuple(
            dataclasses.replace(task, python_methods=()) for task in update_cost.PAPER_TASKS
        ),
    ),
}
"""Settings by name: `quick` takes seconds, `paper` has the size of the stored results."""


# --------------------------------------------------------------------------------- free mixtures


def _points(config: Config, task: Free, size: int, key: int) -> Sample:
    seed = jax.random.key(config.data_seed + key)
    return separated_modes(seed, size, task.modes, task.weight)


@cache
def _free_model(start: str, components: int) -> partial[PlainMixture]:
    return partial(
        draw_mixture,
        coordinate="log_scale",
        initial_scale=free.INITIALISATIONS[start],
        num_components=components,
    )


def _run_free(config: Config, task: Free) -> dict[str, pd.DataFrame]:
    sample = _points(config, task, task.size, 0)
    test = _points(config, task, 5000, 1)
    _, log_likelihood = em.iterate(em.em_step, sample.truth, sample.y, 100)
    best, updates = -float(log_likelihood[-1]), task.epochs * task.size
    tables = []
    for method in task.methods:
        chosen = _candidate(method, "log_scale")
        for rate in task.learning_rates:
            result = loop.train(
                _free_model(task.start, task.components), chosen, None, sample.y,
                epochs=task.epochs, batch_size=1, learning_rate=rate,
                optimizer=Falling(optax.sgd, updates),
                seeds=range(1, task.seeds + 1), probes={"mixture": mixture_of},
                record_at=geometric_points(updates), on_nonfinite="record",
                label=f"{method}, {task.components} components, β = {rate:g}",
            )  # fmt: skip
            mixture = jax.tree.map(lambda leaf: jnp.asarray(leaf[:, -1]), result.probes["mixture"])
            runs = jax.tree.map(lambda leaf: leaf[:, None], mixture)
            errors = judged(with_axis(with_axis(sample.truth)), runs)
            held_out = _mean_nll(mixture, test.y) - float(nll(test.truth, test.y).mean())
            labels = {
                "task": "Two-Gaussians" if task.modes == 2 else f"{task.modes} Gaussians",
                "components": task.components, "weight": task.weight, "start": task.start,
                "method": method, "learning_rate": rate,
            }  # fmt: skip
            rows = errors | {"test_excess": np.asarray(held_out)}
            tables.append(_tables(labels, [result], best, rows))
    return _joined(tables)


@jax.jit
def _mean_nll(mixtures: GaussianMixture, y: jax.Array) -> jax.Array:
    return jax.vmap(lambda mixture: nll(mixture, y).mean())(mixtures)


# ------------------------------------------------------------------------------------- networks


def _sample(config: Config, task: Network, key: int) -> ConditionalSample:
    """Inputs as the network takes them, targets in the task's unit, and the truth for them."""
    seed = jax.random.key(config.data_seed + key)
    return conditional_sample(task.task, seed, task.size, task.weight, task.unit)


@cache
def _network(task: Network) -> partial[MixtureDensityNetwork]:
    features, dim = (2, 2) if task.task == "Junction" else (1, 1)
    return partial(
        _make_network, features, task.components, dim,
        hidden=task.hidden, initial_scale=task.unit, min_scale=1e-3 * task.unit,
    )  # fmt: skip


def _make_network(
    features: int, components: int, dim: int, rngs: nnx.Rngs, **settings: Any
) -> MixtureDensityNetwork:
    return MixtureDensityNetwork(features, components, dim, **settings, rngs=rngs)


def _run_network(config: Config, task: Network, method: str) -> dict[str, pd.DataFrame]:
    sample, test = _sample(config, task, 0), _sample(config, task, 1)
    best, best_test = (float(nll(s.truth(s.x), s.y).mean()) for s in (sample, test))
    chosen = _candidate(method, None)
    per_epoch = task.size // task.batch_size
    shape = dataclasses.replace(task, methods=(), learning_rates=(), seeds=0, weight=0.5)
    tables = []
    for rate in task.learning_rates:
        results, rows = [], []
        for seed in range(1, task.seeds + 1):
            result = loop.train(
                _network(shape), chosen, sample.x, sample.y,
                epochs=-(-task.updates // per_epoch), batch_size=task.batch_size,
                learning_rate=rate,
                optimizer=Falling(optax.adam, task.updates), seeds=(seed,),
                record_at=geometric_points(task.updates), on_nonfinite="record",
                label=f"{task.task}, {method}, seed {seed}",
            )  # fmt: skip
            mixture = evaluate(result.model(), test.x)
            errors = judged(with_axis(test.truth(test.x)), with_axis(mixture))
            held_out = nll(mixture, test.y).mean(keepdims=True) - best_test
            results.append(result)
            rows.append(errors | {"test_excess": np.asarray(held_out)})
        labels = {
            "task": task.task, "unit": task.unit, "components": task.components,
            "weight": task.weight, "method": method, "learning_rate": rate,
        }  # fmt: skip
        together = {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}
        tables.append(_tables(labels, results, best, together))
    return _joined(tables)


# ------------------------------------------------------------------------------------ regression


def _run_regression(task: Regression, method: str) -> dict[str, pd.DataFrame]:
    settings = regression.Config()
    found = next(t for t in settings.tasks if t.dataset == task.dataset)
    chosen = _candidate(method, None)
    rows = []
    for seed in range(1, task.seeds + 1):
        data, _, _ = rescale(uci_split(task.dataset, seed - 1), settings.scaling)
        updates = found.epochs * (len(data.y_train) // found.batch_size)
        result = loop.train(
            regression.model_maker(settings, data.x_train.shape[1], None),
            chosen, data.x_train, data.y_train, epochs=found.epochs,
            batch_size=found.batch_size, learning_rate=found.learning_rate,
            optimizer=Falling(optax.adam, updates),
            seeds=(seed,), record_at=(updates,), on_nonfinite="record",
            label=f"{task.dataset}, {method}, seed {seed}",
        )  # fmt: skip
        mixture = evaluate(result.model(), jnp.asarray(data.x_test))
        scores = regression_scores(mixture, jnp.asarray(data.y_test))
        failed = int(pd.DataFrame(result.columns())["failed_at"].iloc[-1])
        numbers = {k: float(v) if failed < 0 else np.nan for k, v in scores.items()}
        labels = {"task": task.dataset, "method": method, "seed": seed}
        rows.append(labels | numbers | {"failed_at": failed})
    return {"regression": pd.DataFrame(rows)}


# ----------------------------------------------------------------------------------------- images


def _run_images(seed: int) -> dict[str, pd.DataFrame]:
    settings, images = inverse_mnist.PRESETS[3]["paper"], mnist("train")
    chosen = _candidate("damped nGEM", None)
    batches = len(images.images) // settings.batch_size
    result = loop.train(
        inverse_mnist.make_model(settings, images.images.shape[1]),
        chosen, images.labels, images.images,
        epochs=settings.epochs, batch_size=settings.batch_size,
        learning_rate=settings.learning_rate,
        seeds=(seed,),
        metrics={"nll": nll, "entropy": weight_entropy},
        record_at=[round(batches * epoch) for epoch in settings.record_at],
        on_nonfinite="record", label=f"damped nGEM, seed {seed}",
    )  # fmt: skip
    return {"images": _rounded(inverse_mnist.table("damped nGEM", result))}


# ------------------------------------------------------------------------------------------ cost


def _run_timed(task: update_cost.Task) -> dict[str, pd.DataFrame]:
    settings = update_cost.Config(tasks=(task,), methods=("NLL", "damped nGEM"))
    return {"cost": update_cost.time_task(settings, task)["times"]}


# ---------------------------------------------------------------------------------- what is kept


def _tables(
    labels: dict[str, Any], results: Sequence[Run], best: float, rows: dict[str, np.ndarray]
) -> dict[str, pd.DataFrame]:
    """A row per run, and the median over the runs at the recorded points."""
    updates = results[0].updates
    excess = np.concatenate([result.metrics["nll"] for result in results]).astype(float) - best
    seeds = np.concatenate([result.seeds for result in results])
    columns = pd.concat([pd.DataFrame(result.columns()) for result in results])
    failed_at = columns.groupby("seed")["failed_at"].last().loc[seeds].to_numpy()
    within = excess < SUCCESS
    runs = pd.DataFrame(
        {
            "seed": seeds,
            "excess": np.where(failed_at < 0, excess[:, -1], np.nan),
            **{name: np.where(failed_at < 0, value, np.nan) for name, value in rows.items()},
            "first_within": np.where(within.any(1), updates[within.argmax(1)], -1),
            "failed_at": failed_at,
        }
    )
    median = np.median(np.where(np.isfinite(excess), excess, np.inf), axis=0)
    curve = pd.DataFrame({"update": updates, "median_excess": median})
    return {
        name: _rounded(pd.DataFrame(labels, index=table.index).join(table))
        for name, table in {"runs": runs, "curves": curve[np.isfinite(median)]}.items()
    }


def _rounded(table: pd.DataFrame) -> pd.DataFrame:
    return significant(table, ("learning_rate", "weight"))


def _joined(tables: Sequence[dict[str, pd.DataFrame]]) -> dict[str, pd.DataFrame]:
    return {
        name: pd.concat([table[name] for table in tables], ignore_index=True) for name in tables[0]
    }


# -------------------------------------------------------------------------------------- the parts


def units(config: Config) -> list[Unit]:
    """The parts of the study: a free task, or a method on one of the others.

    Args:
        config: the settings.

    Returns:
        Units with the tables `free` and `networks`, a row per run (what was run; `excess`, nats
        above the best known likelihood of the training data; `test_excess`, above the truth's on
        other data; what `_against` has; `first_within`, the first recorded update within `SUCCESS`,
        -1 if none; `failed_at`, the update after which the run had a non-finite value, -1 if it
        never had), `free_curves` and `network_curves`, the median excess of the runs at the
        recorded points, `regression`, the test scores of each split, `images`, the recorded
        points of inverse MNIST, and `cost`, the seconds of each repetition.
    """
    parts = [
        Unit(
            _name(i, "free", task.modes, task.components, task.weight),
            partial(_named, ("free", "free_curves"), partial(_run_free, config, task)),
            len(task.methods)
            * (3.0 + len(task.learning_rates) * task.seeds * task.components * 2.5e-3),
        )
        for i, task in enumerate(config.free)
    ]
    parts += [
        Unit(
            _name(i, task.task, task.components, task.weight, method),
            partial(
                _named, ("networks", "network_curves"), partial(_run_network, config, task, method)
            ),
            3.0 + len(task.learning_rates) * task.seeds * task.updates * 2.4e-4,
        )
        for i, task in enumerate(config.networks)
        for method in task.methods
    ]
    return (
        parts
        + [
            Unit(
                slug(f"{task.dataset}-{method}"),
                partial(_run_regression, task, method),
                4.0 + task.seeds * {"kin8nm": 3.0}.get(task.dataset, 0.5),
            )
            for task in config.regressions
            for method in task.methods
        ]
        + [
            Unit(f"images-seed={seed}", partial(_run_images, seed), 75.0)
            for seed in config.image_seeds
        ]
        + [Unit(f"cost-{task.name}", partial(_run_timed, task), 50.0) for task in config.timed]
    )


def _name(position: int, *parts: object) -> str:
    return slug("-".join(f"{part}" for part in (f"{position:02d}", *parts)).replace("ρ", "rho"))


def _named(
    names: tuple[str, str], compute: Callable[[], dict[str, pd.DataFrame]]
) -> dict[str, pd.DataFrame]:
    """Rename the tables `runs` and `curves`."""
    tables = compute()
    return {names[0]: tables["runs"], names[1]: tables["curves"]}
