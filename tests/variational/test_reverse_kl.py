"""The claims of the page on fitting to a density, against quadrature by scipy."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib import pyplot as plt
from scipy import integrate, optimize, stats

from ngem_tutorial.components import FullGaussianMixture
from ngem_tutorial.figures import reverse_kl as draw
from ngem_tutorial.vi import fit_density

Density = Callable[[float], float]


def mixture(weights: list[float], means: list[float], scales: list[float]) -> Density:
    return lambda x: float(np.dot(weights, stats.norm.pdf(x, means, scales)))


def integral(f: Density, low: float = -15.0, high: float = 15.0) -> float:
    edges = np.linspace(low, high, 13)
    parts = [integrate.quad(f, a, b, limit=200)[0] for a, b in itertools.pairwise(edges)]
    return float(np.sum(parts))


def kl(a: Density, b: Density) -> float:
    return integral(lambda x: a(x) * np.log(a(x) / b(x)))


def coin(a: float, b: float) -> float:
    return float(stats.entropy([a, 1 - a], [b, 1 - b]))


P = mixture([0.6, 0.4], [-2.0, 2.5], [0.7, 1.0])
Q = mixture([0.3, 0.7], [-1.0, 2.0], [0.8, 1.5])


@pytest.mark.claim("prop-vi-elbo")
@pytest.mark.parametrize("tau", [0.5, 1.0, 3.0])
def test_elbo_is_a_constant_minus_the_divergence(tau: float) -> None:
    factor = np.exp(1.7)
    elbo = integral(lambda x: Q(x) * (np.log(factor * P(x)) - tau * np.log(Q(x))))
    z = integral(lambda x: (factor * P(x)) ** (1 / tau))
    divergence = kl(Q, lambda x: (factor * P(x)) ** (1 / tau) / z)
    assert elbo == pytest.approx(tau * np.log(z) - tau * divergence, abs=1e-7)
    assert elbo < tau * np.log(z)


@pytest.mark.claim("prop-vi-elbo")
def test_best_gaussian_at_a_temperature_has_a_multiple_of_the_covariance() -> None:
    covariance = jnp.array([[2.0, 0.6], [0.6, 0.5]])
    precision = jnp.linalg.inv(covariance)
    fit = fit_density(
        lambda x: -0.5 * x @ precision @ x, 2, key=jax.random.key(1), num_iterations=100,
        temperature=2.0, progress=False,
    )  # fmt: skip
    np.testing.assert_allclose(fit.mixture.covariance, 2.0 * covariance, atol=0.05)


@pytest.mark.claim("prop-missing-mode")
@pytest.mark.parametrize("epsilon", [0.3, 0.01])
def test_reshaping_p_attains_both_bounds_and_others_do_not(epsilon: float) -> None:
    mass = integral(P, -15.0, 0.0)

    def weighted(f: Density) -> Density:
        """The density of the shape of `f` on both sides of zero, with the mass asked for."""
        left, right = integral(f, -15.0, 0.0), integral(f, 0.0, 15.0)
        return lambda x: f(x) * (epsilon / left if x < 0 else (1 - epsilon) / right)

    # quad needs the edge at zero: it is one of the edges of `integral`.
    best = weighted(P)
    assert kl(best, P) == pytest.approx(coin(epsilon, mass), abs=1e-7)
    assert kl(P, best) == pytest.approx(coin(mass, epsilon), abs=1e-7)
    other = weighted(Q)
    assert kl(other, P) > coin(epsilon, mass) + 0.01
    assert kl(P, other) > coin(mass, epsilon) + 0.01


@pytest.mark.claim("prop-missing-mode")
def test_no_discrete_distribution_does_better() -> None:
    """By a numerical optimizer over all distributions of five points, two of them in `A`."""
    p, epsilon = np.array([0.1, 0.2, 0.3, 0.25, 0.15]), 0.05

    def q(logits: np.ndarray) -> np.ndarray:
        inside, outside = np.exp(logits[:2]), np.exp(logits[2:])
        return np.concatenate(
            [epsilon * inside / inside.sum(), (1 - epsilon) * outside / outside.sum()]
        )

    for divergence, least in (
        (lambda v: stats.entropy(q(v), p), coin(epsilon, 0.3)),
        (lambda v: stats.entropy(p, q(v)), coin(0.3, epsilon)),
    ):
        found = optimize.minimize(divergence, np.array([1.0, -1.0, 0.5, 0.0, 2.0]))
        assert found.fun == pytest.approx(least, abs=1e-8)


@pytest.mark.claim("prop-missing-mode")
def test_limits_of_a_mode_that_vanishes() -> None:
    reverse = np.array([coin(e, 0.3) for e in (0.3, 0.1, 1e-2, 1e-4, 1e-8)])
    forward = np.array([coin(0.3, e) for e in (1e-2, 1e-4, 1e-6)])
    assert np.all(np.diff(reverse) > 0)
    assert reverse[-1] == pytest.approx(-np.log(0.7), abs=1e-6)
    assert reverse[-1] < -np.log(0.7)
    np.testing.assert_allclose(np.diff(forward), 0.3 * np.log(100.0), rtol=0.02)


@pytest.mark.claim("prop-missing-mode")
@pytest.mark.parametrize("number", [2, 3, 5])
def test_missing_component_costs_at_most_the_logarithm(number: int) -> None:
    costs = []
    for apart in (0.5, 1.5, 4.0):
        means = list(apart * (np.arange(number) - 0.5 * (number - 1)))
        scales = [0.3] * number
        whole = mixture([1 / number] * number, means, scales)
        part = mixture([1 / (number - 1)] * (number - 1), means[1:], scales[1:])
        costs.append(
            integral(lambda x, q=part, p=whole: q(x) * np.log((q(x) + 1e-300) / (p(x) + 1e-300)))
        )
    limit = np.log(number / (number - 1))
    assert np.all(np.array(costs) <= limit + 1e-8)
    assert costs[0] < limit - 0.01
    assert costs[-1] == pytest.approx(limit, abs=1e-5)


def test_figures() -> None:
    grid, target = np.linspace(-1, 1, 5), np.ones(5)
    rows = {("reverse", "a"): np.ones((2, 5)), ("forward", "b"): 2 * np.ones((2, 5))}
    figure = draw.frames(grid, target, rows, (0, 3))
    first, second = figure.axes[0].lines[0], figure.axes[2].lines[0]
    assert (first.get_linestyle(), second.get_linestyle()) == ("-", "--")
    assert first.get_color() != second.get_color()
    assert [axis.texts[0].get_text() for axis in figure.axes[:2]] == ["start", "3 updates"]
    assert figure.axes[0].get_ylim()[1] > 2  # nothing is cut off
    plt.close(figure)
    figure = draw.missing_mode([0.01, 0.1], [0.2, 0.0], [0.3, 0.0], 0.25, 0.1)
    np.testing.assert_allclose(figure.axes[0].lines[0].get_ydata(), [0.3, 0.0])
    plt.close(figure)
    covariance = np.array([[2.0, 0.6], [0.6, 0.5]])
    fit = FullGaussianMixture.from_covariances([0.0], [[0.5, -1.0]], covariance[None])
    figure = draw.plane((grid, grid), np.eye(5), {"fit": fit})
    for ellipse, radius in zip(figure.axes[0].patches, (1.0, 2.0), strict=True):
        away = ellipse.get_patch_transform().transform(np.array([[1.0, 0], [0, 1], [0.6, 0.8]]))
        away -= np.array([0.5, -1.0])
        square = np.einsum("ni,ij,nj->n", away, np.linalg.inv(covariance), away)
        np.testing.assert_allclose(square, radius**2, rtol=1e-5)
    plt.close(figure)


def test_one_gaussian_has_two_minima_and_none_on_the_right_mode() -> None:
    """What the page says of the ends of its updates, by another optimiser and quadrature."""
    nodes = np.linspace(-9.0, 9.0, 801)
    weights = stats.norm.pdf(nodes) * (nodes[1] - nodes[0])

    def log_p(x: np.ndarray) -> np.ndarray:
        left = np.log(0.6) + stats.norm.logpdf(x, -2.0, 0.7)
        return np.logaddexp(left, np.log(0.4) + stats.norm.logpdf(x, 2.5, 1.0))

    def reverse(parameters: np.ndarray) -> float:
        mean, scale = parameters[0], np.exp(parameters[1])
        x = mean + scale * nodes
        return float(weights @ (stats.norm.logpdf(x, mean, scale) - log_p(x)))

    ends = {}
    for mean, scale in itertools.product((-2.0, -0.3, 0.0, 2.5, 4.0), (0.7, 1.5)):
        found = optimize.minimize(reverse, [mean, np.log(scale)], method="BFGS", tol=1e-7)
        key = round(float(found.x[0]), 2), round(float(np.exp(2.0 * found.x[1])), 2)
        ends[key] = found.fun
    assert {k: round(v, 2) for k, v in ends.items()} == {(-1.98, 0.53): 0.50, (0.48, 4.44): 0.66}
    mean, scale = 0.48128698, np.sqrt(4.43595261)
    forward = kl(P, lambda x: float(stats.norm.pdf(x, mean, scale)))
    assert forward == pytest.approx(0.48, abs=0.005)
