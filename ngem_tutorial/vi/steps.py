"""Step sizes, of components (module 5) and of weights (module 7)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp

from ngem_tutorial._typing import Array

__all__ = ["Adaptive", "Decaying", "Fixed", "Progress", "StepSize"]


class Progress(NamedTuple):
    """What step sizes depend on: numbers for the weights, shape `(C,)` for the components."""

    first: float
    """The step size that the update starts with."""
    updates: Array
    """How many updates there have been."""
    now: Array
    """What the updates shall raise: a component's reward `tau log w_o + R_o`, or the ELBO."""
    before: Array
    """The same an iteration before, minus infinity at the start."""


@dataclass(frozen=True)
class Fixed:
    """Always the step size that the update starts with."""

    def __call__(self, step: jax.Array, progress: Progress) -> jax.Array:
        """Return the step sizes as they are.

        Args:
            step: the step sizes so far.
            progress: what they depend on.

        Returns:
            Those of the next update.
        """
        return step


@dataclass(frozen=True)
class Decaying:
    """`beta_0 / (1 + n^power)` after `n` updates."""

    power: float = 0.55
    """How fast it falls."""

    def __call__(self, step: jax.Array, progress: Progress) -> jax.Array:
        """Return the step sizes after the updates that there were.

        Args:
            step: the step sizes so far.
            progress: what they depend on.

        Returns:
            Those of the next update.
        """
        n = progress.updates.astype(step.dtype)
        return progress.first / (1.0 + n**self.power)


@dataclass(frozen=True)
class Adaptive:
    """Longer after an update that was an improvement, shorter after another."""

    longer: float = 1.15
    """The factor after an improvement."""
    shorter: float = 0.85
    """The factor after none."""
    least: float = 0.001
    """The least step size."""
    most: float = 1.0
    """The largest step size."""

    def __call__(self, step: jax.Array, progress: Progress) -> jax.Array:
        """Return the step sizes after the last change of what they shall raise.

        Args:
            step: the step sizes so far.
            progress: what they depend on.

        Returns:
            Those of the next update.
        """
        rose = progress.now > progress.before
        factor = jnp.where(rose, self.longer, self.shorter).astype(step.dtype)
        changed = jnp.clip(step * factor, self.least, self.most)
        return jnp.where(jnp.isfinite(progress.before), changed, step)


StepSize: TypeAlias = Fixed | Decaying | Adaptive
"""A choice of the modules 5 and 7."""
