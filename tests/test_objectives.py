"""Objectives: values and gradients against scipy, closed forms and explicit Jacobians."""

from __future__ import annotations

import dataclasses
import inspect
import itertools
import re
from collections.abc import Callable
from functools import partial
from types import ModuleType
from typing import Any, get_origin

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from scipy import special, stats

import ngem_tutorial
from ngem_tutorial import (
    em,
    fisher,
    interop,
    methods,
    mixtures,
    networks,
    objectives,
    power,
    variants,
)
from ngem_tutorial.fisher import natural_gradient
from ngem_tutorial.mixtures import GaussianMixture
from ngem_tutorial.objectives import (
    RelaxationSchedule,
    beta_nll,
    mse,
    ngem,
    nll,
    relaxation_schedule,
    scale_unit,
    sgem,
)
from ngem_tutorial.power import Power
from ngem_tutorial.variants import Variant

EPS = float(np.finfo(np.float64).eps)
Objective = Callable[[GaussianMixture, Any], jax.Array]

NAMED: dict[str, Variant] = {
    name: thing for name, thing in vars(variants).items() if isinstance(thing, Variant)
}
# Every objective, with a number of components that it takes.
OBJECTIVES: dict[str, tuple[Objective, int]] = {
    "nll": (nll, 3),
    "sgem": (sgem, 3),
    "ngem": (ngem, 3),
    "ngem-relaxed": (partial(ngem, relaxation=0.1), 3),
    "ngem-options": (partial(ngem, unit=0.5, damping=0.1), 3),
    **{name: (variant, 3) for name, variant in NAMED.items()},
    "scale": (Variant(coordinate="scale"), 3),
    "plain": (Variant(gaussians="plain"), 3),
    "relaxed": (partial(variants.paper_code, relaxation=0.1), 3),
    "power": (partial(Power(0.4, "damped"), relaxation=0.1, balance=np.array([1.0, 0.0, -1.0])), 3),
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


def test_a_mixture_without_batch_axes_is_repeated(objective: tuple[Objective, int]) -> None:
    call, k = objective
    mixture, y = make(k), targets(6, 2)

    @jax.jit
    @jax.value_and_grad
    def total(m: GaussianMixture) -> jax.Array:
        value = call(m, y)
        assert value.shape == (6,)
        return value.sum()

    repeated = jax.tree.map(lambda a: jnp.broadcast_to(a, (6, *a.shape)), mixture)
    (value, gradient), (expected, each) = total(mixture), total(repeated)
    assert value == pytest.approx(float(expected), rel=1e-13)
    assert_trees_close(gradient, jax.tree.map(lambda g: g.sum(axis=0), each))


def test_nothing_else_is_broadcast(objective: tuple[Objective, int]) -> None:
    """All pairs of four mixtures and four targets are no objective."""
    call, k = objective
    y = targets(4, 2)
    time_axis = "was a time axis left in the inputs"
    for batch, wrong, hint in (
        ((4, 1), y, f"Axis 1 of the mixture, of length one, is too many: {time_axis}"),
        ((1, 4), y, f"Axis 0 of the mixture, of length one, is too many: {time_axis}"),
        ((4,), y[:, None, :], "Axis 1 of the targets, of length one, is too many"),
        ((4,), y[0], "one target under many mixtures"),
        ((1,), y, ""),
        ((2,), y, ""),
        ((4,), np.zeros((3, 4, 2)), ""),
    ):
        shapes = f"batch shape {batch}, y of shape {wrong.shape} has {wrong.shape[:-1]}"
        for run in (call, jax.jit(call)):
            with pytest.raises(ValueError, match=re.escape(shapes) + ".*" + hint):
                run(make(k, batch=batch), wrong)


def test_targets_without_their_axis_are_explained(objective: tuple[Objective, int]) -> None:
    call, k = objective
    with pytest.raises(ValueError, match=r"got shape \(4,\); give it an axis, y\[\.\.\., None\]"):
        call(make(k, d=1, batch=(4,)), targets(4))


DTYPES = ("float16", "bfloat16", "float32", "float64")


def value_and_cotangents(call: Objective, mixture: GaussianMixture, y: jax.Array) -> Any:
    def total(m: GaussianMixture, t: jax.Array) -> Any:
        values = call(m, t)
        return values.sum(), values

    (_, values), cotangents = jax.value_and_grad(total, (0, 1), has_aux=True)(mixture, y)
    return values, cotangents


def test_a_cotangent_has_the_dtype_of_what_it_is_of(objective: tuple[Objective, int]) -> None:
    call, k = objective
    run = partial(value_and_cotangents, call)
    exact, y = make(k, batch=(4,)), jnp.asarray(targets(4, 2))
    for of_mixture, of_targets in itertools.product(DTYPES, DTYPES):
        mixture, t = jax.tree.map(lambda a, d=of_mixture: a.astype(d), exact), y.astype(of_targets)
        values, (gradient, d_y) = jax.eval_shape(run, mixture, t)
        # In 16 bits nothing is computed.
        assert values.dtype == max((of_mixture, of_targets, "float32"), key=DTYPES.index)
        assert {leaf.dtype for leaf in jax.tree.leaves(gradient)} == {jnp.dtype(of_mixture)}
        assert d_y.dtype == of_targets


@pytest.mark.parametrize(
    ("of_mixture", "of_targets"),
    [("bfloat16", "float32"), ("float16", "bfloat16"), ("float32", "float64")],
)
def test_in_mixed_precision_only_inputs_and_results_are_rounded(
    objective: tuple[Objective, int], of_mixture: str, of_targets: str
) -> None:
    call, k = objective
    run = jax.jit(partial(value_and_cotangents, call))
    exact, t = make(k, batch=(4,)), jnp.asarray(targets(4, 2), of_targets)
    mixture = jax.tree.map(lambda a: a.astype(of_mixture), exact)
    values, cotangents = run(mixture, t)
    # The same from the rounded inputs, in double precision.
    expected, exact_cotangents = run(*jax.tree.map(lambda a: a.astype("float64"), (mixture, t)))
    tolerance = 500 * float(jnp.finfo(values.dtype).eps)
    np.testing.assert_allclose(values, expected, rtol=tolerance, atol=tolerance)
    rounding = tolerance + float(max(jnp.finfo(d).eps for d in (of_mixture, of_targets)))
    for a, b in zip(*map(jax.tree.leaves, (cotangents, exact_cotangents)), strict=True):
        np.testing.assert_allclose(a.astype(float), b, rtol=rounding, atol=10 * rounding)


@pytest.mark.parametrize("of_head", ["bfloat16", "float16"])
def test_a_head_in_16_bits_trains_in_float32(
    objective: tuple[Objective, int], of_head: str
) -> None:
    call, k = objective
    raw = {name: leaf.astype(of_head) for name, leaf in vars(make(k, batch=(4,))).items()}

    def total(raw: dict[str, jax.Array]) -> jax.Array:
        mixture = GaussianMixture(**raw)
        assert mixture.means.dtype == jnp.float32
        return call(mixture, targets(4, 2).astype(np.float32)).sum()

    value, gradient = jax.jit(jax.value_and_grad(total))(raw)
    assert value.dtype == jnp.float32
    for leaf in jax.tree.leaves(gradient):
        assert leaf.dtype == of_head
        assert np.isfinite(leaf.astype(float)).all()


def spread_out(k: int, n: int) -> tuple[GaussianMixture, np.ndarray]:
    """Examples whose scales are far apart, so that any mean over them depends on which they are."""
    mixture = make(k, batch=(n,))
    factor = np.geomspace(0.05, 3.0, n)[:, None, None]
    mixture = dataclasses.replace(mixture, scales=factor * mixture.scales)
    return mixture, np.asarray(mixture.means[:, 0] + 0.5 * mixture.scales[:, 0])


def test_gradients_are_per_example(objective: tuple[Objective, int]) -> None:
    """In micro-batches, mapped once and twice, and beside padding: the same for each example."""
    call, k = objective
    mixture, y = spread_out(k, 6)

    def gradient(m: GaussianMixture, t: Any, call: Objective = call) -> GaussianMixture:
        return jax.grad(lambda m: call(m, t).sum())(m)

    whole = jax.jit(gradient)(mixture, y)
    alone = [jax.jit(gradient)(example(mixture, slice(i, i + 1)), y[i : i + 1]) for i in range(6)]
    assert_trees_close(jax.tree.map(lambda *leaf: jnp.concatenate(leaf), *alone), whole)
    assert_trees_close(jax.jit(partial(gradient, call=jax.vmap(call)))(mixture, y), whole)
    assert_trees_close(jax.jit(jax.vmap(jax.grad(call)))(mixture, y), whole)
    nested, nested_y = jax.tree.map(lambda leaf: leaf.reshape(2, 3, *leaf.shape[1:]), (mixture, y))
    mapped = jax.jit(partial(gradient, call=jax.vmap(jax.vmap(call))))(nested, nested_y)
    assert_trees_close(jax.tree.map(lambda leaf: leaf.reshape(6, *leaf.shape[2:]), mapped), whole)
    # Padding, masked in the loss: whatever the padding is.
    mask = np.arange(6) < 4
    for padding in (1.0, 1e-3):
        scales = jnp.where(mask[:, None, None], mixture.scales, padding)
        padded = dataclasses.replace(mixture, scales=scales)
        masked = jax.jit(jax.grad(lambda m: jnp.where(mask, call(m, y), 0.0).sum()))(padded)
        assert_trees_close(example(masked, slice(4)), example(whole, slice(4)))
        for leaf in jax.tree.leaves(example(masked, slice(4, 6))):
            np.testing.assert_array_equal(leaf, 0.0)


def example(mixture: GaussianMixture, i: Any) -> GaussianMixture:
    """Part of a batch; of gradients too."""
    return jax.tree.map(lambda leaf: leaf[i], mixture)


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


# Objectives that share the value of `nll`, with the gradient that each is to have.
NATURAL: dict[str, tuple[Objective, Callable[..., GaussianMixture]]] = {
    "ngem": (ngem, natural_gradient),
    "ngem-damping": (partial(ngem, damping=0.02), partial(natural_gradient, damping=0.02)),
    **{
        str(variant): (variant, variant.gradient)
        for variant in (
            *NAMED.values(),
            Variant("natural", "rho", "log_scale"),
            Variant("plain", "plain"),
            Variant("plain", "damped", "log_scale", damping=0.3),
        )
    },
}


@pytest.fixture(params=NATURAL)
def natural_pair(request: pytest.FixtureRequest) -> tuple[Objective, Callable[..., Any]]:
    return NATURAL[request.param]


def test_value_of_nll_and_the_natural_gradient(natural_pair: Any) -> None:
    objective, natural_of = natural_pair
    mixture, y, unit = make(batch=(6,)), targets(6, 2), np.array([0.2, 5.0])
    if "gaussians='plain'" in str(objective):
        with pytest.raises(ValueError, match="unit must be 1 where gaussians is 'plain'"):
            objective(mixture, y, unit=unit)
        unit = np.ones(2)
    value = objective(mixture, y, unit=unit)
    assert np.array_equal(value, nll(mixture, y))  # not one bit of difference

    @partial(jax.value_and_grad, argnums=(0, 1))
    def loss(m: GaussianMixture, t: jax.Array) -> jax.Array:
        return objective(m, t, unit=unit).mean()

    value, (gradient, d_y) = jax.jit(loss)(mixture, y)
    assert value == pytest.approx(float(np.mean(nll(mixture, y))), rel=16 * EPS)
    natural = natural_of(mixture, y, unit=unit)
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


def test_ngem_works_in_a_scan() -> None:
    y = targets(3, 2)

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
    gradient = jax.grad(variants.undamped)(mixture, [2])
    assert gradient.means == -1.5


@pytest.mark.parametrize("name", ["ngem", "undamped"])
def test_ngem_learns_unequal_weights(name: str) -> None:
    """Nine tenths and one tenth of separated points; the paper's code ends at the square roots."""
    noise = np.random.default_rng(0).normal(size=(100, 1))
    y = noise + np.where(np.arange(100) < 90, -10.0, 10.0)[:, None]

    def train(name: str) -> GaussianMixture:
        # Log-scales are trained; `ngem` is in their coordinate as it is.
        objective: Objective = ngem
        if name != "ngem":
            objective = dataclasses.replace(NAMED[name], coordinate="log_scale")

        def loss(parameters: Any) -> jax.Array:
            psi, mu, log_sigma = parameters
            return objective(GaussianMixture(psi, mu, jnp.exp(log_sigma)), y).mean()

        def step(parameters: Any, _: None) -> Any:
            gradient = jax.grad(loss)(parameters)
            return jax.tree.map(lambda p, g: p - 0.1 * g, parameters, gradient), None

        start = (jnp.zeros(2), jnp.array([[-5.0], [5.0]]), jnp.full((2, 1), np.log(5.0)))
        psi, mu, log_sigma = jax.lax.scan(step, start, length=5000)[0]
        return GaussianMixture(psi, mu, jnp.exp(log_sigma))

    learned, printed = (
        jax.jit(train, static_argnums=0)(name),
        jax.jit(train, static_argnums=0)("paper_code"),
    )
    # Where the likelihood rests: the moments of the two groups.
    np.testing.assert_allclose(learned.weights, [0.9, 0.1], atol=1e-9)
    np.testing.assert_allclose(learned.means[:, 0], [y[:90].mean(), y[90:].mean()], atol=1e-9)
    np.testing.assert_allclose(learned.scales[:, 0], [y[:90].std(), y[90:].std()], atol=1e-9)
    np.testing.assert_allclose(printed.weights, [0.75, 0.25], atol=1e-6)


# Relaxation


@pytest.mark.parametrize("eps", [0.1, np.float32(0.3), 1, 0])
def test_relaxed_value_of_nll_and_relaxed_gradient(natural_pair: Any, eps: Any) -> None:
    objective, natural_of = natural_pair
    mixture, y = make(batch=(6,)), targets(6, 2)
    assert np.array_equal(objective(mixture, y, relaxation=eps), nll(mixture, y))

    def loss(m: GaussianMixture, e: Any) -> jax.Array:
        return objective(m, y, relaxation=e).mean()

    natural = jax.jit(natural_of)(mixture, y, relaxation=eps)
    expected = jax.tree.map(lambda g: g / 6, natural)
    for gradient in (
        jax.jit(jax.grad(loss))(mixture, eps),  # traced
        jax.jit(jax.grad(lambda m: loss(m, eps)))(mixture),  # known
    ):
        assert_trees_close(gradient, expected)
    if eps:
        without = natural_of(mixture, y)
        assert np.abs(natural.logits - without.logits).max() > float(eps) / 100


def test_nothing_is_learned_about_the_options() -> None:
    mixture, y = make(batch=(6,)), targets(6, 2)

    @partial(jax.value_and_grad, argnums=(0, 1, 2))
    def loss(m: GaussianMixture, t: Any, options: Any) -> jax.Array:
        return ngem(m, t, **options).sum()

    for eps in (0.0, 0.1, 1.0):
        options = {"relaxation": eps, "unit": np.array([0.5, 2.0]), "damping": 0.1}
        value, (_, d_y, d_options) = jax.jit(loss)(mixture, y, options)
        for leaf in jax.tree.leaves(d_options):
            np.testing.assert_array_equal(leaf, 0.0)
        assert value == pytest.approx(float(jax.jit(nll)(mixture, y).sum()), rel=16 * EPS)
        plain = jax.jit(jax.grad(lambda t: nll(mixture, t).sum()))(y)
        np.testing.assert_allclose(d_y, plain, rtol=1e-13, atol=1e-14)


PRECONDITIONED = [ngem, natural_gradient, variants.undamped, variants.undamped.gradient]


@pytest.mark.parametrize("call", PRECONDITIONED)
@pytest.mark.parametrize("eps", [1.5, -0.1, float("nan"), np.float32(2.0), 2, "0.1", None])
def test_a_relaxation_out_of_range_is_rejected(call: Any, eps: Any) -> None:
    with pytest.raises(ValueError, match=f"relaxation must be from 0 to 1, got '?{eps}"):
        call(make(), np.zeros(2), relaxation=eps)


@pytest.mark.parametrize("call", PRECONDITIONED)
@pytest.mark.parametrize("eps", [np.array([0.1, 0.2]), jnp.zeros((1,))])
def test_a_relaxation_is_one_number(call: Any, eps: Any) -> None:
    for run in (call, jax.jit(call)):
        with pytest.raises(ValueError, match=r"relaxation must be a number, got shape \(\d,\)"):
            run(make(), np.zeros(2), relaxation=jnp.asarray(eps))


def test_a_schedule_in_the_place_of_a_relaxation_is_explained() -> None:
    mixture = GaussianMixture([0.0], [[0.0]], [[1.0]])
    for objective in (ngem, variants.undamped, natural_gradient):
        with pytest.raises(ValueError, match=r"got a function: .* relaxation=schedule\(count\)"):
            objective(mixture, [0.5], relaxation=relaxation_schedule(10))


@pytest.mark.parametrize(
    "call",
    [
        nll,
        sgem,
        ngem,
        beta_nll,
        mse,
        variants.paper_code,
        natural_gradient,
        lambda mixture, y: scale_unit(mixture),
        em.em_step,
        lambda mixture, y: networks.PlainMixture(mixture),
    ],
)
def test_a_mixture_of_another_library_is_explained(call: Any) -> None:
    mixture = GaussianMixture([0.0], [[0.0]], [[1.0]])
    with pytest.raises(ValueError, match=r"numpyro's MixtureSame.*\.from_numpyro converts"):
        call(interop.to_numpyro(mixture), [[0.5]])
    with pytest.raises(ValueError, match=r"be a GaussianMixture, got an array of shape \(3,\)$"):
        call(np.zeros(3), [[0.5]])


@pytest.mark.parametrize("call", PRECONDITIONED)
def test_a_unit_is_positive_and_fits(call: Any) -> None:
    for unit in (0.0, -1.0, float("inf"), float("nan"), np.array([1.0, 0.0]), "1"):
        bad = 0.0 if isinstance(unit, np.ndarray) else unit
        message = f"unit must be positive and finite, got '?{bad}"
        with pytest.raises(ValueError, match=message):
            call(make(), np.zeros(2), unit=unit)
    for unit in (np.ones(1), np.ones(3), np.ones((1, 2))):
        message = rf"\(D,\) = \(2,\), got shape {re.escape(str(unit.shape))}"
        for run in (call, jax.jit(call)):
            with pytest.raises(ValueError, match=message):
                run(make(), np.zeros(2), unit=unit)


@pytest.mark.parametrize("call", PRECONDITIONED)
def test_a_unit_is_a_value_and_no_function(call: Any) -> None:
    for unit, got in ((scale_unit, "the function scale_unit"), ("batch", "'batch'")):
        message = rf"\(D,\) = \(2,\), got {got}: .* pass its value, unit=scale_unit\(mixture\)"
        with pytest.raises(ValueError, match=message):
            call(make(), np.zeros(2), unit=unit)


@pytest.mark.parametrize("damping", [0.0, -0.1, float("inf"), float("nan")])
def test_a_damping_is_positive(damping: float) -> None:
    for call in (ngem, natural_gradient):
        with pytest.raises(ValueError, match=f"damping must be positive and finite, got {damping}"):
            call(make(), np.zeros(2), damping=damping)


# Units


def test_scale_unit_is_the_geometric_mean() -> None:
    mixture = make(batch=(2, 5), d=3)
    scales = np.asarray(mixture.scales)
    every = stats.gmean(scales.reshape(-1, 3), axis=0)
    np.testing.assert_allclose(scale_unit(mixture), every, rtol=8 * EPS)
    np.testing.assert_allclose(
        scale_unit(example(mixture, (0, 1))), stats.gmean(scales[0, 1], axis=0), rtol=8 * EPS
    )
    weights = np.random.default_rng(0).uniform(size=(2, 5)) * (np.arange(5) != 2)
    repeated = np.repeat(weights.ravel(), 3)[:, None] * np.ones(3)
    weighted = stats.gmean(scales.reshape(-1, 3), axis=0, weights=repeated)
    np.testing.assert_allclose(scale_unit(mixture, weights), weighted, rtol=8 * EPS)
    mask = weights > 0
    kept = stats.gmean(scales[mask].reshape(-1, 3), axis=0)
    np.testing.assert_allclose(scale_unit(mixture, mask), kept, rtol=8 * EPS)
    np.testing.assert_allclose(jax.jit(scale_unit)(mixture, mask), kept, rtol=8 * EPS)
    # What is left out is left out whatever it is, and traced weights give the same.
    spoilt = example(mixture, ...)  # rebuilt without checks
    object.__setattr__(spoilt, "scales", mixture.scales.at[:, 2].set(jnp.nan))
    np.testing.assert_allclose(jax.jit(scale_unit)(spoilt, weights), weighted, rtol=8 * EPS)
    np.testing.assert_array_equal(scale_unit(mixture, np.zeros((2, 5))), 1.0)


def test_scale_unit_has_no_gradient_and_float32_at_least() -> None:
    mixture = make(batch=(4,))
    gradient = jax.grad(lambda m: scale_unit(m).sum())(mixture)
    np.testing.assert_array_equal(gradient.scales, 0.0)
    half = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), mixture)
    assert scale_unit(half).dtype == jnp.float32
    assert scale_unit(mixture).dtype == jnp.float64


