"""Public names: each exists and is documented, and modules import in one direction only."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import re
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
    if not module.name.rpartition(".")[2].startswith("_")
)

# Each imports from those before it only.
LAYERS = (
    "_checks",
    "mixtures",
    "fisher",
    "objectives",
    "variants",
    "methods",
    "em",
    "networks",
    "_kfac_jax",
    "optimizers",
    "datasets",
    "tabular",
    "_compilation",
    "_progress",
    "_data",
    "_loop_arguments",
    "_scaling",
    "_program",
    "_trainer",
    "loop",
    "training",
    "metrics",
    "results",
    "figures",
    "experiments",
    "__main__",
)


def public(module: ModuleType) -> list[tuple[str, Any]]:
    """The names of `__all__` that the module defines itself, not those it hands on."""
    own = [(name, getattr(module, name)) for name in getattr(module, "__all__", ())]
    return [
        (name, value) for name, value in own if getattr(value, "__module__", "") == module.__name__
    ]


def functions() -> list[Any]:
    """Every public function, and every public method, properties apart, of a public class."""
    found = []
    for module in map(importlib.import_module, MODULES):
        for name, value in public(module):
            if inspect.isclass(value):
                found += [
                    pytest.param(
                        inspect.unwrap(getattr(value, key)), id=f"{module.__name__}.{name}.{key}"
                    )
                    for key, member in vars(value).items()
                    if not key.startswith(("_", "tree_"))  # JAX calls the latter
                    and (
                        inspect.isfunction(member)
                        or isinstance(member, (classmethod, staticmethod))
                    )
                ]
            elif callable(value):
                found.append(pytest.param(inspect.unwrap(value), id=f"{module.__name__}.{name}"))
    return found


def sections(docstring: str) -> dict[str, str]:
    """The sections of a docstring in the Google convention, by name."""
    parts = re.split(
        r"^(Args|Returns|Yields|Raises|References|Attributes):\n", docstring, flags=re.M
    )
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def raised(function: Any) -> set[str]:
    """The names of the errors that the function itself raises."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            names.add(ast.unparse(node.exc.func).rpartition(".")[2])
    return {name for name in names if not name.startswith("_")}  # others make an error


@pytest.mark.parametrize("name", ["ngem_tutorial", *MODULES])
def test_every_public_module_says_what_it_is_for_and_what_it_exports(name: str) -> None:
    module = importlib.import_module(name)
    assert (module.__doc__ or "").strip()
    if name == "ngem_tutorial.experiments":
        return
    assert len(set(module.__all__)) == len(module.__all__)
    for exported in module.__all__:
        assert hasattr(module, exported), exported


@pytest.mark.parametrize("name", ["ngem_tutorial", *MODULES])
def test_every_public_value_is_documented(name: str) -> None:
    module = importlib.import_module(name)
    for key, value in public(module):
        assert (value.__doc__ or "").strip(), key
        # What `dataclass` and `NamedTuple` write themselves explains nothing.
        assert not (value.__doc__ or "").startswith(f"{key}("), key


@pytest.mark.parametrize("function", functions())
def test_the_sections_of_a_docstring_are_complete(function: Any) -> None:
    docstring = inspect.getdoc(function) or ""
    assert re.match(r"[A-Z`].*[.](\n|$)", docstring), "no summary in one line"
    found = sections(docstring)
    signature = inspect.signature(function)
    arguments = [name for name in signature.parameters if name not in ("self", "cls")]
    described = re.findall(r"^ +`?(\w+)`?:", found.get("Args", ""), flags=re.MULTILINE)
    assert [name for name in described if name in arguments] == arguments
    if signature.return_annotation not in ("None", None):
        assert found.keys() & {"Returns", "Yields"}
    assert {error for error in raised(function) if error not in found.get("Raises", "")} == set()


def test_the_parts_that_judge_docstrings_work() -> None:
    def bad(x: int) -> int:
        if x:
            raise ValueError("no")
        raise KeyError("no")

    assert raised(bad) == {"ValueError", "KeyError"}
    text = "One.\n\nArgs:\n    x: a.\n\nReturns:\n    b.\n"
    assert sections(text) == {"Args": "    x: a.\n\n", "Returns": "    b.\n"}
    assert len(functions()) > 50


# ------------------------------------------------------------------------------------- imports


def imported(path: Path) -> set[str]:
    """The modules of the package that a file imports, anywhere in it, without `ngem_tutorial.`."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            module = node.module or ""
            whole = module == "ngem_tutorial" or (ROOT.parent / module.replace(".", "/")).is_dir()
            names |= {f"{module}.{alias.name}" for alias in node.names} if whole else {module}
    return {
        name.removeprefix("ngem_tutorial.") for name in names if name.startswith("ngem_tutorial.")
    }


FILES = sorted(ROOT.rglob("*.py"))


def layer(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def test_every_file_has_its_place_in_the_order() -> None:
    assert {layer(path) for path in FILES} == {"__init__", "_files", *LAYERS}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_modules_import_in_one_direction(path: Path) -> None:
    own = layer(path)
    targets = {name.split(".")[0] for name in imported(path)} - {own}
    if own == "__init__":
        assert targets <= set(LAYERS[: LAYERS.index("metrics")])  # what a light install has
    elif own == "_files":
        assert targets == set()
    else:
        assert targets - {"_files"} <= set(LAYERS[: LAYERS.index(own)])


@pytest.mark.parametrize("folder", ["figures", "experiments"])
def test_modules_of_a_folder_do_not_import_each_other_in_a_circle(folder: str) -> None:
    files = {path.stem: path for path in (ROOT / folder).glob("*.py") if path.stem != "__init__"}
    waiting = {
        name: {target.split(".")[1] for target in imported(path) if target.startswith(f"{folder}.")}
        & files.keys()
        for name, path in files.items()
    }
    assert any(waiting.values())
    while waiting:
        free = {name for name, needs in waiting.items() if not needs & waiting.keys()}
        assert free, f"a circle among {sorted(waiting)}"
        waiting = {name: needs for name, needs in waiting.items() if name not in free}


def test_reading_imports_works(tmp_path: Path) -> None:
    file = tmp_path / "file.py"
    file.write_text(
        "import numpy as np\nimport ngem_tutorial.em\nfrom ngem_tutorial import fisher, nll\n"
        "def f():\n    from ngem_tutorial.figures.style import style\n"
        "    from ngem_tutorial.experiments import demo\n"
    )
    assert imported(file) == {"em", "fisher", "nll", "figures.style", "experiments.demo"}
