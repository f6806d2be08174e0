"""Checks of arguments: an error names the argument, what it takes and what it got."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

__all__ = ["check_choice", "check_number", "check_options", "check_values"]


def check_choice(name: str, value: object, choices: Iterable[object]) -> None:
    """Check that an argument is one of a few values.

    Args:
        name: of the argument.
        value: what it is.
        choices: what it may be.

    Raises:
        ValueError: if the value is none of the choices.
    """
    allowed = tuple(choices)
    if not any(isinstance(value, type(choice)) and value == choice for choice in allowed):
        raise ValueError(f"{name} must be one of {', '.join(map(str, allowed))}, got {value!r}")


def check_number(
    name: str, value: Any, wanted: str, holds: Callable[[np.ndarray], np.ndarray | np.bool_]
) -> None:
    """Check that an argument is one number and, where its value is known, that it is in range.

    Args:
        name: of the argument.
        value: a number, an array of shape `()` or a traced value.
        wanted: the range in words: "must be {wanted}".
        holds: whether a number is in the range.

    Raises:
        ValueError: if the argument has axes or is out of range.
    """
    if np.ndim(value) != 0:
        raise ValueError(f"{name} must be a number, got shape {np.shape(value)}")
    check_values(name, value, wanted, holds)


def check_values(
    name: str, value: Any, wanted: str, holds: Callable[[np.ndarray], np.ndarray | np.bool_]
) -> None:
    """Check each element of an argument where its value is known; traced values pass.

    Args:
        name: of the argument.
        value: a number, an array or a traced value.
        wanted: the range in words: "must be {wanted}".
        holds: whether numbers are in the range, elementwise.

    Raises:
        ValueError: if the argument is not numeric or an element is out of range.
    """
    if isinstance(value, jax.core.Tracer):
        return
    array = np.asarray(value)
    if not jnp.issubdtype(array.dtype, jnp.number):
        raise ValueError(f"{name} must be {wanted}, got {value!r}")
    good = np.asarray(holds(array))
    if not good.all():
        where = f" at {tuple(map(int, np.argwhere(~good)[0]))}" if array.ndim else ""
        raise ValueError(f"{name} must be {wanted}, got {array[~good].flat[0]}{where}")


def check_options(
    dim: int,
    *,
    unit: ArrayLike = 1.0,
    relaxation: ArrayLike = 0.0,
    damping: ArrayLike = 1.0,
) -> None:
    """Check the options of a natural gradient, their values where they are known.

    Args:
        dim: `D`, dimension of the targets.
        unit: a number or shape `(D,)`, positive.
        relaxation: a number from 0 to 1.
        damping: a positive number.

    Raises:
        ValueError: if an option has another shape or is out of range.
    """
    if jnp.shape(unit) not in ((), (dim,)):
        raise ValueError(
            f"unit must be a number or have shape (D,) = ({dim},), got shape {jnp.shape(unit)}"
        )
    check_values("unit", unit, "positive and finite", lambda u: (u > 0) & np.isfinite(u))
    if callable(relaxation):
        raise ValueError(
            "relaxation must be a number from 0 to 1, got a function: pass its value at the "
            "update, relaxation=schedule(count), with count the number of updates done"
        )
    check_number("relaxation", relaxation, "from 0 to 1", lambda e: (e >= 0) & (e <= 1))
    check_number("damping", damping, "positive and finite", lambda d: (d > 0) & np.isfinite(d))
