"""Files: written as a whole or not at all, locked, downloaded to a cache."""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from ngem_tutorial._install import require

__all__ = [
    "LockError",
    "RemediableError",
    "cache_dir",
    "exchange",
    "locked",
    "write_atomically",
]


class RemediableError(RuntimeError):
    """Something that the user can mend; the message says how, and no traceback is needed."""


class LockError(RemediableError):
    """Another process does the same; the message says which."""


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


def exchange(first: Path, second: Path) -> bool:
    """Exchange the names of two files or folders at one moment.

    Args:
        first: one of them.
        second: the other, on the same file system.

    Returns:
        Whether that was done; False where the system cannot.
    """
    library = ctypes.CDLL(None, use_errno=True)
    paths = os.fsencode(first), os.fsencode(second)
    if sys.platform == "linux" and hasattr(library, "renameat2"):
        here, swap = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
        return bool(library.renameat2(here, paths[0], here, paths[1], swap) == 0)
    if sys.platform == "darwin" and hasattr(library, "renamex_np"):
        return bool(library.renamex_np(*paths, 2) == 0)  # RENAME_SWAP
    return False


@contextlib.contextmanager
def locked(path: Path, what: str) -> Iterator[None]:
    """Hold a lock while the block runs; the system lets go of it when the process ends, however.

    Args:
        path: the lock file; its folder is made, and the file is removed at the end.
        what: what is locked, the subject of the error's message.

    Yields:
        Nothing.

    Raises:
        LockError: if another process holds the lock.
        OSError: if the file system refuses.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        file = path.open("a+", encoding="utf-8")
        if not _try_lock(file):
            file.seek(0)
            holder = file.read().strip() or "another process"
            file.close()
            raise LockError(f"{what} is being computed by {holder}: wait for it or stop it")
        if path.exists() and os.path.samestat(os.fstat(file.fileno()), path.stat()):
            break
        file.close()  # its last holder has removed it in the meantime
    try:
        file.truncate(0)
        file.write(f"process {os.getpid()} on {platform.node()}")
        file.flush()
        yield
    finally:
        with contextlib.suppress(OSError):  # Windows keeps what is open
            path.unlink()
        file.close()


def _try_lock(file: IO[str]) -> bool:
    """Lock a file for this process, or say that another one has."""
    try:
        import fcntl
    except ImportError:  # Windows
        import msvcrt

        lock: Any = getattr(msvcrt, "locking")  # noqa: B009  # unknown to type checkers elsewhere
        how: tuple[int, ...] = (getattr(msvcrt, "LK_NBLCK"), 1)  # noqa: B009
    else:
        lock, how = fcntl.flock, (fcntl.LOCK_EX | fcntl.LOCK_NB,)
    try:
        lock(file.fileno(), *how)
    except OSError:
        return False
    return True


def cache_dir() -> Path:
    """Return the folder for downloaded data.

    Returns:
        `NGEM_CACHE_DIR`, or the usual place for caches on the platform.

    Raises:
        ImportError: if that is not set and platformdirs is not installed.
    """
    if chosen := os.environ.get("NGEM_CACHE_DIR"):
        return Path(chosen).expanduser()
    folder: Path = require("platformdirs").user_cache_path("ngem_tutorial", False)
    return folder
