"""`fit`: against data standardised by hand, hostile scales, and what optax and Flax users call."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pandas as pd
import pytest
from flax import nnx

from ngem_tutorial import loop
from ngem_tutorial._training import compilation
from ngem_tutorial._training.data import make_data
from ngem_tutorial._training.scaling import Scaling
from ngem_tutorial.methods import METHODS, Method
from ngem_tutorial.metrics import weight_entropy
from ngem_tutorial.mixtures import GaussianMixture
from ngem_tutorial.networks import (
    LabelConditioned,
    MixtureDensityNetwork,
    PlainMixture,
    Standardized,
)
from ngem_tutorial.objectives import mse, ngem, nll, relaxation_schedule
from ngem_tutorial.optimizers import get_optimizer, soap
from ngem_tutorial.training import Interrupted, NonFiniteError, ScaleWarning, fit

N = 40
RANDOM = np.random.default_rng(0)
X = RANDOM.normal(3.0, 2.0, size=(N, 3))
Y = np.stack([5.0 * X[:, 0], 100.0 + np.sin(X[:, 1])], axis=1) + 0.1 * RANDOM.normal(size=(N, 2))
STANDARD = (Y - Y.mean(0)) / Y.std(0)


def make_network(rngs: nnx.Rngs) -> MixtureDensityNetwork:
    return MixtureDensityNetwork(3, 2, 2, hidden=(8,), rngs=rngs)


run = partial(fit, make_network, ngem, epochs=3, batch_size=10, initial_means="own")


# ---------------------------------------------------------------------------------- compilation


def test_equal_calls_compile_once(compilations: Callable[[], int]) -> None:
    """Whatever is made anew: the maker, the optimizer, the schedule, the metric, the method."""

    def call(seed: int, shift: float) -> Any:
        return fit(
            lambda rngs: MixtureDensityNetwork(3, 2, 2, hidden=(7,), rngs=rngs),
            METHODS["damped nGEM"],
            X + shift,
            Y,
            epochs=3,
            batch_size=10,
            optimizer=optax.chain(
                optax.clip_by_global_norm(1.0), optax.adamw(optax.cosine_decay_schedule(1e-2, 12))
            ),
            relaxation=relaxation_schedule(12),
            seeds=(seed,),
            validation=0.25,
            metrics={"nll": nll, "entropy": lambda mixture, y: mixture.weight_entropy},
        )

    first = call(1, 0.0)
    assert compilations() > 0
    second = call(1, 0.0)
    assert compilations() == 0
    np.testing.assert_array_equal(first.metrics["nll"], second.metrics["nll"])
    call(2, 0.0)
    assert compilations() == 0


def test_learning_rates_seeds_and_data_share_the_programs_of_train(
    compilations: Callable[[], int],
) -> None:
    settings = {"epochs": 2, "batch_size": 10}
    loop.train(make_network, nll, X, Y, learning_rate=1e-3, seeds=(1, 2), **settings)
    compilations()
    loop.train(make_network, nll, X + 1, Y, learning_rate=[1e-2, 1e-4], seeds=(3, 4), **settings)
    assert compilations() == 0


def test_programs_of_one_text_are_not_mistaken_for_each_other() -> None:
    """Constants, arguments that go unused, and callbacks, whose text is no more than a number."""
    x = jnp.arange(5000.0)
    for factor in (x, x + 1.0):
        f = compilation.compiled(lambda a, c=factor: jnp.sum(a * c), x, key=object())
        np.testing.assert_allclose(f(x), np.sum(np.arange(5000.0) * np.asarray(factor)), rtol=1e-5)
    a, b = jnp.array(1.0), jnp.array(2.0)
    for function, expected in ((lambda a, b: {"a": a}, 1.0), (lambda a, b: {"b": b}, 2.0)):
        result = compilation.compiled(function, a, b, key=object())(a, b)
        assert [float(v) for v in result.values()] == [expected]
        assert set(result) == set(function(a, b))
    for number in (3.0, 4.0):
        f = compilation.compiled(
            lambda a, number=number: jax.pure_callback(
                lambda a: np.float32(number), jax.ShapeDtypeStruct((), jnp.float32), a
            ),
            a,
            key=object(),
        )
        assert f(a) == number


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("jax_default_matmul_precision", "bfloat16"),
        ("jax_default_prng_impl", "rbg"),
        ("jax_enable_x64", True),
    ],
)
def test_a_program_is_of_the_settings_of_jax(setting: str, value: Any) -> None:
    def function(a: jax.Array) -> tuple[jax.Array, Any]:
        drawn = jax.random.uniform(jax.random.key(0))
        return a @ a, drawn

    a = jnp.ones((2, 2), jnp.float32)
    before = getattr(jax.config, setting)
    first = compilation.compiled(function, a, key=function)
    jax.config.update(setting, value)
    try:
        second = compilation.compiled(function, a, key=function)
    finally:
        jax.config.update(setting, before)
    assert second.executable is not first.executable
    assert compilation.compiled(function, a, key=function).executable is first.executable


VARIABLE = {"value": 0.0}


class _Reads(MixtureDensityNetwork):
    """A module that reads a variable."""

    def __call__(self, x: Any) -> Any:
        return super().__call__(x + VARIABLE["value"])


class _Scaled:
    """An objective with a factor that can be set."""

    factor = 1.0

    def loss(self, mixture: Any, y: Any) -> jax.Array:
        return self.factor * nll(mixture, y)


def _reads(mixture: Any, y: Any) -> jax.Array:
    return nll(mixture, y) + VARIABLE["value"]


@pytest.mark.parametrize(
    ("model", "objective", "metric"),
    [
        (_Reads, nll, nll),
        (MixtureDensityNetwork, _reads, nll),
        (MixtureDensityNetwork, partial(_reads), nll),
        (MixtureDensityNetwork, nll, _reads),
    ],
)
def test_a_variable_that_a_function_reads_may_change(
    model: Any, objective: Any, metric: Any
) -> None:
    def call() -> tuple[np.ndarray, np.ndarray]:
        make = lambda rngs: model(3, 2, 2, hidden=(7,), rngs=rngs)  # noqa: E731
        done = loop.train(
            make, objective, X, Y, learning_rate=1e-3, epochs=1, batch_size=10,
            metrics={"value": metric},
        )  # fmt: skip
        return done.loss[:, -1], done.metrics["value"]

    before = call()
    VARIABLE["value"] = 3.0
    try:
        after = call()
    finally:
        VARIABLE["value"] = 0.0
    assert any(np.abs(a - b).max() > 1e-3 for a, b in zip(before, after, strict=True))
    for a, b in zip(before, call(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_an_attribute_of_an_objective_may_change() -> None:
    objective = _Scaled()

    def call() -> float:
        return float(fit(make_network, objective.loss, X, Y, epochs=1, batch_size=10).loss[0, -1])

    first, objective.factor = call(), 2.0
    assert call() > 1.5 * first > 0


def test_programs_do_not_pile_up() -> None:
    compilation.clear()
    for i in range(70):
        compilation.compiled(lambda a, i=i: a, jnp.zeros(()), key=i)
        assert len(compilation._BY_FUNCTION._entries) <= 64
    assert len(compilation._BY_TEXT._entries) == 1


# ------------------------------------------------------------------------------------- optimizers


def _labels(params: Any) -> Any:
    def label(path: Any, _: Any) -> str:
        return "head" if path[0].key == "means" else "rest"

    return jax.tree_util.tree_map_with_path(label, params)


@pytest.mark.parametrize(
    "optimizer",
    [
        optax.adam(3e-3),
        optax.adamw(optax.cosine_decay_schedule(3e-3, 12)),
        optax.chain(optax.clip_by_global_norm(0.1), optax.sgd(1e-2, momentum=0.9)),
        optax.inject_hyperparams(optax.adam)(learning_rate=3e-3),
        optax.multi_transform(
            {"head": optax.sgd(1e-2), "rest": optax.adam(3e-3)},
            _labels,
        ),
        optax.lion(1e-3),
    ],
)
def test_any_optax_transformation_trains_as_in_a_loop_of_its_own(optimizer: Any) -> None:
    result = run(X, Y, optimizer=optimizer, seeds=(5,), standardize=True)
    x = (X - X.mean(0)) / X.std(0)
    y = jnp.asarray((Y - Y.mean(0)) / Y.std(0), jnp.float32)
    graph, params = nnx.split(make_network(nnx.Rngs(jax.random.split(jax.random.key(5))[0])))
    state, key = optimizer.init(params), jax.random.split(jax.random.key(5))[1]
    orders = [jax.random.permutation(jax.random.fold_in(key, epoch), N) for epoch in range(3)]

    @jax.jit
    def step(params: Any, state: Any, rows: jax.Array) -> tuple[Any, Any]:
        batch = jnp.asarray(x, jnp.float32)[rows]
        loss = lambda p: ngem(nnx.merge(graph, p)(batch), y[rows]).mean()  # noqa: E731
        change, state = optimizer.update(jax.grad(loss)(params), state, params)
        return optax.apply_updates(params, change), state

    for rows in (b for order in orders for b in order.reshape(4, 10)):
        params, state = step(params, state, rows)
    trained = nnx.state(result.model().network, nnx.Param)
    for a, b in zip(jax.tree.leaves(trained), jax.tree.leaves(params), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("optimizer", [optax.lbfgs(1.0), soap(1e-2)])
def test_optimizers_with_extra_arguments_get_them(optimizer: Any) -> None:
    result = fit(make_network, nll, X, Y, epochs=20, batch_size=N, optimizer=optimizer)
    assert result.metrics["nll"][0, -1] < result.metrics["nll"][0, 0] - 0.1


@pytest.mark.parametrize(
    ("optimizer", "message"),
    [
        (optax.adam, "got adam, which has not been called"),
        (1e-3, "got 0.001"),
        ("adam", r"got 'adam', a name: get_optimizer\('adam'\)\(1e-3\) makes one"),
        ("sgd", "got 'sgd'$"),
        ("kfac", "got 'kfac': K-FAC needs the model, and is for ngem_tutorial.loop.train alone"),
        (get_optimizer("kfac"), "K-FAC needs the model"),
        (optax.cosine_decay_schedule(1e-3, 5), "with a schedule optax.adam"),
    ],
)
def test_what_is_no_transformation_is_refused(optimizer: Any, message: str) -> None:
    with pytest.raises(ValueError, match=r"optimizer must be an optax .*" + message):
        run(X, Y, optimizer=optimizer)


# ------------------------------------------------------------------------------------------ units


def test_the_units_are_those_of_the_training_data_and_the_models_return_raw_ones() -> None:
    x_mean, x_scale, y_mean, y_scale = X.mean(0), X.std(0), Y.mean(0), Y.std(0)
    raw = run(X, Y, seeds=(1, 2), metrics={"nll": nll, "square": _square})
    by_hand = run((X - x_mean) / x_scale, (Y - y_mean) / y_scale, seeds=(1, 2), standardize=False)
    np.testing.assert_allclose(raw.loss[:, 1:], by_hand.loss[:, 1:], rtol=1e-4)
    log_scale = np.log(y_scale).sum()
    np.testing.assert_allclose(raw.metrics["nll"], by_hand.metrics["nll"] + log_scale, rtol=1e-5)
    mixture = raw.model(1)(X)
    inner = by_hand.model(1)(jnp.asarray((X - x_mean) / x_scale, jnp.float32))
    np.testing.assert_allclose(mixture.logits, inner.logits, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(mixture.means, y_mean + y_scale * inner.means, rtol=1e-4)
    np.testing.assert_allclose(mixture.scales, y_scale * inner.scales, rtol=1e-4)
    y = jnp.asarray(Y, jnp.float32)
    np.testing.assert_allclose(raw.metrics["nll"][1, -1], nll(mixture, y).mean(), rtol=1e-4)
    np.testing.assert_allclose(raw.metrics["square"][1, -1], _square(mixture, y).mean(), rtol=1e-3)


def _square(mixture: GaussianMixture, y: jax.Array) -> jax.Array:
    return jnp.sum((mixture.mean - y) ** 2, axis=-1)


def test_a_trained_model_can_be_called_under_jit_and_on_one_example() -> None:
    model = run(X, Y).model()
    assert isinstance(model, Standardized)
    x = jnp.asarray(X, jnp.float32)
    np.testing.assert_allclose(
        nnx.jit(lambda m, x: m(x).means)(model, x), model(X).means, rtol=1e-4
    )
    np.testing.assert_allclose(model(X[0]).means, model(X).means[0], rtol=1e-4)
    with pytest.raises(ValueError, match=r"x must have shape \(..., 3\), got \(40, 2\)"):
        model(X[:, :2])
    with pytest.raises(ValueError, match="x must have 1 arrays, got 2"):
        model((X, X))


def test_labels_are_left_alone_and_other_leaves_are_not() -> None:
    class Both(nnx.Module):
        def __init__(self, rngs: nnx.Rngs) -> None:
            self.head = MixtureDensityNetwork(5, 2, 2, hidden=(), rngs=rngs)

        def __call__(self, x: Any) -> GaussianMixture:
            assert jnp.issubdtype(x["label"].dtype, jnp.integer)
            one_hot = jax.nn.one_hot(x["label"], 2)
            return self.head(jnp.concatenate([one_hot, x["value"]], axis=-1))

    x = {"label": np.arange(N) % 2, "value": X}
    result = fit(Both, nll, x, Y, epochs=2, batch_size=10)
    assert result.scaling is not None
    assert result.scaling.inputs[0] is None
    np.testing.assert_allclose(result.scaling.inputs[1].shift, X.mean(0))
    assert result.model()(x).batch_shape == (N,)


@pytest.mark.parametrize("objective", [nll, ngem])
@pytest.mark.parametrize("labelled", [False, True])
def test_under_x64_a_training_is_the_same(objective: Any, labelled: bool) -> None:
    def make(rngs: nnx.Rngs) -> Any:
        network = MixtureDensityNetwork(3, 2, 2, hidden=(8,), rngs=rngs)
        return LabelConditioned(network, 3) if labelled else network

    x = np.arange(N) % 3 if labelled else X.astype(np.float32)
    single = fit(make, objective, x, Y, epochs=2, batch_size=10)
    with jax.enable_x64(True):
        double = fit(make, objective, x, Y, epochs=2, batch_size=10)
    np.testing.assert_allclose(double.metrics["nll"], single.metrics["nll"], rtol=1e-4, atol=1e-4)


def test_integers_far_from_unit_scale_are_said_to_be_left_alone() -> None:
    years = np.round(2000 + X).astype(int)
    with pytest.warns(ScaleWarning, match="column 0 of x, .* pass them as floats"):
        run(years, Y)
    run(years.astype(float), Y)  # warnings are errors here
    run(np.round(X).astype(int), Y)


class OfOneAxis(nnx.Module):
    """A network for inputs that are numbers, not rows."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.head = MixtureDensityNetwork(1, 2, 2, hidden=(), rngs=rngs)

    def __call__(self, x: Any) -> GaussianMixture:
        return self.head(jnp.asarray(x)[:, None])


