"""Flax NNX, imported before all else: versions of JAX and Flax that do not fit are named.

Each release of Flax works with some releases of JAX, and its requirements do not say with which:
Flax 0.12.0 is installed beside JAX 0.9.0 without a word, and cannot be imported there.
"""

from __future__ import annotations

from ngem_tutorial._install import require

__all__ = ["nnx"]

nnx = require("flax.nnx")
