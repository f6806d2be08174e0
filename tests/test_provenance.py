"""The page of provenance: up to date, and true to the files that it is made from."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import notebooks
import provenance
import pytest

ROOT = provenance.ROOT


def test_the_page_is_up_to_date() -> None:
    assert (ROOT / provenance.PAGE).read_text(encoding="utf-8") == provenance.render()


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with one set of results in two parts and one page."""
    shutil.copytree(ROOT / "results/two_gaussians", tmp_path / "results/two_gaussians")
    for name in ("book/theory/fisher_matrices.md", "book/theory/fisher_matrices.ipynb"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / "_toc.yml").write_text("root: book/theory/fisher_matrices\n")
    return tmp_path


def test_each_part_of_each_set_has_its_row(project: Path) -> None:
    text = provenance.render(project)
    parts = json.loads((project / "results/two_gaussians/paper/provenance.json").read_text())[
        "parts"
    ]
    assert len(parts) == 3
    for part in parts:
        assert text.count(f", `{part['commit']['hash'][:7]}` |") == 1
        assert part["date"][:10] in text
        assert f"optax {part['versions']['optax']}" in text
    assert "`two_gaussians`<br>damped nGEM alone" in text


def test_each_page_says_when_where_and_with_what(project: Path) -> None:
    path = project / "book/theory/fisher_matrices.ipynb"
    book = notebooks.Book(project)
    notebook = book.stored(path.with_suffix(".md"))
    notebook.metadata.ngem.pop("made", None)
    notebooks.write(notebook, path)
    assert "| {doc}`/book/theory/fisher_matrices` | not recorded |" in provenance.render(project)
    notebook.metadata.ngem["made"] = {
        "date": "2026-01-02", "machine": "Abacus (2 cores, Linux)", "python": "3.11.7",
        "commit": {"hash": "0123456789", "dirty": True},
    }  # fmt: skip
    notebook.metadata.ngem.stamp["versions"] = "jax 0.10.2, numpy 2.4.6"
    notebooks.write(notebook, path)
    text = provenance.render(project)
    row = "| 2026-01-02, `0123456`, edited | Abacus (2 cores, Linux), Python 3.11.7 |"
    assert row in text
    assert "| jax | 0.10.2 |\n| numpy | 2.4.6 |\n:::" in text
