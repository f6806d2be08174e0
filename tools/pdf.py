"""Print the book to one PDF: every page by Chromium, with bookmarks, contents and page numbers."""

from __future__ import annotations

import html
import io
import sys
from pathlib import Path
from typing import Any

import browser
import website
import yaml

TARGET = website.ROOT / "_build" / "pdf" / "book.pdf"
MARGINS = {"top": "18mm", "bottom": "20mm", "left": "18mm", "right": "18mm"}
PAPER = {
    "format": "A4",
    "margin": MARGINS,
    "scale": 0.75,
    "print_background": True,
    "tagged": False,
}
WHOLE_SHEET = {"format": "A4", "margin": dict.fromkeys(MARGINS, "0mm")}
STYLE = """
body { font-family: sans-serif; margin: 0 }
h1 { margin: 100mm 0 10mm; font-size: 32pt; text-align: center }
ol { list-style: none; padding: 0; break-before: page; font-size: 14pt }
li { display: flex; justify-content: space-between; line-height: 1.9 }
li.part { font-weight: bold; margin-top: 4mm }
div { break-inside: avoid; position: relative; height: 297mm }
div span { position: absolute; bottom: 10mm; width: 100%; text-align: center; font-size: 9pt }
"""


def chapters(toc: dict[str, Any]) -> list[tuple[str, list[str]]]:
    """Return the parts of the book in order: their captions and their pages."""
    parts = [(part["caption"], part["chapters"]) for part in toc["parts"]]
    listed = [(caption, [f"{entry['file']}.html" for entry in pages]) for caption, pages in parts]
    return [("", [f"{toc['root']}.html"]), *listed]


def printed(page: Any, text: str, paper: dict[str, Any]) -> Any:
    """Return the PDF of some HTML, as pypdf reads it."""
    from pypdf import PdfReader

    page.set_content(f"<!doctype html><html lang='en'><style>{STYLE}</style>{text}</html>")
    return PdfReader(io.BytesIO(page.pdf(**paper)))


def contents(title: str, lines: list[tuple[str, int | None]]) -> str:
    """Return the HTML of the title and of the table of contents; parts have no page number."""
    items = "".join(
        f"<li{'' if number else ' class=part'}><span>{html.escape(text)}</span><span>{number or ''}"
        "</span></li>"
        for text, number in lines
    )
    return f"<h1>{html.escape(title)}</h1><ol>{items}</ol>"


def placed(
    parts: list[tuple[str, list[str]]], titles: dict[str, str], sizes: dict[str, int], front: int
) -> tuple[list[tuple[str, int | None]], dict[str, int]]:
    """Return the lines of the contents, and on which sheet each page of the book starts.

    Args:
        parts: captions of the parts of the book and the pages of each.
        titles: of each page.
        sizes: number of sheets of each page.
        front: number of sheets before the first page.
    """
    listed: list[tuple[str, int | None]] = []
    first, count = {}, front
    for caption, names in parts:
        listed += [(caption, None)] if caption else []
        for name in names:
            first[name] = count
            listed.append((titles[name], count + 1))
            count += sizes[name]
    return listed, first


def lead_inside(writer: Any, address: str, first: dict[str, int]) -> None:
    """Let links to other pages of the book lead to their place in the file."""
    from pypdf.generic import ArrayObject, NameObject

    for page in writer.pages:
        for reference in page.get("/Annots", ()):
            link = reference.get_object()
            target = str(link.get("/A", {}).get("/URI", ""))
            name = target.removeprefix(address).partition("#")[0]
            if not target.startswith(address):
                continue
            del link["/A"]
            if name in first:
                place = writer.pages[first[name]].indirect_reference
                link[NameObject("/Dest")] = ArrayObject([place, NameObject("/Fit")])


def write(
    page: Any, address: str, title: str, parts: list[tuple[str, list[str]]], target: Path
) -> int:
    """Print pages of the book to a file.

    Args:
        page: a page of the browser, to show them in.
        address: where the built book is served.
        title: of the book.
        parts: captions of the parts of the book and the pages of each.
        target: the file to write.

    Returns:
        The number of sheets.
    """
    from pypdf import PdfReader, PdfWriter

    prints, titles = {}, {}
    for name in (name for _, names in parts for name in names):
        page.goto(f"{address}{name}")
        page.evaluate("document.fonts.ready")
        titles[name] = page.inner_text("article h1").removesuffix("#").strip()
        prints[name] = PdfReader(io.BytesIO(page.pdf(**PAPER)))

    sizes = {name: len(sheets.pages) for name, sheets in prints.items()}
    front = len(printed(page, contents(title, placed(parts, titles, sizes, 0)[0]), PAPER).pages)
    listed, first = placed(parts, titles, sizes, front)
    writer = PdfWriter()
    writer.append(printed(page, contents(title, listed), PAPER), import_outline=False)
    for caption, names in parts:
        parent = None
        for name in names:
            writer.append(prints[name], import_outline=False)
            if caption and parent is None:
                parent = writer.add_outline_item(title=caption, page_number=first[name])
            writer.add_outline_item(title=titles[name], page_number=first[name], parent=parent)
    numbers = "".join(f"<div><span>{i + 1}</span></div>" for i in range(len(writer.pages)))
    for sheet, number in zip(writer.pages, printed(page, numbers, WHOLE_SHEET).pages, strict=True):
        sheet.merge_page(number)
        sheet.compress_content_streams()  # merging has unpacked them
    lead_inside(writer, address, first)
    writer.add_metadata({"/Title": title})
    writer.compress_identical_objects()
    target.parent.mkdir(parents=True, exist_ok=True)
    fresh = target.with_suffix(".new")
    writer.write(fresh)
    fresh.rename(target)
    return len(writer.pages)


def main() -> int:
    """Build the book if it is not current, and print it."""
    website.build()
    toc = yaml.safe_load((website.ROOT / "_toc.yml").read_text(encoding="utf-8"))
    title = yaml.safe_load((website.ROOT / "_config.yml").read_text(encoding="utf-8"))["title"]
    with website.served() as address, browser.chromium() as chromium:
        page = chromium.new_page(color_scheme="light")
        sheets = write(page, address, title, chapters(toc), TARGET)
    print(f"pdf: {sheets} pages in {TARGET}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
