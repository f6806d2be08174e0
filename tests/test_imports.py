"""tools/imports.py on a small package: what a page depends on, and what it does not."""

from __future__ import annotations

import sys
from pathlib import Path

import imports
import notebooks
import pytest

FILES = {
    "__init__": '"""A toy."""\nfrom toy.a import f\nfrom toy.b import g\n__version__ = "1"\n',
    "a": "import numpy as np\nfrom toy import core\n\n\ndef f():\n    return np.zeros(core.N)\n",
    "b": "import pandas\n\n\ndef g():\n    return 2\n",
    "c": "def h():\n    from toy.deep.d import k\n\n    return k()\n",
    "core": "N = 3\n",
    "deep.__init__": "from toy.deep.d import k\nfrom toy.deep.e import m\n",
    "deep.d": "from . import e\nimport seaborn\n\n\ndef k():\n    return 1\n",
    "deep.e": "from ..core import N\n\n\ndef m():\n    return N\n",
    "deep.far": "x = 1\n",
}
PINS = {"numpy": "2.0", "pandas": "3.0", "seaborn": "0.1", "matplotlib": "3", "rich": "15"}


@pytest.fixture
def package(tmp_path: Path) -> imports.Package:
    for name, code in FILES.items():
        path = tmp_path / "toy" / f"{name.replace('.', '/')}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(code)
    return imports.Package(tmp_path / "toy")


def edit(package: imports.Package, name: str, old: str, new: str) -> None:
    path = package.folder / f"{name.replace('.', '/')}.py"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def modules(package: imports.Package, *cells: str) -> set[str]:
    return {name.removeprefix("toy.") for name in package.dependencies(cells).modules}


EVERYTHING = {"toy", "deep"} | {name for name in FILES if not name.endswith("__init__")}


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        ("import numpy", set()),
        ("from toy import f", {"a", "core"}),
        ("from toy import f as other", {"a", "core"}),
        ("from toy.b import g", {"b"}),
        ("from toy import b", {"b"}),
        ("import toy.b as part", {"b"}),
        ("from toy import b\nuse(b)", {"b"}),
        ("from toy.c import h", {"c", "deep.d", "deep.e", "core"}),  # an import in a function
        ("def f():\n    from toy import g", {"b"}),
        ("from toy import deep\ndeep.m()", {"deep.e", "core"}),
        ("from toy import deep\ndeep.far.x", {"deep.far"}),
        ("from toy.deep import m", {"deep.e", "core"}),
        ("import importlib\nimportlib.import_module('toy.b')", {"b"}),
        ("from toy import g\n%time g()", {"b"}),
        # Defined in an `__init__`: all that this imports.
        ("from toy import __version__", {"toy", "a", "b", "core"}),
        # Handed around: all of it.
        ("from toy import deep\nuse(deep)", {"deep", "deep.d", "deep.e", "deep.far", "core"}),
        # Not to be told.
        ("import toy", EVERYTHING),
        ("from toy import *", EVERYTHING),
        ("from toy.a import *", EVERYTHING),
        ("from toy import unknown", EVERYTHING),
        ("from toy import deep\ndeep.unknown", EVERYTHING),
        ("!python -m toy", EVERYTHING),
        ("1 +", EVERYTHING),
    ],
)
def test_which_modules_count(package, cell, expected):
    assert modules(package, cell) == expected


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("a", "def f():\n", 'def f():\n    """Say."""\n    # more\n'),
        ("a", "def f():\n    return", "def f():\n    return (  # here\n       "),
        ("b", "2", "3"),
        ("deep.e", "return N", "return N + 1"),
        ("__init__", "from toy.b import g", "from toy.c import h"),
        ("__init__", '"1"', '"2"'),
        ("__init__", '"A toy."', '"Another."'),
    ],
)
def test_what_leaves_the_hash_as_it_was(package, name, old, new):
    before = package.dependencies(["from toy import f"]).hash()
    if new.startswith("def f():\n    return ("):
        edit(package, "a", "(core.N)", "(core.N))")
    edit(package, name, old, new)
    assert package.dependencies(["from toy import f"]).hash() == before


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("a", "zeros", "ones"),
        ("a", "def f():", "def f(n=None):"),
        ("a", "np.zeros", "-np.zeros"),
        ("core", "3", "3.0"),
        ("core", "3", "'3'"),
        ("core", "N = 3", "N: int = 3"),
        ("__init__", "from toy.a import f", "from toy.b import g as f"),
        ("__init__", "from toy.a import f", "from toy.a import f2 as f"),
        ("__init__", '__version__ = "1"', "import os\nos.environ['A'] = 'b'"),
        ("__init__", "from toy.a import f", "def f():\n    return 1"),
        # Not used, and yet run, and not without effect on others.
        ("b", "import pandas", "import pandas\npandas.options.mode.copy_on_write = True"),
        ("b", "import pandas", "import pandas\npandas.set_option('display.precision', 3)"),
    ],
)
def test_what_changes_the_hash(package, name, old, new):
    before = package.dependencies(["from toy import f"]).hash()
    edit(package, name, old, new)
    assert package.dependencies(["from toy import f"]).hash() != before


