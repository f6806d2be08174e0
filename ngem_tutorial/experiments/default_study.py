r"""Which objective to recommend: a family of candidates, judged on data that none was trained on.

Not from the paper. Tasks, criteria and the first round of candidates were written down before
anything was run; the second round when the first had run on the tasks for tuning.

**Candidates.** The gradient of the negative log-likelihood times a power `p` of the inverse Fisher
matrix (`power.Power`), with choices of the unit, of the logits, of the damping, of a fade to `p` =
0, of the start (relaxed, balanced, both, neither) and of the initial means. They change one thing
at a time in "whitened" (`p` = 1/2, one unit for all coordinates, plain logits, relaxed start,
means where the network has them), and a few change several. The opponent is NLL at the best of
four learning rates, with and without a warm-up and clipped gradients, where "best" means the
lowest median on the data that it is judged on, which favours it. Every other candidate of the first
round has one rate, the task's. What a rate, a warm-up and clipping do for NLL was plain then, and
the second round gives them to the others: "tuned", and what changes one thing in it. Of that the
choice was made, "whitened NLL", which ran with the opponents on the other half of the tasks. By the
rule below nothing is recommended: there, too, it is behind NLL on some tasks.

**Tasks.** Free mixtures on 2, 3, 5, 10 and 20 separated Gaussians with as many components and twice
as many, with equal and unequal shares; a network on Two-Sinusoids at shares of 0.5, 0.7, 0.9 and
0.97; Junction with much and with little data; kin8nm, energy and housing, with a fixed number of
updates and with early stopping on a tenth of the training data. Half of them are for tuning, in
three presets, one for each kind; those with networks have fewer candidates. Networks with early
stopping were added between the rounds, and are not for tuning. Two tasks are held back for a test
after the choice: targets in six dimensions, and the inverse of a sine with noise, whose
density is no mixture.

**Criteria**, all on held-out data, in this order:

1. no run with a value that is not finite;
2. success, where the best possible likelihood is known: within 0.05 nat of it at the end;
3. the likelihood minus that of NLL, paired by seed, as a mean with a 95 % interval;
4. how many updates until the final likelihood of NLL, as a part of what NLL needs, from the
   medians over the runs;
5. how far the weights of the modes are from the truth.

A candidate is recommended if on no task the interval of 3 lies above zero by more than 0.01 nat,
and among those it has the most success. All seeds of a candidate on a task run in one compiled
program; but for the regressions, where each seed has a split, and so data, of its own: they run
one after the other in a program that is compiled once.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pandas as pd
from flax import nnx

from ngem_tutorial import loop
from ngem_tutorial.datasets import NUM_SPLITS, ConditionalSample, rescale, uci_split
from ngem_tutorial.experiments import uci_regression as regression
from ngem_tutorial.experiments._shared import (
    Falling,
    conditional_sample,
    draw_mixture,
    evaluate,
    geometric_points,
    judged,
    separated_modes,
    significant,
    with_axis,
)
from ngem_tutorial.loop import Run
from ngem_tutorial.methods import Method, slug
from ngem_tutorial.metrics import mean_and_interval, wilson_interval
from ngem_tutorial.mixtures import GaussianMixture
from ngem_tutorial.networks import (
    InitialMeans,
    MixtureDensityNetwork,
    PlainMixture,
    choose_initial_means,
)
from ngem_tutorial.objectives import nll
from ngem_tutorial.power import Power, PowerSchedule
from ngem_tutorial.runs import Tables, Unit

__all__ = [
    "CANDIDATES",
    "MARGIN",
    "OPPONENTS",
    "PRESETS",
    "SHORT",
    "SUCCESS",
    "TASKS",
    "Candidate",
    "Config",
    "Free",
    "Network",
    "Regression",
    "best_rate",
    "judge",
    "succeeded",
    "summarise",
    "units",
    "updates_to",
]

SUCCESS: Final = 0.05
"""A run succeeds if it ends within this many nats of the best possible held-out likelihood."""

MARGIN: Final = 0.01
"""Nats by which a likelihood counts as reached, and a candidate may be behind NLL."""

# --------------------------------------------------------------------------------- the candidates


@dataclasses.dataclass(frozen=True)
class Candidate:
    """How a gradient is formed and a training is started; the defaults are those of "whitened"."""

    exponent: float = 0.5
    """`p`; at 0, without relaxation and balance, the objective is `nll`."""
    unit: Literal["target", "batch", "pooled"] = "pooled"
    """Of `methods.Method`: none, one for each coordinate, one for all."""
    logits: Literal["plain", "damped"] = "plain"
    damping: float = 0.25
    fade: float = 0.0
    """Last part of the training in which the exponent falls to zero."""
    relaxation: float = 0.1
    """At the start."""
    relaxed: float = 0.1
    """First part of the training in which it falls to zero."""
    strength: float = 0.0
    """Of the balance at the start."""
    balanced: float = 0.5
    """First part of the training in which it falls to zero."""
    initial_means: Literal["own", "random", "kmeans++"] = "own"
    """Those of the task, or how `choose_initial_means` chooses them among the targets."""
    rates: tuple[float, ...] = (1.0,)
    """Learning rates as multiples of the task's."""
    warm_up: float = 0.0
    """First part of the training in which the learning rate rises."""
    clip: float = 0.0
    """Largest norm of a gradient, 0 for any."""

    def method(self, name: str) -> Method:
        """What the training loop takes.

        Args:
            name: in labels.

        Returns:
            The objective with its schedule and its unit.
        """
        if self.exponent == 0.0 and self.relaxation == 0.0 and self.strength == 0.0:
            return Method(name, nll)
        schedule = PowerSchedule(
            1, self.exponent, self.fade, self.relaxation, self.relaxed, self.strength, self.balanced
        )
        objective = Power(self.exponent, self.logits, self.damping)
        return Method(name, objective, _OfLength(schedule), self.unit)


