"""Module 3: where the samples of an iteration come from, and how many are new.

Samples in the store count as long as they are worth something: for `n` wanted and an effective
number `1 / sum a^2` of old ones, with self-normalised importance weights `a`, the difference is
drawn, one at least.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import jax
import jax.numpy as jnp

from ngem_tutorial.vi._store import Store, normalised

__all__ = ["CHOICES", "FromComponents", "FromMixture", "Sampling"]


@dataclass(frozen=True)
class FromComponents:
    """`M`: from each component its own, also from one with hardly any weight."""

    number: int = 100
    """Effective number of samples for each component."""
    reuse: float = 2.0
    """Old samples count up to this many times `number` for each component, the newest."""
    memory: int = 20
    """Samples count for so many iterations at most."""

    def room(self, size: int) -> tuple[int, int]:
        """Say how much is kept.

        Args:
            size: `C`.

        Returns:
            How many samples, and of how many iterations.
        """
        old = int(self.reuse * self.number) * size
        return old + self.number * size, self.memory if old else 1

    def counts(
        self, key: jax.Array, store: Store, log_weights: jax.Array, num_components: jax.Array
    ) -> jax.Array:
        """Say how many samples each component draws.

        Args:
            key: is not needed here.
            store: the samples at hand.
            log_weights: is not needed here.
            num_components: `K`.

        Returns:
            Whole numbers, shape `(C,)`.
        """
        effective = _effective_number(store.log_importance())
        wanted = jnp.clip(jnp.floor(self.number - effective), 1, self.number)
        return jnp.where(jnp.arange(len(wanted)) < num_components, wanted, 0).astype(jnp.int32)


@dataclass(frozen=True)
class FromMixture:
    """`P`: from the mixture; a component with little weight draws few, or none."""

    number: int = 100
    """Effective number of samples of the mixture, for all components together."""
    reuse: float = 0.0
    """Old samples count up to this many times `number` for each component, the newest."""
    memory: int = 20
    """Samples count for so many iterations at most."""

    def room(self, size: int) -> tuple[int, int]:
        """Say how much is kept.

        Args:
            size: `C`.

        Returns:
            How many samples, and of how many iterations.
        """
        old = int(self.reuse * self.number) * size
        return old + self.number, self.memory if old else 1

    def counts(
        self, key: jax.Array, store: Store, log_weights: jax.Array, num_components: jax.Array
    ) -> jax.Array:
        """Say how many samples each component draws; see `FromComponents.counts`.

        Args:
            key: decides which components draw.
            store: the samples at hand.
            log_weights: of the mixture, shape `(C,)`.
            num_components: `K`.

        Returns:
            Whole numbers, shape `(C,)`.
        """
        log_ratio = jax.nn.logsumexp(store.log_importance() + log_weights, axis=1, keepdims=True)
        effective = _effective_number(log_ratio)[0]
        total = jnp.clip(jnp.floor(self.number - effective), 1, self.number)
        positions = jnp.arange(self.number)
        u = jax.random.uniform(key, positions.shape, log_weights.dtype)
        ends = jnp.cumsum(jnp.exp(log_weights))
        component = jnp.searchsorted(ends, u * ends[-1], side="right")
        component = jnp.minimum(component, num_components - 1)
        drawn = (positions < total).astype(jnp.int32)
        return jnp.zeros(len(log_weights), jnp.int32).at[component].add(drawn)


def _effective_number(log_importance: jax.Array) -> jax.Array:
    """Effective numbers of samples `1 / sum a^2`, shape `(C,)`, zero where there is none."""
    squares = jnp.sum(normalised(log_importance) ** 2, axis=0)
    return jnp.where(squares > 0, 1.0 / jnp.where(squares > 0, squares, 1.0), 0.0)


Sampling: TypeAlias = FromComponents | FromMixture
"""A choice of this module."""
CHOICES: dict[str, Sampling] = {"M": FromComponents(), "P": FromMixture()}
"""The letters of this module."""
