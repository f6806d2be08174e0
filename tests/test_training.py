"""Training: against a plain Python loop, and the promises made about failures and compilation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from ngem_tutorial.mixtures import GaussianMixture
from ngem_tutorial.networks import MixtureDensityNetwork, PlainMixture
from ngem_tutorial.objectives import ngem, nll, relaxation_schedule
from ngem_tutorial.training import Failure, NonFiniteError, fit

N, BATCH, EPOCHS = 20, 6, 4  # three batches an epoch, two examples left out
KEYS = jax.random.split(jax.random.key(0), 2)
X = jax.random.normal(KEYS[0], (N, 3))
Y = jax.random.normal(KEYS[1], (N, 2))


def make_network(rngs: nnx.Rngs) -> MixtureDensityNetwork:
    return MixtureDensityNetwork(3, 2, 2, hidden=(8,), rngs=rngs)


def make_plain(rngs: nnx.Rngs) -> PlainMixture:
    means = jax.random.normal(rngs(), (2, 2))
    return PlainMixture(GaussianMixture(jnp.zeros(2), means, jnp.ones((2, 2))), "scale")


run = partial(fit, epochs=EPOCHS, batch_size=BATCH, learning_rate=1e-2)


def reference(
    make_model: Callable[[nnx.Rngs], Any],
    objective: Any,
    optimizer: Any,
    seed: int,
    x: Any,
    relaxation: Sequence[float] | None = None,
) -> list[np.ndarray]:
    """The same training as a Python loop over updates, one seed, nothing compiled but Flax."""
    model_key, shuffle_key = jax.random.split(jax.random.key(seed))
    graph, params, rest = nnx.split(make_model(nnx.Rngs(model_key)), nnx.Param, ...)
    state = optimizer.init(params)
    for epoch in range(EPOCHS):
        order = jax.random.permutation(jax.random.fold_in(shuffle_key, epoch), N)
        for batch in range(N // BATCH):
            rows = order[batch * BATCH : (batch + 1) * BATCH]
            x_batch = None if x is None else x[rows]
            more = {}
            if relaxation is not None:
                more["relaxation"] = relaxation[epoch * (N // BATCH) + batch]

            def loss(
                p: Any, rows: Any = rows, x_batch: Any = x_batch, more: Any = more
            ) -> jax.Array:
                return objective(nnx.merge(graph, p, rest)(x_batch), Y[rows], **more).mean()

            updates, state = optimizer.update(jax.grad(loss)(params), state, params)
            params = optax.apply_updates(params, updates)
    return [np.asarray(leaf) for leaf in jax.tree.leaves(params)]


@pytest.mark.parametrize("objective", [nll, ngem])
@pytest.mark.parametrize(
    ("make_model", "x", "optimizer"),
    [(make_network, X, optax.adam), (make_plain, None, optax.sgd)],
)
def test_fit_equals_a_python_loop(make_model: Any, x: Any, optimizer: Any, objective: Any) -> None:
    seeds = (3, 8)
    result = run(make_model, objective, x, Y, optimizer=optimizer, seeds=seeds)
    assert result.updates[-1] == EPOCHS * (N // BATCH)
    for index, seed in enumerate(seeds):
        expected = reference(make_model, objective, optimizer(1e-2), seed, x)
        params = jax.tree.leaves(nnx.state(result.model(index), nnx.Param))
        for a, b in zip(params, expected, strict=True):
            np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize(
    ("make_model", "x", "optimizer"),
    [(make_network, X, optax.adam), (make_plain, None, optax.sgd)],
)
def test_fit_relaxes_each_update_by_its_schedule(make_model: Any, x: Any, optimizer: Any) -> None:
    updates = EPOCHS * (N // BATCH)
    schedule = relaxation_schedule(updates, initial=0.4, fraction=0.5)
    values = [0.4 * max(1 - i / 6, 0.0) for i in range(updates)]
    result = run(make_model, ngem, x, Y, optimizer=optimizer, relaxation=schedule, seeds=(3,))
    expected = reference(make_model, ngem, optimizer(1e-2), 3, x, values)
    params = jax.tree.leaves(nnx.state(result.model(0), nnx.Param))
    for a, b in zip(params, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-5)
    without = run(make_model, ngem, x, Y, optimizer=optimizer, seeds=(3,))
    others = jax.tree.leaves(nnx.state(without.model(0), nnx.Param))
    # The test can tell: without, the training ends elsewhere.
    assert max(np.abs(a - b).max() for a, b in zip(params, others, strict=True)) > 1e-3


def test_metrics_loss_and_probes_are_those_of_the_model() -> None:
    x_test, y_test = X[:7] + 1.0, Y[:7]
    result = run(
        make_network,
        ngem,
        X,
        Y,
        seeds=(1, 2),
        metrics={"nll": nll, "entropy": lambda mixture, y: mixture.weight_entropy},
        probes={"means": lambda model: model(x_test).means},
        evaluation=(x_test, y_test),
        record_at=[0, 5, 12],
    )
    mixture = result.model(1)(x_test)
    np.testing.assert_allclose(result.metrics["nll"][1, -1], nll(mixture, y_test).mean(), rtol=1e-5)
    entropy = -(mixture.weights * jnp.log(mixture.weights)).sum(-1).mean()
    np.testing.assert_allclose(result.metrics["entropy"][1, -1], entropy, rtol=1e-5)
    assert result.probes["means"].shape == (2, 3, 7, 2, 2)
    np.testing.assert_allclose(result.probes["means"][1, -1], mixture.means, rtol=1e-5)
    assert np.isnan(result.loss[:, 0]).all()
    columns = result.columns()
    assert columns["seed"].tolist() == [1, 1, 1, 2, 2, 2]
    assert columns["update"].tolist() == [0, 5, 12] * 2
    np.testing.assert_array_equal(columns["nll"], result.metrics["nll"].ravel())


def test_loss_is_the_mean_since_the_last_recorded_point() -> None:
    every = run(make_network, nll, X, Y, record_at=range(13)).loss[0]
    some = run(make_network, nll, X, Y, record_at=[0, 4, 12]).loss[0]
    np.testing.assert_allclose(some[1:], [every[1:5].mean(), every[5:].mean()], rtol=1e-5)


def test_a_run_does_not_depend_on_its_neighbours_or_on_the_recorded_points() -> None:
    alone = run(make_network, ngem, X, Y, seeds=(5,), record_at=[12])
    among = run(make_network, ngem, X, Y, seeds=(4, 5, 6))
    np.testing.assert_allclose(alone.metrics["nll"][0, -1], among.metrics["nll"][1, -1], rtol=1e-5)
    again = run(make_network, ngem, X, Y, seeds=(4, 5, 6))
    np.testing.assert_array_equal(again.metrics["nll"], among.metrics["nll"])
    assert len(np.unique(among.metrics["nll"][:, -1])) == 3


def test_learning_rates_can_differ_between_seeds() -> None:
    together = run(make_network, nll, X, Y, seeds=(1, 2), learning_rate=[1e-2, 1e-3])
    slow = run(make_network, nll, X, Y, seeds=(2,), learning_rate=1e-3)
    np.testing.assert_allclose(together.metrics["nll"][1], slow.metrics["nll"][0], rtol=1e-5)


def test_seeds_rates_and_data_of_one_shape_share_a_program() -> None:
    traces = []

    def objective(mixture: GaussianMixture, y: jax.Array) -> jax.Array:
        traces.append(1)
        return nll(mixture, y)

    run(make_network, objective, X, Y, seeds=(1, 2))
    assert len(traces) == 1
    run(make_network, objective, X + 1.0, Y, seeds=(8, 9), learning_rate=1e-4, record_at=[3, 7])
    assert len(traces) == 1


def test_first_non_finite_value_is_reported_where_and_when() -> None:
    """The likelihood's gradient of the scale, (y / sigma)^2 / sigma = 1e39, overflows float32."""

    def make_model(rngs: nnx.Rngs) -> PlainMixture:
        mixture = GaussianMixture(jnp.zeros(1), jnp.zeros((1, 1)), jnp.full((1, 1), 1e-3))
        return PlainMixture(mixture, "scale")

    data = jnp.full((4, 1), 1e15)
    arguments = {"epochs": 2, "batch_size": 2, "learning_rate": 1.0, "optimizer": optax.sgd}
    with pytest.raises(NonFiniteError, match=r"in scales after update 1 \(seed 7;") as caught:
        fit(make_model, nll, None, data, seeds=(7,), **arguments)
    assert caught.value.failures == (Failure(7, 1, "scales"),)
    result = fit(make_model, nll, None, data, seeds=(7, 8), on_nonfinite="record", **arguments)
    assert result.failures == (Failure(7, 1, "scales"), Failure(8, 1, "scales"))
    assert not np.isfinite(result.metrics["nll"][:, -1]).any()
    columns = result.columns()
    assert set(columns["failed_at"]) == {1}
    np.testing.assert_array_equal(np.isnan(columns["nll"]), columns["update"] >= 1)


