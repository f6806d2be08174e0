"""What a piece of code depends on: modules of the package, by their code, and pinned versions.

The imports are read from syntax trees, those inside functions too, and followed from module to
module. A name that a package's `__init__` hands on counts as the module that defines it, so that
`from ngem_tutorial import nll` depends on `objectives`, and on what that imports, not on all that
the package exports. What cannot be told from the code (a star, a name that nothing defines, a
package handed around as a value) counts as the whole package: rather too much than too little.
"""

from __future__ import annotations

import ast
import hashlib
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from IPython.core.inputtransformer2 import TransformerManager

# Imported, and without a say in any number or picture: checks, progress bars, downloads, locks.
INDIFFERENT = frozenset(
    ["IPython", "beartype", "filelock", "jaxtyping", "platformdirs", "pooch", "rich"]
)
# The pinned distributions behind an import, where they are not one of the same name.
DISTRIBUTIONS = {
    "flax": ("flax", "jax", "jaxlib"),
    "jax": ("jax", "jaxlib"),
    "kfac_jax": ("kfac-jax", "jax", "jaxlib"),
    "mpl_toolkits": ("matplotlib",),
    "optax": ("optax", "jax", "jaxlib"),
    "pandas": ("pandas", "numpy"),
    "PIL": ("pillow",),
    "seaborn": ("seaborn", "matplotlib", "pandas", "numpy"),
    "sklearn": ("scikit-learn", "scipy", "numpy"),
    "yaml": ("pyyaml",),
}


class _UnknownError(Exception):
    """What is imported cannot be told from the code."""


@dataclass(frozen=True)
class Dependencies:
    """What some code depends on.

    Attributes:
        modules: a hash of the code of each module of the package.
        names: where the names that packages hand on come from, as `package.name = module.name`.
        imports: the top-level names of what is imported from elsewhere, the standard library apart.
    """

    modules: dict[str, str]
    names: frozenset[str]
    imports: frozenset[str]

    def hash(self) -> str:
        """Return one sha256 of the package's part."""
        lines = [f"{name} {digest}" for name, digest in sorted(self.modules.items())]
        return hashlib.sha256("\n".join([*lines, *sorted(self.names)]).encode()).hexdigest()

    def versions(self, pins: dict[str, str]) -> dict[str, str]:
        """Return the pinned versions that decide numbers and pictures, by distribution."""
        used = {
            distribution
            for name in self.imports - INDIFFERENT
            for distribution in DISTRIBUTIONS.get(name, (name.replace("_", "-").lower(),))
        }
        return {name: pins[name] for name in sorted(used & pins.keys())}


def read_pins(constraints: Path) -> dict[str, str]:
    """Return the versions of a constraints file, by distribution."""
    lines = constraints.read_text(encoding="utf-8").splitlines()
    pairs = (line.split("==", 1) for line in lines if "==" in line and not line.startswith("#"))
    return {name.strip(): version.strip() for name, version in pairs}


# ------------------------------------------------------------------------------- syntax trees


@cache
def _parse(code: str) -> ast.Module:
    return ast.parse(code)


@cache
def hash_code(code: str) -> str:
    """Return a sha256 of the syntax tree of `code`, comments, layout and docstrings apart."""
    return hashlib.sha256(_text(_parse(code)).encode()).hexdigest()


def _text(node: object) -> str:
    """Write a syntax tree down, the same in every version of Python: `ast.dump` is not."""
    if isinstance(node, list):
        return f"[{','.join(map(_text, node))}]"
    if not isinstance(node, ast.AST):
        return repr(node)
    parts = []
    for name, value in ast.iter_fields(node):
        if name == "body" and isinstance(value, list):
            value = [line for line in value if not _is_docstring(line)]
        if value not in (None, []) and name not in ("ctx", "kind", "type_comment"):
            parts.append(f"{name}={_text(value)}")
    if isinstance(node, ast.Constant) and node.value is None:
        parts.append("value=None")
    return f"{type(node).__name__}({','.join(parts)})"


def _is_docstring(node: ast.AST) -> bool:
    """Tell a string that stands for itself: a docstring, or as good as a comment."""
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )


@cache
def _acts(tree: ast.Module) -> bool:
    """Tell a module that, when imported, does something to what is not its own."""
    own = {name for node in tree.body for part in ast.walk(node) for name in _bound(part)}
    return any(_reaches_out(node, own) for node in tree.body)


