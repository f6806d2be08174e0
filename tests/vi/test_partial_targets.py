"""Targets that bind their arrays, and Gaussians that single precision cannot hold."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from ngem_tutorial._training import compilation
from ngem_tutorial.vi import fit_density, initial_mixture, targets
from ngem_tutorial.vi._iteration import _can_be_told

KEY = jax.random.key(0)


def gaussian(mean: jax.Array, x: jax.Array) -> jax.Array:
    return -0.5 * jnp.sum((x - mean) ** 2)


def fitted_mean(log_density: object) -> np.ndarray:
    start = initial_mixture(KEY, 2, 2)
    fit = fit_density(log_density, 2, key=KEY, method="SEMTRON", num_iterations=30, start=start)  # type: ignore[arg-type]
    return np.asarray(fit.mixture.mean)


def test_bound_arrays_and_constants_give_the_same_numbers() -> None:
    mean = jnp.asarray([1.0, -2.0])
    bound = fitted_mean(Partial(gaussian, mean))
    np.testing.assert_allclose(bound, fitted_mean(lambda x: gaussian(mean, x)), rtol=1e-5)
    np.testing.assert_allclose(bound, mean, atol=0.05)
    np.testing.assert_allclose(fitted_mean(Partial(gaussian, -mean)), -mean, atol=0.05)


def test_targets_that_differ_in_their_arrays_share_a_program() -> None:
    compilation.clear()
    one = fitted_mean(targets.banana(0.5).log_density)
    programs = len(compilation._BY_TEXT._entries)
    assert programs > 0
    other = fitted_mean(targets.banana(0.1).log_density)
    assert len(compilation._BY_TEXT._entries) == programs
    assert one[1] > other[1] + 0.5  # E[x_2] = 4 bend


def test_going_on_keeps_the_bound_arrays() -> None:
    log_density = Partial(gaussian, jnp.asarray([1.0, -2.0]))
    start = initial_mixture(KEY, 2, 2)
    options = {"key": KEY, "method": "SEMTRON", "start": start}
    whole = fit_density(log_density, 2, num_iterations=20, **options)  # type: ignore[arg-type]
    parts = fit_density(log_density, 2, num_iterations=8, **options).extend(12)  # type: ignore[arg-type]
    np.testing.assert_array_equal(whole.mixture.means, parts.mixture.means)


@pytest.mark.parametrize(
    ("mean", "scales", "told"),
    [
        (0.0, (1e-20, 1e-20), True),
        (1.0, (1e-6, 1e-6), True),
        (1.0, (1.0, 1e-8), False),  # no sample differs from another in the second coordinate
        (1e8, (1.0, 1.0), False),
        (0.0, (1.0, np.nan), False),
        (np.inf, (1.0, 1.0), False),
    ],
)
def test_gaussians_that_rounding_blurs_are_told(
    mean: float, scales: tuple[float, float], told: bool
) -> None:
    """Narrower than the spacing of numbers at the mean, by `numpy.spacing`, is refused."""
    factors = jnp.diag(jnp.asarray(scales, jnp.float32))[None]
    assert bool(_can_be_told(jnp.full((1, 2), mean, jnp.float32), factors)[0]) == told
    if np.isfinite(mean) and np.isfinite(scales).all() and mean > 0:
        assert (min(scales) > np.spacing(np.float32(mean))) == told


def test_a_target_too_narrow_for_its_numbers_is_refused_and_stays_finite() -> None:
    def log_density(x: jax.Array) -> jax.Array:
        return -0.5 * jnp.sum(((x - 1e5) / 1e-4) ** 2)

    start = initial_mixture(KEY, 2, 1, mean=1e5, spread=0.0)
    fit = fit_density(log_density, 2, key=KEY, method="SEMTRON", num_iterations=60, start=start)
    assert fit.refused > 0
    assert np.isfinite(fit.mixture.factors).all()
    assert np.isfinite(fit.mixture.means).all()
