"""Writing files so that a reader sees the old content or the new one, never a part."""

from __future__ import annotations

import os
import uuid
from pathlib import Path

__all__ = ["write_atomically"]


def write_atomically(path: Path, content: bytes) -> None:
    """Write `content` to `path`, through a temporary file in the same folder.

    An interruption at any moment leaves the previous content of `path` in place, or the new one.

    Args:
        path: the file to write; its folder is made if it does not exist.
        content: the bytes of the whole file.

    Raises:
        OSError: if the file system refuses.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        with temporary.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
