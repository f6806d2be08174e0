"""`fit_density` on targets whose answer is known, and its errors."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ngem_tutorial import GaussianMixture, em
from ngem_tutorial.components import FullGaussianMixture
from ngem_tutorial.vi import TargetError, fit_density, get_design, initial_mixture
from ngem_tutorial.vi.sampling import FromComponents
from ngem_tutorial.vi.targets import gaussian_grid

MEAN = jnp.asarray([3.0, -1.0])
COVARIANCE = np.asarray([[2.0, 0.8], [0.8, 1.0]])
PRECISION = jnp.asarray(np.linalg.inv(COVARIANCE))
KEY = jax.random.key(0)


def gaussian(x: jax.Array) -> jax.Array:
    """An unnormalised Gaussian; log Z = log(2 pi) + log det / 2 + 5."""
    return 5.0 - 0.5 * (x - MEAN) @ PRECISION @ (x - MEAN)


LOG_Z = 5.0 + np.log(2.0 * np.pi) + 0.5 * np.linalg.slogdet(COVARIANCE)[1]


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_a_gaussian_is_found_at_every_temperature(temperature: float) -> None:
    """At temperature tau the best covariance is tau times the target's."""
    fit = fit_density(
        gaussian, 2, key=KEY, method="SEMTRON", num_iterations=90, temperature=temperature
    )
    np.testing.assert_allclose(fit.mixture.mean, MEAN, atol=0.01)
    np.testing.assert_allclose(fit.mixture.covariance, temperature * COVARIANCE, rtol=0.02)
    elbo = LOG_Z + (0.0 if temperature == 1.0 else np.log(2.0 * np.pi * 2.0))
    if temperature == 1.0:
        assert float(fit.history["elbo"][-1]) == pytest.approx(elbo, abs=1e-3)
    assert fit.refused == 0
    assert fit.rejected == 0


def test_two_modes_are_found_with_small_divergences_both_ways() -> None:
    target = gaussian_grid(side=2, distance=6.0)
    fit = fit_density(target.log_density, 2, key=KEY, num_iterations=360, start=target.start(KEY))
    x = fit.mixture.sample(KEY, 5000)
    reverse = jnp.mean(fit.mixture.log_prob(x) - jax.vmap(target.log_density)(x))
    assert target.sample is not None
    y = target.sample(KEY, 5000)
    forward = jnp.mean(jax.vmap(target.log_density)(y) - fit.mixture.log_prob(y))
    assert abs(float(reverse)) < 1e-3
    assert abs(float(forward)) < 1e-2
    assert target.modes is not None
    distance = np.linalg.norm(np.asarray(fit.mixture.means)[:, None] - target.modes, axis=-1)
    assert np.all(distance.min(axis=0) < 0.1)


def test_stopping_and_going_on_changes_no_number() -> None:
    run = partial(fit_density, gaussian, 2, key=KEY, num_iterations=75)
    whole = run()
    parts = run(num_iterations=40).extend(35)
    for name, values in whole.history.items():
        if name != "seconds":
            np.testing.assert_array_equal(values, parts.history[name])
    for one, other in zip(
        jax.tree.leaves(whole.mixture), jax.tree.leaves(parts.mixture), strict=True
    ):
        np.testing.assert_array_equal(one, other)
    assert np.all(np.diff(parts.history["seconds"]) >= 0)
    other = run(key=jax.random.key(1))
    assert not np.array_equal(other.history["elbo"], whole.history["elbo"])


def test_equal_calls_compile_once(compilations: Callable[[], int]) -> None:
    run = partial(fit_density, gaussian, 2, key=KEY, num_iterations=31, method="SEMTRON")
    run()
    compilations()
    run()
    assert compilations() == 0


@pytest.mark.parametrize("codeword", ["ZEMTDUG", "SEPYFOX", "SAMIRUN"])
def test_every_letter_raises_the_elbo_on_two_modes(codeword: str) -> None:
    def two(x: jax.Array) -> jax.Array:
        return jnp.logaddexp(-0.5 * jnp.sum((x - 3.0) ** 2), -0.5 * jnp.sum((x + 3.0) ** 2))

    design = get_design(codeword)
    if codeword[3] in "IY":
        update = dataclasses.replace(design.component_update, first_step=0.05)
        design = dataclasses.replace(design, component_update=update)
    start = initial_mixture(KEY, 2, 4, spread=3.0, scale=2.0)
    fit = fit_density(two, 2, key=KEY, method=design, num_iterations=90, start=start)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(fit.mixture))
    first, last = fit.history["elbo"][:3].mean(), fit.history["elbo"][-20:].mean()
    assert last > first
    best = np.log(2.0 * np.pi * 2.0)
    assert best - 0.75 < last < best + 0.05  # one mode alone is log 2 below
    assert np.all(np.diff(fit.history["evaluations"]) > 0)
    assert len(fit.history["elbo"]) == 90


def test_the_elbo_of_the_history_is_that_of_fresh_samples() -> None:
    """The store's own would be too high: the components were fitted to it."""

    def ring(x: jax.Array) -> jax.Array:
        return -0.5 * ((jnp.sqrt(x @ x + 1e-9) - 3.0) / 0.5) ** 2

    start = initial_mixture(KEY, 2, 6, spread=2.0)
    fit = fit_density(ring, 2, key=KEY, method="SEMTRON", num_iterations=90, start=start)
    after = fit.extend(1)
    x = fit.mixture.sample(jax.random.key(9), 20_000)
    fresh = np.asarray(jax.vmap(ring)(x) - fit.mixture.log_prob(x))
    error = np.hypot(after.history["elbo_error"][-1], fresh.std() / np.sqrt(len(fresh)))
    assert abs(after.history["elbo"][-1] - fresh.mean()) < 4.5 * error


