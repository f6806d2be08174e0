"""Training: one compiled program for a configuration, batched over seeds."""

from __future__ import annotations

import dataclasses
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.typing import ArrayLike
from rich import progress as rich_progress
from rich.console import Console

from ngem_tutorial.methods import Method
from ngem_tutorial.objectives import Objective, nll, scale_unit
from ngem_tutorial.optimizers import KFAC

__all__ = ["Failure", "Fit", "NonFiniteError", "fit", "quiet"]

Optimizer = Callable[..., optax.GradientTransformation]
Params = Any


class Failure(NamedTuple):
    """The first non-finite value of a run."""

    seed: int
    """Seed of the run."""
    update: int
    """Number of updates after which the value was there."""
    parameter: str
    """Path of the parameter, or `"loss"` if the loss alone was not finite."""


class NonFiniteError(FloatingPointError):
    """A loss or parameter stopped being finite; `failures` says in which run, when and where."""

    def __init__(self, failures: Sequence[Failure]) -> None:
        """Describe the earliest failure."""
        self.failures = tuple(failures)
        first = min(self.failures, key=lambda failure: failure.update)
        super().__init__(
            f"non-finite value in {first.parameter} after update {first.update} (seed "
            f"{first.seed}; {len(self.failures)} seeds so far). Lower the learning rate, raise "
            'the floor of the scales, or pass on_nonfinite="record" to go on.'
        )


@dataclasses.dataclass(frozen=True)
class Fit:
    """The outcome of `fit` for `S` seeds and `R` recorded points.

    Attributes:
        seeds: shape `(S,)`.
        updates: numbers of updates done at the recorded points, shape `(R,)`.
        loss: mean of the objective's value over the updates since the last recorded point, shape
            `(S, R)`; NaN at update 0.
        metrics: means over the evaluation data, shape `(S, R)` each.
        probes: what the probes returned, with leading axes `(S, R)`.
        failures: the first non-finite value of each run that had one.
        seconds: wall time of the updates and evaluations, compilation apart.
        compile_seconds: wall time of the compilation, near zero if it was done before.
    """

    seeds: np.ndarray
    updates: np.ndarray
    loss: np.ndarray
    metrics: dict[str, np.ndarray]
    probes: dict[str, Any]
    failures: tuple[Failure, ...]
    seconds: float
    compile_seconds: float
    _graph: Any = dataclasses.field(repr=False)
    _state: Any = dataclasses.field(repr=False)

    def model(self, index: int = 0) -> Any:
        """Return the trained module of a run.

        Args:
            index: the position of the run in `seeds`.

        Returns:
            A module as `make_model` builds it.
        """
        return nnx.merge(self._graph, jax.tree.map(lambda leaf: leaf[index], self._state))

    def columns(self) -> dict[str, np.ndarray]:
        """Return the loss and metrics as a tidy table, a row per seed and recorded point.

        Returns:
            Columns by name: `seed`, `update`, `loss`, the metrics, and `failed_at`, the update
            after which the run had its first non-finite value, -1 if it never had. From then on
            loss and metrics are NaN, whatever they would have been.
        """
        seeds, updates = np.broadcast_arrays(self.seeds[:, None], self.updates)
        failed = {failure.seed: failure.update for failure in self.failures}
        failed_at = np.array([failed.get(int(seed), -1) for seed in self.seeds])[:, None]
        gone = (failed_at >= 0) & (updates >= failed_at)
        values = {"loss": self.loss, **self.metrics}
        columns = {"seed": seeds, "update": updates}
        columns |= {name: np.where(gone, np.nan, value) for name, value in values.items()}
        columns["failed_at"] = np.broadcast_to(failed_at, updates.shape)
        return {name: column.ravel() for name, column in columns.items()}


