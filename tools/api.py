"""Write the reference pages of the package, which Sphinx fills from the docstrings.

There is a page for each part of the package in ``book/reference/api/``, with one autodoc directive
for each public name, and the overview ``book/reference/api.md``::

    python tools/api.py          # write the pages
    python tools/api.py check    # exit status 1 if one is out of date or a name is left out

The Sphinx extension `api_links` fills them, and links names in the book's prose to them.
"""

from __future__ import annotations

import ast
import functools
import importlib
import inspect
import itertools
import pkgutil
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "ngem_tutorial"
OVERVIEW = Path("book/reference/api.md")
FOLDER = Path("book/reference/api")


@dataclass(frozen=True)
class Part:
    """A page: its file, title and first sentences, and its modules, a folder for all in it."""

    slug: str
    title: str
    intro: str
    modules: tuple[str, ...]


PARTS = (
    Part(
        "objectives",
        "Objectives and methods",
        "What is minimised: one value per example, of a mixture and targets. "
        "The caller takes the mean.",
        ("objectives", "methods", "variants", "power"),
    ),
    Part(
        "mixtures",
        "Mixtures, Fisher matrices and EM",
        "The mixture that every network returns, its natural gradients, exact EM, and mixtures of "
        "other libraries.",
        ("mixtures", "components", "fisher", "em", "interop"),
    ),
    Part(
        "training",
        "Networks and training",
        "Networks that return mixtures, the optimizers of the paper, and the loops that train.",
        ("networks", "training", "loop", "optimizers"),
    ),
    Part(
        "variational",
        "Variational inference",
        "Mixtures fitted to densities that are known up to a constant: one function, and the seven "
        "modules that a method chooses from.",
        ("vi",),
    ),
    Part("metrics", "Scores and intervals", "What a table of the book reports.", ("metrics",)),
    Part(
        "datasets",
        "Data sets",
        "Synthetic data with their truth, and real data. All names can be imported from "
        "`ngem_tutorial.datasets`.",
        ("datasets",),
    ),
    Part(
        "results",
        "Results and reproduction",
        "Tables that say where they come from, long runs that go on after a stop, and the "
        "comparison with the paper.",
        ("results", "runs", "reproduction"),
    ),
    Part(
        "experiments",
        "Experiments",
        "One module for each experiment: its settings, its presets and its run.",
        ("experiments", "demo"),
    ),
    Part("figures", "Figures", "Every figure of the book, drawn from a table.", ("figures",)),
)

INTRODUCTION = """# The package

The pages below list every public name of the package, with its arguments, shapes and errors, and a
link to its source. They are made from the docstrings. A heading names the module: `objectives` is
`ngem_tutorial.objectives`.

```{list-table} How shapes are written
:header-rows: 1
:name: tbl-api-shapes

* - In a signature
  - What it means
* - `Float[Array, "*batch K"]`
  - A floating-point array whose last axis has length `K`. Any batch axes come before it.
* - `ArrayLike`
  - A JAX array, a NumPy array, a number or lists of numbers. The docstring gives the shape.
* - `Scalar`
  - A number, or an array of shape `()`.
* - `(..., D)`
  - The same in a docstring: any batch axes, then an axis of length `D`.
```

## What you call first

These names are at the top level: `from ngem_tutorial import fit`.
"""


@functools.cache
def public_modules() -> list[str]:
    """Return the names of the public modules, without that of the package, in order."""
    package = importlib.import_module(PACKAGE)
    found = pkgutil.walk_packages(package.__path__, f"{PACKAGE}.")
    names = sorted(module.name.removeprefix(f"{PACKAGE}.") for module in found)
    return [name for name in names if not any(p.startswith("_") for p in name.split("."))]


def modules_of(part: Part) -> list[str]:
    """Return the public modules of a page, in its order."""
    known = public_modules()
    return [m for own in part.modules for m in known if m == own or m.startswith(f"{own}.")]


@functools.cache
def homes() -> dict[str, tuple[str, str]]:
    """Return where each public name is documented.

    Returns:
        The module and the name under each full name, `ngem_tutorial.nll` and
        `ngem_tutorial.objectives.nll` for instance. A name that several modules hand on is at home
        where it is defined, or else in the first that has it.
    """
    order = [module for part in PARTS for module in modules_of(part)]
    own = {module: _names(module) for module in order}
    first: dict[str, list[tuple[str, Any]]] = {}
    for module, values in own.items():
        for name, value in values.items():
            first.setdefault(name, []).append((module, value))

    def home(name: str, value: Any) -> str:
        candidates = [module for module, other in first.get(name, ()) if other is value]
        defined = getattr(value, "__module__", "").removeprefix(f"{PACKAGE}.")
        packages = [m for m in candidates if not hasattr(_load(m), "__path__")]
        return defined if defined in candidates else (packages or candidates or [""])[0]

    found = {
        f"{PACKAGE}.{module}.{name}": (home(name, value), name)
        for module, values in own.items()
        for name, value in values.items()
    }
    top = {
        f"{PACKAGE}.{name}": (home(name, value), name)
        for name, value in _names("").items()
        if not isinstance(value, ModuleType)
    }
    return found | top


def _load(module: str) -> ModuleType:
    return importlib.import_module(f"{PACKAGE}.{module}".rstrip("."))


def _names(module: str) -> dict[str, Any]:
    loaded = _load(module)
    return {name: getattr(loaded, name) for name in getattr(loaded, "__all__", ())}


