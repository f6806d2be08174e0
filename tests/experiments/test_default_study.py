"""The study of the default: its criteria against closed forms, its data, and the quick preset."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import integrate, stats

pytest.importorskip("pandas")

import pandas as pd

from ngem_tutorial import METHODS, nll
from ngem_tutorial.experiments import default_study as study
from ngem_tutorial.experiments._shared import Falling
from ngem_tutorial.experiments.default_study import (
    CANDIDATES,
    PRESETS,
    TASKS,
    Candidate,
    Config,
    Free,
    Network,
    Regression,
)
from ngem_tutorial.mixtures import GaussianMixture
from ngem_tutorial.power import Power, PowerSchedule
from ngem_tutorial.reproduction import registry

COLUMNS = [
    "task", "held_back", "method", "learning_rate", "runs", "failed", "success", "success_low",
    "success_high", "nll", "minus_nll", "minus_nll_low", "minus_nll_high", "speed", "weight_error",
]  # fmt: skip


# What is compared


def test_the_tasks_are_those_that_were_promised() -> None:
    names = [task.name for task in TASKS]
    assert len(set(names)) == len(names)
    free = [task for task in TASKS if isinstance(task, Free)]
    assert {(task.modes, task.components // task.modes) for task in free} == {
        (modes, factor) for modes in (2, 3, 5, 10, 20) for factor in (1, 2)
    }
    assert sum("uneven" in task.name for task in free) == len(free) / 2
    waves = [t.weight for t in TASKS if isinstance(t, Network) and t.data == "Two-Sinusoids"]
    assert waves == 2 * [0.5, 0.7, 0.9, 0.97]
    networks = [task for task in TASKS if isinstance(task, Network)]
    fixed, stopping = ([t for t in networks if t.early_stopping == s] for s in (False, True))
    assert [dataclasses.replace(t, early_stopping=True, tuning=False) for t in fixed] == [
        dataclasses.replace(t, tuning=False) for t in stopping
    ]
    tables = {(t.dataset, t.early_stopping) for t in TASKS if isinstance(t, Regression)}
    assert tables == {(d, s) for d in ("kin8nm", "energy", "housing") for s in (True, False)}
    held_back = [task for task in TASKS if task.held_back]
    assert len(held_back) == 4  # two, both ways
    data = study._network_data(Config(test_size=10), held_back[0])  # type: ignore[arg-type]
    assert 2 < data.y.shape[1] <= 10


def test_tuning_has_half_of_the_tasks_and_none_that_is_held_back() -> None:
    tuning = [t for n, c in PRESETS.items() if n.startswith("tuning") for t in c.tasks]
    others = [t for t in TASKS if not (isinstance(t, Network) and t.early_stopping)]
    assert len(tuning) == (len(others) - 2) / 2
    final = [t for n, c in PRESETS.items() if n.startswith(("final", "held")) for t in c.tasks]
    assert len(final) == len(set(final)) == len(TASKS) - len(tuning)
    assert not set(final) & set(tuning)
    assert not any(task.held_back for task in (*tuning, *PRESETS["quick"].tasks))
    assert set(PRESETS["paper"].tasks) == set(TASKS)
    for kind in (Free, Network, Regression):
        assert any(isinstance(task, kind) for task in tuning)
    assert {t.modes for t in tuning if isinstance(t, Free)} == {2, 3, 5, 10, 20}


def test_the_candidates_are_what_they_are_called() -> None:
    assert len(set(CANDIDATES.values())) == len(CANDIDATES)
    assert set(study.OPPONENTS) < CANDIDATES.keys()
    assert CANDIDATES["NLL"].method("NLL") == METHODS["NLL"]
    whitened = CANDIDATES["whitened"].method("whitened")
    assert (whitened.objective, whitened.unit) == (Power(0.5), "pooled")
    assert whitened.schedule is not None
    assert whitened.schedule(500) == PowerSchedule(500)
    assert CANDIDATES["whitened"].method("whitened") == whitened
    for name, candidate in CANDIDATES.items():
        if "k-means" in name:
            assert candidate.initial_means == "kmeans++"
        if "balanced" in name:
            assert candidate.strength > 0
        if "faded" in name:
            assert candidate.fade > 0
        tuned = name in study.OPPONENTS or name in study.SECOND
        assert (len(candidate.rates) > 1) == tuned  # the others have one rate


def test_the_present_default_is_among_them() -> None:
    """Damped nGEM with its unit and its schedule, update by update."""
    ours, theirs = CANDIDATES["damped nGEM"].method("x"), METHODS["damped nGEM"]
    assert ours.unit == theirs.unit
    assert ours.schedule is not None
    assert theirs.schedule is not None
    a, b = ours.schedule(1000), theirs.schedule(1000)
    counts = np.arange(0, 1000, 7)
    np.testing.assert_allclose(a(counts).relaxation, b(counts), atol=1e-7)
    assert np.all(a(counts).exponent == 1.0)
    mixture = GaussianMixture([0.3, -0.2], [[0.0], [1.0]], [[0.5], [2.0]])
    gradients = [jax.grad(f)(mixture, [0.7]) for f in (ours.objective, theirs.objective)]
    for one, two in zip(*map(jax.tree.leaves, gradients), strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-6)


# The data that are held back


def test_the_inverse_sine_has_the_density_that_it_is_judged_by() -> None:
    x, y = study._inverse_sine(jax.random.key(0), 20_000)
    assert float(jnp.abs(y).max()) <= 1.0
    point = np.array([[0.1]])

    def density(target: float) -> float:
        return float(np.exp(-study._inverse_sine_nll(point, np.array([[target]])))[0])

    total = integrate.quad(density, -1, 1, points=[-0.6, 0.0, 0.6], limit=200)[0]
    assert total == pytest.approx(1.0, abs=1e-4)
    near = np.abs(np.asarray(x)[:, 0] - 0.1) < 0.03
    below = integrate.quad(density, -1, -0.3, limit=200)[0]
    share = float((np.asarray(y)[near, 0] < -0.3).mean())
    assert abs(share - below) < 5 * np.sqrt(below * (1 - below) / near.sum())


def test_the_six_dimensional_targets_are_of_their_truth() -> None:
    sample = study._six_dimensions(jax.random.key(0), 4000)
    truth = sample.truth(sample.x)
    assert sample.y.shape == (4000, 6)
    rho = np.asarray(truth.responsibilities(sample.y))
    np.testing.assert_allclose(rho.mean(axis=0), np.asarray(truth.weights).mean(axis=0), atol=0.03)
    z = np.asarray(truth.standardize(sample.y))[rho > 0.99]
    assert stats.kstest(z.ravel(), "norm").pvalue > 1e-4
    assert np.asarray(truth.weights).mean(axis=0).min() > 0.05


# The criteria


def test_success_is_within_a_twentieth_of_a_nat() -> None:
    excess = [-0.01, 0.049, 0.051, np.nan, np.inf]
    assert study.succeeded(excess).tolist() == [True, True, False, False, False]


def test_the_updates_to_a_level() -> None:
    updates, values = [1, 10, 100, 1000], [3.0, 2.0, 1.0, 1.5]
    assert study.updates_to(updates, values, 2.0) == 10
    assert study.updates_to(updates, values, 1.2) == 100
    assert study.updates_to(updates, values, 0.9) == np.inf
    assert study.updates_to(updates, [np.inf, 1.0, 1.0, 1.0], 5.0) == 10


def made_up() -> dict[str, pd.DataFrame]:
    """Two rates of NLL, the larger one better, and a candidate that is ahead by 0.1 and sooner."""
    noise = np.array([0.0, 0.02, -0.02, 0.01])
    parts = {("NLL", 0.1): 1.3 + noise, ("NLL", 0.3): 1.2 + noise, ("new", 0.1): 1.1 + noise[::-1]}
    rows = [
        {
            "task": "t", "held_back": False, "method": method, "learning_rate": rate, "seed": seed,
            "nll": value, "excess": value - 1.1, "weight_error": 0.5, "failed_at": -1,
        }
        for (method, rate), values in parts.items()
        for seed, value in enumerate(values)
    ]  # fmt: skip
    curves = [
        {"task": "t", "method": m, "learning_rate": r, "update": u, "median_nll": v}
        for (m, r), values in {
            ("NLL", 0.1): (2.0, 1.5, 1.3),
            ("NLL", 0.3): (2.0, 1.4, 1.2),
            ("new", 0.1): (2.0, 1.2, 1.1),
        }.items()
        for u, v in zip((10, 100, 1000), values, strict=True)
    ]  # fmt: skip
    return {"runs": pd.DataFrame(rows), "curves": pd.DataFrame(curves)}


def test_candidates_are_judged_against_the_best_rate_of_nll() -> None:
    table = study.judge(made_up()).set_index("method")
    assert list(table.reset_index()[COLUMNS].columns) == COLUMNS
    assert table.loc["NLL", "learning_rate"] == 0.3
    assert table.loc["NLL", "minus_nll"] == 0.0
    assert table.loc["NLL", "speed"] == 1.0
    new = table.loc["new"]
    noise = np.array([0.0, 0.02, -0.02, 0.01])
    difference = -0.1 + noise[::-1] - noise
    assert new["minus_nll"] == pytest.approx(difference.mean())
    half = stats.t.ppf(0.975, 3) * difference.std(ddof=1) / 2
    assert new["minus_nll_high"] == pytest.approx(difference.mean() + half)
    assert new["speed"] == 0.1
    assert (new["runs"], new["failed"], new["success"]) == (4, 0, 1.0)
    assert table.loc["NLL", "success"] == 0.0
    assert new["success_low"] == pytest.approx(4 / (4 + stats.norm.ppf(0.975) ** 2))  # Wilson's


def test_a_run_that_was_lost_counts() -> None:
    tables = made_up()
    runs = tables["runs"]
    lost = (runs["method"] == "new") & (runs["seed"] == 0)
    runs.loc[lost, ["nll", "excess"]], runs.loc[lost, "failed_at"] = np.nan, 7
    table = study.judge(tables).set_index("method")
    assert table.loc["new", "failed"] == 1
    assert table.loc["new", "success"] == 0.75
    assert table.loc["new", "minus_nll"] == np.inf
    # All of the opponent's better rate lost: the other one is taken.
    runs.loc[runs["learning_rate"] == 0.3, ["nll", "excess"]] = np.nan
    assert study.judge(tables).set_index("method").loc["NLL", "learning_rate"] == 0.1


def test_where_nothing_is_known_nothing_is_said() -> None:
    tables = made_up()
    tables["runs"]["excess"] = np.nan
    assert study.judge(tables)["success"].isna().all()
    alone = {name: table[table["method"] == "new"] for name, table in tables.items()}
    assert study.judge(alone)[["minus_nll", "speed"]].isna().all().all()


# The runs


def test_the_quick_preset_runs_and_is_sane(tmp_path: Path) -> None:
    tables = registry.reproduce("default_study", "quick", tmp_path)
    runs, config = tables["runs"], PRESETS["quick"]
    each = runs.groupby(["task", "method"]).size().unstack()
    assert set(each.columns) == set(config.methods)
    for name, count in each.max().items():
        assert count == len(config.seeds) * len(CANDIDATES[str(name)].rates)
    assert (runs["failed_at"] == -1).all()
    assert np.isfinite(runs[["nll", "excess", "train_nll", "weight_error"]]).all().all()
    assert (runs["excess"] > -0.1).all()
    assert runs["weight_error"].between(0, 1).all()
    assert (runs["entropy"] <= np.log(2) + 1e-6).all()
    table = study.judge(tables)
    assert list(table.columns) == COLUMNS
    assert len(table) == len(config.tasks) * len(config.methods)
    assert table["success"].between(0, 1).all()
    nll_rows = table[table["method"] == "NLL"]
    assert (nll_rows["minus_nll"] == 0).all()
    assert (nll_rows["speed"] == 1).all()
    curves = tables["curves"].groupby(["task", "method", "learning_rate"])["median_nll"]
    assert (curves.last() < curves.first()).all()


def test_all_seeds_run_in_one_program_whose_runs_do_not_depend_on_each_other() -> None:
    task = Free(2, 4, 0.5, updates=100)
    config = Config(seeds=(1, 2), test_size=100)
    name = "balanced, damped logits, faded, k-means++"
    both = study._run(config, task, name)["runs"]
    alone = study._run(dataclasses.replace(config, seeds=(2,)), task, name)["runs"]
    assert both["seed"].tolist() == [1, 2]
    assert both["nll"].iloc[0] != both["nll"].iloc[1]
    np.testing.assert_allclose(both["nll"].iloc[1], alone["nll"].iloc[0], rtol=1e-3)


def test_initial_means_are_examples_and_all_else_is_as_it_was() -> None:
    data = study._free_data(Config(test_size=100), Free(3, 3, 0.4))
    make = study._MakeFree(3)
    models = [
        study._maker(Candidate(initial_means=how), make, 3, data)(study.nnx.Rngs(0))
        for how in ("own", "random", "kmeans++")
    ]
    for model in models[1:]:
        np.testing.assert_array_equal(model.logits[...], models[0].logits[...])
        for mean in np.asarray(model.means[...]):
            assert np.isclose(np.asarray(data.y), mean).all(axis=1).any()


@pytest.mark.needs("uci")
@pytest.mark.parametrize("stopping", [False, True])
def test_a_regression_is_judged_on_its_test_part(stopping: bool) -> None:
    task = Regression("housing", stopping, epochs=2, patience=2)
    tables = study._run(Config(tasks=(task,), seeds=(1, 2)), task, "whitened")
    runs = tables["runs"]
    assert runs["seed"].tolist() == [1, 2]
    assert runs["excess"].isna().all()
    assert np.isfinite(runs["nll"]).all()
    data = study._regression_data(task, 1, "[0, 1]")
    assert len(data.y) == (410 if stopping else 455)
    if stopping:
        assert data.validation is not None
        assert len(data.validation[1]) == 45
    assert len(data.test_y) == 51


def test_what_nll_scores_on_the_truth_is_the_best() -> None:
    data = study._free_data(Config(test_size=500), Free(5, 5, 0.5))
    truth: Any = data.truth
    assert data.best == pytest.approx(float(nll(truth, data.test_y).mean()))
    worse = dataclasses.replace(truth, scales=2 * truth.scales)
    assert float(nll(worse, data.test_y).mean()) > data.best + 0.1


def test_the_rate_rises_and_falls_as_optax_does_it() -> None:
    """A rate that is known at tracing alone, as in the loop, against optax's own schedule."""
    expected = optax.warmup_cosine_decay_schedule(0.0, 0.5, 10, 100)

    def used(schedule: Any) -> optax.GradientTransformation:
        def update(updates: Any, count: Any, params: Any = None) -> Any:
            return jax.tree.map(lambda u: u * schedule(count), updates), count + 1

        return optax.GradientTransformation(lambda params: jnp.zeros((), int), update)

    @jax.jit
    def rates(rate: jax.Array) -> jax.Array:
        made = Falling(used, 100, warm_up=0.1)(rate)

        def step(state: Any, _: Any) -> Any:
            value, state = made.update(jnp.ones(()), state)
            return state, value

        return jax.lax.scan(step, made.init(jnp.ones(())), length=101)[1]

    wanted = [float(expected(i)) for i in range(101)]
    np.testing.assert_allclose(rates(jnp.asarray(0.5)), wanted, rtol=1e-5, atol=1e-7)


