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
from typing import Literal, get_args, get_type_hints

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jax.typing import ArrayLike

from ngem_tutorial.mixtures import GaussianMixture

__all__ = [
    "PRECONDITIONERS",
    "Preconditioner",
    "categorical_fisher",
    "complete_data_fisher",
    "complete_data_fisher_by_autodiff",
    "complete_data_fisher_by_sampling",
    "complete_data_kl",
    "gaussian_fisher",
    "logits_moore_penrose_inverse",
    "logits_reflexive_inverse",
    "natural_gradient",
    "resolve_preconditioner",
    "solve_damped_categorical_fisher",
]

Coordinate = Literal["scale", "log_scale"]
Units = Literal["batch", "target"]


@dataclasses.dataclass(frozen=True)
class Preconditioner:
    r"""How the gradient of the negative log-likelihood is preconditioned.

    With `pi` the weights, `rho` the responsibilities, `r = rho / pi`, `N_k` the density of
    component `k` at the target and `g` the plain gradient:

    Args:
        logits: how the gradient of the logits is formed.

            - `"plain"`: `pi - rho`, the gradient itself.
            - `"natural"`: `mean(r) - r`, preconditioned by the Moore-Penrose inverse of
              `F = diag(pi) - pi pi^T` (equation (22)).
            - `"eq68"`: `1 - r`, preconditioned by the reflexive generalised inverse of
              equation (67), which the paper calls the Moore-Penrose inverse.
            - `"damped"`: `(F + damping I)^{-1} (pi - rho)`.
            - `"listing"`: `pi sum(r) - r`, what differentiating the listing of Appendix C gives.
              It is not a gradient preconditioned by a Fisher matrix: its E-step ignores the
              weights, and separated components end at weights proportional to the square roots
              of the true ones.
        components: the weight of component `k` on the natural gradient of its Gaussian.

            - `"damped"`: `rho_k / (pi_k + damping)`, at most `1 / damping`.
            - `"rho/pi"`: `r_k`, from the block `pi_k F_k` of equation (51). Unbounded as `pi_k`
              goes to zero.
            - `"rho"`: `rho_k`, which preconditions with `F_k` alone.
            - `"plain"`: no preconditioning, `rho_k` times the plain gradient of the Gaussian.
        coordinate: in which coordinate of the standard deviation the Fisher block acts: `"scale"`
            with `F = 2 / sigma^2` as in the paper (equation (21)), or `"log_scale"` with the
            constant `F = 2`. As steps of a free parameter they agree to first order (natural
            gradients do not depend on coordinates); as cotangents sent through a network they
            differ by the factor `sigma^2`.
        units: in which units the means, and in the coordinate `"scale"` the scales, are measured:
            `"target"`, those of the targets as in the paper, or `"batch"`, the geometric mean of
            the scales over the batch and the components, one number for each coordinate of the
            target. Likewise only a cotangent depends on it, by one factor: in `"target"` units the
            balance between means and logits in a network changes with the units of the data, in
            `"batch"` units, with the coordinate `"log_scale"`, it does not.
        damping: what `"damped"` adds, positive, in the units of a weight.

    Raises:
        ValueError: if a choice is not among those listed or `damping` is not positive.
    """

    logits: Literal["plain", "natural", "eq68", "damped", "listing"] = "plain"
    components: Literal["damped", "rho/pi", "rho", "plain"] = "damped"
    coordinate: Coordinate = "log_scale"
    units: Units = "batch"
    damping: float = 0.25

    def __post_init__(self) -> None:
        """Check the choices."""
        for name, hint in get_type_hints(type(self)).items():
            choices = get_args(hint)
            value = getattr(self, name)
            if choices and value not in choices:
                raise ValueError(f"{name} must be one of {', '.join(choices)}, got {value!r}")
        if not 0.0 < self.damping < float("inf"):
            raise ValueError(f"damping must be positive and finite, got {self.damping}")


_AS_PRINTED = Preconditioner(components="rho/pi", coordinate="scale", units="target")

PRECONDITIONERS: dict[str, Preconditioner] = {
    "default": Preconditioner(),
    "undamped": _AS_PRINTED,
    "derived": dataclasses.replace(_AS_PRINTED, logits="natural"),
    "eq68": dataclasses.replace(_AS_PRINTED, logits="eq68"),
    "listing": dataclasses.replace(_AS_PRINTED, logits="listing"),
    "damped": Preconditioner("damped", "damped", "scale", "target", damping=0.01),
}
"""Named choices. `default` preconditions the Gaussians, with damping, and leaves the gradient of
the logits plain: everything in it is bounded by the residuals. `undamped` has plain logits too, the
unbounded weight `r_k` and the coordinates of the paper, as have the next three. `derived` is the
natural gradient of section 3.3 with the true Moore-Penrose inverse, `eq68` the same with the
inverse of equation (67), `listing` reproduces the code of Appendix C, and `damped` adds `damping`
to every block."""


