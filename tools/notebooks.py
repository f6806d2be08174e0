"""Keep the book's notebooks in step with what they come from.

A page is a MyST ``.md`` whose front matter names a kernel; the ``.ipynb`` beside it carries the
executed outputs. Under ``metadata.ngem`` it says when and where they were ``made``, and in
``stamp`` what they depend on: the page's code cells, the code of the package's modules that they
import, directly or through others (see `imports.py`), the pinned versions of what these import,
and the result files that the page declares. The cell tagged ``setup`` (see `configure.py`) does not
count, and its output, which tells the machine, is not kept::

    ngem:
      results: [two_gaussians]   # folders of results/ that the page reads
      needs: [mnist]             # data sets that it needs
      extras: [sampling]         # extras of the package that it needs, besides data and plot

Usage::

    python tools/notebooks.py status           # which pages are out of date, and why
    python tools/notebooks.py run [PAGE ...]   # re-execute those that are
                                               # (--force: all; --jobs 2: two at a time)
    python tools/notebooks.py check            # exit status 1 if any is
"""

from __future__ import annotations

import argparse
import asyncio
import datetime
import hashlib
import os
import platform
import re
import sys
import time
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jupytext
import nbformat
import yaml
from imports import Package, read_pins
from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

Notebook = nbformat.NotebookNode
ROOT = Path(__file__).resolve().parents[1]
TIMEOUT = 600  # seconds for one cell
RECORDED = ("stamp", "made")  # what executing writes to a notebook's metadata, under `ngem`
LANGUAGE = {"name": "python", "file_extension": ".py", "pygments_lexer": "ipython3"}
SETUP = "setup"  # the tag of the cell that installs the package; see configure.py
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}


# As in the Makefile: no deadlock of jax 0.10, and nothing in the outputs that is not the page's.
ENVIRONMENT = {
    "PJRT_NPROC": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "NGEM_PROGRESS": "0",
    "TF_CPP_MIN_LOG_LEVEL": "2",
}


class _ThisInterpreter(KernelSpecManager):
    """Finds this program's own interpreter under every name, whatever kernels are installed."""

    def get_kernel_spec(self, kernel_name: str) -> KernelSpec:
        argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        argv.append("--log-level=ERROR")
        return KernelSpec(argv=argv, display_name=kernel_name, language="python")


class _Kernel(AsyncKernelManager):
    """Starts kernels with the interpreter that runs this program."""

    def __init__(self, **options: Any) -> None:
        super().__init__(kernel_spec_manager=_ThisInterpreter(), **options)


def front_matter(page: Path) -> dict[str, Any]:
    """Return the YAML front matter of a Markdown file, empty if it has none."""
    match = re.match(r"---\n(.*?\n)---\s*\n", page.read_text(encoding="utf-8"), re.DOTALL)
    return (yaml.safe_load(match[1]) or {}) if match else {}


