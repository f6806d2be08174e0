"""Data as a training takes them: inputs, targets and weights of one length, finite and checked."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ngem_tutorial._checks import check_integers, described, real_array, to_arrays
from ngem_tutorial._typing import ArrayLike

__all__ = ["Data", "make_data"]


class Data(NamedTuple):
    """Inputs, targets and weights of `N` examples."""

    x: Any
    """Pytree of arrays with leading axis `N`, or None."""
    y: Any
    """Shape `(N, ..., D)`."""
    weights: Any = None
    """Shape `(N, ...)`, with mean one, or None."""

    @property
    def size(self) -> int:
        """`N`."""
        return int(self.y.shape[0])

    def take(self, rows: Any) -> Data:
        """Return the examples of an index or a slice."""
        return Data(*jax.tree.map(lambda leaf: leaf[rows], (self.x, self.y, self.weights)))

    def to_device(self) -> Data:
        """Return the same as JAX arrays, in JAX's precision."""
        x, weights = jax.tree.map(jnp.asarray, (self.x, self.weights))
        return Data(x, real_array("y", self.y), weights)


def make_data(
    x: Any, y: ArrayLike, weights: ArrayLike | None = None, *, name: str | None = None
) -> Data:
    """Check data and return them as NumPy arrays in the precision that they have.

    Targets of weight zero may be anything, NaN too: they are replaced by the first target that
    counts.

    Args:
        x: inputs, a pytree of arrays with leading axis `N`, or None. A list or tuple of numbers,
            nested or not, is one array, as is a table.
        y: targets, shape `(N, ..., D)`.
        weights: not negative, shape `(N, ...)`, or None.
        name: what the data are called in errors, `"validation"` for instance.

    Returns:
        The data, weights with mean one.

    Raises:
        ValueError: if shapes do not fit each other, a value is not finite, a weight is negative
            or all are zero.
    """
    before = "" if name is None else f"{name} "
    targets = _real(f"{before}y", y)
    if targets.ndim < 2 or targets.shape[0] == 0:
        raise ValueError(
            f"{before}y must have shape (N, D) or (N, ..., D), got {targets.shape}"
            + (" (for one target each, pass y[:, None])" if targets.ndim == 1 else "")
        )
    inputs = jax.tree.map(lambda leaf: _real(f"{before}x", leaf), to_arrays(x))
    for leaf in jax.tree.leaves(inputs):
        if leaf.ndim == 0 or leaf.shape[0] != targets.shape[0]:
            raise ValueError(
                f"{before}x must have as many examples as y, {targets.shape[0]}, got shape "
                f"{leaf.shape}"
            )
        _check_finite(f"{before}x", leaf)
        check_integers(f"{before}x", leaf)
    if weights is None:
        _check_finite(f"{before}y", targets)
        return Data(inputs, targets)
    factors = _checked_weights(f"{before}weights", weights, targets.shape[:-1])
    counts = factors > 0
    _check_finite(f"{before}y", targets[counts])
    targets = np.where(counts[..., None], targets, targets[counts][0])
    return Data(inputs, targets, factors / factors.mean())


def _real(name: str, value: Any) -> np.ndarray:
    """A real array; random keys, strings and complex numbers are none."""
    try:
        array = np.asarray(value)
    except TypeError:
        array = np.asarray("")
    if not (jnp.issubdtype(array.dtype, jnp.number) or array.dtype == bool) or np.iscomplexobj(
        array
    ):
        inside = array.item() if array.ndim == 0 else value
        kind = f" of type {array.dtype}" if array.ndim else ""
        raise ValueError(f"{name} must be an array of real numbers, got {described(inside)}{kind}")
    return array


def _checked_weights(name: str, weights: ArrayLike, shape: tuple[int, ...]) -> np.ndarray:
    array = np.asarray(_real(name, weights), float)
    if array.shape != shape:
        raise ValueError(
            f"{name} must have the shape of y without its last axis, {shape}, got {array.shape}"
        )
    if not (np.isfinite(array).all() and (array >= 0).all() and array.any()):
        raise ValueError(f"{name} must be finite and not negative, and one of them positive")
    return array


def _check_finite(name: str, array: np.ndarray) -> None:
    finite = np.isfinite(array)
    if not finite.all():
        hint = (
            " Leave these examples out, or give them a weight of zero." if name[-1] == "y" else ""
        )
        raise ValueError(
            f"{name} must be finite, got {int((~finite).sum())} values that are not.{hint}"
        )
