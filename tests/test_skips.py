"""tests/conftest.py: what is skipped and how much memory is taken is told, and can fail a run."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

TOOLS = Path(__file__).resolve().parents[1] / "tools"
MNIST = ["train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"]


@pytest.fixture
def project(tmp_path):
    """One notebook that needs MNIST and one test that needs nothing."""
    (tmp_path / "tests").mkdir()
    shutil.copy(Path(__file__).with_name("conftest.py"), tmp_path / "tests")
    (tmp_path / "tests/test_plain.py").write_text("def test_plain():\n    pass\n")
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1 + 1")])
    notebook.metadata["ngem"] = {"needs": ["mnist"]}
    (tmp_path / "book").mkdir()
    nbformat.write(notebook, tmp_path / "book/page.ipynb")
    return tmp_path


def run(project: Path, *more: str, **environment: str) -> subprocess.CompletedProcess[str]:
    inherited = {
        key: value for key, value in os.environ.items() if not key.startswith(("NGEM_", "PYTEST_"))
    }
    options = ["tests", "book", "--nbval-lax", "--nbval-current-env", "-q", "--rootdir=."]
    options += ["-p", "no:hypothesispytest", "-p", "no:jaxtyping"]  # slow to import
    options += ["-o", f"pythonpath={TOOLS}"]  # conftest.py takes the check of shapes from there
    return subprocess.run(
        [sys.executable, "-m", "pytest", *options, "-W", "ignore", *more],
        cwd=project,
        env=inherited | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


WORKERS = ["-n", "2", "--dist", "loadfile", "--max-worker-restart=0"]


def test_a_notebook_without_its_data_is_skipped_and_counted(project):
    result = run(project)
    assert result.returncode == 0
    assert "1 skipped: needs mnist, and NGEM_DATA_DIR is not set" in result.stdout
    assert "1 passed, 1 skipped" in result.stdout


def test_a_skip_fails_the_run_where_none_is_allowed(project):
    result = run(project, *WORKERS, NGEM_NO_SKIPS="1", NGEM_DATA_DIR=str(project))
    assert result.returncode == 1
    assert "1 skipped: needs mnist, and NGEM_DATA_DIR has no mnist/train-images" in result.stdout


@pytest.mark.parametrize("folder", ["data/mnist", "data"])
def test_with_its_data_it_runs(project, folder):
    (project / folder).mkdir(parents=True)
    for name in MNIST:
        (project / folder / f"{name}-ubyte.gz").touch()
    result = run(project, NGEM_NO_SKIPS="1", NGEM_DATA_DIR=str(project / "data"))
    assert result.returncode == 0, result.stdout
    assert "2 passed" in result.stdout
    assert re.search(r"slowest pages: page \d+ s\n", result.stdout)


def test_a_run_that_takes_too_much_memory_fails(project):
    file = project / "tests/conftest.py"
    file.write_text(file.read_text().replace("MEMORY = 3.0", "MEMORY = 0.001"))
    result = run(project, *WORKERS)
    assert result.returncode == 1
    assert re.search(r"peak memory: gw0 [\d.]+ GB, gw1 [\d.]+ GB, pytest [\d.]+ GB", result.stdout)
    assert "the run fails because a process took over 0.001 GB" in result.stdout


def test_a_deadlock_ends_the_run_with_every_stack(project):
    test = "import time\n\ndef test_stuck():\n    time.sleep(100)\n"
    (project / "tests/test_stuck.py").write_text(test)
    options = ["-o", "faulthandler_timeout=1", "-o", "faulthandler_exit_on_timeout=true"]
    result = run(project, *WORKERS, *options)
    assert result.returncode
    assert "in test_stuck" in result.stderr
