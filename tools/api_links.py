"""A Sphinx extension: names of the package become links, and shapes stay as they are written.

The first mention of a name on a page, as code, is a link: `fit`, or with its module
`variants.paper_code`. So a page needs no role, which other viewers of notebooks would show as it
stands. The role ``{api}`fit` `` links a further mention.
"""

from __future__ import annotations

import functools
import re
from typing import Any

import api
from docutils import nodes
from sphinx import addnodes
from sphinx.domains.python import PyXRefRole
from sphinx.ext.napoleon.docstring import GoogleDocstring
from sphinx.util.inspect import signature, stringify_signature


def setup(app: Any) -> dict[str, Any]:
    """Register the extension with Sphinx."""
    GoogleDocstring._consume_returns_section = _whole  # type: ignore[method-assign]
    app.add_role("api", _link_name)
    app.connect("missing-reference", _find_home)
    app.connect("doctree-read", _link_first)
    app.connect("autodoc-skip-member", _skip)
    app.connect("autodoc-process-signature", _show)
    app.connect("autodoc-process-docstring", _join, priority=600)  # after napoleon
    app.connect("doctree-read", _quote)
    app.connect("doctree-read", _shorten)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _whole(self: Any, preprocess_types: bool = False) -> list[tuple[str, str, list[str]]]:
    """What a function returns, in words: napoleon takes what is before a colon for a type."""
    lines = self._dedent(self._consume_to_next_section())
    return [("", "", lines)] if lines else []


def _link_name(name: str, *arguments: Any, **options: Any) -> Any:
    """The role `api`: a name of the package, in the prose of a page."""
    return PyXRefRole()("py:api", *arguments, **options)


def _find_home(app: Any, env: Any, node: Any, content: Any) -> Any:
    """Link `fit` or `variants.paper_code.damping` to where the name is documented."""
    if node.get("refdomain") != "py":
        return None
    home = api.homes() | {f"{api.PACKAGE}.{module}": (module,) for module in api.public_modules()}
    parts = node["reftarget"].removeprefix(f"{api.PACKAGE}.").split(".")
    for length in range(len(parts), 0, -1):
        found = home.get(".".join([api.PACKAGE, *parts[:length]]))
        if found:
            target = ".".join([api.PACKAGE, *found, *parts[length:]])
            domain = env.get_domain("py")
            return domain.resolve_xref(
                env, node["refdoc"], app.builder, "obj", target, node, content
            )
    return None


def _link_first(app: Any, doctree: Any) -> None:
    """Link the first mention of each name on a page, written as code: `fit`, `variants.eq68`."""
    seen: set[str] = set()
    if app.env.docname.startswith(str(api.FOLDER)):
        return
    for node in list(doctree.findall(nodes.literal)):
        name = node.astext()
        inside = node.parent
        if name in seen or f"{api.PACKAGE}.{name.removeprefix(f'{api.PACKAGE}.')}" not in _names():
            continue
        if isinstance(inside, addnodes.pending_xref | nodes.reference | nodes.title):
            continue
        seen.add(name)
        link = addnodes.pending_xref(
            refdoc=app.env.docname, refdomain="py", reftype="api", reftarget=name, refwarn=True
        )
        node.replace_self(link)
        link += node


@functools.cache
def _names() -> frozenset[str]:
    """What is linked: names at the top level, and those of a module with its name before them."""
    return frozenset(api.homes())


def _show(
    app: Any, what: str, name: str, value: Any, options: Any, arguments: Any, result: Any
) -> tuple[Any, Any]:
    """Show no private argument, and a single axis without the space that jaxtyping needs."""
    if what == "class" and arguments == "(*args: Any, **kwargs: Any)":  # of a Flax module's class
        made = signature(
            value.__init__, bound_method=True, type_aliases=app.config.autodoc_type_aliases
        )
        arguments, result = stringify_signature(made, show_return_annotation=False), None
    arguments = arguments and re.sub(r", _\w+: [\w.]+", "", arguments)
    shown = [text and re.sub(r"""(?<=["'])\s(?=\w)""", "", text) for text in (arguments, result)]
    return shown[0], shown[1]


def _join(app: Any, what: str, name: str, value: Any, options: Any, lines: list[str]) -> None:
    """Give a constant its sentence back: napoleon takes what is before a colon for a type."""
    before = [line for line in lines if line.startswith(":type: ")]
    if what in {"data", "attribute"} and before:
        rest = [line for line in lines[1:] if line not in before]
        lines[:] = [f"{before[0].removeprefix(':type: ')}: {lines[0]}", *rest]


def _skip(app: Any, what: str, name: str, value: Any, skip: bool, options: Any) -> bool | None:
    """Leave out what JAX calls and what `NamedTuple` writes itself."""
    written = str(getattr(value, "__doc__", "")).startswith("Alias for field number")
    return True if written or name.startswith("tree_") else None


def _quote(app: Any, doctree: Any) -> None:
    """Show text in signatures in double quotes, as the package writes it."""
    for node in doctree.findall(addnodes.desc_sig_literal_string):
        text = node.astext()
        if text.startswith("'") and '"' not in text:
            node.children = [nodes.Text(f'"{text[1:-1]}"')]


SERIES = re.compile(r"\((\d+, \d+), (?:\d+, ){6,}(\d+)\)")


def _shorten(app: Any, doctree: Any) -> None:
    """Show of a long series of whole numbers, in signatures, its beginning and end."""
    for line in doctree.findall(addnodes.desc_signature):
        for text in list(line.findall(nodes.Text)):
            short = SERIES.sub(r"(\1, ..., \2)", text.astext())
            if short != text.astext():
                text.parent.replace(text, nodes.Text(short))
