"""Pages on installing and citing agree with the files that programs read."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
CITE = (ROOT / "book/reference/cite.md").read_text(encoding="utf-8")
CITATION = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))


def entries(text: str) -> dict[str, dict[str, str]]:
    """The entries of a bibliography with one field to a line, without TeX's backslashes."""
    found = {}
    for key, body in re.findall(r"^@\w+\{(\w+),\n(.*?)^\}", text, re.MULTILINE | re.DOTALL):
        fields = re.findall(r"^ +(\w+) *= \{(.*)\},?$", body, re.MULTILINE)
        found[key] = {name: value.replace("\\", "") for name, value in fields}
    return found


def test_the_paper_is_cited_as_in_the_bibliography() -> None:
    bibliography = entries((ROOT / "book/references.bib").read_text(encoding="utf-8"))
    assert entries(CITE)["chen2026ngem"] == bibliography["chen2026ngem"]


def test_the_paper_is_cited_as_in_the_citation_file() -> None:
    (paper,) = CITATION["references"]
    names = [f"{author['family-names']}, {author['given-names']}" for author in paper["authors"]]
    cited = entries(CITE)["chen2026ngem"]
    assert cited["title"] == paper["title"]
    assert cited["author"] == " and ".join(names)
    assert cited["year"] == str(paper["year"])
    assert f"arXiv:{cited['eprint']}" in [
        identifier["value"] for identifier in paper["identifiers"]
    ]


def test_the_project_is_cited_as_in_the_citation_file() -> None:
    cited = entries(CITE)["ngem_tutorial"]
    assert re.sub("[{}]", "", cited["title"]) == CITATION["title"]
    assert cited["version"] == str(CITATION["version"])
    assert cited["license"] == CITATION["license"]
    assert cited["author"].strip("{}") == CITATION["authors"][0]["name"]


def test_every_extra_is_explained() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    text = (ROOT / "book/install.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE) != []
    assert set(re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE)) == set(
        project["optional-dependencies"]
    )


@pytest.mark.parametrize("command", ["env", "book", "test"])
def test_every_make_command_of_the_install_page_exists(command: str) -> None:
    assert f"make {command}" in (ROOT / "book/install.md").read_text(encoding="utf-8")
    assert re.search(rf"^{command}:", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
