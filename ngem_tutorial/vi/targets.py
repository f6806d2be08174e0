"""Targets: densities known up to a constant, with what is known about them.

Every generator takes its own key. A log density binds its arrays as a `Partial`, so that targets of
one kind and size share a compiled program. The definitions are those of Arenz et al. (2023), Arenz
et al. (2020), Lin et al. (2020) and Blessing et al. (2024).
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from ngem_tutorial._checks import check_whole
from ngem_tutorial._install import require
from ngem_tutorial._typing import Array, ArrayLike, Float
from ngem_tutorial.components import FullGaussianMixture
from ngem_tutorial.vi.fitting import initial_mixture

__all__ = [
    "Target",
    "banana",
    "breast_cancer",
    "funnel",
    "gaussian_grid",
    "gaussian_mixture",
    "german_credit",
    "logistic_regression",
    "planar_robot",
    "ring",
    "student_mixture",
    "student_products",
    "unit_gaussians",
]

_LOG_2PI = math.log(2.0 * math.pi)


class Target(NamedTuple):
    """A target and its published start."""

    log_density: Partial
    """`log p~` of a point `(d,)`, in nats."""
    dim: int
    """`d`."""
    start: Callable[[jax.Array], FullGaussianMixture]
    """The mixture to start from, drawn with a random key."""
    log_evidence: float | None
    """`log Z`, where it is known."""
    sample: Callable[[jax.Array, int], jax.Array] | None
    """Draw so many points from the target, shape `(n, d)`, where that can be done."""
    modes: np.ndarray | None
    """Means of the modes, shape `(M, d)`, where they are known."""


def gaussian_mixture(key: jax.Array, dim: int, num_modes: int = 10) -> Target:
    """A mixture of Gaussians with full covariances, GMM20 and GMM100 for 20 and 100 dimensions.

    Equal weights, means from U(-50, 50), covariances `A^T A + I` with `A` normal of deviation
    `0.1 d`. The start is one component N(0, 1000 I).

    Args:
        key: a JAX random key.
        dim: `d`.
        num_modes: how many components the target has.

    Returns:
        The target, with `log Z = 0`.

    Raises:
        ValueError: if a number is not positive.

    Example:
        >>> import jax
        >>> from ngem_tutorial.vi import targets
        >>> targets.gaussian_mixture(jax.random.key(0), 20).modes.shape
        (10, 20)
    """
    dim, number = check_whole("dim", dim, 1), check_whole("num_modes", num_modes, 1)
    mean_key, shape_key = jax.random.split(key)
    means = jax.random.uniform(mean_key, (number, dim), minval=-50.0, maxval=50.0)
    a = 0.1 * dim * jax.random.normal(shape_key, (number, dim, dim))
    covariances = jnp.swapaxes(a, -1, -2) @ a + jnp.eye(dim)
    truth = FullGaussianMixture.from_covariances(jnp.zeros(number), means, covariances)
    return _of_mixture(truth, _wide_start(dim, 1000.0**0.5, spread=0.0))


def unit_gaussians(key: jax.Array, dim: int, num_modes: int = 40) -> Target:
    """Gaussians of unit covariance with means from U(-40, 40), equal weights.

    The start is one component with the standard deviation 40.

    Args:
        key: a JAX random key.
        dim: `d`.
        num_modes: how many.

    Returns:
        The target, with `log Z = 0`.

    Raises:
        ValueError: if a number is not positive.
    """
    dim, number = check_whole("dim", dim, 1), check_whole("num_modes", num_modes, 1)
    means = jax.random.uniform(key, (number, dim), minval=-40.0, maxval=40.0)
    factors = jnp.broadcast_to(jnp.eye(dim), (number, dim, dim))
    truth = FullGaussianMixture(jnp.zeros(number), means, factors)
    return _of_mixture(truth, _wide_start(dim, 40.0, spread=0.0))


def student_mixture(key: jax.Array, dim: int, *, harder: bool = False) -> Target:
    """A mixture of multivariate Student-t of 2 degrees of freedom, STM20 and STM300.

    Equal weights, locations from U(-s, s), scale matrices `(A^T A + I)^-1` with `A` normal of
    deviation `0.1 d`. The start has 20 components, means from N(0, 100^2), covariance 300 I.

    Args:
        key: a JAX random key.
        dim: `d`.
        harder: 20 components and `s = 25`, in the place of 10 and 20.

    Returns:
        The target, with `log Z = 0`.

    Raises:
        ValueError: if `dim` is not positive.
    """
    dim = check_whole("dim", dim, 1)
    number, reach = (20, 25.0) if harder else (10, 20.0)
    mean_key, shape_key = jax.random.split(key)
    means = jax.random.uniform(mean_key, (number, dim), minval=-reach, maxval=reach)
    a = 0.1 * dim * jax.random.normal(shape_key, (number, dim, dim))
    precisions = jnp.swapaxes(a, -1, -2) @ a + jnp.eye(dim)
    roots = jnp.swapaxes(jnp.linalg.cholesky(precisions), -1, -2)  # R^T R is the precision
    log_dets = jnp.sum(jnp.log(jnp.diagonal(roots, axis1=-2, axis2=-1)), axis=-1)

    def sample(key: jax.Array, shape: int) -> jax.Array:
        pick, noise, chi = jax.random.split(key, 3)
        k = jax.random.randint(pick, (shape,), 0, number)
        normal = jax.random.normal(noise, (shape, dim))
        solved = jax.vmap(lambda root, z: jax.scipy.linalg.solve_triangular(root, z))(
            roots[k], normal
        )
        # A chi-squared variable of 2 degrees of freedom is twice an exponential one.
        scale = jnp.sqrt(jax.random.exponential(chi, (shape, 1)))
        return means[k] + solved / scale

    start = _wide_start(dim, 300.0**0.5, spread=100.0, number=20)
    log_density = Partial(_student_mixture, means, roots, log_dets)
    return Target(log_density, dim, start, 0.0, sample, np.asarray(means))


def _student_mixture(
    means: jax.Array, roots: jax.Array, log_dets: jax.Array, x: jax.Array
) -> jax.Array:
    number, dim = means.shape
    nu = 2.0
    constant = (
        math.lgamma(0.5 * (nu + dim))
        - math.lgamma(0.5 * nu)
        - 0.5 * dim * math.log(nu * math.pi)
        - math.log(number)
    )
    z = jnp.einsum("kij,kj->ki", roots, x - means)
    terms = log_dets - 0.5 * (nu + dim) * jnp.log1p(jnp.sum(z**2, axis=-1) / nu)
    return constant + jax.nn.logsumexp(terms)


def student_products(key: jax.Array, dim: int, num_modes: int = 10) -> Target:
    """A mixture of products of Student-t of 2 degrees of freedom, locations from U(-10, 10).

    The start is one component with the standard deviation 10.

    Args:
        key: a JAX random key.
        dim: `d`.
        num_modes: how many, with equal weights.

    Returns:
        The target, with `log Z = 0`.

    Raises:
        ValueError: if a number is not positive.
    """
    dim, number = check_whole("dim", dim, 1), check_whole("num_modes", num_modes, 1)
    means = jax.random.uniform(key, (number, dim), minval=-10.0, maxval=10.0)

    def sample(key: jax.Array, shape: int) -> jax.Array:
        pick, noise = jax.random.split(key)
        k = jax.random.randint(pick, (shape,), 0, number)
        return means[k] + jax.random.t(noise, 2.0, (shape, dim))

    start = _wide_start(dim, 10.0, spread=0.0)
    return Target(Partial(_student_products, means), dim, start, 0.0, sample, np.asarray(means))


def _student_products(means: jax.Array, x: jax.Array) -> jax.Array:
    # The density of t with 2 degrees of freedom is (2 + x^2)^(-3/2).
    terms = -1.5 * jnp.sum(jnp.log(2.0 + (x - means) ** 2), axis=-1)
    return jax.nn.logsumexp(terms) - math.log(len(means))


def funnel(dim: int = 10) -> Target:
    """Neal's funnel: the first coordinate N(0, 3^2), the others N(0, exp(x_1)).

    The start is one standard normal component.

    Args:
        dim: `d`, at least 2.

    Returns:
        The target, with `log Z = 0`.

    Raises:
        ValueError: if `dim` is less than 2.
    """
    dim = check_whole("dim", dim, 2)

    def sample(key: jax.Array, shape: int) -> jax.Array:
        noise = jax.random.normal(key, (shape, dim))
        first = 3.0 * noise[:, :1]
        return jnp.concatenate([first, jnp.exp(0.5 * first) * noise[:, 1:]], axis=1)

    return Target(Partial(_funnel), dim, _wide_start(dim, 1.0, spread=0.0), 0.0, sample, None)


def _funnel(x: jax.Array) -> jax.Array:
    first = -0.5 * (x[0] / 3.0) ** 2 - math.log(3.0)
    rest = -0.5 * jnp.sum(x[1:] ** 2) * jnp.exp(-x[0]) - 0.5 * (len(x) - 1) * x[0]
    return first + rest - 0.5 * len(x) * _LOG_2PI


def planar_robot(num_goals: int = 4) -> Target:
    """Angles of an arm of ten unit links whose end is at one of some goals.

    The prior of the angles is N(0, 1) for the first and N(0, 0.2^2) for the others; the end must
    be at one of the goals (7, 0), (0, 7), (-7, 0), (0, -7), to within 0.01. The start has 300
    components drawn from the prior, with covariances of its size over 16.

    Args:
        num_goals: the first so many of them, 1 to 4.

    Returns:
        The target; its `log Z` is not known.

    Raises:
        ValueError: if there are not so many goals.
    """
    number = check_whole("num_goals", num_goals, 1, 4)
    goals = jnp.asarray([(7.0, 0.0), (0.0, 7.0), (-7.0, 0.0), (0.0, -7.0)])[:number]
    prior = jnp.asarray([1.0] + [0.2] * 9)

    def start(key: jax.Array) -> FullGaussianMixture:
        return initial_mixture(key, 10, 300, spread=prior, scale=0.25 * prior)

    return Target(Partial(_planar_robot, goals, prior), 10, start, None, None, None)


def _planar_robot(goals: jax.Array, prior: jax.Array, theta: jax.Array) -> jax.Array:
    angles = jnp.cumsum(theta)
    end = jnp.stack([jnp.sum(jnp.cos(angles)), jnp.sum(jnp.sin(angles))])
    distance = jnp.sum((end - goals) ** 2, axis=-1)
    reached = -0.5 * jnp.min(distance) / 1e-4 - math.log(1e-4) - _LOG_2PI
    believed = -0.5 * jnp.sum((theta / prior) ** 2) - jnp.sum(jnp.log(prior)) - 5.0 * _LOG_2PI
    return reached + believed


def logistic_regression(features: ArrayLike, labels: ArrayLike) -> Target:
    """Bayesian logistic regression with the prior N(0, 100 I).

    The features are divided by their standard deviations, not centred, and get an intercept. The
    start is one component N(0, 100 I).

    Args:
        features: shape `(n, d - 1)`.
        labels: 0 or 1, shape `(n,)`.

    Returns:
        The target; its `log Z` is not known.

    Raises:
        ValueError: if shapes or values do not fit.
    """
    x, y = np.asarray(features, float), np.asarray(labels)
    if x.ndim != 2 or y.shape != x.shape[:1]:
        raise ValueError(
            f"features and labels must have shapes (n, d) and (n,), got {x.shape} and {y.shape}"
        )
    if not np.isin(y, (0, 1)).all():
        raise ValueError(f"labels must be 0 or 1, got {np.unique(y)[:5]}")
    spread = x.std(axis=0)
    if not np.isfinite(x).all() or (spread == 0).any():
        raise ValueError("features must be finite, and none constant")
    design = jnp.asarray(np.column_stack([np.ones(len(x)), x / spread]), jnp.float32)
    sign = jnp.asarray(2.0 * y - 1.0, jnp.float32)
    dim = design.shape[1]
    log_density = Partial(_logistic_regression, design, sign)
    return Target(log_density, dim, _wide_start(dim, 10.0, spread=0.0), None, None, None)


def _logistic_regression(design: jax.Array, sign: jax.Array, theta: jax.Array) -> jax.Array:
    prior = -0.5 * jnp.sum(theta**2) / 100.0 - 0.5 * len(theta) * math.log(2.0 * math.pi * 100.0)
    return prior + jnp.sum(jax.nn.log_sigmoid(sign * (design @ theta)))


def breast_cancer() -> Target:
    """Logistic regression on Wisconsin breast cancer, 31 coefficients.

    Returns:
        The target; see `logistic_regression`.

    Raises:
        ImportError: if scikit-learn, which has the data, is not installed.
    """
    data = require("sklearn.datasets").load_breast_cancer()
    return logistic_regression(data.data, data.target)


def german_credit(directory: str | os.PathLike[str] | None = None) -> Target:
    """Logistic regression on German credit, 25 coefficients.

    Args:
        directory: where `vi/german.data-numeric` is; by default `NGEM_DATA_DIR`.

    Returns:
        The target; see `logistic_regression`.

    Raises:
        FileNotFoundError: if the file is not there; the error says where to get it.
    """
    folder = directory if directory is not None else os.environ.get("NGEM_DATA_DIR", ".")
    path = Path(folder) / "vi" / "german.data-numeric"
    if not path.exists():
        raise FileNotFoundError(
            f"{path} is not there. It is the file german.data-numeric of Statlog (German Credit "
            "Data), https://archive.ics.uci.edu/dataset/144; set NGEM_DATA_DIR to the folder above"
        )
    table = np.loadtxt(path)
    return logistic_regression(table[:, :-1], table[:, -1] == 1)


def ring(radius: float = 4.0, width: float = 0.4) -> Target:
    """A ring in the plane: the log-density is `-(|x| - radius)^2 / (2 width^2)`.

    The distance `r` from the origin is therefore not normal: its density has a factor `r` besides.

    Args:
        radius: where the density is highest.
        width: of the ring, about the standard deviation of the distance.

    Returns:
        The target; the start is one component with the standard deviation `radius`.
    """
    start = _wide_start(2, radius, spread=0.0)
    return Target(Partial(_ring, radius, width), 2, start, None, None, None)


def _ring(radius: float, width: float, x: jax.Array) -> jax.Array:
    return -0.5 * ((jnp.sqrt(x @ x + 1e-12) - radius) / width) ** 2


def banana(bend: float = 0.5) -> Target:
    """A banana in the plane: N(0, 2^2) first, then N(bend x_1^2, 1).

    Args:
        bend: how far the second coordinate follows the square of the first.

    Returns:
        The target, with `log Z = 0`; the start is one component with the standard deviation 3.
    """

    def sample(key: jax.Array, shape: int) -> jax.Array:
        noise = jax.random.normal(key, (shape, 2))
        first = 2.0 * noise[:, 0]
        return jnp.stack([first, bend * first**2 + noise[:, 1]], axis=1)

    start = _wide_start(2, 3.0, spread=0.0)
    return Target(Partial(_banana, bend), 2, start, 0.0, sample, None)


def _banana(bend: float, x: jax.Array) -> jax.Array:
    beside = x[1] - bend * x[0] ** 2
    return -0.5 * (x[0] / 2.0) ** 2 - 0.5 * beside**2 - math.log(2.0) - _LOG_2PI


def gaussian_grid(side: int = 5, distance: float = 4.0, scale: float = 0.5) -> Target:
    """A square grid of Gaussians in the plane, with equal weights.

    Args:
        side: how many in a row and in a column.
        distance: between neighbours.
        scale: standard deviation of each.

    Returns:
        The target, with `log Z = 0`; the start is one component as wide as the grid.

    Raises:
        ValueError: if `side` is not positive.
    """
    side = check_whole("side", side, 1)
    line = distance * (np.arange(side) - 0.5 * (side - 1))
    means = np.stack(np.meshgrid(line, line), axis=-1).reshape(-1, 2)
    factors = np.broadcast_to(scale * np.eye(2), (len(means), 2, 2))
    truth = FullGaussianMixture(np.zeros(len(means)), means, factors)
    return _of_mixture(truth, _wide_start(2, distance * side / 3.0, spread=0.0))


def _of_mixture(truth: FullGaussianMixture, start: Callable[..., FullGaussianMixture]) -> Target:
    """The target that is a mixture of Gaussians itself."""
    identity = jnp.broadcast_to(jnp.eye(truth.dim), truth.factors.shape)
    inverses = jax.lax.linalg.triangular_solve(truth.factors, identity, left_side=True, lower=True)
    log_dets = jnp.sum(jnp.log(jnp.diagonal(truth.factors, axis1=-2, axis2=-1)), axis=-1)
    constants = truth.log_weights - log_dets - 0.5 * truth.dim * _LOG_2PI

    def sample(key: jax.Array, number: int) -> Float[Array, "number d"]:
        return truth.sample(key, number)

    log_density = Partial(_gaussian_mixture, truth.means, inverses, constants)
    return Target(log_density, truth.dim, start, 0.0, sample, np.asarray(truth.means))


def _gaussian_mixture(
    means: jax.Array, inverses: jax.Array, constants: jax.Array, x: jax.Array
) -> jax.Array:
    z = jnp.einsum("kij,kj->ki", inverses, x - means)
    return jax.nn.logsumexp(constants - 0.5 * jnp.sum(z**2, axis=-1))


def _wide_start(
    dim: int, scale: float, *, spread: float, number: int = 1
) -> Callable[[jax.Array], FullGaussianMixture]:
    def start(key: jax.Array) -> FullGaussianMixture:
        return initial_mixture(key, dim, number, spread=spread, scale=scale)

    return start
