"""Put MathJax beside the book, so that mathematics is typeset without a network.

As a script it fetches the pinned npm package, checks it and keeps the part a reader loads. As a
Sphinx extension it points the book at that copy, or leaves Sphinx's default when there is none.
"""

from __future__ import annotations

import base64
import hashlib
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

VERSION = "3.2.2"
INTEGRITY = (
    "sha512-"
    "Bt+SSVU8eBG27zChVewOicYs7Xsdt40qm4+UpHyX7k0/O9NliPc+x77k1/FEsPsjKPZGJvtRZM1vO+geW0OhGw=="
)
KEPT = (
    "package/LICENSE",
    "package/es5/tex-chtml.js",
    "package/es5/input/tex/extensions/",
    "package/es5/output/chtml/fonts/woff-v2/",
)
TARGET = Path(__file__).resolve().parents[1] / "book" / "_static" / "mathjax"


def installed(target: Path = TARGET) -> bool:
    """Tell whether the pinned version is in place."""
    stamp = target / "VERSION"
    return stamp.is_file() and stamp.read_text().strip() == VERSION


def verify(archive: Path) -> None:
    """Raise `ValueError` unless `archive` is the package that was pinned."""
    digest = base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()
    if f"sha512-{digest}" != INTEGRITY:
        raise ValueError(f"{archive.name} is not mathjax {VERSION}: its sha512 is {digest}")


def unpack(archive: Path, target: Path) -> None:
    """Write the kept files of the npm package `archive` to `target`, all or nothing."""
    fresh = target.with_name(target.name + ".new")
    shutil.rmtree(fresh, ignore_errors=True)
    with tarfile.open(archive) as tar:
        for member in tar.getmembers():
            if member.isfile() and member.name.startswith(KEPT):
                path = fresh / member.name.removeprefix("package/").removeprefix("es5/")
                path.parent.mkdir(parents=True, exist_ok=True)
                content = tar.extractfile(member)
                assert content is not None  # regular files have content
                path.write_bytes(content.read())
    (fresh / "VERSION").write_text(VERSION + "\n")
    shutil.rmtree(target, ignore_errors=True)
    fresh.rename(target)


def fetch(target: Path = TARGET) -> None:
    """Download the package with npm, check it and unpack it to `target`."""
    npm = shutil.which("npm")
    if npm is None:
        raise FileNotFoundError("npm is not installed")
    with tempfile.TemporaryDirectory() as folder:
        command = [npm, "pack", "--silent", f"mathjax@{VERSION}"]
        subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=300)
        archive = next(Path(folder).glob("*.tgz"))
        verify(archive)
        unpack(archive, target)


def main() -> int:
    """Fetch MathJax unless it is there; say so when it cannot be had."""
    if not installed():
        try:
            fetch()
        except (OSError, StopIteration, subprocess.SubprocessError) as error:
            print(f"mathjax: no local copy ({error}); pages will load it from Sphinx's default CDN")
    return 0


def _use_local_copy(app: Any, config: Any) -> None:
    if installed():
        config.mathjax_path = "mathjax/tex-chtml.js"


def setup(app: Any) -> dict[str, Any]:
    """Register the extension with Sphinx."""
    app.connect("config-inited", _use_local_copy)
    return {"version": VERSION, "parallel_read_safe": True, "parallel_write_safe": True}


if __name__ == "__main__":
    sys.exit(main())