def test_scale_unit_checks_the_weights() -> None:
    mixture = make(batch=(4,))
    with pytest.raises(ValueError, match=r"batch shape of the mixture, \(4,\), got shape \(3,\)"):
        scale_unit(mixture, np.ones(3))
    with pytest.raises(ValueError, match="weights must be not negative and finite"):
        scale_unit(mixture, np.array([1.0, -1.0, 0.0, 1.0]))


# Differentiated as often as it is meant to be


SURROGATES: dict[str, Any] = {"ngem": ngem, "Variant": variants.undamped}


@pytest.mark.parametrize("name", SURROGATES)
def test_forward_mode_has_the_gradient_of_reverse_mode(name: str) -> None:
    objective, mixture, y = SURROGATES[name], make(batch=(4,)), targets(4, 2)
    direction = make(batch=(4,), seed=5)
    gradient, d_y = jax.grad(lambda m, t: objective(m, t).sum(), argnums=(0, 1))(mixture, y)
    products = jax.tree.map(lambda a, b: (a * b).sum(), (gradient, d_y), (direction, y))
    expected = sum(jax.tree.leaves(products))
    value, tangent = jax.jvp(objective, (mixture, y), (direction, y))
    assert float(tangent.sum()) == pytest.approx(float(expected), rel=1e-12)
    np.testing.assert_array_equal(value, nll(mixture, y))
    _, linear = jax.linearize(objective, mixture, y)
    np.testing.assert_allclose(linear(direction, y), tangent, rtol=1e-12)


