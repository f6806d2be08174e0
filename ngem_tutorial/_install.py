"""Optional packages: which extra brings which, and how to install it.

The package is not on an index, and its name there could be anyone's: a hint names the address of
the repository, which the metadata of the installed package have, or else the checkout.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import warnings
from collections.abc import Iterable, Mapping
from typing import Any, Final

__all__ = ["EXTRAS", "how_to_install", "require", "require_extras"]

EXTRAS: Final[Mapping[str, Mapping[str, str]]] = {
    "data": {
        "importlib_resources": "importlib_resources",
        "platformdirs": "platformdirs",
        "pooch": "pooch",
        "sklearn": "scikit-learn",
        "tensorflow_datasets": "tensorflow-datasets",
    },
    "optimizers": {"kfac_jax": "kfac-jax"},
    "plot": {"matplotlib": "matplotlib", "pandas": "pandas", "seaborn": "seaborn"},
    "sampling": {"blackjax": "blackjax", "numpyro": "numpyro"},
}
"""For each extra, what users import of it, and the name under which that is installed."""

_NAME: Final = "ngem-tutorial"


def how_to_install(*extras: str) -> str:
    """Return a sentence that says how to install extras of this package.

    Args:
        *extras: `"plot"` for instance.

    Returns:
        The command with the address of the repository, where the metadata of the installed package
        name one, and otherwise the command to run in a checkout.

    Example:
        >>> "[plot]" in how_to_install("plot")
        True
    """
    chosen = ",".join(extras)
    if repository := _repository():
        version = importlib.metadata.version(_NAME)
        revision = "" if "dev" in version else f"@v{version}"
        return f'Install it with: pip install "{_NAME}[{chosen}] @ git+{repository}{revision}"'
    return (
        f"Install the extra{'s' if len(extras) > 1 else ''} {' and '.join(extras)} of this "
        f"package from its checkout: pip install '.[{chosen}]'"
    )


def _repository() -> str | None:
    """Return the address of the repository, or None if the installed package does not name it."""
    try:
        metadata = importlib.metadata.metadata(_NAME)
    except importlib.metadata.PackageNotFoundError:
        return None
    for line in metadata.get_all("Project-URL") or []:
        label, _, address = line.partition(",")
        if label.strip().lower() == "repository":
            return address.strip() or None
    return None


def require(module: str) -> Any:
    """Import an optional module, or say what is missing and how to get it.

    Deprecations that its import meets are passed over: they concern its authors.

    Args:
        module: its name.

    Returns:
        The module.

    Raises:
        ImportError: if it cannot be imported, for whatever reason: a package can be too old for
            the JAX that is there.

    Example:
        >>> require("math").sqrt(4.0)
        2.0
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            return importlib.import_module(module)
    except Exception as error:  # kfac-jax raises an AttributeError with a JAX that is too new
        top = module.partition(".")[0]
        raise ImportError(_explain(top, error), name=top) from error


def _explain(top: str, error: Exception) -> str:
    extra = next((extra for extra, brings in EXTRAS.items() if top in brings), None)
    package = EXTRAS[extra][top] if extra else top.replace("_", "-")
    how = how_to_install(extra) if extra else f"Install it with: pip install {package}"
    if isinstance(error, ModuleNotFoundError) and (error.name or top).partition(".")[0] == top:
        return f"{package} is needed for this and is not installed. {how}"
    reason = f"its import raises {type(error).__name__}: {error}"
    if isinstance(error, ModuleNotFoundError):
        return f"{package} is needed for this, but {reason}. {how}"
    jax = importlib.metadata.version("jax")
    return (
        f"{package} is needed for this, but {reason}. It does not fit what is installed with it, "
        f"JAX {jax} among others: install another release of one of them"
    )


def require_extras(what: str, modules: Iterable[str]) -> None:
    """Check that optional modules are installed, all at once and without importing them.

    Args:
        what: needs them, the subject of the error.
        modules: their names, each of an extra in `EXTRAS`.

    Raises:
        ImportError: if some are missing; it names them all and the extras that bring them.

    Example:
        >>> require_extras("the demonstration", [])
    """
    missing = [module for module in modules if importlib.util.find_spec(module) is None]
    if not missing:
        return
    extras = [extra for extra, brings in EXTRAS.items() if set(missing) & brings.keys()]
    packages = [brings[m] for brings in EXTRAS.values() for m in missing if m in brings]
    raise ImportError(
        f"{what} needs {', '.join(packages)}: not installed. {how_to_install(*extras)}",
        name=missing[0],
    )