def test_integers_without_a_second_axis_may_be_labels_too() -> None:
    fit_one = partial(fit, OfOneAxis, nll, epochs=1, batch_size=10, record_at=[0])
    with pytest.warns(ScaleWarning, match="column 0 of x, .* pass them as floats"):
        fit_one(np.arange(N) * 50, Y)
    labels = np.arange(160) % 80  # warnings are errors here
    fit_one(labels, np.tile(Y, (4, 1)))


@pytest.mark.parametrize("standardize", [True, False])
def test_integers_that_jax_would_wrap_are_named_or_become_floats(standardize: bool) -> None:
    offset = 3_000_000_000
    with pytest.raises(ValueError, match="x must be floats or integers that int32 holds, got"):
        run(np.arange(3 * N).reshape(N, 3) + offset, Y, standardize=standardize)
    y = np.round(Y * 1e9).astype(np.int64)
    with pytest.warns(ScaleWarning) if not standardize else contextlib.nullcontext():
        results = [run(X / 4, t, standardize=standardize) for t in (y, y.astype(float))]
    np.testing.assert_array_equal(*(result.metrics["nll"] for result in results))


def test_constant_columns_keep_their_unit() -> None:
    x, y = X.copy(), Y.copy()
    x[:, 1], y[:, 0] = 7.0, -2.0
    result = run(x, y)
    assert result.scaling is not None
    assert result.scaling.inputs[0].scale[1] == result.scaling.targets.scale[0] == 1.0
    assert np.isfinite(result.metrics["nll"]).all()


