"""Write what the README shows of the results: a table and a figure.

The table is made from the stored results, the figure is the first one of the book's first page.

Usage::

    python tools/readme.py             # write both
    python tools/readme.py check       # exit status 1 if one of them is out of date
    python tools/readme.py absolute    # links in full, for a package index, which shows no files
"""

from __future__ import annotations

import base64
import re
import sys
from pathlib import Path

import pandas as pd
from configure import Settings, read_settings
from notebooks import Book, write_bytes

from ngem_tutorial.reproduction import published, registry
from ngem_tutorial.runs import Experiment

ROOT = Path(__file__).resolve().parents[1]
FIGURE = Path("book/_static/first_figure.png")
BLOCK = re.compile(
    r"(?<=<!-- >>> results: written by tools/readme.py -->\n).*?(?=<!-- <<< results)", re.DOTALL
)
LINK = re.compile(r"(!?)\[([^]]*)\]\((?!https?://|#)([^)]+)\)")
METHODS = ("NLL", "nGEM, paper's code", "whitened NLL")
NAMES = {
    "inverse_mnist": "Inverse MNIST, 3 components",
    "inverse_mnist_10": "Inverse MNIST, 10 components",
    "kin8nm": "kin8nm",
    "energy": "Energy",
    "housing": "Boston housing",
}


def rows() -> pd.DataFrame:
    """Return the table: a row for each task whose likelihood the paper prints.

    All with Adam. A number is the mean and the standard deviation over the runs, in nats.

    Returns:
        The columns `task`, `paper: NLL`, `paper: nGEM`, `here: NLL`, `here: nGEM, paper's code`,
        `here: whitened NLL` and `runs`.
    """
    table = []
    for experiment in registry.EXPERIMENTS.values():
        conditions = [
            number.condition
            for number in published.PUBLISHED
            if number.table in experiment.items and number.quantity == "nll"
        ]
        table += [_row(experiment, condition) for condition in dict.fromkeys(conditions)]
    return pd.DataFrame(table)


def _row(experiment: Experiment, condition: str) -> dict[str, str]:
    printed = {
        number.method.removeprefix("Adam + "): f"{number.mean:g} ± {number.sd:g}"
        for number in published.PUBLISHED
        if number.condition == condition and number.quantity == "nll"
    }
    assert experiment.measured is not None
    measured = experiment.measured(registry.load(experiment.name, "paper"))
    mine = measured[measured["condition"].eq(condition) & measured["quantity"].eq("nll")]
    mine = mine.assign(method=mine["method"].str.removeprefix("Adam + "))
    values = {m: mine.loc[mine["method"].eq(m), "value"] for m in METHODS}
    runs = sorted({len(value) for value in values.values()})
    digits = 2 if abs(values["NLL"].mean()) < 100 else 0
    shown = {m: f"{v.mean():.{digits}f} ± {v.std():.{digits}f}" for m, v in values.items()}
    return {
        "task": NAMES.get(experiment.name, NAMES.get(condition, condition)),
        "paper: NLL": printed["NLL"],
        "paper: nGEM": printed["nGEM"],
        "here: NLL": shown["NLL"],
        "here: nGEM, paper's code": shown["nGEM, paper's code"],
        "here: whitened NLL": shown["whitened NLL"],
        "runs": " to ".join(map(str, runs)),
    }


def table_text() -> str:
    """Return the table in Markdown, with the sentence that says what it shows."""
    table = rows()
    lines = [table.columns, ["---"] + ["---:"] * (len(table.columns) - 1), *table.to_numpy()]
    rendered = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return (
        "Negative log-likelihood of the tasks for which the paper prints it, in nats; less is "
        f"better. Mean ± standard deviation, all with Adam.\n\n{rendered}\n\n"
    )


def figure_bytes(root: Path = ROOT) -> bytes:
    """Return the first picture of the book's first page.

    Args:
        root: the project's folder.

    Returns:
        The bytes of a PNG file.

    Raises:
        LookupError: if the notebook is missing or has no picture.
    """
    notebook = Book(root).stored(root / "book/intro.md")
    for cell in notebook.cells if notebook is not None else []:
        for output in cell.get("outputs", []):
            if "image/png" in output.get("data", {}):
                return base64.b64decode(output["data"]["image/png"])
    raise LookupError("book/intro.ipynb has no picture: run `make notebooks`")


def absolute(text: str, settings: Settings) -> str:
    """Return the text with the links to files of the repository in full.

    Args:
        text: the README.
        settings: where the repository is.

    Returns:
        The text; links to other sites are as they were.

    Raises:
        ValueError: if there is no repository.
    """
    if not settings.repository:
        raise ValueError("the repository has no address: `make configure REPOSITORY=owner/name`")

    def link(match: re.Match[str]) -> str:
        kind = "raw" if match[1] else "blob"
        address = f"{settings.url}/{kind}/{settings.revision}/{match[3]}"
        return f"{match[1]}[{match[2]}]({address})"

    return LINK.sub(link, text)


def main(arguments: list[str] | None = None, root: Path = ROOT) -> int:
    """Run the command line; return the exit status."""
    command = (sys.argv[1:] if arguments is None else arguments) or ["write"]
    if command not in (["write"], ["check"], ["absolute"]):
        print(__doc__, file=sys.stderr)
        return 2
    readme = root / "README.md"
    text = readme.read_text(encoding="utf-8")
    if command == ["absolute"]:
        readme.write_text(absolute(text, read_settings(root)), encoding="utf-8")
        return 0
    wanted = {
        readme: BLOCK.sub(lambda _: table_text(), text).encode(),
        root / FIGURE: figure_bytes(root),
    }
    stale = [file for file, new in wanted.items() if not file.exists() or file.read_bytes() != new]
    for file in stale:
        if command == ["check"]:
            print(f"readme: {file.relative_to(root)} is out of date")
        else:
            file.parent.mkdir(parents=True, exist_ok=True)
            write_bytes(file, wanted[file])
            print(f"readme: wrote {file.relative_to(root)}")
    return int(bool(stale) and command == ["check"])


if __name__ == "__main__":
    sys.exit(main())
