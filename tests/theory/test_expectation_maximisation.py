"""The claims of the page on expectation maximisation, against numpy, scipy and scikit-learn."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import NamedTuple

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, special, stats
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture as ScikitMixture

from ngem_tutorial import em
from ngem_tutorial.mixtures import GaussianMixture

FLOOR = 0.01
N = 12  # points; few, so that components can own a single one

em_step = jax.jit(em.em_step, static_argnames="min_scale")
partial_step = jax.jit(em.natural_gradient_em_step, static_argnames=("learning_rate", "min_scale"))
log_prob = jax.jit(lambda m, y: m.log_prob(y))
responsibilities = jax.jit(lambda m, y: m.responsibilities(y))


@pytest.fixture(autouse=True, scope="module")
def _x64() -> Iterator[None]:
    """Float64; what is made from float32 stays float32."""
    with jax.enable_x64(True):
        yield


class Case(NamedTuple):
    """A mixture as numpy float64 arrays, its data and the precision to compute in."""

    log_pi: np.ndarray
    mu: np.ndarray
    sigma: np.ndarray
    y: np.ndarray
    dtype: type

    @property
    def mixture(self) -> GaussianMixture:
        return GaussianMixture(*(a.astype(self.dtype) for a in (self.log_pi, self.mu, self.sigma)))

    @property
    def precision(self) -> float:
        return 1e-12 if self.dtype is np.float64 else 2e-4


@st.composite
def cases(draw, dtypes=(np.float32, np.float64), sizes=(1, 2, 5), dims=(1, 3)) -> Case:
    """Weights down to exp(-60), scales from the floor to 100, data in clumps or spread out."""
    k, d = draw(st.sampled_from(sizes)), draw(st.sampled_from(dims))
    dtype = draw(st.sampled_from(dtypes))
    steep = draw(st.sampled_from([0.0, 1.0, 20.0]))
    low, high = draw(st.sampled_from([(-0.5, 0.5), (-2.0, 2.0), (-2.0, -1.0)]))
    spread = draw(st.sampled_from([0.1, 1.0, 10.0]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    # Rounded to float32 once, so that both precisions have the same problem.
    logits, mu, log_sigma, y = (
        a.astype(np.float32).astype(np.float64)
        for a in (
            steep * rng.normal(size=k),
            rng.normal(size=(k, d)),
            rng.uniform(low, high, size=(k, d)),
            spread * rng.normal(size=(N, d)),
        )
    )
    sigma = np.maximum(10.0**log_sigma, FLOOR).astype(np.float32).astype(np.float64)
    return Case(special.log_softmax(logits), mu, np.maximum(sigma, FLOOR), y, dtype)


def arrays(mixture: GaussianMixture) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Log-weights, means and scales in float64."""
    logits, mu, sigma = (np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(mixture))
    return special.log_softmax(logits), mu, sigma


def joint(log_pi: np.ndarray, mu: np.ndarray, sigma: np.ndarray, y: np.ndarray) -> np.ndarray:
    """`log p(y, k)`, shape `(N, K)`, by scipy."""
    return log_pi + stats.norm.logpdf(y[:, None, :], mu, sigma).sum(axis=-1)


def posterior(log_joint: np.ndarray) -> np.ndarray:
    return special.softmax(log_joint, axis=-1)


def evidence(log_joint: np.ndarray) -> np.ndarray:
    return special.logsumexp(log_joint, axis=-1)


def bound(q: np.ndarray, log_joint: np.ndarray) -> np.ndarray:
    """The ELBO of each point, shape `(N,)`."""
    return np.sum(q * log_joint + special.entr(q), axis=-1)


def divergence(q: np.ndarray, log_joint: np.ndarray) -> np.ndarray:
    """`KL(q || posterior)` of each point, without underflow."""
    return np.sum(-special.entr(q) - q * special.log_softmax(log_joint, axis=-1), axis=-1)


def size(*terms: np.ndarray) -> float:
    """The size of the largest number that enters, to which rounding is relative."""
    return max(1.0, *(float(np.abs(t).max()) for t in terms))


