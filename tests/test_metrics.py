"""Intervals against scipy and printed tables."""

import warnings

import numpy as np
import pytest
from scipy import stats

from ngem_tutorial.metrics import (
    Moments,
    mean_and_interval,
    moments,
    welch_interval,
    wilson_interval,
)


@pytest.mark.parametrize("confidence", [0.5, 0.95, 0.999])
@pytest.mark.parametrize("trials", [1, 5, 300, 1000])
def test_wilson_solves_the_equation_of_its_ends(trials, confidence):
    """At an end p, the share is z standard deviations from p, taken at p itself."""
    successes = np.unique(np.linspace(0, trials, 12).astype(int))
    z = stats.norm.ppf(0.5 + confidence / 2)
    for end in wilson_interval(successes, trials, confidence):
        distance = (successes / trials - end) ** 2
        np.testing.assert_allclose(distance, z**2 * end * (1 - end) / trials, atol=1e-12)


def test_wilson_is_exact_at_the_ends_and_broadcasts():
    low, high = wilson_interval([[0], [10]], [10, 40])
    assert low.shape == high.shape == (2, 2)
    assert low[0, 0] == low[0, 1] == 0.0
    assert high[1, 0] == 1.0
    assert np.all(low < high)


def test_wilson_covers_the_truth_as_often_as_it_says():
    low, high = wilson_interval(np.arange(51), 50, 0.9)
    for truth in (0.1, 0.3, 0.5, 0.8):
        covered = (low <= truth) & (high >= truth)
        probability = stats.binom(50, truth).pmf(np.arange(51))[covered].sum()
        assert probability == pytest.approx(0.9, abs=0.04)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((1, 0), "trials must be whole numbers, at least 1, got 0"),
        ((3, 2), "successes must be whole numbers from 0 to trials, got 3"),
        ((-1, 2), "successes must be"),
        ((0.5, 2), "successes must be"),
        ((float("nan"), 2), "successes must be"),
        ((1, 2, 1.0), "confidence must be between 0 and 1, got 1.0"),
    ],
)
def test_wilson_rejects(arguments, message):
    with pytest.raises(ValueError, match=message):
        wilson_interval(*arguments)


@pytest.mark.parametrize(
    ("n", "confidence", "quantile"),  # from the printed tables of Student's distribution
    [(2, 0.95, 12.706), (5, 0.95, 2.776), (10, 0.95, 2.262), (31, 0.99, 2.750), (4, 0.9, 2.353)],
)
def test_half_width_agrees_with_printed_quantiles(n, confidence, quantile):
    values = np.random.default_rng(n).normal(size=n)
    _, sd, half_width = mean_and_interval(values, confidence=confidence)
    assert half_width * np.sqrt(n) / sd == pytest.approx(quantile, abs=5.1e-4)


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_mean_and_interval_agree_with_scipy(axis):
    values = np.random.default_rng(1).gamma(2.0, size=(6, 3, 4))
    got = mean_and_interval(values, axis=axis, confidence=0.9)
    n = values.shape[axis]
    low, high = stats.t.interval(
        0.9, n - 1, loc=values.mean(axis=axis), scale=stats.sem(values, axis=axis)
    )
    np.testing.assert_allclose(got.mean - got.half_width, low, rtol=1e-10)
    np.testing.assert_allclose(got.mean + got.half_width, high, rtol=1e-10)
    np.testing.assert_allclose(got.sd, stats.tstd(values, axis=axis), rtol=1e-12)


def test_nothing_is_dropped_and_too_little_is_rejected():
    assert np.isnan(mean_and_interval([1.0, 2.0, np.nan]).mean)
    for values in ([1.0], 1.0, np.zeros((1, 5))):
        with pytest.raises(ValueError, match="at least 2 entries along axis 0, got 1"):
            mean_and_interval(values)
    with pytest.raises(ValueError, match="confidence must be between"):
        mean_and_interval([1.0, 2.0], confidence=95)


@pytest.mark.parametrize("confidence", [0.5, 0.9, 0.95])
@pytest.mark.parametrize("sizes", [(2, 2), (5, 20), (1000, 5)])
@pytest.mark.parametrize("spread", [0.0, 0.1, 3.0])
def test_welch_agrees_with_scipy_on_samples_with_these_moments(sizes, spread, confidence):
    """From the moments alone, as a table prints them; one of the samples may be constant."""
    rng = np.random.default_rng(sum(sizes))
    first, second = (rng.normal(size=n) for n in sizes)
    second = 7.0 + spread * (second - second.mean()) / second.std(ddof=1)
    found = welch_interval(moments(first), Moments(7.0, spread, sizes[1]), confidence)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of a constant sample
        expected = stats.ttest_ind(first, second, equal_var=False).confidence_interval(confidence)
    assert found.difference == pytest.approx(first.mean() - 7.0)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), rel=1e-9)


def test_welch_covers_the_difference_as_often_as_it_says():
    rng = np.random.default_rng(0)
    covered = [
        low <= 1.0 <= high
        for a, b in ((rng.normal(1.0, 1.0, 5), rng.normal(0.0, 4.0, 9)) for _ in range(3000))
        for _, low, high in [welch_interval(moments(a), moments(b))]
    ]
    assert np.mean(covered) == pytest.approx(0.95, abs=0.015)


def test_two_samples_without_spread_have_an_interval_without_width():
    assert welch_interval(Moments(1.5, 0.0, 3), Moments(1.0, 0.0, 5)) == (0.5, 0.5, 0.5)


@pytest.mark.parametrize(
    ("sample", "confidence", "message"),
    [
        (Moments(0.0, 1.0, 1), 0.95, "second must have .* n of at least 2, got .*n=1"),
        (Moments(0.0, float("nan"), 5), 0.95, "second must have a finite mean"),
        (Moments(float("inf"), 1.0, 5), 0.95, "second must have a finite mean"),
        (Moments(0.0, -1.0, 5), 0.95, "a standard deviation of at least 0"),
        (Moments(0.0, 1.0, 5), 95, "confidence must be between 0 and 1, got 95"),
    ],
)
def test_welch_refuses_what_has_no_interval(sample, confidence, message):
    with pytest.raises(ValueError, match=message):
        welch_interval(Moments(0.0, 1.0, 5), sample, confidence)


def test_moments_are_those_of_numpy_and_refuse_one_value():
    assert moments([1.0, 2.0, 6.0]) == pytest.approx((3.0, 7.0**0.5, 3))
    for values in ([1.0], [], [1.0, np.nan], np.ones((2, 2))):
        with pytest.raises(ValueError, match="values must be two or more finite numbers in a row"):
            moments(values)
