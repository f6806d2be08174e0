"""The components of the approximation: Gaussians in arrays of a fixed length, the last ones unused.

A compiled program has fixed shapes, and the number of components changes. So the arrays have room
for `C` components, of which the first `K` count; what stands behind them is a standard Gaussian
that has weight zero everywhere.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from ngem_tutorial._typing import Array, Float

__all__ = ["BUCKETS", "Gaussians", "bucket", "pad"]

BUCKETS = (8, 16, 32, 64, 128, 256, 384, 512, 768, 1024)
"""For how many components programs are compiled."""

_LOG_2PI = math.log(2.0 * math.pi)


class Gaussians(NamedTuple):
    """`C` Gaussians with covariances `S = L L^T`: what their densities need."""

    means: Float[Array, "*times C d"]
    """`mu`, shape `(C, d)`."""
    inverses: Float[Array, "*times C d d"]
    """`L^-1`, shape `(C, d, d)`: many points are standardised with it, so it is made once."""
    log_dets: Float[Array, "*times C"]
    """`log det L`, shape `(C,)`."""

    @classmethod
    def of(cls, means: jax.Array, factors: jax.Array) -> Gaussians:
        """Make them from means `(C, d)` and Cholesky factors `(C, d, d)`."""
        identity = jnp.broadcast_to(jnp.eye(means.shape[-1], dtype=means.dtype), factors.shape)
        inverses = jax.lax.linalg.triangular_solve(factors, identity, left_side=True, lower=True)
        diagonals = jnp.diagonal(factors, axis1=-2, axis2=-1)
        return cls(means, inverses, jnp.sum(jnp.log(diagonals), axis=-1))

    def standardize(self, x: jax.Array) -> jax.Array:
        """Return `z = L^-1 (x - mu)` of points `(n, d)` under each Gaussian, `(C, d, n)`.

        The points come last: products and sums over them then need no transposition.
        """
        return self.inverses @ (x.T - self.means[:, :, None])

    def log_prob(self, z: jax.Array) -> jax.Array:
        """Return the log-densities `(n, C)` of standardised points `(C, d, n)`."""
        constant = self.log_dets + 0.5 * z.shape[-2] * _LOG_2PI
        return (-0.5 * jnp.sum(z**2, axis=-2) - constant[:, None]).T


def bucket(num_components: int) -> int:
    """Return the least of `BUCKETS` that holds a number of components.

    Args:
        num_components: at most the last of `BUCKETS`.

    Returns:
        The length of the arrays.
    """
    return next(size for size in BUCKETS if size >= num_components)


def pad(array: jax.Array, length: int, fill: float | jax.Array, axis: int = 0) -> jax.Array:
    """Lengthen an axis.

    Args:
        array: any shape.
        length: what the axis shall have, not less than it has.
        fill: what stands in the new places: broadcast to an array of their shape.
        axis: which one.

    Returns:
        The longer array.
    """
    shape = list(array.shape)
    shape[axis] = length - shape[axis]
    new = jnp.broadcast_to(jnp.asarray(fill, array.dtype), shape)
    return jnp.concatenate([array, new], axis)
