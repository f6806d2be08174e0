"""tools/notebooks.py on a small project of its own: what makes a page stale, and what does not."""

from __future__ import annotations

import datetime
from pathlib import Path

import nbformat
import notebooks
import pytest

PAGE = """\
---
kernelspec:
  display_name: Python 3
  language: python
  name: python3
ngem:
  results: [runs]
---

# A page

Some prose.

```{code-cell} ipython3
from pathlib import Path

if False:  # what a page depends on is read, not run
    from ngem_tutorial import g

print(2 + 3, Path.cwd().name)
```
"""


@pytest.fixture(scope="module")
def executed(tmp_path_factory) -> bytes:
    """The executed notebook of PAGE, run once."""
    book = make_project(tmp_path_factory.mktemp("executed"))
    book.execute(book.pages()[0])
    return (book.root / "book/theory/page.ipynb").read_bytes()


@pytest.fixture
def book(tmp_path, executed) -> notebooks.Book:
    """A project with one fresh page."""
    book = make_project(tmp_path)
    (tmp_path / "book/theory/page.ipynb").write_bytes(executed)
    return book


def make_project(root: Path) -> notebooks.Book:
    files = {
        "book/theory/page.md": PAGE,
        "book/notation.md": "# Notation\n\nWithout code.\n",
        "ngem_tutorial/__init__.py": "from ngem_tutorial.b import g\n",
        "ngem_tutorial/b.py": "import numpy\n\n\ndef g():\n    return 2\n",
        "constraints.txt": "# Pins.\nnumpy==2.0.0\nseaborn==0.13\n",
        "results/runs/table.csv": "seed,nll\n1,0.5\n",
    }
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return notebooks.Book(root)


def page_of(book: notebooks.Book) -> Path:
    return book.root / "book/theory/page.md"


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_pages_are_those_with_a_kernel(book):
    assert book.pages() == [page_of(book)]


def test_executed_in_its_folder_and_without_noise(book):
    notebook = book.stored(page_of(book))
    code = notebook.cells[1]
    assert [output.text for output in code.outputs] == ["5 theory\n"]
    assert code.execution_count == 1
    assert "execution" not in code.metadata
    assert "version" not in notebook.metadata.language_info
    assert book.state(page_of(book)).fresh


def test_says_when_and_where_its_outputs_were_made(book):
    made = book.stored(page_of(book)).metadata.ngem.made
    assert made.commit.hash == "unknown"  # the project is in no repository
    assert datetime.date.fromisoformat(made.date) <= datetime.datetime.now(datetime.UTC).date()
    assert "cores" in made.machine


def test_other_outputs_are_made_anew_and_the_same_ones_are_not(book):
    page = page_of(book)
    notebook = book.stored(page)
    notebook.metadata.ngem.made["date"] = "2000-01-01"
    notebooks.write(notebook, page.with_suffix(".ipynb"))
    book.execute(page)
    assert book.stored(page).metadata.ngem.made.date == "2000-01-01"
    edit(page, "2 + 3", "3 + 3")
    book.execute(page)
    assert book.stored(page).metadata.ngem.made.date != "2000-01-01"


def test_executing_again_changes_no_byte(book, executed):
    book.execute(page_of(book))
    assert page_of(book).with_suffix(".ipynb").read_bytes() == executed


@pytest.mark.parametrize(
    ("file", "old", "new", "reason"),
    [
        ("book/theory/page.md", "2 + 3", "2 + 4", "code changed"),
        (
            "book/theory/page.md",
            "} ipython3\n",
            "} ipython3\n:tags: [hide-input]\n\n",
            "code changed",
        ),
        ("book/theory/page.ipynb", "2 + 3", "2 + 4", "notebook edited"),
        ("ngem_tutorial/b.py", "2", "3", "package changed"),
        ("constraints.txt", "2.0.0", "2.0.1", "versions changed"),
        ("results/runs/table.csv", "0.5", "0.6", "results changed"),
    ],
)
def test_what_makes_a_page_stale(book, file, old, new, reason, capsys):
    edit(book.root / file, old, new)
    assert book.state(page_of(book)).stale == (reason,)
    assert notebooks.main(["check"], book) == 1
    assert reason in capsys.readouterr().out


def test_renamed_files_make_a_page_stale(book):
    (book.root / "results/runs/table.csv").rename(book.root / "results/runs/other.csv")
    (book.root / "ngem_tutorial/b.py").rename(book.root / "ngem_tutorial/c.py")
    edit(book.root / "ngem_tutorial/__init__.py", "tutorial.b", "tutorial.c")
    assert book.state(page_of(book)).stale == ("package changed", "results changed")


