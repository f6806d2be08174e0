"""The package as a reader has it who installed it: its content, its results, its first cell."""

from __future__ import annotations

import json
import os
import subprocess
import sysconfig
import tomllib
import venv
import zipfile
from pathlib import Path

import configure
import jax
import jupytext
import pytest
import setuptools
import wheel as tool

from ngem_tutorial import results

ROOT = Path(__file__).resolve().parents[1]
EXAMPLE = configure.Settings("octocat/hello-world", configure.read_settings().version)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tool.build(tmp_path_factory.mktemp("wheel"))


def run(command: list[str], folder: Path, **environment: str) -> str:
    """Run a command with nothing of the checkout on the path, and return what it prints."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    result = subprocess.run(
        command, cwd=folder, env=clean | environment, capture_output=True, text=True,
        check=False, timeout=300,
    )  # fmt: skip
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def test_the_wheel_has_the_package_and_the_results(built):
    names = set(zipfile.ZipFile(built).namelist())
    package = {path.relative_to(ROOT).as_posix() for path in ROOT.glob("ngem_tutorial/**/*.py")}
    kept = {
        f"ngem_tutorial/_results/{path.relative_to(ROOT / 'results').as_posix()}"
        for path in (ROOT / "results").rglob("*")
        if path.is_file() and "quick" not in path.parts and ".partial" not in path.parts
    }
    metadata = {name for name in names if ".dist-info/" in name}
    assert names - metadata == package | kept | {"ngem_tutorial/py.typed"}


def test_every_folder_of_the_package_is_listed():
    found = set(setuptools.find_packages(ROOT, include=["ngem_tutorial*"]))
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    assert set(packages["packages"]) == found | {"ngem_tutorial._results"}


CODE = """
import json, os
import jax, ngem_tutorial
from ngem_tutorial import results
table = results.load("two_gaussians/paper/outcomes").table
print(json.dumps([ngem_tutorial.__file__, jax.__version__, len(table), os.listdir()]))
"""


def test_the_kernel_of_the_notebooks_imports_the_wheel(built, tmp_path):
    python = tool.install(built, tmp_path / "venv")
    empty = tmp_path / "empty"
    empty.mkdir()
    tool.write_kernel(python, tmp_path / "jupyter")
    kernel = json.loads((tmp_path / "jupyter/kernels/wheel/kernel.json").read_text())
    assert kernel["argv"][0] == str(python)
    out = run([str(python), "-W", "error", "-c", CODE], empty, **kernel["env"])
    file, version, rows, files = json.loads(out)
    assert Path(file).is_relative_to(tmp_path / "venv")
    assert version == jax.__version__
    assert rows == len(results.load("two_gaussians/paper/outcomes").table)
    assert files == []


@pytest.fixture
def bare(tmp_path) -> Path:
    """The Python of an environment that has everything but the package."""
    shared = tmp_path / "shared"
    shared.mkdir()
    for entry in Path(sysconfig.get_path("purelib")).iterdir():
        if "ngem_tutorial" not in entry.name and entry.suffix != ".pth":
            (shared / entry.name).symlink_to(entry)
    venv.create(tmp_path / "bare", symlinks=True)
    packages = sysconfig.get_path("purelib", vars={"base": str(tmp_path / "bare")})
    (Path(packages) / "shared.pth").write_text(f"{shared}\n")
    return tmp_path / "bare" / "bin" / "python"


@pytest.fixture
def hosted(tmp_path) -> dict[str, str]:
    """What makes git find, at the example address, a repository of this package with its tag."""
    sources = tmp_path / "sources"
    tool.copy_sources(sources)
    author = ["-c", "user.name=A", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false"]
    tag = f"v{configure.read_settings().version}"
    begin = ["init", "-q", "-b", "main"]
    for command in (begin, ["add", "."], ["commit", "-qm", "first"], ["tag", tag]):
        subprocess.run(["git", *author, *command], cwd=sources, check=True)
    return {
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": f"url.file://{sources}.insteadOf",
        "GIT_CONFIG_VALUE_0": EXAMPLE.url,
    }


def code_of(settings: configure.Settings) -> str:
    (cell,) = (c for c in jupytext.reads(configure.setup_cell(settings), fmt="md:myst").cells)
    return cell.source


@pytest.fixture
def newer_jax(tmp_path) -> dict[str, str]:
    """What makes pip see a newer JAX, and take the newest of everything unless told otherwise."""
    folder = tmp_path / "index"
    folder.mkdir()
    info = "jax-99.0.dist-info"
    with zipfile.ZipFile(folder / "jax-99.0-py3-none-any.whl", "w") as file:
        file.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: jax\nVersion: 99.0\n")
        file.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        file.writestr(f"{info}/RECORD", f"{info}/METADATA,,\n{info}/WHEEL,,\n{info}/RECORD,,\n")
    newest = {"PIP_UPGRADE": "1", "PIP_UPGRADE_STRATEGY": "eager"}
    return {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(folder), **newest}


def test_the_first_cell_installs_the_package_and_leaves_jax(bare, hosted, newer_jax, tmp_path):
    """pip builds the package from the repository; of other packages it knows a newer JAX alone."""
    (tmp_path / "cell.ipy").write_text(code_of(EXAMPLE))
    offline = {"PIP_NO_BUILD_ISOLATION": "0", "PIP_CACHE_DIR": str(tmp_path / "cache")}
    out = run([str(bare), "-m", "IPython", "cell.ipy"], tmp_path, **offline, **hosted, **newer_jax)
    assert out.splitlines()[-1] == f"ngem_tutorial {EXAMPLE.version}, JAX {jax.__version__} on cpu"
    site = Path(sysconfig.get_path("purelib", vars={"base": str(bare.parents[1])}))
    assert {path.name for path in site.iterdir()} == {
        "ngem_tutorial",
        f"ngem_tutorial-{EXAMPLE.version}.dist-info",
        "shared.pth",
    }
    again = run([str(bare), "-m", "IPython", "cell.ipy"], tmp_path, PIP_NO_INDEX="1")
    assert again == out.splitlines()[-1] + "\n"  # it is there: nothing is asked or fetched


def test_without_an_address_the_first_cell_says_how_to_install(bare, tmp_path):
    (tmp_path / "cell.py").write_text(code_of(configure.Settings("", EXAMPLE.version)))
    result = subprocess.run(
        [str(bare), "cell.py"], cwd=tmp_path, env=os.environ | {"PYTHONPATH": ""},
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert "in its folder: pip install '.[data,plot]'" in result.stderr
