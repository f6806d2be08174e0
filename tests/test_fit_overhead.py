"""The benchmark of `fit`: its loops do the same updates, and ratios are of one repetition."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

FOLDER = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture(scope="module")
def benchmark() -> Any:
    spec = importlib.util.spec_from_file_location("fit_overhead", FOLDER / "fit_overhead.py")
    assert spec
    assert spec.loader
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_loops_do_the_same_updates(benchmark: Any) -> None:
    config = benchmark.Config(size=50, features=3, hidden=(8,), batch_size=12, updates=10)
    for method in config.methods:
        kinds = [kind for m, kind in benchmark.contestants(config) if m == method]
        ends = [benchmark.call(config, method, kind, 3).params for kind in kinds]
        assert len(ends) == (4 if method == "NLL" else 3)
        for other in ends[1:]:
            for a, b in zip(ends[0], other, strict=True):
                np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)


def test_ratios_are_taken_within_a_repetition(benchmark: Any) -> None:
    """Loops of 1, 2 and 6 seconds on a machine whose speed changes."""
    speed = np.random.default_rng(0).uniform(1.0, 3.0, size=9)
    seconds = {"plain": 1.0, "network": 2.0, "fit": 6.0}
    rows = [
        {"method": "NLL", "loop": kind, "repetition": i, "seconds": s * speed[i]}
        for i in range(9)
        for kind, s in seconds.items()
    ]
    table = benchmark.ratios(pd.DataFrame(rows)).set_index(["loop", "compared_with"])
    assert table.loc[("fit", "network"), "ratio"] == pytest.approx(3.0)
    assert table.loc[("network", "plain"), ["low", "high"]].tolist() == pytest.approx([2.0, 2.0])
    assert len(table) == 2
