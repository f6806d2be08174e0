"""Standardising data, and saying what is far from unit scale where that is not wanted."""

from __future__ import annotations

import dataclasses
import warnings

import jax
import numpy as np

from ngem_tutorial._training.data import Data
from ngem_tutorial.networks import Affine

__all__ = ["ScaleWarning", "Scaling", "warn_of_scales"]

_FAR = 30.0
"""A factor from unit scale that is worth a warning."""


class ScaleWarning(UserWarning):
    """Data are far from unit scale, or single precision does not hold them.

    Example:
        >>> import warnings
        >>> import numpy as np
        >>> from ngem_tutorial import MixtureDensityNetwork, ScaleWarning, fit, nll
        >>> x = np.linspace(0, 1e4, 100)[:, None]
        >>> make = lambda rngs: MixtureDensityNetwork(1, 2, 1, hidden=(8,), rngs=rngs)
        >>> with warnings.catch_warnings(record=True) as caught:
        ...     warnings.simplefilter("always")
        ...     result = fit(make, nll, x, x, epochs=1, batch_size=20, standardize=False)
        >>> caught[0].category is ScaleWarning
        True
    """


@dataclasses.dataclass(frozen=True)
class Scaling:
    """Shift and scale of the inputs and targets of a training.

    Attributes:
        inputs: for each leaf of the inputs; None for a leaf that is left as it is.
        targets: of the targets.
    """

    inputs: tuple[Affine | None, ...]
    targets: Affine

    @classmethod
    def of(cls, data: Data) -> Scaling:
        """Measure mean and standard deviation of each column, in float64.

        Args:
            data: the training data, as NumPy arrays. Columns are the entries of the last axis;
                leaves that are not floating point, labels for instance, are left as they are.
                Entries count with the weight of their target; where one input has many targets,
                as a sequence has, with the mean of their weights.

        Returns:
            The scaling. A column that is constant keeps the scale one.
        """
        inputs = [
            _measure(leaf, data.weights) if _is_float(leaf) else None
            for leaf in jax.tree.leaves(data.x)
        ]
        return cls(tuple(inputs), _measure(data.y, data.weights))

    @property
    def log_scale(self) -> float:
        """What a negative log-likelihood of raw targets has more than one of standardised ones."""
        return float(np.log(self.targets.scale).sum())

    def apply(self, data: Data) -> Data:
        """Standardise data, in float64.

        Args:
            data: of the columns that were measured.

        Returns:
            The data in standard units.

        Raises:
            ValueError: if the data have other columns.
        """
        leaves, structure = jax.tree.flatten(data.x)
        if len(leaves) != len(self.inputs):
            raise ValueError(f"x must have {len(self.inputs)} arrays, got {len(leaves)}")
        scaled = [
            leaf if affine is None else affine.standardize("x", leaf)
            for leaf, affine in zip(leaves, self.inputs, strict=True)
        ]
        targets = self.targets.standardize("y", data.y)
        return Data(jax.tree.unflatten(structure, scaled), targets, data.weights)


def _is_float(leaf: np.ndarray) -> bool:
    """Whether a leaf holds measurements; bfloat16 is a float that NumPy does not know as one."""
    return bool(jax.numpy.issubdtype(leaf.dtype, np.floating))


def _measure(values: np.ndarray, weights: np.ndarray | None) -> Affine:
    """Mean and deviation of each column, over what is not its last axis."""
    rows = np.asarray(values, np.float64).reshape(-1, values.shape[-1] if values.ndim > 1 else 1)
    lead = values.shape[:-1] if values.ndim > 1 else values.shape
    factors = None if weights is None else _of_rows(weights, lead).ravel()
    shift = np.average(rows, axis=0, weights=factors)
    scale = np.sqrt(np.average((rows - shift) ** 2, axis=0, weights=factors))
    constant = scale <= 1e-12 * np.abs(shift)
    return Affine(tuple(shift.tolist()), tuple(np.where(constant, 1.0, scale).tolist()))


def _of_rows(weights: np.ndarray, lead: tuple[int, ...]) -> np.ndarray:
    """Weights in the shape `lead`: means over the axes that are not in it, repeated over others."""
    shared = 0
    while shared < min(weights.ndim, len(lead)) and weights.shape[shared] == lead[shared]:
        shared += 1
    means = weights.mean(axis=tuple(range(shared, weights.ndim)))
    return np.broadcast_to(means.reshape(*means.shape, *(1,) * (len(lead) - shared)), lead)


def warn_of_scales(data: Data, *, standardized: bool) -> None:
    """Warn of columns with which a training is likely to be useless.

    Args:
        data: the training data, as NumPy arrays.
        standardized: whether the training will see standardised values. Then the mixtures in raw
            units can still be too coarse.
    """
    columns = [("y", data.y, data.weights)]
    if not standardized:
        leaves = jax.tree.leaves(data.x)
        columns = [("x", leaf, data.weights) for leaf in leaves if _is_float(leaf)] + columns
    else:
        _warn_of_integers(data)
    for name, values, weights in columns:
        affine = _measure(values, weights)
        shift, scale = np.array(affine.shift), np.array(affine.scale)
        if message := _message(name, shift, scale, standardized):
            warnings.warn(message, ScaleWarning, stacklevel=3)


def _warn_of_integers(data: Data) -> None:
    """Warn of columns of integers that are left as they are, although they are no labels."""
    for leaf in jax.tree.leaves(data.x):
        if _is_float(leaf) or (leaf.ndim == 1 and _are_labels(leaf)):
            continue
        affine = _measure(leaf, data.weights)
        for column, (shift, scale) in enumerate(zip(affine.shift, affine.scale, strict=True)):
            if abs(shift) + scale > _FAR:
                warnings.warn(
                    f"column {column} of x, {shift:.6g} +- {scale:.3g}, is far from unit scale and "
                    "is left as it is: integers may be labels. If they are measurements, pass them "
                    "as floats.",
                    ScaleWarning,
                    stacklevel=5,
                )
                break


def _are_labels(values: np.ndarray) -> bool:
    """Whether each number from zero to the largest is there, twice on average or oftener."""
    present = np.unique(values)
    return bool(present[0] == 0 and present[-1] == len(present) - 1 <= len(values) / 2 - 1)


def _message(name: str, shift: np.ndarray, scale: np.ndarray, standardized: bool) -> str | None:
    """What is wrong with the columns of mean `shift` and deviation `scale`, or None."""
    kind = np.dtype(jax.dtypes.canonicalize_dtype(np.float64))
    size = np.abs(shift) + scale
    with np.errstate(over="ignore", invalid="ignore"):  # what overflows is too large
        coarse = np.spacing(size.astype(kind)) > 1e-3 * scale
    large = size > 1e-2 * np.sqrt(np.finfo(kind).max)
    far = (size > _FAR) | (scale < 1.0 / _FAR)
    advice = "or call with standardize=True" if not standardized else "or enable x64 in JAX"
    for bad, what, remedy in (
        (large, f"is too large for {kind}: squares overflow", "Change its unit"),
        (coarse, f"loses precision in {kind}", "Subtract an offset"),
        (far & ~np.bool_(standardized), "is far from unit scale", "Standardise it"),
    ):
        if bad.any():
            first = int(np.argmax(bad))
            return (
                f"column {first} of {name}, {shift[first]:.6g} +- {scale[first]:.3g}, {what}. "
                f"{remedy}, {advice}."
            )
    return None
