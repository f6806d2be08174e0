"""What several experiments need: data in standard units, starts, rates, and what is kept."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pandas as pd
from flax import nnx

from ngem_tutorial.datasets import (
    ConditionalSample,
    Sample,
    junction,
    two_gaussians,
    two_sinusoids,
)
from ngem_tutorial.fisher import Coordinate
from ngem_tutorial.metrics import mode_errors
from ngem_tutorial.mixtures import GaussianMixture
from ngem_tutorial.networks import PlainMixture

__all__ = [
    "Falling",
    "conditional_sample",
    "draw_mixture",
    "evaluate",
    "geometric_points",
    "judged",
    "mixture_of",
    "rounded",
    "separated_modes",
    "significant",
    "with_axis",
]


def separated_modes(key: jax.Array, size: int, modes: int, weight: float) -> Sample:
    """Points of separated Gaussians in the plane.

    Args:
        key: a JAX random key.
        size: the number of points.
        modes: two are those of Two-Gaussians, more lie on a circle, six deviations apart.
        weight: share of the first mode; the others share the rest evenly.

    Returns:
        The points and their distribution.
    """
    if modes == 2:
        means = np.array([[-2.0, -2.0], [2.0, 2.0]])
    else:
        angles = 2.0 * np.pi * np.arange(modes) / modes
        radius = 1.5 / np.sin(np.pi / modes)
        means = radius * np.stack([np.cos(angles), np.sin(angles)], axis=-1)
    rest = (1.0 - weight) / (modes - 1)
    weights = (weight, *[rest] * (modes - 1))
    return two_gaussians(key, size, weights=weights, means=means.tolist())


def conditional_sample(
    name: str, key: jax.Array, size: int, weight: float = 0.5, unit: float = 1.0
) -> ConditionalSample:
    """Inputs as a network takes them, targets in a unit, and the truth for them.

    Args:
        name: `"Two-Sinusoids"`, or `"Junction"`, whose inputs and targets are standardised.
        key: a JAX random key.
        size: the number of points.
        weight: share of the first wave; on Junction the weights are the generator's.
        unit: the targets of Two-Sinusoids are multiplied by it.

    Returns:
        The sample.

    Raises:
        ValueError: if there is no such data set.
    """
    if name == "Junction":
        sample = junction(key, size)
        x_mean, x_unit = jnp.array([10.0, 5.0]), jnp.array([2.3, 2.9])
        y_mean, y_unit = jnp.array([35.0, 0.0]), jnp.array([12.0, 5.0])
    elif name == "Two-Sinusoids":
        sample = two_sinusoids(key, size, weights=(weight, 1.0 - weight))
        x_mean, x_unit, y_mean, y_unit = (jnp.array([v]) for v in (0.0, 1.0, 0.0, 1.0 / unit))
    else:
        raise ValueError(f"task must be Two-Sinusoids or Junction, got {name!r}")

    def truth(x: jax.Array) -> GaussianMixture:
        raw = sample.truth(x * x_unit + x_mean)
        return GaussianMixture(raw.logits, (raw.means - y_mean) / y_unit, raw.scales / y_unit)

    return ConditionalSample((sample.x - x_mean) / x_unit, (sample.y - y_mean) / y_unit, truth)


def draw_mixture(
    rngs: nnx.Rngs,
    coordinate: Coordinate,
    initial_scale: tuple[float, float],
    num_components: int = 2,
) -> PlainMixture:
    """Draw the start of a free mixture: logits and means from N(0, 1), scales from an interval.

    Args:
        rngs: the random streams.
        coordinate: what is trained for the scales.
        initial_scale: the ends of the interval.
        num_components: `K`.

    Returns:
        The module to train, with `D = 2`.
    """
    key = jax.random.split(rngs(), 3)
    low, high = initial_scale
    share = jax.random.uniform(key[2], (num_components, 2), minval=jnp.finfo(jnp.float32).eps)
    mixture = GaussianMixture(
        jax.random.normal(key[0], (num_components,)),
        jax.random.normal(key[1], (num_components, 2)),
        low + (high - low) * share,
    )
    return PlainMixture(mixture, coordinate)


def mixture_of(model: Any) -> GaussianMixture:
    """The mixture that a module without inputs holds: a probe."""
    mixture: GaussianMixture = model()
    return mixture


@nnx.jit
def evaluate(model: Any, x: jax.Array) -> GaussianMixture:
    """A network at `x`; NaN is let through, compiled code does not check values."""
    return model(x)


@dataclasses.dataclass(frozen=True)
class Falling:
    """An optimizer of `loop.train` whose rate falls to zero along a cosine; compared by value.

    Args:
        optimizer: maps a rate, or a schedule of rates, to an optax transformation.
        updates: length of the training.
        warm_up: first part of the training in which the rate rises from zero.
        clip: largest norm of a gradient; longer ones are shortened. 0: none is.
    """

    optimizer: Callable[..., Any]
    updates: int
    warm_up: float = 0.0
    clip: float = 0.0

    def __call__(self, rate: Any) -> optax.GradientTransformation:
        """Make the transformation for a learning rate."""
        schedule = optax.cosine_decay_schedule(rate, self.updates)
        if self.warm_up > 0:
            rise = max(1, round(self.warm_up * self.updates))
            fall = optax.cosine_decay_schedule(rate, self.updates - rise)
            schedule = optax.join_schedules([optax.linear_schedule(0.0, rate, rise), fall], [rise])
        made = self.optimizer(schedule)
        return optax.chain(optax.clip_by_global_norm(self.clip), made) if self.clip > 0 else made


def geometric_points(updates: int, number: int = 60) -> tuple[int, ...]:
    """About so many numbers of updates at which to look, closer together at the start."""
    grid = np.geomspace(max(1, updates // 500), updates, number).round().astype(int)
    return tuple(np.unique(grid).tolist())


def judged(truth: GaussianMixture, mixture: GaussianMixture) -> dict[str, np.ndarray]:
    """`mode_errors` as NumPy arrays in double precision."""
    errors = mode_errors(truth, mixture)
    return {name: np.asarray(value, np.float64) for name, value in errors.items()}


def with_axis(mixture: GaussianMixture) -> GaussianMixture:
    """With a leading axis of one."""
    return jax.tree.map(lambda leaf: leaf[None], mixture)


def significant(table: pd.DataFrame, settings: Sequence[str]) -> pd.DataFrame:
    """Numbers to five significant digits, as they are stored; the columns of settings as given."""
    numbers = [c for c in table.select_dtypes("floating") if c not in settings]
    return table.assign(**table[numbers].map(lambda value: float(f"{value:.5g}")).astype(float))


def rounded(values: Any, decimals: int) -> np.ndarray:
    """Numbers as they are stored."""
    return np.asarray(values, dtype=np.float64).round(decimals)
