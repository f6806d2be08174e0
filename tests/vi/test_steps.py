"""Step sizes by their formulas."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from ngem_tutorial.vi.steps import Adaptive, Decaying, Fixed, Progress

pytestmark = pytest.mark.usefixtures("x64")
STEP = jnp.asarray([0.5, 0.5, 0.5, 0.95, 0.001])
PROGRESS = Progress(
    1.0,
    jnp.asarray([0, 1, 10, 100, 1000]),
    jnp.asarray([2.0, 0.0, 1.0, 2.0, 0.0]),
    jnp.asarray([1.0, 1.0, -jnp.inf, 1.0, 1.0]),
)


def test_a_fixed_step_stays() -> None:
    np.testing.assert_array_equal(Fixed()(STEP, PROGRESS), STEP)


def test_a_decaying_step_follows_the_number_of_updates() -> None:
    wanted = 1.0 / (1.0 + np.asarray([0.0, 1.0, 10.0, 100.0, 1000.0]) ** 0.55)
    np.testing.assert_allclose(Decaying()(STEP, PROGRESS), wanted)


def test_an_adaptive_step_follows_the_reward_within_its_limits() -> None:
    wanted = [0.5 * 1.15, 0.5 * 0.85, 0.5, 1.0, 0.001]
    np.testing.assert_allclose(Adaptive()(STEP, PROGRESS), wanted)
