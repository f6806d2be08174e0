"""Gaussian mixtures with diagonal covariances, as an immutable pytree.

A mixture of `K` Gaussians in `D` dimensions (equation (2) of the paper) is held by its logits
`psi` of shape `(..., K)`, its means `mu` and its standard deviations `sigma`, both of shape
`(..., K, D)`. The leading axes are batch axes: a mixture density network returns one mixture for
each of its inputs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from ngem_tutorial._checks import check_values, described, real_array
from ngem_tutorial._mixture import (
    LOG_2PI,
    Mixture,
    at_least_float32,
    check_finite,
    check_logits,
    first,
    register,
)
from ngem_tutorial._typing import Array, ArrayLike, Float

__all__ = ["GaussianMixture", "LEAST_LOG_WEIGHT", "check_mixture"]

LEAST_LOG_WEIGHT = -1e4
"""Stands for minus infinity, which no logit may be: its exponential is zero in every precision."""


@jax.tree_util.register_pytree_with_keys_class
@dataclasses.dataclass(frozen=True, eq=False, init=False)
class GaussianMixture(Mixture):
    r"""A batch of mixtures of `K` diagonal Gaussians in `D` dimensions.

    .. math:: p(y) = \sum_k \pi_k \prod_d \mathcal{N}(y_d; \mu_{kd}, \sigma_{kd}^2),
       \qquad \pi = \operatorname{softmax}(\psi)

    The mixture is a pytree with the leaves `logits`, `means` and `scales`: `jax.jit`, `jax.vmap`
    and `jax.grad` go through it, and a gradient with respect to a mixture is again an object of
    this class. Everything is computed in log space and stays finite for weights down to
    `exp(-1e4)`, scales from 1e-6 to 1e6 and targets a million scales away, in `float32` too.
    Parameters in 16 bits, from a network that computes in `bfloat16` for instance, are converted to
    `float32` on the way in; their gradients come back in 16 bits. `flax.serialization` saves and
    restores mixtures, and `jax.export` takes functions of them.

    Args:
        logits: `psi`, unnormalised log-weights, shape `(..., K)`; an array, or lists of numbers.
        means: `mu`, shape `(..., K, D)`, in the units of the targets.
        scales: `sigma`, standard deviations, shape `(..., K, D)`, in the units of the targets.

    Raises:
        ValueError: if the shapes do not fit each other or, where the values are known (outside of
            `jax.jit` and its kin), if a parameter is not finite or a scale is not positive.

    Example:
        >>> from ngem_tutorial import GaussianMixture
        >>> mixture = GaussianMixture([0.0, 0.0], means=[[-1.0], [1.0]], scales=[[0.5], [0.5]])
        >>> mixture.num_components, mixture.dim, mixture.batch_shape
        (2, 1, ())
        >>> round(float(mixture.log_prob([1.0])), 3)
        -0.919
        >>> [round(float(rho), 3) for rho in mixture.responsibilities([1.0])]
        [0.0, 1.0]
    """

    EVENT_AXES: ClassVar[dict[str, int]] = {"logits": 1, "means": 2, "scales": 2}

    logits: Array
    means: Array
    scales: Array

    def __init__(self, logits: ArrayLike, means: ArrayLike, scales: ArrayLike) -> None:
        """Convert the parameters to floating-point arrays of one dtype and check them."""
        self._set(logits=logits, means=means, scales=scales)
        check_logits(self.logits, self.means)
        _check_scales(self.scales, self.means)
        for name in self.EVENT_AXES:
            check_finite(name, getattr(self, name))

    @classmethod
    def from_weights(
        cls, weights: ArrayLike, means: ArrayLike, scales: ArrayLike
    ) -> GaussianMixture:
        """The mixture with given weights, in the place of logits.

        Args:
            weights: `pi`, shape `(..., K)`, not negative, summing to one. A component of weight
                zero stays in the mixture: its log-weight is -10000, which counts as zero.
            means: `mu`, shape `(..., K, D)`, in the units of the targets.
            scales: `sigma`, standard deviations, shape `(..., K, D)`, in the units of the targets.

        Returns:
            A mixture whose logits are the logarithms of the weights.

        Raises:
            ValueError: as the constructor, and if, where their values are known, weights are
                negative or do not sum to one.

        Example:
            >>> from ngem_tutorial import GaussianMixture
            >>> mixture = GaussianMixture.from_weights([0.25, 0.75], [[0.0], [4.0]], [[1.0], [1.0]])
            >>> round(float(mixture.mean[0]), 3)
            3.0
        """
        pi = jnp.asarray(weights)
        check_values("weights", pi, "not negative and finite", lambda w: (w >= 0) & np.isfinite(w))
        pi = pi.astype(at_least_float32(jnp.result_type(pi, float)))
        if not isinstance(pi, jax.core.Tracer):
            total = np.asarray(np.sum(np.asarray(pi, np.float64), axis=-1 if pi.ndim else None))
            # As exact as the numbers that were given: those of 16 bits have rounding of their own.
            given = jnp.asarray(weights).dtype
            rounding = float(jnp.finfo(given).eps) if jnp.issubdtype(given, jnp.floating) else 0.0
            wrong = np.abs(total - 1.0) > max(1e-4, rounding)
            if wrong.any():
                raise ValueError(f"weights must sum to one, got the sum {total[wrong].flat[0]:.6g}")
        # Zeros are replaced before the logarithm: the gradient would not be finite otherwise.
        log = jnp.where(pi > 0, jnp.log(jnp.where(pi > 0, pi, 1.0)), LEAST_LOG_WEIGHT)
        return cls(log, means, scales)

    def pair(self, y: ArrayLike) -> tuple[GaussianMixture, jax.Array]:
        """One mixture for each target, in one dtype: how every objective takes its arguments.

        Args:
            y: targets, shape `(..., D)`, with the batch shape of the mixture. A mixture without
                batch axes takes targets of any, and is repeated.

        Returns:
            The mixture with the batch shape of the targets, and the targets, both in the dtype
            that JAX promotes the two to, `float32` at least.

        Raises:
            ValueError: if the last axis of `y` is not `D` or the batch shapes differ.
        """
        y = real_array("y", y)
        self._check_dim(y)
        batch = y.shape[:-1]
        if self.batch_shape not in ((), batch):
            raise ValueError(
                f"y must have one target for each mixture: the mixture has batch shape "
                f"{self.batch_shape}, y of shape {y.shape} has {batch}"
                + _probably_meant(self.batch_shape, batch)
            )
        dtype = at_least_float32(jnp.result_type(y, *jax.tree.leaves(self)))
        # The shapes of the leaves, built without checks.
        event = (self.num_components, self.dim)
        shapes = self.tree_unflatten(None, [(*batch, event[0]), (*batch, *event), (*batch, *event)])
        mixture = jax.tree.map(
            lambda leaf, shape: jnp.broadcast_to(leaf, shape).astype(dtype), self, shapes
        )
        return mixture, y.astype(dtype)

    def standardize(self, y: ArrayLike) -> Float[Array, "*batch {self.num_components} {self.dim}"]:
        """Distance of a target from each mean in scales, `(y - mu_k) / sigma_k`.

        Args:
            y: targets, shape `(..., D)`; leading axes broadcast against the mixture's.

        Returns:
            Shape `(..., K, D)`.

        Raises:
            ValueError: if the last axis of `y` is not `D` or its leading axes do not broadcast.
        """
        return (self._targets(y)[..., None, :] - self.means) / self.scales

    def component_log_prob(self, y: ArrayLike) -> Float[Array, "*batch {self.num_components}"]:
        """Log-density of each component, `log N(y; mu_k, sigma_k)`, without its weight.

        Args:
            y: targets, shape `(..., D)`; leading axes broadcast against the mixture's.

        Returns:
            Shape `(..., K)`, in nats.

        Raises:
            ValueError: if the last axis of `y` is not `D` or its leading axes do not broadcast.
        """
        z = self.standardize(y)
        return -jnp.sum(0.5 * z**2 + jnp.log(self.scales), axis=-1) - 0.5 * self.dim * LOG_2PI

    def affine(self, shift: ArrayLike, scale: ArrayLike) -> GaussianMixture:
        """The mixture of `shift + scale * y`: the same, in other units of the targets.

        At a target in the new units the log-density is lower by `sum(log(abs(scale)))`.

        Args:
            shift: in the new units, a number or shape `(D,)`.
            scale: new units per old unit, not zero, a number or shape `(D,)`.

        Returns:
            A mixture with the same weights.

        Raises:
            ValueError: if a shape does not fit or a value is out of range (where it is known).

        Example:
            >>> from ngem_tutorial import GaussianMixture
            >>> celsius = GaussianMixture([0.0], [[20.0]], [[5.0]])
            >>> fahrenheit = celsius.affine(32.0, 1.8)
            >>> fahrenheit.means.tolist(), fahrenheit.scales.tolist()
            ([[68.0]], [[9.0]])
        """
        values: dict[str, Any] = {"shift": shift, "scale": scale}
        for name, value in values.items():
            if np.shape(value) not in ((), (self.dim,)):
                raise ValueError(
                    f"{name} must be a number or have shape (D,) = ({self.dim},), got shape "
                    f"{np.shape(value)}"
                )
        check_values("shift", shift, "finite", np.isfinite)
        check_values("scale", scale, "finite and not zero", lambda s: np.isfinite(s) & (s != 0))
        shift, scale = (jnp.asarray(value) for value in (shift, scale))
        return GaussianMixture(
            self.logits, shift + scale * self.means, jnp.abs(scale) * self.scales
        )

    @property
    def variance(self) -> Float[Array, "*batch {self.dim}"]:
        """Variance of each coordinate (law of total variance), shape `(..., D)`."""
        spread = self.means - self.mean[..., None, :]
        return jnp.sum(self.weights[..., None] * (self.scales**2 + spread**2), axis=-2)

    def marginal(self, dims: int | Sequence[int]) -> GaussianMixture:
        """The mixture of some coordinates of a target, the others integrated out.

        Args:
            dims: one coordinate or several, each from `-D` to `D - 1`, all different.

        Returns:
            A mixture with the same weights and `D` equal to the number of `dims`.

        Raises:
            ValueError: if a coordinate is out of range or named twice.

        Example:
            >>> from ngem_tutorial import GaussianMixture
            >>> mixture = GaussianMixture([0.0], [[1.0, 2.0, 3.0]], [[1.0, 1.0, 4.0]])
            >>> mixture.marginal([0, 2]).scales.tolist()
            [[1.0, 4.0]]
        """
        columns = self._columns(dims)
        return dataclasses.replace(
            self, means=self.means[..., columns], scales=self.scales[..., columns]
        )

    def _deviations(self, index: jax.Array, noise: jax.Array) -> jax.Array:
        return self.scales.reshape(-1, self.dim)[index] * noise


register(GaussianMixture)


def check_mixture(mixture: object) -> None:
    """Check that an argument is a `GaussianMixture`, and not that of another library.

    Args:
        mixture: what it is.

    Raises:
        ValueError: if it is something else; the error names the function that converts it.

    Example:
        >>> from ngem_tutorial.mixtures import GaussianMixture, check_mixture
        >>> check_mixture(GaussianMixture([0.0], [[0.0]], [[1.0]]))
    """
    if isinstance(mixture, GaussianMixture):
        return
    kind = type(mixture)
    library = kind.__module__.partition(".")[0]
    converters = {"numpyro": "numpyro", "distrax": "distrax", "tensorflow_probability": "tfp"}
    array = isinstance(mixture, jax.Array | np.ndarray)
    got, hint = described(mixture) if array else kind.__name__, ""
    if library in converters:
        got = f"{library}'s {got}"
        hint = f"; ngem_tutorial.interop.from_{converters[library]} converts it"
    raise ValueError(f"mixture must be a GaussianMixture, got {got}{hint}")


def _probably_meant(batch: tuple[int, ...], of_targets: tuple[int, ...]) -> str:
    """What a pair of unequal batch shapes comes from, as the end of an error."""
    for name, long, short in (("mixture", batch, of_targets), ("targets", of_targets, batch)):
        for axis, length in enumerate(long):
            if length == 1 and long[:axis] + long[axis + 1 :] == short:
                return (
                    f". Axis {axis} of the {name}, of length one, is too many: was a time axis "
                    f"left in {'the inputs' if name == 'mixture' else 'y'}?"
                )
    if not of_targets:
        return ". For one target under many mixtures repeat it: jnp.broadcast_to"
    return ""


def _check_scales(scales: jax.Array, means: jax.Array) -> None:
    if scales.shape != means.shape:
        raise ValueError(
            f"scales must have the shape of the means, {means.shape}, got {scales.shape}"
        )
    if not isinstance(scales, jax.core.Tracer):
        values = np.asarray(scales)
        if (values <= 0).any():  # what is not finite is found with the other parameters
            raise ValueError(f"scales must be positive, got {first(values, values <= 0)}")
