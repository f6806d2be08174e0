"""What a release needs: its version, and its section of the changelog.

Usage::

    python tools/release.py version    # the version
    python tools/release.py notes      # the section of CHANGELOG.md about it

Exit status 1, with the reason, if the project is not ready to be released.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from configure import read_settings

ROOT = Path(__file__).resolve().parents[1]
SECTION = re.compile(
    r"^## \[(?P<name>[^]]+)\](?P<rest>[^\n]*)\n(?P<body>.*?)(?=^## |\Z)", re.MULTILINE | re.DOTALL
)


class NotReadyError(Exception):
    """The project cannot be released as it is; the message says why."""


def notes(version: str, changelog: str) -> str:
    """Return what the changelog says about a version.

    Args:
        version: the version, three numbers.
        changelog: the text of `CHANGELOG.md`.

    Returns:
        The body of the version's section.

    Raises:
        NotReadyError: if the version is not three numbers, there is no dated section about it, or
            changes are still listed as unreleased.
    """
    if not re.fullmatch(r"\d+\.\d+\.\d+", version):
        raise NotReadyError(f"the version is {version}: a release has three numbers")
    sections = {match["name"]: match for match in SECTION.finditer(changelog)}
    if "Unreleased" in sections and sections["Unreleased"]["body"].strip():
        raise NotReadyError("CHANGELOG.md lists changes under Unreleased: move them to the version")
    section = sections.get(version)
    if section is None or not re.fullmatch(r" - \d{4}-\d{2}-\d{2}", section["rest"].rstrip()):
        raise NotReadyError(f"CHANGELOG.md has no section `## [{version}] - YYYY-MM-DD`")
    return section["body"].strip()


def main(arguments: list[str] | None = None, root: Path = ROOT) -> int:
    """Run the command line; return the exit status."""
    command = sys.argv[1:] if arguments is None else arguments
    if command not in (["version"], ["notes"]):
        print(__doc__, file=sys.stderr)
        return 2
    settings = read_settings(root)
    try:
        text = notes(settings.version, (root / "CHANGELOG.md").read_text(encoding="utf-8"))
        if not settings.repository:
            raise NotReadyError("there is no address: make configure REPOSITORY=owner/name")
    except NotReadyError as error:
        print(f"release: {error}", file=sys.stderr)
        return 1
    print(settings.version if command == ["version"] else text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
