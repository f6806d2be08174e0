"""The claims of the page on natural gradients of a mixture, against autodiff and scipy."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib import pyplot as plt
from scipy import special, stats

from ngem_tutorial import GaussianMixture
from ngem_tutorial.figures import natural_gradients_of_a_mixture as draw
from ngem_tutorial.fisher import complete_data_fisher, logits_moore_penrose_inverse

pytestmark = pytest.mark.usefixtures("x64")

# --- A line, by a rule that is exact to rounding for smooth functions that fall off -------------

LINE = np.linspace(-14.0, 14.0, 1401)
DX = LINE[1] - LINE[0]
W = np.array([0.2, 0.5, 0.3])
MU = np.array([-1.5, 0.3, 1.2])
VAR = np.array([0.8, 1.5, 0.6])


def log_target(x: np.ndarray) -> np.ndarray:
    return np.logaddexp(-0.5 * ((x + 2) / 0.7) ** 2, -0.5 * (x - 2.5) ** 2 - 0.5)


def joint(w: np.ndarray, mu: np.ndarray, var: np.ndarray) -> np.ndarray:
    """`log q(x, o)` on the line, by scipy, shape `(N, K)`."""
    return np.log(w) + stats.norm.logpdf(LINE[:, None], mu, np.sqrt(var))


def elbo(log_joint: np.ndarray, tau: float) -> float:
    log_q = special.logsumexp(log_joint, axis=1)
    return float(np.sum(np.exp(log_q) * (log_target(LINE) - tau * log_q)) * DX)


def bound(log_joint: np.ndarray, log_r: np.ndarray, tau: float) -> float:
    terms = log_target(LINE)[:, None] + tau * (log_r - log_joint)
    return float(np.sum(np.exp(log_joint) * terms) * DX)


def responsibilities(log_joint: np.ndarray) -> np.ndarray:
    return special.log_softmax(log_joint, axis=1)


def random_joint(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return joint(
        rng.dirichlet(np.ones(3)), rng.normal(0.0, 1.5, 3), np.exp(rng.normal(0.0, 0.4, 3))
    )


@pytest.mark.claim("prop-vi-bound")
@pytest.mark.parametrize("tau", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("seed", range(4))
def test_bound_is_elbo_minus_divergence_and_rewards_minus_divergence(tau: float, seed: int) -> None:
    old, new = joint(W, MU, VAR), random_joint(seed)
    log_r = responsibilities(old)
    value = bound(new, log_r, tau)
    own = responsibilities(new)
    gap = np.sum(np.exp(new) * (own - log_r)) * DX  # E_q[KL] of the responsibilities
    assert gap > 0
    assert value == pytest.approx(elbo(new, tau) - tau * gap, abs=1e-9)
    assert bound(new, own, tau) == pytest.approx(elbo(new, tau), abs=1e-9)
    rho = log_target(LINE) - tau * special.logsumexp(old, axis=1)
    reward = np.sum(np.exp(new) * rho[:, None]) * DX
    assert value == pytest.approx(reward - tau * np.sum(np.exp(new) * (new - old)) * DX, abs=1e-9)


@pytest.mark.claim("prop-vi-bound")
def test_divergence_of_the_joint_densities_splits() -> None:
    w, mu, var = np.array([0.5, 0.3, 0.2]), MU + 0.4, 1.3 * VAR
    whole = np.sum(np.exp(joint(w, mu, var)) * (joint(w, mu, var) - joint(W, MU, VAR))) * DX
    gaussians = 0.5 * (var / VAR - 1 - np.log(var / VAR) + (mu - MU) ** 2 / VAR)
    assert whole == pytest.approx(stats.entropy(w, W) + w @ gaussians, abs=1e-9)


@pytest.mark.claim("prop-vi-bound")
@pytest.mark.parametrize("tau", [1.0, 2.0])
def test_raising_the_bound_raises_the_elbo(tau: float) -> None:
    """With the closed M-step of the weights, and with random mixtures that raise the bound."""
    old = joint(W, MU, VAR)
    log_r = responsibilities(old)
    rho = log_target(LINE) - tau * special.logsumexp(old, axis=1)
    reward = rho @ np.exp(old - np.log(W)) * DX
    best = special.softmax(np.log(W) + reward / tau)
    stepped = joint(best, MU, VAR)
    assert bound(stepped, log_r, tau) > bound(old, log_r, tau) + 1e-3
    assert elbo(stepped, tau) >= bound(stepped, log_r, tau)
    for other in np.random.default_rng(0).dirichlet(np.ones(3), 50):
        assert bound(joint(other, MU, VAR), log_r, tau) < bound(stepped, log_r, tau)
    raised = 0
    for seed in range(100):
        new = random_joint(seed)
        if bound(new, log_r, tau) >= bound(old, log_r, tau):
            raised += 1
            assert elbo(new, tau) >= elbo(old, tau)
    assert raised > 0


# --- The update: expectation parameters by autodiff, and g, G, R by hand ------------------------


def g_G_R(tau: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`g`, `G` and `R` with the derivatives of `log p~` and `log q` in closed form."""
    x = LINE[:, None]
    parts = joint(W, MU, VAR)
    r = np.exp(responsibilities(parts))
    pull = -(x - MU) / VAR
    slope_q = np.sum(r * pull, axis=1)
    curve_q = np.sum(r * (pull**2 - 1 / VAR), axis=1) - slope_q**2
    s = special.softmax([-0.5 * ((LINE + 2) / 0.7) ** 2, -0.5 * (LINE - 2.5) ** 2 - 0.5], axis=0)
    pulls = np.stack([-(LINE + 2) / 0.49, -(LINE - 2.5)])
    slope_p = np.sum(s * pulls, axis=0)
    curve_p = np.sum(s * (pulls**2 - np.array([[1 / 0.49], [1.0]])), axis=0) - slope_p**2
    density = np.exp(parts) / W * DX
    rho = log_target(LINE) - tau * special.logsumexp(parts, axis=1)
    return (
        (slope_p - tau * slope_q) @ density,
        -(curve_p - tau * curve_q) @ density,
        rho @ density,
    )


