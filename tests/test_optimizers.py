"""Optimizers: against slow references, the closed-form Fisher matrix and what they promise."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from functools import partial
from importlib.metadata import version
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from jax.flatten_util import ravel_pytree

from ngem_tutorial import _kfac_jax
from ngem_tutorial.fisher import complete_data_fisher
from ngem_tutorial.loop import train
from ngem_tutorial.mixtures import GaussianMixture
from ngem_tutorial.networks import MixtureDensityNetwork
from ngem_tutorial.objectives import ngem, nll
from ngem_tutorial.optimizers import (
    KFAC,
    OPTIMIZERS,
    _register_complete_data_model,
    get_optimizer,
    muon,
    soap,
)

SHAPES = {"tall": (4, 3), "square": (3, 3), "vector": (3,)}


@pytest.fixture
def float64() -> Iterator[None]:
    """For one test; the fixture `x64` lasts for the rest of the file."""
    with jax.enable_x64(True):
        yield


def gradients(number: int) -> list[dict[str, jax.Array]]:
    """Gradients with a mean, so that momentum matters, and uneven directions."""
    random = np.random.default_rng(0)
    mean = {name: random.normal(size=shape) for name, shape in SHAPES.items()}
    uneven = np.array([3.0, 1.0, 0.3])
    return [
        {k: jnp.asarray(m + random.normal(size=m.shape) * uneven) for k, m in mean.items()}
        for _ in range(number)
    ]


def changes(optimizer: Any, sequence: list[dict[str, jax.Array]]) -> list[dict[str, jax.Array]]:
    """What the optimizer answers to each gradient of a sequence."""
    params = jax.tree.map(jnp.zeros_like, sequence[0])
    state, answers = optimizer.init(params), []
    update = jax.jit(optimizer.update)
    for gradient in sequence:
        change, state = update(gradient, state, params)
        answers.append(change)
    return answers


def assert_equal(a: Any, b: Any, **tolerance: float) -> None:
    jax.tree.map(partial(np.testing.assert_allclose, **tolerance), a, b)


# ------------------------------------------------------------------------------------------ SOAP


def soap_reference(
    matrices: list[np.ndarray], bases: tuple[np.ndarray, np.ndarray], rate: float, frequency: int
) -> list[np.ndarray]:
    """Algorithm 3 of Vyas et al. (2025) for one matrix, bias corrected, after the first gradient.

    Args:
        matrices: the gradients.
        bases: eigenvectors after the first gradient, by decreasing eigenvalue.
        rate: learning rate.
        frequency: of the refreshes.
    """
    beta, eps = 0.95, 1e-8
    g = matrices[0]
    covariance = [(1 - beta) * g @ g.T, (1 - beta) * g.T @ g]
    q = list(bases)
    m, v = np.zeros_like(g), np.zeros_like(g)
    result = []
    for t, g in enumerate(matrices[1:], start=1):
        m = beta * m + (1 - beta) * g
        v = beta * v + (1 - beta) * (q[0].T @ g @ q[1]) ** 2
        normalised = (q[0].T @ m @ q[1] / (1 - beta**t)) / (np.sqrt(v / (1 - beta**t)) + eps)
        result.append(-rate * q[0] @ normalised @ q[1].T)
        covariance[0] = beta * covariance[0] + (1 - beta) * g @ g.T
        covariance[1] = beta * covariance[1] + (1 - beta) * g.T @ g
        if t % frequency == 0:
            for axis in (0, 1):
                order = np.argsort(-np.diag(q[axis].T @ covariance[axis] @ q[axis]))
                v = v[order] if axis == 0 else v[:, order]
                q[axis] = np.linalg.qr(covariance[axis] @ q[axis][:, order])[0]
    return result


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", ["tall", "square"])
def test_soap_equals_the_published_algorithm(name: str) -> None:
    sequence = [{name: g[name]} for g in gradients(15)]
    optimizer = soap(0.1, precondition_frequency=4)
    _, state = optimizer.update(sequence[0], optimizer.init(sequence[0]))
    bases = tuple(np.asarray(q) for q in state.leaves[0].bases)
    g = np.asarray(sequence[0][name])
    for q, outer in zip(bases, (g @ g.T, g.T @ g), strict=True):  # eigenvectors indeed
        eigenvalues = np.linalg.eigvalsh(outer)[::-1]
        np.testing.assert_allclose(q.T @ q, np.eye(len(q)), atol=1e-12)
        np.testing.assert_allclose(q.T @ outer @ q, np.diag(eigenvalues), atol=1e-10)
    expected = soap_reference([np.asarray(g[name]) for g in sequence], bases, 0.1, 4)
    answers = [answer[name] for answer in changes(optimizer, sequence)]
    assert not answers[0].any()
    np.testing.assert_allclose(answers[1:], expected, rtol=1e-8, atol=1e-12)


@pytest.mark.usefixtures("float64")
def test_soap_in_the_standard_basis_is_adam_one_gradient_later() -> None:
    sequence = gradients(12)
    answers = changes(soap(0.1, precondition_frequency=3, max_size=1), sequence)
    expected = changes(optax.adam(0.1, b1=0.95, b2=0.95), sequence[1:])
    assert_equal(answers[1:], expected, rtol=1e-10)


@pytest.mark.usefixtures("float64")
def test_soap_does_not_depend_on_the_basis_and_adam_does() -> None:
    """Rotated gradients give rotated steps."""
    random = np.random.default_rng(1)
    u, v = (np.linalg.qr(random.normal(size=(3, 3)))[0] for _ in range(2))
    sequence = [{"square": g["square"]} for g in gradients(12)]
    rotated = [{"square": u @ g["square"] @ v} for g in sequence]
    for optimizer, invariant in ((soap(0.1, precondition_frequency=5), True), (optax.adam(0.1), 0)):
        plain = [u @ change["square"] @ v for change in changes(optimizer, sequence)]
        turned = [change["square"] for change in changes(optimizer, rotated)]
        assert np.allclose(plain, turned, rtol=1e-8, atol=1e-10) == bool(invariant)


def test_soap_counts_updates_itself_if_it_is_not_told() -> None:
    sequence = gradients(5)
    optimizer = soap(0.1, precondition_frequency=2)
    state, update = optimizer.init(sequence[0]), jax.jit(optimizer.update)
    for step, (gradient, own) in enumerate(
        zip(sequence, changes(optimizer, sequence), strict=True)
    ):
        told, state = update(gradient, state, step=jnp.array(step))
        assert_equal(told, own)


@pytest.mark.parametrize("make", [soap, muon])
def test_a_rate_can_be_a_schedule(make: Any) -> None:
    sequence = gradients(4)
    schedule = changes(make(lambda count: jnp.where(count < 2, 0.1, 0.0)), sequence)
    constant = changes(make(0.1), sequence)
    for step, (a, b) in enumerate(zip(schedule, constant, strict=True)):
        assert_equal(a, b if step < 2 else jax.tree.map(jnp.zeros_like, b), rtol=1e-6)


def test_soap_refuses_a_frequency_that_is_not_positive() -> None:
    with pytest.raises(ValueError, match="precondition_frequency must be at least 1, got 0"):
        soap(0.1, precondition_frequency=0)


# ------------------------------------------------------------------------------------------ Muon


def test_muon_orthogonalises_matrices_and_leaves_vectors_to_adam() -> None:
    gradient = gradients(1)[0]
    change = changes(muon(0.1), [gradient])[0]
    left, _, right = np.linalg.svd(np.asarray(gradient["tall"]), full_matrices=False)
    core = left.T @ -np.asarray(change["tall"]) @ right.T
    size = 0.1 * 0.2 * np.sqrt(4)
    np.testing.assert_allclose(core - np.diag(np.diag(core)), 0.0, atol=1e-4 * size)
    assert (np.abs(np.diag(core) / size - 1.0) < 0.4).all()  # Newton-Schulz is inexact
    expected = changes(optax.nadam(0.1), [gradient])[0]
    np.testing.assert_allclose(change["vector"], expected["vector"], rtol=1e-5)


# ----------------------------------------------------------------------------------------- K-FAC


@pytest.fixture
def kfac_jax() -> Any:
    """kfac-jax; where it is not installed, or does not fit a newer JAX, a skip says so."""
    try:
        return _kfac_jax.load()
    except ImportError as error:
        pytest.skip(str(error))


def network(hidden: tuple[int, ...], batch: int) -> tuple[Any, Any, jax.Array]:
    """A network with two components and two outputs: `predict`, parameters and inputs."""
    model = MixtureDensityNetwork(3, 2, 2, hidden=hidden, rngs=nnx.Rngs(0))
    graph, params = nnx.split(model)
    x = jax.random.normal(jax.random.key(1), (batch, 3))
    return lambda params, x: nnx.merge(graph, params)(x), params, x


def test_kfac_registers_the_complete_data_model(kfac_jax: Any) -> None:
    """kfac-jax's exact Fisher-vector product is `J^T F J v` with the closed-form blocks."""
    predict, params, x = network((4,), 5)
    curvature = kfac_jax.ImplicitExactCurvature(
        lambda params, x: _register_complete_data_model(predict(params, x))
    )
    flat, unravel = ravel_pytree(params)
    vector = jax.random.normal(jax.random.key(2), flat.shape)
    with _kfac_jax.without_deprecations():
        product = jax.jit(curvature.multiply_fisher)((params, x), unravel(vector))

    @jax.jit
    @jax.vmap
    def expected(row: jax.Array) -> jax.Array:
        j = jax.jacobian(lambda v: _vector(predict(unravel(v), row)))(flat)
        return j.T @ complete_data_fisher(predict(params, row)).to_dense() @ j @ vector

    result = ravel_pytree(product)[0]
    np.testing.assert_allclose(result, expected(x).mean(0), rtol=1e-4, atol=1e-5)


