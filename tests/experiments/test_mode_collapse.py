"""Mode collapse: weights and likelihoods of learned mixtures against closed forms."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from scipy import stats

from ngem_tutorial.experiments import mode_collapse as experiment
from ngem_tutorial.experiments import two_sinusoids
from ngem_tutorial.experiments.mode_collapse import Config
from ngem_tutorial.experiments.two_sinusoids import Reading

TINY = Config(
    seeds=tuple(range(1, 9)),
    weights=(0.9,),
    learning_rates=(1e-2,),
    methods=("nGEM, paper's code", "damped nGEM"),
    epochs=10,
    sinusoids=two_sinusoids.Config(
        size=100, hidden=(8,), epochs=2, batch_size=50, record_at=(0, 4)
    ),
    sinusoid_runs=((0.7, Reading(num_seeds=2, methods=("NLL",), learning_rates=(1e-3,))),),
)


def best_nll(y: np.ndarray) -> float:
    """Likelihood of separated Gaussians, each fitted to the points on its side of the origin."""
    total = 0.0
    for side in (y[:, 0] < 0, y[:, 0] >= 0):
        points = y[side]
        densities = stats.norm.logpdf(points, points.mean(axis=0), points.std(axis=0)).sum(axis=1)
        total -= (np.log(side.mean()) + densities).sum()
    return total / len(y)


def test_weights_of_the_papers_code_follow_the_square_root_law_and_ours_the_data() -> None:
    law = np.sqrt(0.9) / (np.sqrt(0.9) + np.sqrt(0.1))
    assert law == pytest.approx(0.75)
    for method, weight in (("nGEM, paper's code", law), ("damped nGEM", 0.9), ("NLL", 0.9)):
        runs = experiment.outcomes(TINY, 0.9, experiment.train(TINY, 0.9, method, 1e-2))
        assert np.median(runs["largest_weight"]) == pytest.approx(weight, abs=0.02), method
        assert (runs["collapsed_inputs"] == 0).all()
        entropy = stats.entropy([weight, 1 - weight])
        assert np.median(runs["entropy"]) == pytest.approx(entropy, abs=0.04)


def test_the_outcome_of_free_mixtures_against_numpy() -> None:
    result = experiment.train(TINY, 0.9, "damped nGEM", 1e-2)
    runs = experiment.outcomes(TINY, 0.9, result)
    y = np.asarray(experiment.data(TINY, 0.9).y, dtype=float)
    nll = result.metrics["nll"][:, -1]
    np.testing.assert_allclose(runs["excess_nll"], nll - best_nll(y), atol=1e-3)
    mixture = result.probes["mixture"]
    weights = np.exp(mixture.logits[:, 0]) / np.exp(mixture.logits[:, 0]).sum(-1, keepdims=True)
    mean = (weights[..., None] * mixture.means[:, 0]).sum(axis=1)
    error = np.sqrt(((mean - np.array([-1.6, -1.6])) ** 2).mean(axis=-1))
    np.testing.assert_allclose(runs["mean_error"], error, atol=1e-3)
    np.testing.assert_allclose(runs["largest_weight"], weights.max(axis=-1), atol=1e-3)
    assert runs["seed"].tolist() == list(TINY.seeds)


def test_runs_that_are_not_finite_have_no_outcome() -> None:
    runs = experiment.outcomes(TINY, 0.9, experiment.train(TINY, 0.9, "NLL", 1e4))
    assert (runs["failed_at"] >= 0).all()
    assert runs.drop(columns=["seed", "failed_at"]).isna().all(axis=None)


def test_both_tasks_give_the_same_columns() -> None:
    gaussians, sinusoids = (unit.run()["runs"] for unit in experiment.units(TINY))
    assert list(gaussians) == list(sinusoids)
    assert (gaussians.dtypes == sinusoids.dtypes).all()
    assert gaussians[["task", "reading", "weight"]].drop_duplicates().to_numpy().tolist() == [
        ["Two-Gaussians", experiment.FREE, 0.9]
    ]
    assert len(gaussians) == 2 * 8
    assert sinusoids[["task", "reading", "weight"]].drop_duplicates().to_numpy().tolist() == [
        ["Two-Sinusoids", "one trunk", 0.7]
    ]
    assert sinusoids["seed"].tolist() == [1, 2]


def test_the_larger_wave_has_the_share_of_the_unit() -> None:
    config = dataclasses.replace(TINY, weights=())
    (unit,) = experiment.units(config)
    shares = unit.run.args[1].run.args[0].weights
    assert shares == pytest.approx((0.7, 0.3))


@pytest.mark.parametrize("preset", experiment.PRESETS)
def test_units_have_unique_names(preset: str) -> None:
    config = experiment.PRESETS[preset]
    names = [unit.name for unit in experiment.units(config)]
    assert len(set(names)) == len(names)
    updates = config.sinusoids.epochs * (config.sinusoids.size // config.sinusoids.batch_size)
    assert config.sinusoids.record_at[-1] == updates