def _reaches_out(node: ast.stmt, own: set[str]) -> bool:
    if isinstance(node, (ast.Assign, ast.AnnAssign, ast.AugAssign)):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        return any(isinstance(t, (ast.Attribute, ast.Subscript)) for t in targets) and not all(
            _root(target) in own for target in targets
        )
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        return _root(node.value.func) not in own  # `f.defvjp(...)` is about the module's own f
    definitions = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    return not (isinstance(node, (ast.Import, ast.ImportFrom, *definitions)) or _is_docstring(node))


def _root(node: ast.expr) -> str | None:
    """Return the name at the start of `name.attribute[key]`."""
    while isinstance(node, (ast.Attribute, ast.Subscript)):
        node = node.value
    return node.id if isinstance(node, ast.Name) else None


def _bound(node: ast.AST) -> set[str]:
    """Return the names that a statement defines, imports apart."""
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        return {node.name}
    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
        return {node.id}
    return set()


@cache
def _imported(tree: ast.Module) -> list[tuple[str, int, str, str | None]]:
    """Return source, level, name and alias of all that is imported, anywhere in the code.

    The source of `import a.b as c` is `a`, the name `b`, the alias `c`.
    """
    found: list[tuple[str, int, str, str | None]] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                source, _, name = alias.name.rpartition(".")
                found.append((source, 0, name, alias.asname))
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                found.append(
                    (node.module or "", node.level, alias.name, alias.asname or alias.name)
                )
    return found


@cache
def _strings(tree: ast.Module) -> set[str]:
    """Return all strings of some code, docstrings apart."""
    docstrings = {id(node.value) for node in ast.walk(tree) if _is_docstring(node)}  # type: ignore[attr-defined]
    return {
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and id(node) not in docstrings
    }


def _attributes(tree: ast.Module, name: str) -> set[str] | None:
    """Return which attributes of `name` some code uses, or `None` if it uses it as a value."""
    used, mentions = _uses(tree)
    return set(used[name]) if len(used[name]) == mentions[name] else None


@cache
def _uses(tree: ast.Module) -> tuple[defaultdict[str, list[str]], Counter[str]]:
    """Return the attributes that are used of each name, and how often the name stands at all."""
    used, mentions = defaultdict[str, list[str]](list), Counter[str]()
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            mentions[node.id] += 1
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            used[node.value.id].append(node.attr)
    return used, mentions


# ----------------------------------------------------------------------------------- packages


@dataclass(frozen=True)
class Package:
    """The source of a package.

    Attributes:
        folder: the package's own folder, which has its name.
    """

    folder: Path

    @property
    def name(self) -> str:
        """The name by which the package is imported."""
        return self.folder.name

    def files(self) -> dict[str, Path]:
        """Return the files of all modules, by dotted name; a package's is its `__init__`."""
        found = {}
        for path in sorted(self.folder.rglob("*.py")):
            parts = path.relative_to(self.folder.parent).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
        return found

    def dependencies(self, cells: Iterable[str]) -> Dependencies:
        """Return what the code of some cells depends on."""
        plain = map(TransformerManager().transform_cell, cells)  # magics become calls
        return _Search(self).run("\n".join(plain))


