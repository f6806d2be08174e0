"""What a target, a start and a key must be."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ngem_tutorial.components import FullGaussianMixture
from ngem_tutorial.mixtures import GaussianMixture
from ngem_tutorial.vi._gaussians import BUCKETS

__all__ = ["TargetError", "check_target", "checked_key", "checked_start", "is_length"]


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
        super().__init__(
            f"log_density is {value} ({what}) at x = {np.array2string(point, threshold=8)}. "
            "Minus infinity is allowed: there the density is zero."
        )


def check_target(log_density: Any, keys: tuple[Any, ...], x: jax.ShapeDtypeStruct) -> None:
    """Look at the shape that a target returns, without computing.

    Args:
        log_density: what was given.
        keys: a random key if it takes one.
        x: shape and type of a point.

    Raises:
        ValueError: if it is no function, or does not return one float.
    """
    if not callable(log_density):
        raise ValueError(f"log_density must be a function, got {log_density!r}")
    result = jax.eval_shape(log_density, x, *keys)
    if getattr(result, "shape", None) != ():
        got = f"shape {result.shape}" if hasattr(result, "shape") else type(result).__name__
        raise ValueError(
            f"log_density must return a number for a point of shape {x.shape}, got {got}"
        )
    if not jnp.issubdtype(result.dtype, jnp.floating):
        raise ValueError(f"log_density must return a float, got {result.dtype}")


def checked_start(name: str, start: Any, dim: int | None) -> FullGaussianMixture:
    """Return one mixture with full covariances.

    Args:
        name: of the argument.
        start: what was given.
        dim: of how many dimensions it must be, None for any.

    Returns:
        The mixture.

    Raises:
        ValueError: if it is none, several, of other dimensions or of too many components.
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
    if start.num_components > BUCKETS[-1]:
        raise ValueError(
            f"{name} must have at most {BUCKETS[-1]} components, got {start.num_components}"
        )
    if isinstance(start, FullGaussianMixture):
        return start
    return FullGaussianMixture.from_diagonal(start)


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
    old = getattr(key, "dtype", None) == np.uint32 and np.shape(key) == (2,)
    if not old and not (typed and key.shape == ()):
        got = f"shape {np.shape(key)}" if typed else repr(key)
        raise ValueError(f"key must be one JAX random key, such as jax.random.key(0), got {got}")
    return jnp.asarray(key) if old else key


def is_length(value: np.ndarray) -> np.ndarray:
    """Say which numbers are a length of a step.

    Args:
        value: numbers, any shape.

    Returns:
        Booleans of that shape.
    """
    return (value >= 0) & np.isfinite(value)