# The bound


@pytest.mark.claim("prop-elbo")
@settings(max_examples=60, deadline=None, derandomize=True)
@given(case=cases(), seed=st.integers(0, 1000), sparse=st.booleans())
def test_log_likelihood_is_bound_plus_divergence(case: Case, seed: int, sparse: bool) -> None:
    terms = joint(*case[:4])
    k = terms.shape[-1]
    rng = np.random.default_rng(seed)
    q = rng.dirichlet(np.full(k, 0.3), size=N)
    if sparse:
        q = np.eye(k)[rng.integers(k, size=N)]
    value = np.asarray(log_prob(case.mixture, case.y.astype(case.dtype)), np.float64)
    tolerance = case.precision * size(terms)
    np.testing.assert_allclose(bound(q, terms) + divergence(q, terms), value, atol=tolerance)
    assert np.all(bound(q, terms) <= value + tolerance)
    # Equality at the posterior, here that of the package.
    rho = np.asarray(responsibilities(case.mixture, case.y.astype(case.dtype)), np.float64)
    np.testing.assert_allclose(bound(rho, terms), value, atol=tolerance)


@pytest.mark.claim("prop-elbo")
def test_equality_at_the_posterior_only() -> None:
    terms = joint(np.log([0.3, 0.7]), np.array([[0.0], [1.0]]), np.ones((2, 1)), np.array([[0.4]]))
    found = optimize.minimize_scalar(
        lambda p: -bound(np.array([[p, 1 - p]]), terms)[0], bounds=(0, 1), method="bounded",
        options={"xatol": 1e-10},
    )  # fmt: skip
    assert found.x == pytest.approx(posterior(terms)[0, 0], abs=1e-7)
    assert -found.fun == pytest.approx(evidence(terms)[0], abs=1e-12)
    assert bound(np.array([[0.9, 0.1]]), terms)[0] < evidence(terms)[0] - 0.1


@pytest.mark.claim("prop-elbo")
@settings(max_examples=30, deadline=None, derandomize=True)
@given(case=cases(dtypes=(np.float64,), sizes=(2, 5)), seed=st.integers(0, 1000))
def test_bound_touches_to_first_order(case: Case, seed: int) -> None:
    """The gap is zero where it touches, positive around, and its slope vanishes there."""
    log_pi, mu, sigma, y, _ = case
    rho = posterior(joint(log_pi, mu, sigma, y))
    rng = np.random.default_rng(seed)
    along = [rng.normal(size=a.shape) for a in (log_pi, mu, sigma)]

    def gap(t: float) -> float:
        moved = joint(
            special.log_softmax(log_pi + t * along[0]),
            mu + t * sigma * along[1],
            sigma * np.exp(t * along[2]),
            y,
        )
        assert np.all(divergence(rho, moved) >= -1e-12 * size(moved))
        return float(np.mean(evidence(moved) - bound(rho, moved)))

    unit = size(joint(log_pi, mu, sigma, y))
    assert abs(gap(0.0)) < 1e-13 * unit
    # A central difference; its error is of second order in the step.
    slopes = [(gap(t) - gap(-t)) / (2 * t) for t in (1e-3, 1e-4)]
    assert abs(slopes[1]) < 0.02 * abs(slopes[0]) + 1e-10 * unit


# The M-step


@pytest.mark.claim("prop-m-step")
@settings(max_examples=40, deadline=None, derandomize=True)
@given(case=cases(), seed=st.integers(0, 1000))
def test_no_mixture_above_the_floor_has_a_larger_q(case: Case, seed: int) -> None:
    log_pi, mu, sigma, y, dtype = case
    rho = posterior(joint(log_pi, mu, sigma, y))
    best = arrays(em_step(case.mixture, y.astype(dtype), min_scale=FLOOR))
    assert np.all(best[2] >= np.float32(FLOOR))
    terms = joint(*best, y)
    top = np.mean(np.sum(rho * terms, axis=-1))
    rng = np.random.default_rng(seed)
    for reach in (1e-3, 0.1, 1.0):
        for _ in range(5):
            near = joint(
                special.log_softmax(best[0] + reach * rng.normal(size=log_pi.shape)),
                best[1] + reach * best[2] * rng.normal(size=mu.shape),
                np.maximum(best[2] * np.exp(reach * rng.normal(size=mu.shape)), FLOOR),
                y,
            )
            # Responsibilities in float32 are off by their rounding times the terms.
            assert np.mean(np.sum(rho * near, axis=-1)) <= top + case.precision * size(terms)