@dataclasses.dataclass(frozen=True)
class _OfLength:
    """From the number of updates to a schedule of that length."""

    schedule: PowerSchedule

    def __call__(self, num_updates: int) -> PowerSchedule:
        return dataclasses.replace(self.schedule, num_updates=num_updates)


_RATES: Final = (0.3, 1.0, 3.0, 10.0)
_NLL = Candidate(0.0, "target", relaxation=0.0, rates=_RATES)
_SEVERAL = Candidate(logits="damped", relaxation=0.0, strength=1.0, fade=0.5)

FIRST: Final[dict[str, Candidate]] = {
    "NLL": _NLL,
    "NLL, warm-up and clipping": dataclasses.replace(_NLL, warm_up=0.05, clip=1.0),
    "NLL, k-means++": dataclasses.replace(_NLL, initial_means="kmeans++", rates=(1.0,)),
    "damped nGEM": Candidate(1.0, "batch"),
    "whitened": Candidate(),
    # The exponent, and where it ends
    "p = 0.25": Candidate(0.25),
    "p = 0.75": Candidate(0.75),
    "p = 1": Candidate(1.0),
    "p = 1, target unit": Candidate(1.0, "target"),
    "faded": Candidate(fade=1.0),
    "faded late": Candidate(fade=0.2),
    "p = 1, faded": Candidate(1.0, fade=1.0),
    "damped nGEM, faded": Candidate(1.0, "batch", fade=1.0),
    # The unit
    "target unit": Candidate(unit="target"),
    "unit per coordinate": Candidate(unit="batch"),
    # The logits and the damping
    "damped logits": Candidate(logits="damped"),
    "damped logits, p = 1": Candidate(1.0, logits="damped"),
    "damped logits, less damping": Candidate(logits="damped", damping=0.05),
    "less damping": Candidate(damping=0.05),
    # The start
    "not relaxed": Candidate(relaxation=0.0),
    "relaxed longer": Candidate(relaxed=0.3),
    "balanced": Candidate(relaxation=0.0, strength=1.0),
    "balanced, stronger": Candidate(relaxation=0.0, strength=4.0),
    "balanced and relaxed": Candidate(strength=1.0, balanced=0.1),
    # The initial means
    "random examples": Candidate(initial_means="random"),
    "k-means++": Candidate(initial_means="kmeans++"),
    "k-means++, not relaxed": Candidate(initial_means="kmeans++", relaxation=0.0),
    # Several at once
    "balanced, damped logits, faded": _SEVERAL,
    "balanced, damped logits, faded, k-means++": dataclasses.replace(
        _SEVERAL, initial_means="kmeans++"
    ),
    "balanced, damped logits, faded, p = 1": dataclasses.replace(_SEVERAL, exponent=1.0),
    "relaxed, damped logits, faded, k-means++": Candidate(
        logits="damped", fade=0.5, initial_means="kmeans++"
    ),
    "both, damped logits, faded, k-means++": dataclasses.replace(
        _SEVERAL, relaxation=0.1, initial_means="kmeans++"
    ),
    "both, damped logits, faded, k-means++, p = 1": dataclasses.replace(
        _SEVERAL, exponent=1.0, relaxation=0.1, initial_means="kmeans++"
    ),
}
"""The first round, by the names of the tables. "whitened" is the middle; most others change what
they are called after."""

_TUNED = Candidate(relaxation=0.0, initial_means="kmeans++", rates=_RATES, warm_up=0.05, clip=1.0)
SECOND: Final[dict[str, Candidate]] = {
    "NLL, warm-up, clipping, k-means++": dataclasses.replace(
        _NLL, warm_up=0.05, clip=1.0, initial_means="kmeans++"
    ),
    "tuned": _TUNED,
    "tuned, p = 0.25": dataclasses.replace(_TUNED, exponent=0.25),
    "tuned, p = 1": dataclasses.replace(_TUNED, exponent=1.0),
    "tuned, faded": dataclasses.replace(_TUNED, fade=1.0),
    "tuned, relaxed": dataclasses.replace(_TUNED, relaxation=0.1),
    "tuned, own means": dataclasses.replace(_TUNED, initial_means="own"),
    "tuned, without warm-up and clipping": dataclasses.replace(_TUNED, warm_up=0.0, clip=0.0),
    "whitened NLL": dataclasses.replace(_TUNED, relaxation=0.01),
}
"""The second round, written when the first had run: "tuned" is whitened, from means by k-means++,
without relaxation, with a warm-up and clipped gradients, at the best of four rates. "whitened NLL"
is the last that was added, and the choice: `METHODS` has it."""