def resolve_preconditioner(preconditioner: Preconditioner | str) -> Preconditioner:
    """Return the preconditioner of that name, or the one given.

    Args:
        preconditioner: a `Preconditioner` or the name of one in `PRECONDITIONERS`.

    Returns:
        The preconditioner.

    Raises:
        ValueError: if the name is not in `PRECONDITIONERS`.
        TypeError: if it is neither a name nor a `Preconditioner`.
    """
    if isinstance(preconditioner, Preconditioner):
        return preconditioner
    if not isinstance(preconditioner, str):
        raise TypeError(
            f"preconditioner must be a name or a Preconditioner, got {type(preconditioner)}"
        )
    if preconditioner not in PRECONDITIONERS:
        raise ValueError(
            f"preconditioner must be one of {', '.join(PRECONDITIONERS)} or a Preconditioner, "
            f"got {preconditioner!r}"
        )
    return PRECONDITIONERS[preconditioner]


def categorical_fisher(weights: ArrayLike) -> jax.Array:
    """Fisher matrix of the logits, `diag(pi) - pi pi^T`: equation (22) of the paper.

    Args:
        weights: `pi`, shape `(..., K)`, each row summing to one.

    Returns:
        Shape `(..., K, K)`, of rank `K - 1`: the all-ones vector is its null space.
    """
    pi = jnp.asarray(weights)
    return _diagonal(pi) - pi[..., :, None] * pi[..., None, :]


def logits_moore_penrose_inverse(weights: ArrayLike) -> jax.Array:
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


def logits_reflexive_inverse(weights: ArrayLike) -> jax.Array:
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
    weights: ArrayLike, gradient: ArrayLike, damping: float
) -> jax.Array:
    """Solve `(diag(pi) - pi pi^T + damping I) x = gradient` by the Sherman-Morrison formula.

    Args:
        weights: `pi`, shape `(..., K)`, each row summing to one.
        gradient: right-hand side, shape `(..., K)`.
        damping: positive; the solution is at most `|gradient| / damping` long.

    Returns:
        Shape `(..., K)`.
    """
    pi, g = jnp.asarray(weights), jnp.asarray(gradient)
    a = 1.0 / (pi + damping)
    # 1 - pi^T diag(a) pi, written without the cancellation.
    denominator = jnp.sum(damping * pi * a, axis=-1, keepdims=True)
    return a * (g + pi * jnp.sum(pi * a * g, axis=-1, keepdims=True) / denominator)


def gaussian_fisher(scales: ArrayLike, coordinate: Coordinate = "scale") -> GaussianFisher:
    """Diagonal of the Fisher matrix of a Gaussian's mean and scale: equation (21) of the paper.

    Args:
        scales: standard deviations, any shape.
        coordinate: `"scale"` or `"log_scale"`; see `Preconditioner`.

    Returns:
        The entries for the mean, `1 / sigma^2`, and for the scale, `2 / sigma^2` in the
        coordinate `sigma` and 2 in `log sigma`, in the shape of `scales`.
    """
    sigma = jnp.asarray(scales)
    mean = sigma**-2
    return GaussianFisher(mean, 2.0 * mean if coordinate == "scale" else jnp.full_like(sigma, 2.0))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class GaussianFisher:
    """Diagonal Fisher matrix of Gaussians: entries for the means and for the scales."""

    means: jax.Array
    scales: jax.Array


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class CompleteDataFisher:
    """The blocks of the complete-data Fisher matrix, equation (51) of the paper.

    Attributes:
        logits: `F_pi`, shape `(..., K, K)`.
        means: diagonal of the means' part of `pi_k F_k`, shape `(..., K, D)`.
        scales: diagonal of the scales' part of `pi_k F_k`, shape `(..., K, D)`.
    """

    logits: jax.Array
    means: jax.Array
    scales: jax.Array

    def to_dense(self) -> jax.Array:
        """The whole matrix of one mixture in the order logits, means, scales, `(P, P)`."""
        diagonal = jnp.concatenate([self.means.ravel(), self.scales.ravel()])
        return jax.scipy.linalg.block_diag(self.logits, jnp.diag(diagonal))


def complete_data_fisher(
    mixture: GaussianMixture, coordinate: Coordinate = "scale"
) -> CompleteDataFisher:
    """Fisher matrix of the joint density of target and component, in closed form.

    Args:
        mixture: batch shape `(...)`.
        coordinate: `"scale"` or `"log_scale"`; see `Preconditioner`.

    Returns:
        The blocks of equation (51) of the paper.
    """
    pi = mixture.weights
    block = gaussian_fisher(mixture.scales, coordinate)
    return CompleteDataFisher(
        categorical_fisher(pi), pi[..., None] * block.means, pi[..., None] * block.scales
    )


