"""Gaussian mixtures with diagonal covariances, as an immutable pytree.

A mixture of `K` Gaussians in `D` dimensions (equation (2) of the paper) is held by its logits
`psi` of shape `(..., K)`, its means `mu` and its standard deviations `sigma`, both of shape
`(..., K, D)`. The leading axes are batch axes: a mixture density network returns one mixture for
each of its inputs.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import flax.serialization
import jax
import jax.export
import jax.numpy as jnp
import numpy as np

from ngem_tutorial._checks import check_number, check_values, described, real_array
from ngem_tutorial._typing import Array, ArrayLike, Float, Int, Scalar

__all__ = ["GaussianMixture", "LEAST_LOG_WEIGHT", "check_mixture"]

_LOG_2PI = math.log(2.0 * math.pi)
_FLOAT32, _FLOAT64 = np.dtype(np.float32), np.dtype(np.float64)
LEAST_LOG_WEIGHT = -1e4
"""Stands for minus infinity, which no logit may be: its exponential is zero in every precision."""


@jax.tree_util.register_pytree_with_keys_class
@dataclasses.dataclass(frozen=True, eq=False, init=False)
class GaussianMixture:
    r"""A batch of mixtures of `K` diagonal Gaussians in `D` dimensions.

    .. math:: p(y) = \sum_k \pi_k \prod_d \mathcal{N}(y_d; \mu_{kd}, \sigma_{kd}^2),
       \qquad \pi = \operatorname{softmax}(\psi)

    The mixture is a pytree with the leaves `logits`, `means` and `scales`: `jax.jit`, `jax.vmap`
    and `jax.grad` go through it, and a gradient with respect to a mixture is again an object of
    this class. Everything is computed in log space and stays finite for weights down to
    `exp(-1e4)`, scales from 1e-6 to 1e6 and targets a million scales away, in `float32` too.
    Parameters in 16 bits, from a network that computes in `bfloat16` for instance, are converted to
    `float32` on the way in; their gradients come back in 16 bits. `flax.serialization` saves and
    restores mixtures, and `jax.export` takes functions of them.

    Args:
        logits: `psi`, unnormalised log-weights, shape `(..., K)`; an array, or lists of numbers.
        means: `mu`, shape `(..., K, D)`, in the units of the targets.
        scales: `sigma`, standard deviations, shape `(..., K, D)`, in the units of the targets.

    Raises:
        ValueError: if the shapes do not fit each other or, where the values are known (outside of
            `jax.jit` and its kin), if a parameter is not finite or a scale is not positive.

    Example:
        >>> from ngem_tutorial import GaussianMixture
        >>> mixture = GaussianMixture([0.0, 0.0], means=[[-1.0], [1.0]], scales=[[0.5], [0.5]])
        >>> mixture.num_components, mixture.dim, mixture.batch_shape
        (2, 1, ())
        >>> round(float(mixture.log_prob([1.0])), 3)
        -0.919
        >>> [round(float(rho), 3) for rho in mixture.responsibilities([1.0])]
        [0.0, 1.0]
    """

    logits: Array
    means: Array
    scales: Array

    def __init__(self, logits: ArrayLike, means: ArrayLike, scales: ArrayLike) -> None:
        """Convert the parameters to floating-point arrays of one dtype and check them."""
        names = ("logits", "means", "scales")
        arrays = [real_array(*part) for part in zip(names, (logits, means, scales), strict=True)]
        dtypes = {array.dtype for array in arrays}
        if dtypes not in ({_FLOAT32}, {_FLOAT64}):  # these need no conversion
            # The widest of the three; integers become floats.
            dtype = _at_least_float32(jnp.result_type(*arrays, float))
            arrays = [array.astype(dtype) for array in arrays]
        for name, array in zip(names, arrays, strict=True):
            object.__setattr__(self, name, array)
        _check_shapes(self.logits, self.means, self.scales)
        _check_values(self.logits, self.means, self.scales)

    def tree_flatten_with_keys(self) -> tuple[tuple[tuple[Any, Any], ...], None]:
        """Return the leaves with their names; JAX calls this."""
        key = jax.tree_util.GetAttrKey
        return (
            (key("logits"), self.logits),
            (key("means"), self.means),
            (key("scales"), self.scales),
        ), None

    @classmethod
    def tree_unflatten(cls, _: None, leaves: Sequence[Any]) -> GaussianMixture:
        """Rebuild from leaves without checks: gradients and placeholders pass here."""
        mixture = object.__new__(cls)
        for name, leaf in zip(("logits", "means", "scales"), leaves, strict=True):
            object.__setattr__(mixture, name, leaf)
        return mixture

    @classmethod
    def from_weights(
        cls, weights: ArrayLike, means: ArrayLike, scales: ArrayLike
    ) -> GaussianMixture:
        """The mixture with given weights, in the place of logits.

        Args:
            weights: `pi`, shape `(..., K)`, not negative, summing to one. A component of weight
                zero stays in the mixture: its log-weight is -10000, which counts as zero.
            means: `mu`, shape `(..., K, D)`, in the units of the targets.
            scales: `sigma`, standard deviations, shape `(..., K, D)`, in the units of the targets.

        Returns:
            A mixture whose logits are the logarithms of the weights.

        Raises:
            ValueError: as the constructor, and if, where their values are known, weights are
                negative or do not sum to one.

        Example:
            >>> from ngem_tutorial import GaussianMixture
            >>> mixture = GaussianMixture.from_weights([0.25, 0.75], [[0.0], [4.0]], [[1.0], [1.0]])
            >>> round(float(mixture.mean[0]), 3)
            3.0
        """
        pi = jnp.asarray(weights)
        check_values("weights", pi, "not negative and finite", lambda w: (w >= 0) & np.isfinite(w))
        pi = pi.astype(_at_least_float32(jnp.result_type(pi, float)))
        if not isinstance(pi, jax.core.Tracer):
            total = np.asarray(np.sum(np.asarray(pi, np.float64), axis=-1 if pi.ndim else None))
            # As exact as the numbers that were given: those of 16 bits have rounding of their own.
            given = jnp.asarray(weights).dtype
            rounding = float(jnp.finfo(given).eps) if jnp.issubdtype(given, jnp.floating) else 0.0
            wrong = np.abs(total - 1.0) > max(1e-4, rounding)
            if wrong.any():
                raise ValueError(f"weights must sum to one, got the sum {total[wrong].flat[0]:.6g}")
        # Zeros are replaced before the logarithm: the gradient would not be finite otherwise.
        log = jnp.where(pi > 0, jnp.log(jnp.where(pi > 0, pi, 1.0)), LEAST_LOG_WEIGHT)
        return cls(log, means, scales)

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

    def pair(self, y: ArrayLike) -> tuple[GaussianMixture, jax.Array]:
        """One mixture for each target, in one dtype: how every objective takes its arguments.

        Args:
            y: targets, shape `(..., D)`, with the batch shape of the mixture. A mixture without
                batch axes takes targets of any, and is repeated.

        Returns:
            The mixture with the batch shape of the targets, and the targets, both in the dtype
            that JAX promotes the two to, `float32` at least.

        Raises:
            ValueError: if the last axis of `y` is not `D` or the batch shapes differ.
        """
        y = real_array("y", y)
        self._check_dim(y)
        batch = y.shape[:-1]
        if self.batch_shape not in ((), batch):
            raise ValueError(
                f"y must have one target for each mixture: the mixture has batch shape "
                f"{self.batch_shape}, y of shape {y.shape} has {batch}"
                + _probably_meant(self.batch_shape, batch)
            )
        dtype = _at_least_float32(jnp.result_type(y, *jax.tree.leaves(self)))
        # The shapes of the leaves, built without checks.
        event = (self.num_components, self.dim)
        shapes = self.tree_unflatten(None, [(*batch, event[0]), (*batch, *event), (*batch, *event)])
        mixture = jax.tree.map(
            lambda leaf, shape: jnp.broadcast_to(leaf, shape).astype(dtype), self, shapes
        )
        return mixture, y.astype(dtype)

    def standardize(self, y: ArrayLike) -> Float[Array, "*batch {self.num_components} {self.dim}"]:
        """Distance of a target from each mean in scales, `(y - mu_k) / sigma_k`.

        Args:
            y: targets, shape `(..., D)`; leading axes broadcast against the mixture's.

        Returns:
            Shape `(..., K, D)`.

        Raises:
            ValueError: if the last axis of `y` is not `D` or its leading axes do not broadcast.
        """
        return (self._targets(y)[..., None, :] - self.means) / self.scales

    def component_log_prob(self, y: ArrayLike) -> Float[Array, "*batch {self.num_components}"]:
        """Log-density of each component, `log N(y; mu_k, sigma_k)`, without its weight.

        Args:
            y: targets, shape `(..., D)`; leading axes broadcast against the mixture's.

        Returns:
            Shape `(..., K)`, in nats.

        Raises:
            ValueError: if the last axis of `y` is not `D` or its leading axes do not broadcast.
        """
        z = self.standardize(y)
        return -jnp.sum(0.5 * z**2 + jnp.log(self.scales), axis=-1) - 0.5 * self.dim * _LOG_2PI

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

        A gradient flows to the means and scales, the noise and the drawn components held fixed.
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
            ValueError: if `shape` is negative or `temperature` not positive (where it is known).
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
            ValueError: if `shape` is negative or `temperature` not positive (where it is known).
            TypeError: if a gradient with respect to the logits is asked for.
        """
        check_number("temperature", temperature, "positive and finite", _positive)
        check_values("shape", shape, "a whole number or several, not negative", _natural)
        temperature = jnp.asarray(temperature, self.means.dtype)
        shape = tuple(int(length) for length in np.atleast_1d(shape))
        component_key, noise_key = jax.random.split(key)
        batch = (*shape, *self.batch_shape)
        logits = self.logits if self.num_components == 1 else _without_gradient(self.logits)
        k = jax.random.categorical(component_key, logits / temperature, shape=batch)
        noise = jax.random.normal(noise_key, (*batch, self.dim), self.means.dtype)
        # Positions among all components of the batch: nothing of shape (*batch, K, D) is made.
        first = jnp.arange(math.prod(self.batch_shape)).reshape(self.batch_shape)
        index = self.num_components * first + k

        def pick(parameter: jax.Array) -> jax.Array:
            return parameter.reshape(-1, self.dim)[index]

        return pick(self.means) + jnp.sqrt(temperature) * pick(self.scales) * noise, k

    def __getitem__(self, index: Any) -> GaussianMixture:
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

        leaves = [pick(self.logits, 1), pick(self.means, 2), pick(self.scales, 2)]
        return self.tree_unflatten(None, leaves)

    def __len__(self) -> int:
        """Length of the first batch axis."""
        if not self.batch_shape:
            raise TypeError("a mixture without batch axes has no length")
        return self.batch_shape[0]

    def __iter__(self) -> Iterator[GaussianMixture]:
        """The mixtures along the first batch axis."""
        if not self.batch_shape:
            raise TypeError("iteration over a mixture without batch axes")
        return (self[position] for position in range(len(self)))

    def affine(self, shift: ArrayLike, scale: ArrayLike) -> GaussianMixture:
        """The mixture of `shift + scale * y`: the same, in other units of the targets.

        At a target in the new units the log-density is lower by `sum(log(abs(scale)))`.

        Args:
            shift: in the new units, a number or shape `(D,)`.
            scale: new units per old unit, not zero, a number or shape `(D,)`.

        Returns:
            A mixture with the same weights.

        Raises:
            ValueError: if a shape does not fit or a value is out of range (where it is known).

        Example:
            >>> from ngem_tutorial import GaussianMixture
            >>> celsius = GaussianMixture([0.0], [[20.0]], [[5.0]])
            >>> fahrenheit = celsius.affine(32.0, 1.8)
            >>> fahrenheit.means.tolist(), fahrenheit.scales.tolist()
            ([[68.0]], [[9.0]])
        """
        values: dict[str, Any] = {"shift": shift, "scale": scale}
        for name, value in values.items():
            if np.shape(value) not in ((), (self.dim,)):
                raise ValueError(
                    f"{name} must be a number or have shape (D,) = ({self.dim},), got shape "
                    f"{np.shape(value)}"
                )
        check_values("shift", shift, "finite", np.isfinite)
        check_values("scale", scale, "finite and not zero", lambda s: np.isfinite(s) & (s != 0))
        shift, scale = (jnp.asarray(value) for value in (shift, scale))
        return GaussianMixture(
            self.logits, shift + scale * self.means, jnp.abs(scale) * self.scales
        )

    @property
    def mean(self) -> Float[Array, "*batch {self.dim}"]:
        """Mean of the mixture, shape `(..., D)`."""
        return jnp.sum(self.weights[..., None] * self.means, axis=-2)

    @property
    def variance(self) -> Float[Array, "*batch {self.dim}"]:
        """Variance of each coordinate (law of total variance), shape `(..., D)`."""
        spread = self.means - self.mean[..., None, :]
        return jnp.sum(self.weights[..., None] * (self.scales**2 + spread**2), axis=-2)

    @property
    def weight_entropy(self) -> Float[Array, "*batch"]:
        """Entropy `H(pi)` of the weights in nats, shape `(...)`; at most `log K`."""
        weights = self.weights
        log = jnp.where(weights > 0, self.log_weights, 0.0)  # 0 log 0 = 0
        return -jnp.sum(weights * log, axis=-1)

    def marginal(self, dims: int | Sequence[int]) -> GaussianMixture:
        """The mixture of some coordinates of a target, the others integrated out.

        Args:
            dims: one coordinate or several, each from `-D` to `D - 1`, all different.

        Returns:
            A mixture with the same weights and `D` equal to the number of `dims`.

        Raises:
            ValueError: if a coordinate is out of range or named twice.

        Example:
            >>> from ngem_tutorial import GaussianMixture
            >>> mixture = GaussianMixture([0.0], [[1.0, 2.0, 3.0]], [[1.0, 1.0, 4.0]])
            >>> mixture.marginal([0, 2]).scales.tolist()
            [[1.0, 4.0]]
        """
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
        return dataclasses.replace(
            self, means=self.means[..., columns], scales=self.scales[..., columns]
        )

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


