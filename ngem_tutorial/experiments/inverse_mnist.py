"""Inverse MNIST: a mixture over images given the digit's class.

Section 4.3 of the paper: Figures 8 to 10 and Tables 3 and 4 at the settings of its Table 9, which
lists a third number of components, 20, without results. The scaling of the pixels, the floor of
the scales and the initialisation are not printed in the paper; ours are in `Config`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pandas as pd
from flax import nnx

from ngem_tutorial import loop
from ngem_tutorial.datasets import LabelledImages, mnist
from ngem_tutorial.loop import Run
from ngem_tutorial.methods import get_method, slug
from ngem_tutorial.metrics import weight_entropy
from ngem_tutorial.mixtures import GaussianMixture
from ngem_tutorial.networks import LabelConditioned, MixtureDensityNetwork
from ngem_tutorial.objectives import nll
from ngem_tutorial.runs import Unit

__all__ = [
    "NUM_CLASSES",
    "PRESETS",
    "Config",
    "class_mixtures",
    "make_model",
    "measured",
    "run",
    "table",
    "train",
    "units",
]

NUM_CLASSES = 10
"""Digits, from 0 to 9."""


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings; the defaults are those of the paper's Table 9 where it gives them."""

    num_components: int = 3
    hidden: tuple[int, ...] = (128, 128, 128, 128)
    epochs: int = 100
    batch_size: int = 256
    learning_rate: float = 3e-4
    seeds: tuple[int, ...] = (1, 2, 3, 4, 5)
    methods: tuple[str, ...] = (
        "NLL",
        "nGEM, paper's code",
        "undamped nGEM",
        "nGEM, as derived",
        "SGEM",
        "damped nGEM",
        "whitened NLL",
    )
    min_scale: float = 0.01
    """Floor of the scales, in units of the pixels' range. Many pixels of a class are always zero,
    and without a floor their likelihood has no bound."""
    initial_scale: float = 0.3
    """Where the scales start: about the standard deviation of all of the pixels."""
    record_epochs: tuple[float, ...] = ()
    """The epochs at which all of the images are evaluated; each of them if empty."""
    keep_images: bool = False
    """Keep the mean images of the components in the stored results."""

    @property
    def record_at(self) -> tuple[float, ...]:
        """The epochs at which to evaluate, the last of them the end."""
        return self.record_epochs or tuple(range(self.epochs + 1))


_POINTS = (0, 1, 2, 3, 5, 10, 15, 20, 30, 40, 50, 60, 70, 80, 90, 100)
_PAPER = Config(record_epochs=_POINTS)
_QUICK = Config(
    epochs=1, seeds=(1,), methods=("NLL", "nGEM, paper's code", "undamped nGEM", "damped nGEM")
)

PRESETS: dict[int, dict[str, Config]] = {
    3: {
        "quick": dataclasses.replace(_QUICK, keep_images=True),
        "paper": dataclasses.replace(_PAPER, keep_images=True),
    },
    10: {
        "quick": dataclasses.replace(
            _QUICK, num_components=10, methods=("NLL", "nGEM, paper's code")
        ),
        "paper": dataclasses.replace(
            _PAPER,
            num_components=10,
            seeds=(1, 2, 3),
            methods=(
                "NLL",
                "nGEM, paper's code",
                "undamped nGEM",
                "nGEM, as derived",
                "damped nGEM",
                "whitened NLL",
            ),
        ),
    },
    20: {
        "quick": dataclasses.replace(_QUICK, num_components=20, methods=("NLL",)),
        "paper": dataclasses.replace(
            _PAPER,
            num_components=20,
            seeds=(1, 2),
            methods=("NLL", "nGEM, paper's code", "damped nGEM"),
        ),
    },
}
"""Settings by the number of components. On one core of a CPU a run takes a minute with `K = 3`,
five with `K = 10` and twenty with `K = 20`: `K = 10` runs with three of the paper's five seeds, and
`K = 20`, of which the paper prints no numbers, with two and fewer methods."""


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


def train(config: Config, method: str, images: LabelledImages) -> Run:
    """Train one method; `probes["mixture"]` holds the mixtures of the ten classes.

    Args:
        config: the settings.
        method: one of `methods.METHODS`.
        images: the examples; all of them are used, for training and for the metrics.

    Returns:
        The run; runs that turn non-finite are in its `failures`.
    """
    batches = len(images.images) // config.batch_size
    chosen = get_method(method)
    return loop.train(
        make_model(config, images.images.shape[1]),
        chosen,
        images.labels,
        images.images,
        epochs=config.epochs,
        batch_size=config.batch_size,
        learning_rate=config.learning_rate,
        optimizer=optax.adam,
        seeds=config.seeds,
        metrics={"nll": nll, "entropy": weight_entropy},
        probes={"mixture": _class_mixtures},
        record_at=[round(batches * epoch) for epoch in config.record_at],
        on_nonfinite="record",
        label=method,
    )


