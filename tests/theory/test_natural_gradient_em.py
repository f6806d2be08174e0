"""The claims of the page on natural gradient EM, against dense algebra and autodiff."""

from __future__ import annotations

from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.flatten_util import ravel_pytree
from scipy import special, stats
from scipy.integrate import solve_ivp

from ngem_tutorial import variants
from ngem_tutorial.mixtures import GaussianMixture
from ngem_tutorial.networks import MixtureDensityNetwork
from ngem_tutorial.objectives import beta_nll, ngem, scale_unit
from ngem_tutorial.variants import Variant

# By name; `damped` is what `ngem` computes, as a test of the Fisher blocks has it.
VARIANTS = {
    "as_derived": variants.as_derived,
    "paper_code": variants.paper_code,
    "undamped": variants.undamped,
    "eq68": variants.eq68,
    "damped": Variant(),
}


@partial(jax.jit, static_argnums=2)
def natural_gradient(mixture: Any, y: Any, variant: Any, unit: Any = 1.0) -> GaussianMixture:
    found: Variant = VARIANTS[variant] if isinstance(variant, str) else variant
    if found.gaussians == "plain":  # there nothing is measured in a unit, and none is taken
        return found.gradient(mixture, y)
    return found.gradient(mixture, y, unit=unit)


quick = settings(max_examples=25, deadline=None, derandomize=True, database=None)
EPS = float(np.finfo(np.float64).eps)


pytestmark = pytest.mark.usefixtures("x64")


@st.composite
def cases(draw: Any, log_weight: float = -12.0) -> tuple[np.ndarray, ...]:
    """Logits, means, scales and a target near one of the components, with extreme weights."""
    k, d = draw(st.sampled_from([(1, 1), (2, 2), (4, 1)]))  # every shape is a compilation

    def floats(low: float, high: float, *shape: int) -> np.ndarray:
        size = int(np.prod(shape))
        values = draw(st.lists(st.floats(low, high), min_size=size, max_size=size))
        return np.array(values).reshape(shape)

    logits, means = floats(log_weight, 0.0, k), floats(-3.0, 3.0, k, d)
    scales = np.exp(floats(-3.0, 3.0, k, d))
    near = draw(st.integers(0, k - 1))
    return logits, means, scales, means[near] + scales[near] * floats(-2.0, 2.0, d)


def plain_gradient(logits: Any, means: Any, scales: Any, y: Any) -> tuple[np.ndarray, ...]:
    """Weights, responsibilities and gradients by SciPy: equations (15), (55), (56), (63)."""
    pi = special.softmax(logits)
    log_normal = stats.norm.logpdf(y, means, scales).sum(axis=-1)
    rho = special.softmax(special.log_softmax(logits) + log_normal)
    z = (y - means) / scales
    weight = rho[:, None]
    return pi, rho, pi - rho, -weight * z / scales, weight * (1 - z**2) / scales


# The algorithm


