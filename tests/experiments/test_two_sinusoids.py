"""Two-Sinusoids: what a run is reduced to, against NumPy, and the tables of the units."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from ngem_tutorial.experiments import two_sinusoids as experiment
from ngem_tutorial.experiments.two_sinusoids import Config, Reading
from ngem_tutorial.mixtures import GaussianMixture

READING = Reading(num_seeds=2, methods=("NLL", "SGEM"), learning_rates=(1e-3,))
TINY = Config(
    size=100,
    weights=(0.8, 0.2),
    hidden=(8,),
    epochs=5,
    batch_size=20,
    seeds=(1, 2),
    readings=(READING,),
    record_at=(0, 1, 10, 25),
    density_seeds=1,
)


def in_numpy(mixture: GaussianMixture, y: Any) -> float:
    """Mean negative log-likelihood of a mixture of two in one dimension."""
    logits, means, scales, targets = (
        np.asarray(a, dtype=np.float64)
        for a in (mixture.logits, mixture.means[..., 0], mixture.scales[..., 0], y)
    )
    weights = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    return float(-np.log((weights * stats.norm.pdf(targets, means, scales)).sum(axis=-1)).mean())


@pytest.fixture(scope="module")
def tables() -> list[dict[str, pd.DataFrame]]:
    return [dict(unit.run()) for unit in experiment.units(TINY)]


# ---------------------------------------------------------------------------------------- data


@pytest.mark.parametrize(("noise_is", "deviation"), [("variance", 0.1**0.5), ("deviation", 0.1)])
def test_the_truth_is_that_of_the_reading(noise_is: Any, deviation: float) -> None:
    reading = Reading(noise_is=noise_is)
    sample = experiment.data(TINY, reading)
    x, y = np.asarray(sample.x, dtype=float), np.asarray(sample.y, dtype=float)
    waves = np.pi * np.sin(x + np.array([0, np.pi]))
    density = stats.norm.pdf(y, waves, deviation) @ [0.8, 0.2]
    assert experiment.truth_nll(TINY, reading) == pytest.approx(-np.log(density).mean(), abs=1e-4)


def test_the_test_examples_are_others() -> None:
    train, test = (experiment.data(TINY, READING, test) for test in (False, True))
    assert not np.isin(train.x, test.x).any()
    assert train.x.shape == test.x.shape == (100, 1)


def test_inputs_cover_both_periods() -> None:
    x = np.asarray(experiment.inputs(9))
    np.testing.assert_allclose(x[:, 0], np.arange(9) * np.pi / 2, rtol=1e-6)


# ------------------------------------------------------------------------------------- outcomes


@pytest.mark.parametrize("reading", [READING, Reading(trunks=2)])
def test_the_outcome_of_a_run_against_numpy(reading: Reading) -> None:
    result = experiment.train(TINY, reading, "damped nGEM", 1e-2, seed=2)
    model, values = result.model(), experiment.outcome(TINY, reading, result)
    assert (model.logits_trunk is None) == (reading.trunks == 1)
    sample = experiment.data(TINY, reading)
    mixture = model(sample.x)
    assert values["nll"] == pytest.approx(in_numpy(mixture, sample.y), rel=1e-4)
    truth = in_numpy(sample.truth(sample.x), sample.y)
    assert values["excess_nll"] == pytest.approx(values["nll"] - truth, abs=1e-4)
    weights = np.asarray(mixture.weights, dtype=float)
    assert values["entropy"] == pytest.approx(stats.entropy(weights, axis=-1).mean(), abs=1e-4)
    test = experiment.data(TINY, reading, test=True)
    assert values["test_nll"] == pytest.approx(in_numpy(model(test.x), test.y), rel=1e-4)
    kept = experiment.density(result)
    expected = 0.6 * np.pi * np.sin(kept["x"])  # the mean of the two waves
    mean = kept["weight_1"] * kept["mean_1"] + (1 - kept["weight_1"]) * kept["mean_2"]
    assert values["mean_error"] == pytest.approx(np.sqrt(((mean - expected) ** 2).mean()), abs=3e-3)
    larger = np.maximum(kept["weight_1"], 1 - kept["weight_1"])
    assert values["largest_weight"] == pytest.approx(larger.mean(), abs=1e-3)


def test_a_run_that_is_not_finite_has_no_outcome() -> None:
    reading = dataclasses.replace(READING, methods=("NLL",), learning_rates=(1e30,))
    (unit,) = experiment.units(dataclasses.replace(TINY, readings=(reading,)))
    tables = unit.run()
    final = tables["final"]
    assert (final["failed_at"] == 2).all()  # after one update they are just finite
    measures = final.drop(columns=["reading", "method", "learning_rate", "seed", "failed_at"])
    assert measures.isna().all(axis=None)
    assert tables["densities"]["mean_1"].isna().all()
    curves = tables["curves"]
    assert curves["nll"].notna().tolist() == (curves["update"] == 0).tolist()


# ---------------------------------------------------------------------------------------- units


def test_the_tables_of_the_units(tables: list[dict[str, pd.DataFrame]]) -> None:
    settings = ["reading", "method", "learning_rate", "seed"]
    for unit, method in zip(tables, ("NLL", "SGEM"), strict=True):
        assert list(unit) == ["curves", "final", "densities"]
        for name, rows in {"curves": 2 * 4, "final": 2, "densities": 64}.items():
            assert list(unit[name])[:4] == settings
            assert len(unit[name]) == rows
            assert set(unit[name]["method"]) == {method}
        last = unit["curves"].groupby("seed").last()
        np.testing.assert_allclose(last["nll"], unit["final"]["nll"], rtol=1e-6)
        assert last["entropy"].tolist() == unit["final"]["entropy"].tolist()
        assert set(unit["densities"]["seed"]) == {1}


def test_sgem_has_the_curve_of_nll(tables: list[dict[str, pd.DataFrame]]) -> None:
    plain, sgem = (unit["curves"] for unit in tables)
    np.testing.assert_allclose(sgem["nll"], plain["nll"], rtol=1e-4)
    assert plain["nll"].iloc[3] < plain["nll"].iloc[0] - 1e-3


def test_the_comparison_has_the_conditions_of_the_paper(
    tables: list[dict[str, pd.DataFrame]],
) -> None:
    final = tables[0]["final"]
    rates = experiment.PRESETS["paper"].readings[0].learning_rates
    every = [final.assign(learning_rate=rate) for rate in rates]
    other = final.assign(reading="two trunks", entropy=9.0)
    rows = experiment.measured({"final": pd.concat([*every, other], ignore_index=True)})
    assert set(rows["condition"]) == {"β = 0.001", "β = 0.0001", "β = 1e-05"}
    assert set(rows["table"] + ", " + rows["quantity"]) == {"Table 2, entropy"}
    assert rows["value"].tolist() == final["entropy"].tolist() * 3
    two = experiment.measured({"final": other}, "two trunks")
    assert two["value"].tolist() == [9.0, 9.0]


@pytest.mark.parametrize("num_seeds", [0, 3])
def test_a_number_of_seeds_that_there_are_not_is_refused(num_seeds: int) -> None:
    config = dataclasses.replace(TINY, readings=(Reading("odd", num_seeds=num_seeds),))
    with pytest.raises(ValueError, match=f"num_seeds must be from 1 .*2, got {num_seeds} .*'odd'"):
        experiment.units(config)


@pytest.mark.parametrize("preset", experiment.PRESETS)
def test_presets_record_the_end(preset: str) -> None:
    config = experiment.PRESETS[preset]
    assert config.record_at[-1] == config.epochs * (config.size // config.batch_size)
    names = [unit.name for unit in experiment.units(config)]
    assert len(set(names)) == len(names)
