"""Two-Sinusoids: a network that gives a mixture of two Gaussians for each input.

Sections 4.1 and 4.2 of the paper: Figures 6 and 7 and Table 2 at the settings of its Table 8. What
the paper leaves open is in `Config`; where it can be read in two ways, in `Reading`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from functools import cache, partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pandas as pd
from flax import nnx

from ngem_tutorial import loop
from ngem_tutorial.datasets import ConditionalSample, two_sinusoids
from ngem_tutorial.experiments._shared import evaluate, rounded
from ngem_tutorial.loop import Run
from ngem_tutorial.methods import get_method, slug
from ngem_tutorial.metrics import collapse, weight_entropy
from ngem_tutorial.networks import MixtureDensityNetwork
from ngem_tutorial.objectives import nll
from ngem_tutorial.runs import Unit

__all__ = [
    "COLLAPSED",
    "PRESETS",
    "TOLERANCE",
    "Config",
    "Reading",
    "data",
    "density",
    "inputs",
    "make_model",
    "measured",
    "outcome",
    "train",
    "truth_nll",
    "units",
]

TOLERANCE = 0.2
"""A run succeeds if it ends within this many nats of the likelihood of the generator, on the data
that it was trained on. One broad Gaussian at every input ends more than a nat away."""

COLLAPSED = 0.1
"""At an input, a mixture has collapsed if its smaller weight is less than this share of the
generator's smaller weight; a run has, if its mixture has at more than half of the inputs."""