@pytest.mark.claim("alg-ngem")
@pytest.mark.parametrize("name", ["as_derived", "paper_code", "undamped", "damped"])
def test_update_of_the_network_is_the_jacobian_applied_to_the_natural_gradients(name: str) -> None:
    """Line 8 with an explicit Jacobian for each example, in place of the package's reverse rule."""
    graph, state = nnx.split(MixtureDensityNetwork(1, 2, 2, hidden=(3,), rngs=nnx.Rngs(0)))
    vector, unravel = ravel_pytree(jax.tree.map(lambda w: w.astype(jnp.float64), state))
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(5, 1)), rng.normal(size=(5, 2))

    def outputs(theta: jax.Array) -> GaussianMixture:
        return nnx.merge(graph, unravel(theta))(x)

    objective = ngem if name == "damped" else VARIANTS[name]

    def loss(t: jax.Array) -> jax.Array:
        batch = outputs(t)
        return objective(batch, y, unit=scale_unit(batch)).mean()

    got = jax.jit(jax.grad(loss))(vector)
    jacobian = jax.tree.leaves(jax.jit(jax.jacobian(outputs))(vector))
    mixture = [np.asarray(leaf) for leaf in jax.tree.leaves(jax.jit(outputs)(vector))]
    expected = np.zeros(len(vector))
    square = stats.gmean(mixture[2].reshape(-1, 2)) ** 2  # the unit of the batch
    for n in range(5):
        psi, mu, sigma = (leaf[n] for leaf in mixture)
        pi, rho, g_psi, g_mu, g_sigma = plain_gradient(psi, mu, sigma, y[n])
        f = np.diag(pi) - np.outer(pi, pi)
        n_psi = {
            "as_derived": np.linalg.pinv(f, hermitian=True) @ g_psi,
            "paper_code": pi * (rho / pi).sum() - rho / pi,
            "undamped": g_psi,
            "damped": g_psi,
        }[name]
        n_mu = g_mu / (pi[:, None] / sigma**2) / square
        n_sigma = g_sigma / (2 * pi[:, None] / sigma**2) / square
        if name == "damped":
            n_mu = g_mu * sigma**2 / (pi[:, None] + 0.25) / square
            n_sigma = g_sigma / (2 * (pi[:, None] + 0.25))
        for j, cotangent in zip(jacobian, (n_psi, n_mu, n_sigma), strict=True):
            expected += np.tensordot(cotangent, np.asarray(j)[n], axes=cotangent.ndim) / 5
    np.testing.assert_allclose(got, expected, rtol=1e-10, atol=1e-12)
    assert np.abs(expected).max() > 0.01


# The closed forms


@pytest.mark.claim("prop-natural-step")
@quick
@given(cases())
def test_natural_gradients_solve_the_dense_system(drawn: tuple[np.ndarray, ...]) -> None:
    """Multiplied by the Fisher matrix, each natural gradient gives the plain one back."""
    logits, means, scales, y = drawn
    pi, rho, g_psi, g_mu, g_sigma = plain_gradient(*drawn)
    mixture = GaussianMixture(logits, means, scales)
    f = np.diag(pi) - np.outer(pi, pi)
    r = rho / pi
    size = 64 * EPS / pi.min() * (1 + np.abs((y - means) / scales).max() ** 2)
    for name, c in (("as_derived", r.mean()), ("eq68", 1.0)):
        n = natural_gradient(mixture, y, name)
        np.testing.assert_allclose(n.logits, c - r, rtol=1e-9, atol=1e-9 * r.max())
        np.testing.assert_allclose(f @ n.logits, g_psi, atol=1e-10)
        # pi_k F_k times the natural gradient, entry by entry.
        weight = pi[:, None]
        np.testing.assert_allclose(
            weight / scales**2 * n.means, g_mu, rtol=1e-8, atol=size / scales.min()
        )
        np.testing.assert_allclose(
            2 * weight / scales**2 * n.scales, g_sigma, rtol=1e-8, atol=size / scales.min()
        )
    centred = natural_gradient(mixture, y, "as_derived").logits
    assert abs(float(centred.sum())) <= 1e-9 * r.max()


@pytest.mark.claim("prop-natural-step")
@quick
@given(cases(), st.sampled_from([1e-3, 1.0]))
def test_damped_logits_have_the_closed_form(drawn: tuple[np.ndarray, ...], damping: float) -> None:
    pi, _, g, _, _ = plain_gradient(*drawn)
    f = np.diag(pi) - np.outer(pi, pi)
    a = 1 / (pi + damping)
    t = (pi * g * a).sum() / (damping * pi * a).sum()
    expected = np.linalg.solve(f + damping * np.eye(len(pi)), g)
    np.testing.assert_allclose(a * (g + pi * t), expected, rtol=1e-9, atol=1e-10)
    choice = Variant("damped", "damped", "scale", damping=damping)
    mixture = GaussianMixture(*drawn[:3])
    got = natural_gradient(mixture, drawn[3], choice).logits
    np.testing.assert_allclose(got, expected, rtol=1e-9, atol=1e-10)
    assert abs(expected.sum()) < 1e-9 / damping


@partial(jax.jit, static_argnums=4)
@jax.grad
def gradient_of_log_scales(s: Any, logits: Any, means: Any, y: Any, coordinate: Any) -> jax.Array:
    mixture = GaussianMixture(logits, means, jnp.exp(s))
    return Variant("plain", "rho/pi", coordinate)(mixture, y)


