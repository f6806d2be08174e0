"""Training objectives of mixture density networks.

Every objective has the call `objective(mixture, y)` and returns one value per example, never
reduced: the caller takes the mean. The value and the gradient of an example depend on that example
and the options alone. Mixture and targets have one batch shape, or the mixture has none and is
repeated for each target; nothing else is broadcast. The arithmetic is done in the dtype that JAX
promotes the two to, at least `float32`; a cotangent has the dtype of what it is of.

`nll`, `sgem` and `ngem` share their *value*, the negative log-likelihood; what `ngem` changes is
its gradient. Preconditioners of the paper, for comparison, are in `variants`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ngem_tutorial._checks import check_number, check_options, check_values, real_array
from ngem_tutorial._typing import Array, ArrayLike, Float, Num, Scalar
from ngem_tutorial.fisher import natural_gradient
from ngem_tutorial.mixtures import GaussianMixture, check_mixture

__all__ = [
    "Objective",
    "RelaxationSchedule",
    "beta_nll",
    "mse",
    "ngem",
    "nll",
    "relaxation_schedule",
    "scale_unit",
    "sgem",
    "with_gradient",
]

Objective = Callable[..., jax.Array]
"""Of a mixture and targets, one value per example; with options, by keyword, of `ngem`'s kind."""


def nll(mixture: GaussianMixture, y: ArrayLike) -> Float[Array, "*batch"]:
    """Negative log-likelihood, equation (3) of the paper.

    Args:
        mixture: batch shape `(...)`.
        y: targets, shape `(..., D)`.

    Returns:
        Shape `(...)`, in nats.

    Raises:
        ValueError: if the shape of `y` does not fit the mixture.

    Example:
        >>> from ngem_tutorial import GaussianMixture, nll
        >>> mixture = GaussianMixture([0.0], [[0.0]], [[1.0]])
        >>> [round(float(value), 3) for value in nll(mixture, [[0.0], [1.0]])]  # one per target
        [0.919, 1.419]
    """
    check_mixture(mixture)
    mixture, y = mixture.pair(y)
    return -mixture.log_prob(y)


def sgem(mixture: GaussianMixture, y: ArrayLike) -> Float[Array, "*batch"]:
    """Stochastic gradient EM: the gradient of equation (16) of the paper, the value of `nll`.

    The M-step objective, with the responsibilities held constant, has the gradient of the negative
    log-likelihood (Corollary 3.2). Its value lies above by the entropy of the responsibilities
    (equation (8)), which is subtracted here so that the value is the negative log-likelihood.
    Second derivatives are those of the M-step objective, with the responsibilities held constant,
    not those of `nll`.

    Args:
        mixture: batch shape `(...)`.
        y: targets, shape `(..., D)`.

    Returns:
        Shape `(...)`, in nats.

    Raises:
        ValueError: if the shape of `y` does not fit the mixture.

    Example:
        >>> import jax
        >>> from ngem_tutorial import GaussianMixture, nll, sgem
        >>> mixture = GaussianMixture([0.0, 1.0], [[-1.0], [1.0]], [[1.0], [1.0]])
        >>> bool(abs(sgem(mixture, [0.5]) - nll(mixture, [0.5])) < 1e-6)
        True
        >>> means = [jax.grad(loss)(mixture, [0.5]).means for loss in (sgem, nll)]
        >>> bool(abs(means[0] - means[1]).max() < 1e-6)
        True
    """
    check_mixture(mixture)
    mixture, y = mixture.pair(y)
    log_joint = mixture.log_weights + mixture.component_log_prob(y)
    log_rho = jax.lax.stop_gradient(jax.nn.log_softmax(log_joint, axis=-1))
    return jnp.sum(jnp.exp(log_rho) * (log_rho - log_joint), axis=-1)


