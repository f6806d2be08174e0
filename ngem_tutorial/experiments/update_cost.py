"""What an update costs: the objectives side by side, in one process, in turn.

Section 4.4 of the paper: its Table 6, ten thousand updates of Adam on three regression tasks, at
the sizes of its Table 10. The time of an update does not depend on the values of the data, so
standard normal numbers of the same shapes take their place. Beside it: the same updates in a loop
of Python, and mixtures of more components and dimensions.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator, Mapping
from functools import cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pandas as pd
from flax import nnx

from ngem_tutorial._training.compilation import clear as forget_programs
from ngem_tutorial.loop import train
from ngem_tutorial.methods import get_method
from ngem_tutorial.metrics import MedianInterval, median_interval
from ngem_tutorial.networks import MixtureDensityNetwork
from ngem_tutorial.objectives import scale_unit
from ngem_tutorial.runs import Unit

__all__ = [
    "PAPER_TASKS",
    "PRESETS",
    "Config",
    "Task",
    "measured",
    "ratios",
    "summary",
    "time_task",
    "units",
]


@dataclasses.dataclass(frozen=True)
class Task:
    """The sizes that decide what an update costs."""

    name: str
    num_examples: int
    features: int
    batch_size: int
    learning_rate: float
    updates: int = 10_000
    num_components: int = 3
    dim: int = 1
    python_methods: tuple[str, ...] = ()
    """The methods that are also timed in a loop of Python."""


_BOTH = ("NLL", "undamped nGEM")

PAPER_TASKS: tuple[Task, ...] = (
    Task("kin8nm", 8192, 8, 128, 1e-3, python_methods=_BOTH),
    Task("energy", 768, 8, 16, 1e-4, python_methods=_BOTH),
    Task("housing", 506, 13, 32, 1e-4, python_methods=_BOTH),
)
"""The paper's Table 10."""


def _larger(num_components: int, dim: int, updates: int) -> Task:
    """The sizes of kin8nm, for a larger mixture."""
    return dataclasses.replace(
        PAPER_TASKS[0],
        name=f"K = {num_components}, D = {dim}",
        updates=updates,
        num_components=num_components,
        dim=dim,
        python_methods=(),
    )


_UPDATES = {
    (3, 1): 3000,
    (10, 1): 3000,
    (50, 1): 3000,
    (3, 100): 500,
    (10, 100): 300,
    (50, 100): 60,
}
"""For each `K` and `D` enough updates for tenths of a second."""


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings; what the paper's Table 10 gives is in `PAPER_TASKS`."""

    tasks: tuple[Task, ...] = PAPER_TASKS
    hidden: tuple[int, ...] = (128, 128)
    methods: tuple[str, ...] = (
        "NLL",
        "SGEM",
        "nGEM, paper's code",
        "nGEM, as derived",
        "undamped nGEM",
        "damped nGEM",
    )
    seeds: tuple[int, ...] = tuple(range(1, 16))
    """One repetition each: of the initial network, and of the order in which the methods run."""


PRESETS: dict[str, Config] = {
    "quick": Config(
        tasks=tuple(dataclasses.replace(task, updates=300) for task in PAPER_TASKS[:1]),
        methods=("NLL", "SGEM", "nGEM, paper's code", "undamped nGEM", "damped nGEM"),
        seeds=tuple(range(1, 8)),
    ),
    "paper": Config(
        tasks=PAPER_TASKS + tuple(_larger(k, d, count) for (k, d), count in _UPDATES.items())
    ),
    "recommended": Config(
        tasks=tuple(dataclasses.replace(task, python_methods=()) for task in PAPER_TASKS),
        methods=("NLL", "damped nGEM", "whitened NLL"),
    ),
}
"""Settings by name: `quick` takes seconds, `paper` has the size of the stored results;
`recommended` has the two that the book recommends or did, at the sizes of the paper."""


def units(config: Config) -> list[Unit]:
    """The parts of the experiment: one task each, all methods and repetitions in one process.

    Args:
        config: the settings.

    Returns:
        Units with the tables of `time_task`.
    """
    return [
        Unit(
            task.name.replace(" ", "").replace(",", "-"),
            partial(time_task, config, task),
            _expected_seconds(config, task),
        )
        for task in config.tasks
    ]


