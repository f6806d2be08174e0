"""The claims of the page on natural gradient descent, against independent references."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.scipy.special import gammaln
from matplotlib import pyplot as plt
from scipy import integrate, optimize, special, stats

from ngem_tutorial.figures import natural_gradient_descent as draw
from ngem_tutorial.figures import style
from ngem_tutorial.fisher import categorical_fisher, gaussian_fisher

pytestmark = pytest.mark.usefixtures("x64")


def gaussian_matrix(scale: float, coordinate: Any = "scale") -> np.ndarray:
    """The package's Fisher matrix of (mean, scale) or (mean, log scale)."""
    block = gaussian_fisher(jnp.asarray(scale), coordinate)
    return np.diag([float(block.means), float(block.scales)])


def order(errors: Any) -> float:
    """Slope in a log-log plot if the step halves from one error to the next."""
    return float(np.log2(errors[-2] / errors[-1]))


# --- Definition and forms ------------------------------------------------------------------

NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(20)


@pytest.mark.claim("def-fisher")
@settings(deadline=None, max_examples=15)
@given(mean=st.floats(-5, 5), log_scale=st.floats(-4, 4))
def test_fisher_matrix_is_the_variance_of_the_score(mean: float, log_scale: float) -> None:
    """Exact by Gauss-Hermite quadrature: the score of a Gaussian is quadratic in the target."""
    scale = float(np.exp(log_scale))
    y = mean + scale * NODES

    def score(coordinate: str) -> np.ndarray:
        def log_prob(v: jax.Array, y: jax.Array) -> jax.Array:
            return dist.Normal(v[0], v[1] if coordinate == "scale" else jnp.exp(v[1])).log_prob(y)

        point = jnp.array([mean, scale if coordinate == "scale" else log_scale])
        return np.asarray(jax.vmap(jax.grad(log_prob), (None, 0))(point, jnp.asarray(y)))

    for coordinate in ("scale", "log_scale"):
        s = score(coordinate)
        weights = WEIGHTS / WEIGHTS.sum()
        unit = np.sqrt(np.diag(gaussian_matrix(scale, coordinate)))
        np.testing.assert_allclose(weights @ s / unit, 0, atol=1e-10)
        second = np.einsum("n,ni,nj->ij", weights, s, s) / np.outer(unit, unit)
        np.testing.assert_allclose(second, np.eye(2), atol=1e-10)


FAMILIES: dict[str, tuple[Callable[..., Any], tuple[float, ...], tuple[float, float]]] = {
    "logistic": (lambda a, b: dist.Logistic(a, b), (0.3, 0.8), (-60, 60)),
    "student": (lambda a, b: dist.StudentT(5.0, a, b), (0.3, 0.8), (-np.inf, np.inf)),
    "gamma": (lambda a, b: dist.Gamma(a, b), (2.5, 1.5), (0, np.inf)),
    "gumbel": (lambda a, b: dist.Gumbel(a, b), (0.3, 0.8), (-15, 60)),
}
# From the literature: location-scale families have F / scale^2 with these entries.
KNOWN = {
    "logistic": np.diag([1 / 3, (np.pi**2 + 3) / 9]) / 0.8**2,
    "student": np.diag([6 / 8, 2 * 5 / 8]) / 0.8**2,
    "gumbel": np.array([[1, -(1 - np.euler_gamma)], [0, np.pi**2 / 6 + (1 - np.euler_gamma) ** 2]])
    / 0.8**2,
}
KNOWN["gumbel"][1, 0] = KNOWN["gumbel"][0, 1]


@pytest.mark.claim("prop-fisher-forms")
@pytest.mark.parametrize("name", FAMILIES)
def test_score_and_hessian_form_agree(name: str) -> None:
    family, parameters, support = FAMILIES[name]
    point = jnp.array(parameters)

    def log_prob(v: jax.Array, y: jax.Array) -> jax.Array:
        return family(v[0], v[1]).log_prob(y)

    @jax.jit
    def integrand(y: jax.Array) -> jax.Array:
        p = jnp.exp(log_prob(point, y))
        s = jax.grad(log_prob)(point, y)
        h = jax.hessian(log_prob)(point, y)
        return p * jnp.concatenate([s, jnp.outer(s, s).ravel(), -h.ravel()])

    values, _ = integrate.quad_vec(
        lambda y: np.asarray(integrand(y)), *support, epsabs=1e-10, epsrel=1e-10
    )
    np.testing.assert_allclose(values[:2], 0, atol=1e-7)
    variance, hessian = values[2:6].reshape(2, 2), values[6:].reshape(2, 2)
    np.testing.assert_allclose(variance, hessian, atol=1e-7)
    assert np.linalg.eigvalsh(variance).min() > 0
    if name in KNOWN:
        np.testing.assert_allclose(variance, KNOWN[name], atol=1e-7)


