"""The benchmarks of `fit_density`: what they compute from times, and what they hand to gmmvi."""

from __future__ import annotations

import importlib
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from ngem_tutorial.vi import targets

FOLDER = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture(scope="module")
def import_benchmark() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(FOLDER))
        yield importlib.import_module


@pytest.fixture(scope="module")
def against(import_benchmark: Any) -> Any:
    return import_benchmark("vi_against_gmmvi")


@pytest.fixture(scope="module")
def growth(import_benchmark: Any) -> Any:
    return import_benchmark("vi_growth")


# ---------------------------------------------------------------------------------- against gmmvi


def test_what_both_codes_get_is_the_target(against: Any, tmp_path: Path) -> None:
    """The densities of the mixture in the file, by SciPy, are those of the target."""
    task = against.Task("GMM20", (1.0,), (10,))
    path = tmp_path / "problem.npz"
    against.write_problem(against.Config(points=5), task, 3, path, "somewhere")
    with np.load(path) as problem:
        terms = [
            log_weight + stats.multivariate_normal(mean, covariance).logpdf(problem["points"])
            for log_weight, mean, covariance in zip(
                problem["target_log_weights"], problem["target_means"],
                problem["target_covariances"], strict=True,
            )
        ]  # fmt: skip
        expected = np.logaddexp.reduce(terms, axis=0)
        points = problem["points"]
        np.testing.assert_allclose(problem["start_covariances"], [1000 * np.eye(20)], rtol=1e-5)
        assert json.loads(str(problem["settings"]))["samples"] == 100
    assert (expected > -100).sum() >= 5  # near the modes
    assert expected.min() < -300  # and far from them
    against.check_density("GMM20", 3, points, expected)
    with pytest.raises(ValueError, match="GMM20, seed 3: the log densities differ at 10 of 10"):
        against.check_density("GMM20", 3, points, 1.001 * expected)


def test_a_run_of_this_package_is_kept_at_each_checkpoint(against: Any, tmp_path: Path) -> None:
    task = against.Task("banana", (1.0,), (10_000,), 25, samples=30, every=10)
    config = against.Config(checkpoint=10, points=3)
    against.write_problem(config, task, 2, tmp_path / "problem.npz", "somewhere")
    with np.load(tmp_path / "problem.npz") as problem:
        against.run_ours(problem, str(tmp_path / "outcome.npz"))
    outcome = against.read_outcome(tmp_path / "outcome.npz")
    assert outcome.rows[:, 0].tolist() == [10, 20, 25]
    assert outcome.rows[:, 2].tolist() == [2, 3, 3]
    assert [m.means.shape for m in outcome.mixtures] == [(2, 2), (3, 2), (3, 2)]
    assert (np.diff(outcome.rows[:, 1:5], axis=0) >= 0).all()
    assert outcome.about["failure"] == ""
    table = against.curve(config, task, against.OURS, 2, outcome)
    assert table["seed"].tolist() == [2, 2, 2]
    assert table["loss"].iloc[-1] < table["loss"].iloc[0] - 0.01
    assert math.isnan(table["modes"][0])


def test_the_judge_agrees_with_a_closed_form(against: Any) -> None:
    """KL of N(1, 4 I) from N(0, I) in two dimensions, and an unused component changes nothing."""
    target = targets.gaussian_grid(side=1, scale=1.0)
    expected = 0.5 * (2 * 4.0 + 2 * 1.0 - 2 - 2 * math.log(4.0))
    q = against.Mixture(np.zeros(1), np.ones((1, 2)), 2.0 * np.eye(2)[None])
    loss, error, modes = against.judge(q, target, 0, 20_000)
    assert abs(loss - expected) < 4 * error < 0.15
    assert modes == 1
    factors = np.tile(2.0 * np.eye(2), (2, 1, 1))
    more = against.Mixture(np.array([0.0, -1e3]), np.ones((2, 2)), factors)
    assert against.judge(more, target, 0, 20_000)[0] == pytest.approx(loss, abs=4 * error)


def curves_of(code: str, seed: int, scale: float, losses: list[float]) -> pd.DataFrame:
    number = np.arange(1.0, len(losses) + 1)
    return pd.DataFrame(
        {
            "target": "made", "setting": "default", "code": code, "seed": seed,
            "seconds": scale * number,
            "cpu_seconds": 2.0 * scale * number, "compile_seconds": 6.0,
            "evaluations": 100.0 * number, "loss": losses,
            "modes": [10.0 if loss < 0.1 else 3.0 for loss in losses],
        }
    )  # fmt: skip


