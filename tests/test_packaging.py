"""What is published, the source distribution and the wheel: built, unpacked and looked into."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from configparser import ConfigParser
from email.message import Message
from email.parser import Parser
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
FOLDER = f"ngem_tutorial-{PROJECT['version']}"

BUILD = """
import sys
from setuptools import build_meta
build = build_meta.build_sdist if sys.argv[2] == "sdist" else build_meta.build_wheel
build(sys.argv[1])
"""


def tracked() -> list[str]:
    """The files that a source distribution is to have."""
    if (ROOT / "PKG-INFO").is_file():  # this is one
        names = (ROOT / "ngem_tutorial.egg-info" / "SOURCES.txt").read_text().split("\n")
        made = ("ngem_tutorial.egg-info/", "PKG-INFO", "setup.cfg")
        return [name for name in names if name and not name.startswith(made)]
    listing = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return [name for name in listing.stdout.split("\0") if name and (ROOT / name).is_file()]


def build(kind: str, source: Path, out: Path) -> Path:
    """Build with the setuptools that is installed: nothing is downloaded."""
    done = subprocess.run(
        [sys.executable, "-c", BUILD, str(out), kind],
        cwd=source, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (built,) = out.glob("*.tar.gz" if kind == "sdist" else "*.whl")
    return built


@pytest.fixture(scope="session")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source distribution of the files under version control, unpacked."""
    folder = tmp_path_factory.mktemp("packaging")
    for name in tracked():
        target = folder / "source" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, target)
    archive = build("sdist", folder / "source", folder / "sdist")
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")
    return folder / FOLDER


@pytest.fixture(scope="session")
def wheel(unpacked: Path) -> zipfile.ZipFile:
    """The wheel, built from the source distribution as installers do."""
    copy = unpacked.parent / "for_wheel"  # building writes into the folder
    shutil.copytree(unpacked, copy)
    return zipfile.ZipFile(build("wheel", copy, unpacked.parent / "wheel"))


def metadata(wheel: zipfile.ZipFile) -> Message:
    return Parser().parsestr(wheel.read(f"{FOLDER}.dist-info/METADATA").decode())


def test_the_source_distribution_is_the_whole_project(unpacked: Path) -> None:
    files = [path.relative_to(unpacked) for path in unpacked.rglob("*") if path.is_file()]
    made = {"PKG-INFO", "setup.cfg"}
    names = {str(f) for f in files if f.parts[0] != "ngem_tutorial.egg-info"} - made
    assert names == set(tracked())
    assert {"tests/conftest.py", "tools/shapes.py", "constraints.txt"} < names


def test_its_tests_run(unpacked: Path) -> None:
    """Some of the repository and of the tools; that the others are there is tested above."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    files = ("tests/test_repository.py", "tests/test_imports.py")
    options = ("-q", "-p", "no:cacheprovider", "-k", "not snippets")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, *files],
        cwd=unpacked, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert " passed" in done.stdout
    assert "skipped" not in done.stdout


def test_the_wheel_is_the_package_alone(wheel: zipfile.ZipFile) -> None:
    package = {name for name in tracked() if name.startswith("ngem_tutorial/")}
    results = {name for name in tracked() if name.startswith("results/")}
    package |= {f"ngem_tutorial/_{name}" for name in results}  # as package data
    info = {name for name in wheel.namelist() if name.startswith(f"{FOLDER}.dist-info/")}
    assert set(wheel.namelist()) - info == package
    assert "ngem_tutorial/py.typed" in package
    assert f"{FOLDER}.dist-info/licenses/LICENSE" in info


def test_the_wheel_says_what_the_project_says(wheel: zipfile.ZipFile) -> None:
    said = metadata(wheel)
    assert said["Version"] == PROJECT["version"]
    assert said["Requires-Python"] == PROJECT["requires-python"]
    required = [Requirement(text) for text in said.get_all("Requires-Dist") or []]
    plain = {r.name for r in required if r.marker is None}
    assert plain == {Requirement(text).name for text in PROJECT["dependencies"]}
    assert set(said.get_all("Provides-Extra") or []) == PROJECT["optional-dependencies"].keys()


def test_the_console_script_is_the_command(wheel: zipfile.ZipFile, tmp_path: Path) -> None:
    scripts = ConfigParser()
    scripts.read_string(wheel.read(f"{FOLDER}.dist-info/entry_points.txt").decode())
    assert dict(scripts["console_scripts"]) == {"ngem-tutorial": "ngem_tutorial.__main__:main"}
    wheel.extractall(tmp_path / "installed")
    script = tmp_path / "ngem-tutorial"  # as installers write it
    script.write_text(
        "import sys\nfrom ngem_tutorial.__main__ import main\n"
        "import ngem_tutorial\nprint(ngem_tutorial.__file__)\nsys.exit(main())\n"
    )
    done = subprocess.run(
        [sys.executable, str(script), "--help"],
        cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(tmp_path / "installed")},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert str(tmp_path / "installed") in done.stdout
    assert "usage: ngem-tutorial " in done.stdout
