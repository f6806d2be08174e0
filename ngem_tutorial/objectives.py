"""Training objectives of mixture density networks.

Every objective has the call `objective(mixture, y)` and returns one value per example, never
reduced: the caller takes the mean. `nll`, `sgem` and `ngem` share their *value*, the negative
log-likelihood; what `ngem` changes is its gradient.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.typing import ArrayLike

from ngem_tutorial.fisher import Preconditioner, natural_gradient, resolve_preconditioner
from ngem_tutorial.mixtures import GaussianMixture

__all__ = ["beta_nll", "mse", "ngem", "nll", "relaxation_schedule", "sgem"]


def nll(mixture: GaussianMixture, y: ArrayLike) -> jax.Array:
    """Negative log-likelihood, equation (3) of the paper.

    Args:
        mixture: batch shape `(...)`.
        y: targets, shape `(..., D)`.

    Returns:
        Shape `(...)`, in nats.

    Raises:
        ValueError: if the shape of `y` does not fit the mixture.
    """
    return -mixture.log_prob(y)


def sgem(mixture: GaussianMixture, y: ArrayLike) -> jax.Array:
    """Stochastic gradient EM: the gradient of equation (16) of the paper, the value of `nll`.

    The M-step objective, with the responsibilities held constant, has the gradient of the negative
    log-likelihood (Corollary 3.2). Its value lies above by the entropy of the responsibilities
    (equation (8)), which is subtracted here so that the value is the negative log-likelihood.

    Args:
        mixture: batch shape `(...)`.
        y: targets, shape `(..., D)`.

    Returns:
        Shape `(...)`, in nats.

    Raises:
        ValueError: if the shape of `y` does not fit the mixture.
    """
    log_joint = mixture.log_weights + mixture.component_log_prob(y)
    log_rho = jax.lax.stop_gradient(jax.nn.log_softmax(log_joint, axis=-1))
    return jnp.sum(jnp.exp(log_rho) * (log_rho - log_joint), axis=-1)


def ngem(
    mixture: GaussianMixture,
    y: ArrayLike,
    preconditioner: Preconditioner | str = "default",
    relaxation: ArrayLike = 0.0,
) -> jax.Array:
    r"""Natural gradient EM: the value of `nll`, the gradient of `natural_gradient`.

    A drop-in for `nll`: the value is the negative log-likelihood, so that logs and early stopping
    mean what they say, and the gradient with respect to the parameters of the mixture is the
    gradient preconditioned with the complete-data Fisher matrix (equation (20) and Algorithm 1 of
    the paper), which the chain rule then carries to the parameters of the network. The gradient
    with respect to `y` is the plain one. Reverse mode only: `jax.grad`, `jax.vjp`.

    The default preconditions the Gaussians, with damping and in units of the batch's own scales,
    and leaves the gradient of the logits plain. For a free mixture, or a network that can represent
    the truth, it is consistent: it comes to rest where the negative log-likelihood does, as the
    paper's listing (`"listing"`) does not. And its weights are bounded, where those of `"derived"`
    grow like one over the smallest weight. Through a network that cannot represent the truth, any
    preconditioning of its outputs weighs the examples anew and moves the resting point. The units
    are one number for each coordinate of the target, common to the batch: by them alone does the
    gradient of one example depend on the others. Under `jax.vmap` over the examples each example is
    a batch of its own: map over models, or call with the whole batch. A free mixture, which has no
    network to share, should take `Preconditioner(units="target")`.

    At the start of training a positive `relaxation` keeps every component in play: each takes at
    least the share `relaxation / K` of every example, whatever its weight and wherever it starts.
    Give it the values of `relaxation_schedule`, which end at zero. The page
    `practice/choosing_an_objective` of the book has the measurements behind both.

    Args:
        mixture: batch shape `(...)`.
        y: targets, shape `(..., D)`.
        preconditioner: a `Preconditioner` or the name of one in `PRECONDITIONERS`.
        relaxation: `eps`, a number from 0 to 1, traced or not. The responsibilities become
            `(1 - eps) rho + eps / K`, and standardised residuals are limited to `1 / (2 eps)`. At
            zero the gradient is that of `natural_gradient`.

    Returns:
        Shape `(...)`, in nats.

    Raises:
        ValueError: if the shape of `y` does not fit the mixture, the preconditioner is unknown, or
            the relaxation is not a number from 0 to 1 (where its value is known).

    Example:
        >>> schedule = relaxation_schedule(num_updates)
        >>> loss = lambda network, x, y, i: ngem(network(x), y, relaxation=schedule(i)).mean()
    """
    choice = resolve_preconditioner(preconditioner)
    _check_relaxation(relaxation)
    y = jnp.asarray(y)
    mixture.standardize(y)  # checks the shape of y before anything is broadcast
    batch = jnp.broadcast_shapes(mixture.batch_shape, y.shape[:-1])
    event = (mixture.num_components, mixture.dim)
    shapes = GaussianMixture.tree_unflatten(
        None, [(*batch, event[0]), (*batch, *event), (*batch, *event)]
    )
    mixture = jax.tree.map(jnp.broadcast_to, mixture, shapes)
    # None where there is none, so that nothing is computed for it.
    eps = None if isinstance(relaxation, float) and relaxation == 0.0 else relaxation
    return _ngem(choice, mixture, jnp.broadcast_to(y, (*batch, mixture.dim)), eps)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _ngem(
    choice: Preconditioner, mixture: GaussianMixture, y: jax.Array, eps: ArrayLike | None
) -> jax.Array:
    return nll(mixture, y)


_Residuals = tuple[GaussianMixture, jax.Array, ArrayLike | None]


def _ngem_forward(
    choice: Preconditioner, mixture: GaussianMixture, y: jax.Array, eps: ArrayLike | None
) -> tuple[jax.Array, _Residuals]:
    return nll(mixture, y), (mixture, y, eps)


def _ngem_backward(
    choice: Preconditioner, residuals: _Residuals, cotangent: jax.Array
) -> tuple[Any, jax.Array, Any]:
    mixture, y, eps = residuals
    natural = natural_gradient(mixture, y, choice, 0.0 if eps is None else eps)

    def scale(gradient: jax.Array) -> jax.Array:
        trailing = (1,) * (gradient.ndim - cotangent.ndim)
        return gradient * cotangent.reshape(cotangent.shape + trailing)

    plain_y = jnp.sum(
        mixture.responsibilities(y)[..., None] * mixture.standardize(y) / mixture.scales, axis=-2
    )
    return jax.tree.map(scale, natural), scale(plain_y), jax.tree.map(jnp.zeros_like, eps)


_ngem.defvjp(_ngem_forward, _ngem_backward)


def relaxation_schedule(
    num_updates: int, initial: float = 0.1, fraction: float = 0.1
) -> optax.Schedule:
    """Return the relaxation of `ngem` for each update: down from `initial` to zero, and zero after.

    Args:
        num_updates: length of the training.
        initial: relaxation of the first update, from 0 to 1.
        fraction: part of the training after which it is zero, from 0 to 1.

    Returns:
        A schedule as optax has them: a function from the number of updates done to the relaxation.

    Raises:
        ValueError: if an argument is out of range.

    Example:
        >>> schedule = relaxation_schedule(10_000)
        >>> [round(float(schedule(count)), 3) for count in (0, 500, 1_000)]
        [0.1, 0.05, 0.0]
    """
    if num_updates < 1:
        raise ValueError(f"num_updates must be at least 1, got {num_updates}")
    for name, value in (("initial", initial), ("fraction", fraction)):
        if not 0.0 <= value <= 1.0:
            raise ValueError(f"{name} must be from 0 to 1, got {value}")
    end = max(1, round(fraction * num_updates))
    linear = optax.linear_schedule(initial, 0.0, end)
    # By rounding the line can end on either side of zero.
    return lambda count: jnp.where(count < end, jnp.maximum(linear(count), 0.0), 0.0)


def _check_relaxation(relaxation: ArrayLike) -> None:
    """Check a relaxation where its value is known."""
    if jnp.ndim(relaxation) != 0:
        raise ValueError(f"relaxation must be a number, got shape {jnp.shape(relaxation)}")
    if not isinstance(relaxation, jax.core.Tracer) and not 0.0 <= np.asarray(relaxation) <= 1.0:
        raise ValueError(f"relaxation must be from 0 to 1, got {relaxation}")


def beta_nll(mixture: GaussianMixture, y: ArrayLike, beta: float = 0.5) -> jax.Array:
    r"""The beta-NLL of a single Gaussian (Seitzer et al., 2022).

    Each coordinate's negative log-likelihood is weighted by `sigma^(2 beta)`, held constant. With
    `beta = 0` it is `nll`. With `beta = 1` its gradient with respect to the mean is that of `ngem`
    in the coordinate `scale`, and its gradient with respect to the scale twice that.

    Args:
        mixture: batch shape `(...)`, one component.
        y: targets, shape `(..., D)`.
        beta: exponent, from 0 to 1.

    Returns:
        Shape `(...)`. Not a likelihood unless `beta` is 0.

    Raises:
        ValueError: if the mixture has more than one component, `beta` is out of range or the
            shape of `y` does not fit.
    """
    _require_one_component("beta_nll", mixture)
    if not 0.0 <= beta <= 1.0:
        raise ValueError(f"beta must be from 0 to 1, got {beta}")
    z = mixture.standardize(y)[..., 0, :]
    sigma = mixture.scales[..., 0, :]
    per_coordinate = 0.5 * z**2 + jnp.log(sigma) + 0.5 * jnp.log(2.0 * jnp.pi)
    return jnp.sum(jax.lax.stop_gradient(sigma ** (2.0 * beta)) * per_coordinate, axis=-1)


def mse(mixture: GaussianMixture, y: ArrayLike) -> jax.Array:
    """Squared error of a point prediction, averaged over the coordinates of the target.

    Args:
        mixture: batch shape `(...)`, one component; its scale gets no gradient.
        y: targets, shape `(..., D)`.

    Returns:
        Shape `(...)`, in squared units of the targets.

    Raises:
        ValueError: if the mixture has more than one component or the shape of `y` does not fit.
    """
    _require_one_component("mse", mixture)
    mixture.standardize(y)  # checks the shape of y
    return jnp.mean((jnp.asarray(y) - mixture.means[..., 0, :]) ** 2, axis=-1)


def _require_one_component(objective: str, mixture: GaussianMixture) -> None:
    if mixture.num_components != 1:
        raise ValueError(
            f"{objective} takes a mixture of one component, got {mixture.num_components}"
        )