def ngem(
    mixture: GaussianMixture,
    y: ArrayLike,
    *,
    unit: ArrayLike = 1.0,
    relaxation: Scalar = 0.0,
    damping: Scalar = 0.25,
) -> Float[Array, "*batch"]:
    r"""Damped nGEM: the value of `nll`, the gradient of `natural_gradient`.

    A drop-in for `nll`: the value is the negative log-likelihood, so that logs and early stopping
    mean what they say, and the gradient with respect to the parameters of the mixture is the
    gradient preconditioned with the complete-data Fisher matrix (equation (20) and Algorithm 1 of
    the paper), which the chain rule then carries to the parameters of the network. The gradient
    with respect to `y` is the plain one, that of the options is zero.

    The Gaussians are preconditioned, with damping, and the gradient of the logits is left plain. A
    free mixture then comes to rest where the negative log-likelihood does, as with the paper's code
    (`variants.paper_code`) it does not. And its weights are bounded, where those of the derivation
    (`variants.as_derived`) grow like one over the smallest weight. Through a network, any
    preconditioning of its outputs weighs the examples anew. A network that can represent the truth
    tends to it with many examples, as with `nll`; on a finite sample, or where it cannot represent
    the truth, it rests elsewhere (`theory/where_updates_rest` in the book).

    The gradient of an example depends on that example and the options alone: micro-batches, masks
    and `jax.vmap` leave it as it is. In a network the balance between means and logits depends on
    the `unit`; with targets far from unit scale give one, the scale of the targets or `scale_unit`
    of the batch's mixtures. A free mixture, which has no network to share, needs none.

    At the start of training a positive `relaxation` keeps every component in play: each takes at
    least the share `relaxation / K` of every example, whatever its weight and wherever it starts.
    Give it the values of `relaxation_schedule`, which end at zero. The page
    `practice/damped_ngem` of the book has the measurements behind both.

    The gradient is not that of the value. Differentiating it again is an error, because what came
    out would be no Hessian. And an optimizer that compares values along the gradient (a line
    search, L-BFGS) may find no step: take a schedule of learning rates, or `nll`.

    Args:
        mixture: batch shape `(...)`.
        y: targets, shape `(..., D)`, with the mixture's batch shape, or of any for a mixture
            without.
        unit: the unit in which the means are measured, in the units of the targets: positive, a
            number or shape `(D,)`, traced or not. The cotangent of the means is divided by its
            square.
        relaxation: `eps`, a number from 0 to 1, traced or not. The responsibilities become
            `(1 - eps) rho + eps / K`, and standardised residuals are limited to `1 / (2 eps)`.
        damping: positive, in the units of a weight, traced or not. The weight of an example on a
            component, `rho_k / (pi_k + damping)`, is at most one over it.

    Returns:
        Shape `(...)`, in nats; computed in `float32` at least, whatever the dtype of the mixture,
        whose cotangents have its own.

    Raises:
        ValueError: if the shape of `y` does not fit the mixture, or an option is out of range
            (where its value is known).
        TypeError: if it is differentiated twice.

    Example:
        >>> import jax
        >>> from ngem_tutorial import GaussianMixture, ngem, nll
        >>> mixture = GaussianMixture([0.0, 1.0], [[-1.0], [1.0]], [[0.5], [0.5]])
        >>> bool(ngem(mixture, [0.5]) == nll(mixture, [0.5]))  # the same value, another gradient
        True
        >>> gradients = [jax.grad(loss)(mixture, [0.5]).means[1].item() for loss in (ngem, nll)]
        >>> [round(gradient, 2) for gradient in gradients]
        [0.51, 1.99]
    """
    check_mixture(mixture)
    check_options(mixture.dim, unit=unit, relaxation=relaxation, damping=damping)
    options = {"unit": unit, "relaxation": relaxation, "damping": damping}
    return with_gradient(natural_gradient, mixture, y, name="ngem", **options)


def with_gradient(
    gradient: Callable[..., GaussianMixture],
    mixture: GaussianMixture,
    y: ArrayLike,
    *,
    name: str,
    **options: ArrayLike,
) -> Float[Array, "*batch"]:
    """The value of `nll` with a gradient of one's own: what `ngem` and the variants are made of.

    Args:
        gradient: maps a mixture and targets of one batch shape, and the options, to the cotangents
            of each example's mixture, as `natural_gradient` does.
        mixture: batch shape `(...)`.
        y: targets, shape `(..., D)`, with the mixture's batch shape, or of any for a mixture
            without. Their gradient is that of `nll`.
        name: of the objective, for the error where it is differentiated twice.
        **options: arrays or numbers for `gradient`, traced or not; they get no gradient.

    Returns:
        Shape `(...)`, in nats, `float32` at least.

    Raises:
        ValueError: if the shape of `y` does not fit the mixture.
        TypeError: if it is differentiated twice.
    """
    # What is zero before tracing is left out, so that nothing is computed for it.
    given = {k: v for k, v in options.items() if not (isinstance(v, float) and v == 0.0)}
    return _with_gradient(gradient, name, *mixture.pair(y), given)


@partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def _with_gradient(
    gradient: Callable[..., GaussianMixture],
    name: str,
    mixture: GaussianMixture,
    y: jax.Array,
    options: dict[str, ArrayLike],
) -> jax.Array:
    return -mixture.log_prob(y)


