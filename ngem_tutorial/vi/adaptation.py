"""Module 2: how many components there are.

`delete` and `add` do what a choice says, between two blocks of iterations.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from ngem_tutorial._checks import check_number, check_whole
from ngem_tutorial.vi._gaussians import Gaussians
from ngem_tutorial.vi._state import State
from ngem_tutorial.vi._store import Store

__all__ = ["CHOICES", "Adaptation", "AdaptiveNumber", "FixedNumber"]


@dataclass(frozen=True)
class FixedNumber:
    """`E`: as many as at the start."""

    every: int = 30
    """Iterations of a block."""

    def __post_init__(self) -> None:
        """Check the option."""
        check_whole("every", self.every, 1)

    @property
    def history(self) -> int:
        """How many iterations the rewards are kept for."""
        return 2


@dataclass(frozen=True)
class AdaptiveNumber:
    """`A`: components that do nothing are deleted, and one is added every so often (VIPS).

    The mean of a new component is the sample, of a random subset of all there were, with the
    largest `log p~ - max(log q, max log q - Delta)`: where the target is high and the mixture low,
    if it is lower than its highest by less than `Delta`, in nats, which takes one value after the
    other. Its covariance has the shape of the initial one and an entropy at random between that
    one's and the present components'.

    A component is deleted when its reward stagnates (it has made up at most a share of its distance
    from the best one) while its weight, the actual one and the softmax of the rewards, stayed
    below a limit.
    """

    every: int = 30
    """A component is added every so many iterations."""
    patience: int = 100
    """Over how many iterations a component must have stagnated."""
    improvement: float = 0.4
    """Stagnating: at most this share of the distance from the best reward."""
    weight: float = 1e-6
    """The limit that the weight stayed below."""
    thresholds: tuple[float, ...] = (5000.0, 1000.0, 500.0, 200.0, 100.0, 50.0)
    """`Delta`, in nats, in turn."""
    first_log_weight: float = math.log(1e-29)
    """Of a new component."""
    most: int = 1000
    """No more components than this."""
    archive: int = 100_000
    """How many samples are kept for the choice of a mean."""

    def __post_init__(self) -> None:
        """Check the options."""
        check_whole("every", self.every, 1)
        check_whole("patience", self.patience, 3)
        check_number("improvement", self.improvement, "finite", np.isfinite)
        check_number("weight", self.weight, "positive", lambda v: v > 0)
        if not self.thresholds:
            raise ValueError("thresholds must have one number at least, got none")
        for threshold in self.thresholds:
            check_number("thresholds", threshold, "positive", lambda v: v > 0)
        check_number("first_log_weight", self.first_log_weight, "below 0", lambda v: v < 0)
        check_whole("most", self.most, 1)
        check_whole("archive", self.archive, 1)

    @property
    def smoothing(self) -> int:
        """Over how many iterations a reward is averaged."""
        return 2 * (self.patience // 3)

    @property
    def history(self) -> int:
        """How many iterations the rewards are kept for."""
        return self.patience + self.smoothing

    def stagnating(self, state: State) -> jax.Array:
        """Say which components are to be deleted.

        Args:
            state: with the history of their rewards and weights.

        Returns:
            Shape `(C,)`.
        """
        used = jnp.arange(len(state.log_weights)) < state.num_components
        rewards = jnp.where(used[:, None], state.rewards, -jnp.inf)
        distance = jnp.arange(self.smoothing) - self.smoothing // 2
        kernel = jnp.exp(-0.5 * (distance / (self.patience / 8.0)) ** 2)
        kernel = (kernel / jnp.sum(kernel)).astype(rewards.dtype)
        now = rewards[:, -self.smoothing :] @ kernel
        before = rewards[:, : self.smoothing] @ kernel
        best = jnp.max(jnp.where(used, now, -jnp.inf))
        made_up = (now - before) / jnp.abs(before - best)
        greedy = jnp.max(jax.nn.log_softmax(rewards, axis=0), axis=1)
        heaviest = jnp.maximum(greedy, jnp.max(state.weights, axis=1))
        old = used & (state.updates >= self.history)
        return old & (made_up <= self.improvement) & (heaviest < math.log(self.weight))

    def best_start(self, state: State, log_q: jax.Array) -> jax.Array:
        """Return the row of the archive where the next component starts.

        Args:
            state: with the archive.
            log_q: log-density of the mixture at its samples, shape `(A,)`.

        Returns:
            A whole number.
        """
        there = state.archive.log_target > -jnp.inf
        highest = jnp.max(jnp.where(there, log_q, -jnp.inf))
        delta = jnp.asarray(self.thresholds, log_q.dtype)[state.additions % len(self.thresholds)]
        reward = state.archive.log_target - jnp.maximum(log_q, highest - delta)
        return jnp.argmax(jnp.where(there, reward, -jnp.inf))


Adaptation: TypeAlias = FixedNumber | AdaptiveNumber
"""A choice of this module."""
CHOICES: dict[str, Adaptation] = {"E": FixedNumber(), "A": AdaptiveNumber()}
"""The letters of this module."""


def delete(choice: AdaptiveNumber, state: State) -> State:
    """Delete the components that do nothing; the others keep their order."""
    bad = choice.stagnating(state)
    places = jnp.arange(len(bad), dtype=jnp.int32)
    used = (places < state.num_components) & ~bad
    number = jnp.sum(used, dtype=jnp.int32)
    new_places = jnp.where(used, jnp.cumsum(used) - 1, len(bad))
    order = jnp.zeros(len(bad), jnp.int32).at[new_places].set(places, mode="drop")
    keep = places < number
    dim = state.factors.shape[-1]

    def kept(array: jax.Array, empty: float | jax.Array) -> jax.Array:
        shape = (-1, *(1,) * (array.ndim - 1))
        return jnp.where(keep.reshape(shape), array[order], jnp.asarray(empty, array.dtype))

    factors = kept(state.factors, jnp.eye(dim))
    log_components = jnp.where(keep, state.store.log_components[:, order], -jnp.inf)
    return state._replace(
        gaussians=Gaussians.of(kept(state.gaussians.means, 0.0), factors),
        factors=factors,
        log_weights=jax.nn.log_softmax(kept(state.log_weights, -jnp.inf)),
        num_components=number,
        steps=kept(state.steps, 1.0),
        updates=kept(state.updates, 0),
        ridge=kept(state.ridge, 1.0),
        rewards=kept(state.rewards, -jnp.inf),
        weights=kept(state.weights, -jnp.inf),
        store=state.store._replace(log_components=log_components),
    )


def add(
    choice: AdaptiveNumber,
    state: State,
    first_step: float,
    first_ridge: float,
    chunk: int,
) -> State:
    """Add a component in the first free place, of which there must be one."""
    place = state.num_components
    used = jnp.arange(len(state.log_weights)) < place
    log_q = _mixture_log_prob(state, used, chunk)
    mean = state.archive.x[choice.best_start(state, log_q)]
    # Entropies up to a constant: log det L.
    dim = state.factors.shape[-1]
    initial_factor = state.initial_factor
    initial = jnp.sum(jnp.log(jnp.diagonal(initial_factor)))
    present = jnp.sum(jnp.where(used, jnp.exp(state.log_weights) * state.gaussians.log_dets, 0.0))
    key = jax.random.fold_in(jax.random.fold_in(state.key, state.iteration), 1)
    share = jax.random.uniform(key, dtype=state.factors.dtype)
    entropy = share * present + (1.0 - share) * initial
    factor = initial_factor * jnp.exp((entropy - initial) / dim)
    factors = state.factors.at[place].set(factor)
    gaussians = Gaussians.of(state.gaussians.means.at[place].set(mean), factors)
    store: Store = state.store
    new = jax.tree.map(lambda leaf: leaf[place][None], gaussians)
    column = new.log_prob(new.standardize(store.x))[:, 0]
    log_weights = state.log_weights.at[place].set(choice.first_log_weight)
    return state._replace(
        gaussians=gaussians,
        factors=factors,
        log_weights=jax.nn.log_softmax(log_weights),
        num_components=place + jnp.int32(1),
        steps=state.steps.at[place].set(first_step),
        updates=state.updates.at[place].set(0),
        ridge=state.ridge.at[place].set(first_ridge),
        rewards=state.rewards.at[place].set(-jnp.inf),
        weights=state.weights.at[place].set(-jnp.inf),
        additions=state.additions + 1,
        store=store._replace(log_components=store.log_components.at[:, place].set(column)),
    )


def _mixture_log_prob(state: State, used: jax.Array, chunk: int) -> jax.Array:
    """Log-density of the mixture at the samples of the archive, a chunk at a time."""
    archive = state.archive
    size = len(archive.x)
    number = jnp.minimum(archive.seen, size)

    def body(j: jax.Array, result: jax.Array) -> jax.Array:
        index = j * chunk + jnp.arange(chunk)
        x = archive.x[jnp.minimum(index, size - 1)]
        density = state.gaussians.log_prob(state.gaussians.standardize(x)) + state.log_weights
        log_q = jax.nn.logsumexp(jnp.where(used, density, -jnp.inf), axis=1)
        return result.at[index].set(log_q, mode="drop")

    return jax.lax.fori_loop(
        0, -(-number // chunk), body, jnp.full(size, -jnp.inf, archive.x.dtype)
    )
