"""The experiment on variational inference: what it counts and keeps."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

pytest.importorskip("pandas")

from ngem_tutorial.experiments import variational
from ngem_tutorial.experiments.variational import Config, Task
from ngem_tutorial.vi.design import MODULES, get_design
from ngem_tutorial.vi.targets import Target


def test_a_design_has_the_options_of_its_task() -> None:
    steps = (("SEPIFUX", 0.3, 0.2),)
    task = Task("ring", samples=50, reuse=1.0, mixture_samples=70, every=7, steps=steps)
    recommended = variational.design(task, "SAMTRON")
    assert recommended.sampling.number == 50
    assert recommended.sampling.reuse == 1.0
    assert recommended.adaptation.every == 7
    assert recommended.component_update == get_design("SAMTRON").component_update
    plain = variational.design(task, "SEPIFUX")
    assert plain.sampling.reuse == 0.0  # samples of the mixture are not used again
    assert plain.sampling.number == 70
    assert plain.component_update.first_step == 0.3
    assert plain.weight_update.first_step == 0.2
    assert plain.codeword == "SEPIFUX"


def test_words_of_the_ablation_change_one_letter_each() -> None:
    differ = [[a != b for a, b in zip(w, "SAMTRON", strict=True)] for w in variational.ABLATION]
    assert all(sum(row) == 1 for row in differ)
    assert np.any(differ, axis=0).tolist() == [False, *[True] * 6]
    words = {w for task in variational.PRESETS["paper"].tasks for w in task.methods}
    assert len(words) >= 7
    assert all(len(word) == len(MODULES) for word in words)


def test_step_sizes_belong_to_methods_that_are_run() -> None:
    for preset in (*variational.PRESETS.values(), *variational.LARGE.values()):
        assert variational.TUNING_SEED not in preset.seeds
        for task in preset.tasks:
            assert {codeword for codeword, *_ in task.steps} <= set(task.methods)
            without = {w for w in task.methods if w in ("SEPIFUX", "SEPYFUX")}
            assert without == {codeword for codeword, *_ in task.steps}


def test_a_run_that_fails_is_a_row_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(key: jax.Array) -> Target:
        ring = variational.generators.ring()
        return ring._replace(log_density=lambda x: ring.log_density(x) * jnp.nan)

    monkeypatch.setitem(variational.TARGETS, "ring", broken)
    config = Config((Task("ring", ("SEMTRON",), iterations=30, components=2),), seeds=(1,))
    (unit,) = variational.units(config)
    tables = unit.run()
    row = tables["outcomes"].iloc[0]
    assert "log_density is nan" in row["failure"]
    assert np.isnan(row["loss"])
    assert len(tables["curves"]) == 0


def test_a_fixed_number_starts_with_as_many_as_the_task_says() -> None:
    task = Task("banana", ("SEMTRON",), iterations=30, components=5)
    _, fit = variational.fit(task, "SEMTRON", 1)
    assert fit.mixture.num_components == 5
    config = Config((task,), seeds=(1,), fresh=500, points=4)
    row = variational.units(config)[0].run()["outcomes"].iloc[0]
    assert row["num_components"] == 5
    assert row["iterations"] == 30
    assert row["loss"] > -0.05  # log Z = 0: a divergence
