"""Module 4: the update of a component along its natural gradient.

In the whitened coordinates of a component with estimate `v`, `M` and step `beta`: its mean, 0,
moves, and its precision, I, changes to `P`. An update whose precision is not positive definite is
refused: the component stays as it is, and the refusal is counted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp

from ngem_tutorial._checks import check_number
from ngem_tutorial._typing import Array, Float
from ngem_tutorial.vi.checks import is_length
from ngem_tutorial.vi.estimators import Estimate

__all__ = [
    "CHOICES",
    "ComponentUpdate",
    "Direct",
    "ImprovedBayesianRule",
    "Step",
    "TrustRegion",
    "divergence",
    "rate",
]


class Step(NamedTuple):
    """An update of one component, whitened."""

    shift: Float[Array, " d"]
    """The new mean, shape `(d,)`."""
    factor: Float[Array, "d d"]
    """The Cholesky factor of the new covariance, shape `(d, d)`."""


@dataclass(frozen=True)
class Direct:
    """`I`: the plain natural-gradient step: `P = I + beta M`, `mu' = beta P^-1 v`.

    With `beta = 1` it lands on a Gaussian target exactly. Refused where `P` is not positive
    definite.
    """

    first_step: float = 1e-3
    """The step size that it starts with."""

    def __post_init__(self) -> None:
        """Check the option."""
        check_number("first_step", self.first_step, "at least 0 and finite", is_length)

    def __call__(self, estimate: Estimate, step: jax.Array, longest: jax.Array) -> Step:
        """Update one component.

        Args:
            estimate: of its natural gradient.
            step: its step size.
            longest: `1 / tau`, for a choice that looks for the step by itself.

        Returns:
            The update; parts that are not finite mean that it is refused.
        """
        identity = jnp.eye(estimate.gradient.shape[-1], dtype=estimate.gradient.dtype)
        factor = _factor_of_inverse(identity + step * estimate.curvature)
        return Step(step * (factor @ (factor.T @ estimate.gradient)), factor)


@dataclass(frozen=True)
class ImprovedBayesianRule:
    """`Y`: iBLR (Lin, Schmidt, Khan 2020): `P = I + beta M + beta^2 M^2 / 2`, `mu' = beta v`.

    Positive definite for every `beta`; the optimum is its fixed point.
    """

    first_step: float = 1e-3
    """The step size that it starts with."""

    def __post_init__(self) -> None:
        """Check the option."""
        check_number("first_step", self.first_step, "at least 0 and finite", is_length)

    def __call__(self, estimate: Estimate, step: jax.Array, longest: jax.Array) -> Step:
        """Update one component.

        Args:
            estimate: of its natural gradient.
            step: its step size.
            longest: `1 / tau`, for a choice that looks for the step by itself.

        Returns:
            The update; parts that are not finite mean that it is refused.
        """
        change = step * estimate.curvature
        identity = jnp.eye(change.shape[-1], dtype=change.dtype)
        factor = _factor_of_inverse(identity + change + 0.5 * change @ change)
        return Step(step * estimate.gradient, factor)


@dataclass(frozen=True)
class TrustRegion:
    """`T`: the longest direct step, up to `1 / tau`, with a `KL(q' || q)` within the step size.

    It maximises the component's part of the ELBO, to second order, under that bound: with the
    multiplier `eta >= 0` of the bound, `beta = 1 / (tau + eta)`. With `M = U diag(m) U^T`,
    `u = U^T v` and `s = 1 + beta m` the divergence is
    `1/2 sum(1/s - 1 + log s + (beta u / s)^2)`. It grows with `beta` as long as all `s > 0`: one
    eigendecomposition, then a bisection that costs `O(d)` a time.
    """

    first_step: float = 1.0
    """The bound in nats that it starts with."""

    def __post_init__(self) -> None:
        """Check the option."""
        check_number("first_step", self.first_step, "at least 0 and finite", is_length)

    def __call__(self, estimate: Estimate, step: jax.Array, longest: jax.Array) -> Step:
        """Update one component.

        Args:
            estimate: of its natural gradient.
            step: its step size.
            longest: `1 / tau`, for a choice that looks for the step by itself.

        Returns:
            The update; parts that are not finite mean that it is refused.
        """
        m, basis = jnp.linalg.eigh(estimate.curvature)
        u = basis.T @ estimate.gradient
        beta = rate(m, u, step, longest)
        s = 1.0 + beta * m
        shift = basis @ (beta * u / s)
        # A = U diag(s)^-1/2 has A A^T = P^-1.
        factor = _factor_of_inverse((basis * s) @ basis.T)
        return Step(shift, factor)


def rate(m: jax.Array, u: jax.Array, bound: jax.Array, longest: jax.Array) -> jax.Array:
    """Return the largest step that keeps to a bound on its divergence.

    Args:
        m: eigenvalues of the whitened curvature, shape `(d,)`.
        u: whitened gradient in their basis, shape `(d,)`.
        bound: on the divergence, in nats.
        longest: no step is longer than this.

    Returns:
        `beta`, a number: the divergence there is the bound, or `beta` is `longest`.
    """
    least = jnp.min(m)
    # Beyond -1 / min(m) the precision is not positive definite.
    limit = jnp.where(least < 0, -1.0 / jnp.where(least < 0, least, -1.0), longest)
    allowed = divergence(m, u, longest) <= bound

    def halve(_: int, ends: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        low, high = ends
        middle = 0.5 * (low + high)
        fits = divergence(m, u, jnp.exp(middle)) <= bound
        return jnp.where(fits, middle, low), jnp.where(fits, high, middle)

    high = jnp.log(jnp.minimum(limit, longest))
    halvings = 64 if m.dtype == jnp.float64 else 32
    # Down to 1e-37: far from a narrow target, whitened gradients are large.
    found, _ = jax.lax.fori_loop(0, halvings, halve, (high - 85.0, high))
    return jnp.where(allowed, longest, jnp.exp(found))


def divergence(m: jax.Array, u: jax.Array, beta: jax.Array) -> jax.Array:
    """Return `KL(q' || q)` in nats of a direct step, infinite where it is not positive definite.

    Args:
        m: eigenvalues of the whitened curvature, shape `(d,)`.
        u: whitened gradient in their basis, shape `(d,)`.
        beta: the step.

    Returns:
        A number.
    """
    t = beta * m
    positive = t > -1.0
    t = jnp.where(positive, t, 0.0)
    terms = jnp.log1p(t) - t / (1.0 + t) + (beta * u / (1.0 + t)) ** 2
    return jnp.where(positive.all(), 0.5 * jnp.sum(terms), jnp.inf)


def _factor_of_inverse(precision: jax.Array) -> jax.Array:
    """Return the Cholesky factor of the inverse of a matrix, NaN if that is not positive definite.

    Turned around, the Cholesky factor of a matrix is an upper triangular one, whose inverse
    transposed is the factor of the inverse. Of an infinite matrix that would be zero.
    """
    precision = jnp.where(jnp.isfinite(precision), precision, jnp.nan)
    upper = jnp.linalg.cholesky(precision[::-1, ::-1])[::-1, ::-1]
    identity = jnp.eye(precision.shape[-1], dtype=precision.dtype)
    return jax.scipy.linalg.solve_triangular(upper, identity, lower=False).T


ComponentUpdate: TypeAlias = Direct | ImprovedBayesianRule | TrustRegion
"""A choice of this module."""
CHOICES: dict[str, ComponentUpdate] = {
    "I": Direct(),
    "Y": ImprovedBayesianRule(),
    "T": TrustRegion(),
}
"""The letters of this module."""
