"""The built book, page by page, in a real browser: as readers see it, hear it and operate it."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import browser
import pytest
import website
import yaml

pytestmark = pytest.mark.needs("browser")

HERE = Path(__file__).parent
DESKTOP = {"width": 1280, "height": 900}
PHONE = {"width": 380, "height": 800}
FRAMES = """(async () => {
  const frame = () => new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
  for (let i = 0; i < 3; i++) await frame();
})()"""  # pictures of the page that were drawn, each with its observers told
LARGEST = 1.5e6  # bytes of a page with all that it loads, pictures apart


def toc_files(node: Any) -> list[str]:
    if isinstance(node, list):
        return [name for item in node for name in toc_files(item)]
    if isinstance(node, dict):
        own = [node[key] for key in ("root", "file") if key in node]
        return own + [name for value in node.values() for name in toc_files(value)]
    return []


TOC = yaml.safe_load((website.ROOT / "_toc.yml").read_text())
PAGES = [*(f"{name}.html" for name in toc_files(TOC)), "search.html"]
each_page = pytest.mark.parametrize("name", PAGES)


def script(name: str) -> str:
    return (HERE / f"{name}.js").read_text(encoding="utf-8")


class Visitor:
    """One page of the browser, with which all pages of the book are visited, each once."""

    def __init__(self, page: Any, address: str) -> None:
        self.page, self.address = page, address
        self.complaints: list[str] = []
        self.failed: list[str] = []
        self.bytes = {"pictures": 0, "rest": 0}
        session = page.context.new_cdp_session(page)
        session.send("Network.setCacheDisabled", {"cacheDisabled": True})
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("console", self._console)
        page.on("requestfailed", lambda request: self.failed.append(request.url))
        page.on("response", self._response)

    def _console(self, message: Any) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(message.text)

    def _response(self, response: Any) -> None:
        if not response.url.startswith((self.address, "data:")) or response.status >= 400:
            self.failed.append(f"{response.status} {response.url}")
        kind = "pictures" if response.request.resource_type == "image" else "rest"
        self.bytes[kind] += int(response.headers.get("content-length", 0))

    def open(self, name: str) -> None:
        """Show a page and wait until its mathematics is typeset."""
        self.page.goto(self.address + name)
        self.page.evaluate("document.fonts.ready")

    def resize(self, size: Any) -> None:
        """Give the window a size, and wait until what watches sizes has been told."""
        self.page.set_viewport_size(size)
        self.page.wait_for_function(f"innerWidth === {size['width']}")
        self.page.evaluate(FRAMES)

    @functools.cache  # noqa: B019 - ends with the tests of this file
    def visit(self, name: str) -> dict[str, Any]:
        """Return all that is to be known about a page."""
        page = self.page
        page.goto("about:blank")  # what the page before still fetches, as previews, ends here
        self.complaints, self.failed, self.bytes = [], [], {"pictures": 0, "rest": 0}
        page.set_viewport_size(DESKTOP)
        self.open(name)
        weight = dict(self.bytes)  # without what is fetched when the keyboard's focus moves
        found = page.evaluate(script("audit"))
        page.keyboard.press("Tab")
        found["focus"] = page.evaluate(script("focus"))
        self.resize(PHONE)
        found["phone"] = page.evaluate(script("phone"))
        self.resize(DESKTOP)
        page.evaluate((browser.AXE.target / "axe.min.js").read_text(encoding="utf-8"))
        for theme, options in (("light", {}), ("dark", {"runOnly": ["color-contrast"]})):
            page.evaluate("(theme) => (document.documentElement.dataset.theme = theme)", theme)
            found[theme] = page.evaluate(script("accessibility"), {"resultTypes": [], **options})
        return found | {"bytes": weight, "said": self.complaints, "failed": self.failed}


@pytest.fixture(scope="module")
def visitor() -> Iterator[Visitor]:
    """A browser at the built book."""
    website.build()
    with website.served() as address, browser.chromium() as chromium:
        context = chromium.new_context(color_scheme="light", reduced_motion="reduce")
        yield Visitor(context.new_page(), address)


@each_page
@pytest.mark.parametrize("subject", ["said", "failed", "mathematics", "images", "icons"])
def test_nothing_is_missing(visitor, name, subject):
    """No errors, no failed or foreign requests, no raw TeX, every picture there and described."""
    assert visitor.visit(name)[subject] == []


@each_page
@pytest.mark.parametrize("subject", ["light", "dark", "focus"])
def test_accessible(visitor, name, subject):
    """No serious violation in either theme; the keyboard's focus is seen wherever it goes."""
    assert visitor.visit(name)[subject] == []


@each_page
def test_fits_a_phone(visitor, name):
    assert visitor.visit(name)["phone"] == []


def test_rows_of_tables_are_not_squeezed_on_a_phone(visitor):
    """A table that scrolls needs no cell with a word a line."""
    visitor.open("book/experiments/two_gaussians.html")
    visitor.resize(PHONE)
    rows = "[...document.querySelectorAll('table.dataframe tr')].map((row) => row.offsetHeight)"
    heights = visitor.page.evaluate(rows)
    visitor.resize(DESKTOP)
    assert len(heights) > 20
    assert max(heights) < 140