class _Search:
    """The imports of some code, followed through a package."""

    def __init__(self, package: Package) -> None:
        self.package = package.name
        self.files = package.files()
        self.code = {name: path.read_text(encoding="utf-8") for name, path in self.files.items()}
        self.names: set[str] = set()

    def run(self, cells: str) -> Dependencies:
        """Return what `cells` depend on."""
        try:
            tree = _parse(cells)
            counted = self._closure(self._imports("", tree) | self._mentioned(tree))
            counted |= self._closure(self._acting(tree, counted))
        except (_UnknownError, SyntaxError):
            tree, counted, self.names = ast.Module([], []), set(self.files), set()
        trees = [tree, *map(self._tree, counted)]
        return Dependencies(
            modules={module: hash_code(self.code[module]) for module in counted},
            names=frozenset(self.names),
            imports=frozenset(name for tree in trees for name in self._foreign(tree)),
        )

    def _tree(self, module: str) -> ast.Module:
        return _parse(self.code[module])

    def _closure(self, modules: set[str]) -> set[str]:
        """Return `modules` and all that they need."""
        counted: set[str] = set()
        while waiting := modules - counted:
            counted |= waiting
            modules = {name for m in waiting for name in self._imports(m, self._tree(m))}
        return counted

    def _foreign(self, tree: ast.Module) -> set[str]:
        """Return the top-level names of what is imported from outside, strings included."""
        names = {source or name for source, level, name, _ in _imported(tree) if not level}
        names = {name.partition(".")[0] for name in names} | (_strings(tree) & DISTRIBUTIONS.keys())
        return names - {self.package, "__future__"} - sys.stdlib_module_names

    def _mentioned(self, tree: ast.Module) -> set[str]:
        """Return the whole package if a string of a cell has its name: `!python -m package`."""
        texts = _strings(tree) - (self.files.keys() - {self.package})
        said = any(re.search(rf"\b{self.package}\b", text) for text in texts)
        return set(self.files) if said else set()

    # ----------------------------------------------------------------- within the package

    def _imports(self, module: str, tree: ast.Module) -> set[str]:
        """Return the modules that the code of `module` imports, names handed on resolved."""
        found = (_strings(tree) & self.files.keys()) - {self.package}  # import_module("a.b")
        for source, level, name, alias in _imported(tree):
            source = self._absolute(module, source, level)
            if (source or name).partition(".")[0] == self.package:
                if alias is None or name == "*":
                    raise _UnknownError  # everything can be reached
                found |= self._resolve(source, name, _attributes(tree, alias))
        return found

    def _absolute(self, module: str, source: str, level: int) -> str:
        """Return the dotted name of a source, which may be relative to the importing module."""
        parts = module.split(".")
        base = parts[: len(parts) - level + self._is_package(module)] if level else []
        return ".".join([*base, source] if source else base)

    def _above(self, module: str) -> Iterator[str]:
        """Yield the packages that a module is in."""
        while module := module.rpartition(".")[0]:
            if module in self.files:
                yield module

    def _is_package(self, module: str) -> bool:
        return module in self.files and self.files[module].name == "__init__.py"

    def _resolve(self, source: str, name: str, used: set[str] | None) -> set[str]:
        """Return the modules that decide what `name`, imported from `source`, is and does.

        `used` are the attributes that are used of it, `None` if all may be.

        Raises:
            _UnknownError: if that cannot be told.
        """
        full = f"{source}.{name}" if source else name
        found = self._handed_on(source, name, used) if self._is_package(source) else set()
        if source in self.files and not self._is_package(source):
            found.add(source)
        if self._is_package(full):
            found |= self._part(full, used)
        elif full in self.files:
            found.add(full)
        if not found and full not in self.files:
            raise _UnknownError
        return found

    def _handed_on(self, package: str, name: str, used: set[str] | None) -> set[str]:
        """Return where a package's `__init__` has a name from; nothing if it has no such name."""
        tree, found = self._tree(package), set()
        for source, level, original, alias in _imported(tree):
            source = self._absolute(package, source, level)
            if alias == name and (source, original) != (package, name):
                self.names.add(f"{package}.{name} = {source}.{original}")
                inside = source.partition(".")[0] == self.package
                found |= self._resolve(source, original, used) if inside else {package}
        if any(name in _bound(node) for node in ast.walk(tree)):
            found.add(package)
        return found

    def _part(self, package: str, used: set[str] | None) -> set[str]:
        """Return the modules that the attributes `used` of a package come from; all if `None`."""
        if used is None:
            return {name for name in self.files if f"{name}.".startswith(f"{package}.")}
        return {module for name in used for module in self._resolve(package, name, None)}

    def _acting(self, tree: ast.Module, counted: set[str]) -> set[str]:
        """Return the modules that run although nothing of them is used, and that do something.

        An `__init__` runs before what is in its package, and imports all that it hands on.
        """
        ran: set[str] = set()
        waiting = counted | self._run_by("", tree)
        while waiting := waiting - ran:
            ran |= waiting
            waiting = {name for m in waiting for name in self._run_by(m, self._tree(m))}
        return {module for module in ran if _acts(self._tree(module))}

    def _run_by(self, module: str, tree: ast.Module) -> set[str]:
        """Return the modules that importing `module`, with the code `tree`, runs at once."""
        names = {module}
        for source, level, name, _ in _imported(tree):
            source = self._absolute(module, source, level)
            names |= {source, f"{source}.{name}" if source else name}
        names |= {above for name in names for above in self._above(name)}
        return names & self.files.keys()
