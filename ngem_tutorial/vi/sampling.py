"""Module 3: where the samples of an iteration come from, and how many are new.

Samples in the store count as long as they are worth something: for `n` wanted and an effective
number `1 / sum a^2` of old ones, with self-normalised importance weights `a`, the difference is
drawn, one at least.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeAlias

import jax
import jax.numpy as jnp

from ngem_tutorial._checks import check_number, check_whole
from ngem_tutorial.vi._store import Store

__all__ = ["CHOICES", "FromComponents", "FromMixture", "Sampling"]


@dataclass(frozen=True)
class _Reused:
    """What both choices have in common: how long samples are used."""

    number: int = 100
    """Effective number of samples that an iteration wants."""
    reuse: float = 0.0
    """Old samples count up to this many times `number` for each component, the newest."""
    memory: int = 20
    """Samples count for so many iterations at most."""

    def __post_init__(self) -> None:
        """Check the options."""
        check_whole("number", self.number, 1)
        check_number("reuse", self.reuse, "at least 0", lambda v: (v >= 0) & (v < math.inf))
        check_whole("memory", self.memory, 1)

    def old(self, size: int) -> int:
        """Return how many old samples there is room for, with `size` places for components."""
        return int(self.reuse * self.number) * size

    def iterations(self) -> int:
        """Return of how many iterations samples are kept."""
        return self.memory if self.old(1) else 1


@dataclass(frozen=True)
class FromComponents(_Reused):
    """`M`: from each component `number` samples, also from one with hardly any weight."""

    reuse: float = 2.0
    """Old samples count up to this many times `number` for each component, the newest."""

    def room(self, size: int) -> int:
        """Say how many samples are kept.

        Args:
            size: how many places there are for components.

        Returns:
            How many, old and new ones.
        """
        return self.old(size) + self.number * size

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
        wanted = jnp.clip(jnp.floor(self.number - store.effective_numbers()), 1, self.number)
        return jnp.where(jnp.arange(len(wanted)) < num_components, wanted, 0).astype(jnp.int32)


@dataclass(frozen=True)
class FromMixture(_Reused):
    """`P`: from the mixture `number` samples; a component with little weight draws few, or none."""

    def room(self, size: int) -> int:
        """Say how many samples are kept.

        Args:
            size: how many places there are for components.

        Returns:
            How many, old and new ones.
        """
        return self.old(size) + self.number

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
        effective = store.effective_numbers(log_weights)[0]
        total = jnp.clip(jnp.floor(self.number - effective), 1, self.number)
        positions = jnp.arange(self.number)
        u = jax.random.uniform(key, positions.shape, log_weights.dtype)
        ends = jnp.cumsum(jnp.exp(log_weights))
        component = jnp.searchsorted(ends, u * ends[-1], side="right")
        component = jnp.minimum(component, num_components - 1)
        drawn = (positions < total).astype(jnp.int32)
        return jnp.zeros(len(log_weights), jnp.int32).at[component].add(drawn)


Sampling: TypeAlias = FromComponents | FromMixture
"""A choice of this module."""
CHOICES: dict[str, Sampling] = {"M": FromComponents(), "P": FromMixture()}
"""The letters of this module."""
