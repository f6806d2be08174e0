"""Checks of arguments: an error names the argument, what it takes and what it got."""

from __future__ import annotations

import inspect
import operator
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ngem_tutorial._typing import Scalar

__all__ = [
    "accepts",
    "check_choice",
    "check_integers",
    "check_number",
    "check_objective",
    "check_options",
    "check_values",
    "check_whole",
    "checked_key",
    "described",
    "real_array",
    "takes",
    "to_arrays",
]


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
        raise ValueError(f"{name} must be {wanted}, got {described(value)}")
    good = np.asarray(holds(array))
    if not good.all():
        where = f" at {tuple(map(int, np.argwhere(~good)[0]))}" if array.ndim else ""
        raise ValueError(f"{name} must be {wanted}, got {array[~good].flat[0]}{where}")


def check_whole(name: str, value: Any, low: int, high: int | None = None) -> int:
    """Return a whole number in a range.

    Args:
        name: of the argument.
        value: what it is.
        low: the least that it may be.
        high: the most, or None.

    Returns:
        The number.

    Raises:
        ValueError: if it is none, or out of range.
    """
    try:
        number = low - 1 if isinstance(value, bool) else operator.index(value)
    except TypeError:
        raise ValueError(f"{name} must be a whole number, got {value!r}") from None
    if number < low or (high is not None and number > high):
        wanted = f"at least {low}" if high is None else f"from {low} to {high}"
        raise ValueError(f"{name} must be {wanted}, got {value!r}")
    return number


def check_integers(name: str, array: np.ndarray) -> None:
    """Check that JAX's integers hold those of NumPy; without x64 they have 32 bits, and wrap.

    Args:
        name: of the argument.
        array: any shape and type; what is not of integers passes.

    Raises:
        ValueError: if a value is out of range.
    """
    if not _fits(array):
        kind = jax.dtypes.canonicalize_dtype(array.dtype)
        raise ValueError(
            f"{name} must be floats or integers that {kind} holds, got integers from {array.min()} "
            f"to {array.max()}. Pass measurements as floats."
        )


def checked_key(key: Any) -> jax.Array:
    """Return one random key, of either kind.

    Args:
        key: what was given.

    Returns:
        The key.

    Raises:
        ValueError: if it is none, or several.
    """
    typed = isinstance(key, jax.Array) and jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
    old = getattr(key, "dtype", None) == np.uint32 and np.shape(key) == _old_key_shape()
    if not old and not (typed and key.shape == ()):
        got = f"shape {np.shape(key)}" if typed else repr(key)
        raise ValueError(f"key must be one JAX random key, such as jax.random.key(0), got {got}")
    return jnp.asarray(key) if old else key


def _old_key_shape() -> tuple[int, ...]:
    """The shape of a key of `jax.random.PRNGKey`, which is that of the default generator."""
    return tuple(jax.eval_shape(jax.random.PRNGKey, 0).shape)


def real_array(name: str, value: Any) -> jax.Array:
    """Return an argument as a JAX array.

    Integers that JAX's would not hold become floats, as if they had been passed as such.

    Args:
        name: of the argument.
        value: an array, traced or not, a number, or lists of them.

    Returns:
        The array.

    Raises:
        ValueError: if it is complex, or no array of numbers.
    """
    if not any(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(value)):
        value = np.asarray(value)
        if not (jnp.issubdtype(value.dtype, jnp.number) or value.dtype == bool):
            raise ValueError(f"{name} must be an array of real numbers, got type {value.dtype}")
        if not _fits(value):
            value = value.astype(float)
    array = jnp.asarray(value)
    if jnp.iscomplexobj(array):
        raise ValueError(f"{name} must be real, got a complex array")
    return array


def _fits(array: np.ndarray) -> bool:
    """Whether JAX keeps the integers of an array."""
    if array.dtype.kind not in "iu" or array.size == 0:
        return True
    kind = np.iinfo(jax.dtypes.canonicalize_dtype(array.dtype))
    return bool(kind.min <= array.min() and array.max() <= kind.max)