def table(method: str, result: Run) -> pd.DataFrame:
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


def units(config: Config) -> list[Unit]:
    """The parts of the experiment: one run each, the first seed of every method first.

    Args:
        config: the settings; MNIST is read when a part is computed.

    Returns:
        Units with the tables `curves` (see `table`), `final` (a row per run: `nll` and `entropy`
        of the training images, `test_nll`, `failed_at`), `components` (the `weight` of every
        component of every class) and, with `keep_images`, `images` (their means: two hexadecimal
        digits per pixel, 00 for 0 and ff for 1).
    """
    k = config.num_components
    seconds = 0.2 * k * (1 + k / 20) * config.epochs
    return [
        Unit(
            f"{slug(method)}-seed={seed}",
            partial(_run_unit, dataclasses.replace(config, seeds=(seed,)), method),
            seconds + 8.0,
        )
        for seed in config.seeds
        for method in config.methods
    ]


def _run_unit(config: Config, method: str) -> dict[str, pd.DataFrame]:
    result = train(config, method, mnist("train"))
    curves = table(method, result)
    final = curves.iloc[[-1]].drop(columns=["update", "loss"])
    final = final.assign(test_nll=_test_nll(result.model())).reset_index(drop=True)
    tables = {"curves": curves, "final": final}
    classes = jax.tree.map(lambda leaf: leaf[0, -1], result.probes["mixture"])
    rows = _components(classes)
    rows.insert(0, "seed", config.seeds[0])
    rows.insert(0, "method", method)
    tables["components"] = rows.drop(columns="image")
    if config.keep_images:
        tables["images"] = rows.drop(columns="weight")
    return tables


@nnx.jit
def _losses(model: LabelConditioned, labels: jax.Array, images: jax.Array) -> jax.Array:
    """The NLL of each image, a thousand at a time: a mixture for each takes its memory."""
    return jax.lax.map(lambda pair: nll(model(pair[0]), pair[1]), (labels, images), batch_size=1000)


def _test_nll(model: LabelConditioned) -> float:
    images, labels = mnist("test")
    return float(jnp.mean(_losses(model, jnp.asarray(labels), jnp.asarray(images))))


def _components(classes: GaussianMixture) -> pd.DataFrame:
    """Weight and mean image of each component of each class."""
    weights = np.asarray(classes.weights)
    pixels = np.round(255 * np.clip(np.nan_to_num(classes.means), 0, 1)).astype(np.uint8)
    return pd.DataFrame(
        [
            (c, k, weights[c, k], pixels[c, k].tobytes().hex())
            for c in range(weights.shape[0])
            for k in range(weights.shape[1])
        ],
        columns=["class", "component", "weight", "image"],
    )


def class_mixtures(tables: Mapping[str, pd.DataFrame], method: str, seed: int) -> GaussianMixture:
    """The stored mean images and weights of a run as mixtures, one for each class.

    Args:
        tables: `components` and `images` of `units`.
        method: one of the methods that were run.
        seed: one of the seeds.

    Returns:
        Batch shape `(10,)`; the means are rounded to 255ths, and the scales, which are not
        stored, are one.

    Raises:
        ValueError: if there is no such run, or a weight of it is not finite.
    """

    def rows(table: pd.DataFrame) -> pd.DataFrame:
        return table[(table["method"] == method) & (table["seed"] == seed)]

    weights = rows(tables["components"])["weight"].to_numpy().reshape(NUM_CLASSES, -1)
    images = [bytes.fromhex(image) for image in rows(tables["images"])["image"]]
    if not images or not np.isfinite(weights).all():
        raise ValueError(f"there is no finite run of {method!r} with seed {seed}")
    pixels = np.array([list(image) for image in images], np.float32) / 255
    means = jnp.asarray(pixels.reshape(*weights.shape, -1))
    log_weights = jnp.log(np.maximum(weights, np.finfo(np.float32).tiny))
    return GaussianMixture(log_weights, means, jnp.ones_like(means))


def measured(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """The final numbers of each run, for the comparison with Tables 3 and 4 of the paper.

    Args:
        tables: those of `units`.

    Returns:
        The rows that `comparison.compare` takes.
    """
    num_components = int(tables["components"]["component"].max()) + 1
    final = tables["final"].melt(
        ["method", "seed"], ["nll", "entropy"], var_name="quantity", value_name="value"
    )
    item = {3: "Table 3", 10: "Table 4"}.get(num_components, "Table 9")
    return final.assign(table=item, condition=f"K = {num_components}")


def _class_mixtures(model: Any) -> GaussianMixture:
    mixture: GaussianMixture = model(jnp.arange(NUM_CLASSES))
    return mixture
