"""Rows that are added to stored tables are those of a run of everything, with both provenances."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("pandas")

import add_results
import pandas as pd

from ngem_tutorial import results
from ngem_tutorial.experiments import registry, two_gaussians

NAME, ALL = "two_gaussians", ("NLL", "SGEM", "damped nGEM")


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """A function that runs some methods of a small experiment into a folder of that name."""

    def run(folder: str, methods: tuple[str, ...]) -> Path:
        config = two_gaussians.Config(
            size=20, epochs=1, learning_rates=(0.1,), seeds=(1, 2), methods=methods,
            parametrisations=("σ",),
        )  # fmt: skip
        experiment = dataclasses.replace(
            registry.EXPERIMENTS[NAME], presets={"quick": config, "paper": config}
        )
        monkeypatch.setitem(registry.EXPERIMENTS, NAME, experiment)
        registry.reproduce(NAME, "quick", tmp_path / folder)
        return tmp_path / folder

    return run


def test_the_rows_are_those_of_a_run_of_everything(run: Any) -> None:
    stored, added, whole = run("stored", ALL[:2]), run("added", ALL[2:]), run("whole", ALL)
    before = {name: results.load(f"{NAME}/quick/{name}", stored) for name in ("curves", "outcomes")}
    assert add_results.main([NAME, "quick", str(added), str(stored)]) == 0
    for name, old in before.items():
        merged, wanted = (results.load(f"{NAME}/quick/{name}", path) for path in (stored, whole))
        pd.testing.assert_frame_equal(merged.table, wanted.table)
        assert merged.provenance["sha256"] == wanted.provenance["sha256"]
        assert merged.provenance["configuration"] == wanted.provenance["configuration"]
        (part,) = merged.provenance["extra"]["added"]
        assert part["configuration"]["methods"] == ["damped nGEM"]
        assert part["rows"] + old.provenance["rows"] == merged.provenance["rows"]
        for key in ("date", "wall_time_s", "commit", "device", "versions"):
            assert merged.provenance[key] == old.provenance[key]
            assert key in part
    # Not finished: no single run of the present code made it.
    overview = registry.overview([NAME], stored).set_index("preset")
    assert overview["finished"].tolist() == [0, 0]
    assert overview.loc["quick", "stored"] == old.provenance["commit"]["hash"][:10]
    assert overview.loc["paper", "stored"] == ""
    made = registry.provenance("quick", stored)
    assert made["methods"].tolist() == ["", "damped nGEM"]
    assert set(made["experiment"]) == {NAME}


def test_what_cannot_be_added_is_refused_and_nothing_is_written(run: Any, tmp_path: Path) -> None:
    stored, added = run("stored", ALL[:2]), run("added", ALL[1:])
    before = {path: path.read_bytes() for path in stored.rglob("*.[cj]*")}
    with pytest.raises(results.ResultError, match="has these rows already"):
        add_results.add(NAME, "quick", added, stored)
    with pytest.raises(ValueError, match="folder must hold tables of two_gaussians/paper"):
        add_results.add(NAME, "paper", added, stored)
    path = added / NAME / "quick" / "curves.json"
    provenance = json.loads(path.read_text())
    path.write_text(json.dumps(provenance | {"name": "other"}))
    with pytest.raises(results.ResultError, match="other"):
        add_results.add(NAME, "quick", added, stored)
    assert {path: path.read_bytes() for path in stored.rglob("*.[cj]*")} == before
    assert add_results.main([]) == 2
