"""`python -m ngem_tutorial`: a demonstration, and the experiments by name."""

from __future__ import annotations

import os

os.environ.setdefault("PJRT_NPROC", "1")  # jax 0.10 can deadlock on two cores without it

import argparse
import sys
from pathlib import Path

_PLOT = ("matplotlib", "pandas", "seaborn")
"""What the extra `plot` installs; what the extra `data` does is reported by `datasets`."""


def main(arguments: list[str] | None = None) -> int:
    """Run what the command line asks for; return the exit status."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.seeds < 1:
        parser.error(f"--seeds must be at least 1, got {options.seeds}")
    try:
        if options.command == "reproduce":
            from ngem_tutorial.experiments import registry

            path = registry.reproduce(options.experiment, options.preset, options.out)
            print(path)
        else:
            from ngem_tutorial.experiments import demo

            demo.main(options.figure, num_seeds=options.seeds)
    except ImportError as error:
        module = (error.name or "").partition(".")[0]
        hint = 'Install it with: pip install "ngem-tutorial[plot]"' if module in _PLOT else ""
        print(f"error: {error}. {hint}".rstrip(". "), file=sys.stderr)
        return 1
    except (ValueError, OSError, RuntimeError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m ngem_tutorial",
        description="Without a command: train mixtures with NLL and nGEM on embedded data, print "
        "the comparison and draw one figure.",
    )
    parser.add_argument(
        "--figure",
        type=Path,
        default=Path("ngem_demo.png"),
        help="where the demonstration writes its figure (default: %(default)s)",
    )
    parser.add_argument(
        "--seeds",
        type=int,
        default=5,
        help="runs of each method in the demonstration (default: %(default)s)",
    )
    commands = parser.add_subparsers(dest="command", metavar="command")
    reproduce = commands.add_parser("reproduce", help="run an experiment and save its table")
    reproduce.add_argument("experiment", help="two_gaussians or inverse_mnist")
    reproduce.add_argument("--preset", default="quick", help="settings (default: %(default)s)")
    reproduce.add_argument(
        "--out", type=Path, help="where results are kept (default: results/ of the checkout)"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
