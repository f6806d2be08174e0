"""Write the page that tells when, where and with what each page and each result was made.

It is put together from the metadata of the notebooks, which `notebooks.py` writes, and from the
`provenance.json` of each set of results.

Usage::

    python tools/provenance.py          # write book/reference/provenance.md
    python tools/provenance.py check    # exit status 1 if it is out of date
"""

from __future__ import annotations

import re
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import notebooks
import yaml

from ngem_tutorial import results

ROOT = Path(__file__).resolve().parents[1]
PAGE = Path("book/reference/provenance.md")

HEADER = """# Where the numbers come from

Each result and each page of this book was made by a program, at a commit of this project that is
named below. `make notebooks` writes this page.
"""


def table(caption: str, name: str, header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Return a table with a caption and a name to refer to."""
    header = list(header)
    lines = [header, ["---"] * len(header), *rows]
    body = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"\n:::{{table}} {caption}\n:name: {name}\n\n{body}\n:::\n"


def result_tables(root: Path) -> str:
    """Return the table of the results, and that of the environments that made them."""
    environments: dict[str, str] = {}
    rows = []
    for file in sorted((root / "results").rglob("provenance.json")):
        name = file.parent.relative_to(root / "results").as_posix()
        if "/quick" in name or name.startswith("."):
            continue  # not kept
        parts = results.read_provenance(name, root / "results")["parts"]
        alike = sum(not part.get("methods") for part in parts) > 1
        for part in parts:
            environment = _environment(part)
            letter = environments.setdefault(environment, chr(ord("A") + len(environments)))
            added = f"<br>{', '.join(part['methods'])} alone" if part.get("methods") else ""
            if alike:
                added = f"<br>{', '.join(sorted(part['rows'])).replace('_', ' ')}"
            rows.append([
                f"`{name.removesuffix('/paper')}`{added}",
                f"{part['date'][:10]}, {results.duration(part['seconds'])}",
                f"{letter}, {_commit(part['commit'])}",
            ])  # fmt: skip
    text = "\n## Results\n\nA set that was made in parts has a row for each part. The last column "
    text += "says in which environment, and by which commit of the program.\n"
    text += table(
        "When each set of results was made, how long it took, and by what",
        "tbl-provenance-results", ["Results", "Made", "By"], rows,
    )  # fmt: skip
    return text + table(
        "The environments of the results",
        "tbl-provenance-environments", ["Environment", "Machine and versions"],
        [[letter, environment] for environment, letter in environments.items()],
    )  # fmt: skip


def _environment(part: Mapping[str, Any]) -> str:
    device = part["device"]
    processor = f"{device['cpu_model']}, {device['cpu_cores']} cores"
    if device["platform"] != "cpu":
        processor = f"{device['kind']}; {processor}"
    versions = [f"{name} {version}" for name, version in part["versions"].items() if version]
    return f"{processor}, {device['system']}<br>{', '.join(versions)}"


def _commit(commit: Mapping[str, Any]) -> str:
    return f"`{commit['hash'][:7]}`" + (", edited" if commit["dirty"] else "")


def page_tables(root: Path) -> str:
    """Return the table of the pages, and that of the versions that they were executed with."""
    book = notebooks.Book(root)
    contents = yaml.safe_load((root / "_toc.yml").read_text(encoding="utf-8"))
    order = re.findall(r"'(?:file|root)': '([^']+)'", str(contents))
    versions: defaultdict[str, set[str]] = defaultdict(set)
    rows = []
    for page in sorted(book.pages(), key=lambda page: order.index(book.name(page)[:-3])):
        notebook = book.stored(page)
        own = notebook.metadata.get("ngem", {}) if notebook else {}
        for pin in filter(None, own.get("stamp", {}).get("versions", "").split(", ")):
            package, version = pin.split(" ")
            versions[package].add(version)
        made = own.get("made")
        when = f"{made['date']}, {_commit(made['commit'])}" if made else "not recorded"
        where = f"{made['machine']}, Python {made['python']}" if made else "not recorded"
        rows.append([f"{{doc}}`/{book.name(page)[:-3]}`", when, where])
    text = "\n## Pages\n\nThe outputs of a page are kept until what they depend on changes.\n"
    text += table(
        "When and where the outputs of each page were made",
        "tbl-provenance-pages", ["Page", "Made", "Where"], rows,
    )  # fmt: skip
    return text + table(
        "The versions that the pages were executed with",
        "tbl-provenance-versions", ["Package", "Version"],
        [[package, ", ".join(sorted(versions[package]))] for package in sorted(versions)],
    )  # fmt: skip


def render(root: Path = ROOT) -> str:
    """Return the text of the page."""
    return HEADER + result_tables(root) + page_tables(root)


def main(arguments: list[str]) -> int:
    """Write the page, or check it; return the exit status."""
    text, file = render(), ROOT / PAGE
    if arguments == ["check"]:
        current = file.is_file() and file.read_text(encoding="utf-8") == text
        print("provenance: up to date" if current else "provenance: run python tools/provenance.py")
        return not current
    if arguments:
        print(__doc__)
        return 2
    file.write_text(text, encoding="utf-8", newline="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
