"""Typeset the book's mathematics with KaTeX, from files beside the book.

As a script it fetches the pinned npm package. As a Sphinx extension it puts KaTeX on the pages that
have mathematics; without a local copy it leaves Sphinx's default, MathJax from a public server.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from npm import UNAVAILABLE, Package

ROOT = Path(__file__).resolve().parents[1]
KATEX = Package(
    name="katex",
    version="0.19.1",
    integrity=(
        "sha512-"
        "jG8uKntjSEcm2EpQOh0XturpPuuC9r3Sq5HLHdsFdWZT27E672SF19QEi+of0/YeOy15lDgRhKvr5614uRrEfA=="
    ),
    kept=("LICENSE", "dist/katex.min.", "dist/contrib/auto-render.min.js", "dist/fonts/"),
    stripped="dist/",
    target=ROOT / "book" / "_static" / "katex",
)
SCRIPTS = ("katex/katex.min.js", "katex/contrib/auto-render.min.js", "mathematics.js")


def macros(settings: dict[str, Any]) -> dict[str, str]:
    r"""Return KaTeX's macros, `{"\\E": ...}`, from MathJax's settings, `{"tex": {"macros": ...}}`.

    MathJax has a list of the text and the number of arguments where there are arguments.
    """
    given = settings.get("tex", {}).get("macros", {})
    return {f"\\{name}": text if isinstance(text, str) else text[0] for name, text in given.items()}


def _choose_renderer(app: Any, config: Any) -> None:
    if KATEX.installed():
        config.html_math_renderer = "katex"


def _add_scripts(app: Any, page: str, template: str, context: Any, tree: Any) -> None:
    wanted = app.env.get_domain("math").has_equations(page) or page == "search"
    if wanted and getattr(app.builder, "math_renderer_name", None) == "katex":
        app.add_css_file("katex/katex.min.css")
        settings = json.dumps(macros(app.config.mathjax3_config or {}))
        app.add_js_file(None, body=f"window.mathematicsMacros = {settings};")
        for script in (*SCRIPTS, *(["search.js"] if page == "search" else [])):
            app.add_js_file(script, loading_method="defer")


def setup(app: Any) -> dict[str, Any]:
    """Register the extension with Sphinx."""
    from sphinx.ext.mathjax import html_visit_displaymath, html_visit_math

    app.add_html_math_renderer("katex", (html_visit_math, None), (html_visit_displaymath, None))
    app.connect("config-inited", _choose_renderer)
    app.connect("html-page-context", _add_scripts)
    return {"version": KATEX.version, "parallel_read_safe": True, "parallel_write_safe": True}


def main() -> int:
    """Fetch KaTeX unless it is there; say so when it cannot be had."""
    try:
        KATEX.fetch()
    except UNAVAILABLE as error:
        print(f"mathematics: no local copy of KaTeX ({error}); pages will load MathJax's CDN")
    return 0


if __name__ == "__main__":
    sys.exit(main())