def in_order(module: str, names: list[str]) -> list[str]:
    """Return names in the order in which the source of a module has them."""
    tree = ast.parse(inspect.getsource(_load(module)))
    lines: dict[str, int] = {}
    for node in tree.body:
        targets = getattr(node, "targets", [getattr(node, "target", node)])
        for target in targets:
            lines.setdefault(getattr(target, "id", getattr(target, "name", "")), node.lineno)
    return sorted(names, key=lambda name: lines.get(name, 0))


def documentation(module: str, name: str) -> str:
    """Return the docstring of a name: its own, or for a constant the text below its line."""
    value = getattr(_load(module), name)
    if inspect.isclass(value) or inspect.isroutine(value) or hasattr(value, "__wrapped__"):
        return inspect.getdoc(value) or ""
    body = ast.parse(inspect.getsource(_load(module))).body
    for node, after in itertools.pairwise(body):
        targets = getattr(node, "targets", [getattr(node, "target", node)])
        if any(getattr(target, "id", "") == name for target in targets):
            text = getattr(after, "value", None)
            if isinstance(after, ast.Expr) and isinstance(text, ast.Constant):
                return inspect.cleandoc(str(text.value))
    return ""


def summary(module: str, name: str) -> str:
    """Return the first sentence of a docstring, in one line, its names of the package as links."""
    paragraph = documentation(module, name).partition("\n\n")[0].replace("\n", " ")
    sentence = re.split(r"(?<=\.)\s", paragraph)[0].replace("|", r"\|")
    known = homes()

    def link(match: re.Match[str]) -> str:
        return ("{api}" if f"{PACKAGE}.{match[1]}" in known else "") + match[0]

    return re.sub(r"`([^`]+)`", link, sentence)


def directive(module: str, name: str) -> str:
    """Return the lines that document one name."""
    value = getattr(_load(module), name)
    if inspect.isclass(value):
        kind, options = ("autoexception" if issubclass(value, BaseException) else "autoclass"), ""
        options = "   :members:\n   :special-members: __call__, __getitem__\n"
    elif inspect.isroutine(value) or hasattr(value, "__wrapped__"):
        kind, options = "autofunction", ""
    else:
        kind, options = "autodata", "   :no-value:\n"
    return f".. {kind}:: {PACKAGE}.{module}.{name}\n{options}"


def page(part: Part) -> str:
    """Return the text of the page of one part."""
    text = f"# {part.title}\n\n{part.intro}\n"
    home = homes()
    for module in modules_of(part):
        names = [name for name in _names(module) if home[f"{PACKAGE}.{module}.{name}"][0] == module]
        if not names:
            continue
        entries = "\n".join(directive(module, name) for name in in_order(module, names))
        text += f"\n## {module}\n\n```{{eval-rst}}\n.. automodule:: {PACKAGE}.{module}\n"
        text += f"\n{entries}```\n"
    return text


def overview() -> str:
    """Return the text of the first page: the names at the top level, then the other pages."""
    home = {name.rpartition(".")[2]: module for name, (module, _) in homes().items()
            if name.count(".") == 1}  # fmt: skip
    text = INTRODUCTION
    for part in PARTS:
        rows = [
            f"| {{api}}`{name}` | {summary(module, name)} |\n"
            for module in modules_of(part)
            for name in in_order(module, [name for name, own in home.items() if own == module])
        ]
        if rows:
            text += f"\n:::{{table}} {part.title}\n| Name | What it is |\n| --- | --- |\n"
            text += f"{''.join(rows)}:::\n"
    text += "\n## All names\n\n"
    text += "".join(f"- {{doc}}`api/{part.slug}`: {part.intro}\n" for part in PARTS)
    return text


def pages() -> dict[Path, str]:
    """Return the text of every page of the reference."""
    return {OVERVIEW: overview()} | {FOLDER / f"{part.slug}.md": page(part) for part in PARTS}


def undocumented() -> Iterator[str]:
    """Yield what is wrong with names: modules on no page, names without a docstring."""
    placed = [module for part in PARTS for module in modules_of(part)]
    yield from (f"{module}: on no page of tools/api.py" for module in public_modules()
                if module not in placed)  # fmt: skip
    for name, (module, short) in homes().items():
        if not module:
            yield f"{name}: in no public module"
        elif not documentation(module, short):
            yield f"{name}: no docstring"


def problems(root: Path = ROOT) -> list[str]:
    """Return what is wrong: names that are undocumented or missing, pages out of date."""
    found = list(undocumented())
    for path, text in pages().items():
        file = root / path
        if not file.is_file() or file.read_text(encoding="utf-8") != text:
            found.append(f"{path}: out of date; run python tools/api.py")
    known = set(pages())
    found += [
        f"{file.relative_to(root)}: of no part of the package"
        for file in (root / FOLDER).glob("*.md")
        if file.relative_to(root) not in known
    ]
    return found


def main(arguments: list[str]) -> int:
    """Write the pages, or check them; return the exit status."""
    if arguments == ["check"]:
        found = problems()
        print("\n".join(found) or "api: every public name has its place")
        return bool(found)
    if arguments:
        print(__doc__)
        return 2
    for path, text in pages().items():
        (ROOT / path).parent.mkdir(parents=True, exist_ok=True)
        (ROOT / path).write_text(text, encoding="utf-8", newline="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