def test_what_no_output_depends_on_does_not(book):
    (book.root / "ngem_tutorial/b.py").write_bytes(
        b'"""New."""\r\nimport numpy\r\ndef g():\r\n  return 2  # two\r\n'
    )
    (book.root / "ngem_tutorial/c.py").write_text("x = 1\n")
    (book.root / "ngem_tutorial/notes.txt").touch()
    edit(book.root / "constraints.txt", "seaborn==0.13", "seaborn==0.14")
    (book.root / "results/other").mkdir()
    (book.root / "results/other/table.csv").touch()
    assert book.state(page_of(book)).fresh


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("Some prose.", "Other prose."),
        ("} ipython3\n", "} ipython3\n---\nmystnb:\n  image:\n    alt: five\n---\n"),
        ("results: [runs]", "results: [runs]\n  needs: [mnist]"),
    ],
)
def test_text_is_taken_over_without_executing(book, monkeypatch, old, new):
    edit(page_of(book), old, new)
    state = book.state(page_of(book))
    assert not state.stale
    assert not state.in_step
    assert notebooks.main(["check"], book) == 1

    monkeypatch.setattr(notebooks.Book, "execute", lambda *_: pytest.fail("executed"))
    assert notebooks.main(["run"], book) == 0
    assert book.state(page_of(book)).fresh
    assert book.stored(page_of(book)).cells[1].outputs[0].text == "5 theory\n"


def test_run_executes_the_stale_only(book, monkeypatch):
    ran = []
    monkeypatch.setattr(notebooks.Book, "execute", lambda _, page: ran.append(page.name))
    assert notebooks.main(["run"], book) == 0
    assert ran == []
    edit(book.root / "ngem_tutorial/b.py", "2", "3")
    assert notebooks.main(["run"], book) == 0
    assert ran == ["page.md"]
    assert notebooks.main(["run", "--force", str(page_of(book))], book) == 0
    assert ran == ["page.md", "page.md"]


def test_pages_run_side_by_side_each_with_a_line_of_its_own(book, capsys):
    source = PAGE.replace("results: [runs]", "needs: []")
    for name, cell in [("good", "print(1 + 1)"), ("bad", "1 / 0")]:
        text = (
            source[: source.index("```{code-cell}")] + f"```{{code-cell}} ipython3\n{cell}\n```\n"
        )
        (book.root / f"book/theory/{name}.md").write_text(text)
    assert notebooks.main(["run", "--jobs", "2"], book) == 1
    lines = sorted(capsys.readouterr().out.splitlines(), key=lambda line: line.split("] ")[1])
    assert [line.split("] ")[0] for line in sorted(lines)] == ["[1/3", "[2/3", "[3/3"]
    assert lines[0].endswith("book/theory/bad.md ... failed; the stored notebook is unchanged")
    assert "book/theory/good.md ... executed in " in lines[1]
    assert lines[2].endswith("book/theory/page.md ... fresh")
    assert notebooks.main(["status"], book) == 0
    with pytest.raises(SystemExit):
        notebooks.main(["run", "--jobs", "0"], book)


def test_a_failing_cell_leaves_the_notebook(book, executed, capfd):
    edit(page_of(book), "2 + 3", "2 / 0")
    assert notebooks.main(["run"], book) == 1
    printed = capfd.readouterr().err
    assert "2 / 0" in printed
    assert "ZeroDivisionError" in printed
    assert page_of(book).with_suffix(".ipynb").read_bytes() == executed
    files = {path.name for path in page_of(book).parent.iterdir()}
    assert files == {"page.md", "page.ipynb"}


def test_missing_results_and_unknown_pages_are_named(book, capsys):
    (book.root / "results/runs/table.csv").unlink()
    with pytest.raises(FileNotFoundError, match=r"page\.md: no files in results/runs"):
        book.state(page_of(book))
    with pytest.raises(SystemExit):
        notebooks.main(["run", str(book.root / "book/notation.md")], book)
    assert "book/notation.md" in capsys.readouterr().err


def test_a_page_without_notebook_is_stale(book):
    page_of(book).with_suffix(".ipynb").unlink()
    assert book.state(page_of(book)).stale == ("no notebook",)


def test_stored_notebooks_are_valid(executed):
    nbformat.validate(nbformat.reads(executed.decode(), as_version=4))