@pytest.mark.claim("prop-natural-step")
@quick
@given(cases())
def test_the_coordinate_of_the_scale_is_a_factor_of_the_variance(
    drawn: tuple[np.ndarray, ...],
) -> None:
    """The pull-back to log sigma: half r (1 - z^2) by `log_scale`, sigma^2 times it by `scale`."""
    logits, means, scales, y = drawn
    pi, rho, *_ = plain_gradient(*drawn)
    expected = 0.5 * (rho / pi)[:, None] * (1 - ((y - means) / scales) ** 2)

    scale, log_scale = (
        np.asarray(gradient_of_log_scales(np.log(scales), logits, means, y, coordinate))
        for coordinate in ("scale", "log_scale")
    )
    atol = 1e-11 * np.abs(expected).max()
    np.testing.assert_allclose(log_scale, expected, rtol=1e-8, atol=atol)
    np.testing.assert_allclose(scale / scales**2, expected, rtol=1e-8, atol=atol)


# Stationary points


SAMPLE = np.concatenate([-2 + 0.5 * np.linspace(-2, 2, 20), 1 + 0.8 * np.linspace(-2, 2, 30)])


def mean_plain_gradient(mixture: tuple[np.ndarray, ...]) -> np.ndarray:
    each = [plain_gradient(*mixture, y)[2:] for y in SAMPLE[:, None]]
    return np.mean([np.concatenate([np.ravel(g) for g in gradients]) for gradients in each], axis=0)


@cache
def fixed_point() -> tuple[np.ndarray, ...]:
    """EM by hand, on two clusters of unequal size."""
    pi, mu, sigma = np.full(2, 0.5), np.array([-2.0, 1.0]), np.ones(2)
    for _ in range(300):
        joint = np.log(pi) + stats.norm.logpdf(SAMPLE[:, None], mu, sigma)
        rho = special.softmax(joint, axis=1)
        pi, share = rho.mean(axis=0), rho / rho.sum(axis=0)
        mu = share.T @ SAMPLE
        sigma = np.sqrt((share * (SAMPLE[:, None] - mu) ** 2).sum(axis=0))
    return np.log(pi), mu[:, None], sigma[:, None]


@pytest.mark.claim("cor-stationary-points")
@pytest.mark.parametrize(
    ("coordinate", "unit"), [("scale", 1.0), ("log_scale", 0.3), ("scale", 0.3)]
)
@pytest.mark.parametrize("gaussians", ["rho/pi", "damped", "rho", "plain"])
@pytest.mark.parametrize("logits", ["plain", "natural", "eq68", "damped"])
def test_average_preconditioned_gradient_vanishes_with_the_plain_one(
    logits: Any, gaussians: Any, coordinate: Any, unit: Any
) -> None:
    choice = Variant(logits, gaussians, coordinate, damping=0.01)

    def average(mixture: tuple[np.ndarray, ...]) -> np.ndarray:
        n = len(SAMPLE)
        batch = GaussianMixture(*(np.broadcast_to(leaf, (n, *leaf.shape)) for leaf in mixture))
        leaves = jax.tree.leaves(natural_gradient(batch, SAMPLE[:, None], choice, unit))
        return np.concatenate([np.ravel(np.mean(np.asarray(leaf), axis=0)) for leaf in leaves])

    assert np.abs(mean_plain_gradient(fixed_point())).max() < 1e-12
    np.testing.assert_allclose(average(fixed_point()), 0.0, atol=1e-11)
    for seed in range(4):  # elsewhere it does not, and goes downhill
        noise = np.random.default_rng(seed)
        other = tuple(leaf + 0.2 * noise.normal(size=leaf.shape) for leaf in fixed_point())
        g, n = mean_plain_gradient(other), average(other)
        assert g @ n > 1e-3 * np.linalg.norm(g) * np.linalg.norm(n) > 0


