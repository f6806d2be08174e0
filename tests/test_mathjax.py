"""tools/mathjax.py: only the pinned package is unpacked, and only the part that is needed."""

from __future__ import annotations

import base64
import hashlib
import tarfile

import mathjax
import pytest


@pytest.fixture
def archive(tmp_path):
    """An npm package like MathJax's, with one file that is kept and one that is not."""
    for name in ("tex-chtml.js", "tex-svg.js"):
        (tmp_path / name).write_text("code")
    path = tmp_path / "package.tgz"
    with tarfile.open(path, "w:gz") as tar:
        for name in ("tex-chtml.js", "tex-svg.js"):
            tar.add(tmp_path / name, f"package/es5/{name}")
    return path


def test_another_package_is_refused(archive, monkeypatch):
    with pytest.raises(ValueError, match="not mathjax"):
        mathjax.verify(archive)
    digest = base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()
    monkeypatch.setattr(mathjax, "INTEGRITY", f"sha512-{digest}")
    mathjax.verify(archive)


def test_unpacks_what_is_kept_over_what_was_there(archive, tmp_path):
    target = tmp_path / "static"
    target.mkdir()
    (target / "old.js").touch()
    assert not mathjax.installed(target)
    mathjax.unpack(archive, target)
    assert mathjax.installed(target)
    assert {path.name for path in target.iterdir()} == {"tex-chtml.js", "VERSION"}


def test_without_npm_the_build_goes_on(monkeypatch, capsys):
    monkeypatch.setattr(mathjax, "installed", lambda: False)
    monkeypatch.setattr(mathjax.shutil, "which", lambda _: None)
    assert mathjax.main() == 0
    assert "npm is not installed" in capsys.readouterr().out
