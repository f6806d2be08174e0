"""Checks of what a training is called with, before any computing."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import optax
from flax import nnx

from ngem_tutorial._checks import (
    accepts,
    check_choice,
    check_number,
    check_objective,
    check_whole,
    described,
    takes,
)
from ngem_tutorial._training.data import Data, make_data
from ngem_tutorial.methods import INITIAL_MEANS, METHODS, Method
from ngem_tutorial.objectives import Objective, RelaxationSchedule
from ngem_tutorial.optimizers import OPTIMIZERS
from ngem_tutorial.power import PowerSchedule

__all__ = [
    "check_evaluation",
    "check_functions",
    "check_initial_means",
    "check_maker",
    "check_model",
    "check_patience",
    "check_points",
    "check_rates",
    "check_relaxation",
    "check_seeds",
    "to_method",
]


def check_model(make_model: Any, num_seeds: int) -> None:
    """Check that a model is a module, for one seed, or a maker of modules."""
    if isinstance(make_model, nnx.Module):
        if num_seeds > 1:
            raise ValueError(
                "model must be a function of nnx.Rngs that builds the module for several seeds, "
                f"such as lambda rngs: Network(..., rngs=rngs); got a module and {num_seeds} seeds"
            )
        return
    # A class of modules is called with the streams, like any maker.
    is_class = isinstance(make_model, type)
    if not callable(make_model) or (is_class and not issubclass(make_model, nnx.Module)):
        raise ValueError(
            "model must be a Flax NNX module or a function of nnx.Rngs that builds one, got "
            f"{described(make_model)}"
        )
    if not accepts(make_model, 1):
        name = make_model.__name__ if is_class else "Network"
        raise ValueError(
            "model must be a Flax NNX module or a function of nnx.Rngs alone that builds one, such "
            f"as lambda rngs: {name}(..., rngs=rngs), got {described(make_model)}, which takes "
            "other arguments"
        )


def to_method(objective: Any) -> Method:
    """Return an objective as a method with its schedule and unit left out.

    Args:
        objective: a `Method` or a function of a mixture and targets.

    Returns:
        A `Method`.

    Raises:
        ValueError: if it is neither.
    """
    if isinstance(objective, Method):
        return objective
    check_objective(objective, "a function of a mixture and targets, or a Method", METHODS)
    return Method(getattr(objective, "__name__", "objective"), objective)


def check_relaxation(relaxation: Any, method: Method, num_updates: int) -> optax.Schedule | None:
    """Return the schedule of the relaxation.

    Args:
        relaxation: a number, a schedule or None, for that of the method.
        method: what is trained.
        num_updates: length of the training.

    Returns:
        A schedule, or None if the objective is to be called without.

    Raises:
        ValueError: if it is something else, out of range, or the objective takes none.
    """
    if relaxation is None:
        if method.schedule is None:
            return None
        schedule = method.schedule(num_updates)
        if not callable(schedule):
            raise ValueError(
                f"objective must be a Method whose schedule maps the number of all updates to a "
                f"schedule, as relaxation_schedule does; that of {method.name!r} returned "
                f"{described(schedule)}: is it the schedule itself?"
            )
        return _check_schedule(schedule, num_updates, method)
    if not callable(relaxation):
        try:
            number = float(relaxation)
        except (TypeError, ValueError):
            number = np.nan
        if not 0.0 <= number <= 1.0:
            raise ValueError(
                "relaxation must be a number from 0 to 1 or a schedule, a function of the number "
                f"of updates done such as relaxation_schedule(num_updates), got {relaxation!r}"
            )
        relaxation = _Constant(number)
    if not takes(method.objective, "relaxation"):
        raise ValueError(f"relaxation must be None: the objective {method.name!r} takes none")
    return _check_schedule(relaxation, num_updates, method)


def check_initial_means(initial_means: Any, method: Method) -> dict[str, Any]:
    """Return how means are to be chosen, as settings of a training.

    Args:
        initial_means: one of `INITIAL_MEANS`, or None for what the method says.
        method: what is trained.

    Returns:
        `initial_means` and `must_set_means` of `Settings`.

    Raises:
        ValueError: if it is something else.
    """
    if initial_means is not None:
        check_choice("initial_means", initial_means, INITIAL_MEANS)
    chosen = method.initial_means if initial_means is None else initial_means
    return {
        "initial_means": None if chosen == "own" else chosen,
        "must_set_means": initial_means is not None,
    }


class _Constant(float):
    """A schedule that does not change; equal ones are equal."""

    def __call__(self, _: Any) -> float:
        return float(self)


def _check_schedule(schedule: optax.Schedule, num_updates: int, method: Method) -> optax.Schedule:
    """Check that a schedule can be traced and, at both ends, that it is in range."""
    if isinstance(schedule, PowerSchedule):
        lacking = [n for n in ("exponent", "balance") if not takes(method.objective, n)]
        if lacking:
            raise ValueError(
                f"a PowerSchedule needs an objective that takes {lacking[0]}, such as Power(): "
                f"{method.name!r} takes none"
            )
        return schedule  # checked when it was made
    if isinstance(schedule, RelaxationSchedule | _Constant):
        return schedule  # checked when it was made
    try:
        value = jax.eval_shape(schedule, jax.ShapeDtypeStruct((), np.int32))
    except jax.errors.JAXTypeError:
        raise ValueError(
            "relaxation must be a schedule that JAX can trace: the number of updates done is not "
            "known when it is called. In the place of `if` use jax.numpy.where"
        ) from None
    if jax.numpy.shape(value) != ():
        raise ValueError(f"relaxation must return a number, got shape {jax.numpy.shape(value)}")
    for count in (0, num_updates - 1):
        check_number(
            f"relaxation({count})", schedule(count), "from 0 to 1", lambda e: (e >= 0) & (e <= 1)
        )
    return schedule


def check_seeds(seeds: Any) -> np.ndarray:
    """Return seeds as an array.

    Args:
        seeds: distinct whole numbers from 0 to 2^31 - 1.

    Returns:
        Shape `(S,)`.

    Raises:
        ValueError: if they are something else.
    """
    try:
        values = [operator.index(seed) for seed in seeds]
    except TypeError:
        values = []
    if not values or len(set(values)) != len(values) or not 0 <= min(values) <= max(values) < 2**31:
        raise ValueError(
            "seeds must be distinct integers, at least one, in a sequence such as (0,) or "
            f"range(3), not negative and below 2^31, got {seeds!r}"
        )
    return np.asarray(values)


def check_rates(learning_rate: Any, num_seeds: int) -> np.ndarray:
    """Return a learning rate for each seed.

    Args:
        learning_rate: a positive number, or one per seed.
        num_seeds: `S`.

    Returns:
        Shape `(S,)`.

    Raises:
        ValueError: if it is something else.
    """
    try:
        rates = np.asarray(learning_rate, dtype=float)
    except (TypeError, ValueError):
        hint = (
            "; for a schedule, pass optimizer=lambda rate: optax.adam(lambda n: rate * f(n))"
            if callable(learning_rate)
            else ""
        )
        raise ValueError(
            f"learning_rate must be a number or one per seed, got {learning_rate!r}{hint}"
        ) from None
    if rates.ndim > 1 or rates.size not in (1, num_seeds):
        raise ValueError(
            f"learning_rate must be a number or one per seed ({num_seeds}), got shape {rates.shape}"
        )
    if not (np.isfinite(rates).all() and (rates > 0).all()):
        raise ValueError(f"learning_rate must be positive and finite, got {learning_rate}")
    return np.broadcast_to(rates, (num_seeds,))


def check_points(record_at: Any, num_updates: int) -> list[int]:
    """Return the numbers of updates at which to evaluate.

    Args:
        record_at: increasing, or None for about a hundred.
        num_updates: length of the training.

    Returns:
        The numbers.

    Raises:
        ValueError: if they are out of range or out of order.
    """
    if record_at is None:
        return np.unique(np.linspace(0, num_updates, 101).round().astype(int)).tolist()
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
    return points.tolist()


def check_functions(
    name: str, functions: Mapping[str, Any] | None, default: Mapping[str, Objective]
) -> dict[str, Any]:
    """Return functions by name.

    Args:
        name: of the argument.
        functions: a mapping from names to functions, or None for the default.
        default: likewise.

    Returns:
        The functions.

    Raises:
        ValueError: if it is something else.
    """
    functions = default if functions is None else functions
    if not isinstance(functions, Mapping) or not all(map(callable, functions.values())):
        raise ValueError(
            f'{name} must map names to functions, such as {{"nll": nll}}, got {functions!r}'
        )
    return dict(functions)


def check_maker(optimizer: Any) -> Any:
    """Check that an optimizer of `train` is a function of the learning rate.

    Args:
        optimizer: what it is.

    Returns:
        The same.

    Raises:
        ValueError: if it is not.
    """
    if isinstance(optimizer, optax.GradientTransformation) or not callable(optimizer):
        known = isinstance(optimizer, str) and optimizer in OPTIMIZERS
        got = f"{optimizer!r}, a name" if known else type(optimizer).__name__
        hint = f": get_optimizer({optimizer!r}) is one" if known else ""
        raise ValueError(
            "optimizer must map a learning rate to an optax transformation, such as optax.adam, or "
            f"lambda rate: optax.sgd(rate, momentum=0.9), got {got}{hint}"
        )
    return optimizer


def check_patience(patience: Any, validation: Any, metrics: Mapping[str, Any]) -> int | None:
    """Return the patience of early stopping.

    Args:
        patience: a positive whole number of evaluations, or None.
        validation: of `train`.
        metrics: of `train`.

    Returns:
        The same.

    Raises:
        ValueError: if it is something else, or there is nothing to judge by.
    """
    if validation is None and patience is not None:
        raise ValueError("patience needs validation data to judge by: pass validation")
    if validation is not None and not metrics:
        raise ValueError("validation needs a metric to judge by, got metrics={}")
    return None if patience is None else check_whole("patience", patience, 1)


def check_evaluation(name: str, value: Any, like: Data) -> Data:
    """Return evaluation or validation data.

    Args:
        name: of the argument.
        value: `(x, y)` or `(x, y, weights)`.
        like: the training data.

    Returns:
        The data.

    Raises:
        ValueError: if it is something else, or of other shapes than the training data.
    """
    if not isinstance(value, tuple | list) or len(value) not in (2, 3):
        raise ValueError(f"{name} must be (x, y) or (x, y, weights), got {type(value).__name__}")
    data = make_data(*value, name=name)
    if data.y.shape[-1] != like.y.shape[-1]:
        raise ValueError(
            f"{name} y must have the last axis of y, {like.y.shape[-1]}, got {data.y.shape}"
        )
    return data
