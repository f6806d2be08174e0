"""Synthetic data against their closed form."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, stats

from ngem_tutorial import datasets


@pytest.mark.parametrize(
    ("weights", "size", "expected"),
    [
        ((0.5, 0.5), 200, (100, 100)),
        ((0.9, 0.1), 200, (180, 20)),
        ((0.9, 0.1), 30, (27, 3)),
        ((0.5, 0.5), 3, (2, 1)),
        ((0.55, 0.3, 0.15), 10, (6, 3, 1)),  # quotas 5.5, 3, 1.5: a tie goes to the first
        ((0.41, 0.34, 0.25), 7, (3, 2, 2)),  # quotas 2.87, 2.38, 1.75
        ((0.5, 0.5), 1, (1, 0)),
    ],
)
def test_counts_follow_the_largest_remainder(weights, size, expected):
    means = [(100.0 * k, 0.0) for k in range(len(weights))]
    sample = datasets.two_gaussians(jax.random.key(0), size, weights=weights, means=means)
    nearest = np.rint(np.asarray(sample.y[:, 0]) / 100.0).astype(int)
    assert tuple(np.bincount(nearest, minlength=len(weights))) == expected


def test_two_gaussians_has_the_moments_of_its_truth():
    means, scale = np.array([[-2.0, 1.0], [2.0, 3.0]]), np.array([0.5, 0.25])
    y, truth = datasets.two_gaussians(
        jax.random.key(1), 40_000, weights=(0.7, 0.3), means=means.tolist(), scale=scale.tolist()
    )
    assert y.shape == (40_000, 2)
    component = (np.asarray(y) @ np.array([4.0, 2.0]) > 4.0).astype(int)  # nearer to which mean?
    for k in range(2):
        points = np.asarray(y)[component == k]
        assert len(points) == (28_000, 12_000)[k]
        for d in range(2):
            test = stats.kstest(points[:, d], stats.norm(means[k, d], scale[k]).cdf)
            assert test.pvalue > 1e-3
        assert abs(np.corrcoef(points.T)[0, 1]) < 4 / np.sqrt(len(points))
    np.testing.assert_allclose(np.exp(truth.logits), [0.7, 0.3], rtol=1e-6)
    np.testing.assert_allclose(truth.means, means)
    np.testing.assert_allclose(truth.scales, [[0.5, 0.5], [0.25, 0.25]])


def test_two_gaussians_defaults_are_well_separated_and_shuffled():
    y, truth = datasets.two_gaussians(jax.random.key(2))
    assert y.shape == (200, 2)
    distance = np.linalg.norm(truth.means[0] - truth.means[1])
    assert distance > 10 * np.max(truth.scales)
    component = np.asarray(y[:, 0] > 0)
    runs = 1 + np.sum(component[1:] != component[:-1])  # mean 101, deviation 7 if shuffled
    assert 101 - 5 * 7 < runs < 101 + 5 * 7


@pytest.mark.parametrize(
    ("noise_is", "deviation"), [("variance", np.sqrt(0.1)), ("deviation", 0.1)]
)
def test_two_sinusoids_follows_its_formula(noise_is, deviation):
    x, y, _ = datasets.two_sinusoids(
        jax.random.key(3), 20_000, weights=(0.8, 0.2), noise=0.1, noise_is=noise_is
    )
    assert x.shape == y.shape == (20_000, 1)
    x, y = np.asarray(x, np.float64)[:, 0], np.asarray(y, np.float64)[:, 0]
    assert stats.kstest(x, stats.uniform(0, 4 * np.pi).cdf).pvalue > 1e-3
    apart = np.abs(np.sin(x)) > 0.7  # there the waves are at least 4.4 apart
    first = np.sign(y[apart]) == np.sign(np.sin(x[apart]))
    assert abs(first.mean() - 0.8) < 4 * np.sqrt(0.16 / apart.sum())
    residual = y[apart] - np.pi * np.where(first, 1.0, -1.0) * np.sin(x[apart])
    assert stats.kstest(residual, stats.norm(0, deviation).cdf).pvalue > 1e-3


def test_two_sinusoids_fixes_the_number_of_points_on_each_wave():
    x, y, _ = datasets.two_sinusoids(jax.random.key(4), 501, weights=(0.9, 0.1), noise=1e-12)
    on_first = np.isclose(y, np.pi * np.sin(x), atol=1e-4)
    on_second = np.isclose(y, -np.pi * np.sin(x), atol=1e-4)
    ambiguous = on_first & on_second
    assert np.all(on_first | on_second)
    assert 451 - ambiguous.sum() <= np.sum(on_first & ~ambiguous) <= 451
    assert 50 - ambiguous.sum() <= np.sum(on_second & ~ambiguous) <= 50


@pytest.mark.parametrize("shape", [(1,), (5, 1), (2, 3, 1)])
def test_conditional_truth_is_batched_and_is_the_density(shape):
    _, _, truth = datasets.two_sinusoids(jax.random.key(5), 4, weights=(0.25, 0.75))
    x = jnp.linspace(0.1, 12.0, int(np.prod(shape))).reshape(shape)
    mixture = truth(x)
    assert mixture.logits.shape == (*shape[:-1], 2)
    assert mixture.means.shape == mixture.scales.shape == (*shape[:-1], 2, 1)
    density = sum(
        weight * stats.norm(np.pi * np.sin(np.asarray(x) + phase), np.sqrt(0.1)).pdf(0.3)
        for weight, phase in ((0.25, 0.0), (0.75, np.pi))
    )
    got = jnp.exp(mixture.log_prob(jnp.full(shape, 0.3)))
    np.testing.assert_allclose(got, density[..., 0], rtol=2e-4, atol=1e-7)


def position(speed, distance, pace, turn_rate):
    """The car four seconds on, by solving the equations of motion in two parts."""
    before = min(distance / speed, 4.0)
    state = [0.0, 0.0, 0.0]
    for seconds, pace_now, rate_now in ((before, 1.0, 0.0), (4.0 - before, pace, turn_rate)):
        speed_now = pace_now * speed

        def motion(_, state, speed_now=speed_now, rate_now=rate_now):
            return [speed_now * np.cos(state[2]), speed_now * np.sin(state[2]), rate_now]

        if seconds > 0.0:
            path = integrate.solve_ivp(motion, (0.0, seconds), state, rtol=1e-9, atol=1e-9)
            state = path.y[:, -1]
    return state[:2]


@pytest.mark.parametrize("pair", [(6.0, 0.0), (10.0, 5.0), (14.0, 10.0), (8.0, 50.0)])
def test_junction_is_the_motion_of_a_car(pair):
    truth = datasets.junction(jax.random.key(10), 1).truth
    mixture = truth(jnp.array(pair))
    rate = np.pi / 8.0
    expected = [position(*pair, *future) for future in ((1.0, 0.0), (0.5, rate), (0.5, -rate))]
    np.testing.assert_allclose(mixture.means, expected, rtol=1e-5, atol=1e-5)
    before = min(pair[1], 4.0 * pair[0])
    rest = 4.0 * pair[0] - before
    path = before + rest * np.array([1.0, 0.5, 0.5])
    np.testing.assert_allclose(mixture.scales, path[:, None] * [0.08, 0.02], rtol=1e-5)


def test_junction_draws_the_inputs_that_it_names():
    x = np.asarray(datasets.junction(jax.random.key(11), 20_000).x)
    assert x.shape == (20_000, 2)
    for column, (low, width) in enumerate(((6.0, 8.0), (0.0, 10.0))):
        assert stats.kstest(x[:, column], stats.uniform(low, width).cdf).pvalue > 1e-3
    np.testing.assert_allclose(x.mean(axis=0), [10.0, 5.0], atol=0.1)
    np.testing.assert_allclose(x.std(axis=0), [2.3, 2.9], atol=0.05)


def test_junction_turns_as_often_as_its_weights_say():
    weights, slope = np.array([0.7, 0.2, 0.1]), -0.2
    x, y, truth = datasets.junction(
        jax.random.key(12), 40_000, weights=tuple(weights), slope=slope, noise=(0.001, 0.001)
    )
    distances = np.linalg.norm(y[:, None] - truth(x).means, axis=-1)
    future = distances.argmin(axis=1)
    assert distances.min(axis=1).max() < 0.5  # no doubt which: the means are 6 m apart or more
    speed = np.asarray(x[:, 0], np.float64)
    odds = weights[1:] / weights[0] * np.exp(slope * (speed[:, None] - 10.0))
    expected = np.column_stack([np.ones_like(speed), odds]) / (1.0 + odds.sum(1, keepdims=True))
    np.testing.assert_allclose(truth(x).weights, expected, rtol=1e-4)
    for low in range(6, 14):  # one bin for each m/s
        here = (low <= speed) & (speed < low + 1)
        counts, mean = np.bincount(future[here], minlength=3), expected[here].sum(axis=0)
        deviation = np.sqrt((expected[here] * (1.0 - expected[here])).sum(axis=0))
        assert np.all(np.abs(counts - mean) < 4.5 * deviation), low


def test_junction_by_default_has_unequal_futures():
    x, _, truth = datasets.junction(jax.random.key(13), 20_000)
    np.testing.assert_allclose(truth(jnp.array([10.0, 3.0])).weights, [0.8, 0.15, 0.05], rtol=1e-5)
    np.testing.assert_allclose(truth(x).weights.mean(axis=0), [0.78, 0.165, 0.055], atol=0.01)


def test_junction_residuals_are_standard_normal():
    x, y, truth = datasets.junction(jax.random.key(14), 20_000)
    mixture = truth(x)
    future = np.asarray(mixture.responsibilities(y)).argmax(axis=1)
    z = np.asarray(mixture.standardize(y))
    for k in range(3):
        own = z[future == k, k]
        for d in range(2):
            assert stats.kstest(own[:, d], stats.norm.cdf).pvalue > 1e-3
        assert abs(np.corrcoef(own.T)[0, 1]) < 4 / np.sqrt(len(own))


def test_junction_log_likelihood_is_the_entropy_that_its_futures_have():
    x, y, truth = datasets.junction(jax.random.key(15), 40_000)
    mixture = truth(x)
    # The futures hardly overlap: the entropy is that of the choice and of each Gaussian.
    weights, scales = np.asarray(mixture.weights), np.asarray(mixture.scales)
    gaussian = np.log(2.0 * np.pi * np.e) + np.log(scales).sum(axis=-1)
    entropy = (weights * (gaussian - np.log(weights))).sum(axis=-1)
    surprise = -np.asarray(mixture.log_prob(y)) - entropy
    assert abs(surprise.mean()) < 4 * surprise.std() / np.sqrt(len(surprise))
    assert surprise.std() < 1.5


@pytest.mark.parametrize("shape", [(2,), (5, 2), (3, 4, 2)])
def test_junction_truth_is_batched_and_differentiable(shape):
    truth = datasets.junction(jax.random.key(16), 1).truth
    x = jnp.linspace(3.0, 9.0, int(np.prod(shape))).reshape(shape)
    mixture = truth(x)
    assert mixture.logits.shape == (*shape[:-1], 3)
    assert mixture.means.shape == mixture.scales.shape == (*shape[:-1], 3, 2)
    assert jnp.isfinite(jax.grad(lambda x: jax.jit(truth)(x).means.sum())(x)).all()
    with pytest.raises(ValueError, match=r"x must have shape \(..., 2\).* got \(7, 1\)"):
        truth(jnp.ones((7, 1)))


@pytest.mark.parametrize(
    "generator", [datasets.two_gaussians, datasets.two_sinusoids, datasets.junction]
)
def test_a_key_determines_the_sample(generator):
    first, again = generator(jax.random.key(7)), generator(jax.random.key(7))
    other = generator(jax.random.key(8))
    np.testing.assert_array_equal(first.y, again.y)
    assert np.mean(np.asarray(first.y) == np.asarray(other.y)) < 0.01


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"weights": (0.5, 0.6)}, r"weights must be .* add up to 1, got \(0.5, 0.6\)"),
        ({"weights": (1.0, 0.0)}, "weights must be positive"),
        ({"weights": (0.5, float("nan"))}, "weights must be positive"),
        ({"size": 0}, "size must be a whole number, at least 1, got 0"),
        ({"size": 2.5}, "size must be a whole number"),
        ({"means": ((0.0, 0.0),)}, r"means must be .* K = 2"),
        ({"means": ((0.0, float("inf")), (0.0, 0.0))}, "means must be finite"),
        ({"scale": 0.0}, "scale must be .* got 0.0"),
        ({"scale": (1.0, 1.0, 1.0)}, "scale must be"),
    ],
)
def test_two_gaussians_rejects(arguments, message):
    with pytest.raises(ValueError, match=message):
        datasets.two_gaussians(jax.random.key(0), **arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"weights": (0.2, 0.3, 0.5)}, "weights must be two numbers"),
        ({"noise": -0.1}, "noise must be a positive number, got -0.1"),
        ({"noise_is": "precision"}, "noise_is must be 'variance' or 'deviation', got 'precision'"),
        ({"size": -1}, "size must be"),
    ],
)
def test_two_sinusoids_rejects(arguments, message):
    with pytest.raises(ValueError, match=message):
        datasets.two_sinusoids(jax.random.key(0), **arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"weights": (0.5, 0.5)}, r"weights must be three numbers.* got \(0.5, 0.5\)"),
        ({"weights": (0.5, 0.3, 0.3)}, "weights must be .* add up to 1"),
        ({"slope": float("nan")}, "slope must be a finite number, got nan"),
        ({"slope": (0.1, 0.2)}, "slope must be a finite number"),
        ({"noise": (0.1, 0.0)}, r"noise must be two positive numbers.* got \(0.1, 0.0\)"),
        ({"noise": (0.1,)}, "noise must be two positive"),
        ({"size": 0}, "size must be a whole number, at least 1, got 0"),
    ],
)
def test_junction_rejects(arguments, message):
    with pytest.raises(ValueError, match=message):
        datasets.junction(jax.random.key(0), **arguments)