SECOND_ORDER: dict[str, Callable[..., Any]] = {
    "hessian": lambda f, x: jax.hessian(f)(x),
    "reverse over reverse": lambda f, x: jax.jacrev(jax.jacrev(f))(x),
    "forward over forward": lambda f, x: jax.jacfwd(jax.jacfwd(f))(x),
    "reverse over forward": lambda f, x: jax.grad(lambda v: jax.jvp(f, (v,), (v,))[1])(x),
    "product": lambda f, x: jax.jvp(jax.grad(f), (x,), (x,)),
    "linearize": lambda f, x: jax.linearize(jax.grad(f), x),
    "compiled": lambda f, x: jax.jit(jax.hessian(jax.jit(f)))(x),
    "mapped": lambda f, x: jax.vmap(jax.hessian(f))(x[None]),
    "through a training": lambda f, x: jax.grad(
        lambda v: jax.lax.scan(lambda c, _: (c - 0.1 * jax.grad(f)(c), None), v, length=2)[0].sum()
    )(x),
}


@pytest.mark.parametrize("transformation", SECOND_ORDER)
@pytest.mark.parametrize("name", SURROGATES)
def test_a_second_derivative_is_an_error(name: str, transformation: str) -> None:
    mixture, y = make(), targets(2)
    second = SECOND_ORDER[transformation]

    def loss(objective: Objective) -> Callable[[jax.Array], jax.Array]:
        return lambda mu: objective(GaussianMixture(mixture.logits, mu, mixture.scales), y)

    message = rf"{name}.* cannot be differentiated twice.*`nll`.*`natural_gradient`"
    with pytest.raises(TypeError, match=message):
        second(loss(SURROGATES[name]), mixture.means)
    second(loss(nll), mixture.means)


