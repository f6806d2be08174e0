"""The repository as a stranger gets it: README commands work, nothing points to one machine."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path

import notebooks
import pytest
import yaml

import ngem_tutorial

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()

# Put together from parts, so that this file passes its own test.
FOREIGN = {
    "a package registry's host": r"\b(pypi\.{o}|{f}\.pythonhosted|registry\.{n}|deb\.{d})\b".format(
        o="org", f="files", n="npmjs", d="debian"
    ),
    "a package index or a resolved download": r"https?://\S+/(?:simp"
    r'le|packages)/|"resol'
    r'ved": *"http',
    "a path of one machine": r"(?<![\w.])/(?:wor" r"k|home|root|Users)/\w",
}
SHARED = "../sha" + "red"


def published() -> list[str]:
    """Return the names of the files under version control, or of those in a source distribution."""
    sources = ROOT / "ngem_tutorial.egg-info" / "SOURCES.txt"
    if (ROOT / "PKG-INFO").is_file() and sources.is_file():
        names = sources.read_text().splitlines()
    else:
        listing = subprocess.run(
            ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False
        )
        if listing.returncode:
            pytest.fail("not a git repository: what would be published cannot be listed")
        names = listing.stdout.split("\0")
    return [name for name in names if name and (ROOT / name).is_file()]


def texts() -> list[Path]:
    """Return the text files among the published ones."""
    return [ROOT / name for name in published() if b"\0" not in (ROOT / name).read_bytes()]


def test_nothing_points_to_one_machine():
    found = []
    for file in texts():
        text = file.read_text(encoding="utf-8")
        found += [
            (str(file.relative_to(ROOT)), w) for w, p in FOREIGN.items() if re.search(p, text)
        ]
        if SHARED in text and file != ROOT / ".ci/run":
            found.append((str(file.relative_to(ROOT)), SHARED))
        if f"{ROOT}/" in text:
            found.append((str(file.relative_to(ROOT)), "the path of this clone"))
    assert found == []


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("https://files." + "pythonhosted.org/x", "a package registry's host"),
        ("index https://example.com/sim" + "ple/", "a package index or a resolved download"),
        ("see /ho" + "me/me/book", "a path of one machine"),
    ],
)
def test_the_patterns_find_what_they_should(text, what):
    assert re.search(FOREIGN[what], text)
    assert not re.search(FOREIGN[what], "on: .github/workflows/book.yml, framework/x")


def test_every_make_command_in_the_readme_exists():
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(
        re.findall(r"\bmake ([a-z]+)\b", "\n".join(re.findall(r"`[^`]+`|```.*?```", README, re.S)))
    )
    assert {"book", "test"} <= named <= targets


def test_every_target_says_what_it_does():
    makefile = (ROOT / "Makefile").read_text()
    lines = re.findall(r"^[a-z]+:.*", makefile, re.MULTILINE)
    assert [line for line in lines if " ## " not in line] == []
    phony = re.search(r"^\.PHONY: (.*)", makefile, re.MULTILINE)[1].split()
    assert {line.partition(":")[0] for line in lines} == set(phony)


def test_files_named_in_the_readme_and_contributing_exist():
    for document in ("README.md", "CONTRIBUTING.md"):
        text = (ROOT / document).read_text()
        links = re.findall(r"\]\(([^)#:]+)\)", text)
        assert [link for link in links if not (ROOT / link).exists()] == []


def test_citation_names_the_paper_and_its_authors():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    (paper,) = citation["references"]
    names = [f"{author['given-names']} {author['family-names']}" for author in paper["authors"]]
    assert names == ["Yutao Chen", "Jasmine Bayrooti", "Steven Morad"]


def test_one_version_everywhere():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert project["version"] == str(citation["version"]) == ngem_tutorial.__version__


def test_notebooks_run_alike_by_hand_and_by_make():
    exported = re.findall(r"^export (\w+) := (.*)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert notebooks.ENVIRONMENT.items() <= dict(exported).items()


def test_the_files_under_version_control_are_light() -> None:
    """Under 20 MB in all: large tables of results are stored compressed."""
    sizes = {name: (ROOT / name).stat().st_size for name in published()}
    assert sum(sizes.values()) < 20e6, sorted(sizes.items(), key=lambda item: -item[1])[:10]
    results = {name: size for name, size in sizes.items() if name.startswith("results/")}
    assert sum(results.values()) < 4e6
    assert not [name for name, size in results.items() if name.endswith(".csv") and size > 2**16]
