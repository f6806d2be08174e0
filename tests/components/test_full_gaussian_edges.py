"""Mixtures of Gaussians with full covariances at their edges."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import jax.test_util
import numpy as np
import pytest
from scipy import stats

from ngem_tutorial import GaussianMixture
from ngem_tutorial.components import FullGaussianMixture


def some_mixture(batch: tuple[int, ...], k: int = 2, d: int = 2) -> FullGaussianMixture:
    rng = np.random.default_rng(0)
    factors = np.tril(rng.normal(size=(*batch, k, d, d)), -1) + rng.uniform(
        0.5, 2.0, (*batch, k, 1, 1)
    ) * np.eye(d)
    return FullGaussianMixture(
        rng.normal(size=(*batch, k)), rng.normal(size=(*batch, k, d)), factors
    )


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("batch", "points"), [((), (5, 4)), ((4,), ()), ((3, 1), (4,)), ((2, 3), (3,))]
)
def test_batches_of_mixtures_and_points_broadcast(
    batch: tuple[int, ...], points: tuple[int, ...]
) -> None:
    mixture = some_mixture(batch)
    y = np.random.default_rng(1).normal(size=(*points, 2))
    shape = np.broadcast_shapes(batch, points)
    means = np.broadcast_to(mixture.means, (*shape, 2, 2))
    covariances = np.broadcast_to(mixture.covariances, (*shape, 2, 2, 2))
    all_y = np.broadcast_to(y, (*shape, 2))
    found = mixture.component_log_prob(y)
    assert found.shape == (*shape, 2)
    for index in np.ndindex(*shape):
        for k in range(2):
            wanted = stats.multivariate_normal(means[index][k], covariances[index][k])
            assert float(found[(*index, k)]) == pytest.approx(wanted.logpdf(all_y[index]))


@pytest.mark.parametrize("offset", [1e4, -1e6])
def test_far_from_the_origin_float32_loses_nothing_of_the_density(offset: float) -> None:
    """Distances are taken before anything is solved; with whole numbers they are exact."""
    factor = np.asarray([[2.0, 0.0], [1.0, 3.0]], np.float32)
    mixture = FullGaussianMixture([0.0], [[offset, offset]], [factor])
    y = offset + np.asarray([[1.0, -2.0], [0.0, 0.0], [5.0, 7.0]])
    wanted = stats.multivariate_normal(np.zeros(2), factor @ factor.T).logpdf(y - offset)
    np.testing.assert_allclose(mixture.log_prob(y.astype(np.float32)), wanted, rtol=1e-6)


@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_units_shift_the_log_density(scale: float) -> None:
    mixture = some_mixture(())
    scaled = FullGaussianMixture(mixture.logits, mixture.means * scale, mixture.factors * scale)
    y = jnp.asarray([0.3, -1.0])
    np.testing.assert_allclose(
        scaled.log_prob(scale * y), mixture.log_prob(y) - 2.0 * np.log(scale), rtol=1e-5
    )
    np.testing.assert_allclose(
        scaled.marginal(1).factors / scale, mixture.marginal(1).factors, rtol=1e-5
    )


@pytest.mark.usefixtures("x64")
def test_gradients_are_those_of_finite_differences() -> None:
    mixture, y = some_mixture(()), jnp.asarray([0.3, -1.0])
    jax.test_util.check_grads(
        lambda logits, means, lower: FullGaussianMixture(logits, means, jnp.tril(lower)).log_prob(
            y
        ),
        (mixture.logits, mixture.means, mixture.factors),
        order=1,
        modes=["rev"],
    )


def test_one_dimension_is_the_diagonal_class() -> None:
    diagonal = GaussianMixture([0.5, -0.5], [[0.0], [3.0]], [[1.0], [0.2]])
    full = FullGaussianMixture([0.5, -0.5], [[0.0], [3.0]], [[[1.0]], [[0.2]]])
    y = jnp.linspace(-2.0, 4.0, 9)[:, None]
    np.testing.assert_allclose(full.log_prob(y), diagonal.log_prob(y), rtol=1e-5)
    np.testing.assert_allclose(full.covariance[0, 0], diagonal.variance[0], rtol=1e-5)
    with pytest.raises(ValueError, match=r"y must have shape \(\.\.\., D\) with D = 1"):
        full.log_prob(3.0)


@pytest.mark.parametrize("dims", [2, -3, [0, 0], [0, -2], [], [0.5]])
def test_wrong_coordinates_are_named(dims: object) -> None:
    with pytest.raises(ValueError, match="dims must name"):
        some_mixture(()).marginal(dims)  # type: ignore[arg-type]


def test_nothing_is_checked_where_values_are_not_known() -> None:
    upper = jnp.ones((1, 2, 2))
    with pytest.raises(ValueError, match="lower triangular"):
        FullGaussianMixture(jnp.zeros(1), jnp.zeros((1, 2)), upper)
    found = jax.jit(FullGaussianMixture)(jnp.zeros(1), jnp.zeros((1, 2)), upper)
    np.testing.assert_array_equal(found.factors, upper)
    with pytest.raises(ValueError, match="factors must have shape"):
        jax.jit(FullGaussianMixture)(jnp.zeros(1), jnp.zeros((1, 2)), jnp.ones((1, 2)))