def test_an_update_can_be_differentiated() -> None:
    """The way out that the error names, against finite differences."""
    mixture, y = make(), targets(2)

    def update(mu: jax.Array) -> jax.Array:
        m = GaussianMixture(mixture.logits, mu, mixture.scales)
        return natural_gradient(m, y).means

    step = 1e-6 * np.ones_like(mixture.means)
    _, tangent = jax.jvp(update, (mixture.means,), (step,))
    difference = (update(mixture.means + step) - update(mixture.means - step)) / 2
    np.testing.assert_allclose(tangent, difference, rtol=1e-7, atol=1e-15)


def test_gradients_go_through_checkpoints_and_scans() -> None:
    mixture, y = make(batch=(4,)), targets(4, 2)
    whole = jax.grad(lambda m: ngem(m, y).sum())(mixture)

    def scanned(m: GaussianMixture) -> jax.Array:
        _, values = jax.lax.scan(jax.checkpoint(lambda c, t: (c, ngem(*t))), None, (m, y))
        return values.sum()

    assert_trees_close(jax.jit(jax.grad(scanned))(mixture), whole)


# Options that compare by value


def test_equal_objectives_and_schedules_are_one_to_a_compiled_program() -> None:
    traces = []

    @partial(jax.jit, static_argnums=(0, 1))
    def train(objective: Objective, schedule: Any, m: GaussianMixture, y: jax.Array) -> jax.Array:
        traces.append(objective)
        return objective(m, y, relaxation=schedule(3)).mean()

    for _ in range(2):
        train(Variant(damping=0.1), relaxation_schedule(1000), make(), targets(2))
    assert len(traces) == 1
    train(Variant(damping=0.2), relaxation_schedule(1000), make(), targets(2))
    train(Variant(damping=0.2), relaxation_schedule(1001), make(), targets(2))
    assert len(traces) == 3
    assert relaxation_schedule(10) == RelaxationSchedule(10, 0.1, 0.1)


