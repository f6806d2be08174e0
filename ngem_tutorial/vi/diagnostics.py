"""How good is a fit: importance weights of fresh samples, their tail, and the evidence."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import numpy as np
from scipy import special  # type: ignore[import-untyped]  # JAX depends on it

from ngem_tutorial._checks import check_values, check_whole, checked_key
from ngem_tutorial._training.compilation import compiled
from ngem_tutorial._typing import Array, ArrayLike, Float
from ngem_tutorial.components import FullGaussianMixture
from ngem_tutorial.mixtures import GaussianMixture
from ngem_tutorial.vi.checks import TargetError, check_target, checked_start

__all__ = ["Diagnosis", "diagnose", "modes_found"]


class Diagnosis(NamedTuple):
    """What fresh samples of an approximation `q` say about it.

    Where `pareto_k` is above 0.7 the evidence and all that is weighted are not to be trusted: the
    target has more mass in the tails of `q` than `q` has (Vehtari et al. 2024). Below, they can
    still be wrong: all numbers are made from samples of `q`, and know nothing of a mode where `q`
    has none.
    """

    x: Float[Array, "n d"]
    """Samples of `q`, shape `(n, d)`."""
    log_weights: Float[Array, " n"]
    """`log p~ - log q`, not normalised, shape `(n,)`."""
    elbo: float
    """Their mean: the ELBO at temperature one, in nats."""
    elbo_error: float
    """Standard error of the mean."""
    log_evidence: float
    """`log Z`, the logarithm of the mean importance weight, in nats."""
    log_evidence_error: float
    """Its standard error, by the delta method."""
    effective_number: float
    """`(sum w)^2 / sum w^2`: so many samples of the target are they worth."""
    pareto_k: float
    """Shape of the generalised Pareto distribution of the largest weights: minus infinity if all
    weights are alike, infinity if nearly all are zero beside the largest."""

    def __repr__(self) -> str:
        """Say it in a line, without the samples."""
        number, dim = self.x.shape
        return (
            f"Diagnosis({number} samples in {dim} dimensions: ELBO {self.elbo:.6g} +- "
            f"{self.elbo_error:.2g}, log Z {self.log_evidence:.6g} +- "
            f"{self.log_evidence_error:.2g}, effective number {self.effective_number:.6g}, "
            f"Pareto k {self.pareto_k:.2f})"
        )

    def resample(self, key: jax.Array, number: int) -> Float[Array, "number d"]:
        """Draw from the samples by their weights: draws of the target, with repetitions.

        Args:
            key: a JAX random key.
            number: how many.

        Returns:
            Shape `(number, d)`.

        Raises:
            ValueError: if the number is not positive or `key` is no random key.
        """
        key, number = checked_key(key), check_whole("number", number, 1)
        weights = jax.nn.softmax(self.log_weights)
        return jax.random.choice(key, self.x, (number,), p=weights)


def diagnose(
    mixture: FullGaussianMixture | GaussianMixture,
    log_density: Callable[[jax.Array], jax.Array],
    key: jax.Array,
    number: int = 10_000,
) -> Diagnosis:
    """Weigh fresh samples of an approximation by the target.

    Args:
        mixture: `q`, without batch axes.
        log_density: `log p~`, of a point `(d,)`.
        key: a JAX random key.
        number: how many samples, 100 at least.

    Returns:
        ELBO, evidence, effective number and Pareto k, with the samples and their weights.

    Raises:
        ValueError: if there are fewer than 100 samples, an argument is not as above, or no sample
            has a density above zero.
        TargetError: if the log density is not a number, or infinite, at a sample.

    Example:
        >>> import jax
        >>> from ngem_tutorial.vi import diagnose, initial_mixture
        >>> q = initial_mixture(jax.random.key(0), 2, spread=0.0)
        >>> found = diagnose(q, lambda x: -0.5 * x @ x, jax.random.key(1))
        >>> round(found.log_evidence, 3)  # log(2 pi)
        1.838
    """
    number = check_whole("number", number, 100)
    key, mixture = checked_key(key), checked_start("mixture", mixture, None)
    point = jax.ShapeDtypeStruct((mixture.dim,), mixture.means.dtype)
    check_target(log_density, (), point)
    block = partial(_weigh, log_density, number)
    x, log_weights = compiled(block, mixture, key, key=("vi diagnose", log_density, number))(
        mixture, key
    )
    w = np.asarray(log_weights, np.float64)
    bad = np.isnan(w) | (w == np.inf)
    if bad.any():
        first = x[int(bad.argmax())]
        raise TargetError(np.asarray(first), float(log_density(first)))
    if not (w > -np.inf).any():
        raise ValueError("log_density must be above minus infinity at some samples of the mixture")
    log_evidence = float(special.logsumexp(w) - math.log(number))
    relative = np.exp(w - log_evidence)
    return Diagnosis(
        x,
        log_weights,
        float(w.mean()),
        float(w.std(ddof=1) / math.sqrt(number)) if np.isfinite(w).all() else math.inf,
        log_evidence,
        float(relative.std(ddof=1) / math.sqrt(number)),
        float(relative.sum() ** 2 / np.sum(relative**2)),
        _pareto_k(w),
    )


def modes_found(mixture: FullGaussianMixture | GaussianMixture, modes: ArrayLike) -> int:
    """Count the modes that a mixture has.

    A mode is found if the components for which it is the nearest one, and no further away than
    `6 sqrt(d)`, have together at least a tenth of an equal share of the weight.

    Args:
        mixture: without batch axes.
        modes: their means, shape `(M, d)`.

    Returns:
        How many.

    Raises:
        ValueError: if the mixture is none, or the modes are not finite points, one at least, of as
            many dimensions as it has.

    Example:
        >>> import jax
        >>> from ngem_tutorial.vi import initial_mixture, modes_found
        >>> modes_found(initial_mixture(jax.random.key(0), 2), [[0.0, 0.0], [50.0, 0.0]])
        1
    """
    mixture = checked_start("mixture", mixture, None)
    modes = np.asarray(modes, np.float64)
    if modes.ndim != 2 or modes.shape[1] != mixture.dim or not len(modes):
        raise ValueError(f"modes must have shape (M, d) with d = {mixture.dim}, got {modes.shape}")
    check_values("modes", modes, "finite", np.isfinite)
    distance = np.linalg.norm(np.asarray(mixture.means)[:, None] - modes, axis=-1)
    nearest = distance.argmin(axis=1)
    near = distance.min(axis=1) < 6.0 * np.sqrt(mixture.dim)
    weights = np.where(near, np.asarray(mixture.weights), 0.0)
    shares = np.bincount(nearest, weights, minlength=len(modes))
    return int(np.sum(shares >= 0.1 / len(modes)))


def _weigh(
    log_density: Callable[[jax.Array], jax.Array],
    number: int,
    mixture: FullGaussianMixture,
    key: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    x = mixture.sample(key, number)
    return x, jax.vmap(log_density)(x) - mixture.log_prob(x)


def _pareto_k(log_weights: np.ndarray) -> float:
    """Shape of a generalised Pareto distribution fitted to the largest weights.

    To as many as Vehtari et al. (2024) take, a fifth of them and `3 sqrt(n)` at most, by the
    estimate of Zhang and Stephens (2009), with their weak prior of ten observations at 0.5. Where
    no more than four weights are above the others, or above what can be told from zero, it is
    infinite.
    """
    ordered = np.sort(log_weights) - np.max(log_weights)
    number = math.ceil(min(0.2 * len(ordered), 3.0 * math.sqrt(len(ordered))))
    threshold = max(ordered[-number - 1], math.log(np.finfo(np.float64).tiny))
    if 1.0 - math.exp(threshold) <= 1e-5:
        return -math.inf  # all alike: the weights are bounded
    excess = np.exp(ordered[ordered > threshold]) - math.exp(threshold)
    number = len(excess)
    if number <= 4:
        return math.inf
    points = np.arange(1, 31 + math.isqrt(number))
    quartile = excess[int(number / 4 + 0.5) - 1]
    theta = (1.0 - np.sqrt(len(points) / (points - 0.5))) / (3.0 * quartile) + 1.0 / excess[-1]
    shape = np.mean(np.log1p(-theta[:, None] * excess), axis=1)
    profile = number * (np.log(-theta / shape) - shape - 1.0)
    chosen = float(special.softmax(profile) @ theta)
    k = float(np.mean(np.log1p(-chosen * excess)))
    return (number * k + 10 * 0.5) / (number + 10)
