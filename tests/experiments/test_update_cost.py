"""The cost of an update: sizes of the paper, both loops alike, intervals and ratios by hand."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import numpy as np
import optax
import pytest
from flax import nnx

pd = pytest.importorskip("pandas")
pytest.importorskip("matplotlib")

import matplotlib.pyplot as plt  # noqa: E402

from ngem_tutorial import loop  # noqa: E402
from ngem_tutorial.experiments import update_cost  # noqa: E402
from ngem_tutorial.figures import update_cost as draw  # noqa: E402
from ngem_tutorial.methods import get_method  # noqa: E402

TASK = update_cost.Task("a", 23, 3, 5, 1e-2, updates=9, python_methods=("damped nGEM",))
CONFIG = update_cost.Config(
    tasks=(TASK,), hidden=(4,), methods=("NLL", "damped nGEM"), seeds=(1, 2, 3)
)


def test_the_tasks_are_those_of_table_10() -> None:
    sizes = {
        task.name: (task.num_examples, task.features, task.batch_size, task.learning_rate)
        for task in update_cost.PAPER_TASKS
    }
    assert sizes == {
        "kin8nm": (8192, 8, 128, 1e-3),
        "energy": (768, 8, 16, 1e-4),
        "housing": (506, 13, 32, 1e-4),
    }
    for task in update_cost.PAPER_TASKS:
        assert (task.updates, task.num_components, task.dim) == (10_000, 3, 1)
    config = update_cost.PRESETS["paper"]
    assert config.tasks[:3] == update_cost.PAPER_TASKS
    assert config.hidden == (128, 128)
    assert len(config.seeds) >= 15
    assert [unit.name for unit in update_cost.units(config)][2:5] == [
        "housing", "K=3-D=1", "K=10-D=1",
    ]  # fmt: skip


@pytest.fixture(scope="module")
def tables() -> Any:
    (unit,) = update_cost.units(CONFIG)
    return unit.run()


def test_every_method_runs_once_in_each_repetition(tables: Any) -> None:
    contestants = {("compiled", m) for m in CONFIG.methods} | {("Python", "damped nGEM")}
    times = tables["times"]
    orders = set()
    for seed in CONFIG.seeds:
        rows = times[times["seed"] == seed]
        order = tuple(rows[["loop", "method"]].itertuples(index=False, name=None))
        assert len(order) == 3
        assert set(order) == contestants
        orders.add(order)
    assert len(orders) > 1
    assert (times["seconds"] > 0).all()
    assert set(times["updates"]) == {9}
    compilation = tables["compilation"]
    assert set(compilation[["loop", "method"]].itertuples(index=False, name=None)) == contestants
    assert len(compilation) == 3


def test_what_is_timed_is_already_compiled(tables: Any) -> None:
    first = tables["compilation"].set_index(["loop", "method"])["seconds"]
    median = tables["times"].groupby(["loop", "method"])["seconds"].median()
    assert (median < first.reindex(median.index) / 5).all()


def test_the_updates_of_both_loops_are_done(monkeypatch: pytest.MonkeyPatch) -> None:
    done = []

    def noted(*arguments: Any, **options: Any) -> Any:
        result = loop.train(*arguments, **options)
        done.append(int(result.updates[-1]))
        return result

    monkeypatch.setattr(update_cost, "train", noted)
    update_cost._compiled_loop(CONFIG, TASK, "NLL", 1)
    assert done == [9]
    batches = list(update_cost._batches(TASK, seed=1))
    assert [len(rows) for rows in batches] == [5] * 9
    for epoch in (batches[:4], batches[4:8]):
        assert len(set(np.concatenate(epoch))) == 20
    assert set(np.concatenate(batches[:4])) != set(np.concatenate(batches[4:8]))


def test_the_step_of_the_python_loop_is_that_of_train() -> None:
    """A batch of all examples, so that their order does not matter."""
    task = dataclasses.replace(TASK, batch_size=23, updates=3)
    x, y = update_cost._data(task)
    make_model = update_cost._make_model(CONFIG.hidden, 3, 3, 1)
    method = dataclasses.replace(get_method("damped nGEM"), schedule=None)
    result = loop.train(
        make_model, method, x, y,
        epochs=3, batch_size=23, learning_rate=1e-2, seeds=(4,),
    )  # fmt: skip
    model_key, _ = jax.random.split(jax.random.key(4))
    params = nnx.state(make_model(nnx.Rngs(model_key)), nnx.Param)
    state = optax.adam(1e-2).init(params)
    step = update_cost._step(make_model, "damped nGEM", 1e-2)
    for _ in range(3):
        params, state, _ = step(params, state, np.asarray(x), np.asarray(y))
    leaves = jax.tree.leaves(params)
    assert len(leaves) == 8
    for a, b in zip(leaves, jax.tree.leaves(nnx.state(result.model(), nnx.Param)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)


# --------------------------------------------------------------------------------- the numbers


def some_times(task: str = "kin8nm") -> Any:
    """NLL takes 1, 2, 3, ... s; the paper's code half as long again, SGEM as long."""
    rows = [
        (task, "compiled", method, seed, factor * seed)
        for method, factor in (("nGEM, paper's code", 1.5), ("NLL", 1.0), ("SGEM", 1.0))
        for seed in range(1, 8)
    ]
    return pd.DataFrame(rows, columns=["task", "loop", "method", "seed", "seconds"])


