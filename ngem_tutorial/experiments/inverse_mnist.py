"""Inverse MNIST: a mixture over images given the digit's class.

Section 4.3 of the paper: Figures 8 to 10 and Tables 3 and 4 at the settings of its Table 9. The
scaling of the pixels, the floor of the scales and the initialisation are not printed in the
paper; ours are in `Config`.
"""

from __future__ import annotations

import dataclasses
from functools import cache, partial
from typing import Any

import jax.numpy as jnp
import optax
import pandas as pd
from flax import nnx

from ngem_tutorial.datasets import LabelledImages
from ngem_tutorial.experiments.methods import get_objective
from ngem_tutorial.metrics import weight_entropy
from ngem_tutorial.mixtures import GaussianMixture
from ngem_tutorial.networks import LabelConditioned, MixtureDensityNetwork
from ngem_tutorial.objectives import nll
from ngem_tutorial.training import Fit, fit

__all__ = [
    "NUM_CLASSES",
    "PAPER_TABLE_3",
    "PRESETS",
    "Config",
    "make_model",
    "run",
    "table",
    "train",
]

NUM_CLASSES = 10

PAPER_TABLE_3: dict[str, dict[str, tuple[float, float]]] = {
    "nGEM": {"nll": (-1529.7, 101.0), "entropy": (0.454, 0.15)},
    "NLL": {"nll": (-1392.8, 178.0), "entropy": (0.207, 0.22)},
}
"""Negative log-likelihood and entropy at K = 3 after 100 epochs: mean and standard deviation over
five seeds, Table 3 of the paper."""


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings; the defaults are those of the paper's Table 9 where it gives them."""

    num_components: int = 3
    hidden: tuple[int, ...] = (128, 128, 128, 128)
    epochs: int = 100
    batch_size: int = 256
    learning_rate: float = 3e-4
    seeds: tuple[int, ...] = (1, 2, 3, 4, 5)
    methods: tuple[str, ...] = ("NLL", "nGEM (listing)", "nGEM (derived)", "nGEM")
    min_scale: float = 0.01
    """Floor of the scales, in units of the pixels' range. Many pixels of a class are always zero,
    and without a floor their likelihood has no bound."""
    initial_scale: float = 0.3
    """Where the scales start: about the standard deviation of all of the pixels."""
    records_per_epoch: int = 1


PRESETS: dict[str, Config] = {
    "quick": Config(epochs=3, seeds=(1, 2), methods=("NLL", "nGEM (listing)", "nGEM")),
    "paper": Config(),
}


@cache
def make_model(config: Config, pixels: int) -> partial[LabelConditioned]:
    """Return what builds the network of a configuration; the same object each time.

    Args:
        config: the settings.
        pixels: number of pixels of an image.

    Returns:
        A function from random streams to the module.
    """
    return partial(_make_model, config, pixels)


def _make_model(config: Config, pixels: int, rngs: nnx.Rngs) -> LabelConditioned:
    network = MixtureDensityNetwork(
        NUM_CLASSES,
        config.num_components,
        pixels,
        hidden=config.hidden,
        min_scale=config.min_scale,
        initial_scale=config.initial_scale,
        rngs=rngs,
    )
    return LabelConditioned(network, NUM_CLASSES)


def train(config: Config, method: str, images: LabelledImages) -> Fit:
    """Train one method; `probes["mixture"]` holds the mixtures of the ten classes.

    Args:
        config: the settings.
        method: one of `methods.METHODS`.
        images: the examples; all of them are used, for training and for the metrics.

    Returns:
        The fit; runs that turn non-finite are in its `failures`.
    """
    batches = len(images.images) // config.batch_size
    per_epoch = config.records_per_epoch
    points = range(per_epoch * config.epochs + 1)
    return fit(
        make_model(config, images.images.shape[1]),
        get_objective(method),
        images.labels,
        images.images,
        epochs=config.epochs,
        batch_size=config.batch_size,
        learning_rate=config.learning_rate,
        optimizer=optax.adam,
        seeds=config.seeds,
        metrics={"nll": nll, "entropy": weight_entropy},
        probes={"mixture": _class_mixtures},
        record_at=[batches * point // per_epoch for point in points],
        on_nonfinite="record",
        label=method,
    )


def table(method: str, result: Fit) -> pd.DataFrame:
    """The recorded points of one method as rows.

    Args:
        method: what to call it.
        result: what `train` returned.

    Returns:
        `method`, `seed`, `update`, `loss`, `nll` and `entropy` (nats per image) and `failed_at`,
        the update after which the run had a non-finite value, -1 if it never had.
    """
    rows = pd.DataFrame(result.columns())
    rows.insert(0, "method", method)
    return rows


def run(config: Config, images: LabelledImages) -> pd.DataFrame:
    """Train every method of a configuration.

    Args:
        config: the settings.
        images: the examples; see `train`.

    Returns:
        The rows of all of the methods; see `table`.
    """
    return pd.concat(
        [table(method, train(config, method, images)) for method in config.methods],
        ignore_index=True,
    )


def _class_mixtures(model: Any) -> GaussianMixture:
    mixture: GaussianMixture = model(jnp.arange(NUM_CLASSES))
    return mixture