def fit(
    make_model: Callable[[nnx.Rngs], Any],
    objective: Objective | Method,
    x: Any,
    y: ArrayLike,
    *,
    epochs: int,
    batch_size: int,
    learning_rate: ArrayLike,
    relaxation: optax.Schedule | None = None,
    optimizer: Optimizer = optax.adam,
    seeds: Sequence[int] = (0,),
    metrics: Mapping[str, Objective] | None = None,
    probes: Mapping[str, Callable[[Any], Any]] | None = None,
    evaluation: tuple[Any, ArrayLike] | None = None,
    record_at: Sequence[int] | None = None,
    on_nonfinite: Literal["raise", "record"] = "raise",
    progress: bool | None = None,
    label: str = "training",
) -> Fit:
    """Train a model from each of several seeds, all of them in one compiled program.

    The updates run in a compiled loop, batched over the seeds; a seed's examples are shuffled on
    the device at the start of each epoch, and the examples that do not fill a last batch are left
    out of that epoch. The program is compiled once for a given `make_model`, `objective`,
    `optimizer`, `metrics` and `probes` (compared by identity) and shapes: other seeds, learning
    rates or data of the same shapes reuse it.

    Args:
        make_model: builds a Flax NNX module from random streams; called with `x` the module
            returns a `GaussianMixture`.
        objective: `objective(mixture, y)`, one value per example, or a `Method` with its unit; the
            mean is minimised.
        x: inputs, a pytree of arrays with leading axis `N`, or None for a model without input.
        y: targets, shape `(N, D)`.
        epochs: passes through the data.
        batch_size: examples per update, at most `N`.
        learning_rate: a number, or one per seed.
        relaxation: what `objective` gets as its argument `relaxation` at each update, a function of
            the number of updates before it; for `ngem` a `relaxation_schedule`. None: `objective`
            is called without.
        optimizer: maps a learning rate to an optax transformation, or is a `KFAC`; one of
            `ngem_tutorial.optimizers.OPTIMIZERS`, for example; `optax.adam` by default. Its
            `update` may take the extra argument `step`, the number of updates before this one.
        seeds: distinct integers; each sets the initialisation and the shuffling of its run.
        metrics: functions like `objective`, evaluated per example and averaged over the
            evaluation data; the negative log-likelihood by default.
        probes: functions of the model, recorded as they are.
        evaluation: `(x, y)` for the metrics; the training data by default.
        record_at: increasing numbers of updates at which to evaluate; about 100 evenly spaced
            ones, the first 0 and the last the end, by default. Training stops at the last.
        on_nonfinite: `"raise"` stops with an error at the next recorded point, `"record"` goes on
            and lists the run in `Fit.failures`. Once every run has failed, training stops: the
            recorded points that are left repeat the last.
        progress: show a progress bar; by default where the output is a terminal and the
            environment variable `NGEM_PROGRESS` is not 0.
        label: what the progress bar is called.

    Returns:
        The recorded values and the trained models.

    Raises:
        ValueError: if an argument does not fit the others, before any computing.
        NonFiniteError: if a loss or parameter stops being finite and `on_nonfinite` is "raise".
    """
    y = jnp.asarray(y)
    x = jax.tree.map(jnp.asarray, x)
    data_eval = (x, y) if evaluation is None else jax.tree.map(jnp.asarray, evaluation)
    num_updates = _check_sizes(x, y, epochs, batch_size)
    seed_array, rates = _check_seeds(seeds, learning_rate)
    points = _check_record_at(record_at, num_updates)
    if on_nonfinite not in ("raise", "record"):
        raise ValueError(f'on_nonfinite must be "raise" or "record", got {on_nonfinite!r}')
    _check_finite(x=x, y=y, evaluation=data_eval)
    program = _Program(
        make_model,
        objective,
        relaxation,
        optimizer,
        batch_size,
        tuple((metrics if metrics is not None else {"nll": nll}).items()),
        tuple((probes or {}).items()),
    )
    start = time.perf_counter()
    state = _initialise(program, seed_array, rates, x, y)
    state = _advance(program, state, rates, x, y, 0, 0)  # compiles; does no update
    jax.block_until_ready((state, _evaluate(program, state, *data_eval)))
    compiled = time.perf_counter()

    rows, done = [], 0
    with _progress_bar(progress, label, int(points[-1])) as advance_bar:
        for point in points.tolist():  # Python integers, as above: one program
            state = _advance(program, state, rates, x, y, done, point)
            rows.append(jax.device_get(_evaluate(program, state, *data_eval)))
            failures = _failures(program, state, seeds)
            if failures and on_nonfinite == "raise":
                raise NonFiniteError(failures)
            advance_bar(point - done)
            done = point
            if len(failures) == len(seeds):
                break
    rows += rows[-1:] * (len(points) - len(rows))
    seconds = time.perf_counter() - compiled
    history = jax.tree.map(lambda *leaves: np.stack(leaves, axis=1), *rows)
    return Fit(
        seeds=np.asarray(seeds),
        updates=points,
        loss=history["loss"],
        metrics=history["metrics"],
        probes=history["probes"],
        failures=failures,
        seconds=seconds,
        compile_seconds=compiled - start,
        _graph=_abstract_model(program)[0],
        _state=nnx.merge_state(state.params, state.rest),
    )