@pytest.mark.claim("prop-fisher-forms")
def test_forms_disagree_without_the_conditions() -> None:
    """Laplace: the Hessian is zero almost everywhere, the variance of the score is one."""
    y = jnp.linspace(-3.05, 3.05, 40)

    def log_prob(m: jax.Array, y: jax.Array) -> jax.Array:
        return dist.Laplace(m, 1.0).log_prob(y)

    assert jnp.all(jax.vmap(jax.grad(jax.grad(log_prob)), (None, 0))(0.0, y) == 0)
    assert jnp.all(jax.vmap(jax.grad(log_prob), (None, 0))(0.0, y) ** 2 == 1)
    # The divergence sides with the variance. Its value on the page is that of the integral.
    for delta in (0.5, 0.01):
        integral, _ = integrate.quad(
            lambda y, d: stats.laplace.pdf(y) * (abs(y - d) - abs(y)),
            -40, 40, args=(delta,), points=[0, delta],
        )  # fmt: skip
        assert integral == pytest.approx(delta + np.exp(-delta) - 1, abs=1e-9)
    assert integral / (0.5 * delta**2) == pytest.approx(1, abs=0.01)


# --- Expansion of the divergence -----------------------------------------------------------


def gaussian_kl(p: jax.Array, q: jax.Array) -> jax.Array:
    """Of (mean, scale), from numpyro."""
    return dist.kl_divergence(dist.Normal(p[0], p[1]), dist.Normal(q[0], q[1]))


def categorical_kl(p: np.ndarray, q: np.ndarray) -> float:
    """Of logits, from scipy."""
    return float(stats.entropy(np.exp(p), np.exp(q)))


@pytest.mark.claim("prop-kl-expansion")
@settings(deadline=None, max_examples=20)
@given(log_scale=st.floats(-3, 3), angle=st.floats(-1.5, 1.5))
def test_divergence_of_gaussians_is_quadratic_to_third_order(
    log_scale: float, angle: float
) -> None:
    scale = float(np.exp(log_scale))
    direction = scale * np.array([np.sin(angle), np.cos(angle)])
    p = jnp.array([0.4, scale])
    errors = []
    for t in (1e-2, 5e-3, 2.5e-3):
        d = t * direction
        quadratic = 0.5 * d @ gaussian_matrix(scale) @ d
        errors.append(abs(float(gaussian_kl(p, p + d)) - quadratic))
        # With a, b the steps of scale and mean in scales: -5/3 a^3 - a b^2 and higher orders.
        assert errors[-1] <= 3 * t**3
    if abs(np.cos(angle)) > 0.1:
        assert order(errors) == pytest.approx(3, abs=0.1)


@pytest.mark.claim("prop-kl-expansion")
@settings(deadline=None, max_examples=20)
@given(st.lists(st.floats(-4, 4), min_size=2, max_size=6), st.integers(0, 2**31))
def test_divergence_of_categoricals_is_quadratic_to_third_order(
    logits: list[float], seed: int
) -> None:
    p = np.array(logits)
    direction = np.random.default_rng(seed).normal(size=p.shape)
    direction /= np.linalg.norm(direction)
    fisher = np.asarray(categorical_fisher(jax.nn.softmax(p)))
    for t in (1e-1, 1e-2, 1e-3):
        d = t * direction
        # |third derivative| of the log-normaliser along a unit vector is at most 2.
        error = abs(categorical_kl(p, p + d) - 0.5 * d @ fisher @ d)
        assert error <= 2 / 6 * t**3 + 1e-14


# --- The step ------------------------------------------------------------------------------


