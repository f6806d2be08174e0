"""The benchmarks: what they need is said, their data are as described, and so are their results."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ngem_tutorial import results

FOLDER = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture(scope="module")
def skpro_paper_code() -> Any:
    spec = importlib.util.spec_from_file_location(
        "benchmarks_skpro_paper_code", FOLDER / "skpro_paper_code.py"
    )
    assert spec
    assert spec.loader
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("versions", "problem"),
    [
        ({}, "skpro is not installed"),
        ({"skpro": "2.16.0"}, "torch is not installed"),
        ({"skpro": "2.9.0", "torch": "2.13.0"}, r"skpro is 2\.9\.0"),
    ],
)
def test_what_to_install_is_said_before_any_computing(
    skpro_paper_code: Any, monkeypatch: pytest.MonkeyPatch, versions: dict[str, str], problem: str
) -> None:
    def version(package: str) -> str:
        if package not in versions:
            raise importlib.metadata.PackageNotFoundError(package)
        return versions[package]

    monkeypatch.setattr(importlib.metadata, "version", version)
    monkeypatch.setattr(skpro_paper_code, "run", lambda *_: pytest.fail("computed"))
    with pytest.raises(ModuleNotFoundError, match=f"{problem}.*pip install skpro==2.16.0 torch"):
        skpro_paper_code.main()


@pytest.mark.parametrize("share", [0.5, 0.9])
def test_the_data_have_exactly_the_share(skpro_paper_code: Any, share: float) -> None:
    config = skpro_paper_code.Config()
    x, y = skpro_paper_code.sample(config, share, 3)
    assert (y > 0).sum() == share * config.size == 1000 * share
    assert np.abs(np.abs(y) - 1).max() < 0.6
    assert np.abs(y - np.sign(y)).std() == pytest.approx(0.06, abs=0.01)  # of a half-normal
    assert abs(np.corrcoef(x, y)[0, 1]) < 0.15
    assert (skpro_paper_code.sample(config, share, 3)[1] == y).all()


def test_stored_results_are_those_of_the_settings_and_show_the_law(skpro_paper_code: Any) -> None:
    stored = results.load(f"{skpro_paper_code.RESULT}/{skpro_paper_code.TABLE}")
    config, table = skpro_paper_code.Config(), stored.table
    assert [part["commit"]["dirty"] for part in stored.provenance["parts"]] == [False]
    assert stored.provenance["extra"]["libraries"]["skpro"] == skpro_paper_code.VERSION
    assert tuple(stored.provenance["seeds"]) == config.seeds
    assert stored.provenance["configuration"]["epochs"] == config.epochs
    assert len(table) == len(config.shares) * 2 * len(config.seeds)
    for (share, loss), runs in table.groupby(["share", "loss"]):
        law = np.sqrt(share) / (np.sqrt(share) + np.sqrt(1 - share))
        expected = law if loss == "ngem" else share
        assert runs["weight"].median() == pytest.approx(expected, abs=0.01)
        assert runs["mean"].median() == pytest.approx(2 * expected - 1, abs=0.03)
