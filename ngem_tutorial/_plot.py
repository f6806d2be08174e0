"""What figures need, or an error that says which extra brings it; imported before them."""

from __future__ import annotations

from ngem_tutorial._install import EXTRAS, require_extras

__all__: list[str] = []

require_extras("ngem_tutorial.figures", EXTRAS["plot"])
