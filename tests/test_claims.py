"""Every proposition of the book is checked by a cell of its page and by a test."""

from __future__ import annotations

from pathlib import Path

import claims
import pytest

PAGE = """---
kernelspec: {display_name: Python 3, language: python, name: python3}
jupytext: {text_representation: {extension: .md, format_name: myst}}
---

# Page

```{prf:proposition} One
:label: prop-one
Text.
```

```{code-cell} ipython3
:tags: [claim-prop-one]

print(True)
```
"""
TEST = """import pytest


@pytest.mark.claim("prop-one")
def test_one() -> None:
    assert True
"""


def test_every_claim_is_checked_and_listed() -> None:
    assert claims.find_claims(claims.ROOT), "no claim found: the pattern is wrong"
    assert claims.problems() == []


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "book/theory").mkdir(parents=True)
    (tmp_path / "book/theory/page.md").write_text(PAGE)
    (tmp_path / "_toc.yml").write_text("root: book/theory/page\n")
    (tmp_path / "tests/theory").mkdir(parents=True)
    (tmp_path / "tests/theory/test_page.py").write_text(TEST)
    write(tmp_path)
    return tmp_path


def write(root: Path) -> None:
    (root / claims.TABLE).parent.mkdir(parents=True, exist_ok=True)
    (root / claims.TABLE).write_text(claims.render(claims.find_claims(root), root))


def test_a_checked_claim_is_listed(root: Path) -> None:
    assert claims.problems(root) == []
    row = (root / claims.TABLE).read_text().splitlines()[-1]
    assert row == "| {prf:ref}`prop-one`: One | 1 | test one |"


@pytest.mark.parametrize(
    ("file", "old", "new", "problem"),
    [
        ("book/theory/page.md", "claim-prop-one", "other", "no cell is tagged claim-prop-one"),
        ("tests/theory/test_page.py", '"prop-one"', '"prop-two"', "no test is marked with it"),
        ("tests/theory/test_page.py", '"prop-one"', '"prop-two"', "prop-two: marked in"),
        ("book/theory/page.md", "proposition} One", "proposition} Two", "out of date"),
    ],
)
def test_what_is_missing_is_named(root: Path, file: str, old: str, new: str, problem: str) -> None:
    path = root / file
    path.write_text(path.read_text().replace(old, new))
    assert any(problem in found for found in claims.problems(root))
