"""The claims of "Choosing an objective", and what it says of the stored study."""

from __future__ import annotations

import jax
import numpy as np
import pandas as pd
import pytest
from scipy import integrate, special, stats

from ngem_tutorial import METHODS, GaussianMixture, nll, whitened_nll
from ngem_tutorial.experiments import default_study as study
from ngem_tutorial.reproduction import registry

TUNING = ("tuning_free", "tuning_networks", "tuning_data")
FINAL = ("final_free", "final_networks", "final_data", "final_stopping", "held_back")
OURS = "whitened NLL"


def verdicts(presets: tuple[str, ...]) -> pd.DataFrame:
    return pd.concat([study.judge(registry.load("default_study", name)) for name in presets])


@pytest.fixture(scope="module")
def tuning() -> pd.DataFrame:
    """Candidates on the tasks that the choice was made on."""
    return verdicts(TUNING)


@pytest.fixture(scope="module")
def final() -> pd.DataFrame:
    """The finalists on all others."""
    return verdicts(FINAL)


def make(seed: int, k: int = 3) -> GaussianMixture:
    rng = np.random.default_rng(seed)
    return GaussianMixture(
        rng.normal(size=k), rng.normal(size=(k, 1)), rng.uniform(0.05, 2, size=(k, 1))
    )


@pytest.mark.claim("prop-choosing-rest")
def test_the_average_gradient_is_the_plain_one_times_positive_factors() -> None:
    """By responsibilities from SciPy, for a mixture in two dimensions."""
    rng = np.random.default_rng(0)
    logits, means, scales = rng.normal(size=3), rng.normal(size=(3, 2)), rng.uniform(0.3, 2, (3, 2))
    y, unit = 2.0 * rng.normal(size=(40, 2)), 0.7
    mixture = GaussianMixture(logits, means, scales)
    plain, ours = (
        jax.grad(lambda m, f=f, o=o: f(m, y, **o).mean())(mixture)  # type: ignore[misc]
        for f, o in ((nll, {}), (whitened_nll, {"unit": unit}))
    )
    pi = special.softmax(logits)
    density = stats.norm.logpdf(y[:, None], means, scales).sum(axis=-1)
    rho = special.softmax(np.log(pi) + density, axis=-1)
    np.testing.assert_allclose(ours.logits, (pi - rho).mean(axis=0), atol=1e-6)
    root = np.sqrt(pi + 0.25)[:, None]
    np.testing.assert_allclose(ours.means, plain.means * scales / (unit * root), rtol=2e-4)
    np.testing.assert_allclose(ours.scales, plain.scales / (np.sqrt(2) * root), rtol=2e-4)


@pytest.mark.claim("prop-choosing-bounded")
@pytest.mark.parametrize("seed", range(5))
def test_second_moments_under_the_model_are_at_most_one(seed: int) -> None:
    """By quadrature over the line."""
    mixture, unit = make(seed), 0.3
    gradient = jax.jit(jax.vmap(lambda y: jax.grad(whitened_nll)(mixture, y[None], unit=unit)))
    grid = np.linspace(-14, 14, 40_001)
    g = gradient(grid)
    density = np.exp(np.asarray(mixture.log_prob(grid[:, None]), float))
    entries = (
        g.logits, unit * g.means[..., 0], mixture.scales[:, 0] * g.scales[..., 0],
    )  # fmt: skip
    pi = np.asarray(mixture.weights, float)
    for entry, bound in zip(entries, (1.0, pi / (pi + 0.25), pi / (pi + 0.25)), strict=True):
        moment = integrate.simpson(density[:, None] * np.asarray(entry, float) ** 2, x=grid, axis=0)
        assert (moment <= bound + 1e-4).all()


@pytest.mark.claim("prop-choosing-bounded")
def test_units_do_not_matter() -> None:
    mixture, y, c = make(1), np.linspace(-2, 2, 9)[:, None], 250.0
    scaled = GaussianMixture(mixture.logits, c * mixture.means, c * mixture.scales)
    one = jax.grad(lambda m: whitened_nll(m, y, unit=0.3).mean())(mixture)
    two = jax.grad(lambda m: whitened_nll(m, c * y, unit=c * 0.3).mean())(scaled)
    np.testing.assert_allclose(two.logits, one.logits, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(c * two.means, one.means, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(c * two.scales, one.scales, rtol=1e-4, atol=1e-6)


def test_the_choice_of_the_study_is_the_method_of_the_package() -> None:
    candidate, method = study.CANDIDATES[OURS], METHODS[OURS]
    theirs = candidate.method(OURS)
    assert candidate.initial_means == method.initial_means
    assert (theirs.unit, candidate.exponent, candidate.fade) == (method.unit, 0.5, 0.0)
    assert theirs.schedule is not None
    assert method.schedule is not None
    counts = np.arange(0, 1000, 9)
    ours = theirs.schedule(1000)(counts)
    np.testing.assert_allclose(ours.relaxation, method.schedule(1000)(counts), atol=1e-8)
    mixture, y = make(0), np.array([0.4])
    options = {"unit": 0.3, "relaxation": 0.01}
    for a, b in zip(
        jax.tree.leaves(jax.grad(lambda m: theirs.objective(m, y, **options))(mixture)),
        jax.tree.leaves(jax.grad(lambda m: method.objective(m, y, **options))(mixture)),
        strict=True,
    ):
        np.testing.assert_allclose(a, b, rtol=1e-6)