class _Program(NamedTuple):
    """What a compiled program depends on besides shapes; compared by identity of its functions."""

    make_model: Callable[[nnx.Rngs], Any]
    objective: Objective | Method
    relaxation: optax.Schedule | None
    optimizer: Optimizer
    batch_size: int
    metrics: tuple[tuple[str, Objective], ...]
    probes: tuple[tuple[str, Callable[[Any], Any]], ...]


class _State(NamedTuple):
    """What changes during training; every leaf has a leading axis of seeds."""

    params: Params
    rest: Any
    optimizer: Any
    key: jax.Array
    order: jax.Array
    """Order of the examples in this epoch."""
    loss: jax.Array
    """Mean of the loss since the last recorded point."""
    failed_at: jax.Array
    """Update after which a value was first not finite, -1 if none."""
    failed_leaf: jax.Array
    """Position of the first such parameter, their number for the loss."""


@partial(jax.jit, static_argnums=0)
def _initialise(
    program: _Program, seeds: jax.Array, rates: jax.Array, x: Any, y: jax.Array
) -> _State:
    x_batch = jax.tree.map(lambda leaf: leaf[: program.batch_size], x)

    def one(seed: jax.Array, rate: jax.Array) -> _State:
        model_key, shuffle_key = jax.random.split(jax.random.key(seed))
        graph, params, rest = _split(program.make_model(nnx.Rngs(model_key)))
        return _State(
            params=params,
            rest=rest,
            optimizer=_optimizer(program, rate, graph, rest, x_batch, shuffle_key).init(params),
            key=shuffle_key,
            order=jnp.arange(y.shape[0]),
            # With dtypes: weakly typed values would make `_advance` compile a second time.
            loss=jnp.array(jnp.nan, float),
            failed_at=jnp.array(-1, int),
            failed_leaf=jnp.array(-1, int),
        )

    return _over_seeds(one)(seeds, rates)


@partial(jax.jit, static_argnums=0, donate_argnums=1)
def _advance(
    program: _Program, state: _State, rates: jax.Array, x: Any, y: jax.Array, start: int, stop: int
) -> _State:
    """Do the updates from `start` to `stop` (both traced: one program for all of them)."""
    graph = _abstract_model(program)[0]
    batches = y.shape[0] // program.batch_size

    def one(step: jax.Array, s: _State, rate: jax.Array) -> _State:
        epoch, batch = jnp.divmod(step, batches)
        order = jax.lax.cond(
            batch == 0,
            lambda: jax.random.permutation(jax.random.fold_in(s.key, epoch), y.shape[0]),
            lambda: s.order,
        )
        rows = jax.lax.dynamic_slice(order, (batch * program.batch_size,), (program.batch_size,))
        x_batch, y_batch = jax.tree.map(lambda leaf: leaf[rows], (x, y))

        def mean_loss(params: Params) -> jax.Array:
            mixture = nnx.merge(graph, params, s.rest)(x_batch)
            objective, options = program.objective, {}
            if program.relaxation is not None:
                options["relaxation"] = program.relaxation(step)
            if isinstance(objective, Method):
                if objective.unit == "batch":
                    options["unit"] = scale_unit(mixture)
                objective = objective.objective
            return jnp.mean(objective(mixture, y_batch, **options))

        loss, gradient = jax.value_and_grad(mean_loss)(s.params)
        key = jax.random.fold_in(jax.random.fold_in(s.key, _NO_EPOCH), step)
        transformation = _optimizer(program, rate, graph, s.rest, x_batch, key)
        change, optimizer = transformation.update(gradient, s.optimizer, s.params, step=step)
        params = optax.apply_updates(s.params, change)
        finite = [jnp.isfinite(leaf).all() for leaf in jax.tree.leaves((params, loss))]
        bad = ~jnp.stack(finite)
        first = (s.failed_at < 0) & bad.any()
        return s._replace(
            params=params,
            optimizer=optimizer,
            order=order,
            loss=s.loss + (loss - s.loss) / (step - start + 1),
            failed_at=jnp.where(first, step + 1, s.failed_at),
            failed_leaf=jnp.where(first, jnp.argmax(bad), s.failed_leaf),
        )

    def many(s: _State, rate: jax.Array) -> _State:
        fresh = s._replace(loss=jnp.where(start == stop, jnp.nan, 0.0).astype(s.loss.dtype))
        return jax.lax.fori_loop(start, stop, lambda step, s: one(step, s, rate), fresh)

    return _over_seeds(many)(state, rates)