def test_the_summary_counts_tasks() -> None:
    """One task behind, one ahead; weights may be as far off as those of NLL."""
    rows = [
        ("one", "NLL", 0, 1.0, 0.0, 0.0, 0.0, 1.0, 0.05),
        ("one", "new", 0, 0.5, -0.2, -0.3, -0.1, 0.3, 0.04),
        ("two", "NLL", 0, np.nan, 0.0, 0.0, 0.0, 1.0, np.nan),
        ("two", "new", 2, np.nan, 0.3, 0.2, 0.4, np.inf, np.nan),
        ("three", "NLL", 0, 1.0, 0.0, 0.0, 0.0, 1.0, 0.001),
        ("three", "new", 0, 1.0, 0.005, 0.001, 0.009, 0.2, 0.02),
    ]
    names = [
        "task", "method", "failed", "success", "minus_nll", "minus_nll_low", "minus_nll_high",
        "speed", "weight_error",
    ]  # fmt: skip
    found = study.summarise(pd.DataFrame(rows, columns=names)).loc["new"]
    assert found["tasks"] == 3
    assert found["failed"] == 2
    assert found["not_behind"] == pytest.approx(2 / 3)
    assert found["ahead"] == pytest.approx(1 / 3)
    assert found["success"] == pytest.approx(0.75)
    assert found["faster"] == pytest.approx(2 / 3)
    assert found["weights"] == pytest.approx(0.5)
    assert found["worst"] == pytest.approx(0.3)
    assert found["speed"] == pytest.approx(0.3)
