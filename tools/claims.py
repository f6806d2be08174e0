"""Write the table of the book's claims: where each is proved, checked in a cell, and tested.

A claim is a proposition, theorem, lemma or corollary of a page (sphinx-proof, with a label), or a
definition or algorithm that a test is marked with, which needs no cell of its own. A code cell
checks a claim if it has the tag ``claim-LABEL``, a test if it is marked
``@pytest.mark.claim("LABEL")``.

Usage::

    python tools/claims.py          # write book/reference/claims.md
    python tools/claims.py check    # exit status 1 if it is out of date or a claim is unchecked
"""

from __future__ import annotations

import ast
import itertools
import re
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import jupytext

ROOT = Path(__file__).resolve().parents[1]
CLAIMS = ("proposition", "theorem", "lemma", "corollary")
TABLE = Path("book/reference/claims.md")
DIRECTIVE = re.compile(
    r"^(?:`{3,}|:{3,})\{prf:(?P<kind>[a-z]+)\}[ ]*(?P<title>.*)\n"
    r"(?::[^\n]*\n)*?:label:[ ]*(?P<label>\S+)",
    re.MULTILINE,
)

HEADER = """# Claims

Every proposition of the book, page by page, with the number of cells that check it when its page is
executed, and the tests that fail if it is broken. These are functions of `test_PAGE.py` in
`tests/theory`, `tests/variational` or `tests/practice`, with spaces for the underscores of their
names. `make test` runs both, and refuses a claim that has no cell or no test.
"""


@dataclass
class Claim:
    """A labelled proposition, and what checks it."""

    kind: str
    label: str
    title: str
    page: Path
    cells: int = 0
    tests: list[str] = field(default_factory=list)


def find_claims(root: Path) -> list[Claim]:
    """Return the claims of all pages, in the order of the table of contents."""
    tests = find_tests(root)
    contents = (root / "_toc.yml").read_text(encoding="utf-8")
    pages = [root / f"{name}.md" for name in re.findall(r"(?:file|root):\s*(\S+)", contents)]
    return [
        Claim(
            kind=match["kind"],
            label=match["label"],
            title=match["title"].strip(),
            page=page,
            cells=_cells(page, match["label"]),
            tests=sorted(tests[match["label"]]),
        )
        for page in pages
        if page.is_file()
        for match in DIRECTIVE.finditer(page.read_text(encoding="utf-8"))
        if match["kind"] in CLAIMS or match["label"] in tests
    ]


def _cells(page: Path, label: str) -> int:
    """Return how many code cells of a page carry the tag of a claim."""
    cells = jupytext.read(page).cells
    return sum(f"claim-{label}" in cell.metadata.get("tags", []) for cell in cells)


def find_tests(root: Path) -> defaultdict[str, list[str]]:
    """Return the marked tests of each claim, as `file::function`."""
    found: defaultdict[str, list[str]] = defaultdict(list)
    for file in sorted((root / "tests").rglob("test_*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef):
                for label in _marks(node):
                    found[label].append(f"{file.relative_to(root).as_posix()}::{node.name}")
    return found


def _marks(test: ast.FunctionDef) -> Iterator[str]:
    """Yield the labels of the `claim` marks of a test."""
    for mark in test.decorator_list:
        if isinstance(mark, ast.Call) and ast.unparse(mark.func) == "pytest.mark.claim":
            yield from (str(ast.literal_eval(argument)) for argument in mark.args)


def render(claims: list[Claim], root: Path) -> str:
    """Return the text of the table's page: a section and a table for each page with claims."""
    text = HEADER
    for page, group in itertools.groupby(claims, key=lambda claim: claim.page):
        name = page.relative_to(root / "book").with_suffix("").as_posix()
        title = re.search(r"^# (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
        text += f"\n## {title[1] if title else name}\n\n"
        text += f"The page: {{doc}}`/book/{name}`, with the tag `claim-LABEL` on each cell.\n\n"
        text += "| claim | cells | tests |\n| --- | --- | --- |\n"
        text += "".join(map(_row, group))
    return text


def _row(claim: Claim) -> str:
    own = re.compile(rf"tests/(theory|variational|practice)/test_{claim.page.stem}\.py::")
    tests = "<br>".join(own.sub("", test).replace("_", " ") for test in claim.tests)
    return f"| {{prf:ref}}`{claim.label}`: {claim.title} | {claim.cells} | {tests} |\n"


def problems(root: Path = ROOT) -> list[str]:
    """Return what is wrong: unchecked claims, marks without a claim, a table out of date."""
    claims = find_claims(root)
    labels = {claim.label for claim in claims}
    found = [
        f"{claim.label}: no cell is tagged claim-{claim.label}"
        for claim in claims
        if claim.kind in CLAIMS and not claim.cells
    ]
    found += [f"{claim.label}: no test is marked with it" for claim in claims if not claim.tests]
    found += [
        f"{label}: marked in {tests[0]}, and no page has it"
        for label, tests in find_tests(root).items()
        if label not in labels
    ]
    if not (root / TABLE).is_file() or (root / TABLE).read_text(encoding="utf-8") != render(
        claims, root
    ):
        found.append(f"{TABLE}: out of date; run python tools/claims.py")
    return found


def main(arguments: list[str]) -> int:
    """Write the table, or check it; return the exit status."""
    if arguments == ["check"]:
        found = problems()
        print("\n".join(found) or "claims: all checked")
        return bool(found)
    if arguments:
        print(__doc__)
        return 2
    table = ROOT / TABLE
    table.parent.mkdir(parents=True, exist_ok=True)
    table.write_text(render(find_claims(ROOT), ROOT), encoding="utf-8", newline="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
