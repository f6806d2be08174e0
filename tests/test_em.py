"""EM against scikit-learn, exponential-family algebra in numpy and autodiff."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture as ScikitMixture

from ngem_tutorial import em
from ngem_tutorial.em import iterate
from ngem_tutorial.mixtures import GaussianMixture

# Compiled: operation by operation, every new shape is slow.
em_step = jax.jit(em.em_step, static_argnames="min_scale")
natural_gradient_em_step = jax.jit(
    em.natural_gradient_em_step, static_argnames=("learning_rate", "min_scale")
)
gradient_em_step = jax.jit(em.gradient_em_step, static_argnames="learning_rate")

Parameters = tuple[np.ndarray, np.ndarray, np.ndarray]  # weights, means, scales


pytestmark = pytest.mark.usefixtures("x64")


def start(k: int = 3, d: int = 2) -> GaussianMixture:
    rng = np.random.default_rng(3)
    return GaussianMixture(
        rng.normal(size=k), rng.normal(size=(k, d)), rng.uniform(0.7, 1.5, size=(k, d))
    )


def data(n: int = 200, d: int = 2) -> np.ndarray:
    """Three overlapping groups of unequal sizes and widths."""
    rng = np.random.default_rng(0)
    group = rng.choice(3, size=n, p=[0.6, 0.3, 0.1])
    return 2.0 * group[:, None] + rng.normal(size=(n, d)) * np.array([0.5, 1.0, 0.3])[group, None]


def parameters(mixture: GaussianMixture) -> Parameters:
    weights = special.softmax(np.asarray(mixture.logits))
    return weights, np.asarray(mixture.means), np.asarray(mixture.scales)


def assert_same(actual: Parameters, expected: Parameters, tolerance: float) -> None:
    for a, b in zip(actual, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


def log_likelihood(mixture: GaussianMixture, y: np.ndarray) -> jax.Array:
    return mixture.log_prob(y).mean()


def e_step(mixture: Parameters, y: np.ndarray) -> np.ndarray:
    """Responsibilities by scipy."""
    pi, mu, sigma = mixture
    joint = np.log(pi) + stats.norm.logpdf(y[:, None, :], mu, sigma).sum(axis=-1)
    return special.softmax(joint, axis=-1)


def blended(mixture: Parameters, y: np.ndarray, beta: float) -> Parameters:
    """The next mixture from `m + beta (m_hat - m)` in mean parameters, in numpy."""
    pi, mu, sigma = mixture
    rho = e_step(mixture, y)
    m = [pi, pi[:, None] * mu, pi[:, None] * (mu**2 + sigma**2)]
    m_hat = [rho.mean(axis=0), rho.T @ y / len(y), rho.T @ y**2 / len(y)]
    weight, first, second = (a + beta * (b - a) for a, b in zip(m, m_hat, strict=True))
    mean = first / weight[:, None]
    return weight, mean, np.sqrt(second / weight[:, None] - mean**2)


def scikit(mixture: GaussianMixture, y: np.ndarray, steps: int) -> ScikitMixture:
    pi, mu, sigma = parameters(mixture)
    model = ScikitMixture(
        len(pi),
        covariance_type="diag",
        tol=0.0,
        reg_covar=0.0,
        max_iter=steps,
        init_params="random",
        weights_init=pi,
        means_init=mu,
        precisions_init=sigma**-2,
        random_state=0,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the number of steps is meant
        return model.fit(y)


# Exact EM


@pytest.mark.parametrize(("k", "d"), [(1, 1), (3, 2)])
def test_em_agrees_with_scikit_learn(k: int, d: int) -> None:
    y, mixture = data(d=d), start(k, d)
    current = mixture
    for number in range(1, 21):
        current = em_step(current, y)
        if number in (1, 2, 5, 20):
            model = scikit(mixture, y, number)
            expected = (model.weights_, model.means_, np.sqrt(model.covariances_))
            # It adds 10 eps to each count and takes variances as differences of squares: relative
            # errors of about 1e-13 a step, which EM contracts or keeps.
            assert_same(parameters(current), expected, 1e-10)
            assert jax.jit(log_likelihood)(current, y) == pytest.approx(model.score(y), rel=1e-10)


def test_em_maximises_the_expected_log_likelihood() -> None:
    """The gradient of Q (equation (10)) vanishes at the new mixture, and Q falls beside it."""
    y, mixture = data(), start()
    rho = e_step(parameters(mixture), y)
    new = em_step(mixture, y)

    @jax.jit
    @jax.value_and_grad
    def q(p: tuple[jax.Array, ...]) -> jax.Array:
        psi, mu, sigma = p
        log_normal = jax.scipy.stats.norm.logpdf(y[:, None, :], mu, sigma).sum(axis=-1)
        return jnp.mean(jnp.sum(rho * (jax.nn.log_softmax(psi) + log_normal), axis=-1))

    best, gradient = q((new.logits, new.means, new.scales))
    for leaf in gradient:
        np.testing.assert_allclose(leaf, 0.0, atol=1e-13)
    rng = np.random.default_rng(0)
    for _ in range(10):
        near = [leaf + 0.01 * rng.normal(size=leaf.shape) for leaf in jax.tree.leaves(new)]
        assert q(tuple(near))[0] < best


def test_likelihood_never_falls() -> None:
    y = data()
    last, history = iterate(em_step, start(), y, 60)
    values = np.asarray(history)
    # Once converged, only the rounding of a mean of 200 terms is left.
    assert np.all(np.diff(values) > -1e-14 * np.abs(values[:-1]))
    assert values[-1] > values[0] + 0.1
    weights, means, scales = parameters(last)
    assert weights.sum() == pytest.approx(1.0, rel=1e-14)
    assert np.all(scales > 0)
    assert means.shape == (3, 2)


def test_iterate_returns_the_likelihood_before_each_step_and_after_the_last() -> None:
    y, current = data(), start()
    step = partial(natural_gradient_em_step, learning_rate=0.3)
    last, history = iterate(step, current, y, 4)
    assert history.shape == (5,)
    for value in history:
        pi, mu, sigma = parameters(current)
        joint = np.log(pi) + stats.norm.logpdf(y[:, None, :], mu, sigma).sum(axis=-1)
        assert value == pytest.approx(special.logsumexp(joint, axis=-1).mean(), rel=1e-12)
        final, current = current, step(current, y)
    assert_same(parameters(last), parameters(final), 1e-12)


# Natural gradient EM


def test_natural_gradient_step_of_length_one_is_em() -> None:
    y, mixture = data(), start()
    new = natural_gradient_em_step(mixture, y, learning_rate=1.0)
    expected = em_step(mixture, y)
    for a, b in zip(jax.tree.leaves(new), jax.tree.leaves(expected), strict=True):
        np.testing.assert_array_equal(a, b)
    assert_same(parameters(new), blended(parameters(mixture), y, 1.0), 1e-13)


@pytest.mark.parametrize("beta", [1e-3, 0.25, 0.9])
def test_natural_gradient_step_blends_mean_parameters(beta: float) -> None:
    y, mixture = data(), start()
    new = natural_gradient_em_step(mixture, y, learning_rate=beta)
    # The reference takes variances as differences of squares: 1e-13 instead of 1e-15.
    assert_same(parameters(new), blended(parameters(mixture), y, beta), 1e-13)


def test_natural_gradient_step_follows_from_the_fisher_matrix() -> None:
    """In mean parameters: gradient of the log-likelihood, Fisher matrix and solve by autodiff."""
    y, mixture, beta = data(), start(), 0.4
    k, d = mixture.means.shape

    def distribution(m: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Weights, means and variances from `(pi_1..pi_{K-1}, pi mu, pi (mu^2 + sigma^2))`."""
        free = m[: k - 1]
        pi = jnp.append(free, 1.0 - free.sum())
        first, second = m[k - 1 :].reshape(2, k, d)
        mu = first / pi[:, None]
        return pi, mu, second / pi[:, None] - mu**2

    def log_likelihood(m: jax.Array) -> jax.Array:
        pi, mu, variance = distribution(m)
        log_normal = jax.scipy.stats.norm.logpdf(y[:, None, :], mu, jnp.sqrt(variance)).sum(-1)
        return jax.nn.logsumexp(jnp.log(pi) + log_normal, axis=-1).mean()

    def divergence(p: jax.Array, q: jax.Array) -> jax.Array:
        (pi, mu, v), (pi_q, mu_q, v_q) = distribution(p), distribution(q)
        gaussians = 0.5 * jnp.sum(v / v_q + (mu - mu_q) ** 2 / v_q - 1 - jnp.log(v / v_q), axis=-1)
        return jnp.sum(pi * (jnp.log(pi / pi_q) + gaussians))

    pi, mu, sigma = parameters(mixture)
    moments = [pi[:, None] * mu, pi[:, None] * (mu**2 + sigma**2)]
    m = np.concatenate([pi[:-1], np.ravel(moments)])
    gradient = np.asarray(jax.jit(jax.grad(log_likelihood))(m))
    fisher = np.asarray(jax.jit(jax.hessian(divergence, argnums=1))(m, m))
    weight, mean, variance = distribution(m + beta * np.linalg.solve(fisher, gradient))
    new = natural_gradient_em_step(mixture, y, learning_rate=beta)
    # The solve loses the condition number, some 1e4, of sixteen digits.
    assert np.linalg.cond(fisher) < 1e5
    assert_same(parameters(new), (weight, mean, np.sqrt(variance)), 1e-10)


