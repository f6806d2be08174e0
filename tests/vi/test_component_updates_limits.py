"""Updates of a component where numbers are extreme."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ngem_tutorial.vi.component_updates import (
    CHOICES,
    ComponentUpdate,
    Direct,
    ImprovedBayesianRule,
    TrustRegion,
    rate,
)
from ngem_tutorial.vi.estimators import Estimate


def moved(step_shift: np.ndarray, factor: np.ndarray) -> float:
    """KL(q' || N(0, I)) from the mean and the factor of the covariance."""
    log_det = np.sum(np.log(np.diag(factor)))
    return float(0.5 * (np.sum(factor**2) + step_shift @ step_shift - len(factor)) - log_det)


@pytest.mark.parametrize("slope", [1.0, 1e6, 1e12, 1e18, 1e30])
@pytest.mark.parametrize("curvature", [-1e20, -3.0, 0.0, 3.0, 1e12])
@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_a_trust_region_is_never_left(slope: float, curvature: float, precision: str) -> None:
    """Far from a narrow target, whitened gradients are large: the step must be as short."""
    with jax.enable_x64(precision == "float64"):
        estimate = Estimate(
            jnp.asarray([slope, -0.5 * slope]), jnp.asarray([[curvature, 0.0], [0.0, 0.5]])
        )
        step = TrustRegion()(estimate, jnp.asarray(0.3), jnp.asarray(1.0))
        shift, factor = (np.asarray(part, np.float64) for part in step)
    assert np.isfinite(shift).all()
    assert np.isfinite(factor).all()
    tolerance = 1e-8 if precision == "float64" else 1e-4
    assert moved(shift, factor) == pytest.approx(0.3, abs=tolerance)


@pytest.mark.usefixtures("x64")
def test_a_bound_that_is_slack_gives_the_longest_step() -> None:
    m, u = jnp.asarray([0.01, -0.02]), jnp.asarray([0.01, 0.0])
    for longest in (1.0, 0.5, 0.1):
        assert float(rate(m, u, jnp.asarray(1.0), jnp.asarray(longest))) == longest
    zeros = jnp.zeros(2)
    assert float(rate(zeros, zeros, jnp.asarray(1e-12), jnp.asarray(1.0))) == 1.0


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("exponent", [-8, -3, 0, 3, 6])
def test_the_improved_rule_stays_positive_definite(exponent: int) -> None:
    a = np.random.default_rng(exponent + 8).normal(size=(3, 3))
    estimate = Estimate(jnp.ones(3), jnp.asarray(a + a.T))
    step = ImprovedBayesianRule()(estimate, jnp.asarray(10.0**exponent), jnp.asarray(1.0))
    assert np.isfinite(step.factor).all()
    assert np.all(np.diagonal(step.factor) > 0)


@pytest.mark.parametrize("choice", CHOICES.values())
def test_what_is_no_number_is_refused_and_one_dimension_is_enough(choice: ComponentUpdate) -> None:
    half = jnp.asarray(0.5)
    good = choice(Estimate(jnp.ones(1), jnp.ones((1, 1))), half, jnp.asarray(1.0))
    assert good.factor.shape == (1, 1)
    assert 0 < float(good.factor[0, 0]) < 1
    for bad in (
        Estimate(jnp.full(1, jnp.nan), jnp.ones((1, 1))),
        Estimate(jnp.ones(1), jnp.full((1, 1), jnp.nan)),
        Estimate(jnp.ones(1), jnp.full((1, 1), jnp.inf)),
    ):
        step = choice(bad, half, jnp.asarray(1.0))
        assert not (np.isfinite(step.shift).all() and np.isfinite(step.factor).all())


def test_a_direct_step_on_the_edge_is_refused() -> None:
    edge = Estimate(jnp.ones(1), -jnp.ones((1, 1)))
    step = Direct()(edge, jnp.asarray(1.0), jnp.asarray(1.0))
    assert not (np.isfinite(step.shift).all() and np.isfinite(step.factor).all())
