"""kfac-jax, with one function mended where its newest release and JAX do not fit together.

kfac-jax 0.0.8, the newest release, evaluates the equations of a traced model with
`Primitive.get_bind_params` as it was before JAX 0.9.2: a pair of functions and parameters, where it
now is the parameters alone. With such a JAX every call of kfac-jax that traces a model raises. An
older JAX is no way out (the pinned one is newer), and there is no way around the tracer, so `load`
replaces that one function, `_src.tag_graph_matcher.eval_jaxpr_eqn`, by the version below, once and
for the whole process. What it replaces could only raise, so nothing that worked changes. Another
release of kfac-jax is left as it is, and a test fails when one no longer needs this.

`evaluate_equation` is adapted from kfac-jax, copyright DeepMind Technologies Limited, Apache
License 2.0.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import jax
from jax.extend import source_info_util

from ngem_tutorial._install import require

__all__ = ["evaluate_equation", "load", "needs_repair", "without_deprecations"]

MATCHER = "kfac_jax._src.tag_graph_matcher"


def load() -> ModuleType:
    """Import kfac-jax and mend it if it has to be.

    Returns:
        The module.

    Raises:
        ImportError: if it is not installed, or does not fit the installed JAX.
    """
    kfac_jax: ModuleType = require("kfac_jax")
    if needs_repair(kfac_jax.__version__, jax.__version_info__):
        matcher: Any = importlib.import_module(MATCHER)
        matcher.eval_jaxpr_eqn = evaluate_equation
    return kfac_jax


def needs_repair(kfac_jax_version: str, jax_version: tuple[int, ...]) -> bool:
    """Whether a release of kfac-jax fails with a version of JAX for want of `evaluate_equation`.

    Args:
        kfac_jax_version: such as `"0.0.8"`.
        jax_version: such as `(0, 10, 2)`.

    Returns:
        True or False.
    """
    return kfac_jax_version == "0.0.8" and jax_version >= (0, 9, 2)


def evaluate_equation(equation: Any, values: list[Any]) -> list[Any]:
    """Evaluate an equation of a traced function.

    Args:
        equation: of a jaxpr.
        values: of its inputs.

    Returns:
        The values of its outputs.
    """
    primitive = equation.primitive
    parameters = primitive.get_bind_params(equation.params)
    with source_info_util.user_context(equation.source_info.traceback):
        output = primitive.bind(*values, **parameters)
    return list(output) if primitive.multiple_results else [output]


@contextmanager
def without_deprecations() -> Iterator[None]:
    """Pass over kfac-jax's use of deprecated parts of JAX while it traces.

    Yields:
        Nothing.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=DeprecationWarning, module="kfac_jax")
        yield