def _vector(mixture: GaussianMixture) -> jax.Array:
    return jnp.concatenate([mixture.logits, mixture.means.ravel(), mixture.scales.ravel()])


@pytest.mark.usefixtures("kfac_jax")
def test_kfac_draws_from_the_model_and_not_from_the_data() -> None:
    """The layers' factors after one large batch are averages of the closed-form blocks."""
    predict, params, x = network((), 40_000)
    optimizer = KFAC()(1e-3, predict, x, jax.random.key(3))
    gradient = jax.tree.map(jnp.ones_like, params)

    @jax.jit
    def update(params: Any) -> Any:
        return optimizer.update(gradient, optimizer.init(params), params, step=jnp.array(0))[1][0]

    states = update(params).estimator_state.blocks_states
    mixture = predict(params, x)
    fisher = complete_data_fisher(mixture)
    inputs = jnp.concatenate([x, jnp.ones((len(x), 1))], axis=1)
    assert len(states) == 3  # logits, means, scales
    for state in states:
        np.testing.assert_allclose(
            state.factors[0].value, inputs.T @ inputs / len(x), rtol=1e-4, atol=1e-5
        )
    np.testing.assert_allclose(states[0].factors[1].value, fisher.logits.mean(0), rtol=0.03)
    means = states[1].factors[1].value
    np.testing.assert_allclose(jnp.diag(means), fisher.means.mean(0).ravel(), rtol=0.05)
    assert jnp.abs(means - jnp.diag(jnp.diag(means))).max() < 0.05 * means.max()


