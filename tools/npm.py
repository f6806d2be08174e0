"""Fetch pinned npm packages, and keep the few files of each that the book and its tests need."""

from __future__ import annotations

import base64
import hashlib
import shutil
import subprocess
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Package:
    """A version of a package, the digest that npm publishes for it, and where its files go."""

    name: str
    version: str
    integrity: str
    kept: tuple[str, ...]  # beginnings of the paths in the package that are kept
    stripped: str  # folder in the package that is left out of the paths
    target: Path

    def installed(self) -> bool:
        """Tell whether this version is in place."""
        stamp = self.target / "VERSION"
        return stamp.is_file() and stamp.read_text().strip() == self.version

    def verify(self, archive: Path) -> None:
        """Raise `ValueError` unless `archive` is the package that was pinned."""
        digest = base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()
        if f"sha512-{digest}" != self.integrity:
            raise ValueError(
                f"{archive.name} is not {self.name} {self.version}: its sha512 is {digest}"
            )

    def unpack(self, archive: Path) -> None:
        """Write the kept files of `archive` to the target, all or nothing."""
        fresh = self.target.with_name(self.target.name + ".new")
        shutil.rmtree(fresh, ignore_errors=True)
        with tarfile.open(archive) as tar:
            for member in tar.getmembers():
                name = member.name.removeprefix("package/")
                if member.isfile() and name.startswith(self.kept):
                    path = fresh / name.removeprefix(self.stripped)
                    path.parent.mkdir(parents=True, exist_ok=True)
                    content = tar.extractfile(member)
                    assert content is not None  # regular files have content
                    path.write_bytes(content.read())
        (fresh / "VERSION").write_text(self.version + "\n")
        shutil.rmtree(self.target, ignore_errors=True)
        fresh.rename(self.target)

    def fetch(self) -> None:
        """Download the package with npm, check it and unpack it, unless it is there."""
        if self.installed():
            return
        npm = shutil.which("npm")
        if npm is None:
            raise FileNotFoundError("npm is not installed")
        with tempfile.TemporaryDirectory() as folder:
            command = [npm, "pack", "--silent", f"{self.name}@{self.version}"]
            subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=300)
            archive = next(Path(folder).glob("*.tgz"))
            self.verify(archive)
            self.unpack(archive)


# What `fetch` raises where a package cannot be had. That it is not the pinned one is another case.
UNAVAILABLE = (OSError, StopIteration, subprocess.SubprocessError)
