"""What is done to the built pages: icons, tables, descriptions, citations; and when to build."""

from __future__ import annotations

import contextlib
import sys
import types
from pathlib import Path

import browser
import icons
import page_body
import page_head
import pydata_sphinx_theme
import pytest
import website

THEME = Path(pydata_sphinx_theme.__file__).parent / "theme" / "pydata_sphinx_theme" / "static"
FONTS = THEME / "vendor" / "fontawesome" / "webfonts"


def test_the_icons_in_use_are_kept_and_no_others():
    style = (THEME / "styles" / "pydata-sphinx-theme.css").read_text(encoding="utf-8")
    small = icons.small_style(style, {"fa-bars"}, FONTS, ['.x::after { content: "\\f303" }'])
    assert ".fa-bars:before" in small
    assert ".fa-rocket:before" not in small
    assert "webfonts" not in small
    assert len(small) < 0.8 * len(style)
    assert {0xF0C9} < icons.glyphs_of(small)


def test_a_font_has_the_glyphs_that_were_asked_for():
    import io

    from fontTools.ttLib import TTFont

    font = icons.small_font(FONTS / "fa-solid-900.ttf", {0xF0C9, 0xF303})
    assert set(TTFont(io.BytesIO(font)).getBestCmap()) == {0xF0C9, 0xF303}
    assert icons.small_font(FONTS / "fa-brands-400.ttf", {0xF0C9}) is None


def test_icons_of_a_page(tmp_path):
    (tmp_path / "page.html").write_text('<i class="fas fa-bars x"></i><b class="fake">fa-no</b>')
    assert icons.used_icons(tmp_path) == {"fa-bars"}


def test_empty_headings_become_cells_and_tables_get_a_box():
    table = '<table class="t"><tr><th></th><th>a</th></tr></table>'
    changed = '<table class="t"><tr><td></td><th>a</th></tr></table>'
    assert page_body.accessible_tables(table) == f'<div class="wide-box">{changed}</div>'
    boxed = page_body.BOXES[0] + table
    assert page_body.accessible_tables(boxed) == page_body.BOXES[0] + changed


def test_arguments_of_a_signature_are_no_definitions():
    body = "<dl><dt>f(<dl>\n<dd><em>x</em>,</dd>\n<dd>y</dd>\n</dl>)</dt><dd>It is f.</dd></dl>"
    changed = page_body.plain_signatures(body)
    assert changed.count('<span class="argument">') == 2
    assert changed.startswith("<dl><dt>f(<span")
    assert changed.endswith(")</dt><dd>It is f.</dd></dl>")


def test_a_cell_with_a_long_text_is_marked():
    cells = "<tr><td>short</td><td>{}</td></tr>".format("long " * 7)
    assert (
        page_body.accessible_tables(f"<table>{cells}</table>").count('<td class="long">long') == 1
    )


@pytest.mark.parametrize(
    ("text", "short"),
    [
        ("One. Two.", "One. Two."),
        ("Chen et al. say so. " + "Long " * 40, "Chen et al. say so."),
        ("word " * 100, "word " * 38 + "word…"),
        ("Two\nlines:", "Two lines"),
    ],
)
def test_descriptions_are_whole_sentences(text, short):
    assert page_head.shorten(text) == short
    assert len(short) <= page_head.LONGEST


def test_tags_name_the_picture_only_with_an_address():
    assert "og:image" not in page_head.tags('A "b"', "Says.", "Book", "", "book/a.html")
    tags = page_head.tags('A "b"', "Says.", "Book", "https://example.com/book", "book/a.html")
    assert 'content="https://example.com/book/_static/social_card.png"' in tags
    assert 'content="A &quot;b&quot;"' in tags


def test_the_entry_to_cite_a_page():
    citation = {"authors": [{"name": "The authors"}], "title": "Book", "version": "1.2"}
    entry = page_head.bibtex("key", "Title", citation, "2026", "")
    assert entry.startswith("@misc{key,\n  title = {{Title}},\n  author = {{The authors}},")
    assert "url" not in entry
    assert "year = {2026}" in entry


def test_a_book_is_current_until_one_of_its_files_changes(tmp_path):
    for name in website.SOURCES:
        (tmp_path / name).write_text("old")
    (tmp_path / "book").mkdir()
    (tmp_path / "book" / "page.md").write_text("old")
    before = website.inputs(tmp_path)
    assert website.inputs(tmp_path) == before
    (tmp_path / "book" / "page.md").write_text("new")
    assert website.inputs(tmp_path) != before


def test_a_browser_is_looked_for_before_playwright_starts(monkeypatch):
    """Playwright's synchronous interface refuses to start inside itself."""
    running = []

    @contextlib.contextmanager
    def playwright():
        assert not running
        running.append(True)
        launch = lambda executable_path, args: types.SimpleNamespace(  # noqa: E731
            path=executable_path, close=lambda: None
        )
        yield types.SimpleNamespace(
            chromium=types.SimpleNamespace(executable_path=sys.executable, launch=launch)
        )
        running.pop()

    monkeypatch.setattr("playwright.sync_api.sync_playwright", playwright)
    monkeypatch.setattr(browser, "NAMES", ())  # no Chromium on the machine, but Playwright's own
    with browser.chromium() as started:
        assert started.path == sys.executable
