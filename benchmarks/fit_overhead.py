"""What does `fit` cost on top of its arithmetic? Four loops side by side, in one process, in turn.

The sizes are those of kin8nm in the paper's Table 10: 8192 examples of 8 inputs, two hidden layers
of 128 units, 3 components, batches of 128, ten thousand updates of Adam. The four loops do the same
updates on the same batches::

    plain    `lax.scan`, weights in a dictionary, the density written out: the likelihood only
    network  `lax.scan`, the Flax network and the objective of this package
    train    `loop.train`
    fit      `fit`, which standardises the data too

Each repetition runs all of them in a random order, so that what slows the machine down for a while
does so for all alike, and ratios are taken within a repetition. Compilation is timed apart::

    python benchmarks/fit_overhead.py

writes the tables `times`, `ratios` and `compilation` of `results/fit_overhead`, in four
minutes on two cores.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pandas as pd
from flax import nnx

from ngem_tutorial import fit, loop, results
from ngem_tutorial._training.compilation import clear as forget_programs
from ngem_tutorial.methods import METHODS, Method
from ngem_tutorial.metrics import median_interval
from ngem_tutorial.networks import MixtureDensityNetwork
from ngem_tutorial.objectives import scale_unit

RESULT = "fit_overhead"


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings."""

    size: int = 8192
    features: int = 8
    hidden: tuple[int, ...] = (128, 128)
    components: int = 3
    batch_size: int = 128
    updates: int = 10_000
    learning_rate: float = 1e-3
    methods: tuple[str, ...] = ("NLL", "damped nGEM")
    repetitions: int = 9


RATIOS = (("fit", "network"), ("train", "network"), ("network", "plain"))
"""Numerators and denominators."""


class Timed(NamedTuple):
    """One call of a loop."""

    seconds: float
    """Of the updates."""
    compile_seconds: float
    params: Any
    """Leaves of the trained parameters, in the order of the network's."""


def make_network(config: Config, rngs: nnx.Rngs) -> MixtureDensityNetwork:
    """Build the network."""
    return MixtureDensityNetwork(
        config.features, config.components, 1, hidden=config.hidden, rngs=rngs
    )


def sample(config: Config) -> tuple[np.ndarray, np.ndarray]:
    """Draw standard normal inputs and targets, and standardise them: time does not depend on them.

    Args:
        config: the settings.

    Returns:
        Shapes `(N, F)` and `(N, 1)`.
    """
    random = np.random.default_rng(0)
    x, y = random.normal(size=(config.size, config.features)), random.normal(size=(config.size, 1))
    return (x - x.mean(0)) / x.std(0), (y - y.mean(0)) / y.std(0)


def rows_of_updates(config: Config, seed: int) -> np.ndarray:
    """Return the examples of each update, as `fit` draws them.

    Args:
        config: the settings.
        seed: of the run.

    Returns:
        Shape `(updates, batch size)`.
    """
    key, per_epoch = jax.random.split(jax.random.key(seed))[1], config.size // config.batch_size
    orders = [
        jax.random.permutation(jax.random.fold_in(key, epoch), config.size)
        for epoch in range(epochs(config))
    ]
    return (
        np.stack(orders)[:, : per_epoch * config.batch_size]
        .reshape(-1, config.batch_size)[: config.updates]
        .astype(np.int32)
    )


