"""The claims of the page on Fisher matrices, over sizes, precisions and extreme parameters."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, linalg, special, stats

from ngem_tutorial import em, variants
from ngem_tutorial.fisher import (
    categorical_fisher,
    complete_data_fisher,
    gaussian_fisher,
    logits_moore_penrose_inverse,
    logits_reflexive_inverse,
    natural_gradient,
    solve_damped_categorical_fisher,
)
from ngem_tutorial.mixtures import GaussianMixture

solve = jax.jit(solve_damped_categorical_fisher)
EPS = float(np.finfo(np.float64).eps)
quick = settings(max_examples=30, deadline=None, derandomize=True, database=None)


@pytest.fixture(autouse=True, scope="module")
def _x64() -> Iterator[None]:
    with jax.enable_x64(True):
        yield


@st.composite
def simplex(draw: st.DrawFn, lowest: float = -16.0, sizes: tuple[int, int] = (2, 7)) -> np.ndarray:
    """Weights with ratios down to `exp(lowest)`, in one of the two precisions."""
    k = draw(st.integers(*sizes))
    dtype = draw(st.sampled_from([np.float32, np.float64]))
    numbers = st.floats(lowest, 0.0, width=32)
    logits = np.array(draw(st.lists(numbers, min_size=k, max_size=k)))
    return special.softmax(logits).astype(dtype)


def exact(pi: np.ndarray) -> tuple[np.ndarray, float]:
    """The weights in float64, of sum one, and the rounding unit of those that were given."""
    wide = pi.astype(np.float64)
    return wide / wide.sum(), float(np.finfo(pi.dtype).eps)


def product(*factors: np.ndarray) -> np.ndarray:
    """A product of matrices in float64: only the factors themselves are rounded."""
    return np.linalg.multi_dot([np.asarray(f, np.float64) for f in factors])


def assert_within(actual: np.ndarray, desired: np.ndarray, tolerance: np.ndarray) -> None:
    """Compare entry by entry.

    What the rounding of the factors of a product amounts to is bounded, for each of its entries, by
    a small multiple of the rounding unit times the product of their absolute values.
    """
    assert np.all(np.abs(actual - desired) <= tolerance), np.max(
        np.abs(actual - desired) / tolerance
    )


# Gaussians


@pytest.mark.claim("prop-gaussian-fisher")
@quick
@given(
    st.lists(st.floats(-6.0, 6.0, width=32), min_size=1, max_size=4),
    st.sampled_from([np.float32, np.float64]),
    st.sampled_from(["scale", "log_scale"]),
)
def test_gaussian_block_is_the_covariance_of_the_score(
    exponents: list[float], dtype: Any, coordinate: Any
) -> None:
    sigma = (10.0 ** np.array(exponents)).astype(dtype)
    with jax.enable_x64(dtype == np.float64):
        block = gaussian_fisher(sigma, coordinate)
    assert block.means.dtype == block.scales.dtype == dtype
    # Gauss-Hermite quadrature with four nodes is exact for the square of a quadratic score.
    u, weight = np.polynomial.hermite_e.hermegauss(4)
    weight = weight / weight.sum()
    wide = sigma.astype(np.float64)[:, None]
    mean = u / wide
    scale = (u**2 - 1) / (wide if coordinate == "scale" else 1.0)
    rtol = 8 * float(np.finfo(dtype).eps)
    np.testing.assert_allclose(block.means, mean**2 @ weight, rtol=rtol)
    np.testing.assert_allclose(block.scales, scale**2 @ weight, rtol=rtol)
    # Mean and scale are uncorrelated: the matrix is diagonal.
    largest = np.sqrt((mean**2 @ weight) * (scale**2 @ weight))
    assert np.all(np.abs((mean * scale) @ weight) <= 16 * EPS * largest)


def duplication(d: int) -> np.ndarray:
    """By definition: column `n` is `vec` of the symmetric matrix whose `vech` is `e_n`."""
    columns = []
    for j in range(d):
        for i in range(j, d):
            e = np.zeros((d, d))
            e[i, j] = e[j, i] = 1.0
            columns.append(e.ravel(order="F"))
    return np.stack(columns, axis=1)


@pytest.mark.claim("prop-gaussian-fisher")
@pytest.mark.parametrize("d", [1, 3])
def test_full_covariance_has_the_two_blocks(d: int) -> None:
    rng = np.random.default_rng(d)
    root = rng.normal(size=(d, d))
    mean, cov = rng.normal(size=d), root @ root.T + 0.5 * np.eye(d)
    matrix = duplication(d)
    vech = cov.T[np.triu_indices(d)]
    np.testing.assert_allclose(matrix @ vech, cov.ravel(order="F"))
    fixed = dist.MultivariateNormal(mean, covariance_matrix=cov)

    def divergence(v: jax.Array) -> jax.Array:
        other = dist.MultivariateNormal(v[:d], covariance_matrix=(matrix @ v[d:]).reshape(d, d))
        return dist.kl_divergence(fixed, other)

    by_autodiff = jax.jit(jax.hessian(divergence))(np.concatenate([mean, vech]))
    inverse = np.linalg.inv(cov)
    blocks = inverse, 0.5 * matrix.T @ np.kron(inverse, inverse) @ matrix
    np.testing.assert_allclose(
        by_autodiff, linalg.block_diag(*blocks), rtol=1e-10, atol=1e-10 * np.abs(blocks[1]).max()
    )


# The logits


@pytest.mark.claim("prop-categorical-fisher")
@quick
@given(simplex())
def test_matrix_of_the_logits(pi: np.ndarray) -> None:
    wide, eps = exact(pi)
    k = len(pi)
    with jax.enable_x64(pi.dtype == np.float64):
        f = np.asarray(categorical_fisher(pi))
    assert f.dtype == pi.dtype
    assert np.array_equal(f, f.T)
    f = f.astype(np.float64)
    # A variance: sum_k pi_k v_k^2 - (sum_k pi_k v_k)^2, here for unit vectors and their sums.
    onehot = np.eye(k)
    covariance = (onehot - wide).T @ np.diag(wide) @ (onehot - wide)
    rounding = 8 * k * eps * (np.diag(wide) + np.outer(wide, wide))
    assert_within(f, covariance, rounding)
    assert_within(f @ np.ones(k), np.zeros(k), rounding.sum(axis=1))
    # Null space and bounds of the second eigenvalue, of the matrix of the rounded weights.
    values = np.linalg.eigvalsh(np.diag(wide) - np.outer(wide, wide))
    lowest = wide.min()
    slack = 4 * k * EPS
    assert abs(values[0]) <= slack
    assert lowest - slack <= values[1] <= k / (k - 1) * lowest * (1 - lowest) + slack


def categorical_kl(psi: Any, psi2: Any) -> jax.Array:
    """Divergence by summation over the outcomes, with another library's probabilities."""
    outcomes = jnp.arange(len(psi))
    log_p, log_q = (dist.Categorical(logits=v).log_prob(outcomes) for v in (psi, psi2))
    return jnp.exp(log_p) @ (log_p - log_q)