@_with_gradient.defjvp
def _with_gradient_jvp(
    gradient: Callable[..., GaussianMixture], name: str, primals: Any, tangents: Any
) -> tuple[jax.Array, jax.Array]:
    mixture, y, options = primals
    rho = mixture.responsibilities(y)[..., None]
    plain_y = jnp.sum(rho * mixture.standardize(y) / mixture.scales, axis=-2)
    cotangents = _differentiable_once(name, (gradient(mixture, y, **options), plain_y))
    # Linear in the tangents; its transpose multiplies each example's cotangents by the incoming.
    products = jax.tree.map(jnp.multiply, cotangents, tangents[:2])
    leaves = jax.tree.leaves(products)
    per_leaf = [jnp.sum(leaf, axis=tuple(range(y.ndim - 1, leaf.ndim))) for leaf in leaves]
    return _with_gradient(gradient, name, *primals), sum(per_leaf[1:], per_leaf[0])


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _differentiable_once(name: str, cotangents: Any) -> Any:
    return cotangents


@_differentiable_once.defjvp
def _refuse(name: str, primals: Any, tangents: Any) -> Any:
    raise TypeError(
        f"{name} cannot be differentiated twice: its gradient is not that of its value, and what "
        "came out would be no Hessian. For the curvature of the value differentiate `nll`, for "
        "the derivative of an update `natural_gradient`."
    )


def scale_unit(mixture: GaussianMixture, weights: ArrayLike | None = None) -> Float[Array, " D"]:
    """A unit for `ngem`: the geometric mean of the scales of a batch of mixtures.

    It depends on the whole batch. Compute it where the whole batch is, and hand it to the parts.

    Args:
        mixture: batch shape `(...)`.
        weights: of the examples, not negative, or a mask, shape `(...)`; equal if not given.
            Examples of weight zero, padding for instance, are left out.

    Returns:
        Shape `(D,)`, in the units of the targets, without gradient. One if every weight is zero.

    Raises:
        ValueError: if `weights` has another shape or is negative (where its values are known).

    Example:
        >>> from ngem_tutorial import GaussianMixture, scale_unit
        >>> mixture = GaussianMixture([0.0, 0.0], [[0.0], [0.0]], [[1.0], [4.0]])
        >>> round(scale_unit(mixture).item(), 3)
        2.0
    """
    check_mixture(mixture)
    scales = jax.lax.stop_gradient(mixture.scales)
    log = jnp.log(scales.astype(jnp.promote_types(scales.dtype, jnp.float32)))
    if weights is None:
        return jnp.exp(jnp.mean(log, axis=tuple(range(log.ndim - 1))))
    given = real_array("weights", weights)
    if given.shape != mixture.batch_shape:
        raise ValueError(
            f"weights must have the batch shape of the mixture, {mixture.batch_shape}, got shape "
            f"{given.shape}"
        )
    if given.dtype != bool:  # a mask is all right
        check_values(
            "weights", weights, "not negative and finite", lambda w: (w >= 0) & np.isfinite(w)
        )
    w = jax.lax.stop_gradient(given.astype(log.dtype))[..., None]
    per_example = jnp.where(w > 0, jnp.mean(log, axis=-2), 0.0)
    batch = tuple(range(log.ndim - 2))
    total = jnp.sum(w, axis=batch)
    return jnp.exp(jnp.sum(w * per_example, axis=batch) / jnp.where(total > 0, total, 1.0))


@dataclasses.dataclass(frozen=True)
class RelaxationSchedule:
    """The relaxation at each update, as `relaxation_schedule` returns it.

    A schedule as optax has them, a function from the number of updates done to a number. Two with
    the same attributes are equal: a program compiled for one serves the other.

    Args:
        num_updates: length of the training.
        initial: relaxation of the first update, from 0 to 1.
        fraction: part of the training after which it is zero, from 0 to 1.

    Raises:
        ValueError: if an argument is out of range.
    """

    num_updates: int
    initial: float = 0.1
    fraction: float = 0.1

    def __post_init__(self) -> None:
        """Check the arguments."""
        check_number(
            "num_updates",
            self.num_updates,
            "a whole number, at least 1",
            lambda n: (n >= 1) & (n == np.floor(n)) & np.isfinite(n),
        )
        for name in ("initial", "fraction"):
            value = getattr(self, name)
            check_number(name, value, "from 0 to 1", lambda v: (v >= 0) & (v <= 1))

    def __call__(self, count: Num[ArrayLike, "*shape"]) -> Float[Array, "*shape"]:
        """Return the relaxation after `count` updates."""
        if self.fraction == 0.0:
            return jnp.zeros(jnp.asarray(count).shape, float)
        end = max(1, round(self.fraction * self.num_updates))
        line = optax.linear_schedule(self.initial, 0.0, end)(count)
        # By rounding the line can end on either side of zero.
        return jnp.where(jnp.asarray(count) < end, jnp.maximum(line, 0.0), 0.0)


