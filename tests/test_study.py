"""Experiments in units: a run that is stopped, however, ends as one that was not."""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("pandas")
import pandas as pd

from ngem_tutorial import results
from ngem_tutorial.experiments import study

COUNTED: list[str] = []


@dataclasses.dataclass(frozen=True)
class Config:
    seeds: tuple[int, ...] = (1, 2, 3)
    scale: float = 2.0


def compute(config: Config, seed: int) -> dict[str, pd.DataFrame]:
    COUNTED.append(f"seed={seed}")
    value = {2: math.nan, 3: math.inf}.get(seed, config.scale / 3 * seed)
    return {
        "final": pd.DataFrame({"seed": [seed], "value": [value]}),
        "curve": pd.DataFrame({"seed": [seed] * 2, "update": [0, 1]}),
    }


def units(config: Config) -> list[study.Unit]:
    return [
        study.Unit(f"seed={seed}", lambda seed=seed: compute(config, seed), 2.0)
        for seed in config.seeds
    ]


@pytest.fixture
def experiment() -> study.Experiment:
    COUNTED.clear()
    presets = {"tiny": Config(), "other": Config(scale=3.0)}
    return study.Experiment("toy", "a toy", (), __name__, presets, units)


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """This file by the name that it has here, as the fingerprint looks for its source."""
    monkeypatch.setitem(sys.modules, __name__, sys.modules.get(__name__, sys))
    spec = type("Spec", (), {"origin": __file__})
    real = study.importlib.util.find_spec
    monkeypatch.setattr(
        study.importlib.util, "find_spec", lambda name: spec if name == __name__ else real(name)
    )


def test_the_tables_are_the_units_in_their_order(
    experiment: study.Experiment, tmp_path: Path
) -> None:
    study.run(experiment, "tiny", tmp_path, show=False)
    assert COUNTED == ["seed=1", "seed=2", "seed=3"]
    result = results.load("toy/tiny/final", tmp_path)
    expected = pd.DataFrame({"seed": [1, 2, 3], "value": [2 / 3, math.nan, math.inf]})
    pd.testing.assert_frame_equal(result.table, expected, check_exact=True)
    assert results.load("toy/tiny/curve", tmp_path).table["seed"].tolist() == [1, 1, 2, 2, 3, 3]
    assert result.provenance["seeds"] == [1, 2, 3]
    assert result.provenance["configuration"] == {"scale": 2.0}
    assert result.provenance["allow_missing"] == ["value"]
    assert result.provenance["extra"]["units"] == 3
    assert result.provenance["extra"]["peak_memory_mib"] > 10
    assert result.provenance["commit"] == results.current_commit()
    assert not list((tmp_path / ".partial").iterdir())


def test_a_part_may_leave_a_table_empty(experiment: study.Experiment, tmp_path: Path) -> None:
    def some(config: Config) -> list[study.Unit]:
        def run(seed: int) -> dict[str, pd.DataFrame]:
            tables = compute(config, seed)
            return tables | {"curve": tables["curve"][: 2 * (seed == 2)]}

        return [study.Unit(f"seed={s}", functools.partial(run, s), 1.0) for s in config.seeds]

    study.run(dataclasses.replace(experiment, units=some), "tiny", tmp_path, show=False)
    assert results.load("toy/tiny/final", tmp_path).table["seed"].tolist() == [1, 2, 3]
    assert results.load("toy/tiny/curve", tmp_path).table["seed"].tolist() == [2, 2]