def test_only_examples_that_count_set_the_units() -> None:
    """Neither those held out nor those of weight zero."""
    weights = np.arange(N) < 30
    y = np.where(weights[:, None], Y, 1e9)
    result = run(X, y, weights=weights)
    np.testing.assert_allclose(result.scaling.targets.shift, Y[:30].mean(0), rtol=1e-12)
    held_out = run(X[:30], Y[:30], validation=(X[30:], Y[30:] + 1e3), patience=5)
    np.testing.assert_allclose(held_out.scaling.targets.shift, Y[:30].mean(0), rtol=1e-12)


@pytest.mark.parametrize("shape", [(3,), (5, 3)])
def test_inputs_of_weight_zero_do_not_set_the_units(shape: tuple[int, ...]) -> None:
    random = np.random.default_rng(0)
    x = random.normal(size=(N, *shape))
    y = np.zeros((*x.shape[:-1], 1))
    weights = random.integers(0, 3, size=x.shape[:-1])
    x[weights == 0] = 1e9
    scaling = Scaling.of(make_data({"rows": x, "per_row": np.arange(N) + 0.5}, y, weights))
    rows = np.repeat(x.reshape(-1, 3), weights.ravel(), axis=0)
    per_row, rows_affine = scaling.inputs
    np.testing.assert_allclose(rows_affine.shift, rows.mean(0), rtol=1e-12)
    np.testing.assert_allclose(rows_affine.scale, rows.std(0), rtol=1e-12)
    # One number for all steps of a sequence counts as often as they do together.
    often = np.repeat(np.arange(N) + 0.5, weights.reshape(N, -1).sum(1))
    np.testing.assert_allclose((per_row.shift[0], per_row.scale[0]), (often.mean(), often.std()))


