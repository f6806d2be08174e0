"""Numbers per example, and numbers that summarise runs with their intervals."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import log_ndtr
from numpy.typing import NDArray
from scipy import stats  # type: ignore[import-untyped]  # JAX depends on it

from ngem_tutorial._checks import check_values, real_array
from ngem_tutorial._mixture import LOG_2PI
from ngem_tutorial._typing import Array, ArrayLike, Float, Shaped
from ngem_tutorial.mixtures import GaussianMixture
from ngem_tutorial.objectives import nll

__all__ = [
    "MeanDifference",
    "MeanInterval",
    "MedianInterval",
    "Moments",
    "collapse",
    "interval_nll",
    "least_squared_error",
    "mean_and_interval",
    "median_interval",
    "mode_errors",
    "moments",
    "regression_scores",
    "resolution",
    "squared_error",
    "weight_entropy",
    "welch_interval",
    "wilson_interval",
]


def weight_entropy(mixture: GaussianMixture, y: ArrayLike) -> Float[Array, "*batch"]:
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

    Example:
        >>> from ngem_tutorial.metrics import wilson_interval
        >>> low, high = wilson_interval(8, 10)
        >>> round(float(low), 3), round(float(high), 3)
        (0.49, 0.943)
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

    Example:
        >>> from ngem_tutorial.metrics import mean_and_interval
        >>> [round(float(number), 3) for number in mean_and_interval([1.0, 2.0, 3.0])]
        [2.0, 1.0, 2.484]
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


class MedianInterval(NamedTuple):
    """A median and an interval that covers it, in the units of the values."""

    median: float
    low: float
    high: float


def median_interval(values: ArrayLike, confidence: float = 0.95) -> MedianInterval:
    """Return the sample median and the interval of order statistics for the true one.

    It supposes nothing but that the values are independent and of one distribution. The interval
    is the shortest symmetric pair of order statistics that covers the median with at least the
    given probability (`scipy.stats.quantile_test`); where there are too few values for that, it
    is the whole range.

    Args:
        values: numbers, at least one.
        confidence: the probability that the interval covers the median, between 0 and 1.

    Returns:
        Median and ends, in the units of the values.

    Raises:
        ValueError: if there is no value, one is not finite or `confidence` is out of range.
    """
    sample = np.asarray(values, float).ravel()
    if sample.size == 0 or not np.isfinite(sample).all():
        raise ValueError(f"values must be finite numbers, at least one, got {values!r}")
    _upper_tail(confidence)  # refuses what is no probability
    median = float(np.median(sample))
    low, high = stats.quantile_test(sample, q=median, p=0.5).confidence_interval(confidence)
    return MedianInterval(
        median,
        float(sample.min() if np.isnan(low) else low),
        float(sample.max() if np.isnan(high) else high),
    )


# -------------------------------------------------------------------------- scores of predictions


def squared_error(mixture: GaussianMixture, y: ArrayLike) -> Float[Array, "*batch"]:
    """Squared distance of the mixture's mean from the target, in the call of an objective.

    Args:
        mixture: batch shape `(...)`.
        y: targets, shape `(..., D)`.

    Returns:
        Shape `(...)`, in squared units of the target.

    Raises:
        ValueError: if the shape of `y` does not fit the mixture.
    """
    mixture, y = mixture.pair(y)
    return jnp.sum((mixture.mean - y) ** 2, axis=-1)


def least_squared_error(mixture: GaussianMixture, y: ArrayLike) -> Float[Array, "*batch"]:
    """Squared distance of the nearest component's mean, chosen example by example.

    Args:
        mixture: batch shape `(...)`.
        y: targets, shape `(..., D)`.

    Returns:
        Shape `(...)`, in squared units of the target.

    Raises:
        ValueError: if the shape of `y` does not fit the mixture.
    """
    return jnp.min(_component_errors(mixture, y), axis=-1)


def interval_nll(
    mixture: GaussianMixture, y: ArrayLike, *, width: ArrayLike
) -> Float[Array, "*batch"]:
    """Minus the log probability of the interval around a target: for targets with few values.

    A target that was rounded stands for an interval. Its density has no bound, a scale that goes to
    zero at a value lets it grow for ever; the probability of the interval is at most one. With
    `functools.partial(interval_nll, width=1.0)` it is a metric or an objective.

    Args:
        mixture: batch shape `(...)`.
        y: targets, the middles of the intervals, shape `(..., D)`.
        width: of the intervals, positive, a number or shape `(D,)`, in the units of the targets;
            the `resolution` of the data.

    Returns:
        Shape `(...)`, in nats. Where every component is far it can be infinite.

    Raises:
        ValueError: if a shape does not fit or a width is not positive.

    Example:
        >>> from ngem_tutorial import GaussianMixture
        >>> from ngem_tutorial.metrics import interval_nll
        >>> mixture = GaussianMixture([0.0], [[3.0]], [[1e-3]])  # all of its mass on the value 3
        >>> abs(round(float(interval_nll(mixture, [3.0], width=1.0)), 4))
        0.0
    """
    mixture, y = mixture.pair(y)
    given = real_array("width", width)
    if given.shape not in ((), (mixture.dim,)):
        raise ValueError(
            f"width must be a number or have shape (D,) = ({mixture.dim},), got {given.shape}"
        )
    check_values("width", given, "positive and finite", lambda w: (w > 0) & np.isfinite(w))
    half = 0.5 * given.astype(mixture.scales.dtype) / mixture.scales
    terms = jnp.sum(_log_probability(mixture.standardize(y), half), axis=-1)
    return -jax.nn.logsumexp(mixture.log_weights + terms, axis=-1)


def _log_probability(z: jax.Array, half: jax.Array) -> jax.Array:
    """The logarithm of `Phi(z + half) - Phi(z - half)`, and a gradient that is right as well.

    By symmetry left of zero, where `log Phi` is exact. A narrow interval has the mean of the
    density to second order. Far out `log Phi` is its asymptotic series, and the difference of the
    two is taken before rounding: JAX's own has no right gradient there in single precision.
    """
    z = -jnp.minimum(jnp.abs(z), 1e18)
    narrow = half * (1.0 - z) < 0.01
    z_in, half_in = jnp.where(narrow, z, 0.0), jnp.where(narrow, half, 0.0)
    near = jnp.log(2.0 * half) - 0.5 * (z_in**2 + LOG_2PI)
    near = near + jnp.log1p((z_in**2 - 1.0) * half_in**2 / 6.0)
    z, half = jnp.where(narrow, 0.0, z), jnp.where(narrow, 0.5, half)
    far = -z - half > 30.0
    end = jnp.where(far, -z - half, 30.0)
    r = end**-2.0
    series = jnp.log1p(r * (-1.0 + r * (3.0 - 15.0 * r)))
    series = series - 0.5 * (end**2 + LOG_2PI) - jnp.log(end)
    fall = 2.0 * z * half - jnp.log1p(2.0 * half / end)
    z, half = jnp.where(far, 0.0, z), jnp.where(far, 0.5, half)
    upper, lower = log_ndtr(z + half), log_ndtr(z - half)
    difference = jnp.where(far, fall, lower - upper)
    wide = jnp.where(far, series, upper) + jnp.log(-jnp.expm1(difference))
    return jnp.where(narrow, near, wide)


def resolution(y: ArrayLike) -> NDArray[np.float64]:
    """The smallest distance between two different values in each coordinate of the targets.

    Half of it is a floor for the scales of targets that take few values: `min_scale`, in the units
    that the network sees. Values that differ by rounding are equal. For measurements, which take
    any value, it says nothing.

    Args:
        y: targets, shape `(N, D)`, finite.

    Returns:
        Shape `(D,)`.

    Raises:
        ValueError: if the shape is another, a value is not finite or no real number, or a
            coordinate has one value only.

    Example:
        >>> from ngem_tutorial.metrics import resolution
        >>> resolution([[3.0], [5.0], [4.5], [3.0]]).tolist()
        [0.5]
    """
    given = np.asarray(y)
    if given.dtype.kind not in "biuf":
        raise ValueError(f"y must be an array of real numbers, got type {given.dtype}")
    values = given.astype(np.float64)
    if values.ndim != 2:
        raise ValueError(f"y must have shape (N, D), got {values.shape}")
    check_values("y", values, "finite", np.isfinite)
    kind = np.result_type(given.dtype, np.float32)
    gaps = []
    for i, column in enumerate(values.T):
        gap = np.diff(np.sort(column))
        rounding = 4 * np.finfo(kind).eps * np.max(np.abs(column), initial=0.0)
        if not (gap > rounding).any():
            raise ValueError(f"y must have two different values at least, got none in column {i}")
        gaps.append(gap[gap > rounding].min())
    return np.array(gaps)


def regression_scores(mixture: GaussianMixture, y: ArrayLike) -> dict[str, Float[Array, ""]]:
    """Judge predictions: one number for all examples.

    The paper's RMSE of a mixture is the minimum over the components of the RMSE between their
    means and the targets. Read with the minimum inside the mean it is `rmse_min`, which knows for
    each example the component that will be nearest; with one component for all examples it is
    `rmse_component`. What a prediction without that knowledge gives is `rmse_mean`.

    Args:
        mixture: batch shape `(...)`.
        y: targets, shape `(..., D)`.

    Returns:
        `nll` and `entropy` (of the weights) in nats; `rmse_min`, `rmse_component` and `rmse_mean`
        in the units of the targets.

    Raises:
        ValueError: if the shape of `y` does not fit the mixture.
    """
    errors = _component_errors(mixture, y)
    return {
        "nll": jnp.mean(nll(mixture, y)),
        "rmse_min": jnp.sqrt(jnp.mean(jnp.min(errors, axis=-1))),
        "rmse_component": jnp.sqrt(jnp.min(jnp.mean(errors, axis=tuple(range(errors.ndim - 1))))),
        "rmse_mean": jnp.sqrt(jnp.mean(squared_error(mixture, y))),
        "entropy": jnp.mean(mixture.weight_entropy),
    }


def _component_errors(mixture: GaussianMixture, y: ArrayLike) -> Float[Array, "*batch K"]:
    """Squared errors of the components' means, shape `(..., K)`."""
    mixture, y = mixture.pair(y)
    return jnp.sum((mixture.means - y[..., None, :]) ** 2, axis=-1)


