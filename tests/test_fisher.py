"""Fisher blocks, generalised inverses and natural gradients against dense linear algebra."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special, stats

from ngem_tutorial.fisher import (
    CompleteDataFisher,
    categorical_fisher,
    complete_data_fisher,
    complete_data_fisher_by_autodiff,
    complete_data_fisher_by_sampling,
    complete_data_kl,
    gaussian_fisher,
    logits_moore_penrose_inverse,
    logits_reflexive_inverse,
    natural_gradient,
    relaxed_e_step,
    solve_damped_categorical_fisher,
)
from ngem_tutorial.mixtures import GaussianMixture
from ngem_tutorial.objectives import scale_unit
from ngem_tutorial.variants import (
    Variant,
    as_derived,
    eq68,
    fully_damped,
    paper_code,
    undamped,
)

COORDINATES = ["scale", "log_scale"]
LOGITS = ["plain", "natural", "eq68", "damped", "paper_code"]
GAUSSIANS = ["rho/pi", "damped", "rho", "plain"]
# What the tables call damped nGEM: `Variant()`, as a test below has it.
VARIANTS = {
    "damped nGEM": Variant(),
    "undamped": undamped,
    "as_derived": as_derived,
    "eq68": eq68,
    "paper_code": paper_code,
    "fully_damped": fully_damped,
}
EPS = float(np.finfo(np.float64).eps)


pytestmark = pytest.mark.usefixtures("x64")


def make(k: int = 3, d: int = 2, batch: tuple[int, ...] = (), seed: int = 0) -> GaussianMixture:
    rng = np.random.default_rng(seed)
    return GaussianMixture(
        rng.normal(size=(*batch, k)),
        rng.normal(size=(*batch, k, d)),
        rng.uniform(0.4, 1.6, size=(*batch, k, d)),
    )


def random_weights(k: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).dirichlet(np.full(k, 2.0))


def dense_fisher(pi: np.ndarray, sigma: np.ndarray, coordinate: str = "scale") -> np.ndarray:
    """Equations (21), (22) and (51), entry by entry."""
    k, d = sigma.shape
    f = np.zeros((k * (1 + 2 * d), k * (1 + 2 * d)))
    for i in range(k):
        for j in range(k):
            f[i, j] = (pi[i] if i == j else 0.0) - pi[i] * pi[j]
        for c in range(d):
            mean, scale = k + i * d + c, k + k * d + i * d + c
            f[mean, mean] = pi[i] / sigma[i, c] ** 2
            f[scale, scale] = pi[i] * (2.0 / sigma[i, c] ** 2 if coordinate == "scale" else 2.0)
    return f


def flat(mixture: GaussianMixture) -> np.ndarray:
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(mixture)])


# The blocks


@pytest.mark.parametrize("coordinate", COORDINATES)
@pytest.mark.parametrize(("k", "d"), [(1, 1), (3, 2)])
def test_closed_form_is_the_hessian_of_the_divergence(k: int, d: int, coordinate: Any) -> None:
    mixture = make(k, d)
    closed = complete_data_fisher(mixture, coordinate).to_dense()
    by_autodiff = jax.jit(complete_data_fisher_by_autodiff, static_argnums=1)(mixture, coordinate)
    pi, sigma = np.asarray(mixture.weights), np.asarray(mixture.scales)
    # Entries of up to pi / sigma^2, at most 13, through some tens of roundings.
    np.testing.assert_allclose(closed, by_autodiff, rtol=64 * EPS, atol=64 * EPS)
    np.testing.assert_allclose(closed, dense_fisher(pi, sigma, coordinate), rtol=8 * EPS, atol=EPS)


@pytest.mark.parametrize("coordinate", COORDINATES)
def test_closed_form_is_the_covariance_of_the_score(coordinate: Any) -> None:
    mixture = make(2, 2)
    repeats, samples = 32, 2000
    keys = jax.random.split(jax.random.key(0), repeats)
    sampled = jax.jit(
        jax.vmap(lambda key: complete_data_fisher_by_sampling(key, mixture, samples, coordinate))
    )(keys)
    closed = complete_data_fisher(mixture, coordinate).to_dense()
    sampled = np.asarray(sampled)
    error = sampled.mean(axis=0) - closed
    # Each entry is a mean of 32 independent estimates: five of their standard errors. Entries that
    # couple two Gaussians are zero in every sample.
    standard_error = sampled.std(axis=0, ddof=1) / np.sqrt(repeats)
    assert np.all(np.abs(error) <= 5 * standard_error + 64 * EPS)
    # The comparison can tell a factor of two: every entry is known to a few per cent.
    assert standard_error.max() < 0.03 * np.abs(closed).max()


def test_divergence_is_the_mean_difference_of_log_joints() -> None:
    p, q = make(3, 2, seed=1), make(3, 2, seed=2)
    assert complete_data_kl(p, p) == pytest.approx(0.0, abs=8 * EPS)
    # Gauss-Hermite quadrature is exact: the log-densities are quadratic in each coordinate.
    nodes, weights = np.polynomial.hermite_e.hermegauss(3)
    weights = weights / weights.sum()
    pi = special.softmax(np.asarray(p.logits))
    log_ratio = special.log_softmax(np.asarray(p.logits)) - special.log_softmax(
        np.asarray(q.logits)
    )
    expected = float(pi @ log_ratio)
    leaves = [np.asarray(leaf).ravel() for m in (p, q) for leaf in (m.means, m.scales)]
    for weight, mu, sigma, other_mu, other_sigma in zip(np.repeat(pi, 2), *leaves, strict=True):
        y = mu + sigma * nodes
        difference = stats.norm.logpdf(y, mu, sigma) - stats.norm.logpdf(y, other_mu, other_sigma)
        expected += weight * float(weights @ difference)
    assert complete_data_kl(p, q) == pytest.approx(expected, rel=64 * EPS)
    batch = jax.jit(complete_data_kl)(make(batch=(4,), seed=1), make(batch=(4,), seed=2))
    assert batch.shape == (4,)
    assert np.all(batch > 0)


def test_blocks_are_batched() -> None:
    mixture = make(3, 2, batch=(2, 4))
    blocks = complete_data_fisher(mixture)
    assert isinstance(blocks, CompleteDataFisher)
    assert blocks.logits.shape == (2, 4, 3, 3)
    assert blocks.means.shape == blocks.scales.shape == (2, 4, 3, 2)
    one = CompleteDataFisher(blocks.logits[1, 2], blocks.means[1, 2], blocks.scales[1, 2])
    expected = dense_fisher(mixture.weights[1, 2], np.asarray(mixture.scales[1, 2]))
    np.testing.assert_allclose(one.to_dense(), expected, rtol=8 * EPS, atol=EPS)
    assert jax.tree.map(jnp.shape, blocks).means == (2, 4, 3, 2)


def test_gaussian_fisher_has_the_entries_of_equation_21() -> None:
    sigma = np.array([0.5, 1.0, 4.0])
    block = gaussian_fisher(sigma)
    np.testing.assert_array_equal(block.means, [4.0, 1.0, 1 / 16])
    np.testing.assert_array_equal(block.scales, [8.0, 2.0, 1 / 8])
    block = gaussian_fisher(sigma, "log_scale")
    np.testing.assert_array_equal(block.means, [4.0, 1.0, 1 / 16])
    np.testing.assert_array_equal(block.scales, [2.0, 2.0, 2.0])


def test_references_take_one_mixture() -> None:
    mixture, message = make(batch=(4,)), r"mixture must be a single one, got batch shape \(4,\)"
    with pytest.raises(ValueError, match=message):
        complete_data_fisher_by_autodiff(mixture)
    with pytest.raises(ValueError, match=message):
        complete_data_fisher_by_sampling(jax.random.key(0), mixture, 1)


# The singular block of the logits


@pytest.mark.parametrize("k", [1, 2, 3, 6])
def test_block_of_the_logits_has_rank_k_minus_one(k: int) -> None:
    pi = random_weights(k)
    f = np.asarray(categorical_fisher(pi))
    # From one-hot draws: the covariance of a categorical variable.
    onehot = np.eye(k)
    expected = sum(pi[i] * np.outer(onehot[i] - pi, onehot[i] - pi) for i in range(k))
    np.testing.assert_allclose(f, expected, atol=4 * EPS)
    values = np.linalg.eigvalsh(f)
    assert np.sum(values > 1e-6) == k - 1
    np.testing.assert_allclose(f @ np.ones(k), 0.0, atol=4 * EPS)


@pytest.mark.parametrize("k", [2, 3, 6])
def test_both_inverses_invert_and_only_one_is_moore_penrose(k: int) -> None:
    pi = random_weights(k, seed=k)
    f = np.asarray(categorical_fisher(pi))
    inverses = {
        "moore-penrose": np.asarray(logits_moore_penrose_inverse(pi)),
        "reflexive": np.asarray(logits_reflexive_inverse(pi)),
    }
    tolerance = 16 * EPS / pi.min() ** 2  # products with up to two factors 1 / pi
    for g in inverses.values():
        np.testing.assert_allclose(f @ g @ f, f, atol=tolerance)
        np.testing.assert_allclose(g @ f @ g, g, atol=tolerance)
    g = inverses["moore-penrose"]
    np.testing.assert_allclose(f @ g, (f @ g).T, atol=tolerance)
    np.testing.assert_allclose(g @ f, (g @ f).T, atol=tolerance)
    np.testing.assert_allclose(g, np.linalg.pinv(f, hermitian=True), rtol=1e-9, atol=tolerance)
    # Equation (67): F G = I - pi 1^T, symmetric only for equal weights.
    g = inverses["reflexive"]
    np.testing.assert_allclose(f @ g, np.eye(k) - pi[:, None], atol=tolerance)
    asymmetry = np.abs(f @ g - (f @ g).T).max()
    assert asymmetry == pytest.approx(pi.max() - pi.min(), abs=tolerance)
    assert asymmetry > 0.01
    equal = np.full(k, 1.0 / k)
    fg = np.asarray(categorical_fisher(equal) @ logits_reflexive_inverse(equal))
    np.testing.assert_allclose(fg, fg.T, atol=16 * EPS * k**2)


def test_inverses_and_solution_are_batched() -> None:
    pi = np.stack([random_weights(4, seed) for seed in range(3)])
    g = np.random.default_rng(0).normal(size=(3, 4))
    for function in (categorical_fisher, logits_moore_penrose_inverse, logits_reflexive_inverse):
        one_by_one = np.stack([function(p) for p in pi])
        np.testing.assert_allclose(function(pi), one_by_one, rtol=64 * EPS, atol=64 * EPS)
    one_by_one = np.stack(
        [solve_damped_categorical_fisher(p, r, 0.1) for p, r in zip(pi, g, strict=True)]
    )
    batched = solve_damped_categorical_fisher(pi, g, 0.1)
    np.testing.assert_allclose(batched, one_by_one, rtol=64 * EPS)


weights_and_gradients = st.integers(2, 6).flatmap(
    lambda k: st.tuples(
        st.lists(st.floats(-20.0, 0.0), min_size=k, max_size=k),
        st.lists(st.floats(-10.0, 10.0), min_size=k, max_size=k),
    )
)
quick = settings(max_examples=40, deadline=None, derandomize=True, database=None)
solve = jax.jit(solve_damped_categorical_fisher)


@quick
@given(weights_and_gradients, st.sampled_from([1e-6, 1e-2, 1.0, 1e3]))
def test_damped_solution_agrees_with_a_dense_solve(
    drawn: tuple[list[float], list[float]], damping: float
) -> None:
    pi, g = special.softmax(drawn[0]), np.array(drawn[1])
    matrix = np.diag(pi) - np.outer(pi, pi) + damping * np.eye(len(pi))
    solution = np.asarray(solve(pi, g, damping))
    # The weights, and so the matrix, are rounded by EPS; the smallest eigenvalue is the damping.
    tolerance = 16 * EPS * (1 + 1 / damping) * np.linalg.norm(g) / damping
    np.testing.assert_allclose(solution, np.linalg.solve(matrix, g), rtol=0, atol=tolerance)
    assert np.linalg.norm(solution) <= np.linalg.norm(g) / damping * (1 + 64 * EPS)


def test_damped_solution_tends_to_the_moore_penrose_inverse() -> None:
    pi = random_weights(4, seed=1)
    rho = random_weights(4, seed=2)
    limit = np.asarray(logits_moore_penrose_inverse(pi)) @ (pi - rho)
    errors = []
    for damping in (1e-3, 1e-5, 1e-7):
        solution = solve_damped_categorical_fisher(pi, pi - rho, damping)
        errors.append(np.abs(solution - limit).max())
    # (F + damping I)^-1 g = F^+ g - damping F^+ F^+ g + ...: the error falls with the damping.
    expected = np.abs(np.linalg.matrix_power(np.linalg.pinv(np.diag(pi) - np.outer(pi, pi)), 2))
    bound = (expected @ np.abs(pi - rho)).max()
    for error, damping in zip(errors, (1e-3, 1e-5, 1e-7), strict=True):
        assert error <= bound * damping + 1e-9
    assert errors[0] > 50 * errors[1] > 2500 * errors[2] > 0


# Natural gradients


@jax.jit
@jax.grad
def nll_gradient(mixture: GaussianMixture, y: Any) -> jax.Array:
    """Autodiff of the density written without the package's methods."""
    psi, mu, sigma = mixture.logits, mixture.means, mixture.scales
    log_normal = jax.scipy.stats.norm.logpdf(y[..., None, :], mu, sigma).sum(-1)
    joint = psi - jax.nn.logsumexp(psi, axis=-1, keepdims=True) + log_normal
    return -jax.nn.logsumexp(joint, axis=-1).sum()