# Gradient EM


def test_gradient_step_is_ascent_on_the_log_likelihood() -> None:
    """Proposition 3.1: the gradient of Q is the gradient of the log-likelihood."""
    y, mixture, rate = data(), start(), 0.3

    @jax.jit
    @jax.grad
    def gradient(p: tuple[jax.Array, ...]) -> jax.Array:
        psi, mu, log_sigma = p
        log_normal = jax.scipy.stats.norm.logpdf(y[:, None, :], mu, jnp.exp(log_sigma)).sum(-1)
        return jax.nn.logsumexp(jax.nn.log_softmax(psi) + log_normal, axis=-1).mean()

    p = (mixture.logits, mixture.means, jnp.log(mixture.scales))
    logits, means, log_scales = (a + rate * g for a, g in zip(p, gradient(p), strict=True))
    new = gradient_em_step(mixture, y, learning_rate=rate)
    # Rounding of means over 200 points of terms of up to some tens.
    np.testing.assert_allclose(new.logits, logits, rtol=1e-13, atol=1e-14)
    np.testing.assert_allclose(new.means, means, rtol=1e-13, atol=1e-14)
    np.testing.assert_allclose(new.scales, np.exp(log_scales), rtol=1e-13)
    assert np.abs(np.asarray(new.logits - mixture.logits)).max() > 1e-3


