"""Where `fit` and `train` start the means of a network."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import optax
import pytest
from flax import nnx

from ngem_tutorial import (
    GaussianMixture,
    LabelConditioned,
    Method,
    MixtureDensityNetwork,
    PlainMixture,
    fit,
    loop,
    nll,
)

RNG = np.random.default_rng(0)
X = RNG.normal(size=(200, 2))
Y = np.concatenate([RNG.normal(c, 0.1, (50, 1)) for c in (-10.0, 0.0, 10.0, 100.0)])
SETTINGS: dict[str, Any] = {"epochs": 1, "batch_size": 50, "record_at": [0]}


def make(rngs: nnx.Rngs) -> MixtureDensityNetwork:
    return MixtureDensityNetwork(2, 4, 1, hidden=(8,), rngs=rngs)


def started(model: Any = make, x: Any = X, y: Any = Y, **options: Any) -> Any:
    return fit(model, nll, x, y, **SETTINGS | options).model()


def raw_means(model: Any) -> np.ndarray:
    """Where the means start, in the units of the targets."""
    (shift,), (scale,) = model.targets.shift, model.targets.scale
    return np.sort(np.asarray(model.network.means.bias) * scale + shift)


def test_each_mode_gets_a_mean_and_nothing_else_changes() -> None:
    model, own = started(), started(initial_means="own")
    np.testing.assert_allclose(raw_means(model), [-10.0, 0.0, 10.0, 100.0], atol=0.4)
    distance = np.abs(raw_means(model)[:, None] - Y.ravel())
    assert (distance.min(axis=1) < 1e-4).all()  # they are targets
    assert np.all(own.network.means.bias[...] == 0)
    own.network.set_initial_means(model.network.means.bias[...].reshape(4, 1))
    ours, theirs = (nnx.state(m.network, nnx.Param) for m in (model, own))
    for one, two in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_array_equal(one, two)


def test_seeds_differ_and_the_same_one_gives_the_same() -> None:
    result = fit(make, nll, X, Y, seeds=(1, 2), **SETTINGS)
    one, two = (raw_means(result.model(i)) for i in (0, 1))
    assert not np.array_equal(one, two)
    np.testing.assert_array_equal(two, raw_means(started(seeds=(2,))))


def test_random_means_are_targets() -> None:
    means = raw_means(started(initial_means="random"))
    assert (np.abs(means[:, None] - Y.ravel()).min(axis=1) < 1e-4).all()
    assert len(set(means)) == 4


def test_means_that_were_given_stay() -> None:
    def given(rngs: nnx.Rngs) -> MixtureDensityNetwork:
        means = [[0.0], [0.1], [0.2], [0.3]]
        return MixtureDensityNetwork(2, 4, 1, hidden=(8,), initial_means=means, rngs=rngs)

    for model in (given, given(nnx.Rngs(0))):
        bias = started(model).network.means.bias[...]
        np.testing.assert_allclose(bias, [0.0, 0.1, 0.2, 0.3], rtol=1e-6)
        with pytest.raises(ValueError, match="initial_means must be 'own' or left out, got 'kme"):
            started(model, initial_means="kmeans++")
    plain = GaussianMixture(np.zeros(2), [[-1.0], [3.0]], np.ones((2, 1)))
    model = started(lambda rngs: PlainMixture(plain), x=None)
    np.testing.assert_allclose(model(None).means, plain.means, rtol=1e-5)


def test_means_that_the_maker_sets_itself_stay() -> None:
    def setting(rngs: nnx.Rngs) -> MixtureDensityNetwork:
        network = make(rngs)
        network.set_initial_means([[0.0], [0.1], [0.2], [0.3]])
        return network

    bias = started(setting).network.means.bias[...]
    np.testing.assert_allclose(bias, [0.0, 0.1, 0.2, 0.3], rtol=1e-6)


def test_modules_that_say_less_train_as_before() -> None:
    class Inner(nnx.Module):
        def __init__(self, rngs: nnx.Rngs) -> None:
            self.inner = MixtureDensityNetwork(4, 4, 1, hidden=(8,), rngs=rngs)

        def __call__(self, x: Any) -> GaussianMixture:
            return self.inner(x)

    class OnlySets(nnx.Module):
        def __init__(self, rngs: nnx.Rngs) -> None:
            self.inner = make(rngs)

        def set_initial_means(self, means: jax.Array) -> None:
            raise AssertionError

        def __call__(self, x: Any) -> GaussianMixture:
            return self.inner(x)

    labels = np.repeat(np.arange(4), 50)
    started(lambda rngs: LabelConditioned(Inner(rngs), 4), x=labels)  # type: ignore[arg-type]
    assert np.all(started(OnlySets).network.inner.means.bias[...] == 0)


def test_a_model_that_was_trained_goes_on() -> None:
    model = started(record_at=None)
    np.testing.assert_array_equal(started(model)(X).means, model(X).means)


def test_a_network_on_labels_starts_at_targets_too() -> None:
    def on_labels(rngs: nnx.Rngs) -> LabelConditioned:
        network = MixtureDensityNetwork(4, 4, 1, hidden=(8,), rngs=rngs)
        return LabelConditioned(network, 4)

    model = started(on_labels, x=np.repeat(np.arange(4), 50))
    assert isinstance(model.network, LabelConditioned)
    assert model.network.num_components == 4
    bias = np.sort(np.asarray(model.network.network.means.bias))
    (shift,), (scale,) = model.targets.shift, model.targets.scale
    np.testing.assert_allclose(bias * scale + shift, [-10.0, 0.0, 10.0, 100.0], atol=0.4)


def test_a_module_of_ones_own_says_how_it_is_set() -> None:
    class Mine(nnx.Module):
        num_components = 4
        has_initial_means = False

        def __init__(self, rngs: nnx.Rngs) -> None:
            self.inner = make(rngs)

        def set_initial_means(self, means: jax.Array) -> None:
            self.inner.set_initial_means(2.0 * means)

        def __call__(self, x: Any) -> GaussianMixture:
            return self.inner(x)

    class Without(nnx.Module):
        def __init__(self, rngs: nnx.Rngs) -> None:
            self.inner = make(rngs)

        def __call__(self, x: Any) -> GaussianMixture:
            return self.inner(x)

    ours = started(Mine).network.inner.means.bias[...]
    theirs = started().network.means.bias[...]
    np.testing.assert_allclose(ours, 2.0 * theirs, rtol=1e-6)
    assert np.all(started(Without).network.inner.means.bias[...] == 0)
    with pytest.raises(ValueError, match="has no `set_initial_means`"):
        started(Without, initial_means="random")


def test_what_has_no_weight_is_not_chosen() -> None:
    y, weights = Y.copy(), np.ones(200)
    y[150:], weights[150:] = np.nan, 0.0
    y[149] = 9.0
    means = raw_means(started(y=y, weights=weights))
    assert np.isfinite(means).all()
    assert means.max() < 11.0


def test_steps_of_sequences_are_targets_of_their_own() -> None:
    class Steps(MixtureDensityNetwork):
        def __call__(self, x: Any) -> GaussianMixture:
            return super().__call__(x.reshape(-1, 4, 2))

    model = started(
        lambda rngs: Steps(2, 4, 1, hidden=(8,), rngs=rngs),
        x=X.reshape(50, 8), y=Y.reshape(4, 50, 1).swapaxes(0, 1), batch_size=10,
    )  # fmt: skip
    np.testing.assert_allclose(raw_means(model), [-10.0, 0.0, 10.0, 100.0], atol=0.4)


def test_fewer_targets_than_components() -> None:
    settings = {"x": X[:3], "y": Y[:3], "batch_size": 3}
    assert np.all(started(**settings).network.means.bias[...] == 0)
    with pytest.raises(ValueError, match="there are fewer targets than components, 3 for 4"):
        started(**settings, initial_means="kmeans++")


def test_a_method_says_it_and_an_argument_comes_first() -> None:
    options: dict[str, Any] = {"learning_rate": 0.1, "optimizer": optax.sgd, **SETTINGS}
    y = Y / 100.0

    def bias(method: Method, **more: Any) -> np.ndarray:
        return loop.train(make, method, X, y, **options | more).model().means.bias[...]

    assert np.all(bias(Method("a", nll)) == 0)  # `train` leaves models as they are
    chosen = bias(Method("a", nll, initial_means="kmeans++"))
    assert len(set(np.asarray(chosen).tolist())) == 4
    np.testing.assert_array_equal(chosen, bias(Method("a", nll), initial_means="kmeans++"))
    assert np.all(bias(Method("a", nll, initial_means="kmeans++"), initial_means="own") == 0)
    own = fit(make, Method("a", nll, initial_means="own"), X, Y, **SETTINGS).model()
    assert np.all(own.network.means.bias[...] == 0)


def test_what_is_no_choice_is_named() -> None:
    for call in (
        lambda: started(initial_means="kmeans"),
        lambda: Method("a", nll, initial_means="zeros"),  # type: ignore[arg-type]
    ):
        with pytest.raises(ValueError, match=r"initial_means must be one of own, random, kmeans\+"):
            call()
    with pytest.raises(ValueError, match=r"initial_means must have shape \(K, D\) = \(4, 1\)"):
        make(nnx.Rngs(0)).set_initial_means(np.zeros((4, 2)))
