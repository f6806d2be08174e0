"""Diagnosis of a fit, against closed forms and scipy's generalised Pareto distribution."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from ngem_tutorial.components import FullGaussianMixture
from ngem_tutorial.vi import TargetError, diagnose, initial_mixture, modes_found
from ngem_tutorial.vi.diagnostics import _pareto_k

KEY = jax.random.key(0)
START = initial_mixture(KEY, 2, spread=0.0)


def wider(x: jax.Array) -> jax.Array:
    """log Z = log(2 pi) + 2 log 1.2 under a standard normal approximation."""
    return -0.5 * jnp.sum((x / 1.2) ** 2)


def test_the_evidence_is_within_its_error() -> None:
    found = diagnose(START, wider, KEY, 20_000)
    truth = np.log(2.0 * np.pi) + 2.0 * np.log(1.2)
    assert abs(found.log_evidence - truth) < 4.5 * found.log_evidence_error
    divergence = 0.5 * 2 * (1 / 1.44 - 1 + np.log(1.44))
    assert abs(found.elbo - (truth - divergence)) < 4.5 * found.elbo_error
    w = np.exp(np.asarray(found.log_weights, np.float64))
    assert found.effective_number == pytest.approx(w.sum() ** 2 / (w**2).sum(), rel=1e-6)


def test_draws_by_weight_are_draws_of_the_target() -> None:
    found = diagnose(START, wider, KEY, 20_000)
    x = found.resample(jax.random.key(1), 20_000)
    assert x.shape == (20_000, 2)
    w = np.exp(np.asarray(found.log_weights, np.float64))
    for power in (1, 2):
        values = np.asarray(found.x, np.float64) ** power
        wanted = w @ values / w.sum()
        error = np.sqrt(w @ (values - wanted) ** 2 / w.sum() / 20_000)
        assert np.all(np.abs(np.mean(np.asarray(x) ** power, axis=0) - wanted) < 4.5 * error)


@pytest.mark.parametrize("shape", [0.2, 0.5, 0.9])
def test_the_tail_has_the_shape_of_a_pareto_distribution(shape: float) -> None:
    """Over twenty samples; the prior of ten observations at 0.5 draws it in a little."""
    found = [
        _pareto_k(np.log(stats.genpareto.rvs(shape, size=20_000, random_state=seed)))
        for seed in range(20)
    ]
    drawn_in = (425 * shape + 10 * 0.5) / 435
    assert abs(np.mean(found) - drawn_in) < 4.5 * np.std(found) / np.sqrt(20) + 0.02


def test_an_exact_fit_has_weights_that_are_alike() -> None:
    found = diagnose(START, lambda x: -0.5 * x @ x, KEY, 1000)
    assert found.pareto_k == -np.inf
    assert found.effective_number == pytest.approx(1000, rel=1e-4)


def test_a_target_without_density_and_too_few_samples_are_errors() -> None:
    with pytest.raises(ValueError, match="above minus infinity"):
        diagnose(START, lambda x: -jnp.inf + 0.0 * x[0], KEY, 100)
    with pytest.raises(ValueError, match="number must be at least 100"):
        diagnose(START, wider, KEY, 10)


def test_a_model_of_numpyro_with_constrained_parameters() -> None:
    """The recipe: its potential on unconstrained parameters is minus a log density."""
    numpyro = pytest.importorskip("numpyro")
    from jax.flatten_util import ravel_pytree

    from ngem_tutorial.vi import fit_density

    y = jnp.asarray(np.random.default_rng(0).normal(2.0, 3.0, 200))

    def model() -> None:
        mu = numpyro.sample("mu", numpyro.distributions.Normal(0.0, 10.0))
        sigma = numpyro.sample("sigma", numpyro.distributions.HalfNormal(5.0))
        numpyro.sample("y", numpyro.distributions.Normal(mu, sigma), obs=y)

    start = numpyro.infer.util.initialize_model(KEY, model)
    flat, unravel = ravel_pytree(start.param_info.z)
    fit = fit_density(
        lambda x: -start.potential_fn(unravel(x)), flat.size, key=KEY, num_iterations=60
    )
    draws = jax.vmap(lambda x: start.postprocess_fn(unravel(x)))(fit.mixture.sample(KEY, 4000))
    assert float(draws["mu"].mean()) == pytest.approx(float(y.mean()), abs=0.05)
    assert float(draws["sigma"].mean()) == pytest.approx(float(y.std()), rel=0.03)
    assert float(draws["sigma"].min()) > 0
    assert float(draws["mu"].std()) == pytest.approx(float(y.std()) / np.sqrt(200), rel=0.1)


def test_a_mode_needs_weight_nearby() -> None:
    modes = np.asarray([[0.0, 0.0], [20.0, 0.0], [0.0, 20.0]])
    means = jnp.asarray([[0.5, 0.0], [20.0, 1.0], [0.0, 20.0], [60.0, 60.0]])
    weights = jnp.log(jnp.asarray([0.5, 0.05, 0.01, 0.44]))
    mixture = FullGaussianMixture(weights, means, jnp.broadcast_to(jnp.eye(2), (4, 2, 2)))
    assert modes_found(mixture, modes) == 2
    with pytest.raises(ValueError, match=r"modes must have shape \(M, d\) with d = 2"):
        modes_found(mixture, np.zeros((3, 1)))


def test_a_tail_that_cannot_be_told_from_zero_is_no_good_tail() -> None:
    """Where the weights of nearly all samples underflow `k` is infinite, not undefined."""
    found = diagnose(START, lambda x: -0.5 * jnp.sum(((x - 10.0) / 0.01) ** 2), KEY, 1000)
    assert found.pareto_k == np.inf
    few = diagnose(START, lambda x: jnp.where(x[0] > 2.9, -0.5 * x @ x, -jnp.inf), KEY, 1000)
    assert (np.asarray(few.log_weights) > -np.inf).sum() <= 4
    assert few.pareto_k == np.inf


def test_a_tail_with_some_weights_of_zero_is_fitted_to_the_others() -> None:
    rng = np.random.default_rng(0)
    weights = stats.genpareto(0.5).rvs(50, random_state=rng)
    log_weights = np.concatenate([np.log(weights), np.full(450, -np.inf)])
    assert 0.1 < _pareto_k(log_weights) < 0.9


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_target_that_is_no_number_is_an_error_with_the_point(value: float) -> None:
    with pytest.raises(TargetError, match=r"log_density is (nan|inf) .* at x = \[") as caught:
        diagnose(START, lambda x: jnp.where(x[0] > 1.0, value, -0.5 * x @ x), KEY, 1000)
    assert caught.value.point[0] > 1.0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((START, lambda x: jnp.ones(1), KEY), "log_density must return a number"),
        ((START, wider, 0), "key must be one JAX random key"),
        ((START, wider, jax.random.split(KEY, 2)), "key must be one JAX random key"),
        ((jax.tree.map(lambda a: a[None], START), wider, KEY), "mixture must be one mixture"),
        (("SAMTRON", wider, KEY), "mixture must be a GaussianMixture"),
    ],
)
def test_arguments_are_named(arguments: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        diagnose(*arguments)


@pytest.mark.parametrize("modes", [np.zeros((0, 2)), np.zeros((1, 3)), [[0.0, np.nan]]])
def test_modes_that_are_no_points_are_an_error(modes: Any) -> None:
    with pytest.raises(ValueError, match="modes must"):
        modes_found(START, modes)
