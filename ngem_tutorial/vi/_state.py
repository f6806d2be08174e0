"""What an optimisation depends on from one iteration to the next."""

from __future__ import annotations

from typing import NamedTuple

import jax

from ngem_tutorial._typing import Array, Float, Int
from ngem_tutorial.vi._gaussians import Gaussians
from ngem_tutorial.vi._store import Store

__all__ = ["Archive", "Record", "State"]


class Archive(NamedTuple):
    """A random subset of all samples that were ever drawn: where a new component may start."""

    x: Float[Array, "A d"]
    """Shape `(A, d)`."""
    log_target: Float[Array, " A"]
    """Shape `(A,)`, minus infinity where there is no sample."""
    seen: Int[Array, ""]
    """How many samples there were to choose from."""


class State(NamedTuple):
    """Everything that the next iteration depends on."""

    gaussians: Gaussians
    """The components, `C` places."""
    factors: Float[Array, "C d d"]
    """Their Cholesky factors."""
    log_weights: Float[Array, " C"]
    """Normalised, minus infinity for a place without a component."""
    num_components: Int[Array, ""]
    """`K`: the first places count."""
    steps: Float[Array, " C"]
    """Step sizes of the components."""
    updates: Int[Array, " C"]
    """How many updates each component has had."""
    ridge: Float[Array, " C"]
    """Of the regression; see `estimators.More`."""
    rewards: Float[Array, "C H"]
    """`tau log w_o + R_o` of the last `H` iterations, the newest last, minus infinity before."""
    weights: Float[Array, "C H"]
    """Log-weights of the same iterations."""
    weight_step: Float[Array, ""]
    """Step size of the weights."""
    elbo: Float[Array, ""]
    """As the weights' step size sees it, from all samples; minus infinity at the start."""
    store: Store
    """Samples to use again."""
    archive: Archive
    """Samples to start new components from."""
    key: Array
    """A random key; iteration `i` uses `fold_in(key, i)`."""
    iteration: Int[Array, ""]
    """How many there were."""
    evaluations: Int[Array, ""]
    """At how many samples the target was evaluated."""
    rejected: Int[Array, ""]
    """How many of them had density zero and are not used."""
    refused: Int[Array, ""]
    """How many updates, of a component or of the weights, were refused."""
    additions: Int[Array, ""]
    """How many components were added."""
    bad_point: Float[Array, " d"]
    """The first sample where the target or its gradient was not a number."""
    bad_value: Float[Array, ""]
    """The value of the target there; zero if there is no such sample."""
    bad: Array
    """Whether there is one."""
    initial_factor: Float[Array, "d d"]
    """Cholesky factor of the first component at the start; new ones have its shape."""
    target: jax.tree_util.Partial | None
    """The log density, where it brings arrays of its own; see `_iteration.log_density_of`."""


class Record(NamedTuple):
    """What is kept of each iteration."""

    elbo: Float[Array, " B"]
    """Of the mixture before the iteration, estimated from its new samples."""
    elbo_error: Float[Array, " B"]
    """Standard error of that estimate."""
    evaluations: Int[Array, " B"]
    """Of the target, since the start."""
