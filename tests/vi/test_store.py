"""Samples used again: importance weights by brute force, and how many are drawn."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

from ngem_tutorial.components import FullGaussianMixture
from ngem_tutorial.vi import fit_density, fitting, get_design
from ngem_tutorial.vi._iteration import Problem, draw, weighted
from ngem_tutorial.vi._state import State
from ngem_tutorial.vi._store import Sums, blocks
from ngem_tutorial.vi.sampling import FromComponents, FromMixture

pytestmark = pytest.mark.usefixtures("x64")


def log_density(x: jax.Array) -> jax.Array:
    return -0.5 * jnp.sum(x**2)


def some_state(codeword: str = "SEMTRON") -> tuple[Problem, State]:
    rng = np.random.default_rng(0)
    factors = np.asarray([[[1.0, 0.0], [0.3, 0.8]], [[0.5, 0.0], [-0.2, 1.5]]])
    mixture = FullGaussianMixture(np.log([0.7, 0.3]), rng.normal(size=(2, 2)), factors)
    problem = Problem(log_density, get_design(codeword), False, 128)
    return problem, fitting._first_state(problem, mixture, jax.random.key(0))


def all_weights(state: State) -> np.ndarray:
    """Importance weights of every row of the store for each component."""
    samples = weighted(state, jnp.asarray(1.0))
    return np.asarray(samples.weights(jnp.arange(len(samples.x))))


def test_the_background_is_the_mixture_of_all_that_drew() -> None:
    """Three draws by different components; b is computed anew with scipy."""
    problem, state = some_state()
    past = []
    for _ in range(3):
        before = int(state.evaluations)
        state = draw(problem, state)
        slot = int(state.store.slot)
        counts = np.exp(np.asarray(state.store.log_counts[slot, :2]))
        past.append((np.asarray(state.gaussians.means[:2]), np.asarray(state.factors[:2]), counts))
        assert counts.sum() == pytest.approx(int(state.evaluations) - before)
        means = state.gaussians.means.at[:2].multiply(1.2)
        factors = state.factors.at[:2].multiply(1.1)
        gaussians = fitting.Gaussians.of(means, factors)
        store = state.store
        columns = gaussians.log_prob(gaussians.standardize(store.x))
        used = jnp.arange(len(means)) < 2
        columns = jnp.where(used, columns, -jnp.inf)
        state = state._replace(
            gaussians=gaussians,
            factors=factors,
            iteration=state.iteration + 1,
            store=store._replace(log_components=columns),
        )
    store = state.store
    rows = np.isfinite(store.log_background())
    assert rows.sum() == int(store.number())
    x = np.asarray(store.x)[rows]
    alive = past[-int(store.slots) :]
    background = np.zeros(len(x))
    for means, factors, counts in alive:
        for mean, factor, count in zip(means, factors, counts, strict=True):
            background += count * stats.multivariate_normal(mean, factor @ factor.T).pdf(x)
    np.testing.assert_allclose(np.asarray(store.log_background())[rows], np.log(background))
    # Importance-weighted means of any function are those of the component.
    weights = all_weights(state)[rows]
    np.testing.assert_allclose(weights.sum(axis=0)[:2], 1.0)
    for o in range(2):
        mean, factor = np.asarray(state.gaussians.means[o]), np.asarray(state.factors[o])
        deviation = np.sqrt(np.diagonal(factor @ factor.T))
        effective = 1.0 / np.sum(weights[:, o] ** 2)
        assert np.all(np.abs(weights[:, o] @ x - mean) < 4.5 * deviation / np.sqrt(effective))


def test_a_component_draws_what_it_lacks() -> None:
    problem, state = some_state()
    store = state.store
    counts = problem.design.sampling.counts(
        jax.random.key(0), store, state.log_weights, state.num_components
    )
    np.testing.assert_array_equal(counts[:3], [100, 100, 0])  # nothing is there yet
    state = draw(problem, state)
    weights = all_weights(state)[:, :2]
    effective = 1.0 / np.sum(weights**2, axis=0)
    counts = problem.design.sampling.counts(
        jax.random.key(0), state.store, state.log_weights, state.num_components
    )
    np.testing.assert_array_equal(counts[:2], np.clip(np.floor(100 - effective), 1, 100))


def test_a_mixture_draws_by_its_weights_and_the_number_in_total() -> None:
    _, state = some_state()
    totals = []
    for seed in range(50):
        counts = FromMixture(number=200).counts(
            jax.random.key(seed), state.store, state.log_weights, state.num_components
        )
        assert int(counts.sum()) == 200
        totals.append(int(counts[0]))
    error = np.sqrt(200 * 0.7 * 0.3 / 50)
    assert abs(np.mean(totals) - 140) < 4.5 * error


def test_old_iterations_are_forgotten_as_a_whole() -> None:
    problem, state = some_state()
    for _ in range(4):
        state = draw(problem, state)._replace(iteration=state.iteration + 1)
    store = state.store
    newest = int(store.sizes[store.slot])
    kept = store.keep(jnp.asarray(newest))
    assert int(kept.slots) == 1
    assert int(kept.number()) == newest
    assert int(store.keep(jnp.asarray(newest - 1)).slots) == 0


def test_without_reuse_nothing_old_counts() -> None:
    fit = fit_density(
        log_density,
        2,
        key=jax.random.key(0),
        method=FromMixtureDesign,
        num_iterations=3,
    )
    assert int(fit.state.store.slots) == 1
    np.testing.assert_array_equal(np.diff(fit.history["evaluations"]), 50)


FromMixtureDesign = fitting.dataclasses.replace(
    get_design("SEPTRON"), sampling=FromMixture(number=50)
)


def test_room_is_for_old_and_new() -> None:
    some, none = FromComponents(number=10, reuse=2.0, memory=5), FromMixture(number=10)
    assert (some.room(4), some.iterations()) == (120, 5)
    assert (none.room(4), none.iterations()) == (10, 1)


def test_sums_in_blocks_are_those_of_all_at_once() -> None:
    """Scaled by the largest weight so far: against numpy, with weights over 600 powers of e."""
    rng = np.random.default_rng(1)
    ratio, value = rng.normal(0.0, 200.0, (90, 3)), rng.normal(size=90)
    ratio[:40, 0] = ratio[:, 2] = -np.inf
    sums = Sums.none(3, ratio.dtype)
    for rows in np.split(np.arange(90), [30, 45]):
        sums = sums.add(jnp.asarray(ratio[rows]), jnp.asarray(value[rows]))
    a = special.softmax(ratio[:, :2], axis=0)
    np.testing.assert_allclose(sums.log_total()[:2], special.logsumexp(ratio[:, :2], axis=0))
    np.testing.assert_allclose(sums.effective_number(), [*(1.0 / np.sum(a**2, axis=0)), 0.0])
    np.testing.assert_allclose(sums.mean(), [*(a.T @ value), 0.0])
    assert sums.log_total()[2] == np.inf


def test_many_samples_are_looked_at_in_blocks_that_wrap_around() -> None:
    """A ring of 1,300 rows with 1,200 samples from row 700 on."""
    x = jnp.zeros((1300, 2))

    def add(seen: jax.Array, rows: jax.Array, there: jax.Array) -> jax.Array:
        return seen.at[rows].add(there)

    seen = blocks(jnp.asarray(700), jnp.asarray(1200), x, x, add, jnp.zeros(1300, int))
    expected = np.ones(1300)
    expected[600:700] = 0
    np.testing.assert_array_equal(seen, expected)