@pytest.mark.claim("prop-ngd-step")
@settings(deadline=None, max_examples=20)
@given(st.integers(1, 6), st.floats(0.01, 10), st.integers(0, 2**31))
def test_step_solves_both_problems(size: int, beta: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    root = rng.normal(size=(size, size)) + 2 * np.eye(size)
    fisher, g = root @ root.T + 0.1 * np.eye(size), rng.normal(size=size)
    step = -beta * np.linalg.solve(fisher, g)
    # Part 1, from optimality alone: every other step is worse by its Fisher length.

    def objective(d: np.ndarray) -> float:
        return g @ d + d @ fisher @ d / (2 * beta)

    other = step + rng.normal(size=(50, size))
    worse = np.array([objective(d) - objective(step) for d in other])
    assert np.all(worse > 0)
    # Part 2: among steps of its own Fisher length none goes down as far.
    scaled = (
        other
        * np.sqrt((step @ fisher @ step) / np.einsum("ni,ij,nj->n", other, fisher, other))[:, None]
    )
    assert np.all(scaled @ g >= step @ g * (1 + 1e-12))


@pytest.mark.claim("prop-ngd-step")
def test_step_solves_the_problem_with_the_divergence_to_second_order() -> None:
    """Equation (26) of the paper by a general minimiser, against equation (31)."""
    p, g = np.array([0.3, 0.8]), np.array([0.7, -1.1])
    natural = np.linalg.solve(gaussian_matrix(0.8), g)
    gradient_of_kl = jax.jit(jax.grad(gaussian_kl, argnums=1))
    gaps = []
    for beta in (0.02, 0.01, 0.005, 0.0025):
        solution = optimize.root(
            lambda d, beta=beta: beta * g + np.asarray(gradient_of_kl(p, p + d)),
            np.zeros(2),
            tol=1e-13,
        )
        assert solution.success
        gaps.append(np.linalg.norm(solution.x + beta * natural))
    assert order(gaps) == pytest.approx(2, abs=0.1)


# --- Invariance ----------------------------------------------------------------------------

MEAN, DEVIATION = 1.0, 0.7  # of the data
COORDINATES: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "scale": (lambda v: v, lambda v: v),
    "log scale": (
        lambda v: jnp.array([v[0], jnp.exp(v[1])]),
        lambda v: np.array([v[0], np.log(v[1])]),
    ),
    "natural": (
        lambda v: jnp.array([-0.5 * v[0] / v[1], jnp.sqrt(-0.5 / v[1])]),
        lambda v: np.array([v[0] / v[1] ** 2, -0.5 / v[1] ** 2]),
    ),
    "affine": (lambda v: jnp.array([2 * v[0] - v[1], v[0] + v[1]]), lambda v: np.array(
        [(v[0] + v[1]) / 3, (2 * v[1] - v[0]) / 3]
    )),
}  # fmt: skip


def nll(v: jax.Array) -> jax.Array:
    """Mean negative log-likelihood of the data, up to a constant, of (mean, scale)."""
    return jnp.log(v[1]) + (DEVIATION**2 + (v[0] - MEAN) ** 2) / (2 * v[1] ** 2)


@functools.cache
def descent(coordinate: str, natural: bool) -> Callable[[Any], np.ndarray]:
    """The direction of descent, everything computed in the coordinate."""
    there, _ = COORDINATES[coordinate]

    @jax.jit
    def field(eta: jax.Array) -> jax.Array:
        gradient = jax.grad(lambda e: nll(there(e)))(eta)
        if not natural:
            return -gradient
        fisher = jax.hessian(lambda e: gaussian_kl(there(eta), there(e)))(eta)
        return -jnp.linalg.solve(fisher, gradient)

    return lambda eta: np.asarray(field(eta))


def step(coordinate: str, natural: bool, beta: float, start: np.ndarray) -> np.ndarray:
    """One step of descent, as (mean, scale)."""
    there, back = COORDINATES[coordinate]
    eta = back(start)
    return np.asarray(there(eta + beta * descent(coordinate, natural)(eta)))


@pytest.mark.claim("prop-invariance")
@pytest.mark.parametrize("coordinate", ["log scale", "natural", "affine"])
def test_steps_agree_between_coordinates_to_first_order(coordinate: str) -> None:
    start = np.array([-1.5, 2.0])
    rates = 0.02 * 2.0 ** -np.arange(3)
    gaps = [
        np.linalg.norm(
            step(coordinate, True, b, start) - step("scale", True, b, start)
        )
        for b in rates
    ]  # fmt: skip
    if coordinate == "affine":
        assert max(gaps) < 1e-13
    else:
        assert order(gaps) == pytest.approx(2, abs=0.05)
    gaps = [
        np.linalg.norm(step(coordinate, False, b, start) - step("scale", False, b, start))
        for b in 0.01 * rates
    ]
    assert order(gaps) == pytest.approx(1, abs=0.05)


