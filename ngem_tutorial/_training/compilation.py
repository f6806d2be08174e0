"""Compiled programs, kept by what they compute.

`jax.jit` keeps a program by the identity of the function that it came from, so a closure that is
made anew for each call, such as `optax.adam(1e-3)`, compiles anew, and every program stays for
ever. Here two functions with one lowered text share one executable, and the least recently used
ones are dropped.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any, Generic, NamedTuple, TypeVar

import jax

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
"""By what the caller says that the function depends on: not even traced again."""
_BY_TEXT: _Recent[Any] = _Recent(64)
"""By the lowered text: traced again, not compiled again."""


def compiled(function: Callable[..., Any], *arguments: Any, key: Hashable) -> Program:
    """Compile a function for arguments of given shapes, or return what was compiled before.

    Args:
        function: traceable by JAX.
        arguments: pytrees of arrays; only their structure, shapes and types matter.
        key: what the function depends on besides its arguments. Equal keys mean equal functions,
            so it holds the functions that `function` calls, not their names.

    Returns:
        The compiled function, for arguments of the same structure, shapes and types.
    """
    leaves, structure = jax.tree.flatten(arguments)
    types = tuple((jax.typeof(leaf), str(getattr(leaf, "sharding", None))) for leaf in leaves)
    config: Any = jax.config
    platform = (jax.default_backend(), *(str(getattr(config, name)) for name in _SETTINGS))
    key = _hashable((key, structure, types, platform))
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


def _hashable(key: Hashable) -> Hashable | None:
    """The key, or None if a part of it cannot be hashed."""
    try:
        hash(key)
    except TypeError:
        return None
    return key