@pytest.mark.claim("prop-m-step")
@pytest.mark.parametrize("floor", [0.0, 0.9])
def test_m_step_is_what_an_optimizer_finds(floor: float) -> None:
    """The scale and mean of each component by a bounded quasi-Newton method, from afar."""
    rng = np.random.default_rng(0)
    y = np.concatenate([rng.normal(0.0, 0.4, (20, 1)), rng.normal(2.0, 1.0, (30, 1))])
    mixture = GaussianMixture(np.zeros(2), np.array([[0.2], [1.5]]), np.array([[0.8], [1.2]]))
    rho = posterior(joint(*arrays(mixture), y))
    new = em_step(mixture, y, min_scale=floor)
    for k in range(2):

        def loss(p: np.ndarray, weight: np.ndarray = rho[:, k]) -> float:
            return -float(np.sum(weight * stats.norm.logpdf(y[:, 0], p[0], p[1])))

        found = optimize.minimize(
            loss, [5.0, 3.0], bounds=[(None, None), (max(floor, 1e-3), None)], method="L-BFGS-B",
            options={"ftol": 1e-15, "gtol": 1e-9},
        )  # fmt: skip
        assert [float(new.means[k, 0]), float(new.scales[k, 0])] == pytest.approx(found.x, abs=1e-5)
    assert (float(new.scales.min()) == floor) == (floor > 0)  # it binds


@pytest.mark.claim("prop-m-step")
def test_q_is_unbounded_on_ties() -> None:
    """One component, all points tied in one coordinate: each decade of its scale gains log 10."""
    y = np.stack([np.arange(5.0), np.full(5, 0.2)], axis=-1)
    values = [
        joint(np.zeros(1), y.mean(axis=0)[None], np.array([[1.0, 10.0**-j]]), y).mean()
        for j in range(8)
    ]
    np.testing.assert_allclose(np.diff(values), np.log(10.0), rtol=1e-12)


