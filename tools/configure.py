"""Write what follows from the repository's address and the version, wherever it stands.

The address is one setting, `repository` under `[tool.ngem]` in `pyproject.toml`, which is empty
while there is none. From it and the version follow the marked blocks (`>>> configure: NAME` to
`<<< configure`) in `pyproject.toml`, `_config.yml`, `CITATION.cff`, the README and the book's
pages, and the cell of each page, tagged `setup`, that installs the package where it is missing.
It has the extras `data` and `plot`, and those that the page's front matter declares::

    ngem:
      extras: [sampling]

Usage::

    python tools/configure.py                            # write everything from the settings
    python tools/configure.py --repository owner/name    # set the address, and write everything
    python tools/configure.py --repository ""            # back to none
    python tools/configure.py --check                    # exit status 1 if anything would change
"""

from __future__ import annotations

import argparse
import re
import sys
import textwrap
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from notebooks import SETUP, Book, front_matter, write_bytes

ROOT = Path(__file__).resolve().parents[1]
BRANCH = "main"
EXTRAS = ("data", "plot")  # what every page needs
ADDRESS = re.compile(r"[A-Za-z0-9](?:-?[A-Za-z0-9]){0,38}/(?!\.)[\w.-]{1,100}(?<!\.git)", re.ASCII)
MARKED = re.compile(
    r"^(?P<start>(?P<indent> *)(?:#|<!--) >>> configure: (?P<name>\w+)(?: -->)?\n)"
    r"(?P<body>.*?)^(?P<end> *(?:#|<!--) <<< configure(?: -->)?\n)",
    re.MULTILINE | re.DOTALL,
)
CELL = re.compile(r"^```\{code-cell\}.*?^```\n", re.MULTILINE | re.DOTALL)
SETTING = re.compile(r'(?<=^\[tool\.ngem\]\n)repository = ".*"$', re.MULTILINE)


class ConfigurationError(ValueError):
    """A setting or a file is not as it must be; the message says how it must be."""


@dataclass(frozen=True)
class Settings:
    """What everything is derived from.

    Attributes:
        repository: `owner/name` on GitHub, or empty.
        version: the version of the package.
    """

    repository: str
    version: str

    @property
    def url(self) -> str:
        """The repository's address."""
        return f"https://github.com/{self.repository}"

    @property
    def site(self) -> str:
        """The address of the book on GitHub Pages."""
        owner, _, name = self.repository.partition("/")
        host = f"{owner.lower()}.github.io"
        return f"https://{host}/" if name.lower() == host else f"https://{host}/{name}/"

    @property
    def revision(self) -> str:
        """What installs the package as it is here: its tag, between two releases the branch."""
        return BRANCH if "dev" in self.version else f"v{self.version}"

    def requirement(self, extras: str) -> str:
        """What pip is asked for, at the revision."""
        return f"ngem-tutorial[{extras}] @ git+{self.url}@{self.revision}"


def check_repository(repository: str) -> None:
    """Refuse what is not the name of a repository.

    Args:
        repository: `owner/name`, or empty.

    Raises:
        ConfigurationError: if it is neither.
    """
    if repository and not ADDRESS.fullmatch(repository):
        raise ConfigurationError(
            f"REPOSITORY must be empty or owner/name as on GitHub, such as octocat/hello-world; "
            f"got {repository!r}"
        )


def read_settings(root: Path = ROOT) -> Settings:
    """Read the settings from `pyproject.toml`.

    Args:
        root: the project's folder.

    Returns:
        The settings.

    Raises:
        ConfigurationError: if the repository's name is not valid.
    """
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
    settings = Settings(project["tool"]["ngem"]["repository"], project["project"]["version"])
    check_repository(settings.repository)
    return settings


# ------------------------------------------------------------------------------------- blocks


def _urls(settings: Settings) -> str:
    return f"""\
[project.urls]
Documentation = "{settings.site}"
Repository = "{settings.url}"
Issues = "{settings.url}/issues"
Changelog = "{settings.url}/blob/{BRANCH}/CHANGELOG.md"
"""


def _html(settings: Settings) -> str:
    return f"baseurl: {settings.site}\n"


def _theme(settings: Settings) -> str:
    return f"""\
repository_url: {settings.url}
repository_branch: {BRANCH}
path_to_docs: ""
use_repository_button: true
use_issues_button: true
use_edit_page_button: true
launch_buttons:
  colab_url: https://colab.research.google.com
"""


def _context(settings: Settings) -> str:
    # What is edited is the .md, also where the book is built from the .ipynb beside it.
    page = "{{ file_name | replace('.ipynb', '.md') }}"
    return f"""\
edit_page_provider_name: GitHub
edit_page_url_template: "{settings.url}/edit/{BRANCH}/{page}"
"""


