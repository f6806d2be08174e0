"""One iteration of natural-gradient variational inference, and a block of them as one program.

Samples, step sizes of the components, estimates, updates of the components, step size of the
weights, weights: in this order, each by the module that the design names. How many components
there are changes between blocks only; `adaptation` does that.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from ngem_tutorial._typing import Array, Float
from ngem_tutorial.vi._gaussians import Gaussians
from ngem_tutorial.vi._state import Archive, Record, State
from ngem_tutorial.vi._store import Store, Sums, logsumexp, write
from ngem_tutorial.vi.design import Design
from ngem_tutorial.vi.estimators import Samples
from ngem_tutorial.vi.steps import Progress

__all__ = ["Problem", "iterate", "run_block"]


@dataclass(frozen=True)
class Problem:
    """What is fixed while a program runs; hashable, so that it is compiled once."""

    log_density: Callable[..., jax.Array]
    """The target's, of a point `(d,)`, or of a point and a random key; of a `Partial` its function,
    while its arrays are in the state."""
    design: Design
    """The seven modules."""
    noisy: bool
    """Whether the target takes a random key."""
    chunk: int
    """How many samples the target and the components are evaluated at together."""


def run_block(
    problem: Problem, state: State, temperature: jax.Array, length: int, number: jax.Array
) -> tuple[State, Record]:
    """Do some iterations.

    Args:
        problem: static.
        state: where to start.
        temperature: `tau`.
        length: of the record; static.
        number: how many iterations to do, at most `length`.

    Returns:
        The state after them, and the record, whose first `number` places are filled.
    """
    zeros = jnp.zeros(length, state.log_weights.dtype)
    record = Record(zeros, zeros, jnp.zeros(length, jnp.int32))

    def body(i: jax.Array, carry: tuple[State, Record]) -> tuple[State, Record]:
        state, record = carry
        state, elbo, error = iterate(problem, state, temperature)
        row = Record(elbo, error, state.evaluations)
        return state, jax.tree.map(lambda column, new: column.at[i].set(new), record, row)

    return jax.lax.fori_loop(0, number, body, (state, record))


def iterate(
    problem: Problem, state: State, temperature: jax.Array
) -> tuple[State, jax.Array, jax.Array]:
    """One iteration.

    Args:
        problem: static.
        state: where to start.
        temperature: `tau`.

    Returns:
        The state after it, and for the mixture before it an estimate of the ELBO and its standard
        error.
    """
    design = problem.design
    state = draw(problem, state)
    samples = weighted(state, temperature)
    elbo, error = elbo_of_new(state.store, samples)
    steps = design.component_step(
        state.steps,
        Progress(
            design.component_update.first_step,
            state.updates,
            state.rewards[:, -1],
            state.rewards[:, -2],
        ),
    )
    estimate, ridge = design.estimator(
        samples, state.gaussians, state.factors, temperature, state.ridge
    )
    step = jax.vmap(design.component_update, (0, 0, None))(estimate, steps, 1.0 / temperature)
    used = jnp.arange(len(steps)) < state.num_components
    means = state.gaussians.means + jnp.einsum("cij,cj->ci", state.factors, step.shift)
    factors = jnp.tril(state.factors @ step.factor)
    good = used & _can_be_told(means, factors)
    means = jnp.where(good[:, None], means, state.gaussians.means)
    factors = jnp.where(good[:, None, None], factors, state.factors)
    state = state._replace(
        gaussians=Gaussians.of(means, factors),
        factors=factors,
        steps=steps,
        ridge=ridge,
        updates=state.updates + used,
        refused=state.refused + jnp.sum(used & ~good, dtype=jnp.int32),
        iteration=state.iteration + 1,
    )
    return update_weights(problem, state, samples.log_background, temperature), elbo, error


def _can_be_told(means: jax.Array, factors: jax.Array) -> jax.Array:
    """Which Gaussians are finite, and wide enough for samples to differ by more than rounding."""
    finite = jnp.isfinite(means).all(-1) & jnp.isfinite(factors).all((-2, -1))
    narrowest = jnp.min(jnp.diagonal(factors, axis1=-2, axis2=-1), axis=-1)
    largest = jnp.maximum(
        jnp.max(jnp.abs(means), axis=-1), jnp.max(jnp.abs(factors), axis=(-2, -1))
    )
    return finite & (narrowest > jnp.finfo(means.dtype).eps * largest)


def weighted(state: State, temperature: jax.Array) -> Samples:
    """The samples of the store, with their weights for the present components."""
    store = state.store
    background = store.log_background()
    size, dtype = len(state.log_weights), store.x.dtype

    def add(carry: tuple[Any, ...], rows: jax.Array, there: jax.Array) -> tuple[Any, ...]:
        log_q, sums = carry
        densities = store.log_components[rows]
        ratio = jnp.where(there[:, None], densities - background[rows, None], -jnp.inf)
        counts = there & (background[rows] < jnp.inf)
        new = jnp.where(counts, logsumexp(densities + state.log_weights), jnp.inf)
        return write(log_q, rows, there, new), sums.add(ratio, jnp.zeros((), dtype))

    start = jnp.full(len(store.x), jnp.inf, dtype), Sums.none(size, dtype)
    log_q, sums = store.blocks(add, start)
    return Samples(
        store.x,
        jnp.where(log_q < jnp.inf, store.log_target - temperature * log_q, 0.0),
        store.gradient,
        store.log_components,
        log_q,
        background,
        sums.log_total(),
        state.log_weights,
        store.first(),
        store.number(),
    )


def elbo_of_new(store: Store, samples: Samples) -> tuple[jax.Array, jax.Array]:
    """Estimate the ELBO of a mixture from the newest samples, which have not changed it yet.

    All samples of the store would say too much: the components have been fitted to the older ones.

    Args:
        store: with samples of the mixture's components, in any shares.
        samples: the same, weighted.

    Returns:
        The self-normalised estimate, minus infinity if no new sample has a density; and its
        standard error, infinite if it cannot be had. It is that of draws from the mixture, a little
        too large for draws from each component, and the spread in it is that of all samples: the
        new ones alone can be too few to show any.
    """
    size = len(store.x)
    age = (store.row - 1 - jnp.arange(size)) % size
    new = (age < store.sizes[store.slot]) & (samples.log_q < jnp.inf)
    weights = _normalised(jnp.where(new, samples.log_q - store.log_draws[:, store.slot], -jnp.inf))
    elbo = jnp.where(new.any(), weights @ samples.rho, -jnp.inf)
    counts = samples.log_background < jnp.inf
    everywhere = jnp.where(counts, samples.log_q - samples.log_background, -jnp.inf)
    shares = _normalised(jnp.where(samples.log_q < jnp.inf, everywhere, -jnp.inf))
    variance = shares @ (samples.rho - shares @ samples.rho) ** 2
    free = 1.0 - jnp.sum(shares**2)  # one less than the effective number, as a part of it
    variance = jnp.where(free > 0, variance / jnp.where(free > 0, free, 1.0), jnp.inf)
    return elbo, jnp.where(new.any(), jnp.sqrt(variance * jnp.sum(weights**2)), jnp.inf)


def _normalised(ratio: jax.Array) -> jax.Array:
    """Weights that sum to one, from their logarithms; all zero if those are minus infinity."""
    column, zero = ratio[:, None], jnp.zeros((), ratio.dtype)
    return jnp.exp(ratio - Sums.none(1, ratio.dtype).add(column, zero).log_total())


def update_weights(
    problem: Problem, state: State, background: jax.Array, temperature: jax.Array
) -> State:
    """The second half of an iteration: rewards of the updated components, and the weights."""
    design = problem.design
    state, reward = rewards(state, background, temperature)
    used = jnp.arange(len(reward)) < state.num_components
    weights = jnp.exp(state.log_weights)
    elbo = jnp.sum(jnp.where(used, weights * reward, 0.0))
    weight_step = design.weight_step(
        state.weight_step,
        Progress(design.weight_update.first_step, state.iteration - 1, elbo, state.elbo),
    )
    latest = jnp.where(used, temperature * state.log_weights + reward, -jnp.inf)
    new = design.weight_update(state.log_weights, reward, weight_step, temperature)
    good = (jnp.isfinite(new) | ~used).all()
    log_weights = jnp.where(good, new, state.log_weights)
    return state._replace(
        log_weights=log_weights,
        refused=state.refused + (~good).astype(jnp.int32),
        weight_step=weight_step,
        elbo=elbo,
        rewards=_append(state.rewards, latest),
        weights=_append(state.weights, log_weights),
    )


def rewards(
    state: State, background: jax.Array, temperature: jax.Array
) -> tuple[State, Float[Array, " C"]]:
    """Evaluate the updated components at all samples; return their rewards `R_o = E_o[rho]`."""
    store = state.store
    size, dtype = len(state.log_weights), store.x.dtype
    used = jnp.arange(size) < state.num_components

    def add(carry: tuple[Any, ...], rows: jax.Array, there: jax.Array) -> tuple[Any, ...]:
        log_components, sums = carry
        densities = state.gaussians.log_prob(state.gaussians.standardize(store.x[rows]))
        densities = jnp.where(used, densities, -jnp.inf)
        counts = there & (background[rows] < jnp.inf)
        log_q = logsumexp(densities + state.log_weights)
        rho = jnp.where(counts, store.log_target[rows] - temperature * log_q, 0.0)
        ratio = jnp.where(counts[:, None], densities - background[rows, None], -jnp.inf)
        return write(log_components, rows, there, densities), sums.add(ratio, rho)

    log_components, sums = store.blocks(add, (store.log_components, Sums.none(size, dtype)))
    return state._replace(store=store._replace(log_components=log_components)), sums.mean()


def draw(problem: Problem, state: State) -> State:
    """The first part of an iteration: new samples, evaluated and stored."""
    sampling = problem.design.sampling
    key = jax.random.fold_in(state.key, state.iteration)
    count_key, noise_key, target_key, archive_key = jax.random.split(key, 4)
    store = state.store.keep(sampling.old(1) * state.num_components)
    counts = sampling.counts(count_key, store, state.log_weights, state.num_components)
    log_counts = jnp.log(counts.astype(store.x.dtype))
    ends = jnp.cumsum(counts)
    total = ends[-1]
    used = jnp.arange(len(counts)) < state.num_components

    def chunk(j: jax.Array, carry: tuple[State, Store]) -> tuple[State, Store]:
        state, store = carry
        position = j * problem.chunk + jnp.arange(problem.chunk)
        live = position < total
        component = jnp.minimum(jnp.searchsorted(ends, position, side="right"), len(counts) - 1)
        # What is drawn does not depend on the lengths of the arrays.
        shape = (problem.chunk, store.x.shape[1])
        noise = jax.random.normal(jax.random.fold_in(noise_key, j), shape, store.x.dtype)
        deviation = jnp.einsum("nij,nj->ni", state.factors[component], noise)
        x = state.gaussians.means[component] + deviation
        log_target, gradient = evaluate(problem, state, x, jax.random.fold_in(target_key, j))
        state = note_bad(state, x, log_target, gradient, live)
        log_components = state.gaussians.log_prob(state.gaussians.standardize(x))
        log_components = jnp.where(used, log_components, -jnp.inf)
        log_draws = store.log_draws_at(x)
        row = jnp.where(live, (store.row + position) % len(store.x), len(store.x))
        store = store._replace(
            x=store.x.at[row].set(x, mode="drop"),
            log_target=store.log_target.at[row].set(log_target, mode="drop"),
            gradient=store.gradient.at[row].set(gradient, mode="drop"),
            log_components=store.log_components.at[row].set(log_components, mode="drop"),
            log_draws=store.log_draws.at[row].set(log_draws, mode="drop"),
        )
        enter_key = jax.random.fold_in(archive_key, j)
        archive = remember(state.archive, enter_key, x, log_target, live)
        rejected = jnp.sum(live & (log_target == -jnp.inf), dtype=jnp.int32)
        return state._replace(archive=archive, rejected=state.rejected + rejected), store

    state, store = jax.lax.fori_loop(0, -(-total // problem.chunk), chunk, (state, store))
    store = store.close(state.gaussians, log_counts, total.astype(jnp.int32))
    return state._replace(store=store, evaluations=state.evaluations + total.astype(jnp.int32))


def log_density_of(problem: Problem, state: State) -> Callable[..., jax.Array]:
    """The log density that was given: a `Partial`, or a function."""
    return problem.log_density if state.target is None else state.target


def evaluate(
    problem: Problem, state: State, x: jax.Array, key: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """The log target at points `(n, d)`, and its gradients, `(n, 0)` if they are not needed."""
    log_density = log_density_of(problem, state)
    arguments: Any = (x, jax.random.split(key, len(x))) if problem.noisy else (x,)
    if problem.design.estimator.uses_gradient:
        value, gradient = jax.vmap(jax.value_and_grad(log_density))(*arguments)
        # Outside of the support there is nothing to follow.
        gradient = jnp.where((value == -jnp.inf)[:, None], 0.0, gradient)
        return value.astype(x.dtype), gradient.astype(x.dtype)
    return jax.vmap(log_density)(*arguments).astype(x.dtype), jnp.zeros((len(x), 0), x.dtype)


def note_bad(
    state: State, x: jax.Array, log_target: jax.Array, gradient: jax.Array, live: jax.Array
) -> State:
    """Remember the first point where the target is no number, or its gradient is not finite."""
    wrong = jnp.isnan(log_target) | (log_target == jnp.inf) | ~jnp.isfinite(gradient).all(-1)
    wrong &= live
    first = jnp.argmax(wrong)
    new = wrong.any() & ~state.bad
    return state._replace(
        bad=state.bad | new,
        bad_point=jnp.where(new, x[first], state.bad_point),
        bad_value=jnp.where(new, log_target[first], state.bad_value),
    )


def remember(
    archive: Archive, key: jax.Array, x: jax.Array, log_target: jax.Array, live: jax.Array
) -> Archive:
    """Let new samples enter the archive, each sample so far with the same probability."""
    size = len(archive.x)
    number = archive.seen + jnp.cumsum(live) - live
    bits = jax.random.bits(key, live.shape, jnp.uint32)
    place = (bits % (number.astype(jnp.uint32) + 1)).astype(jnp.int32)
    place = jnp.where(number < size, number, jnp.minimum(place, size))
    place = jnp.where(live & (log_target > -jnp.inf), place, size)
    # Of several for the same place the first enters: what is written must be in no doubt.
    same = place[:, None] == place
    taken = jnp.any(jnp.tril(same, -1), axis=1)
    place = jnp.where(taken, size, place)
    return Archive(
        archive.x.at[place].set(x, mode="drop"),
        archive.log_target.at[place].set(log_target, mode="drop"),
        (archive.seen + jnp.sum(live)).astype(jnp.int32),
    )


def _append(history: jax.Array, new: jax.Array) -> jax.Array:
    return jnp.concatenate([history[:, 1:], new[:, None]], axis=1)
