"""Objectives: values and gradients against scipy, closed forms and explicit Jacobians."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from functools import partial
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from scipy import special, stats

import ngem_tutorial
from ngem_tutorial import em, fisher, mixtures, objectives
from ngem_tutorial.fisher import PRECONDITIONERS, Preconditioner
from ngem_tutorial.mixtures import GaussianMixture
from ngem_tutorial.objectives import beta_nll, mse, ngem, nll, relaxation_schedule, sgem

# Compiled: operation by operation, every new shape is slow.
natural_gradient = jax.jit(fisher.natural_gradient, static_argnums=2)
EPS = float(np.finfo(np.float64).eps)
Objective = Callable[[GaussianMixture, Any], jax.Array]

# Every objective, with a number of components that it takes.
OBJECTIVES: dict[str, tuple[Objective, int]] = {
    "nll": (nll, 3),
    "sgem": (sgem, 3),
    **{f"ngem-{name}": (partial(ngem, preconditioner=name), 3) for name in PRECONDITIONERS},
    "ngem-scale": (partial(ngem, preconditioner=Preconditioner(coordinate="scale")), 3),
    "ngem-plain": (partial(ngem, preconditioner=Preconditioner(components="plain")), 3),
    "ngem-relaxed": (partial(ngem, relaxation=0.1), 3),
    "beta_nll-0": (partial(beta_nll, beta=0.0), 1),
    "beta_nll": (beta_nll, 1),
    "beta_nll-1": (partial(beta_nll, beta=1.0), 1),
    "mse": (mse, 1),
}


pytestmark = pytest.mark.usefixtures("x64")


def make(k: int = 3, d: int = 2, batch: tuple[int, ...] = (), seed: int = 0) -> GaussianMixture:
    rng = np.random.default_rng(seed)
    return GaussianMixture(
        rng.normal(size=(*batch, k)),
        rng.normal(size=(*batch, k, d)),
        rng.uniform(0.4, 1.6, size=(*batch, k, d)),
    )


def targets(*shape: int, seed: int = 9) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


def assert_trees_close(actual: Any, expected: Any, tolerance: float = 1e-13) -> None:
    """Close to some hundred roundings: the gradients are sums of terms of up to some tens."""
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=10 * tolerance)


# The contract of every objective


@pytest.fixture(params=OBJECTIVES)
def objective(request: pytest.FixtureRequest) -> tuple[Objective, int]:
    return OBJECTIVES[request.param]


def test_one_value_per_example(objective: tuple[Objective, int]) -> None:
    call, k = objective
    compiled = jax.jit(call)
    mixture, y = make(k, batch=(4, 5)), targets(4, 5, 2)
    values = np.asarray(compiled(mixture, y))
    assert values.shape == (4, 5)
    assert np.isfinite(values).all()
    np.testing.assert_allclose(jax.jit(jax.vmap(jax.vmap(call)))(mixture, y), values, rtol=1e-13)
    # Nothing is reduced over the batch: an example alone has the same value.
    leaves, structure = jax.tree.flatten(mixture)
    for i in ((0, 0), (3, 4)):
        one = jax.tree.unflatten(structure, [leaf[i] for leaf in leaves])
        value = compiled(one, y[i])
        assert value.shape == ()
        assert value == pytest.approx(values[i], rel=1e-13)
    assert call(one, y[i]) == pytest.approx(values[i], rel=1e-13)  # not compiled


def test_leading_axes_broadcast(objective: tuple[Objective, int]) -> None:
    call, k = objective
    mixture, y = make(k), targets(6, 2)
    whole = np.asarray(jax.jit(call)(mixture, y))
    assert whole.shape == (6,)
    repeated = jax.tree.map(lambda a: jnp.broadcast_to(a, (6, *a.shape)), mixture)
    np.testing.assert_allclose(whole, jax.jit(call)(repeated, y), rtol=1e-13)
    # The other way round: one target, many mixtures; and both at once.
    many = make(k, batch=(6,))
    assert jax.eval_shape(call, many, y[0]).shape == (6,)
    assert jax.eval_shape(call, make(k, batch=(6, 1)), y[:3]).shape == (6, 3)


def test_gradients_are_finite_for_extreme_parameters(objective: tuple[Objective, int]) -> None:
    call, k = objective
    w, s, other, far = (
        a.ravel()
        for a in np.meshgrid(
            [0.0, -1e4], [1e-6, 1.0, 1e6], [1e-6, 1.0, 1e6], [0.0, 1.0, 1e6], indexing="ij"
        )
    )
    scales = np.stack([s, other, np.ones_like(s)], axis=-1)[..., :k, None]
    logits = np.stack([w, np.zeros_like(w), -w], axis=-1)[..., :k]
    means = np.broadcast_to(np.array([0.0, 1.0, 2.0])[:k, None], scales.shape)
    y = (far * s)[:, None]

    @partial(jax.value_and_grad, argnums=(0, 1))
    def total(m: GaussianMixture, t: jax.Array) -> jax.Array:
        return call(m, t).mean()

    with jax.enable_x64(False):
        mixture = GaussianMixture(*(a.astype(np.float32) for a in (logits, means, scales)))
        result = jax.jit(total)(mixture, y.astype(np.float32))
    for leaf in jax.tree.leaves(result):
        assert leaf.dtype == np.float32
        assert np.isfinite(leaf).all()


def test_wrong_targets_are_rejected(objective: tuple[Objective, int]) -> None:
    call, k = objective
    mixture = make(k, d=2, batch=(4,))
    for y in (np.zeros(()), np.zeros(3), np.zeros((4, 1))):
        with pytest.raises(ValueError, match=r"y must have shape \(\.\.\., D\) with D = 2"):
            call(mixture, y)
    with pytest.raises(ValueError, match=r"the leading axes of y, \(3,\), must broadcast"):
        call(mixture, np.zeros((3, 2)))


# nll


def test_nll_agrees_with_scipy() -> None:
    mixture, y = make(batch=(5,)), targets(5, 2)
    density = stats.norm.pdf(y[:, None, :], mixture.means, mixture.scales).prod(axis=-1)
    expected = -np.log((special.softmax(mixture.logits, axis=-1) * density).sum(axis=-1))
    np.testing.assert_allclose(jax.jit(nll)(mixture, y), expected, rtol=1e-13)


# sgem


def test_sgem_has_the_value_and_gradient_of_nll() -> None:
    """Corollary 3.2, with the value made that of the negative log-likelihood."""
    mixture, y = make(batch=(7,)), targets(7, 2)

    def run(call: Objective) -> Any:
        return jax.jit(jax.value_and_grad(lambda m, t: call(m, t).sum(), argnums=(0, 1)))(
            mixture, y
        )

    # Machine precision: some tens of roundings of numbers of up to some tens.
    (value, gradient), (expected, plain) = run(sgem), run(nll)
    assert value == pytest.approx(float(expected), rel=64 * EPS)
    assert_trees_close(gradient, plain, 64 * EPS)


def test_sgem_is_the_m_step_objective_less_the_entropy() -> None:
    """Its gradient is that of equation (16) with constant responsibilities, term by term."""
    mixture, y = make(), targets(2)
    rho = np.asarray(jax.jit(lambda m: m.responsibilities(y))(mixture))

    def equation_16(m: GaussianMixture) -> jax.Array:
        log_normal = jax.scipy.stats.norm.logpdf(y, m.means, m.scales).sum(axis=-1)
        return -jnp.sum(rho * (jax.nn.log_softmax(m.logits) + log_normal))

    value, gradient = jax.jit(jax.value_and_grad(sgem))(mixture, y)
    expected, expected_gradient = jax.jit(jax.value_and_grad(equation_16))(mixture)
    assert value == pytest.approx(float(expected) - stats.entropy(rho), rel=64 * EPS)
    assert_trees_close(gradient, expected_gradient)
    # The responsibilities carry no gradient: differentiating again sees only the logs.
    hessian = jax.jit(jax.hessian(lambda psi: sgem(make_with(mixture, psi), y)))(mixture.logits)
    pi = special.softmax(np.asarray(mixture.logits))
    np.testing.assert_allclose(hessian, np.diag(pi) - np.outer(pi, pi), atol=16 * EPS)


def make_with(mixture: GaussianMixture, logits: jax.Array) -> GaussianMixture:
    return GaussianMixture(logits, mixture.means, mixture.scales)


# ngem


CHOICES: list[Any] = [
    *PRECONDITIONERS,
    Preconditioner("natural", "rho", "log_scale"),
    Preconditioner("plain", "plain"),
    Preconditioner("plain", "damped", "log_scale", "target", damping=0.3),
]


@pytest.mark.parametrize("choice", CHOICES, ids=str)
def test_ngem_has_the_value_of_nll_and_the_natural_gradient(choice: Any) -> None:
    mixture, y = make(batch=(6,)), targets(6, 2)
    assert np.array_equal(ngem(mixture, y, choice), nll(mixture, y))  # not one bit of difference

    @partial(jax.value_and_grad, argnums=(0, 1))
    def loss(m: GaussianMixture, t: jax.Array) -> jax.Array:
        return ngem(m, t, choice).mean()

    value, (gradient, d_y) = jax.jit(loss)(mixture, y)
    assert value == pytest.approx(float(np.mean(nll(mixture, y))), rel=16 * EPS)
    natural = natural_gradient(mixture, y, choice)
    assert_trees_close(gradient, jax.tree.map(lambda g: g / 6, natural))
    plain = jax.jit(jax.grad(lambda m, t: nll(m, t).mean(), argnums=1))(mixture, y)
    np.testing.assert_allclose(d_y, plain, rtol=1e-13, atol=1e-14)


def test_ngem_weights_each_example_by_its_cotangent() -> None:
    mixture, y = make(batch=(2, 3)), targets(2, 3, 2)
    weights = np.random.default_rng(1).normal(size=(2, 3))
    gradient = jax.jit(jax.grad(lambda m: jnp.sum(weights * ngem(m, y))))(mixture)
    natural = natural_gradient(mixture, y)
    assert_trees_close(gradient.logits, natural.logits * weights[..., None])
    assert_trees_close(gradient.means, natural.means * weights[..., None, None])
    assert_trees_close(gradient.scales, natural.scales * weights[..., None, None])


@pytest.mark.parametrize("name", ["default", "derived"])
def test_ngem_sums_the_gradient_over_broadcast_axes(name: str) -> None:
    """One mixture and many targets, or one target and many mixtures."""
    mixture, y = make(), targets(4, 2)
    loss = jax.jit(jax.grad(lambda m, t: ngem(m, t, name).sum(), argnums=(0, 1)))
    gradient, d_y = loss(mixture, y)
    repeated = jax.tree.map(lambda a: jnp.broadcast_to(a, (4, *a.shape)), mixture)
    natural = natural_gradient(repeated, y, name)
    assert_trees_close(gradient, jax.tree.map(lambda g: g.sum(axis=0), natural))
    assert d_y.shape == (4, 2)
    many = make(batch=(4,))
    gradient, d_y = loss(many, y[0])
    assert_trees_close(gradient, natural_gradient(many, np.tile(y[0], (4, 1)), name))
    expected = jax.jit(jax.grad(lambda t: nll(many, t).sum()))(y[0])
    np.testing.assert_allclose(d_y, expected, rtol=1e-13, atol=1e-14)


def test_ngem_works_under_vmap_and_scan() -> None:
    mixture, y = make(batch=(3,)), targets(3, 2)
    for name in ("default", "undamped"):
        gradient = jax.jit(jax.vmap(jax.grad(partial(ngem, preconditioner=name))))(mixture, y)
        # Mapped, an example is a batch of its own, and its units are its own.
        alone = jax.jit(jax.vmap(partial(fisher.natural_gradient, preconditioner=name)))
        assert_trees_close(gradient, alone(mixture, y))
    assert_trees_close(gradient, natural_gradient(mixture, y, "undamped"))

    def step(m: GaussianMixture, t: jax.Array) -> tuple[GaussianMixture, jax.Array]:
        value, g = jax.value_and_grad(ngem)(m, t)
        return jax.tree.map(lambda p, d: p - 0.01 * d, m, g), value

    start = make()
    last, values = jax.jit(lambda m: jax.lax.scan(step, m, y))(start)
    by_hand = start
    for t, value in zip(y, values, strict=True):
        assert value == pytest.approx(float(jax.jit(nll)(by_hand, t)), rel=64 * EPS)
        by_hand = jax.tree.map(lambda p, d: p - 0.01 * d, by_hand, natural_gradient(by_hand, t))
    assert_trees_close(last, by_hand)


def test_ngem_takes_integers_and_lists() -> None:
    mixture = GaussianMixture([0.0], [[0.5]], [[1.0]])
    assert ngem(mixture, [2]) == nll(mixture, np.array([2.0]))
    gradient = jax.grad(partial(ngem, preconditioner="undamped"))(mixture, [2])
    assert gradient.means == -1.5


def test_ngem_rejects_an_unknown_preconditioner() -> None:
    with pytest.raises(ValueError, match=r"preconditioner must be one of .* got 'best'"):
        ngem(make(), np.zeros(2), "best")
    with pytest.raises(TypeError, match="preconditioner must be a name or a Preconditioner"):
        ngem(make(), np.zeros(2), 1)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["default", "undamped"])
def test_ngem_learns_unequal_weights(name: str) -> None:
    """Nine tenths and one tenth of separated points; the listing ends at the square roots."""
    noise = np.random.default_rng(0).normal(size=(100, 1))
    y = noise + np.where(np.arange(100) < 90, -10.0, 10.0)[:, None]

    def train(name: str) -> GaussianMixture:
        # Log-scales are trained; the default is in their coordinate as it is.
        choice = dataclasses.replace(PRECONDITIONERS[name], coordinate="log_scale")

        def loss(parameters: Any) -> jax.Array:
            psi, mu, log_sigma = parameters
            return ngem(GaussianMixture(psi, mu, jnp.exp(log_sigma)), y, choice).mean()

        def step(parameters: Any, _: None) -> Any:
            gradient = jax.grad(loss)(parameters)
            return jax.tree.map(lambda p, g: p - 0.1 * g, parameters, gradient), None

        start = (jnp.zeros(2), jnp.array([[-5.0], [5.0]]), jnp.full((2, 1), np.log(5.0)))
        psi, mu, log_sigma = jax.lax.scan(step, start, length=5000)[0]
        return GaussianMixture(psi, mu, jnp.exp(log_sigma))

    learned, listed = (
        jax.jit(train, static_argnums=0)(name),
        jax.jit(train, static_argnums=0)("listing"),
    )
    # Where the likelihood rests: the moments of the two groups.
    np.testing.assert_allclose(learned.weights, [0.9, 0.1], atol=1e-9)
    np.testing.assert_allclose(learned.means[:, 0], [y[:90].mean(), y[90:].mean()], atol=1e-9)
    np.testing.assert_allclose(learned.scales[:, 0], [y[:90].std(), y[90:].std()], atol=1e-9)
    np.testing.assert_allclose(listed.weights, [0.75, 0.25], atol=1e-6)


# Relaxation


@pytest.mark.parametrize("choice", CHOICES, ids=str)
@pytest.mark.parametrize("eps", [1e-3, 0.1, 1.0, np.float32(0.3), 1, 0])
def test_relaxed_ngem_has_the_value_of_nll_and_the_relaxed_gradient(choice: Any, eps: Any) -> None:
    mixture, y = make(batch=(6,)), targets(6, 2)
    assert np.array_equal(ngem(mixture, y, choice, eps), nll(mixture, y))

    def loss(m: GaussianMixture, e: Any) -> jax.Array:
        return ngem(m, y, choice, relaxation=e).mean()

    natural = jax.jit(fisher.natural_gradient, static_argnums=2)(mixture, y, choice, eps)
    expected = jax.tree.map(lambda g: g / 6, natural)
    for gradient in (
        jax.grad(loss)(mixture, eps),
        jax.jit(jax.grad(loss))(mixture, eps),  # traced
        jax.jit(jax.grad(lambda m: loss(m, eps)))(mixture),  # known
    ):
        assert_trees_close(gradient, expected)
    if eps:
        without = natural_gradient(mixture, y, choice)
        assert np.abs(natural.logits - without.logits).max() > float(eps) / 100


def test_nothing_is_learned_about_the_relaxation() -> None:
    mixture, y = make(batch=(6,)), targets(6, 2)

    @partial(jax.value_and_grad, argnums=(0, 1, 2))
    def loss(m: GaussianMixture, t: Any, eps: Any) -> jax.Array:
        return ngem(m, t, relaxation=eps).sum()

    for eps in (0.0, 0.1, 1.0):
        value, (_, d_y, d_eps) = jax.jit(loss)(mixture, y, eps)
        assert d_eps == 0.0
        assert value == pytest.approx(float(jax.jit(nll)(mixture, y).sum()), rel=16 * EPS)
        plain = jax.jit(jax.grad(lambda t: nll(mixture, t).sum()))(y)
        np.testing.assert_allclose(d_y, plain, rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize("eps", [1.5, -0.1, float("nan"), np.float32(2.0), 2])
def test_a_relaxation_out_of_range_is_rejected(eps: Any) -> None:
    with pytest.raises(ValueError, match=f"relaxation must be from 0 to 1, got {eps}"):
        ngem(make(), np.zeros(2), relaxation=eps)


@pytest.mark.parametrize("eps", [np.array([0.1, 0.2]), jnp.zeros((1,))])
def test_a_relaxation_is_one_number(eps: Any) -> None:
    with pytest.raises(ValueError, match=r"relaxation must be a number, got shape \(\d,\)"):
        ngem(make(), np.zeros(2), relaxation=eps)
    with pytest.raises(ValueError, match=r"relaxation must be a number, got shape \(\d,\)"):
        jax.jit(ngem, static_argnums=2)(make(), np.zeros(2), "default", jnp.asarray(eps))


def test_relaxation_schedule_falls_in_a_line_and_stays_at_zero() -> None:
    schedule = relaxation_schedule(10_000)
    for count, expected in ((0, 0.1), (250, 0.075), (500, 0.05), (999, 1e-4)):
        assert float(schedule(count)) == pytest.approx(expected, rel=1e-5)
    assert [float(schedule(count)) for count in (1000, 1001, 9999, 10**6)] == [0.0] * 4
    steep = relaxation_schedule(100, initial=1.0, fraction=0.5)
    assert [float(steep(count)) for count in (0, 25, 50)] == [1.0, 0.5, 0.0]
    never = relaxation_schedule(100, initial=0.0)
    assert float(never(0)) == 0.0
    at_once = relaxation_schedule(100, fraction=0.0)  # the first update alone
    assert [round(float(at_once(count)), 6) for count in (0, 1, 2)] == [0.1, 0.0, 0.0]


@pytest.mark.parametrize("length", [*range(1, 2001, 97), 1425, 2000])
@pytest.mark.parametrize("x64", [False, True])
def test_relaxation_schedule_is_never_negative(length: int, x64: bool) -> None:
    """Compiled, the last values round to below zero, unless they are kept from it."""
    with jax.enable_x64(x64):
        for initial, fraction in ((0.1, 1.0), (0.3, 0.1)):
            schedule = relaxation_schedule(length, initial, fraction)
            values = np.asarray(jax.jit(jax.vmap(schedule))(np.arange(length + 2)))
            one_by_one = jax.jit(lambda n, s=schedule: jax.lax.map(s, n))(np.arange(length + 2))
            end = max(1, round(fraction * length))
            for found in (values, np.asarray(one_by_one)):
                line = initial * np.maximum(1 - np.arange(length + 2) / end, 0.0)
                np.testing.assert_allclose(found, line, atol=1e-7)
                assert found.min() == 0.0
                assert np.all(found[end:] == 0.0)
                assert np.all(found[:end] > 0.0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_updates": 0}, "num_updates must be at least 1, got 0"),
        ({"initial": 1.5}, "initial must be from 0 to 1, got 1.5"),
        ({"initial": -0.1}, "initial must be from 0 to 1, got -0.1"),
        ({"fraction": float("nan")}, "fraction must be from 0 to 1, got nan"),
        ({"fraction": 2.0}, "fraction must be from 0 to 1, got 2.0"),
    ],
)
def test_relaxation_schedule_checks_its_arguments(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        relaxation_schedule(**{"num_updates": 10, **arguments})


# Through a network


Parameters = dict[str, jax.Array]


def network(parameters: Parameters, x: jax.Array) -> GaussianMixture:
    """Three inputs, five hidden units, a mixture with K = 2 and D = 2; any leading axes."""
    h = jnp.tanh(x @ parameters["w1"] + parameters["b1"])
    out = h @ parameters["w2"] + parameters["b2"]
    means = out[..., 2:6].reshape(*out.shape[:-1], 2, 2)
    scales = jnp.exp(out[..., 6:10]).reshape(*out.shape[:-1], 2, 2)
    return GaussianMixture(out[..., :2], means, scales)


def initial_parameters() -> Parameters:
    rng = np.random.default_rng(0)
    shapes = {"w1": (3, 5), "b1": (5,), "w2": (5, 10), "b2": (10,)}
    return {name: jnp.asarray(0.5 * rng.normal(size=s)) for name, s in shapes.items()}


@pytest.mark.parametrize("choice", ["default", "listing", CHOICES[-1]], ids=str)
def test_ngem_goes_through_a_network_by_the_chain_rule(choice: Any) -> None:
    """Line 8 of Algorithm 1 with the Jacobian of the network written out."""
    parameters, x, y = initial_parameters(), targets(4, 3, seed=1), targets(4, 2)
    vector, unravel = ravel_pytree(parameters)

    @jax.value_and_grad
    def loss(v: jax.Array) -> jax.Array:
        return ngem(network(unravel(v), x), y, choice).mean()

    value, gradient = jax.jit(loss)(vector)
    mixture = jax.jit(network)(parameters, x)
    assert value == pytest.approx(float(np.mean(jax.jit(nll)(mixture, y))), rel=64 * EPS)
    jacobian = jax.jit(jax.jacfwd(lambda v: ravel_pytree(network(unravel(v), x))[0]))(vector)
    natural = ravel_pytree(natural_gradient(mixture, y, choice))[0]
    # Sums over the 40 outputs, each product up to some tens.
    np.testing.assert_allclose(
        gradient, np.asarray(jacobian).T @ natural / 4, rtol=1e-12, atol=1e-13
    )


def test_sgem_is_nll_through_a_network() -> None:
    parameters, x, y = initial_parameters(), targets(8, 3, seed=1), targets(8, 2)

    def run(call: Objective) -> Any:
        return jax.jit(jax.value_and_grad(lambda p: call(network(p, x), y).mean()))(parameters)

    (value, gradient), (expected, plain) = run(sgem), run(nll)
    assert value == pytest.approx(float(expected), rel=64 * EPS)
    assert_trees_close(gradient, plain, 64 * EPS)


# One component: beta_nll and mse


def single(n: int = 5, d: int = 2) -> tuple[GaussianMixture, np.ndarray]:
    return make(1, d, batch=(n,)), targets(n, d)


@pytest.mark.parametrize("beta", [0.0, 0.3, 0.5, 1.0])
def test_beta_nll_is_the_published_objective(beta: float) -> None:
    """Seitzer et al. (2022), equations (4) to (6), coordinate by coordinate."""
    mixture, y = single()
    mu, sigma = np.asarray(mixture.means)[:, 0], np.asarray(mixture.scales)[:, 0]
    variance = sigma**2
    log_likelihood = -0.5 * (np.log(variance) + (y - mu) ** 2 / variance + np.log(2 * np.pi))
    value = jax.jit(partial(beta_nll, beta=beta))(mixture, y)
    np.testing.assert_allclose(value, -(variance**beta * log_likelihood).sum(axis=-1), rtol=1e-13)
    gradient = jax.jit(jax.grad(lambda m: beta_nll(m, y, beta).sum()))(mixture)
    np.testing.assert_allclose(
        gradient.means[:, 0], (mu - y) / variance ** (1 - beta), rtol=1e-13, atol=1e-14
    )
    d_variance = (variance - (y - mu) ** 2) / (2 * variance ** (2 - beta))
    np.testing.assert_allclose(
        gradient.scales[:, 0], 2 * sigma * d_variance, rtol=1e-12, atol=1e-13
    )
    np.testing.assert_array_equal(gradient.logits, 0.0)


def test_beta_nll_at_zero_is_nll_and_its_default_is_a_half() -> None:
    mixture, y = single()
    at = jax.jit(beta_nll, static_argnums=2)
    np.testing.assert_allclose(at(mixture, y, 0.0), jax.jit(nll)(mixture, y), rtol=8 * EPS)
    np.testing.assert_array_equal(at(mixture, y), at(mixture, y, 0.5))
    gradients = [
        jax.jit(jax.grad(lambda m, call=call: call(m, y).sum()))(mixture)
        for call in (nll, partial(beta_nll, beta=0.0))
    ]
    assert_trees_close(*gradients)


@pytest.mark.parametrize("name", PRECONDITIONERS)
def test_ngem_of_one_component_is_beta_nll_at_one(name: str) -> None:
    """Section 5 of the paper up to a constant: the same for the mean, half of it for the scale."""
    mixture, y = single()
    # In the coordinates of the paper; the others differ by the powers of sigma that they name.
    choice = dataclasses.replace(PRECONDITIONERS[name], coordinate="scale", units="target")
    natural = jax.jit(jax.grad(lambda m: ngem(m, y, choice).sum()))(mixture)
    beta = jax.jit(jax.grad(lambda m: beta_nll(m, y, 1.0).sum()))(mixture)
    # The damped choices divide by one plus their damping.
    damping = {"damped": 1.01, "default": 1.25}.get(name, 1.0)
    np.testing.assert_allclose(damping * natural.means, beta.means, rtol=1e-13, atol=1e-14)
    np.testing.assert_allclose(damping * natural.scales, 0.5 * beta.scales, rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(natural.logits, 0.0, atol=8 * EPS)


def test_mse_is_the_mean_square() -> None:
    mixture, y = single(d=3)
    mu = np.asarray(mixture.means)[:, 0]
    np.testing.assert_allclose(
        jax.jit(mse)(mixture, y), np.mean((y - mu) ** 2, axis=-1), rtol=8 * EPS
    )
    gradient = jax.jit(jax.grad(lambda m: mse(m, y).sum()))(mixture)
    np.testing.assert_allclose(gradient.means[:, 0], 2 * (mu - y) / 3, rtol=8 * EPS)
    np.testing.assert_array_equal(gradient.scales, 0.0)
    np.testing.assert_array_equal(gradient.logits, 0.0)


@pytest.mark.parametrize("call", [beta_nll, mse])
def test_one_component_is_required(call: Any) -> None:
    message = f"{call.__name__} takes a mixture of one component, got 3"
    with pytest.raises(ValueError, match=message):
        call(make(3), np.zeros(2))


@pytest.mark.parametrize("beta", [-0.1, 1.1, float("nan")])
def test_beta_is_checked(beta: float) -> None:
    with pytest.raises(ValueError, match=f"beta must be from 0 to 1, got {beta}"):
        beta_nll(make(1), np.zeros(2), beta)


# Documentation


def public(module: ModuleType) -> list[Any]:
    return [pytest.param(getattr(module, name), id=name) for name in module.__all__]


MODULES = (mixtures, fisher, objectives, em)


@pytest.mark.parametrize("thing", [thing for module in MODULES for thing in public(module)])
def test_every_public_name_is_documented(thing: Any) -> None:
    """Each function and class says what it takes, argument by argument, and what it returns."""
    if isinstance(thing, dict):
        return  # a table of presets, documented below its definition
    doc = inspect.getdoc(thing)
    assert doc
    assert doc.splitlines()[0].endswith(".")
    is_class = inspect.isclass(thing)
    parameters = inspect.signature(thing).parameters
    for name in parameters:
        assert f"    {name}: " in doc, f"{thing.__name__} does not document {name}"
    assert is_class or "Returns:" in doc


def test_every_public_method_of_a_mixture_is_documented() -> None:
    for name, member in inspect.getmembers(GaussianMixture):
        if not name.startswith("_") and (callable(member) or isinstance(member, property)):
            assert inspect.getdoc(member), name


@pytest.mark.parametrize("module", [ngem_tutorial, *MODULES], ids=lambda m: m.__name__)
def test_every_public_name_is_listed(module: ModuleType) -> None:
    assert module.__doc__
    own = {
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and getattr(value, "__module__", None) == module.__name__
    }
    # The types of a type alias, and the results that a function documents, need no import.
    assert own - set(module.__all__) <= {"CompleteDataFisher", "GaussianFisher"}
    assert all(hasattr(module, name) for name in module.__all__)