def test_a_module_that_sees_to_its_own_names_has_no_effect_on_others(package):
    edit(package, "b", "return 2", "return 2\n\n\ng.cached = {}\ng.cached.update(a=1)")
    assert modules(package, "from toy import f") == {"a", "core"}


def test_what_is_imported_for_its_effect_counts(package):
    assert modules(package, "import toy.deep.far as _") == {"deep.far"}
    assert modules(package, "from toy import deep") == set()  # and nothing of it is used
    edit(
        package,
        "deep.__init__",
        "from toy.deep.d",
        "import os\nos.environ['A'] = 'b'\nfrom toy.deep.d",
    )
    assert modules(package, "from toy import deep") == {"deep", "deep.d", "deep.e", "core"}


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        ("import math", {}),
        ("from toy import f", {"numpy": "2.0"}),
        ("from toy import g", {"numpy": "2.0", "pandas": "3.0"}),
        ("import rich, somewhere", {}),  # without a say, and without a pin
        ("from mpl_toolkits import x", {"matplotlib": "3"}),
        (
            "from toy import c",
            {"matplotlib": "3", "numpy": "2.0", "pandas": "3.0", "seaborn": "0.1"},
        ),
    ],
)
def test_which_versions_count(package, cell, expected):
    assert package.dependencies([cell]).versions(PINS) == expected


def test_pins_are_read(tmp_path):
    (tmp_path / "c.txt").write_text("# Exact.\njax==0.10.2\n\nrich==15.0.0\n")
    assert imports.read_pins(tmp_path / "c.txt") == {"jax": "0.10.2", "rich": "15.0.0"}


def test_every_package_that_the_book_uses_is_pinned_or_has_no_say():
    """An import under a name that no pin has would be left out without a word."""
    book = notebooks.Book()
    pins = imports.read_pins(book.root / "constraints.txt")
    package = imports.Package(book.root / "ngem_tutorial")
    used = set(package.dependencies(["import ngem_tutorial"]).imports)
    for page in book.pages():
        used |= package.dependencies(book.code(page)).imports
    assert {"jax", "numpy", "matplotlib"} <= used
    unknown = used - imports.INDIFFERENT - imports.DISTRIBUTIONS.keys()
    assert {name for name in unknown if name.replace("_", "-").lower() not in pins} == set()


def test_the_tables_name_pinned_packages():
    pins = imports.read_pins(notebooks.ROOT / "constraints.txt").keys()
    named = {name for names in imports.DISTRIBUTIONS.values() for name in names}
    named |= {name.lower() for name in imports.INDIFFERENT}
    assert named - pins == set()
    assert not (imports.INDIFFERENT | imports.DISTRIBUTIONS.keys()) & sys.stdlib_module_names
