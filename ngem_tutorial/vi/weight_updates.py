"""Module 6: the update of the weights along their natural gradient.

For a categorical distribution that is a mirror step: the logarithms of the weights move along the
expected rewards `R_o = E_o[log p~ - tau log q]`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import jax
import jax.numpy as jnp

from ngem_tutorial._checks import check_number
from ngem_tutorial.vi.checks import is_length

__all__ = ["CHOICES", "LEAST_LOG_WEIGHT", "DirectWeights", "TrustRegionWeights", "WeightUpdate"]

LEAST_LOG_WEIGHT = -69.0
"""The least logarithm of a weight, about 1e-30: from there a component can come back."""


@dataclass(frozen=True)
class DirectWeights:
    """`U`: `log w' = log w + (beta / tau) R`, normalised."""

    first_step: float = 1.0
    """The step size `beta` that it starts with; at one, the weights are the best for the rewards
    as they are."""

    def __post_init__(self) -> None:
        """Check the option."""
        check_number("first_step", self.first_step, "at least 0 and finite", is_length)

    def __call__(
        self, log_weights: jax.Array, reward: jax.Array, step: jax.Array, temperature: jax.Array
    ) -> jax.Array:
        """Update the weights.

        Args:
            log_weights: shape `(C,)`, minus infinity for a place without a component.
            reward: `R`, shape `(C,)`.
            step: `beta`.
            temperature: `tau`.

        Returns:
            The new ones, shape `(C,)`.
        """
        return _normalised(log_weights + step / temperature * reward)


@dataclass(frozen=True)
class TrustRegionWeights:
    """`O`: the best weights for the rewards with `KL(w' || w)` at most the step size.

    They maximise `sum w'_o (R_o + tau log w_o) + tau H(w')`, hence
    `log w' = log w + R / (tau + eta)` up to a constant, with the least `eta >= 0` that keeps to the
    bound: found by bisection.
    """

    first_step: float = 1.0
    """The bound in nats that it starts with."""

    def __post_init__(self) -> None:
        """Check the option."""
        check_number("first_step", self.first_step, "at least 0 and finite", is_length)

    def __call__(
        self, log_weights: jax.Array, reward: jax.Array, step: jax.Array, temperature: jax.Array
    ) -> jax.Array:
        """Update the weights.

        Args:
            log_weights: shape `(C,)`, minus infinity for a place without a component.
            reward: `R`, shape `(C,)`.
            step: the bound, in nats.
            temperature: `tau`.

        Returns:
            The new ones, shape `(C,)`.
        """
        used = log_weights > -jnp.inf

        def moved(rate: jax.Array) -> tuple[jax.Array, jax.Array]:
            new = jax.nn.log_softmax(log_weights + jnp.where(used, rate * reward, 0.0))
            change = jnp.where(used, new - jnp.where(used, log_weights, 0.0), 0.0)
            return new, jnp.sum(jnp.exp(new) * change)

        def halve(_: int, ends: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
            low, high = ends
            middle = 0.5 * (low + high)
            fits = moved(jnp.exp(middle))[1] <= step
            return jnp.where(fits, middle, low), jnp.where(fits, high, middle)

        longest = -jnp.log(temperature)  # eta = 0
        shortest = longest - 85.0
        halvings = 64 if log_weights.dtype == jnp.float64 else 40
        found, _ = jax.lax.fori_loop(0, halvings, halve, (shortest, longest))
        rate = jnp.exp(jnp.where(moved(jnp.exp(longest))[1] <= step, longest, found))
        return _normalised(log_weights + rate * reward)


def _normalised(logits: jax.Array) -> jax.Array:
    """Normalise, and lift what is below the floor."""
    used = logits > -jnp.inf
    lifted = jnp.maximum(jax.nn.log_softmax(logits), LEAST_LOG_WEIGHT)
    return jax.nn.log_softmax(jnp.where(used, lifted, -jnp.inf))


WeightUpdate: TypeAlias = DirectWeights | TrustRegionWeights
"""A choice of this module."""
CHOICES: dict[str, WeightUpdate] = {"U": DirectWeights(), "O": TrustRegionWeights()}
"""The letters of this module."""