def test_a_missing_kfac_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "kfac_jax", None)
    with pytest.raises(ImportError, match=r"kfac-jax is needed .*\boptimizers\b"):
        KFAC()(1e-3, lambda params, x: None, None, jax.random.key(0))


def test_only_the_release_that_needs_it_is_mended() -> None:
    assert _kfac_jax.needs_repair("0.0.8", (0, 9, 2))
    assert not _kfac_jax.needs_repair("0.0.8", (0, 9, 1))
    assert not _kfac_jax.needs_repair("0.0.9", (0, 10, 2))


@pytest.mark.usefixtures("kfac_jax")
def test_kfac_jax_as_released_does_not_trace_with_this_jax() -> None:
    """In a process of its own. It fails with a release that needs no repair: then it can go."""
    script = textwrap.dedent("""
        import warnings

        warnings.simplefilter("ignore", DeprecationWarning)
        import jax, jax.numpy as jnp, kfac_jax

        def loss(w):
            prediction = jnp.ones((2, 1)) @ w
            kfac_jax.register_normal_predictive_distribution(prediction)
            return prediction.sum()

        kfac_jax.ImplicitExactCurvature(loss).multiply_fisher((jnp.ones((1, 1)),), jnp.ones((1, 1)))
    """)
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env=environment
    )
    fails = "values to unpack (expected 2)" in done.stderr
    assert fails == _kfac_jax.needs_repair(version("kfac-jax"), jax.__version_info__), done.stderr