def test_a_non_finite_loss_alone_is_reported() -> None:
    def objective(mixture: GaussianMixture, y: jax.Array) -> jax.Array:
        return nll(mixture, y) + jax.lax.stop_gradient(jnp.log(-jnp.ones(())))

    with pytest.raises(NonFiniteError, match="in loss after update 1"):
        run(make_network, objective, X, Y)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epochs": 0}, "epochs must be at least 1, got 0"),
        ({"batch_size": 21}, "batch_size must be from 1 to 20, got 21"),
        ({"seeds": ()}, "seeds must be distinct integers, at least one"),
        ({"seeds": (1, 1)}, "seeds must be distinct integers"),
        ({"learning_rate": -1.0}, "learning_rate must be positive and finite, got -1.0"),
        ({"learning_rate": [0.1, 0.2, 0.3]}, r"one per seed \(1\), got shape \(3,\)"),
        ({"record_at": [3, 2]}, "record_at must be increasing whole numbers from 0 to 12"),
        ({"record_at": [13]}, "record_at must be increasing whole numbers from 0 to 12"),
        ({"on_nonfinite": "ignore"}, 'on_nonfinite must be "raise" or "record"'),
        ({"x": X[:5]}, "x must have as many examples as y, 20"),
        ({"y": Y[:, 0]}, r"y must have shape \(N, D\), got \(20,\)"),
        ({"y": Y.at[3, 0].set(jnp.nan)}, "y must be finite, got 1 values that are not"),
        ({"x": X.at[3, 0].set(jnp.inf)}, "x must be finite, got 1 values that are not"),
    ],
)
def test_bad_arguments_are_named(change: dict[str, Any], message: str) -> None:
    x, y = change.pop("x", X), change.pop("y", Y)
    with pytest.raises(ValueError, match=message):
        run(make_network, nll, x, y, **change)