@pytest.mark.claim("prop-categorical-fisher")
@pytest.mark.parametrize("k", [2, 3, 5])
def test_matrix_of_the_logits_is_the_hessian_of_the_divergence(k: int) -> None:
    psi = np.random.default_rng(k).normal(size=k) * 3

    def divergence(v: jax.Array) -> jax.Array:
        return categorical_kl(psi, v)

    by_autodiff = jax.jit(jax.hessian(divergence))(psi)
    np.testing.assert_allclose(
        categorical_fisher(special.softmax(psi)), by_autodiff, rtol=1e-12, atol=8 * EPS
    )
    assert np.linalg.matrix_rank(by_autodiff, tol=1e-10) == k - 1


@pytest.mark.claim("prop-moore-penrose")
@quick
@given(simplex())
def test_moore_penrose_inverse_satisfies_all_four(pi: np.ndarray) -> None:
    wide, eps = exact(pi)
    k = len(pi)
    with jax.enable_x64(pi.dtype == np.float64):
        f, x = np.asarray(categorical_fisher(pi)), np.asarray(logits_moore_penrose_inverse(pi))
    assert x.dtype == pi.dtype
    c = 16 * k * eps
    centring = np.eye(k) - 1 / k
    spread = np.abs(centring) @ np.diag(1 / wide) @ np.abs(centring)  # how x is rounded
    f_abs = np.diag(wide) + np.outer(wide, wide)
    fxf = product(f, x, f)
    assert_within(fxf, f, c * (f_abs @ spread @ f_abs))
    xfx = product(x, f, x)
    assert_within(xfx, x, c * (spread @ f_abs @ spread))
    fx = product(f, x)
    assert_within(fx, centring, c * (f_abs @ spread))  # symmetric, and so is its transpose x f
    xf = product(x, f)
    assert_within(xf, centring, c * (spread @ f_abs))


