"""The regression experiment: its settings, its scores against NumPy, its tables."""

import dataclasses
import re
from collections import Counter

import numpy as np
import pandas as pd
import pytest
from flax import nnx

from ngem_tutorial import datasets
from ngem_tutorial.experiments import uci_regression as experiment
from ngem_tutorial.experiments.uci_regression import Config, Run, Task
from ngem_tutorial.reproduction.comparison import compare

TASK = Task("housing", 1e-2, 3, 8)
TINY = Config(tasks=(TASK,), hidden=(8,), points=3, seeds=(1, 2), protocol_scalings=())


@pytest.fixture
def small(monkeypatch):
    """Small data, different for each split, in the place of the real ones; returns the calls."""
    calls = []

    def uci_split(name, split):
        calls.append((name, split))
        generator = np.random.default_rng(split)
        x = generator.uniform(-3.0, 3.0, (50, 2))
        y = 10.0 + 4.0 * np.sin(x[:, :1]) + generator.normal(0.0, 0.5, (50, 1))
        parts = (x[:40], y[:40], x[40:], y[40:])
        return datasets.Regression(*(part.astype(np.float32) for part in parts))

    monkeypatch.setattr(experiment, "uci_split", uci_split)
    return calls


# ------------------------------------------------------------------------------------- settings


def test_the_settings_are_those_of_table_10():
    for config in (Config(), experiment.PRESETS["paper"]):
        assert [task[:4] for task in config.tasks] == [
            ("kin8nm", 1e-3, 250, 128),
            ("energy", 1e-4, 125, 16),
            ("housing", 1e-4, 125, 32),
        ]
        assert config.num_components == 3
        assert config.hidden == (128, 128)
        assert config.optimizers == ("Adam", "K-FAC", "Muon", "SOAP")
        assert config.seeds == tuple(range(1, datasets.NUM_SPLITS + 1))
    network = experiment.model_maker(Config(), 8, None)(rngs=nnx.Rngs(0))
    assert (network.activation, network.num_components) == ("gelu", 3)
    assert experiment.model_maker(Config(), 8, 1)(rngs=nnx.Rngs(0)).num_components == 1


def test_every_row_of_table_5_is_run_and_each_setting_once():
    runs = experiment.runs(experiment.PRESETS["paper"])
    keys = [(r.task.dataset, r.scaling, r.optimizer, r.method) for r in runs]
    assert len(set(keys)) == len(keys)
    ours = {key for key in keys if key[1] == "[0, 1]"}
    for dataset in datasets.UCI:
        for optimizer in ("Adam", "K-FAC", "Muon", "SOAP"):
            for method in (
                "NLL",
                "nGEM, paper's code",
                "nGEM, as derived",
                "undamped nGEM",
                "whitened NLL",
            ):
                assert (dataset, "[0, 1]", optimizer, method) in ours
        for method in ("SGEM", "damped nGEM", "β-NLL", "MSE"):
            assert (dataset, "[0, 1]", "Adam", method) in ours
    assert len(ours) == 3 * (4 * 5 + 4)
    search = [run for run in runs if run.scaling != "[0, 1]"]
    assert Counter(run.scaling for run in search) == {"standardised": 12, "[-1, 1]": 12, "raw": 12}
    assert {run.optimizer for run in search} == {"Adam"}
    for run in runs:
        assert run.seeds[:5] == (1, 2, 3, 4, 5)  # those of the paper
        assert len(run.seeds) == 20 or run.optimizer != "Adam" or run in search


@pytest.mark.parametrize("preset", experiment.PRESETS)
def test_units_hold_every_run_once(preset):
    config = experiment.PRESETS[preset]
    units = experiment.units(config)
    names = [unit.name for unit in units]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._+=-]*", name) for name in names)
    assert all(1.0 < unit.seconds < 130.0 for unit in units)
    wanted = [(run[:4], seed) for run in experiment.runs(config) for seed in run.seeds]
    held = []
    for unit in units:
        settings, run = unit.run.args
        assert settings is config
        held += [(run[:4], seed) for seed in run.seeds]
    assert held == wanted


# --------------------------------------------------------------------------------------- scores


# ----------------------------------------------------------------------------------------- runs


