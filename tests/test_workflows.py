"""The workflows: pinned, with no more rights than they need, and of commands that exist."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import release
import yaml

ROOT = Path(__file__).resolve().parents[1]
FILES = [*sorted((ROOT / ".github").rglob("*.yml"))]
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
each_workflow = pytest.mark.parametrize("file", WORKFLOWS, ids=lambda file: file.stem)


def jobs(file: Path) -> dict[str, Any]:
    return yaml.safe_load(file.read_text())["jobs"]


def commands() -> str:
    """Everything that the workflows and their common action run."""
    steps = [step for file in WORKFLOWS for job in jobs(file).values() for step in job["steps"]]
    for file in (ROOT / ".github/actions").glob("*/action.yml"):
        steps += yaml.safe_load(file.read_text())["runs"]["steps"]
    return "\n".join(step.get("run", "") for step in steps)


def test_actions_are_pinned_and_alike_everywhere():
    lines = [line.strip() for file in FILES for line in file.read_text().splitlines()]
    uses = [line.split("uses:")[1].strip() for line in lines if re.match(r"(- )?uses:", line)]
    foreign = {use for use in uses if not use.startswith("./")}
    assert len(uses) > 20
    assert [
        u for u in foreign if not re.fullmatch(r"[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", u)
    ] == []
    assert len({use.partition("@")[0] for use in foreign}) == len(foreign)


@each_workflow
def test_rights_are_given_by_the_job(file):
    workflow = yaml.safe_load(file.read_text())
    assert workflow["permissions"] == {}
    assert "concurrency" in workflow
    for job in workflow["jobs"].values():
        assert job["permissions"]
        assert job["timeout-minutes"] <= 120
        for step in job["steps"]:
            if step.get("uses", "").startswith("actions/checkout@"):
                assert step["with"]["persist-credentials"] is False


def test_what_they_run_exists():
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    run = commands()
    assert {"lint", "test", "book", "pages", "screenshots"} == set(
        re.findall(r"\bmake ([a-z]+)\b(?! room)", run)
    )
    matrix = jobs(ROOT / ".github/workflows/tests.yml")["tests"]["strategy"]["matrix"]["include"]
    assert {entry["target"] for entry in matrix} | {"data", "env"} <= targets
    assert set(re.findall(r"\bmake ([a-z]+)\b", run)) <= targets
    tools = set(re.findall(r"\btools/[\w.]+", run))
    assert tools
    assert [tool for tool in tools if not (ROOT / tool).is_file()] == []


def test_the_constraints_of_the_matrix_exist():
    matrix = jobs(ROOT / ".github/workflows/tests.yml")["tests"]["strategy"]["matrix"]["include"]
    files = [entry["constraints"] for entry in matrix]
    assert "" in files  # the newest versions
    assert [file for file in files if file and not (ROOT / file).is_file()] == []


CHANGELOG = """# Changelog

## [Unreleased]

## [1.2.0] - 2026-11-27

### Added

- A thing.

## [1.1.0] - 2026-10-01
"""


def test_the_notes_of_a_release():
    assert release.notes("1.2.0", CHANGELOG) == "### Added\n\n- A thing."
    assert release.notes("1.1.0", CHANGELOG) == ""


@pytest.mark.parametrize(
    ("version", "changelog", "message"),
    [
        ("1.2.0.dev0", CHANGELOG, "the version is 1.2.0.dev0: a release has three numbers"),
        ("1.3.0", CHANGELOG, r"no section `## \[1.3.0\] - YYYY-MM-DD`"),
        ("1.2.0", CHANGELOG.replace(" - 2026-11-27", ""), r"no section `## \[1.2.0\]"),
        ("1.2.0", CHANGELOG.replace("[Unreleased]\n", "[Unreleased]\n\n- More.\n"), "Unreleased"),
    ],
)
def test_what_is_not_ready_is_not_released(version, changelog, message):
    with pytest.raises(release.NotReadyError, match=message):
        release.notes(version, changelog)
