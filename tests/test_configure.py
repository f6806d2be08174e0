"""tools/configure.py: one setting for the repository's address, and all that follows from it."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
import tomllib
import types
from pathlib import Path
from urllib.parse import quote

import configure
import jupytext
import nbformat
import notebooks
import pytest
import yaml
from IPython.core.inputtransformer2 import TransformerManager

ROOT = Path(__file__).resolve().parents[1]
EXAMPLE = "octocat/hello-world"
FILES = ("pyproject.toml", "_config.yml", "CITATION.cff", "README.md")
BOOK = notebooks.Book(ROOT)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of what `configure` writes, with the address that the project has."""
    for file in [ROOT / name for name in FILES] + list((ROOT / "book").rglob("*.md")):
        copy = tmp_path / file.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, copy)
    return tmp_path


def contents(tree: Path) -> dict[str, bytes]:
    files = (path for path in tree.rglob("*") if path.is_file())
    return {path.relative_to(tree).as_posix(): path.read_bytes() for path in files}


def setup_cells(page: Path) -> list[str]:
    return [c.source for c in jupytext.read(page, fmt="md:myst").cells if notebooks.is_setup(c)]


def test_everything_is_as_the_settings_say():
    settings = configure.read_settings()
    stale = [file.relative_to(ROOT).as_posix() for file in configure.outdated(settings)]
    assert stale == [], "run `make configure`"


def test_what_is_derived_agrees(tree):
    assert configure.main(["--repository", EXAMPLE], tree) == 0
    project = tomllib.loads((tree / "pyproject.toml").read_text())
    url = f"https://github.com/{EXAMPLE}"
    assert project["tool"]["ngem"]["repository"] == EXAMPLE
    assert project["project"]["urls"]["Repository"] == url
    citation = yaml.safe_load((tree / "CITATION.cff").read_text())
    assert citation["repository-code"] == url
    assert citation["url"] == project["project"]["urls"]["Documentation"]
    config = yaml.safe_load((tree / "_config.yml").read_text())
    assert config["html"]["baseurl"] == citation["url"]
    assert config["sphinx"]["config"]["html_theme_options"]["repository_url"] == url
    readme = (tree / "README.md").read_text()
    assert f"git+{url}@{configure.read_settings(tree).revision}" in readme
    assert f"{url}/actions/workflows/tests.yml/badge.svg" in readme
    addresses = re.findall(r"github\.com/([\w-]+/[\w-]+)", readme)
    assert set(addresses) == {EXAMPLE}


def extras_of(page: Path) -> tuple[str, ...]:
    return tuple(notebooks.front_matter(page).get("ngem", {}).get("extras", []))


def test_pages_that_need_the_same_extras_have_the_same_first_cell(tree):
    configure.main(["--repository", EXAMPLE], tree)
    pages = notebooks.Book(tree).pages()
    groups = {extras_of(page) for page in pages}
    assert {(), ("sampling",)} <= groups
    for extras in groups:
        same = [page for page in pages if extras_of(page) == extras]
        (cell,) = {text for page in same for text in setup_cells(page)}
        chosen = ",".join(("data", "plot", *extras))
        assert f"[{chosen}] @ git+https://github.com/{EXAMPLE}@" in cell
        assert f"@{configure.read_settings(tree).revision}" in cell
    for page in pages:
        cells = [c for c in jupytext.read(page, fmt="md:myst").cells if c.cell_type == "code"]
        assert [notebooks.is_setup(c) for c in cells] == [True] + [False] * (len(cells) - 1)


def test_again_changes_nothing_and_back_gives_the_same_bytes(tree, capsys):
    configure.main(["--repository", ""], tree)
    before = contents(tree)
    configure.main(["--repository", EXAMPLE], tree)
    configured = contents(tree)
    assert configured != before
    assert configure.main(["--repository", EXAMPLE], tree) == 0
    assert configure.main([], tree) == 0  # the address is kept where none is given
    assert contents(tree) == configured
    assert configure.main(["--check"], tree) == 0
    assert configure.main(["--repository", "", "--check"], tree) == 1
    assert contents(tree) == configured
    configure.main(["--repository", ""], tree)
    assert contents(tree) == before
    assert "README.md is out of date" in capsys.readouterr().out


def test_without_an_address_none_is_shown():
    settings = configure.Settings("", "1.2.3")
    blocks = [write(settings) for write, always in configure.BLOCKS.values() if always]
    assert "://" not in "".join([*blocks, configure.setup_cell(settings)])


