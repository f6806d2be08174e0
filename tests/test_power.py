"""Gradients preconditioned by powers of the Fisher matrix, against explicit matrix powers."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special
from scipy.linalg import fractional_matrix_power

from ngem_tutorial import (
    METHODS,
    Method,
    MixtureDensityNetwork,
    PlainMixture,
    fit,
    get_method,
    loop,
)
from ngem_tutorial.fisher import complete_data_fisher, natural_gradient
from ngem_tutorial.mixtures import GaussianMixture
from ngem_tutorial.objectives import beta_nll, ngem, nll, relaxation_schedule, scale_unit
from ngem_tutorial.power import (
    Power,
    PowerSchedule,
    balance,
    categorical_power,
    pooled_unit,
    update_shares,
    whitened_nll,
)
from ngem_tutorial.variants import Variant

pytestmark = pytest.mark.usefixtures("x64")

EPS = float(np.finfo(np.float64).eps)
EXPONENTS = [0.0, 0.2, 0.5, 0.75, 1.0]


def make(k: int = 3, d: int = 2, batch: tuple[int, ...] = (), seed: int = 0) -> GaussianMixture:
    rng = np.random.default_rng(seed)
    return GaussianMixture(
        2.0 * rng.normal(size=(*batch, k)),
        rng.normal(size=(*batch, k, d)),
        np.exp(0.7 * rng.normal(size=(*batch, k, d))),
    )


def targets(*shape: int, seed: int = 9) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


def close(actual: Any, expected: Any, tolerance: float = 1e-12) -> None:
    for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=10 * tolerance)


def vector(gradient: GaussianMixture) -> np.ndarray:
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(gradient)])


def one(mixture: GaussianMixture, i: Any) -> GaussianMixture:
    return jax.tree.map(lambda leaf: leaf[i], mixture)


# The gradient


@pytest.mark.parametrize(
    ("logits", "unit"), [("plain", 1.0), ("damped", 0.3), ("damped", (0.2, 5.0))]
)
def test_the_gradient_is_the_plain_one_times_a_matrix_power(logits: Any, unit: Any) -> None:
    """In the coordinates psi, mu / unit and log sigma, by autodiff and scipy's matrix powers."""
    damping, mixture, y = 0.07, make(), targets(2)
    s = np.broadcast_to(np.asarray(unit), (3, 2))

    def value(c: Any) -> jax.Array:
        return nll(GaussianMixture(c[0], s * c[1], jnp.exp(c[2])), y)

    plain = jax.jit(jax.grad(value))((mixture.logits, mixture.means / s, jnp.log(mixture.scales)))
    pi, sigma = np.asarray(mixture.weights), np.asarray(mixture.scales)
    categorical = np.diag(pi) - np.outer(pi, pi) + damping * np.eye(3)
    # The damping is a share: a component's block is (pi_k + damping) F_k.
    gaussian = (pi + damping)[:, None] * np.stack([s**2 / sigma**2, np.full_like(s, 2.0)])

    @jax.jit
    def gradients(exponents: jax.Array) -> Any:
        def known(p: float) -> Any:
            return jax.grad(partial(Power(p, logits, damping), unit=unit))(mixture, y)

        def traced(p: jax.Array) -> Any:
            call = partial(Power(0.3, logits, damping), exponent=p, unit=unit)
            return jax.grad(call)(mixture, y)

        each = [known(p) for p in EXPONENTS]
        return jax.tree.map(lambda *leaf: jnp.stack(leaf), *each), jax.vmap(traced)(exponents)

    for found in gradients(jnp.array(EXPONENTS)):
        for i, p in enumerate(EXPONENTS):
            power = fractional_matrix_power(np.diag(gaussian.ravel()), -p)
            rest = power @ np.concatenate([np.ravel(plain[1]), np.ravel(plain[2])])
            first = np.asarray(plain[0])
            if logits == "damped":
                first = fractional_matrix_power(categorical, -p) @ first
            means, log_scales = rest.reshape(2, 3, 2)
            expected = [first, means / s, log_scales / sigma]  # back to mu and to sigma
            for a, b in zip(jax.tree.leaves(one(found, i)), expected, strict=True):
                np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-12)


