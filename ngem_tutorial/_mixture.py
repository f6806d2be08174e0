"""What mixtures of all families share: weights, likelihood, drawing, batches, being a pytree."""

from __future__ import annotations

import abc
import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, TypeVar

import flax.serialization
import jax
import jax.export
import jax.numpy as jnp
import numpy as np

from ngem_tutorial._checks import check_number, check_values, checked_key, real_array
from ngem_tutorial._typing import Array, ArrayLike, Float, Int, Scalar

__all__ = [
    "LOG_2PI",
    "Mixture",
    "at_least_float32",
    "check_finite",
    "check_logits",
    "first",
    "register",
]

LOG_2PI = math.log(2.0 * math.pi)
_FLOAT32, _FLOAT64 = np.dtype(np.float32), np.dtype(np.float64)

Self = TypeVar("Self", bound="Mixture")


class Mixture(abc.ABC):
    """A batch of mixtures of `K` components in `D` dimensions; a family is a subclass.

    A subclass is a frozen dataclass whose fields are its parameters, `logits` of shape `(..., K)`
    and `means` of shape `(..., K, D)` among them. It has `component_log_prob` and `_deviations`.
    """

    EVENT_AXES: ClassVar[dict[str, int]]
    """Names of the parameters, and how many axes each has behind those of the batch."""

    logits: Array
    means: Array

    def _set(self, **parameters: ArrayLike) -> None:
        """Convert the parameters to floating-point arrays of one dtype, and keep them."""
        arrays = {name: real_array(name, value) for name, value in parameters.items()}
        dtypes = {array.dtype for array in arrays.values()}
        if dtypes not in ({_FLOAT32}, {_FLOAT64}):  # these need no conversion
            # The widest of them; integers become floats.
            dtype = at_least_float32(jnp.result_type(*arrays.values(), float))
            arrays = {name: array.astype(dtype) for name, array in arrays.items()}
        for name, array in arrays.items():
            object.__setattr__(self, name, array)

    def tree_flatten_with_keys(self) -> tuple[tuple[tuple[Any, Any], ...], None]:
        """Return the leaves with their names; JAX calls this."""
        key = jax.tree_util.GetAttrKey
        return tuple((key(name), getattr(self, name)) for name in self.EVENT_AXES), None

    @classmethod
    def tree_unflatten(cls: type[Self], _: None, leaves: Sequence[Any]) -> Self:
        """Rebuild from leaves without checks: gradients and placeholders pass here."""
        mixture = object.__new__(cls)
        for name, leaf in zip(cls.EVENT_AXES, leaves, strict=True):
            object.__setattr__(mixture, name, leaf)
        return mixture

    @property
    def num_components(self) -> int:
        """Number of components `K`."""
        return self.means.shape[-2]

    @property
    def dim(self) -> int:
        """Number of dimensions `D` of a target."""
        return self.means.shape[-1]

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """Shape of the leading axes, `()` for a single mixture."""
        return self.logits.shape[:-1]

    @property
    def log_weights(self) -> Float[Array, "*batch {self.num_components}"]:
        """Normalised log-weights `log pi`, shape `(..., K)`."""
        return jax.nn.log_softmax(self.logits, axis=-1)

    @property
    def weights(self) -> Float[Array, "*batch {self.num_components}"]:
        """Mixture weights `pi`, shape `(..., K)`, summing to one."""
        return jax.nn.softmax(self.logits, axis=-1)

    @abc.abstractmethod
    def component_log_prob(self, y: ArrayLike) -> Float[Array, "*batch {self.num_components}"]:
        """Log-density of each component, without its weight.

        Args:
            y: targets, shape `(..., D)`; leading axes broadcast against the mixture's.

        Returns:
            Shape `(..., K)`, in nats.

        Raises:
            ValueError: if the last axis of `y` is not `D` or its leading axes do not broadcast.
        """

    @abc.abstractmethod
    def _deviations(self, index: jax.Array, noise: jax.Array) -> jax.Array:
        """Turn noise of N(0, I), `(*shape, ..., D)`, into deviations from the means.

        `index` has the position of each draw's component among all components of the batch.
        """

    def log_prob(self, y: ArrayLike) -> Float[Array, "*batch"]:
        """Log-density of the mixture, equation (14) of the paper.

        Args:
            y: targets, shape `(..., D)`; leading axes broadcast against the mixture's.

        Returns:
            Shape `(...)`, in nats.

        Raises:
            ValueError: if the last axis of `y` is not `D` or its leading axes do not broadcast.
        """
        return jax.nn.logsumexp(self.log_weights + self.component_log_prob(y), axis=-1)

    def log_responsibilities(self, y: ArrayLike) -> Float[Array, "*batch {self.num_components}"]:
        """Logarithm of the responsibilities, `log rho`; see `responsibilities`.

        Args:
            y: targets, shape `(..., D)`; leading axes broadcast against the mixture's.

        Returns:
            Shape `(..., K)`.

        Raises:
            ValueError: if the last axis of `y` is not `D` or its leading axes do not broadcast.
        """
        return jax.nn.log_softmax(self.log_weights + self.component_log_prob(y), axis=-1)

    def responsibilities(self, y: ArrayLike) -> Float[Array, "*batch {self.num_components}"]:
        """Probability `rho_k` that component `k` produced the target, equation (15) of the paper.

        Args:
            y: targets, shape `(..., D)`; leading axes broadcast against the mixture's.

        Returns:
            Shape `(..., K)`, summing to one.

        Raises:
            ValueError: if the last axis of `y` is not `D` or its leading axes do not broadcast.
        """
        return jnp.exp(self.log_responsibilities(y))

    def sample(
        self, key: jax.Array, shape: int | Sequence[int] = (), *, temperature: Scalar = 1.0
    ) -> Float[Array, "*shape {self.dim}"]:
        """Draw targets.

        A gradient flows to means and scales, the noise and the drawn components held fixed.
        With more than one component there is none for the logits, and asking for it is an error.

        Args:
            key: a JAX random key.
            shape: how many for each mixture of the batch.
            temperature: positive, a number, traced or not. The logits are divided by it and the
                variances multiplied: below one the draws gather at the means of the heaviest
                components.

        Returns:
            Shape `(*shape, ..., D)`.

        Raises:
            ValueError: if `key` is no random key, `shape` is negative or `temperature` not
                positive (where it is known).
            TypeError: if a gradient with respect to the logits is asked for.

        Example:
            >>> import jax
            >>> from ngem_tutorial import GaussianMixture
            >>> mixture = GaussianMixture([0.0, 0.0], [[-1.0], [1.0]], [[0.5], [0.5]])
            >>> mixture.sample(jax.random.key(0), 1000).shape
            (1000, 1)
        """
        return self.sample_with_components(key, shape, temperature=temperature)[0]

    def sample_with_components(
        self, key: jax.Array, shape: int | Sequence[int] = (), *, temperature: Scalar = 1.0
    ) -> tuple[Float[Array, "*shape {self.dim}"], Int[Array, "*shape"]]:
        """Draw targets, and say which component each is from.

        Args:
            key: as in `sample`.
            shape: as in `sample`.
            temperature: as in `sample`.

        Returns:
            The targets that `sample` draws, shape `(*shape, ..., D)`, and the positions of their
            components, integers from 0 to `K - 1`, shape `(*shape, ...)`.

        Raises:
            ValueError: if `key` is no random key, `shape` is negative or `temperature` not
                positive (where it is known).
            TypeError: if a gradient with respect to the logits is asked for.
        """
        check_number("temperature", temperature, "positive and finite", _positive)
        check_values("shape", shape, "a whole number or several, not negative", _natural)
        temperature = jnp.asarray(temperature, self.means.dtype)
        shape = tuple(int(length) for length in np.atleast_1d(shape))
        component_key, noise_key = jax.random.split(checked_key(key))
        batch = (*shape, *self.batch_shape)
        logits = self.logits if self.num_components == 1 else _without_gradient(self.logits)
        k = jax.random.categorical(component_key, logits / temperature, shape=batch)
        noise = jax.random.normal(noise_key, (*batch, self.dim), self.means.dtype)
        # Positions among all components of the batch: nothing of shape (*batch, K, D) is made.
        first = jnp.arange(math.prod(self.batch_shape)).reshape(self.batch_shape)
        index = self.num_components * first + k

        means = self.means.reshape(-1, self.dim)[index]
        return means + jnp.sqrt(temperature) * self._deviations(index, noise), k

    def __getitem__(self: Self, index: Any) -> Self:
        """Some mixtures of a batch.

        Args:
            index: of the batch axes, whatever an array of the batch shape takes.

        Returns:
            A mixture whose batch shape is that of such an array at the index. Where a traced index
            is out of range its parameters are NaN.

        Raises:
            IndexError: if the index has more axes than the batch or is out of range (where it is
                known).
        """
        index = index if isinstance(index, tuple) else (index,)
        if not any(isinstance(part, jax.core.Tracer) for part in index):
            np.broadcast_to(False, self.batch_shape)[index]  # raises as NumPy does
        elif len(index) > len(self.batch_shape):
            raise IndexError(f"too many indices for the batch shape {self.batch_shape}")
        dots = any(part is Ellipsis for part in index)

        def pick(leaf: jax.Array, event_axes: int) -> jax.Array:
            whole = (slice(None),) * event_axes if dots else ()
            return jnp.asarray(leaf).at[(*index, *whole)].get(mode="fill", fill_value=jnp.nan)

        leaves = [pick(getattr(self, name), axes) for name, axes in self.EVENT_AXES.items()]
        return self.tree_unflatten(None, leaves)

    def __len__(self) -> int:
        """Length of the first batch axis."""
        if not self.batch_shape:
            raise TypeError("a mixture without batch axes has no length")
        return self.batch_shape[0]

    def __iter__(self: Self) -> Iterator[Self]:
        """The mixtures along the first batch axis."""
        if not self.batch_shape:
            raise TypeError("iteration over a mixture without batch axes")
        return (self[position] for position in range(len(self)))

    @property
    def mean(self) -> Float[Array, "*batch {self.dim}"]:
        """Mean of the mixture, shape `(..., D)`."""
        return jnp.sum(self.weights[..., None] * self.means, axis=-2)

    @property
    def weight_entropy(self) -> Float[Array, "*batch"]:
        """Entropy `H(pi)` of the weights in nats, shape `(...)`; at most `log K`."""
        weights = self.weights
        log = jnp.where(weights > 0, self.log_weights, 0.0)  # 0 log 0 = 0
        return -jnp.sum(weights * log, axis=-1)

    def _columns(self, dims: int | Sequence[int]) -> np.ndarray:
        """Coordinates that `marginal` keeps, checked."""
        columns = np.atleast_1d(np.asarray(dims))
        if (
            columns.ndim != 1
            or columns.size == 0
            or not np.issubdtype(columns.dtype, np.integer)
            or not all(-self.dim <= d < self.dim for d in columns)
        ):
            raise ValueError(
                f"dims must name coordinates from {-self.dim} to {self.dim - 1}, got {dims}"
            )
        if len({int(d) % self.dim for d in columns}) < columns.size:
            raise ValueError(f"dims must name each coordinate of the {self.dim} once, got {dims}")
        return columns

    def _targets(self, y: ArrayLike) -> jax.Array:
        """Return `y` as an array in the mixture's dtype after checking its shape."""
        y = real_array("y", y)
        self._check_dim(y)
        try:
            jnp.broadcast_shapes(y.shape[:-1], self.batch_shape)
        except ValueError:
            raise ValueError(
                f"the leading axes of y, {y.shape[:-1]}, must broadcast against those of the "
                f"mixture, {self.batch_shape}"
            ) from None
        return y.astype(jnp.result_type(y, self.means))

    def _check_dim(self, y: jax.Array) -> None:
        if y.ndim == 0 or y.shape[-1] != self.dim:
            hint = "; give it an axis, y[..., None], for D = 1" if self._lacks_axis(y) else ""
            raise ValueError(
                f"y must have shape (..., D) with D = {self.dim}, the dimension of the mixture, "
                f"got shape {y.shape}{hint}"
            )

    def _lacks_axis(self, y: jax.Array) -> bool:
        return self.dim == 1 and y.shape == self.batch_shape


