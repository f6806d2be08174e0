"""The experiments: settings and numbers of the paper, runs against NumPy, tables against loops."""

from __future__ import annotations

import dataclasses
import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy.special import logsumexp, softmax

pd = pytest.importorskip("pandas")

from ngem_tutorial import datasets  # noqa: E402
from ngem_tutorial.experiments import inverse_mnist, methods  # noqa: E402
from ngem_tutorial.fisher import PRECONDITIONERS  # noqa: E402
from ngem_tutorial.mixtures import GaussianMixture  # noqa: E402
from ngem_tutorial.objectives import ngem, nll, sgem  # noqa: E402

# ------------------------------------------------------------------------------------- methods

MIXTURE = GaussianMixture(
    jnp.array([0.3, -0.4]),
    jnp.array([[0.0, 1.0], [1.0, -1.0]]),
    jnp.array([[0.5, 2.0], [1.5, 0.7]]),
)
POINT = jnp.array([0.4, 0.2])


def gradient(objective: Any) -> list[np.ndarray]:
    return [np.asarray(leaf) for leaf in jax.tree.leaves(jax.grad(objective)(MIXTURE, POINT))]


@pytest.mark.parametrize(
    ("method", "preconditioner"),
    [
        ("nGEM", PRECONDITIONERS["default"]),
        ("nGEM (listing)", PRECONDITIONERS["listing"]),
        ("nGEM (derived)", PRECONDITIONERS["derived"]),
        ("nGEM (damped)", PRECONDITIONERS["damped"]),
    ],
)
@pytest.mark.parametrize("coordinate", ["scale", "log_scale"])
def test_a_method_is_ngem_with_its_preconditioner(
    method: str, preconditioner: Any, coordinate: Any
) -> None:
    expected = partial(
        ngem, preconditioner=dataclasses.replace(preconditioner, coordinate=coordinate)
    )
    own = gradient(methods.get_objective(method, coordinate))
    for a, b in zip(own, gradient(expected), strict=True):
        np.testing.assert_array_equal(a, b)
    other = gradient(
        methods.get_objective(method, "scale" if coordinate != "scale" else "log_scale")
    )
    np.testing.assert_array_equal(own[0], other[0])
    assert not np.allclose(own[2], other[2])


def test_methods_are_distinct_and_plain_ones_are_plain() -> None:
    assert methods.get_objective("NLL", "log_scale") is nll
    assert methods.get_objective("SGEM") is sgem
    assert set(methods.METHODS) >= {"NLL", "SGEM", "nGEM"}
    compared = [methods.get_objective(method) for method in methods.METHODS if method != "SGEM"]
    logits = {tuple(gradient(objective)[0].round(4).tolist()) for objective in compared}
    assert len(logits) == len(compared) - 1  # NLL and nGEM share the gradient of the logits
    means = {tuple(gradient(objective)[1].round(4).ravel().tolist()) for objective in compared}
    assert len(means) == 3  # NLL, damped, and the rest


def test_an_objective_is_one_object_however_it_is_asked_for() -> None:
    """Programs are compiled once for an objective, compared by identity."""
    one = methods.get_objective("nGEM")
    assert methods.get_objective("nGEM", "scale") is one
    assert methods.get_objective(method="nGEM", coordinate="scale") is one
    assert methods.get_objective("nGEM", "log_scale") is not one


def test_unknown_methods_and_coordinates_are_named() -> None:
    with pytest.raises(ValueError, match=r"method must be one of NLL, SGEM, nGEM, .* got 'ngem'"):
        methods.get_objective("ngem")
    with pytest.raises(ValueError, match=r"coordinate must be one of .* got 'variance'"):
        methods.get_objective("nGEM", "variance")  # type: ignore[arg-type]


# ------------------------------------------------------------------------------- inverse MNIST

DIGITS = inverse_mnist.Config(
    num_components=2, hidden=(8,), epochs=2, batch_size=500, seeds=(1, 2), methods=("nGEM",),
    learning_rate=1e-2, records_per_epoch=3,
)  # fmt: skip


def test_inverse_mnist_has_the_settings_of_table_9_and_quotes_table_3() -> None:
    for config in (inverse_mnist.Config(), inverse_mnist.PRESETS["paper"]):
        assert config.num_components == 3
        assert config.hidden == (128, 128, 128, 128)
        assert (config.epochs, config.batch_size) == (100, 256)
        assert config.learning_rate == 3e-4
        assert config.seeds == (1, 2, 3, 4, 5)
    assert inverse_mnist.PAPER_TABLE_3 == {
        "nGEM": {"nll": (-1529.7, 101), "entropy": (0.454, 0.15)},
        "NLL": {"nll": (-1392.8, 178), "entropy": (0.207, 0.22)},
    }
    network = inverse_mnist.make_model(inverse_mnist.Config(), 4)(rngs=nnx.Rngs(0)).network
    assert network.activation == "gelu"


