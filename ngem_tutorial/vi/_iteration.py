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
from ngem_tutorial.vi._store import Store, normalised
from ngem_tutorial.vi.design import Design
from ngem_tutorial.vi.estimators import Samples
from ngem_tutorial.vi.steps import Progress

__all__ = ["Problem", "iterate", "run_block"]


@dataclass(frozen=True)
class Problem:
    """What is fixed while a program runs; hashable, so that it is compiled once."""

    log_density: Callable[..., jax.Array]
    """The target's, of a point `(d,)`, or of a point and a random key."""
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
    store = state.store
    log_q = jax.nn.logsumexp(store.log_components + state.log_weights, axis=1, keepdims=True)
    counts = store.counts()
    samples = Samples(
        store.x,
        jnp.where(counts, store.log_target - temperature * log_q[:, 0], 0.0),
        store.gradient,
        jnp.where(counts[:, None], jnp.exp(store.log_components + state.log_weights - log_q), 0.0),
        store.importance_weights(),
        store.first(),
        store.number(),
    )
    elbo, error = elbo_of_new(store, log_q[:, 0], samples.rho)
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
        samples, state.gaussians, state.factors, temperature, state.ridge, problem.chunk
    )
    step = jax.vmap(design.component_update, (0, 0, None))(estimate, steps, 1.0 / temperature)
    good = jnp.isfinite(step.shift).all(-1) & jnp.isfinite(step.factor).all((-2, -1))
    used = jnp.arange(len(good)) < state.num_components
    good &= used
    shift = jnp.einsum("cij,cj->ci", state.factors, step.shift)
    means = jnp.where(good[:, None], state.gaussians.means + shift, state.gaussians.means)
    factors = jnp.where(good[:, None, None], jnp.tril(state.factors @ step.factor), state.factors)
    state = state._replace(
        gaussians=Gaussians.of(means, factors),
        factors=factors,
        steps=steps,
        ridge=ridge,
        updates=state.updates + used,
        refused=state.refused + jnp.sum(used & ~good, dtype=jnp.int32),
        iteration=state.iteration + 1,
    )
    store = store._replace(
        log_components=log_components(store, state.gaussians, used, problem.chunk)
    )
    return update_weights(problem, state._replace(store=store), temperature), elbo, error


