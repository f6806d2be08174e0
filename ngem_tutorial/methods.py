"""The methods that are compared: an objective, and what it is trained with, under one name."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from typing import Any, Final, Literal, get_args, get_type_hints

import optax

from ngem_tutorial import variants
from ngem_tutorial._checks import check_choice, check_objective, described, takes
from ngem_tutorial.fisher import Coordinate
from ngem_tutorial.objectives import (
    Objective,
    RelaxationSchedule,
    ngem,
    nll,
    relaxation_schedule,
    sgem,
)
from ngem_tutorial.power import whitened_nll
from ngem_tutorial.variants import Variant

__all__ = ["INITIAL_MEANS", "METHODS", "Method", "get_method", "slug"]


INITIAL_MEANS: Final = ("own", "random", "kmeans++")
"""Where the means of a network may start, see `Method`."""


@dataclasses.dataclass(frozen=True)
class Method:
    """An objective with the options that it is trained with; equal ones hash equal.

    Args:
        name: in tables and figures.
        objective: one value per example, of a mixture and targets.
        schedule: from the number of updates of a training to the `relaxation` at each update, or
            to a `PowerSchedule`, for an objective such as `power.Power`; None: the objective is
            called without.
        unit: what the training loop passes as `unit`: `"batch"`, the `scale_unit` of the batch's
            mixtures, `"pooled"`, the `pooled_unit` of that, one number for all coordinates, or
            `"target"`, nothing, so that means are measured in the targets' own units.
        initial_means: where the means of a network start that was made without: at targets that
            `choose_initial_means` chooses, `"kmeans++"` or `"random"`, or `"own"`, where the
            network has them; None: `"kmeans++"` in `fit` and `"own"` in `loop.train`.

    Raises:
        ValueError: if `unit` or `initial_means` is none of them, the objective is no function of a
            mixture and targets or takes no unit or no relaxation, or the schedule is no function.

    Example:
        >>> from ngem_tutorial import METHODS, Method, nll, relaxation_schedule, variants
        >>> METHODS["NLL"] == Method("NLL", nll)
        True
        >>> mine = Method("mine", variants.as_derived, schedule=relaxation_schedule, unit="batch")
        >>> mine.schedule(1000).num_updates
        1000
    """

    name: str
    objective: Objective
    schedule: Callable[[int], optax.Schedule] | None = None
    unit: Literal["target", "batch", "pooled"] = "target"
    initial_means: Literal["own", "random", "kmeans++"] | None = None

    def __post_init__(self) -> None:
        """Check the unit, and that the objective takes what it is to be called with."""
        check_objective(self.objective, "a function of a mixture and targets")
        if self.schedule is not None and not callable(self.schedule):
            raise ValueError(
                "schedule must be a function of the number of updates of a training, such as "
                f"relaxation_schedule, or None, got {described(self.schedule)}"
            )
        check_choice("unit", self.unit, get_args(get_type_hints(type(self))["unit"]))
        if self.initial_means is not None:
            check_choice("initial_means", self.initial_means, INITIAL_MEANS)
        given = {"unit": self.unit != "target", "relaxation": self.schedule is not None}
        for name, is_given in given.items():
            if is_given and not takes(self.objective, name):
                what = "unit must be 'target'" if name == "unit" else "schedule must be None"
                raise ValueError(f"{what}: the objective of {self.name!r} takes no {name}")


def _slightly_relaxed(num_updates: int) -> RelaxationSchedule:
    return relaxation_schedule(num_updates, initial=0.01)


METHODS: Final[dict[str, Method]] = {
    method.name: method
    for method in (
        Method("NLL", nll),
        Method("SGEM", sgem),
        Method("whitened NLL", whitened_nll, _slightly_relaxed, "pooled", "kmeans++"),
        Method("damped nGEM", ngem, relaxation_schedule, "batch"),
        Method("undamped nGEM", variants.undamped),
        Method("nGEM, paper's code", variants.paper_code),
        Method("nGEM, as derived", variants.as_derived),
        Method("nGEM, eq. (68)", variants.eq68),
        Method("fully damped nGEM", variants.fully_damped),
    )
}
"""Every method that the book compares, by name. The package recommends whitened NLL. Damped nGEM,
`ngem`, is what it recommended before; the others that are called after nGEM are in `variants`."""


def get_method(
    name: str,
    *,
    coordinate: Coordinate | None = None,
    unit: Literal["target", "batch", "pooled"] | None = None,
) -> Method:
    """Return a method, or the same in another coordinate or unit.

    Args:
        name: one of `METHODS`.
        coordinate: in which coordinate of the scale the Fisher block acts, None for the method's
            own; without effect on `NLL`, `SGEM` and `whitened NLL`. See `variants.Variant`.
        unit: in which unit means are measured, None for the method's own; without effect on `NLL`
            and `SGEM`. See `Method`.

    Returns:
        The method; equal arguments give equal methods.

    Raises:
        ValueError: if there is no such method, coordinate or unit.

    Example:
        >>> from ngem_tutorial import METHODS, get_method
        >>> get_method("damped nGEM") == METHODS["damped nGEM"]
        True
        >>> get_method("damped nGEM", unit="target").unit
        'target'
    """
    check_choice("method", name, METHODS)
    method = METHODS[name]
    preconditioned = Variant() if method.objective is ngem else method.objective
    if coordinate is not None:
        check_choice("coordinate", coordinate, get_args(Coordinate))
    if unit is not None:
        check_choice("unit", unit, get_args(get_type_hints(Method)["unit"]))
    if not takes(method.objective, "unit"):
        return method
    changes: dict[str, Any] = {} if unit is None else {"unit": unit}
    if coordinate is not None and isinstance(preconditioned, Variant):
        own = dataclasses.replace(preconditioned, coordinate=coordinate)
        changes["objective"] = ngem if own == Variant() else own
    return dataclasses.replace(method, **changes)


def slug(name: str) -> str:
    """Return a name in the characters that files take.

    Args:
        name: of a method, for instance.

    Returns:
        The name with hyphens in the place of runs of other characters.
    """
    return re.sub(r"[^A-Za-z0-9.=+]+", "-", name).strip("-")
