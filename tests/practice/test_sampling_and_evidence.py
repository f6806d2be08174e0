"""The page on sampling and evidence: its claim, its functions and its pictures."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import jupytext
import matplotlib.pyplot as plt
import numpy as np
import pytest
from scipy import integrate, stats

from ngem_tutorial.components import FullGaussianMixture
from ngem_tutorial.figures import sampling_and_evidence as draw
from ngem_tutorial.vi import diagnose, fit_density, initial_mixture
from ngem_tutorial.vi.targets import funnel

PAGE = Path(__file__).resolve().parents[2] / "book/practice/sampling_and_evidence.md"
KEY = jax.random.key(0)


@functools.cache
def cells() -> list[str]:
    page = jupytext.read(PAGE, fmt="md:myst")
    return [cell.source for cell in page.cells if cell.cell_type == "code"]


def of_the_page(start: str, before: str, **names: Any) -> dict[str, Any]:
    """What the beginning of a cell defines, after the imports of the page."""
    imports = next(cell for cell in cells() if cell.startswith("import itertools"))
    cell = next(cell for cell in cells() if cell.startswith(start))
    scope = dict(names)
    exec(imports, scope)
    exec(cell.partition(before)[0], scope)
    return scope


def between(s: float) -> tuple[float, float]:
    """E_q[w] and E_q[(p/q)^2] for p = N(0, 1), q = N(0, s^2), by quadrature."""
    p, q = stats.norm(0, 1).pdf, stats.norm(0, s).pdf
    first = integrate.quad(lambda x: 2.5 * p(x) / q(x) * q(x), -12, 12)[0]
    second = integrate.quad(lambda x: p(x) ** 2 / q(x), -12, 12)[0]
    return first, second


@pytest.mark.claim("prop-evidence")
@pytest.mark.parametrize("s", [0.9, 1.0, 1.5, 3.0])
def test_moments_of_the_weights(s: float) -> None:
    """By quadrature, by the closed form of the exercise, and by `diagnose`."""
    first, second = between(s)
    assert first == pytest.approx(2.5)
    assert second == pytest.approx(s**2 / math.sqrt(2 * s**2 - 1), rel=1e-6)
    q = FullGaussianMixture.from_covariances([0.0], [[0.0]], [[[s**2]]])
    n = 40_000
    found = diagnose(q, lambda x: math.log(2.5) + jax.scipy.stats.norm.logpdf(x[0]), KEY, n)
    error = math.sqrt((second - 1) / n) + 1e-6
    assert abs(found.log_evidence - math.log(2.5)) < 4.5 * error
    assert found.effective_number / n == pytest.approx(1 / second, rel=0.05)


@pytest.mark.claim("prop-evidence")
def test_the_mean_log_rises_to_the_log_evidence() -> None:
    """All samples of three points, with their probabilities; n = 1 is the ELBO."""
    q, p = np.array([0.6, 0.3, 0.1]), np.array([0.1, 0.2, 0.7])
    w = 3.0 * p / q
    means = []
    for n in (1, 2, 3, 6, 9):
        samples = np.array(list(itertools.product(range(3), repeat=n)))
        means.append(np.prod(q[samples], axis=1) @ np.log(w[samples].mean(axis=1)))
    assert means[0] == pytest.approx(np.log(3.0) - stats.entropy(q, p))
    assert np.all(np.diff(means) > 0)
    assert means[-1] < np.log(3.0)


@pytest.mark.claim("prop-evidence")
@pytest.mark.parametrize("m", [0.1, 0.25, 0.6])
def test_a_region_that_q_does_not_visit_is_missing_and_not_noticed(m: float) -> None:
    """Two far Gaussians, of which q is one: the weights are all alike."""

    def log_density(x: jax.Array) -> jax.Array:
        places = jax.scipy.stats.norm.logpdf(x[0], jnp.array([0.0, 60.0]))
        return jax.nn.logsumexp(places + jnp.log(jnp.array([1 - m, m])))

    found = diagnose(initial_mixture(KEY, 1, spread=0.0), log_density, KEY, 1000)
    assert found.log_evidence == pytest.approx(np.log(1 - m), abs=1e-4)
    assert found.log_evidence_error < 1e-4
    assert found.pareto_k < 0.7
    assert found.effective_number == pytest.approx(1000, rel=1e-3)


def test_evidence_of_a_numpyro_model_with_a_closed_form() -> None:
    """Linear regression with a normal prior, and a positive parameter that integrates out."""
    numpyro = pytest.importorskip("numpyro")
    from jax.flatten_util import ravel_pytree

    rng = np.random.default_rng(0)
    x = rng.normal(size=(40, 2))
    y = x @ [1.0, -0.5] + rng.normal(0, 0.7, 40)

    def model() -> None:
        slopes = numpyro.sample(
            "slopes", numpyro.distributions.Normal(0, 2.0).expand([2]).to_event(1)
        )
        numpyro.sample("unused", numpyro.distributions.HalfNormal(3.0))
        numpyro.sample("y", numpyro.distributions.Normal(x @ slopes, 0.7), obs=y)

    posterior = numpyro.infer.util.initialize_model(KEY, model)
    flat, unravel = ravel_pytree(posterior.param_info.z)

    def log_density(v: jax.Array) -> jax.Array:
        return -posterior.potential_fn(unravel(v))

    fit = fit_density(log_density, flat.size, key=KEY, num_iterations=100)
    found = diagnose(fit.mixture, log_density, jax.random.key(1), 20_000)
    covariance = 0.49 * np.eye(40) + 4.0 * x @ x.T
    truth = stats.multivariate_normal(np.zeros(40), covariance).logpdf(y)
    assert abs(found.log_evidence - truth) < max(0.01, 4.5 * found.log_evidence_error)


def test_bridge_and_laplace_of_the_page() -> None:
    """Of a Gaussian both are exact; of draws of a skewed density bridge sampling still is."""
    pytest.importorskip("numpyro")
    pytest.importorskip("sklearn")
    scope = of_the_page("def laplace", "peak, _")
    bridge = of_the_page("def bridge", "def unconstrained")["bridge"]
    root = np.array([[1.5, 0.0], [0.7, 0.4]])
    inverse = jnp.asarray(np.linalg.inv(root), jnp.float32)
    log_z = math.log(2 * math.pi * 1.5 * 0.4)
    rng = np.random.default_rng(1)
    draws = rng.normal(size=(4, 1000, 2)) @ root.T

    def gauss(x: jax.Array) -> jax.Array:
        return -0.5 * jnp.sum((inverse @ x) ** 2)

    assert bridge(gauss, draws, 0)[0] == pytest.approx(log_z, abs=0.01)
    q, found = scope["laplace"](gauss, np.array([0.5, -0.3]))
    assert found == pytest.approx(log_z, abs=1e-4)
    np.testing.assert_allclose(q.covariance, root @ root.T, rtol=1e-3)

    def gamma(x: jax.Array) -> jax.Array:
        """The logarithms of gamma variables of the shapes 3 and 2, with the density times 5."""
        return jnp.log(5.0) + jnp.sum(jnp.array([3.0, 2.0]) * x - jnp.exp(x))

    draws = np.log(rng.gamma([3.0, 2.0], size=(4, 1000, 2)))
    value, error = bridge(gamma, draws, 0)
    truth = math.log(5.0) + math.lgamma(3.0) + math.lgamma(2.0)
    assert abs(value - truth) < 4.5 * error
    assert 1e-4 < error < 0.02
    assert abs(scope["laplace"](gamma, np.zeros(2))[1] - truth) > 4.5 * error


def test_the_arm_has_four_solutions_and_the_mixture_their_weights() -> None:
    """Against the integral over each solution by scipy, from a starting point of our own."""
    pytest.importorskip("numpyro")
    pytest.importorskip("sklearn")
    scope = of_the_page("GOALS =", "arm_fit =")
    arm: Callable[[jax.Array], jax.Array] = scope["arm"]

    def plain(b: float, a: float) -> float:
        end = np.array([np.cos(a) + np.cos(a + b), np.sin(a) + np.sin(a + b)])
        missed = np.sum((end - np.array([[1.2, 0.6], [-0.3, 1.4]])) ** 2, axis=1)
        return float(np.exp(-missed / 0.02).sum() * np.exp(-0.5 * (a**2 + b**2)))

    point = jnp.array([0.3, 1.1])
    assert float(arm(point)) == pytest.approx(np.log(plain(1.1, 0.3)), abs=1e-4)
    line = np.linspace(-4.5, 4.5, 451)
    heights = np.array([[plain(b, a) for a in line] for b in line])
    points = jnp.asarray(np.stack(np.meshgrid(line, line), axis=-1).reshape(-1, 2))
    exact = np.bincount(scope["which"](points), heights.ravel(), 4) / heights.sum()
    assert exact.min() > 0.01
    fit = fit_density(arm, 2, key=jax.random.key(7), num_iterations=200)
    found = diagnose(fit.mixture, arm, KEY, 20_000)
    w = np.asarray(jax.nn.softmax(found.log_weights), float)
    np.testing.assert_allclose(np.bincount(scope["which"](found.x), w, 4), exact, atol=0.02)
    z = integrate.simpson(integrate.simpson(heights, x=line), x=line)
    assert found.log_evidence == pytest.approx(np.log(z), abs=0.01)


def test_the_funnel_is_a_normal_density_in_other_parameters() -> None:
    pytest.importorskip("numpyro")
    pytest.importorskip("sklearn")
    cell = next(cell for cell in cells() if cell.startswith("target = funnel"))
    scope: dict[str, Any] = {"jax": jax, "jnp": jnp, "target": funnel(10)}
    exec(cell[cell.index("def other_parameters") :].partition("start =")[0], scope)
    for v in np.random.default_rng(2).normal(size=(5, 10)).astype(np.float32):
        wanted = stats.norm.logpdf(v).sum()
        assert float(scope["other_parameters"](jnp.asarray(v))) == pytest.approx(wanted, abs=1e-3)


def test_tails_of_a_student_in_other_parameters() -> None:
    """The exercise: after sinh still heavier than any Gaussian, by distribution functions not."""
    nu, v = 3.0, np.array([8.0, 12.0])
    by_sinh = stats.t.logpdf(np.sinh(v), nu) + np.log(np.cosh(v))
    assert np.diff(by_sinh)[0] / np.diff(v)[0] == pytest.approx(-nu, rel=1e-3)
    # A target with these tails and another middle.
    v = np.linspace(-8.0, -4.0, 9)
    x = stats.t.ppf(stats.norm.cdf(v), nu)
    stretch = stats.norm.logpdf(v) - stats.t.logpdf(x, nu)
    target = np.logaddexp(stats.t.logpdf(x, nu), stats.norm.logpdf(x)) + stretch
    ratio = target - stats.norm.logpdf(v, 0.0, 1.5)
    assert np.all(np.diff(ratio) > 0)  # the weight falls outwards: it is bounded
    assert ratio[0] < ratio[-1] - 5


def test_the_recipe_for_blackjax() -> None:
    pytest.importorskip("blackjax")
    pytest.importorskip("numpyro")
    pytest.importorskip("sklearn")
    sample = of_the_page("def sample_with_blackjax", "chains = sample")["sample_with_blackjax"]
    mixture = initial_mixture(KEY, 2, spread=0.0)
    chains = sample(lambda x: -0.5 * jnp.sum((x - 1.0) ** 2 / 4.0), mixture, KEY, 4, 500)
    assert chains.shape == (4, 500, 2)
    np.testing.assert_allclose(chains.mean((0, 1)), 1.0, atol=0.4)
    np.testing.assert_allclose(chains.std((0, 1)), 2.0, atol=0.4)


def test_figures() -> None:
    pairs = {"a": (np.arange(3.0), np.arange(3.0) + 1), "b": (np.ones((2, 2)), np.zeros((2, 2)))}
    figure = draw.agreement(pairs, ("one", "other"))
    first, second = figure.axes
    np.testing.assert_allclose(first.lines[1].get_ydata(), [1, 2, 3])
    assert (first.get_xlabel(), first.get_ylabel()) == ("one", "other")
    assert len(second.lines[1].get_xdata()) == 4
    plt.close(figure)
    # The share of larger weights of a Pareto tail is a line of the slope -1 / k.
    k = 0.5
    weights = k * -np.log((np.arange(1000) + 1.0) / 1000)
    figure = draw.weight_tails({"a": weights, "b": np.zeros(5)})
    x, share = figure.axes[0].lines[0].get_data()
    slope = np.polyfit(np.log(x[:500]), np.log(share[:500]), 1)[0]
    assert slope == pytest.approx(-1 / k, rel=1e-3)
    assert len(figure.axes[0].get_legend().get_texts()) == 2
    plt.close(figure)
    line = np.linspace(-1, 1, 21)
    height = np.exp(-10 * np.add.outer(line**2, line**2))
    figure = draw.solutions(
        line, height, height, np.zeros((3, 5, 2)), np.ones((2, 3, 2)), np.zeros((1, 2))
    )
    arm, _, chains = figure.axes
    assert len(arm.lines) == 3  # two arms and the goals
    assert arm.lines[0].get_color() != arm.lines[1].get_color()
    assert [len(line.get_xdata()) for line in chains.lines] == [5, 5, 5]
    plt.close(figure)
    values = np.array([-0.95, 0.0, 0.0, 0.95])
    samples = {"equal": (values, None), "weighted": (values, np.array([1.0, 0.0, 0.0, 0.0]))}
    figure = draw.marginals(line, np.ones(21), samples)
    equal, weighted = figure.axes[0].patches
    for steps, left in ((equal, 0.25), (weighted, 1.0)):
        heights, edges, _ = steps.get_data()
        assert np.sum(heights * np.diff(edges)) == pytest.approx(1.0)
        assert heights[edges[:-1] < -0.5].sum() * (edges[1] - edges[0]) == pytest.approx(left)
    plt.close(figure)