# Relaxation schedules


def test_relaxation_schedule_falls_in_a_line_and_stays_at_zero() -> None:
    schedule = relaxation_schedule(10_000)
    for count, expected in ((0, 0.1), (250, 0.075), (500, 0.05), (999, 1e-4)):
        assert float(schedule(count)) == pytest.approx(expected, rel=1e-5)
    assert [float(schedule(count)) for count in (1000, 1001, 9999, 10**6)] == [0.0] * 4
    steep = relaxation_schedule(100, initial=1.0, fraction=0.5)
    assert [float(steep(count)) for count in (0, 25, 50)] == [1.0, 0.5, 0.0]
    never = relaxation_schedule(100, initial=0.0)
    assert float(never(0)) == 0.0
    without = relaxation_schedule(100, fraction=0.0)
    assert [float(without(count)) for count in (0, 1, 2)] == [0.0, 0.0, 0.0]
    assert jax.jit(without)(0) == 0.0
    short = relaxation_schedule(3)  # a tenth of it is less than an update: one
    assert [round(float(short(count)), 6) for count in (0, 1, 2)] == [0.1, 0.0, 0.0]


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
        ({"num_updates": 0}, "num_updates must be a whole number, at least 1, got 0"),
        ({"num_updates": 10.5}, "num_updates must be a whole number, at least 1, got 10.5"),
        ({"num_updates": np.inf}, "num_updates must be a whole number, at least 1, got inf"),
        ({"num_updates": "many"}, "num_updates must be a whole number, .* got 'many'"),
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