@pytest.mark.claim("rem-full-covariance")
def test_full_covariance_is_the_weighted_one() -> None:
    rng = np.random.default_rng(1)
    y = rng.normal(size=(80, 2)) @ np.array([[1.0, 0.8], [0.0, 0.5]])
    pi, mu = np.array([0.4, 0.6]), np.array([[-1.0, 0.0], [1.0, 0.5]])
    cov = np.stack([np.eye(2), np.array([[1.0, 0.3], [0.3, 0.8]])])

    def terms(pi: np.ndarray, mu: np.ndarray, cov: np.ndarray) -> np.ndarray:
        return np.stack(
            [np.log(pi[k]) + stats.multivariate_normal(mu[k], cov[k]).logpdf(y) for k in (0, 1)],
            axis=-1,
        )

    rho = posterior(terms(pi, mu, cov))
    n = rho.sum(axis=0)
    new_mu = rho.T @ y / n[:, None]
    centred = y[:, None, :] - new_mu
    new_cov = np.einsum("nk,nki,nkj->kij", rho, centred, centred) / n[:, None, None]
    model = ScikitMixture(
        2, tol=0.0, reg_covar=0.0, max_iter=1, init_params="random", random_state=0,
        weights_init=pi, means_init=mu, precisions_init=np.linalg.inv(cov),
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(y)
    np.testing.assert_allclose(model.covariances_, new_cov, rtol=1e-10)
    best = np.sum(rho * terms(n / 80, new_mu, new_cov))
    for _ in range(20):
        root = np.linalg.cholesky(new_cov) + 0.02 * np.tril(rng.normal(size=(2, 2, 2)))
        near = root @ root.transpose(0, 2, 1)
        assert np.sum(rho * terms(n / 80, new_mu, near)) < best


# Monotonicity


@pytest.mark.claim("prop-em-monotone")
@settings(max_examples=50, deadline=None, derandomize=True)
@given(old=cases(dtypes=(np.float64,), sizes=(3,), dims=(2,)),
       new=cases(dtypes=(np.float64,), sizes=(3,), dims=(2,)))  # fmt: skip
def test_gain_is_rise_of_q_plus_divergence(old: Case, new: Case) -> None:
    """For any two mixtures; the log-likelihoods are the package's, the rest is scipy's."""
    before, after = joint(*old[:3], old.y), joint(*new[:3], old.y)
    rho = posterior(before)
    rise = np.mean(np.sum(rho * (after - before), axis=-1))
    gain = log_prob(new.mixture, old.y).mean() - log_prob(old.mixture, old.y).mean()
    expected = rise + divergence(rho, after).mean()
    assert float(gain) == pytest.approx(expected, abs=1e-12 * size(before, after))


@pytest.mark.claim("prop-em-monotone")
@settings(max_examples=60, deadline=None, derandomize=True)
@given(case=cases())
def test_em_with_a_floor_never_lowers_the_likelihood(case: Case) -> None:
    y = case.y.astype(case.dtype)
    m = case.mixture
    terms = joint(*arrays(m), case.y)
    for _ in range(3):
        m = em_step(m, y, min_scale=FLOOR)
        new = joint(*arrays(m), case.y)
        assert evidence(new).mean() >= evidence(terms).mean() - case.precision * size(terms, new)
        terms = new


@pytest.mark.claim("prop-em-monotone")
def test_added_variance_can_lower_the_likelihood() -> None:
    """What scikit-learn's `reg_covar` does is no M-step (an exercise of the page)."""
    rng = np.random.default_rng(2)
    y = np.concatenate([rng.normal(-2.0, 0.5, (40, 1)), rng.normal(2.0, 0.5, (60, 1))])
    start = GaussianMixture(np.zeros(2), np.array([[-1.0], [1.0]]), np.ones((2, 1)))
    end, history = em.iterate(em_step, start, y, 300)
    log_pi, mu, sigma = arrays(end)
    added = evidence(joint(log_pi, mu, np.sqrt(sigma**2 + 0.05), y)).mean()
    assert added < float(history[-1]) - 1e-3
    floored = em_step(end, y, min_scale=float(sigma.min()))
    assert float(log_prob(floored, y).mean()) == pytest.approx(float(history[-1]), abs=1e-12)


# Fixed points


@pytest.mark.claim("prop-em-fixed-points")
@settings(max_examples=25, deadline=None, derandomize=True)
@given(case=cases(dtypes=(np.float64,), sizes=(1, 3), dims=(2,)))
def test_em_step_follows_from_the_gradient(case: Case) -> None:
    """The gradient of the log-likelihood by central differences in scipy's arithmetic."""
    log_pi, mu, sigma, y, _ = case
    new_log_pi, new_mu, new_sigma = arrays(em_step(case.mixture, y, min_scale=1e-9))
    weight = np.exp(new_log_pi)
    shapes = [a.shape for a in (log_pi, mu, sigma)]
    cuts = np.cumsum([np.prod(s) for s in shapes])[:-1]

    def log_likelihood(vector: np.ndarray) -> float:
        a, b, c = (v.reshape(s) for v, s in zip(np.split(vector, cuts), shapes, strict=True))
        moved = joint(special.log_softmax(log_pi + a), mu + sigma * b, sigma * np.exp(c), y)
        return float(evidence(moved).mean())

    step = 1e-5
    slope = np.array(
        [
            (log_likelihood(step * e) - log_likelihood(-step * e)) / (2 * step)
            for e in np.eye(cuts[-1] + np.prod(shapes[2]))
        ]
    )
    d_psi, d_mu, d_log_sigma = (
        v.reshape(s) for v, s in zip(np.split(slope, cuts), shapes, strict=True)
    )
    # Differences are good to some 1e-9 of third derivatives, cubes of the distances in scales.
    far = size((y[:, None, :] - mu) / sigma)
    tolerance = 1e-9 * far**4
    np.testing.assert_allclose(weight - np.exp(log_pi), d_psi, atol=tolerance)
    moved = weight[:, None] * (new_mu - mu) / sigma  # the derivative is in units of the scale
    np.testing.assert_allclose(moved, d_mu, atol=tolerance)
    second = (new_sigma**2 + (new_mu - mu) ** 2) / sigma**2 - 1.0
    np.testing.assert_allclose(weight[:, None] * second, d_log_sigma, atol=tolerance)


@pytest.mark.claim("prop-em-fixed-points")
def test_equal_components_are_a_fixed_point_and_no_maximum() -> None:
    rng = np.random.default_rng(3)
    y = np.concatenate([rng.normal(-2.0, 0.5, (40, 1)), rng.normal(2.0, 0.5, (60, 1))])
    same = GaussianMixture(np.zeros(2), np.zeros((2, 1)), np.ones((2, 1)))
    saddle = em_step(same, y)
    np.testing.assert_allclose(saddle.means[:, 0], y.mean(), rtol=1e-13)
    np.testing.assert_allclose(saddle.scales[:, 0], y.std(), rtol=1e-13)
    again = em_step(saddle, y)
    for a, b in zip(arrays(again), arrays(saddle), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-13)
    nudged = GaussianMixture(saddle.logits, saddle.means.at[0].add(1e-6), saddle.scales)
    _, history = em.iterate(em_step, nudged, y, 300)
    assert float(history[-1] - history[0]) > 0.3


# Partial steps


@pytest.mark.claim("prop-partial-steps")
@settings(max_examples=40, deadline=None, derandomize=True)
@given(case=cases(sizes=(1, 3), dims=(2,)))
def test_q_rises_along_the_partial_step(case: Case) -> None:
    """Without a floor; the scales of the step are then at least those that they come from."""
    y = case.y.astype(case.dtype)
    before = joint(*arrays(case.mixture), case.y)
    rho = posterior(before)
    terms, q = [before], [np.mean(np.sum(rho * before, axis=-1))]
    for rate in (0.01, 0.3, 0.8):
        new = arrays(partial_step(case.mixture, y, learning_rate=rate))
        terms.append(joint(*new, case.y))
        q.append(np.mean(np.sum(rho * terms[-1], axis=-1)))
    tolerance = case.precision * size(*terms)
    assert np.all(np.diff(q) >= -tolerance)
    for after in terms[1:]:
        assert evidence(after).mean() >= evidence(before).mean() - tolerance


@pytest.mark.claim("prop-partial-steps")
def test_slope_of_q_along_the_step_is_a_quadratic_form() -> None:
    """`dQ/dbeta = (1 - beta) d^T J d`, with `J` the complete-data Fisher matrix in `m`.

    For one Gaussian in one dimension: `J` is the inverse covariance matrix of `(y, y^2)`.
    """
    mu, v, y = 0.3, 0.8, np.array([1.0, 2.5, 3.0])
    m, m_hat = np.array([mu, mu**2 + v]), np.array([y.mean(), (y**2).mean()])

    def q(beta: float) -> float:
        first, second = m + beta * (m_hat - m)
        return float(stats.norm.logpdf(y, first, np.sqrt(second - first**2)).mean())

    for beta in (0.0, 0.4, 0.9):
        first, second = m + beta * (m_hat - m)
        w = second - first**2
        cov = np.array([[w, 2 * first * w], [2 * first * w, 2 * w**2 + 4 * first**2 * w]])
        expected = (1 - beta) * (m_hat - m) @ np.linalg.solve(cov, m_hat - m)
        slope = (q(beta + 1e-6) - q(beta - 1e-6)) / 2e-6
        assert slope == pytest.approx(expected, rel=1e-7)
        assert expected > 0
    assert (q(1.0 + 1e-6) - q(1.0 - 1e-6)) / 2e-6 == pytest.approx(0.0, abs=1e-8)