@pytest.mark.claim("prop-invariance")
@pytest.mark.parametrize("coordinate", ["scale", "log scale", "natural"])
def test_natural_flow_is_one_in_all_coordinates(coordinate: str) -> None:
    """Against the closed form: exponential decay of the mean parameters."""
    there, back = COORDINATES[coordinate]
    start = np.array([-1.5, 2.0])
    times = np.linspace(0, 3, 7)

    def moments(v: np.ndarray) -> np.ndarray:
        return np.array([v[0], v[0] ** 2 + v[1] ** 2])

    best = moments(np.array([MEAN, DEVIATION]))
    expected = best + np.exp(-times)[:, None] * (moments(start) - best)
    for natural in (True, False):
        field = descent(coordinate, natural)
        path = integrate.solve_ivp(
            lambda _, eta, field=field: field(eta), (0, 3), back(start), t_eval=times, rtol=1e-10,
            atol=1e-12,
        ).y.T  # fmt: skip
        reached = np.array([moments(np.asarray(there(eta))) for eta in path])
        if natural:
            np.testing.assert_allclose(reached, expected, atol=1e-7)
        else:  # the plain flow is another one, so the check above can fail
            assert abs(reached - expected).max() > 0.05


# --- The empirical Fisher matrix -----------------------------------------------------------


@settings(deadline=None, max_examples=20)
@given(st.floats(-50, 50), st.floats(0.01, 3), st.integers(0, 2**31))
def test_empirical_fisher_matrix_of_a_mean(distance: float, deviation: float, seed: int) -> None:
    """It is the variance of the data plus the squared distance; the Fisher matrix is one."""
    data = deviation * np.random.default_rng(seed).normal(size=30)
    theta = data.mean() + distance
    score = jax.vmap(jax.grad(lambda m, y: dist.Normal(m, 1.0).log_prob(y)), (None, 0))(theta, data)
    assert float(jnp.mean(score**2)) == pytest.approx(data.var() + distance**2, rel=1e-9, abs=1e-12)
    assert gaussian_matrix(1.0)[0, 0] == 1.0


# --- Exponential families ------------------------------------------------------------------


def gamma_inverse(m: jax.Array) -> jax.Array:
    """(E log y, E y) to (shape, -rate), by bisection: no derivative of the map is used."""
    m = np.asarray(m)

    def gap(log_a: float) -> float:
        return log_a - special.digamma(np.exp(log_a)) - (np.log(m[1]) - m[0])

    a = np.exp(optimize.brentq(gap, -5, 12, xtol=1e-15, rtol=1e-15))
    return np.array([a, -a / m[1]])


EXPONENTIAL: dict[str, tuple[Callable[..., Any], ...]] = {
    "gaussian": (
        lambda s: -(s[0] ** 2) / (4 * s[1]) - 0.5 * jnp.log(-2 * s[1]),
        lambda m: np.array([m[0], -0.5]) / (m[1] - m[0] ** 2),
        lambda r: np.array([r.normal(), -0.5 * np.exp(r.normal())]),
        lambda s: stats.norm(-0.5 * s[0] / s[1], np.sqrt(-0.5 / s[1])),
        lambda y: np.stack([y, y**2]),
    ),
    "categorical": (
        lambda s: jnp.log1p(jnp.exp(s).sum()),
        lambda m: np.log(m) - np.log1p(-m.sum()),
        lambda r: r.normal(size=r.integers(1, 6)),
        lambda s: None,
        lambda y: y,
    ),
    "poisson": (
        lambda s: jnp.exp(s).sum(),
        np.log,
        lambda r: r.normal(size=1),
        lambda s: stats.poisson(np.exp(s[0])),
        lambda y: np.stack([y]),
    ),
    "gamma": (
        lambda s: gammaln(s[0]) - s[0] * jnp.log(-s[1]),
        gamma_inverse,
        lambda r: np.array([1 + np.exp(r.normal()), -np.exp(r.normal())]),
        lambda s: stats.gamma(s[0], scale=-1 / s[1]),
        lambda y: np.stack([np.log(y), y]),
    ),
}


def any_loss(s: Any) -> jax.Array:
    """Without relation to any family."""
    return jnp.sum(jnp.sin(1.3 * s)) + jnp.prod(s) + s[0] ** 3


