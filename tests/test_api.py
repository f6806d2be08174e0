"""The reference pages: every public name is on one, documented, and the pages are up to date."""

from __future__ import annotations

import types

import api
import api_links
import pytest
from docutils import nodes
from sphinx import addnodes

import ngem_tutorial
from ngem_tutorial import objectives


def test_every_public_name_is_documented_and_on_an_up_to_date_page() -> None:
    assert api.problems() == []


def test_every_name_is_listed_once_where_it_is_at_home() -> None:
    text = "".join(api.pages().values())
    for module, name in set(api.homes().values()):
        assert text.count(f" {api.PACKAGE}.{module}.{name}\n") == 1, name
    assert all(f"{{api}}`{name}`" in api.overview() for name in ngem_tutorial.__all__)


@pytest.mark.parametrize(
    ("full", "home"),
    [
        ("ngem_tutorial.nll", ("objectives", "nll")),
        ("ngem_tutorial.training.NonFiniteError", ("loop", "NonFiniteError")),
        ("ngem_tutorial.datasets.UCI", ("datasets.uci", "UCI")),
    ],
)
def test_a_name_that_is_handed_on_is_at_home_where_it_is_defined(full, home) -> None:
    assert api.homes()[full] == home


def test_what_is_left_out_is_found(monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(objectives.nll, "__doc__", None)
    found = api.problems(tmp_path)
    assert "ngem_tutorial.nll: no docstring" in found
    assert "ngem_tutorial.METHODS: no docstring" not in found
    assert "book/reference/api/metrics.md: out of date; run python tools/api.py" in found
    monkeypatch.setattr(api, "PARTS", [part for part in api.PARTS if part.slug != "metrics"])
    assert "metrics: on no page of tools/api.py" in api.undocumented()


def test_a_constant_is_documented_by_the_text_below_it() -> None:
    assert api.documentation("variants", "eq68").startswith("The same with the inverse")
    assert api.documentation("objectives", "annotations") == ""


def test_the_first_mention_of_a_name_on_a_page_becomes_a_link() -> None:
    mentions = ["fit", "fit", "variants.eq68", "eq68", "two_gaussians", "x + 1"]
    page = nodes.document(None, None)
    page += [nodes.paragraph("", "", nodes.literal(text=text)) for text in mentions]
    app = types.SimpleNamespace(env=types.SimpleNamespace(docname="book/intro"))
    api_links._link_first(app, page)
    assert [link["reftarget"] for link in page.findall(addnodes.pending_xref)] == [
        "fit",
        "variants.eq68",
    ]
    assert [literal.astext() for literal in page.findall(nodes.literal)] == mentions


def test_a_long_series_in_a_signature_is_shown_by_its_ends() -> None:
    page = nodes.document(None, None)
    long, short = str(tuple(range(1, 301))), "(1, 2, 3, 4, 5)"
    page += [addnodes.desc_signature("", "", nodes.inline(text=text)) for text in (long, short)]
    page += nodes.paragraph(text=long)
    api_links._shorten(None, page)
    assert [node.astext() for node in page.children] == ["(1, 2, ..., 300)", short, long]
