"""The pages of the book: up to date, complete, and readable without seeing the pictures."""

from __future__ import annotations

import fnmatch
import re
from pathlib import Path
from typing import Any

import nbformat
import notebooks
import pytest
import yaml

BOOK = notebooks.Book()
PAGES = BOOK.pages()
TEXT_PAGES = sorted(set((BOOK.root / "book").rglob("*.md")) - set(PAGES))
each_page = pytest.mark.parametrize("page", PAGES, ids=BOOK.name)


def code_cells(notebook: Any) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def stored(page: Path) -> Any:
    notebook = BOOK.stored(page)
    assert notebook is not None, "no notebook beside the page: run `make notebooks`"
    return notebook


@each_page
def test_fresh(page):
    state = BOOK.state(page)
    assert not state.stale, "run `make notebooks`"


@each_page
def test_same_cells_in_both_files(page):
    """Sources, tags and captions; prose included."""
    assert notebooks.cell_text(stored(page)) == notebooks.cell_text(BOOK.source(page))
    assert BOOK.state(page).in_step, "run `make notebooks`"


@each_page
def test_executed_from_top_to_bottom_without_complaint(page):
    cells = [cell for cell in code_cells(stored(page)) if cell.source.strip()]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    for output in (output for cell in cells for output in cell.outputs):
        assert output.output_type != "error"
        assert output.get("name") != "stderr", output.text


def checked_without_output(notebook: Any) -> list[str]:
    """Sources of the check-tagged cells that nbval would pass without comparing anything."""
    checked = [
        c for c in code_cells(notebook) if "nbval-check-output" in c.metadata.get("tags", [])
    ]
    return [cell.source for cell in checked if not cell.outputs]


@each_page
def test_checked_cells_have_output(page):
    assert checked_without_output(stored(page)) == []


def undescribed_figures(notebook: Any) -> list[str]:
    """Sources of the cells that draw a picture and lack a caption, a name or alternative text."""
    lacking = []
    for cell in code_cells(notebook):
        pictures = [output for output in cell.outputs if "image/png" in output.get("data", {})]
        options = cell.metadata.get("mystnb", {})
        figure, image = options.get("figure", {}), options.get("image", {})
        described = figure.get("caption") and figure.get("name") and image.get("alt")
        # A cell has one caption, so it may draw one picture.
        if pictures and (not described or len(pictures) > 1):
            lacking.append(cell.source)
    return lacking


@each_page
def test_figures_are_described(page):
    assert undescribed_figures(stored(page)) == []


def test_the_checks_above_can_fail():
    picture = nbformat.v4.new_output("display_data", {"image/png": ""})
    cell = nbformat.v4.new_code_cell("draw()", outputs=[picture])
    cell.metadata = {"mystnb": {"figure": {"caption": "A curve.", "name": "fig-a"}}}
    notebook = nbformat.v4.new_notebook(cells=[cell])
    assert undescribed_figures(notebook) == ["draw()"]
    cell.metadata.mystnb["image"] = {"alt": "A rising curve."}
    assert undescribed_figures(notebook) == []
    cell.outputs = [picture, picture]
    assert undescribed_figures(notebook) == ["draw()"]
    cell.metadata.tags, cell.outputs = ["nbval-check-output"], []
    assert checked_without_output(notebook) == ["draw()"]


@each_page
def test_outputs_are_the_same_everywhere(page):
    """No memory addresses and no paths of the machine in what is shown."""
    for cell in code_cells(stored(page)):
        for output in cell.outputs:
            text = output.get("text", "") + str(output.get("data", {}).get("text/plain", ""))
            assert not re.search(r"\b0x[0-9a-f]{6,}|/home/|/root/|/tmp/|/Users/", text)


LOADS = re.compile(r"results\.(?:load|load_set|read_provenance)\(\s*[\"']([\w-]+)")
EXPERIMENTS = re.compile(r"^from ngem_tutorial\.experiments(\.\w+)? import (\w+)", re.MULTILINE)


@each_page
def test_results_that_are_read_are_declared(page):
    notebook = BOOK.source(page)
    read = {name for cell in code_cells(notebook) for name in LOADS.findall(cell.source)}
    assert read <= set(notebook.metadata.get("ngem", {}).get("results", []))


@each_page
def test_a_page_imports_the_experiments_that_it_shows_as_a_whole(page):
    """Helpers that several pages need are in the package's own modules, not in an experiment."""
    notebook = BOOK.source(page)
    shown = notebook.metadata.get("ngem", {}).get("results", [])
    for cell in code_cells(notebook):
        for inside, name in EXPERIMENTS.findall(cell.source):
            assert not inside, f"{name} of{inside}"
            assert not shown or name in shown


def test_loads_are_recognised():
    assert LOADS.findall("t = results.load(\"two_gaussians/runs\")\nresults.load(\n  'uci')") == [
        "two_gaussians",
        "uci",
    ]


MACROS = yaml.safe_load((BOOK.root / "_config.yml").read_text())["sphinx"]["config"][
    "mathjax3_config"
]["tex"]["macros"]


@each_page
def test_other_viewers_of_notebooks_can_read_it(page):
    """They show roles as they stand, and do not know the book's macros."""
    prose = "\n".join(c.source for c in BOOK.source(page).cells if c.cell_type == "markdown")
    assert "{doc}`" not in prose
    # Between colons the text of a directive is text; between backticks it would be code.
    assert re.findall(r"^`{3,}\{[\w:-]+\}", prose, re.MULTILINE) == []
    for target in re.findall(r"\]\((\.{0,2}[\w./]+\.(?:md|ipynb))\)", prose):
        assert (page.parent / target).is_file()
    assert set(re.findall(r"\\([A-Za-z]+)", prose)) & MACROS.keys() == set()


def toc_files(node: Any) -> list[str]:
    if isinstance(node, list):
        return [name for item in node for name in toc_files(item)]
    if isinstance(node, dict):
        own = [node[key] for key in ("root", "file") if key in node]
        return own + [name for value in node.values() for name in toc_files(value)]
    return []


def test_table_of_contents_lists_every_page_once():
    toc = toc_files(yaml.safe_load((BOOK.root / "_toc.yml").read_text()))
    pages = [BOOK.name(page).removesuffix(".md") for page in [*PAGES, *TEXT_PAGES]]
    assert sorted(toc) == sorted(pages)


def test_sphinx_reads_one_file_per_page():
    """The notebook of a page with code, the Markdown of a page without."""
    config = yaml.safe_load((BOOK.root / "_config.yml").read_text())
    patterns = [pattern for pattern in config["exclude_patterns"] if "/" in pattern]

    def excluded(page: Path) -> bool:
        return any(
            fnmatch.fnmatch(BOOK.name(page), pattern) for pattern in patterns if "/" in pattern
        )

    assert [BOOK.name(page) for page in PAGES if not excluded(page)] == []
    assert [BOOK.name(page) for page in TEXT_PAGES if excluded(page)] == []
    assert [BOOK.name(page) for page in TEXT_PAGES if page.with_suffix(".ipynb").exists()] == []


def test_no_notebook_without_page():
    notebook_files = {path.with_suffix(".md") for path in (BOOK.root / "book").rglob("*.ipynb")}
    assert notebook_files - set(PAGES) == set()


@pytest.mark.parametrize("page", [*PAGES, *TEXT_PAGES], ids=BOOK.name)
def test_footnotes_are_defined(page):
    text = page.read_text(encoding="utf-8")
    defined = set(re.findall(r"^\[\^([\w-]+)\]:", text, re.MULTILINE))
    assert set(re.findall(r"\[\^([\w-]+)\](?!:)", text)) <= defined