def test_gradient_goes_through_a_network_by_the_chain_rule(natural_pair: Any) -> None:
    """Line 8 of Algorithm 1 with the Jacobian of the network written out."""
    objective, natural_of = natural_pair
    parameters, x, y = initial_parameters(), targets(4, 3, seed=1), targets(4, 2)
    vector, unravel = ravel_pytree(parameters)

    @jax.value_and_grad
    def loss(v: jax.Array) -> jax.Array:
        return objective(network(unravel(v), x), y).mean()

    value, gradient = jax.jit(loss)(vector)
    mixture = jax.jit(network)(parameters, x)
    assert value == pytest.approx(float(np.mean(jax.jit(nll)(mixture, y))), rel=64 * EPS)
    jacobian = jax.jit(jax.jacfwd(lambda v: ravel_pytree(network(unravel(v), x))[0]))(vector)
    natural = ravel_pytree(natural_of(mixture, y))[0]
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
    at = jax.jit(beta_nll)  # also where beta is traced
    np.testing.assert_allclose(at(mixture, y, 0.0), jax.jit(nll)(mixture, y), rtol=8 * EPS)
    np.testing.assert_array_equal(at(mixture, y), at(mixture, y, 0.5))
    gradients = [
        jax.jit(jax.grad(lambda m, call=call: call(m, y).sum()))(mixture)
        for call in (nll, partial(beta_nll, beta=0.0))
    ]
    assert_trees_close(*gradients)


