"""Experiments in units: a run that is stopped, however, ends as one that was not."""

from __future__ import annotations

import dataclasses
import functools
import math
import os
import pickle
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
import jax
import pandas as pd

from ngem_tutorial import _machine, results, runs
from ngem_tutorial.datasets import DatasetError

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


def units(config: Config) -> list[runs.Unit]:
    return [
        runs.Unit(f"seed={seed}", lambda seed=seed: compute(config, seed), 2.0)
        for seed in config.seeds
    ]


@pytest.fixture
def experiment() -> runs.Experiment:
    COUNTED.clear()
    presets = {"tiny": Config(), "other": Config(scale=3.0)}
    return runs.Experiment("toy", "a toy", (), __name__, presets, units)


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """This file by the name that it has here, as the fingerprint looks for its source."""
    monkeypatch.setitem(sys.modules, __name__, sys.modules.get(__name__, sys))
    spec = type("Spec", (), {"origin": __file__})
    real = runs.importlib.util.find_spec
    monkeypatch.setattr(
        runs.importlib.util, "find_spec", lambda name: spec if name == __name__ else real(name)
    )


def test_the_tables_are_the_units_in_their_order(
    experiment: runs.Experiment, tmp_path: Path
) -> None:
    runs.run(experiment, "tiny", tmp_path, show=False)
    assert COUNTED == ["seed=1", "seed=2", "seed=3"]
    result = results.load("toy/tiny/final", tmp_path)
    expected = pd.DataFrame({"seed": [1, 2, 3], "value": [2 / 3, math.nan, math.inf]})
    pd.testing.assert_frame_equal(result.table, expected, check_exact=True)
    assert results.load("toy/tiny/curve", tmp_path).table["seed"].tolist() == [1, 1, 2, 2, 3, 3]
    assert result.provenance["seeds"] == [1, 2, 3]
    assert result.provenance["configuration"] == {"scale": 2.0}
    assert result.provenance["tables"]["final"]["allow_missing"] == ["value"]
    (part,) = result.provenance["parts"]
    assert part["units"] == ["seed=1", "seed=2", "seed=3"]
    assert part["rows"] == {"final": [[0, 3]], "curve": [[0, 6]]}
    assert part["peak_memory_mib"] > 10
    assert part["commit"] == results.current_commit()
    assert not list((tmp_path / ".partial").iterdir())


def test_a_part_may_leave_a_table_empty(experiment: runs.Experiment, tmp_path: Path) -> None:
    def some(config: Config) -> list[runs.Unit]:
        def run(seed: int) -> dict[str, pd.DataFrame]:
            tables = compute(config, seed)
            return tables | {"curve": tables["curve"][: 2 * (seed == 2)]}

        return [runs.Unit(f"seed={s}", functools.partial(run, s), 1.0) for s in config.seeds]

    runs.run(dataclasses.replace(experiment, units=some), "tiny", tmp_path, show=False)
    assert results.load("toy/tiny/final", tmp_path).table["seed"].tolist() == [1, 2, 3]
    assert results.load("toy/tiny/curve", tmp_path).table["seed"].tolist() == [2, 2]


