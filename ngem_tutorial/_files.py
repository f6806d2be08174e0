"""Files: written so that a reader sees all of the content or none; the cache of downloads."""

from __future__ import annotations

import importlib
import os
import uuid
from pathlib import Path
from typing import Any

__all__ = ["cache_dir", "require", "write_atomically"]


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


def cache_dir() -> Path:
    """Return the folder for downloaded data.

    Returns:
        `NGEM_CACHE_DIR`, or the usual place for caches on the platform.
    """
    if chosen := os.environ.get("NGEM_CACHE_DIR"):
        return Path(chosen).expanduser()
    usual = os.environ.get("XDG_CACHE_HOME") or os.environ.get("LOCALAPPDATA") or "~/.cache"
    return Path(usual).expanduser() / "ngem_tutorial"


def require(module: str, package: str) -> Any:
    """Import an optional module, or say which extra brings it.

    Args:
        module: its name.
        package: the name of the package on the package index.

    Returns:
        The module.

    Raises:
        ImportError: if it cannot be imported.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(
            f"{package} is needed for this and could not be imported ({error}). "
            'Install it with: pip install "ngem-tutorial[data]"'
        ) from error
