"""The claims of the page on what the paper's code optimises, against NumPy, SciPy and autodiff."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, optimize, special, stats

from ngem_tutorial.mixtures import GaussianMixture
from ngem_tutorial.variants import Variant, as_derived, paper_code

quick = settings(max_examples=25, deadline=None, derandomize=True, database=None)
seeds = st.integers(0, 10_000)
PLAIN = Variant()
"""The plain gradient of the logits, which is the likelihood's."""

pytestmark = pytest.mark.usefixtures("x64")


def broadcast(psi: Any, means: Any, scales: Any, n: int) -> GaussianMixture:
    """The same mixture for each of `n` targets."""
    return GaussianMixture(*(jnp.broadcast_to(a, (n, *np.shape(a))) for a in (psi, means, scales)))


@partial(jax.jit, static_argnums=5)
def mean_field(psi: Any, means: Any, scales: Any, y: Any, share: Any, preset: Any) -> jax.Array:
    """The package's gradient of the logits, averaged over targets with their shares."""
    batch = broadcast(psi, means, scales, len(y))
    return share @ preset.gradient(batch, y).logits


def density(means: np.ndarray, scales: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.prod(stats.norm.pdf(y[:, None, :], means, scales), axis=-1)


def problem(seed: int, k: int, spread: float = 1.5, n: int = 12) -> tuple[np.ndarray, ...]:
    """Means, scales, targets and their shares."""
    rng = np.random.default_rng(seed)
    means = spread * rng.normal(size=(k, 1))
    scales = np.exp(0.3 * rng.normal(size=(k, 1)))
    return means, scales, spread * rng.normal(size=(n, 1)), rng.dirichlet(np.ones(n))


def rho_bar(pi: np.ndarray, normal: np.ndarray, share: np.ndarray) -> np.ndarray:
    joint = pi * normal
    return share @ (joint / joint.sum(axis=1, keepdims=True))


def solve(normal: np.ndarray, share: np.ndarray) -> np.ndarray:
    """The weights by maximising the concave form of J in q, without the package."""

    def value(q_psi: np.ndarray) -> tuple[float, np.ndarray]:
        q = special.softmax(q_psi)
        joint = np.sqrt(q) * normal
        p = joint.sum(axis=1)
        gradient = 0.5 * (share @ (joint / p[:, None]) - q)
        return -float(share @ np.log(p)), -gradient

    k = normal.shape[1]
    found = optimize.minimize(value, np.zeros(k), jac=True, method="BFGS", options={"gtol": 1e-11})
    root = np.sqrt(special.softmax(found.x))
    return root / root.sum()


# Where it ends


@pytest.mark.claim("prop-sqrt-law")
@quick
@given(seeds, st.sampled_from([2, 3, 5]))
def test_the_field_vanishes_at_the_square_root_law(seed: int, k: int) -> None:
    """At the independent solution, and with a clear sign elsewhere in each coordinate."""
    means, scales, y, share = problem(seed, k)
    normal = density(means, scales, y)
    pi = solve(normal, share)
    roots = np.sqrt(rho_bar(pi, normal, share))
    np.testing.assert_allclose(pi, roots / roots.sum(), atol=1e-6)
    field = mean_field(np.log(pi), means, scales, y, share, paper_code)
    np.testing.assert_allclose(field, 0.0, atol=1e-5)
    total = share @ (normal / (normal @ pi)[:, None]).sum(axis=1)
    assert total == pytest.approx(roots.sum() ** 2, rel=1e-5)
    assert total == pytest.approx(1 / (pi**2).sum(), rel=1e-5)

    other = np.random.default_rng(seed + 1).dirichlet(np.full(k, 2.0))
    bar = rho_bar(other, normal, share)
    got = mean_field(np.log(other), means, scales, y, share, paper_code)
    expected = other * (bar / other).sum() - bar / other
    np.testing.assert_allclose(got, expected, rtol=1e-8, atol=1e-10)


@pytest.mark.claim("prop-sqrt-law")
@quick
@given(seeds, st.sampled_from([2, 3, 5]))
def test_square_root_law_of_random_weights_without_overlap(seed: int, k: int) -> None:
    """Trained with the paper's code from even weights; the oracle is the root alone."""
    rng = np.random.default_rng(seed)
    w = 0.02 + (1 - 0.02 * k) * rng.dirichlet(np.ones(k))
    means = 100.0 * np.arange(k)[:, None]
    psi = train(jnp.zeros(k), means, np.ones((k, 1)), means, w)
    np.testing.assert_allclose(
        special.softmax(psi), np.sqrt(w) / np.sqrt(w).sum(), rtol=0, atol=1e-6
    )


@jax.jit
def train(psi: Any, means: Any, scales: Any, y: Any, share: Any) -> jax.Array:
    def update(psi: jax.Array, _: None) -> tuple[jax.Array, None]:
        return psi - 0.1 * mean_field(psi, means, scales, y, share, paper_code), None

    return jax.lax.scan(update, psi, length=3000)[0]


@pytest.mark.claim("prop-sqrt-law")
def test_the_gaussians_have_the_equations_of_the_likelihood() -> None:
    means, scales, y, share = problem(3, 3)
    pi = np.array([0.7, 0.2, 0.1])
    n = paper_code.gradient(broadcast(np.log(pi), means, scales, len(y)), y)
    joint = pi * density(means, scales, y)
    rho = joint / joint.sum(axis=1, keepdims=True)
    z = (y[:, None, :] - means) / scales
    for got, score, block in (
        (n.means, z / scales, scales**-2),
        (n.scales, (z**2 - 1) / scales, 2 * scales**-2),
    ):
        expected = -np.tensordot(share, rho[..., None] * score, axes=1) / (pi[:, None] * block)
        np.testing.assert_allclose(np.tensordot(share, np.asarray(got), axes=1), expected)


@pytest.mark.claim("cor-equal-weights")
@quick
@given(seeds, st.sampled_from([2, 3, 4]))
def test_both_fields_vanish_at_equal_weights_only(seed: int, k: int) -> None:
    """Responsibilities with a given mean are made to order; targets are replaced by densities."""
    rng = np.random.default_rng(seed)
    rho, share = special.softmax(rng.normal(size=(6, k)), axis=1), rng.dirichlet(np.ones(6))
    pi = share @ rho  # a stationary point of the likelihood with the densities rho / pi
    r = rho / pi
    field = pi * (share @ r.sum(axis=1)) - share @ r
    np.testing.assert_allclose(field, pi * k - 1, atol=1e-12)
    even = rho + 1 / k - pi  # the same with even averages
    even /= even.sum(axis=1, keepdims=True)
    r = even * k
    np.testing.assert_allclose(share @ r.sum(axis=1) / k - share @ r, 0.0, atol=1e-12)
    assert np.abs(field).max() > 1e-3 * np.ptp(pi)


# The objective


def penalised(p: np.ndarray, y: np.ndarray, share: np.ndarray, half: float = 0.5) -> float:
    """J by SciPy, with log-scales."""
    psi, mu, s = p.reshape(3, -1)
    log_pi = special.log_softmax(psi)
    each = log_pi + stats.norm.logpdf(y, mu, np.exp(s))
    return float(share @ special.logsumexp(each, axis=1) - half * special.logsumexp(2 * log_pi))


@pytest.mark.claim("prop-paper-code-objective")
@quick
@given(seeds, st.sampled_from([2, 3]))
def test_gradient_of_j_and_the_papers_code_vanish_together(seed: int, k: int) -> None:
    """In the logits the code is an invertible map of the gradient of J; in the Gaussians too."""
    means, scales, y, share = problem(seed, k)
    psi = np.random.default_rng(seed).normal(size=k)
    p = np.concatenate([psi, means.ravel(), np.log(scales).ravel()])
    j = optimize.approx_fprime(p, penalised, 1e-6, y, share).reshape(3, k)
    pi = special.softmax(psi)
    normal = density(means, scales, y)
    bar = rho_bar(pi, normal, share)
    np.testing.assert_allclose(j[0], bar - pi**2 / (pi**2).sum(), atol=1e-5)
    # the map of the page's proof: minus the field is (I - pi 1^T) diag(1 / pi) j
    field = np.asarray(mean_field(psi, means, scales, y, share, paper_code))
    np.testing.assert_allclose(-field, j[0] / pi - pi * (j[0] / pi).sum(), atol=1e-3)
    n = paper_code.gradient(broadcast(psi, means, scales, len(y)), y)
    step = np.tensordot(share, np.asarray(n.means), axes=1).ravel()
    np.testing.assert_allclose(-step * pi / scales.ravel() ** 2, j[1], atol=1e-4)


@pytest.mark.claim("prop-paper-code-objective")
@quick
@given(seeds, st.sampled_from([2, 3, 5]))
def test_one_maximum_with_positive_weights_and_a_bounded_cost(seed: int, k: int) -> None:
    means, scales, y, share = problem(seed, k)
    normal = density(means, scales, y)
    pi = solve(normal, share)
    # strictly concave in q: below every chord
    rng = np.random.default_rng(seed)
    a, b = rng.dirichlet(np.ones(k), 2)
    value = [share @ np.log(np.sqrt(q) @ normal.T) for q in (a, b, (a + b) / 2)]
    assert value[2] > (value[0] + value[1]) / 2
    u = normal / normal.sum(axis=1, keepdims=True)
    assert (pi >= u.min(axis=0) - 1e-6).all()
    assert (pi <= u.max(axis=0) + 1e-6).all()

    star = np.full(k, 1 / k)
    for _ in range(2000):  # EM of the weights: the best likelihood
        star = rho_bar(star, normal, share)
    cost = share @ np.log(normal @ star) - share @ np.log(normal @ pi)
    bound = 0.5 * (np.log((star**2).sum()) - np.log((pi**2).sum()))
    assert -1e-6 <= cost <= bound + 1e-6 <= 0.5 * np.log(k) + 1e-5


@pytest.mark.claim("prop-paper-code-objective")
def test_the_best_likelihood_may_have_a_weight_of_zero_and_j_has_none() -> None:
    normal, share = np.array([[1.0, 0.2], [1.0, 0.4]]), np.array([0.5, 0.5])
    assert (share @ (normal[:, 1] / normal[:, 0])) < 1  # so the second weight is best at zero
    assert solve(normal, share)[1] > 0.2


# What it descends


@pytest.mark.claim("prop-inverse-probability")
@quick
@given(seeds, st.sampled_from([2, 3, 5]))
def test_field_is_the_gradient_of_the_mean_inverse_probability(seed: int, k: int) -> None:
    rng = np.random.default_rng(seed)
    w, psi = rng.dirichlet(np.ones(k)), rng.normal(size=k)
    means = 100.0 * np.arange(k)[:, None]
    got = np.asarray(mean_field(psi, means, np.ones((k, 1)), means, w, paper_code))

    def phi(psi: np.ndarray) -> float:
        return float((w / special.softmax(psi)).sum())

    numeric = optimize.approx_fprime(psi, phi, 1e-7)
    np.testing.assert_allclose(got, numeric, rtol=1e-4, atol=1e-4)
    roots, pi = np.sqrt(w) / np.sqrt(w).sum(), special.softmax(psi)
    chi2 = ((roots - pi) ** 2 / pi).sum()
    assert phi(psi) == pytest.approx(np.sqrt(w).sum() ** 2 * (1 + chi2))
    other = rng.normal(size=k)
    assert phi((psi + other) / 2) <= (phi(psi) + phi(other)) / 2 + 1e-9
    assert phi(np.log(roots)) <= phi(psi) + 1e-9


@pytest.mark.claim("prop-inverse-probability")
def test_flow_approaches_at_the_rate_of_the_hessian() -> None:
    w = np.array([0.7, 0.2, 0.1])
    q = np.sqrt(w) / np.sqrt(w).sum()
    hessian = 2 * np.sqrt(w).sum() ** 2 * (np.diag(q) - np.outer(q, q))

    def flow(_: float, psi: np.ndarray) -> np.ndarray:
        pi = special.softmax(psi)
        return w / pi - pi * (w / pi).sum()

    start = np.log(q) + 1e-4 * np.array([1.0, -2.0, 1.0])
    end = integrate.solve_ivp(flow, (0, 0.5), start, rtol=1e-10, atol=1e-13).y[:, -1]
    values, vectors = np.linalg.eigh(hessian)
    decay = vectors @ np.diag(np.exp(-0.5 * values)) @ vectors.T
    np.testing.assert_allclose(end - np.log(q), decay @ (start - np.log(q)), atol=1e-8)
    far = integrate.solve_ivp(flow, (0, 30), [9.0, 0.0, -9.0], method="LSODA", rtol=1e-9).y[:, -1]
    np.testing.assert_allclose(special.softmax(far), q, atol=1e-5)


def jacobian(psi: np.ndarray, means: Any, scales: Any, y: Any, share: Any) -> np.ndarray:
    """Central differences of the package's field."""
    columns = []
    for step in 1e-5 * np.eye(len(psi)):
        ahead, behind = (
            np.asarray(mean_field(psi + sign * step, means, scales, y, share, paper_code))
            for sign in (1, -1)
        )
        columns.append((ahead - behind) / 2e-5)
    return np.stack(columns, axis=1)


@pytest.mark.claim("prop-not-a-gradient")
@quick
@given(seeds, st.sampled_from([2, 3, 4]))
def test_asymmetry_of_the_jacobian(seed: int, k: int) -> None:
    means, scales, y, share = problem(seed, k)
    psi = np.random.default_rng(seed).normal(size=k)
    pi, normal = special.softmax(psi), density(means, scales, y)
    r = normal / (normal @ pi)[:, None]
    a, product = share @ r, (share[:, None] * r).T @ r
    sr = product.sum(axis=0)
    expected = np.empty((k, k))
    for i in range(k):
        for j in range(k):
            expected[i, j] = (
                pi[i] * a[j] - pi[j] * a[i] + (pi[j] - pi[i]) * product[i, j]
                - pi[i] * pi[j] * (sr[j] - sr[i])
            )  # fmt: skip
    m = jacobian(psi, means, scales, y, share)
    size = np.abs(m).max()
    np.testing.assert_allclose(m - m.T, expected, atol=1e-6 * size)
    if k == 2:
        np.testing.assert_allclose(expected, 0.0, atol=1e-10 * size)
    centre = jacobian(np.zeros(k), means, scales, y, share)
    np.testing.assert_allclose(centre, centre.T, atol=1e-6 * np.abs(centre).max())


@pytest.mark.claim("prop-not-a-gradient")
@pytest.mark.parametrize("pi", [(0.5, 0.3, 0.2), (0.1, 0.6, 0.3)])
def test_twins_and_a_distant_third(pi: tuple[float, ...]) -> None:
    one, two, three = pi
    means = np.array([[0.0], [0.0], [50.0]])
    m = jacobian(np.log(pi), means, np.ones((3, 1)), np.zeros((1, 1)), np.ones(1))
    assert m[0, 2] - m[2, 0] == pytest.approx(three * (one - two) / (one + two) ** 2, rel=1e-6)


@pytest.mark.claim("prop-paper-code-rate")
@quick
@given(seeds, st.sampled_from([2, 3]))
def test_jacobian_at_rest(seed: int, k: int) -> None:
    means, scales, y, share = problem(seed, k)
    normal = density(means, scales, y)
    pi = solve(normal, share)
    joint = pi * normal
    rho = joint / joint.sum(axis=1, keepdims=True)
    bar = share @ rho
    cov = (share[:, None] * rho).T @ rho - np.outer(bar, bar)
    s = 1 / (pi**2).sum()
    f = np.diag(pi) - np.outer(pi, pi)
    expected = s * f + (np.eye(k) - np.outer(pi, np.ones(k))) @ np.diag(1 / pi) @ cov
    m = jacobian(np.log(pi), means, scales, y, share)
    np.testing.assert_allclose(m, expected, atol=1e-4 * np.abs(m).max())
    if k == 2:
        rate = np.abs(np.linalg.eigvals(expected)).max()
        slow = 2 * np.sqrt(bar.prod())
        assert rate == pytest.approx(slow * (1 + cov[0, 0] / bar.prod()), rel=1e-5)
        assert slow * (1 - 1e-5) <= rate <= 2 * slow * (1 + 1e-5)


@pytest.mark.claim("prop-paper-code-rate")
@pytest.mark.parametrize("start", [-12.0, 12.0])
def test_two_components_approach_from_every_start(start: float) -> None:
    means, scales, y, share = problem(5, 2, spread=1.0)
    normal = density(means, scales, y)

    def flow(_: float, psi: np.ndarray) -> np.ndarray:
        return -np.asarray(mean_field(psi, means, scales, y, share, paper_code))

    path = integrate.solve_ivp(flow, (0, 60), [start, 0.0], method="LSODA", rtol=1e-8, atol=1e-10)
    end = special.softmax(path.y[:, -1])
    np.testing.assert_allclose(end, solve(normal, share), atol=1e-5)
    log_odds = path.y[0] - path.y[1]
    assert (np.diff(log_odds) * (log_odds[-1] - start) >= -1e-5).all()  # in one direction


@pytest.mark.claim("prop-paper-code-rate")
def test_rate_of_the_likelihood() -> None:
    rng = np.random.default_rng(2)
    rho, share = special.softmax(rng.normal(size=(6, 2)), axis=1), rng.dirichlet(np.ones(6))
    pi = share @ rho
    normal = rho / pi

    def field(x: float) -> float:  # of the log-odds
        weights = special.softmax([x, 0.0])
        return float(2 * (weights - rho_bar(weights, normal, share))[0])

    x = np.log(pi[0] / pi[1])
    assert field(x) == pytest.approx(0.0, abs=1e-12)
    slope = (field(x + 1e-5) - field(x - 1e-5)) / 2e-5
    assert slope == pytest.approx(2 * share @ (rho[:, 0] - pi[0]) ** 2, rel=1e-6)


# Through a network


@pytest.mark.claim("prop-paper-code-network")
def test_network_descends_the_inverse_probability() -> None:
    """All parameters that lead to the logits, against a loss written in JAX without the package."""
    rng = np.random.default_rng(0)
    theta = (rng.normal(size=(1, 4)), rng.normal(size=(4, 3)))
    x, owner = np.linspace(-1, 1, 12)[:, None], np.arange(12) % 3
    means = np.tile(100.0 * np.arange(3)[:, None], (12, 1, 1))

    def logits(theta: Any) -> jax.Array:
        return jnp.tanh(x @ theta[0]) @ theta[1]

    def code(theta: Any) -> jax.Array:
        mixture = GaussianMixture(logits(theta), means, np.ones_like(means))
        return paper_code(mixture, means[0][owner]).mean()

    def inverse(theta: Any) -> jax.Array:
        return (1 / jax.nn.softmax(logits(theta))[np.arange(12), owner]).mean()

    got, expected = (jax.tree.leaves(jax.jit(jax.grad(f))(theta)) for f in (code, inverse))
    for a, b in zip(got, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-10)
    assert max(float(np.abs(b).max()) for b in expected) > 0.1


@pytest.mark.claim("prop-paper-code-network")
@quick
@given(seeds, st.sampled_from([2, 4]))
def test_an_input_counts_by_the_entropy_of_its_shares(seed: int, k: int) -> None:
    """By counting: S of every example is one over the weight of its component."""
    w = np.random.default_rng(seed).dirichlet(np.ones(k), 3)  # three inputs
    for shares in w:
        roots = np.sqrt(shares)
        pi = roots / roots.sum()
        counted = (shares / pi).sum()
        assert counted == pytest.approx(roots.sum() ** 2)
        assert 1 <= counted <= k + 1e-12
        means = 100.0 * np.arange(k)[:, None]
        field = mean_field(np.log(pi), means, np.ones((k, 1)), means, shares, paper_code)
        np.testing.assert_allclose(field, 0.0, atol=1e-9 * k)
    pooled = np.sqrt(w.mean(axis=0))  # one set of logits for all inputs
    pooled /= pooled.sum()
    per_input = [pooled * (v / pooled).sum() - v / pooled for v in w]
    np.testing.assert_allclose(np.mean(per_input, axis=0), 0.0, atol=1e-9)


# The cost


@pytest.mark.claim("prop-sqrt-cost")
@quick
@given(seeds, st.sampled_from([2, 3, 10]))
def test_cost_and_entropy(seed: int, k: int) -> None:
    w = np.random.default_rng(seed).dirichlet(np.ones(k))
    law = np.sqrt(w) / np.sqrt(w).sum()
    cost = stats.entropy(w, law)
    assert cost == pytest.approx(np.log(np.sqrt(w).sum()) - stats.entropy(w) / 2, abs=1e-12)
    assert 0 < cost < 0.5 * np.log(k)
    assert stats.entropy(law) > stats.entropy(w)
    np.testing.assert_array_equal(np.argsort(law), np.argsort(w))
    even = np.full(k, 1 / k)
    assert stats.entropy(even, np.sqrt(even) / np.sqrt(even).sum()) == pytest.approx(0.0)


@pytest.mark.claim("prop-sqrt-cost")
@pytest.mark.parametrize("first", [0.5, 0.6, 0.9, 0.99])
def test_bias_of_mean_and_variance(first: float) -> None:
    """By integrating the two densities."""
    w = np.array([first, 1 - first])
    law = np.sqrt(w) / np.sqrt(w).sum()
    m, v = np.array([1.5, -1.0]), np.array([0.3, 0.1]) ** 2
    grid = np.linspace(-4, 5, 40_001)
    moments = []
    for pi in (w, law):
        p = stats.norm.pdf(grid[:, None], m, np.sqrt(v)) @ pi
        mean = np.trapezoid(grid * p, grid)
        moments.append([mean, np.trapezoid((grid - mean) ** 2 * p, grid)])
    g = np.sqrt(w.prod())
    b = -g * (w[0] - w[1]) / (1 + 2 * g)
    assert law[0] - w[0] == pytest.approx(b)
    off = np.subtract(moments[1], moments[0])
    square = (g / (1 + 2 * g) - g**2) * (m[0] - m[1]) ** 2
    np.testing.assert_allclose(off, [b * (m[0] - m[1]), b * (v[0] - v[1]) + square], atol=1e-9)


# Noise and length


@pytest.mark.claim("prop-logit-noise")
@pytest.mark.parametrize("gap", [0.5, 3.0, 30.0])
def test_second_moment_of_the_ratio(gap: float) -> None:
    pi = np.array([0.8, 0.2])
    grid = np.linspace(-12, gap + 12, 200_001)
    normal = stats.norm.pdf(grid[:, None], [0.0, gap])
    p = normal @ pi
    with np.errstate(invalid="ignore"):
        r = np.where(p[:, None] > 0, normal / p[:, None], 0.0)
    first, second = (np.trapezoid(r**power * p[:, None], grid, axis=0) for power in (1, 2))
    difference = np.where(p[:, None] > 0, (normal - p[:, None]) ** 2 / p[:, None], 0.0)
    np.testing.assert_allclose(first, 1.0, atol=1e-9)
    np.testing.assert_allclose(second, 1 + np.trapezoid(difference, grid, axis=0), rtol=1e-9)
    if gap == 30.0:
        np.testing.assert_allclose(second, 1 / pi, rtol=1e-6)
    else:
        assert (second < 1 / pi - 1e-3).all()


@pytest.mark.claim("prop-logit-noise")
@pytest.mark.parametrize("w", [0.5, 0.9])
@pytest.mark.parametrize(
    ("preset", "tau", "rate"),
    [
        (PLAIN, lambda g: 4 * g**2, lambda g: 2 * g**2),
        (paper_code, lambda g: 4.0, lambda g: 4 * g),
        (as_derived, lambda g: g**-2, lambda g: 1.0),
    ],
)
def test_noise_and_rate_of_the_log_odds(w: float, preset: Any, tau: Any, rate: Any) -> None:
    """From the package's gradients of single examples, at rest and nearby."""
    share, g = np.array([w, 1 - w]), np.sqrt(w * (1 - w))
    pi = np.sqrt(share) / np.sqrt(share).sum() if preset == paper_code else share
    ends = np.array([[-50.0], [50.0]])

    def changes(x: float) -> np.ndarray:
        psi = np.array([x / 2, -x / 2])
        n = np.asarray(preset.gradient(broadcast(psi, ends, np.ones((2, 1)), 2), ends).logits)
        return n[:, 1] - n[:, 0]

    x = np.log(pi[0] / pi[1])
    assert share @ changes(x) == pytest.approx(0.0, abs=1e-12)
    assert share @ changes(x) ** 2 == pytest.approx(tau(g))
    slope = share @ (changes(x + 1e-5) - changes(x - 1e-5)) / 2e-5
    assert -slope == pytest.approx(rate(g), rel=1e-6)


@pytest.mark.claim("prop-logit-noise")
def test_variance_in_the_long_run() -> None:
    """A simulation of the derived steps with batches, small enough to be linear."""
    rng, w, beta, batch = np.random.default_rng(0), 0.8, 0.02, 4
    x = np.full(20_000, np.log(w / (1 - w)))
    for _ in range(400):
        pi = special.expit(x)
        f = rng.binomial(batch, w, x.shape) / batch
        x = x + beta * (f - pi) / (pi * (1 - pi))
    predicted = beta / (w * (1 - w)) / (batch * (2 - beta))
    assert x.var() == pytest.approx(predicted, rel=0.06)


@pytest.mark.claim("prop-natural-overshoot")
@pytest.mark.parametrize("pi", [(0.05, 0.35, 0.6), (0.3, 0.7), (0.9, 0.1)])
def test_distance_to_a_face(pi: tuple[float, ...]) -> None:
    """The shortest great circle arc to a grid of points of the face."""
    rng = np.random.default_rng(0)
    face = rng.dirichlet(np.full(len(pi) - 1, 0.5), 20_000)
    arcs = 2 * np.arccos(np.clip(np.sqrt(face) @ np.sqrt(pi[1:]), -1, 1))
    expected = 2 * np.arcsin(np.sqrt(pi[0]))
    assert arcs.min() == pytest.approx(expected, rel=1e-3)
    assert (arcs >= expected - 1e-9).all()


@pytest.mark.claim("prop-natural-overshoot")
@pytest.mark.parametrize("w", [0.9, 0.5, 0.03])
@pytest.mark.parametrize("beta", [0.01, 0.1, 1.0])
def test_full_batches_diverge_from_afar_and_converge_from_near(w: float, beta: float) -> None:
    share, ends = np.array([w, 1 - w]), np.array([[-50.0], [50.0]])

    def step(x: float) -> float:
        psi = np.array([x / 2, -x / 2])
        n = np.asarray(mean_field(psi, ends, np.ones((2, 1)), ends, share, as_derived))
        return x - beta * float(n[0] - n[1])

    x = 1.3
    pi = special.expit(x)
    closed = x + beta * (2 * w - 1 + w * np.exp(-x) - (1 - w) * np.exp(x))
    assert step(x) == pytest.approx(closed)
    assert closed == pytest.approx(x + beta * (w - pi) / (pi * (1 - pi)))
    # in the coordinate pi the derivative of the step is beta (w - pi)
    slope = (special.expit(x + 1e-6 * (step(x) - x)) - pi) / 1e-6
    assert slope == pytest.approx(beta * (w - pi), rel=1e-4)

    c = min(w, 1 - w)
    t = 0.5
    while beta * (c * np.exp(t) - 2) < 2 * t + 1:
        t += 0.01
    for start in (-t, t):
        new = step(start)
        assert new * start < 0
        assert abs(new) >= t + 1
    x = np.log(w / (1 - w)) + 0.1
    for _ in range(2000):
        x = step(x)
    assert x == pytest.approx(np.log(w / (1 - w)), abs=1e-6)


@pytest.mark.claim("prop-natural-overshoot")
@pytest.mark.parametrize("first", [0.02, 0.1, 0.4])
def test_one_example_turns_the_tables(first: float) -> None:
    threshold = first * np.log((1 - first) / first)
    psi, ends = np.log([first, 1 - first]), np.array([[-50.0], [50.0]])
    one = broadcast(psi, ends, np.ones((2, 1)), 1)
    n = np.asarray(as_derived.gradient(one, ends[:1]).logits)[0]
    for beta, larger in ((1.01 * threshold, True), (0.99 * threshold, False)):
        assert (special.softmax(psi - beta * n)[0] > 0.5) == larger


# The other side


@pytest.mark.claim("prop-starvation")
@pytest.mark.parametrize("preset", [PLAIN, as_derived, paper_code])
@pytest.mark.parametrize("distance", [0.5, 2.0])
def test_a_component_that_explains_little(preset: Any, distance: float) -> None:
    """A target at the mean of component 2; the plain logits stand for the likelihood."""
    means, share = np.array([[distance], [0.0]]), np.ones(1)
    eta = np.exp(-(distance**2) / 2)

    def flow(_: float, psi: np.ndarray) -> np.ndarray:
        zero = np.zeros((1, 1))
        return -np.asarray(mean_field(psi, means, np.ones((2, 1)), zero, share, preset))

    end = integrate.solve_ivp(flow, (0, 400), [0.0, 0.0], method="LSODA", rtol=1e-8).y[:, -1]
    pi = special.softmax(end)[0]
    if preset == paper_code:
        assert pi == pytest.approx(eta / (1 + eta), abs=1e-5)
    else:
        assert pi < 0.02 < 0.5 * eta / (1 + eta)


@pytest.mark.claim("prop-starvation")
@pytest.mark.parametrize(
    ("preset", "measure", "change"),
    [
        (PLAIN, lambda p: 1 / p + np.log((1 - p) / p), 2.0),
        (paper_code, lambda p: (1 - p) / p, 2.0),
        (as_derived, lambda p: -np.log(p), 1.0),
    ],
)
def test_a_component_that_explains_nothing(preset: Any, measure: Any, change: float) -> None:
    means, share, zero = np.array([[60.0], [0.0]]), np.ones(1), np.zeros((1, 1))

    def flow(_: float, psi: np.ndarray) -> np.ndarray:
        return -np.asarray(mean_field(psi, means, np.ones((2, 1)), zero, share, preset))

    at = np.array([0.0, 1.0, 3.0])
    path = integrate.solve_ivp(flow, (0, 3), np.log([0.3, 0.7]), t_eval=at, rtol=1e-9, atol=1e-11)
    values = measure(special.softmax(path.y, axis=0)[0])
    np.testing.assert_allclose(np.diff(values), change * np.diff(at), rtol=1e-5)
