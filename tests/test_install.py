"""Hints on optional packages: true, complete, and without a name that could be anyone's."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import jax
import pytest
from packaging.requirements import Requirement

from ngem_tutorial import _kfac_jax
from ngem_tutorial._install import EXTRAS, how_to_install, require, require_extras

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
ADDRESS = "https://example.org/owner/name"


@pytest.fixture
def metadata(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What an installed package says of itself, before any other such package."""
    folder = tmp_path / "ngem_tutorial-9.dist-info"
    folder.mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    file = folder / "METADATA"
    file.write_text("Metadata-Version: 2.1\nName: ngem-tutorial\nVersion: 9\n")
    return file


def test_each_extra_brings_what_the_project_says() -> None:
    for extra, brings in EXTRAS.items():
        wanted = {Requirement(r).name for r in PROJECT["optional-dependencies"][extra]}
        assert set(brings.values()) == wanted
    assert PROJECT["optional-dependencies"].keys() - EXTRAS.keys() == {"book", "dev", "test"}


def test_without_an_address_the_checkout_is_named(metadata: Path) -> None:
    assert how_to_install("plot") == (
        "Install the extra plot of this package from its checkout: pip install '.[plot]'"
    )
    assert how_to_install("plot", "data").endswith("pip install '.[plot,data]'")


def test_with_an_address_the_command_has_it(metadata: Path) -> None:
    with metadata.open("a") as file:
        file.write("Project-URL: Issues, https://example.org/other\n")
        file.write(f"Project-URL: Repository, {ADDRESS}\n")
    (command,) = [how_to_install("plot", "data").removeprefix("Install it with: ")]
    quoted = command.removeprefix("pip install ").strip('"')
    requirement = Requirement(quoted)  # what pip reads it as
    assert requirement.name == PROJECT["name"]
    assert requirement.extras == {"plot", "data"}
    assert requirement.url == f"git+{ADDRESS}@v9"  # what is installed, not what came later


def test_a_package_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "kfac_jax", None)
    with pytest.raises(ImportError) as caught:
        _kfac_jax.load()
    assert str(caught.value) == (
        f"kfac-jax is needed for this and is not installed. {how_to_install('optimizers')}"
    )
    assert caught.value.name == "kfac_jax"
    monkeypatch.setitem(sys.modules, "numpyro", None)
    monkeypatch.delitem(sys.modules, "numpyro.distributions", raising=False)
    with pytest.raises(ImportError, match=re.escape(how_to_install("sampling"))):
        require("numpyro.distributions")
    monkeypatch.setitem(sys.modules, "tensorflow_probability", None)  # which no extra brings
    for name in ("tensorflow_probability.substrates", "tensorflow_probability.substrates.jax"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    with pytest.raises(ImportError, match=r"is needed .* pip install tensorflow-probability$"):
        require("tensorflow_probability.substrates.jax")


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (
            "import jax\njax.not_there",
            rf"kfac-jax is needed .* raises AttributeError: .*not_there.* JAX {jax.__version__} ",
        ),
        ("import nothing_of_the_kind", "No module named 'nothing_of_the_kind'.*optimizers"),
        ("import warnings\nwarnings.warn('old', FutureWarning)", "FutureWarning: old.*JAX"),
    ],
)
def test_a_package_whose_import_fails_is_named(
    code: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "kfac_jax.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "kfac_jax", raising=False)
    with pytest.raises(ImportError, match=message):
        _kfac_jax.load()


MODULES = """
import importlib, sys
sys.modules["pandas"] = None
for name in sys.argv[1:]:
    try:
        importlib.import_module(f"ngem_tutorial.{name}")
    except ImportError as error:
        print(error)
"""


def test_a_module_that_needs_an_extra_says_so_when_it_is_imported() -> None:
    tables = ("results", "runs", "experiments.two_gaussians", "reproduction.comparison")
    done = subprocess.run(
        [sys.executable, "-c", MODULES, *tables, "figures", "figures.training"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    lines = done.stdout.splitlines()
    assert lines[:-2] == [
        f"pandas is needed for this and is not installed. {how_to_install('plot')}"
    ] * len(tables)
    assert (
        lines[-2:]
        == [f"ngem_tutorial.figures needs pandas: not installed. {how_to_install('plot')}"] * 2
    )


def test_versions_of_jax_and_flax_that_do_not_fit_are_named(tmp_path: Path) -> None:
    flax = tmp_path / "flax" / "nnx.py"
    flax.parent.mkdir()
    (flax.parent / "__init__.py").touch()
    flax.write_text("from jax.extend.core import Unheard")
    code = "import sys; sys.path.insert(0, sys.argv[1]); import ngem_tutorial"
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert re.search(
        rf"^ImportError: flax is needed .*Unheard.* JAX {jax.__version__} among others",
        done.stderr, re.MULTILINE,
    )  # fmt: skip


def test_what_a_package_deprecates_at_import_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "old_package.py").write_text(
        "import warnings\nwarnings.warn('old', DeprecationWarning)\nvalue = 3\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert require("old_package").value == 3  # warnings are errors here


def test_all_that_is_missing_is_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    require_extras("the demonstration", ["json"])
    for name in ("matplotlib", "sklearn", "seaborn"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError) as caught:
        require_extras("the demonstration", ["json", *EXTRAS["plot"], "sklearn"])
    assert str(caught.value).startswith(
        "the demonstration needs scikit-learn, matplotlib, seaborn: not installed. "
    )
    assert how_to_install("data", "plot") in str(caught.value)
