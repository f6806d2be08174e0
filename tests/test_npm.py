"""tools/npm.py and tools/mathematics.py: only what was pinned is unpacked, and what is needed."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import tarfile

import mathematics
import npm
import pytest


@pytest.fixture
def archive(tmp_path):
    """An npm package like KaTeX's, with one file that is kept and one that is not."""
    for name in ("katex.min.js", "katex.js"):
        (tmp_path / name).write_text("code")
    path = tmp_path / "package.tgz"
    with tarfile.open(path, "w:gz") as tar:
        for name in ("katex.min.js", "katex.js"):
            tar.add(tmp_path / name, f"package/dist/{name}")
    return path


def test_another_package_is_refused(archive):
    with pytest.raises(ValueError, match="not katex"):
        mathematics.KATEX.verify(archive)
    digest = base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()
    dataclasses.replace(mathematics.KATEX, integrity=f"sha512-{digest}").verify(archive)


def test_unpacks_what_is_kept_over_what_was_there(archive, tmp_path):
    target = tmp_path / "static"
    target.mkdir()
    (target / "old.js").touch()
    package = dataclasses.replace(mathematics.KATEX, target=target)
    assert not package.installed()
    package.unpack(archive)
    assert package.installed()
    assert {path.name for path in target.iterdir()} == {"katex.min.js", "VERSION"}


def test_without_npm_the_build_goes_on(tmp_path, monkeypatch, capsys):
    absent = dataclasses.replace(mathematics.KATEX, target=tmp_path / "absent")
    monkeypatch.setattr(mathematics, "KATEX", absent)
    monkeypatch.setattr(npm.shutil, "which", lambda _: None)
    assert mathematics.main() == 0
    assert "npm is not installed" in capsys.readouterr().out


def test_macros_with_and_without_arguments():
    settings = {"tex": {"macros": {"R": "\\mathbb{R}", "norm": ["\\lVert #1 \\rVert", 1]}}}
    assert mathematics.macros(settings) == {"\\R": "\\mathbb{R}", "\\norm": "\\lVert #1 \\rVert"}
    assert mathematics.macros({}) == {}