def _citation(settings: Settings) -> str:
    return f"repository-code: {settings.url}\nurl: {settings.site}\n"


def _badges(settings: Settings) -> str:
    colab = "https://colab.research.google.com"
    notebook = f"{colab}/github/{settings.repository}/blob/{BRANCH}/book/intro.ipynb"
    actions = f"{settings.url}/actions/workflows"
    return f"""\
[![tests]({actions}/tests.yml/badge.svg)]({actions}/tests.yml)
[![book]({actions}/book.yml/badge.svg)]({settings.site})
[![open in Colab]({colab}/assets/colab-badge.svg)]({notebook})
"""


def _read(settings: Settings) -> str:
    if not settings.repository:
        return "`make book` builds it; it opens in a browser, without a server.\n"
    return (
        f"[The book]({settings.site}) is on the web. "
        "Each page has a button that opens it in Colab.\n"
    )


def _install(settings: Settings) -> str:
    if not settings.repository:
        return '```sh\npip install ".[data,plot]"   # in a copy of this repository\n```\n'
    return f'```sh\npip install "{settings.requirement("data,plot")}"\n```\n'


def _colab(settings: Settings) -> str:
    if settings.repository:
        return (
            "The first cell of each page, folded, installs the package if it is missing, and "
            "leaves Colab's JAX as it is.\n"
        )
    return """\
The first cell of each page, folded, looks for the package. It does not know from where to install
it. Put a cell before it that brings a copy of this repository and runs
`%pip install "./FOLDER[data,plot,sampling]"`, with the folder's name for `FOLDER`; only the page
on sampling needs `sampling`. Colab's JAX stays as it is.
"""


def _clone(settings: Settings) -> str:
    if not settings.repository:
        return ""
    name = settings.repository.partition("/")[2]
    return f"```sh\ngit clone {settings.url} && cd {name}\n```\n"


# What stands between the markers, and whether it is shown while there is no repository.
BLOCKS: dict[str, tuple[Callable[[Settings], str], bool]] = {
    "urls": (_urls, False),
    "html": (_html, False),
    "theme": (_theme, False),
    "context": (_context, False),
    "citation": (_citation, False),
    "badges": (_badges, False),
    "read": (_read, True),
    "install": (_install, True),
    "clone": (_clone, True),
    "colab": (_colab, True),
}


def fill(text: str, settings: Settings, where: str = "the text") -> str:
    """Write the marked blocks of a text.

    Args:
        text: the text.
        settings: what the blocks are derived from.
        where: what an error calls the text.

    Returns:
        The text with its blocks as they must be.

    Raises:
        ConfigurationError: if a block has an unknown name or no end.
    """

    def block(match: re.Match[str]) -> str:
        if match["name"] not in BLOCKS:
            known = ", ".join(BLOCKS)
            raise ConfigurationError(f"{where}: a block is one of {known}, not {match['name']}")
        write, always = BLOCKS[match["name"]]
        body = write(settings) if always or settings.repository else ""
        return match["start"] + textwrap.indent(body, match["indent"]) + match["end"]

    starts, ends = text.count(">>> configure: "), text.count("<<< configure")
    filled, number = MARKED.subn(block, text)
    if not starts == ends == number:
        raise ConfigurationError(f"{where}: {starts} blocks begin and {ends} end")
    return filled


# --------------------------------------------------------------------------------------- cell