@pytest.mark.claim("prop-moore-penrose")
@quick
@given(simplex(lowest=-6.0))
def test_moore_penrose_inverse_is_numpys(pi: np.ndarray) -> None:
    wide, eps = exact(pi)
    with jax.enable_x64(pi.dtype == np.float64):
        x = logits_moore_penrose_inverse(pi)
    expected = np.linalg.pinv(np.diag(wide) - np.outer(wide, wide), rcond=1e-9, hermitian=True)
    np.testing.assert_allclose(x, expected, rtol=0, atol=64 * len(pi) * eps / wide.min())


@pytest.mark.claim("prop-reflexive-inverse")
@quick
@given(simplex(lowest=-40.0))
def test_reflexive_inverse_satisfies_the_first_two(pi: np.ndarray) -> None:
    wide, eps = exact(pi)
    k = len(pi)
    with jax.enable_x64(pi.dtype == np.float64):
        f, g = np.asarray(categorical_fisher(pi)), np.asarray(logits_reflexive_inverse(pi))
    assert g.dtype == pi.dtype
    c = 16 * k * eps
    f_abs, g_abs = np.diag(wide) + np.outer(wide, wide), np.diag(1 / wide) + 1.0
    fgf = product(f, g, f)
    assert_within(fgf, f, c * (f_abs @ g_abs @ f_abs))
    gfg = product(g, f, g)
    assert_within(gfg, g, c * (g_abs @ f_abs @ g_abs))
    fg = product(f, g)
    assert_within(fg, np.eye(k) - wide[:, None], c * (f_abs @ g_abs))
    # The third condition fails by the spread of the weights, entry by entry.
    skew = wide[None, :] - wide[:, None]
    assert_within(fg - fg.T, skew, 2 * c * (f_abs @ g_abs + (f_abs @ g_abs).T))
    # Weighted, both products are symmetric.
    assert_within(fg / wide[:, None], (fg / wide[:, None]).T, 2 * c * (g_abs @ f_abs @ g_abs))


@pytest.mark.claim("prop-moore-penrose", "prop-reflexive-inverse")
@quick
@given(simplex(lowest=-8.0), st.data())
def test_each_inverse_chooses_the_shortest_step_in_its_own_length(
    pi: np.ndarray, data: st.DataObject
) -> None:
    pi, _ = exact(pi)
    k = len(pi)
    rho = special.softmax(
        np.array(data.draw(st.lists(st.floats(-8.0, 0.0), min_size=k, max_size=k)))
    )
    g, r = pi - rho, rho / pi
    f = np.diag(pi) - np.outer(pi, pi)
    plus = np.asarray(logits_moore_penrose_inverse(pi)) @ g
    reflexive = np.asarray(logits_reflexive_inverse(pi)) @ g
    rounding = 64 * k * EPS / pi.min()
    np.testing.assert_allclose(plus, r.mean() - r, rtol=0, atol=rounding)
    np.testing.assert_allclose(reflexive, 1 - r, rtol=0, atol=rounding)
    np.testing.assert_allclose(f @ plus, g, rtol=0, atol=rounding)
    np.testing.assert_allclose(f @ reflexive, g, rtol=0, atol=rounding)
    # All solutions are these plus a constant; the least-squares choice of the constant:
    for solution, weights in ((plus, np.full(k, 1 / k)), (reflexive, pi)):
        assert abs(weights @ solution) <= rounding
    # The softmax does not see the difference.
    psi = np.log(pi)
    np.testing.assert_allclose(
        special.softmax(psi - 0.01 * pi.min() * plus),
        special.softmax(psi - 0.01 * pi.min() * reflexive),
        rtol=1e-12,
    )


