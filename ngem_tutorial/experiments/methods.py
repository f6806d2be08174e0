"""The objectives that the experiments compare, by the names used in tables and figures."""

from __future__ import annotations

import dataclasses
import re
from functools import cache, partial
from typing import Any

import optax

from ngem_tutorial.fisher import PRECONDITIONERS, Coordinate, Preconditioner, Units
from ngem_tutorial.objectives import ngem, nll, relaxation_schedule, sgem
from ngem_tutorial.training import Objective

__all__ = ["METHODS", "get_objective", "get_relaxation", "slug"]

_PRESETS = {
    "nGEM": "default",
    "nGEM (undamped)": "undamped",
    "nGEM (listing)": "listing",
    "nGEM (derived)": "derived",
    "nGEM (damped)": "damped",
}

METHODS: tuple[str, ...] = ("NLL", "SGEM", *_PRESETS)
"""Names of the compared objectives. `nGEM` is the package's default preconditioner, `undamped` the
same without damping and in the paper's coordinates, `listing` the code of the paper's Appendix C,
`derived` its section 3.3 with the Moore-Penrose inverse."""


def get_objective(
    method: str, coordinate: Coordinate | None = None, units: Units | None = None
) -> Objective:
    """Return the objective of a method; the same object for the same arguments.

    Args:
        method: one of `METHODS`.
        coordinate: in which coordinate of the scale the Fisher block acts, None for that of the
            method's preset; without effect on `NLL` and `SGEM`.
        units: in which units the natural gradient is measured, None for those of the method's
            preset; without effect on `NLL` and `SGEM`. See `Preconditioner`.

    Returns:
        A function of a mixture and targets: one value per example.

    Raises:
        ValueError: if there is no such method, coordinate or choice of units.
    """
    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}, got {method!r}")
    if method not in _PRESETS:
        return _objective(method, None)
    changes: dict[str, Any] = {"coordinate": coordinate, "units": units}
    changes = {name: value for name, value in changes.items() if value is not None}
    return _objective(method, dataclasses.replace(PRECONDITIONERS[_PRESETS[method]], **changes))


def get_relaxation(method: str, num_updates: int) -> optax.Schedule | None:
    """Return the schedule that a method is trained with, for `fit`; the same object each time.

    Args:
        method: one of `METHODS`.
        num_updates: length of the training.

    Returns:
        A `relaxation_schedule` for `nGEM`, as the package recommends it; None for the others.

    Raises:
        ValueError: if `num_updates` is not positive.
    """
    return _schedule(num_updates) if method == "nGEM" else None


def slug(name: str) -> str:
    """Return a name in the characters that files take.

    Args:
        name: of a method, for instance.

    Returns:
        The name with hyphens in the place of runs of other characters.
    """
    return re.sub(r"[^A-Za-z0-9.=+]+", "-", name).strip("-")


@cache
def _objective(method: str, choice: Preconditioner | None) -> Objective:
    if choice is None:
        return nll if method == "NLL" else sgem
    return partial(ngem, preconditioner=choice)


@cache
def _schedule(num_updates: int) -> optax.Schedule:
    return relaxation_schedule(num_updates)
