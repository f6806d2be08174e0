"""Mixtures of other libraries: the density that they compute themselves, there and back."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ngem_tutorial import interop
from ngem_tutorial.components import FullGaussianMixture
from ngem_tutorial.mixtures import GaussianMixture


class Library(NamedTuple):
    """The parts of a library by one set of names."""

    module: str
    to: Callable[[Any], Any]
    back: Callable[[Any], GaussianMixture]
    mixture: Callable[..., Any]
    categorical: Callable[..., Any]
    normal: Callable[..., Any]
    independent: Callable[..., Any]
    laplace: Callable[..., Any]


def numpyro() -> Library:
    dist = pytest.importorskip("numpyro.distributions")
    return Library(
        "numpyro", interop.to_numpyro, interop.from_numpyro, dist.MixtureSameFamily,
        dist.Categorical, dist.Normal, lambda normal: normal.to_event(1), dist.Laplace,
    )  # fmt: skip


def distrax() -> Library:
    dx = pytest.importorskip("distrax", exc_type=Exception)
    return Library(
        "distrax", interop.to_distrax, interop.from_distrax, dx.MixtureSameFamily,
        dx.Categorical, dx.Normal, lambda normal: dx.Independent(normal, 1), dx.Laplace,
    )  # fmt: skip


def tfp() -> Library:
    substrate = pytest.importorskip("tensorflow_probability.substrates.jax", exc_type=Exception)
    tfd = substrate.distributions
    return Library(
        "tensorflow_probability", interop.to_tfp, interop.from_tfp, tfd.MixtureSameFamily,
        tfd.Categorical, tfd.Normal, lambda normal: tfd.Independent(normal, 1), tfd.Laplace,
    )  # fmt: skip


@pytest.fixture(params=[numpyro, distrax, tfp])
def library(request: pytest.FixtureRequest) -> Library:
    return request.param()


def random(*batch: int, k: int = 3, d: int = 2) -> tuple[GaussianMixture, jax.Array]:
    keys = jax.random.split(jax.random.key(0), 4)
    mixture = GaussianMixture(
        3.0 * jax.random.normal(keys[0], (*batch, k)),
        jax.random.normal(keys[1], (*batch, k, d)),
        jnp.exp(jax.random.normal(keys[2], (*batch, k, d))),
    )
    return mixture, jax.random.normal(keys[3], (*batch, d))


@pytest.mark.parametrize("batch", [(), (5,), (2, 3)])
def test_the_density_is_that_of_the_other_library(library: Library, batch: Any) -> None:
    mixture, y = random(*batch)
    other = library.to(mixture)
    assert tuple(other.batch_shape) == batch
    assert tuple(other.event_shape) == (2,)
    np.testing.assert_allclose(other.log_prob(y), mixture.log_prob(y), rtol=1e-5, atol=1e-6)
    back = library.back(other)
    np.testing.assert_allclose(back.log_weights, mixture.log_weights, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(back.means, mixture.means)
    np.testing.assert_array_equal(back.scales, mixture.scales)


def test_full_covariances_have_the_density_of_the_other_library(library: Library) -> None:
    rng = np.random.default_rng(0)
    factors = np.tril(rng.normal(size=(3, 2, 2)))
    factors[:, range(2), range(2)] = np.exp(factors[:, range(2), range(2)])
    mixture = FullGaussianMixture(rng.normal(size=3), rng.normal(size=(3, 2)), factors)
    other, y = library.to(mixture), rng.normal(size=(5, 2)).astype(np.float32)
    assert tuple(other.event_shape) == (2,)
    np.testing.assert_allclose(other.log_prob(y), mixture.log_prob(y), rtol=1e-5, atol=1e-6)


def test_components_made_otherwise(library: Library) -> None:
    """Independent and plain normal ones, and probabilities with a zero."""
    loc = jnp.arange(12.0).reshape(2, 3, 2)
    weights = jnp.array([[0.0, 0.25, 0.75], [0.5, 0.5, 0.0]])
    scale = jnp.full((2, 3, 2), 1.5)
    other = library.mixture(
        library.categorical(probs=weights), library.independent(library.normal(loc, scale))
    )
    mixture = library.back(other)
    np.testing.assert_allclose(mixture.weights, weights, atol=1e-6)
    y = loc[:, 1] + 0.5
    np.testing.assert_allclose(other.log_prob(y), mixture.log_prob(y), rtol=1e-5)

    other = library.mixture(
        library.categorical(probs=weights[0]), library.normal(loc[0, :, 0], jnp.ones(3))
    )
    mixture = library.back(other)
    assert mixture.means.shape == (3, 1)
    np.testing.assert_allclose(other.log_prob(1.5), mixture.log_prob([1.5]), rtol=1e-5)


def test_it_goes_through_a_transformation(library: Library) -> None:
    mixture, y = random(4)

    def loss(m: GaussianMixture) -> jax.Array:
        return library.back(library.to(m)).log_prob(y).sum()

    wanted = jax.grad(lambda m: m.log_prob(y).sum())(mixture)
    got = jax.jit(jax.grad(loss))(mixture)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4, rtol=1e-4), got, wanted)


def test_what_is_no_gaussian_mixture_is_refused(library: Library) -> None:
    laplace = library.mixture(
        library.categorical(logits=jnp.zeros(2)), library.laplace(jnp.zeros(2), jnp.ones(2))
    )
    with pytest.raises(ValueError, match=r"got MixtureSameFamily.* with components Laplace"):
        library.back(laplace)
    with pytest.raises(ValueError, match=r"must be a MixtureSameFamily of .*, got Normal"):
        library.back(library.normal(0.0, 1.0))


@pytest.mark.parametrize("name", ["numpyro", "distrax", "tfp"])
def test_a_library_that_is_missing_is_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module = {"tfp": "tensorflow_probability"}.get(name, name)
    for loaded in list(sys.modules):
        if loaded.partition(".")[0] == module:
            monkeypatch.delitem(sys.modules, loaded)
    monkeypatch.setitem(sys.modules, module, None)
    package = module.replace("_", "-")
    how = r"pip install .*\[sampling\]" if name == "numpyro" else f"pip install {package}"
    with pytest.raises(ImportError, match=rf"^{package} is needed .*{how}"):
        getattr(interop, f"to_{name}")(random()[0])
