"""Build the HTML book unless it is current, and serve it."""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import functools
import hashlib
import http.server
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import mathematics

ROOT = Path(__file__).resolve().parents[1]
HTML = ROOT / "_build" / "html"
STAMP = HTML / ".inputs"
SOURCES = ("_config.yml", "_toc.yml", "CHANGELOG.md", "CITATION.cff", "constraints.txt")
FOLDERS = ("book", "tools", "ngem_tutorial")
PROGRAM = "from jupyter_book.cli.main import main; main()"
OPTIONS = ("--all", "--quiet", "--warningiserror", "--nitpick", "--keep-going")


def inputs(root: Path = ROOT) -> str:
    """Return a digest of the names and contents of all files that the book is built from."""
    files = [root / name for name in SOURCES]
    files += [
        path
        for folder in FOLDERS
        for path in (root / folder).rglob("*")
        if not {"__pycache__", ".ipynb_checkpoints"} & set(path.parts)
    ]
    digest = hashlib.sha256()
    for path in sorted(path for path in files if path.is_file()):
        digest.update(f"{path.relative_to(root)}\0".encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def current() -> bool:
    """Tell whether the book in `_build/html` is that of the present files."""
    return STAMP.is_file() and STAMP.read_text() == inputs()


def build(everything: bool = False) -> None:
    """Build the book unless it is current; warnings are errors. One process at a time builds.

    Args:
        everything: build although it is current.

    Raises:
        RuntimeError: Sphinx failed; the message is what it wrote.
    """
    mathematics.main()
    HTML.parent.mkdir(exist_ok=True)
    with (HTML.parent / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if current() and not everything:
            return
        shutil.rmtree(HTML, ignore_errors=True)  # Sphinx leaves pages that are no longer made
        wanted = inputs()
        result = subprocess.run(
            [sys.executable, "-c", PROGRAM, "build", ROOT, *OPTIONS],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if result.returncode:
            raise RuntimeError(result.stdout)
        STAMP.write_text(wanted)


def pages() -> list[str]:
    """Return the addresses of the built pages, such as `book/intro.html`, in order."""
    return [path.relative_to(HTML).as_posix() for path in sorted((HTML / "book").rglob("*.html"))]


class _Quiet(http.server.SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass


@contextlib.contextmanager
def served(folder: Path = HTML) -> Iterator[str]:
    """Serve a folder on a free port of this machine; the address ends in a slash."""
    handler = functools.partial(_Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


def main() -> int:
    """Build the book and say where it is."""
    parser = argparse.ArgumentParser(description="Build the HTML book unless it is current.")
    parser.add_argument("--all", action="store_true", help="build although it is current")
    try:
        build(parser.parse_args().all)
    except RuntimeError as error:
        print(error)
        return 1
    print(f"book: {HTML / 'index.html'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
