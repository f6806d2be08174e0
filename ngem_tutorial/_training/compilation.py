"""Compiled programs, kept by what they compute.

`jax.jit` keeps a program by the identity of the function that it came from, so a closure that is
made anew for each call, such as `optax.adam(1e-3)`, compiles anew, and every program stays for
ever. Here two functions with one lowered text share one executable, and the least recently used
ones are dropped. What is the package's own, values and functions that cannot change, is not even
traced again.
"""

from __future__ import annotations

import dataclasses
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from functools import partial
from types import BuiltinFunctionType, FunctionType, MethodType
from typing import Any, Generic, NamedTuple, TypeVar

import jax
import numpy as np

__all__ = ["Program", "clear", "compiled"]

_Value = TypeVar("_Value")


class _Recent(Generic[_Value]):
    """A table that keeps its most recently used entries."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._entries: OrderedDict[Hashable, _Value] = OrderedDict()

    def get(self, key: Hashable) -> _Value | None:
        if key not in self._entries:
            return None
        self._entries.move_to_end(key)
        return self._entries[key]

    def put(self, key: Hashable, value: _Value) -> None:
        self._entries[key] = value
        if len(self._entries) > self._size:
            self._entries.popitem(last=False)

    def clear(self) -> None:
        self._entries.clear()


class Program(NamedTuple):
    """An executable on flat leaves, and the structure of what its function returns."""

    executable: Any
    structure: Any

    def __call__(self, *arguments: Any) -> Any:
        return jax.tree.unflatten(self.structure, self.executable(*jax.tree.leaves(arguments)))


_SETTINGS = (
    "jax_default_device",
    "jax_enable_x64",
    "jax_default_matmul_precision",
    "jax_default_prng_impl",
    "jax_threefry_partitionable",
    "jax_numpy_dtype_promotion",
    "jax_numpy_rank_promotion",
    "jax_debug_nans",
)
"""Settings of JAX that change a program."""
_BY_FUNCTION: _Recent[Program] = _Recent(64)
"""By what the function depends on, where that cannot change: not even traced again."""
_BY_TEXT: _Recent[Any] = _Recent(64)
"""By the lowered text: traced again, not compiled again."""


def compiled(function: Callable[..., Any], *arguments: Any, key: Hashable) -> Program:
    """Compile a function for arguments of given shapes, or return what was compiled before.

    Args:
        function: traceable by JAX.
        arguments: pytrees of arrays; only their structure, shapes and types matter.
        key: what the function depends on besides its arguments. Equal keys mean equal functions,
            so it holds the functions that `function` calls, not their names. It counts only where
            nothing in it can change: a function of the caller's may read a variable that does, so
            it is traced anew.

    Returns:
        The compiled function, for arguments of the same structure, shapes and types.
    """
    leaves, structure = jax.tree.flatten(arguments)
    types = tuple((jax.typeof(leaf), str(getattr(leaf, "sharding", None))) for leaf in leaves)
    config: Any = jax.config
    platform = (jax.default_backend(), *(str(getattr(config, name)) for name in _SETTINGS))
    key = _hashable((key, structure, types, platform)) if _is_fixed(key) else None
    program = None if key is None else _BY_FUNCTION.get(key)
    if program is not None:
        return program
    returned = []

    def flat(*leaves: Any) -> list[Any]:
        result = function(*jax.tree.unflatten(structure, leaves))
        returned.append(jax.tree.structure(result))
        return jax.tree.leaves(result)

    # Arguments that are not used are kept: two programs of one text take the same ones.
    lowered = jax.jit(flat, keep_unused=True).lower(*leaves)
    text = lowered.as_text()
    executable = _BY_TEXT.get((text, types, platform))
    if executable is None:
        executable = lowered.compile()
        # A callback into Python appears as a number, whatever it calls.
        if "callback" not in text:
            _BY_TEXT.put((text, types, platform), executable)
    program = Program(executable, returned[-1])
    if key is not None:
        _BY_FUNCTION.put(key, program)
    return program


def clear() -> None:
    """Forget every program."""
    _BY_FUNCTION.clear()
    _BY_TEXT.clear()


_LIBRARIES = {__name__.partition(".")[0], "flax", "jax", "jaxlib", "numpy", "optax", "kfac_jax"}
"""Packages whose functions do not read what a user can set."""
_PLAIN = (
    *(bool, int, float, complex, str, bytes, type(None), np.dtype, np.generic, jax.Array),
    jax.tree_util.PyTreeDef,
)


def _is_fixed(part: Any) -> bool:
    """Whether what this calls or holds is the same at every call; False where that is not known."""
    if isinstance(part, _PLAIN):
        return True
    if isinstance(part, Mapping):
        return all(map(_is_fixed, part.keys())) and all(map(_is_fixed, part.values()))
    if isinstance(part, tuple | list | frozenset):
        return all(map(_is_fixed, part))
    if isinstance(part, partial):
        return all(map(_is_fixed, (part.func, part.args, part.keywords)))
    if isinstance(part, MethodType):
        return _is_fixed(part.__self__) and _is_fixed(part.__func__)
    owner = part if isinstance(part, type | FunctionType) else type(part)
    if (getattr(owner, "__module__", None) or "").partition(".")[0] not in _LIBRARIES:
        return isinstance(part, BuiltinFunctionType)
    if isinstance(part, FunctionType):
        cells = [cell.cell_contents for cell in part.__closure__ or ()]
        return all(map(_is_fixed, (*cells, part.__defaults__, part.__kwdefaults__)))
    if dataclasses.is_dataclass(part) and not isinstance(part, type):
        return all(_is_fixed(getattr(part, field.name)) for field in dataclasses.fields(part))
    return isinstance(part, type) or _is_fixed(getattr(part, "__wrapped__", _UNKNOWN))


_UNKNOWN = object()


def _hashable(key: Hashable) -> Hashable | None:
    """The key, or None if a part of it cannot be hashed."""
    try:
        hash(key)
    except TypeError:
        return None
    return key
