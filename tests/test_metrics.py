"""Intervals against scipy and printed tables."""

import numpy as np
import pytest
from scipy import stats

from ngem_tutorial.metrics import mean_and_interval, wilson_interval


@pytest.mark.parametrize("confidence", [0.5, 0.95, 0.999])
@pytest.mark.parametrize("trials", [1, 5, 300, 1000])
def test_wilson_agrees_with_scipy(trials, confidence):
    successes = np.unique(np.linspace(0, trials, 12).astype(int))
    low, high = wilson_interval(successes, trials, confidence)
    for k, a, b in zip(successes, low, high, strict=True):
        expected = stats.binomtest(int(k), trials).proportion_ci(confidence, method="wilson")
        assert (a, b) == pytest.approx((expected.low, expected.high), rel=1e-12, abs=1e-15)


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
