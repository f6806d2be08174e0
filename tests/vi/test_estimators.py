"""Estimates of natural gradients, against closed forms."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ngem_tutorial.vi._gaussians import Gaussians
from ngem_tutorial.vi.estimators import Estimate, Estimator, More, Samples, Stein, _quadratic_fit

pytestmark = pytest.mark.usefixtures("x64")
D = 3
MEAN = np.asarray([0.5, -1.0, 2.0])
FACTOR = np.linalg.cholesky(np.asarray([[2.0, 0.5, 0.0], [0.5, 1.0, 0.3], [0.0, 0.3, 1.5]]))
TARGET_MEAN = np.asarray([1.0, 0.0, 1.0])
TARGET_PRECISION = np.asarray([[1.0, 0.2, 0.1], [0.2, 2.0, 0.0], [0.1, 0.0, 0.7]])


def estimate(choice: Estimator, number: int, seed: int, temperature: float = 1.0) -> Estimate:
    """One component and a Gaussian target: rho is quadratic, the answer exact."""
    noise = jax.random.normal(jax.random.key(seed), (number, D))
    x = MEAN + noise @ FACTOR.T
    gaussians = Gaussians.of(jnp.asarray(MEAN)[None], jnp.asarray(FACTOR)[None])
    log_q = gaussians.log_prob(gaussians.standardize(x))[:, 0]
    centred = x - TARGET_MEAN
    log_p = -0.5 * jnp.einsum("ni,ij,nj->n", centred, TARGET_PRECISION, centred)
    samples = Samples(
        x,
        log_p - temperature * log_q,
        -centred @ TARGET_PRECISION,
        log_q[:, None],
        log_q,
        log_q,
        jnp.log(jnp.asarray([float(number)])),
        jnp.zeros(1),
        jnp.asarray(number // 3),  # the rows are a ring
        jnp.asarray(number),
    )
    ridge = jnp.asarray([1e-12])
    factors = jnp.asarray(FACTOR)[None]
    found, _ = choice(samples, gaussians, factors, jnp.asarray(temperature), ridge)
    return jax.tree.map(lambda leaf: leaf[0], found)


def exact(temperature: float = 1.0) -> Estimate:
    """g = P (m - mu), G = P - tau S^-1, whitened."""
    gradient = FACTOR.T @ TARGET_PRECISION @ (TARGET_MEAN - MEAN)
    return Estimate(gradient, FACTOR.T @ TARGET_PRECISION @ FACTOR - temperature * np.eye(D))


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_regression_is_exact_on_quadratics(temperature: float) -> None:
    found = estimate(More(), 50, 0, temperature)
    np.testing.assert_allclose(found.gradient, exact(temperature).gradient, atol=1e-8)
    np.testing.assert_allclose(found.curvature, exact(temperature).curvature, atol=1e-8)


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_stein_is_unbiased_and_its_error_falls_with_the_root(temperature: float) -> None:
    errors = {}
    for number in (100, 6400):
        found = [estimate(Stein(), number, seed, temperature) for seed in range(40)]
        deviation = np.stack([e.curvature - exact(temperature).curvature for e in found])
        slope = np.stack([e.gradient - exact(temperature).gradient for e in found])
        for values in (deviation, slope):
            standard_error = values.std(axis=0, ddof=1) / np.sqrt(40)
            assert np.all(np.abs(values.mean(axis=0)) < 4.5 * standard_error)
        errors[number] = np.sqrt(np.mean(deviation**2))
    assert errors[100] / errors[6400] == pytest.approx(8.0, rel=0.25)


def test_curvatures_are_symmetric() -> None:
    for choice in (Stein(), More()):
        found = estimate(choice, 40, 1).curvature
        np.testing.assert_array_equal(found, found.T)


def test_a_block_more_changes_nothing() -> None:
    """513 samples need a second block, which holds one: the rest of it must not count."""
    found = estimate(Stein(), 513, 0)
    x = MEAN + np.asarray(jax.random.normal(jax.random.key(0), (513, D))) @ FACTOR.T
    z = np.linalg.solve(FACTOR, (x - MEAN).T).T
    slope = -(x - TARGET_MEAN) @ TARGET_PRECISION + np.linalg.solve(FACTOR.T, z.T).T
    outer = np.mean(z[:, :, None] * (slope @ FACTOR)[:, None, :], axis=0)
    np.testing.assert_allclose(found.curvature, -0.5 * (outer + outer.T), rtol=1e-10)


def test_the_ridge_grows_where_the_fit_fails_and_is_halved_elsewhere() -> None:
    gaussians = Gaussians.of(jnp.zeros((2, 1)), jnp.ones((2, 1, 1)))
    x = jnp.linspace(-1.0, 1.0, 10)[:, None]
    zeros, rho = jnp.zeros(10), -(x[:, 0] ** 2)
    halves, tens = jnp.log(jnp.full(2, 0.5)), jnp.log(jnp.full(2, 10.0))
    first, number = jnp.asarray(0), jnp.asarray(10)
    samples = Samples(x, rho, x, jnp.zeros((10, 2)), zeros, zeros, tens, halves, first, number)
    ridge = jnp.asarray([1e-8, 1e-12])
    _, after = More()(samples, gaussians, jnp.ones((2, 1, 1)), jnp.asarray(1.0), ridge)
    np.testing.assert_allclose(after, [5e-9, 1e-12])
    bad = samples._replace(rho=rho.at[0].set(jnp.nan))
    found, after = More()(bad, gaussians, jnp.ones((2, 1, 1)), jnp.asarray(1.0), ridge)
    assert not np.isfinite(found.gradient).any()
    np.testing.assert_allclose(after, [1e-7, 1e-11])


def test_what_too_few_samples_leave_open_is_not_filled_with_rounding() -> None:
    """The least solution of an underdetermined fit, against an SVD in double precision."""
    rng = np.random.default_rng(0)
    n, d = 300, 31
    z = rng.normal(size=(n, d)).astype(np.float32)
    x, (i, j) = z.astype(np.float64), np.tril_indices(d)
    matrix, slope = rng.normal(size=(d, d)), rng.normal(size=d)
    rho = 3.0 + x @ slope - 0.5 * np.einsum("ni,ij,nj->n", x, matrix + matrix.T, x)
    weights = jnp.full(n, 1 / n, jnp.float32)
    ridge = jnp.float32(1e-12)
    found = _quadratic_fit(jnp.asarray(z), jnp.asarray(rho, jnp.float32), weights, ridge)
    features = np.concatenate([x, x[:, i] * x[:, j]], axis=1)
    features -= features.mean(0)
    expected = np.linalg.lstsq(features, rho - rho.mean(), rcond=1e-6)[0][:d]
    np.testing.assert_allclose(found.gradient, expected, atol=1e-3 * np.linalg.norm(expected))
    flat = -40.0 + 1e-5 * rng.normal(size=n)
    none = _quadratic_fit(jnp.asarray(z), jnp.asarray(flat, jnp.float32), weights, ridge)
    assert np.linalg.norm(none.gradient) < 1e-2
    assert np.linalg.norm(none.curvature) < 1e-1
