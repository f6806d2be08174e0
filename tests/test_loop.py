"""The compiled loop: against a plain Python loop, and the promises about failures and programs."""

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

from ngem_tutorial._training import compilation, trainer
from ngem_tutorial.loop import Failure, Interrupted, NonFiniteError, train
from ngem_tutorial.methods import Method
from ngem_tutorial.mixtures import GaussianMixture
from ngem_tutorial.networks import MixtureDensityNetwork, PlainMixture
from ngem_tutorial.objectives import ngem, nll, relaxation_schedule, scale_unit

N, BATCH, EPOCHS = 20, 6, 4  # three batches an epoch, two examples left out
KEYS = jax.random.split(jax.random.key(0), 2)
X = jax.random.normal(KEYS[0], (N, 3))
Y = jax.random.normal(KEYS[1], (N, 2))


def make_network(rngs: nnx.Rngs) -> MixtureDensityNetwork:
    return MixtureDensityNetwork(3, 2, 2, hidden=(8,), rngs=rngs)


def make_plain(rngs: nnx.Rngs) -> PlainMixture:
    means = jax.random.normal(rngs(), (2, 2))
    return PlainMixture(GaussianMixture(jnp.zeros(2), means, jnp.ones((2, 2))), "scale")


run = partial(train, epochs=EPOCHS, batch_size=BATCH, learning_rate=1e-2)


def order(seed: int, epoch: int, size: int = N) -> jax.Array:
    """The order of the examples that is promised."""
    shuffle_key = jax.random.split(jax.random.key(seed))[1]
    return jax.random.permutation(jax.random.fold_in(shuffle_key, epoch), size)