CANDIDATES: Final = {**FIRST, **SECOND}
"""Both rounds."""

OPPONENTS: Final = (
    "NLL",
    "NLL, warm-up and clipping",
    "NLL, warm-up, clipping, k-means++",
)
"""The candidates whose best rate is what the others are compared with."""

FINALISTS: Final = (
    "NLL, warm-up and clipping",
    "NLL, warm-up, clipping, k-means++",
    "damped nGEM",
    "whitened NLL",
)
"""What runs on the other half of the tasks: the opponents, the recommendation of before and the
choice."""

SHORT: Final = (
    "NLL",
    "NLL, warm-up and clipping",
    "NLL, k-means++",
    "damped nGEM",
    "whitened",
    "p = 1",
    "target unit",
    "faded",
    "not relaxed",
    "balanced and relaxed",
    "k-means++",
    "k-means++, not relaxed",
    "balanced, damped logits, faded, k-means++",
    "relaxed, damped logits, faded, k-means++",
    "both, damped logits, faded, k-means++",
)
"""What the presets for tuning have of networks, which take longer."""

# -------------------------------------------------------------------------------------- the tasks


@dataclasses.dataclass(frozen=True)
class Free:
    """A free mixture on separated Gaussians in the plane, by stochastic gradient descent."""

    modes: int
    components: int
    weight: float
    """Share of the first mode; the others share the rest evenly."""
    tuning: bool = False
    """Whether a preset for tuning has it."""
    held_back: bool = False
    """Whether it is for a test after the choice alone."""
    updates: int = 4000
    batch_size: int = 100
    learning_rate: float = 0.1
    examples: int = 500
    """For each mode. A mixture with two components for each then overfits by a hundredth of a nat,
    half the number of its parameters over that of the examples."""

    @property
    def name(self) -> str:
        """In tables."""
        shares = "even" if np.isclose(self.weight, 1.0 / self.modes) else "uneven"
        return f"{self.modes} modes, K={self.components}, {shares}"


@dataclasses.dataclass(frozen=True)
class Network:
    """A network on one of the conditional tasks, with Adam."""

    data: str
    """`"Two-Sinusoids"`, `"Junction"`, `"Six dimensions"` or `"Inverse sine"`."""
    components: int
    weight: float = 0.5
    """Share of the first wave; on the others the weights are the generator's."""
    size: int = 2000
    tuning: bool = False
    """As in `Free`."""
    held_back: bool = False
    """As in `Free`."""
    hidden: tuple[int, ...] = (64, 64, 64, 64)
    updates: int = 5000
    batch_size: int = 128
    learning_rate: float = 3e-3
    early_stopping: bool = False
    """Keep the model that is best on a tenth of the training data, and stop when none is better."""
    patience: int = 10
    """Of early stopping, in looks at the validation data, of which there are forty."""

    @property
    def name(self) -> str:
        """In tables."""
        share = f", share {self.weight:g}" if self.data == "Two-Sinusoids" else ""
        stopping = ", early stopping" if self.early_stopping else ""
        return f"{self.data}{share}, K={self.components}, N={self.size}{stopping}"


@dataclasses.dataclass(frozen=True)
class Regression:
    """A data set of `uci_regression` at its settings, but for the falling rate."""

    dataset: str
    early_stopping: bool = False
    """As in `Network`."""
    tuning: bool = False
    """As in `Free`."""
    held_back: bool = False
    """As in `Free`."""
    epochs: int = 0
    """Passes through the data; 0 for those of `uci_regression`."""
    patience: int = 10
    """As in `Network`."""

    @property
    def name(self) -> str:
        """In tables."""
        return f"{self.dataset}, {'early stopping' if self.early_stopping else 'fixed'}"


Task = Free | Network | Regression

_NETWORKS: Final = (
    *(
        Network("Two-Sinusoids", 2, weight, tuning=weight in (0.5, 0.9))
        for weight in (0.5, 0.7, 0.9, 0.97)
    ),
    *(
        Network(
            "Junction", components, size=size, hidden=(64, 64), updates=3000,
            tuning=(components == 3) == (size == 8000),
        )
        for size in (8000, 500)
        for components in (3, 5)
    ),
)  # fmt: skip
_HELD_BACK: Final = (
    Network("Six dimensions", 6, size=4000, hidden=(64, 64), held_back=True),
    Network("Inverse sine", 5, size=2000, hidden=(64, 64), held_back=True),
)


def _stopping(task: Network) -> Network:
    """The same with early stopping, never for tuning."""
    return dataclasses.replace(task, early_stopping=True, tuning=False)