def elbo_in_jax(w: jax.Array, mu: jax.Array, var: jax.Array, tau: float) -> jax.Array:
    log_joint = jnp.log(w) - 0.5 * ((LINE[:, None] - mu) ** 2 / var + jnp.log(2 * jnp.pi * var))
    log_q = jax.nn.logsumexp(log_joint, axis=1)
    return jnp.sum(jnp.exp(log_q) * (log_target(LINE) - tau * log_q)) * DX


@pytest.mark.claim("prop-vi-update")
@pytest.mark.parametrize("tau", [0.7, 1.0, 2.0])
@pytest.mark.parametrize("beta", [0.01, 0.3])
def test_update_is_a_gradient_step_in_expectation_parameters(tau: float, beta: float) -> None:
    g, G, R = g_G_R(tau)
    precision = 1 / VAR + beta * G
    assert np.all(precision > 0)
    mean = MU + beta * g / precision
    weights = special.softmax(np.log(W) + beta * R)

    def J(free: jax.Array, first: jax.Array, second: jax.Array) -> jax.Array:
        """Weights, and `w_o E_o[x]`, `w_o E_o[x^2]` with the `w_o` of the start."""
        m1, m2 = first / W, second / W
        return elbo_in_jax(jnp.append(free, 1 - free.sum()), m1, m2 - m1**2, tau)

    to_free, d1, d2 = jax.grad(J, (0, 1, 2))(W[:-1], W * MU, W * (VAR + MU**2))
    linear, square = MU / VAR + beta * np.asarray(d1), -0.5 / VAR + beta * np.asarray(d2)
    np.testing.assert_allclose(-2 * square, precision, rtol=1e-9)
    np.testing.assert_allclose(linear / (-2 * square), mean, rtol=1e-9, atol=1e-10)
    ratios = np.log(W[:-1] / W[-1]) + beta * np.asarray(to_free)
    np.testing.assert_allclose(special.softmax(np.append(ratios, 0.0)), weights, rtol=1e-9)


@pytest.mark.claim("prop-vi-update")
@pytest.mark.parametrize("tau", [1.0, 2.0])
def test_direction_is_that_of_the_complete_data_fisher_matrix(tau: float) -> None:
    """The package's blocks, and the gradients of the ELBO and of the bound."""
    mixture = GaussianMixture(np.log(W), MU[:, None], np.sqrt(VAR)[:, None])
    log_r = jnp.asarray(responsibilities(joint(W, MU, VAR)))

    def J(m: GaussianMixture) -> jax.Array:
        return elbo_in_jax(m.weights, m.means[:, 0], m.scales[:, 0] ** 2, tau)

    def J_bound(m: GaussianMixture) -> jax.Array:
        log_joint = m.log_weights + m.component_log_prob(LINE[:, None])
        terms = log_target(LINE)[:, None] + tau * (log_r - log_joint)
        return jnp.sum(jnp.exp(log_joint) * terms) * DX

    gradient, of_bound = jax.grad(J)(mixture), jax.grad(J_bound)(mixture)
    for a, b in zip(jax.tree.leaves(gradient), jax.tree.leaves(of_bound), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-9)
    fisher = complete_data_fisher(mixture)
    g, G, R = g_G_R(tau)
    np.testing.assert_allclose((gradient.means / fisher.means)[:, 0], VAR * g, atol=1e-9)
    np.testing.assert_allclose(
        (gradient.scales / fisher.scales)[:, 0], -0.5 * VAR**1.5 * G, atol=1e-9
    )
    natural = logits_moore_penrose_inverse(mixture.weights) @ gradient.logits
    np.testing.assert_allclose(natural, R - R.mean(), atol=1e-9)