def epochs(config: Config) -> int:
    """Return the number of epochs that have enough updates."""
    return -(-config.updates // (config.size // config.batch_size))


# --------------------------------------------------------------------------------------- the loops


def plain_loss(config: Config, params: dict[str, Any], x: jax.Array, y: jax.Array) -> jax.Array:
    """The mean negative log-likelihood of a batch, written out for one dimension."""
    h = x
    for w, b in params["trunk"]:
        h = jax.nn.gelu(h @ w + b)
    logits, means, a = (h @ w + b for w, b in params["heads"])
    scales = 1e-3 + jax.nn.softplus(a)
    z = (y - means) / scales
    log_joint = jax.nn.log_softmax(logits) - 0.5 * z**2 - jnp.log(scales) - 0.5 * np.log(2 * np.pi)
    return -jnp.mean(jax.nn.logsumexp(log_joint, axis=-1))


def plain_params(network: MixtureDensityNetwork) -> dict[str, Any]:
    """Return the network's weights as arrays."""

    def arrays(layer: nnx.Linear) -> tuple[jax.Array, jax.Array]:
        return layer.kernel[...], layer.bias[...]

    heads = (network.logits, network.means, network.scales)
    return {"trunk": [arrays(layer) for layer in network.trunk], "heads": [*map(arrays, heads)]}


def network_loss(
    method: Method, graph: Any, relaxation: Any, params: Any, x: jax.Array, y: jax.Array, i: Any
) -> jax.Array:
    """The mean of a method's objective over a batch."""
    mixture = nnx.merge(graph, params)(x)
    options: dict[str, Any] = {"unit": scale_unit(mixture)} if method.unit == "batch" else {}
    if relaxation is not None:
        options["relaxation"] = relaxation(i)
    return jnp.mean(method.objective(mixture, y, **options))


_SCANS: dict[tuple[Config, str, str], Any] = {}


def scan(config: Config, method: str, kind: str, seed: int) -> Timed:
    """The updates in a bare `lax.scan`, compiled once for a kind and method.

    Args:
        config: the settings.
        method: of `METHODS`.
        kind: `"plain"` or `"network"`.
        seed: of the initial network and the order of the examples.

    Returns:
        The times.
    """
    key, _ = jax.random.split(jax.random.key(seed))
    network = make_network(config, nnx.Rngs(key))
    graph, params = nnx.split(network)
    optimizer = optax.adam(config.learning_rate)
    chosen = METHODS[method]
    relaxation = None if chosen.schedule is None else chosen.schedule(config.updates)
    if kind == "plain":
        params = plain_params(network)
        loss: Callable[..., jax.Array] = lambda p, x, y, i: plain_loss(config, p, x, y)  # noqa: E731
    else:
        loss = partial(network_loss, chosen, graph, relaxation)

    def run(params: Any, state: Any, x: jax.Array, y: jax.Array, rows: jax.Array) -> Any:
        def update(carry: Any, at: tuple[jax.Array, jax.Array]) -> tuple[Any, jax.Array]:
            (params, state), (i, rows) = carry, at
            value, gradient = jax.value_and_grad(loss)(params, x[rows], y[rows], i)
            change, state = optimizer.update(gradient, state, params)
            return (optax.apply_updates(params, change), state), value

        (params, _), values = jax.lax.scan(update, (params, state), (jnp.arange(len(rows)), rows))
        return params, jnp.mean(values)

    x, y = map(jnp.asarray, sample(config))
    rows = jnp.asarray(rows_of_updates(config, seed))
    arguments = (params, optimizer.init(params), x, y, rows)
    start = time.perf_counter()
    if (config, method, kind) not in _SCANS:
        _SCANS[config, method, kind] = jax.jit(run).lower(*arguments).compile()
    compiled = time.perf_counter()
    params, _ = jax.block_until_ready(_SCANS[config, method, kind](*arguments))
    seconds = time.perf_counter() - compiled
    if kind == "plain":
        heads = dict(zip(("logits", "means", "scales"), params["heads"], strict=True))
        named = {name: {"kernel": w, "bias": b} for name, (w, b) in heads.items()}
        named["trunk"] = [{"kernel": w, "bias": b} for w, b in params["trunk"]]
        params = named
    return Timed(seconds, compiled - start, jax.tree.leaves(params))


def package_loop(config: Config, method: str, kind: str, seed: int) -> Timed:
    """The updates by `fit` or by `train`, evaluated on one example at the end.

    Args:
        config: the settings.
        method: of `METHODS`.
        kind: `"fit"` or `"train"`.
        seed: of the initial network and the order of the examples.

    Returns:
        The times.
    """
    x, y = sample(config)
    settings: dict[str, Any] = {
        "epochs": epochs(config), "batch_size": config.batch_size, "seeds": (seed,),
        "record_at": (config.updates,), "evaluation": (x[:1], y[:1]),
    }  # fmt: skip
    make = partial(make_network, config)
    if kind == "train":
        run = loop.train(
            make, METHODS[method], x, y, learning_rate=config.learning_rate, **settings
        )
        model = run.model()
        return Timed(run.seconds, run.compile_seconds, jax.tree.leaves(nnx.state(model)))
    fitted = fit(
        make, METHODS[method], x, y, optimizer=optax.adam(config.learning_rate),
        initial_means="own", **settings
    )  # fmt: skip
    network = fitted.model().network
    return Timed(fitted.seconds, fitted.compile_seconds, jax.tree.leaves(nnx.state(network)))


def contestants(config: Config) -> list[tuple[str, str]]:
    """Return the methods and loops that are timed."""
    loops = [(method, kind) for method in config.methods for kind in ("network", "train", "fit")]
    return [("NLL", "plain"), *loops] if "NLL" in config.methods else loops


def call(config: Config, method: str, kind: str, seed: int) -> Timed:
    """Run one loop."""
    chosen = scan if kind in ("plain", "network") else package_loop
    return chosen(config, method, kind, seed)


# ----------------------------------------------------------------------------------------- tables


def run(config: Config) -> dict[str, pd.DataFrame]:
    """Time every loop.

    Args:
        config: the settings.

    Returns:
        `times`: `method`, `loop`, `repetition`, `seconds` of all updates; `compilation`: `method`,
        `loop`, `seconds` of the first call; `ratios`, see there.
    """
    forget_programs()
    pairs = contestants(config)
    compilation = [
        {"method": m, "loop": kind, "seconds": call(config, m, kind, 0).compile_seconds}
        for m, kind in pairs
    ]
    rows = []
    for repetition in range(1, config.repetitions + 1):
        for i in np.random.default_rng(repetition).permutation(len(pairs)):
            method, kind = pairs[i]
            seconds = call(config, method, kind, repetition).seconds
            rows.append(
                {"method": method, "loop": kind, "repetition": repetition, "seconds": seconds}
            )
    times = pd.DataFrame(rows)
    return {"times": times, "ratios": ratios(times), "compilation": pd.DataFrame(compilation)}


def ratios(times: pd.DataFrame) -> pd.DataFrame:
    """Compare the loops within each repetition.

    Args:
        times: of `run`.

    Returns:
        A row for each method and pair of `RATIOS`: the median of the ratio and the interval of
        order statistics that covers it with at least 95 %.
    """
    rows = []
    for method, own in times.groupby("method"):
        seconds = own.pivot(index="repetition", columns="loop", values="seconds")
        for above, below in RATIOS:
            if {above, below} <= set(seconds.columns):
                values = (seconds[above] / seconds[below]).to_numpy()
                interval = median_interval(values)
                rows.append(
                    {"method": method, "loop": above, "compared_with": below}
                    | {"ratio": interval.median, "low": interval.low, "high": interval.high}
                )
    return pd.DataFrame(rows)


def main(config: Config | None = None, directory: str | None = None) -> None:
    """Run the benchmark, print the ratios and save the tables."""
    config = config or Config()
    commit, start = results.current_commit(), time.perf_counter()
    tables = run(config)
    print(tables["ratios"].round(3).to_string(index=False))
    results.save(
        tables,
        RESULT,
        configuration=dataclasses.asdict(config),
        seeds=range(config.repetitions + 1),
        parts=[results.part(tables, time.perf_counter() - start, commit=commit)],
        directory=directory,
        replace=True,
    )


if __name__ == "__main__":
    main()