@pytest.mark.claim("prop-reflexive-inverse")
def test_the_steps_differ_through_a_shared_layer() -> None:
    rng = np.random.default_rng(0)
    pi, rho = rng.dirichlet(np.ones(3)), rng.dirichlet(np.ones(3))
    jacobian = rng.normal(size=(3, 5))  # of the logits in the parameters of a hidden layer
    plus = np.asarray(logits_moore_penrose_inverse(pi)) @ (pi - rho)
    reflexive = np.asarray(logits_reflexive_inverse(pi)) @ (pi - rho)
    difference = jacobian.T @ (reflexive - plus)
    np.testing.assert_allclose(difference, (1 - np.mean(rho / pi)) * jacobian.sum(axis=0))
    assert np.linalg.norm(difference) > 0.1


# Damping


@pytest.mark.claim("prop-damped")
@quick
@given(simplex(lowest=-60.0), st.integers(0, 1000), st.sampled_from([1e-8, 1e-4, 1e-2, 1.0, 1e6]))
def test_damped_step_solves_and_is_bounded(pi: np.ndarray, seed: int, damping: float) -> None:
    wide, eps = exact(pi)
    k = len(pi)
    rng = np.random.default_rng(seed)
    # Gradients as they occur, of sum zero, and any.
    centred, free = wide - rng.dirichlet(np.full(k, 0.3)), rng.normal(size=k)
    with jax.enable_x64(pi.dtype == np.float64):
        x, y = (np.asarray(solve(pi, g.astype(pi.dtype), damping)) for g in (centred, free))
    assert x.dtype == y.dtype == pi.dtype
    x, y = x.astype(np.float64), y.astype(np.float64)
    f_abs = np.diag(wide + damping) + np.outer(wide, wide)
    f = np.diag(wide + damping) - np.outer(wide, wide)
    # The residual, relative to what its terms amount to: backward stability.
    for solution, g in ((x, centred), (y, free)):
        scale = np.max(f_abs @ np.abs(solution)) + np.max(np.abs(g))
        assert np.max(np.abs(f @ solution - g)) <= 32 * k * eps * scale
    assert np.linalg.norm(y) <= np.linalg.norm(free) / damping * (1 + 32 * k * eps)
    # A sum that is zero only to within rounding is amplified by 1 / damping.
    slack = 32 * k * eps / damping
    assert np.linalg.norm(x) <= np.linalg.norm(centred) / (damping + wide.min()) + slack
    assert abs(x.sum()) <= slack


@pytest.mark.claim("prop-damped")
@quick
@given(simplex(lowest=-6.0, sizes=(2, 5)), st.integers(0, 1000))
def test_damping_lies_between_moore_penrose_and_plain(pi: np.ndarray, seed: int) -> None:
    pi, _ = exact(pi)
    g = pi - np.random.default_rng(seed).dirichlet(np.ones(len(pi)))
    plus = np.linalg.pinv(np.diag(pi) - np.outer(pi, pi), rcond=1e-9, hermitian=True) @ g
    size = np.linalg.norm(g)
    rounding = 64 * len(pi) * EPS / pi.min()
    for damping in (1e-5, 1e-3, 1e-1):
        x = np.asarray(solve(pi, g, damping))
        bound = damping * size / pi.min() ** 2 + rounding + 64 * EPS / damping
        assert np.linalg.norm(x - plus) <= bound
    for damping in (1e2, 1e6):
        x = np.asarray(solve(pi, g, damping))
        assert np.linalg.norm(damping * x - g) <= size / damping * (1 + 1e-6)  # |F| < 1


@pytest.mark.claim("prop-damped")
@pytest.mark.parametrize("weight", [1e-2, 1e-4, 1e-6])
def test_only_damping_bounds_the_entry_of_a_starving_component(weight: float) -> None:
    mixture = GaussianMixture(
        np.log([1 - weight, weight]), np.array([[0.0], [10.0]]), np.ones((2, 1))
    )
    own, other = np.array([10.0]), np.array([0.0])
    entry = {
        name: [abs(float(gradient(mixture, y).logits[1])) for y in (own, other)]
        for name, gradient in {
            "derived": variants.as_derived.gradient,
            "eq68": variants.eq68.gradient,
            "damped": variants.fully_damped.gradient,
            "undamped": variants.undamped.gradient,
            "ngem": natural_gradient,
        }.items()
    }
    # With two components F has the eigenvalue 2 pi (1 - pi); r is (0, 1 / pi) or (1 / (1 - pi), 0).
    assert entry["eq68"] == pytest.approx([1 / weight - 1, 1.0], rel=1e-9)
    assert entry["derived"] == pytest.approx([0.5 / weight, 0.5 / (1 - weight)], rel=1e-9)
    for name in ("undamped", "ngem"):
        assert entry[name] == pytest.approx([1 - weight, weight], rel=1e-9)
    eigenvalue = 2 * weight * (1 - weight) + 0.01
    assert entry["damped"] == pytest.approx(
        [(1 - weight) / eigenvalue, weight / eigenvalue], rel=1e-9
    )


