"""What a target and a start must be."""

from __future__ import annotations

from typing import Any, Final

import jax
import jax.numpy as jnp
import numpy as np

from ngem_tutorial._checks import accepts, described
from ngem_tutorial.components import FullGaussianMixture
from ngem_tutorial.mixtures import GaussianMixture

__all__ = ["RUN_AWAY", "TargetError", "check_target", "checked_start", "is_length"]


RUN_AWAY: Final = "is the integral of the density finite, and is the start in the target's units?"
"""What to ask where a mixture grows without end."""


class TargetError(FloatingPointError):
    """A target, or its gradient, was not a number; the message says where.

    Args:
        point: shape `(d,)`.
        value: of the log density there.
    """

    def __init__(self, point: np.ndarray, value: float) -> None:
        self.point, self.value = point, value
        what = "its gradient is not finite there" if np.isfinite(value) else "not a number"
        if value == np.inf:
            what = "which no log density may be"
        if not np.isfinite(point).all():
            what = f"the mixture has run away: {RUN_AWAY}"
        super().__init__(
            f"log_density is {value} ({what}) at x = {np.array2string(point, threshold=8)}. "
            "Minus infinity is allowed: there the density is zero."
        )


def check_target(log_density: Any, keys: tuple[Any, ...], x: jax.ShapeDtypeStruct) -> None:
    """Look at what a target takes and returns, without computing.

    Args:
        log_density: what was given.
        keys: a random key if it takes one.
        x: shape and type of a point.

    Raises:
        ValueError: if it is no function of such arguments in JAX, or does not return one float.
            A TypeError of its own is raised with a note that says how it was called.
    """
    if not callable(log_density):
        raise ValueError(f"log_density must be a function, got {log_density!r}")
    wanted = "a point and, with noisy=True, a random key" if keys else "a point"
    try:
        # By a function of our own: what JAX cannot refer to weakly, it could not trace.
        result = jax.eval_shape(lambda *arguments: log_density(*arguments), x, *keys)
    except jax.errors.JAXTypeError as error:
        raise ValueError(
            "log_density must be a function in JAX: jax.numpy in the place of NumPy and math, "
            "jax.numpy.where in the place of an if. A program without gradients can be called by "
            "jax.pure_callback, with a method with Z"
        ) from error
    except TypeError as error:
        if accepts(log_density, 1 + len(keys)):
            error.add_note(f"log_density was called with {wanted}, traced, of shape {x.shape}")
            raise
        hint = ""
        if accepts(log_density, 2 - len(keys)):
            hint = ": leave noisy out" if keys else ": is the second a random key? " + _NOISY
        raise ValueError(
            f"log_density must be a function of {wanted}, got {described(log_density)} that takes "
            f"other arguments{hint}"
        ) from error
    if getattr(result, "shape", None) != ():
        got = f"shape {result.shape}" if hasattr(result, "shape") else type(result).__name__
        raise ValueError(
            f"log_density must return a number for a point of shape {x.shape}, got {got}."
            f"{_MODEL if result is None else ''}"
        )
    if not jnp.issubdtype(result.dtype, jnp.floating):
        raise ValueError(f"log_density must return a float, got {result.dtype}")


_NOISY: Final = (
    "fit_density takes one with noisy=True, diagnose needs the whole density, without noise"
)
_MODEL: Final = (
    " A NumPyro model is no log density: numpyro.infer.util.initialize_model has one, the negative "
    "of its potential_fn."
)


def checked_start(name: str, start: Any, dim: int | None) -> FullGaussianMixture:
    """Return one mixture with full covariances.

    Args:
        name: of the argument.
        start: what was given.
        dim: of how many dimensions it must be, None for any.

    Returns:
        The mixture.

    Raises:
        ValueError: if it is none, several or of other dimensions.
    """
    if not isinstance(start, GaussianMixture | FullGaussianMixture):
        raise ValueError(
            f"{name} must be a GaussianMixture or FullGaussianMixture, got "
            f"{type(start).__name__}; a fit has one in `mixture`, and goes on by `extend`"
        )
    if start.batch_shape or dim not in (None, start.dim):
        wanted = "" if dim is None else f" of dim = {dim} dimensions"
        raise ValueError(
            f"{name} must be one mixture{wanted}, got batch shape "
            f"{start.batch_shape} and {start.dim} dimensions"
        )
    if isinstance(start, FullGaussianMixture):
        return start
    return FullGaussianMixture.from_diagonal(start)


def is_length(value: np.ndarray) -> np.ndarray:
    """Say which numbers are a length of a step.

    Args:
        value: numbers, any shape.

    Returns:
        Booleans of that shape.
    """
    return (value >= 0) & np.isfinite(value)
