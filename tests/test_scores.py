"""Scores of predictions, and learned mixtures against the truth."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from ngem_tutorial import metrics
from ngem_tutorial.mixtures import GaussianMixture


def test_a_mixture_against_the_truth_by_hand() -> None:
    truth = GaussianMixture(
        jnp.log(jnp.array([0.8, 0.2])), jnp.array([[1.0], [-1.0]]), jnp.ones((2, 1))
    )
    weights = jnp.array([[0.981, 0.019], [0.021, 0.979], [0.3, 0.7]])
    means = jnp.array([[[1.0], [0.0]]] * 3)
    values = metrics.collapse(
        truth, GaussianMixture(jnp.log(weights), means, jnp.ones((3, 2, 1))), 0.1
    )
    np.testing.assert_allclose(values["largest_weight"], [0.981, 0.979, 0.7], rtol=1e-5)
    assert values["collapsed"].tolist() == [True, False, False]  # a tenth of 0.2 is the limit
    np.testing.assert_allclose(
        values["squared_error"], (np.array([0.981, 0.021, 0.3]) - 0.6) ** 2, rtol=1e-4
    )


def test_a_mixture_is_judged_by_the_modes_that_its_components_are_nearest_to() -> None:
    truth = GaussianMixture(
        np.log([[[0.9, 0.1]]]), np.array([[[[-2.0], [2.0]]]]), np.full((1, 1, 2, 1), 0.5)
    )
    # Three components, two of which share the first mode.
    weights = np.array([0.3, 0.45, 0.25])
    means, scales = np.array([-2.5, -1.5, 2.0]), np.array([0.5, 0.5, 1.0])
    learned = GaussianMixture(
        np.log(weights)[None, None], means[None, None, :, None], scales[None, None, :, None]
    )
    found = metrics.mode_errors(truth, learned)
    assert found["weight_error"] == pytest.approx([0.15], abs=1e-6)
    assert found["weight_bias"] == pytest.approx([0.15], abs=1e-6)
    mean, true_mean = weights @ means, 0.9 * -2.0 + 0.1 * 2.0
    variance = weights @ (scales**2 + (means - mean) ** 2)
    true_variance = 0.25 + 0.9 * 0.1 * 16.0
    expected = abs(mean - true_mean) / np.sqrt(true_variance)
    assert found["mean_error"] == pytest.approx([expected], rel=1e-5)
    assert found["variance_ratio"] == pytest.approx([variance / true_variance], rel=1e-5)
    assert found["entropy"] == pytest.approx([stats.entropy(weights)], rel=1e-5)


def test_errors_of_opposite_sign_are_no_bias() -> None:
    truth = GaussianMixture(
        np.zeros((1, 2, 2)),
        np.array([[-1.0], [1.0]]) * np.ones((1, 2, 1, 1)),
        np.ones((1, 2, 2, 1)),
    )
    logits = np.log(np.array([[[0.6, 0.4], [0.4, 0.6]]]))
    found = metrics.mode_errors(truth, dataclasses.replace(truth, logits=jnp.asarray(logits)))
    assert found["weight_error"] == pytest.approx([0.1], abs=1e-6)
    assert found["weight_bias"] == pytest.approx([0.0], abs=1e-6)


@pytest.mark.parametrize(
    ("n", "rank"),  # from tables of the sign test; below six values nothing has 95 %
    [(1, 1), (5, 1), (6, 1), (9, 2), (12, 3), (15, 4), (20, 6), (25, 8)],
)
def test_the_interval_of_the_median_has_the_ranks_of_the_sign_test(n: int, rank: int) -> None:
    values = np.random.default_rng(n).permutation(n) + 1.0
    assert metrics.median_interval(values) == ((n + 1) / 2, rank, n + 1 - rank)


def test_the_interval_covers_the_median_as_often_as_it_says() -> None:
    draws = np.random.default_rng(0).exponential(size=(2000, 15))
    found = [metrics.median_interval(row) for row in draws]
    covered = np.mean([low < math.log(2) < high for _, low, high in found])
    exact = 1 - 2 * sum(math.comb(15, i) for i in range(4)) / 2**15
    assert covered == pytest.approx(exact, abs=4 * math.sqrt(exact * (1 - exact) / 2000))


def test_bad_values_are_named() -> None:
    for values in ([], [1.0, math.nan]):
        with pytest.raises(ValueError, match="values must be finite numbers, at least one"):
            metrics.median_interval(values)
    with pytest.raises(ValueError, match=r"confidence must be between 0 and 1, got 95"):
        metrics.median_interval([1.0], 95)


def random_mixture(components):
    keys = jax.random.split(jax.random.key(4), 4)
    shape = (7, components, 2)
    mixture = GaussianMixture(
        jax.random.normal(keys[0], shape[:2]),
        jax.random.normal(keys[1], shape),
        jnp.exp(jax.random.normal(keys[2], shape)),
    )
    return mixture, jax.random.normal(keys[3], (7, 2))


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("components", [1, 3])
def test_scores_against_loops_in_numpy(components):
    mixture, y = random_mixture(components)
    logits, means, scales, targets = map(
        np.asarray, (mixture.logits, mixture.means, mixture.scales, y)
    )
    weights = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    nats, nearest, overall, entropy = [], [], [], []
    each = np.zeros((7, components))
    for n in range(7):
        density = 0.0
        for k in range(components):
            density += weights[n, k] * stats.norm(means[n, k], scales[n, k]).pdf(targets[n]).prod()
            each[n, k] = ((means[n, k] - targets[n]) ** 2).sum()
        nats.append(-np.log(density))
        nearest.append(each[n].min())
        overall.append(((weights[n] @ means[n] - targets[n]) ** 2).sum())
        entropy.append(stats.entropy(weights[n]))
    expected = {
        "nll": np.mean(nats),
        "rmse_min": np.mean(nearest) ** 0.5,
        "rmse_component": min(each[:, k].mean() ** 0.5 for k in range(components)),
        "rmse_mean": np.mean(overall) ** 0.5,
        "entropy": np.mean(entropy),
    }
    got = metrics.regression_scores(mixture, y)
    assert got.keys() == expected.keys()
    for name, value in expected.items():
        assert float(got[name]) == pytest.approx(value, rel=1e-10, abs=1e-12), name
    assert got["rmse_min"] <= got["rmse_component"]


@pytest.mark.parametrize("score", ["squared_error", "least_squared_error", "regression_scores"])
def test_scores_take_one_target_for_each_mixture(score: str) -> None:
    mixture = GaussianMixture(jnp.zeros((4, 3)), jnp.zeros((4, 3, 1)), jnp.ones((4, 3, 1)))
    call = getattr(metrics, score)
    with pytest.raises(ValueError, match=r"y must have shape .* give it an axis"):
        call(mixture, np.zeros(4))
    with pytest.raises(ValueError, match="y must have one target for each mixture"):
        call(mixture, np.zeros((4, 1, 1)))