TASKS: Final[tuple[Free | Network | Regression, ...]] = (
    *(
        Free(modes, factor * modes, 1.0 / modes if even else uneven, tuning=even == (factor == 2))
        for modes, uneven in ((2, 0.9), (3, 0.7), (5, 0.5), (10, 0.5), (20, 0.5))
        for factor in (1, 2)
        for even in (True, False)
    ),
    *_NETWORKS,
    *(
        Regression(name, stopping, tuning=stopping == (name == "energy"))
        for name in ("kin8nm", "energy", "housing")
        for stopping in (False, True)
    ),
    *map(_stopping, _NETWORKS),
    *_HELD_BACK,
    *map(_stopping, _HELD_BACK),
)
"""All tasks. Those for tuning are every other one, networks with early stopping apart: of each pair
that differs in the shares, the number of components or the stopping it has one."""


@dataclasses.dataclass(frozen=True)
class Config:
    """What is run."""

    tasks: tuple[Free | Network | Regression, ...] = TASKS
    methods: tuple[str, ...] = tuple(CANDIDATES)
    """Candidates by name."""
    seeds: tuple[int, ...] = tuple(range(1, 21))
    """Of each run; a regression's seed `s` has the split `s - 1`."""
    data_seed: int = 0
    test_size: int = 5000
    """Held-out examples of the synthetic tasks."""


def _part(task: Task) -> str:
    """The part of the study that a task belongs to."""
    if isinstance(task, Free):
        return "free"
    if isinstance(task, Regression):
        return "data"
    return "stopping" if task.early_stopping else "networks"


PRESETS: dict[str, Config] = {
    "quick": Config(
        tasks=(
            Free(2, 2, 0.9, updates=200, tuning=True),
            Network("Two-Sinusoids", 2, size=500, hidden=(16,), updates=100, tuning=True),
        ),
        methods=("NLL", "damped nGEM", "whitened", "balanced, damped logits, faded, k-means++"),
        seeds=(1, 2, 3),
        test_size=1000,
    ),
    **{
        f"tuning_{name}": Config(
            tasks=tuple(task for task in TASKS if task.tuning and _part(task) == name),
            methods=methods,
            seeds=tuple(range(1, 11)),
        )
        for name, methods in (
            ("free", (*FIRST, *FINALISTS[1::2])),
            ("networks", (*SHORT, *SECOND)),
            ("data", (*SHORT, *SECOND)),
        )
    },
    **{
        f"final_{name}": Config(
            tasks=tuple(t for t in TASKS if not t.tuning and not t.held_back and _part(t) == name),
            methods=FINALISTS,
            seeds=tuple(range(1, 11 if name == "stopping" else 21)),
        )
        for name in ("free", "networks", "data", "stopping")
    },
    "held_back": Config(
        tasks=tuple(t for t in TASKS if t.held_back),
        methods=FINALISTS,
        seeds=tuple(range(1, 11)),
    ),
    "paper": Config(),
}
"""Settings by name: `quick` takes seconds; the three of `tuning` are what the choice is made with,
the four of `final` are the tasks that it is judged on, and `held_back` those that were not looked
at before; `paper` has all tasks and candidates."""


# ---------------------------------------------------------------------------------------- the data


class _Data(NamedTuple):
    """What a candidate is trained and judged on."""

    x: Any
    y: Any
    test_x: Any
    test_y: Any
    best: float
    """Mean held-out negative log-likelihood of the truth, in nats; NaN if it is not known."""
    truth: GaussianMixture | None = None
    """At the test inputs, or one mixture without inputs; None if there is none."""
    validation: tuple[Any, Any] | None = None


def _free_data(config: Config, task: Free) -> _Data:
    size = task.examples * task.modes
    sample, test = (
        separated_modes(jax.random.key(config.data_seed + i), n, task.modes, task.weight)
        for i, n in enumerate((size, config.test_size))
    )
    best = float(nll(test.truth, test.y).mean())
    return _Data(None, sample.y, None, test.y, best, test.truth)


def _network_data(config: Config, task: Network) -> _Data:
    keys = [jax.random.key(config.data_seed + i) for i in range(2)]
    sizes = (task.size, config.test_size)
    if task.data == "Inverse sine":
        (x, y), (test_x, test_y) = map(_inverse_sine, keys, sizes)
        best = float(_inverse_sine_nll(np.asarray(test_x), np.asarray(test_y)).mean())
        data = _Data(x, y, test_x, test_y, best)
        return _held_out(data, config.data_seed) if task.early_stopping else data
    draw = _six_dimensions if task.data == "Six dimensions" else _named(task)
    sample, test = map(draw, keys, sizes)
    truth = test.truth(test.x)
    data = _Data(sample.x, sample.y, test.x, test.y, float(nll(truth, test.y).mean()), truth)
    return _held_out(data, config.data_seed) if task.early_stopping else data


def _held_out(data: _Data, seed: int) -> _Data:
    """The same with a tenth of the training data for validation."""
    order = np.random.default_rng(seed).permutation(len(data.y))
    kept, judges = np.split(order, [round(0.9 * len(data.y))])
    return data._replace(
        x=data.x[kept], y=data.y[kept], validation=(data.x[judges], data.y[judges])
    )


