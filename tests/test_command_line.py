"""The command line as a user meets it: in a process of its own, with and without the extras."""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import re
import subprocess
import sys
import textwrap
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from packaging.requirements import Requirement

from ngem_tutorial.__main__ import main
from ngem_tutorial._install import how_to_install

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def python(*arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run Python in a folder, with this checkout's package."""
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "100"} | environment,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )


# ------------------------------------------------------------------------------- demonstration


def test_the_demonstration(tmp_path: Path) -> None:
    image = pytest.importorskip("matplotlib.image")
    done = python("-m", "ngem_tutorial", "--seeds", "2", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    tasks = ("Two-Gaussians", "digits given their class")
    for task in tasks:
        for method in ("NLL", "damped nGEM"):
            number = r"-?\d+\.\d\d ± \d+\.\d\d"
            row = rf"│ {task} +│ {method} +│ +{number} │ +{number} │ +2 │"
            assert re.search(row, done.stdout), row
    assert "ngem_demo.png" in done.stdout
    assert os.listdir(tmp_path) == ["ngem_demo.png"]
    picture = image.imread(tmp_path / "ngem_demo.png")
    height, width, _ = picture.shape
    assert width > height > 200
    assert len(np.unique(picture[..., :3].reshape(-1, 3), axis=0)) > 50


def test_the_summary_of_the_demonstration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pd = pytest.importorskip("pandas")
    from ngem_tutorial import demo

    rows = [
        ("A", method, seed, update, value + seed * update, 0.25 * update)
        for method, value in (("nGEM", 0.5), ("NLL", float("nan")))
        for seed in (1, 2, 4)
        for update in (0, 1)
    ]
    table = pd.DataFrame(rows, columns=["task", "method", "seed", "update", "nll", "entropy"])
    asked = []
    monkeypatch.setattr(demo, "compare", lambda seeds: asked.append(seeds) or table)
    monkeypatch.setenv("COLUMNS", "100")
    path = tmp_path / "new" / "picture.svg"
    assert main(["--seeds", "3", "--figure", str(path)]) == 0
    assert asked == [(1, 2, 3)]
    printed = " ".join(capsys.readouterr().out.split())
    # Mean and deviation of 1.5, 2.5 and 4.5, by hand.
    assert "│ A │ nGEM │ 2.83 ± 1.53 │ 0.25 ± 0.00 │ 3 │" in printed
    assert "│ A │ NLL │ not finite in 3 of 3 runs │ 0.25 ± 0.00 │ 3 │" in printed
    assert path.read_bytes().startswith(b"<?xml")


@pytest.fixture
def no_training(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pandas")
    from ngem_tutorial import demo, loop

    def train(*arguments: Any, **options: Any) -> None:
        pytest.fail("it trained")

    monkeypatch.setattr(loop, "train", train)
    monkeypatch.setattr(demo, "compare", train)


@pytest.mark.parametrize("seeds", ["0", "-3", "two", "1.5"])
def test_a_bad_number_of_seeds_is_refused(
    seeds: str, no_training: None, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--seeds", seeds])
    assert caught.value.code == 2
    error = capsys.readouterr().err
    assert "--seeds" in error
    assert seeds in error


@pytest.mark.parametrize("figure", ["figure.docx", "figure"])
def test_an_unknown_format_is_refused_before_training(
    figure: str, tmp_path: Path, no_training: None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--figure", str(tmp_path / figure)]) == 1
    assert re.fullmatch(
        rf"error: figure must end in one of .*png.*, got .*{figure}\n", capsys.readouterr().err
    )
    assert list(tmp_path.iterdir()) == []


def test_an_unusable_folder_is_refused_before_training(
    tmp_path: Path,
    no_training: None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "file").touch()
    assert main(["--figure", str(tmp_path / "file" / "figure.png")]) == 1
    assert re.fullmatch(r"error: .*file.*\n", capsys.readouterr().err)

    def refuse(*arguments: Any, **options: Any) -> None:
        raise PermissionError(13, "Permission denied", str(tmp_path))

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)  # whoever runs the tests may write
    assert main(["--figure", str(tmp_path / "figure.png")]) == 1
    assert f"Permission denied: '{tmp_path}'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nope"], "experiment must be one of .*inverse_mnist, .*, got 'nope'"),
        (["inverse_mnist", "--preset", "nope"], "preset must be one of quick, .*, got 'nope'"),
        (["inverse_mnist", "--jobs", "0"], "jobs must be at least 1, got 0"),
    ],
)
def test_what_cannot_be_reproduced_is_named(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    no_training: None,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["reproduce", *arguments, "--out", str(tmp_path)]) == 1
    printed = capsys.readouterr()
    assert re.fullmatch(f"error: {message}\n", printed.err)
    assert printed.out == ""
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The registry with one experiment that computes nothing; returns the list of its runs."""
    pd = pytest.importorskip("pandas")
    from ngem_tutorial import runs
    from ngem_tutorial.reproduction import registry

    @dataclasses.dataclass(frozen=True)
    class Config:
        seeds: tuple[int, ...] = (1, 2)

    done: list[int] = []

    def run(seed: int) -> dict[str, Any]:
        done.append(seed)
        return {"final": pd.DataFrame({"seed": [seed], "value": [-1390.0 - seed]})}

    def units(config: Config) -> list[Any]:
        return [runs.Unit(f"seed={s}", functools.partial(run, s), 40.0 * s) for s in config.seeds]

    def measured(tables: Any) -> Any:
        keys = {"table": "Table 3", "condition": "K = 3", "quantity": "nll", "method": "NLL"}
        return tables["final"].assign(**keys)

    toy = runs.Experiment(
        "toy",
        "a toy",
        ("Table 3",),
        runs.__name__,
        {"quick": Config((1,)), "paper": Config()},
        units,
        measured,
    )
    monkeypatch.setattr(registry, "EXPERIMENTS", {"toy": toy})
    return done


def test_reproduce_runs_compares_and_does_nothing_twice(
    toy: list[int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["reproduce", "--preset", "paper", "--out", str(tmp_path)]
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    assert printed.startswith(f"toy: final in {tmp_path / 'toy' / 'paper'}")
    for words in ("Table 3", "-1392.8", "-1391.5", "67.1", "inconclusive"):
        assert words in printed
    assert (tmp_path / "toy" / "paper" / "final.csv").is_file()
    assert main(arguments) == 0
    assert main([*arguments, "--compare"]) == 0
    assert toy == [1, 2]
    assert main(["reproduce", "--out", str(tmp_path), "--compare"]) == 0
    assert "nothing in" in capsys.readouterr().out


def test_reproduce_lists_what_there_is(
    toy: list[int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["reproduce", "--out", str(tmp_path)]) == 0
    assert "shorter runs" in capsys.readouterr().out
    assert main(["reproduce", "--list", "--out", str(tmp_path)]) == 0
    quick, paper = (
        line for line in capsys.readouterr().out.splitlines() if line.strip().startswith("toy")
    )
    assert quick.split() == ["toy", "quick", "40", "s", "finished", "Table", "3"]
    assert paper.split() == ["toy", "paper", "2", "min", "0", "of", "2", "parts", "Table", "3"]
    assert toy == [1]
    commit = by_other_code(tmp_path / "toy" / "quick")
    assert main(["reproduce", "--list", "--out", str(tmp_path)]) == 0
    assert f"stored ({commit})" in capsys.readouterr().out


def by_other_code(folder: Path) -> str:
    """Make a stored set one of other code; return the first digits of its commit."""
    path = folder / "provenance.json"
    provenance = json.loads(path.read_text())
    for part in provenance["parts"]:
        part["fingerprint"] = "of other code"
    path.write_text(json.dumps(provenance))
    return str(provenance["parts"][0]["commit"]["hash"][:7])


def test_stored_results_are_replaced_by_force_only(
    toy: list[int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["reproduce", "--preset", "paper", "--out", str(tmp_path)]
    assert main(arguments) == 0
    commit = by_other_code(tmp_path / "toy" / "paper")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.*") if path.is_file()}
    capsys.readouterr()
    assert main(arguments) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    place = tmp_path / "toy" / "paper"
    assert re.fullmatch(
        rf"error: {place}: results are stored .* {commit}.*--force.*\n", printed.err
    )
    assert toy == [1, 2]
    assert {path: path.read_bytes() for path in before} == before
    assert main([*arguments, "--force"]) == 0
    assert toy == [1, 2, 1, 2]
    assert main([*arguments, "--force"]) == 0  # finished: there is nothing to replace
    assert toy == [1, 2, 1, 2]


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_an_error_in_a_unit_names_it_and_shows_where_it_was(
    toy: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    jobs: str,
) -> None:
    from ngem_tutorial import runs
    from ngem_tutorial.reproduction import registry

    units = functools.partial(bad_units, int)
    bad = dataclasses.replace(
        registry.EXPERIMENTS["toy"], units=units, presets={"quick": Seeds()}, measured=None
    )
    monkeypatch.setattr(registry, "EXPERIMENTS", {"toy": bad})
    assert runs.Unit  # what the processes import too
    assert main(["reproduce", "--out", str(tmp_path), "--jobs", jobs]) == 1
    error = capfd.readouterr().err
    assert "Traceback" in error
    assert "in bad_unit" in error
    assert (
        error.strip()
        .splitlines()[-1]
        .startswith("error: toy/quick: the unit only failed with ValueError: invalid literal")
    )


def test_what_a_unit_lacks_is_said_in_one_line(
    toy: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from ngem_tutorial.datasets import DatasetError
    from ngem_tutorial.reproduction import registry

    def missing(text: str) -> None:
        raise DatasetError("the file is missing")

    bad = dataclasses.replace(
        registry.EXPERIMENTS["toy"],
        units=functools.partial(bad_units, missing),
        presets={"quick": Seeds()},
    )
    monkeypatch.setattr(registry, "EXPERIMENTS", {"toy": bad})
    assert main(["reproduce", "--out", str(tmp_path)]) == 1
    assert capsys.readouterr().err == (
        "error: toy/quick: the unit only failed with DatasetError: the file is missing\n"
    )


def test_a_mistake_of_ours_is_no_line_of_error(
    toy: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the arguments are checked, a ValueError is a defect, and keeps its traceback."""
    from ngem_tutorial.reproduction import registry

    bad = dataclasses.replace(registry.EXPERIMENTS["toy"], measured=lambda tables: int("x"))
    monkeypatch.setattr(registry, "EXPERIMENTS", {"toy": bad})
    with pytest.raises(ValueError, match="invalid literal"):
        main(["reproduce", "--out", str(tmp_path)])


