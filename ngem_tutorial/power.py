r"""Gradients preconditioned by a power of the Fisher matrix: from `nll` over whitening to nGEM.

`Power` has the value of `nll` and a gradient that is multiplied by `F^-p`. At `p = 0` it is that of
`nll`, at `p = 1` the natural gradient, damped as in `ngem`. Between them `p = 1/2` whitens: under
the model the score of target *and component* has the covariance `F`, so that `F^-1/2` times it has
the covariance `I`. The score of the target alone, which is what a likelihood has, is the mean of
that one given the target. Its covariance is smaller by what the component would have told, and
after whitening it lies between 0 and `I`.

A power depends on coordinates where an inverse does not: those of `F` here are the logits, the
means in a `unit`, and the logarithms of the scales. There `F` has one block for the logits and is
diagonal elsewhere, with `pi_k unit^2 / sigma_k^2` for a mean and `2 pi_k` for a log-scale:
equations (21), (22) and (51) of the paper.

What changes during a training is an argument, never a state: `PowerSchedule` has the numbers that
depend on the update, and `update_shares` and `balance` are for the one thing that depends on the
data, the mean responsibilities of a balanced start.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Final, Literal, NamedTuple, get_args, get_type_hints

import jax
import jax.numpy as jnp
import numpy as np

from ngem_tutorial._checks import (
    check_choice,
    check_number,
    check_options,
    check_values,
    check_whole,
    real_array,
)
from ngem_tutorial._typing import Array, ArrayLike, Float, Num, Scalar
from ngem_tutorial.fisher import relaxed_e_step, solve_damped_categorical_fisher
from ngem_tutorial.mixtures import GaussianMixture, check_mixture
from ngem_tutorial.objectives import with_gradient

__all__ = [
    "Power",
    "PowerOptions",
    "PowerSchedule",
    "balance",
    "categorical_power",
    "pooled_unit",
    "update_shares",
    "whitened_nll",
]


@dataclasses.dataclass(frozen=True)
class Power:
    r"""An objective with the value of `nll` and the gradient preconditioned by `F^-p`.

    With `pi` the weights, `rho` the responsibilities, `z_k = (y - mu_k) / sigma_k` in each
    coordinate, `s` the unit and `lambda` the damping, the cotangents are

    - logits: `pi - rho`, or `(diag(pi) - pi pi^T + lambda I)^-p (pi - rho)`;
    - means: `-rho_k / (pi_k + lambda)^p (sigma_k / s)^(2p) z_k / sigma_k`;
    - scales: `rho_k / (pi_k + lambda)^p 2^-p (1 - z_k^2) / sigma_k`.

    At `p = 1` and plain logits that is `ngem`, with damped ones `Variant("damped")`. At `p = 1/2`
    the means have `-rho_k z_k / (s sqrt(pi_k + lambda))`: its typical size does not depend on how
    precise a prediction is, as with `beta_nll` at 1/2, and the unit is no more than a
    factor between the means and the rest.

    Objectives compare, and hash, by value. The gradient of an example depends on that example and
    the arguments alone.

    Args:
        exponent: `p`, a number from 0 to 1.
        logits: `"plain"`, the gradient itself, or `"damped"`, preconditioned as above.
        damping: `lambda`, positive, in the units of a weight. Without effect at `p = 0`.

    Raises:
        ValueError: if `exponent` or `damping` is out of range or `logits` is neither.

    Example:
        >>> import jax
        >>> from ngem_tutorial import GaussianMixture, nll, ngem
        >>> from ngem_tutorial.power import Power
        >>> mixture = GaussianMixture([0.0, 1.0], [[-1.0], [1.0]], [[0.5], [0.5]])
        >>> gradients = [jax.grad(f)(mixture, [0.5]).means[1].item() for f in (nll, Power(), ngem)]
        >>> [round(gradient, 2) for gradient in gradients]  # p = 0, 1/2 and 1
        [1.99, 1.0, 0.51]
    """

    exponent: float = 0.5
    logits: Literal["plain", "damped"] = "plain"
    damping: float = 0.25

    def __post_init__(self) -> None:
        """Check the choices."""
        _check_exponent(self.exponent)
        check_choice("logits", self.logits, get_args(get_type_hints(type(self))["logits"]))
        check_options(1, damping=self.damping)

    def __call__(
        self,
        mixture: GaussianMixture,
        y: ArrayLike,
        *,
        exponent: Scalar | None = None,
        unit: ArrayLike = 1.0,
        relaxation: Scalar = 0.0,
        balance: ArrayLike = 0.0,
    ) -> Float[Array, "*batch"]:
        """The value of `nll`, the gradient of `gradient`.

        Args:
            mixture: batch shape `(...)`.
            y: targets, shape `(..., D)`, with the mixture's batch shape, or of any for a mixture
                without.
            exponent: `p` in the place of that of the objective, a number from 0 to 1, traced or
                not.
            unit: the unit in which the means are measured, in the units of the targets: positive,
                a number or shape `(D,)`, traced or not; see `scale_unit` and `pooled_unit`.
            relaxation: `eps`, a number from 0 to 1, traced or not; see `fisher.relaxed_e_step`.
            balance: what is added to the logarithms of the responsibilities before they are
                normalised, a number (without effect) or shape `(K,)`; see the function `balance`.

        Returns:
            Shape `(...)`, in nats.

        Raises:
            ValueError: if the shape of `y` does not fit the mixture or an option is out of range.
            TypeError: if it is differentiated twice.
        """
        self._check(mixture, exponent, unit, relaxation, balance)
        options: dict[str, ArrayLike] = {"unit": unit, "relaxation": relaxation, "balance": balance}
        chosen = self
        if isinstance(exponent, float | int | np.number):  # known: the formula of that power
            chosen = dataclasses.replace(self, exponent=float(exponent))
        elif exponent is not None:
            options["exponent"] = exponent
        return with_gradient(chosen.gradient, mixture, y, name=str(self), **options)

    def gradient(
        self,
        mixture: GaussianMixture,
        y: ArrayLike,
        *,
        exponent: Scalar | None = None,
        unit: ArrayLike = 1.0,
        relaxation: Scalar = 0.0,
        balance: ArrayLike = 0.0,
    ) -> GaussianMixture:
        """The gradient of the negative log-likelihood, preconditioned.

        Args:
            mixture: batch shape `(...)`.
            y: targets, shape `(..., D)`, with the mixture's batch shape, or of any for a mixture
                without.
            exponent: as in `__call__`. Where it is not known it is moved into its range.
            unit: as in `__call__`.
            relaxation: as in `__call__`.
            balance: as in `__call__`.

        Returns:
            Cotangents of `logits`, `means` and `scales`, one for each target, to be minimised
            along.

        Raises:
            ValueError: if the shape of `y` does not fit the mixture or an option is out of range.
        """
        self._check(mixture, exponent, unit, relaxation, balance)
        mixture, y = mixture.pair(y)
        z, pi, rho, _ = relaxed_e_step(mixture, y, relaxation, balance)
        p, sigma = self.exponent if exponent is None else exponent, mixture.scales
        if not isinstance(p, float | int):
            p = jnp.clip(jnp.asarray(p, z.dtype), 0.0, 1.0)
        unit = jnp.asarray(unit, z.dtype)
        # -z / sigma and (1 - z^2) / sigma are the gradients of a Gaussian, (55) and (56), times
        # the power of its Fisher matrix, (21). In the coordinate mu / s that of a mean is
        # s^2 / sigma^2 and the gradient s times that in mu, as it is on the way back.
        if isinstance(p, float | int) and p == 0:
            weight = rho[..., None]
            means, scales = -weight * z / sigma, weight * (1.0 - z**2) / sigma
        elif isinstance(p, float | int) and p == 0.5:
            weight = (rho * jax.lax.rsqrt(pi + self.damping))[..., None]
            means = -weight * z / unit
            scales = math.sqrt(0.5) * weight * (1.0 - z**2) / sigma
        elif isinstance(p, float | int) and p == 1:
            weight = (rho / (pi + self.damping))[..., None]
            means = -weight * sigma * z / jnp.square(unit)
            scales = 0.5 * weight * (1.0 - z**2) / sigma
        else:
            weight = (rho * jnp.exp(-p * jnp.log(pi + self.damping)))[..., None]
            power = jnp.exp((2.0 * p - 1.0) * jnp.log(sigma) - 2.0 * p * jnp.log(unit))
            means = -weight * power * z
            scales = jnp.exp2(-jnp.asarray(p, z.dtype)) * weight * (1.0 - z**2) / sigma
        logits = pi - rho
        if self.logits == "damped":
            logits = categorical_power(pi, logits, self.damping, p)
        return GaussianMixture.tree_unflatten(None, [logits, means, scales])

    @staticmethod
    def _check(
        mixture: GaussianMixture,
        exponent: Scalar | None,
        unit: ArrayLike,
        relaxation: Scalar,
        balance: ArrayLike,
    ) -> None:
        check_mixture(mixture)
        check_options(mixture.dim, unit=unit, relaxation=relaxation)
        if exponent is not None:
            _check_exponent(exponent)
        shape, k = real_array("balance", balance).shape, mixture.num_components
        if shape not in ((), (k,)):
            raise ValueError(
                f"balance must be a number or have shape (K,) = ({k},), got shape {shape}"
            )
        check_values("balance", balance, "finite", np.isfinite)


def _check_exponent(exponent: Scalar) -> None:
    if callable(exponent):
        raise ValueError(
            "exponent must be a number from 0 to 1, got a function: pass its value at the update"
        )
    check_number("exponent", exponent, "from 0 to 1", lambda p: (p >= 0) & (p <= 1))


_WHITENED: Final = Power()


def whitened_nll(
    mixture: GaussianMixture,
    y: ArrayLike,
    *,
    unit: ArrayLike = 1.0,
    relaxation: Scalar = 0.0,
) -> Float[Array, "*batch"]:
    """The negative log-likelihood with a whitened gradient, `Power` at 1/2: the recommended one.

    `METHODS["whitened NLL"]` is it with a unit and a schedule, for `fit`. The cotangents of an
    example, with the weights `pi`, the responsibilities `rho`, `z_k = (y - mu_k) / sigma_k` and the
    unit `s`, are

    - logits: `pi - rho`;
    - means: `-rho_k z_k / (s sqrt(pi_k + 1/4))`;
    - scales: `rho_k (1 - z_k^2) / (sigma_k sqrt(2 (pi_k + 1/4)))`.

    Where the targets are drawn from the mixture, each has a second moment of at most one in logits,
    `mu / s` and `log sigma`, however small scales and weights are; an example far from every
    component has a large `z`, as with `nll`.

    Args:
        mixture: batch shape `(...)`.
        y: targets, shape `(..., D)`, with the mixture's batch shape, or of any for a mixture
            without.
        unit: the unit in which the means are measured, in the units of the targets: positive, a
            number or shape `(D,)`, traced or not. For a batch `pooled_unit(scale_unit(mixture))`.
        relaxation: `eps`, a number from 0 to 1, traced or not; see `fisher.relaxed_e_step`. For a
            training `relaxation_schedule(num_updates, initial=0.01)(count)`.

    Returns:
        Shape `(...)`, in nats.

    Raises:
        ValueError: if the shape of `y` does not fit the mixture or an option is out of range.
        TypeError: if it is differentiated twice.

    Example:
        >>> import jax
        >>> from ngem_tutorial import GaussianMixture, nll, whitened_nll
        >>> mixture = GaussianMixture([0.0, 1.0], [[-1.0], [1.0]], [[0.5], [0.5]])
        >>> whitened_nll(mixture, [0.5]) == nll(mixture, [0.5])
        Array(True, dtype=bool)
        >>> gradient = jax.grad(whitened_nll)(mixture, [0.5])
        >>> [round(mean, 2) for mean in gradient.means.ravel().tolist()]
        [-0.03, 1.0]
    """
    return _WHITENED(mixture, y, unit=unit, relaxation=relaxation)


def categorical_power(
    weights: Num[ArrayLike, "*batch K"],
    gradient: Num[ArrayLike, "*batch K"],
    damping: float,
    exponent: Scalar,
) -> Float[Array, "*batch K"]:
    r"""Multiply by `A^-p` with `A = diag(pi) - pi pi^T + damping I`, without its eigenvectors.

    At `p = 1` that is `solve_damped_categorical_fisher`. In general the eigenvalues of a diagonal
    matrix less one of rank one have no closed form. But they are known to lie between `damping`
    and `damping + 1/2` (Gershgorin's circle around `pi_k (1 - pi_k)` has that radius), and there
    the power is interpolated by a Chebyshev series in `S = (A - t I) (A + t I)^-1`, whose products
    with a vector have a closed form (Sherman and Morrison). With `t` the geometric mean of the
    two bounds the series converges like `((q - 1) / (q + 1))^n`, `q^4` the ratio of the bounds.
    Its length is chosen so that what is left out is below the rounding: 9 terms in `float32` at
    0.25, 22 at 0.01.

    Args:
        weights: `pi`, shape `(..., K)`, each row summing to one.
        gradient: what is multiplied, shape `(..., K)`.
        damping: positive, known before tracing.
        exponent: `p`, a number from 0 to 1, traced or not.

    Returns:
        Shape `(..., K)`, at most `|gradient| / damping^p` long.

    Raises:
        ValueError: if `damping` or `exponent` is out of range.

    References:
        Hale, Higham and Trefethen, "Computing A^alpha, log(A), and related matrix functions by
        contour integrals", 2008, for functions of a matrix by few products with its resolvents.
    """
    check_number("damping", damping, "positive and finite", lambda d: (d > 0) & np.isfinite(d))
    _check_exponent(exponent)
    pi, g = jnp.asarray(weights), jnp.asarray(gradient)
    known = isinstance(exponent, float | int | np.number)
    if known and exponent == 0:
        return g
    if known and exponent == 1:
        return solve_damped_categorical_fisher(pi, g, damping)
    dtype = jnp.result_type(pi, g, jnp.float32)
    low, high = damping, damping + 0.5
    q, centre = (high / low) ** 0.25, math.sqrt(low * high)
    number = 1 + math.ceil(-math.log(float(jnp.finfo(dtype).eps)) / math.log((q + 1) / (q - 1)))
    reach = (q**2 - 1) / (q**2 + 1)  # S has its eigenvalues between minus this and this
    angles = (np.arange(number) + 0.5) * np.pi / number
    nodes = reach * np.cos(angles)
    logs = jnp.asarray(np.log(centre * (1 + nodes) / (1 - nodes)), dtype)
    transform = 2 / number * np.cos(np.arange(number)[:, None] * angles)
    transform[0] /= 2
    p = jnp.asarray(exponent, dtype)
    series = jnp.asarray(transform, dtype) @ jnp.exp(-p * logs)

    def product(v: jax.Array) -> jax.Array:
        """`S v / reach`."""
        solved = solve_damped_categorical_fisher(pi, v, low + centre)
        return (v - 2 * centre * solved) / reach

    before, term = g, product(g)  # Chebyshev polynomials of degree 0 and 1
    total = series[0] * before + series[1] * term
    for coefficient in series[2:]:
        before, term = term, 2 * product(term) - before
        total = total + coefficient * term
    return jnp.where(p == 0, g, total)


def pooled_unit(unit: ArrayLike) -> Float[Array, ""]:
    """One unit for all coordinates of the targets: the geometric mean of one for each.

    With a unit for each coordinate, a coordinate that is predicted precisely in most examples
    weighs more than the others, by the square of the ratio at `p = 1`. With one for all they
    weigh what the power makes them.

    Args:
        unit: positive, a number or shape `(D,)`, what `scale_unit` returns for instance.

    Returns:
        A number, in the units of the targets.

    Raises:
        ValueError: if it has another shape or is not positive (where it is known).

    Example:
        >>> from ngem_tutorial import pooled_unit
        >>> round(float(pooled_unit([0.5, 2.0])), 6)
        1.0
    """
    given = real_array("unit", unit)
    if given.ndim > 1:
        raise ValueError(f"unit must be a number or have shape (D,), got shape {given.shape}")
    check_values("unit", unit, "positive and finite", lambda u: (u > 0) & np.isfinite(u))
    return jnp.exp(jnp.mean(jnp.log(given.astype(jnp.promote_types(given.dtype, jnp.float32)))))


# ------------------------------------------------------------------------------ balanced starts


def balance(shares: ArrayLike, strength: Scalar) -> Float[Array, " K"]:
    r"""What makes an E-step balanced: `-c log(K rho_bar)`, to be added to the log-responsibilities.

    The responsibilities are then proportional to `pi_k N_k (K rho_bar_k)^-c`: a component that
    takes more than its share of the data gets less of each target, one that is starved more. If
    `rho_bar` is the mean of *these* responsibilities, and not of the plain ones, they solve the
    problem of optimal transport with an entropy, from the data to `K` components of equal
    capacity, whose capacities are soft: they cost `c` times the divergence of the shares. The
    larger `c`, the nearer the shares are to `1 / K`. At `c = 0` they are the plain ones.

    Args:
        shares: `rho_bar`, the mean responsibilities, shape `(K,)`; see `update_shares`.
        strength: `c`, at least 0, traced or not.

    Returns:
        Shape `(K,)`, without gradient. It is finite where a share is zero.

    Raises:
        ValueError: if the shape is another, a share is negative or `strength` is (where they are
            known).

    Example:
        >>> from ngem_tutorial.power import balance
        >>> [round(float(correction), 2) for correction in balance([0.5, 0.25, 0.25], 1.0)]
        [-0.41, 0.29, 0.29]
    """
    given = real_array("shares", shares)
    if given.ndim != 1 or given.size == 0:
        raise ValueError(f"shares must have shape (K,), got {given.shape}")
    check_values("shares", shares, "finite, not negative", lambda s: (s >= 0) & np.isfinite(s))
    check_number("strength", strength, "at least 0", lambda c: (c >= 0) & np.isfinite(c))
    given = jax.lax.stop_gradient(given.astype(jnp.promote_types(given.dtype, jnp.float32)))
    least = float(jnp.finfo(given.dtype).tiny)
    return -jnp.asarray(strength, given.dtype) * jnp.log(given.size * jnp.maximum(given, least))


def update_shares(
    shares: ArrayLike,
    mixture: GaussianMixture,
    y: ArrayLike,
    rate: Scalar,
    *,
    balance: ArrayLike = 0.0,
    weights: ArrayLike | None = None,
) -> Float[Array, " K"]:
    """Move the running mean of the responsibilities towards that of a batch.

    Start it at `1 / K`. With a rate of the part of the data that a batch is, it is a mean over
    about the last pass.

    Args:
        shares: the running mean, shape `(K,)`.
        mixture: batch shape `(...)`.
        y: targets, shape `(..., D)`.
        rate: from 0 to 1, traced or not; 1 forgets the mean of before.
        balance: of the E-step, as for the objective: that of the batch's own update, for the mean
            of the responsibilities that it used.
        weights: of the examples, not negative, or a mask, shape `(...)`; equal if not given.

    Returns:
        Shape `(K,)`, without gradient; as before if every weight is zero.

    Raises:
        ValueError: if a shape does not fit or `rate` is out of range (where it is known).

    Example:
        >>> from ngem_tutorial import GaussianMixture
        >>> from ngem_tutorial.power import update_shares
        >>> mixture = GaussianMixture([0.0, 0.0], [[-5.0], [5.0]], [[1.0], [1.0]])
        >>> shares = update_shares([0.5, 0.5], mixture, [[5.0]], 0.1)
        >>> [round(float(share), 2) for share in shares]
        [0.45, 0.55]
    """
    check_mixture(mixture)
    check_number("rate", rate, "from 0 to 1", lambda r: (r >= 0) & (r <= 1))
    given, k = real_array("shares", shares), mixture.num_components
    if given.shape != (k,):
        raise ValueError(f"shares must have shape (K,) = ({k},), got {given.shape}")
    mixture, y = jax.lax.stop_gradient(mixture.pair(y))
    rho = relaxed_e_step(mixture, y, balance=balance).responsibilities
    if weights is None:
        w = jnp.ones(rho.shape[:-1], rho.dtype)
    else:
        w = real_array("weights", weights).astype(rho.dtype)
        if w.shape != rho.shape[:-1]:
            raise ValueError(f"weights must have shape {rho.shape[:-1]}, got {w.shape}")
    total = jnp.sum(w)
    kept = jnp.where(w[..., None] > 0, w[..., None] * rho, 0.0)
    mean = jnp.sum(kept.reshape(-1, k), axis=0) / jnp.where(total > 0, total, 1.0)
    step = jnp.where(total > 0, jnp.asarray(rate, rho.dtype), 0.0)
    return given + step * (mean - given)


# ------------------------------------------------------------------------------------- schedules


class PowerOptions(NamedTuple):
    """What `PowerSchedule` says of an update."""

    exponent: Array
    """`p` of `Power`."""
    relaxation: Array
    """`eps` of `Power`."""
    strength: Array
    """`c` of `balance`."""


@dataclasses.dataclass(frozen=True)
class PowerSchedule:
    """Exponent, relaxation and strength of the balance at each update of a training.

    A function from the number of updates done to `PowerOptions`, traced or not. Two with the same
    attributes are equal: a program compiled for one serves the other.

    Args:
        num_updates: length of the training.
        exponent: `p` at the start, from 0 to 1.
        fade: the last part of the training, from 0 to 1, over which the exponent falls to zero in
            a line: then the training rests where the likelihood does, whatever the network can
            represent. At 0 it does not fall.
        relaxation: `eps` at the start, from 0 to 1.
        relaxed: the first part of the training over which it falls to zero in a line.
        strength: `c` at the start, at least 0.
        balanced: the first part of the training over which it falls to zero in a line.

    Raises:
        ValueError: if an argument is out of range.

    Example:
        >>> from ngem_tutorial.power import PowerSchedule
        >>> schedule = PowerSchedule(1000, exponent=1.0, fade=0.5)
        >>> [round(float(schedule(count).exponent), 3) for count in (0, 500, 750, 1000)]
        [1.0, 1.0, 0.5, 0.0]
        >>> [round(float(schedule(count).relaxation), 3) for count in (0, 50, 100)]
        [0.1, 0.05, 0.0]
    """

    num_updates: int
    exponent: float = 0.5
    fade: float = 0.0
    relaxation: float = 0.1
    relaxed: float = 0.1
    strength: float = 0.0
    balanced: float = 0.5

    def __post_init__(self) -> None:
        """Check the arguments."""
        check_whole("num_updates", self.num_updates, 1)
        for name in ("exponent", "fade", "relaxation", "relaxed", "balanced"):
            check_number(name, getattr(self, name), "from 0 to 1", lambda v: (v >= 0) & (v <= 1))
        check_number("strength", self.strength, "at least 0", lambda c: (c >= 0) & np.isfinite(c))

    def __call__(self, count: Num[ArrayLike, "*shape"]) -> PowerOptions:
        """Return the options after `count` updates."""
        done = jnp.asarray(count)
        faded = self._line(self.num_updates - done, self.fade)
        exponent = (
            jnp.full(done.shape, self.exponent, float)
            if self.fade == 0
            else (self.exponent * (1.0 - faded))
        )
        return PowerOptions(
            exponent,
            self.relaxation * self._line(done, self.relaxed),
            self.strength * self._line(done, self.balanced),
        )

    def _line(self, done: jax.Array, part: float) -> jax.Array:
        """From 1 at no update to 0 at the end of a part of the training, and 0 after."""
        if part == 0.0:
            return jnp.zeros(done.shape, float)
        end = max(1, round(part * self.num_updates))
        line = jnp.clip(1.0 - done.astype(float) / end, 0.0, 1.0)
        return jnp.where(done < end, line, 0.0)