_EVALUATION_BATCH = 1024
"""Examples whose metrics are computed at once, a bound on the memory."""


@partial(jax.jit, static_argnums=0)
def _evaluate(program: _Program, state: _State, x: Any, y: jax.Array) -> dict[str, Any]:
    """The metrics averaged over the data, the probes and the loss, for every seed."""
    graph = _abstract_model(program)[0]

    def one(s: _State) -> dict[str, Any]:
        model = nnx.merge(graph, s.params, s.rest)

        def per_example(example: tuple[Any, jax.Array]) -> dict[str, jax.Array]:
            mixture = model(example[0])
            return {name: metric(mixture, example[1]) for name, metric in program.metrics}

        values = jax.lax.map(per_example, (x, y), batch_size=min(_EVALUATION_BATCH, y.shape[0]))
        return {
            "loss": s.loss,
            "metrics": jax.tree.map(lambda value: value.mean(), values),
            "probes": {name: probe(model) for name, probe in program.probes},
        }

    return _over_seeds(one)(state)


_NO_EPOCH = 2**32 - 1
"""What is folded into the key, in place of an epoch, for what the optimizer draws."""


def _optimizer(
    program: _Program, rate: jax.Array, graph: Any, rest: Any, x: Any, key: jax.Array
) -> optax.GradientTransformationExtraArgs:
    """The transformation; K-FAC needs the model, the batch and a key for it."""
    make = program.optimizer
    if isinstance(make, KFAC):
        return make(rate, lambda params, x: nnx.merge(graph, params, rest)(x), x, key)
    return optax.with_extra_args_support(make(rate))


def _over_seeds(one: Callable[..., Any]) -> Callable[..., Any]:
    """Batch a function over a leading axis of seeds.

    A single run is not batched: on a CPU that doubled the time of a large network's update.
    """

    def all_seeds(*arguments: Any) -> Any:
        if jax.tree.leaves(arguments)[0].shape[0] > 1:
            return jax.vmap(one)(*arguments)
        result = one(*jax.tree.map(lambda leaf: leaf[0], arguments))
        return jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], result)

    return all_seeds


def _split(model: Any) -> tuple[Any, Params, Any]:
    """A module's structure, its parameters and the rest of its state."""
    parts: Any = nnx.split(model, nnx.Param, ...)
    return parts


def _abstract_model(program: _Program) -> tuple[Any, Params, Any]:
    """`_split` of the program's module, without values."""
    return _split(nnx.eval_shape(lambda: program.make_model(nnx.Rngs(0))))


