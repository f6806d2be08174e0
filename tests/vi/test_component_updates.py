"""Updates of a component, against Gaussians in closed form."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ngem_tutorial.vi.component_updates import (
    Direct,
    ImprovedBayesianRule,
    TrustRegion,
    divergence,
    rate,
)
from ngem_tutorial.vi.estimators import Estimate

pytestmark = pytest.mark.usefixtures("x64")
D = 4


def some_matrix(seed: int) -> np.ndarray:
    a = np.random.default_rng(seed).normal(size=(D, D))
    return a @ a.T / D + 0.1 * np.eye(D)


def gaussian_kl(mean: np.ndarray, covariance: np.ndarray) -> float:
    """KL(N(mean, covariance) || N(0, I))."""
    sign, log_det = np.linalg.slogdet(covariance)
    assert sign > 0
    return 0.5 * (np.trace(covariance) + mean @ mean - len(mean) - log_det)


def towards(target_mean: np.ndarray, target_precision: np.ndarray) -> Estimate:
    """The exact natural gradient at N(0, I) for a Gaussian target: g = P m, G = P - I."""
    return Estimate(
        jnp.asarray(target_precision @ target_mean), jnp.asarray(target_precision - np.eye(D))
    )


def test_a_direct_step_of_one_lands_on_a_gaussian_target() -> None:
    mean, precision = np.arange(D) - 1.0, some_matrix(0)
    step = Direct()(towards(mean, precision), jnp.asarray(1.0), jnp.asarray(1.0))
    np.testing.assert_allclose(step.shift, mean, atol=1e-12)
    np.testing.assert_allclose(step.factor @ step.factor.T, np.linalg.inv(precision), rtol=1e-10)
    assert np.all(np.triu(np.asarray(step.factor), 1) == 0)


@pytest.mark.parametrize("choice", [Direct(), ImprovedBayesianRule(), TrustRegion()])
def test_the_optimum_is_a_fixed_point(choice: Direct) -> None:
    still = Estimate(jnp.zeros(D), jnp.zeros((D, D)))
    step = choice(still, jnp.asarray(0.7), jnp.asarray(1.0))
    np.testing.assert_allclose(step.shift, 0.0, atol=1e-14)
    np.testing.assert_allclose(step.factor, np.eye(D), atol=1e-14)


@pytest.mark.parametrize("beta", [1e-3, 0.1, 1.0, 30.0])
def test_the_improved_rule_is_its_formula_and_positive_definite(beta: float) -> None:
    a = np.random.default_rng(1).normal(size=(D, D))
    curvature = -5.0 * (a + a.T)  # indefinite: a direct step would fail
    v = np.arange(D) + 0.5
    step = ImprovedBayesianRule()(
        Estimate(jnp.asarray(v), jnp.asarray(curvature)), jnp.asarray(beta), jnp.asarray(1.0)
    )
    precision = np.eye(D) + beta * curvature + 0.5 * beta**2 * curvature @ curvature
    assert np.linalg.eigvalsh(precision).min() > 0
    np.testing.assert_allclose(np.linalg.inv(step.factor @ step.factor.T), precision, rtol=1e-8)
    np.testing.assert_allclose(step.shift, beta * v)


def test_a_direct_step_that_is_not_positive_definite_is_not_repaired() -> None:
    curvature = jnp.diag(jnp.asarray([1.0, -2.0, 0.0, 0.0]))
    step = Direct()(Estimate(jnp.ones(D), curvature), jnp.asarray(1.0), jnp.asarray(1.0))
    assert not np.isfinite(step.factor).all()


@pytest.mark.parametrize("bound", [1e-3, 0.1, 1.0])
@pytest.mark.parametrize("definite", [True, False])
def test_the_trust_region_reaches_its_bound(bound: float, definite: bool) -> None:
    a = np.random.default_rng(2).normal(size=(D, D))
    curvature = 3.0 * a @ a.T if definite else 3.0 * (a + a.T)
    v = 10.0 * np.ones(D)
    estimate = Estimate(jnp.asarray(v), jnp.asarray(curvature))
    step = TrustRegion()(estimate, jnp.asarray(bound), jnp.asarray(1e6))
    covariance = np.asarray(step.factor @ step.factor.T)
    assert gaussian_kl(np.asarray(step.shift), covariance) == pytest.approx(bound, abs=1e-8)
    # It is a direct step, of the length that the precision shows.
    change = np.linalg.inv(covariance) - np.eye(D)
    beta = float(np.sum(change * curvature) / np.sum(curvature**2))
    np.testing.assert_allclose(change, beta * curvature, rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(step.shift, beta * covariance @ v, rtol=1e-6)


def test_no_step_of_a_trust_region_is_longer_than_one_over_the_temperature() -> None:
    mean, precision = 0.01 * np.ones(D), np.eye(D) + 0.01 * some_matrix(3)
    estimate = towards(mean, precision)
    half = TrustRegion()(estimate, jnp.asarray(1.0), jnp.asarray(0.5))
    np.testing.assert_allclose(
        np.linalg.inv(half.factor @ half.factor.T), np.eye(D) + 0.5 * estimate.curvature, rtol=1e-9
    )


def test_the_divergence_is_that_of_the_gaussians() -> None:
    m, u = np.asarray([0.5, -0.2, 3.0, 0.0]), np.asarray([1.0, -2.0, 0.3, 0.1])
    s = 1.0 + 0.8 * m
    wanted = gaussian_kl(0.8 * u / s, np.diag(1.0 / s))
    assert float(divergence(jnp.asarray(m), jnp.asarray(u), jnp.asarray(0.8))) == pytest.approx(
        wanted, rel=1e-12
    )
    assert float(divergence(jnp.asarray(m), jnp.asarray(u), jnp.asarray(5.0))) == np.inf


def test_the_rate_grows_with_the_bound() -> None:
    rng = np.random.default_rng(4)
    m, u = jnp.asarray(rng.normal(size=D)), jnp.asarray(rng.normal(size=D))
    bounds = jnp.geomspace(1e-6, 10.0, 20)
    rates = jax.vmap(lambda bound: rate(m, u, bound, jnp.asarray(1e6)))(bounds)
    assert np.all(np.diff(rates) > 0)
