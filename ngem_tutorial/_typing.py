"""Shapes in signatures: `Float[Array, "*batch K"]`, as jaxtyping writes and checks them.

They are for the reader and for the tests. Where `NGEM_CHECK_SHAPES` is 1 in the environment the
names are jaxtyping's, and every call can be checked. Elsewhere jaxtyping is not imported, and need
not be installed: the annotation above is then no more than `Array`, for type checkers too.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from jax import Array
from jax.typing import ArrayLike as JaxArrayLike

__all__ = [
    "Array",
    "ArrayLike",
    "Bool",
    "Float",
    "Float32",
    "Int",
    "Int32",
    "Num",
    "Scalar",
    "Shaped",
]

ArrayLike: TypeAlias = JaxArrayLike | Sequence["ArrayLike"]
"""An array, a number, or lists of them as `jax.numpy.asarray` takes them."""

Scalar: TypeAlias = JaxArrayLike
"""A number, or an array of shape `()`."""

if TYPE_CHECKING:
    from typing import Annotated as Bool
    from typing import Annotated as Float
    from typing import Annotated as Float32
    from typing import Annotated as Int
    from typing import Annotated as Int32
    from typing import Annotated as Num
    from typing import Annotated as Shaped
elif os.environ.get("NGEM_CHECK_SHAPES") == "1":
    from jaxtyping import Bool, Float, Float32, Int, Int32, Num, Shaped
else:

    class _Unchecked:
        """What is annotated, without its shape."""

        def __class_getitem__(cls, item: tuple[Any, str]) -> Any:
            return item[0]

    Bool = Float = Float32 = Int = Int32 = Num = Shaped = _Unchecked
