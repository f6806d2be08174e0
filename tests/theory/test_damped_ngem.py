"""The claims of the page on damped nGEM, against NumPy, SciPy and autodiff."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

from ngem_tutorial.mixtures import GaussianMixture
from ngem_tutorial.objectives import ngem, nll, scale_unit
from ngem_tutorial.variants import Variant, paper_code, undamped

pytestmark = pytest.mark.usefixtures("x64")


def make(seed: int, k: int = 3, d: int = 2) -> tuple[GaussianMixture, np.ndarray]:
    rng = np.random.default_rng(seed)
    logits, means, scales = rng.normal(size=k), rng.normal(size=(k, d)), rng.uniform(0.3, 2, (k, d))
    return GaussianMixture(logits, means, scales), 2.0 * rng.normal(size=(40, d))


def average(objective: Any, mixture: GaussianMixture, y: np.ndarray) -> list[np.ndarray]:
    gradient = jax.jit(jax.grad(lambda m: objective(m, y).mean()))(mixture)
    return [np.asarray(leaf) for leaf in jax.tree.leaves(gradient)]


def by_scipy(mixture: GaussianMixture, y: np.ndarray) -> tuple[np.ndarray, ...]:
    """Weights, responsibilities `(N, K)` and residuals `(N, K, D)`."""
    logits, means, scales = (np.asarray(leaf) for leaf in jax.tree.leaves(mixture))
    log_normal = stats.norm.logpdf(y[:, None, :], means, scales).sum(axis=-1)
    rho = special.softmax(special.log_softmax(logits) + log_normal, axis=-1)
    return special.softmax(logits), rho, (y[:, None, :] - means) / scales


@pytest.mark.claim("prop-damped-rest")
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_damped_is_plain_times_what_no_point_changes(seed: int) -> None:
    mixture, y = make(seed)
    pi, rho, z = by_scipy(mixture, y)
    sigma = np.asarray(mixture.scales)
    unit = stats.gmean(sigma, axis=0)
    damped = (pi + 0.25)[:, None]
    plain_means = -(rho[..., None] * z / sigma).mean(axis=0)
    plain_scales = (rho[..., None] * (1 - z**2) / sigma).mean(axis=0)
    logits, means, scales = average(lambda m, t: ngem(m, t, unit=scale_unit(m)), mixture, y)
    np.testing.assert_allclose(logits, pi - rho.mean(axis=0), rtol=1e-10, atol=1e-13)
    np.testing.assert_allclose(means, plain_means * (sigma / unit) ** 2 / damped, rtol=1e-9)
    np.testing.assert_allclose(scales, plain_scales / (2 * damped), rtol=1e-9, atol=1e-13)


@pytest.mark.claim("prop-damped-rest")
def test_damped_rests_at_the_optimum_of_em_and_the_papers_code_does_not() -> None:
    y = np.concatenate([np.linspace(-3.2, -2.4, 36), np.linspace(2.1, 2.5, 4)])[:, None]
    pi, mu, sigma = np.array([0.5, 0.5]), np.array([[-2.0], [2.0]]), np.ones((2, 1))
    for _ in range(50):  # EM by NumPy
        rho = special.softmax(np.log(pi) + stats.norm.logpdf(y, mu[:, 0], sigma[:, 0]), axis=-1)
        pi, total = rho.mean(axis=0), rho.sum(axis=0)
        mu = ((rho * y).sum(axis=0) / total)[:, None]
        sigma = np.sqrt((rho * (y - mu[:, 0]) ** 2).sum(axis=0) / total)[:, None]
    assert pi == pytest.approx([0.9, 0.1], abs=1e-6)
    mixture = GaussianMixture(np.log(pi), mu, sigma)
    for leaf in average(ngem, mixture, y):
        np.testing.assert_allclose(leaf, 0.0, atol=1e-9)
    code = average(paper_code, mixture, y)
    assert np.abs(code[0]).max() > 0.5


@pytest.mark.claim("prop-damped-units")
@pytest.mark.parametrize("c", [1e-3, 0.05, 1e4])
def test_only_damped_changes_with_units_as_the_likelihood_does(c: float) -> None:
    mixture, y = make(4)
    scaled = GaussianMixture(mixture.logits, c * mixture.means, c * mixture.scales)
    for objective, power in (
        (nll, -1),
        (lambda m, t: ngem(m, t, unit=scale_unit(m)), -1),
        (ngem, 1),
        (undamped, 1),
    ):
        old, new = average(objective, mixture, y), average(objective, scaled, c * y)
        np.testing.assert_allclose(new[0], old[0], rtol=1e-8, atol=1e-12)
        np.testing.assert_allclose(new[1], c**power * old[1], rtol=1e-8)


@pytest.mark.claim("prop-relaxed")
@pytest.mark.parametrize("eps", [0.01, 0.1, 0.5])
def test_relaxed_gradient_is_that_of_the_penalised_likelihood(eps: float) -> None:
    mixture, y = make(5)
    y = 0.3 * y  # no residual is as large as one over two eps
    _, rho, z = by_scipy(mixture, y)
    keep = np.abs(z).max(axis=(1, 2)) < 0.5 / eps
    y = y[keep]
    assert len(y) >= 5
    rho = rho[keep]

    def penalised(logits: Any, means: Any, scales: Any) -> Any:
        log_normal = jax.scipy.stats.norm.logpdf(y[:, None, :], means, scales).sum(-1)
        joint = logits - jax.nn.logsumexp(logits) + log_normal
        log_p = jax.nn.logsumexp(joint, axis=-1)
        k = logits.shape[0]
        divergence = jnp.mean(-jnp.log(k) - (joint - log_p[:, None]), axis=-1)
        return jnp.mean(-log_p + eps * (divergence + jnp.log(k)))

    expected = jax.grad(penalised, argnums=(0, 1, 2))(*jax.tree.leaves(mixture))
    plain = Variant(gaussians="plain")
    ours = average(lambda m, t: plain(m, t, relaxation=eps), mixture, y)
    for a, b in zip(ours, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)
    divergence = stats.entropy(np.full((len(y), 3), 1 / 3), rho, axis=1)
    assert (divergence >= 0).all()


@pytest.mark.claim("prop-relaxed")
def test_no_weight_rests_below_its_relaxed_share() -> None:
    """Fixed Gaussians, of which one explains nothing: its logit alone decides."""
    y = np.random.default_rng(0).normal(size=(30, 1))
    means, scales = np.array([[0.0], [50.0], [60.0]]), np.ones((3, 1))
    logits, eps = jnp.zeros(3), 0.12
    step = jax.jit(
        lambda psi: (
            psi
            - 2.0
            * jax.grad(lambda p: ngem(GaussianMixture(p, means, scales), y, relaxation=eps).mean())(
                psi
            )
        )
    )
    for _ in range(2000):
        logits = step(logits)
    np.testing.assert_allclose(special.softmax(logits), [0.92, 0.04, 0.04], atol=1e-6)