def setup_cell(settings: Settings, extras: Sequence[str] = ()) -> str:
    """Return the cell that installs the package where it is missing, as it stands on a page.

    Args:
        settings: what it is derived from.
        extras: what the page needs besides `EXTRAS`; the cell checks that these are there.

    Returns:
        The cell, in MyST.
    """
    chosen = ",".join((*EXTRAS, *extras))
    if settings.repository:
        verb, title = "installs", "installs what is missing, and leaves JAX as it is"
        missing = f"""\
    from importlib import metadata

    # Named with its version, what is there already stays as it is.
    kept = [
        f"{{name}}=={{metadata.version(name)}}"
        for name in ("jax", "jaxlib", "numpy")
        if util.find_spec(name)
    ]
    source = "{settings.requirement(chosen)}"
    %pip install --quiet "{{source}}" {{" ".join(kept)}}
"""
    else:
        verb, title = "looks for", "looks for the package"
        missing = f"""\
    raise ModuleNotFoundError(
        "ngem_tutorial is not installed. Install it from the book's source, "
        "in its folder: pip install '.[{chosen}]'"
    )
"""
    checked = "".join(
        f'_install.require_extras("This page", _install.EXTRAS["{extra}"])\n' for extra in extras
    )
    if checked:
        checked = f"from ngem_tutorial import _install\n\n{checked}"
    where = f"at\\n{settings.site}" if settings.repository else "in the built book."
    return f"""\
```{{code-cell}} ipython3
---
cellView: form
jupyter:
  source_hidden: true
mystnb:
  code_prompt_show: Show the cell that {verb} the package
  code_prompt_hide: Hide the cell that {verb} the package
tags: [{SETUP}, hide-cell]
---
# @title Set-up: {title}
import sys
from importlib import util

if not util.find_spec("ngem_tutorial"):
{missing}
import jax
import ngem_tutorial
{checked}
print(
    f"ngem_tutorial {{ngem_tutorial.__version__}}, JAX {{jax.__version__}} "
    f"on {{jax.devices()[0].device_kind}}"
)
if "google.colab" in sys.modules:
    print(
        "Colab shows references as they are written: {{eq}} and the name of an\\n"
        "equation, which stands behind it; {{prf:ref}} or {{ref}} and the name, after\\n"
        ":label:, of a proposition, an algorithm or an exercise; {{numref}} and the\\n"
        "name of a figure or table nearby; {{footcite}} and the name of a work.\\n"
        "Numbers, captions and the list of works are {where}"
    )
```
"""


def place_cell(page: str, cell: str) -> str:
    """Put the setup cell before a page's first code cell, or in place of the one it has."""
    cells = [match for match in CELL.finditer(page) if f"tags: [{SETUP}," in match[0]]
    if cells:
        return page[: cells[0].start()] + cell + page[cells[0].end() :]
    first = CELL.search(page)
    return page if first is None else f"{page[: first.start()]}{cell}\n{page[first.start() :]}"


# -------------------------------------------------------------------------------------- files


def derive(settings: Settings, root: Path = ROOT) -> dict[Path, str]:
    """Return each file that holds something derived, with the text that it must have.

    Args:
        settings: what is derived from; the setting itself is one of the texts.
        root: the project's folder.

    Returns:
        The texts by file.

    Raises:
        ConfigurationError: if a file has not the markers that it must have, or a page declares an
            extra that the package does not have.
    """
    book = Book(root)
    project = root / "pyproject.toml"
    known = tomllib.loads(_text(project))["project"]["optional-dependencies"].keys()
    names = ("pyproject.toml", "_config.yml", "CITATION.cff", "README.md")
    texts: dict[Path, str] = {}
    for file in [*(root / name for name in names), *sorted((root / "book").rglob("*.md"))]:
        texts[file] = fill(_text(file), settings, file.relative_to(root).as_posix())
    for page in book.pages():
        extras = front_matter(page).get("ngem", {}).get("extras", [])
        if unknown := set(extras) - known:
            raise ConfigurationError(f"{book.name(page)}: no extra {', '.join(sorted(unknown))}")
        texts[page] = place_cell(texts[page], setup_cell(settings, extras))
    setting = f'repository = "{settings.repository}"'
    texts[project], number = SETTING.subn(setting, texts[project])
    if number != 1:
        raise ConfigurationError("pyproject.toml: [tool.ngem] must begin with repository")
    return texts


def outdated(settings: Settings, root: Path = ROOT) -> dict[Path, str]:
    """Return the files whose text is not what `derive` says, with the text that they must have."""
    return {file: text for file, text in derive(settings, root).items() if _text(file) != text}


def _text(file: Path) -> str:
    return file.read_bytes().decode("utf-8")


def main(arguments: list[str] | None = None, root: Path = ROOT) -> int:
    """Run the command line; return the exit status."""
    parser = argparse.ArgumentParser(
        description="Write what follows from the repository's address."
    )
    parser.add_argument("--repository", metavar="OWNER/NAME", help="set the address; empty: none")
    parser.add_argument("--check", action="store_true", help="change nothing")
    options = parser.parse_args(arguments)
    try:
        settings = read_settings(root)
        if options.repository is not None:
            check_repository(options.repository)
            settings = Settings(options.repository, settings.version)
        texts = outdated(settings, root)
    except ConfigurationError as error:
        print(f"configure: {error}", file=sys.stderr)
        return 2
    for file, text in texts.items():
        print(f"configure: {file.relative_to(root)}{' is out of date' if options.check else ''}")
        if not options.check:
            write_bytes(file, text.encode())
    if texts and not options.check:
        print("configure: `make notebooks` takes the pages' text over; then commit")
    return int(bool(texts) and options.check)


if __name__ == "__main__":
    sys.exit(main())