def test_what_is_finished_is_not_computed_again(
    experiment: runs.Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop_at_third(config: Config) -> list[runs.Unit]:
        def stop() -> Any:
            raise KeyboardInterrupt

        return [*units(config)[:2], runs.Unit("seed=3", stop, 2.0)]

    stopped = dataclasses.replace(experiment, units=stop_at_third)
    with pytest.raises(KeyboardInterrupt):
        runs.run(stopped, "tiny", tmp_path, show=False)
    assert not (tmp_path / "toy").exists()
    assert runs.progress(experiment, "tiny", tmp_path) == runs.Progress(2, 3, 2.0)
    runs.run(experiment, "tiny", tmp_path, show=False)
    assert COUNTED == ["seed=1", "seed=2", "seed=3"]
    runs.run(experiment, "tiny", tmp_path / "whole", show=False)
    for name in ("final", "curve"):
        parts = tmp_path / "toy" / "tiny" / f"{name}.csv"
        whole = tmp_path / "whole" / "toy" / "tiny" / f"{name}.csv"
        assert parts.read_bytes() == whole.read_bytes()
    assert runs.progress(experiment, "tiny", tmp_path) == runs.Progress(3, 3, 0.0)


def test_other_settings_and_other_code_start_anew(
    experiment: runs.Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    marks = {runs.fingerprint(experiment, config) for config in experiment.presets.values()}
    assert len(marks) == 2
    runs.run(experiment, "tiny", tmp_path, show=False)
    assert runs.is_finished(experiment, "tiny", tmp_path)
    assert not runs.is_finished(experiment, "other", tmp_path)

    copy = tmp_path / "copy.py"
    spec, real = type("Spec", (), {"origin": str(copy)}), runs.importlib.util.find_spec
    monkeypatch.setattr(
        runs.importlib.util, "find_spec", lambda name: spec if name == __name__ else real(name)
    )
    source = Path(__file__).read_text(encoding="utf-8")
    copy.write_text(source.replace('"""', '"""More words. ', 1) + "\n# a comment\n")
    assert runs.is_finished(experiment, "tiny", tmp_path)
    copy.write_text(source.replace("config.scale / 3", "config.scale / 4"))
    assert not runs.is_finished(experiment, "tiny", tmp_path)
    assert runs.progress(experiment, "tiny", tmp_path).finished == 0


@pytest.mark.parametrize(
    ("names", "message"),
    [(["a b"], "must be letters"), (["../a"], "must be letters"), (["a", "a"], "must be unique")],
)
def test_names_of_units_must_be_fit_for_files(
    experiment: runs.Experiment, tmp_path: Path, names: list[str], message: str
) -> None:
    bad = dataclasses.replace(
        experiment, units=lambda config: [runs.Unit(name, dict, 1.0) for name in names]
    )
    with pytest.raises(ValueError, match=message):
        runs.run(bad, "tiny", tmp_path, show=False)


def test_bad_arguments_are_named(experiment: runs.Experiment, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="preset must be one of tiny, other for toy, got 'nope'"):
        runs.run(experiment, "nope", tmp_path)
    with pytest.raises(ValueError, match="jobs must be at least 1, got 0"):
        runs.run(experiment, "tiny", tmp_path, jobs=0)
    assert not COUNTED


def test_the_time_left_is_told(
    experiment: runs.Experiment, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs.run(experiment, "tiny", tmp_path, show=True)
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(" in ")[0] for line in lines] == [
        f"toy/tiny: {i} of 3, seed={i}" for i in (1, 2, 3)
    ]
    assert lines[-1].endswith("about 0 s left")


def test_what_decides_the_numbers_is_in_the_fingerprint(
    experiment: runs.Experiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    def mark() -> str:
        return runs.fingerprint(experiment, Config())

    before = mark()
    assert mark() == before
    with jax.enable_x64(True):
        assert mark() != before
    real = runs.importlib.metadata.version
    for library in ("kfac-jax", "jax", "flax", "optax", "numpy"):
        other = {library: "0.0.0"}
        with monkeypatch.context() as patch:
            patch.setattr(
                runs.importlib.metadata, "version", lambda n, other=other: other.get(n) or real(n)
            )
            assert mark() != before, library
    assert mark() == before


def test_the_code_that_counts_is_what_the_experiment_imports() -> None:
    root = Path(results.__file__).parent
    names = {
        str(path.relative_to(root))
        for path in runs._sources("ngem_tutorial.experiments.mode_collapse")
    }
    assert {"experiments/mode_collapse.py", "experiments/two_sinusoids.py"} <= names
    assert {"mixtures.py", "objectives.py", "networks.py", "datasets/synthetic.py"} <= names
    assert not names & {"runs.py", "results.py", "_files.py", "figures/style.py"}
    assert "experiments/update_cost.py" not in names


def on(monkeypatch: pytest.MonkeyPatch, machine: str, commit: str) -> None:
    """Run on another machine, from another commit, whose files may be edited."""
    here = {"platform": "cpu", "cpu_model": machine, "cpu_cores": 2}
    monkeypatch.setattr(_machine, "device", lambda: here)
    made = {"hash": commit * 40, "dirty": commit == "d"}
    monkeypatch.setattr(results, "current_commit", lambda: made)


def stopping_at(experiment: runs.Experiment, last: int) -> runs.Experiment:
    """The same experiment, stopped by hand when it comes to a seed."""

    def some(config: Config) -> list[runs.Unit]:
        def stop() -> Any:
            raise KeyboardInterrupt

        return [u if s != last else u._replace(run=stop) for s, u in enumerate(units(config), 1)]

    return dataclasses.replace(experiment, units=some)


def test_units_of_two_machines_are_recorded_as_both(
    experiment: runs.Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on(monkeypatch, "Abacus 3", "d")
    with pytest.raises(KeyboardInterrupt):
        runs.run(stopping_at(experiment, 3), "tiny", tmp_path, show=False)
    on(monkeypatch, "Babbage 1", "b")
    runs.run(experiment, "tiny", tmp_path, show=False)
    first, second = results.read_provenance("toy/tiny", tmp_path)["parts"]
    assert [part["device"]["cpu_model"] for part in (first, second)] == ["Abacus 3", "Babbage 1"]
    assert [part["commit"]["hash"][0] for part in (first, second)] == ["d", "b"]
    assert [part["commit"]["dirty"] for part in (first, second)] == [True, False]
    assert first["units"] == ["seed=1", "seed=2"]
    assert first["rows"] == {"final": [[0, 2]], "curve": [[0, 4]]}
    assert second["rows"] == {"final": [[2, 3]], "curve": [[4, 6]]}
    assert runs.is_finished(experiment, "tiny", tmp_path)


def test_a_renamed_table_makes_a_finished_set_without_the_old_one(
    experiment: runs.Experiment, tmp_path: Path
) -> None:
    runs.run(experiment, "tiny", tmp_path, show=False)

    def renamed(config: Config) -> list[runs.Unit]:
        def run(unit: runs.Unit) -> Any:
            tables = unit.run()
            return {"outcomes": tables["final"], "curve": tables["curve"]}

        return [u._replace(run=functools.partial(run, u)) for u in units(config)]

    # The settings have changed too, or the stored tables would be those of the present code.
    other = dataclasses.replace(experiment, units=renamed, presets={"tiny": Config(scale=5.0)})
    runs.run(other, "tiny", tmp_path, force=True, show=False)
    assert list(results.load_set("toy/tiny", tmp_path).tables) == ["curve", "outcomes"]
    assert runs.is_finished(other, "tiny", tmp_path)


def test_stored_results_are_kept_without_force(experiment: runs.Experiment, tmp_path: Path) -> None:
    runs.run(experiment, "tiny", tmp_path, show=False)
    before = {path: path.read_bytes() for path in (tmp_path / "toy").rglob("*.*")}
    commit = results.current_commit()["hash"][:7]
    COUNTED.clear()
    other = dataclasses.replace(experiment, presets={"tiny": Config(scale=5.0)})
    with pytest.raises(results.ResultError, match=rf"tiny: results are stored \(commit {commit}\)"):
        runs.run(other, "tiny", tmp_path, show=False)
    assert not COUNTED
    assert {path: path.read_bytes() for path in (tmp_path / "toy").rglob("*.*")} == before
    runs.run(other, "tiny", tmp_path, force=True, show=False)
    assert results.load("toy/tiny/final", tmp_path).table["value"][0] == 5.0 / 3


def test_a_damaged_set_is_not_finished_and_can_be_replaced(
    experiment: runs.Experiment, tmp_path: Path
) -> None:
    runs.run(experiment, "tiny", tmp_path, show=False)
    (tmp_path / "toy" / "tiny" / "provenance.json").write_text("{")
    assert not runs.is_finished(experiment, "tiny", tmp_path)
    with pytest.raises(results.ResultError, match="--force"):
        runs.run(experiment, "tiny", tmp_path, show=False)
    runs.run(experiment, "tiny", tmp_path, force=True, show=False)
    assert runs.is_finished(experiment, "tiny", tmp_path)


def test_an_error_names_its_unit_and_what_was_finished_is_kept(
    experiment: runs.Experiment, tmp_path: Path
) -> None:
    def failing(config: Config) -> list[runs.Unit]:
        def fail() -> Any:
            raise ValueError("the rate must be positive")

        return [*units(config)[:2], runs.Unit("seed=3", fail, 2.0)]

    with pytest.raises(runs.UnitError) as caught:
        runs.run(dataclasses.replace(experiment, units=failing), "tiny", tmp_path, show=False)
    message = "toy/tiny: the unit seed=3 failed with ValueError: the rate must be positive"
    assert str(caught.value) == message
    assert isinstance(caught.value.__cause__, ValueError)
    assert not caught.value.remediable
    again = pickle.loads(pickle.dumps(caught.value))  # as it comes out of another process
    assert (str(again), again.remediable) == (message, False)
    assert runs.progress(experiment, "tiny", tmp_path).finished == 2


@pytest.mark.parametrize("error", [DatasetError("MNIST is missing"), ImportError("no skpro")])
def test_what_the_user_can_mend_is_said_so(
    experiment: runs.Experiment, tmp_path: Path, error: Exception
) -> None:
    def fail() -> Any:
        raise error

    bad = dataclasses.replace(experiment, units=lambda config: [runs.Unit("only", fail, 1.0)])
    with pytest.raises(runs.UnitError, match=f"the unit only failed with .*{error}") as caught:
        runs.run(bad, "tiny", tmp_path, show=False)
    assert caught.value.remediable


# -------------------------------------------------------------------------------------- the lock


HOLDER = """
import sys, time
from pathlib import Path
from ngem_tutorial._files import locked

with locked(Path(sys.argv[1]), "it"):
    print("locked", flush=True)
    time.sleep(600)
"""


def test_two_runs_at_once_are_refused_and_a_dead_one_leaves_no_lock(
    experiment: runs.Experiment, tmp_path: Path
) -> None:
    lock = tmp_path / ".partial" / "toy-tiny.lock"
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(lock)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "locked\n"
        with pytest.raises(runs.LockError, match=rf"toy/tiny is .* by process {holder.pid} on "):
            runs.run(experiment, "tiny", tmp_path, show=False)
        assert not COUNTED
        runs.run(experiment, "other", tmp_path, show=False)  # another set is free
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()
    assert lock.exists()  # killed, it could not remove it
    runs.run(experiment, "tiny", tmp_path, show=False)
    assert runs.is_finished(experiment, "tiny", tmp_path)
    assert not list((tmp_path / ".partial").iterdir())


def test_a_unit_that_another_process_has_kept_in_the_meantime_is_taken(
    experiment: runs.Experiment, tmp_path: Path
) -> None:
    """As by a process that outlived the run that had started it."""

    def twice(config: Config) -> list[runs.Unit]:
        def run() -> Any:
            mark = runs.fingerprint(experiment, config)
            kept = runs._kept(experiment, "tiny", tmp_path, mark)
            task = runs._Task(experiment, config, 0, kept, mark, {"hash": "a" * 40}, "toy/tiny")
            runs._compute(task)
            return compute(config, 1)

        return [units(config)[0]._replace(run=run), *units(config)[1:]]

    runs.run(dataclasses.replace(experiment, units=twice), "tiny", tmp_path, show=False)
    assert results.load("toy/tiny/final", tmp_path).table["seed"].tolist() == [1, 2, 3]
    first = results.read_provenance("toy/tiny", tmp_path)["parts"][0]
    assert (first["commit"]["hash"], first["units"]) == ("a" * 40, ["seed=1"])


# A real computation in parts; killed, it goes on. The file is a module of its own, because parts
# that are computed side by side are computed in fresh processes. The last part waits for a file,
# so that a run without it can only be killed.
WALKS = textwrap.dedent("""
    import dataclasses, os, sys, time
    from functools import partial
    from pathlib import Path

    import jax
    import jax.numpy as jnp
    import pandas as pd
    from ngem_tutorial import runs

    @dataclasses.dataclass(frozen=True)
    class Config:
        seeds: tuple = (1, 2, 3, 4, 5, 6)

    @jax.jit
    def walk(key):
        def step(x, key):
            x = x - 0.1 * jnp.sin(x) + 0.01 * jax.random.normal(key, x.shape)
            return x, x[0]
        return jax.lax.scan(step, jnp.ones(3), jax.random.split(key, 400))[1]

    def compute(seed):
        while seed == 6 and not Path(os.environ["GATE"]).exists():
            time.sleep(0.01)
        return {"curves": pd.DataFrame({"seed": seed, "x": walk(jax.random.key(seed))})}

    def units(config):
        return [runs.Unit(f"seed={s}", partial(compute, s), 1.0) for s in config.seeds]

    PRESETS = {"tiny": Config()}
    EXPERIMENT = runs.Experiment("toy", "a toy", (), "walks_in_parts", PRESETS, units)

    if __name__ == "__main__":
        import walks_in_parts  # by its name, for the processes
        runs.run(walks_in_parts.EXPERIMENT, "tiny", Path(sys.argv[1]), jobs=int(sys.argv[2]))
""")


@pytest.mark.parametrize("seed", [0, 1])
def test_a_killed_run_goes_on_and_ends_with_the_same_tables(tmp_path: Path, seed: int) -> None:
    """Killed at some point, gone on with side by side."""
    script = tmp_path / "walks_in_parts.py"
    script.write_text(WALKS)
    gate = tmp_path / "gate"
    root = str(Path(results.__file__).parents[1])
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(tmp_path), root]),
        "PJRT_NPROC": "1",
        "JAX_PLATFORMS": "cpu",
        "GATE": str(gate),
    }

    def start(folder: str, jobs: int = 1) -> subprocess.Popen[bytes]:
        command = [sys.executable, str(script), str(tmp_path / folder), str(jobs)]
        return subprocess.Popen(
            command, env=environment, stderr=subprocess.DEVNULL, start_new_session=True
        )

    rng = random.Random(seed)
    wanted = rng.randint(1, 5)
    process = start("killed")
    kept = tmp_path / "killed" / ".partial"
    while process.poll() is None and len(list(kept.glob("*/seed=*"))) < wanted:
        time.sleep(0.01)
    time.sleep(rng.uniform(0.0, 0.3))
    os.killpg(process.pid, signal.SIGKILL)
    assert process.wait(timeout=30) == -signal.SIGKILL
    assert len(list(kept.glob("*/seed=*"))) >= wanted
    assert not (tmp_path / "killed" / "toy").exists()
    gate.touch()
    assert start("killed", jobs=2).wait(timeout=200) == 0
    assert start("whole").wait(timeout=200) == 0
    sets = [results.load_set("toy/tiny", tmp_path / folder) for folder in ("whole", "killed")]
    (whole, killed) = (found.provenance["tables"] for found in sets)
    assert whole["curves"]["sha256"] == killed["curves"]["sha256"]
    assert len(sets[0].tables["curves"]) == 6 * 400