def test_a_run_is_on_its_own_split_and_its_numbers_are_right(small):
    run = Run(TASK, "[0, 1]", "Adam", "NLL", (3, 1))
    tables = experiment.train(TINY, run)
    assert small == [("housing", 2), ("housing", 0)]
    final, curves = tables["final"], tables["curves"]
    assert final["seed"].tolist() == [3, 1]
    assert set(final["failed_at"]) == {-1}
    for name in ("dataset", "scaling", "optimizer", "method"):
        for table in (final, curves):
            assert set(table[name]) == {{"dataset": "housing"}.get(name, getattr(run, name, None))}

    targets = experiment.uci_split("housing", 2).y_train
    assert final["target_scale"][0] == pytest.approx(np.ptp(targets), rel=1e-5)
    for seed, path in curves.groupby("seed"):
        assert path["update"].tolist() == [0, 5, 10, 15]
        last = final[final["seed"] == seed].iloc[0]
        for name in ("nll", "rmse_min", "rmse_mean", "entropy"):  # two ways to the same numbers
            assert path[name].iloc[-1] == pytest.approx(last[name], rel=1e-4)
        assert path["nll"].iloc[-1] < path["nll"].iloc[0]

    alone = experiment.train(TINY, run._replace(seeds=(1,)))["final"]
    pd.testing.assert_frame_equal(alone, final.iloc[[1]].reset_index(drop=True))


def test_sgem_is_nll_up_to_rounding(small):
    tables = {
        method: experiment.train(TINY, Run(TASK, "[0, 1]", "Adam", method, (1,)))["final"]
        for method in ("NLL", "SGEM")
    }
    for name in ("nll", "rmse_min", "rmse_mean", "entropy", "train_nll"):
        np.testing.assert_allclose(tables["NLL"][name], tables["SGEM"][name], rtol=1e-3)


def test_a_single_gaussian_has_one_rmse_and_a_point_no_likelihood(small):
    tables = experiment.train(TINY, Run(TASK, "standardised", "Adam", "MSE", (1,)))
    row = tables["final"].iloc[0]
    assert row["rmse_min"] == row["rmse_mean"] == row["rmse_component"] > 0.0
    assert row[["nll", "train_nll"]].isna().all()
    assert row["entropy"] == 0.0
    assert tables["curves"].empty  # they are kept for our scaling only
    ours = experiment.train(TINY, Run(TASK, "[0, 1]", "Adam", "MSE", (1,)))
    assert ours["curves"]["nll"].isna().all()
    assert ours["curves"].dtypes.equals(tables["curves"].dtypes)
    trained = ours["curves"]["rmse_mean"]
    assert trained.iloc[-1] < trained.iloc[0]


def test_a_failed_run_has_no_scores(small):
    wild = TASK._replace(learning_rate=1e30)
    tables = experiment.train(TINY, Run(wild, "[0, 1]", "Adam", "NLL", (1,)))
    row = tables["final"].iloc[0]
    assert row["failed_at"] >= 1
    assert row[["nll", "rmse_min", "rmse_mean", "train_nll", "entropy"]].isna().all()
    assert np.isfinite(tables["curves"]["nll"].iloc[0])
    assert np.isnan(tables["curves"]["nll"].iloc[-1])


def test_units_of_all_kinds_have_the_same_columns(small):
    config = dataclasses.replace(
        TINY, methods=("NLL",), adam_methods=("β-NLL",), optimizers=("Adam", "Muon"),
        protocol_scalings=("raw",), protocol_methods=("NLL",), protocol_seeds=(1,),
        curve_seeds=(1,),
    )  # fmt: skip
    parts = [unit.run() for unit in experiment.units(config)]
    assert len(parts) == 4
    for name in ("final", "curves"):
        assert all(part[name].dtypes.equals(parts[0][name].dtypes) for part in parts)
    final = pd.concat([part["final"] for part in parts], ignore_index=True)
    assert len(final) == 2 + 2 + 2 + 1
    measured = experiment.measured({"final": final})
    assert len(measured) == 2 * 6  # "raw" is not ours
    assert set(measured["table"]) == {"Table 5"}
    assert set(measured["condition"]) == {"housing"}
    assert set(measured["method"]) == {"Adam + NLL", "Adam + β-NLL", "Muon + NLL"}
    row = measured[measured["quantity"].eq("rmse × 10") & measured["method"].eq("Muon + NLL")]
    expected = final[final["optimizer"].eq("Muon")]
    np.testing.assert_allclose(row["value"], 10.0 * expected["rmse_min"])
    assert row["seed"].tolist() == [1, 2]
    compared = compare(measured)
    assert len(compared) == 2 * 3
    assert set(compared["runs"]) == {2}


def test_an_unknown_optimiser_is_refused_before_anything_is_read(small):
    with pytest.raises(ValueError, match=r"optimizer must be one of Adam, .*, SOAP, got 'AdamW'"):
        experiment.train(TINY, Run(TASK, "[0, 1]", "AdamW", "NLL", (1,)))
    assert small == []
