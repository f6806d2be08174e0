"""Module 1: estimates of the natural gradient of a component, from weighted samples.

For component `o` and `rho(x) = log p~(x) - tau log q(x)` the natural gradient has two parts,
`g = E_o[grad rho]` and `G = -E_o[hess rho]`. Both are returned whitened, in the coordinates
`z = L^-1 (x - mu)` in which the component is a standard Gaussian: `L^T g` and `L^T G L`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp

from ngem_tutorial._checks import check_number, check_whole
from ngem_tutorial._typing import Array, Float
from ngem_tutorial.vi._gaussians import Gaussians
from ngem_tutorial.vi._store import blocks

__all__ = ["CHOICES", "Estimate", "Estimator", "More", "Samples", "Stein"]


class Samples(NamedTuple):
    """Samples and what an estimator reads of them."""

    x: Float[Array, "n d"]
    """The samples, shape `(n, d)`."""
    rho: Float[Array, " n"]
    """`log p~ - tau log q`, zero where a sample does not count, shape `(n,)`."""
    gradient: Float[Array, "n d"]
    """Gradient of the log target, shape `(n, d)`; `(n, 0)` where it is not needed."""
    log_components: Float[Array, "n C"]
    """Log-densities of the components, shape `(n, C)`."""
    log_q: Float[Array, " n"]
    """Of the mixture, plus infinity where a sample does not count, shape `(n,)`."""
    log_background: Float[Array, " n"]
    """Of what drew the samples, plus infinity where a sample does not count, shape `(n,)`."""
    log_totals: Float[Array, " C"]
    """What makes the importance weights of a component sum to one, as a logarithm."""
    log_weights: Float[Array, " C"]
    """Of the mixture, shape `(C,)`."""
    first: Array
    """Row of the first sample; the rows are a ring."""
    number: Array
    """How many rows from the first one on hold samples."""

    def weights(self, rows: jax.Array) -> jax.Array:
        """Importance weights of some samples for each component.

        Each column sums to one over all samples; those that do not count have none.

        Args:
            rows: of the samples, shape `(m,)`.

        Returns:
            Shape `(m, C)`.
        """
        background = self.log_background[rows, None]
        return jnp.exp(self.log_components[rows] - background - self.log_totals)

    def responsibilities(self, rows: jax.Array) -> jax.Array:
        """Responsibilities of the components for some samples.

        Args:
            rows: of the samples, shape `(m,)`.

        Returns:
            Shape `(m, C)`; zeros for samples that do not count.
        """
        return jnp.exp(self.log_components[rows] + self.log_weights - self.log_q[rows, None])


class Estimate(NamedTuple):
    """An estimate for each component, whitened."""

    gradient: Float[Array, "C d"]
    """`L^T g`, shape `(C, d)`."""
    curvature: Float[Array, "C d d"]
    """`L^T G L`, symmetric, shape `(C, d, d)`."""


@dataclass(frozen=True)
class Stein:
    """`S`: of first order, by Stein's lemma, from the gradients of the target.

    `g = sum a grad rho` and `G = -sym(sum a S^-1 (x - mu) grad rho^T)`, with self-normalised
    importance weights `a`. Its error falls with the square root of the number of samples.
    """

    uses_gradient: ClassVar[bool] = True

    def __call__(
        self,
        samples: Samples,
        gaussians: Gaussians,
        factors: jax.Array,
        temperature: jax.Array,
        ridge: jax.Array,
    ) -> tuple[Estimate, jax.Array]:
        """Estimate the natural gradient of each component.

        Args:
            samples: weighted for each component.
            gaussians: the components.
            factors: their Cholesky factors, shape `(C, d, d)`.
            temperature: `tau`.
            ridge: is handed back.

        Returns:
            The estimate, and the ridge.
        """
        size, dim = gaussians.means.shape
        inverses = gaussians.inverses.reshape(size * dim, dim)

        def add(sums: Estimate, rows: jax.Array, there: jax.Array) -> Estimate:
            z = gaussians.standardize(samples.x[rows])
            # grad log q = -sum_o r_o S_o^-1 (x - mu_o)
            pulls = z * samples.responsibilities(rows).T[:, None]
            pull = inverses.T @ pulls.reshape(size * dim, -1)
            slope = samples.gradient[rows].T + temperature * pull
            weights = jnp.where(there[:, None], samples.weights(rows), 0.0)
            products = (z * weights.T[:, None]).reshape(size * dim, -1) @ slope.T
            return Estimate(
                sums.gradient + (slope @ weights).T,
                sums.curvature + products.reshape(size, dim, dim),
            )

        dtype = samples.x.dtype
        zeros = Estimate(jnp.zeros((size, dim), dtype), jnp.zeros((size, dim, dim), dtype))
        first, number = samples.first, samples.number
        total = blocks(first, number, samples.log_components, samples.x, add, zeros)
        outer = total.curvature @ factors  # sum a z h^T with h = L^T grad rho
        gradient = jnp.einsum("cji,cj->ci", factors, total.gradient)
        return Estimate(gradient, -0.5 * (outer + jnp.swapaxes(outer, -1, -2))), ridge


@dataclass(frozen=True)
class More:
    """`Z`: of order zero, by regression of `rho` on quadratic functions (MORE).

    The fit is by weighted least squares in the features `1, z, z z^T` with a ridge on all but the
    constant. It needs values of the target only, and about as many samples for each component as
    there are features, `(d + 1)(d + 2) / 2`; with fewer the features that they leave open get no
    part. The ridge is never so small that rounding would decide. Where the fit is not finite the
    ridge grows tenfold for that component, up to `most`, and its update is refused; otherwise it
    is halved.
    """

    least: float = 1e-12
    """The ridge that it starts with, and its least."""
    most: float = 1e-6
    """The largest ridge."""
    samples: int = 512
    """For each component those samples are used that have the largest weights, this many, or twice
    the number of features if that is more."""

    uses_gradient: ClassVar[bool] = False

    def __post_init__(self) -> None:
        """Check the options."""
        check_number("least", self.least, "positive", lambda v: v > 0)
        check_number("most", self.most, f"at least {self.least}", lambda v: v >= self.least)
        check_whole("samples", self.samples, 1)

    def __call__(
        self,
        samples: Samples,
        gaussians: Gaussians,
        factors: jax.Array,
        temperature: jax.Array,
        ridge: jax.Array,
    ) -> tuple[Estimate, jax.Array]:
        """Estimate the natural gradient of each component.

        Args:
            samples: weighted for each component.
            gaussians: the components.
            factors: their Cholesky factors, shape `(C, d, d)`.
            temperature: is in `rho` already.
            ridge: for each component, shape `(C,)`.

        Returns:
            The estimate, and the ridge for the next one.
        """
        rows, dim = samples.x.shape
        number = min(max(self.samples, (dim + 1) * (dim + 2)), rows)

        def one(component: tuple[jax.Array, ...]) -> Estimate:
            # A place without a component has no weights, and costs nothing.
            return jax.lax.cond(jnp.isfinite(component[3]), fitted, nothing, component)

        def nothing(component: tuple[jax.Array, ...]) -> Estimate:
            mean, inverse = component[:2]
            return Estimate(jnp.full_like(mean, jnp.nan), jnp.full_like(inverse, jnp.nan))

        def fitted(component: tuple[jax.Array, ...]) -> Estimate:
            mean, inverse, log_density, log_total, strength = component
            weights = jnp.exp(log_density - samples.log_background - log_total)
            heaviest, rows = jax.lax.top_k(weights, number)
            z = (samples.x[rows] - mean) @ inverse.T
            return _quadratic_fit(z, samples.rho[rows], heaviest, strength)

        densities = samples.log_components.T
        columns = gaussians.means, gaussians.inverses, densities, samples.log_totals, ridge
        estimate = jax.lax.map(one, columns)
        finite = jnp.isfinite(estimate.gradient).all(-1) & jnp.isfinite(estimate.curvature).all(
            (-2, -1)
        )
        halved = jnp.maximum(0.5 * ridge, self.least)
        return estimate, jnp.where(finite, halved, jnp.minimum(10.0 * ridge, self.most))


_ABOVE_ROUNDING: Final = 32.0
"""How many times the rounding of the features the root of the ridge is at least."""


def _quadratic_fit(z: jax.Array, rho: jax.Array, weights: jax.Array, ridge: jax.Array) -> Estimate:
    """Fit `rho` by `c + v.z - z.M.z / 2`; the gradient at `z = 0` is `v`, the curvature `M`.

    The least-squares problem is solved by the QR decomposition of the features with the ridge
    below them: the normal equations would lose half of the digits. A ridge whose root is not well
    above the rounding of the features would be divided by that where samples are too few.
    """
    dim = z.shape[-1]
    i, j = jnp.tril_indices(dim)
    features = jnp.concatenate([z, z[:, i] * z[:, j]], axis=1)
    root = jnp.sqrt(weights / jnp.sum(weights))[:, None]
    # The constant is not penalised: it is the same to take the weighted means off first.
    mean = jnp.sum(root**2 * features, axis=0)
    level = jnp.sum(root[:, 0] ** 2 * rho)
    size = features.shape[1]
    centred = root * (features - mean)
    rounding = jnp.finfo(z.dtype).eps * jnp.sqrt(jnp.sum(centred**2))
    below = jnp.maximum(jnp.sqrt(ridge), _ABOVE_ROUNDING * rounding)
    matrix = jnp.concatenate([centred, below * jnp.eye(size, dtype=z.dtype)])
    target = jnp.concatenate([root[:, 0] * (rho - level), jnp.zeros(size, z.dtype)])
    # With the target as a last column, R holds Q^T target too.
    r = jnp.linalg.qr(jnp.column_stack([matrix, target]), mode="r")
    found = jax.scipy.linalg.solve_triangular(r[:size, :size], r[:size, size])
    slope, products = found[:dim], found[dim:]
    quadratic = jnp.zeros((dim, dim), z.dtype).at[i, j].set(products)
    return Estimate(slope, -(quadratic + quadratic.T))


Estimator: TypeAlias = Stein | More
"""A choice of this module."""
CHOICES: dict[str, Estimator] = {"S": Stein(), "Z": More()}
"""The letters of this module."""
