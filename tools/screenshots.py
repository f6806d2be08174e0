"""Take a picture of every page as desktops and phones show it, in both themes."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import browser
import website

SIZES = {"desktop": (1280, 900), "phone": (380, 800)}
THEMES = ("light", "dark")
LONGEST = 16000  # pixels; Chromium draws nothing below


def take(pages: list[str], folder: Path, whole: bool) -> None:
    """Write `PAGE_SIZE_THEME.png` for each page, `whole` or what is seen first."""
    folder.mkdir(parents=True, exist_ok=True)
    with website.served() as address, browser.chromium() as chromium:
        for size, (width, height) in SIZES.items():
            for theme in THEMES:
                page = chromium.new_page(
                    viewport={"width": width, "height": height}, color_scheme=theme
                )
                for name in pages:
                    page.set_viewport_size({"width": width, "height": height})
                    page.goto(f"{address}{name}")
                    page.evaluate("document.fonts.ready")
                    if whole:
                        length = page.evaluate("document.documentElement.scrollHeight")
                        page.set_viewport_size({"width": width, "height": min(length, LONGEST)})
                    file = name.removesuffix(".html").replace("/", "_")
                    page.screenshot(path=folder / f"{file}_{size}_{theme}.png")
                page.close()


def main() -> int:
    """Build the book if it is not current, and take the pictures."""
    parser = argparse.ArgumentParser(description="Take a picture of every page of the book.")
    parser.add_argument("pages", nargs="*", metavar="PAGE", help="such as book/intro; all if none")
    parser.add_argument("--out", type=Path, default=website.ROOT / "_build" / "screenshots")
    parser.add_argument("--whole", action="store_true", help="pages down to their end")
    options = parser.parse_args()
    website.build()
    pages = [f"{page.removesuffix('.html')}.html" for page in options.pages] or website.pages()
    take(pages, options.out, options.whole)
    print(f"screenshots: {options.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