@pytest.mark.parametrize(
    "wrong",
    ["hello", "https://github.com/a/b", "a/b/c", "a/b.git", "-a/b", "a--b/c", "a/..", 'a/"b', " "],
)
def test_a_wrong_address_is_refused(tree, capsys, wrong):
    before = contents(tree)
    assert configure.main([f"--repository={wrong}"], tree) == 2
    assert f"REPOSITORY must be empty or owner/name as on GitHub, such as octocat/hello-world; got {wrong!r}" in capsys.readouterr().err  # fmt: skip  # noqa: E501
    assert contents(tree) == before


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("configure: badges", "configure: medals", "a block is one of .*, not medals"),
        ("<!-- <<< configure -->", "", r"README.md: \d+ blocks begin and 0 end"),
    ],
)
def test_broken_markers_are_refused(tree, capsys, old, new, message):
    readme = tree / "README.md"
    readme.write_text(readme.read_text().replace(old, new))
    assert configure.main([], tree) == 2
    assert re.search(message, capsys.readouterr().err)


def test_an_extra_that_does_not_exist_is_refused(tree, capsys):
    page = tree / "book/practice/sampling_and_evidence.md"
    page.write_text(page.read_text().replace("extras: [sampling]", "extras: [samplers, plot]"))
    assert configure.main([], tree) == 2
    assert f"{page.relative_to(tree)}: no extra samplers\n" in capsys.readouterr().err


@pytest.mark.parametrize("repository", ["", EXAMPLE])
def test_the_first_cell_checks_the_extras_of_its_page(repository, monkeypatch, capsys):
    settings = configure.Settings(repository, "1.2.3")
    (cell,) = jupytext.reads(configure.setup_cell(settings, ["sampling"]), fmt="md:myst").cells
    code = TransformerManager().transform_cell(cell.source)
    exec(code, {})
    assert "ngem_tutorial" in capsys.readouterr().out
    find = importlib.util.find_spec
    gone = lambda name, *rest: None if name == "numpyro" else find(name, *rest)  # noqa: E731
    monkeypatch.setattr(importlib.util, "find_spec", gone)
    with pytest.raises(ImportError, match=r"^This page needs numpyro: .*sampling\]"):
        exec(code, {})


@pytest.mark.parametrize("repository", ["", EXAMPLE])
def test_on_colab_the_first_cell_says_what_the_raw_references_mean(repository, monkeypatch, capsys):
    """Colab knows no roles; the cell names all those that pages with code have."""
    settings = configure.Settings(repository, "1.2.3")
    (cell,) = jupytext.reads(configure.setup_cell(settings), fmt="md:myst").cells
    code = TransformerManager().transform_cell(cell.source)
    exec(code, {})
    assert "Colab" not in capsys.readouterr().out
    monkeypatch.setitem(sys.modules, "google.colab", types.ModuleType("google.colab"))
    exec(code, {})
    said = capsys.readouterr().out
    assert said.rstrip().endswith(settings.site if repository else "in the built book.")
    prose = "".join(
        c.source for page in BOOK.pages() for c in BOOK.source(page).cells if c.cell_type != "code"
    )
    roles = {re.sub("^(footcite):.*", r"\1", name) for name in re.findall(r"\{([a-z:]+)\}`", prose)}
    assert set(re.findall(r"\{([a-z:]+)\}", said)) >= roles >= {"eq", "prf:ref"}


def test_between_releases_the_branch_is_installed():
    assert "@v1.2.3" in configure.setup_cell(configure.Settings(EXAMPLE, "1.2.3"))
    assert "@main" in configure.setup_cell(configure.Settings(EXAMPLE, "1.3.0.dev0"))


def test_a_site_of_its_own_has_no_folder():
    assert configure.Settings("Octocat/octocat.github.io", "1").site == "https://octocat.github.io/"
    assert configure.Settings("Octocat/book", "1").site == "https://octocat.github.io/book/"


def test_the_buttons_of_the_built_book(tree):
    """A book of two pages, built with the settings of this one and an example address."""
    shutil.rmtree(tree / "book")
    configure.main(["--repository", EXAMPLE], tree)
    for folder in ("tools", "book/_static", "book/_templates"):
        if (ROOT / folder).exists():
            mathjax = shutil.ignore_patterns("mathjax", "__pycache__")
            shutil.copytree(ROOT / folder, tree / folder, ignore=mathjax)
    (tree / "book").mkdir(exist_ok=True)
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("# First")])
    nbformat.write(notebook, tree / "book/intro.ipynb")
    (tree / "book/notation.md").write_text("# Second\n")
    (tree / "book/references.bib").write_text("")
    toc = {"format": "jb-book", "root": "book/intro", "chapters": [{"file": "book/notation"}]}
    (tree / "_toc.yml").write_text(yaml.safe_dump(toc))
    program = "from jupyter_book.cli.main import main; main()"
    command = [sys.executable, "-c", program, "build", str(tree), "--quiet"]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    url = f"https://github.com/{EXAMPLE}"
    for name, launch in (("intro", True), ("notation", False)):
        html = (tree / f"_build/html/book/{name}.html").read_text()
        assert f'href="{url}"' in html
        assert f'href="{url}/edit/main/book/{name}.md"' in html
        assert f'href="{url}/issues/new?title={quote("Issue on page /")[:10]}' in html
        colab = f"https://colab.research.google.com/github/{EXAMPLE}/blob/main/book/{name}.ipynb"
        assert (f'href="{colab}"' in html) == launch
