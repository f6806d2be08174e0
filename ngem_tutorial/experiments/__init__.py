"""The experiments of the book, one file each: `PRESETS`, `units(config)` and what is theirs."""

from ngem_tutorial import _pandas  # noqa: F401  # first, for its error