def units_of(scales: Any) -> np.ndarray:
    """The geometric mean of the scales of a batch, for each coordinate of the target."""
    scales = np.asarray(scales)
    return stats.gmean(scales.reshape(-1, scales.shape[-1]), axis=0)


def dense_natural_gradient(
    mixture: GaussianMixture,
    y: np.ndarray,
    choice: Variant,
    unit: Any = 1.0,
) -> np.ndarray:
    """Dense linear algebra on the autodiff gradient of one mixture, as `Variant` says."""
    pi, sigma = special.softmax(np.asarray(mixture.logits)), np.asarray(mixture.scales)
    k, d = sigma.shape
    units = np.broadcast_to(unit, (d,))
    log = choice.coordinate == "log_scale"
    # To the coordinates mu / s and sigma / s, or log sigma, by the chain rule, and back: a
    # cotangent's pull-back is multiplied by the Jacobian, as d sigma / d log sigma = sigma.
    of_means = np.tile(units, k)
    jacobian = np.concatenate([np.ones(k), of_means, sigma.ravel() if log else of_means])
    plain = flat(nll_gradient(mixture, y))
    gradient = plain * jacobian
    f = dense_fisher(pi, sigma / units, choice.coordinate)
    gaussians = np.diag(f)[k:]
    weight = np.repeat(pi, d)
    weight = np.concatenate([weight, weight])
    f_pi = f[:k, :k]
    match choice.gaussians:
        case "damped":
            gaussians = gaussians / weight * (weight + choice.damping)
        case "rho":
            gaussians = gaussians / weight
    match choice.logits:
        case "plain":
            inverse = np.eye(k)
        case "natural":
            # The eigenvalue zero is rounded to some EPS, and the others are above 1e-3.
            inverse = np.linalg.pinv(f_pi, rcond=1e-10, hermitian=True)
        case "eq68":
            inverse = np.diag(1 / pi) - np.ones((k, k))  # equation (67)
        case "damped":
            inverse = np.linalg.inv(f_pi + choice.damping * np.eye(k))
    natural = np.concatenate([inverse @ gradient[:k], gradient[k:] / gaussians]) / jacobian
    return np.concatenate([natural[:k], plain[k:]]) if choice.gaussians == "plain" else natural


