"""Where and by what something is computed: versions, device, memory, commit."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import jax
import jax.numpy as jnp

__all__ = ["PACKAGE", "commit", "cpu_model", "device", "peak_memory_mib", "versions", "x64"]

PACKAGE: Final = Path(__file__).resolve().parent
"""The folder of the package."""


def versions() -> dict[str, str | None]:
    """Return the versions of Python and of the packages that decide the numbers."""
    packages = ("ngem-tutorial", "jax", "jaxlib", "flax", "optax", "numpy", "pandas", "kfac-jax")
    versions: dict[str, str | None] = {"python": platform.python_version()}
    for package in packages:
        try:
            versions[package.replace("-", "_")] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package.replace("-", "_")] = None
    return versions


def device() -> dict[str, Any]:
    """Return what JAX computes on, and the machine's processor."""
    devices = jax.devices()
    return {
        "platform": devices[0].platform,
        "kind": devices[0].device_kind,
        "count": len(devices),
        "cpu_model": cpu_model(),
        "cpu_cores": os.cpu_count(),
        "system": platform.system(),
        "x64": x64(),
    }


def x64() -> bool:
    """Return whether JAX computes in 64 bits."""
    return bool(jnp.result_type(float) == jnp.float64)


def cpu_model() -> str:
    """Return the name of the processor, `unknown` if the system does not tell."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return next(iter(names), platform.processor()) or "unknown"


def commit(package: Path) -> dict[str, Any]:
    """Return the commit of the package's repository, and whether the package differs from it.

    `dirty` looks at the package's folder only: the tables that a run writes are not part of what
    made them. Outside of a repository that tracks the package, the commit is `unknown`.
    """
    environment = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(package), *arguments]
        return subprocess.run(
            command, capture_output=True, text=True, check=True, timeout=30, env=environment
        ).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", "__init__.py")
        return {
            "hash": git("rev-parse", "HEAD"),
            "dirty": bool(git("status", "--porcelain", "--", ".")),
        }
    except (OSError, subprocess.SubprocessError):
        return {"hash": "unknown", "dirty": None}


def peak_memory_mib() -> int:
    """The largest resident memory of this process so far, MiB; 0 where it is not known."""
    try:
        import resource
    except ImportError:  # Windows
        return 0
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit // 2**20
