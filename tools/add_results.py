"""Put the rows of another run under the stored tables of an experiment's preset.

For a method that was added to an experiment whose other runs need not be repeated: run it alone,
into a folder of its own, then add its tables to the stored ones. The provenance of both is kept:
that of the stored tables where it was, that of the rows added in the list `extra.added`.

Usage::

    python tools/add_results.py EXPERIMENT PRESET FOLDER [RESULTS]

FOLDER and RESULTS are folders of results, the latter `results` in the checkout by default.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import sys
from pathlib import Path

import pandas as pd

from ngem_tutorial import results
from ngem_tutorial._files import write_atomically
from ngem_tutorial.reproduction import registry

KEPT = ("date", "wall_time_s", "configuration", "seeds", "versions", "device", "commit", "rows")
"""The provenance of the rows added, besides their methods, fingerprint and memory."""


def add(experiment: str, preset: str, folder: Path, directory: Path) -> list[Path]:
    """Add the tables of a preset in one folder to those in another, all or none.

    Args:
        experiment: its name.
        preset: a key of its presets.
        folder: has the tables to be added, as `reproduce` wrote them.
        directory: has the tables that they are added to.

    Returns:
        The files that were written.

    Raises:
        ValueError: if there is no such experiment or preset, or it has no table in `folder`.
        results.ResultError: if a result is missing, is not one, or has the rows already.
    """
    (selected,) = registry.select([experiment])
    config = dataclasses.asdict(selected.preset(preset))
    names = sorted(path.stem for path in (folder / experiment / preset).glob("*.json"))
    if not names:
        raise ValueError(f"folder must hold tables of {experiment}/{preset}, got {folder}")
    whole = [f"{experiment}/{preset}/{name}" for name in names]
    merged = [_merge(name, config, folder, directory) for name in whole]  # all, then write
    for name, (content, provenance) in zip(whole, merged, strict=True):
        write_atomically(directory / f"{name}.csv", content)
        text = json.dumps(provenance, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        write_atomically(directory / f"{name}.json", text.encode())
        results.load(name, directory)
    return [directory / f"{name}.csv" for name in whole]


def _merge(name: str, config: dict, folder: Path, directory: Path) -> tuple[bytes, dict]:
    stored, new = results.load(name, directory), results.load(name, folder)
    if list(stored.table) != list(new.table):
        raise results.ResultError(f"{name}: the columns differ")
    keys = [column for column in stored.table if stored.table[column].dtype.kind not in "f"]
    if stored.table["method"].isin(new.table["method"].unique()).any() and len(
        stored.table[keys].merge(new.table[keys])
    ):
        raise results.ResultError(f"{name}: has these rows already")
    table = pd.concat([stored.table, new.table], ignore_index=True).astype(stored.table.dtypes)
    content = table.to_csv(index=False, lineterminator="\n", na_rep="nan").encode()
    old, added = dict(stored.provenance), new.provenance
    remarks = {key: added["extra"][key] for key in ("fingerprint", "peak_memory_mib")}
    remarks["methods"] = new.table["method"].unique().tolist()
    extra = dict(old["extra"])
    extra["added"] = [*extra.get("added", []), {key: added[key] for key in KEPT} | remarks]
    plain = json.loads(json.dumps(config))
    changes = {
        "seeds": plain.pop("seeds"),
        "configuration": plain,
        "extra": extra,
        "allow_missing": sorted({*old["allow_missing"], *added["allow_missing"]}),
        "rows": len(table),
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    return content, old | changes


def main(arguments: list[str]) -> int:
    """Run the command line; return the exit status."""
    if len(arguments) not in (3, 4):
        print(__doc__, file=sys.stderr)
        return 2
    experiment, preset, folder, *rest = arguments
    directory = Path(rest[0]) if rest else results.default_directory()
    for path in add(experiment, preset, Path(folder), directory):
        print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
