"""`fit`: train a mixture density network, with units, validation and seeds taken care of."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import jax
import numpy as np
import optax
from flax import nnx

from ngem_tutorial import loop
from ngem_tutorial._checks import described
from ngem_tutorial._training.arguments import (
    check_evaluation,
    check_functions,
    check_model,
    check_seeds,
    to_method,
)
from ngem_tutorial._training.data import Data, make_data
from ngem_tutorial._training.scaling import ScaleWarning, Scaling, warn_of_scales
from ngem_tutorial._typing import ArrayLike, Float, Int
from ngem_tutorial.loop import Failure, Interrupted, NonFiniteError, Run
from ngem_tutorial.methods import Method
from ngem_tutorial.mixtures import GaussianMixture
from ngem_tutorial.networks import Affine, PlainMixture, Standardized
from ngem_tutorial.objectives import Objective, nll
from ngem_tutorial.optimizers import KFAC, OPTIMIZERS

__all__ = ["Failure", "Fit", "Interrupted", "NonFiniteError", "ScaleWarning", "Scaling", "fit"]


@dataclasses.dataclass(frozen=True)
class Fit:
    """The outcome of `fit` for `S` seeds and `R` evaluations.

    Attributes:
        seeds: shape `(S,)`.
        updates: numbers of updates done at the evaluations, shape `(R,)`.
        loss: mean of the objective since the last evaluation, in the units that the network sees,
            shape `(S, R)`; NaN at update 0 and after a run has stopped.
        metrics: means over the evaluation data, the training data by default, in the units of the
            targets, shape `(S, R)` each.
        validation: the same over the validation data; empty without them.
        best_update: number of updates after which the model is kept, shape `(S,)`: that with the
            lowest first validation metric, the last without validation data.
        best: that lowest value, shape `(S,)`; NaN without validation data.
        scaling: shift and scale of inputs and targets; None with `standardize=False`.
        seconds: wall time of the updates and evaluations, compilation apart.
        compile_seconds: wall time of the compilation, near zero if it was done before.

    Example:
        >>> import numpy as np
        >>> from ngem_tutorial import MixtureDensityNetwork, fit, nll
        >>> x = np.linspace(-1, 1, 100)[:, None]
        >>> make = lambda rngs: MixtureDensityNetwork(1, 2, 1, hidden=(8,), rngs=rngs)
        >>> result = fit(make, nll, x, x**2, epochs=5, batch_size=20, validation=0.2)
        >>> result.updates.tolist() == list(range(21))  # evaluated before and after each update
        True
        >>> result.metrics["nll"].shape == result.validation["nll"].shape == (1, 21)
        True
        >>> result.model()(x).batch_shape
        (100,)
    """

    seeds: Int[np.ndarray, " S"]
    updates: Int[np.ndarray, " R"]
    loss: Float[np.ndarray, "S R"]
    metrics: dict[str, Float[np.ndarray, "S R"]]
    validation: dict[str, Float[np.ndarray, "S R"]]
    best_update: Int[np.ndarray, " S"]
    best: Float[np.ndarray, " S"]
    scaling: Scaling | None
    seconds: float
    compile_seconds: float
    _run: Run = dataclasses.field(repr=False)

    def model(self, index: int = 0) -> Any:
        """Return the best model of a run, in evaluation mode.

        Args:
            index: the position of the run in `seeds`; negative ones count from the end.

        Returns:
            A new module for raw inputs that returns mixtures of raw targets: a `Standardized` one,
            whose `network` is of the kind that was trained, or with `standardize=False` that
            itself.

        Raises:
            IndexError: if there is no such run.
            TypeError: if the index is not a whole number.
        """
        network = self._run.model(index)
        if self.scaling is None:
            return network
        return Standardized(network, self.scaling.inputs, self.scaling.targets)


def fit(
    model: Callable[[nnx.Rngs], Any] | nnx.Module,
    objective: Objective | Method,
    x: Any,
    y: ArrayLike,
    *,
    epochs: int,
    batch_size: int,
    optimizer: optax.GradientTransformation | None = None,
    relaxation: float | optax.Schedule | None = None,
    initial_means: Literal["own", "random", "kmeans++"] | None = None,
    seeds: Sequence[int] = (0,),
    weights: ArrayLike | None = None,
    validation: float | tuple[Any, ...] | None = None,
    patience: int | None = None,
    standardize: bool = True,
    metrics: Mapping[str, Objective] | None = None,
    evaluation: tuple[Any, ...] | None = None,
    record_at: Sequence[int] | None = None,
    progress: bool | None = None,
) -> Fit:
    """Train a model on data, from one seed or several.

    The network sees inputs and targets with mean zero and deviation one in each column, measured on
    the training data (integer inputs, which may be labels, are left as they are); the models that
    are returned take and give raw units. What you set in the network in units of the targets,
    `initial_means` or `min_scale`, is in standard units then; a `PlainMixture` starts where you put
    it. To go on with a model that `fit` returned, pass it: its units are kept.

    The means of a `MixtureDensityNetwork` that a function builds without `initial_means` start at
    targets that are far apart. A function that loads weights needs `initial_means="own"`.

    All seeds run in one compiled program. Programs are kept by what they compute, so a second call
    with equal settings and data of equal shapes does not compile, whatever closures were made anew.
    A module's other state is carried along: batch statistics are updated, and dropout draws anew in
    each update and seed. Metrics and returned models are in evaluation mode. A module that is given
    trains in training mode. What a function builds trains as it is built: statistics that it froze,
    with `use_running_average=True`, stay as they are.

    Args:
        model: a Flax NNX module, for one seed, which is left as it is, or a function of `nnx.Rngs`
            that builds one. Called with a batch of `x` it returns a `GaussianMixture`.
        objective: `nll`, say, a function of a mixture and targets with one value per example, whose
            mean is minimised; or a `Method` with its schedule and unit, such as
            `METHODS["whitened NLL"]`.
        x: inputs, a pytree of arrays with leading axis `N`, or None for a model without input. A
            list or tuple of numbers, nested or not, is one array, as is a pandas DataFrame.
        y: targets, shape `(N, D)`, or `(N, ..., D)` for one mixture per step of a sequence, say.
        epochs: passes through the data, each in an order of its own; what does not fill a last
            batch is left out of that epoch.
        batch_size: examples per update, at most `N`.
        optimizer: an optax transformation; `optax.adam(1e-3)` by default. Its learning rate may be
            a schedule.
        relaxation: what the objective gets as `relaxation`, a number from 0 to 1 or a function of
            the number of updates done, traced. Values in the middle of a training that are out
            of range count as the end that is nearest. None: the schedule of the `Method`, or
            nothing.
        initial_means: where the means of a network start that was made without: at `"random"`
            targets, at targets that `"kmeans++"` chooses (see `choose_initial_means`), or at its
            `"own"`. It takes a function that builds the model, and a `set_initial_means`, as
            `MixtureDensityNetwork` has it. None: as the `Method` says, else `"kmeans++"`, where
            that can be done.
        seeds: distinct whole numbers; each sets the initialisation and the shuffling of its run.
        weights: of the examples, shape `(N, ...)`, zero for padding. Only their ratios matter.
            Where one is zero, the target may be NaN. The units of `x` and `y` are measured with
            them.
        validation: data to judge by, `(x, y)` or `(x, y, weights)`, or a fraction of the examples
            to hold out, the same for all seeds and calls. The model of each run is then the one
            with the lowest value, on these data, of the first of the metrics.
        patience: number of evaluations without a new lowest value after which a run stops.
        standardize: whether the network sees standardised values. With False a `ScaleWarning` says
            what is likely to go wrong.
        metrics: functions of a mixture and targets in raw units, averaged over data; the negative
            log-likelihood by default, in nats, which is exact also where single precision would
            not hold the raw values.
        evaluation: `(x, y)` or `(x, y, weights)` for `Fit.metrics`; the training data by default.
        record_at: increasing numbers of updates at which to evaluate; about 100 evenly spaced
            ones, the first 0 and the last the end, by default. Training stops at the last.
        progress: show a progress bar with the time that is left; by default where the output is a
            terminal and the environment variable `NGEM_PROGRESS` is not 0.

    Returns:
        The recorded curves and the best models.

    Raises:
        ValueError: if an argument does not fit the others, or a metric is not finite, before any
            training.
        NonFiniteError: if a loss, parameter or metric stops being finite. The error names the
            seed, the update and the parameter.
        Interrupted: on a KeyboardInterrupt; its `run` is the `Fit` up to the last evaluation.

    Example:
        >>> import numpy as np
        >>> from ngem_tutorial import MixtureDensityNetwork, fit, nll
        >>> x = np.linspace(-1, 1, 100)[:, None]
        >>> make = lambda rngs: MixtureDensityNetwork(1, 2, 1, hidden=(8,), rngs=rngs)
        >>> result = fit(make, nll, x, x**2, epochs=5, batch_size=20, validation=0.2)
        >>> result.model()(x).mean.shape
        (100, 1)
    """
    check_model(model, len(check_seeds(seeds)))
    objective = to_method(objective)
    if objective.initial_means is None:
        objective = dataclasses.replace(objective, initial_means="kmeans++")
    data, held_out = _split(make_data(x, y, weights), validation)
    parts = {"evaluation": evaluation, "validation": held_out}
    others: dict[str, Any] = {
        name: None if part is None else check_evaluation(name, part, data)
        for name, part in parts.items()
    }
    functions = check_functions("metrics", metrics, {"nll": nll})
    warn_of_scales(data, standardized=standardize)
    scaling = None
    if standardize:
        scaling = _units_of(model) or Scaling.of(data)
        model = _in_standard_units(model, scaling)
        data = scaling.apply(data)
        others = {name: part and scaling.apply(part) for name, part in others.items()}
    settings: dict[str, Any] = {
        "epochs": epochs, "batch_size": batch_size, "relaxation": relaxation, "seeds": seeds,
        "initial_means": initial_means,
        "patience": patience, "record_at": record_at, "progress": progress,
        "learning_rate": 1.0, "optimizer": _Given(_check_optimizer(optimizer)),
        "metrics": {name: _in_raw_units(f, scaling) for name, f in functions.items()},
    }  # fmt: skip
    try:
        run = loop.train(
            model, objective, data.x, data.y, weights=data.weights, **others, **settings
        )
    except Interrupted as interrupt:
        raise Interrupted(_finish(interrupt.run, functions, scaling)) from None
    return _finish(run, functions, scaling)


@dataclasses.dataclass(frozen=True)
class _Given:
    """A transformation in the place of a function of the learning rate; equal for the same one."""

    transformation: optax.GradientTransformation

    def __call__(self, learning_rate: jax.Array) -> optax.GradientTransformation:
        return self.transformation


_ADAM = optax.adam(1e-3)


def _check_optimizer(optimizer: Any) -> optax.GradientTransformation:
    if optimizer is None:
        return _ADAM
    if not isinstance(optimizer, optax.GradientTransformation):
        name = getattr(optimizer, "__name__", repr(optimizer))
        hint = ", which has not been called" if callable(optimizer) else ""
        if isinstance(optimizer, str) and optimizer in OPTIMIZERS:
            hint = f", a name: get_optimizer({name})(1e-3) makes one"
        if isinstance(optimizer, KFAC) or optimizer == "kfac":
            hint = ": K-FAC needs the model, and is for ngem_tutorial.loop.train alone"
        raise ValueError(
            "optimizer must be an optax transformation such as optax.adam(1e-3), or with a "
            f"schedule optax.adam(schedule), got {name}{hint}"
        )
    return optimizer


def _split(data: Data, validation: Any) -> tuple[Data, Any]:
    """Hold out a fraction of the examples, or take the validation data as they are."""
    if validation is None or isinstance(validation, tuple | list):
        return data, validation
    number = isinstance(validation, float | np.floating)
    held_out = round(float(validation) * data.size) if number else 0
    if not 0 < held_out < data.size:
        raise ValueError(
            "validation must be (x, y), (x, y, weights) or a fraction between 0 and 1 that leaves "
            f"examples on both sides, got {validation!r}"
        )
    rows = np.random.default_rng(0).permutation(data.size)
    kept, judged = data.take(np.sort(rows[held_out:])), data.take(np.sort(rows[:held_out]))
    for part, what in ((judged, "held out"), (kept, "left to train on")):
        if part.weights is not None and not part.weights.any():
            raise ValueError(
                f"validation must leave examples that count on both sides: with {validation!r}, "
                f"those {what} all have weight zero. Pass validation data, (x, y, weights)"
            )
    return kept, tuple(judged)


def _units_of(model: Any) -> Scaling | None:
    """The units of a model that was trained before."""
    return Scaling(model.inputs, model.targets) if isinstance(model, Standardized) else None


def _in_standard_units(model: Any, scaling: Scaling) -> Any:
    """The model that sees and returns standard values."""
    if isinstance(model, Standardized):
        return model.network
    if isinstance(model, PlainMixture):
        return _moved(model, scaling)
    if callable(model) and not isinstance(model, nnx.Module):
        return _Standardizing(model, scaling)
    return model


@dataclasses.dataclass(frozen=True)
class _Standardizing:
    """A maker of models that see and return standard values."""

    make_model: Callable[[nnx.Rngs], Any]
    scaling: Scaling

    def __call__(self, rngs: nnx.Rngs) -> Any:
        model = self.make_model(rngs)
        if isinstance(model, Standardized):
            raise ValueError(
                "model must be the Standardized module itself, to go on with it, not a function "
                "that returns it"
            )
        return _moved(model, self.scaling) if isinstance(model, PlainMixture) else model


def _moved(model: PlainMixture, scaling: Scaling) -> PlainMixture:
    shift, scale = np.array(scaling.targets.shift), np.array(scaling.targets.scale)
    return PlainMixture(model().affine(-shift / scale, 1 / scale), model.coordinate)


@dataclasses.dataclass(frozen=True)
class _RawMetric:
    """A metric of raw values, called with standardised ones."""

    metric: Objective
    targets: Affine

    def __call__(self, mixture: GaussianMixture, y: jax.Array) -> jax.Array:
        if not isinstance(mixture, GaussianMixture):
            raise ValueError(
                "standardize must be False for a model that returns something other than a "
                f"GaussianMixture, got {described(mixture)}"
            )
        shift, scale = np.array(self.targets.shift), np.array(self.targets.scale)
        return self.metric(mixture.affine(shift, scale), shift + scale * y)


def _in_raw_units(metric: Objective, scaling: Scaling | None) -> Objective:
    """The metric to compute; for `nll`, in standard units, `_finish` adds what is missing."""
    if scaling is None or metric is nll:
        return metric
    return _RawMetric(metric, scaling.targets)


def _finish(run: Run, metrics: Mapping[str, Objective], scaling: Scaling | None) -> Fit:
    def raw(values: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        if scaling is None:
            return values
        exact = {name: v + scaling.log_scale for name, v in values.items() if metrics[name] is nll}
        return values | exact

    validation = raw(run.validation)
    best = np.full(len(run.seeds), np.nan)
    if validation:
        first = next(iter(validation.values()))
        row = np.searchsorted(run.updates, run.best_update)
        best = np.take_along_axis(first, row[:, None], axis=1)[:, 0]
    return Fit(
        seeds=run.seeds,
        updates=run.updates,
        loss=run.loss,
        metrics=raw(run.metrics),
        validation=validation,
        best_update=run.best_update,
        best=best,
        scaling=scaling,
        seconds=run.seconds,
        compile_seconds=run.compile_seconds,
        _run=run,
    )