def _expected_seconds(config: Config, task: Task) -> float:
    """From measurements on two cores: dispatch, and a part in proportion to the outputs."""
    outputs = task.num_components * (1 + 2 * task.dim)
    update = 5e-5 + task.batch_size * (5e-7 + 2.5e-8 * outputs)
    runs = len(config.methods) * update + len(task.python_methods) * (update + 1e-4)
    return 15.0 + len(config.seeds) * task.updates * runs


def time_task(config: Config, task: Task) -> dict[str, pd.DataFrame]:
    """Time every method on a task, in turn and in an order that is drawn for each repetition.

    Whatever slows the machine down for a while, then, does so for all methods alike, and the
    ratios within a repetition are free of it.

    Args:
        config: the settings.
        task: what to time; one of `config.tasks`.

    Returns:
        Tables `times`, a row for each repetition of each method, and `compilation`, a row for
        each method. Both have `task`, `num_components`, `dim`, `batch_size`, `loop` (`"compiled"`
        or `"Python"`) and `method`; `times` also `seed`, `updates` and `seconds`, the wall time of
        the updates, compilation apart; `compilation` the `seconds` of the first call without
        those of the updates.
    """
    forget_programs()
    jax.clear_caches()  # or a task of the same shapes would have its programs from the one before
    contestants = [("compiled", method) for method in config.methods]
    contestants += [("Python", method) for method in task.python_methods]
    loops = {"compiled": _compiled_loop, "Python": _python_loop}
    sizes = {name: getattr(task, name) for name in ("num_components", "dim", "batch_size")}
    rows, compilation = [], []
    for loop, method in contestants:
        first = loops[loop](config, task, method, config.seeds[0])
        compilation.append(
            {"task": task.name, **sizes, "loop": loop, "method": method, "seconds": first.compiling}
        )
    for seed in config.seeds:
        for i in np.random.default_rng(seed).permutation(len(contestants)):
            loop, method = contestants[i]
            seconds = loops[loop](config, task, method, seed).running
            rows.append(
                {"task": task.name, **sizes, "loop": loop, "method": method, "seed": seed}
                | {"updates": task.updates, "seconds": seconds}
            )
    return {"times": pd.DataFrame(rows), "compilation": pd.DataFrame(compilation)}


# ------------------------------------------------------------------------------------ two loops


class _Seconds(NamedTuple):
    compiling: float
    running: float


def _compiled_loop(config: Config, task: Task, method: str, seed: int) -> _Seconds:
    """The updates as `train` does them: one program."""
    x, y = _data(task)
    chosen = get_method(method)
    result = train(
        _make_model(config.hidden, task.features, task.num_components, task.dim),
        chosen,
        x,
        y,
        epochs=_epochs(task),
        batch_size=task.batch_size,
        learning_rate=task.learning_rate,
        optimizer=optax.adam,
        seeds=(seed,),
        evaluation=(x[:1], y[:1]),
        record_at=(task.updates,),
    )
    return _Seconds(result.compile_seconds, result.seconds)


def _python_loop(config: Config, task: Task, method: str, seed: int) -> _Seconds:
    """The updates as a program calls them one by one: a compiled step, batches from NumPy."""
    x, y = (np.asarray(part) for part in _data(task))
    make_model = _make_model(config.hidden, task.features, task.num_components, task.dim)
    _, params = nnx.split(make_model(nnx.Rngs(seed)), nnx.Param)
    optimizer = optax.adam(task.learning_rate)
    state = optimizer.init(params)
    step = _step(make_model, method, task.learning_rate)
    start = time.perf_counter()
    batch = slice(0, task.batch_size)
    jax.block_until_ready(step(params, state, x[batch], y[batch]))
    compiled = time.perf_counter()
    for rows in _batches(task, seed):
        params, state, _ = step(params, state, x[rows], y[rows])
    jax.block_until_ready(params)
    return _Seconds(compiled - start, time.perf_counter() - compiled)