def test_an_equation_is_evaluated_as_jax_evaluates_it() -> None:
    """One with several results, one with one, and one that holds a function."""
    if not _kfac_jax.needs_repair("0.0.8", jax.__version_info__):
        return  # it is written for the JAX that needs it, and not called with another

    def function(x: jax.Array) -> tuple[jax.Array, jax.Array]:
        ordered, index = jax.lax.sort((x, jnp.arange(3)), num_keys=1)
        return jax.jit(jnp.sin)(ordered), index

    x = jnp.array([3.0, 1.0, 2.0])
    traced = jax.make_jaxpr(function)(x)
    values = dict(zip(traced.jaxpr.invars, [x], strict=True))
    for equation in traced.eqns:
        inputs = [v.val if hasattr(v, "val") else values[v] for v in equation.invars]
        outputs = _kfac_jax.evaluate_equation(equation, inputs)
        values |= dict(zip(equation.outvars, outputs, strict=True))
    assert_equal([values[v] for v in traced.jaxpr.outvars], list(function(x)))


# ------------------------------------------------------------------------------------ all in train

X = jax.random.normal(jax.random.key(0), (64, 3))
Y = jnp.sin(X[:, :2]) + 0.1 * jax.random.normal(jax.random.key(1), (64, 2))


def make_network(rngs: nnx.Rngs) -> MixtureDensityNetwork:
    return MixtureDensityNetwork(3, 2, 2, hidden=(8,), rngs=rngs)


run = partial(train, make_network, x=X, y=Y, epochs=10, batch_size=16, record_at=[0, 40])


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_train_with_every_optimizer(
    name: str, request: pytest.FixtureRequest, compilations: Callable[[], int]
) -> None:
    """Two seeds of 40 updates, where a deadlock has been seen: the time limit would tell."""
    if name == "kfac":
        request.getfixturevalue("kfac_jax")
    optimizer = get_optimizer(name)
    first = run(nll, learning_rate=1e-2, optimizer=optimizer, seeds=(1, 2))
    start, end = first.metrics["nll"].T
    assert (end < start - 0.05).all()
    assert compilations() > 0
    again = run(nll, learning_rate=1e-2, optimizer=get_optimizer(name), seeds=(1, 2))
    # The functions that are checked here are traced anew, and the text of K-FAC's program differs.
    assert compilations() == int(name == "kfac")
    np.testing.assert_array_equal(again.metrics["nll"], first.metrics["nll"])


@pytest.mark.usefixtures("kfac_jax")
def test_kfac_preconditions_any_objective_and_bounds_the_step() -> None:
    """With a bound that every step exceeds, the learning rate does not matter."""
    bounded = KFAC(norm_constraint=1e-6)
    ends = [
        run(ngem, learning_rate=rate, optimizer=bounded).metrics["nll"][0] for rate in (1e-1, 1e-2)
    ]
    np.testing.assert_allclose(ends[0], ends[1], rtol=1e-5)
    assert ends[0][1] < ends[0][0]


def test_an_unknown_optimizer_is_named() -> None:
    with pytest.raises(ValueError, match="must be one of adam, muon, soap, kfac, got 'x'"):
        get_optimizer("x")