def test_ratios_of_made_runs(against: Any) -> None:
    """gmmvi takes 8 times as long for an iteration; in seed 3 it does not get there."""
    losses = [5.0, 3.0, 1.0, 0.05]
    curves = pd.concat(
        [
            *(curves_of(against.OURS, seed, 0.5, losses) for seed in (1, 2, 3)),
            *(curves_of(against.THEIRS, seed, 4.0, losses) for seed in (1, 2)),
            curves_of(against.THEIRS, 3, 4.0, losses[:3]),
        ]
    )
    config = against.Config(tasks=(against.Task("made", (2.0, 0.1, 0.01), (250,)),))
    table = against.ratios(config, curves).set_index(["measure", "level", "cost"])
    row = table.loc[("loss", 2.0, "seconds")]
    # Half-way between the second and the third checkpoint.
    assert row[["ngem_tutorial", "gmmvi", "ratio", "low", "high"]].tolist() == [1.25, 10, 8, 8, 8]
    assert row[["both", "only_ngem_tutorial", "only_gmmvi"]].tolist() == [3, 0, 0]
    assert table.loc[("loss", 2.0, "seconds with compiling"), "ratio"] == pytest.approx(16 / 7.25)
    assert table.loc[("loss", 2.0, "evaluations"), "ratio"] == 1.0
    assert table.loc[("loss", 2.0, "CPU seconds"), "gmmvi"] == 20.0
    assert ("evaluations", 250.0, "evaluations") not in table.index
    assert table.loc[("evaluations", 250.0, "seconds"), "gmmvi"] == 10.0
    row = table.loc[("modes", 10.0, "seconds")]  # not interpolated
    assert row[["both", "only_ngem_tutorial", "ngem_tutorial", "gmmvi"]].tolist() == [2, 1, 2, 16]
    row = table.loc[("loss", 0.01, "seconds")]
    assert row[["both", "only_ngem_tutorial", "only_gmmvi"]].tolist() == [0, 0, 0]
    assert np.isnan(row["ratio"])
    assert np.isnan(row["gmmvi"])


def test_tracing_is_apart_from_the_iterations(against: Any, import_benchmark: Any) -> None:
    other_side = import_benchmark("vi_gmmvi")
    seconds, traces = [9.0, 1.0, 2.0, 3.0, 5.0, 2.0, 2.0], [1, 1, 1, 1, 2, 2, 2]
    own, tracing = other_side.without_tracing(seconds, traces)
    assert own.tolist() == [2.0, 1.0, 2.0, 3.0, 2.0, 2.0, 2.0]
    assert tracing.tolist() == [7.0, 0.0, 0.0, 0.0, 3.0, 0.0, 0.0]
    assert own.sum() + tracing.sum() == sum(seconds)


def test_another_version_of_gmmvi_is_refused(against: Any) -> None:
    with pytest.raises(ValueError, match="must be gmmvi at 95c6b65, unchanged"):
        against.commit_of(str(FOLDER))


# ----------------------------------------------------------------------------------------- growth


def test_the_exponent_of_made_times_is_found(growth: Any) -> None:
    """`t = 50 + d^2.5`: the constant dominates below, where nothing is fitted."""
    sweep = growth.Sweep("SAMTRON", "dim", (2, 4, 100, 200, 400), 2.4)
    fine = growth.Sweep("SAMTRON", "components", (1, 2, 64, 128, 256), 2.0)
    noise = np.random.default_rng(0)
    rows = [
        {"method": s.method, "axis": s.axis, "repetition": repetition, s.axis: value,
         "ms": (50 + value**power) * noise.uniform(0.99, 1.01)}
        for s, power in ((sweep, 2.5), (fine, 2.0))
        for value in s.values
        for repetition in range(9)
    ]  # fmt: skip
    table = growth.exponents(growth.Config((sweep, fine)), pd.DataFrame(rows)).set_index("axis")
    assert table.loc["dim", "exponent"] == pytest.approx(2.5, abs=0.02)
    assert table.loc["dim", ["from", "to", "above"]].tolist() == [100, 400, True]
    assert table.loc["components", "exponent"] == pytest.approx(2.0, abs=0.03)
    assert not table.loc["components", "above"]
    assert table["low"].le(table["exponent"]).all()
    assert table["high"].ge(table["exponent"]).all()


def test_upper_half_of_a_range(growth: Any) -> None:
    assert growth.upper_half([1, 2, 4, 8, 16]) == [4, 8, 16]
    assert growth.upper_half([100, 2]) == [2, 100]
    assert growth.upper_half([1, 9, 1000]) == [9, 1000]


def test_a_timed_block_draws_the_same_number_in_each_iteration(growth: Any) -> None:
    config = growth.Config((growth.Sweep("SAMTRON", "dim", (2,), 3.0, components=3, samples=7),))
    case = growth.prepare(config, 0, 2)
    longer, each = growth.timed(case.fit, 40)
    evaluations = longer.history["evaluations"]
    assert evaluations.tolist() == [21 * (i + 1) for i in range(44)]
    assert set(longer.history["num_components"]) == {3}
    assert 0 < each < 1
    assert 1 <= case.iterations <= 1000