def natural_gradient(
    mixture: GaussianMixture,
    y: ArrayLike,
    preconditioner: Preconditioner | str = "default",
    relaxation: ArrayLike = 0.0,
) -> GaussianMixture:
    r"""Preconditioned gradient of the negative log-likelihood, equation (20) of the paper.

    Args:
        mixture: batch shape `(...)`.
        y: targets, shape `(..., D)`, with the mixture's leading axes.
        preconditioner: a `Preconditioner` or the name of one in `PRECONDITIONERS`.
        relaxation: `eps`, a number from 0 to 1, traced or not; see `objectives.ngem`. Not zero, the
            responsibilities are `(1 - eps) rho + eps / K`, and the standardised residuals of the
            preconditioned Gaussians are limited to `1 / (2 eps)`.

    Returns:
        Cotangents of `logits`, `means` and `scales`, to be minimised along. With
        `coordinate="log_scale"` the entry for the scales is the one whose pull-back to
        `log sigma` is the natural gradient there: `1 / sigma` times it.

    Raises:
        ValueError: if the shape of `y` does not fit or the preconditioner is unknown.
    """
    choice = resolve_preconditioner(preconditioner)
    z = mixture.standardize(y)  # (..., K, D)
    log_pi = mixture.log_weights
    log_rho = mixture.log_responsibilities(y)
    pi, rho = jnp.exp(log_pi), jnp.exp(log_rho)
    ratio = _exp(log_rho - log_pi)  # r = rho / pi
    if not (isinstance(relaxation, float) and relaxation == 0.0):
        eps = jnp.clip(jnp.asarray(relaxation, z.dtype), 0.0, 1.0)
        z = jnp.clip(z, -0.5 / eps, 0.5 / eps)
        rho = rho + eps * (1.0 / mixture.num_components - rho)
        ratio = ratio + eps * (_exp(-log_pi) / mixture.num_components - ratio)

    match choice.components:
        case "damped":
            weight = rho / (pi + choice.damping)
        case "rho/pi":
            weight = ratio
        case "rho" | "plain":
            weight = rho
    weight, sigma = weight[..., None], mixture.scales
    # The gradients of a Gaussian are -z / sigma and (1 - z^2) / sigma: equations (55) and (56).
    if choice.components == "plain":
        means, scales = -weight * z / sigma, weight * (1.0 - z**2) / sigma
    else:  # times the inverse of F_k, equation (21), in the chosen coordinates
        to_units = _batch_units(sigma, choice.units)
        means, half = -weight * sigma * z * to_units, 0.5 * weight * (1.0 - z**2)
        scales = half / sigma if choice.coordinate == "log_scale" else half * sigma * to_units
    logits = _logits_cotangent(choice, pi, rho, ratio)
    return GaussianMixture.tree_unflatten(None, [logits, means, scales])


def _batch_units(scales: jax.Array, units: Units) -> jax.Array | float:
    """One over the squared unit of each coordinate of the target, shape `(D,)`."""
    if units == "target":
        return 1.0
    return jnp.exp(-2.0 * jnp.mean(jnp.log(scales), axis=tuple(range(scales.ndim - 1))))


def _logits_cotangent(
    choice: Preconditioner, pi: jax.Array, rho: jax.Array, ratio: jax.Array
) -> jax.Array:
    """The gradient of the logits as `Preconditioner.logits` defines it."""
    match choice.logits:
        case "plain":
            return pi - rho
        case "natural":
            return jnp.mean(ratio, axis=-1, keepdims=True) - ratio
        case "eq68":
            return 1.0 - ratio
        case "damped":
            return solve_damped_categorical_fisher(pi, pi - rho, choice.damping)
        case "listing":
            return pi * jnp.sum(ratio, axis=-1, keepdims=True) - ratio


def _exp(x: jax.Array) -> jax.Array:
    """Exponential that saturates at the root of the largest float instead of at infinity."""
    return jnp.exp(jnp.minimum(x, 0.5 * math.log(float(jnp.finfo(x.dtype).max))))


def complete_data_kl(p: GaussianMixture, q: GaussianMixture) -> jax.Array:
    """Kullback-Leibler divergence of the joint densities of target and component.

    Args:
        p: a mixture of batch shape `(...)`.
        q: another of the same shape.

    Returns:
        `KL(pi_p || pi_q) + sum_k pi_pk KL(N_pk || N_qk)` in nats, shape `(...)`. It is an upper
        bound of the divergence of the mixtures themselves.
    """
    variance = (p.scales / q.scales) ** 2
    shift = ((p.means - q.means) / q.scales) ** 2
    gaussians = 0.5 * jnp.sum(variance + shift - 1.0 - jnp.log(variance), axis=-1)
    return jnp.sum(p.weights * (p.log_weights - q.log_weights + gaussians), axis=-1)


def complete_data_fisher_by_autodiff(
    mixture: GaussianMixture, coordinate: Coordinate = "scale"
) -> jax.Array:
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
) -> jax.Array:
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