def hash_files(files: Iterable[Path], root: Path) -> str:
    """Return one sha256 of names and contents, whatever the order and the kind of line ends."""
    digest = hashlib.sha256()
    for file in sorted(files, key=lambda file: file.relative_to(root).as_posix()):
        content = file.read_bytes().replace(b"\r\n", b"\n")
        digest.update(f"{file.relative_to(root).as_posix()}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()


def is_setup(cell: Notebook) -> bool:
    """Tell the cell that installs the package where it is missing."""
    return SETUP in cell.metadata.get("tags", [])


def code_cells(notebook: Notebook) -> list[Notebook]:
    """Return the code cells that decide a page's outputs."""
    return [cell for cell in notebook.cells if cell.cell_type == "code" and not is_setup(cell)]


def hash_code(notebook: Notebook) -> str:
    """Return a sha256 of the sources and tags of the code cells."""
    cells = [[cell.source, sorted(cell.metadata.get("tags", []))] for cell in code_cells(notebook)]
    return hashlib.sha256(repr(cells).encode()).hexdigest()


def cell_text(notebook: Notebook) -> list[tuple[str, str, dict[str, Any]]]:
    """Return type, source and metadata of every cell: all of a notebook but its outputs."""
    return [(cell.cell_type, cell.source, dict(cell.metadata)) for cell in notebook.cells]


def normalise(notebook: Notebook) -> None:
    """Remove from `notebook`, in place, what differs between two runs of the same page."""
    seen: Counter[str] = Counter()
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        content = f"{cell.cell_type}\0{cell.source}"
        seen[content] += 1
        cell["id"] = hashlib.sha256(f"{content}\0{seen[content]}".encode()).hexdigest()[:12]
        if is_setup(cell):
            cell["outputs"] = []
        for output in cell.get("outputs", []):
            output.pop("transient", None)
    notebook.metadata["language_info"] = LANGUAGE
    notebook.metadata["kernelspec"] = KERNEL
    notebook.metadata.pop("jupytext", None)
    notebook.nbformat, notebook.nbformat_minor = 4, 5


def write_bytes(path: Path, content: bytes) -> None:
    """Write `content` to `path`, all or nothing."""
    temporary = path.with_name(f".{path.name}.new")
    temporary.write_bytes(content)
    os.replace(temporary, path)


def write(notebook: Notebook, path: Path) -> None:
    """Write `notebook` to `path`, all or nothing."""
    write_bytes(path, f"{nbformat.writes(notebook)}\n".encode())


@dataclass(frozen=True)
class State:
    """How a notebook stands to its page.

    Attributes:
        stale: why its outputs are out of date; empty if they are not.
        in_step: whether its cells, outputs aside, are those of the page.
    """

    stale: tuple[str, ...]
    in_step: bool

    @property
    def fresh(self) -> bool:
        """Whether nothing needs to be done."""
        return self.in_step and not self.stale

    def __str__(self) -> str:
        """Say it in words."""
        if self.stale:
            return "stale: " + ", ".join(self.stale)
        return "fresh" if self.in_step else "text differs"


@dataclass(frozen=True)
class Book:
    """The notebooks of a project.

    Attributes:
        root: the project's folder, with `book/`, `ngem_tutorial/`, `results/` and
            `constraints.txt` in it.
    """

    root: Path = ROOT

    def pages(self) -> list[Path]:
        """Return the `.md` files of the book that are notebooks, sorted."""
        files = sorted((self.root / "book").rglob("*.md"))
        files = [file for file in files if "_build" not in file.parts]
        return [file for file in files if {"kernelspec", "jupytext"} & front_matter(file).keys()]

    def name(self, page: Path) -> str:
        """Return how a page is called: its path in the project."""
        return page.resolve().relative_to(self.root.resolve()).as_posix()

    def source(self, page: Path) -> Notebook:
        """Read a page as a notebook without outputs."""
        notebook = jupytext.read(page, fmt="md:myst")
        normalise(notebook)
        return notebook

    def code(self, page: Path) -> list[str]:
        """Return the code cells of a page."""
        return [cell.source for cell in code_cells(self.source(page))]

    def stored(self, page: Path) -> Notebook | None:
        """Read the executed notebook beside a page, or `None` if there is none."""
        path = page.with_suffix(".ipynb")
        return nbformat.read(path, as_version=4) if path.exists() else None

    def stamp(self, page: Path) -> dict[str, str]:
        """Return what a page's outputs depend on: hashes, and the versions in words.

        Args:
            page: the page's `.md`.

        Returns:
            One text for each kind of thing; outputs are out of date when one of them differs.

        Raises:
            FileNotFoundError: if the page declares results that are not in `results/`.
        """
        results: list[Path] = []
        for name in front_matter(page).get("ngem", {}).get("results", []):
            files = [file for file in (self.root / "results" / name).rglob("*") if file.is_file()]
            if not files:
                raise FileNotFoundError(f"{self.name(page)}: no files in results/{name}")
            results += files
        needed = Package(self.root / "ngem_tutorial").dependencies(self.code(page))
        versions = needed.versions(read_pins(self.root / "constraints.txt"))
        return {
            "code": hash_code(self.source(page)),
            "package": needed.hash(),
            "versions": ", ".join(f"{name} {version}" for name, version in versions.items()),
            "results": hash_files(results, self.root),
        }

    def state(self, page: Path) -> State:
        """Compare a page with the notebook beside it."""
        notebook = self.stored(page)
        if notebook is None:
            return State(("no notebook",), in_step=False)
        # A hand-edited notebook is told by its own cells, whatever its stamp says.
        was = notebook.metadata.get("ngem", {}).get("stamp", {})
        now = self.stamp(page)
        stale = [f"{part} changed" for part in now if was.get(part) != now[part]]
        if "code changed" not in stale and hash_code(notebook) != now["code"]:
            stale.append("notebook edited")
        source = self.source(page)
        in_step = cell_text(notebook) == cell_text(source) and _declared(notebook) == _declared(
            source
        )
        return State(tuple(stale), in_step)

    def execute(self, page: Path) -> None:
        """Run a page in a fresh kernel, in the page's folder, and store the outputs.

        Args:
            page: the page's `.md`.

        Raises:
            CellExecutionError: if a cell fails; the stored notebook stays as it was.
        """
        notebook = self.source(page)
        stamp = self.stamp(page)  # before running: an edit meanwhile makes the result stale
        client = NotebookClient(
            notebook,
            kernel_manager_class=_Kernel,
            resources={"metadata": {"path": str(page.parent)}},
            timeout=TIMEOUT,
            record_timing=False,
            coalesce_streams=True,
        )
        asyncio.run(client.async_execute(env=os.environ | ENVIRONMENT))  # a loop of its own
        normalise(notebook)
        notebook.metadata.setdefault("ngem", {})["stamp"] = stamp
        old = self.stored(page)
        made = old.metadata.get("ngem", {}).pop("made", None) if old else None
        # What comes out the same again was made when it first came out.
        notebook.metadata["ngem"]["made"] = made if old == notebook and made else self.made()
        write(notebook, page.with_suffix(".ipynb"))

    def made(self) -> dict[str, Any]:
        """Return when and where: date, processor, Python, and the commit of the package."""
        from ngem_tutorial import _machine  # not needed to look at notebooks, and slow

        return {
            "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
            "machine": f"{_machine.cpu_model()} ({os.cpu_count()} cores, {platform.system()})",
            "python": platform.python_version(),
            "commit": _machine.commit(self.root / "ngem_tutorial"),
        }

    def sync(self, page: Path) -> None:
        """Take over a page's prose and cell metadata; the code, hence the outputs, are the same."""
        old, new = self.stored(page), self.source(page)
        assert old is not None  # only a notebook that exists can differ in its text
        for before, after in zip(code_cells(old), code_cells(new), strict=True):
            after.outputs = before.outputs
        ran = [cell for cell in new.cells if cell.cell_type == "code" and cell.source.strip()]
        for number, cell in enumerate(ran, start=1):  # a setup cell may have come or gone
            cell.execution_count = number
        kept = {key: value for key, value in old.metadata["ngem"].items() if key in RECORDED}
        new.metadata.setdefault("ngem", {}).update(kept)
        write(new, page.with_suffix(".ipynb"))


def _declared(notebook: Notebook) -> dict[str, Any]:
    """Return what a page's front matter says under `ngem`."""
    own = notebook.metadata.get("ngem", {})
    return {key: value for key, value in own.items() if key not in RECORDED}


def update(book: Book, page: Path, force: bool = False) -> str:
    """Bring one notebook up to date and return what was done."""
    state = book.state(page)
    if force or state.stale:
        start = time.perf_counter()
        book.execute(page)
        return f"executed in {time.perf_counter() - start:.1f} s ({'forced' if force else state})"
    if not state.in_step:
        book.sync(page)
        return "text taken over"
    return "fresh"


def run(book: Book, pages: list[Path], force: bool = False, jobs: int = 1) -> int:
    """Bring `pages` up to date, `jobs` at a time; return how many failed."""
    failed = 0
    with ThreadPoolExecutor(jobs) as pool:  # the work is done by the kernels
        tasks = {pool.submit(update, book, page, force): page for page in pages}
        for number, task in enumerate(as_completed(tasks), start=1):
            line = f"[{number}/{len(pages)}] {book.name(tasks[task])} ... "
            try:
                print(line + task.result(), flush=True)
            except (CellExecutionError, CellTimeoutError, DeadKernelError, OSError) as error:
                failed += 1
                print(f"{line}failed; the stored notebook is unchanged", flush=True)
                print(error, file=sys.stderr, flush=True)
    return failed


def report(book: Book, pages: list[Path]) -> int:
    """Print the state of `pages`; return how many are not fresh."""
    width = max((len(book.name(page)) for page in pages), default=0)
    states = {page: book.state(page) for page in pages}
    for page, state in states.items():
        print(f"{book.name(page):{width}}  {state}")
    return sum(not state.fresh for state in states.values())


def main(arguments: list[str] | None = None, book: Book | None = None) -> int:
    """Run the command line; return the exit status."""
    book = book or Book()
    parser = argparse.ArgumentParser(description="Keep the book's notebooks in step.")
    parser.add_argument("command", choices=["status", "run", "check"])
    parser.add_argument("pages", nargs="*", metavar="PAGE", help="a page's .md; all pages if none")
    parser.add_argument("--force", action="store_true", help="run: execute fresh pages too")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="run: N pages at a time")
    options = parser.parse_intermixed_args(arguments)
    if options.jobs < 1:
        parser.error(f"--jobs takes a positive number, not {options.jobs}")
    known = {page.resolve(): page for page in book.pages()}
    unknown = [page for page in options.pages if Path(page).resolve() not in known]
    if unknown:
        parser.error(f"not a notebook page of the book: {', '.join(unknown)}")
    pages = [known[Path(page).resolve()] for page in options.pages] or list(known.values())
    if options.command == "run":
        return min(run(book, pages, options.force, options.jobs), 1)
    outdated = report(book, pages)
    return min(outdated, 1) if options.command == "check" else 0


if __name__ == "__main__":
    sys.exit(main())
