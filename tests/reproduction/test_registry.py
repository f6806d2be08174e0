"""Every experiment by its name: the quick presets run, and what is stored is what they make."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import pytest

pytest.importorskip("pandas")

from ngem_tutorial import _machine, results
from ngem_tutorial.datasets import images
from ngem_tutorial.experiments import inverse_mnist
from ngem_tutorial.reproduction import comparison, published, registry

DATA = {
    "inverse_mnist": "mnist",
    "inverse_mnist_10": "mnist",
    "inverse_mnist_20": "mnist",
    "uci_regression": "uci",
}


def marked(name: str) -> object:
    marks = [pytest.mark.needs(DATA[name])] if name in DATA else []
    return pytest.param(name, marks=marks)


def some_of_mnist(split: Literal["train", "test"] = "train") -> images.LabelledImages:
    """A tenth of it: size is not the point here."""
    every = images.mnist(split)
    return images.LabelledImages(every.images[::10], every.labels[::10])


@pytest.mark.parametrize("name", [marked(name) for name in registry.EXPERIMENTS])
def test_the_quick_preset_runs_and_can_be_compared(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inverse_mnist, "mnist", some_of_mnist)
    experiment = registry.EXPERIMENTS[name]
    tables = registry.reproduce(name, "quick", tmp_path)
    assert tables
    for table in tables.values():
        assert len(table)
    overview = registry.overview([name], tmp_path).set_index("preset")
    assert overview.loc["quick", "finished"] == overview.loc["quick", "units"]
    assert overview.loc["paper", "finished"] == 0
    if experiment.measured is None:
        return
    measured = experiment.measured(tables)
    assert len(measured)
    assert np.isfinite(measured["value"]).any()
    found = comparison.compare(measured, experiment.reasons)
    assert len(found) or name == "inverse_mnist_20"
    assert set(found["verdict"]) <= set(comparison.VERDICTS)
    assert len(comparison.show(found)) == len(found)


def test_stored_results_have_the_settings_of_their_preset() -> None:
    """The paper's preset; a result at other settings would carry its name wrongly."""
    import dataclasses
    import json

    stored = [name for name in registry.EXPERIMENTS if registry.load(name, "paper")]
    assert stored
    for name in stored:
        config = dataclasses.asdict(registry.EXPERIMENTS[name].presets["paper"])
        wanted = json.loads(json.dumps(config))
        seeds = wanted.pop("seeds")
        provenance = results.read_provenance(f"{name}/paper")
        assert provenance["configuration"] == wanted, name
        assert list(provenance["seeds"]) == list(seeds), name
        assert not any(part["commit"]["dirty"] for part in provenance["parts"]), name


def test_what_is_stored_is_listed() -> None:
    """Sets of the present form, and those that earlier settings have made."""
    table = registry.overview(list(registry.EXPERIMENTS))
    paper = table[table["preset"] == "paper"].set_index("experiment")
    stored = [name for name in registry.EXPERIMENTS if registry.load(name, "paper")]
    assert set(paper.index[paper["stored"] != ""]) | set(
        paper.index[paper["finished"] == paper["units"]]
    ) >= set(stored)


def test_every_table_of_the_paper_has_an_experiment() -> None:
    named = " ".join(item for e in registry.EXPERIMENTS.values() for item in e.items)
    for table in {number.table for number in published.PUBLISHED}:
        assert table in named


def test_the_readme_says_what_came_out() -> None:
    text = " ".join((results.default_directory().parent / "README.md").read_text().split())
    numbers, pairs = registry.compare("paper")
    counts = numbers["verdict"].value_counts()
    yes, open_, no, unknown = (counts[verdict] for verdict in comparison.VERDICTS)
    assert (
        f"of the {len(numbers)} numbers in the paper's tables {yes} replicate, {no} differ, "
        f"{open_} are inconclusive and {unknown} cannot be compared." in text
    )
    pairs = pairs[pairs["quantity"] != "seconds"]
    printed = pairs.loc[pairs["method"].str.endswith(comparison.OURS), "order"]
    same, opposite = (int((printed == order).sum()) for order in ("same", "opposite"))
    assert (
        f"Of the {len(printed)} pairs of nGEM and NLL, the code that the paper prints "
        f"is in the paper's order in {same} and in the opposite order in {opposite}; the other "
        f"{len(printed) - same - opposite} are open, there or here." in text
    )
    default = pairs[pairs["method"].str.fullmatch(r"(.* \+ )?whitened NLL")]
    sign = np.where(default["quantity"] == "entropy", 1, -1)
    ahead = (sign * default["low"] > 0) & (sign * default["high"] > 0)
    behind = (sign * default["low"] < 0) & (sign * default["high"] < 0)
    assert (
        f"ahead of NLL in {ahead.sum()} and behind in {behind.sum()} of the "
        f"{len(default)} pairs in which it was run" in text
    )


def test_unknown_names_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"experiment must be one of two_gaussians, .* got 'nope'"):
        registry.select(["two_gaussians", "nope"])
    with pytest.raises(ValueError, match=r"preset must be one of .* got 'nope'"):
        registry.reproduce("two_gaussians", "nope", tmp_path / "new")
    with pytest.raises(ValueError, match=r"preset must be one of .* got 'nope'"):
        registry.load("two_gaussians", "nope", tmp_path)
    assert not (tmp_path / "new").exists()
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        registry.reproduce("two_gaussians", "quick", tmp_path / "file" / "results")
    assert registry.load("two_gaussians", "quick", tmp_path) == {}


def test_without_a_checkout_the_folder_must_be_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_machine, "PACKAGE", tmp_path / "ngem_tutorial")
    with pytest.raises(results.ResultError, match="not used from a checkout"):
        registry.reproduce("two_gaussians", "quick")