# The complete-data Fisher matrix


@st.composite
def mixtures(draw: st.DrawFn) -> tuple[list[np.ndarray], str]:
    """Parameters with weights down to `exp(-12)` and scales from 1e-3 to 1e3, and a coordinate."""
    k, d = draw(st.sampled_from([(1, 2), (4, 1), (3, 2)]))
    dtype = draw(st.sampled_from([np.float32, np.float64]))

    def array(low: float, high: float, *shape: int) -> np.ndarray:
        size = int(np.prod(shape))
        numbers = st.floats(low, high, width=32)
        return np.reshape(draw(st.lists(numbers, min_size=size, max_size=size)), shape)

    parameters = [array(-12.0, 0.0, k), array(-5.0, 5.0, k, d), 10 ** array(-3.0, 3.0, k, d)]
    return [a.astype(dtype) for a in parameters], draw(st.sampled_from(["scale", "log_scale"]))


def numpyro_joint_kl(fixed: list[jax.Array], v: jax.Array, log: bool) -> jax.Array:
    """Divergence of the densities of target and component, by another library."""
    psi, mu, sigma = fixed
    k, size = len(psi), mu.size
    psi2, mu2, raw = v[:k], v[k : k + size].reshape(mu.shape), v[k + size :].reshape(mu.shape)
    sigma2 = jnp.exp(raw) if log else raw
    gaussians = dist.kl_divergence(dist.Normal(mu, sigma), dist.Normal(mu2, sigma2)).sum(-1)
    return categorical_kl(psi, psi2) + jax.nn.softmax(psi) @ gaussians


@partial(jax.jit, static_argnums=1)
def dense_blocks(mixture: GaussianMixture, coordinate: Any) -> jax.Array:
    return complete_data_fisher(mixture, coordinate).to_dense()


joint_hessian = jax.jit(jax.hessian(numpyro_joint_kl, argnums=1), static_argnums=2)


