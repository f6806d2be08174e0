"""pandas, or an error that says which extra brings it; imported before what is made of tables."""

from __future__ import annotations

from ngem_tutorial._install import require

__all__ = ["pandas"]

pandas = require("pandas")