def _to_state(mixture: GaussianMixture) -> dict[str, Any]:
    return dict(vars(mixture))


def _from_state(mixture: GaussianMixture, state: Mapping[str, Any]) -> GaussianMixture:
    """Restore what `_to_state` gave, without checks: gradients are saved too."""
    if state.keys() != vars(mixture).keys():
        raise ValueError(
            f"a saved GaussianMixture must have {', '.join(vars(mixture))}, got {', '.join(state)}"
        )
    return mixture.tree_unflatten(None, [jnp.asarray(state[name]) for name in vars(mixture)])


flax.serialization.register_serialization_state(GaussianMixture, _to_state, _from_state)
with contextlib.suppress(ValueError):  # the name is taken when this module is reloaded
    jax.export.register_pytree_node_serialization(
        GaussianMixture,
        serialized_name="ngem_tutorial.GaussianMixture",
        serialize_auxdata=lambda _: b"",
        deserialize_auxdata=lambda _: None,
    )


def check_mixture(mixture: object) -> None:
    """Check that an argument is a `GaussianMixture`, and not that of another library.

    Args:
        mixture: what it is.

    Raises:
        ValueError: if it is something else; the error names the function that converts it.

    Example:
        >>> from ngem_tutorial.mixtures import GaussianMixture, check_mixture
        >>> check_mixture(GaussianMixture([0.0], [[0.0]], [[1.0]]))
    """
    if isinstance(mixture, GaussianMixture):
        return
    kind = type(mixture)
    library = kind.__module__.partition(".")[0]
    converters = {"numpyro": "numpyro", "distrax": "distrax", "tensorflow_probability": "tfp"}
    array = isinstance(mixture, jax.Array | np.ndarray)
    got, hint = described(mixture) if array else kind.__name__, ""
    if library in converters:
        got = f"{library}'s {got}"
        hint = f"; ngem_tutorial.interop.from_{converters[library]} converts it"
    raise ValueError(f"mixture must be a GaussianMixture, got {got}{hint}")


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


