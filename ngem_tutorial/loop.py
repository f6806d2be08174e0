"""The compiled loop beneath `fit`: many seeds in one program, learning rates as data.

`fit` is what a researcher calls. The experiments call `train`, which leaves data and units as they
are, goes on when a run fails, and records whatever a probe returns.
"""

from __future__ import annotations

import dataclasses
import operator
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import jax
import numpy as np
import optax
from flax import nnx

from ngem_tutorial._checks import check_choice, check_whole
from ngem_tutorial._training import arguments as checks
from ngem_tutorial._training.data import make_data
from ngem_tutorial._training.program import Optimizer
from ngem_tutorial._training.progress import progress_bar, quiet
from ngem_tutorial._training.trainer import Failure, Settings, Trainer
from ngem_tutorial._typing import ArrayLike, Float, Int
from ngem_tutorial.methods import Method
from ngem_tutorial.objectives import Objective, nll

__all__ = ["Failure", "Interrupted", "NonFiniteError", "Run", "quiet", "train"]


class NonFiniteError(FloatingPointError):
    """A loss or parameter stopped being finite; `failures` says in which run, when and where.

    Example:
        >>> import numpy as np, optax
        >>> from ngem_tutorial import MixtureDensityNetwork, NonFiniteError, fit, nll
        >>> x = np.linspace(-1, 1, 100)[:, None]
        >>> make = lambda rngs: MixtureDensityNetwork(1, 2, 1, hidden=(8,), rngs=rngs)
        >>> try:
        ...     fit(make, nll, x, x**2, epochs=4, batch_size=20, optimizer=optax.sgd(1e30))
        ... except NonFiniteError as error:
        ...     error.failures[0].seed
        0
    """

    def __init__(self, failures: Sequence[Failure]) -> None:
        self.failures = tuple(failures)
        first = min(self.failures, key=lambda failure: failure.update)
        super().__init__(
            f"non-finite value in {first.parameter} after update {first.update} (seed "
            f"{first.seed}; {len(self.failures)} seeds so far). Lower the learning rate, clip the "
            "gradient or raise the floor of the scales."
        )


class Interrupted(KeyboardInterrupt):
    """Training was interrupted from the keyboard; `run` is what was recorded until then."""

    def __init__(self, run: Any) -> None:
        self.run = run
        super().__init__(f"interrupted after {int(run.updates[-1])} updates; see .run")


@dataclasses.dataclass(frozen=True)
class Run:
    """The outcome of `train` for `S` seeds and `R` recorded points.

    Attributes:
        seeds: shape `(S,)`.
        updates: numbers of updates done at the recorded points, shape `(R,)`.
        loss: mean of the objective's value over the updates since the last recorded point, shape
            `(S, R)`; NaN at update 0.
        metrics: means over the evaluation data, shape `(S, R)` each.
        validation: means over the validation data, likewise; empty without validation data.
        probes: what the probes returned, with leading axes `(S, R)`.
        failures: the first non-finite value of each run that had one.
        best_update: number of updates done where the first validation metric was lowest, which is
            where the models are from; the last recorded point without validation data. Shape
            `(S,)`.
        seconds: wall time of the updates and evaluations, compilation apart.
        compile_seconds: wall time of the compilation, near zero if it was done before.
    """

    seeds: Int[np.ndarray, " S"]
    updates: Int[np.ndarray, " R"]
    loss: Float[np.ndarray, "S R"]
    metrics: dict[str, Float[np.ndarray, "S R"]]
    validation: dict[str, Float[np.ndarray, "S R"]]
    probes: dict[str, Any]
    failures: tuple[Failure, ...]
    best_update: Int[np.ndarray, " S"]
    seconds: float
    compile_seconds: float
    _graph: Any = dataclasses.field(repr=False)
    _state: Any = dataclasses.field(repr=False)

    def model(self, index: int = 0) -> Any:
        """Return the trained module of a run, in evaluation mode.

        Args:
            index: the position of the run in `seeds`; negative ones count from the end.

        Returns:
            A new module of the kind that was trained.

        Raises:
            IndexError: if there is no such run.
            TypeError: if the index is not a whole number.
        """
        try:
            index = operator.index(index)
        except TypeError:
            raise TypeError(f"index must be a whole number, got {index!r}") from None
        runs = len(self.seeds)
        if not -runs <= index < runs:
            raise IndexError(f"index must be from {-runs} to {runs - 1}, got {index}")
        return nnx.merge(self._graph, jax.tree.map(lambda leaf: leaf[index], self._state))

    def columns(self) -> dict[str, np.ndarray]:
        """Return the loss and metrics as a tidy table, a row per seed and recorded point.

        Returns:
            Columns by name: `seed`, `update`, `loss`, the metrics, those of the validation data
            with `validation_` before their name, and `failed_at`, the update after which the run
            had its first non-finite value, -1 if it never had. From then on loss and metrics are
            NaN, whatever they would have been.
        """
        seeds, updates = np.broadcast_arrays(self.seeds[:, None], self.updates)
        failed = {failure.seed: failure.update for failure in self.failures}
        failed_at = np.array([failed.get(int(seed), -1) for seed in self.seeds])[:, None]
        gone = (failed_at >= 0) & (updates >= failed_at)
        validation = {f"validation_{name}": value for name, value in self.validation.items()}
        values = {"loss": self.loss, **self.metrics, **validation}
        columns = {"seed": seeds, "update": updates}
        columns |= {name: np.where(gone, np.nan, value) for name, value in values.items()}
        columns["failed_at"] = np.broadcast_to(failed_at, updates.shape)
        return {name: column.ravel() for name, column in columns.items()}


