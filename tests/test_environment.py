"""pyproject.toml, constraints.txt and environment.yml describe one environment."""

from __future__ import annotations

import importlib.metadata
import re
import tomllib
from pathlib import Path

import configure
import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import Specifier
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]


def pin_lines(file: str) -> list[str]:
    lines = (ROOT / file).read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def pins(lines: list[str]) -> dict[str, str]:
    return {canonicalize_name(line.split("==")[0]): line.split("==")[1] for line in lines}


PIN_LINES, OLDEST_LINES = pin_lines("constraints.txt"), pin_lines("constraints-oldest.txt")
PINS, OLDEST = pins(PIN_LINES), pins(OLDEST_LINES)
OWN = canonicalize_name(PROJECT["name"])


def requirements(groups: list[list[str]]) -> list[Requirement]:
    return [Requirement(text) for group in groups for text in group]


def needed(name: str, seen: set[str]) -> set[str]:
    """All installed distributions that `name`, as installed, asks for on this machine."""
    for text in importlib.metadata.requires(name) or []:
        requirement = Requirement(text)
        applies = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
        other = canonicalize_name(requirement.name)
        if applies and other not in seen:
            seen.add(other)
            needed(other, seen)
    return seen


@pytest.mark.parametrize("lines", [PIN_LINES, OLDEST_LINES], ids=["pinned", "oldest"])
def test_constraints_are_exact_sorted_and_without_addresses(lines):
    assert all(re.fullmatch(r"[a-z0-9._-]+==[\w.+]+", line) for line in lines)
    assert sorted(lines) == lines
    assert len(pins(lines)) == len(lines)


@pytest.mark.parametrize(
    "requirement",
    requirements([PROJECT["dependencies"], *EXTRAS.values()]),
    ids=str,
)
def test_every_requirement_is_pinned_within_its_bounds(requirement):
    name = canonicalize_name(requirement.name)
    if name != OWN:
        assert requirement.specifier.contains(PINS[name], prereleases=True)


TESTED = ("data", "optimizers", "plot", "sampling", "test")


@pytest.mark.parametrize(
    "requirement",
    requirements([PROJECT["dependencies"], *(EXTRAS[extra] for extra in TESTED)]),
    ids=str,
)
def test_the_oldest_versions_are_within_the_bounds(requirement):
    pin = OLDEST[canonicalize_name(requirement.name)]
    assert requirement.specifier.contains(pin, prereleases=True)


def test_the_oldest_versions_install_beside_those_of_the_book():
    """`make env CONSTRAINTS=constraints-oldest.txt` asks for every extra, the book's too."""
    groups = [PROJECT["dependencies"], *(EXTRAS[extra] for extra in (*TESTED, "book"))]
    direct = {canonicalize_name(requirement.name) for requirement in requirements(groups)} - {OWN}
    installed = {canonicalize_name(d.metadata["Name"]) for d in importlib.metadata.distributions()}
    every = direct | {other for name in direct & installed for other in needed(name, {name})}
    asked = [
        (name, Requirement(text))
        for name in sorted((every & installed) - OLDEST.keys())  # these are as pinned
        for text in importlib.metadata.requires(name) or []
    ]
    applying = [
        (name, requirement, OLDEST.get(canonicalize_name(requirement.name)))
        for name, requirement in asked
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""})
    ]
    refused = [
        f"{name} needs {requirement}, not {pin}"
        for name, requirement, pin in applying
        if pin is not None and not requirement.specifier.contains(pin, prereleases=True)
    ]
    assert refused == []


@pytest.mark.parametrize("name", ["jax", "jaxlib", "flax", "optax", "numpy"])
def test_what_the_numbers_depend_on_is_tested_at_its_lower_bound(name):
    (requirement,) = (
        Requirement(r) for r in PROJECT["dependencies"] if Requirement(r).name == name
    )
    (bound,) = requirement.specifier
    assert bound.operator == ">="
    assert Specifier(f"=={bound.version}.*").contains(OLDEST[name])


def test_what_the_requirements_pull_in_is_pinned_too():
    groups = [PROJECT["dependencies"], *EXTRAS.values()]
    direct = {canonicalize_name(requirement.name) for requirement in requirements(groups)}
    installed = {canonicalize_name(d.metadata["Name"]) for d in importlib.metadata.distributions()}
    pulled = {other for name in (direct - {OWN}) & installed for other in needed(name, {name})}
    assert pulled - PINS.keys() == set()


def test_dev_has_every_extra():
    own = [r for r in requirements([EXTRAS["dev"]]) if canonicalize_name(r.name) == OWN]
    assert own[0].extras == EXTRAS.keys() - {"dev"}


def test_environment_yml_installs_the_same():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    assert environment["name"] == PROJECT["name"]
    *conda, pip = environment["dependencies"]
    assert conda == ["python=" + PROJECT["requires-python"].removeprefix(">="), "pip"]
    assert pip == {"pip": ["-c constraints.txt", "-e .[dev]"]}


@pytest.mark.parametrize(
    "file", ["pyproject.toml", "constraints.txt", "constraints-oldest.txt", "environment.yml"]
)
def test_no_addresses(file):
    """But for those of the project itself, which `make configure` writes."""
    assert "://" not in configure.MARKED.sub("", (ROOT / file).read_text())
