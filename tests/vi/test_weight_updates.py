"""Updates of the weights, against a numerical solver."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import optimize

from ngem_tutorial.vi.weight_updates import LEAST_LOG_WEIGHT, DirectWeights, TrustRegionWeights

pytestmark = pytest.mark.usefixtures("x64")
LOG_WEIGHTS = np.log([0.5, 0.3, 0.15, 0.05])
REWARD = np.asarray([-1.0, 0.5, 2.0, 1.0])


@pytest.mark.parametrize("temperature", [1.0, 2.0])
@pytest.mark.parametrize("bound", [1e-3, 0.05, 100.0])
def test_the_trust_region_is_the_best_within_its_bound(bound: float, temperature: float) -> None:
    found = TrustRegionWeights()(
        jnp.asarray(LOG_WEIGHTS), jnp.asarray(REWARD), jnp.asarray(bound), jnp.asarray(temperature)
    )

    def loss(logits: np.ndarray) -> float:
        log_w = logits - np.logaddexp.reduce(logits)
        gain = REWARD + temperature * LOG_WEIGHTS - temperature * log_w
        return -float(np.exp(log_w) @ gain)

    def slack(logits: np.ndarray) -> float:
        log_w = logits - np.logaddexp.reduce(logits)
        return bound - float(np.exp(log_w) @ (log_w - LOG_WEIGHTS))

    solved = optimize.minimize(
        loss,
        LOG_WEIGHTS,
        method="SLSQP",
        constraints={"type": "ineq", "fun": slack},
        options={"ftol": 1e-14, "maxiter": 500},
    )
    wanted = np.exp(solved.x - np.logaddexp.reduce(solved.x))
    np.testing.assert_allclose(np.exp(found), wanted, atol=2e-5)
    assert slack(np.asarray(found)) == pytest.approx(0.0, abs=1e-8) or bound == 100.0


def test_a_direct_step_of_one_is_the_best_without_a_bound() -> None:
    direct = DirectWeights()(
        jnp.asarray(LOG_WEIGHTS), jnp.asarray(REWARD), jnp.asarray(1.0), jnp.asarray(2.0)
    )
    wanted = np.exp(LOG_WEIGHTS + REWARD / 2.0)
    np.testing.assert_allclose(np.exp(direct), wanted / wanted.sum(), rtol=1e-12)


@pytest.mark.parametrize("choice", [DirectWeights(), TrustRegionWeights()])
def test_a_weight_stays_above_the_floor_and_an_empty_place_empty(choice: DirectWeights) -> None:
    log_weights = jnp.asarray([0.0, -60.0, -jnp.inf])
    new = choice(log_weights, jnp.asarray([0.0, -1e4, 0.0]), jnp.asarray(1e6), jnp.asarray(1.0))
    assert float(new[1]) == pytest.approx(LEAST_LOG_WEIGHT, abs=1e-9)
    assert float(new[2]) == -np.inf
    assert float(jnp.sum(jnp.exp(new))) == pytest.approx(1.0)


def test_directions_are_natural_gradients_of_the_weights() -> None:
    """Fisher's inverse times the gradient of a two-component ELBO, by autodiff on a grid."""
    x = jnp.linspace(-12.0, 12.0, 4001)
    log_p = -0.25 * (x**2 - 4.0) ** 2 / 4.0
    means, scales = jnp.asarray([-1.5, 2.5]), jnp.asarray([0.8, 1.1])
    log_n = (
        -0.5 * ((x[:, None] - means) / scales) ** 2 - jnp.log(scales) - 0.5 * jnp.log(2 * jnp.pi)
    )
    logits = jnp.asarray([0.3, -0.2])

    def log_q(logits: jax.Array) -> jax.Array:
        return jax.nn.logsumexp(log_n + jax.nn.log_softmax(logits), axis=1)

    def elbo(logits: jax.Array) -> jax.Array:
        return jnp.trapezoid(jnp.exp(log_q(logits)) * (log_p - log_q(logits)), x)

    w = jax.nn.softmax(logits)
    fisher = jnp.diag(w) - jnp.outer(w, w)
    natural = jnp.linalg.pinv(fisher) @ jax.grad(elbo)(logits)
    rho = log_p - log_q(logits)
    reward = jnp.trapezoid(jnp.exp(log_n) * rho[:, None], x, axis=0)
    step = 1e-4
    moved = DirectWeights()(jnp.log(w), reward, jnp.asarray(step), jnp.asarray(1.0))
    direction = (moved - jnp.log(w)) / step
    np.testing.assert_allclose(direction[0] - direction[1], natural[0] - natural[1], rtol=1e-3)