def train(
    make_model: Callable[[nnx.Rngs], Any] | nnx.Module,
    objective: Objective | Method,
    x: Any,
    y: ArrayLike,
    *,
    epochs: int,
    batch_size: int,
    learning_rate: ArrayLike,
    optimizer: Optimizer = optax.adam,
    relaxation: float | optax.Schedule | None = None,
    initial_means: Literal["own", "random", "kmeans++"] | None = None,
    seeds: Sequence[int] = (0,),
    weights: ArrayLike | None = None,
    metrics: Mapping[str, Objective] | None = None,
    probes: Mapping[str, Callable[[Any], Any]] | None = None,
    evaluation: tuple[Any, ...] | None = None,
    validation: tuple[Any, ...] | None = None,
    patience: int | None = None,
    record_at: Sequence[int] | None = None,
    on_nonfinite: Literal["raise", "record"] = "raise",
    progress: bool | None = None,
    label: str = "training",
) -> Run:
    """Train a model from each of several seeds, all of them in one compiled program.

    The updates run in a compiled loop, batched over the seeds. Each epoch has its own uniformly
    random order of the examples, drawn on the host from the seed; the examples that do not fill a
    last batch are left out of that epoch. A module's state besides its parameters (statistics of
    `nnx.BatchNorm`, random streams of `nnx.Dropout`) is carried from update to update; metrics and
    probes see it in evaluation mode; `fit` says which mode it trains in. Programs are kept by what
    they compute: other seeds, learning rates, data of the same shapes or equal functions made anew
    do not compile again.

    Args:
        make_model: builds a Flax NNX module from random streams, or is a module, for one seed;
            called with `x` the module returns a `GaussianMixture`.
        objective: `objective(mixture, y)`, one value per example, or a `Method`, whose schedule
            and unit it then gets; the mean is minimised.
        x: inputs, a pytree of arrays with leading axis `N`, or None for a model without input. A
            list or tuple of numbers, nested or not, is one array, as is a table.
        y: targets, shape `(N, ..., D)`.
        epochs: passes through the data.
        batch_size: examples per update, at most `N`.
        learning_rate: a number, or one per seed; it is data of the program, not a part of it.
        optimizer: maps a learning rate to an optax transformation, or is a `KFAC`. Its `update` may
            take the extra arguments `step`, the number of updates before this one, `value`,
            `grad` and `value_fn`.
        relaxation: what `objective` gets as its argument `relaxation`: a number, or a function of
            the number of updates done. None: the schedule of the method, if it has one.
        initial_means: where the means of a network that was made without start: `"own"`, where it
            has them, or at targets, as `choose_initial_means` chooses them, which needs a function
            that builds the model and a `set_initial_means`. None: as the method says, if it can be
            done; `"own"` if it says nothing.
        seeds: distinct whole numbers; each sets the initialisation and the shuffling of its run.
        weights: of the examples, shape `(N, ...)`, not negative; scaled to a mean of one. The loss
            of a batch is the mean of weight times value, so that its gradient is that of the
            weighted mean on average. Where a weight is zero, the target may be NaN.
        metrics: functions like `objective`, averaged over the evaluation data; the negative
            log-likelihood by default.
        probes: functions of the model, recorded as they are.
        evaluation: `(x, y)` or `(x, y, weights)` for the metrics; the training data by default.
        validation: likewise; the models that are kept are those with the lowest first metric there.
        patience: number of recorded points without a new lowest value after which a run stops;
            None: it never does. What a stopped run records is NaN.
        record_at: increasing numbers of updates at which to evaluate; about 100 evenly spaced
            ones, the first 0 and the last the end, by default. Training stops at the last.
        on_nonfinite: `"raise"` stops with an error at the next recorded point, `"record"` goes on
            and lists the run in `Run.failures`. Once every run has failed, training stops: the
            recorded points that are left repeat the last.
        progress: show a progress bar; by default where the output is a terminal and the
            environment variable `NGEM_PROGRESS` is not 0.
        label: what the progress bar is called.

    Returns:
        The recorded values and the trained models.

    Raises:
        ValueError: if an argument does not fit the others, or a metric is not finite, before any
            training.
        NonFiniteError: if a loss, parameter or metric stops being finite and `on_nonfinite` is
            "raise". The error names the first update and parameter that had such a value.
        Interrupted: on a KeyboardInterrupt, with what was recorded until then.
    """
    chosen = checks.check_seeds(seeds)
    checks.check_model(make_model, len(chosen))
    data = make_data(x, y, weights)
    batch_size = check_whole("batch_size", batch_size, 1, data.size)
    num_updates = check_whole("epochs", epochs, 1) * (data.size // batch_size)
    points = checks.check_points(record_at, num_updates)
    method = checks.to_method(objective)
    settings = Settings(
        make_model=make_model,
        method=method,
        relaxation=checks.check_relaxation(relaxation, method, max(1, points[-1])),
        optimizer=checks.check_maker(optimizer),
        batch_size=batch_size,
        seeds=chosen,
        rates=checks.check_rates(learning_rate, len(chosen)),
        metrics=checks.check_functions("metrics", metrics, {"nll": nll}),
        probes=checks.check_functions("probes", probes, {}),
        **checks.check_initial_means(initial_means, method),
    )
    judged = {"metrics": data}
    if evaluation is not None:
        judged["metrics"] = checks.check_evaluation("evaluation", evaluation, data)
    if validation is not None:
        judged["validation"] = checks.check_evaluation("validation", validation, data)
    check_choice("on_nonfinite", on_nonfinite, ("raise", "record"))
    patience = checks.check_patience(patience, validation, settings.metrics)
    history = _History(Trainer(settings, data, judged, points[-1]), settings, patience)
    with progress_bar(progress, label, points[-1]) as advance_bar:
        try:
            for point in points:
                advance_bar(history.advance(point))
                if on_nonfinite == "raise":
                    if history.failures:
                        raise NonFiniteError(history.failures)
                    history.check_metrics()
                if history.finished:
                    break
        except KeyboardInterrupt as interrupt:
            raise history.interrupted(interrupt) from None
    return history.run(points)


class _History:
    """What is recorded of a training, and which states are the best."""

    def __init__(self, trainer: Trainer, settings: Settings, patience: int | None) -> None:
        self._trainer, self._seeds, self._patience = trainer, settings.seeds, patience
        self._criterion = next(iter(settings.metrics), None)
        self._start = time.perf_counter()
        self._points: list[int] = []
        self._rows: list[dict[str, Any]] = []
        self._kept = trainer.state
        runs = len(settings.seeds)
        self._best, self._best_row = np.full(runs, np.inf), np.zeros(runs, int)
        self._last_row = np.full(runs, np.iinfo(int).max)
        """The last recorded point of each run that has been stopped."""

    @property
    def failures(self) -> tuple[Failure, ...]:
        """Of the runs that were going: a run that has been stopped is computed on, unseen."""
        end = [*self._points, np.inf]
        rows = np.minimum(self._last_row, len(self._points))
        last = {int(seed): end[row] for seed, row in zip(self._seeds, rows, strict=True)}
        return tuple(f for f in self._trainer.failures if f.update <= last[f.seed])

    @property
    def finished(self) -> bool:
        stopped = bool((self._last_row < len(self._rows)).all())
        return stopped or len(self.failures) == len(self._seeds)

    def advance(self, point: int) -> int:
        """Train up to a point and record; return the number of updates."""
        moved = self._trainer.advance(point)
        row = self._trainer.evaluate()
        self._points.append(point)
        self._rows.append(row)
        if "validation" not in row:
            self._best_row[:] = len(self._rows) - 1
            self._kept = self._trainer.state
        else:
            self._judge(row["validation"][self._criterion])
        return moved

    def check_metrics(self) -> None:
        """Refuse a metric that was just recorded and is not finite, though the parameters are."""
        point = self._points[-1]
        for part in ("metrics", "validation"):
            for name, values in self._rows[-1].get(part, {}).items():
                wrong = np.flatnonzero(~np.isfinite(values) & (self._last_row >= len(self._rows)))
                if not len(wrong):
                    continue
                if point > 0:  # training has diverged
                    seeds = (int(self._seeds[run]) for run in wrong)
                    raise NonFiniteError([Failure(seed, point, f"{part}.{name}") for seed in seeds])
                raise ValueError(
                    f"{part} must be finite, got {values[wrong[0]]} for {name!r} before the first "
                    f"update (seed {self._seeds[wrong[0]]}): look at the data that it is computed "
                    "on and at what it computes"
                )

    def _judge(self, values: np.ndarray) -> None:
        here = len(self._rows) - 1
        better = (values < self._best) & (self._last_row > here)
        self._kept = Trainer.choose(better, self._trainer.state, self._kept)
        self._best = np.where(better, values, self._best)
        self._best_row[better] = here
        if self._patience is not None:
            out = (here - self._best_row >= self._patience) & (self._last_row > here)
            self._last_row[out] = here

    def interrupted(self, interrupt: KeyboardInterrupt) -> KeyboardInterrupt:
        """Return the interrupt with what was recorded, if that is anything."""
        return Interrupted(self.run(self._points)) if self._rows else interrupt

    def run(self, points: Sequence[int]) -> Run:
        """Return the outcome; if every run failed, the points that are left repeat the last."""
        rows = list(self._rows)
        if "validation" in rows[-1]:  # a run that could not be judged keeps its last state
            never = np.isinf(self._best)
            self._kept = Trainer.choose(never, self._trainer.state, self._kept)
            self._best_row[never] = len(rows) - 1
        if len(self.failures) == len(self._seeds):
            rows += rows[-1:] * (len(points) - len(rows))
        history = jax.tree.map(lambda *leaves: np.stack(leaves, axis=1), *rows)
        seen = np.arange(len(rows)) <= self._last_row[:, None]

        def until_stopped(values: np.ndarray) -> np.ndarray:
            return values if seen.all() else np.where(seen, values, np.nan)

        updates = np.asarray(points[: len(rows)])
        return Run(
            seeds=self._seeds,
            updates=updates,
            loss=until_stopped(history["loss"]),
            metrics=jax.tree.map(until_stopped, history["metrics"]),
            validation=jax.tree.map(until_stopped, history.get("validation", {})),
            probes=history["probes"],
            failures=self.failures,
            best_update=updates[self._best_row],
            seconds=time.perf_counter() - self._start,
            compile_seconds=self._trainer.compile_seconds,
            _graph=self._trainer.network,
            _state=nnx.merge_state(self._kept.params, self._kept.rest),
        )
