"""The samples that the target was evaluated at, kept on the device, to be used again.

The newest iterations are kept, each with its samples and with the Gaussians that drew them. A
sample counts in the estimates of every component, weighted by `q_o(x) / b(x)`, where `b` is the
mixture of all Gaussians that drew the samples in the store, by how many each drew (the balance
heuristic of multiple importance sampling). To know `b` it is enough to keep one number for each
sample and iteration: the log-density of that iteration's draws.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from ngem_tutorial._typing import Array, Bool, Float, Int
from ngem_tutorial.vi._gaussians import Gaussians, pad

__all__ = ["Store", "grow", "normalised"]


class Store(NamedTuple):
    """Rings of `N` samples and of `T` iterations."""

    x: Float[Array, "N d"]
    """The samples, shape `(N, d)`."""
    log_target: Float[Array, " N"]
    """`log p~`, minus infinity for a sample that is rejected, shape `(N,)`."""
    gradient: Float[Array, "N d"]
    """Gradient of the log target, shape `(N, d)`; `(N, 0)` where it is not needed."""
    log_draws: Float[Array, "N T"]
    """`log sum_o n_o N(x; o)` over the Gaussians of each iteration, shape `(N, T)`."""
    log_components: Float[Array, "N C"]
    """Log-densities of the present components, shape `(N, C)`."""
    drawn_by: Gaussians
    """The Gaussians of each iteration, arrays with the leading axes `(T, C)`."""
    log_counts: Float[Array, "T C"]
    """How many samples each of them drew, as logarithms, shape `(T, C)`."""
    sizes: Int[Array, " T"]
    """How many samples each iteration drew, shape `(T,)`."""
    slot: Int[Array, ""]
    """The place of the newest iteration."""
    row: Int[Array, ""]
    """The row after the newest sample."""
    slots: Int[Array, ""]
    """How many iterations count, the newest ones."""

    @classmethod
    def empty(cls, gaussians: Gaussians, rows: int, slots: int, *, gradient: bool) -> Store:
        """Make a store for components like these."""
        size, dim = gaussians.means.shape
        dtype = gaussians.means.dtype
        zero = jnp.zeros((), jnp.int32)
        return cls(
            jnp.zeros((rows, dim), dtype),
            jnp.full(rows, -jnp.inf, dtype),
            jnp.zeros((rows, dim if gradient else 0), dtype),
            jnp.full((rows, slots), -jnp.inf, dtype),
            jnp.full((rows, size), -jnp.inf, dtype),
            jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (slots, *leaf.shape)), gaussians),
            jnp.full((slots, size), -jnp.inf, dtype),
            jnp.zeros(slots, jnp.int32),
            zero,
            zero,
            zero,
        )

    def ages(self) -> jax.Array:
        """How many iterations ago each place was written, shape `(T,)`."""
        return (self.slot - jnp.arange(len(self.sizes))) % len(self.sizes)

    def number(self) -> jax.Array:
        """How many samples count."""
        return jnp.sum(jnp.where(self.ages() < self.slots, self.sizes, 0))

    def first(self) -> jax.Array:
        """The row of the first sample that counts."""
        return (self.row - self.number()) % len(self.x)

    def counts(self) -> Bool[Array, " N"]:
        """Which samples count and are not rejected, shape `(N,)`."""
        offset = (jnp.arange(len(self.x)) - self.first()) % len(self.x)
        return (offset < self.number()) & (self.log_target > -jnp.inf)

    def keep(self, most: jax.Array) -> Store:
        """Let the newest iterations count whose samples are at most so many together.

        One place stays free, for the next iteration.
        """
        length = len(self.sizes)
        newest = (self.slot - jnp.arange(length)) % length
        sizes = jnp.where(jnp.arange(length) < self.slots, self.sizes[newest], 0)
        fits = (jnp.cumsum(sizes) <= most) & (jnp.arange(length) < self.slots)
        slots = jnp.sum(jnp.cumprod(fits.astype(jnp.int32)))
        return self._replace(slots=jnp.minimum(slots, length - 1))

    def log_background(self) -> Float[Array, " N"]:
        """Log-density of the mixture that drew the samples, shape `(N,)`, up to a constant."""
        alive = self.ages() < self.slots
        return jax.nn.logsumexp(jnp.where(alive, self.log_draws, -jnp.inf), axis=1)

    def log_importance(self) -> Float[Array, "N C"]:
        """`log q_o(x) - log b(x)`, minus infinity where a sample does not count, `(N, C)`."""
        ratio = self.log_components - self.log_background()[:, None]
        return jnp.where(self.counts()[:, None], ratio, -jnp.inf)

    def importance_weights(self) -> Float[Array, "N C"]:
        """Self-normalised weights of the samples for each component, shape `(N, C)`."""
        return normalised(self.log_importance())


def normalised(log_weights: jax.Array) -> jax.Array:
    """Weights that sum to one along the first axis; zeros where all are minus infinity."""
    top = jnp.max(log_weights, axis=0, keepdims=True)
    weights = jnp.exp(log_weights - jnp.where(top > -jnp.inf, top, 0.0))
    total = jnp.sum(weights, axis=0, keepdims=True)
    return weights / jnp.where(total > 0, total, 1.0)


def grow(store: Store, size: int, rows: int) -> Store:
    """Make room for more components and samples; what is stored stays as it is.

    Args:
        store: not written to.
        size: `C`, not less than it is.
        rows: `N`, not less than it is.

    Returns:
        A store with the samples that count in its first rows.
    """
    order = (store.first() + jnp.arange(len(store.x))) % len(store.x)
    dim = store.x.shape[1]
    minus = -jnp.inf

    def samples(array: jax.Array, fill: float) -> jax.Array:
        return pad(array[order], rows, fill)

    drawn_by = Gaussians(
        pad(store.drawn_by.means, size, 0.0, axis=1),
        pad(store.drawn_by.inverses, size, jnp.eye(dim), axis=1),
        pad(store.drawn_by.log_dets, size, 0.0, axis=1),
    )
    return store._replace(
        x=samples(store.x, 0.0),
        log_target=samples(store.log_target, minus),
        gradient=samples(store.gradient, 0.0),
        log_draws=samples(store.log_draws, minus),
        log_components=pad(samples(store.log_components, minus), size, minus, axis=1),
        drawn_by=drawn_by,
        log_counts=pad(store.log_counts, size, minus, axis=1),
        row=store.number().astype(jnp.int32) % rows,
    )