def _named(task: Network) -> Callable[[jax.Array, int], ConditionalSample]:
    return lambda key, size: conditional_sample(task.data, key, size, task.weight)


def _six_dimensions(key: jax.Array, size: int) -> ConditionalSample:
    """Three modes in six dimensions, smooth functions of three inputs, drawn once and for all.

    The scales are between 0.05 and 0.5 and differ by mode and coordinate, the weights depend on
    the input.
    """
    rng = np.random.default_rng(6)
    frequencies, phases = rng.normal(0, 1.5, (8, 3)), rng.uniform(0, 2 * np.pi, 8)
    amplitudes = rng.normal(0, 0.4, (3, 6, 8))
    centres = rng.normal(0, 0.7, (3, 6))
    slopes = rng.normal(0, 1.0, (3, 3))
    scales = np.exp(rng.uniform(np.log(0.05), np.log(0.5), (3, 6)))

    def truth(x: jax.Array) -> GaussianMixture:
        waves = jnp.sin(x @ jnp.asarray(frequencies.T, x.dtype) + phases.astype(x.dtype))
        means = jnp.einsum("...w,kdw->...kd", waves, jnp.asarray(amplitudes, x.dtype))
        means = means + jnp.asarray(centres, x.dtype)
        logits = x @ jnp.asarray(slopes.T, x.dtype) + jnp.asarray([0.5, 0.0, -1.0], x.dtype)
        return GaussianMixture(
            logits, means, jnp.broadcast_to(jnp.asarray(scales, x.dtype), means.shape)
        )

    input_key, target_key = jax.random.split(key)
    x = jax.random.uniform(input_key, (size, 3), minval=-1.0)
    return ConditionalSample(x, truth(x).sample(target_key), truth)


_NOISE: Final = 0.05


def _inverse_sine(key: jax.Array, size: int) -> tuple[jax.Array, jax.Array]:
    """Bishop's (1994) inverse problem, `x = y + 0.3 sin(2 pi y)` plus normal noise, in unit scale.

    `y` is uniform from 0 to 1; what is returned is twice their distance from 1/2.
    """
    target_key, noise_key = jax.random.split(key)
    y = jax.random.uniform(target_key, (size, 1))
    x = y + 0.3 * jnp.sin(2 * jnp.pi * y) + _NOISE * jax.random.normal(noise_key, (size, 1))
    return 2 * x - 1, 2 * y - 1


