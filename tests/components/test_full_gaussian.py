"""Mixtures of Gaussians with full covariances, against scipy and the diagonal class."""

from __future__ import annotations

from typing import Any

import flax.serialization
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from ngem_tutorial import GaussianMixture
from ngem_tutorial.components import FullGaussianMixture

pytestmark = pytest.mark.usefixtures("x64")


def some_mixture(batch: tuple[int, ...] = (), k: int = 3, d: int = 4) -> FullGaussianMixture:
    rng = np.random.default_rng(0)
    a = rng.normal(size=(*batch, k, d, d))
    covariances = a @ np.swapaxes(a, -1, -2) + 0.1 * np.eye(d)
    logits, means = rng.normal(size=(*batch, k)), rng.normal(size=(*batch, k, d))
    return FullGaussianMixture.from_covariances(logits, means, covariances)


def test_densities_are_those_of_scipy() -> None:
    mixture = some_mixture()
    y = np.random.default_rng(1).normal(size=(5, 2, 4))
    wanted = np.stack(
        [
            stats.multivariate_normal(mean, covariance).logpdf(y)
            for mean, covariance in zip(mixture.means, mixture.covariances, strict=True)
        ],
        axis=-1,
    )
    np.testing.assert_allclose(mixture.component_log_prob(y), wanted, rtol=1e-10)
    total = np.log(np.sum(np.exp(wanted) * np.asarray(mixture.weights), axis=-1))
    np.testing.assert_allclose(mixture.log_prob(y), total, rtol=1e-10)
    np.testing.assert_allclose(np.sum(mixture.responsibilities(y), axis=-1), 1.0, rtol=1e-12)


def test_a_batch_is_its_mixtures_one_by_one() -> None:
    batch = some_mixture((2, 3))
    y = np.random.default_rng(1).normal(size=(2, 3, 4))
    for i, j in np.ndindex(2, 3):
        np.testing.assert_allclose(batch.log_prob(y)[i, j], batch[i, j].log_prob(y[i, j]))
    assert batch[:, 1].factors.shape == (2, 3, 4, 4)


def test_a_diagonal_mixture_is_a_special_case() -> None:
    rng = np.random.default_rng(2)
    diagonal = GaussianMixture(
        rng.normal(size=3), rng.normal(size=(3, 2)), rng.uniform(1, 2, (3, 2))
    )
    full = FullGaussianMixture.from_diagonal(diagonal)
    y = rng.normal(size=(10, 2))
    np.testing.assert_allclose(full.log_prob(y), diagonal.log_prob(y), rtol=1e-12)
    np.testing.assert_allclose(full.mean, diagonal.mean)
    np.testing.assert_allclose(np.diagonal(full.covariance), diagonal.variance, rtol=1e-12)
    key = jax.random.key(0)
    np.testing.assert_allclose(full.sample(key, 5), diagonal.sample(key, 5))


def test_draws_have_the_moments() -> None:
    mixture = some_mixture()
    x, k = mixture.sample_with_components(jax.random.key(0), 100_000)
    share = np.bincount(k, minlength=3) / len(k)
    assert np.all(np.abs(share - mixture.weights) < 5.0 * np.sqrt(0.25 / len(k)))
    error = np.sqrt(np.diagonal(mixture.covariance) / len(x))
    assert np.all(np.abs(x.mean(axis=0) - mixture.mean) < 5.0 * error)
    # The entries of a covariance have standard errors of about the trace over sqrt(n).
    scale = np.trace(mixture.covariance) / np.sqrt(len(x))
    assert np.abs(np.cov(x.T) - mixture.covariance).max() < 5.0 * scale


@pytest.mark.parametrize("dims", [1, [3, 0], [0, 1, 2, 3]])
def test_a_marginal_has_the_rows_and_columns_of_the_covariance(dims: Any) -> None:
    mixture = some_mixture()
    part = mixture.marginal(dims)
    columns = np.atleast_1d(dims)
    wanted = np.asarray(mixture.covariances)[:, columns][:, :, columns]
    np.testing.assert_allclose(part.covariances, wanted, rtol=1e-10)
    np.testing.assert_allclose(part.means, mixture.means[:, columns])
    FullGaussianMixture(part.logits, part.means, part.factors)  # triangular, positive diagonal


def test_gradients_and_transformations_go_through() -> None:
    mixture = some_mixture()
    y = jnp.ones(4)
    eager = mixture.log_prob(y)
    compiled = jax.jit(lambda m: m.log_prob(y))(mixture)
    np.testing.assert_allclose(compiled, eager, rtol=1e-12)
    gradient = jax.grad(lambda m: m.log_prob(y))(mixture)
    assert isinstance(gradient, FullGaussianMixture)
    step = 1e-6
    moved = FullGaussianMixture(mixture.logits, mixture.means.at[0, 1].add(step), mixture.factors)
    np.testing.assert_allclose((moved.log_prob(y) - eager) / step, gradient.means[0, 1], rtol=1e-4)
    state = flax.serialization.to_bytes(mixture)
    restored = flax.serialization.from_bytes(jax.tree.map(jnp.zeros_like, mixture), state)
    np.testing.assert_array_equal(restored.factors, mixture.factors)


def test_samples_have_no_gradient_for_the_logits() -> None:
    with pytest.raises(TypeError, match="no gradient with respect to the logits"):
        jax.grad(lambda m: m.sample(jax.random.key(0)).sum())(some_mixture())


def test_parameters_of_16_bits_become_float32() -> None:
    mixture = FullGaussianMixture(*(jnp.ones(s, jnp.bfloat16) for s in ((1,), (1, 1), (1, 1, 1))))
    assert {leaf.dtype for leaf in jax.tree.leaves(mixture)} == {np.dtype(np.float32)}


GOOD: dict[str, Any] = {
    "logits": [0.0],
    "means": [[0.0, 0.0]],
    "factors": [[[1.0, 0.0], [0.0, 1.0]]],
}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"factors": [[[1.0, 2.0], [0.0, 1.0]]]}, r"lower triangular, got 2.0 at \(0, 0, 1\)"),
        ({"factors": [[[1.0, 0.0], [0.0, 0.0]]]}, r"positive diagonals, got 0.0 at \(0, 1\)"),
        ({"factors": [[[1.0, 0.0], [np.nan, 1.0]]]}, "factors must be finite, got nan"),
        ({"factors": [[1.0, 1.0]]}, r"factors must have shape .* = \(1, 2, 2\)"),
        ({"logits": [0.0, 0.0]}, "logits must have shape"),
        ({"means": [0.0]}, "means must have shape"),
    ],
)
def test_wrong_parameters_are_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FullGaussianMixture(**(GOOD | change))


@pytest.mark.parametrize(
    ("covariance", "message"),
    [
        ([[1.0, 2.0], [2.0, 1.0]], r"positive definite, that at \(0,\) is not"),
        ([[1.0, 0.5], [0.0, 1.0]], "symmetric"),
        ([1.0, 1.0], "shape"),
    ],
)
def test_wrong_covariances_are_named(covariance: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FullGaussianMixture.from_covariances([0.0], [[0.0, 0.0]], [covariance])