def test_a_padded_input_may_be_anything() -> None:
    weights, x = np.arange(N) < 30, X.copy()
    x[30:] = 1e9
    result = run(x, Y, weights=weights)
    np.testing.assert_allclose(result.scaling.inputs[0].shift, X[:30].mean(0), rtol=1e-12)


def test_lists_of_numbers_and_tables_are_arrays() -> None:
    expected = run(X, Y)
    table = pd.DataFrame(X, columns=["a", "b", "c"])
    for x, y in ((X.tolist(), Y.tolist()), (table, pd.DataFrame(Y)), (tuple(map(tuple, X)), Y)):
        result = run(x, y)
        np.testing.assert_array_equal(result.metrics["nll"], expected.metrics["nll"])
        mixtures = result.model()(x)
        jax.tree.map(np.testing.assert_array_equal, mixtures, expected.model()(X))
        np.testing.assert_array_equal(nll(mixtures, y), nll(mixtures, Y))
    with pytest.raises(ValueError, match="x must have 1 arrays, got 2"):
        expected.model()([X, X])


def _made(x: np.ndarray, shift: float, scale: float) -> np.ndarray:
    return shift + scale * (x + 0.1 * np.random.default_rng(1).normal(size=x.shape))


@pytest.mark.parametrize(("shift", "scale"), [(5e4, 1e4), (0.0, 2e-4), (1.7e9, 100.0), (0, 1e30)])
@pytest.mark.filterwarnings("ignore::ngem_tutorial.training.ScaleWarning")
def test_targets_in_any_unit_train_alike(shift: float, scale: float) -> None:
    """The likelihood differs by the logarithm of the scale, and by nothing else."""
    x = np.random.default_rng(0).uniform(-1, 1, size=(200, 1))
    make = lambda rngs: MixtureDensityNetwork(1, 2, 1, hidden=(8,), rngs=rngs)  # noqa: E731
    settings = {"epochs": 20, "batch_size": 50, "optimizer": optax.adam(1e-2)}
    unit, other = (
        fit(make, ngem, x, _made(x, *at), **settings) for at in ((0.0, 1.0), (shift, scale))
    )
    expected = unit.metrics["nll"] + np.log(scale)
    np.testing.assert_allclose(other.metrics["nll"], expected, rtol=1e-4, atol=1e-3)
    ratio = other.model()(x).scales / (scale * unit.model()(x).scales)
    np.testing.assert_allclose(ratio, 1.0, rtol=1e-2)