def test_a_mixture_fitted_by_em_can_be_the_start() -> None:
    y = MEAN + 0.5 * jax.random.normal(KEY, (200, 2))
    start = GaussianMixture([0.0, 0.0], [[2.0, 0.0], [4.0, -2.0]], jnp.ones((2, 2)))
    fitted, _ = em.iterate(em.em_step, start, y, 10)
    fit = fit_density(gaussian, 2, key=KEY, method="SEMTRON", num_iterations=60, start=fitted)
    np.testing.assert_allclose(fit.mixture.mean, MEAN, atol=0.05)
    assert isinstance(fit.mixture, FullGaussianMixture)


def test_a_noisy_target_is_fitted_in_the_mean() -> None:
    def noisy(x: jax.Array, key: jax.Array) -> jax.Array:
        return gaussian(x) + 0.2 * jax.random.normal(key, (2,)) @ (x - MEAN)

    design = dataclasses.replace(get_design("SEMTRON"), sampling=FromComponents(number=500))
    fit = fit_density(noisy, 2, key=KEY, method=design, num_iterations=60, noisy=True)
    # The mean of 500 gradients has an error of 0.2 / sqrt(500), times a variance of 2.
    np.testing.assert_allclose(fit.mixture.mean, MEAN, atol=0.08)
    np.testing.assert_allclose(fit.mixture.covariance, COVARIANCE, atol=0.15)


def test_points_without_density_are_counted_and_not_used() -> None:
    def half(x: jax.Array) -> jax.Array:
        return jnp.where(x[0] > 2.0, gaussian(x), -jnp.inf)

    start = FullGaussianMixture([0.0], [[3.0, -1.0]], [jnp.eye(2)])
    fit = fit_density(half, 2, key=KEY, method="SEMTRON", num_iterations=30, start=start)
    assert fit.rejected > 0
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(fit.mixture))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_target_that_is_no_number_is_reported_with_the_point(bad: float) -> None:
    def target(x: jax.Array) -> jax.Array:
        return jnp.where(x[0] > 1.0, bad, gaussian(x))

    with pytest.raises(TargetError, match=r"log_density is (nan|inf) .* at x = \[") as caught:
        fit_density(target, 2, key=KEY, method="SEMTRON", num_iterations=30)
    assert caught.value.point[0] > 1.0
    assert not np.isfinite(caught.value.value)


def test_a_gradient_that_is_no_number_is_reported_too() -> None:
    with pytest.raises(TargetError, match="its gradient is not finite"):
        fit_density(
            lambda x: jnp.where(x[0] > 1.0, 0.0, jnp.sqrt(jnp.maximum(1.0 - x[0], 0.0))),
            2,
            key=KEY,
            method="SEMTRON",
            num_iterations=30,
        )


def test_enough_evaluations_end_the_run_after_a_block() -> None:
    fit = fit_density(gaussian, 2, key=KEY, num_iterations=300, max_evaluations=200)
    assert int(fit.history["iteration"][-1]) == 30
    assert fit.evaluations >= 200


@pytest.mark.parametrize(("scale", "offset"), [(1e-5, 0.0), (1e5, 0.0), (1.0, 1e4)])
def test_units_and_places_do_not_matter(scale: float, offset: float) -> None:
    def target(x: jax.Array) -> jax.Array:
        return -0.5 * jnp.sum(((x - offset * scale) / scale) ** 2)

    start = initial_mixture(KEY, 2, mean=(offset + 1.0) * scale, spread=0.0, scale=2.0 * scale)
    fit = fit_density(target, 2, key=KEY, method="SEMTRON", num_iterations=60, start=start)
    np.testing.assert_allclose(
        (np.asarray(fit.mixture.mean) / scale - offset), 0.0, atol=0.03 if offset == 0 else 0.1
    )
    np.testing.assert_allclose(fit.mixture.covariance / scale**2, np.eye(2), atol=0.05)


GOOD: dict[str, Any] = {"log_density": gaussian, "dim": 2, "key": KEY}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dim": 0}, "dim must be at least 1, got 0"),
        ({"dim": 2.0}, "dim must be a whole number"),
        ({"log_density": 3.0}, "log_density must be a function, got 3.0"),
        ({"log_density": lambda x: x}, r"must return a number for a point of shape \(2,\), got"),
        ({"log_density": lambda x: (x[0], x[1])}, "must return a number .* got tuple"),
        ({"log_density": lambda x: jnp.sum(x).astype(int)}, "must return a float, got int32"),
        ({"method": "SAMTRAN"}, "letter 6 of the method"),
        ({"temperature": 0.0}, "temperature must be positive"),
        ({"num_iterations": 0}, "num_iterations must be at least 1"),
        ({"max_evaluations": 0}, "max_evaluations must be at least 1"),
        ({"chunk": 0}, "chunk must be at least 1"),
        ({"start": 3}, "start must be a GaussianMixture or FullGaussianMixture, got int"),
        ({"start": initial_mixture(KEY, 3)}, "start must be one mixture of dim = 2 dimensions"),
        (
            {"start": GaussianMixture(jnp.zeros(1025), jnp.zeros((1025, 2)), jnp.ones((1025, 2)))},
            "start must have at most 1024 components, got 1025",
        ),
    ],
)
def test_wrong_arguments_are_named_before_anything_compiles(
    change: dict[str, Any], message: str, compilations: Callable[[], int]
) -> None:
    compilations()
    with pytest.raises(ValueError, match=message):
        fit_density(**(GOOD | change))
    assert compilations() <= 3  # of JAX's own, for a default start