def test_captions_have_the_weight_of_text(visitor):
    """The theme's lighter face is hardly seen where there is one."""
    visitor.open("book/intro.html")
    weight = "getComputedStyle(document.querySelector('figcaption')).fontWeight"
    assert visitor.page.evaluate(weight) == "400"


@each_page
def test_weight(visitor, name):
    assert visitor.visit(name)["bytes"]["rest"] < LARGEST


@each_page
def test_links_of_the_book_lead_somewhere(visitor, name):
    """Pages, files and the places on pages that links name."""
    lost = []
    for link in visitor.visit(name)["links"]:
        if not link.startswith(visitor.address):
            continue
        target, _, anchor = link.removeprefix(visitor.address).partition("#")
        target = target.partition("?")[0]
        file = website.HTML / target
        if target in PAGES:
            ok = not anchor or anchor in visitor.visit(target)["anchors"]
        else:
            ok = file.is_file() and (not anchor or f'id="{anchor}"' in file.read_text("utf-8"))
        if not ok:
            lost.append(link)
    assert lost == []


def test_no_page_is_left_over():
    pages = [path.relative_to(website.HTML) for path in website.HTML.rglob("*.html")]
    built = {page.as_posix() for page in pages if page.parts[0] not in ("_static", "_modules")}
    assert built == {"index.html", *PAGES}


def test_what_a_function_returns_is_one_text(visitor):
    """Not torn at its first colon, as if what is before it were a type."""
    pages = list((website.HTML / "book/reference/api").glob("*.html"))
    assert pages
    assert [page.name for page in pages if "Return type" in page.read_text()] == []


def test_search_finds_a_word_and_shows_no_tex(visitor):
    page = visitor.page
    visitor.open("search.html?q=responsibilities")
    page.wait_for_function("document.querySelectorAll('#search-results li').length > 3")
    page.wait_for_function("document.querySelectorAll('#search-results li p.context').length > 3")
    text = page.inner_text("#search-results")
    assert "responsibilities" in text.lower()
    assert not re.search(r"\\[a-zA-Z(\[]|\$", text)


def test_the_search_dialogue_opens_and_closes_by_keyboard(visitor):
    page = visitor.page
    visitor.open(PAGES[0])
    page.keyboard.press("Control+k")
    assert page.evaluate("document.activeElement.name") == "q"
    page.keyboard.press("Escape")
    assert not page.evaluate("document.querySelector('#pst-search-dialog').open")


def test_the_theme_stays_over_a_reload(visitor):
    page = visitor.page
    visitor.open(PAGES[0])
    theme = "document.documentElement.dataset.theme"
    for _ in range(3):
        page.click(".theme-switch-button")
        chosen, mode = page.evaluate(theme), page.evaluate("document.documentElement.dataset.mode")
        page.reload()
        assert page.evaluate(theme) == chosen
        assert page.evaluate("localStorage.mode") == mode
    assert visitor.complaints == []


@pytest.mark.parametrize(
    "reference", ["a.footnote-reference", "a.reference.internal[href*='equation-']"]
)
def test_a_reference_shows_what_it_refers_to(visitor, reference):
    """When the keyboard reaches it, until Escape."""
    page = visitor.page
    visitor.open("book/theory/em_and_natural_gradients.html")
    page.keyboard.press("Tab")
    link = page.locator(f"main {reference}").first
    link.focus()
    page.wait_for_selector(".preview:not([hidden]) :is(.footnote, .katex)")
    page.keyboard.press("Escape")
    assert not page.is_visible(".preview")


def test_the_printed_book(visitor, tmp_path):
    """Bookmarks and contents name the pages; links between pages lead to a place in the file."""
    import pdf
    import pypdf

    page, address = visitor.page, visitor.address
    parts = [("", ["book/reference/claims.html"]), ("End", ["book/reference/glossary.html"])]
    sheets = pdf.write(page, address, "The title", parts, tmp_path / "book.pdf")
    book = pypdf.PdfReader(tmp_path / "book.pdf")
    assert len(book.pages) == sheets
    claims, end, (glossary,) = book.outline
    assert (claims.title, end.title, glossary.title) == ("Claims", "End", "Glossary")
    place = book.get_destination_page_number(glossary)
    assert "Glossary" in book.pages[place].extract_text()
    assert book.pages[place].extract_text().strip().endswith(str(place + 1))
    assert f"Glossary{place + 1}" in book.pages[1].extract_text().replace(" ", "").replace("\n", "")


BAD_PAGE = """<!doctype html><title>Bad</title><main>
<img src="none.png" width="9" height="9">
<p style="color: #999; background: #aaa">A pale \\(\\alpha\\)</p>
<a href="#x" style="outline: none">a</a>
<pre style="width: 900px">wide</pre>
<script>nothing()</script></main>"""


def test_the_checks_can_fail(visitor):
    """A page on which everything is wrong is found wrong in all respects."""
    bad = {"body": BAD_PAGE, "content_type": "text/html"}
    visitor.page.route("**/bad.html", lambda route: route.fulfill(**bad))
    found = visitor.visit("bad.html")
    for subject in ("said", "failed", "mathematics", "images", "light", "dark", "focus", "phone"):
        assert found[subject], subject