@pytest.mark.claim("prop-block-diagonal")
@quick
@given(mixtures())
def test_blocks_over_sizes_precisions_and_scales(drawn: tuple[list[np.ndarray], str]) -> None:
    parameters, coordinate = drawn
    dtype = parameters[0].dtype
    with jax.enable_x64(dtype == np.float64):
        closed = dense_blocks(GaussianMixture(*parameters), coordinate)
    assert closed.dtype == dtype
    psi, mu, sigma = (p.astype(np.float64) for p in parameters)
    raw = np.log(sigma) if coordinate == "log_scale" else sigma
    v = np.concatenate([psi, mu.ravel(), raw.ravel()])
    expected = np.asarray(joint_hessian([psi, mu, sigma], v, coordinate == "log_scale"))
    k, size = len(psi), mu.size
    # Everything outside of the blocks is zero, exactly, in both.
    component = np.concatenate([np.full(k, -1), *2 * [np.repeat(np.arange(k), size // k)]])
    outside = component[:, None] != component[None, :]
    assert np.all(np.asarray(closed)[outside] == 0)
    # Entries from 1e-11 to 1e6: compared relative to the root of the diagonal. In float32, logits
    # of size 12 are rounded by 1e-6, and so are the weights, relatively.
    root = np.sqrt(np.maximum(np.diag(expected), np.finfo(float).tiny))
    if k == 1:
        root[:1] = 1.0  # one weight has no information
    unit = np.outer(root, root)
    tolerance = 256 * float(np.finfo(dtype).eps)
    assert np.all(np.abs(expected[outside]) <= tolerance * unit[outside])
    gaussians = slice(k, None)
    np.testing.assert_allclose(
        (closed / unit)[gaussians, gaussians],
        (expected / unit)[gaussians, gaussians],
        rtol=0,
        atol=tolerance,
    )
    np.testing.assert_allclose(closed[:k, :k], expected[:k, :k], rtol=0, atol=tolerance)


@pytest.mark.claim("prop-block-diagonal")
def test_blocks_need_no_gaussians() -> None:
    """Laplace components: by quadrature of the score, at the same tolerance."""
    pi, b = np.array([0.3, 0.7]), np.array([0.5, 2.0])
    matrix = np.zeros((6, 6))  # mu_1, b_1, mu_2, b_2, logits
    for k in range(2):
        for side in (-1.0, 1.0):
            # y = mu + side * b * t with t standard exponential: Gauss-Laguerre is exact.
            t, weight = np.polynomial.laguerre.laggauss(4)
            score = np.zeros((4, 6))
            score[:, 2 * k] = side / b[k]
            score[:, 2 * k + 1] = (t - 1) / b[k]
            score[:, 4:] = np.eye(2)[k] - pi
            matrix += pi[k] * 0.5 * (score.T * weight) @ score
    blocks = [np.diag(pi[k] / b[k] ** 2 * np.ones(2)) for k in range(2)]
    expected = linalg.block_diag(*blocks, np.asarray(categorical_fisher(pi)))
    np.testing.assert_allclose(matrix, expected, atol=1e-12)


# Missing information


def pair(distance: float, weight: float, ratio: float) -> tuple[np.ndarray, ...]:
    return (
        np.array([weight, 1 - weight]),
        np.array([-distance / 2, distance / 2]),
        np.array([1.0, ratio]),
    )


def observed_and_missing(
    pi: np.ndarray, mu: np.ndarray, sigma: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Observed and missing Fisher matrix on a grid, in NumPy from closed-form scores."""
    k = len(pi)
    y = np.linspace(mu.min() - 9 * sigma.max(), mu.max() + 9 * sigma.max(), 3001)
    joint = pi * stats.norm.pdf(y[:, None], mu, sigma)
    p = joint.sum(axis=1)
    rho = joint / p[:, None]
    z = (y[:, None] - mu) / sigma
    # Row z = j of the score of the pair: e_j - pi, and the Gaussian's score in column j.
    rows = np.zeros((len(y), k, 3 * k))
    for j in range(k):
        rows[:, j, :k] = np.eye(k)[j] - pi
        rows[:, j, k + j] = z[:, j] / sigma[j]
        rows[:, j, 2 * k + j] = (z[:, j] ** 2 - 1) / sigma[j]
    score = np.einsum("qj,qjp->qp", rho, rows)
    centred = rows - score[:, None, :]
    dy = y[1] - y[0]
    observed = np.einsum("q,qa,qb->ab", p * dy, score, score)
    missing = np.einsum("q,qj,qja,qjb->ab", p * dy, rho, centred, centred)
    return observed, missing


@pytest.mark.claim("prop-missing-information")
@quick
@given(st.floats(0.0, 8.0), st.floats(0.02, 0.98), st.floats(0.3, 3.0))
def test_complete_is_observed_plus_missing(distance: float, weight: float, ratio: float) -> None:
    pi, mu, sigma = pair(distance, weight, ratio)
    observed, missing = observed_and_missing(pi, mu, sigma)
    mixture = GaussianMixture(np.log(pi), mu[:, None], sigma[:, None])
    complete = np.asarray(complete_data_fisher(mixture).to_dense())
    np.testing.assert_allclose(observed + missing, complete, rtol=0, atol=1e-10 * complete.max())
    for matrix in (observed, missing):
        assert np.linalg.eigvalsh(matrix)[0] >= -1e-12 * complete.max()
    whole = complete + linalg.block_diag(np.full((2, 2), 0.5), np.zeros((4, 4)))
    fractions = linalg.eigh(missing, whole, eigvals_only=True)
    assert fractions[0] >= -1e-9
    assert fractions[-1] <= 1 + 1e-9
    # Three are zero: the null vector of the logits, the mean and the variance of the mixture.
    np.testing.assert_allclose(fractions[:3], 0.0, atol=1e-9)


@pytest.mark.claim("prop-missing-information")
def test_observed_matrix_is_that_of_the_density() -> None:
    """Entry by entry: adaptive quadrature of central differences of scipy's density."""
    pi, mu, sigma = pair(2.5, 0.4, 0.7)
    psi = np.log(pi)

    def log_density(phi: np.ndarray, y: float) -> float:
        weights = special.softmax(phi[:2])
        return float(np.log(weights @ stats.norm.pdf(y, phi[2:4], phi[4:])))

    phi = np.concatenate([psi, mu, sigma])
    observed, _ = observed_and_missing(pi, mu, sigma)
    h = 1e-5
    for a, b in ((0, 0), (0, 3), (2, 3), (2, 4), (4, 5)):

        def integrand(y: float, a: int = a, b: int = b) -> float:
            slopes = [
                (log_density(phi + h * e, y) - log_density(phi - h * e, y)) / (2 * h)
                for e in (np.eye(6)[a], np.eye(6)[b])
            ]
            return slopes[0] * slopes[1] * np.exp(log_density(phi, y))

        expected, _ = integrate.quad(integrand, -12, 12, points=[-1.25, 1.25], epsabs=1e-8)
        assert observed[a, b] == pytest.approx(expected, abs=1e-6)


@pytest.mark.claim("prop-missing-information")
def test_missing_information_at_the_ends() -> None:
    """Nothing is missing far apart; everything about the differences where both coincide."""

    def fractions(distance: float) -> np.ndarray:
        pi, mu, sigma = pair(distance, 0.3, 1.0)
        _, missing = observed_and_missing(pi, mu, sigma)
        mixture = GaussianMixture(np.log(pi), mu[:, None], sigma[:, None])
        whole = np.array(complete_data_fisher(mixture).to_dense())
        whole[:2, :2] += 0.5
        return linalg.eigh(missing, whole, eigvals_only=True)

    np.testing.assert_allclose(fractions(0.0), [0, 0, 0, 1, 1, 1], atol=1e-9)
    np.testing.assert_allclose(fractions(16.0), 0.0, atol=1e-9)
    largest = [fractions(s)[-1] for s in (1.0, 2.0, 3.0, 4.0, 6.0, 8.0)]
    assert np.all(np.diff(largest) < 0)


@pytest.mark.claim("cor-em-rate")
def test_jacobian_of_em_on_data_is_the_missing_fraction() -> None:
    """At the maximum of the likelihood of a data set: Louis (1982), with means over the data."""
    rng = np.random.default_rng(0)
    y = np.concatenate([rng.normal(-1.6, 1.0, 120), rng.normal(1.6, 0.6, 180)])[:, None]
    start = GaussianMixture(np.zeros(2), np.array([[-1.0], [1.0]]), np.ones((2, 1)))
    best, _ = em.iterate(em.em_step, start, jnp.asarray(y), 3000)
    phi, build = jax.flatten_util.ravel_pytree(best)

    def step(v: jax.Array) -> jax.Array:
        return jax.flatten_util.ravel_pytree(em.em_step(build(v), y))[0]

    jacobian = np.array(jax.jit(jax.jacobian(step))(phi))
    jacobian[:2] -= jacobian[:2].mean(axis=0)  # what is added to all logits alike

    def mean_log_density(v: jax.Array) -> jax.Array:
        m = build(v)
        density = jax.nn.softmax(m.logits) * jax.scipy.stats.norm.pdf(
            y, m.means.T[0], m.scales.T[0]
        )
        return jnp.mean(jnp.log(density.sum(axis=1)))

    observed = -np.asarray(jax.jit(jax.hessian(mean_log_density))(phi))
    # At a maximum the mean Hessian of the pair is the closed form: shares are the weights, and the
    # weighted variances the squared scales.
    complete = np.array(complete_data_fisher(best).to_dense())
    inverse = np.linalg.pinv(complete, hermitian=True)
    expected = inverse @ (complete - observed)
    np.testing.assert_allclose(jacobian, expected, atol=1e-8)
    # And the rate at which EM converges is its largest eigenvalue.
    rate = np.max(np.linalg.eigvals(expected).real)
    path = [build(phi + 0.01 * np.arange(6.0))]
    for _ in range(120):
        path.append(jax.jit(em.em_step)(path[-1], y))
    errors = [float(np.linalg.norm(m.means - best.means)) for m in path]
    assert errors[80] / errors[79] == pytest.approx(rate, rel=1e-3)
    assert 0.3 < rate < 0.95