def test_gradient_steps_reach_what_em_reaches() -> None:
    """From the end of EM, gradient EM does not move: same stationary points."""
    y = data()
    converged, _ = iterate(em_step, start(), y, 2000)
    moved = gradient_em_step(converged, y, learning_rate=1.0)
    # EM stops moving when its steps are rounding; the gradient is then that over the rate of EM.
    assert_same(parameters(moved), parameters(converged), 1e-11)


# Hard cases


@pytest.mark.parametrize("x64", [False, True])
@pytest.mark.parametrize("beta", [1.0, 0.5, 1e-3])
def test_starved_components_stay_finite(beta: float, x64: bool) -> None:
    """A weight of exp(-1e4), and a component a million scales away from every point."""
    with jax.enable_x64(x64):
        mixture = GaussianMixture([0.0, -1e4, 0.0], [[0.0], [0.5], [1e6]], [[1.0], [1.0], [1.0]])
        y = jnp.asarray(data(50, 1))
        step = partial(natural_gradient_em_step, learning_rate=beta, min_scale=1e-3)
        last, history = iterate(step, mixture, y, 20)
        for leaf in (*jax.tree.leaves(last), history):
            assert leaf.dtype == (np.float64 if x64 else np.float32)
            assert np.isfinite(leaf).all()
    # The starved one moves to the data that it would explain, not to a quotient of zeros.
    assert np.all(np.abs(last.means[1]) < 10.0)


