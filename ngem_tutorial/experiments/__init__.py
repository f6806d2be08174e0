"""The experiments of the book, one file each: `PRESETS`, `units(config)` and what is theirs."""
