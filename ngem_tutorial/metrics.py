"""Numbers per example, and numbers that summarise runs with their intervals."""

from __future__ import annotations

from typing import NamedTuple

import jax
import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats  # type: ignore[import-untyped]  # JAX depends on it

from ngem_tutorial.mixtures import GaussianMixture

__all__ = [
    "MeanDifference",
    "MeanInterval",
    "Moments",
    "mean_and_interval",
    "moments",
    "weight_entropy",
    "welch_interval",
    "wilson_interval",
]


def weight_entropy(mixture: GaussianMixture, y: ArrayLike) -> jax.Array:
    """Entropy of the mixture weights, in the call of an objective; the target is not used.

    Args:
        mixture: batch shape `(...)`.
        y: targets, not used.

    Returns:
        Shape `(...)`, in nats, from 0 (one component left) to `log K`.
    """
    return mixture.weight_entropy


class MeanInterval(NamedTuple):
    """A mean over runs and how well it is known; all in the units of the values.

    Attributes:
        mean: the mean.
        sd: the standard deviation of single values, with `n - 1` in the denominator.
        half_width: the confidence interval of the mean is `mean - half_width` to
            `mean + half_width`.
    """

    mean: NDArray[np.float64]
    sd: NDArray[np.float64]
    half_width: NDArray[np.float64]


class Moments(NamedTuple):
    """What the interval of a mean needs to know of a sample, as printed or computed.

    Attributes:
        mean: the mean.
        sd: the standard deviation of single values, with `n - 1` in the denominator.
        n: how many values.
    """

    mean: float
    sd: float
    n: int


class MeanDifference(NamedTuple):
    """A difference of two means with its confidence interval, in the units of the values."""

    difference: float
    low: float
    high: float


def wilson_interval(
    successes: ArrayLike, trials: ArrayLike, confidence: float = 0.95
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    r"""Return Wilson's score interval of a probability of success.

    .. math:: \frac{\hat p + z^2 / 2n \pm z \sqrt{\hat p (1 - \hat p) / n + z^2 / 4n^2}}
       {1 + z^2 / n}

    It stays within [0, 1] and is sensible for few trials, none or only successes included.

    Args:
        successes: numbers of successes, any shape.
        trials: numbers of trials `n`, at least 1, of a shape that broadcasts with `successes`.
        confidence: the probability that the interval covers the truth, between 0 and 1.

    Returns:
        The lower and the upper ends, in the common shape.

    Raises:
        ValueError: if a number is out of range or not whole.

    References:
        Wilson, "Probable inference, the law of succession, and statistical inference",
        Journal of the American Statistical Association 22, 1927.
    """
    k, n = np.broadcast_arrays(np.asarray(successes, float), np.asarray(trials, float))
    if not np.all((n >= 1) & (n % 1 == 0)):
        raise ValueError(f"trials must be whole numbers, at least 1, got {trials!r}")
    if not np.all((k >= 0) & (k <= n) & (k % 1 == 0)):
        raise ValueError(f"successes must be whole numbers from 0 to trials, got {successes!r}")
    _upper_tail(confidence)  # refuses what is no probability

    def ends(k: float, n: float) -> tuple[float, float]:
        found = stats.binomtest(int(k), int(n)).proportion_ci(confidence, method="wilson")
        return found.low, found.high

    low, high = np.vectorize(ends, otypes=[float, float])(k, n)
    return low, high


def mean_and_interval(values: ArrayLike, axis: int = 0, confidence: float = 0.95) -> MeanInterval:
    """Return the mean over runs, the standard deviation and Student's interval of the mean.

    The half width is `t sd / sqrt(n)`, `t` being the quantile of Student's distribution with
    `n - 1` degrees of freedom; it supposes that the values are independent and about normal.
    A value that is not finite makes the results of its row NaN or infinite: nothing is dropped.

    Args:
        values: numbers of any shape with `n` of at least 2 along `axis`.
        axis: the axis of the runs.
        confidence: the probability that the interval covers the truth, between 0 and 1.

    Returns:
        The three numbers, of the shape of `values` without `axis`.

    Raises:
        ValueError: if there are fewer than two values, or `confidence` is out of range.
    """
    array = np.asarray(values, dtype=np.float64)
    n = array.shape[axis] if array.ndim else 1
    if n < 2:
        raise ValueError(f"values must have at least 2 entries along axis {axis}, got {n}")
    quantile = stats.t.ppf(_upper_tail(confidence), n - 1)
    sd = array.std(axis=axis, ddof=1)
    return MeanInterval(array.mean(axis=axis), sd, quantile * sd / np.sqrt(n))


def moments(values: ArrayLike) -> Moments:
    """Return the mean, the standard deviation and the number of a sample.

    Args:
        values: finite numbers, at least two, shape `(n,)`.

    Returns:
        The three.

    Raises:
        ValueError: if there are fewer than two values or one is not finite.
    """
    sample = np.asarray(values, dtype=np.float64)
    if sample.ndim != 1 or len(sample) < 2 or not np.isfinite(sample).all():
        raise ValueError(f"values must be two or more finite numbers in a row, got {values!r}")
    return Moments(float(sample.mean()), float(sample.std(ddof=1)), len(sample))


def welch_interval(first: Moments, second: Moments, confidence: float = 0.95) -> MeanDifference:
    """Return Welch's interval of a difference of means, from the moments of two samples.

    The samples are independent, about normal, and their spreads need not be equal. For samples
    that are at hand it is `scipy.stats.ttest_ind(..., equal_var=False).confidence_interval()`;
    a printed table has the moments alone. Two samples without any spread have an interval without
    width.

    Args:
        first: the sample whose mean is counted positively.
        second: the sample whose mean is subtracted.
        confidence: the probability that the interval covers the truth, between 0 and 1.

    Returns:
        The difference and its interval.

    Raises:
        ValueError: if a sample has fewer than two values or a moment that is not finite, or a
            number is out of range.

    References:
        Welch, "The generalization of 'Student's' problem when several different population
        variances are involved", Biometrika 34, 1947.
    """
    for name, sample in (("first", first), ("second", second)):
        if sample.n < 2 or not np.isfinite(sample[:2]).all() or sample.sd < 0:
            raise ValueError(
                f"{name} must have a finite mean, a standard deviation of at least 0 and n of at "
                f"least 2, got {sample}"
            )
    quantile = _upper_tail(confidence)
    difference = first.mean - second.mean
    variances = [sample.sd**2 / sample.n for sample in (first, second)]
    if sum(variances) == 0.0:
        return MeanDifference(difference, difference, difference)
    freedom = sum(variances) ** 2 / sum(
        variance**2 / (sample.n - 1)
        for variance, sample in zip(variances, (first, second), strict=True)
    )
    half = float(stats.t.ppf(quantile, freedom) * np.sqrt(sum(variances)))
    return MeanDifference(difference, difference - half, difference + half)


def _upper_tail(confidence: float) -> float:
    """Return the level of the upper end of a central interval."""
    if not 0.0 < confidence < 1.0:
        raise ValueError(f"confidence must be between 0 and 1, got {confidence!r}")
    return 0.5 + 0.5 * confidence