def register(mixture: type[Mixture]) -> None:
    """Make a family known to `flax.serialization` and `jax.export`."""
    flax.serialization.register_serialization_state(mixture, _to_state, _from_state)
    with contextlib.suppress(ValueError):  # the name is taken when its module is reloaded
        jax.export.register_pytree_node_serialization(
            mixture,
            serialized_name=f"ngem_tutorial.{mixture.__name__}",
            serialize_auxdata=lambda _: b"",
            deserialize_auxdata=lambda _: None,
        )


def _to_state(mixture: Mixture) -> dict[str, Any]:
    return dict(vars(mixture))


def _from_state(mixture: Mixture, state: Mapping[str, Any]) -> Mixture:
    """Restore what `_to_state` gave, without checks: gradients are saved too."""
    if state.keys() != vars(mixture).keys():
        raise ValueError(
            f"a saved {type(mixture).__name__} must have {', '.join(vars(mixture))}, "
            f"got {', '.join(state)}"
        )
    return mixture.tree_unflatten(None, [jnp.asarray(state[name]) for name in vars(mixture)])


def at_least_float32(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The dtype, or `float32` in the place of one with 16 bits."""
    return dtype if dtype.itemsize >= 4 else np.dtype(np.float32)


def check_logits(logits: jax.Array, means: jax.Array) -> None:
    """Check the shapes that all families have.

    Raises:
        ValueError: if they do not fit.
    """
    if means.ndim < 2 or 0 in means.shape[-2:]:
        raise ValueError(f"means must have shape (..., K, D), K and D >= 1, got {means.shape}")
    if logits.shape != means.shape[:-1]:
        raise ValueError(
            f"logits must have shape (..., K) = {means.shape[:-1]} to fit the means of shape "
            f"{means.shape}, got {logits.shape}"
        )


def check_finite(name: str, parameter: jax.Array) -> None:
    """Check that a parameter is finite where it is known; under a transformation it is not.

    In NumPy: under `jax.jit` every operation of JAX is traced, also one on known values.

    Raises:
        ValueError: if a value is not finite.
    """
    if isinstance(parameter, jax.core.Tracer):
        return
    values = np.asarray(parameter)
    finite = np.isfinite(values)
    if not finite.all():
        raise ValueError(f"{name} must be finite, got {first(values, ~finite)}")


def first(values: np.ndarray, bad: np.ndarray) -> str:
    """Say the first of some values, and where it stands."""
    index = tuple(int(i) for i in np.argwhere(bad)[0])
    return f"{values[index]!s}" + (f" at {index}" if index else "")


@jax.custom_jvp
def _without_gradient(logits: jax.Array) -> jax.Array:
    return logits


@_without_gradient.defjvp
def _refuse(primals: Any, tangents: Any) -> Any:
    raise TypeError(
        "samples have no gradient with respect to the logits: which component is drawn does not "
        "depend on them smoothly. For the gradient with respect to means and scales alone stop "
        "that of the logits, dataclasses.replace(mixture, logits=jax.lax.stop_gradient("
        "mixture.logits)); for that of an expectation sum over the components, by their weights."
    )


def _positive(number: np.ndarray) -> np.ndarray:
    return (number > 0) & np.isfinite(number)


def _natural(number: np.ndarray) -> np.ndarray:
    return (number >= 0) & (number == np.floor(number))
