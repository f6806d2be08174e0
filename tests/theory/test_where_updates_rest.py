"""The claims of the page on what an update is and where it rests, each by another computation.

Models are written out in NumPy, JAX or SciPy; from the package comes only what a claim is about.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, linalg, optimize, special, stats

from ngem_tutorial import GaussianMixture, beta_nll, ngem, nll, variants
from ngem_tutorial.em import em_step, natural_gradient_em_step
from ngem_tutorial.fisher import complete_data_fisher_by_autodiff, complete_data_kl

Array = Any


@pytest.fixture(autouse=True, scope="module")
def _x64() -> Iterator[None]:
    with jax.enable_x64(True):
        yield


def power(matrix: Array, p: float) -> np.ndarray:
    """Of a positive semi-definite matrix, on its range."""
    values, vectors = np.linalg.eigh(np.asarray(matrix))
    kept = values > 1e-10 * values.max()
    return (vectors[:, kept] * values[kept] ** p) @ vectors[:, kept].T


def central(function: Callable[[np.ndarray], float], x: np.ndarray) -> np.ndarray:
    """Gradient by central differences."""
    steps = 1e-5 * np.eye(x.size)
    return np.array([(function(x + e) - function(x - e)) / 2e-5 for e in steps])


# ------------------------------------------------------------------ a small network, written out

K, INPUTS = 2, 4
X = np.linspace(-1.0, 1.0, INPUTS)
Y = np.array([0.3, -1.2, 0.8, 1.5])[:, None]
THETA = np.random.default_rng(1).normal(size=12) / 2


def raw(theta: Array) -> Array:
    """Logits, means and scales of each input, shape (INPUTS, 3 K)."""
    a, b = theta.reshape(2, 3 * K)
    out = a + jnp.sin(b * jnp.asarray(X)[:, None])
    return jnp.concatenate([out[:, : 2 * K], 0.3 + jax.nn.softplus(out[:, 2 * K :])], axis=1)


def to_mixture(flat: Array) -> GaussianMixture:
    psi, mu, sigma = jnp.split(flat.reshape(INPUTS, 3 * K), 3, axis=1)
    return GaussianMixture(psi, mu[..., None], sigma[..., None])


@pytest.fixture(scope="module")
def network() -> dict[str, np.ndarray]:
    """Outputs, Jacobian, Fisher matrix and plain gradient of all inputs together."""
    phi = np.asarray(raw(THETA)).ravel()
    mixture = to_mixture(jnp.asarray(phi))
    blocks = [
        np.asarray(complete_data_fisher_by_autodiff(jax.tree.map(lambda a, n=n: a[n], mixture)))
        for n in range(INPUTS)
    ]

    def loss(flat: Array) -> Array:
        return nll(to_mixture(flat), Y).sum()

    return {
        "phi": phi,
        "J": np.asarray(jax.jacfwd(lambda t: raw(t).ravel())(jnp.asarray(THETA))),
        "F": linalg.block_diag(*blocks),
        "g": np.asarray(jax.grad(loss)(jnp.asarray(phi))),
    }


@pytest.mark.claim("prop-rest-regression")
@pytest.mark.parametrize("name", ["nGEM", "NLL"])
def test_a_gradient_of_a_regression(network, name):
    """By finite differences of the squared miss, and the package's gradient of the network."""
    target = network["phi"] - power(network["F"], -1) @ network["g"]
    norm = np.eye(target.size) if name == "nGEM" else network["F"]

    def miss(theta: np.ndarray) -> float:
        v = np.asarray(raw(jnp.asarray(theta))).ravel() - target
        return 0.5 * float(v @ norm @ v)

    objective = variants.as_derived if name == "nGEM" else nll

    def loss(theta: Array) -> Array:
        return objective(to_mixture(raw(theta)), Y).sum()

    expected = np.asarray(jax.grad(loss)(jnp.asarray(THETA)))
    np.testing.assert_allclose(central(miss, THETA), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.claim("prop-rest-regression")
def test_the_natural_gradient_solves_it(network):
    """No step near the natural gradient step comes closer to the target in the Fisher norm."""
    J, F, g = (network[name] for name in "JFg")
    to_target = -power(F, -1) @ g
    step = -np.linalg.lstsq(J.T @ F @ J, J.T @ g, rcond=1e-10)[0]

    def miss(delta: np.ndarray) -> float:
        v = J @ delta - to_target
        return float(v @ F @ v)

    rng = np.random.default_rng(0)
    for scale in (1e-3, 0.1, 1.0):
        for direction in rng.normal(size=(20, step.size)):
            assert miss(step + scale * direction) >= miss(step) - 1e-10
    left = J @ step - to_target
    np.testing.assert_allclose(J.T @ F @ left, 0.0, atol=1e-8)
    euclidean = J @ -np.linalg.pinv(J) @ power(F, -1) @ g
    projected = J @ np.linalg.lstsq(J, to_target, rcond=None)[0]
    np.testing.assert_allclose(euclidean, projected, atol=1e-8)
    assert np.abs(J @ step - projected).max() > 1e-2  # the norm matters


@pytest.mark.claim("prop-rest-regression")
def test_coordinates_are_a_norm(network):
    """The update of nGEM in other coordinates is the regression with (H H^T)^-1."""
    rng = np.random.default_rng(3)
    n = 6
    H, root, J = rng.normal(size=(n, n)), rng.normal(size=(n, n)), rng.normal(size=(n, 4))
    F, g = root @ root.T, rng.normal(size=n)
    own = np.linalg.solve(H, J).T @ np.linalg.solve(H.T @ F @ H, H.T @ g)
    norm = np.linalg.inv(H @ H.T)
    np.testing.assert_allclose(own, J.T @ norm @ np.linalg.solve(F, g), rtol=1e-8)


def test_norms_of_the_table():
    """Damped and undamped nGEM are the natural step, entry by entry times the table's norm."""
    mixture = GaussianMixture([0.4, -0.3], [[0.0], [1.0]], [[0.5], [2.0]])
    y, unit, damping = jnp.array([0.7]), 0.8, 0.25
    natural = variants.as_derived.gradient(mixture, y)
    pi = mixture.weights[:, None]
    F = np.diag(mixture.weights) - np.outer(mixture.weights, mixture.weights)
    ours = jax.grad(lambda m: ngem(m, y, unit=unit, damping=damping))(mixture)
    share = pi / (pi + damping)
    np.testing.assert_allclose(ours.logits, F @ natural.logits, atol=1e-12)
    np.testing.assert_allclose(ours.means, share / unit**2 * natural.means)
    np.testing.assert_allclose(ours.scales, share / mixture.scales**2 * natural.scales)
    other = variants.undamped.gradient(mixture, y)
    np.testing.assert_allclose(other.logits, F @ natural.logits, atol=1e-12)
    np.testing.assert_allclose(other.means, natural.means)
    np.testing.assert_allclose(other.scales, natural.scales)


@pytest.mark.claim("prop-rest-twice")
def test_kfac_on_ngem_preconditions_twice(network):
    rng = np.random.default_rng(2)
    J, root, g = rng.normal(size=(5, 5)), rng.normal(size=(5, 5)), rng.normal(size=5)
    F = root @ root.T + np.eye(5)
    matrix = J.T @ F @ J
    once = linalg.cho_solve(linalg.cho_factor(F), g)
    stacked = np.linalg.solve(matrix, J.T @ once)
    np.testing.assert_allclose(F @ F @ J @ stacked, g, rtol=1e-7)
    np.testing.assert_allclose(F @ J @ np.linalg.solve(matrix, J.T @ g), g, rtol=1e-7)
    np.testing.assert_allclose(F @ J @ np.linalg.solve(J.T @ J, J.T @ once), g, rtol=1e-7)

    J, F, g = (network[name] for name in "JFg")
    inverse = power(F, -1)
    stacked = -np.linalg.lstsq(J.T @ F @ J, J.T @ inverse @ g, rcond=1e-10)[0]
    left = J @ stacked + inverse @ inverse @ g
    np.testing.assert_allclose(J.T @ F @ left, 0.0, atol=1e-7)


@pytest.mark.claim("prop-rest-twice")
def test_the_optimizers_matrix_is_the_gauss_newton_matrix(network):
    """J^T F J is the Hessian of the complete-data divergence of the network's outputs."""
    start = to_mixture(jnp.asarray(network["phi"]))

    def divergence(theta: Array) -> Array:
        return complete_data_kl(start, to_mixture(raw(theta))).sum()

    hessian = jax.hessian(divergence)(jnp.asarray(THETA))
    expected = network["J"].T @ network["F"] @ network["J"]
    np.testing.assert_allclose(hessian, expected, atol=1e-8)


# ------------------------------------------------------------------------------ where it rests


def solve(features: np.ndarray, sigma: np.ndarray, y: np.ndarray, p: float) -> np.ndarray:
    """Where F^-p rests for means `features @ theta` of known scales, by SciPy's root finder."""

    def equation(theta: np.ndarray) -> np.ndarray:
        plain = (features @ theta - y) / sigma**2
        return features.T @ (sigma ** (2 * p) * plain)

    found = optimize.root(equation, np.zeros(features.shape[1]), tol=1e-12)
    assert np.abs(equation(found.x)).max() < 1e-6
    return found.x


@pytest.mark.claim("prop-rest-where")
@pytest.mark.parametrize("rich", [True, False])
def test_only_a_rich_network_rests_where_the_likelihood_does(rich):
    rng = np.random.default_rng(5)
    x = np.repeat([0.0, 1.0, 2.0], 10)
    sigma = np.repeat([0.2, 1.0, 3.0], 10)
    y = rng.normal(size=30) * sigma
    features = np.vander(x, 3 if rich else 2)
    fits = [features @ solve(features, sigma, y, p) for p in (0.0, 1.0)]
    assert (np.abs(fits[0] - fits[1]).max() < 1e-8) == rich


@pytest.mark.claim("prop-rest-where")
@pytest.mark.parametrize("name", ["damped nGEM", "undamped nGEM", "as derived", "NLL"])
def test_at_the_truth_the_mean_update_is_zero(name):
    """By quadrature over the targets of one input, logits and all."""
    objective = {
        "damped nGEM": ngem,
        "undamped nGEM": variants.undamped,
        "as derived": variants.as_derived,
        "NLL": nll,
    }[name]
    truth = GaussianMixture(np.log([0.7, 0.3]), [[-1.0], [0.5]], [[0.8], [0.4]])
    grid = jnp.linspace(-9.0, 9.0, 4001)[:, None]
    density = jnp.exp(truth.log_prob(grid))
    each = jax.vmap(jax.grad(objective), in_axes=(None, 0))(truth, grid)
    for leaf in jax.tree.leaves(each):
        values = np.asarray(leaf).reshape(4001, -1) * np.asarray(density)[:, None]
        np.testing.assert_allclose(integrate.trapezoid(values, dx=0.0045, axis=0), 0.0, atol=1e-9)


def asymptotic(features: np.ndarray, sigma: np.ndarray, p: float) -> np.ndarray:
    """M^-1 V M^-T of the claim, per example."""
    information = sigma**-2.0
    a = information**-p
    M = np.einsum("n,ni,nj->ij", a * information, features, features) / len(sigma)
    V = np.einsum("n,ni,nj->ij", a**2 * information, features, features) / len(sigma)
    return np.linalg.inv(M) @ V @ np.linalg.inv(M).T


@pytest.mark.claim("prop-rest-where")
def test_the_covariance_of_the_estimate_and_that_it_is_never_smaller():
    """Of a nonlinear model, simulated: the slope of exp(theta x), with scales that depend on x."""
    rng = np.random.default_rng(7)
    n, repeats, theta = 400, 600, 0.5
    x = np.tile([0.0, 0.5, 1.0, 1.5], n // 4)
    sigma = 0.1 * (1 + 4 * (x > 1.2))

    def estimate(y: np.ndarray, p: float) -> float:
        def equation(t: float) -> float:
            mean = np.exp(t * x)
            return float(np.sum(x * mean * sigma ** (2 * p - 2) * (mean - y)))

        return optimize.brentq(equation, -1.0, 2.0)

    jacobian = (x * np.exp(theta * x))[:, None]
    limits = {}
    for p in (0.0, 0.5, 1.0):
        ys = np.exp(theta * x) + sigma * rng.normal(size=(repeats, n))
        found = np.var([estimate(y, p) for y in ys]) * n
        limits[p] = asymptotic(jacobian, sigma, p).item()
        # Twice the standard error of a variance from so many repeats is 0.12.
        assert abs(found / limits[p] - 1) < 0.2
    assert limits[0.0] < limits[0.5] < limits[1.0]

    for _ in range(30):
        features, scales = rng.normal(size=(20, 3)), np.exp(rng.normal(size=20))
        p = rng.uniform(-1, 2)
        gap = asymptotic(features, scales, p) - asymptotic(features, scales, 0.0)
        assert np.linalg.eigvalsh(gap).min() > -1e-8


@pytest.mark.claim("prop-rest-where")
def test_equal_scales_cost_nothing():
    """The case of equality: then the preconditioner is one number for all examples."""
    features, scales = np.random.default_rng(8).normal(size=(20, 3)), np.full(20, 0.3)
    np.testing.assert_allclose(asymptotic(features, scales, 1.0), asymptotic(features, scales, 0.0))


def price(p: float, kappa: float) -> float:
    return (1 + kappa ** (2 * p - 1)) * (1 + 1 / kappa) / (1 + kappa ** (p - 1)) ** 2


@pytest.mark.claim("prop-rest-price")
@pytest.mark.parametrize("p", [0.0, 0.3, 0.5, 0.8, 1.0])
@pytest.mark.parametrize("kappa", [1.0, 4.0, 100.0])
def test_price_of_an_exponent(p, kappa):
    """From the covariance of the estimating equation, in any unit."""
    for unit in (1.0, 7.0):
        sigma = unit * np.array([1.0, np.sqrt(kappa)])
        ones = np.ones((2, 1))
        ratio = asymptotic(ones, sigma, p) / asymptotic(ones, sigma, 0.0)
        np.testing.assert_allclose(ratio.item(), price(p, kappa), rtol=1e-10)


@pytest.mark.claim("prop-rest-price")
def test_special_values_and_limits_of_the_price():
    for kappa in (2.0, 100.0):
        np.testing.assert_allclose(price(1.0, kappa), (1 + kappa) ** 2 / (4 * kappa))
        np.testing.assert_allclose(price(0.5, kappa), 2 * (1 + kappa) / (1 + np.sqrt(kappa)) ** 2)
    np.testing.assert_allclose(price(1.0, 100.0), 25.5025)
    assert price(0.5, 1e12) == pytest.approx(2.0, abs=1e-4)
    assert price(0.5, 1e12) < 2.0
    assert price(0.3, 1e24) == pytest.approx(1.0, abs=1e-4)
    assert price(0.6, 1e24) > 1e4


@pytest.mark.claim("prop-rest-price")
def test_the_package_rests_at_these_averages():
    sigma = np.repeat([0.1, 1.0], 10)
    y = np.random.default_rng(9).normal(size=20) * sigma

    @partial(jax.jit, static_argnums=0)
    def slope(objective: Any, m: Array) -> Array:
        def loss(m: Array) -> Array:
            means = jnp.full((20, 1, 1), m)
            mixture = GaussianMixture(jnp.zeros((20, 1)), means, jnp.asarray(sigma)[:, None, None])
            return objective(mixture, y[:, None]).sum()

        return jax.grad(loss)(m)

    for objective, p in ((nll, 0), (variants.undamped, 1), (ngem, 1)):
        found = optimize.brentq(partial(slope, objective), -3.0, 3.0, xtol=1e-13)
        assert found == pytest.approx(np.average(y, weights=sigma ** (2.0 * p - 2)), abs=1e-9)


@pytest.mark.claim("prop-rest-uphill")
def test_uphill_with_a_rich_network_and_all_the_data():
    """Expected likelihoods by quadrature, and the package's gradient."""
    features, sigma = np.array([[1.0, 0.0], [1.0, 1.0]]), np.array([0.1, 1.0])
    z, mass = np.polynomial.hermite_e.hermegauss(10)
    mass = mass / mass.sum()
    targets = sigma[:, None] * z  # the truth is zero

    def expected(objective: Any, theta: Array) -> Array:
        means = jnp.asarray(features) @ theta
        total = 0.0
        for i in range(2):
            mixture = GaussianMixture(jnp.zeros(1), means[i].reshape(1, 1), sigma[i].reshape(1, 1))
            total += jnp.sum(mass * objective(mixture, targets[i][:, None])) / 2
        return total

    likelihood = jax.jit(partial(expected, nll))
    update = jax.jit(jax.grad(partial(expected, variants.undamped)))
    information = (features.T / sigma**2) @ features / 2
    M = features.T @ features / 2
    for size in (1.0, 1e-2):
        theta = size * jnp.array([-0.1, 1.0])
        rate = -float(jax.grad(likelihood)(theta) @ update(theta))
        np.testing.assert_allclose(rate, -theta @ information @ M @ theta, rtol=1e-8)
        assert rate > 0
        assert likelihood(theta - 1e-3 * update(theta)) > likelihood(theta)
    np.testing.assert_allclose(update(jnp.zeros(2)), 0.0, atol=1e-12)  # both rest at the truth


@pytest.mark.claim("prop-rest-fading")
@pytest.mark.parametrize("fades", [True, False])
def test_a_preconditioner_that_fades_rests_where_the_likelihood_does(fades):
    """Two features and learned scales: gradient descent against SciPy's maximum likelihood."""
    rng = np.random.default_rng(11)
    x = np.tile([0.0, 1.0, 2.0], 20)
    y = 0.5 * x + rng.normal(size=60) * np.exp(x - 2)

    def forward(theta: Array) -> tuple[Array, Array]:
        return theta[0] + theta[1] * x, theta[2] + theta[3] * x

    def likelihood(theta: Array) -> Array:
        mean, log_scale = forward(theta)
        return jnp.mean(0.5 * ((y - mean) * jnp.exp(-log_scale)) ** 2 + log_scale)

    best = optimize.minimize(
        jax.jit(jax.value_and_grad(likelihood)), np.zeros(4), jac=True, tol=1e-12
    ).x

    def update(theta: Array, p: Array) -> tuple[Array, None]:
        (mean, log_scale), pull_back = jax.vjp(forward, theta)
        z = (y - mean) * jnp.exp(-log_scale)
        cotangents = (
            -z * jnp.exp(-log_scale) * jnp.exp(2 * p * log_scale) / y.size,
            (1 - z**2) * 0.5**p / y.size,
        )
        return theta - 0.02 * pull_back(cotangents)[0], None

    exponents = np.clip(1 - np.arange(30_000) / 5_000, 0, 1) if fades else np.ones(30_000)
    end, _ = jax.jit(partial(jax.lax.scan, update))(jnp.asarray(best) + 0.05, exponents)
    assert (np.abs(np.asarray(end) - best).max() < 1e-4) == fades


@pytest.mark.claim("prop-rest-clipping")
@pytest.mark.parametrize("w", [0.6, 0.9])
@pytest.mark.parametrize("c", [0.05, 0.3, 0.55, 0.95])
def test_clipping_each_example_moves_the_weights(w, c):
    """Gradient descent on the logits in NumPy, responsibilities zero and one."""
    psi = np.array([0.3, -0.3])
    rho = np.eye(2)  # an example of each component
    for _ in range(20_000):
        pi = special.softmax(psi)
        each = pi - rho
        length = np.linalg.norm(each, axis=1, keepdims=True)
        clipped = each * np.minimum(1.0, np.sqrt(2) * c / length)
        psi = psi - 0.2 * (w * clipped[0] + (1 - w) * clipped[1])
    stated = w if c >= w else 1 - c * (1 - w) / w
    assert special.softmax(psi)[0] == pytest.approx(stated, abs=1e-6)
    assert stated >= w


# ---------------------------------------------------------------------------------- whitening


@pytest.mark.claim("prop-rest-whitening")
@pytest.mark.parametrize("p", [0.0, 0.5, 1.0])
def test_covariance_of_a_preconditioned_score(p):
    """A gamma distribution, whose matrix is not diagonal; its score by SciPy and autodiff."""
    a, rate = 2.5, 1.5
    F = np.array([[special.polygamma(1, a), -1 / rate], [-1 / rate, a / rate**2]])
    y, dy = np.linspace(1e-6, 40, 400_001, retstep=True)
    score = np.stack([np.log(y) - special.digamma(a) + np.log(rate), a / rate - y])
    mass = stats.gamma.pdf(y, a, scale=1 / rate) * dy
    preconditioned = power(F, -p) @ score
    covariance = (preconditioned * mass) @ preconditioned.T
    np.testing.assert_allclose(covariance, power(F, 1 - 2 * p), atol=1e-5)
    assert np.allclose(covariance, np.eye(2), atol=1e-3) == (p == 0.5)


@pytest.mark.claim("prop-rest-whitening")
@pytest.mark.parametrize("sigma", [0.05, 1.0, 30.0])
@pytest.mark.parametrize("coordinate", ["scale", "log_scale"])
def test_the_white_score_of_a_gaussian(sigma, coordinate):
    mixture = GaussianMixture(np.zeros(1), [[1.0]], [[sigma]])
    F = complete_data_fisher_by_autodiff(mixture, coordinate)[1:, 1:]
    for z in (-2.0, 0.3, 1.0):
        g = jax.grad(nll)(mixture, jnp.array([1.0 + sigma * z]))
        by = sigma if coordinate == "log_scale" else 1.0
        score = -np.array([g.means.item(), g.scales.item() * by])
        expected = [z, (z**2 - 1) / np.sqrt(2)]
        np.testing.assert_allclose(power(F, -0.5) @ score, expected, rtol=1e-6, atol=1e-8)


@pytest.mark.claim("prop-rest-whitening")
@pytest.mark.parametrize("pi", [[0.5, 0.5], [0.6, 0.3, 0.1], [0.001, 0.009, 0.19, 0.8]])
def test_the_white_score_of_logits_and_its_length(pi):
    pi = np.array(pi)
    scores = np.eye(pi.size) - pi  # a row for each outcome
    F = (scores.T * pi) @ scores  # by its definition
    white = scores @ power(F, -0.5)
    centring = np.eye(pi.size) - 1 / pi.size
    np.testing.assert_allclose((white.T * pi) @ white, centring, atol=1e-9)
    np.testing.assert_allclose((white**2).sum(axis=1), (1 - pi) / pi, rtol=1e-7)
    damped = scores @ power(F + 0.1 * np.eye(pi.size), -0.5)
    covariance = (damped.T * pi) @ damped
    f = np.linalg.eigvalsh(F)
    np.testing.assert_allclose(np.linalg.eigvalsh(covariance), f / (f + 0.1), atol=1e-9)
    lengths = np.linalg.norm(scores, axis=1) / np.sqrt(0.1)
    assert (np.linalg.norm(damped, axis=1) <= lengths + 1e-12).all()


@pytest.mark.claim("prop-rest-whitening")
@pytest.mark.parametrize("gap", [0.5, 20.0])
def test_a_mixture_is_white_as_far_as_the_target_tells(gap):
    mixture = GaussianMixture(np.log([0.6, 0.4]), [[0.0], [gap]], [[1.0], [0.7]])
    grid = jnp.linspace(-12.0, gap + 12.0, 6001)[:, None]
    mass = np.exp(np.asarray(mixture.log_prob(grid))) * float(grid[1, 0] - grid[0, 0])
    each = jax.vmap(jax.grad(nll), in_axes=(None, 0))(mixture, grid)
    scores = np.hstack([np.asarray(a).reshape(6001, -1) for a in jax.tree.leaves(each)])
    complete = np.asarray(complete_data_fisher_by_autodiff(mixture))
    white = scores @ power(complete, -0.5)
    shares = np.linalg.eigvalsh((white.T * mass) @ white)
    observed = (scores.T * mass) @ scores
    expected = np.sort(np.linalg.eigvals(power(complete, -1) @ observed).real)
    np.testing.assert_allclose(shares, expected, atol=1e-8)
    assert shares.min() > -1e-9
    assert shares.max() < 1 + 1e-6
    # Far apart the target tells the component, and the score is white but for the null space.
    assert np.allclose(shares[1:], 1.0, atol=1e-6) == (gap == 20.0)


@pytest.mark.claim("cor-rest-beta")
@pytest.mark.parametrize("p", [0.0, 0.25, 0.5, 1.0])
@pytest.mark.parametrize("coordinate", ["scale", "log_scale"])
def test_one_component_is_beta_nll(p, coordinate):
    mixture = GaussianMixture(np.zeros(1), [[0.2]], [[0.3]])
    y = jnp.array([1.1])
    F = np.asarray(complete_data_fisher_by_autodiff(mixture, coordinate))[1:, 1:]
    by = 0.3 if coordinate == "log_scale" else 1.0
    plain = jax.grad(nll)(mixture, y)
    ours = power(F, -p) @ np.array([plain.means.item(), plain.scales.item() * by])
    mean = jax.grad(partial(beta_nll, beta=p))(mixture, y).means.item()
    beta = p if coordinate == "scale" else 0.0
    scale = jax.grad(partial(beta_nll, beta=beta))(mixture, y).scales.item() * by
    np.testing.assert_allclose(ours, [mean, scale / 2**p], rtol=1e-7)


# ------------------------------------------------------------------------------- mirror steps


def unpack(eta: Array) -> tuple[Array, Array, Array]:
    """Weights, means and variances of two Gaussians from natural parameters."""
    first, second = eta[1:].reshape(2, 2)
    variance = -0.5 / second
    a = jnp.append(eta[:1], 0.0) + 0.5 * jnp.log(variance) + 0.5 * first**2 * variance
    return jax.nn.softmax(a), first * variance, variance


def log_joint(eta: Array, y: Array) -> Array:
    pi, mu, variance = unpack(eta)
    z = (y[:, None] - mu) ** 2 / variance
    return jnp.log(pi) - 0.5 * (z + jnp.log(2 * jnp.pi * variance))


def mean_parameters(eta: Array) -> Array:
    pi, mu, variance = unpack(eta)
    return jnp.concatenate([pi[:1], pi * mu, pi * (mu**2 + variance)])


DATA = np.concatenate(
    [np.random.default_rng(4).normal(m, s, n) for m, s, n in ((-1.0, 0.8, 150), (1.5, 0.5, 50))]
)
ETA = np.array([0.2, -0.6, 1.0, -0.6, -0.5])


def divergence(eta: Array, other: Array) -> Array:
    """KL(eta || other) of the complete data, as a difference of expected log-densities."""
    pi, mu, variance = unpack(eta)
    nodes, mass = np.polynomial.hermite_e.hermegauss(6)  # exact for quadratics
    total = 0.0
    for k in range(2):
        y = mu[k] + jnp.sqrt(variance[k]) * nodes
        gap = log_joint(eta, y)[:, k] - log_joint(other, y)[:, k]
        total += pi[k] * jnp.sum(mass / mass.sum() * gap)
    return total


def log_likelihood(eta: Array) -> Array:
    return jax.nn.logsumexp(log_joint(eta, jnp.asarray(DATA)), axis=-1).mean()


def as_mixture(eta: Array) -> GaussianMixture:
    pi, mu, variance = unpack(eta)
    return GaussianMixture(jnp.log(pi), mu[:, None], jnp.sqrt(variance)[:, None])


@pytest.mark.claim("prop-rest-mirror")
def test_q_is_the_linearised_likelihood_minus_the_divergence():
    rho = jax.nn.softmax(log_joint(ETA, jnp.asarray(DATA)), axis=-1)
    gradient = jax.grad(log_likelihood)(ETA)

    def q(eta: Array) -> Array:
        return (rho * log_joint(eta, jnp.asarray(DATA))).sum(axis=-1).mean()

    for delta in np.random.default_rng(6).normal(size=(10, 5)) * 0.15:
        eta = ETA + delta
        expected = gradient @ delta - divergence(ETA, eta)
        np.testing.assert_allclose(q(eta) - q(ETA), expected, atol=1e-10)
        package = complete_data_kl(as_mixture(ETA), as_mixture(eta))
        np.testing.assert_allclose(package, divergence(ETA, eta), atol=1e-10)


@pytest.mark.claim("prop-rest-mirror")
@pytest.mark.parametrize("beta", [1.0, 0.5, 0.1])
def test_equation_26_is_solved_by_the_packages_steps(beta):
    """The gradient of the penalised problem vanishes where the package's step of EM ends."""
    mixture = as_mixture(ETA)
    if beta == 1.0:
        new = em_step(mixture, DATA[:, None])
    else:
        new = natural_gradient_em_step(mixture, DATA[:, None], learning_rate=beta)
    pi, mu = new.weights, new.means[:, 0]
    variance = new.scales[:, 0] ** 2
    a = jnp.log(pi) - 0.5 * jnp.log(variance) - 0.5 * mu**2 / variance
    eta = jnp.concatenate([a[:1] - a[1:], mu / variance, -0.5 / variance])
    gradient = jax.grad(log_likelihood)(ETA)
    of_penalty = jax.grad(divergence, argnums=1)(ETA, eta)
    np.testing.assert_allclose(of_penalty / beta, gradient, atol=1e-8)
    expected = mean_parameters(ETA) + beta * gradient
    np.testing.assert_allclose(mean_parameters(eta), expected, atol=1e-10)


@pytest.mark.claim("prop-rest-mirror")
@pytest.mark.parametrize("beta", [1.0, 0.3])
def test_the_likelihood_rises_by_a_divergence(beta):
    mixture = as_mixture(ETA)
    step = jax.jit(partial(natural_gradient_em_step, learning_rate=beta))
    values, divergences = [float(mixture.log_prob(DATA[:, None]).mean())], []
    for _ in range(40):
        new = step(mixture, DATA[:, None])
        divergences.append(float(complete_data_kl(new, mixture)))
        values.append(float(new.log_prob(DATA[:, None]).mean()))
        assert values[-1] - values[-2] >= divergences[-1] / beta - 1e-12
        mixture = new
    assert min(divergences) <= beta * (max(values) - values[0]) / 40 + 1e-15