def test_a_network_is_one_object_for_equal_settings() -> None:
    one = inverse_mnist.make_model(DIGITS, 64)
    assert inverse_mnist.make_model(dataclasses.replace(DIGITS), 64) is one
    assert inverse_mnist.make_model(dataclasses.replace(DIGITS, min_scale=0.02), 64) is not one
    assert inverse_mnist.make_model(DIGITS, 63) is not one


def in_numpy(mixture: GaussianMixture, images: Any) -> tuple[float, float]:
    """Likelihood and entropy of the mixtures of ten classes, in double precision."""
    log_weights = np.log(softmax(np.asarray(mixture.logits, float), axis=-1))
    means, scales = np.asarray(mixture.means, float), np.asarray(mixture.scales, float)
    nats, entropy = 0.0, 0.0
    for label in range(10):
        pixels = images.images[images.labels == label].astype(float)
        joint = np.stack(
            [
                log_weights[label, k]
                - 0.5 * (((pixels - means[label, k]) / scales[label, k]) ** 2).sum(axis=1)
                - np.log(scales[label, k]).sum()
                for k in range(means.shape[1])
            ]
        )
        nats -= logsumexp(joint, axis=0).sum()
        entropy -= len(pixels) * (np.exp(log_weights[label]) * log_weights[label]).sum()
    number, size = images.images.shape
    return nats / number + 0.5 * size * math.log(2 * math.pi), entropy / number


def test_inverse_mnist_on_digits_against_numpy() -> None:
    images = datasets.digits()
    result = inverse_mnist.train(DIGITS, "nGEM", images)
    assert result.updates.tolist() == [0, 1, 2, 3, 4, 5, 6]
    path = result.probes["mixture"]
    assert path.means.shape == (2, 7, 10, 2, 64)
    for index, point in ((0, 0), (1, 3), (1, 6)):
        mixture = jax.tree.map(lambda leaf, at=(index, point): leaf[at], path)
        nats, entropy = in_numpy(mixture, images)
        assert result.metrics["nll"][index, point] == pytest.approx(nats, rel=1e-4)
        assert result.metrics["entropy"][index, point] == pytest.approx(entropy, rel=1e-4)
        assert float(mixture.scales.min()) >= DIGITS.min_scale
    assert (result.metrics["nll"][:, -1] < result.metrics["nll"][:, 0]).all()

    table = inverse_mnist.run(DIGITS, images)
    assert set(table) == {"method", "seed", "update", "loss", "nll", "entropy", "failed_at"}
    assert len(table) == 2 * 7
    np.testing.assert_array_equal(table["nll"], result.metrics["nll"].ravel())
    np.testing.assert_array_equal(table["loss"].isna(), table["update"] == 0)
    assert set(table["method"]) == {"nGEM"}
    assert set(table["failed_at"]) == {-1}

    wild = dataclasses.replace(DIGITS, learning_rate=1e30)
    failed = inverse_mnist.train(wild, "nGEM", images)
    rows = inverse_mnist.table("nGEM", failed)
    assert {failure.seed for failure in failed.failures} == {1, 2}
    for seed, run in rows.groupby("seed"):
        (expected,) = [failure.update for failure in failed.failures if failure.seed == seed]
        assert expected >= 1
        assert run["failed_at"].tolist() == [expected] * 7
        assert np.isfinite(run["nll"][run["update"] < expected - 1]).all()
        assert not np.isfinite(run["nll"].iloc[-1])


@pytest.mark.needs("mnist")
def test_inverse_mnist_on_mnist_against_numpy() -> None:
    images = datasets.mnist()
    config = inverse_mnist.Config(hidden=(16,), epochs=1, batch_size=6000, seeds=(3,))
    result = inverse_mnist.train(config, "NLL", images)
    assert result.updates.tolist() == [0, 10]
    mixture = jax.tree.map(lambda leaf: leaf[0, -1], result.probes["mixture"])
    assert mixture.means.shape == (10, 3, 784)
    nats, entropy = in_numpy(mixture, images)
    np.testing.assert_allclose(result.metrics["nll"][0, -1], nats, rtol=1e-4)
    np.testing.assert_allclose(result.metrics["entropy"][0, -1], entropy, rtol=1e-4)
    assert result.metrics["nll"][0, -1] < result.metrics["nll"][0, 0] - 1