def test_progress_goes_to_the_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    run(make_network, nll, X, Y, progress=True)
    assert "training" in capsys.readouterr().err
    run(make_network, nll, X, Y)
    assert capsys.readouterr().err == ""


def test_training_stops_once_every_run_has_failed():
    calls = []

    def explode(mixture: GaussianMixture, targets: jax.Array) -> jax.Array:
        jax.debug.callback(lambda: calls.append(1))
        return nll(mixture, targets) * jnp.nan

    points = [0, 2, 6, 12]
    result = run(make_network, explode, X, Y, record_at=points, on_nonfinite="record")
    jax.effects_barrier()
    assert len(calls) == 2  # the updates up to the point that shows the failure
    assert result.updates.tolist() == points
    assert result.loss.shape == (1, 4)
    assert np.isnan(result.columns()["nll"][1:]).all()


def test_an_optimizer_is_told_the_number_of_updates_the_same_for_all_seeds():
    """One number: a branch on it is a branch, where one number per seed would run both sides."""
    steps = []

    def optimizer(rate: jax.Array) -> optax.GradientTransformationExtraArgs:
        sgd = optax.sgd(rate)

        def update(gradient: Any, state: Any, params: Any, *, step: jax.Array, **_: Any) -> Any:
            note = partial(jax.debug.callback, lambda step: steps.append(int(step)), step)
            jax.lax.cond(step % 5 == 0, note, lambda: None)
            return sgd.update(gradient, state, params)

        return optax.GradientTransformationExtraArgs(sgd.init, update)

    run(make_network, nll, X, Y, optimizer=optimizer, seeds=(1, 2), record_at=[0, 7, 12])
    jax.effects_barrier()
    assert sorted(set(steps)) == [0, 5, 10]