def test_inputs_of_any_offset_train_alike() -> None:
    u = np.random.default_rng(0).uniform(-1, 1, size=(200, 1))
    make = lambda rngs: MixtureDensityNetwork(1, 2, 1, hidden=(8,), rngs=rngs)  # noqa: E731
    small, large = (
        fit(make, nll, x, _made(u, 0.0, 1.0), epochs=10, batch_size=50) for x in (u, 1.7e9 + u)
    )
    np.testing.assert_allclose(large.metrics["nll"], small.metrics["nll"], rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(
        large.model()(1.7e9 + u).means, small.model()(u).means, rtol=1e-3, atol=1e-4
    )


@pytest.mark.parametrize(
    ("x", "shift", "scale", "message"),
    [
        (1.0, 1.7e9, 100.0, r"column 0 of y, 1.7e\+09 .* loses precision in float32"),
        (1.0, 5e4, 1e4, r"column 0 of y, .* is far from unit scale"),
        (1.0, 0.0, 2e-4, r"column 0 of y, .* is far from unit scale"),
        (1.0, 0.0, 1e30, r"column 0 of y, .* is too large for float32"),
        (1e5, 0.0, 1.0, r"column 0 of x, .* is far from unit scale"),
    ],
)
def test_unstandardised_data_far_from_unit_scale_are_said_to_be(
    x: float, shift: float, scale: float, message: str
) -> None:
    u = np.random.default_rng(0).uniform(-1, 1, size=(50, 1))
    make = lambda rngs: MixtureDensityNetwork(1, 2, 1, hidden=(), rngs=rngs)  # noqa: E731
    y = _made(u, shift, scale)
    with pytest.warns(ScaleWarning, match=message), contextlib.suppress(NonFiniteError, ValueError):
        fit(make, nll, x * u, y, epochs=1, batch_size=50, standardize=False)


@pytest.mark.parametrize("unit", [1e20, 1e44])
def test_targets_in_astronomical_units_train_and_are_said_to_be_large(unit: float) -> None:
    u = np.random.default_rng(0).uniform(size=(50, 1))
    make = lambda rngs: MixtureDensityNetwork(1, 2, 1, hidden=(), rngs=rngs)  # noqa: E731
    with pytest.warns(ScaleWarning, match="column 0 of y, .* is too large for float32"):
        large = fit(make, nll, u, unit * (1 + u), epochs=1, batch_size=50)
    small = fit(make, nll, u, 1 + u, epochs=1, batch_size=50)
    np.testing.assert_allclose(
        large.metrics["nll"], small.metrics["nll"] + np.log(unit), rtol=1e-5, atol=1e-4
    )


def test_a_warning_points_at_the_call_of_fit() -> None:
    script = """if True:
        from ngem_tutorial import fit, nll
        fit(lambda rngs: None, nll, None, [[0.0], [1e30]], epochs=1, batch_size=1, patience=3)
    """  # what is wrong with the patience is said after the warning, and before any computing
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert "<string>:3: ScaleWarning" in done.stderr
    assert "ValueError: patience" in done.stderr


def test_raw_mixtures_too_coarse_for_single_precision_are_said_to_be() -> None:
    u = np.random.default_rng(0).uniform(-1, 1, size=(50, 1))
    make = lambda rngs: MixtureDensityNetwork(1, 2, 1, hidden=(), rngs=rngs)  # noqa: E731
    with pytest.warns(ScaleWarning, match=r"loses precision in float32. Subtract an offset"):
        result = fit(make, nll, u, _made(u, 1.7e9, 100.0), epochs=1, batch_size=50)
    # What is exact: the likelihood, and the mixture in standard units.
    np.testing.assert_allclose(result.model().network(jnp.zeros((1, 1))).means, 0.0, atol=3.0)


# ------------------------------------------------------------------------------------- validation


@pytest.fixture(scope="module")
def overfitted() -> Any:
    """Sixty noisy points and a network that can learn them by heart."""
    random = np.random.default_rng(0)
    x, x_new = random.uniform(-1, 1, size=(60, 1)), random.uniform(-1, 1, size=(500, 1))
    y, y_new = (np.sin(3 * v) + 0.3 * random.normal(size=v.shape) for v in (x, x_new))
    make = lambda rngs: MixtureDensityNetwork(1, 5, 1, hidden=(32, 32), rngs=rngs)  # noqa: E731
    settings = {"epochs": 400, "batch_size": 30, "optimizer": optax.adam(5e-3), "seeds": (1, 2)}
    return partial(fit, make, ngem, x, y, initial_means="own", **settings), x_new, y_new


def test_the_best_model_on_validation_data_is_kept(overfitted: Any) -> None:
    call, x, y = overfitted
    result = call(validation=(x, y), record_at=range(0, 801, 40))
    curves = result.validation["nll"]
    assert (curves[:, -1] > curves.min(axis=1) + 0.5).all()  # it does overfit
    np.testing.assert_allclose(result.best, curves.min(axis=1))
    np.testing.assert_array_equal(result.best_update, result.updates[curves.argmin(axis=1)])
    for i in range(2):
        value = nll(result.model(i)(x), jnp.asarray(y, jnp.float32)).mean()
        np.testing.assert_allclose(value, result.best[i], rtol=1e-3)
    assert (result.metrics["nll"][:, -1] < result.metrics["nll"][:, 1]).all()
    stopped = call(validation=(x, y), record_at=range(0, 801, 40), patience=3)
    for curve, best in zip(curves, stopped.best_update, strict=True):
        lowest = [int(curve[: i + 1].argmin()) for i in range(len(curve))]
        end = next(i for i in range(len(curve)) if i - lowest[i] == 3)
        assert best == result.updates[lowest[end]]
    assert len(stopped.updates) < len(result.updates)


def test_a_fraction_is_held_out_the_same_each_time() -> None:
    first = run(X, Y, validation=0.25, seeds=(1, 2))
    rows = np.sort(np.random.default_rng(0).permutation(N)[:10])
    kept = np.setdiff1d(np.arange(N), rows)
    by_hand = run(X[kept], Y[kept], validation=(X[rows], Y[rows]), seeds=(2,))
    np.testing.assert_allclose(first.validation["nll"][1], by_hand.validation["nll"][0], rtol=1e-4)
    np.testing.assert_allclose(first.scaling.targets.shift, Y[kept].mean(0), rtol=1e-12)


@pytest.mark.parametrize("validation", [0.0, 1.0, -0.1, 0.001, 5, "a"])
def test_validation_is_data_or_a_fraction(validation: Any) -> None:
    with pytest.raises(ValueError, match=r"validation must be \(x, y\), .* or a fraction between"):
        run(X, Y, validation=validation)


# ---------------------------------------------------------------------------- arguments and errors


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seeds": 3}, "seeds must be distinct integers"),
        ({"metrics": [nll]}, "metrics must map names to functions"),
        ({"relaxation": "low"}, "relaxation must be a number from 0 to 1 or a schedule"),
        ({"epochs": 2.0}, "epochs must be a whole number"),
        ({"batch_size": 128}, "batch_size must be from 1 to 40, got 128"),
        ({"evaluation": X}, r"evaluation must be \(x, y\)"),
        ({"patience": 3}, "patience needs validation data"),
        ({"weights": np.ones(3)}, "weights must have the shape of y"),
        (
            {"relaxation": lambda count: 0.1 if count < 10 else 0.0},
            r"relaxation must be a schedule that JAX can trace: .* use jax.numpy.where",
        ),
        ({"relaxation": lambda count: 2.0 + 0.0 * count}, r"relaxation\(0\) must be from 0 to 1"),
        ({"relaxation": lambda count: 0.2 * count}, r"relaxation\(11\) must be from 0 to 1"),
        ({"relaxation": lambda count: jnp.zeros(2)}, r"relaxation must return a number, got shape"),
        (
            {"weights": np.arange(N) == 0, "validation": 0.2},
            r"with 0\.2, those held out all have weight zero",
        ),
    ],
)
def test_arguments_of_the_wrong_kind_say_what_is_wanted(change: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        run(X, Y, **change)


class Plain(nnx.Module):
    """Returns an array, as a regression network does."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.layer = nnx.Linear(3, 2, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.layer(x)


def squares(prediction: Any, y: jax.Array) -> jax.Array:
    return jnp.sum((prediction - y) ** 2, axis=-1)


@pytest.mark.parametrize(
    ("model", "objective", "message"),
    [
        (MixtureDensityNetwork, nll, r"lambda rngs: MixtureDensityNetwork\(.* got the class"),
        (lambda: Plain(nnx.Rngs(0)), nll, "model must be .* of nnx.Rngs alone .* got a func"),
        (nll, Plain, "model must be .* got the function nll, which takes other arguments"),
        (X, nll, r"model must be a Flax NNX module .* got an array of shape \(40, 3\)$"),
        (Plain, "damped nGEM", r"objective must be .* a name: get_method\('damped nGEM'\) is the"),
        (Plain, X, r"objective must be .* or a Method, got an array of shape \(40, 3\)$"),
        (Plain, Plain, "objective must be .* or a Method, got the class Plain"),
        (Plain, Method("own", ngem, relaxation_schedule(9)), "that of 'own' returned an array"),
        (Plain, nll, r"must return a GaussianMixture.* shape \(10, 2\), on which obj"),
        (Plain, METHODS["damped nGEM"], "must return a GaussianMixture.* on which objective"),
        (Plain, squares, r"metrics\['nll'\] fails: .* got an array of shape \(10, 2\)"),
    ],
)  # fmt: skip
def test_arguments_in_the_wrong_place_are_named_before_any_computing(
    model: Any, objective: Any, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ngem_tutorial._training.trainer.compiled", None)
    settings: dict[str, Any] = {"epochs": 1, "batch_size": 10}
    for standardize in (True, False):
        with pytest.raises(ValueError, match=message):
            fit(model, objective, (X - 3) / 2, STANDARD, standardize=standardize, **settings)


@pytest.mark.parametrize("data", ["table.csv", squares, np.full((N, 1), "a")])
def test_what_are_no_data_is_named(data: Any) -> None:
    got = {str: "'table.csv'", np.ndarray: "of type <U1"}.get(type(data), "the function squares")
    for name, pair in {"x": (data, Y), "y": (X, data)}.items():
        with pytest.raises(
            ValueError, match=f"{name} must be an array of real numbers, got .*{got}"
        ):
            fit(Plain, nll, *pair, epochs=1, batch_size=10)


def test_a_model_that_returns_an_array_trains_with_functions_that_take_one() -> None:
    settings: dict[str, Any] = {"epochs": 1, "batch_size": 10, "metrics": {"squares": squares}}
    x = (X - 3) / 2
    assert np.isfinite(fit(Plain, squares, x, STANDARD, standardize=False, **settings).loss[0, -1])
    with pytest.raises(ValueError, match=r"standardize must be False .* got an array of shape"):
        fit(Plain, squares, x, STANDARD, **settings)


def test_a_second_head_trains_on_raw_targets_only() -> None:
    class Two(nnx.Module):
        def __init__(self, rngs: nnx.Rngs) -> None:
            self.mixture = MixtureDensityNetwork(3, 2, 1, hidden=(), rngs=rngs)
            self.flag = nnx.Linear(3, 1, rngs=rngs)

        def __call__(self, x: jax.Array) -> Any:
            return self.mixture(x), self.flag(x)

    def loss(out: Any, y: jax.Array) -> jax.Array:
        cross_entropy = optax.sigmoid_binary_cross_entropy(out[1], y[..., 1:])[..., 0]
        return nll(out[0], y[..., :1]) + cross_entropy

    x = (X - 3.0) / 2.0
    y = np.stack([x[:, 0], x[:, 1] > 0], axis=1)
    options: dict[str, Any] = {"epochs": 30, "batch_size": 10, "metrics": {"total": loss}}
    options["optimizer"] = optax.adam(1e-2)
    with pytest.raises(ValueError, match="standardize must be False for a model that returns"):
        fit(Two, loss, x, y, **options)
    total = fit(Two, loss, x, y, standardize=False, **options).metrics["total"][0]
    assert total[-1] < total[0] - 0.3


def test_missing_targets_are_named_and_can_be_masked() -> None:
    missing = Y.copy()
    missing[::4, 1] = np.nan
    with pytest.raises(ValueError, match=r"y must be finite, got 10 values .* weight of zero"):
        run(X, missing)
    weights = np.isfinite(missing).all(axis=1)
    masked = run(X, missing, weights=weights, seeds=(3,))
    assert np.isfinite(masked.metrics["nll"]).all()
    other = run(X, np.where(weights[:, None], Y, -5.0), weights=weights, seeds=(3,))
    np.testing.assert_array_equal(masked.metrics["nll"], other.metrics["nll"])


def test_a_flat_target_and_axes_of_length_one_are_refused() -> None:
    with pytest.raises(ValueError, match=r"y must have shape \(N, D\) .*pass y\[:, None\]"):
        run(X, Y[:, 0])
    with pytest.raises(ValueError, match=r"batch shape \(10, 1\), not \(10,\)"):
        run(X[:, None, :], Y)
    labels = (X[:, :1] > 3.0).astype(int)

    def make_conditioned(rngs: nnx.Rngs) -> LabelConditioned:
        return LabelConditioned(MixtureDensityNetwork(2, 2, 2, hidden=(), rngs=rngs), 2)

    with pytest.raises(ValueError, match=r"batch shape \(10, 1\), not \(10,\)"):
        fit(make_conditioned, ngem, labels, Y, epochs=1, batch_size=10)
    assert fit(make_conditioned, ngem, labels[:, 0], Y, epochs=1, batch_size=10).loss.shape[0] == 1


def test_few_points_and_many_components_stay_finite() -> None:
    x = np.linspace(0, 1, 5)[:, None]
    make = lambda rngs: MixtureDensityNetwork(1, 10, 1, hidden=(16,), rngs=rngs)  # noqa: E731
    settings = {"optimizer": optax.adam(1e-2), "record_at": [0, 300]}
    result = fit(make, METHODS["damped nGEM"], x, x**2, epochs=300, batch_size=5, **settings)
    assert np.isfinite(result.metrics["nll"]).all()
    one = fit(make, ngem, x[:1], x[:1], epochs=10, batch_size=1)
    assert np.isfinite(one.metrics["nll"]).all()


def test_a_fit_that_fails_says_when_and_where() -> None:
    with pytest.raises(NonFiniteError, match=r"non-finite value in .* after update \d+ \(seed 4;"):
        run(X, Y, optimizer=optax.sgd(1e30), seeds=(4,))


def test_a_relaxation_can_be_a_number_or_a_schedule() -> None:
    constant = run(X, Y, relaxation=0.2)
    schedule = run(X, Y, relaxation=lambda count: 0.2)
    np.testing.assert_allclose(constant.loss[:, 1:], schedule.loss[:, 1:], rtol=1e-6)
    without = run(X, Y)
    assert np.abs(constant.metrics["nll"] - without.metrics["nll"]).max() > 1e-4


def test_sequences_and_masks_go_through_fit() -> None:
    x = RANDOM.normal(size=(16, 5, 3))
    y = np.cumsum(x[..., :2], axis=1)
    mask = np.arange(5) < RANDOM.integers(2, 6, size=16)[:, None]
    result = fit(make_network, METHODS["damped nGEM"], x, np.where(mask[..., None], y, np.nan),
                 weights=mask, epochs=5, batch_size=8, validation=0.25)  # fmt: skip
    mixture = result.model()(x)
    assert mixture.batch_shape == (16, 5)
    kept = np.setdiff1d(np.arange(16), np.random.default_rng(0).permutation(16)[:4])
    values = np.asarray(nll(mixture, jnp.asarray(y, jnp.float32)))[kept]
    best = np.flatnonzero(result.updates == result.best_update[0])[0]
    expected = values[mask[kept]].mean()
    np.testing.assert_allclose(result.metrics["nll"][0, best], expected, rtol=1e-4)


def test_an_objective_with_one_component_trains() -> None:
    make = lambda rngs: MixtureDensityNetwork(3, 1, 2, hidden=(8,), rngs=rngs)  # noqa: E731
    result = fit(make, mse, X, Y, epochs=30, batch_size=10, metrics={"mse": mse},
                 optimizer=optax.adam(1e-2), validation=(X, Y))  # fmt: skip
    assert result.metrics["mse"][0, -1] < 0.5 * result.metrics["mse"][0, 0]
    np.testing.assert_allclose(result.best, result.validation["mse"].min(), rtol=1e-6)


def test_an_interrupted_fit_is_handed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    original, calls = loop.Trainer.evaluate, []

    def evaluate(self: Any) -> Any:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return original(self)

    monkeypatch.setattr(loop.Trainer, "evaluate", evaluate)
    with pytest.raises(Interrupted) as caught:
        run(X, Y)
    assert caught.value.run.updates.tolist() == [0, 1]
    assert caught.value.run.model()(X).batch_shape == (N,)


def test_progress_goes_to_the_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    run(X, Y, progress=True)
    assert "training" in capsys.readouterr().err
    run(X, Y)
    assert capsys.readouterr().err == ""


# ----------------------------------------------------------------------- going on, and odd metrics


def test_a_model_that_was_trained_goes_on_in_its_units() -> None:
    first = run(X, Y, optimizer=optax.adam(1e-2))
    other = np.random.default_rng(1).normal(0.0, 9.0, size=X.shape)  # other moments than X
    again = fit(first.model(), nll, X, Y, epochs=1, batch_size=10, evaluation=(X, Y))
    assert again.metrics["nll"][0, 0] == pytest.approx(first.metrics["nll"][0, -1], rel=1e-5)
    assert again.scaling == first.scaling
    moved = fit(first.model(), nll, other, Y, epochs=1, batch_size=10, record_at=[0])
    expected = float(jnp.mean(nll(first.model()(other), Y)))
    assert moved.metrics["nll"][0, 0] == pytest.approx(expected, rel=1e-5)
    with pytest.raises(ValueError, match="must be the Standardized module itself"):
        fit(lambda rngs: first.model(), nll, X, Y, epochs=1, batch_size=10)


@pytest.mark.parametrize("as_maker", [False, True])
@pytest.mark.parametrize("coordinate", ["scale", "log_scale"])
def test_a_plain_mixture_starts_where_it_was_put(as_maker: bool, coordinate: Any) -> None:
    start = GaussianMixture([0.0, 1.0], [[0.0, 90.0], [20.0, 110.0]], [[5.0, 2.0], [9.0, 3.0]])
    plain = PlainMixture(start, coordinate)
    model = (lambda rngs: plain) if as_maker else plain
    done = fit(model, nll, None, Y, epochs=1, batch_size=10, record_at=[0])
    assert done.metrics["nll"][0, 0] == pytest.approx(float(jnp.mean(nll(start, Y))), rel=1e-5)
    for got, wanted in zip(
        jax.tree.leaves(done.model()(None)), jax.tree.leaves(start), strict=True
    ):
        np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("part", ["validation", "evaluation"])
def test_a_metric_that_is_not_finite_is_no_verdict(part: str) -> None:
    """A label that there is not: under `jit` its mixture is NaN, and no model would be the best."""
    make = lambda rngs: LabelConditioned(  # noqa: E731
        MixtureDensityNetwork(3, 1, 2, hidden=(4,), rngs=rngs), 3
    )
    labels = np.arange(N) % 3
    settings: dict[str, Any] = {"epochs": 1, "batch_size": 10, part: (np.array([0, 3]), Y[:2])}
    name = "metrics" if part == "evaluation" else part
    with pytest.raises(ValueError, match=f"{name} must be finite, got nan for 'nll' before the"):
        fit(make, nll, labels, Y, **settings)
    with pytest.raises(NonFiniteError, match=rf"value in {name}\.nll after update 4 \(seed 0;"):
        fit(make, nll, labels, Y, record_at=[4], **settings)


def test_a_run_that_was_never_judged_keeps_its_last_state() -> None:
    settings: dict[str, Any] = {
        "epochs": 1, "batch_size": 10, "learning_rate": 1e-2, "on_nonfinite": "record",
    }  # fmt: skip
    odd = {"odd": lambda mixture, y: jnp.nan * nll(mixture, y)}
    judged = loop.train(make_network, nll, X, Y, metrics=odd, validation=(X, Y), **settings)
    plain = loop.train(make_network, nll, X, Y, **settings)
    assert judged.best_update.tolist() == [4]
    for a, b in zip(*(jax.tree.leaves(nnx.state(r.model())) for r in (judged, plain)), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(("made", "got"), [(None, "None"), (3, "int"), (object(), "object")])
def test_a_maker_makes_a_module(made: Any, got: str) -> None:
    with pytest.raises(ValueError, match=f"model must be a Flax .* a function that returned {got}"):
        fit(lambda rngs: made, nll, X, Y, epochs=1, batch_size=10)


def test_a_metric_of_a_free_mixture_has_a_value_per_example() -> None:
    """The mean over a batch would ignore the weights; what needs no target is one number."""
    mixture = GaussianMixture(jnp.zeros(2), jnp.zeros((2, 2)), jnp.ones((2, 2)))
    settings: dict[str, Any] = {"epochs": 1, "batch_size": 10, "record_at": [0]}
    for standardize in (True, False):
        train = partial(fit, PlainMixture(mixture), nll, None, STANDARD, **settings)
        mean = {"mean": lambda m, y: nll(m, y).mean()}
        with pytest.raises(ValueError, match=r"metrics.* must return one value per example"):
            train(metrics=mean, standardize=standardize)
        metrics = {"entropy": jax.jit(weight_entropy), "most": lambda m, y: m.weights.max()}
        found = train(metrics=metrics, standardize=standardize).metrics
        np.testing.assert_allclose(found["entropy"], np.log(2), rtol=1e-6)
        np.testing.assert_allclose(found["most"], 0.5, rtol=1e-6)


class Normalised(nnx.Module):
    """A network behind statistics of the batch, frozen or not."""

    def __init__(self, rngs: nnx.Rngs, frozen: bool | None) -> None:
        self.norm = nnx.BatchNorm(3, use_running_average=frozen, momentum=0.5, rngs=rngs)
        self.head = make_network(rngs)

    def __call__(self, x: jax.Array) -> GaussianMixture:
        return self.head(self.norm(x))


@pytest.mark.parametrize("frozen", [True, False, None])
def test_statistics_that_the_maker_froze_stay_frozen(frozen: bool | None) -> None:
    result = fit(lambda rngs: Normalised(rngs, frozen), nll, X, Y, epochs=1, batch_size=10)
    assert (np.asarray(result.model().network.norm.mean[...]) == 0.0).all() == bool(frozen)


def test_the_position_of_a_run_is_a_whole_number() -> None:
    with pytest.raises(TypeError, match=r"index must be a whole number, got 0\.5"):
        run(X, Y).model(0.5)