@pytest.mark.parametrize("name", ["ngem", *NAMED])
def test_ngem_of_one_component_is_beta_nll_at_one(name: str) -> None:
    """Section 5 of the paper up to a constant: the same for the mean, half of it for the scale."""
    mixture, y = single()
    # In the coordinate of the paper; the other differs by the power of sigma that it names.
    choice = dataclasses.replace(NAMED.get(name, Variant()), coordinate="scale")
    natural = jax.jit(jax.grad(lambda m: choice(m, y).sum()))(mixture)
    beta = jax.jit(jax.grad(lambda m: beta_nll(m, y, 1.0).sum()))(mixture)
    # The damped ones divide by one plus their damping.
    damping = {"fully_damped": 1.01, "ngem": 1.25}.get(name, 1.0)
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


MODULES = (mixtures, fisher, objectives, variants, power, methods, em)


@pytest.mark.parametrize("thing", [thing for module in MODULES for thing in public(module)])
def test_every_public_name_is_documented(thing: Any) -> None:
    """Each function and class says what it takes, argument by argument, and what it returns."""
    if isinstance(thing, float | dict | tuple | Variant) or get_origin(thing):
        return  # a number, table, choices, named variant or alias, documented below it
    doc = inspect.getdoc(thing)
    assert doc
    assert doc.splitlines()[0].endswith(".")
    is_class = inspect.isclass(thing)
    signature = inspect.signature(thing)
    if hasattr(thing, "_fields"):
        return  # each field has its own text below it
    for name in signature.parameters:
        assert re.search(rf"^ +(\*\*)?{name}: ", doc, re.MULTILINE), (
            f"{thing.__name__} does not document {name}"
        )
    assert is_class or signature.return_annotation == "None" or "Returns:" in doc


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
    assert own - set(module.__all__) <= {"CompleteDataFisher", "EStep", "GaussianFisher"}
    assert all(hasattr(module, name) for name in module.__all__)


