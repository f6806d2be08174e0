"""Keep of the theme's icon font what the book's pages show.

The theme brings 2000 icons: 1.5 MB of script, which book/_templates leaves out, and fonts of
300 kB, from which this Sphinx extension takes the few icons in use once the pages are written.
"""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

FACE = re.compile(r"@font-face\{[^{}]*(fa-[a-z]+-\d+)\.woff2[^{}]*\}")
RULE = re.compile(r"((?:\.fa-[\w-]+(?:::?(?:before|after))?,?)+)\{[^{}]*\}")
UNUSED = ("scripts/fontawesome.*", "*/*.map", "vendor/fontawesome/webfonts/*")


def used_icons(folder: Path) -> set[str]:
    """Return the icon classes, such as `fa-bars`, of the HTML pages under `folder`."""
    classes: set[str] = set()
    for page in folder.rglob("*.html"):
        for value in re.findall(r'class="([^"]*)"', page.read_text(encoding="utf-8")):
            classes.update(name for name in value.split() if name.startswith("fa-"))
    return classes


def small_font(font: Path, characters: set[int]) -> bytes | None:
    """Return the WOFF of the glyphs for `characters`, or `None` if the font has none of them."""
    from fontTools.subset import Options, Subsetter
    from fontTools.ttLib import TTFont

    with TTFont(font) as glyphs:
        found = characters & set(glyphs.getBestCmap())
        if not found:
            return None
        subsetter = Subsetter(Options(layout_features=[], notdef_outline=True))
        subsetter.populate(unicodes=found)
        subsetter.subset(glyphs)
        glyphs.flavor = "woff"
        file = io.BytesIO()
        glyphs.save(file)
    return file.getvalue()


def glyphs_of(style: str) -> set[int]:
    """Return the characters of a style sheet's icons, which are in Unicode's private area."""
    escaped = {int(code, 16) for code in re.findall(r'"\\([ef][0-9a-f]{3})"', style)}
    return escaped | {ord(character) for character in re.findall("[\ue000-\uf8ff]", style)}


def small_style(style: str, used: set[str], fonts: Path, others: Iterable[str] = ()) -> str:
    """Return the theme's style sheet without the icons that are not used, the others' glyphs in it.

    Args:
        style: the style sheet.
        used: classes of the icons in use.
        fonts: folder of the theme's fonts.
        others: style sheets whose icons are needed too.
    """

    def rule(match: re.Match[str]) -> str:
        return match[0] if used & set(re.findall(r"\.(fa-[\w-]+)", match[1])) else ""

    style = RULE.sub(rule, style)
    characters = set().union(*map(glyphs_of, (style, *others)))

    def face(match: re.Match[str]) -> str:
        font = small_font(fonts / f"{match[1]}.ttf", characters)
        if font is None:
            return ""
        data = base64.b64encode(font).decode()
        source = f'src:url(data:font/woff;base64,{data}) format("woff")'
        return re.sub(r"src:[^{}]*(?=\})", source, match[0])

    return FACE.sub(face, style)


def _shrink(app: Any, error: Exception | None) -> None:
    if error is not None or app.builder.format != "html":
        return
    static = Path(app.outdir) / "_static"
    style = static / "styles" / "pydata-sphinx-theme.css"
    fonts = static / "vendor" / "fontawesome" / "webfonts"
    others = [file.read_text(encoding="utf-8") for file in static.rglob("*.css") if file != style]
    used = used_icons(Path(app.outdir))
    text = small_style(style.read_text(encoding="utf-8"), used, fonts, others)
    style.write_text(text, encoding="utf-8")
    for file in {file for name in UNUSED for file in static.glob(name)}:
        file.unlink()


def setup(app: Any) -> dict[str, Any]:
    """Register the extension with Sphinx."""
    app.connect("build-finished", _shrink)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