@pytest.mark.parametrize("unit", [1.0, np.array([0.3, 7.0])], ids=["one", "its own"])
@pytest.mark.parametrize("coordinate", COORDINATES)
@pytest.mark.parametrize("gaussians", GAUSSIANS)
@pytest.mark.parametrize("logits", ["plain", "natural", "eq68", "damped"])
def test_gradient_of_a_variant_is_the_dense_one(
    logits: Any, gaussians: Any, coordinate: Any, unit: Any
) -> None:
    choice = Variant(logits, gaussians, coordinate, damping=0.07)
    if gaussians == "plain" and np.ndim(unit):
        with pytest.raises(ValueError, match="unit must be 1 where gaussians is 'plain'"):
            choice.gradient(make(), np.zeros(2), unit=unit)
        unit = 1
    mixture, y = make(seed=3), np.array([0.3, -0.8])
    natural = choice.gradient(mixture, y, unit=unit)
    expected = dense_natural_gradient(mixture, y, choice, unit)
    # Condition numbers below 100, pinv's own rounding included.
    np.testing.assert_allclose(flat(natural), expected, rtol=1e-12, atol=1e-13)


def damped_ngem(
    mixture: GaussianMixture, y: np.ndarray, unit: Any, eps: float, damping: float
) -> list[np.ndarray]:
    """The cotangents of damped nGEM in NumPy and scipy alone; a batch of mixtures."""
    psi, mu, sigma = (np.asarray(leaf) for leaf in jax.tree.leaves(mixture))
    pi = special.softmax(psi, axis=-1)
    z = (y[..., None, :] - mu) / sigma
    joint = pi * stats.norm.pdf(z).prod(axis=-1) / sigma.prod(axis=-1)
    rho = joint / joint.sum(axis=-1, keepdims=True)
    rho = (1 - eps) * rho + eps / pi.shape[-1]
    if eps > 0:
        z = np.minimum(np.maximum(z, -1 / (2 * eps)), 1 / (2 * eps))
    weight = (rho / (pi + damping))[..., None]
    return [pi - rho, -weight * sigma * z / unit**2, weight * (z * z - 1) / (-2 * sigma)]