def _failures(program: _Program, state: _State, seeds: Sequence[int]) -> tuple[Failure, ...]:
    updates, leaves = jax.device_get((state.failed_at, state.failed_leaf))
    if (updates < 0).all():
        return ()
    with_path = jax.tree_util.tree_leaves_with_path(_abstract_model(program)[1])
    names = [jax.tree_util.keystr(path, simple=True, separator=".") for path, _ in with_path]
    names = [*(name.removesuffix(".value") for name in names), "loss"]
    return tuple(
        Failure(int(seed), int(update), names[leaf])
        for seed, update, leaf in zip(seeds, updates, leaves, strict=True)
        if update >= 0
    )


_QUIET: ContextVar[bool] = ContextVar("quiet", default=False)


@contextmanager
def quiet() -> Iterator[None]:
    """Show no progress bars of `fit` within: for a caller with a bar of its own.

    Returns:
        A context manager.
    """
    token = _QUIET.set(True)
    try:
        yield
    finally:
        _QUIET.reset(token)


@contextmanager
def _progress_bar(show: bool | None, label: str, total: int) -> Iterator[Callable[[int], None]]:
    """Give a function that moves the bar on, or one that does nothing."""
    if show is None:
        switched_off = _QUIET.get() or os.environ.get("NGEM_PROGRESS") == "0"
        show = sys.stderr.isatty() and not switched_off
    if not show:
        yield lambda _: None
        return
    columns = (
        rich_progress.TextColumn("{task.description}"),
        rich_progress.BarColumn(),
        rich_progress.MofNCompleteColumn(),
        rich_progress.TextColumn("updates, left"),
        rich_progress.TimeRemainingColumn(),
    )
    with rich_progress.Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(label, total=total)
        yield lambda updates: bar.advance(task, updates)


def _check_sizes(x: Any, y: jax.Array, epochs: int, batch_size: int) -> int:
    """Check the data's sizes; return the number of updates."""
    if y.ndim != 2 or y.shape[0] == 0:
        raise ValueError(f"y must have shape (N, D), got {y.shape}")
    for leaf in jax.tree.leaves(x):
        if leaf.ndim == 0 or leaf.shape[0] != y.shape[0]:
            raise ValueError(
                f"x must have as many examples as y, {y.shape[0]}, got shape {leaf.shape}"
            )
    if epochs < 1:
        raise ValueError(f"epochs must be at least 1, got {epochs}")
    if not 1 <= batch_size <= y.shape[0]:
        raise ValueError(f"batch_size must be from 1 to {y.shape[0]}, got {batch_size}")
    return epochs * (y.shape[0] // batch_size)


def _check_seeds(seeds: Sequence[int], learning_rate: ArrayLike) -> tuple[jax.Array, jax.Array]:
    """Return seeds and learning rates as arrays of one length."""
    if len(seeds) == 0 or len(set(seeds)) != len(seeds):
        raise ValueError(f"seeds must be distinct integers, at least one, got {seeds}")
    rates = np.asarray(learning_rate, dtype=float)
    if rates.ndim > 1 or rates.size not in (1, len(seeds)):
        raise ValueError(
            f"learning_rate must be a number or one per seed ({len(seeds)}), got shape "
            f"{rates.shape}"
        )
    if not (np.isfinite(rates).all() and (rates > 0).all()):
        raise ValueError(f"learning_rate must be positive and finite, got {learning_rate}")
    return jnp.asarray(seeds), jnp.broadcast_to(jnp.asarray(rates), (len(seeds),))


def _check_record_at(record_at: Sequence[int] | None, num_updates: int) -> np.ndarray:
    if record_at is None:
        return np.unique(np.linspace(0, num_updates, 101).round().astype(int))
    points = np.asarray(record_at)
    if (
        points.ndim != 1
        or points.size == 0
        or not np.issubdtype(points.dtype, np.integer)
        or (np.diff(points) <= 0).any()
        or points[0] < 0
        or points[-1] > num_updates
    ):
        raise ValueError(
            f"record_at must be increasing whole numbers from 0 to {num_updates}, got {record_at}"
        )
    return points


def _check_finite(**data: Any) -> None:
    for name, value in data.items():
        for leaf in jax.tree.leaves(value):
            if not bool(jnp.isfinite(leaf).all()):
                raise ValueError(
                    f"{name} must be finite, got {int((~jnp.isfinite(leaf)).sum())} "
                    "values that are not"
                )
