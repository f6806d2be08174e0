"""Directions of an update, against natural gradients of the ELBO by autodiff on a grid.

A component's direction in its natural parameters is the gradient in its expectation parameters,
divided by its weight. The ELBO is an integral over a grid, and the estimators get the grid's points
with their weights: both are exact up to rounding.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ngem_tutorial.vi._gaussians import Gaussians
from ngem_tutorial.vi.estimators import Estimator, More, Samples, Stein
from ngem_tutorial.vi.weight_updates import DirectWeights, TrustRegionWeights

pytestmark = pytest.mark.usefixtures("x64")
TAU = 1.5


class Case(NamedTuple):
    """A mixture in expectation parameters, and a grid that holds all of its mass."""

    logits: jax.Array
    first: jax.Array
    second: jax.Array
    x: jax.Array
    volume: float


def log_target(x: jax.Array) -> jax.Array:
    """Neither Gaussian nor symmetric."""
    bent = x[0] + 0.3 * jnp.sin(x[-1])
    return -0.3 * bent**2 - 0.1 * jnp.sum(x**2) + jnp.cos(x).sum()


def some_case(dim: int) -> Case:
    logits = jnp.asarray([0.4, -0.3])
    if dim == 1:
        means, covariances = jnp.asarray([[-1.0], [1.3]]), jnp.asarray([[[0.8]], [[1.4]]])
    else:
        means = jnp.asarray([[-1.0, 0.5], [1.2, -0.4]])
        covariances = jnp.asarray([[[0.9, 0.3], [0.3, 0.7]], [[1.2, -0.5], [-0.5, 1.0]]])
    axis = jnp.linspace(-9.0, 9.0, 2001 if dim == 1 else 121)
    x = jnp.stack(jnp.meshgrid(*[axis] * dim, indexing="ij"), axis=-1).reshape(-1, dim)
    second = covariances + means[:, :, None] * means[:, None, :]
    return Case(logits, means, second, x, float(axis[1] - axis[0]) ** dim)


def densities(first: jax.Array, second: jax.Array, x: jax.Array) -> jax.Array:
    """Log-densities of the components, (n, K), by inverse and determinant."""
    covariances = second - first[:, :, None] * first[:, None, :]
    centred = x[:, None] - first
    squares = jnp.einsum("nki,kij,nkj->nk", centred, jnp.linalg.inv(covariances), centred)
    constant = jnp.linalg.slogdet(2.0 * math.pi * covariances)[1]
    return -0.5 * (squares + constant)


def elbo(logits: jax.Array, first: jax.Array, second: jax.Array, case: Case) -> jax.Array:
    log_w = jax.nn.log_softmax(logits)
    log_q = jax.nn.logsumexp(densities(first, second, case.x) + log_w, axis=1)
    rho = jax.vmap(log_target)(case.x) - TAU * log_q
    return jnp.sum(jnp.exp(log_q) * rho) * case.volume


def samples_of(case: Case) -> tuple[Samples, Gaussians, jax.Array]:
    """The grid's points with their exact weights for each component."""
    factors = jnp.linalg.cholesky(case.second - case.first[:, :, None] * case.first[:, None, :])
    log_n = densities(case.first, case.second, case.x)
    joint = log_n + jax.nn.log_softmax(case.logits)
    log_q = jax.nn.logsumexp(joint, axis=1, keepdims=True)
    value, gradient = jax.vmap(jax.value_and_grad(log_target))(case.x)
    samples = Samples(
        case.x,
        value - TAU * log_q[:, 0],
        gradient,
        log_n,
        log_q[:, 0],
        jnp.zeros(len(case.x)),
        jnp.full(2, -math.log(case.volume)),
        jax.nn.log_softmax(case.logits),
        jnp.asarray(0),
        jnp.asarray(len(case.x)),
    )
    return samples, Gaussians.of(case.first, factors), factors


@pytest.mark.parametrize("dim", [1, 2])
@pytest.mark.parametrize("choice", [Stein(), More(samples=20_000)])
def test_a_component_moves_along_its_natural_gradient(choice: Estimator, dim: int) -> None:
    case = some_case(dim)
    samples, gaussians, factors = samples_of(case)
    weights = samples.weights(jnp.arange(len(case.x)))
    np.testing.assert_allclose(weights.sum(axis=0), 1.0, rtol=1e-9)  # the grid is enough
    found, _ = choice(samples, gaussians, factors, jnp.asarray(TAU), jnp.full(2, 1e-12))
    slopes = jax.grad(elbo, (1, 2))(case.logits, case.first, case.second, case)
    for o, weight in enumerate(jax.nn.softmax(case.logits)):
        linear, quadratic = (slope[o] / weight for slope in slopes)
        inverse = np.linalg.inv(factors[o])
        # The precision changes by G, precision times mean by G mu + g.
        curvature = inverse.T @ found.curvature[o] @ inverse
        gradient = inverse.T @ found.gradient[o]
        np.testing.assert_allclose(curvature, -(quadratic + quadratic.T), rtol=1e-6, atol=1e-8)
        np.testing.assert_allclose(
            curvature @ case.first[o] + gradient, linear, rtol=1e-6, atol=1e-8
        )


def test_the_lower_bound_of_em_has_the_same_gradient() -> None:
    """With the responsibilities held fixed the components part; at the start nothing changes."""
    case = some_case(2)
    log_w = jax.nn.log_softmax(case.logits)
    log_r = jax.nn.log_softmax(densities(case.first, case.second, case.x) + log_w, axis=1)

    def bound(first: jax.Array, second: jax.Array) -> jax.Array:
        log_n = densities(first, second, case.x)
        reward = jax.vmap(log_target)(case.x)[:, None] + TAU * (log_r - log_w - log_n)
        return jnp.sum(jnp.exp(log_w + log_n) * reward) * case.volume

    np.testing.assert_allclose(
        bound(case.first, case.second),
        elbo(case.logits, case.first, case.second, case),
        rtol=1e-9,
    )
    ours = jax.grad(bound, (0, 1))(case.first, case.second)
    wanted = jax.grad(elbo, (1, 2))(case.logits, case.first, case.second, case)
    for one, other in zip(ours, wanted, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("dim", [1, 2])
def test_weights_move_along_their_natural_gradient(dim: int) -> None:
    case = some_case(dim)
    samples, _, _ = samples_of(case)
    reward = samples.weights(jnp.arange(len(case.x))).T @ samples.rho
    slope = jax.grad(elbo)(case.logits, case.first, case.second, case)
    w = np.asarray(jax.nn.softmax(case.logits))
    natural = np.linalg.pinv(np.diag(w) - np.outer(w, w)) @ np.asarray(slope)
    # In the logits the direction is the rewards, up to a constant.
    np.testing.assert_allclose(reward - reward.mean(), natural - natural.mean(), rtol=1e-7)
    log_w, tau = jnp.log(w), jnp.asarray(TAU)
    for choice, step in ((DirectWeights(), 1e-6), (TrustRegionWeights(), 1e-12)):
        change = choice(log_w, reward, jnp.asarray(step), tau) - log_w
        ratio = (change[0] - change[1]) / (natural[0] - natural[1])
        assert float(ratio) > 0
        if step == 1e-6:
            assert float(ratio) == pytest.approx(step / TAU, rel=1e-6)