def test_the_blocks_are_those_of_the_complete_data_fisher_matrix() -> None:
    mixture, y = make(), targets(2)
    dense = np.asarray(complete_data_fisher(mixture, "log_scale").to_dense())
    plain = jax.grad(nll)(mixture, y)
    sigma = np.asarray(mixture.scales)
    own = np.concatenate([plain.logits, plain.means.ravel(), (plain.scales * sigma).ravel()])
    gaussians = fractional_matrix_power(dense[3:, 3:], -0.5) @ own[3:]
    found = Power(0.5, damping=1e-12).gradient(mixture, y)
    np.testing.assert_allclose(found.means.ravel(), gaussians[:6], rtol=1e-8)
    np.testing.assert_allclose((found.scales * sigma).ravel(), gaussians[6:], rtol=1e-8)


@pytest.mark.parametrize("logits", ["plain", "damped"])
def test_at_zero_it_is_nll_whatever_the_options(logits: Any) -> None:
    mixture, y = make(batch=(6,)), targets(6, 2)

    @jax.jit
    def gradients(unit: jax.Array, zero: jax.Array) -> Any:
        calls = [nll] + [partial(Power(1.0, logits), exponent=p, unit=unit) for p in (0.0, zero)]
        return [jax.value_and_grad(lambda m, c=c: c(m, y).sum())(mixture) for c in calls]

    for unit in (np.ones(2), np.array([3.0, 0.1])):
        (value, plain), *others = gradients(unit, 0.0)
        for found, own in others:
            assert found == value
            close(own, plain, 32 * EPS)


def test_at_one_it_is_ngem_and_the_damped_variant() -> None:
    mixture, y, unit = make(batch=(6,)), targets(6, 2), np.array([0.2, 5.0])
    for damping in (0.25, 0.02):
        options = {"unit": unit, "relaxation": 0.1}
        ours = Power(1.0, "plain", damping).gradient(mixture, y, **options)
        expected = natural_gradient(mixture, y, damping=damping, **options)
        for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(expected), strict=True):
            np.testing.assert_array_equal(a, b)
        ours = Power(1.0, "damped", damping).gradient(mixture, y, **options)
        variant = Variant("damped", "damped", damping=damping)
        for a, b in zip(
            jax.tree.leaves(ours),
            jax.tree.leaves(variant.gradient(mixture, y, **options)),
            strict=True,
        ):
            np.testing.assert_array_equal(a, b)
        traced = Power(0.3, "damped", damping).gradient(
            mixture, y, exponent=jnp.array(1.0), **options
        )
        close(traced, ours)


def test_the_value_is_that_of_nll_and_the_options_get_no_gradient() -> None:
    mixture, y = make(batch=(6,)), targets(6, 2)
    objective = Power(0.5, "damped")
    assert np.array_equal(objective(mixture, y), nll(mixture, y))
    options = {
        "exponent": 0.4,
        "unit": np.array([0.5, 2.0]),
        "relaxation": 0.1,
        "balance": np.ones(3),
    }

    def loss(m: Any, t: Any, o: Any) -> jax.Array:
        return objective(m, t, **o).sum()

    _, d_y, d_options = jax.jit(jax.grad(loss, (0, 1, 2)))(mixture, y, options)
    for leaf in jax.tree.leaves(d_options):
        np.testing.assert_array_equal(leaf, 0.0)
    np.testing.assert_allclose(d_y, jax.grad(lambda t: nll(mixture, t).sum())(y), atol=1e-13)


def test_one_component_at_a_half_weighs_examples_as_beta_nll_does() -> None:
    """With beta = 1/2 too the precision of an example's prediction drops out of its weight."""
    mixture, y = make(1, 1, (5,)), targets(5, 1)
    ours = Power(0.5, damping=1e-12).gradient(mixture, y)
    theirs = jax.grad(lambda m: beta_nll(m, y, 0.5).sum())(mixture)
    # The same for the mean; for the scale the power of 2, the Fisher matrix of its logarithm, and
    # a factor sigma, because beta_nll weighs all of an example's terms by sigma.
    np.testing.assert_allclose(ours.means, theirs.means, rtol=1e-10)
    np.testing.assert_allclose(
        ours.scales * mixture.scales, theirs.scales / np.sqrt(2), rtol=1e-10, atol=1e-12
    )


def test_it_rests_where_the_likelihood_does_for_a_free_mixture() -> None:
    """The average of the gradient is the likelihood's times what no example changes."""
    mixture, y = make(), targets(50, 2)
    plain = jax.grad(lambda m: nll(m, y).mean())(mixture)
    for p in (0.3, 0.5):
        ours = jax.grad(lambda m, p=p: Power(p, "damped")(m, y).mean())(mixture)
        pi, sigma = np.asarray(mixture.weights), np.asarray(mixture.scales)
        factor = (pi + 0.25)[:, None] ** -p
        np.testing.assert_allclose(ours.means, factor * sigma ** (2 * p) * plain.means, rtol=1e-11)
        np.testing.assert_allclose(ours.scales, factor * 2**-p * plain.scales, rtol=1e-11)
        matrix = np.diag(pi) - np.outer(pi, pi) + 0.25 * np.eye(3)
        expected = fractional_matrix_power(matrix, -p) @ plain.logits
        np.testing.assert_allclose(ours.logits, expected, rtol=1e-11)