# --------------------------------------------------------------- a learned mixture and the truth


def collapse(
    truth: GaussianMixture, mixture: GaussianMixture, share: float
) -> dict[str, Shaped[Array, "*batch"]]:
    """Compare a learned mixture with the generator, without asking which component is which.

    Args:
        truth: batch shape that broadcasts with that of `mixture`.
        mixture: batch shape `(...)`.
        share: a mixture has collapsed if its smallest weight is below this share of the truth's
            smallest weight.

    Returns:
        `largest_weight`, `collapsed` (booleans) and `squared_error` (of the mean, averaged over
        its coordinates, in squared units of the target), shape `(...)` each.
    """
    return {
        "largest_weight": mixture.weights.max(axis=-1),
        "collapsed": mixture.weights.min(axis=-1) < share * truth.weights.min(axis=-1),
        "squared_error": ((mixture.mean - truth.mean) ** 2).mean(axis=-1),
    }


def mode_errors(
    truth: GaussianMixture, mixture: GaussianMixture
) -> dict[str, Float[Array, " runs"]]:
    """Compare learned mixtures with the truth mode by mode: numbers for each run.

    Each component counts for the mode of the truth whose mean is nearest to its own in the truth's
    scales, so that the numbers of components need not be equal.

    Args:
        truth: batch shape `(1, inputs)`.
        mixture: batch shape `(runs, inputs)`.

    Returns:
        Shape `(runs,)` each: `weight_error`, the largest error of a mode's weight, averaged over
        the inputs; `weight_bias`, the largest error of the modes' weights after averaging over
        the inputs; `mean_error`, the root mean square error of the predicted mean in the truth's
        own standard deviations; `variance_ratio`, the geometric mean of the predicted over the
        true variance; `entropy` of the weights, nats, averaged over the inputs.
    """
    # Shapes (runs, inputs, components, modes).
    shift = mixture.means[..., :, None, :] - truth.means[..., None, :, :]
    nearest = jnp.argmin(jnp.sum((shift / truth.scales[..., None, :, :]) ** 2, -1), axis=-1)
    owns = jax.nn.one_hot(nearest, truth.num_components)
    error = jnp.sum(mixture.weights[..., None] * owns, axis=-2) - truth.weights
    mean_error = (mixture.mean - truth.mean) ** 2 / truth.variance
    ratio = jnp.log(mixture.variance / truth.variance)
    return {
        "weight_error": jnp.abs(error).max(-1).mean(-1),
        "weight_bias": jnp.abs(error.mean(-2)).max(-1),
        "mean_error": jnp.sqrt(mean_error.mean((-2, -1))),
        "variance_ratio": jnp.exp(ratio.mean((-2, -1))),
        "entropy": mixture.weight_entropy.mean(-1),
    }


def _upper_tail(confidence: float) -> float:
    """Return the level of the upper end of a central interval."""
    if not 0.0 < confidence < 1.0:
        raise ValueError(f"confidence must be between 0 and 1, got {confidence!r}")
    return 0.5 + 0.5 * confidence
