"""Networks: shapes, initialisation and gradients against direct computations."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy import stats
from sklearn.cluster import kmeans_plusplus

from ngem_tutorial.mixtures import GaussianMixture
from ngem_tutorial.networks import (
    Affine,
    LabelConditioned,
    MixtureDensityNetwork,
    PlainMixture,
    choose_initial_means,
)
from ngem_tutorial.objectives import ngem, nll


def build(**options: Any) -> MixtureDensityNetwork:
    return MixtureDensityNetwork(3, 4, 2, rngs=nnx.Rngs(0), **options)


@pytest.mark.parametrize("trunks", [1, 2])
@pytest.mark.parametrize("hidden", [(), (8,), (8, 16)])
def test_output_has_the_batch_shape_of_the_input(trunks: Any, hidden: tuple[int, ...]) -> None:
    mixture = build(trunks=trunks, hidden=hidden)(jnp.ones((5, 7, 3)))
    assert mixture.logits.shape == (5, 7, 4)
    assert mixture.means.shape == mixture.scales.shape == (5, 7, 4, 2)


def test_one_trunk_is_a_matrix_product_written_by_hand() -> None:
    network = build(hidden=(8,), activation="tanh", scale="exp", min_scale=0.25)
    x = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)

    def affine(layer: nnx.Linear, h: np.ndarray) -> np.ndarray:
        return h @ np.asarray(layer.kernel[...]) + np.asarray(layer.bias[...])

    h = np.tanh(affine(network.trunk[0], x))
    mixture = network(x)
    np.testing.assert_allclose(mixture.logits, affine(network.logits, h), rtol=1e-5, atol=1e-6)
    means = affine(network.means, h).reshape(6, 4, 2)
    np.testing.assert_allclose(mixture.means, means, rtol=1e-5, atol=1e-6)
    scales = 0.25 + np.exp(affine(network.scales, h)).reshape(6, 4, 2)
    np.testing.assert_allclose(mixture.scales, scales, rtol=1e-5)


def test_two_trunks_separate_the_logits_from_the_gaussians() -> None:
    x, y = jnp.ones((5, 3)), jnp.zeros((5, 2))

    def touched(trunks: Any, output: str) -> dict[str, bool]:
        network = build(trunks=trunks, hidden=(8,))
        gradient = nnx.grad(lambda n: getattr(n(x), output).sum())(network)
        layers = {"trunk": gradient["trunk"]}
        if trunks == 2:
            layers["logits_trunk"] = gradient["logits_trunk"]
        return {
            name: bool(any(jnp.any(leaf != 0) for leaf in jax.tree.leaves(layer)))
            for name, layer in layers.items()
        }

    assert touched(1, "logits") == {"trunk": True}
    assert touched(2, "logits") == {"trunk": False, "logits_trunk": True}
    assert touched(2, "means") == {"trunk": True, "logits_trunk": False}
    assert jnp.isfinite(nll(build(trunks=2)(x), y)).all()


@pytest.mark.parametrize("scale", ["softplus", "exp"])
@pytest.mark.parametrize("min_scale", [0.0, 1e-3])
def test_initial_means_and_scale_hold_at_the_origin(scale: Any, min_scale: float) -> None:
    means = jnp.arange(8.0).reshape(4, 2)
    sigma = jnp.array([0.02, 30.0])
    network = build(
        hidden=(), scale=scale, min_scale=min_scale, initial_means=means, initial_scale=sigma
    )
    mixture = network(jnp.zeros(3))
    np.testing.assert_array_equal(mixture.means, means)
    np.testing.assert_allclose(mixture.scales, np.broadcast_to(sigma, (4, 2)), rtol=1e-5)


@pytest.mark.parametrize("scale", ["softplus", "exp"])
def test_scales_never_fall_below_the_floor(scale: Any) -> None:
    network = build(hidden=(), scale=scale, min_scale=0.125)
    scales = network(10.0 * jax.random.normal(jax.random.key(0), (1000, 3))).scales
    assert 0.125 <= scales.min() < 0.126
    assert scales.max() > 10.0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"activation": "sin"}, "activation must be one of"),
        ({"trunks": 3}, "trunks must be one of"),
        ({"scale": "square"}, "scale must be one of"),
        ({"min_scale": -1.0}, "min_scale must be at least 0, got -1.0"),
        ({"min_scale": "small"}, "min_scale must be at least 0, got 'small'"),
        ({"hidden": (8, 0)}, "hidden must be at least 1, got 0"),
        ({"hidden": (8.5,)}, "hidden must be a whole number, got 8.5"),
        ({"hidden": 64}, r"hidden must be a sequence .* got 64: for one hidden layer pass \(64,\)"),
        ({"hidden": "64"}, r"hidden must be a sequence .* such as \(64, 64\), got '64'$"),
        ({"hidden": None}, "hidden must be a sequence .* got None$"),
        (
            {"initial_means": jnp.zeros((2, 4))},
            r"initial_means must have shape \(K, D\) = \(4, 2\)",
        ),
        ({"initial_scale": 1e-4}, "initial_scale must be above min_scale"),
    ],
)
def test_bad_options_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(**options)


@pytest.mark.parametrize("rngs", [0, None, jax.random.key(0)])
def test_what_are_no_random_streams_is_named(rngs: Any) -> None:
    with pytest.raises(ValueError, match=r"rngs must be random streams such as nnx.Rngs\(0\), got"):
        MixtureDensityNetwork(3, 4, 2, rngs=rngs)


def test_bad_input_is_named() -> None:
    with pytest.raises(ValueError, match=r"x must have shape \(\.\.\., 3\), got \(5, 2\)"):
        build()(jnp.ones((5, 2)))


@pytest.mark.parametrize("objective", [nll, ngem])
def test_label_conditioned_equals_the_direct_computation(objective: Any) -> None:
    labels = jnp.array([0, 2, 2, 1, 0, 2])
    y = jax.random.normal(jax.random.key(0), (6, 2))
    wrapped = LabelConditioned(build(), 3)

    def loss(model: LabelConditioned, direct: bool) -> jax.Array:
        mixture = model.network(jax.nn.one_hot(labels, 3)) if direct else model(labels)
        return objective(mixture, y).mean()

    gathered = nnx.value_and_grad(loss)(wrapped, False)
    directly = nnx.value_and_grad(loss)(wrapped, True)
    for a, b in zip(jax.tree.leaves(gathered), jax.tree.leaves(directly), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_label_conditioned_takes_integers_only() -> None:
    with pytest.raises(TypeError, match="labels must be integers, got float32"):
        LabelConditioned(build(), 3)(jnp.array([0.0, 1.0]))


@pytest.mark.parametrize("labels", [[0, 3], [-1, 2], [99, 0]])
def test_labels_out_of_range_are_no_class(labels: list[int]) -> None:
    model = LabelConditioned(build(), 3)
    wrong = next(label for label in labels if not 0 <= label < 3)
    with pytest.raises(ValueError, match=f"labels must be from 0 to 2, got {wrong} at"):
        model(np.array(labels))
    # Compiled, their mixtures are not numbers, and the others as they are.
    mixture = nnx.jit(lambda model, labels: model(labels))(model, jnp.array(labels))
    valid = [i for i, label in enumerate(labels) if 0 <= label < 3]
    alone = model(np.array([labels[i] for i in valid]))
    for leaf, expected in zip(*map(jax.tree.leaves, (mixture, alone)), strict=True):
        assert np.isnan(np.delete(leaf, valid, axis=0)).all()
        np.testing.assert_allclose(leaf[np.array(valid)], expected, rtol=1e-6)


@pytest.mark.parametrize("coordinate", ["scale", "log_scale"])
def test_plain_mixture_returns_its_mixture(coordinate: Any) -> None:
    mixture = GaussianMixture([0.0, 1.0], [[1.0], [2.0]], [[0.5], [3.0]])
    model = PlainMixture(mixture, coordinate)
    for a, b in zip(jax.tree.leaves(model()), jax.tree.leaves(mixture), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)
    raw = {"scale": mixture.scales, "log_scale": jnp.log(mixture.scales)}[coordinate]
    np.testing.assert_allclose(model.scales[...], raw)
    with pytest.raises(ValueError, match="coordinate must be one of"):
        PlainMixture(mixture, "variance")  # type: ignore[arg-type]
    batch = GaussianMixture(jnp.zeros((2, 2)), jnp.zeros((2, 2, 1)), jnp.ones((2, 2, 1)))
    with pytest.raises(ValueError, match=r"single one, got batch shape \(2,\)"):
        PlainMixture(batch)


def test_initial_means_are_distinct_examples() -> None:
    y = jnp.arange(20.0).reshape(10, 2)
    means = choose_initial_means(jax.random.key(3), y, 10, method="random")
    np.testing.assert_array_equal(np.sort(means[:, 0]), y[:, 0])
    with pytest.raises(ValueError, match="N >= num_components = 11"):
        choose_initial_means(jax.random.key(3), y, 11)
    with pytest.raises(ValueError, match=r"method must be one of random, kmeans\+\+, got 'kmeans'"):
        choose_initial_means(jax.random.key(3), y, 2, method="kmeans")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="y must be finite, got nan"):
        choose_initial_means(jax.random.key(3), y.at[3].set(jnp.nan), 2, method="kmeans++")


def test_random_initial_means_have_not_changed() -> None:
    """Stored results depend on them."""
    y = jnp.arange(20.0).reshape(10, 2)
    expected = jax.random.choice(jax.random.key(3), y, (4,), replace=False)
    found = choose_initial_means(jax.random.key(3), y, 4, method="random")
    np.testing.assert_array_equal(found, expected)


def test_far_apart_is_what_is_chosen_unless_told_otherwise() -> None:
    y = jax.random.normal(jax.random.key(0), (50, 2))
    default, named = (
        choose_initial_means(jax.random.key(3), y, 4, **options)
        for options in ({}, {"method": "kmeans++"})
    )
    np.testing.assert_array_equal(default, named)


def potential(y: np.ndarray, centres: np.ndarray) -> float:
    return float(((y[:, None] - centres) ** 2).sum(axis=-1).min(axis=1).sum())


def test_greedy_seeds_are_as_good_as_scikit_learns() -> None:
    """The distribution of the potential; that of one candidate per step is another."""
    rng = np.random.default_rng(0)
    y = np.repeat(rng.normal(0, 3, (8, 2)), [40, 5, 20, 20, 10, 3, 30, 8], axis=0)
    y = (y + rng.normal(0, 0.7, y.shape)).astype(np.float32)
    number = 300

    @jax.jit
    @jax.vmap
    def ours(key: jax.Array) -> jax.Array:
        return choose_initial_means(key, y, 8, method="kmeans++")

    def theirs(**options: int) -> list[float]:
        chosen = (kmeans_plusplus(y, 8, random_state=i, **options)[0] for i in range(number))
        return [potential(y, centres) for centres in chosen]

    found = [potential(y, c) for c in np.asarray(ours(jax.random.split(jax.random.key(0), number)))]
    assert stats.ks_2samp(found, theirs()).pvalue > 1e-3
    assert stats.ks_2samp(found, theirs(n_local_trials=1)).pvalue < 1e-6


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_greedy_seeds_are_distinct_examples(scale: float) -> None:
    y = scale * np.array([[0.0], [0.0], [0.0], [1.0], [1.0], [2.0]], np.float32)
    for seed in range(3):
        key = jax.random.key(seed)
        every = choose_initial_means(key, y, 6, method="kmeans++")  # K = N
        np.testing.assert_array_equal(np.sort(every, axis=0), y)
        four = np.asarray(choose_initial_means(key, y, 4, method="kmeans++"))
        assert len(np.unique(four)) == 3  # each value, before any of them twice
        assert len(np.unique(choose_initial_means(key, y, 3, method="kmeans++"))) == 3
    assert choose_initial_means(key, y, 1, method="kmeans++").shape == (1, 1)
    same = choose_initial_means(key, np.full((4, 2), 7.0), 4, method="kmeans++")
    np.testing.assert_array_equal(same, 7.0)


def test_greedy_seeds_find_separated_modes() -> None:
    angles = 2 * np.pi * np.arange(10) / 10
    centres = 5 * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    noise = np.random.default_rng(0).normal(0, 0.3, (500, 2))
    y = np.repeat(centres, 50, axis=0) + noise

    @partial(jax.jit, static_argnums=1)
    def found(keys: jax.Array, method: Any) -> jax.Array:
        def modes(key: jax.Array) -> jax.Array:
            means = choose_initial_means(key, y, 10, method=method)
            distance = jnp.linalg.norm(means[:, None] - centres, axis=-1)
            return jnp.any(distance < 1.5, axis=0).sum()

        return jax.vmap(modes)(keys)

    keys = jax.random.split(jax.random.key(1), 50)
    assert np.mean(np.asarray(found(keys, "kmeans++")) == 10) > 0.8
    assert np.mean(np.asarray(found(keys, "random")) == 10) < 0.2


@pytest.mark.parametrize("dtype", [jnp.int32, jnp.uint8, jnp.bfloat16, jnp.float32])
def test_raw_inputs_of_any_dtype_are_standardised_alike(dtype: Any) -> None:
    raw = np.array([[120.0, 121.0], [127.0, 124.0]])
    affine = Affine((120.3, 122.7), (0.4, 2.5))
    wanted = (raw - [120.3, 122.7]) / [0.4, 2.5]
    got = affine.standardize("x", jnp.asarray(raw, dtype))
    np.testing.assert_allclose(np.asarray(got, float), wanted, atol=1e-4)


@pytest.mark.parametrize("dtype", [jnp.int8, jnp.uint8])
def test_labels_may_be_narrower_than_the_number_of_classes(dtype: Any) -> None:
    network = MixtureDensityNetwork(300, 1, 1, hidden=(), rngs=nnx.Rngs(0))
    labels = jnp.array([0, 5, 127], dtype)
    np.testing.assert_allclose(
        LabelConditioned(network, 300)(labels).means,
        network(jnp.eye(300)[jnp.array([0, 5, 127])]).means,
    )


@pytest.mark.parametrize("label", [2**32 + 1, 2**31, -(2**32)])
def test_labels_are_checked_before_jax_shortens_them(label: int) -> None:
    with pytest.raises(ValueError, match=f"labels must be from 0 to 2, got {label} at"):
        LabelConditioned(build(), 3)(np.array([0, label]))


def test_integers_that_jax_would_wrap_enter_a_network_as_floats() -> None:
    network, x = build(), np.array([[3_000_000_000, 0, 1]])
    jax.tree.map(np.testing.assert_array_equal, network(x), network(x.astype(float)))
