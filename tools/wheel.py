"""Give the notebooks what a reader has who installed the package and has no checkout.

`python tools/wheel.py` makes, in `_build/wheel`:

- a wheel of the package, and `venv`, an environment with that wheel. All other packages are those
  of the environment that runs this program, without its editable install of the checkout;
- `jupyter`, with the kernel `wheel`, which runs in that environment as Colab's kernels do;
- `book`, the notebooks alone.

`make test` runs those notebooks with that kernel.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

from notebooks import Book

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "_build" / "wheel"
KERNEL = "wheel"
SOURCES = ("pyproject.toml", "README.md", "LICENSE", "MANIFEST.in", "ngem_tutorial", "results")
# What Colab sets, and nothing of the checkout on the path.
ENVIRONMENT = {
    "COLAB_RELEASE_TAG": "release-colab-external",
    "COLAB_GPU": "",
    "COLAB_JUPYTER_IP": "127.0.0.1",
    "MPLBACKEND": "module://matplotlib_inline.backend_inline",
    "PYTHONPATH": "",
}


def copy_sources(folder: Path, root: Path = ROOT) -> None:
    """Copy what the package is built from to a new folder."""
    folder.mkdir(parents=True)
    for source in (root / name for name in SOURCES):
        if source.is_dir():
            hidden = shutil.ignore_patterns("__pycache__", ".*")
            shutil.copytree(source, folder / source.name, ignore=hidden)
        elif source.exists():
            shutil.copy(source, folder)


def build(folder: Path, root: Path = ROOT) -> Path:
    """Build the wheel in `folder` from a copy of the sources, without the network.

    A copy, because setuptools keeps a folder `build`, and would take from it files that are gone.

    Args:
        folder: where the wheel is put.
        root: the project's folder.

    Returns:
        The path of the wheel.

    Raises:
        subprocess.CalledProcessError: if setuptools fails; what it printed is on stderr.
    """
    copy = folder / "source"
    shutil.rmtree(copy, ignore_errors=True)
    copy_sources(copy, root)
    code = "import sys; from setuptools import build_meta; build_meta.build_wheel(sys.argv[1])"
    command = [sys.executable, "-c", code, str(folder)]
    built = subprocess.run(command, cwd=copy, capture_output=True, text=True, check=False)
    if built.returncode:
        print(built.stdout, built.stderr, sep="\n", file=sys.stderr)
        built.check_returncode()
    shutil.rmtree(copy)
    (wheel,) = folder.glob("*.whl")
    return wheel


def install(wheel: Path, folder: Path) -> Path:
    """Make an environment with the wheel, in which all other packages are those of this one.

    Args:
        wheel: the wheel to install.
        folder: the environment's folder.

    Returns:
        The path of its Python.

    Raises:
        subprocess.CalledProcessError: if the wheel cannot be installed.
    """
    venv.create(folder, symlinks=True)
    python = folder / "bin" / "python"
    packages = sysconfig.get_path("purelib", vars={"base": str(folder)})
    # A folder that a .pth file names is searched, but its own .pth files, such as that of the
    # editable install, are not read.
    (Path(packages) / "shared.pth").write_text(sysconfig.get_path("purelib") + "\n")
    options = ["--quiet", "--offline", "--no-deps", "--no-index"]
    command = [sys.executable, "-m", "uv", "pip", "install", "--python", str(python), *options]
    subprocess.run([*command, str(wheel)], check=True)
    return python


def write_kernel(python: Path, folder: Path) -> None:
    """Write the kernel's specification under `folder`, which goes to JUPYTER_PATH."""
    specification = {
        "argv": [str(python), "-m", "ipykernel_launcher", "-f", "{connection_file}"],
        "display_name": "The package as installed from its wheel",
        "language": "python",
        "env": ENVIRONMENT,
    }
    place = folder / "kernels" / KERNEL
    place.mkdir(parents=True)
    (place / "kernel.json").write_text(json.dumps(specification, indent=1) + "\n")


def copy_notebooks(book: Book, folder: Path) -> list[Path]:
    """Copy the executed notebooks, and nothing else, to `folder`; return where they are."""
    copies = []
    for notebook in (page.with_suffix(".ipynb") for page in book.pages()):
        if notebook.exists():
            copies.append(folder / notebook.relative_to(book.root / "book"))
            copies[-1].parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(notebook, copies[-1])
    return copies


def main(folder: Path = FOLDER) -> None:
    """Make everything anew."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    python = install(build(folder), folder / "venv")
    write_kernel(python, folder / "jupyter")
    copies = copy_notebooks(Book(ROOT), folder / "book")
    print(f"wheel: {len(copies)} notebooks in {os.path.relpath(folder, ROOT)}")


if __name__ == "__main__":
    main()
