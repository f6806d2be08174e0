"""The likelihood of intervals, and the resolution of targets."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import numpy as np
import pytest
from scipy import stats

from ngem_tutorial import GaussianMixture, MixtureDensityNetwork, fit, nll
from ngem_tutorial.metrics import _log_probability, interval_nll, resolution

MIXTURE = GaussianMixture(
    [0.3, -0.5, 0.0], [[0.0, 1.0], [2.0, -1.0], [-3.0, 4.0]], [[0.5, 2.0], [1.5, 0.1], [0.01, 9.0]]
)


def by_scipy(y: np.ndarray, width: Any) -> np.ndarray:
    """From differences of the distribution function, in double precision."""
    weights, means, scales = (
        np.asarray(a, np.float64) for a in (MIXTURE.weights, MIXTURE.means, MIXTURE.scales)
    )
    z, half = (y[:, None] - means) / scales, 0.5 * np.broadcast_to(width, 2) / scales
    z = -np.abs(z)  # by symmetry, where differences are exact
    inside = stats.norm.cdf(z + half) - stats.norm.cdf(z - half)
    return -np.log((weights * inside.prod(axis=-1)).sum(axis=-1))


@pytest.mark.parametrize("width", [1.0, 0.05, (0.5, 3.0), 30.0])
def test_it_is_minus_the_log_of_the_probability_of_a_box(width: Any) -> None:
    y = np.random.default_rng(0).normal(0, 3, (200, 2))
    expected = by_scipy(y, width)
    found = interval_nll(MIXTURE, y, width=width)
    near = expected < 20.0  # further out the difference of two numbers near one is not exact
    assert near.sum() > 100
    np.testing.assert_allclose(found[near], expected[near], rtol=2e-5, atol=2e-6)
    assert np.isfinite(found).all()


def test_a_narrow_interval_has_the_density_times_its_width() -> None:
    y = np.random.default_rng(0).normal(0, 2, (50, 2))
    wide = GaussianMixture(MIXTURE.logits, MIXTURE.means, 1.0 + MIXTURE.scales)
    found = interval_nll(wide, y, width=1e-4)
    np.testing.assert_allclose(found, nll(wide, y) - 2 * np.log(1e-4), rtol=1e-5)


def test_the_probabilities_of_all_values_sum_to_one() -> None:
    y = np.arange(-60.0, 61.0)[:, None]
    one = GaussianMixture([0.0, 1.0], [[0.2], [3.0]], [[0.3], [4.0]])
    assert float(np.exp(-interval_nll(one, y, width=1.0)).sum()) == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize("scale", [1e-3, 0.1, 0.4, 10.0, 300.0])
def test_the_gradient_is_that_of_the_value(scale: float) -> None:
    one = GaussianMixture([0.0, 1.0], [[0.2], [1.0]], [[scale], [2 * scale]])
    with jax.enable_x64(True):
        double = jax.tree.map(lambda leaf: leaf.astype(float), one)
        loss = lambda m: interval_nll(m, np.array([1.3]), width=1.0)  # noqa: E731
        gradient = jax.grad(loss)(double)
        for name in ("logits", "means", "scales"):
            leaf = getattr(double, name)
            step = 1e-5 * scale if name != "logits" else 1e-5
            for i in range(2):
                ends = []
                for sign in (1, -1):
                    moved = leaf.at[i].add(sign * step)
                    parts = {n: getattr(double, n) for n in ("logits", "means", "scales")}
                    ends.append(loss(GaussianMixture(**{**parts, name: moved})))
                numeric = (ends[0] - ends[1]) / (2 * step)
                found = np.asarray(getattr(gradient, name)[i]).ravel()[0]
                np.testing.assert_allclose(found, numeric, rtol=1e-4, atol=1e-6 / scale)


def test_all_of_the_mass_in_an_interval_costs_nothing() -> None:
    sharp = GaussianMixture([0.0], [[3.0]], [[1e-4]])
    values = interval_nll(sharp, np.array([[3.0], [4.0]]), width=1.0)
    assert values[0] == pytest.approx(0.0, abs=1e-6)
    assert values[1] > 1e6
    assert np.isfinite(jax.grad(lambda m: interval_nll(m, [3.0], width=1.0))(sharp).scales).all()


@pytest.mark.parametrize(
    ("width", "message"),
    [
        (0.0, "width must be positive and finite, got 0.0"),
        (np.ones(3), r"width must be a number or have shape \(D,\) = \(2,\), got \(3,\)"),
    ],
)
def test_a_width_that_is_none_is_named(width: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        interval_nll(MIXTURE, np.zeros((1, 2)), width=width)


def test_the_resolution_is_the_smallest_gap() -> None:
    y = np.array([[0.0, 1e6], [3.0, 1e6 + 2], [0.5, 1e6 + 1.25], [3.0, 1e6]])
    np.testing.assert_array_equal(resolution(y), [0.5, 0.75])
    assert resolution([[0.1 + 0.2], [0.3], [0.4]]) == pytest.approx(0.1)  # rounding is none
    for bad, message in (
        (np.zeros(3), r"y must have shape \(N, D\)"),
        (np.ones((3, 1)), "y must have two different values at least, got none in column 0"),
        (np.array([[np.nan], [1.0]]), "y must be finite"),
    ):
        with pytest.raises(ValueError, match=message):
            resolution(bad)


def test_far_and_wide_it_is_finite_and_right_in_single_precision() -> None:
    """The value and the gradient on a grid of everything, against double precision."""
    scales, distances = (
        np.geomspace(1e-4, 1e4, 9),
        np.concatenate([[0.0], np.geomspace(1e-3, 1e9, 13)]),
    )
    widths = np.geomspace(1e-8, 1e3, 12)
    grid = np.stack(np.meshgrid(scales, distances, widths), axis=-1).reshape(-1, 3)

    def log_probability(parameters: Any, scale: Any, distance: Any, width: Any) -> Any:
        shift, log_factor = parameters
        sigma = scale * jax.numpy.exp(log_factor)
        return _log_probability((distance + shift) / sigma, 0.5 * width / sigma)

    both = jax.vmap(jax.value_and_grad(log_probability), (None, 0, 0, 0))
    single = jax.device_get(both((0.0, 0.0), *np.float32(grid).T))
    with jax.enable_x64(True):
        double = jax.device_get(both((0.0, 0.0), *np.float32(grid).astype(np.float64).T))
    names = ("value", "shift", "log_factor")
    found = dict(zip(names, (single[0], *single[1]), strict=True))
    expected = dict(zip(names, (double[0], *double[1]), strict=True))
    size = {"value": 1.0, "shift": 1.0 / grid[:, 0], "log_factor": 1.0}
    for name in names:
        assert np.isfinite(found[name]).all()
        assert np.isfinite(expected[name]).all()
        error = np.abs(np.asarray(found[name], float) - expected[name])
        assert (error <= 2e-2 * np.abs(expected[name]) + 1e-4 * size[name]).all()


def test_a_component_that_is_far_does_not_spoil_the_others() -> None:
    def value(mean: Any) -> Any:
        means = jax.numpy.stack([jax.numpy.zeros(()), mean])[:, None]
        mixture = GaussianMixture(np.zeros(2), means, np.full((2, 1), 1e-4))
        return interval_nll(mixture, [0.0], width=1e-8)

    for mean in (0.5, 2.0, 1e6, 1e30):
        found, gradient = jax.value_and_grad(value)(np.float32(mean))
        assert np.isfinite(found)
        assert gradient == 0.0


def test_it_is_a_metric_and_an_objective_of_a_training() -> None:
    rng = np.random.default_rng(0)
    x = rng.uniform(-1, 1, (300, 1))
    y = np.round(2.0 + 2.0 * x + rng.normal(0, 0.5, x.shape))
    objective = partial(interval_nll, width=float(1.0 / y.std()))  # in standard units
    result = fit(
        lambda rngs: MixtureDensityNetwork(1, 2, 1, hidden=(16,), rngs=rngs), objective, x, y,
        epochs=20, batch_size=50, metrics={"interval": partial(interval_nll, width=1.0)},
    )  # fmt: skip
    curve = result.metrics["interval"][0]
    np.testing.assert_allclose(result.loss[0, -1], curve[-1], atol=0.05)
    assert 0.9 < curve[-1] < curve[0] - 0.3