# Whitening


def scores(mixture: GaussianMixture, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Samples with their components, as targets of shape `(count, D)`."""
    y, k = mixture.sample_with_components(jax.random.key(0), count)
    return np.asarray(y), np.asarray(k)


def whitened(mixture: GaussianMixture, y: np.ndarray, damping: float) -> np.ndarray:
    """The cotangents at p = 1/2 in the coordinates mu and log sigma, a row per target."""
    found = jax.jit(Power(0.5, "damped", damping).gradient)(mixture, y)
    n = len(y)
    parts = (found.logits, found.means, found.scales * mixture.scales)
    return np.concatenate([np.asarray(part).reshape(n, -1) for part in parts], axis=1)


def test_a_half_whitens_the_score_of_separated_components() -> None:
    """Responsibilities are 0 or 1 there, so that the target tells its component."""
    mixture = GaussianMixture(
        [0.0, 0.7, -0.4], [[0.0, 0.0], [100.0, 0.0], [0.0, 100.0]],
        [[0.3, 2.0], [1.0, 0.05], [4.0, 1.0]],
    )  # fmt: skip
    y, _ = scores(mixture, 40_000)
    rows = whitened(mixture, y, 1e-6)
    covariance = rows.T @ rows / len(rows)
    # The logits have no information along the vector of ones.
    identity = np.eye(15)
    identity[:3, :3] -= 1 / 3
    # Standard errors: those of the variances of 1 - z^2, which has a fourth moment of 15 times.
    assert np.abs(covariance - identity).max() < 6 * np.sqrt(15 / (0.2 * len(rows)))
    assert np.abs(covariance - identity).mean() < 0.01


def test_with_overlap_the_whitened_score_has_no_more_than_unit_covariance() -> None:
    """What the component would have told is missing: not the identity, but below it."""
    mixture = GaussianMixture(
        [0.0, 0.5, -0.5], [[0.0, 0.0], [1.0, 0.0], [0.0, 1.5]], np.exp(targets(3, 2) / 3)
    )
    y, k = scores(mixture, 40_000)
    rows = whitened(mixture, y, 1e-6)
    eigenvalues = np.linalg.eigvalsh(rows.T @ rows / len(rows))
    assert eigenvalues.max() < 1.05
    assert eigenvalues[3] < 0.5
    # With the component known, responsibilities of one and zero, it is the identity.
    pi, sigma = np.asarray(mixture.weights), np.asarray(mixture.scales)
    hot = np.eye(3)[k]
    z = (y[:, None] - np.asarray(mixture.means)) / sigma
    weight = (hot / np.sqrt(pi))[..., None]
    root = fractional_matrix_power(np.diag(pi) - np.outer(pi, pi) + 1e-6 * np.eye(3), -0.5)
    parts = [(pi - hot) @ root, -weight * z, weight * (1 - z**2) / np.sqrt(2)]
    full = np.concatenate([part.reshape(len(y), -1) for part in parts], axis=1)
    identity = np.eye(15)
    identity[:3, :3] -= 1 / 3
    assert np.abs(full.T @ full / len(y) - identity).max() < 0.1


def test_damped_gaussians_are_whitened_up_to_their_share() -> None:
    """With a damping of the size of the weights a component's covariance is pi / (pi + lambda)."""
    mixture = GaussianMixture([0.0, -1.0], [[0.0], [100.0]], [[0.3], [2.0]])
    y, _ = scores(mixture, 40_000)
    found = np.square(whitened(mixture, y, 0.25)[:, 2:]).mean(axis=0).reshape(2, 2)
    pi = np.asarray(mixture.weights)
    np.testing.assert_allclose(found, np.broadcast_to(pi / (pi + 0.25), (2, 2)), rtol=0.05)


# The power of the logits' block


@pytest.mark.parametrize(("damping", "k"), [(1.0, 1), (0.25, 2), (0.01, 30), (1e-4, 7)])
def test_powers_of_the_categorical_block(damping: float, k: int) -> None:
    rng = np.random.default_rng(k)
    pi = np.stack([rng.dirichlet(np.full(k, c)) for c in (0.05, 1.0, 100.0)])
    g, exponents = rng.normal(size=(3, k)), [*EXPONENTS, 0.01, 0.99]

    @jax.jit
    def products(p: jax.Array) -> Any:
        known = [categorical_power(pi, g, damping, q) for q in exponents]
        return jnp.stack(known), jax.vmap(lambda q: categorical_power(pi, g, damping, q))(p)

    for found in products(jnp.array(exponents)):
        for row, p in zip(np.asarray(found), exponents, strict=True):
            for a, w, v in zip(row, pi, g, strict=True):
                matrix = np.diag(w) - np.outer(w, w) + damping * np.eye(k)
                expected = fractional_matrix_power(matrix, -p) @ v
                np.testing.assert_allclose(a, expected, atol=2e-12 * np.abs(expected).max())


def test_the_series_is_long_enough_in_float32() -> None:
    rng = np.random.default_rng(0)
    pi, g = rng.dirichlet(np.ones(10), 50), rng.normal(size=(50, 10))
    exact = np.asarray(categorical_power(pi, g, 0.01, 0.5))
    with jax.enable_x64(False):
        found = categorical_power(pi.astype(np.float32), g.astype(np.float32), 0.01, 0.5)
        assert found.dtype == np.float32
    np.testing.assert_allclose(found, exact, atol=2e-5 * np.abs(exact).max())


def test_the_logits_keep_their_sum_of_zero() -> None:
    mixture, y = make(5, batch=(20,)), targets(20, 2)
    logits = jax.jit(Power(0.3, "damped", 0.01).gradient)(mixture, y).logits
    assert np.abs(np.asarray(logits).sum(axis=-1)).max() < 1e-11


# Per example, finite, by value


@pytest.mark.parametrize("logits", ["plain", "damped"])
def test_the_gradient_of_an_example_is_its_own(logits: Any) -> None:
    """Mapped, in micro-batches and beside padding."""
    mixture, y = make(batch=(6,)), targets(6, 2)
    call = partial(
        Power(0.5, logits), unit=0.3, relaxation=0.05, balance=np.array([0.5, 0.0, -1.0])
    )

    def gradient(m: GaussianMixture, t: Any, call: Any = call) -> GaussianMixture:
        return jax.grad(lambda m: call(m, t).sum())(m)

    whole, small = jax.jit(gradient)(mixture, y), jax.jit(gradient)
    parts = [small(one(mixture, slice(i, i + 2)), y[i : i + 2]) for i in (0, 2, 4)]
    close(jax.tree.map(lambda *leaf: jnp.concatenate(leaf), *parts), whole)
    close(jax.jit(jax.vmap(jax.grad(call)))(mixture, y), whole)
    close(jax.jit(partial(gradient, call=jax.vmap(call)))(mixture, y), whole)
    mask = np.arange(6) < 4
    scales = jnp.where(mask[:, None, None], mixture.scales, 1e-3)
    padded = dataclasses.replace(mixture, scales=scales)
    masked = jax.jit(jax.grad(lambda m: jnp.where(mask, call(m, y), 0.0).sum()))(padded)
    close(one(masked, slice(4)), one(whole, slice(4)))
    for leaf in jax.tree.leaves(one(masked, slice(4, 6))):
        np.testing.assert_array_equal(leaf, 0.0)


@pytest.mark.parametrize("logits", ["plain", "damped"])
def test_it_is_finite_for_tiny_and_huge_parameters(logits: Any) -> None:
    w, s, other, far = (
        a.ravel()
        for a in np.meshgrid(
            [0.0, -1e4], [1e-6, 1.0, 1e6], [1e-6, 1.0, 1e6], [0.0, 1.0, 1e6], indexing="ij"
        )
    )
    scales = np.stack([s, other, np.ones_like(s)], axis=-1)[..., None]
    logit = np.stack([w, np.zeros_like(w), -w], axis=-1)
    means = np.broadcast_to(np.array([0.0, 1.0, 2.0])[:, None], scales.shape)
    y = (far * s)[:, None]
    with jax.enable_x64(False):
        mixture = GaussianMixture(*(a.astype(np.float32) for a in (logit, means, scales)))

        correction = balance(np.array([1.0, 0.0, 0.0]), 1.0)

        @jax.jit
        def run(m: GaussianMixture, t: jax.Array, p: jax.Array) -> Any:
            call = partial(Power(0.5, logits), exponent=p, balance=correction)
            return jax.grad(lambda m: call(m, t).sum())(m)

        for p in EXPONENTS:
            for leaf in jax.tree.leaves(run(mixture, y.astype(np.float32), np.float32(p))):
                assert leaf.dtype == np.float32
                bad = np.argwhere(~np.isfinite(leaf))
                assert not len(bad), (p, leaf.shape, bad[:3])


def test_equal_objectives_and_schedules_are_one_value() -> None:
    assert Power(0.5, "damped") == Power(0.5, "damped", 0.25)
    assert hash(Power()) == hash(Power(0.5))
    assert Power() != Power(0.4)
    assert PowerSchedule(10, 0.5) == PowerSchedule(10)
    assert hash(PowerSchedule(10)) == hash(PowerSchedule(10))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Power(1.5), "exponent must be from 0 to 1, got 1.5"),
        (lambda: Power(logits="natural"), "logits must be one of plain, damped"),  # type: ignore[arg-type]
        (lambda: Power(damping=0.0), "damping must be positive and finite, got 0.0"),
        (lambda: Power()(make(), np.zeros(2), exponent=-0.1), "exponent must be from 0 to 1"),
        (lambda: Power()(make(), np.zeros(2), exponent=PowerSchedule(3)), "got a function"),  # type: ignore[arg-type]
        (lambda: Power()(make(), np.zeros(2), balance=np.zeros(2)), r"\(K,\) = \(3,\), got"),
        (lambda: Power()(make(), np.zeros(2), balance=[np.inf, 0, 0]), "balance must be finite"),
        (lambda: Power()(make(), np.zeros(2), unit=0.0), "unit must be positive"),
        (lambda: categorical_power(np.ones(1), np.zeros(1), -1.0, 0.5), "damping must be"),
        (lambda: balance([[0.5]], 1.0), r"shares must have shape \(K,\), got \(1, 1\)"),
        (lambda: balance([-0.5, 1.5], 1.0), "shares must be finite, not negative"),
        (lambda: balance([0.5, 0.5], -1.0), "strength must be at least 0"),
        (lambda: update_shares([1.0], make(), np.zeros(2), 0.1), r"\(K,\) = \(3,\), got \(1,\)"),
        (lambda: update_shares(np.ones(3), make(), np.zeros(2), 1.1), "rate must be from 0 to 1"),
        (
            lambda: update_shares(np.ones(3), make(), np.zeros((4, 2)), 0.1, weights=np.ones(3)),
            r"weights must have shape \(4,\), got \(3,\)",
        ),
        (lambda: pooled_unit(np.ones((2, 2))), "unit must be a number or have shape"),
        (lambda: PowerSchedule(0), "num_updates must be at least 1"),
        (lambda: PowerSchedule(10, fade=1.5), "fade must be from 0 to 1, got 1.5"),
        (lambda: PowerSchedule(10, strength=-1.0), "strength must be at least 0"),
    ],
)
def test_what_is_out_of_range_is_named(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_a_second_derivative_is_an_error() -> None:
    mixture, y = make(), targets(2)
    with pytest.raises(TypeError, match="cannot be differentiated twice"):
        jax.hessian(lambda mu: Power()(dataclasses.replace(mixture, means=mu), y))(mixture.means)


# Units


def test_the_pooled_unit_is_a_geometric_mean() -> None:
    mixture = make(batch=(5,))
    every = np.exp(np.log(np.asarray(mixture.scales)).mean())
    np.testing.assert_allclose(pooled_unit(scale_unit(mixture)), every, rtol=1e-13)
    assert pooled_unit(3.0) == pytest.approx(3.0)


@pytest.mark.parametrize("unit", [1.0, 0.3, (0.5, 2.0)])
def test_whitened_nll_is_the_power_of_a_half(unit: Any) -> None:
    """By the formulas of its docstring, and as any power whose exponent is not known."""
    mixture, y = make(4, 2, batch=(7,)), targets(7, 2)
    value = whitened_nll(mixture, y, unit=unit, relaxation=0.2)
    np.testing.assert_array_equal(value, nll(mixture, y))
    loss = lambda f, m, **o: f(m, y, unit=unit, relaxation=0.2, **o).sum()  # noqa: E731
    found = jax.grad(lambda m: loss(whitened_nll, m))(mixture)
    traced = jax.jit(lambda p: jax.grad(lambda m: loss(Power(), m, exponent=p))(mixture))(0.5)
    z = np.clip((y[:, None, :] - mixture.means) / mixture.scales, -2.5, 2.5)
    pi, rho = mixture.weights, 0.8 * mixture.responsibilities(y) + 0.2 / 4
    wide = lambda a: np.asarray(a)[..., None]  # noqa: E731
    formulas = (
        pi - rho,
        -wide(rho) * z / (np.asarray(unit) * np.sqrt(wide(pi) + 0.25)),
        wide(rho) * (1 - z**2) / (mixture.scales * np.sqrt(2 * (wide(pi) + 0.25))),
    )
    close(found, traced)
    close(found, list(formulas))


def test_the_recommended_method_has_its_unit_schedule_and_start() -> None:
    method = METHODS["whitened NLL"]
    assert (method.objective, method.unit) == (whitened_nll, "pooled")
    assert method.initial_means == "kmeans++"
    assert method.schedule is not None
    assert method.schedule(500) == relaxation_schedule(500, initial=0.01)
    assert get_method("whitened NLL", unit="target").unit == "target"


def test_a_method_with_the_pooled_unit_is_trained_with_it() -> None:
    mixture, y = make(), targets(30, 2)
    rate = 0.1
    pooled = Method("pooled", Power(1.0), unit="pooled")
    trained = loop.train(
        PlainMixture(mixture), pooled, None, y,
        epochs=1, batch_size=30, learning_rate=rate, optimizer=_sgd, record_at=(1,),
    )  # fmt: skip
    unit = pooled_unit(scale_unit(mixture))
    gradient = jax.grad(lambda m: Power(1.0)(m, y, unit=unit).mean())(mixture)
    np.testing.assert_allclose(
        trained.model()().means, mixture.means - rate * gradient.means, rtol=1e-10
    )


def _sgd(rate: Any) -> Any:
    import optax

    return optax.sgd(rate)


# Balanced starts


def test_no_strength_is_no_balance() -> None:
    mixture, y = make(batch=(6,)), targets(6, 2)
    correction = balance(np.array([0.9, 0.1, 0.0]), 0.0)
    np.testing.assert_array_equal(correction, 0.0)
    close(Power().gradient(mixture, y, balance=correction), Power().gradient(mixture, y))
    assert (
        Power()(mixture, y, balance=np.array([0.3, 0.0, 9.0])).tolist() == nll(mixture, y).tolist()
    )


def test_the_balanced_responsibilities_are_those_of_the_formula() -> None:
    mixture, y = make(batch=(6,)), targets(6, 2)
    shares, c = np.array([0.7, 0.2, 0.1]), 0.6
    logits = Power(0.0).gradient(mixture, y, balance=balance(shares, c)).logits
    joint = np.asarray(mixture.log_weights + mixture.component_log_prob(y))
    rho = special.softmax(joint + np.log((3 * shares) ** -c), axis=-1)
    np.testing.assert_allclose(np.asarray(mixture.weights) - logits, rho, atol=1e-14)


def test_the_running_mean_follows_the_data() -> None:
    mixture, y = make(batch=(6,)), targets(6, 2)
    rho = np.asarray(mixture.responsibilities(y))
    start = np.full(3, 1 / 3)
    np.testing.assert_allclose(update_shares(start, mixture, y, 1.0), rho.mean(axis=0), rtol=1e-13)
    np.testing.assert_array_equal(update_shares(start, mixture, y, 0.0), start)
    half = update_shares(start, mixture, y, 0.5)
    np.testing.assert_allclose(half, 0.5 * (start + rho.mean(axis=0)), rtol=1e-13)
    weights = np.array([1.0, 0.0, 2.0, 0.0, 0.0, 1.0])
    found = update_shares(start, mixture, y, 1.0, weights=weights)
    np.testing.assert_allclose(found, (weights[:, None] * rho).sum(0) / 4, rtol=1e-13)
    np.testing.assert_array_equal(update_shares(start, mixture, y, 1.0, weights=np.zeros(6)), start)
    # Two batches of one rate are one mean, in whatever order within them.
    np.testing.assert_allclose(
        update_shares(start, one(mixture, slice(None, None, -1)), y[::-1], 0.5), half, rtol=1e-13
    )


def test_at_its_fixed_point_the_balance_solves_the_soft_transport() -> None:
    """Gamma minimises <gamma, -log(pi N)> - H(gamma) + c KL(shares || 1/K), rows of mass one."""
    mixture, y, c = make(batch=(40,), seed=3), targets(40, 2), 2.0
    mixture = jax.tree.map(lambda leaf: leaf[:1].repeat(40, 0), mixture)

    @jax.jit
    def settle(shares: jax.Array) -> jax.Array:
        def step(_: Any, s: jax.Array) -> jax.Array:
            return update_shares(s, mixture, y, 0.2, balance=balance(s, c))

        return jax.lax.fori_loop(0, 400, step, shares)

    shares = settle(jnp.full(3, 1 / 3))
    joint = np.asarray(mixture.log_weights + mixture.component_log_prob(y))
    rho = special.softmax(joint + np.asarray(balance(shares, c)), axis=-1)
    np.testing.assert_allclose(rho.mean(axis=0), shares, rtol=1e-10)

    def cost(logits: np.ndarray) -> float:
        gamma = special.softmax(logits, axis=-1)
        mean = gamma.mean(axis=0)
        entropy = -(gamma * np.log(gamma)).sum(axis=1).mean()
        return float(-(gamma * joint).sum(1).mean() - entropy + c * (mean * np.log(3 * mean)).sum())

    best = cost(np.log(rho))
    rng = np.random.default_rng(0)
    for size in (1e-3, 1e-1, 1.0):
        for _ in range(20):
            assert cost(np.log(rho) + size * rng.normal(size=rho.shape)) > best
    # And they are more even than the plain ones.
    plain = np.asarray(mixture.responsibilities(y)).mean(axis=0)
    assert np.abs(np.asarray(shares) - 1 / 3).max() < 0.95 * np.abs(plain - 1 / 3).max()


def test_a_component_with_all_the_mass_of_two_clusters_gives_some_away() -> None:
    noise = targets(100, 1, seed=1)
    y = noise + np.where(np.arange(100) < 50, -6.0, 6.0)[:, None]
    # The first component covers both clusters, the second lies outside.
    start = GaussianMixture([2.0, -2.0], [[0.0], [11.0]], [[6.0], [1.0]])

    @jax.jit
    def train(strength: jax.Array) -> Any:
        def step(carry: Any, i: jax.Array) -> Any:
            p, shares = carry
            correction = balance(shares, strength * jnp.maximum(0.0, 1 - i / 200))

            def loss(p: Any) -> jax.Array:
                model = GaussianMixture(p[0], p[1], jnp.exp(p[2]))
                return Power(1.0)(model, y, balance=correction).mean()

            model = GaussianMixture(p[0], p[1], jnp.exp(p[2]))
            shares = update_shares(shares, model, y, 0.2, balance=correction)
            p = jax.tree.map(lambda a, g: a - 0.5 * g, p, jax.grad(loss)(p))
            return (p, shares), shares

        first = ((start.logits, start.means, jnp.log(start.scales)), jnp.full(2, 0.5))
        (p, _), shares = jax.lax.scan(step, first, jnp.arange(400))
        return p, shares

    _, plain = train(0.0)
    (logits, means, _), balanced = train(1.0)
    assert plain[-1].min() < 1e-3
    np.testing.assert_allclose(balanced[-1], 0.5, atol=1e-3)
    np.testing.assert_allclose(np.sort(means[:, 0]), [-6.0, 6.0], atol=0.3)
    np.testing.assert_allclose(jax.nn.softmax(logits), 0.5, atol=0.02)


def test_a_loop_by_hand_and_the_package_s_loop_agree() -> None:
    """Exponent, relaxation and balance at every update, and the running mean between them."""
    mixture, y, rate, updates = make(), targets(30, 2), 0.05, 12
    schedule = partial(
        PowerSchedule, exponent=0.8, fade=1.0, relaxation=0.2, relaxed=0.5, strength=0.9,
        balanced=0.5,
    )  # fmt: skip
    method = Method("own", Power(logits="damped"), _Schedule(schedule(updates)))
    trained = loop.train(
        PlainMixture(mixture), method, None, y,
        epochs=updates, batch_size=30, learning_rate=rate, optimizer=_sgd, record_at=(updates,),
    )  # fmt: skip
    p, shares = (mixture.logits, mixture.means, jnp.log(mixture.scales)), jnp.full(3, 1 / 3)

    @jax.jit
    def update(p: Any, shares: jax.Array, step: jax.Array) -> Any:
        now = schedule(updates)(step)
        correction = balance(shares, now.strength)
        options = {"exponent": now.exponent, "relaxation": now.relaxation}

        def loss(p: Any) -> Any:
            model = GaussianMixture(p[0], p[1], jnp.exp(p[2]))
            values = Power(logits="damped")(model, y, balance=correction, **options)
            return values.mean(), update_shares(shares, model, y, 1.0, balance=correction)

        gradient, shares = jax.grad(loss, has_aux=True)(p)
        return jax.tree.map(lambda a, g: a - rate * g, p, gradient), shares

    for step in range(updates):
        p, shares = update(p, shares, step)
    found = trained.model()()
    close((found.logits, found.means, jnp.log(found.scales)), p, 1e-9)


@dataclasses.dataclass(frozen=True)
class _Schedule:
    schedule: PowerSchedule

    def __call__(self, num_updates: int) -> PowerSchedule:
        return dataclasses.replace(self.schedule, num_updates=num_updates)


def test_several_seeds_have_a_running_mean_each() -> None:
    x, y = targets(40, 1, seed=2), targets(40, 1)
    method = Method("own", Power(), _Schedule(PowerSchedule(1, strength=1.0)), "batch")

    def train(seeds: tuple[int, ...]) -> loop.Run:
        return loop.train(
            _network, method, x, y, epochs=3, batch_size=10, learning_rate=1e-2, seeds=seeds,
            record_at=(12,),
        )  # fmt: skip

    together, alone = train((1, 2)), train((2,))
    assert not together.failures
    np.testing.assert_allclose(together.metrics["nll"][1], alone.metrics["nll"][0], rtol=1e-6)


def test_fit_is_the_loop_in_standard_units() -> None:
    """With a balanced start and the pooled unit: the same model, and the same of scaled data."""
    x, y = targets(40, 1, seed=2), targets(40, 1)
    x, y = ((np.asarray(a) - np.mean(a)) / np.std(a) for a in (x, y))
    schedule = _Schedule(PowerSchedule(1, strength=1.0, fade=0.5))
    method = Method("own", Power(), schedule, "pooled", initial_means="kmeans++")
    run = loop.train(
        _network, method, x, y, epochs=3, batch_size=10, learning_rate=1e-2, seeds=(1,),
        optimizer=_sgd, record_at=(12,),
    )  # fmt: skip
    same, scaled = (
        fit(
            _network, method, a * x + 3.0, b * y - 7.0, epochs=3, batch_size=10, seeds=(1,),
            optimizer=_sgd(1e-2), progress=False,
        )
        for a, b in ((1.0, 1.0), (100.0, 0.01))
    )  # fmt: skip
    expected = run.model()(x)
    np.testing.assert_allclose(same.model()(x + 3.0).means, expected.means - 7.0, rtol=1e-6)
    found = scaled.model()(100.0 * x + 3.0)
    np.testing.assert_allclose(found.means, 0.01 * expected.means - 7.0, rtol=1e-6)
    np.testing.assert_allclose(found.scales, 0.01 * expected.scales, rtol=1e-6)


def _network(rngs: Any) -> MixtureDensityNetwork:
    return MixtureDensityNetwork(1, 3, 1, hidden=(8,), rngs=rngs)


def test_a_schedule_of_powers_needs_an_objective_that_takes_them() -> None:
    with pytest.raises(ValueError, match=r"takes exponent, such as Power.*nGEM' takes none"):
        loop.train(
            PlainMixture(make()), METHODS["damped nGEM"], None, targets(30, 2),
            epochs=1, batch_size=30, learning_rate=0.1, relaxation=PowerSchedule(1),
        )  # fmt: skip
    assert ngem is METHODS["damped nGEM"].objective


# Schedules


def test_schedules_are_lines() -> None:
    schedule = PowerSchedule(
        100, exponent=0.5, fade=0.2, relaxation=0.1, relaxed=0.1, strength=1.0, balanced=0.5
    )
    counts = np.array([0, 5, 10, 50, 80, 90, 100])
    found = jax.jit(schedule)(counts)
    np.testing.assert_allclose(found.exponent, [0.5, 0.5, 0.5, 0.5, 0.5, 0.25, 0.0], atol=1e-12)
    np.testing.assert_allclose(found.relaxation, [0.1, 0.05, 0, 0, 0, 0, 0], atol=1e-12)
    np.testing.assert_allclose(found.strength, [1.0, 0.9, 0.8, 0, 0, 0, 0], atol=1e-12)
    constant = PowerSchedule(100, exponent=0.7, relaxation=0.0, relaxed=0.0)(counts)
    np.testing.assert_array_equal(constant.exponent, 0.7)
    np.testing.assert_array_equal(constant.relaxation, 0.0)
    np.testing.assert_array_equal(constant.strength, 0.0)
    assert float(PowerSchedule(100, exponent=1.0, fade=1.0)(25).exponent) == pytest.approx(0.75)
