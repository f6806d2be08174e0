"""`python -m ngem_tutorial`, or `ngem-tutorial`: a demonstration, and the experiments by name."""

from __future__ import annotations

import os

os.environ.setdefault("PJRT_NPROC", "1")  # jax 0.10 can deadlock on two cores without it
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # SOAP's small factorisations: threads hurt

import argparse
import sys
import traceback
from pathlib import Path

from ngem_tutorial._files import RemediableError
from ngem_tutorial._install import EXTRAS, require_extras


def main(arguments: list[str] | None = None) -> int:
    """Run what the command line asks for; return the exit status."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.seeds < 1:
        parser.error(f"--seeds must be at least 1, got {options.seeds}")
    try:
        _check(options)
    except ValueError as error:  # afterwards it is no mistake of the user, and shows its traceback
        print(f"error: {error}", file=sys.stderr)
        return 1
    except (ImportError, OSError, RemediableError) as error:
        return _report(error)
    try:
        _run(options)
    except (ImportError, OSError, RemediableError) as error:
        return _report(error)
    except KeyboardInterrupt:
        print("stopped; what was finished is kept", file=sys.stderr)
        return 130
    except RuntimeError as error:  # of a part of an experiment, which it names
        if not getattr(error, "remediable", False):
            traceback.print_exception(error)
        return _report(error)
    return 0


def _check(options: argparse.Namespace) -> None:
    """Refuse arguments that would fail later."""
    if options.command != "reproduce":
        require_extras("the demonstration", [*EXTRAS["plot"], "sklearn"])
        from ngem_tutorial import demo

        demo.check(options.figure)
        return
    require_extras("the reproduction", ["pandas"])
    from ngem_tutorial.reproduction import registry

    for experiment in registry.select(options.names):
        experiment.preset(options.preset)
    if not options.list and not options.compare:
        registry.check(
            options.names,
            options.preset,
            options.out,
            jobs=options.jobs,
            methods=_methods(options),
            force=options.force,
        )


def _run(options: argparse.Namespace) -> None:
    if options.command != "reproduce":
        from ngem_tutorial import demo

        demo.main(options.figure, num_seeds=options.seeds)
        return
    from ngem_tutorial.reproduction import command

    command.main(
        options.names,
        options.preset,
        options.out,
        jobs=options.jobs,
        methods=_methods(options),
        force=options.force,
        show=options.list,
        compare_only=options.compare,
    )


def _methods(options: argparse.Namespace) -> list[str]:
    return [name.strip() for name in options.methods.split(";") if name.strip()]


def _report(error: Exception) -> int:
    """Print what the user can mend; return the exit status."""
    print(f"error: {error}", file=sys.stderr)
    return 1


def _parser() -> argparse.ArgumentParser:
    script = Path(sys.argv[0]).stem == "ngem-tutorial"
    parser = argparse.ArgumentParser(
        prog="ngem-tutorial" if script else "python -m ngem_tutorial",
        description="Without a command: train mixtures with NLL and damped nGEM on embedded data, "
        "print the comparison and draw one figure.",
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
    commands = parser.add_subparsers(title="commands", dest="command", metavar="[command]")
    reproduce = commands.add_parser(
        "reproduce",
        help="run the experiments of the paper, or what is left of them, and compare",
        description="Run experiments and print the paper's numbers beside ours. What is finished "
        "is kept: after an interruption the same command goes on, and ends with the same tables.",
    )
    reproduce.add_argument(
        "names", nargs="*", metavar="NAME", help="experiments (default: all; --list names them)"
    )
    reproduce.add_argument(
        "--preset",
        default="quick",
        help="settings: quick (a look) or paper (default: %(default)s)",
    )
    reproduce.add_argument(
        "--out", type=Path, help="where results are kept (default: results/ of the checkout)"
    )
    reproduce.add_argument(
        "--jobs", type=int, default=1, help="parts to compute side by side (default: %(default)s)"
    )
    reproduce.add_argument(
        "--methods",
        default="",
        metavar="'A; B'",
        help="run these methods alone and add their rows to the stored results",
    )
    reproduce.add_argument(
        "--force",
        action="store_true",
        help="replace stored results that other code or settings made; without it they are kept, "
        "and that is an error",
    )
    reproduce.add_argument(
        "--list",
        action="store_true",
        help="list the experiments, their times and states, and stop; stored (COMMIT): there are "
        "tables, made by other code than the present",
    )
    reproduce.add_argument(
        "--compare", action="store_true", help="compare what is stored, and run nothing"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
