"""Expectation maximisation of a plain mixture: exact, by gradients and by natural gradients.

Each step maps a mixture of batch shape `()` and a data set of shape `(N, D)` to a new mixture.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from ngem_tutorial._checks import check_number, check_values, check_whole, real_array
from ngem_tutorial._typing import Array, ArrayLike, Float, Scalar
from ngem_tutorial.mixtures import GaussianMixture, check_mixture

__all__ = ["em_step", "gradient_em_step", "iterate", "natural_gradient_em_step"]

Step = Callable[..., GaussianMixture]
"""Of a mixture, data of shape `(N, D)` and options by keyword."""


def em_step(
    mixture: GaussianMixture, y: ArrayLike, *, min_scale: ArrayLike = 0.0
) -> GaussianMixture:
    """One exact EM step: equations (9) and (10) of the paper, solved in closed form.

    Args:
        mixture: one mixture, batch shape `()`.
        y: data, shape `(N, D)`.
        min_scale: lower bound of the new scales, in the units of the data. Without one the
            likelihood is unbounded: a component can shrink onto a single point, or onto repeated
            ones. Scales stay above the rounding of the data in any case.

    Returns:
        The mixture that maximises the expected complete-data log-likelihood.

    Raises:
        ValueError: if the shapes do not fit, `y` is not finite or `min_scale` is negative.

    Example:
        >>> from ngem_tutorial import GaussianMixture
        >>> from ngem_tutorial import em_step
        >>> start = GaussianMixture([0.0], [[0.0]], [[1.0]])
        >>> fitted = em_step(start, [[1.0], [3.0]])  # one component: its mean and deviation at once
        >>> round(fitted.means.item(), 3), round(fitted.scales.item(), 3)
        (2.0, 1.0)
    """
    return natural_gradient_em_step(mixture, y, learning_rate=1.0, min_scale=min_scale)


def natural_gradient_em_step(
    mixture: GaussianMixture, y: ArrayLike, *, learning_rate: Scalar, min_scale: ArrayLike = 0.0
) -> GaussianMixture:
    r"""A natural gradient step on the log-likelihood in mean parameters.

    The complete-data model is an exponential family with the mean parameters `pi_k`, `pi_k mu_k`
    and `pi_k (mu_k^2 + sigma_k^2)`. There the natural gradient, with the complete-data Fisher
    matrix, is the difference between the expected sufficient statistics of the E-step and the
    current mean parameters, and a step of length one is an exact EM step (Sato, 2001).

    Args:
        mixture: one mixture, batch shape `()`.
        y: data, shape `(N, D)`.
        learning_rate: step length, above 0 and at most 1, traced or not; 1 gives `em_step`.
        min_scale: lower bound of the new scales, in the units of the data; see `em_step`.

    Returns:
        The next mixture.

    Raises:
        ValueError: if the shapes do not fit, `y` is not finite, `learning_rate` is out of range or
            `min_scale` is negative.
    """
    y = _check_data(mixture, y)
    check_number(
        "learning_rate", learning_rate, "above 0 and at most 1", lambda r: (r > 0) & (r <= 1)
    )
    learning_rate = jnp.asarray(learning_rate, y.dtype)
    check_number("min_scale", min_scale, "at least 0", lambda s: (s >= 0) & np.isfinite(s))
    log_rho = mixture.log_responsibilities(y)
    log_pi_hat = jax.nn.logsumexp(log_rho, axis=0) - jnp.log(y.shape[0])
    # Normalised over the data: a component's share of each point, finite for starved components.
    share = jax.nn.softmax(log_rho, axis=0)
    mu_hat = share.T @ y
    variance_hat = jnp.sum(share[..., None] * (y[:, None, :] - mu_hat) ** 2, axis=0)

    # Blend the mean parameters, as a mixture of two Gaussians with weights a and 1 - a.
    log_pi = jnp.logaddexp(
        jnp.log1p(-learning_rate) + mixture.log_weights, jnp.log(learning_rate) + log_pi_hat
    )
    a = jnp.exp(jnp.log(learning_rate) + log_pi_hat - log_pi)[:, None]
    mean = (1.0 - a) * mixture.means + a * mu_hat
    within = (1.0 - a) * mixture.scales**2 + a * variance_hat
    between = a * (1.0 - a) * (mixture.means - mu_hat) ** 2
    scale = jnp.maximum(jnp.sqrt(within + between), jnp.asarray(min_scale, y.dtype))
    # On repeated points the variance vanishes; below their rounding a scale means nothing.
    size = jnp.max(jnp.abs(y), axis=0)
    rounding = jnp.finfo(y.dtype).eps * jnp.where(size > 0, size, 1.0)
    return GaussianMixture(log_pi, mean, jnp.maximum(scale, rounding))


def gradient_em_step(
    mixture: GaussianMixture, y: ArrayLike, *, learning_rate: Scalar
) -> GaussianMixture:
    """A gradient step on the M-step objective: generalised EM.

    The step is taken in the logits, the means and the logarithms of the scales, along the gradient
    of the mean of `Q(theta | theta_t)` over the data (equation (10)), which at `theta_t` is the
    gradient of the log-likelihood (Proposition 3.1).

    Args:
        mixture: one mixture, batch shape `()`.
        y: data, shape `(N, D)`.
        learning_rate: step length, positive, traced or not.

    Returns:
        The next mixture.

    Raises:
        ValueError: if the shapes do not fit, `y` is not finite or `learning_rate` is not positive.
    """
    y = _check_data(mixture, y)
    check_number("learning_rate", learning_rate, "positive", lambda r: r > 0)
    learning_rate = jnp.asarray(learning_rate, y.dtype)
    rho = jax.lax.stop_gradient(mixture.responsibilities(y))

    def q(parameters: tuple[jax.Array, jax.Array, jax.Array]) -> jax.Array:
        logits, means, log_scales = parameters
        m = GaussianMixture(logits, means, jnp.exp(log_scales))
        return jnp.mean(jnp.sum(rho * (m.log_weights + m.component_log_prob(y)), axis=-1))

    parameters = (mixture.logits, mixture.means, jnp.log(mixture.scales))
    gradient = jax.grad(q)(parameters)
    logits, means, log_scales = jax.tree.map(
        lambda p, g: p + learning_rate * g, parameters, gradient
    )
    return GaussianMixture(logits, means, jnp.exp(log_scales))


def iterate(
    step: Step, mixture: GaussianMixture, y: jax.Array, num_steps: int, **options: ArrayLike
) -> tuple[GaussianMixture, Float[Array, " {num_steps}+1"]]:
    """Repeat a step in one compiled program.

    Args:
        step: maps a mixture, the data and the options to the next mixture, `em_step` for instance.
        mixture: where to start, batch shape `()`.
        y: data, shape `(N, D)`.
        num_steps: how many steps, a whole number.
        **options: for the step, `learning_rate` for instance; traced, so that other values reuse
            the program.

    Returns:
        The last mixture and the mean log-likelihood in nats before each step and after the last,
        shape `(num_steps + 1,)`.

    Raises:
        ValueError: if `y` is not finite, `num_steps` is not a whole number or negative, or the
            step refuses its arguments.

    Example:
        >>> import numpy as np
        >>> from ngem_tutorial import GaussianMixture
        >>> from ngem_tutorial.em import em_step, iterate
        >>> y = np.array([[-1.1], [-0.9], [0.9], [1.1]])
        >>> start = GaussianMixture([0.0, 0.0], [[-0.5], [0.5]], [[1.0], [1.0]])
        >>> fitted, log_likelihood = iterate(em_step, start, y, 20)
        >>> [round(float(mean), 2) for mean in fitted.means[:, 0]]
        [-1.0, 1.0]
        >>> bool((np.diff(log_likelihood) > -1e-5).all())  # it never falls
        True
    """
    num_steps = check_whole("num_steps", num_steps, 0)
    y = _check_data(mixture, y)
    # With the values of the options, which the compiled program does not know.
    jax.eval_shape(lambda m, data: step(m, data, **options), mixture, y)
    return _iterate(step, mixture, y, num_steps, **options)


@partial(jax.jit, static_argnums=(0, 3))
def _iterate(
    step: Step, mixture: GaussianMixture, y: jax.Array, num_steps: int, **options: ArrayLike
) -> tuple[GaussianMixture, Array]:
    # In one dtype from the start: what a step returns has that of its arguments together.
    dtype = jnp.result_type(*jax.tree.leaves(mixture), y, jnp.float32)
    mixture, y = jax.tree.map(lambda leaf: leaf.astype(dtype), (mixture, y))

    def body(m: GaussianMixture, _: None) -> tuple[GaussianMixture, jax.Array]:
        return step(m, y, **options), m.log_prob(y).mean()

    last, log_likelihood = jax.lax.scan(body, mixture, length=num_steps)
    return last, jnp.append(log_likelihood, last.log_prob(y).mean())


def _check_data(mixture: GaussianMixture, y: ArrayLike) -> Float[Array, "N {mixture.dim}"]:
    """Check for one mixture and a non-empty data set `(N, D)`; return the data as an array."""
    check_mixture(mixture)
    if mixture.batch_shape:
        raise ValueError(f"mixture must be a single one, got batch shape {mixture.batch_shape}")
    y = real_array("y", y)
    if y.ndim != 2 or y.shape[0] == 0 or y.shape[1] != mixture.dim:
        raise ValueError(f"y must have shape (N, D) with D = {mixture.dim}, got {y.shape}")
    check_values("y", y, "finite", np.isfinite)
    return y.astype(jnp.result_type(y, mixture.means))