def test_what_is_finished_is_not_computed_again(
    experiment: study.Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop_at_third(config: Config) -> list[study.Unit]:
        def stop() -> Any:
            raise KeyboardInterrupt

        return [*units(config)[:2], study.Unit("seed=3", stop, 2.0)]

    stopped = dataclasses.replace(experiment, units=stop_at_third)
    with pytest.raises(KeyboardInterrupt):
        study.run(stopped, "tiny", tmp_path, show=False)
    assert not (tmp_path / "toy").exists()
    assert study.progress(experiment, "tiny", tmp_path) == study.Progress(2, 3, 2.0)
    study.run(experiment, "tiny", tmp_path, show=False)
    assert COUNTED == ["seed=1", "seed=2", "seed=3"]
    study.run(experiment, "tiny", tmp_path / "whole", show=False)
    for name in ("final", "curve"):
        parts = tmp_path / "toy" / "tiny" / f"{name}.csv"
        whole = tmp_path / "whole" / "toy" / "tiny" / f"{name}.csv"
        assert parts.read_bytes() == whole.read_bytes()
    assert study.progress(experiment, "tiny", tmp_path) == study.Progress(3, 3, 0.0)


def test_other_settings_and_other_code_start_anew(
    experiment: study.Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    marks = {study.fingerprint(experiment, config) for config in experiment.presets.values()}
    assert len(marks) == 2
    study.run(experiment, "tiny", tmp_path, show=False)
    assert study.is_finished(experiment, "tiny", tmp_path)
    assert not study.is_finished(experiment, "other", tmp_path)

    copy = tmp_path / "copy.py"
    spec = type("Spec", (), {"origin": str(copy)})
    monkeypatch.setattr(study.importlib.util, "find_spec", lambda name: spec)
    source = Path(__file__).read_text(encoding="utf-8")
    copy.write_text(source.replace('"""', '"""More words. ', 1) + "\n# a comment\n")
    assert study.is_finished(experiment, "tiny", tmp_path)
    copy.write_text(source.replace("config.scale / 3", "config.scale / 4"))
    assert not study.is_finished(experiment, "tiny", tmp_path)
    assert study.progress(experiment, "tiny", tmp_path).finished == 0


@pytest.mark.parametrize(
    ("names", "message"),
    [(["a b"], "must be letters"), (["../a"], "must be letters"), (["a", "a"], "must be unique")],
)
def test_names_of_units_must_be_fit_for_files(
    experiment: study.Experiment, tmp_path: Path, names: list[str], message: str
) -> None:
    bad = dataclasses.replace(
        experiment, units=lambda config: [study.Unit(name, dict, 1.0) for name in names]
    )
    with pytest.raises(ValueError, match=message):
        study.run(bad, "tiny", tmp_path, show=False)


def test_bad_arguments_are_named(experiment: study.Experiment, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="preset must be one of tiny, other for toy, got 'nope'"):
        study.run(experiment, "nope", tmp_path)
    with pytest.raises(ValueError, match="jobs must be at least 1, got 0"):
        study.run(experiment, "tiny", tmp_path, jobs=0)
    assert not COUNTED


def test_the_time_left_is_told(
    experiment: study.Experiment, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study.run(experiment, "tiny", tmp_path, show=True)
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(" in ")[0] for line in lines] == [
        f"toy/tiny: {i} of 3, seed={i}" for i in (1, 2, 3)
    ]
    assert lines[-1].endswith("about 0 s left")


# A real training in parts; killed, it goes on. The file is a module of its own, because parts
# that are computed side by side are computed in fresh processes.
TRAINING = textwrap.dedent("""
    import dataclasses, sys
    from functools import partial
    from pathlib import Path

    import jax, optax
    import pandas as pd
    from ngem_tutorial.experiments import study, two_gaussians
    from ngem_tutorial.objectives import nll
    from ngem_tutorial.loop import train as train_model

    @dataclasses.dataclass(frozen=True)
    class Config:
        seeds: tuple = (1, 2, 3, 4, 5, 6)

    def train(seed):
        y = two_gaussians.data(two_gaussians.Config()).y
        make = partial(two_gaussians.make_model, coordinate="log_scale", initial_scale=(0.2, 1.0))
        result = train_model(make, nll, None, y, epochs=2, batch_size=1, learning_rate=1e-2,
                     optimizer=optax.sgd, seeds=(seed,), record_at=(0, 100, 400))
        return {"curves": pd.DataFrame(result.columns())}

    def units(config):
        return [study.Unit(f"seed={s}", partial(train, s), 1.0) for s in config.seeds]

    PRESETS = {"tiny": Config()}
    EXPERIMENT = study.Experiment("toy", "a toy", (), "training_in_parts", PRESETS, units)

    if __name__ == "__main__":
        import training_in_parts  # by its name, for the processes
        study.run(training_in_parts.EXPERIMENT, "tiny", Path(sys.argv[1]), jobs=int(sys.argv[2]))
""")


def test_a_killed_run_goes_on_and_ends_with_the_same_tables(tmp_path: Path) -> None:
    """Killed at a random point, gone on with side by side."""
    script = tmp_path / "training_in_parts.py"
    script.write_text(TRAINING)
    root = str(Path(results.__file__).parents[1])
    path = os.pathsep.join([str(tmp_path), root])
    environment = {**os.environ, "PYTHONPATH": path, "PJRT_NPROC": "1", "JAX_PLATFORMS": "cpu"}

    def start(folder: str, jobs: int = 1) -> subprocess.Popen[bytes]:
        command = [sys.executable, str(script), str(tmp_path / folder), str(jobs)]
        return subprocess.Popen(
            command, env=environment, stderr=subprocess.DEVNULL, start_new_session=True
        )

    assert start("whole").wait(timeout=200) == 0
    rng = random.Random()
    process = start("killed")
    kept = tmp_path / "killed" / ".partial"
    wanted = rng.randint(1, 4)
    while process.poll() is None and len(list(kept.glob("*/seed=*"))) < wanted:
        time.sleep(0.01)
    time.sleep(rng.uniform(0.0, 0.3))
    os.killpg(process.pid, signal.SIGKILL)
    assert process.wait(timeout=30) == -signal.SIGKILL, "it was finished before it could be killed"
    before = {p.name: p.stat().st_mtime_ns for p in kept.glob("*/seed=*")}
    assert len(before) >= wanted
    assert not (tmp_path / "killed" / "toy").exists()
    assert start("killed", jobs=2).wait(timeout=200) == 0
    names = [tmp_path / folder / "toy" / "tiny" / "curves.csv" for folder in ("whole", "killed")]
    assert names[0].read_bytes() == names[1].read_bytes()
    shas = [json.loads(p.with_suffix(".json").read_text())["sha256"] for p in names]
    assert shas[0] == shas[1]


def test_the_origin_of_a_table_is_told_with_the_rows_added_later() -> None:
    def part(seconds: float, commit: str) -> dict[str, Any]:
        return {
            "wall_time_s": seconds,
            "device": {"cpu_model": "Abacus 3", "platform": "cpu", "cpu_cores": 2},
            "date": "2026-01-02T03:04:05+00:00",
            "versions": {"jax": "0.10.2"},
            "commit": {"hash": commit * 40},
        }

    machine = "on Abacus 3 (cpu, 2 cores), 2026-01-02, JAX 0.10.2, commit"
    alone = part(30.0, "a") | {"extra": {}}
    assert study.origin(alone) == f"30 s {machine} `aaaaaaa`"
    both = part(600.0, "a") | {"extra": {"added": [part(7200.0, "b") | {"methods": ["A", "B"]}]}}
    assert study.origin(both) == (
        f"10 min {machine} `aaaaaaa`; A, B later, in 2.0 h {machine} `bbbbbbb`"
    )
