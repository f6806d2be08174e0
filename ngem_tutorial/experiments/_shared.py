"""What several experiments need: the start of a free mixture, and trained modules as functions."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from ngem_tutorial.fisher import Coordinate
from ngem_tutorial.mixtures import GaussianMixture
from ngem_tutorial.networks import PlainMixture

__all__ = ["draw_mixture", "evaluate", "mixture_of", "rounded"]


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


def rounded(values: Any, decimals: int) -> np.ndarray:
    """Numbers as they are stored."""
    return np.asarray(values, dtype=np.float64).round(decimals)