def _at_least_float32(dtype: np.dtype[Any]) -> np.dtype[Any]:
    return dtype if dtype.itemsize >= 4 else np.dtype(np.float32)


def _probably_meant(batch: tuple[int, ...], of_targets: tuple[int, ...]) -> str:
    """What a pair of unequal batch shapes comes from, as the end of an error."""
    for name, long, short in (("mixture", batch, of_targets), ("targets", of_targets, batch)):
        for axis, length in enumerate(long):
            if length == 1 and long[:axis] + long[axis + 1 :] == short:
                return (
                    f". Axis {axis} of the {name}, of length one, is too many: was a time axis "
                    f"left in {'the inputs' if name == 'mixture' else 'y'}?"
                )
    if not of_targets:
        return ". For one target under many mixtures repeat it: jnp.broadcast_to"
    return ""


def _check_shapes(logits: jax.Array, means: jax.Array, scales: jax.Array) -> None:
    if means.ndim < 2 or 0 in means.shape[-2:]:
        raise ValueError(f"means must have shape (..., K, D), K and D >= 1, got {means.shape}")
    if logits.shape != means.shape[:-1]:
        raise ValueError(
            f"logits must have shape (..., K) = {means.shape[:-1]} to fit the means of shape "
            f"{means.shape}, got {logits.shape}"
        )
    if scales.shape != means.shape:
        raise ValueError(
            f"scales must have the shape of the means, {means.shape}, got {scales.shape}"
        )


def _check_values(logits: jax.Array, means: jax.Array, scales: jax.Array) -> None:
    """Check the values where they are known; under a transformation they are not.

    In NumPy: under `jax.jit` every operation of JAX is traced, also one on known values.
    """
    for name, array in (("logits", logits), ("means", means), ("scales", scales)):
        if isinstance(array, jax.core.Tracer):
            continue
        values = np.asarray(array)
        finite = np.isfinite(values)
        if not finite.all():
            raise ValueError(f"{name} must be finite, got {_first(values, ~finite)}")
        if name == "scales" and not (values > 0).all():
            raise ValueError(f"scales must be positive, got {_first(values, values <= 0)}")


def _first(values: np.ndarray, bad: np.ndarray) -> str:
    index = tuple(int(i) for i in np.argwhere(bad)[0])
    return f"{values[index]!s}" + (f" at {index}" if index else "")
