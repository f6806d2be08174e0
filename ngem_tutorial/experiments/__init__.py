"""The experiments of the book, one file each: `PRESETS`, `run(config)` and what it needs."""
