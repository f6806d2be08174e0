"""Synthetic data with their truth: the distribution that they were drawn from.

A learned density can therefore be compared with the true one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Final, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from ngem_tutorial._typing import Array, Float
from ngem_tutorial.mixtures import GaussianMixture

__all__ = ["ConditionalSample", "Sample", "junction", "two_gaussians", "two_sinusoids"]


class Sample(NamedTuple):
    """Points and the distribution that they were drawn from.

    Attributes:
        y: the points, shape `(N, D)`.
        truth: the mixture of the generator, logits `(K,)`, means and scales `(K, D)`.
    """

    y: Float[Array, "N D"]
    truth: GaussianMixture


class ConditionalSample(NamedTuple):
    """Inputs, targets and the conditional distribution that the targets were drawn from.

    Attributes:
        x: inputs, shape `(N, C)`, in the units that the generator names.
        y: targets, shape `(N, D)`.
        truth: from inputs `(..., C)` to the mixture of the target, logits `(..., K)`, means and
            scales `(..., K, D)`.
    """

    x: Float[Array, "N C"]
    y: Float[Array, "N D"]
    truth: Callable[[jax.Array], GaussianMixture]


def two_gaussians(
    key: jax.Array,
    size: int = 200,
    *,
    weights: Sequence[float] = (0.5, 0.5),
    means: Sequence[Sequence[float]] = ((-2.0, -2.0), (2.0, 2.0)),
    scale: float | Sequence[float] = 0.5,
) -> Sample:
    """Draw the Two-Gaussians data: points from well-separated isotropic Gaussians.

    The number of points of each component is fixed, not drawn: `weights * size`, rounded to whole
    numbers that add up to `size` (largest remainder). The order is shuffled.

    The paper (section 4.1, Table 7) takes 2 x 100 points "equally sampled from two distinct and
    well-separated Gaussians in R^2" and prints neither their means nor their deviations, which
    are seen in its Figure 2 only. The coordinates here are ours: the means are eleven standard
    deviations apart.

    Args:
        key: a JAX random key.
        size: the number of points `N`, at least 1.
        weights: the shares of the components, `K` positive numbers that add up to 1.
        means: the means of the components, `(K, D)`; more than two components are allowed.
        scale: the standard deviation, in the units of the means: one number, or `K` of them.

    Returns:
        The points `y`, shape `(N, D)`, and the mixture `truth` with the given `weights`.

    Raises:
        ValueError: if an argument is out of range or `weights`, `means` and `scale` do not fit.

    Example:
        >>> import jax
        >>> from ngem_tutorial import datasets
        >>> sample = datasets.two_gaussians(jax.random.key(0))
        >>> sample.y.shape, sample.truth.num_components
        ((200, 2), 2)
    """
    counts = _counts(weights, size)
    centres = np.asarray(means, dtype=np.float64)
    if centres.ndim != 2 or len(centres) != len(counts) or not np.isfinite(centres).all():
        raise ValueError(
            f"means must be finite numbers of shape (K, D) with K = {len(counts)} as in weights, "
            f"got {means!r}"
        )
    deviations = np.asarray(scale, dtype=np.float64)
    if deviations.shape not in {(), (len(counts),)} or not _positive(deviations):
        raise ValueError(
            f"scale must be one positive number, or one for each of the {len(counts)} components, "
            f"got {scale!r}"
        )
    scales = np.broadcast_to(deviations.reshape(-1, 1), centres.shape)
    truth = GaussianMixture(jnp.log(jnp.asarray(weights)), jnp.asarray(centres), jnp.array(scales))

    order_key, noise_key = jax.random.split(key)
    component = _shuffled_components(order_key, counts)
    noise = jax.random.normal(noise_key, (size, centres.shape[1]))
    return Sample(truth.means[component] + truth.scales[component] * noise, truth)


def two_sinusoids(
    key: jax.Array,
    size: int = 2000,
    *,
    weights: Sequence[float] = (0.5, 0.5),
    noise: float = 0.1,
    noise_is: Literal["variance", "deviation"] = "variance",
) -> ConditionalSample:
    r"""Draw the Two-Sinusoids data: a target on one of two sine waves, with noise.

    .. math:: x \sim U(0, 4\pi), \qquad
       y = \pi \sin(x) + \xi \ \text{ or } \ y = \pi \sin(x + \pi) + \xi, \qquad
       \xi \sim \mathcal{N}(0, 0.1)

    The paper (section 4.1, Table 8: 2 x 1000 points) does not say whether 0.1 is the variance or
    the standard deviation of the noise: choose with `noise_is`. As in `two_gaussians`, the number
    of points on each wave is fixed and the order is shuffled.

    Args:
        key: a JAX random key.
        size: the number of points `N`, at least 1.
        weights: the shares of the waves `pi sin(x)` and `pi sin(x + pi)`, which add up to 1.
        noise: the second parameter of the noise's normal distribution, positive.
        noise_is: what `noise` is: the "variance" or the standard "deviation".

    Returns:
        The inputs `x` in radians, the targets `y`, both of shape `(N, 1)`, and the conditional
        `truth`.

    Raises:
        ValueError: if an argument is out of range.
    """
    if len(weights) != 2:
        raise ValueError(f"weights must be two numbers, one for each wave, got {weights!r}")
    counts = _counts(weights, size)
    if noise_is not in ("variance", "deviation"):
        raise ValueError(f"noise_is must be 'variance' or 'deviation', got {noise_is!r}")
    if not _positive(np.asarray(noise)):
        raise ValueError(f"noise must be a positive number, got {noise!r}")
    deviation = math.sqrt(noise) if noise_is == "variance" else noise
    log_weights = np.log(np.asarray(weights, dtype=np.float64))
    phases = np.array([0.0, math.pi])

    def truth(x: jax.Array) -> GaussianMixture:
        """Return the mixture of the targets at the inputs `x`, shape `(..., 1)`."""
        x = jnp.asarray(x, dtype=jnp.result_type(x, float))
        means = math.pi * jnp.sin(x + phases.astype(x.dtype))[..., None]
        logits = jnp.broadcast_to(jnp.asarray(log_weights, means.dtype), means.shape[:-1])
        return GaussianMixture(logits, means, jnp.full_like(means, deviation))

    order_key, input_key, noise_key = jax.random.split(key, 3)
    component = _shuffled_components(order_key, counts)
    x = jax.random.uniform(input_key, (size, 1), maxval=4.0 * math.pi)
    means = jnp.take_along_axis(truth(x).means[..., 0], component[:, None], axis=1)
    y = means + deviation * jax.random.normal(noise_key, (size, 1))
    return ConditionalSample(x, y, truth)


_HORIZON: Final = 4.0  # seconds from the input to the target
_MEAN_SPEED: Final = 10.0  # metres per second
_PACES: Final = np.array([1.0, 0.5, 0.5])  # of the speed: straight on, left, right
_TURN_RATES: Final = np.array([0.0, 1.0, -1.0]) * math.pi / 8.0  # radians per second


def junction(
    key: jax.Array,
    size: int = 2000,
    *,
    weights: Sequence[float] = (0.8, 0.15, 0.05),
    slope: float = -0.3,
    noise: Sequence[float] = (0.08, 0.02),
) -> ConditionalSample:
    r"""Draw the Junction data: where a car is four seconds on, with three unequal futures.

    A car approaches a junction at `v` metres per second and is `d` metres away from it;
    `v` is uniform from 6 to 14 and `d` from 0 to 10. There it goes straight on, or brakes to half
    its speed and turns left or right, at a constant turn rate of pi / 8 radians per second. The
    target is its position after `T = 4` seconds, `(ahead, to the left)` of where it is now. It is
    at the junction after `t = min(d / v, T)` seconds; with `s = T - t` seconds left, the speed
    `u_k` (`v`, `v / 2`, `v / 2`) and the turn rate `omega_k` the future `k` has the mean

    .. math:: \mu_k = \left( v t + \frac{u_k}{\omega_k} \sin(\omega_k s), \;
       \frac{u_k}{\omega_k} (1 - \cos(\omega_k s)) \right),

    whose limit is `(v T, 0)` for straight on, and normal noise with deviations in proportion to
    the length of the path, `v t + u_k s`. The probability of the future is

    .. math:: \pi_k(v) \propto w_k \exp( b_k \, (v - 10) ), \qquad
       b_k = 0 \text{ for straight on, else the slope } b.

    The future is drawn for each point, so that their numbers vary. Not from the paper, whose
    synthetic data are balanced: this is a small stand-in for trajectory prediction, where rare
    futures matter.

    Args:
        key: a JAX random key.
        size: the number of points `N`, at least 1.
        weights: `w`, the probabilities of straight on, left and right at 10 m/s, which add up
            to 1.
        slope: `b`, how much the log-odds of a turn change with the speed, per m/s; with 0 the
            probabilities are the same for all inputs.
        noise: the deviations ahead and to the left, as parts of the path's length.

    Returns:
        The inputs `x`, shape `(N, 2)`: the speed in m/s (mean 10, deviation 2.3) and the distance
        in m (mean 5, deviation 2.9); the targets `y`, shape `(N, 2)`, in m; and the conditional
        `truth` of three components, for speeds above 0 and distances from 0 on.

    Raises:
        ValueError: if an argument is out of range, or if the inputs of `truth` are not pairs.
    """
    shares, size = _shares(weights), _whole(size)
    if len(shares) != 3:
        raise ValueError(
            f"weights must be three numbers, for straight on, left and right, got {weights!r}"
        )
    if np.ndim(slope) or not math.isfinite(slope):
        raise ValueError(f"slope must be a finite number, got {slope!r}")
    relative = np.asarray(noise, dtype=np.float64)
    if relative.shape != (2,) or not _positive(relative):
        raise ValueError(
            f"noise must be two positive numbers, for ahead and to the left, got {noise!r}"
        )

    def truth(x: jax.Array) -> GaussianMixture:
        """Return the mixture of the positions at the inputs `x`, shape `(..., 2)`."""
        x = jnp.asarray(x, dtype=jnp.result_type(x, float))
        if x.ndim == 0 or x.shape[-1] != 2:
            raise ValueError(f"x must have shape (..., 2), speed and distance, got {x.shape}")
        speed, distance = x[..., :1], x[..., 1:]
        before = jnp.minimum(distance / speed, _HORIZON)  # seconds, up to the junction
        angle = jnp.asarray(_TURN_RATES, x.dtype) * (_HORIZON - before)  # turned, (..., K)
        arc = jnp.asarray(_PACES, x.dtype) * speed * (_HORIZON - before)
        chord = arc * jnp.sinc(angle / (2.0 * math.pi))  # sinc(z) = sin(pi z) / (pi z)
        ahead = speed * before + chord * jnp.cos(angle / 2.0)
        means = jnp.stack([ahead, chord * jnp.sin(angle / 2.0)], axis=-1)
        scales = (speed * before + arc)[..., None] * jnp.asarray(relative, x.dtype)
        turns = jnp.asarray(_TURN_RATES != 0.0, x.dtype)
        logits = jnp.asarray(np.log(shares), x.dtype) + slope * (speed - _MEAN_SPEED) * turns
        return GaussianMixture(logits, means, scales)

    input_key, target_key = jax.random.split(key)
    low, high = jnp.array([_MEAN_SPEED - 4.0, 0.0]), jnp.array([_MEAN_SPEED + 4.0, 10.0])
    x = jax.random.uniform(input_key, (size, 2), minval=low, maxval=high)
    return ConditionalSample(x, truth(x).sample(target_key), truth)


def _counts(weights: Sequence[float], size: int) -> NDArray[np.int64]:
    """Round `weights * size` to whole numbers that add up to `size` (largest remainder)."""
    exact = np.round(_shares(weights) * _whole(size), 9)  # 0.1 * 30 is 3, not 3.0000000000000004
    counts = np.floor(exact).astype(np.int64)
    by_remainder = np.argsort(counts - exact, kind="stable")
    counts[by_remainder[: size - counts.sum()]] += 1
    return counts


def _shares(weights: Sequence[float]) -> NDArray[np.float64]:
    """Return the weights as an array after checking that they are positive and add up to 1."""
    shares = np.asarray(weights, dtype=np.float64)
    if shares.ndim != 1 or not _positive(shares) or abs(shares.sum() - 1.0) > 1e-6:
        raise ValueError(f"weights must be positive numbers that add up to 1, got {weights!r}")
    return shares


def _whole(size: int) -> int:
    """Return the size after checking that it is a whole number, at least 1."""
    if isinstance(size, bool) or not isinstance(size, (int, np.integer)) or size < 1:
        raise ValueError(f"size must be a whole number, at least 1, got {size!r}")
    return int(size)


def _positive(values: NDArray[np.float64]) -> bool:
    """Say whether there are values and all are positive and finite."""
    return bool(values.size and np.isfinite(values).all() and (values > 0).all())


def _shuffled_components(key: jax.Array, counts: NDArray[np.int64]) -> jax.Array:
    """Return the component of each point, `(N,)`, in random order."""
    return jax.random.permutation(key, jnp.asarray(np.repeat(np.arange(len(counts)), counts)))
