"""Components added and deleted, against the rule computed anew in NumPy."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ngem_tutorial.components import FullGaussianMixture
from ngem_tutorial.vi import adaptation, fitting, get_design
from ngem_tutorial.vi._iteration import Problem
from ngem_tutorial.vi._state import Archive, State
from ngem_tutorial.vi.adaptation import AdaptiveNumber

pytestmark = pytest.mark.usefixtures("x64")
K, D = 4, 2
CHOICE = AdaptiveNumber(archive=500)


def some_state() -> State:
    rng = np.random.default_rng(0)
    factors = np.broadcast_to(0.7 * np.eye(D), (K, D, D))
    mixture = FullGaussianMixture(np.log([0.4, 0.3, 0.2, 0.1]), rng.normal(size=(K, D)), factors)
    problem = Problem(lambda x: -0.5 * x @ x, get_design("SAMTRON"), False, 64)
    state = fitting._first_state(problem, mixture, jax.random.key(0))
    x = jnp.asarray(3.0 * rng.normal(size=(500, D)))
    log_target = -0.05 * jnp.sum((x - 2.0) ** 2, axis=1)
    return state._replace(archive=Archive(x, log_target, jnp.asarray(400)))


@pytest.mark.parametrize("additions", range(6))
def test_a_component_starts_where_the_rule_says(additions: int) -> None:
    state = some_state()._replace(additions=jnp.asarray(additions))
    state = state._replace(
        archive=state.archive._replace(log_target=state.archive.log_target.at[400:].set(-jnp.inf))
    )
    added = jax.jit(lambda s: adaptation.add(CHOICE, s, 0.5, 0.0, 64))(state)
    mixture = FullGaussianMixture(
        state.log_weights[:K], state.gaussians.means[:K], state.factors[:K]
    )
    x = np.asarray(state.archive.x)[:400]
    log_q = np.asarray(mixture.log_prob(x))
    delta = CHOICE.thresholds[additions]
    reward = np.asarray(state.archive.log_target)[:400] - np.maximum(log_q, log_q.max() - delta)
    np.testing.assert_allclose(added.gaussians.means[K], x[reward.argmax()])
    assert int(added.num_components) == K + 1
    assert float(added.log_weights[K]) == pytest.approx(np.log(1e-29), abs=1e-9)
    # Isotropic like the first one, its entropy between that one's and the present mean.
    factor = np.asarray(added.factors[K])
    assert np.log(factor[0, 0]) == pytest.approx(np.log(0.7))
    np.testing.assert_allclose(factor, factor[0, 0] * np.eye(D))


def histories(state: State, rewards: np.ndarray, weights: np.ndarray) -> State:
    size = len(state.log_weights)
    empty = np.full((size, CHOICE.history), -np.inf)
    padded = empty.copy(), empty.copy()
    padded[0][:K], padded[1][:K] = rewards, np.log(weights)
    updates = jnp.where(jnp.arange(size) < K, 500, 0)
    return state._replace(
        rewards=jnp.asarray(padded[0]), weights=jnp.asarray(padded[1]), updates=updates
    )


def test_what_stagnates_without_weight_is_deleted_and_nothing_else() -> None:
    length = CHOICE.history
    time = np.linspace(0.0, 1.0, length)
    rewards = np.stack(
        [
            np.zeros(length),  # the best
            np.full(length, -50.0),  # stagnates, no weight: deleted
            -50.0 + 40.0 * time,  # no weight, but it catches up
            np.full(length, -60.0),  # stagnates, but had weight within the time
        ]
    )
    weights = np.full((K, length), 1e-9)
    weights[0] = 1.0
    weights[3, -20] = 1e-3
    state = histories(some_state(), rewards, weights)
    np.testing.assert_array_equal(
        CHOICE.stagnating(state)[: K + 1], [False, True, False, False, False]
    )
    after = jax.jit(lambda s: adaptation.delete(CHOICE, s))(state)
    assert int(after.num_components) == 3
    np.testing.assert_allclose(
        after.gaussians.means[:3], state.gaussians.means[jnp.asarray([0, 2, 3])]
    )
    wanted = np.asarray([0.4, 0.2, 0.1]) / 0.7
    np.testing.assert_allclose(np.exp(after.log_weights[:3]), wanted)
    assert np.all(np.asarray(after.log_weights[3:]) == -np.inf)
    assert np.all(np.asarray(after.store.log_components[:, 3:]) == -np.inf)
    # One that is too young stays, whatever its rewards.
    young = state._replace(updates=state.updates.at[1].set(CHOICE.history - 1))
    assert not CHOICE.stagnating(young).any()


def test_the_share_that_was_made_up_is_that_of_the_smoothed_rewards() -> None:
    """Around the limit of 0.4, computed with NumPy."""
    length, window = CHOICE.history, CHOICE.smoothing
    distance = np.arange(window) - window // 2
    kernel = np.exp(-0.5 * (distance / (CHOICE.patience / 8.0)) ** 2)
    kernel /= kernel.sum()
    for slope in (0.1, 0.2, 0.3, 0.4):
        rewards = np.zeros((K, length))
        rewards[1:] = -100.0
        rewards[1] = -100.0 + slope * np.arange(length)
        weights = np.full((K, length), 1e-9)
        state = histories(some_state(), rewards, weights)
        before, now = (rewards[1, part] @ kernel for part in (slice(window), slice(-window, None)))
        assert bool(CHOICE.stagnating(state)[1]) == ((now - before) / abs(before) <= 0.4)
