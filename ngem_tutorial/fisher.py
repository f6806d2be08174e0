"""Fisher information of Gaussian mixtures, generalised inverses and natural gradients.

The complete-data Fisher matrix of a mixture is block-diagonal (Proposition 3.4, equation (51) of
the paper): one diagonal block `pi_k F_k` for each Gaussian and one `K x K` block for the logits.
This file has the blocks in closed form, the ways to invert the singular block of the logits, the
natural gradients that follow, and slow references by automatic differentiation and by sampling.

A natural gradient here is a *cotangent*: it takes the place of the plain gradient of the negative
log-likelihood with respect to the mixture's parameters and is propagated back through the network
by the chain rule, as in line 8 of Algorithm 1.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from ngem_tutorial._checks import check_choice, check_number, check_options, check_values
from ngem_tutorial._typing import Array, ArrayLike, Float, Num, Scalar
from ngem_tutorial.mixtures import GaussianMixture, check_mixture

__all__ = [
    "CompleteDataFisher",
    "Coordinate",
    "EStep",
    "GaussianFisher",
    "categorical_fisher",
    "complete_data_fisher",
    "complete_data_fisher_by_autodiff",
    "complete_data_fisher_by_sampling",
    "complete_data_kl",
    "gaussian_fisher",
    "logits_moore_penrose_inverse",
    "logits_reflexive_inverse",
    "natural_gradient",
    "relaxed_e_step",
    "solve_damped_categorical_fisher",
]

Coordinate = Literal["scale", "log_scale"]
"""In which the Fisher block of a standard deviation acts: `"scale"` with `F = 2 / sigma^2` as in
the paper (equation (21)), or `"log_scale"` with the constant `F = 2`. As steps of a free parameter
they agree to first order (natural gradients do not depend on coordinates); as cotangents sent
through a network they differ by the factor `sigma^2`."""


def categorical_fisher(weights: Num[ArrayLike, "*batch K"]) -> Float[Array, "*batch K K"]:
    """Fisher matrix of the logits, `diag(pi) - pi pi^T`: equation (22) of the paper.

    Args:
        weights: `pi`, shape `(..., K)`, each row summing to one.

    Returns:
        Shape `(..., K, K)`, of rank `K - 1`: the all-ones vector is its null space.
    """
    pi = jnp.asarray(weights)
    return _diagonal(pi) - pi[..., :, None] * pi[..., None, :]


def logits_moore_penrose_inverse(
    weights: Num[ArrayLike, "*batch K"],
) -> Float[Array, "*batch K K"]:
    """Moore-Penrose inverse of `categorical_fisher`, `P diag(1/pi) P` with `P = I - 1 1^T / K`.

    Args:
        weights: `pi`, shape `(..., K)`, all positive.

    Returns:
        Shape `(..., K, K)`.
    """
    pi = jnp.asarray(weights)
    k = pi.shape[-1]
    centring = jnp.eye(k, dtype=pi.dtype) - 1.0 / k
    return centring @ _diagonal(1.0 / pi) @ centring


def logits_reflexive_inverse(weights: Num[ArrayLike, "*batch K"]) -> Float[Array, "*batch K K"]:
    """The generalised inverse `diag(1/pi) - 1 1^T` of equation (67) of the paper.

    It satisfies `F G F = F` and `G F G = G`, but `F G = I - pi 1^T` is not symmetric unless the
    weights are equal, so it is not the Moore-Penrose inverse.

    Args:
        weights: `pi`, shape `(..., K)`, all positive.

    Returns:
        Shape `(..., K, K)`.
    """
    return _diagonal(1.0 / jnp.asarray(weights)) - 1.0


def solve_damped_categorical_fisher(
    weights: Num[ArrayLike, "*batch K"], gradient: Num[ArrayLike, "*batch K"], damping: Scalar
) -> Float[Array, "*batch K"]:
    """Solve `(diag(pi) - pi pi^T + damping I) x = gradient` by the Sherman-Morrison formula.

    Args:
        weights: `pi`, shape `(..., K)`, each row summing to one.
        gradient: right-hand side, shape `(..., K)`.
        damping: positive; the solution is at most `|gradient| / damping` long.

    Returns:
        Shape `(..., K)`.

    Raises:
        ValueError: if `damping` is not positive (where it is known).
    """
    check_values("damping", damping, "positive and finite", lambda d: (d > 0) & np.isfinite(d))
    pi, g = jnp.asarray(weights), jnp.asarray(gradient)
    a = 1.0 / (pi + damping)
    # 1 - pi^T diag(a) pi, written without the cancellation.
    denominator = jnp.sum(damping * pi * a, axis=-1, keepdims=True)
    return a * (g + pi * jnp.sum(pi * a * g, axis=-1, keepdims=True) / denominator)


def gaussian_fisher(scales: ArrayLike, coordinate: Coordinate = "scale") -> GaussianFisher:
    """Diagonal of the Fisher matrix of a Gaussian's mean and scale: equation (21) of the paper.

    Args:
        scales: standard deviations, any shape.
        coordinate: `"scale"` or `"log_scale"`; see `Coordinate`.

    Returns:
        The entries for the mean, `1 / sigma^2`, and for the scale, `2 / sigma^2` in the
        coordinate `sigma` and 2 in `log sigma`, in the shape of `scales`.
    """
    check_choice("coordinate", coordinate, get_args(Coordinate))
    sigma = jnp.asarray(scales)
    mean = sigma**-2
    return GaussianFisher(mean, 2.0 * mean if coordinate == "scale" else jnp.full_like(sigma, 2.0))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class GaussianFisher:
    """Diagonal Fisher matrix of Gaussians.

    Attributes:
        means: entries for the means, of the shape of the scales.
        scales: entries for the scales, likewise.
    """

    means: Array
    scales: Array


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class CompleteDataFisher:
    """The blocks of the complete-data Fisher matrix, equation (51) of the paper.

    Attributes:
        logits: `F_pi`, shape `(..., K, K)`.
        means: diagonal of the means' part of `pi_k F_k`, shape `(..., K, D)`.
        scales: diagonal of the scales' part of `pi_k F_k`, shape `(..., K, D)`.
    """

    logits: Array
    means: Array
    scales: Array

    def to_dense(self) -> Float[Array, "P P"]:
        """The whole matrix of one mixture.

        Returns:
            Shape `(P, P)`, in the order logits, means, scales.
        """
        diagonal = jnp.concatenate([self.means.ravel(), self.scales.ravel()])
        return jax.scipy.linalg.block_diag(self.logits, jnp.diag(diagonal))


def complete_data_fisher(
    mixture: GaussianMixture, coordinate: Coordinate = "scale"
) -> CompleteDataFisher:
    """Fisher matrix of the joint density of target and component, in closed form.

    Args:
        mixture: batch shape `(...)`.
        coordinate: `"scale"` or `"log_scale"`; see `Coordinate`.

    Returns:
        The blocks of equation (51) of the paper.

    Example:
        >>> from ngem_tutorial import GaussianMixture
        >>> from ngem_tutorial.fisher import complete_data_fisher
        >>> mixture = GaussianMixture([0.0, 0.0], [[-1.0], [1.0]], [[0.5], [0.5]])
        >>> complete_data_fisher(mixture).means.tolist()  # weight / scale^2
        [[2.0], [2.0]]
    """
    pi = mixture.weights
    block = gaussian_fisher(mixture.scales, coordinate)
    return CompleteDataFisher(
        categorical_fisher(pi), pi[..., None] * block.means, pi[..., None] * block.scales
    )


class EStep(NamedTuple):
    """What the natural gradients of a mixture at its targets are made of."""

    residuals: Float[Array, "*batch K D"]
    """`(y - mu_k) / sigma_k`, shape `(..., K, D)`."""
    weights: Float[Array, "*batch K"]
    """`pi`, shape `(..., K)`."""
    responsibilities: Float[Array, "*batch K"]
    """`rho`, shape `(..., K)`."""
    ratio: Float[Array, "*batch K"]
    """`rho / pi`, shape `(..., K)`; it saturates at the root of the largest float."""


def relaxed_e_step(
    mixture: GaussianMixture,
    y: ArrayLike,
    relaxation: Scalar = 0.0,
    balance: ArrayLike = 0.0,
) -> EStep:
    """The E-step with each component given a share of every target.

    Args:
        mixture: batch shape `(...)`.
        y: targets, shape `(..., D)`.
        relaxation: `eps`, a number from 0 to 1, traced or not. Not zero, the responsibilities are
            `(1 - eps) rho + eps / K`, and the standardised residuals are limited to `1 / (2 eps)`.
            Under `jax.jit`, where it is not known, it is moved into its range.
        balance: what is added to `log rho` before the relaxation, and normalised, a number (which
            changes nothing) or shape `(K,)`; see `power.balance`.

    Returns:
        The weights, the relaxed responsibilities, their ratio and the limited residuals.

    Raises:
        ValueError: if the shape of `y` does not fit or `relaxation` is out of range.
    """
    check_number("relaxation", relaxation, "from 0 to 1", lambda e: (e >= 0) & (e <= 1))
    z = mixture.standardize(y)
    log_pi = mixture.log_weights
    log_rho = mixture.log_responsibilities(y)
    correction = jnp.asarray(balance)
    if correction.ndim > 0:
        log_rho = jax.nn.log_softmax(log_rho + correction.astype(log_rho.dtype), axis=-1)
    pi, rho = jnp.exp(log_pi), jnp.exp(log_rho)
    ratio = _exp(log_rho - log_pi)
    if not (isinstance(relaxation, float) and relaxation == 0.0):
        eps = jnp.clip(jnp.asarray(relaxation, z.dtype), 0.0, 1.0)
        z = jnp.clip(z, -0.5 / eps, 0.5 / eps)
        rho = rho + eps * (1.0 / mixture.num_components - rho)
        ratio = ratio + eps * (_exp(-log_pi) / mixture.num_components - ratio)
    return EStep(z, pi, rho, ratio)


def natural_gradient(
    mixture: GaussianMixture,
    y: ArrayLike,
    *,
    unit: ArrayLike = 1.0,
    relaxation: Scalar = 0.0,
    damping: Scalar = 0.25,
) -> GaussianMixture:
    r"""The gradient of damped nGEM: what `objectives.ngem` sends back through a network.

    The gradient of the negative log-likelihood with its Gaussians preconditioned: by the inverse of
    their Fisher matrices in the coordinates `mu / unit` and `log sigma` (equation (21)), times
    `rho_k / (pi_k + damping)`. The gradient of the logits is the plain one. The preconditioners
    of the paper are in `variants`.

    Args:
        mixture: batch shape `(...)`.
        y: targets, shape `(..., D)`, with the mixture's batch shape, or of any for a mixture
            without.
        unit: the unit in which the means are measured, in the units of the targets: positive, a
            number or shape `(D,)`. The cotangent of the means is divided by its square.
        relaxation: `eps`, a number from 0 to 1; see `relaxed_e_step`.
        damping: positive, in the units of a weight. The weight of a target on a component is at
            most one over it.

    Returns:
        Cotangents of `logits`, `means` and `scales`, one for each target, to be minimised along.
        One over `sigma` times the entry for the scales is the natural gradient in `log sigma`.

    Raises:
        ValueError: if the shape of `y` does not fit or an option is out of range.

    Example:
        >>> from ngem_tutorial import GaussianMixture, natural_gradient
        >>> mixture = GaussianMixture([0.0], [[0.0]], [[2.0]])
        >>> gradient = natural_gradient(mixture, [4.0])  # times 1 / (1 + 0.25)
        >>> round(gradient.means.item(), 3), round(gradient.scales.item(), 3)
        (-3.2, -0.6)
    """
    check_mixture(mixture)
    check_options(mixture.dim, unit=unit, relaxation=relaxation, damping=damping)
    mixture, y = mixture.pair(y)
    z, pi, rho, _ = relaxed_e_step(mixture, y, relaxation)
    weight, sigma = (rho / (pi + damping))[..., None], mixture.scales
    # Minus z / sigma and 1 - z^2 over sigma are the gradients of a Gaussian, (55) and (56).
    means = -weight * sigma * z / jnp.square(jnp.asarray(unit, z.dtype))
    scales = 0.5 * weight * (1.0 - z**2) / sigma
    return GaussianMixture.tree_unflatten(None, [pi - rho, means, scales])


def _exp(x: jax.Array) -> jax.Array:
    """Exponential that saturates at the root of the largest float instead of at infinity."""
    return jnp.exp(jnp.minimum(x, 0.5 * math.log(float(jnp.finfo(x.dtype).max))))


def complete_data_kl(p: GaussianMixture, q: GaussianMixture) -> Float[Array, "*batch"]:
    """Kullback-Leibler divergence of the joint densities of target and component.

    Args:
        p: a mixture of batch shape `(...)`.
        q: another of the same shape; one of the two may be without batch axes.

    Returns:
        `KL(pi_p || pi_q) + sum_k pi_pk KL(N_pk || N_qk)` in nats, shape `(...)`. It is an upper
        bound of the divergence of the mixtures themselves.

    Raises:
        ValueError: if the shapes differ, a missing batch shape apart.
    """
    event, batch = q.means.shape[-2:], q.batch_shape
    if event != p.means.shape[-2:] or (batch != p.batch_shape and () not in (batch, p.batch_shape)):
        raise ValueError(
            f"q must have the shape of p: its means have shape {q.means.shape}, those of p "
            f"{p.means.shape}"
        )
    variance = (p.scales / q.scales) ** 2
    shift = ((p.means - q.means) / q.scales) ** 2
    gaussians = 0.5 * jnp.sum(variance + shift - 1.0 - jnp.log(variance), axis=-1)
    return jnp.sum(p.weights * (p.log_weights - q.log_weights + gaussians), axis=-1)


def complete_data_fisher_by_autodiff(
    mixture: GaussianMixture, coordinate: Coordinate = "scale"
) -> Float[Array, "P P"]:
    """Reference: the Hessian of `complete_data_kl` in its second argument, at the first.

    Args:
        mixture: one mixture, batch shape `()`.
        coordinate: `"scale"` or `"log_scale"`.

    Returns:
        Shape `(P, P)` with `P = K (1 + 2 D)`, in the order logits, means, scales.
    """
    vector, build = _coordinates(mixture, coordinate)
    return jax.hessian(lambda v: complete_data_kl(mixture, build(v)))(vector)


def complete_data_fisher_by_sampling(
    key: jax.Array, mixture: GaussianMixture, num_samples: int, coordinate: Coordinate = "scale"
) -> Float[Array, "P P"]:
    """Reference: the covariance of the complete-data score over samples of target and component.

    Args:
        key: a JAX random key.
        mixture: one mixture, batch shape `()`.
        num_samples: number of samples; the error falls as its inverse square root.
        coordinate: `"scale"` or `"log_scale"`.

    Returns:
        Shape `(P, P)` with `P = K (1 + 2 D)`, in the order logits, means, scales.
    """
    vector, build = _coordinates(mixture, coordinate)
    k_key, y_key = jax.random.split(key)
    k = jax.random.categorical(k_key, mixture.logits, shape=(num_samples,))
    noise = jax.random.normal(y_key, (num_samples, mixture.dim), mixture.means.dtype)
    y = mixture.means[k] + mixture.scales[k] * noise

    def log_joint(v: jax.Array, k: jax.Array, y: jax.Array) -> jax.Array:
        m = build(v)
        return m.log_weights[k] + m.component_log_prob(y)[k]

    score = jax.vmap(jax.grad(log_joint), in_axes=(None, 0, 0))(vector, k, y)
    return score.T @ score / num_samples


def _coordinates(
    mixture: GaussianMixture, coordinate: Coordinate
) -> tuple[jax.Array, Callable[[jax.Array], GaussianMixture]]:
    """Flatten one mixture to a vector in the given coordinate, with the way back."""
    if mixture.batch_shape:
        raise ValueError(f"mixture must be a single one, got batch shape {mixture.batch_shape}")
    check_choice("coordinate", coordinate, get_args(Coordinate))
    log = coordinate == "log_scale"
    scales = jnp.log(mixture.scales) if log else mixture.scales
    vector, unravel = ravel_pytree((mixture.logits, mixture.means, scales))

    def build(v: jax.Array) -> GaussianMixture:
        logits, means, scales = unravel(v)
        return GaussianMixture(logits, means, jnp.exp(scales) if log else scales)

    return vector, build


def _diagonal(vector: jax.Array) -> jax.Array:
    """Diagonal matrices from vectors, `(..., K)` to `(..., K, K)`."""
    return vector[..., None] * jnp.eye(vector.shape[-1], dtype=vector.dtype)