@pytest.mark.claim("cor-stationary-points")
def test_the_papers_code_is_excluded_from_it() -> None:
    """For contrast: at the truth with unequal weights its average does not vanish."""
    weights = np.array([0.9, 0.1])
    means = np.array([[-100.0], [100.0]])
    batch = GaussianMixture(
        np.tile(np.log(weights), (2, 1)), np.tile(means, (2, 1, 1)), np.ones((2, 2, 1))
    )
    for name, size in (
        ("damped", 0.0),
        ("undamped", 0.0),
        ("as_derived", 0.0),
        ("paper_code", 0.8),
    ):
        average = weights @ natural_gradient(batch, means, name).logits
        assert np.abs(average).max() == pytest.approx(size, abs=1e-12)


# Natural gradient flow


@pytest.mark.claim("prop-natural-flow")
@pytest.mark.parametrize("name", ["as_derived", "eq68"])
def test_weights_follow_a_straight_line(name: str) -> None:
    target, start = np.array([0.6, 0.3, 0.1]), np.array([0.02, 0.18, 0.8])
    y = 100.0 * np.arange(3)[:, None]

    def flow(_: float, psi: np.ndarray) -> np.ndarray:
        shape = (3, 3, 1)
        copies = GaussianMixture(np.tile(psi, (3, 1)), np.broadcast_to(y, shape), np.ones(shape))
        return -target @ np.asarray(natural_gradient(copies, y, name).logits)

    at = np.array([0.0, 0.3, 1.0, 3.0])
    path = solve_ivp(flow, (0, 3), np.log(start), t_eval=at, rtol=1e-9, atol=1e-9).y.T
    expected = target + (start - target) * np.exp(-at)[:, None]
    np.testing.assert_allclose(special.softmax(path, axis=-1), expected, atol=1e-7)


@pytest.mark.claim("prop-natural-flow")
@pytest.mark.parametrize("start", [(-3.0, 0.3), (2.0, 4.0)])
def test_moments_follow_a_straight_line(start: tuple[float, float]) -> None:
    y = np.array([[-0.5], [0.1], [2.0]])

    def flow(_: float, state: np.ndarray) -> list[float]:
        mu, sigma = (np.full((3, 1, 1), value) for value in state)
        n = natural_gradient(GaussianMixture(np.zeros((3, 1)), mu, sigma), y, "as_derived")
        return [-float(np.mean(n.means)), -float(np.mean(n.scales))]

    at = np.array([0.0, 0.5, 2.0])
    mu, sigma = solve_ivp(flow, (0, 2), start, t_eval=at, rtol=1e-9, atol=1e-9).y
    first, second = y.mean(), (y**2).mean()
    decay = np.exp(-at)
    np.testing.assert_allclose(mu, first + (start[0] - first) * decay, atol=1e-7)
    moment = second + (start[0] ** 2 + start[1] ** 2 - second) * decay
    np.testing.assert_allclose(mu**2 + sigma**2, moment, atol=1e-6)


# One component


@pytest.mark.claim("prop-one-component")
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("coordinate", "beta"), [("scale", 1.0), ("log_scale", 0.0)])
def test_factors_of_one_component(dtype: Any, coordinate: Any, beta: float) -> None:
    rng = np.random.default_rng(5)
    mixture = GaussianMixture(
        rng.normal(size=(8, 1)).astype(dtype),
        rng.normal(size=(8, 1, 2)).astype(dtype),
        np.exp(2 * rng.normal(size=(8, 1, 2))).astype(dtype),
    )
    y = rng.normal(size=(8, 2)).astype(dtype)
    objective = Variant("plain", "rho/pi", coordinate)
    ours = jax.jit(jax.grad(lambda m: objective(m, y).sum()))(mixture)

    @jax.jit
    @jax.grad
    def published(m: GaussianMixture, weight: Any) -> jax.Array:
        """Seitzer et al. (2022) by hand: the weight is a constant of the gradient."""
        log_density = jax.scipy.stats.norm.logpdf(y[:, None, :], m.means, m.scales)
        return -jnp.sum(weight * log_density)

    at_one, at_beta = (published(mixture, np.asarray(mixture.scales) ** b) for b in (2, 2 * beta))
    rtol = 2e-5 if dtype is np.float32 else 1e-12
    np.testing.assert_allclose(ours.means, at_one.means, rtol=rtol)
    np.testing.assert_allclose(ours.scales, 0.5 * at_beta.scales, rtol=100 * rtol)
    np.testing.assert_array_equal(ours.logits, 0.0)
    package = jax.jit(jax.grad(lambda m: beta_nll(m, y, beta).sum()))(mixture)
    np.testing.assert_allclose(package.scales, at_beta.scales, rtol=100 * rtol)