def relaxation_schedule(
    num_updates: int, initial: float = 0.1, fraction: float = 0.1
) -> RelaxationSchedule:
    """Return the relaxation of `ngem` for each update: down from `initial` to zero, and zero after.

    Args:
        num_updates: length of the training.
        initial: relaxation of the first update, from 0 to 1.
        fraction: part of the training after which it is zero, from 0 to 1. At 0 it is zero from
            the first update on.

    Returns:
        A schedule as optax has them: a function from the number of updates done to the relaxation.
        Equal arguments give equal schedules.

    Raises:
        ValueError: if an argument is out of range.

    Example:
        >>> from ngem_tutorial import relaxation_schedule
        >>> schedule = relaxation_schedule(10_000)
        >>> [round(float(schedule(count)), 3) for count in (0, 500, 1_000)]
        [0.1, 0.05, 0.0]
    """
    return RelaxationSchedule(num_updates, initial, fraction)


def beta_nll(mixture: GaussianMixture, y: ArrayLike, beta: Scalar = 0.5) -> Float[Array, "*batch"]:
    r"""The beta-NLL of a single Gaussian (Seitzer et al., 2022).

    Each coordinate's negative log-likelihood is weighted by `sigma^(2 beta)`, held constant. With
    `beta = 0` it is `nll`. With `beta = 1` its gradient with respect to the mean is that of
    `variants.undamped`, and its gradient with respect to the scale twice that.

    Args:
        mixture: batch shape `(...)`, one component.
        y: targets, shape `(..., D)`.
        beta: exponent, a number from 0 to 1, traced or not.

    Returns:
        Shape `(...)`. Not a likelihood unless `beta` is 0.

    Raises:
        ValueError: if the mixture has more than one component, `beta` is out of range or the
            shape of `y` does not fit.

    Example:
        >>> from ngem_tutorial import GaussianMixture, beta_nll, nll
        >>> mixture = GaussianMixture([0.0], [[0.0]], [[4.0]])
        >>> plain = nll(mixture, [1.0])
        >>> [round(float(beta_nll(mixture, [1.0], beta) / plain), 3) for beta in (0.0, 0.5)]
        [1.0, 4.0]
    """
    _require_one_component("beta_nll", mixture)
    check_number("beta", beta, "from 0 to 1", lambda b: (b >= 0) & (b <= 1))
    mixture, y = mixture.pair(y)
    beta = jnp.asarray(beta, y.dtype)
    z = mixture.standardize(y)[..., 0, :]
    sigma = mixture.scales[..., 0, :]
    per_coordinate = 0.5 * z**2 + jnp.log(sigma) + 0.5 * jnp.log(2.0 * jnp.pi)
    return jnp.sum(jax.lax.stop_gradient(sigma ** (2.0 * beta)) * per_coordinate, axis=-1)


def mse(mixture: GaussianMixture, y: ArrayLike) -> Float[Array, "*batch"]:
    """Squared error of a point prediction, averaged over the coordinates of the target.

    Args:
        mixture: batch shape `(...)`, one component; its scale gets no gradient.
        y: targets, shape `(..., D)`.

    Returns:
        Shape `(...)`, in squared units of the targets.

    Raises:
        ValueError: if the mixture has more than one component or the shape of `y` does not fit.

    Example:
        >>> from ngem_tutorial import GaussianMixture, mse
        >>> mixture = GaussianMixture([0.0], [[0.0, 0.0]], [[1.0, 1.0]])
        >>> float(mse(mixture, [1.0, 3.0]))
        5.0
    """
    _require_one_component("mse", mixture)
    mixture, y = mixture.pair(y)
    return jnp.mean((y - mixture.means[..., 0, :]) ** 2, axis=-1)


def _require_one_component(objective: str, mixture: GaussianMixture) -> None:
    check_mixture(mixture)
    if mixture.num_components != 1:
        raise ValueError(
            f"{objective} takes a mixture of one component, got {mixture.num_components}"
        )