@pytest.mark.claim("prop-expfam-duality")
@pytest.mark.parametrize("name", EXPONENTIAL)
@pytest.mark.parametrize("seed", range(3))
def test_natural_gradient_is_the_plain_one_in_mean_parameters(name: str, seed: int) -> None:
    """Against central differences through an inverse map that knows no Fisher matrix."""
    log_normaliser, inverse, draw_point, _, _ = EXPONENTIAL[name]
    point = draw_point(np.random.default_rng(seed))
    m = np.asarray(jax.grad(log_normaliser)(point))
    np.testing.assert_allclose(inverse(m), point, rtol=1e-9)
    fisher = np.asarray(jax.hessian(log_normaliser)(jnp.asarray(point)))
    natural = np.linalg.solve(fisher, jax.grad(any_loss)(jnp.asarray(point)))
    plain = np.zeros_like(m)
    for i in range(len(m)):
        h = 1e-5 * max(1e-2, abs(m[i])) * np.eye(len(m))[i]
        if name == "gaussian":
            h = 1e-2 * h  # the variance is a difference of moments
        plain[i] = (any_loss(inverse(m + h)) - any_loss(inverse(m - h))) / (2 * h[i])
    np.testing.assert_allclose(plain, natural, rtol=1e-4, atol=1e-4 * abs(natural).max())


@pytest.mark.claim("prop-expfam-duality")
@pytest.mark.parametrize("name", ["gaussian", "poisson", "gamma"])
def test_fisher_matrix_is_the_covariance_of_the_statistics(name: str) -> None:
    """And the mean parameters are their means: moments from scipy's quantiles and sums."""
    log_normaliser, _, draw_point, density, statistics = EXPONENTIAL[name]
    point = draw_point(np.random.default_rng(3))
    model = density(point)
    if name == "poisson":
        y = np.arange(0, 400)
        weights = model.pmf(y)
    else:  # the tanh-sinh rule in the probability
        t = np.linspace(-3.2, 3.2, 4001)
        u = np.pi / 2 * np.sinh(t)
        weights = (t[1] - t[0]) * np.pi / 2 * np.cosh(t) / (2 * np.cosh(u) ** 2)
        y = np.where(u < 0, model.ppf(1 / (1 + np.exp(-2 * u))), model.isf(1 / (1 + np.exp(2 * u))))
    values = statistics(y)
    mean = values @ weights
    centred = values - mean[:, None]
    covariance = (centred * weights) @ centred.T
    np.testing.assert_allclose(jax.grad(log_normaliser)(jnp.asarray(point)), mean, rtol=1e-6)
    fisher = jax.hessian(log_normaliser)(jnp.asarray(point))
    np.testing.assert_allclose(fisher, covariance, rtol=1e-6)


@pytest.mark.claim("prop-expfam-duality")
def test_one_step_in_mean_parameters_is_maximum_likelihood() -> None:
    """Of Gamma data, against scipy's fit: the Fisher matrix of m is inverted numerically."""
    data = np.random.default_rng(0).gamma(2.5, 1 / 1.5, size=200)
    log_normaliser = EXPONENTIAL["gamma"][0]
    start = jnp.array([1.5, -1.0])
    average = jnp.array([np.log(data).mean(), data.mean()])
    gradient = jax.grad(lambda s: log_normaliser(s) - s @ average)(start)
    fisher_of_m = np.linalg.inv(jax.hessian(log_normaliser)(start))
    gradient_of_m = fisher_of_m @ gradient  # the chain rule
    m = jax.grad(log_normaliser)(start) - np.linalg.solve(fisher_of_m, gradient_of_m)
    shape, _, scale = stats.gamma.fit(data, floc=0)
    np.testing.assert_allclose(gamma_inverse(m), [shape, -1 / scale], rtol=1e-5)


# --- Figures -------------------------------------------------------------------------------


def test_fisher_circles_have_the_right_shape() -> None:
    """All points of an ellipse are at the same quadratic divergence from its centre."""
    path = np.tile([0.0, 1.0], (5, 1))
    figure = draw.half_plane(
        {"a": [path], "b": [path]}, [1], (0.0, 1.0), [(0.5, 2.0), (-1.0, 0.4)], radius=0.01
    )
    patches = figure.axes[0].patches
    assert len(patches) == 2
    for ellipse, scale in zip(patches, (2.0, 0.4), strict=True):
        away = ellipse.get_patch_transform().transform(np.array([[1.0, 0], [0, 1], [0.6, 0.8]]))
        away -= np.asarray(ellipse.center)
        length = 0.5 * (away**2) @ np.array([1, 2]) / scale**2
        np.testing.assert_allclose(length, 0.01, rtol=1e-6)
    assert figure.axes[0].lines[0].get_color() == style.PALETTE["NLL"]
    assert figure.axes[1].lines[0].get_color() == style.PALETTE["damped nGEM"]
    plt.close(figure)
