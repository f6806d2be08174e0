"""Find or install a Chromium for the tests of the pages, the screenshots and the PDF.

As a script it installs what is missing: Chromium with apt-get where that is allowed, or else
Playwright's own, and axe-core, which checks accessibility.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mathematics
from npm import UNAVAILABLE, Package

ROOT = Path(__file__).resolve().parents[1]
AXE = Package(
    name="axe-core",
    version="4.14.1",
    integrity=(
        "sha512-"
        "FHfa+lmNjQZfJz1q8wKqIDwC6DExcHt/pkjNQb09a3NPjCKg2rhu5qb2S4r76ASyFNNtuFooJpZe37OgudVGtQ=="
    ),
    kept=("LICENSE", "axe.min.js"),
    stripped="",
    target=ROOT / "_build" / "axe-core",
)
NAMES = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")
# No sandbox, as root and in containers; and nothing that calls home.
OPTIONS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


def find() -> str | None:
    """Return the path of a Chromium: one of the machine, else Playwright's, else `None`."""
    for name in NAMES:
        if path := shutil.which(name):
            return path
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        return None
    with sync_playwright() as playwright:
        path = playwright.chromium.executable_path
    return path if Path(path).is_file() else None


def missing() -> str | None:
    """Return what the tests of the pages lack on this machine, or `None`."""
    try:
        import playwright  # noqa: F401
    except ImportError:
        return "needs a browser, and the package playwright is not installed"
    if find() is None:
        return "needs a browser, and there is no Chromium (python tools/browser.py installs one)"
    if not AXE.installed() or not mathematics.KATEX.installed():
        return "needs a browser, and axe-core or KaTeX is not there (make test fetches them)"
    return None


@contextlib.contextmanager
def chromium() -> Iterator[Any]:
    """Start a headless Chromium; give Playwright's `Browser`."""
    from playwright.sync_api import sync_playwright

    path = find()  # before Playwright starts: it does not start twice
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(OPTIONS))
        try:
            yield browser
        finally:
            browser.close()


def install() -> None:
    """Install a Chromium with apt-get if this is allowed, or else Playwright's."""
    if os.geteuid() == 0 and shutil.which("apt-get"):
        quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        for command in (["update"], ["install", "--yes", "--no-install-recommends", "chromium"]):
            subprocess.run(
                ["apt-get", "-qq", *command], env=quiet, capture_output=True, check=False
            )
    if find() is None:
        command = [sys.executable, "-m", "playwright", "install", "chromium"]
        subprocess.run(command, capture_output=True, check=True, timeout=600)


def main() -> int:
    """Install what is missing; say so when it cannot be had."""
    try:
        if find() is None:
            install()
        AXE.fetch()
    except UNAVAILABLE as error:
        print(f"browser: {error}; the tests of the pages will be skipped")
    return 0


if __name__ == "__main__":
    sys.exit(main())