def test_starved_component_takes_the_right_share() -> None:
    """Far below the smallest float: its mean and scale are those that its log-shares give."""
    y = data(50, 1)
    mixture = GaussianMixture([0.0, -1e4], [[0.0], [3.0]], [[1.0], [1.0]])
    new = em_step(mixture, y)
    log_ratio = stats.norm.logpdf(y, 3.0, 1.0) - stats.norm.logpdf(y, 0.0, 1.0)
    share = special.softmax(log_ratio, axis=0)
    mean = np.sum(share * y)
    assert new.means[1, 0] == pytest.approx(mean, rel=1e-11)
    assert new.scales[1, 0] == pytest.approx(np.sqrt(np.sum(share * (y - mean) ** 2)), rel=1e-11)
    # 1e4 is rounded to 2e-12.
    expected = -1e4 + special.logsumexp(log_ratio) - np.log(50)
    assert new.log_weights[1] == pytest.approx(expected, rel=1e-14)


def test_min_scale_is_a_floor() -> None:
    y = np.repeat([[0.0], [10.0]], 5, axis=0)
    mixture = GaussianMixture([0.0, 0.0], [[-1.0], [11.0]], [[1.0], [1.0]])
    floored = em_step(mixture, y, min_scale=0.25)
    np.testing.assert_array_equal(floored.scales, 0.25)
    np.testing.assert_allclose(floored.means, [[0.0], [10.0]], atol=1e-12)
    free = em_step(mixture, y)
    assert np.all((free.scales > 0.0) & (free.scales < 1e-9))
    # It changes nothing but the scales below it.
    free = em_step(start(), data())
    floor = float(np.median(free.scales))
    mixed = em_step(start(), data(), min_scale=floor)
    np.testing.assert_array_equal(mixed.scales, np.maximum(free.scales, floor))
    np.testing.assert_array_equal(mixed.means, free.means)
    np.testing.assert_array_equal(mixed.logits, free.logits)


STEPS: dict[str, Callable[..., Any]] = {
    "em": em_step,
    "natural": partial(natural_gradient_em_step, learning_rate=0.5),
    "gradient": partial(gradient_em_step, learning_rate=0.5),
}


@pytest.mark.parametrize("step", STEPS.values(), ids=STEPS)
def test_shapes_are_checked(step: Callable[..., Any]) -> None:
    for shape in ((5,), (5, 3), (0, 2), (1, 5, 2)):
        with pytest.raises(ValueError, match=r"y must have shape \(N, D\) with D = 2, got \("):
            step(start(), np.zeros(shape))
    batch = GaussianMixture(np.zeros((4, 3)), np.zeros((4, 3, 2)), np.ones((4, 3, 2)))
    with pytest.raises(ValueError, match=r"mixture must be a single one, got batch shape \(4,\)"):
        step(batch, np.zeros((5, 2)))


@pytest.mark.parametrize("rate", [0.0, -0.1, 1.1, float("nan")])
def test_natural_gradient_step_checks_its_rate(rate: float) -> None:
    with pytest.raises(
        ValueError, match=f"learning_rate must be above 0 and at most 1, got {rate}"
    ):
        natural_gradient_em_step(start(), data(), learning_rate=rate)


@pytest.mark.parametrize("rate", [0.0, -0.1, float("nan")])
def test_gradient_step_checks_its_rate(rate: float) -> None:
    with pytest.raises(ValueError, match=f"learning_rate must be positive, got {rate}"):
        gradient_em_step(start(), data(), learning_rate=rate)


@pytest.mark.parametrize("min_scale", [-1e-9, float("nan")])
def test_min_scale_is_checked(min_scale: float) -> None:
    with pytest.raises(ValueError, match="min_scale must be at least 0, got"):
        em_step(start(), data(), min_scale=min_scale)


# At the edges


