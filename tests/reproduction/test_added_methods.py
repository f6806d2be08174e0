"""Methods that are run later: rows as of a run of everything, with both provenances."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("pandas")

import pandas as pd

from ngem_tutorial import results
from ngem_tutorial.__main__ import main
from ngem_tutorial.experiments import two_gaussians
from ngem_tutorial.reproduction import registry

NAME, ALL = "two_gaussians", ("NLL", "SGEM")


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """A function that runs some methods of a small experiment into a folder of that name."""

    def run(name: str, methods: tuple[str, ...]) -> Path:
        config = two_gaussians.Config(
            size=20, epochs=1, learning_rates=(0.1,), seeds=(1, 2), methods=methods,
            parametrisations=("σ",),
        )  # fmt: skip
        experiment = dataclasses.replace(
            registry.EXPERIMENTS[NAME], presets={"quick": config, "paper": config}
        )
        monkeypatch.setitem(registry.EXPERIMENTS, NAME, experiment)
        registry.reproduce(NAME, "quick", tmp_path / name)
        return tmp_path / name

    return run


def test_the_rows_are_those_of_a_run_of_everything(
    folder: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, stored = folder("whole", ALL), folder("stored", ALL[:1])
    old = results.load_set(f"{NAME}/quick", stored)
    assert main(["reproduce", NAME, "--methods", "SGEM", "--out", str(stored)]) == 0
    merged, wanted = (results.load_set(f"{NAME}/quick", path) for path in (stored, whole))
    assert list(merged.tables) == list(wanted.tables) == ["curves", "outcomes"]
    for name, table in wanted.tables.items():
        pd.testing.assert_frame_equal(merged.tables[name], table)
        hashes = [found.provenance["tables"][name]["sha256"] for found in (merged, wanted)]
        assert hashes[0] == hashes[1]
    assert merged.provenance["configuration"] == wanted.provenance["configuration"]
    before, added = merged.provenance["parts"]
    assert before == old.provenance["parts"][0]
    assert added["configuration"]["methods"] == added["methods"] == ["SGEM"]
    assert added["seeds"] == [1, 2]
    for name, table in old.tables.items():
        assert added["rows"][name] == [[len(table), len(merged.tables[name])]]
    # Finished: the present code made the preset's rows, and those that were added.
    overview = registry.overview([NAME], stored).set_index("preset")
    assert overview.loc["quick", "finished"] == overview.loc["quick", "units"] > 0
    assert overview.loc["paper", "finished"] == 0
    assert overview.loc["quick", "stored"] == before["commit"]["hash"][:10]
    assert overview.loc["paper", "stored"] == ""
    assert main(["reproduce", NAME, "--preset", "quick", "--out", str(stored)]) == 0
    assert results.load_set(f"{NAME}/quick", stored).provenance == merged.provenance
    made = registry.provenance("quick", stored)
    assert made["methods"].tolist() == ["", "SGEM"]
    assert set(made["experiment"]) == {NAME}


def test_what_cannot_be_added_is_refused_and_nothing_is_written(
    folder: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    stored = folder("stored", ALL)
    before = {path: path.read_bytes() for path in stored.rglob("*.*") if path.is_file()}
    arguments = ["reproduce", NAME, "--methods", "NLL; SGEM", "--out", str(stored)]
    assert main(arguments) == 1
    assert "has the method 'NLL' already" in capsys.readouterr().err
    assert main([*arguments, "--preset", "paper"]) == 1
    assert "provenance.json: cannot be read" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in before} == before
