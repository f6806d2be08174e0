"""The samples that the target was evaluated at, kept on the device, to be used again.

The newest iterations are kept, each with its samples and with the Gaussians that drew them. A
sample counts in the estimates of every component, weighted by `q_o(x) / b(x)`, where `b` is the
mixture of all Gaussians that drew the samples in the store, by how many each drew (the balance
heuristic of multiple importance sampling). To know `b` it is enough to keep one number for each
sample and iteration: the log-density of that iteration's draws.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp

from ngem_tutorial._typing import Array, Float, Int
from ngem_tutorial.vi._gaussians import Gaussians, pad

__all__ = ["Store", "Sums", "blocks", "grow", "logsumexp", "write"]

_BLOCKS = (64, 128, 256, 512)
"""So many samples may be looked at together"""
_ELEMENTS = 2**18
"""if a block has no more numbers than this for all components."""
_Carry = TypeVar("_Carry")


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

    def blocks(self, function: Callable[..., _Carry], start: _Carry) -> _Carry:
        """Go through the samples that there are; see the function `blocks`."""
        return blocks(self.first(), self.number(), self.log_components, self.x, function, start)

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

    def log_draws_at(self, x: jax.Array) -> Float[Array, "n T"]:
        """Log-densities of points `(n, d)` in the draws of each iteration that counts."""
        length = len(self.sizes)

        def past(k: jax.Array, log_draws: jax.Array) -> jax.Array:
            place = (self.slot - k) % length
            gaussians = jax.tree.map(lambda leaf: leaf[place], self.drawn_by)
            density = gaussians.log_prob(gaussians.standardize(x)) + self.log_counts[place]
            return log_draws.at[:, place].set(logsumexp(density))

        start = jnp.full((len(x), length), -jnp.inf, x.dtype)
        return jax.lax.fori_loop(0, self.slots, past, start)

    def close(self, gaussians: Gaussians, log_counts: jax.Array, total: jax.Array) -> Store:
        """End the draws of an iteration, whose samples are in their rows already.

        Args:
            gaussians: that drew them.
            log_counts: how many samples each drew, as logarithms, shape `(C,)`.
            total: how many all drew.

        Returns:
            A store in which they count.
        """
        slot = (self.slot + 1) % len(self.sizes)
        drawn_by = jax.tree.map(lambda ring, new: ring.at[slot].set(new), self.drawn_by, gaussians)
        store = self._replace(
            drawn_by=drawn_by,
            log_counts=self.log_counts.at[slot].set(log_counts),
            sizes=self.sizes.at[slot].set(total),
            slot=slot.astype(jnp.int32),
            row=((self.row + total) % len(self.x)).astype(jnp.int32),
            slots=(self.slots + 1).astype(jnp.int32),
        )

        def add(column: jax.Array, rows: jax.Array, there: jax.Array) -> jax.Array:
            return write(column, rows, there, logsumexp(self.log_components[rows] + log_counts))

        column = store.blocks(add, jnp.full(len(self.x), -jnp.inf, self.x.dtype))
        return store._replace(log_draws=self.log_draws.at[:, slot].set(column))

    def log_background(self) -> Float[Array, " N"]:
        """Log-density of the mixture that drew the samples, up to a constant, shape `(N,)`.

        Plus infinity where a sample does not count: it is rejected, or not there.
        """
        alive = self.ages() < self.slots

        def add(result: jax.Array, rows: jax.Array, there: jax.Array) -> jax.Array:
            density = logsumexp(jnp.where(alive, self.log_draws[rows], -jnp.inf))
            density = jnp.where(self.log_target[rows] > -jnp.inf, density, jnp.inf)
            return write(result, rows, there, density)

        return self.blocks(add, jnp.full(len(self.x), jnp.inf, self.x.dtype))

    def effective_numbers(self, log_weights: jax.Array | None = None) -> jax.Array:
        """Effective numbers of samples `1 / sum a^2` of each component, shape `(C,)`.

        Args:
            log_weights: shape `(C,)`; with them of the mixture, shape `(1,)`.

        Returns:
            With self-normalised importance weights `a`; zero where there is no sample.
        """
        background = self.log_background()

        def add(sums: Sums, rows: jax.Array, there: jax.Array) -> Sums:
            log_q = self.log_components[rows]
            if log_weights is not None:
                log_q = logsumexp(log_q + log_weights)[:, None]
            ratio = jnp.where(there[:, None], log_q - background[rows, None], -jnp.inf)
            return sums.add(ratio, jnp.zeros((), ratio.dtype))

        size = self.log_components.shape[1] if log_weights is None else 1
        return self.blocks(add, Sums.none(size, self.x.dtype)).effective_number()


def blocks(
    first: jax.Array,
    number: jax.Array,
    log_components: jax.Array,
    x: jax.Array,
    function: Callable[..., _Carry],
    start: _Carry,
) -> _Carry:
    """Go through samples in a ring a block at a time: the time that it takes follows their number.

    Args:
        first: the row of the first sample.
        number: how many there are.
        log_components: its shape `(N, C)` counts.
        x: its shape `(N, d)` counts.
        function: of a carry, rows, and which of these rows hold a sample, to the next carry.
        start: the first carry.

    Returns:
        The last carry.
    """
    rows, components = log_components.shape
    most = _ELEMENTS // (components * x.shape[1])
    size = min(rows, max(length for length in _BLOCKS if length <= max(most, _BLOCKS[0])))

    def body(j: jax.Array, carry: _Carry) -> _Carry:
        offset = j * size + jnp.arange(size)
        return function(carry, (first + offset) % rows, offset < number)

    return jax.lax.fori_loop(0, -(-number // size), body, start)


def write(array: jax.Array, rows: jax.Array, there: jax.Array, new: jax.Array) -> jax.Array:
    """Write a block into an array with a row for each sample."""
    return array.at[jnp.where(there, rows, len(array))].set(new, mode="drop")


class Sums(NamedTuple):
    """Sums over samples with importance weights `exp(ratio)`, that are scaled by the largest."""

    top: Float[Array, " C"]
    """The largest logarithm of a weight, minus infinity if there is no sample."""
    total: Float[Array, " C"]
    """Of the weights, over the largest."""
    squares: Float[Array, " C"]
    """Of their squares."""
    values: Float[Array, " C"]
    """Of the weights times a value of each sample."""

    @classmethod
    def none(cls, size: int, dtype: Any) -> Sums:
        """Sums over nothing."""
        zeros = jnp.zeros(size, dtype)
        return cls(zeros - jnp.inf, zeros, zeros, zeros)

    def add(self, ratio: jax.Array, value: jax.Array) -> Sums:
        """Add samples with logarithms of their weights `(n, C)` and values `(n,)` or a number."""
        top = jnp.maximum(self.top, jnp.max(ratio, axis=0))
        level = jnp.where(top > -jnp.inf, top, 0.0)
        before = jnp.exp(self.top - level)
        weights = jnp.exp(ratio - level)
        return Sums(
            top,
            before * self.total + jnp.sum(weights, axis=0),
            before**2 * self.squares + jnp.sum(weights**2, axis=0),
            before * self.values + jnp.broadcast_to(value, ratio.shape[:1]) @ weights,
        )

    def log_total(self) -> jax.Array:
        """What makes the weights sum to one: its logarithm; plus infinity if there is no sample."""
        return jnp.where(self.total > 0, self.top + jnp.log(self.total), jnp.inf)

    def effective_number(self) -> jax.Array:
        """`1 / sum a^2`, zero if there is no sample."""
        return jnp.where(self.total > 0, self.total**2 / _not_zero(self.squares), 0.0)

    def mean(self) -> jax.Array:
        """The weighted mean of the values, zero if there is no sample."""
        return self.values / _not_zero(self.total)


def _not_zero(x: jax.Array) -> jax.Array:
    return jnp.where(x > 0, x, 1.0)


def logsumexp(log_values: jax.Array) -> jax.Array:
    """Along the last axis; minus infinity where all are."""
    return jax.nn.logsumexp(log_values, axis=-1)


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
