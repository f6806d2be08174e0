"""Updates of the weights where numbers are extreme."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ngem_tutorial.vi.weight_updates import (
    CHOICES,
    LEAST_LOG_WEIGHT,
    TrustRegionWeights,
    WeightUpdate,
)


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e6, 1e20, 1e30])
@pytest.mark.parametrize("temperature", [1e-3, 1.0, 1e3])
@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_the_trust_region_is_never_left(scale: float, temperature: float, precision: str) -> None:
    with jax.enable_x64(precision == "float64"):
        log_weights = jnp.log(jnp.asarray([0.5, 0.3, 0.2]))
        reward = scale * jnp.asarray([-1.0, 0.5, 1.0])
        new = TrustRegionWeights()(
            log_weights, reward, jnp.asarray(0.05), jnp.asarray(temperature, reward.dtype)
        )
        w, old = np.asarray(new, np.float64), np.asarray(log_weights, np.float64)
    divergence = float(np.exp(w) @ (w - old))
    tolerance = 1e-8 if precision == "float64" else 1e-5
    if scale >= 1e6:
        assert divergence == pytest.approx(0.05, abs=tolerance)
    assert divergence <= 0.05 + tolerance
    assert np.exp(w).sum() == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize("choice", CHOICES.values())
def test_one_component_has_all_the_weight(choice: WeightUpdate) -> None:
    log_weights = jnp.asarray([0.0, -jnp.inf, -jnp.inf])
    for reward in (-1e30, 0.0, 1e30):
        new = choice(
            log_weights, jnp.asarray([reward, 0.0, 0.0]), jnp.asarray(1.0), jnp.asarray(1.0)
        )
        np.testing.assert_array_equal(new, log_weights)


@pytest.mark.parametrize("choice", CHOICES.values())
def test_equal_rewards_change_nothing_and_their_level_does_not_matter(
    choice: WeightUpdate,
) -> None:
    log_weights = jnp.log(jnp.asarray([0.6, 0.4]))
    one = jnp.asarray(1.0)
    still = choice(log_weights, jnp.full(2, -100.0), one, one)
    np.testing.assert_allclose(still, log_weights, atol=1e-5)
    reward = jnp.asarray([0.0, 1.0])
    np.testing.assert_allclose(
        choice(log_weights, reward, one, one),
        choice(log_weights, reward + 512.0, one, one),
        atol=1e-4,
    )


@pytest.mark.parametrize("choice", CHOICES.values())
def test_a_component_comes_back_from_the_floor(choice: WeightUpdate) -> None:
    log_weights = jnp.asarray([0.0, LEAST_LOG_WEIGHT])
    one = jnp.asarray(1.0)
    for _ in range(40):
        log_weights = choice(log_weights, jnp.asarray([0.0, 5.0]), one, one)
    assert float(log_weights[1]) == pytest.approx(0.0, abs=1e-6)