def elbo_of_new(store: Store, log_q: jax.Array, rho: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Estimate the ELBO of a mixture from the newest samples, which have not changed it yet.

    All samples of the store would say too much: the components have been fitted to the older ones.

    Args:
        store: with samples of the mixture's components, in any shares.
        log_q: log-density of the mixture at all samples, shape `(N,)`.
        rho: `log p~ - tau log q`, shape `(N,)`.

    Returns:
        The self-normalised estimate, and its standard error.
    """
    size = len(store.x)
    age = (store.row - 1 - jnp.arange(size)) % size
    new = (age < store.sizes[store.slot]) & store.counts()
    ratio = jnp.where(new, log_q - store.log_draws[:, store.slot], -jnp.inf)
    weights = normalised(ratio[:, None])[:, 0]
    elbo = weights @ rho
    return elbo, jnp.sqrt(jnp.sum((weights * (rho - elbo)) ** 2))


def update_weights(problem: Problem, state: State, temperature: jax.Array) -> State:
    """The second half of an iteration: rewards of the updated components, and the weights."""
    design, store = problem.design, state.store
    log_q = jax.nn.logsumexp(store.log_components + state.log_weights, axis=1)
    rho = jnp.where(store.counts(), store.log_target - temperature * log_q, 0.0)
    importance = store.importance_weights()
    reward = importance.T @ rho  # R_o = E_o[rho]
    used = jnp.arange(len(reward)) < state.num_components
    weights = jnp.exp(state.log_weights)
    elbo = jnp.sum(jnp.where(used, weights * reward, 0.0))
    weight_step = design.weight_step(
        state.weight_step,
        Progress(design.weight_update.first_step, state.iteration - 1, elbo, state.elbo),
    )
    rewards = jnp.where(used, temperature * state.log_weights + reward, -jnp.inf)
    new = design.weight_update(state.log_weights, reward, weight_step, temperature)
    good = (jnp.isfinite(new) | ~used).all()
    log_weights = jnp.where(good, new, state.log_weights)
    return state._replace(
        log_weights=log_weights,
        refused=state.refused + (~good).astype(jnp.int32),
        weight_step=weight_step,
        elbo=elbo,
        rewards=_append(state.rewards, rewards),
        weights=_append(state.weights, log_weights),
    )


def draw(problem: Problem, state: State) -> State:
    """The first part of an iteration: new samples, evaluated and stored."""
    sampling = problem.design.sampling
    key = jax.random.fold_in(state.key, state.iteration)
    count_key, noise_key, target_key, archive_key = jax.random.split(key, 4)
    most = int(sampling.reuse * sampling.number) * state.num_components
    store = state.store.keep(most)
    counts = sampling.counts(count_key, store, state.log_weights, state.num_components)
    log_counts = jnp.log(counts.astype(store.x.dtype))
    ends = jnp.cumsum(counts)
    total = ends[-1]
    used = jnp.arange(len(counts)) < state.num_components
    length = len(store.sizes)
    slot = (store.slot + 1) % length

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
        log_target, gradient = evaluate(problem, x, jax.random.fold_in(target_key, j))
        state = note_bad(state, x, log_target, gradient, live)
        log_components = state.gaussians.log_prob(state.gaussians.standardize(x))
        log_components = jnp.where(used, log_components, -jnp.inf)
        log_draws = jnp.full((len(x), length), -jnp.inf, x.dtype)

        def past(k: jax.Array, log_draws: jax.Array) -> jax.Array:
            place = (store.slot - k) % length
            gaussians = jax.tree.map(lambda leaf: leaf[place], store.drawn_by)
            density = gaussians.log_prob(gaussians.standardize(x)) + store.log_counts[place]
            return log_draws.at[:, place].set(jax.nn.logsumexp(density, axis=1))

        log_draws = jax.lax.fori_loop(0, store.slots, past, log_draws)
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
    newest = jax.nn.logsumexp(store.log_components + log_counts, axis=1)
    store = store._replace(
        log_draws=store.log_draws.at[:, slot].set(newest),
        drawn_by=jax.tree.map(
            lambda ring, new: ring.at[slot].set(new), store.drawn_by, state.gaussians
        ),
        log_counts=store.log_counts.at[slot].set(log_counts),
        sizes=store.sizes.at[slot].set(total.astype(jnp.int32)),
        slot=slot.astype(jnp.int32),
        row=((store.row + total) % len(store.x)).astype(jnp.int32),
        slots=(store.slots + 1).astype(jnp.int32),
    )
    return state._replace(store=store, evaluations=state.evaluations + total.astype(jnp.int32))


def evaluate(problem: Problem, x: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The log target at points `(n, d)`, and its gradients, `(n, 0)` if they are not needed."""
    arguments: Any = (x, jax.random.split(key, len(x))) if problem.noisy else (x,)
    if problem.design.estimator.uses_gradient:
        value, gradient = jax.vmap(jax.value_and_grad(problem.log_density))(*arguments)
        # Outside of the support there is nothing to follow.
        return value, jnp.where((value == -jnp.inf)[:, None], 0.0, gradient)
    return jax.vmap(problem.log_density)(*arguments), jnp.zeros((len(x), 0), x.dtype)


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


def log_components(
    store: Store, gaussians: Gaussians, used: jax.Array, chunk: int
) -> Float[Array, "N C"]:
    """Log-densities of the samples that count under components, a chunk at a time."""
    rows, first, number = len(store.x), store.first(), store.number()

    def body(j: jax.Array, result: jax.Array) -> jax.Array:
        offset = j * chunk + jnp.arange(chunk)
        index = (first + offset) % rows
        density = gaussians.log_prob(gaussians.standardize(store.x[index]))
        density = jnp.where(used, density, -jnp.inf)
        return result.at[jnp.where(offset < number, index, rows)].set(density, mode="drop")

    start = jnp.full((rows, len(used)), -jnp.inf, store.x.dtype)
    return jax.lax.fori_loop(0, -(-number // chunk), body, start)


def _append(history: jax.Array, new: jax.Array) -> jax.Array:
    return jnp.concatenate([history[:, 1:], new[:, None]], axis=1)