def reference(
    make_model: Callable[[nnx.Rngs], Any],
    objective: Any,
    optimizer: Any,
    seed: int,
    x: Any,
    relaxation: Sequence[float] | None = None,
) -> list[np.ndarray]:
    """The same training as a Python loop over updates, one seed, nothing compiled but Flax."""
    model_key = jax.random.split(jax.random.key(seed))[0]
    graph, params, rest = nnx.split(make_model(nnx.Rngs(model_key)), nnx.Param, ...)
    state = optimizer.init(params)
    for epoch in range(EPOCHS):
        for batch in range(N // BATCH):
            rows = order(seed, epoch)[batch * BATCH : (batch + 1) * BATCH]
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
def test_train_equals_a_python_loop(
    make_model: Any, x: Any, optimizer: Any, objective: Any
) -> None:
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
def test_train_relaxes_each_update_by_its_schedule(make_model: Any, x: Any, optimizer: Any) -> None:
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


@pytest.mark.parametrize("own", [False, True])
def test_seeds_rates_and_data_of_one_shape_share_a_program(
    own: bool, compilations: Callable[[], int]
) -> None:
    """A caller's objective is traced again, since it may have changed, but not compiled."""
    objective = (lambda mixture, y: nll(mixture, y)) if own else nll
    other = X + 1.0
    compilation.clear()
    compilations()
    run(make_network, objective, X, Y, seeds=(1, 2))
    assert compilations() > 0
    run(make_network, objective, other, Y, seeds=(8, 9), learning_rate=1e-4, record_at=[3, 7])
    assert compilations() == 0


def test_first_non_finite_value_is_reported_where_and_when() -> None:
    """The likelihood's gradient of the scale, (y / sigma)^2 / sigma = 1e39, overflows float32."""

    def make_model(rngs: nnx.Rngs) -> PlainMixture:
        mixture = GaussianMixture(jnp.zeros(1), jnp.zeros((1, 1)), jnp.full((1, 1), 1e-3))
        return PlainMixture(mixture, "scale")

    data = jnp.full((4, 1), 1e15)
    arguments = {"epochs": 2, "batch_size": 2, "learning_rate": 1.0, "optimizer": optax.sgd}
    with pytest.raises(NonFiniteError, match=r"in scales after update 1 \(seed 7;") as caught:
        train(make_model, nll, None, data, seeds=(7,), **arguments)
    assert caught.value.failures == (Failure(7, 1, "scales"),)
    result = train(make_model, nll, None, data, seeds=(7, 8), on_nonfinite="record", **arguments)
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
        ({"seeds": 3}, r"seeds must be .* in a sequence such as \(0,\) or range\(3\)"),
        ({"seeds": (-1,)}, "seeds must be .* not negative"),
        ({"seeds": (0.5,)}, "seeds must be distinct integers"),
        ({"seeds": (1, 1)}, "seeds must be distinct integers"),
        ({"learning_rate": -1.0}, "learning_rate must be positive and finite, got -1.0"),
        ({"learning_rate": [0.1, 0.2, 0.3]}, r"one per seed \(1\), got shape \(3,\)"),
        ({"record_at": [3, 2]}, "record_at must be increasing whole numbers from 0 to 12"),
        ({"record_at": [13]}, "record_at must be increasing whole numbers from 0 to 12"),
        ({"on_nonfinite": "ignore"}, "on_nonfinite must be one of raise, record, got 'ignore'"),
        ({"epochs": 2.0}, "epochs must be a whole number, got 2.0"),
        ({"batch_size": True}, "batch_size must be from 1 to 20, got True"),
        ({"learning_rate": optax.linear_schedule(1, 0, 9)}, "for a schedule, pass optimizer="),
        ({"optimizer": optax.adam(1e-3)}, "optimizer must map a learning rate to an optax transf"),
        ({"optimizer": "soap"}, r"got 'soap', a name: get_optimizer\('soap'\) is one"),
        ({"optimizer": "sgd"}, "optimizer must map a learning rate to .* got str$"),
        ({"metrics": [nll]}, "metrics must map names to functions"),
        ({"metrics": {"nll": "nll"}}, "metrics must map names to functions"),
        ({"metrics": {"nll": lambda m, y: nll(m, y).mean()}}, r"metrics\['nll'\] must return one"),
        ({"probes": [nll]}, "probes must map names to functions"),
        ({"evaluation": X}, r"evaluation must be \(x, y\) or \(x, y, weights\), got"),
        ({"evaluation": (X, Y[:, :1])}, "evaluation y must have the last axis of y, 2"),
        ({"evaluation": (X[:5], Y)}, "evaluation x must have as many examples as y, 20"),
        ({"relaxation": 0.1}, "relaxation must be None: the objective 'nll' takes none"),
        ({"patience": 3}, "patience needs validation data"),
        ({"patience": 0, "validation": (X, Y)}, "patience must be at least 1, got 0"),
        ({"validation": (X, Y), "metrics": {}}, "validation needs a metric"),
        ({"weights": np.ones(5)}, r"weights must have the shape of y without its last axis, \(20"),
        ({"weights": -np.ones(N)}, "weights must be finite and not negative"),
        ({"weights": np.zeros(N)}, "one of them positive"),
        ({"y": np.array(["a"] * N)[:, None]}, "y must be an array of real numbers"),
        ({"y": Y[:0], "x": X[:0]}, r"y must have shape \(N, D\)"),
        ({"x": X[:5]}, "x must have as many examples as y, 20"),
        ({"y": Y[:, 0]}, r"y must have shape \(N, D\) .* got \(20,\) .*pass y\[:, None\]"),
        ({"y": Y.at[3, 0].set(jnp.nan)}, "y must be finite, got 1 values .* weight of zero"),
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
    # The updates up to the point that shows the failure, and again to see at which it was.
    assert len(calls) == 4
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


@pytest.mark.parametrize("reduced", [lambda m, y: nll(m, y).mean(), lambda m, y: 0.0])
def test_an_objective_that_reduces_is_refused(reduced: Any) -> None:
    with pytest.raises(ValueError, match=r"objective must return one value per example, shape"):
        run(make_network, reduced, X, Y)


@pytest.mark.parametrize("objective", [nll, ngem, lambda mixture, y: mixture.log_weights[..., 0]])
def test_a_singleton_axis_too_many_is_refused_with_both_shapes(objective: Any) -> None:
    message = r"y of shape \(6, 2\) and x of shape \(6, 1, 3\) .* batch shape \(6, 1\), not \(6,\)"
    with pytest.raises(ValueError, match=message):
        run(make_network, objective, X[:, None, :], Y)


@pytest.mark.parametrize("model", [3, "network", int, None])
def test_what_is_no_model_is_refused(model: Any) -> None:
    with pytest.raises(ValueError, match=r"model must be a Flax NNX module or a function"):
        run(model, nll, X, Y)


def test_a_module_trains_like_its_maker_and_is_left_as_it_is() -> None:
    model_key, _ = jax.random.split(jax.random.key(4))
    module = make_network(nnx.Rngs(model_key))
    before = jax.tree.map(np.asarray, nnx.state(module))
    given, made = (run(m, ngem, X, Y, seeds=(4,)) for m in (module, make_network))
    np.testing.assert_allclose(given.metrics["nll"], made.metrics["nll"], rtol=1e-5)
    jax.tree.map(np.testing.assert_array_equal, before, nnx.state(module))
    with pytest.raises(ValueError, match="got a module and 2 seeds"):
        run(module, nll, X, Y, seeds=(1, 2))


def test_a_run_that_is_not_there_is_refused() -> None:
    result = run(make_plain, nll, None, Y, seeds=(1, 2))
    last = jax.tree.leaves(nnx.state(result.model(-1)))
    jax.tree.map(np.testing.assert_array_equal, last, jax.tree.leaves(nnx.state(result.model(1))))
    for index in (2, -3, 5):
        with pytest.raises(IndexError, match=f"index must be from -2 to 1, got {index}"):
            result.model(index)


# -------------------------------------------------------------------------------------- shuffling


def test_every_order_of_an_epoch_is_equally_likely(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chi-squared over the 24 orders of four examples, seeds and epochs pooled."""
    orders = trainer.Orders(np.arange(6), 4, 1000)
    orders.move_to(0)
    drawn = np.asarray(orders.rows[:, :1000]).reshape(-1, 4)
    assert (np.sort(drawn, axis=1) == np.arange(4)).all()
    counts = np.unique(drawn @ [64, 16, 4, 1], return_counts=True)[1]
    expected = len(drawn) / 24
    assert len(counts) == 24
    assert ((counts - expected) ** 2 / expected).sum() < 49.7  # chance 0.001 for 23 degrees


@pytest.mark.parametrize("prepared", [False, True])
@pytest.mark.parametrize("size", [1, 2, 7, 1625, 1700, 70_000])
def test_an_order_is_that_of_jax(size: int, prepared: bool) -> None:
    """Up to 1,625 examples JAX sorts once, from there on twice; one example it leaves alone."""
    orders = trainer.Orders(np.array([3, 8]), size, 10**6)
    if prepared:  # while the device works
        orders.move_to(orders.epochs)
        orders.prepare()
    epoch = 2 * orders.epochs + 1  # epochs may be skipped
    orders.move_to(epoch)
    for index, seed in enumerate((3, 8)):
        got = orders.rows[index, epoch - orders.first]
        np.testing.assert_array_equal(got, order(seed, epoch, size))


def test_orders_do_not_depend_on_how_many_are_held(monkeypatch: pytest.MonkeyPatch) -> None:
    many = run(make_network, nll, X, Y, seeds=(3,))
    monkeypatch.setattr(trainer.Orders, "CAPACITY", 1)
    one = run(make_network, nll, X, Y, seeds=(3,))
    np.testing.assert_allclose(one.metrics["nll"], many.metrics["nll"], rtol=1e-5)
    np.testing.assert_allclose(one.loss[:, 1:], many.loss[:, 1:], rtol=1e-5)


def test_each_epoch_uses_each_example_at_most_once() -> None:
    seen: list[int] = []

    def objective(mixture: GaussianMixture, y: jax.Array) -> jax.Array:
        jax.debug.callback(lambda y: seen.append(y[:, 0].astype(int)), y)
        return nll(mixture, y)

    y = np.arange(2.0 * N).reshape(N, 2)
    run(make_network, objective, X, y, seeds=(3,), learning_rate=1e-6, record_at=[12])
    jax.effects_barrier()
    epochs = np.concatenate(seen).reshape(EPOCHS, 3 * BATCH)
    assert all(len(set(epoch)) == 3 * BATCH for epoch in epochs.tolist())
    assert len({tuple(epoch) for epoch in epochs.tolist()}) == EPOCHS


# ------------------------------------------------------------------------------ methods and weights


def test_a_method_brings_its_unit_and_schedule() -> None:
    seen = []

    def objective(
        mixture: GaussianMixture, y: jax.Array, *, unit: jax.Array, relaxation: jax.Array
    ) -> jax.Array:
        note = lambda *values: seen.append(values)  # noqa: E731
        jax.debug.callback(note, unit, relaxation, scale_unit(mixture))
        return ngem(mixture, y, unit=unit, relaxation=relaxation)

    method = Method("mine", objective, partial(relaxation_schedule, fraction=0.5), "batch")
    run(make_network, method, X, Y, record_at=[12])
    jax.effects_barrier()
    unit, relaxation, expected = (np.array(part) for part in zip(*seen, strict=True))
    np.testing.assert_allclose(unit, expected, rtol=1e-6)
    np.testing.assert_allclose(relaxation, [0.1 * max(1 - i / 6, 0) for i in range(12)], rtol=1e-5)
    seen.clear()
    run(make_network, method, X, Y, record_at=[12], relaxation=0.3)
    jax.effects_barrier()
    np.testing.assert_allclose([values[1] for values in seen], 0.3, rtol=1e-6)


@pytest.mark.parametrize("relaxation", ["low", 1.5, -0.1, [0.1], np.nan])
def test_a_relaxation_of_another_kind_is_refused(relaxation: Any) -> None:
    with pytest.raises(ValueError, match=r"relaxation must be a number from 0 to 1 or a schedule"):
        run(make_network, ngem, X, Y, relaxation=relaxation)


@pytest.mark.parametrize("unit", ["target", "batch"])
def test_whole_weights_are_repeated_examples(unit: Any) -> None:
    """With full batches, so that the order does not matter."""
    weights = np.arange(N) % 3
    rows = np.repeat(np.arange(N), weights)
    method = Method("damped nGEM", ngem, relaxation_schedule, unit)
    some = train(make_network, method, X, Y, weights=weights, epochs=5, batch_size=N,
                 learning_rate=1e-2, seeds=(1, 2))  # fmt: skip
    copies = train(make_network, method, X[rows], Y[rows], epochs=5, batch_size=len(rows),
                   learning_rate=1e-2, seeds=(1, 2))  # fmt: skip
    np.testing.assert_allclose(some.metrics["nll"], copies.metrics["nll"], rtol=1e-5)
    np.testing.assert_allclose(some.loss[:, 1:], copies.loss[:, 1:], rtol=1e-5)


def test_targets_of_weight_zero_may_be_missing() -> None:
    weights = (np.arange(N) % 4 > 0).astype(float)
    missing = np.where(weights[:, None] > 0, Y, np.nan)
    result = run(make_network, nll, X, missing, weights=weights)
    other = run(make_network, nll, X, np.where(weights[:, None] > 0, Y, 5.0), weights=weights)
    np.testing.assert_allclose(result.metrics["nll"], other.metrics["nll"], rtol=1e-6)
    assert np.isfinite(result.metrics["nll"]).all()


def test_sequences_train_like_their_steps_and_padding_changes_nothing() -> None:
    """Full batches: the mean over all steps is the same."""
    random = np.random.default_rng(0)
    x, y = random.normal(size=(4, 5, 3)), random.normal(size=(4, 5, 2))
    mask = np.arange(5) < np.array([5, 3, 2, 4])[:, None]
    method = Method("damped nGEM", ngem, relaxation_schedule, "batch")
    settings = {"epochs": 6, "learning_rate": 1e-2, "seeds": (2,)}
    whole = train(make_network, method, x, y, batch_size=4, **settings)
    flat = train(
        make_network, method, x.reshape(-1, 3), y.reshape(-1, 2), batch_size=20, **settings
    )
    np.testing.assert_allclose(whole.metrics["nll"], flat.metrics["nll"], rtol=1e-5)
    steps = train(make_network, method, x[mask], y[mask], batch_size=14, **settings)
    for padding in (0.0, 50.0):
        padded = train(
            make_network, method, np.where(mask[..., None], x, padding),
            np.where(mask[..., None], y, np.nan), weights=mask, batch_size=4, **settings,
        )  # fmt: skip
        np.testing.assert_allclose(padded.metrics["nll"], steps.metrics["nll"], rtol=1e-4)


# ------------------------------------------------------------------------------------- validation


def test_the_best_state_by_the_validation_data_is_kept() -> None:
    settings = {"seeds": (1, 2), "learning_rate": 0.1, "validation": (X[:7], -2.0 * Y[:7])}
    result = run(make_network, nll, X, Y, record_at=range(0, 13, 2), **settings)
    curves = result.validation["nll"]
    np.testing.assert_array_equal(result.best_update, result.updates[curves.argmin(axis=1)])
    for i in range(2):
        model = result.model(i)
        values = nll(model(X[:7]), -2.0 * Y[:7]).mean()
        np.testing.assert_allclose(values, curves[i].min(), rtol=1e-5)
    assert set(result.columns()) >= {"nll", "validation_nll"}
    # The test can tell: the last state is another one, and the runs differ.
    assert (result.best_update < 12).any()


def test_a_run_out_of_patience_stops_for_itself() -> None:
    """The same best state alone or beside others; what it would have recorded later is NaN."""
    rising = run(make_network, lambda m, y: -nll(m, y), X, Y, seeds=(1, 2, 3), record_at=range(13),
                 validation=(X, Y), patience=2, learning_rate=1e-3)  # fmt: skip
    assert rising.updates.tolist() == [0, 1, 2]
    assert rising.best_update.tolist() == [0, 0, 0]
    settings = {"validation": (X[:7] + 0.3, Y[:7]), "patience": 1, "learning_rate": 0.1}
    together = run(make_network, nll, X, Y, seeds=(1, 2, 3), record_at=range(13), **settings)
    for i, seed in enumerate((1, 2, 3)):
        alone = run(make_network, nll, X, Y, seeds=(seed,), record_at=range(13), **settings)
        assert alone.best_update[0] == together.best_update[i]
        rows = len(alone.updates)
        np.testing.assert_allclose(
            together.validation["nll"][i, :rows], alone.validation["nll"][0], rtol=1e-4
        )
        assert np.isnan(together.validation["nll"][i, rows:]).all()


def test_an_interrupt_keeps_what_was_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The third probe presses the keys."""
    pressed = []

    def press(model: Any) -> jax.Array:
        return model.logits.bias[...].sum()

    result = run(make_network, nll, X, Y, record_at=[0, 4, 8, 12], probes={"bias": press})
    original = trainer.Trainer.evaluate

    def evaluate(self: Any) -> Any:
        pressed.append(1)
        if len(pressed) == 3:
            raise KeyboardInterrupt
        return original(self)

    monkeypatch.setattr(trainer.Trainer, "evaluate", evaluate)
    with pytest.raises(Interrupted) as caught:
        run(make_network, nll, X, Y, record_at=[0, 4, 8, 12], probes={"bias": press})
    part = caught.value.run
    assert part.updates.tolist() == [0, 4]
    np.testing.assert_array_equal(part.metrics["nll"], result.metrics["nll"][:, :2])
    np.testing.assert_array_equal(press(part.model()), part.probes["bias"][0, -1])


def test_a_run_that_fails_is_told_from_those_that_do_not() -> None:
    """Learning rates of one and of 1e38: the second fails, when and where a Python loop says."""
    result = run(make_plain, nll, None, Y, optimizer=optax.sgd, seeds=(1, 2),
                 learning_rate=[1e-3, 1e38], record_at=[0, 12], on_nonfinite="record")  # fmt: skip
    model = make_plain(nnx.Rngs(jax.random.split(jax.random.key(2))[0]))
    graph, params = nnx.split(model)
    rows = order(2, 0)[:BATCH]
    gradient = jax.grad(lambda p: nll(nnx.merge(graph, p)(), Y[rows]).mean())(params)
    after = optax.apply_updates(params, jax.tree.map(lambda g: -1e38 * g, gradient))
    finite = {k: bool(jnp.isfinite(v[...]).all()) for k, v in after.items()}
    (failure,) = result.failures
    assert failure.seed == 2
    assert failure.update == (1 if not all(finite.values()) else 2)
    if failure.update == 1:
        assert failure.parameter == next(k for k, ok in finite.items() if not ok)
    assert np.isfinite(result.metrics["nll"][0]).all()


# ----------------------------------------------------------------------- state besides parameters


class Stateful(nnx.Module):
    """A network with a normalised hidden layer and dropout before the head."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.linear = nnx.Linear(3, 8, use_bias=False, rngs=rngs)
        self.norm = nnx.BatchNorm(8, momentum=0.5, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)
        self.head = MixtureDensityNetwork(8, 2, 2, hidden=(), rngs=rngs)

    def __call__(self, x: jax.Array) -> GaussianMixture:
        return self.head(self.dropout(self.norm(self.linear(x))))


def test_state_besides_parameters_is_carried_as_in_a_python_loop() -> None:
    result = run(Stateful, nll, X, Y, seeds=(3, 4))
    for index, seed in enumerate((3, 4)):
        model = Stateful(nnx.Rngs(jax.random.split(jax.random.key(seed))[0]))
        model.train()
        optimizer = nnx.Optimizer(model, optax.adam(1e-2), wrt=nnx.Param)
        for rows in (b for epoch in range(EPOCHS) for b in order(seed, epoch)[:18].reshape(3, 6)):
            gradient = nnx.grad(lambda m, rows=rows: nll(m(X[rows]), Y[rows]).mean())(model)
            optimizer.update(model, gradient)
        trained = result.model(index)
        for kind in (nnx.Param, nnx.BatchStat):
            leaves = [jax.tree.leaves(nnx.state(m, kind)) for m in (trained, model)]
            for a, b in zip(*leaves, strict=True):
                np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)
        model.eval()
        np.testing.assert_allclose(trained(X).means, model(X).means, rtol=1e-3, atol=1e-3)
        np.testing.assert_allclose(
            result.metrics["nll"][index, -1], nll(trained(X), Y).mean(), rtol=1e-5
        )


def test_dropout_draws_anew_in_each_update_and_seed() -> None:
    seen = []

    class Noisy(nnx.Module):
        def __init__(self, rngs: nnx.Rngs) -> None:
            self.dropout, self.head = nnx.Dropout(0.5, rngs=rngs), make_network(rngs)

        def __call__(self, x: jax.Array) -> GaussianMixture:
            kept = self.dropout(jnp.ones((6, 40)))
            if not self.dropout.deterministic:
                jax.debug.callback(lambda kept: seen.append(kept.tobytes()), kept)
            return self.head(x)

    run(Noisy, nll, X, Y, seeds=(3, 4), record_at=[12])
    jax.effects_barrier()
    assert len(seen) == len(set(seen)) == 24


class Convolution(nnx.Module):
    """It flattens, so that it needs a batch axis."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.convolution = nnx.Conv(1, 2, (3, 3), rngs=rngs)
        self.head = MixtureDensityNetwork(32, 2, 1, hidden=(), rngs=rngs)

    def __call__(self, x: jax.Array) -> GaussianMixture:
        h = jax.nn.relu(self.convolution(x))
        return self.head(h.reshape(h.shape[0], -1))


class Recurrent(nnx.Module):
    """It keeps a random stream for its initial state, and needs a batch axis."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.recurrence = nnx.RNN(nnx.GRUCell(4, 4, rngs=rngs))
        self.head = MixtureDensityNetwork(4, 2, 1, hidden=(), rngs=rngs)

    def __call__(self, x: jax.Array) -> GaussianMixture:
        return self.head(self.recurrence(x[..., 0])[:, -1])


@pytest.mark.parametrize("make_model", [Convolution, Recurrent])
def test_modules_that_need_a_batch_are_evaluated_on_batches(make_model: Any) -> None:
    """More examples than one evaluation takes at once, with a rest."""
    x = np.random.default_rng(0).normal(size=(1024 * 2 + 5, 4, 4, 1))
    y = x.mean((1, 2))
    result = train(make_model, ngem, x, y, epochs=1, batch_size=500, learning_rate=1e-3)
    expected = nll(result.model()(jnp.asarray(x)), jnp.asarray(y)).mean()
    np.testing.assert_allclose(result.metrics["nll"][0, -1], expected, rtol=1e-5)


def test_train_works_with_double_precision_switched_on() -> None:
    with jax.enable_x64(True):
        result = run(make_network, ngem, X, Y, seeds=(3,), record_at=(0, 5, 12))
        expected = reference(make_network, ngem, optax.adam(1e-2), 3, X)
        params = jax.tree.leaves(nnx.state(result.model(0), nnx.Param))
        for a, b in zip(params, expected, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_a_run_that_was_stopped_cannot_fail() -> None:
    def grow(rate: jax.Array) -> optax.GradientTransformation:
        """Small steps down for the first run; for the second away until values overflow."""

        def change(gradient: Any, _: Any) -> Any:
            return jax.tree.map(lambda g: jnp.where(rate < 0.1, -rate * g, 1e18), gradient)

        return optax.stateless(change)

    settings: dict[str, Any] = {
        "epochs": 30, "batch_size": N, "optimizer": grow, "seeds": (0, 1), "record_at": range(31),
    }  # fmt: skip
    rates = [1e-3, 1.0]
    with pytest.raises(NonFiniteError, match="seed 1"):
        train(make_network, nll, X, Y, learning_rate=rates, validation=(X, Y), **settings)
    both = train(
        make_network, nll, X, Y, learning_rate=rates, validation=(X, Y), patience=2, **settings
    )
    assert both.failures == ()
    assert both.best_update.tolist() == [30, 0]
    assert np.isnan(both.loss[1, 3:]).all()
    np.testing.assert_array_equal(both.columns()["failed_at"], -1)
    alone = train(make_network, nll, X, Y, learning_rate=1e-3, **settings | {"seeds": (0,)})
    np.testing.assert_allclose(both.metrics["nll"][0], alone.metrics["nll"][0], rtol=1e-5)