@pytest.mark.claim("prop-vi-update")
def test_update_with_full_covariances_in_the_plane() -> None:
    """Autodiff through a sum over a grid, in `E[x]` and `E[x x^T]` of each component."""
    tau, beta = 1.5, 0.2
    side = jnp.linspace(-8.0, 8.0, 121)
    x = jnp.stack(jnp.meshgrid(side, side), axis=-1).reshape(-1, 2)
    area = (side[1] - side[0]) ** 2
    w = jnp.array([0.4, 0.6])
    mu = jnp.array([[-1.0, 0.5], [1.2, -0.3]])
    S = jnp.array([[[0.9, 0.3], [0.3, 0.7]], [[0.6, -0.2], [-0.2, 1.1]]])

    def target(x: jax.Array) -> jax.Array:
        return -0.5 * (x[0] ** 2 / 2 + (x[1] - 0.3 * x[0] ** 2) ** 2)

    def log_parts(x: jax.Array, mu: jax.Array, S: jax.Array) -> jax.Array:
        away = x - mu
        square = jnp.einsum("ki,kij,kj->k", away, jnp.linalg.inv(S), away)
        return -0.5 * (square + jnp.log(jnp.linalg.det(2 * jnp.pi * S)))

    def log_q(x: jax.Array, mu: jax.Array, S: jax.Array) -> jax.Array:
        return jax.nn.logsumexp(jnp.log(w) + log_parts(x, mu, S))

    def J(first: jax.Array, second: jax.Array) -> jax.Array:
        cov = second - first[:, :, None] * first[:, None, :]
        values = jax.vmap(lambda x: log_q(x, first, cov))(x)
        return jnp.sum(jnp.exp(values) * (jax.vmap(target)(x) - tau * values)) * area

    def rho(x: jax.Array) -> jax.Array:
        return target(x) - tau * log_q(x, mu, S)

    density = jnp.exp(jax.vmap(lambda x: log_parts(x, mu, S))(x)) * area
    g = density.T @ jax.vmap(jax.grad(rho))(x)
    G = -jnp.einsum("nk,nij->kij", density, jax.vmap(jax.hessian(rho))(x))
    d1, d2 = jax.grad(J, (0, 1))(mu, S + mu[:, :, None] * mu[:, None, :])
    P = jnp.linalg.inv(S)
    d1, d2 = d1 / w[:, None], d2 / w[:, None, None]
    precision = P - 2 * beta * 0.5 * (d2 + d2.transpose(0, 2, 1))
    linear = jnp.einsum("kij,kj->ki", P, mu) + beta * d1
    np.testing.assert_allclose(precision, P + beta * G, atol=1e-8)
    new = jnp.linalg.inv(P + beta * G)
    mean = mu + beta * jnp.einsum("kij,kj->ki", new, g)
    np.testing.assert_allclose(
        jnp.linalg.solve(precision, linear[..., None])[..., 0], mean, atol=1e-8
    )


def test_which_components_gain_weight() -> None:
    """The exercise: above `J` for a small step; a longer one sets a higher bar."""
    w, R = np.array([0.8, 0.1, 0.1]), np.array([0.0, 1.5, 10.0])
    J = w @ R
    for beta, gains in ((1e-3, R > J), (1.0, np.array([False, False, True]))):
        bar = special.logsumexp(beta * R, b=w) / beta
        assert bar >= J
        np.testing.assert_array_equal(special.softmax(np.log(w) + beta * R) > w, gains)
        np.testing.assert_array_equal(bar < R, gains)
    assert R[1] > J  # it loses weight in the long step all the same


def test_figures() -> None:
    grid = np.linspace(-1.0, 1.0, 5)
    figure = draw.touching_bounds(
        grid, 1 - grid**2, [0.5], [0.75], [0.5 - grid**2], (-1.0, 1.0, -1.0, 2.0)
    )
    dotted = figure.axes[0].lines[-1]
    np.testing.assert_allclose(dotted.get_ydata(), [0.5, 1.0])  # from the bound's top to the ELBO
    plt.close(figure)
    parts = np.ones((5, 2))
    figure = draw.update(grid, grid**2, {"a": (2 * grid**2, parts), "b": (grid**2, parts)}, grid)
    np.testing.assert_allclose(figure.axes[1].lines[0].get_ydata(), grid)
    assert len(figure.axes[0].lines) == 3
    plt.close(figure)
    figure = draw.cosines([1.0, 2.0], [0.9, 1.0])
    np.testing.assert_allclose(figure.axes[0].lines[1].get_ydata(), [0.9, 1.0])
    plt.close(figure)