def to_arrays(inputs: Any) -> Any:
    """Return inputs as a pytree of arrays.

    Lists and tuples of numbers, nested or not, are one array; lists and tuples of arrays are
    several. A table, a pandas DataFrame for instance, is one array.

    Args:
        inputs: a pytree of arrays, tables and numbers, or None.

    Returns:
        The pytree with NumPy arrays in the place of what is no JAX array.
    """
    return jax.tree.map(
        lambda leaf: leaf if isinstance(leaf, jax.Array) else np.asarray(leaf),
        inputs,
        is_leaf=_is_of_numbers,
    )


def _is_of_numbers(value: Any) -> bool:
    """Whether a value is a number, or a list or tuple of such values."""
    if isinstance(value, list | tuple):
        return len(value) > 0 and all(map(_is_of_numbers, value))
    return isinstance(value, bool | int | float | np.generic)


def takes(function: Callable[..., Any], name: str) -> bool:
    """Say whether a function takes an argument by name.

    Args:
        function: anything that can be called.
        name: of the argument.

    Returns:
        Whether it does; True if that cannot be found out.
    """
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):
        return True
    return name in parameters or any(p.kind is p.VAR_KEYWORD for p in parameters.values())


def accepts(function: Callable[..., Any], number: int, *names: str) -> bool:
    """Say whether a function can be called with so many arguments by position, others by name.

    Args:
        function: anything that can be called, a class too.
        number: of the arguments by position.
        names: of the others.

    Returns:
        Whether it can; True if that cannot be found out.
    """
    try:
        # The signature of a Flax class is that of its metaclass, which takes anything.
        is_class = isinstance(function, type)
        signature = inspect.signature(function.__init__ if is_class else function)
    except (TypeError, ValueError):
        return True
    try:
        signature.bind(*range(number + is_class), **dict.fromkeys(names))
    except TypeError:
        return False
    return True


def check_objective(objective: Any, wanted: str, methods: Iterable[str] = ()) -> None:
    """Check that an argument is an objective.

    Args:
        objective: what it is.
        wanted: what it may be, in words.
        methods: names that `get_method` takes.

    Raises:
        ValueError: if it is something else, such as the name of a method, or takes other arguments.
    """
    if callable(objective) and not isinstance(objective, type):
        options = (name for name in ("unit", "relaxation") if takes(objective, name))
        if accepts(objective, 2, *options):
            return
    hint = ""
    if isinstance(objective, str) and objective in methods:
        hint = f", a name: get_method({objective!r}) is the method"
    raise ValueError(f"objective must be {wanted}, got {described(objective)}{hint}")


def described(value: Any) -> str:
    """Return what an error says about a value that is none of those that were wanted.

    Args:
        value: anything.

    Returns:
        Its kind and name, or the shape of an array; the value itself if that is short.
    """
    if isinstance(value, jax.Array | np.ndarray | jax.ShapeDtypeStruct):
        return f"an array of shape {value.shape}"
    if isinstance(value, type):
        return f"the class {value.__name__}"
    if inspect.isroutine(value):
        return "a function" if value.__name__ == "<lambda>" else f"the function {value.__name__}"
    text = repr(value)
    return text if len(text) <= 60 and "\n" not in text else f"a {type(value).__name__}"


def check_options(
    dim: int,
    *,
    unit: Any = 1.0,
    relaxation: Scalar = 0.0,
    damping: Scalar = 1.0,
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
    if callable(unit) or (isinstance(unit, str) and unit == "batch"):
        raise ValueError(
            f"unit must be a number or have shape (D,) = ({dim},), got {described(unit)}: for the "
            "unit of a batch's mixtures pass its value, unit=scale_unit(mixture)"
        )
    if np.shape(unit) not in ((), (dim,)):
        raise ValueError(
            f"unit must be a number or have shape (D,) = ({dim},), got shape {np.shape(unit)}"
        )
    check_values("unit", unit, "positive and finite", lambda u: (u > 0) & np.isfinite(u))
    if callable(relaxation):
        raise ValueError(
            "relaxation must be a number from 0 to 1, got a function: pass its value at the "
            "update, relaxation=schedule(count), with count the number of updates done"
        )
    check_number("relaxation", relaxation, "from 0 to 1", lambda e: (e >= 0) & (e <= 1))
    check_number("damping", damping, "positive and finite", lambda d: (d > 0) & np.isfinite(d))