@dataclasses.dataclass(frozen=True)
class Reading:
    """One reading of what the paper leaves open, and how much of it to run."""

    name: str = "one trunk"
    trunks: Literal[1, 2] = 1
    """One perceptron for all outputs, or a second one for the logits. The paper speaks of "a
    standard multi-layer perceptron backbone" and lists the hidden layers once: one."""
    noise_is: Literal["variance", "deviation"] = "variance"
    """What the 0.1 of the noise's N(0, 0.1) is. The second argument of N is a covariance in the
    paper's equations (2) and (13), and a standard deviation in its Algorithm 1."""
    num_seeds: int = 20
    """How many of the seeds are run."""
    methods: tuple[str, ...] = (
        "NLL",
        "nGEM, paper's code",
        "undamped nGEM",
        "nGEM, as derived",
        "damped nGEM",
    )
    learning_rates: tuple[float, ...] = (1e-3, 1e-4, 1e-5)


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings; the defaults are those of the paper's Table 8 where it gives them.

    The inputs are not scaled: the paper does not mention that they are. The scales are
    `min_scale + softplus`, so that the coordinate of the paper's Fisher block, the standard
    deviation, is nearly the network's output where a component is broad.
    """

    size: int = 2000
    weights: tuple[float, float] = (0.5, 0.5)
    """Shares of the two waves."""
    hidden: tuple[int, ...] = (128, 128, 128, 128)
    epochs: int = 1000
    batch_size: int = 128
    seeds: tuple[int, ...] = tuple(range(1, 21))
    readings: tuple[Reading, ...] = (Reading(),)
    min_scale: float = 1e-3
    """Floor of the scales, in units of the target: far below the noise."""
    initial_scale: float = 1.0
    """Where the scales start, up to the random last layer."""
    data_seed: int = 0
    record_at: tuple[int, ...] = (0, 1, 10, 100, *range(300, 15_001, 300))
    """Numbers of updates."""
    density_seeds: int = 5
    """Of how many seeds the densities are kept."""


_TWO_TRUNKS = Reading("two trunks", trunks=2, num_seeds=5)
_SMALL_NOISE = Reading(
    "one trunk, deviation 0.1",
    noise_is="deviation",
    num_seeds=5,
    methods=("NLL", "nGEM, paper's code", "undamped nGEM", "damped nGEM"),
    learning_rates=(1e-3, 1e-4),
)
_SGEM = Reading(num_seeds=5, methods=("SGEM",))

PRESETS: dict[str, Config] = {
    "quick": Config(
        epochs=200,
        seeds=(1, 2),
        readings=(Reading(num_seeds=2, learning_rates=(1e-3,)),),
        record_at=(0, *range(100, 3001, 100)),
        density_seeds=2,
    ),
    "paper": Config(readings=(Reading(), _SGEM, _TWO_TRUNKS, _SMALL_NOISE)),
}
"""SGEM has the gradient of NLL up to rounding, so that five of its runs are enough."""


def data(config: Config, reading: Reading, test: bool = False) -> ConditionalSample:
    """Draw the examples, shared by all runs of a reading.

    Args:
        config: the settings.
        reading: what the noise is.
        test: draw as many others, which no run is trained on.

    Returns:
        The examples and the conditional distribution that they were drawn from.
    """
    key = jax.random.fold_in(jax.random.key(config.data_seed), int(test))
    return two_sinusoids(key, config.size, weights=config.weights, noise_is=reading.noise_is)


def truth_nll(config: Config, reading: Reading) -> float:
    """Negative log-likelihood of the training targets under the generator.

    Args:
        config: the settings.
        reading: what the noise is.

    Returns:
        Nats per example. A trained network can be below it, by fitting the noise.
    """
    sample = data(config, reading)
    return float(nll(sample.truth(sample.x), sample.y).mean())


def make_model(config: Config, reading: Reading) -> partial[MixtureDensityNetwork]:
    """Return what builds the network; the same object for the same architecture.

    Args:
        config: the settings.
        reading: how many trunks.

    Returns:
        A function from random streams to the module, `K = 2` and `D = 1`.
    """
    return _model_maker(config.hidden, reading.trunks, config.min_scale, config.initial_scale)


@cache
def _model_maker(
    hidden: tuple[int, ...], trunks: Literal[1, 2], min_scale: float, initial_scale: float
) -> partial[MixtureDensityNetwork]:
    return partial(_make_model, hidden, trunks, min_scale, initial_scale)


def _make_model(
    hidden: tuple[int, ...],
    trunks: Literal[1, 2],
    min_scale: float,
    initial_scale: float,
    rngs: nnx.Rngs,
) -> MixtureDensityNetwork:
    return MixtureDensityNetwork(
        1, 2, 1, hidden=hidden, trunks=trunks, min_scale=min_scale,
        initial_scale=initial_scale, rngs=rngs,
    )  # fmt: skip


def train(config: Config, reading: Reading, method: str, learning_rate: float, seed: int) -> Run:
    """Train one run.

    Args:
        config: the settings.
        reading: the architecture and the noise.
        method: one of `methods.METHODS`.
        learning_rate: of Adam.
        seed: of the initialisation and the shuffling.

    Returns:
        The run; `failures` says whether and when the run was not finite.

    Raises:
        ValueError: if a setting is out of range or the method is unknown.
    """
    sample = data(config, reading)
    chosen = get_method(method)
    return loop.train(
        make_model(config, reading),
        chosen,
        sample.x,
        sample.y,
        epochs=config.epochs,
        batch_size=config.batch_size,
        learning_rate=learning_rate,
        optimizer=optax.adam,
        seeds=(seed,),  # one at a time: on a CPU not slower than a batch, and a failed run stops
        metrics={"nll": nll, "entropy": weight_entropy},
        record_at=config.record_at,
        on_nonfinite="record",
        label=f"{method}, β = {learning_rate:g}, seed {seed}",
    )


def inputs(size: int = 64) -> jax.Array:
    """Inputs at which densities are kept, evenly over both periods.

    Args:
        size: how many.

    Returns:
        Shape `(size, 1)`, radians.
    """
    return jnp.linspace(0.0, 4.0 * np.pi, size)[:, None]


def density(result: Run) -> pd.DataFrame:
    """The learned mixture at `inputs`.

    Args:
        result: what `train` returned.

    Returns:
        A row per input: `x` (radians), `weight_1`, `mean_1`, `scale_1`, `mean_2`, `scale_2`, to
        three decimals; all but `x` missing if the run was not finite.
    """
    x = inputs()
    mixture = evaluate(result.model(), x)
    columns = {
        "x": x[:, 0],
        "weight_1": mixture.weights[:, 0],
        **{
            f"{name}_{k + 1}": parameter[:, k, 0]
            for k in range(2)
            for name, parameter in (("mean", mixture.means), ("scale", mixture.scales))
        },
    }
    return pd.DataFrame({name: rounded(column, 3) for name, column in columns.items()})


def outcome(config: Config, reading: Reading, result: Run) -> dict[str, float]:
    """Reduce a run to what it ended with.

    Args:
        config: the settings.
        reading: the architecture and the noise.
        result: what `train` returned.

    Returns:
        `nll` (training examples), `excess_nll` (that minus `truth_nll`), `test_nll` (fresh
        examples), `entropy` of the weights, averaged over the training inputs, and, averaged over
        `inputs`, `largest_weight`, `collapsed_inputs` (the share of them at which the mixture has
        collapsed, see `COLLAPSED`) and `mean_error` (root mean squared distance of the mixture's
        mean from the generator's, in units of the target); likelihoods and entropies in nats.
        All are NaN if the run was not finite.
    """
    test = data(config, reading, test=True)
    final = {name: float(metric[0, -1]) for name, metric in result.metrics.items()}
    at_inputs = collapse(
        data(config, reading).truth(inputs()), evaluate(result.model(), inputs()), COLLAPSED
    )
    values = {
        "nll": final["nll"],
        "excess_nll": final["nll"] - truth_nll(config, reading),
        "test_nll": nll(evaluate(result.model(), test.x), test.y).mean(),
        "entropy": final["entropy"],
        "largest_weight": at_inputs["largest_weight"].mean(),
        "collapsed_inputs": at_inputs["collapsed"].mean(),
        "mean_error": jnp.sqrt(at_inputs["squared_error"].mean()),
    }
    failed = bool(result.failures)
    return {name: np.nan if failed else float(rounded(value, 5)) for name, value in values.items()}


def units(config: Config) -> list[Unit]:
    """The parts of the experiment: all seeds of a reading, a method and a rate.

    Args:
        config: the settings.

    Returns:
        Units with the tables `curves` (`nll` and `entropy` at the recorded points, and `failed_at`,
        the update after which the run had a non-finite value, -1 if it never had), `final` (a row
        per run, see `outcome`) and `densities` (of the first seeds, see `density`), each with
        `reading`, `method`, `learning_rate` and `seed`.

    Raises:
        ValueError: if a reading asks for no seeds, or more than there are.
    """
    for reading in config.readings:
        if not 1 <= reading.num_seeds <= len(config.seeds):
            raise ValueError(
                f"num_seeds must be from 1 to the number of seeds, {len(config.seeds)}, "
                f"got {reading.num_seeds} in the reading {reading.name!r}"
            )
    return [
        Unit(
            slug(f"{reading.name}-{method}-lr={rate:g}-seeds={reading.num_seeds}"),
            partial(_run_unit, config, reading, method, rate),
            reading.num_seeds * _seconds(config, reading) + 3.0,  # to compile
        )
        for reading in config.readings
        for rate in reading.learning_rates
        for method in reading.methods
    ]


def _seconds(config: Config, reading: Reading) -> float:
    """Expected time of a run."""
    updates = config.epochs * (config.size // config.batch_size)
    return 0.3 + updates * {1: 3.6e-4, 2: 6.6e-4}[reading.trunks]


def _run_unit(
    config: Config, reading: Reading, method: str, learning_rate: float
) -> dict[str, pd.DataFrame]:
    tables: dict[str, list[pd.DataFrame]] = {"curves": [], "final": [], "densities": []}
    for i, seed in enumerate(config.seeds[: reading.num_seeds]):
        result = train(config, reading, method, learning_rate, seed)
        curves = pd.DataFrame(result.columns())[["update", "nll", "entropy", "failed_at"]]
        end = pd.DataFrame([outcome(config, reading, result)])
        rows = {
            "curves": curves.assign(
                **{name: rounded(curves[name], 5) for name in ("nll", "entropy")}
            ),
            "final": end.assign(failed_at=curves["failed_at"].iloc[-1]),
        }
        if i < config.density_seeds:
            rows["densities"] = density(result)
        settings = {
            "reading": reading.name,
            "method": method,
            "learning_rate": learning_rate,
            "seed": seed,
        }
        for name, table in rows.items():
            tables[name].append(_labelled(table, settings))
    return {name: pd.concat(parts, ignore_index=True) for name, parts in tables.items()}


def _labelled(table: pd.DataFrame, settings: Mapping[str, Any]) -> pd.DataFrame:
    """The table with a column of equal entries for each setting before its own."""
    for position, (name, value) in enumerate(settings.items()):
        table.insert(position, name, value)
    return table


def measured(tables: Mapping[str, pd.DataFrame], reading: str = "one trunk") -> pd.DataFrame:
    """The final entropy of each run, for the comparison with Table 2 of the paper.

    Args:
        tables: those of `units`.
        reading: the name of the reading to compare.

    Returns:
        The rows that `comparison.compare` takes.
    """
    final = tables["final"]
    runs = final[final["reading"] == reading]
    return pd.DataFrame(
        {
            "table": "Table 2",
            "condition": runs["learning_rate"].map("β = {:g}".format),
            "quantity": "entropy",
            "method": runs["method"],
            "seed": runs["seed"],
            "value": runs["entropy"],
        }
    ).reset_index(drop=True)
