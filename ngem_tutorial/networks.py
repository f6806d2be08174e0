"""Flax modules that return Gaussian mixtures: `network(x) -> GaussianMixture`."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from ngem_tutorial._checks import (
    check_choice,
    check_number,
    check_values,
    check_whole,
    described,
    real_array,
    to_arrays,
)
from ngem_tutorial._typing import Array, ArrayLike, Float, Int
from ngem_tutorial.fisher import Coordinate
from ngem_tutorial.mixtures import GaussianMixture, check_mixture

__all__ = [
    "Affine",
    "LabelConditioned",
    "MixtureDensityNetwork",
    "PlainMixture",
    "Standardized",
    "choose_initial_means",
]

Activation = Literal["gelu", "relu", "tanh", "silu"]
ScaleFunction = Literal["softplus", "exp"]
InitialMeans = Literal["random", "kmeans++"]


class MixtureDensityNetwork(nnx.Module):
    r"""A multilayer perceptron whose output is a Gaussian mixture (Bishop, 1994).

    The last layer gives, for each input, `K` logits, `K D` means and `K D` numbers `a` from which
    the scales are `sigma = min_scale + softplus(a)` or `min_scale + exp(a)`.

    Args:
        in_features: number of input features.
        num_components: `K`.
        dim: `D`, dimension of the targets.
        hidden: widths of the hidden layers.
        activation: of the hidden layers: `"gelu"`, `"relu"`, `"tanh"` or `"silu"`.
        trunks: 1, one perceptron for everything, or 2, one for the logits and one for the
            Gaussians.
        scale: what makes the scales positive, `"softplus"` or `"exp"`.
        min_scale: floor of the scales. It bounds the likelihood. It and the next two are in the
            units of the targets that the network sees: those are standardised by `fit`.
        initial_means: bias of the means' layer, shape `(K, D)`, where the means start up to the
            random last layer. If not given they are zeros, which `fit` replaces by targets; see
            `choose_initial_means`.
        initial_scale: where the scales start, likewise, a number or shape `(D,)` or `(K, D)`.
        rngs: the random streams of the weights.

    Raises:
        ValueError: if a size is not positive, a choice is unknown, `initial_scale` is not above
            `min_scale`, `initial_means` has the wrong shape or `rngs` are no `nnx.Rngs`.

    Example:
        >>> import numpy as np
        >>> from flax import nnx
        >>> from ngem_tutorial import MixtureDensityNetwork, nll
        >>> network = MixtureDensityNetwork(2, 3, 1, hidden=(16,), rngs=nnx.Rngs(0))
        >>> mixtures = network(np.zeros((5, 2)))
        >>> mixtures.means.shape, nll(mixtures, np.zeros((5, 1))).shape
        ((5, 3, 1), (5,))
    """

    def __init__(
        self,
        in_features: int,
        num_components: int,
        dim: int,
        *,
        hidden: Sequence[int] = (128, 128),
        activation: Activation = "gelu",
        trunks: Literal[1, 2] = 1,
        scale: ScaleFunction = "softplus",
        min_scale: float = 1e-3,
        initial_means: ArrayLike | None = None,
        initial_scale: ArrayLike = 1.0,
        rngs: nnx.Rngs,
    ) -> None:
        sizes = {"in_features": in_features, "num_components": num_components, "dim": dim}
        for name, size in sizes.items():
            check_whole(name, size, 1)
        if np.ndim(hidden) != 1:
            hint = f": for one hidden layer pass ({hidden},)" if isinstance(hidden, int) else ""
            raise ValueError(
                "hidden must be a sequence of the layers' widths, such as (64, 64), got "
                f"{described(hidden)}{hint}"
            )
        hidden = [check_whole("hidden", width, 1) for width in hidden]
        for name, value, choices in (
            ("activation", activation, get_args(Activation)),
            ("trunks", trunks, (1, 2)),
            ("scale", scale, get_args(ScaleFunction)),
        ):
            check_choice(name, value, choices)
        if not isinstance(rngs, nnx.Rngs):
            raise ValueError(f"rngs must be random streams such as nnx.Rngs(0), got {rngs!r}")
        check_number("min_scale", min_scale, "at least 0", lambda s: s >= 0)
        self.num_components, self.dim = num_components, dim
        self.activation, self.scale, self.min_scale = activation, scale, min_scale
        self.has_initial_means = initial_means is not None
        self.trunk = _layers((in_features, *hidden), rngs)
        self.logits_trunk = _layers((in_features, *hidden), rngs) if trunks == 2 else None
        features = hidden[-1] if hidden else in_features
        event = (num_components, dim)
        self.logits = nnx.Linear(features, num_components, rngs=rngs)
        self.means = nnx.Linear(features, num_components * dim, rngs=rngs)
        self.scales = nnx.Linear(features, num_components * dim, rngs=rngs)
        if initial_means is not None:
            self.set_initial_means(initial_means)
        raw = self._raw_scale(jnp.asarray(initial_scale, float))
        self._set_bias(self.scales, "initial_scale", jnp.broadcast_to(raw, event), event)

    def __call__(self, x: ArrayLike) -> GaussianMixture:
        """Give each input its mixture.

        Args:
            x: features, shape `(..., in_features)`.

        Returns:
            Mixtures of batch shape `(...)`.

        Raises:
            ValueError: if the last axis of `x` is not `in_features`.
        """
        x = real_array("x", x)
        layer = self.trunk[0] if len(self.trunk) else self.logits
        if x.ndim == 0 or x.shape[-1] != layer.in_features:
            raise ValueError(f"x must have shape (..., {layer.in_features}), got {x.shape}")
        h = self._perceptron(self.trunk, x)
        h_logits = h if self.logits_trunk is None else self._perceptron(self.logits_trunk, x)
        event = (*x.shape[:-1], self.num_components, self.dim)
        a = self.scales(h).reshape(event)
        positive = jax.nn.softplus(a) if self.scale == "softplus" else jnp.exp(a)
        return GaussianMixture(
            self.logits(h_logits), self.means(h).reshape(event), self.min_scale + positive
        )

    def set_initial_means(self, means: ArrayLike) -> None:
        """Move the means to where they are to start, up to the random last layer.

        `fit` calls it, for a module of its own kind too, unless its `has_initial_means` is true.

        Args:
            means: shape `(K, D)`.

        Raises:
            ValueError: if the shape is another.
        """
        event = (self.num_components, self.dim)
        self._set_bias(self.means, "initial_means", jnp.asarray(means, float), event)
        self.has_initial_means = True

    def _perceptron(self, layers: Sequence[nnx.Linear], h: jax.Array) -> jax.Array:
        act: Callable[[jax.Array], jax.Array] = getattr(jax.nn, self.activation)
        for layer in layers:
            h = act(layer(h))
        return h

    def _raw_scale(self, sigma: jax.Array) -> jax.Array:
        """The `a` whose scale is `sigma`."""
        if not isinstance(sigma, jax.core.Tracer) and not bool((sigma > self.min_scale).all()):
            raise ValueError(
                f"initial_scale must be above min_scale = {self.min_scale}, got {sigma}"
            )
        positive = sigma - self.min_scale
        if self.scale == "exp":
            return jnp.log(positive)
        return positive + jnp.log(-jnp.expm1(-positive))

    @staticmethod
    def _set_bias(layer: nnx.Linear, name: str, value: jax.Array, event: tuple[int, int]) -> None:
        if value.shape != event:
            raise ValueError(f"{name} must have shape (K, D) = {event}, got {value.shape}")
        if layer.bias is None:
            raise ValueError(f"{name} must be left out: the layer has no bias")
        layer.bias[...] = value.ravel().astype(layer.bias.dtype)


class PlainMixture(nnx.Module):
    """A mixture whose parameters are trained directly, without a network.

    Args:
        mixture: where to start, batch shape `()`.
        coordinate: what is trained for the scales: `"scale"`, the standard deviations themselves,
            which a gradient step can make negative, or `"log_scale"`, their logarithms.

    Raises:
        ValueError: if the mixture has batch axes or the coordinate is unknown.

    Example:
        >>> from ngem_tutorial import GaussianMixture, PlainMixture
        >>> model = PlainMixture(GaussianMixture([0.0], [[0.0]], [[1.0]]))
        >>> model.scales[...].tolist(), model().scales.tolist()  # logarithms are trained
        ([[0.0]], [[1.0]])
    """

    def __init__(self, mixture: GaussianMixture, coordinate: Coordinate = "log_scale") -> None:
        check_mixture(mixture)
        if mixture.batch_shape:
            raise ValueError(f"mixture must be a single one, got batch shape {mixture.batch_shape}")
        check_choice("coordinate", coordinate, get_args(Coordinate))
        self.coordinate = coordinate
        self.logits = nnx.Param(mixture.logits)
        self.means = nnx.Param(mixture.means)
        log = coordinate == "log_scale"
        self.scales = nnx.Param(jnp.log(mixture.scales) if log else mixture.scales)

    def __call__(self, x: object = None) -> GaussianMixture:
        """Return the mixture; the input is ignored."""
        scales = self.scales[...]
        return GaussianMixture(
            self.logits[...],
            self.means[...],
            jnp.exp(scales) if self.coordinate == "log_scale" else scales,
        )


@dataclasses.dataclass(frozen=True)
class Affine:
    """A change of units, `raw = shift + scale * standard`, for each entry of the last axis.

    Args:
        shift: in raw units.
        scale: positive, in raw units.
    """

    shift: tuple[float, ...]
    scale: tuple[float, ...]

    def standardize(self, name: str, raw: Any) -> Any:
        """Return standard values; in float64 and on the host for NumPy arrays.

        Args:
            name: of the values, for errors.
            raw: shape `(..., F)`, or `(...)` where there is one entry.

        Returns:
            The shape of `raw`.

        Raises:
            ValueError: if the last axis has another length.
        """
        if len(self.shift) > 1 and np.shape(raw)[-1:] != (len(self.shift),):
            raise ValueError(
                f"{name} must have shape (..., {len(self.shift)}), got {np.shape(raw)}"
            )
        if isinstance(raw, np.ndarray | np.generic | float | int | list | tuple):
            return (np.asarray(raw, np.float64) - np.array(self.shift)) / np.array(self.scale)
        # Shift and scale are no integers, and 16 bits do not hold an offset.
        raw = jnp.asarray(raw, jnp.promote_types(raw.dtype, jnp.float32))
        return (raw - jnp.array(self.shift, raw.dtype)) / jnp.array(self.scale, raw.dtype)


class Standardized(nnx.Module):
    """A network of standardised inputs and targets, for raw ones.

    Pass inputs with a large offset, times for instance, as NumPy arrays: they are standardised in
    float64 before JAX sees them.

    Args:
        network: returns mixtures of standardised targets.
        inputs: the units of each leaf of the inputs; None for a leaf that is left as it is.
        targets: the units of the targets.

    Example:
        >>> import numpy as np
        >>> from flax import nnx
        >>> from ngem_tutorial import MixtureDensityNetwork, Standardized
        >>> from ngem_tutorial.networks import Affine
        >>> network = MixtureDensityNetwork(1, 2, 1, hidden=(8,), rngs=nnx.Rngs(0))
        >>> model = Standardized(network, [Affine((50.0,), (10.0,))], Affine((0.0,), (1000.0,)))
        >>> bool(np.allclose(model([[60.0]]).means, 1000 * network([[1.0]]).means))
        True
    """

    def __init__(
        self, network: nnx.Module, inputs: Sequence[Affine | None], targets: Affine
    ) -> None:
        self.network, self.inputs, self.targets = network, tuple(inputs), targets

    def __call__(self, x: Any) -> GaussianMixture:
        """Map raw inputs to mixtures of raw targets.

        Args:
            x: inputs as the network takes them, in raw units: a pytree of arrays, in which a list
                or tuple of numbers, nested or not, is one array, as is a table.

        Returns:
            The network's mixtures, in raw units.

        Raises:
            ValueError: if the inputs do not have the leaves that were standardised.
        """
        leaves, structure = jax.tree.flatten(to_arrays(x))
        if len(leaves) != len(self.inputs):
            raise ValueError(f"x must have {len(self.inputs)} arrays, got {len(leaves)}")
        scaled = [
            leaf if affine is None else jnp.asarray(affine.standardize("x", leaf), float)
            for leaf, affine in zip(leaves, self.inputs, strict=True)
        ]
        mixture = self.network(jax.tree.unflatten(structure, scaled))
        return mixture.affine(np.array(self.targets.shift), np.array(self.targets.scale))


class LabelConditioned(nnx.Module):
    """A network on class labels: it runs once on the one-hot classes, then gathers.

    With `C` classes there are only `C` distinct inputs, so this gives exactly the mixtures, and
    the gradient, of the network applied to each example's one-hot label, at the cost of `C` rows.

    Args:
        network: maps shape `(C, C)` to mixtures of batch shape `(C,)`.
        num_classes: `C`.

    Example:
        >>> from flax import nnx
        >>> from ngem_tutorial import LabelConditioned, MixtureDensityNetwork
        >>> network = MixtureDensityNetwork(10, 3, 1, hidden=(8,), rngs=nnx.Rngs(0))
        >>> LabelConditioned(network, num_classes=10)([7, 7, 2]).batch_shape
        (3,)
    """

    def __init__(self, network: MixtureDensityNetwork, num_classes: int) -> None:
        self.network, self.num_classes = network, num_classes

    @property
    def num_components(self) -> int | None:
        """`K`; None for a network that does not say it."""
        return getattr(self.network, "num_components", None)

    @property
    def has_initial_means(self) -> bool:
        """Whether the network has means to start at, or none that can be set."""
        can = hasattr(self.network, "set_initial_means")
        return not can or getattr(self.network, "has_initial_means", False)

    def set_initial_means(self, means: ArrayLike) -> None:
        """Move the means of every class, as `MixtureDensityNetwork.set_initial_means` does.

        Args:
            means: shape `(K, D)`.

        Raises:
            ValueError: if the shape is another.
        """
        self.network.set_initial_means(means)

    def __call__(self, labels: ArrayLike) -> GaussianMixture:
        """Give each label its mixture.

        Args:
            labels: integers from 0 to `C - 1`, shape `(...)`.

        Returns:
            Mixtures of batch shape `(...)`.

        Under `jax.jit`, where labels are not known, the mixture of a label out of range is NaN.

        Raises:
            TypeError: if the labels are not integers.
            ValueError: if a label is not from 0 to `C - 1` (where they are known).
        """
        # Checked as they come: JAX's integers may not hold them.
        given = labels if isinstance(labels, jax.Array) else np.asarray(labels)
        if not jnp.issubdtype(given.dtype, jnp.integer):
            raise TypeError(f"labels must be integers, got {given.dtype}")
        classes = self.num_classes
        wanted = f"from 0 to {classes - 1}"
        check_values("labels", given, wanted, lambda label: (label >= 0) & (label < classes))
        labels = jnp.asarray(given)
        table = self.network(jnp.eye(classes))
        # JAX would count negative ones from the end; 8 bits may not hold the number of classes.
        known = jnp.where(
            labels < 0, classes, labels.astype(jnp.promote_types(labels.dtype, jnp.int32))
        )
        return jax.tree.map(
            lambda parameter: parameter.at[known].get(mode="fill", fill_value=jnp.nan), table
        )


def choose_initial_means(
    key: jax.Array,
    y: ArrayLike,
    num_components: int,
    *,
    method: InitialMeans = "kmeans++",
) -> Float[Array, "{num_components} D"]:
    """Data-driven initial means: distinct examples of the targets, far apart or random.

    With many separated modes and as many components, `"kmeans++"` seldom leaves a mode without
    one, where `"random"` nearly always does.

    Args:
        key: a JAX random key.
        y: targets, shape `(N, D)`. They are used as they are: standardise coordinates of different
            units for `"kmeans++"`.
        num_components: `K`, at most `N`.
        method: how the examples are chosen.

            - `"random"`: all equally likely.
            - `"kmeans++"`: one after the other, greedily (Arthur and Vassilvitskii, 2007, section
              5, as in scikit-learn). The potential is the sum over the targets of the squared
              distance to the nearest example chosen so far. `2 + log(K)` candidates are drawn,
              rounded down, each with a probability in proportion to what it contributes; the one
              that lowers the potential most is taken. Once it is zero, the examples that are left
              are equal to chosen ones and equally likely.

    Returns:
        Shape `(K, D)`.

    Raises:
        ValueError: if `y` is not `(N, D)` or holds fewer than `K` examples, the method is unknown,
            or for `"kmeans++"` a target is not finite (where it is known).

    Example:
        >>> import jax
        >>> from ngem_tutorial import choose_initial_means
        >>> means = choose_initial_means(jax.random.key(0), [[1.0], [2.0], [3.0]], num_components=3)
        >>> sorted(means.ravel().tolist())
        [1.0, 2.0, 3.0]

    References:
        Arthur and Vassilvitskii, "k-means++: the advantages of careful seeding", SODA 2007.
    """
    check_choice("method", method, get_args(InitialMeans))
    targets = real_array("y", y)
    if targets.ndim != 2 or not 1 <= num_components <= targets.shape[0]:
        raise ValueError(
            f"y must have shape (N, D) with N >= num_components = {num_components}, got "
            f"{targets.shape}"
        )
    if method == "random":
        return jax.random.choice(key, targets, (num_components,), replace=False)
    check_values("y", y, "finite", np.isfinite)
    return targets[_greedy_seeds(key, targets, num_components)]


def _greedy_seeds(key: jax.Array, y: jax.Array, k: int) -> Int[Array, " {k}"]:
    """The rows that greedy k-means++ chooses, distinct ones."""
    size, trials = y.shape[0], 2 + int(math.log(k))
    points = y.astype(jnp.promote_types(y.dtype, jnp.float32))
    # In units of the largest distance from the first, so that no square overflows or vanishes.
    points = points - points[0]
    largest = jnp.max(jnp.abs(points))
    points = points / jnp.where(largest > 0, largest, 1.0)

    def squared_distances(rows: jax.Array) -> jax.Array:
        """Of the points from some of them, shape `(len(rows), N)`."""
        return jnp.sum((points - points[rows][:, None, :]) ** 2, axis=-1)

    def add(i: jax.Array, state: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        rows, chosen, nearest = state
        # A chosen example contributes nothing, so it is drawn again only if all contribute
        # nothing, and then it is left out.
        contributes = jnp.where(jnp.any(nearest > 0), nearest, jnp.where(chosen, 0.0, 1.0))
        candidates = jax.random.categorical(
            jax.random.fold_in(key, i), jnp.log(contributes).astype(jnp.float32), shape=(trials,)
        )
        after = jnp.minimum(nearest, squared_distances(candidates))
        best = jnp.argmin(jnp.sum(after, axis=1))
        row = candidates[best].astype(rows.dtype)
        return rows.at[i].set(row), chosen.at[row].set(True), after[best]

    # In 32 bits, so that they are the same with and without x64.
    row = jax.random.randint(jax.random.fold_in(key, 0), (), 0, size, jnp.int32)
    rows = jnp.zeros(k, row.dtype).at[0].set(row)
    chosen = jnp.zeros(size, bool).at[row].set(True)
    start = (rows, chosen, squared_distances(row[None])[0])
    return jax.lax.fori_loop(1, k, add, start)[0]


def _layers(widths: Sequence[int], rngs: nnx.Rngs) -> Sequence[nnx.Linear]:
    layers = [nnx.Linear(i, o, rngs=rngs) for i, o in pairwise(widths)]
    # From 0.12 on Flax refuses plain lists of layers; before, it has no others.
    return nnx.List(layers) if hasattr(nnx, "List") else layers