def test_second_derivatives_of_sgem_are_those_of_the_m_step() -> None:
    """With the responsibilities held constant, which for the means is the inverse variances."""
    mixture, y = make(), np.array([0.3, -0.8])

    def of_means(objective: Objective) -> Any:
        return jax.hessian(lambda m: objective(dataclasses.replace(mixture, means=m), y))(
            mixture.means
        )

    weight = mixture.responsibilities(y)[:, None] / mixture.scales**2
    expected = np.diag(np.ravel(weight)).reshape(3, 2, 3, 2)
    np.testing.assert_allclose(of_means(sgem), expected, rtol=1e-12, atol=1e-14)
    assert np.abs(of_means(nll) - expected).max() > 0.01


def test_integers_that_jax_would_wrap_are_numbers_like_others() -> None:
    with jax.enable_x64(False):
        mixture = GaussianMixture([0.0], [[3e9]], [[1e3]])
        for y in (np.array([[3_000_000_000]]), [[3_000_000_000]], np.array([[3e9]], np.uint64)):
            np.testing.assert_allclose(nll(mixture, y), nll(mixture, np.array([[3e9]])))
            np.testing.assert_allclose(mixture.log_prob(y), -nll(mixture, y))
        built = GaussianMixture(np.zeros(1, int), np.array([[3_000_000_000]]), np.ones((1, 1)))
        assert float(built.means[0, 0]) == 3e9


@pytest.mark.parametrize("y", [np.zeros(2) + 1j, jnp.zeros(2) + 1j, "ab", None])
def test_targets_that_are_no_real_numbers_are_refused(y: Any) -> None:
    for call in (nll, GaussianMixture.log_prob):
        with pytest.raises(ValueError, match=r"y must be (an array of )?real"):
            call(make(), y)
