"""What search engines and other sites show of a page, and how to cite it.

The description of a page is its first paragraph, or `description` in its front matter. The picture
that is shown with a link needs an absolute address: it is named only if `html: baseurl` is set in
`_config.yml`.
"""

from __future__ import annotations

import html
import re
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
CARD = "_static/social_card.png"
LONGEST = 200  # characters of a description


def shorten(text: str, longest: int = LONGEST) -> str:
    """Return as many whole sentences as fit, or of a first that is too long its beginning."""
    text = " ".join(text.split())
    sentences = re.split(r"(?<=[.?!])(?<! al\.)\s+", text)
    kept = sentences[0]
    for sentence in sentences[1:]:
        if len(kept) + 1 + len(sentence) > longest:
            break
        kept += f" {sentence}"
    if len(kept) <= longest:
        return kept.rstrip(",:;")
    return kept[: longest - 1].rsplit(" ", 1)[0].rstrip(",:;") + "…"


def first_paragraph(tree: Any) -> str:
    """Return the first paragraph without mathematics that does not say what the page needs."""
    from docutils import nodes

    for paragraph in tree.findall(nodes.paragraph):
        if isinstance(paragraph.parent, nodes.section):
            paragraph = paragraph.deepcopy()
            for part in list(paragraph.findall(nodes.footnote_reference)):
                part.parent.remove(part)
            text = paragraph.astext()
            if text and not text.startswith("Needs:") and not any(paragraph.findall(nodes.math)):
                return text
    return ""


def tags(title: str, description: str, site: str, base: str, name: str) -> str:
    """Return the `meta` elements of a page.

    Args:
        title: of the page.
        description: of the page.
        site: title of the book.
        base: address of the site, or nothing.
        name: address of the page in the site.
    """
    named = {"description": description, "twitter:card": "summary_large_image"}
    shown = {
        "og:type": "article",
        "og:site_name": site,
        "og:title": title,
        "og:description": description,
    }
    if base:
        base = base.rstrip("/") + "/"
        shown |= {"og:url": base + name, "og:image": base + CARD}
    lines = [("name", key, text) for key, text in named.items() if text]
    lines += [("property", key, text) for key, text in shown.items() if text]
    return "\n".join(
        f'<meta {kind}="{key}" content="{html.escape(text)}" />' for kind, key, text in lines
    )


def bibtex(key: str, title: str, citation: dict[str, Any], year: str, address: str) -> str:
    """Return the entry with which to cite a page of the book; `citation` is CITATION.cff."""
    authors = " and ".join(f"{{{author['name']}}}" for author in citation["authors"])
    fields = {
        "title": f"{{{title}}}",
        "author": authors,
        "year": year,
        "howpublished": f"In: {citation['title']}, version {citation['version']}",
        "url": address,
    }
    lines = ",\n".join(f"  {name} = {{{value}}}" for name, value in fields.items() if value)
    return f"@misc{{{key},\n{lines}\n}}"


def _describe(app: Any, page: str, template: str, context: dict[str, Any], tree: Any) -> None:
    if tree is None:  # a page that no source file has, such as the search
        return
    title = re.sub(r"<[^>]+>", "", html.unescape(context["title"]))
    meta = context.get("meta") or {}
    description = meta.get("description") or shorten(first_paragraph(tree))
    address = context.get("pageurl") or ""
    site, base = app.config.html_title, app.config.html_baseurl
    elements = tags(title, description, site, base, app.builder.get_target_uri(page))
    context["metatags"] = context.get("metatags", "") + elements
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    year = re.findall(r"\d{4}", app.config.copyright)[0]
    key = "ngem_tutorial_" + page.rsplit("/", 1)[-1]
    context["bibtex"] = bibtex(key, title, citation, year, address)


def setup(app: Any) -> dict[str, Any]:
    """Register the extension with Sphinx."""
    app.connect("html-page-context", _describe)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
