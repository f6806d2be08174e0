"""Gaussian mixtures with full covariances, by their Cholesky factors."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from ngem_tutorial._checks import real_array
from ngem_tutorial._mixture import LOG_2PI, Mixture, check_finite, check_logits, first, register
from ngem_tutorial._typing import Array, ArrayLike, Float
from ngem_tutorial.mixtures import GaussianMixture

__all__ = ["FullGaussianMixture"]


@jax.tree_util.register_pytree_with_keys_class
@dataclasses.dataclass(frozen=True, eq=False, init=False)
class FullGaussianMixture(Mixture):
    r"""A batch of mixtures of `K` Gaussians in `D` dimensions with full covariances.

    .. math:: p(y) = \sum_k \pi_k \mathcal{N}(y; \mu_k, L_k L_k^\top),
       \qquad \pi = \operatorname{softmax}(\psi)

    Like `GaussianMixture`, a pytree: `jax.jit`, `jax.vmap` and `jax.grad` go through it, and
    `flax.serialization` saves it. Densities are computed by solving with the triangular factors;
    no covariance is formed or inverted.

    Args:
        logits: `psi`, unnormalised log-weights, shape `(..., K)`.
        means: `mu`, shape `(..., K, D)`, in the units of the targets.
        factors: `L`, the Cholesky factors of the covariances: lower triangular with a positive
            diagonal, shape `(..., K, D, D)`, in the units of the targets.

    Raises:
        ValueError: if the shapes do not fit each other or, where the values are known (outside of
            `jax.jit` and its kin), if a parameter is not finite, or a factor is not lower
            triangular with a positive diagonal.

    Example:
        >>> from ngem_tutorial.components import FullGaussianMixture
        >>> mixture = FullGaussianMixture([0.0], [[1.0, 2.0]], [[[2.0, 0.0], [1.0, 1.0]]])
        >>> mixture.covariances[0].tolist()
        [[4.0, 2.0], [2.0, 2.0]]
        >>> round(float(mixture.log_prob([1.0, 2.0])), 3)
        -2.531
    """

    EVENT_AXES: ClassVar[dict[str, int]] = {"logits": 1, "means": 2, "factors": 3}

    logits: Array
    means: Array
    factors: Array

    def __init__(self, logits: ArrayLike, means: ArrayLike, factors: ArrayLike) -> None:
        """Convert the parameters to floating-point arrays of one dtype and check them."""
        self._set(logits=logits, means=means, factors=factors)
        check_logits(self.logits, self.means)
        if self.factors.shape != (*self.means.shape, self.dim):
            raise ValueError(
                f"factors must have shape (..., K, D, D) = {(*self.means.shape, self.dim)} to fit "
                f"the means of shape {self.means.shape}, got {self.factors.shape}"
            )
        for name in self.EVENT_AXES:
            check_finite(name, getattr(self, name))
        _check_triangular(self.factors)

    @classmethod
    def from_covariances(
        cls, logits: ArrayLike, means: ArrayLike, covariances: ArrayLike
    ) -> FullGaussianMixture:
        """The mixture with given covariances.

        Args:
            logits: as in the constructor.
            means: as in the constructor.
            covariances: symmetric and positive definite, shape `(..., K, D, D)`, in squared units
                of the targets.

        Returns:
            The mixture of their Cholesky factors.

        Raises:
            ValueError: as the constructor, and if, where its values are known, a covariance is not
                symmetric or not positive definite.

        Example:
            >>> from ngem_tutorial.components import FullGaussianMixture
            >>> mixture = FullGaussianMixture.from_covariances([0.0], [[0.0]], [[[4.0]]])
            >>> mixture.factors.tolist()
            [[[2.0]]]
        """
        sigma = real_array("covariances", covariances)
        if sigma.ndim < 3 or sigma.shape[-1] != sigma.shape[-2]:
            raise ValueError(f"covariances must have shape (..., K, D, D), got {sigma.shape}")
        sigma = sigma.astype(jnp.result_type(sigma, float))
        factors = jnp.linalg.cholesky(sigma)
        if not isinstance(sigma, jax.core.Tracer):
            values = np.asarray(sigma)
            scale = np.abs(values).max(axis=(-2, -1), keepdims=True)
            wrong = np.abs(values - np.swapaxes(values, -1, -2)) > 1e-5 * scale
            if wrong.any():
                raise ValueError(f"covariances must be symmetric, got {first(values, wrong)}")
            failed = ~np.isfinite(np.asarray(factors)).all(axis=(-2, -1))
            if failed.any():
                where = tuple(int(i) for i in np.argwhere(failed)[0])
                raise ValueError(f"covariances must be positive definite, that at {where} is not")
        return cls(logits, means, factors)

    @classmethod
    def from_diagonal(cls, mixture: GaussianMixture) -> FullGaussianMixture:
        """The same mixture as one of diagonal Gaussians.

        Args:
            mixture: of any batch shape.

        Returns:
            The mixture whose factors have the scales on their diagonals.

        Example:
            >>> from ngem_tutorial import GaussianMixture
            >>> from ngem_tutorial.components import FullGaussianMixture
            >>> diagonal = GaussianMixture([0.0], [[0.0, 0.0]], [[1.0, 2.0]])
            >>> FullGaussianMixture.from_diagonal(diagonal).factors.tolist()
            [[[1.0, 0.0], [0.0, 2.0]]]
        """
        factors = mixture.scales[..., None] * jnp.eye(mixture.dim, dtype=mixture.scales.dtype)
        return cls(mixture.logits, mixture.means, factors)

    def standardize(self, y: ArrayLike) -> Float[Array, "*batch {self.num_components} {self.dim}"]:
        """Solve `L_k z = y - mu_k`: a draw of component `k` becomes one of `N(0, I)`.

        Args:
            y: targets, shape `(..., D)`; leading axes broadcast against the mixture's.

        Returns:
            Shape `(..., K, D)`.

        Raises:
            ValueError: if the last axis of `y` is not `D` or its leading axes do not broadcast.
        """
        distance = self._targets(y)[..., None, :] - self.means
        batch = distance.shape[:-2]
        if self.batch_shape:
            factors = jnp.broadcast_to(self.factors, (*batch, *self.factors.shape[-3:]))
            return _solve(factors, distance[..., None])[..., 0]
        # One mixture for all targets: they are columns of one solve for each component.
        columns = distance.reshape(-1, self.num_components, self.dim).transpose(1, 2, 0)
        z = _solve(self.factors, columns)
        return z.transpose(2, 0, 1).reshape(distance.shape)

    def component_log_prob(self, y: ArrayLike) -> Float[Array, "*batch {self.num_components}"]:
        """Log-density of each component, `log N(y; mu_k, L_k L_k^T)`, without its weight.

        Args:
            y: targets, shape `(..., D)`; leading axes broadcast against the mixture's.

        Returns:
            Shape `(..., K)`, in nats.

        Raises:
            ValueError: if the last axis of `y` is not `D` or its leading axes do not broadcast.
        """
        z = self.standardize(y)
        log_det = jnp.sum(jnp.log(_diagonal(self.factors)), axis=-1)
        return -0.5 * jnp.sum(z**2, axis=-1) - log_det - 0.5 * self.dim * LOG_2PI

    @property
    def covariances(self) -> Float[Array, "*batch {self.num_components} {self.dim} {self.dim}"]:
        """Covariance of each component, shape `(..., K, D, D)`."""
        return self.factors @ jnp.swapaxes(self.factors, -1, -2)

    @property
    def covariance(self) -> Float[Array, "*batch {self.dim} {self.dim}"]:
        """Covariance of the mixture (law of total variance), shape `(..., D, D)`."""
        spread = self.means - self.mean[..., None, :]
        total = self.covariances + spread[..., :, None] * spread[..., None, :]
        return jnp.sum(self.weights[..., None, None] * total, axis=-3)

    def marginal(self, dims: int | Sequence[int]) -> FullGaussianMixture:
        """The mixture of some coordinates of a target, the others integrated out.

        Args:
            dims: one coordinate or several, each from `-D` to `D - 1`, all different.

        Returns:
            A mixture with the same weights and `D` equal to the number of `dims`.

        Raises:
            ValueError: if a coordinate is out of range or named twice.
        """
        columns = self._columns(dims)
        # L's rows are those of a factor that is not square: its R is, up to signs, the new factor.
        rows = jnp.swapaxes(self.factors[..., columns, :], -1, -2)
        factors = jnp.swapaxes(jnp.linalg.qr(rows, mode="r"), -1, -2)
        signs = jnp.where(_diagonal(factors) < 0, -1.0, 1.0)
        factors = jnp.tril(factors * signs[..., None, :])
        return dataclasses.replace(self, means=self.means[..., columns], factors=factors)

    def _deviations(self, index: jax.Array, noise: jax.Array) -> jax.Array:
        factors = self.factors.reshape(-1, self.dim, self.dim)[index]
        return jnp.einsum("...ij,...j->...i", factors, noise)


register(FullGaussianMixture)


def _solve(factors: jax.Array, columns: jax.Array) -> jax.Array:
    return jax.lax.linalg.triangular_solve(factors, columns, left_side=True, lower=True)


def _diagonal(factors: jax.Array) -> jax.Array:
    return jnp.diagonal(factors, axis1=-2, axis2=-1)


def _check_triangular(factors: jax.Array) -> None:
    if isinstance(factors, jax.core.Tracer):
        return
    values = np.asarray(factors)
    above = np.triu(np.ones(values.shape[-2:], bool), 1) & (values != 0)
    if above.any():
        raise ValueError(f"factors must be lower triangular, got {first(values, above)}")
    diagonal = np.diagonal(values, axis1=-2, axis2=-1)
    if (diagonal <= 0).any():
        raise ValueError(
            f"factors must have positive diagonals, got {first(diagonal, diagonal <= 0)}"
        )