@dataclasses.dataclass(frozen=True)
class Seeds:
    seeds: tuple[int, ...] = (1,)


def bad_unit(convert: Any) -> Any:
    return convert("x")


def bad_units(convert: Any, config: Seeds) -> list[Any]:
    from ngem_tutorial import runs

    return [runs.Unit("only", functools.partial(bad_unit, convert), 1.0)]


def test_an_interruption_says_that_nothing_is_lost(
    toy: list[int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from ngem_tutorial import runs

    def stop(*arguments: Any, **options: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(runs, "run", stop)
    assert main(["reproduce", "--out", str(tmp_path)]) == 130
    assert capsys.readouterr().err == "stopped; what was finished is kept\n"


def test_the_help_says_what_there_is(tmp_path: Path) -> None:
    done = python("-m", "ngem_tutorial", "--help", cwd=tmp_path)
    assert "[command] ..." in done.stdout  # without one it runs the demonstration
    assert done.returncode == 0
    for word in ("--figure", "--seeds", "reproduce", "python -m ngem_tutorial"):
        assert word in done.stdout
    assert os.listdir(tmp_path) == []


# --------------------------------------------------------------------------- what is installed

# What the extras bring, by the name it is imported by.
OPTIONAL = {
    "tensorflow-datasets": "tensorflow_datasets",
    "importlib_resources": "importlib_resources",
    "scikit-learn": "sklearn",
    "pooch": "pooch",
    "platformdirs": "platformdirs",
    "kfac-jax": "kfac_jax",
    "matplotlib": "matplotlib",
    "seaborn": "seaborn",
    "pandas": "pandas",
    "numpyro": "numpyro",
    "blackjax": "blackjax",
}

BASE = textwrap.dedent("""
    import json, os, sys, warnings
    import flax, jax, optax, rich, scipy.stats  # what these do at import is not ours
    blocked = json.loads(sys.argv[1])
    present = [name for name in blocked if name in sys.modules]
    sys.modules.update(dict.fromkeys(blocked))
    def state():
        return dict(os.environ), list(warnings.filters), os.getcwd(), jax.config.jax_enable_x64
    before = state()
    import ngem_tutorial
    import ngem_tutorial.metrics, ngem_tutorial.em, ngem_tutorial.datasets
    after = state()
    try:
        jax.numpy.zeros(1)
        backend = "started"
    except RuntimeError:
        backend = "refused"
    print(json.dumps({
        "file": ngem_tutorial.__file__,
        "present": present,
        "changed": before != after,
        "backend": backend,
        "names": [name for name in ngem_tutorial.__all__ if hasattr(ngem_tutorial, name)],
        "loaded": [name for name in blocked if sys.modules.get(name) is not None],
    }))
""")


def test_the_base_install_is_enough_for_the_package_and_importing_it_does_nothing(
    tmp_path: Path,
) -> None:
    import ngem_tutorial

    extras = [
        Requirement(text).name
        for extra in ("data", "optimizers", "plot", "sampling")
        for text in PROJECT["optional-dependencies"][extra]
    ]
    assert set(extras) == OPTIONAL.keys()
    names = json.dumps(list(OPTIONAL.values()))
    done = python("-W", "error", "-c", BASE, names, cwd=tmp_path, JAX_PLATFORMS="nonexistent")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert Path(found["file"]) == ROOT / "ngem_tutorial" / "__init__.py"
    assert found["names"] == ngem_tutorial.__all__
    assert found["present"] == []  # the base packages do not import them either
    assert found["loaded"] == []
    assert not found["changed"]
    assert found["backend"] == "refused"  # else nothing is said about starting one at import


EVERYTHING = textwrap.dedent("""
    import json, os, pkgutil, sys
    import jax, matplotlib.pyplot as plt, pandas, seaborn
    import importlib
    def state():
        parameters = {name: repr(value) for name, value in plt.rcParams.items()}
        return dict(os.environ), parameters, plt.get_fignums()
    before = state()
    import ngem_tutorial
    names = [m.name for m in pkgutil.walk_packages(ngem_tutorial.__path__, "ngem_tutorial.")]
    for name in names:
        if name != "ngem_tutorial.__main__":
            importlib.import_module(name)
    print(json.dumps([len(names), before == state()]))
""")


def test_importing_any_module_does_nothing(tmp_path: Path) -> None:
    pytest.importorskip("seaborn")
    done = python("-c", EVERYTHING, cwd=tmp_path, JAX_PLATFORMS="nonexistent")
    assert done.returncode == 0, done.stderr
    number, unchanged = json.loads(done.stdout)
    assert number > 15
    assert unchanged
    assert os.listdir(tmp_path) == []


MISSING = textwrap.dedent("""
    import contextlib, io, json, sys
    from ngem_tutorial.__main__ import main
    OPTIONAL_LAYERS = ("demo", "experiments", "figures", "results", "runs", "_tables")
    found = {}
    for name in sys.argv[1:]:
        kept = {key: sys.modules.pop(key) for key in list(sys.modules) if key.split(".")[0] == name}
        for key in list(sys.modules):
            if key.startswith("ngem_tutorial.") and key.split(".")[1] in OPTIONAL_LAYERS:
                del sys.modules[key]
        sys.modules[name] = None
        with contextlib.redirect_stderr(io.StringIO()) as error:
            found[name] = [main([]), error.getvalue()]
        del sys.modules[name]
        sys.modules.update(kept)
    print(json.dumps(found))
""")


def test_a_missing_extra_is_named(tmp_path: Path) -> None:
    for module in ("pandas", "matplotlib", "seaborn", "sklearn"):
        pytest.importorskip(module)
    extras = {"pandas": "plot", "matplotlib": "plot", "seaborn": "plot", "sklearn": "data"}
    packages = {name: name for name in extras} | {"sklearn": "scikit-learn"}
    done = python("-c", MISSING, *extras, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n") == 1, done.stdout  # nothing was trained
    for module, (status, message) in json.loads(done.stdout).items():
        assert status == 1
        assert how_to_install(extras.pop(module)) in message
        assert f"the demonstration needs {packages[module]}: not installed" in message
        assert message.count("\n") == 1
    assert extras == {}
    assert os.listdir(tmp_path) == []
