"""Mixtures of numpyro, distrax and TensorFlow Probability, from and to those of this package.

None of these libraries is needed to import this module; a function imports the one that it names.
From TensorFlow Probability it is the part for JAX, `tensorflow_probability.substrates.jax`.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from ngem_tutorial._install import require
from ngem_tutorial.components import FullGaussianMixture
from ngem_tutorial.mixtures import LEAST_LOG_WEIGHT, GaussianMixture

__all__ = ["from_distrax", "from_numpyro", "from_tfp", "to_distrax", "to_numpyro", "to_tfp"]


def from_numpyro(distribution: Any) -> GaussianMixture:
    """Convert a mixture of numpyro.

    Args:
        distribution: a `MixtureSameFamily` of `Normal` components, each with one dimension, or of
            `Normal(...).to_event(1)`.

    Returns:
        The same mixture, with the batch shape of the distribution; `D` is 1 for plain `Normal`
        components, whose targets then need a last axis of length one.

    Raises:
        ImportError: if numpyro is not installed.
        ValueError: if it is something else.

    Example:
        >>> from ngem_tutorial import GaussianMixture
        >>> from ngem_tutorial.interop import from_numpyro, to_numpyro
        >>> mixture = GaussianMixture([0.0, 1.0], [[0.0], [4.0]], [[1.0], [1.0]])
        >>> from_numpyro(to_numpyro(mixture)).num_components
        2
    """
    dist = require("numpyro.distributions")
    if not isinstance(distribution, dist.MixtureSameFamily):
        raise _unknown("numpyro", distribution)
    components, event_axes = distribution.component_distribution, 0
    if isinstance(components, dist.Independent) and components.reinterpreted_batch_ndims == 1:
        components, event_axes = components.base_dist, 1
    if type(components) is not dist.Normal:
        raise _unknown("numpyro", distribution, components)
    # Of a distribution that was broadcast, the parameters may still have their former shape.
    shape = components.batch_shape
    loc, scale = (jnp.broadcast_to(p, shape) for p in (components.loc, components.scale))
    mixing = distribution.mixing_distribution
    has_logits = isinstance(mixing, dist.CategoricalLogits)
    logits = mixing.logits if has_logits else jnp.log(mixing.probs)
    return _mixture(logits, loc, scale, event_axes)


def to_numpyro(mixture: GaussianMixture | FullGaussianMixture) -> Any:
    """Convert to a mixture of numpyro.

    Args:
        mixture: batch shape `(...)`.

    Returns:
        A `MixtureSameFamily` with the batch shape of the mixture and the event shape `(D,)`.

    Raises:
        ImportError: if numpyro is not installed.

    Example:
        >>> from ngem_tutorial import GaussianMixture
        >>> from ngem_tutorial.interop import to_numpyro
        >>> to_numpyro(GaussianMixture([0.0, 1.0], [[0.0], [4.0]], [[1.0], [1.0]])).event_shape
        (1,)
    """
    dist = require("numpyro.distributions")
    if isinstance(mixture, FullGaussianMixture):
        parts = dist.MultivariateNormal(mixture.means, scale_tril=mixture.factors)
    else:
        parts = dist.Normal(mixture.means, mixture.scales).to_event(1)
    return dist.MixtureSameFamily(dist.Categorical(logits=mixture.log_weights), parts)


def from_distrax(distribution: Any) -> GaussianMixture:
    """Convert a mixture of distrax.

    Args:
        distribution: a `MixtureSameFamily` of components `MultivariateNormalDiag`, `Normal`, or
            `Independent` ones of `Normal`.

    Returns:
        The same mixture, as `from_numpyro` has it.

    Raises:
        ImportError: if distrax is not installed.
        ValueError: if it is something else.

    Example:
        >>> from ngem_tutorial import GaussianMixture
        >>> from ngem_tutorial.interop import from_distrax, to_distrax
        >>> mixture = GaussianMixture([0.0, 1.0], [[0.0], [4.0]], [[1.0], [1.0]])
        >>> from_distrax(to_distrax(mixture)).num_components
        2
    """
    distrax = require("distrax")
    if not isinstance(distribution, distrax.MixtureSameFamily):
        raise _unknown("distrax", distribution)
    components, event_axes = distribution.components_distribution, 0
    if type(components) is distrax.MultivariateNormalDiag:
        loc, scale, event_axes = components.loc, components.scale_diag, 1
    else:
        if isinstance(components, distrax.Independent) and len(components.event_shape) == 1:
            components, event_axes = components.distribution, 1
        if type(components) is not distrax.Normal:
            raise _unknown("distrax", distribution, components)
        loc, scale = components.loc, components.scale
    return _mixture(distribution.mixture_distribution.logits, loc, scale, event_axes)


def to_distrax(mixture: GaussianMixture | FullGaussianMixture) -> Any:
    """Convert to a mixture of distrax.

    Args:
        mixture: batch shape `(...)`.

    Returns:
        A `MixtureSameFamily` with the batch shape of the mixture and the event shape `(D,)`.

    Raises:
        ImportError: if distrax is not installed.

    Example:
        >>> from ngem_tutorial import GaussianMixture
        >>> from ngem_tutorial.interop import to_distrax
        >>> to_distrax(GaussianMixture([0.0, 1.0], [[0.0], [4.0]], [[1.0], [1.0]])).event_shape
        (1,)
    """
    distrax = require("distrax")
    if isinstance(mixture, FullGaussianMixture):
        parts = distrax.MultivariateNormalTri(mixture.means, mixture.factors)
    else:
        parts = distrax.MultivariateNormalDiag(mixture.means, mixture.scales)
    return distrax.MixtureSameFamily(distrax.Categorical(logits=mixture.log_weights), parts)


def from_tfp(distribution: Any) -> GaussianMixture:
    """Convert a mixture of TensorFlow Probability for JAX.

    Args:
        distribution: a `MixtureSameFamily` of components `MultivariateNormalDiag`, `Normal`, or
            `Independent` ones of `Normal`.

    Returns:
        The same mixture, as `from_numpyro` has it.

    Raises:
        ImportError: if TensorFlow Probability is not installed.
        ValueError: if it is something else.

    Example:
        >>> from ngem_tutorial import GaussianMixture
        >>> from ngem_tutorial.interop import from_tfp, to_tfp
        >>> mixture = GaussianMixture([0.0, 1.0], [[0.0], [4.0]], [[1.0], [1.0]])
        >>> from_tfp(to_tfp(mixture)).num_components
        2
    """
    tfd = require("tensorflow_probability.substrates.jax").distributions
    if not isinstance(distribution, tfd.MixtureSameFamily):
        raise _unknown("TensorFlow Probability", distribution)
    components, event_axes = distribution.components_distribution, 0
    if type(components) is tfd.MultivariateNormalDiag:
        loc, scale, event_axes = components.mean(), components.stddev(), 1
    else:
        if isinstance(components, tfd.Independent) and len(components.event_shape) == 1:
            components, event_axes = components.distribution, 1
        if type(components) is not tfd.Normal:
            raise _unknown("TensorFlow Probability", distribution, components)
        loc, scale = components.loc, components.scale
    logits = distribution.mixture_distribution.logits_parameter()
    return _mixture(logits, loc, scale, event_axes)


def to_tfp(mixture: GaussianMixture | FullGaussianMixture) -> Any:
    """Convert to a mixture of TensorFlow Probability for JAX.

    Args:
        mixture: batch shape `(...)`.

    Returns:
        A `MixtureSameFamily` with the batch shape of the mixture and the event shape `(D,)`.

    Raises:
        ImportError: if TensorFlow Probability is not installed.

    Example:
        >>> from ngem_tutorial import GaussianMixture
        >>> from ngem_tutorial.interop import to_tfp
        >>> mixture = GaussianMixture([0.0, 1.0], [[0.0], [4.0]], [[1.0], [1.0]])
        >>> tuple(to_tfp(mixture).event_shape)
        (1,)
    """
    tfd = require("tensorflow_probability.substrates.jax").distributions
    if isinstance(mixture, FullGaussianMixture):
        parts = tfd.MultivariateNormalTriL(mixture.means, mixture.factors)
    else:
        parts = tfd.MultivariateNormalDiag(mixture.means, mixture.scales)
    return tfd.MixtureSameFamily(tfd.Categorical(logits=mixture.log_weights), parts)


def _mixture(logits: Any, loc: Any, scale: Any, event_axes: int) -> GaussianMixture:
    """Put the parameters of another library into one shape; logits may be minus infinity."""
    logits, loc, scale = (jnp.asarray(parameter) for parameter in (logits, loc, scale))
    if not event_axes:
        loc, scale = loc[..., None], scale[..., None]
    event = jnp.broadcast_shapes((*logits.shape, 1), loc.shape, scale.shape)
    log_weights = jnp.maximum(jax.nn.log_softmax(logits), LEAST_LOG_WEIGHT)
    return GaussianMixture(
        jnp.broadcast_to(log_weights, event[:-1]),
        jnp.broadcast_to(loc, event),
        jnp.broadcast_to(scale, event),
    )


def _unknown(library: str, distribution: Any, components: Any = None) -> ValueError:
    got = type(distribution).__name__
    if components is not None:
        got += f" with components {type(components).__name__}"
    return ValueError(
        f"distribution must be a MixtureSameFamily of {library} whose components are normal "
        f"distributions with diagonal covariance, got {got}"
    )