# The paper's code


@jax.jit
@jax.grad
def literal_gradient(psi: jax.Array, log_normal: jax.Array) -> jax.Array:
    """The logits' part of Appendix C: -sum stop(rho / pi) log pi."""
    log_rho = jax.nn.log_softmax(jax.nn.log_softmax(psi) + log_normal)
    ratio = jax.lax.stop_gradient(jnp.exp(log_rho) / jax.nn.softmax(psi))
    return -(ratio * (jax.nn.log_softmax(psi) + log_normal)).sum()


@pytest.mark.claim("prop-paper-code-gradient")
@quick
@given(cases(log_weight=-6.0))
def test_the_papers_code_is_a_cross_entropy_with_a_uniform_prior(
    drawn: tuple[np.ndarray, ...],
) -> None:
    logits, means, scales, y = drawn
    pi, rho, *_ = plain_gradient(*drawn)
    log_normal = stats.norm.logpdf(y, means, scales).sum(axis=-1)
    r, u = rho / pi, special.softmax(log_normal)

    got = np.asarray(
        natural_gradient(GaussianMixture(logits, means, scales), y, "paper_code").logits
    )
    tolerance = {"rtol": 1e-8, "atol": 1e-10 * r.max()}
    np.testing.assert_allclose(got, literal_gradient(logits, log_normal), **tolerance)
    np.testing.assert_allclose(got, pi * r.sum() - r, **tolerance)
    np.testing.assert_allclose(got, r.sum() * (pi - u), **tolerance)
    # Constant plus -r only if the weights are equal.
    spread = np.ptp(got + r)
    assert spread == pytest.approx(r.sum() * np.ptp(pi), rel=1e-6, abs=1e-9 * r.max())


@pytest.mark.claim("prop-paper-code-gradient")
@pytest.mark.parametrize("k", [1, 2, 5])
def test_with_equal_weights_all_logit_gradients_are_one(k: int) -> None:
    rng = np.random.default_rng(k)
    mixture = GaussianMixture(np.full(k, 0.7), rng.normal(size=(k, 2)), np.ones((k, 2)))
    y = rng.normal(size=2)
    code, eq68, derived = (
        natural_gradient(mixture, y, name).logits for name in ("paper_code", "eq68", "as_derived")
    )
    np.testing.assert_allclose(code, eq68, atol=64 * EPS)
    np.testing.assert_allclose(code, derived, atol=64 * EPS)
    assert k == 1 or np.abs(code).max() > 0.01


@pytest.mark.claim("prop-paper-code-gradient")
@pytest.mark.parametrize("shares", [(0.9, 0.1), (0.6, 0.3, 0.1)])
def test_its_only_rest_is_at_the_square_roots(shares: tuple[float, ...]) -> None:
    k, w = len(shares), np.array(shares)
    y = 100.0 * np.arange(k)[:, None]

    def average(pi: np.ndarray) -> np.ndarray:
        shape = (k, k, 1)
        batch = GaussianMixture(
            np.tile(np.log(pi), (k, 1)), np.broadcast_to(y, shape), np.ones(shape)
        )
        return w @ np.asarray(natural_gradient(batch, y, "paper_code").logits)

    roots = np.sqrt(w) / np.sqrt(w).sum()
    np.testing.assert_allclose(average(roots), 0.0, atol=1e-12)
    assert np.abs(average(w)).max() > 0.1
    for seed in range(20):  # and nowhere else: it points to the square roots
        pi = np.random.default_rng(seed).dirichlet(np.ones(k))
        assert average(pi) @ (np.log(pi) - np.log(roots)) > 0