@cache
def _step(make_model: Any, method: str, learning_rate: float) -> Any:
    """A compiled update; the same object for the same arguments, so that it is compiled once."""
    chosen = get_method(method)
    optimizer = optax.adam(learning_rate)
    graph, _ = nnx.split(nnx.eval_shape(lambda: make_model(nnx.Rngs(0))), nnx.Param)

    @jax.jit
    def step(params: Any, state: Any, x: jax.Array, y: jax.Array) -> tuple[Any, Any, jax.Array]:
        def mean_loss(params: Any) -> jax.Array:
            mixture = nnx.merge(graph, params)(x)
            options = {"unit": scale_unit(mixture)} if chosen.unit == "batch" else {}
            return jnp.mean(chosen.objective(mixture, y, **options))

        loss, gradient = jax.value_and_grad(mean_loss)(params)
        change, state = optimizer.update(gradient, state, params)
        return optax.apply_updates(params, change), state, loss

    return step


def _batches(task: Task, seed: int) -> Iterator[np.ndarray]:
    """The rows of each update, shuffled for each epoch."""
    generator = np.random.default_rng(seed)
    per_epoch = task.num_examples // task.batch_size
    for update in range(task.updates):
        if update % per_epoch == 0:
            order = generator.permutation(task.num_examples)
        start = update % per_epoch * task.batch_size
        yield order[start : start + task.batch_size]


def _epochs(task: Task) -> int:
    return -(-task.updates // (task.num_examples // task.batch_size))


def _data(task: Task) -> tuple[jax.Array, jax.Array]:
    keys = jax.random.split(jax.random.key(0))
    return (
        jax.random.normal(keys[0], (task.num_examples, task.features)),
        jax.random.normal(keys[1], (task.num_examples, task.dim)),
    )


@cache
def _make_model(
    hidden: tuple[int, ...], features: int, num_components: int, dim: int
) -> partial[MixtureDensityNetwork]:
    return partial(_network, hidden, features, num_components, dim)


def _network(
    hidden: tuple[int, ...], features: int, num_components: int, dim: int, rngs: nnx.Rngs
) -> MixtureDensityNetwork:
    return MixtureDensityNetwork(features, num_components, dim, hidden=hidden, rngs=rngs)


# --------------------------------------------------------------------------------- the numbers


def ratios(times: pd.DataFrame) -> pd.DataFrame:
    """Divide each time by that of NLL in the same repetition, task and loop.

    Args:
        times: the table of `time_task`.

    Returns:
        The rows of the other methods, with a column `ratio`.

    Raises:
        ValueError: if a repetition has no time of NLL.
    """
    keys = ["task", "loop", "seed"]
    base = times[times["method"] == "NLL"].set_index(keys)["seconds"].rename("base")
    joined = times.join(base, on=keys)
    if joined["base"].isna().any():
        raise ValueError("times must have a row of NLL for each task, loop and seed")
    joined["ratio"] = joined["seconds"] / joined.pop("base")
    return joined[joined["method"] != "NLL"].reset_index(drop=True)


def summary(table: pd.DataFrame, value: str, by: list[str]) -> pd.DataFrame:
    """Reduce the repetitions to a median with its interval.

    Args:
        table: rows of `times` or `ratios`.
        value: the column to reduce.
        by: the columns that tell the groups apart.

    Returns:
        A row per group, in the order of the table: the columns `by`, `median`, `low` and `high`.
    """
    rows = [
        (*names, *median_interval(group[value])) for names, group in table.groupby(by, sort=False)
    ]
    return pd.DataFrame(rows, columns=[*by, *MedianInterval._fields])


def measured(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """The times on the paper's tasks, for the comparison with Table 6.

    Args:
        tables: those of `units`.

    Returns:
        The rows that `comparison.compare` takes: `seconds` of a method, and its `ratio to NLL`.
    """
    times = tables["times"]
    names = [task.name for task in PAPER_TASKS]
    times = times[times["task"].isin(names) & (times["loop"] == "compiled")]
    parts = [
        times.assign(quantity="seconds", value=times["seconds"]),
        ratios(times).assign(quantity="ratio to NLL").rename(columns={"ratio": "value"}),
    ]
    rows = pd.concat(parts, ignore_index=True).assign(table="Table 6")
    rows = rows.rename(columns={"task": "condition"})
    return rows[["method", "seed", "table", "condition", "quantity", "value"]]