def test_ratios_are_within_a_repetition() -> None:
    found = update_cost.ratios(some_times())
    assert found.groupby("method")["ratio"].unique().map(list).to_dict() == {
        "SGEM": [1.0],
        "nGEM, paper's code": [1.5],
    }
    with pytest.raises(ValueError, match="must have a row of NLL for each task, loop and seed"):
        update_cost.ratios(some_times().query("method != 'NLL' or seed > 1"))
    medians = update_cost.summary(some_times(), "seconds", ["task", "method"])
    assert medians.to_numpy().tolist() == [
        ["kin8nm", "nGEM, paper's code", 6.0, 1.5, 10.5],
        ["kin8nm", "NLL", 4.0, 1.0, 7.0],
        ["kin8nm", "SGEM", 4.0, 1.0, 7.0],
    ]


def test_what_is_compared_with_table_6() -> None:
    times = pd.concat([some_times(), some_times("K = 10, D = 1")])
    times = pd.concat([times, times.assign(loop="Python")], ignore_index=True)
    rows = update_cost.measured({"times": times})
    assert set(rows["condition"]) == {"kin8nm"}
    assert set(rows["table"]) == {"Table 6"}
    ratio = rows[rows["quantity"] == "ratio to NLL"]
    assert ratio[["method", "value"]].drop_duplicates().to_numpy().tolist() == [
        ["nGEM, paper's code", 1.5],
        ["SGEM", 1.0],
    ]
    seconds = rows[(rows["quantity"] == "seconds") & (rows["method"] == "NLL")]
    assert seconds["value"].tolist() == [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]


# --------------------------------------------------------------------------------- the figures


def test_the_figure_of_the_ratios_shows_every_repetition() -> None:
    found = update_cost.ratios(pd.concat([some_times("a"), some_times("b")]))
    medians = update_cost.summary(found, "ratio", ["task", "method"])
    figure = draw.ratio_intervals(found, medians)
    assert len(figure.axes) == 2
    for axis in figure.axes:
        dots = [line for line in axis.lines if line.get_marker() == "."]
        assert [set(line.get_xdata()) for line in dots] == [{1.0}, {1.5}]
        assert [len(line.get_xdata()) for line in dots] == [7, 7]
        centres = [container.lines[0].get_xdata()[0] for container in axis.containers]
        assert centres == [1.0, 1.5]
    plt.close(figure)


def test_the_figure_of_the_sizes_shows_the_medians() -> None:
    rows = [(k, d, "NLL", 1.0 * k * d, 0.5 * k * d, 2.0 * k * d) for k in (10, 3) for d in (100, 1)]
    columns = ["num_components", "dim", "method", "median", "low", "high"]
    figure = draw.time_by_size(pd.DataFrame(rows, columns=columns))
    for axis, dim in zip(figure.axes, (1, 100), strict=True):
        (container,) = axis.containers
        line, _, (bars,) = container.lines
        np.testing.assert_allclose(line.get_xydata(), [[3, 3 * dim], [10, 10 * dim]])
        ends = [segment[:, 1] for segment in bars.get_segments()]
        np.testing.assert_allclose(ends, [[1.5 * dim, 6 * dim], [5 * dim, 20 * dim]])
    plt.close(figure)
