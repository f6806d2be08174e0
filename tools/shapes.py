"""Check the shapes in the package's signatures, and those alone, while the tests run."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from beartype import beartype

__all__ = ["check"]


def check(function: Callable[..., Any]) -> Callable[..., Any]:
    """Check a function's arguments and result against their annotations with shapes.

    For `jaxtyping.install_import_hook`. Other annotations are mypy's to check, and the package's
    own checks explain a wrong choice or type: their errors are to come through.

    Args:
        function: what the hook wraps; its annotations are text.

    Returns:
        The function, checked where an annotation has a shape.
    """
    annotations = function.__annotations__
    shaped = {name: hint for name, hint in annotations.items() if "jaxtyping" in _origin(hint)}
    if not shaped:
        return function
    function.__annotations__ = shaped
    return beartype(function)


def _origin(hint: Any) -> str:
    """Where an annotation is from; text is taken for what it names."""
    if isinstance(hint, str):
        return "jaxtyping" if re.search(r"\b(Float|Int|Num|Shaped)(32)?\[", hint) else ""
    return f"{type(hint).__module__} {getattr(hint, '__module__', '')} {hint!r}"