@pytest.mark.parametrize("x64", [False, True])
@pytest.mark.parametrize("value", [0.0, 1.0, 1e6])
def test_repeated_points_end_at_a_finite_mixture(value: float, x64: bool) -> None:
    """Half of the points are the same: a component shrinks onto them, and stays a number."""
    y = np.concatenate([np.full((50, 1), value), value + 1.0 + np.arange(50.0)[:, None]])
    with jax.enable_x64(x64):
        mixture = GaussianMixture([0.0, 0.0], [[value], [value + 25.0]], [[1.0], [5.0]])
        last, log_likelihood = iterate(em.em_step, mixture, jnp.asarray(y), 60)
    for leaf in (*jax.tree.leaves(last), log_likelihood):
        assert np.isfinite(leaf).all()
    assert log_likelihood[-1] > log_likelihood[0]
    np.testing.assert_allclose(last.means[0], value, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(last.weights[0], 0.5, rtol=1e-2)
    # The floor is the rounding of the data, and only there to be met by such points.
    eps = np.finfo(np.float64 if x64 else np.float32).eps
    assert last.scales[0] <= 20 * eps * max(value + 50.0, 1.0)
    assert last.scales[1] > 5.0


@pytest.mark.parametrize(
    ("of_mixture", "of_data"),
    [("float32", "float64"), ("float64", "float32"), ("bfloat16", "float32")],
)
def test_iterate_takes_mixed_dtypes(of_mixture: str, of_data: str) -> None:
    mixture = jax.tree.map(lambda leaf: leaf.astype(of_mixture), start())
    y = jnp.asarray(data(), of_data)
    last, log_likelihood = iterate(em.em_step, mixture, y, 3)
    widest = jnp.promote_types(of_mixture, of_data)
    assert {leaf.dtype for leaf in jax.tree.leaves(last)} == {widest}
    assert np.all(np.diff(log_likelihood) > 0)


def test_rates_can_be_traced_and_share_a_program() -> None:
    mixture, y = start(), data()
    for step, rates in (
        (em.natural_gradient_em_step, (0.3, 1.0)),
        (em.gradient_em_step, (0.3, 2.0)),
    ):
        traced = jax.jit(lambda rate, step=step: step(mixture, y, learning_rate=rate))
        for rate in rates:
            for a, b in zip(
                jax.tree.leaves(traced(rate)),
                jax.tree.leaves(step(mixture, y, learning_rate=rate)),
                strict=True,
            ):
                np.testing.assert_allclose(a, b, rtol=1e-12)
        before = em._iterate._cache_size()
        for rate in rates:
            last, _ = iterate(step, mixture, y, 2, learning_rate=rate)
            twice = traced(rate)
            again = step(twice, y, learning_rate=rate)
            np.testing.assert_allclose(last.means, again.means, rtol=1e-12)
        assert em._iterate._cache_size() == before + 1


@pytest.mark.parametrize(
    ("step", "options", "message"),
    [
        (em.natural_gradient_em_step, {"learning_rate": 2.0}, "learning_rate must be above 0"),
        (em.gradient_em_step, {"learning_rate": -1.0}, "learning_rate must be positive"),
        (em.em_step, {"min_scale": -1.0}, "min_scale must be at least 0"),
    ],
)
def test_iterate_checks_the_options_of_its_step(step: Any, options: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        iterate(step, start(), data(20), 3, **options)


@pytest.mark.parametrize("kind", [np.float64, jnp.float64, float])
@pytest.mark.parametrize(
    ("step", "name"),
    [
        (em.gradient_em_step, "learning_rate"),
        (em.natural_gradient_em_step, "learning_rate"),
        (em.em_step, "min_scale"),
    ],
)
def test_options_do_not_change_the_precision(step: Any, name: str, kind: Any) -> None:
    mixture = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), start())
    y, options = data(20).astype(np.float32), {name: kind(0.1)}
    for result in (step(mixture, y, **options), iterate(step, mixture, y, 2, **options)[0]):
        assert {leaf.dtype for leaf in jax.tree.leaves(result)} == {np.dtype(np.float32)}


@pytest.mark.parametrize("steps", [2.5, -1, True, "3"])
def test_the_number_of_steps_is_a_whole_number(steps: Any) -> None:
    with pytest.raises(ValueError, match="num_steps must be"):
        iterate(em.em_step, start(), data(20), steps)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_data_that_are_not_finite_are_refused(value: float) -> None:
    y = data(20)
    y[3, 1] = value
    for call in (em.em_step, partial(iterate, em.em_step, num_steps=2)):
        with pytest.raises(ValueError, match=r"y must be finite, got (nan|inf) at \(3, 1\)"):
            call(start(), y=y)