def _inverse_sine_nll(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The exact `-log p(y | x)` of `_inverse_sine`, shape `(N,)`: Bayes by the midpoint rule."""

    def log_noise(target: np.ndarray) -> np.ndarray:
        forward = target + 0.3 * np.sin(2 * np.pi * target)
        return -0.5 * (((x + 1) / 2 - forward) / _NOISE) ** 2

    grid = (np.arange(2000) + 0.5) / 2000
    evidence = np.log(np.exp(log_noise(grid[None])).mean(axis=1))
    # A density of y, which has twice the unit.
    return np.log(2.0) + evidence - log_noise((y + 1) / 2)[:, 0]


def _regression_data(task: Regression, seed: int, scaling: str) -> _Data:
    data, _, _ = rescale(uci_split(task.dataset, seed - 1), scaling)
    found = _Data(data.x_train, data.y_train, data.x_test, data.y_test, np.nan)
    return _held_out(found, seed) if task.early_stopping else found


# -------------------------------------------------------------------------------------- the models


@dataclasses.dataclass(frozen=True)
class _Maker:
    """Builds a module and moves its means to examples; without those, equal ones hash equal."""

    make: Any
    components: int
    initial_means: Literal["own", "random", "kmeans++"] = "own"
    y: Any = None

    def __call__(self, rngs: nnx.Rngs) -> Any:
        model = self.make(rngs)
        if self.initial_means != "own":  # drawn last: all else is that of the task's own start
            chosen: InitialMeans = self.initial_means
            means = choose_initial_means(rngs(), self.y, self.components, method=chosen)
            parameter = model.means if isinstance(model, PlainMixture) else model.means.bias
            parameter[...] = means.reshape(parameter[...].shape).astype(parameter[...].dtype)
        return model


@dataclasses.dataclass(frozen=True)
class _MakeFree:
    components: int

    def __call__(self, rngs: nnx.Rngs) -> PlainMixture:
        return draw_mixture(rngs, "log_scale", (1.0, 1.0), self.components)


@dataclasses.dataclass(frozen=True)
class _MakeNetwork:
    features: int
    components: int
    dim: int
    hidden: tuple[int, ...]

    def __call__(self, rngs: nnx.Rngs) -> MixtureDensityNetwork:
        return MixtureDensityNetwork(
            self.features, self.components, self.dim, hidden=self.hidden, rngs=rngs
        )


def _maker(candidate: Candidate, make: Any, components: int, data: _Data) -> _Maker:
    if candidate.initial_means == "own":
        return _Maker(make, components)
    return _Maker(make, components, candidate.initial_means, jnp.asarray(data.y))


# --------------------------------------------------------------------------------------- the runs


class _Training(NamedTuple):
    """How a task is trained."""

    optimizer: Callable[..., Any]
    learning_rate: float
    updates: int
    batch_size: int
    patience: int | None = None


def _train(
    name: str, data: _Data, make: Any, components: int, training: _Training,
    multiple: float, seeds: Sequence[int], label: str,
) -> Run:  # fmt: skip
    """Train a candidate from some seeds in one program, looking at the held-out data."""
    candidate, size = CANDIDATES[name], len(data.y)
    stops = data.validation is not None
    points = geometric_points(training.updates, 40)
    if stops:
        points = tuple(np.unique(np.linspace(0, training.updates, 41).round().astype(int)).tolist())
    return loop.train(
        _maker(candidate, make, components, data), candidate.method(name), data.x, data.y,
        epochs=-(-training.updates // (size // training.batch_size)),
        batch_size=training.batch_size, learning_rate=multiple * training.learning_rate,
        optimizer=Falling(
            training.optimizer, training.updates, candidate.warm_up, candidate.clip
        ),
        seeds=seeds, evaluation=(data.test_x, data.test_y), validation=data.validation,
        patience=training.patience if stops else None, record_at=points,
        on_nonfinite="record", label=label,
    )  # fmt: skip


def _rows(run: Run, data: _Data) -> pd.DataFrame:
    """A row per run, of the model that is kept."""
    at = [run.updates.tolist().index(update) for update in run.best_update]
    held_out = run.metrics["nll"].astype(float)
    failed = {failure.seed: failure.update for failure in run.failures}
    kept = pd.DataFrame(
        {
            "seed": run.seeds,
            "nll": [row[i] for row, i in zip(held_out, at, strict=True)],
            **_scores(run, data),
        }
    )
    kept.insert(2, "excess", kept["nll"] - data.best)
    within = held_out - data.best <= SUCCESS
    failed_at = np.array([failed.get(int(seed), -1) for seed in run.seeds])
    kept.loc[failed_at >= 0, kept.columns.drop("seed")] = np.nan
    first = np.where(within.any(1), run.updates[within.argmax(1)], -1)
    return kept.assign(first_within=first, best_update=run.best_update, failed_at=failed_at)


def _scores(run: Run, data: _Data) -> dict[str, np.ndarray]:
    """The training likelihood and the errors of the weights of each run."""
    found = []
    for i in range(len(run.seeds)):
        model = run.model(i)
        if data.x is None:
            train = test = model()
        else:
            train = evaluate(model, jnp.asarray(data.x))
            test = evaluate(model, jnp.asarray(data.test_x))
        scores = {"train_nll": float(nll(train, data.y).mean())}
        scores["entropy"] = float(test.weight_entropy.mean())
        if data.truth is None:
            errors = dict.fromkeys(("weight_error", "weight_bias", "mean_error"), np.nan)
        else:
            shape = (lambda m: with_axis(with_axis(m))) if data.x is None else with_axis
            errors = {k: float(v[0]) for k, v in judged(shape(data.truth), shape(test)).items()}
        found.append(scores | {k: errors[k] for k in ("weight_error", "weight_bias", "mean_error")})
    return {name: np.array([scores[name] for scores in found]) for name in found[0]}


def _curve(runs: Sequence[Run]) -> pd.DataFrame:
    """The median held-out likelihood over the runs, infinite for one that was lost."""
    columns = pd.concat([pd.DataFrame(run.columns()) for run in runs])
    values = columns["nll"].where(np.isfinite(columns["nll"]), np.inf)
    median = values.groupby(columns["update"]).median().rename("median_nll")
    return median[np.isfinite(median)].reset_index()


def _tables(labels: Mapping[str, Any], rows: Sequence[pd.DataFrame], runs: Sequence[Run]) -> Tables:
    """The rows of some runs, and their curve, with what was run before them."""
    tables = {"runs": pd.concat(rows, ignore_index=True), "curves": _curve(runs)}
    named = {name: pd.DataFrame(labels, index=t.index).join(t) for name, t in tables.items()}
    return {name: significant(table, ("learning_rate",)) for name, table in named.items()}


def _joined(tables: Sequence[Tables]) -> Tables:
    return {
        name: pd.concat([table[name] for table in tables], ignore_index=True) for name in tables[0]
    }


def _labels(task: Task, name: str, rate: float) -> dict[str, Any]:
    return {
        "task": task.name, "held_back": task.held_back, "method": name, "learning_rate": rate,
    }  # fmt: skip


def _run_synthetic(config: Config, task: Free | Network, name: str) -> Tables:
    make: Any
    if isinstance(task, Free):
        data, make, optimizer = _free_data(config, task), _MakeFree(task.components), optax.sgd
    else:
        data, optimizer = _network_data(config, task), optax.adam
        features, dim = data.x.shape[1], data.y.shape[1]
        make = _MakeNetwork(features, task.components, dim, task.hidden)
    training = _Training(
        optimizer, task.learning_rate, task.updates, task.batch_size,
        task.patience if isinstance(task, Network) else None,
    )  # fmt: skip
    tables = []
    for multiple in CANDIDATES[name].rates:
        run = _train(
            name, data, make, task.components, training, multiple, config.seeds,
            f"{task.name}, {name}, rate × {multiple:g}",
        )  # fmt: skip
        labels = _labels(task, name, multiple * task.learning_rate)
        tables.append(_tables(labels, [_rows(run, data)], [run]))
    return _joined(tables)


def _run_regression(config: Config, task: Regression, name: str) -> Tables:
    settings = regression.Config()
    found = next(t for t in settings.tasks if t.dataset == task.dataset)
    tables = []
    for multiple in CANDIDATES[name].rates:
        rows, runs = [], []
        for seed in config.seeds[:NUM_SPLITS]:
            data = _regression_data(task, seed, settings.scaling)
            training = _Training(
                optax.adam, found.learning_rate,
                (task.epochs or found.epochs) * (len(data.y) // found.batch_size),
                found.batch_size, task.patience,
            )  # fmt: skip
            make = regression.model_maker(settings, data.x.shape[1], None)
            run = _train(
                name, data, make, settings.num_components, training, multiple, (seed,),
                f"{task.name}, {name}, split {seed - 1}",
            )  # fmt: skip
            rows.append(_rows(run, data))
            runs.append(run)
        tables.append(_tables(_labels(task, name, multiple * found.learning_rate), rows, runs))
    return _joined(tables)


# ------------------------------------------------------------------------------------ the criteria


def succeeded(excess: Any) -> np.ndarray:
    """Say which runs succeeded.

    Args:
        excess: held-out nats above the best possible, any shape; NaN for a run that was lost.

    Returns:
        Booleans of that shape.
    """
    return np.nan_to_num(np.asarray(excess, float), nan=np.inf) <= SUCCESS


def updates_to(updates: Any, values: Any, level: float) -> float:
    """Return after how many updates a curve first is at or below a level.

    Args:
        updates: increasing, shape `(R,)`.
        values: negative log-likelihoods there, in nats, shape `(R,)`.
        level: in nats.

    Returns:
        One of the updates; infinite if the curve never is.
    """
    reached = np.asarray(values, float) <= level
    return float(np.asarray(updates)[reached.argmax()]) if reached.any() else np.inf


def best_rate(runs: pd.DataFrame) -> float:
    """Return the learning rate with the lowest median held-out likelihood.

    Args:
        runs: rows of one candidate on one task, with `learning_rate` and `nll`, NaN where a run was
            lost, which counts as worst.

    Returns:
        The rate, the smallest of equally good ones.
    """
    medians = runs.assign(nll=runs["nll"].fillna(np.inf)).groupby("learning_rate")["nll"].median()
    return float(medians.idxmin()) if np.isfinite(medians).any() else float(medians.index[0])


def judge(tables: Tables) -> pd.DataFrame:
    """Judge every candidate on every task by the criteria of this module.

    Args:
        tables: those of `units`.

    Returns:
        A row for each: `task`, `held_back`, `method`; `learning_rate`, its best; `runs`; `failed`,
        how many of them had a value that was not finite; `success`, `success_low` and
        `success_high`, the share that succeeded with its Wilson interval, NaN where the best is not
        known; `nll`, the median; `minus_nll`, `minus_nll_low` and `minus_nll_high`, the mean of the
        difference to the best opponent's run of the same seed with its interval, infinite if a run
        was lost, NaN without an opponent; `speed`, the updates until the opponent's median, `nll`,
        within `MARGIN`, as a part of those that the opponent needs, infinite if it is not reached,
        NaN if the opponent's own curve never is there or was there before it was trained;
        `weight_error`, the median over the runs.
    """
    rows = []
    for (task, held_back), runs in tables["runs"].groupby(["task", "held_back"], sort=False):
        curves = tables["curves"][tables["curves"]["task"] == task]
        chosen = {}
        for name, own in runs.groupby("method", sort=False):
            rate = best_rate(own)
            curve = curves[(curves["method"] == name) & (curves["learning_rate"] == rate)]
            chosen[str(name)] = (rate, own[own["learning_rate"] == rate].set_index("seed"), curve)
        opponents = [name for name in OPPONENTS if name in chosen]
        opponent = min(opponents, key=lambda n: _median(chosen[n][1]["nll"]), default=None)
        for name, (rate, own, curve) in chosen.items():
            row: dict[str, Any] = {
                "task": task, "held_back": held_back, "method": name, "learning_rate": rate,
                "runs": len(own), "failed": int((own["failed_at"] >= 0).sum()),
                **_success(own["excess"], bool(own["excess"].notna().any())),
                "nll": own["nll"].median(),
                **_against(own, curve, *(chosen[opponent][1:] if opponent else (None, None))),
                "weight_error": own["weight_error"].median(),
            }  # fmt: skip
            rows.append(row)
    return pd.DataFrame(rows)


def summarise(judged: pd.DataFrame) -> pd.DataFrame:
    """Count, for each candidate, on how many tasks each criterion is met.

    Args:
        judged: what `judge` returns.

    Returns:
        A row for each method: `tasks`, how many it ran on; `failed`, how many runs were lost;
        shares of them: `not_behind`, the interval of the difference to NLL is not wholly above
        `MARGIN`; `ahead`, it is wholly below minus that; `faster`, at most a third of the updates
        of NLL; and of those where the truth is known: `success`, the mean share of runs, and
        `weights`, the median error of the weights is at most 0.01, or at most that of NLL.
        `worst` is the largest mean difference to NLL, in nats, `speed` the median over the tasks.
    """
    errors = judged[judged["method"].isin(OPPONENTS)].groupby("task")["weight_error"].min()
    table = judged.assign(
        not_behind=~(judged["minus_nll_low"] > MARGIN),
        ahead=judged["minus_nll_high"] < -MARGIN,
        faster=judged["speed"] <= 1 / 3,
        weights=(
            judged["weight_error"] <= np.fmax(0.01, judged["task"].map(errors).astype(float))
        ).where(judged["weight_error"].notna()),
    )
    return (
        table.groupby("method", sort=False)
        .agg(
            tasks=("task", "size"),
            failed=("failed", "sum"),
            not_behind=("not_behind", "mean"),
            ahead=("ahead", "mean"),
            success=("success", "mean"),
            faster=("faster", "mean"),
            weights=("weights", "mean"),
            worst=("minus_nll", "max"),
            speed=("speed", "median"),
        )
        .astype({"weights": float})
    )


def _median(values: pd.Series) -> float:
    return float(values.fillna(np.inf).median())


def _success(excess: pd.Series, known: bool) -> dict[str, float]:
    if not known:
        return dict.fromkeys(("success", "success_low", "success_high"), np.nan)
    successes = int(succeeded(excess).sum())
    interval = wilson_interval(successes, len(excess))
    return {
        "success": successes / len(excess),
        "success_low": float(interval[0]),
        "success_high": float(interval[1]),
    }


def _against(
    own: pd.DataFrame, curve: pd.DataFrame, runs: pd.DataFrame | None, theirs: pd.DataFrame | None
) -> dict[str, float]:
    """The differences to an opponent."""
    names = ("minus_nll", "minus_nll_low", "minus_nll_high")
    found = dict.fromkeys((*names, "speed"), np.nan)
    if runs is None or theirs is None:
        return found
    # A run that was lost is infinitely worse; where the opponent's was, nothing is compared.
    difference = (own["nll"].fillna(np.inf) - runs["nll"]).dropna().to_numpy()
    if len(difference) > 1:
        numbers = (np.inf, np.inf, np.inf)
        if np.isfinite(difference).all():
            mean, _, half = map(float, mean_and_interval(difference))
            numbers = (mean, mean - half, mean + half)
        found |= dict(zip(names, numbers, strict=True))
    level = float(runs["nll"].median()) + MARGIN
    needed = updates_to(theirs["update"], theirs["median_nll"], level) if len(theirs) else np.inf
    if 0 < needed < np.inf:
        found["speed"] = updates_to(curve["update"], curve["median_nll"], level) / needed
    return found


# --------------------------------------------------------------------------------------- the parts


def units(config: Config) -> list[Unit]:
    """The parts of the study: a candidate on a task, all seeds and rates of it.

    Args:
        config: the settings; data are read when a part is computed.

    Returns:
        Units with the tables `runs`, a row per run (`task`, `held_back`, `method`, `learning_rate`,
        `seed`; `nll`, `excess` over the best possible, `train_nll`, `entropy` of the weights and
        the errors of `metrics.mode_errors`, all of the model that is kept and on held-out data but
        for `train_nll`; `first_within`, the first recorded update within `SUCCESS`, -1 if none;
        `best_update`, that of the kept model; `failed_at`, the update after which the run had a
        value that is not finite, -1 if it never had), and `curves`, the median held-out `nll` over
        the runs at the recorded points.
    """
    return [
        Unit(
            slug(f"{task.name}-{name}"),
            partial(_run, config, task, name),
            _seconds(config, task, CANDIDATES[name]),
        )
        for task in config.tasks
        for name in config.methods
    ]


def _run(config: Config, task: Task, name: str) -> Tables:
    if isinstance(task, Regression):
        return _run_regression(config, task, name)
    return _run_synthetic(config, task, name)


def _seconds(config: Config, task: Task, candidate: Candidate) -> float:
    """Expected time of a part."""
    repeats = len(config.seeds) * len(candidate.rates)
    if isinstance(task, Regression):
        seconds = {"kin8nm": 3.5}.get(task.dataset, 0.7)
        return 5.0 + repeats * seconds * (2.0 if candidate.initial_means != "own" else 1.0)
    if isinstance(task, Free):
        return 4.0 + repeats * task.updates * task.components * 4e-6
    return 5.0 + repeats * task.updates * 2.4e-4
