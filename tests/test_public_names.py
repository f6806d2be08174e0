"""Public names: each exists and is documented; `make lint` checks layers and arguments."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import subprocess
import sys
import textwrap
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import ngem_tutorial

ROOT = Path(ngem_tutorial.__file__).parent
MODULES = sorted(
    module.name
    for module in pkgutil.walk_packages([str(ROOT)], "ngem_tutorial.")
    if "._" not in module.name
)


def public(module: ModuleType) -> list[tuple[str, Any]]:
    """The names of `__all__` that the module defines itself, not those it hands on."""
    own = [(name, getattr(module, name)) for name in getattr(module, "__all__", ())]
    return [
        (name, value) for name, value in own if getattr(value, "__module__", "") == module.__name__
    ]


def functions() -> dict[str, Any]:
    """Every public function, and every public method, properties apart, of a public class."""
    found = {}
    for module in map(importlib.import_module, MODULES):
        for name, value in public(module):
            if inspect.isclass(value):
                for key, member in vars(value).items():
                    known = inspect.isfunction(member) or isinstance(
                        member, (classmethod, staticmethod)
                    )
                    if known and not key.startswith(("_", "tree_")):  # JAX calls the latter
                        member = inspect.unwrap(getattr(value, key))
                        found[f"{module.__name__}.{name}.{key}"] = member
            elif inspect.isroutine(value) or hasattr(value, "__wrapped__"):  # compiled ones too
                found[f"{module.__name__}.{name}"] = inspect.unwrap(value)
    return found


def raised(function: Any) -> set[str]:
    """The names of the errors that the function itself raises."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            names.add(ast.unparse(node.exc.func).rpartition(".")[2])
    return {name for name in names if name[:1].isupper()}  # others make an error


@pytest.mark.parametrize("name", ["ngem_tutorial", *MODULES])
def test_every_public_module_says_what_it_is_for_and_what_it_exports(name: str) -> None:
    module = importlib.import_module(name)
    assert (module.__doc__ or "").strip()
    exported = getattr(module, "__all__", ())
    assert exported or module.__spec__.submodule_search_locations, "no __all__"
    assert len(set(exported)) == len(exported)
    assert [key for key in exported if not hasattr(module, key)] == []
    for key, value in public(module):
        assert (value.__doc__ or "").strip(), key
        # What `dataclass` and `NamedTuple` write themselves explains nothing.
        assert not (value.__doc__ or "").startswith(f"{key}("), key


def undocumented(function: Any) -> set[str]:
    """What the docstring of a function leaves out: the sections on arguments and results, errors.

    `make lint` compares a section on arguments, where there is one, with the signature.
    """
    docstring = inspect.getdoc(function) or ""
    signature = inspect.signature(function)
    lacking = set()
    if signature.parameters.keys() - {"self", "cls"} and "\nArgs:\n" not in docstring:
        lacking.add("Args")
    returns = "\nReturns:\n" in docstring or "\nYields:\n" in docstring
    if signature.return_annotation not in ("None", None) and not returns:
        lacking.add("Returns")
    described = docstring.partition("\nRaises:\n")[2]
    return lacking | {error for error in raised(function) if error not in described}


def test_docstrings_have_their_sections_and_name_the_errors() -> None:
    found = {name: undocumented(function) for name, function in functions().items()}
    assert len(found) > 50
    assert {name: lacking for name, lacking in found.items() if lacking} == {}


def test_the_judge_of_docstrings_works() -> None:
    def bad(x: int) -> int:
        """Do it.

        Raises:
            KeyError: always.
        """
        if x:
            raise ValueError("no")
        raise KeyError("no")

    assert undocumented(bad) == {"Args", "Returns", "ValueError"}


HEAVY = (
    "beartype blackjax jaxtyping kfac_jax matplotlib numpyro pandas platformdirs pooch pyarrow "
    "seaborn sklearn tensorflow_datasets"
)


def test_importing_the_package_needs_and_loads_none_of_the_extras() -> None:
    code = f"import sys, ngem_tutorial; print(*sorted(set('{HEAVY}'.split()) & sys.modules.keys()))"
    loaded = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    )
    assert loaded.stdout == "\n"
