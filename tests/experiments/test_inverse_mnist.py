"""Inverse MNIST: the settings of the paper, likelihoods and entropies against NumPy."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import jax
import numpy as np
import pytest
from flax import nnx
from scipy.special import logsumexp, softmax

pd = pytest.importorskip("pandas")

from ngem_tutorial import datasets  # noqa: E402
from ngem_tutorial.experiments import inverse_mnist  # noqa: E402
from ngem_tutorial.mixtures import GaussianMixture  # noqa: E402

DIGITS = inverse_mnist.Config(
    num_components=2, hidden=(8,), epochs=2, batch_size=500, seeds=(1, 2), methods=("damped nGEM",),
    learning_rate=1e-2, record_epochs=tuple(i / 3 for i in range(7)),
)  # fmt: skip


def test_inverse_mnist_has_the_settings_of_table_9() -> None:
    for k, presets in inverse_mnist.PRESETS.items():
        config = presets["paper"]
        assert config.num_components == k
        assert config.hidden == (128, 128, 128, 128)
        assert (config.epochs, config.batch_size) == (100, 256)
        assert config.learning_rate == 3e-4
        assert config.seeds == tuple(range(1, {3: 6, 10: 4, 20: 3}[k]))  # fewer where it is slow
        assert config.record_at[-1] == config.epochs
    assert list(inverse_mnist.PRESETS) == [3, 10, 20]
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
    result = inverse_mnist.train(DIGITS, "damped nGEM", images)
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
    assert set(table["method"]) == {"damped nGEM"}
    assert set(table["failed_at"]) == {-1}

    wild = dataclasses.replace(DIGITS, learning_rate=1e30)
    failed = inverse_mnist.train(wild, "damped nGEM", images)
    rows = inverse_mnist.table("damped nGEM", failed)
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


def test_stored_runs_come_back_as_mixtures(monkeypatch: pytest.MonkeyPatch) -> None:
    digits = datasets.digits()
    monkeypatch.setattr(inverse_mnist, "mnist", lambda split: digits)
    config = dataclasses.replace(DIGITS, keep_images=True, methods=("damped nGEM", "NLL"))
    parts = {unit.name: unit.run() for unit in inverse_mnist.units(config)}
    assert list(parts) == ["damped-nGEM-seed=1", "NLL-seed=1", "damped-nGEM-seed=2", "NLL-seed=2"]
    tables = {
        name: pd.concat([part[name] for part in parts.values()], ignore_index=True)
        for name in ("curves", "final", "components", "images")
    }
    fit = inverse_mnist.train(dataclasses.replace(config, seeds=(2,)), "NLL", digits)
    trained = jax.tree.map(lambda leaf: leaf[0, -1], fit.probes["mixture"])
    stored = inverse_mnist.class_mixtures(tables, "NLL", 2)
    np.testing.assert_allclose(stored.weights, trained.weights, rtol=1e-5)
    np.testing.assert_allclose(stored.means, trained.means.clip(0, 1), atol=0.51 / 255)

    final = tables["final"].set_index(["method", "seed"]).loc[("NLL", 2)]
    nats, entropy = in_numpy(trained, digits)
    assert final["nll"] == pytest.approx(nats, rel=1e-4)
    assert final["test_nll"] == pytest.approx(nats, rel=1e-4)  # here the same images
    assert final["entropy"] == pytest.approx(entropy, rel=1e-4)
    measured = inverse_mnist.measured(tables)
    assert set(measured["condition"]) == {"K = 2"}
    assert len(measured) == 2 * 2 * 2
    with pytest.raises(ValueError, match="no finite run of 'NLL' with seed 3"):
        inverse_mnist.class_mixtures(tables, "NLL", 3)
