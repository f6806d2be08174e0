"""Fetch the data sets that pages and tests read, checked, to a folder for NGEM_DATA_DIR.

Usage::

    python tools/data.py FOLDER    # what is there already is checked and kept
"""

from __future__ import annotations

import os
import sys

from ngem_tutorial import datasets


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if len(arguments) != 1:
        print(__doc__, file=sys.stderr)
        return 2
    os.environ["NGEM_CACHE_DIR"] = os.path.abspath(arguments[0])  # has the folders of NGEM_DATA_DIR
    os.environ.pop("NGEM_DATA_DIR", None)
    try:
        for split in ("train", "test"):
            datasets.mnist(split)
        for name in datasets.UCI:
            datasets.uci_split(name, 0)
    except datasets.DatasetError as error:
        print(f"data: {error}", file=sys.stderr)
        return 1
    print(f"data: MNIST and {', '.join(datasets.UCI)} in {arguments[0]}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
