"""The caption is part of the table."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

pd = pytest.importorskip("pandas")

from ngem_tutorial.figures import CaptionedTable  # noqa: E402


def test_the_caption_is_the_first_child_of_the_table() -> None:
    table = CaptionedTable(pd.DataFrame({"<thead>": ["p < 1"]}), "What is < 1 & why.")
    (found,) = ElementTree.fromstring(f"<page>{table._repr_html_()}</page>").iter("table")
    assert [child.tag for child in found] == ["caption", "thead", "tbody"]
    assert found[0].text == "What is < 1 & why."
    assert "".join(found[2].itertext()).split() == ["0", "p", "<", "1"]
    assert repr(table).startswith("What is < 1 & why.\n")
    assert "p < 1" in repr(table)