@pytest.mark.parametrize("damping", [0.25, 0.02])
@pytest.mark.parametrize("eps", [0.0, 0.1])
@pytest.mark.parametrize("unit", ["batch", 1.0, 3.0, np.array([0.2, 5.0])], ids=str)
def test_natural_gradient_is_that_of_the_formula(unit: Any, eps: float, damping: float) -> None:
    mixture, y = make(batch=(2, 3), seed=3), np.random.default_rng(4).normal(size=(2, 3, 2))
    if isinstance(unit, str):
        unit, of_the_batch = scale_unit(mixture), units_of(mixture.scales)
        np.testing.assert_allclose(unit, of_the_batch, rtol=8 * EPS)
        unit = np.asarray(unit)
    expected = damped_ngem(mixture, y, unit, eps, damping)
    options = {"unit": unit, "relaxation": eps, "damping": damping}
    for call in (natural_gradient, jax.jit(natural_gradient)):  # options known, and traced
        found = jax.tree.leaves(call(mixture, y, **options))
        for actual, desired in zip(found, expected, strict=True):
            np.testing.assert_allclose(actual, desired, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("eps", [0.0, 0.1])
def test_damped_ngem_is_the_variant_without_arguments(eps: float) -> None:
    mixture, y = make(batch=(2, 3), seed=3), np.random.default_rng(4).normal(size=(2, 3, 2))
    for unit in (1.0, np.array([0.2, 5.0])):
        options = {"unit": unit, "relaxation": eps}
        np.testing.assert_allclose(
            flat(natural_gradient(mixture, y, **options)),
            flat(Variant().gradient(mixture, y, **options)),
            rtol=8 * EPS,
        )


def test_in_its_own_unit_the_gradient_is_that_of_the_data_in_any_units() -> None:
    """Data in units that are smaller by `c`: as for `nll`, one over `c` in the gradient.

    In units of the target the cotangents of the means grow by `c` instead, so that their balance
    with those of the logits depends on the units of the data.
    """
    mixture, y = make(batch=(5,), seed=3), np.random.default_rng(4).normal(size=(5, 2))
    c = np.array([8.0, 1 / 64])
    scaled = GaussianMixture(mixture.logits, c * mixture.means, c * mixture.scales)
    exact = {"rtol": 64 * EPS, "atol": 64 * EPS}
    for own, power in ((True, -1), (False, 1)):
        before = natural_gradient(mixture, y, unit=scale_unit(mixture) if own else 1.0)
        after = natural_gradient(scaled, c * y, unit=scale_unit(scaled) if own else 1.0)
        np.testing.assert_allclose(after.logits, before.logits, **exact)
        np.testing.assert_allclose(after.means, before.means * c**power, **exact)
        np.testing.assert_allclose(after.scales, before.scales / c, **exact)
    plain, plain_scaled = (jax.vmap(nll_gradient)(m, t) for m, t in ((mixture, y), (scaled, c * y)))
    np.testing.assert_allclose(plain_scaled.logits, plain.logits, **exact)
    np.testing.assert_allclose(plain_scaled.means, plain.means / c, **exact)
    np.testing.assert_allclose(plain_scaled.scales, plain.scales / c, **exact)


# Relaxation


RELAXED = [
    Variant("plain", gaussians, coordinate, damping=0.07)
    for gaussians in GAUSSIANS
    for coordinate in COORDINATES
]


def relaxed_gradient(
    mixture: GaussianMixture, y: np.ndarray, choice: Variant, eps: float
) -> list[np.ndarray]:
    """Plain logits and relaxed responsibilities, in NumPy alone; a batch of mixtures."""
    psi, mu, sigma = (np.asarray(leaf) for leaf in jax.tree.leaves(mixture))
    pi = special.softmax(psi, axis=-1)
    z = (y[:, None, :] - mu) / sigma
    joint = pi * stats.norm.pdf(z).prod(axis=-1) / sigma.prod(axis=-1)
    rho = joint / joint.sum(axis=-1, keepdims=True)
    rho = (1 - eps) * rho + eps / pi.shape[-1]
    if eps > 0:
        z = np.minimum(np.maximum(z, -1 / (2 * eps)), 1 / (2 * eps))
    divisor = {"rho/pi": pi, "damped": pi + choice.damping, "rho": 1.0, "plain": 1.0}
    weight = (rho / divisor[choice.gaussians])[..., None]
    if choice.gaussians == "plain":
        return [pi - rho, -weight * z / sigma, weight * (1 - z**2) / sigma]
    half = weight * (1 - z**2) / 2
    scales = half / sigma if choice.coordinate == "log_scale" else half * sigma
    return [pi - rho, -weight * sigma * z, scales]


@pytest.mark.parametrize("eps", [0.0, 1e-3, 0.1, 0.4, 1.0])
@pytest.mark.parametrize("choice", RELAXED, ids=str)
def test_relaxation_shares_every_target_and_limits_the_residuals(
    choice: Variant, eps: float
) -> None:
    mixture, y = make(batch=(6,), seed=3), 2 * np.random.default_rng(4).normal(size=(6, 2))
    expected = relaxed_gradient(mixture, y, choice, eps)
    z = np.abs(mixture.standardize(y))
    assert (z.max() > 0.5 / max(eps, 1e-9)) == (eps >= 0.1)  # the limit is met, at large eps
    for natural in (
        choice.gradient(mixture, y, relaxation=eps),
        jax.jit(choice.gradient)(mixture, y, relaxation=eps),
        choice.gradient(mixture, y, relaxation=np.float32(eps)) if eps in (0.0, 1.0) else None,
    ):
        if natural is not None:
            for actual, desired in zip(jax.tree.leaves(natural), expected, strict=True):
                np.testing.assert_allclose(actual, desired, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("eps", [0.01, 0.1])
def test_relaxation_of_the_plain_gradient_is_that_of_a_mixed_objective(eps: float) -> None:
    """Without a limit that is met: (1 - eps) NLL + eps mean_k(-log pi_k N_k)."""
    mixture, y = make(batch=(5,), seed=3), 0.2 * np.random.default_rng(4).normal(size=(5, 2))
    assert np.abs(mixture.standardize(y)).max() < 0.5 / eps

    def mixed(leaves: list[jax.Array], t: jax.Array) -> jax.Array:
        psi, mu, sigma = leaves
        log_normal = jax.scipy.stats.norm.logpdf(t[:, None, :], mu, sigma).sum(axis=-1)
        joint = jax.nn.log_softmax(psi) + log_normal
        return -((1 - eps) * jax.nn.logsumexp(joint, axis=-1) + eps * joint.mean(axis=-1)).sum()

    expected = jax.jit(jax.grad(mixed))(jax.tree.leaves(mixture), jnp.asarray(y))
    choice = Variant("plain", "plain")
    natural = choice.gradient(mixture, y, relaxation=eps)
    for actual, desired in zip(jax.tree.leaves(natural), expected, strict=True):
        np.testing.assert_allclose(actual, desired, rtol=1e-12, atol=1e-13)
    without = choice.gradient(mixture, y)
    assert np.abs(flat(natural) - flat(without)).max() > eps / 10  # the test can tell


@pytest.mark.parametrize("gradient", [natural_gradient, *(v.gradient for v in VARIANTS.values())])
def test_no_relaxation_is_none_however_it_is_said(gradient: Any) -> None:
    mixture, y = make(batch=(5,), seed=3), 3 * np.random.default_rng(4).normal(size=(5, 2))
    call = jax.jit(lambda eps: gradient(mixture, y, relaxation=eps))
    omitted = jax.jit(lambda: gradient(mixture, y))()
    # A rounding below zero, where a schedule ends, is zero as well.
    for relaxed in (call(0.0), call(jnp.zeros(())), call(-1e-7), call(-1e-30)):
        np.testing.assert_allclose(flat(relaxed), flat(omitted), rtol=1e-12, atol=1e-13)
    np.testing.assert_array_equal(
        flat(gradient(mixture, y, relaxation=0.0)), flat(gradient(mixture, y))
    )
    assert np.abs(flat(call(0.05)) - flat(omitted)).max() > 1e-3


def test_relaxation_gives_every_component_a_share() -> None:
    """A component without weight, far from every target, still moves towards them."""
    logits, means = np.array([0.0, -1e3]), np.array([[0.0], [50.0]])
    mixture, y = GaussianMixture(logits, means, np.ones((2, 1))), np.array([0.1])
    assert natural_gradient(mixture, y).means[1] == 0.0
    relaxed = natural_gradient(mixture, y, relaxation=0.1)
    # rho = eps / K = 0.05, z limited to 5, and the damping: 0.05 / 0.25 * 5.
    np.testing.assert_allclose(relaxed.means[1], 1.0, rtol=1e-12)
    np.testing.assert_allclose(relaxed.logits, [0.05, -0.05], rtol=1e-12)


def test_as_derived_is_the_pseudo_inverse_of_the_whole_matrix() -> None:
    mixture, y = make(seed=5), np.array([1.0, 0.2])
    fisher = jax.jit(complete_data_fisher_by_autodiff)(mixture)
    expected = np.linalg.pinv(fisher, hermitian=True) @ flat(nll_gradient(mixture, y))
    np.testing.assert_allclose(
        flat(as_derived.gradient(mixture, y)), expected, rtol=1e-11, atol=1e-12
    )


@jax.custom_jvp
def precond(dist: Any) -> Any:
    return dist


@precond.defjvp
def _precond_jvp(primals: Any, tangents: Any) -> Any:
    dist, grads = *primals, *tangents
    _, _, d_sigma = dist
    g_w, g_mu, g_sigma = grads
    return dist, (g_w, g_mu * d_sigma**2, g_sigma / 2.0 * d_sigma**2)


def gaussian_log_prob(mu: jax.Array, sigma: jax.Array, y: jax.Array) -> jax.Array:
    return jax.scipy.stats.norm.logpdf(y, mu, sigma).sum(axis=-1)


def paper_loss(dist: tuple[jax.Array, ...], y: jax.Array) -> jax.Array:
    """The code of Appendix C, with `d_std`, `g_std` read as `d_sigma`, `g_sigma`."""
    d_w, d_mu, d_sigma = precond(dist)
    # [E-step] compute responsibilities rho
    log_weights = jax.nn.log_softmax(d_w, axis=-1)
    # Standard Gaussian log probability for each component
    log_normal = jax.vmap(gaussian_log_prob)(d_mu, d_sigma, y[:, jnp.newaxis])
    log_rho = jax.nn.log_softmax(log_weights + log_normal, axis=-1)
    rho = jax.lax.stop_gradient(jnp.exp(log_rho))
    # [M-step] natural gradient descent
    pi = jax.lax.stop_gradient(jnp.exp(log_weights))
    return -(rho / pi * (log_weights + log_normal)).sum(axis=-1).mean()


def test_paper_code_is_the_gradient_of_the_papers_code() -> None:
    n = 6
    mixture = make(3, 2, batch=(n,), seed=7)
    y = np.random.default_rng(1).normal(size=(n, 2))
    expected = jax.jit(jax.grad(paper_loss))(tuple(jax.tree.leaves(mixture)), y)
    got = jax.jit(paper_code.gradient)(mixture, y)
    for actual, desired in zip(jax.tree.leaves(got), expected, strict=True):
        np.testing.assert_allclose(actual / n, desired, rtol=1e-12, atol=1e-13)
    # And the closed form of its logits: pi S - r, with r = N_k / sum_j pi_j N_j.
    density = stats.norm.pdf(y[:, None, :], mixture.means, mixture.scales).prod(axis=-1)
    pi = special.softmax(np.asarray(mixture.logits), axis=-1)
    r = density / np.sum(pi * density, axis=-1, keepdims=True)
    np.testing.assert_allclose(
        got.logits, pi * r.sum(axis=-1, keepdims=True) - r, rtol=1e-12, atol=1e-13
    )


def test_paper_code_is_no_natural_gradient() -> None:
    """It differs from both natural gradients by more than a multiple of the all-ones vector."""
    mixture, y = make(seed=3), np.array([0.3, -0.8])
    gradients = {
        name: np.asarray(VARIANTS[name].gradient(mixture, y).logits)
        for name in ("as_derived", "eq68", "paper_code")
    }

    def spread(a: str, b: str) -> float:
        return float(np.ptp(gradients[a] - gradients[b]))

    assert spread("as_derived", "eq68") < 64 * EPS
    assert spread("as_derived", "paper_code") > 0.1
    assert gradients["as_derived"].sum() == pytest.approx(0.0, abs=64 * EPS)
    assert abs(gradients["eq68"].sum()) > 0.1


def test_named_variants() -> None:
    mixture, y = make(seed=3), np.array([0.3, -0.8])
    plain = nll_gradient(mixture, y)
    found = {name: variant.gradient(mixture, y) for name, variant in VARIANTS.items()}
    for name in ("damped nGEM", "undamped"):
        np.testing.assert_allclose(found[name].logits, plain.logits, rtol=1e-13, atol=1e-14)
    for name in ("as_derived", "eq68", "paper_code"):
        for leaf in ("means", "scales"):
            expected = getattr(found["undamped"], leaf)
            np.testing.assert_array_equal(getattr(found[name], leaf), expected)
    for name, choice in (
        ("damped nGEM", Variant("plain", "damped", "log_scale", 0.25)),
        ("undamped", Variant("plain", "rho/pi", "scale")),
        ("as_derived", Variant("natural", "rho/pi", "scale")),
        ("fully_damped", Variant("damped", "damped", "scale", 0.01)),
    ):
        expected = dense_natural_gradient(mixture, y, choice)
        np.testing.assert_allclose(flat(found[name]), expected, rtol=1e-12, atol=1e-13)


def test_small_steps_agree_between_coordinates() -> None:
    """A natural gradient does not depend on the coordinate; as a cotangent it does."""
    mixture, y = make(seed=3), np.array([0.3, -0.8])
    scale, log_scale = (
        Variant("plain", "rho/pi", coordinate).gradient(mixture, y).scales
        for coordinate in ("scale", "log_scale")
    )
    # Factor sigma^2 between the cotangents ...
    np.testing.assert_allclose(scale, np.asarray(mixture.scales) ** 2 * log_scale, rtol=8 * EPS)
    # ... and the same step: of sigma by `scale`, of log sigma by its pull-back.
    step = 1e-6
    direct = mixture.scales - step * scale
    through_log = np.exp(np.log(mixture.scales) - step * mixture.scales * log_scale)
    change = np.asarray(direct - mixture.scales)
    # To first order: what is left is of the size of the square of the step.
    np.testing.assert_allclose(direct, through_log, atol=float(np.max(change**2 / mixture.scales)))
    assert np.abs(change).max() > 1e-7


def test_batch_axes_and_transformations() -> None:
    mixture = make(3, 2, batch=(4, 5))
    y = np.random.default_rng(0).normal(size=(4, 5, 2))
    for call in (natural_gradient, *(variant.gradient for variant in VARIANTS.values())):
        whole = jax.jit(call)(mixture, y)
        assert whole.logits.shape == (4, 5, 3)
        assert whole.means.shape == whole.scales.shape == (4, 5, 3, 2)
        mapped = jax.jit(jax.vmap(jax.vmap(call)))(mixture, y)
        for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(mapped), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-13)


# Properties over sizes, precisions and extreme parameters


PROPERTIES: dict[tuple[Any, ...], Callable[..., Any]] = {}


def compiled(*choice: Any) -> Callable[..., Any]:
    """The gradient of a variant; compiled once."""
    if choice not in PROPERTIES:
        PROPERTIES[choice] = jax.jit(Variant(*choice).gradient)
    return PROPERTIES[choice]


@st.composite
def mixtures(draw: st.DrawFn, extreme: bool) -> tuple[list[np.ndarray], np.ndarray]:
    """A mixture and a target, in one of the two precisions.

    Extreme ones have log-weights down to -1e4, scales from 1e-6 to 1e6 and targets up to 1e6
    scales from a mean.
    """
    k, d = draw(st.sampled_from([(1, 1), (2, 1), (3, 2)]))
    dtype = draw(st.sampled_from([np.float32, np.float64]))

    def array(low: float, high: float, *shape: int) -> np.ndarray:
        size = int(np.prod(shape))
        number = st.floats(low, high, width=32)
        return np.reshape(draw(st.lists(number, min_size=size, max_size=size)), shape)

    logits = array(-1e4, 0.0, k) if extreme else array(-2.0, 2.0, k)
    scales = 10 ** (array(-6.0, 6.0, k, d) if extreme else array(-0.5, 0.5, k, d))
    means = array(-1.0, 1.0, k, d) * (scales if extreme else 1.0)
    near = draw(st.integers(0, k - 1))
    y = means[near] + scales[near] * (array(-1e6, 1e6, d) if extreme else array(-2.0, 2.0, d))
    return [a.astype(dtype) for a in (logits, means, scales)], y.astype(dtype)


CHOICES = [*zip(LOGITS, itertools.cycle(GAUSSIANS)), ("plain", "damped")]  # the default too


@quick
@given(
    mixtures(extreme=True),
    st.sampled_from(CHOICES),
    st.sampled_from(COORDINATES),
    st.booleans(),
)
def test_finite_and_bounded_everywhere(
    drawn: tuple[list[np.ndarray], np.ndarray],
    choice: tuple[str, str],
    coordinate: str,
    own_unit: bool,
) -> None:
    parameters, y = drawn
    with jax.enable_x64(y.dtype == np.float64):
        mixture = GaussianMixture(*parameters)
        unit = scale_unit(mixture) if own_unit else jnp.ones(mixture.dim, y.dtype)
        options = {} if choice[1] == "plain" else {"unit": unit}  # there nothing is measured in it
        natural = compiled(*choice, coordinate, 0.01)(mixture, y, **options)
    for leaf in jax.tree.leaves(natural):
        assert leaf.dtype == y.dtype
    assert np.isfinite(natural.logits).all()
    bound = {"plain": 1.0, "damped": 2.0**0.5 / 0.01}.get(choice[0], np.inf)
    assert np.all(np.abs(natural.logits) <= bound * (1 + 1e-5))
    z = (y.astype(float) - parameters[1]) / parameters[2]
    # The scales of one component may be 1e12 times another's, and the target then 1e18 scales
    # from it. Finiteness is promised, and checked, for components within 1e6 scales.
    within = np.abs(z).max(axis=-1) <= 1.001e6
    assert np.isfinite(natural.means[within]).all()
    assert np.isfinite(natural.scales[within]).all()


@quick
@given(mixtures(extreme=True))
def test_logits_sum_to_zero_where_they_should(drawn: tuple[list[np.ndarray], np.ndarray]) -> None:
    """The all-ones direction changes nothing; only equation (68) moves along it."""
    parameters, y = drawn
    eps = np.finfo(y.dtype).eps
    with jax.enable_x64(y.dtype == np.float64):
        mixture = GaussianMixture(*parameters)
        for logits in ("plain", "natural", "damped"):
            gradient = np.asarray(compiled(logits, "rho", "scale", 0.01)(mixture, y).logits, float)
            size = np.abs(gradient).max() + 1.0
            # The damped solve divides rounding by the damping.
            assert abs(gradient.sum()) <= 64 * eps * size * (100 if logits == "damped" else 1)


@quick
@given(mixtures(extreme=False))
def test_ordinary_mixtures_agree_with_dense_algebra(
    drawn: tuple[list[np.ndarray], np.ndarray],
) -> None:
    parameters, y = drawn
    exact = [p.astype(np.float64) for p in parameters]
    expected = dense_natural_gradient(GaussianMixture(*exact), y.astype(np.float64), as_derived)
    with jax.enable_x64(y.dtype == np.float64):
        natural = flat(compiled("natural", "rho/pi", "scale")(GaussianMixture(*parameters), y))
    # Errors of z^2 / 2, up to 1e3, become relative errors of the responsibilities.
    tolerance = 1e4 * float(np.finfo(y.dtype).eps)
    np.testing.assert_allclose(natural, expected, rtol=tolerance, atol=tolerance * np.ptp(expected))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("coordinate", COORDINATES)
def test_an_overflowing_ratio_saturates(dtype: Any, name: str, coordinate: str) -> None:
    """The starved component owns the target: `r = exp(1e4)`, more than any float."""
    mixture_, y = (
        (np.array([0.0, -1e4]), np.array([[0.0], [1e3]]), np.ones((2, 1))),
        np.array([1e3]),
    )
    choice = VARIANTS[name]
    with jax.enable_x64(dtype == np.float64):
        mixture = GaussianMixture(*(a.astype(dtype) for a in mixture_))
        call = compiled(choice.logits, choice.gaussians, coordinate)
        natural = call(mixture, y.astype(dtype))
        assert natural.logits.dtype == dtype
        for leaf in jax.tree.leaves(natural):
            assert np.isfinite(leaf).all()
    starved, fed = natural.logits[1], natural.logits[0]
    assert starved < 0 < fed or name == "eq68"  # the starved weight is to grow
    assert starved < 0
    if choice.logits in ("natural", "eq68", "paper_code"):
        # As large as a float lets it be with room for products: the root of the largest.
        assert -starved >= 0.4 * np.sqrt(np.finfo(dtype).max)


# Choices


@pytest.mark.parametrize(
    "call",
    [
        gaussian_fisher,
        complete_data_fisher,
        complete_data_fisher_by_autodiff,
        lambda m, c: complete_data_fisher_by_sampling(jax.random.key(0), m, 10, c),
    ],
)
def test_an_unknown_coordinate_is_an_error(call: Any) -> None:
    mixture = make()
    argument = mixture.scales if call is gaussian_fisher else mixture
    for coordinate in ("log-scale", "log", ""):
        message = f"coordinate must be one of scale, log_scale, got '{coordinate}'"
        with pytest.raises(ValueError, match=message):
            call(argument, coordinate)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"logits": "best"}, "logits must be one of plain, natural, .*, got 'best'"),
        ({"gaussians": "pi"}, "gaussians must be one of damped, rho/pi, rho, plain, got 'pi'"),
        ({"coordinate": "log"}, "coordinate must be one of scale, log_scale, got 'log'"),
        ({"damping": 0.0}, "damping must be positive and finite, got 0.0"),
        ({"damping": -1.0}, "damping must be positive"),
        ({"damping": float("inf")}, "damping must be positive"),
        ({"damping": float("nan")}, "damping must be positive"),
    ],
)
def test_a_variant_checks_its_choices(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Variant(**arguments)


def test_natural_gradient_checks_the_target() -> None:
    with pytest.raises(ValueError, match=r"y must have shape \(\.\.\., D\) with D = 2"):
        natural_gradient(make(), np.zeros(3))


# Where the logits come to rest (targets far from each other, so that responsibilities are 0 or 1)


def rest(name: str, true_weights: np.ndarray) -> np.ndarray:
    """Gradient descent on the logits alone, on the whole population of separated components."""
    k = len(true_weights)
    means = 100.0 * np.arange(k)[:, None]

    def step(logits: jax.Array, _: None) -> tuple[jax.Array, None]:
        batch = (k,)
        mixture = GaussianMixture(
            jnp.broadcast_to(logits, (*batch, k)),
            jnp.broadcast_to(means, (*batch, k, 1)),
            jnp.ones((*batch, k, 1)),
        )
        gradient = VARIANTS[name].gradient(mixture, means).logits
        return logits - 0.1 * true_weights @ gradient, None

    start = jnp.zeros(k)
    last, _ = jax.jit(lambda s: jax.lax.scan(step, s, length=3000))(start)
    return special.softmax(np.asarray(last))


TRUE_WEIGHTS = [(0.896, 0.104), (0.688, 0.208, 0.104)]


@pytest.mark.parametrize("weights", TRUE_WEIGHTS)
@pytest.mark.parametrize("name", [name for name in VARIANTS if name != "paper_code"])
def test_consistent_variants_come_to_rest_at_the_true_weights(
    name: str, weights: tuple[float, ...]
) -> None:
    # 3000 steps of 0.1, contracting by 1 - 0.1 pi_min at the slowest: exp(-30) is left.
    np.testing.assert_allclose(rest(name, np.array(weights)), weights, atol=1e-10)


@pytest.mark.parametrize("weights", TRUE_WEIGHTS)
def test_paper_code_comes_to_rest_at_the_square_roots(weights: tuple[float, ...]) -> None:
    roots = np.sqrt(weights)
    at_rest = rest("paper_code", np.array(weights))
    np.testing.assert_allclose(at_rest, roots / roots.sum(), atol=1e-10)
    assert np.abs(at_rest - weights).max() > 0.1


def test_options_out_of_range_are_refused_where_they_are_known() -> None:
    for eps in (2.0, -0.1, np.float32(1.5)):
        with pytest.raises(ValueError, match="relaxation must be from 0 to 1, got"):
            relaxed_e_step(make(), np.zeros(2), eps)
    clamped = jax.jit(relaxed_e_step)(make(), np.zeros(2), 2.0)
    np.testing.assert_allclose(clamped.responsibilities, 1 / 3, rtol=1e-12)
    for damping in (0.0, -1.0, np.nan):
        with pytest.raises(ValueError, match="damping must be positive and finite, got"):
            solve_damped_categorical_fisher(np.array([1.0, 0.0]), np.array([0.5, -0.5]), damping)


def test_a_divergence_is_between_mixtures_of_one_shape() -> None:
    p = make(batch=(4,))
    for q in (make(k=1, batch=(4,)), make(d=1, batch=(4,)), make(batch=(1,)), make(k=1)):
        with pytest.raises(ValueError, match="q must have the shape of p: its means have shape"):
            complete_data_kl(p, q)
    assert complete_data_kl(p, make()).shape == complete_data_kl(make(), p).shape == (4,)
