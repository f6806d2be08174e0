"""Make tables accessible: no empty headings, and a wide table scrolls in its own box."""

from __future__ import annotations

import re
from typing import Any

EMPTY_HEADING = re.compile(r"<th(?P<options>[^>]*)>(?:\s|<p>\s*</p>)*</th>")
TABLE = re.compile(r"<table\b.*?</table>", re.DOTALL)
LONG_CELL = re.compile(r"<td>(?=[^<]{31,}</td>)")
BOXES = ('<div class="pst-scrollable-table-container">', '<div class="wide-box">')


def _heading_to_cell(match: re.Match[str]) -> str:
    return f"<td{match['options']}></td>"


def accessible_tables(body: str) -> str:
    """Return the HTML with empty headings turned into cells and every table in a box of its own.

    A cell with a long text gets the class `long`: phones would squeeze it to a word a line.
    """

    def table(match: re.Match[str]) -> str:
        text = EMPTY_HEADING.sub(_heading_to_cell, match[0])
        text = LONG_CELL.sub('<td class="long">', text)
        boxed = body[: match.start()].rstrip().endswith(BOXES)
        return text if boxed else f"{BOXES[1]}{text}</div>"

    return TABLE.sub(table, body)


def _change(app: Any, page: str, template: str, context: dict[str, Any], tree: Any) -> None:
    if "body" in context:
        body = context["body"].replace(' aria-label="Toggle hidden content"', "")  # it has a text
        context["body"] = accessible_tables(body)


def setup(app: Any) -> dict[str, Any]:
    """Register the extension with Sphinx."""
    app.connect("html-page-context", _change)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
