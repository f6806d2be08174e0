"""The examples in the docstrings: each runs as it stands, in a session of its own."""

from __future__ import annotations

import doctest
import inspect
import types
from typing import Any

import api
import pytest

import ngem_tutorial

PARSER = doctest.DocTestParser()
METHODS = (types.FunctionType, classmethod, staticmethod)


def documented() -> dict[str, Any]:
    """The docstrings of all public names, and of the methods of public classes, by name."""
    found = {}
    for module, name in sorted(set(api.homes().values())):
        found[f"{module}.{name}"] = api.documentation(module, name)
        value = getattr(api.importlib.import_module(f"{api.PACKAGE}.{module}"), name)
        for key, member in vars(value).items() if inspect.isclass(value) else ():
            if not key.startswith("__") and isinstance(member, METHODS):
                found[f"{module}.{name}.{key}"] = inspect.getdoc(getattr(value, key)) or ""
    return found


EXAMPLES = {name: text for name, text in documented().items() if ">>>" in text}


def failures(name: str, text: str) -> int:
    """Run an example in an empty namespace; the differences are printed."""
    return doctest.DocTestRunner().run(PARSER.get_doctest(text, {}, name, None, 0)).failed


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of distrax and TensorFlow Probability
@pytest.mark.parametrize("name", EXAMPLES)
def test_example(name: str) -> None:
    assert failures(name, EXAMPLES[name]) == 0


def test_every_callable_at_the_top_level_has_an_example() -> None:
    homes = {name: ".".join(api.homes()[f"{api.PACKAGE}.{name}"]) for name in ngem_tutorial.__all__
             if callable(getattr(ngem_tutorial, name))}  # fmt: skip
    assert [name for name, home in homes.items() if home not in EXAMPLES] == []


def test_a_wrong_example_fails() -> None:
    assert failures("wrong", ">>> 1 + 1\n3\n") == 1
