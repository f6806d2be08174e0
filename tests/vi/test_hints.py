"""What is said of a target that cannot be used, of a fit that runs away, and of a result."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from scipy import stats

from ngem_tutorial import GaussianMixture
from ngem_tutorial.components import FullGaussianMixture
from ngem_tutorial.vi import TargetError, diagnose, fit_density, initial_mixture, modes_found
from ngem_tutorial.vi.checks import check_target

KEY = jax.random.key(0)


def standard(x: jax.Array) -> jax.Array:
    return -0.5 * x @ x


def model(y: Any = None) -> None:
    numpyro.sample("y", dist.Normal(0.0, 1.0), obs=y)


@pytest.mark.parametrize(
    ("log_density", "noisy", "message"),
    [
        (
            lambda x, key: standard(x),
            False,
            "is the second a random key. fit_density takes one with noisy=True",
        ),
        (standard, True, "a point and, with noisy=True, a random key, got .*: leave noisy out"),
        (lambda a, b, c: standard(a), False, "got a function that takes other arguments$"),
        (lambda x: stats.norm.logpdf(np.asarray(x)).sum(), False, "jax.pure_callback"),
        (lambda x: -math.exp(x[0]), False, "jax.numpy in the place of NumPy and math"),
        (lambda x: standard(x) if x[0] > 0 else -jnp.inf, False, "jax.numpy.where"),
        (lambda x: None, False, "got NoneType. A NumPyro model is no log density"),
    ],
)
def test_a_target_that_is_no_density_in_jax(
    log_density: Callable[..., Any], noisy: bool, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        fit_density(log_density, 2, key=KEY, noisy=noisy)


def test_functions_that_jax_cannot_keep_are_refused_in_words() -> None:
    point = jax.ShapeDtypeStruct((2,), jnp.float32)
    for _ in range(2):  # the second call of what cannot be referred to weakly ended the process
        check_target(np.sum, (), point)
        with pytest.raises(ValueError, match="log_density must be a function in JAX"):
            check_target(np.linalg.norm, (), point)


def test_a_wrapped_target_is_called_as_it_is() -> None:
    def of_data(x: jax.Array, data: jax.Array) -> jax.Array:
        return -0.5 * jnp.sum((x - data) ** 2)

    @functools.wraps(of_data)
    def bound(x: jax.Array) -> jax.Array:
        return of_data(x, jnp.ones(2))

    fit = fit_density(bound, 2, key=KEY, method="SEMTRON", num_iterations=60)
    np.testing.assert_allclose(fit.mixture.mean, [1.0, 1.0], atol=0.01)


def test_a_start_that_is_wide_is_no_fit_that_ran_away() -> None:
    start = initial_mixture(KEY, 2, 3, spread=1e10)
    fit_density(standard, 2, key=KEY, method="SEMTRON", start=start, num_iterations=1)


def test_an_error_of_the_target_has_a_note_that_says_how_it_was_called() -> None:
    with pytest.raises(ValueError, match="A NumPyro model is no log density"):
        fit_density(model, 2, key=KEY)
    with pytest.raises(TypeError) as caught:
        fit_density(lambda x: x @ jnp.ones(3), 2, key=KEY)
    assert any("a point, traced, of shape (2,)" in note for note in caught.value.__notes__)


def test_a_numpyro_model_becomes_a_target_as_the_hint_says() -> None:
    found = numpyro.infer.util.initialize_model(
        KEY, lambda: numpyro.sample("x", dist.Normal(3.0, 2.0))
    )
    fit = fit_density(
        lambda x: -found.potential_fn({"x": x[0]}), 1, key=KEY, method="SEMTRON", num_iterations=60
    )
    np.testing.assert_allclose(fit.mixture.means, [[3.0]], atol=0.01)
    np.testing.assert_allclose(fit.mixture.covariances, [[[4.0]]], rtol=0.01)


def test_without_an_integral_a_fit_is_wide_and_says_so() -> None:
    def flat(x: jax.Array) -> jax.Array:
        return 0.0 * x[0]

    with pytest.warns(UserWarning, match="times as wide as its start: is the integral"):
        fit = fit_density(flat, 2, key=KEY, method="SEMTRON", num_iterations=60)
    assert " more than 6 before, " in repr(fit)
    with pytest.raises(TargetError, match="the mixture has run away: is the integral"):
        fit.extend(500)
    with pytest.raises(FloatingPointError, match="is the integral of the density finite"):
        fit_density(flat, 2, key=KEY, num_iterations=500)


def test_a_fit_is_shown_in_a_line() -> None:
    fit = fit_density(standard, 2, key=KEY, method="SEMTRON", num_iterations=60)
    text = repr(fit)
    assert text.startswith("VIFit(1 component in 2 dimensions by SEMTRON: ELBO 1.83788 +- ")
    assert text.endswith(f" nats after 60 iterations, {fit.evaluations} evaluations)")
    assert "before" not in text
    assert repr(fit_density(standard, 2, key=KEY, num_iterations=1)).count("\n") == 0


def test_a_diagnosis_is_shown_in_a_line() -> None:
    text = repr(diagnose(initial_mixture(KEY, 2, spread=0.0), standard, KEY, 500))
    assert text.startswith("Diagnosis(500 samples in 2 dimensions: ELBO 1.83788 +- ")
    assert ", log Z 1.83788 +- " in text
    assert ", effective number 500, Pareto k " in text


@pytest.mark.parametrize("key", [0, None, jax.random.split(KEY, 2)])
def test_what_is_no_key_is_named_wherever_one_is_taken(key: Any) -> None:
    mixture = initial_mixture(KEY, 2)
    found = diagnose(mixture, standard, KEY, 100)
    for call in (
        lambda: found.resample(key, 10),
        lambda: mixture.sample(key),
        lambda: GaussianMixture([0.0], [[0.0]], [[1.0]]).sample(key, 3),
    ):
        with pytest.raises(ValueError, match="key must be one JAX random key"):
            call()


def test_keys_are_taken_in_every_form() -> None:
    mixture = GaussianMixture([0.0], [[0.0]], [[1.0]])
    old, new = jax.random.PRNGKey(3), jax.random.key(3)
    np.testing.assert_array_equal(mixture.sample(old, 3), mixture.sample(new, 3))
    many = jax.vmap(jax.jit(mixture.sample))(jax.random.split(new, 4))
    assert many.shape == (4, 1)


def test_a_large_mixture_is_diagnosed() -> None:
    """The limit is that of a fit: what was fitted elsewhere may have more components."""
    large = FullGaussianMixture(
        jnp.zeros(1100), jnp.zeros((1100, 1)), jnp.broadcast_to(jnp.eye(1), (1100, 1, 1))
    )
    found = diagnose(large, lambda x: -0.5 * x @ x, KEY, 200)
    assert found.log_evidence == pytest.approx(0.5 * np.log(2 * np.pi), abs=1e-4)
    assert modes_found(large, [[0.0]]) == 1
    with pytest.raises(ValueError, match="start must have at most 1024 components, got 1100"):
        fit_density(standard, 1, key=KEY, start=large)
