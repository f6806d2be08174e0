"""The claims of the page on EM and natural gradients, each against an independent computation.

The mixtures here are one-dimensional arrays in NumPy and JAX, not the package's: only what the
claim is about (`em_step`, `nll`, `sgem`, the network) comes from it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.flatten_util import ravel_pytree
from scipy import special, stats

from ngem_tutorial import MixtureDensityNetwork, nll, sgem
from ngem_tutorial.em import em_step
from ngem_tutorial.fisher import complete_data_fisher
from ngem_tutorial.mixtures import GaussianMixture

Array = Any
EPS = {"float32": 1.2e-7, "float64": 2.3e-16}


@pytest.fixture(autouse=True, scope="module")
def _x64() -> Iterator[None]:
    with jax.enable_x64(True):
        yield


def log_joint(pi: Array, mu: Array, variance: Array, y: Array) -> Array:
    """Shape (N, K), written out."""
    z = (y[:, None] - mu) ** 2 / variance
    return jnp.log(pi) - 0.5 * (z + jnp.log(2.0 * jnp.pi * variance))


# Coordinates of a mixture in one dimension: functions of a vector to (pi, mu, variance)


def from_mean(v: Array) -> tuple[Array, Array, Array]:
    k = (v.size + 1) // 3
    pi = jnp.append(v[: k - 1], 1.0 - v[: k - 1].sum())
    first, second = v[k - 1 :].reshape(2, k) / pi
    return pi, first, second - first**2


def from_natural(v: Array) -> tuple[Array, Array, Array]:
    k = (v.size + 1) // 3
    first, second = v[k - 1 :].reshape(2, k)
    variance = -0.5 / second
    mu = first * variance
    a = jnp.append(v[: k - 1], 0.0) + 0.5 * jnp.log(variance) + 0.5 * mu**2 / variance
    return jax.nn.softmax(a), mu, variance


def from_logits(v: Array, square: Callable[[Array], Array]) -> tuple[Array, Array, Array]:
    k = (v.size + 1) // 3
    mu, s = v[k - 1 :].reshape(2, k)
    return jax.nn.softmax(jnp.append(v[: k - 1], 0.0)), mu, square(s)


def to_mean(pi: Array, mu: Array, variance: Array) -> np.ndarray:
    return np.concatenate([pi[:-1], pi * mu, pi * (mu**2 + variance)])


def to_natural(pi: Array, mu: Array, variance: Array) -> np.ndarray:
    a = np.log(pi) - 0.5 * np.log(variance) - 0.5 * mu**2 / variance
    return np.concatenate([a[:-1] - a[-1], mu / variance, -0.5 / variance])


def to_logits(pi: Array, mu: Array, variance: Array, root: Any) -> np.ndarray:
    return np.concatenate([np.log(pi[:-1] / pi[-1]), mu, root(variance)])


class Coordinates(NamedTuple):
    build: Callable[[Array], tuple[Array, Array, Array]]
    read: Callable[..., np.ndarray]


COORDINATES = {
    "mean": Coordinates(from_mean, to_mean),
    "natural": Coordinates(from_natural, to_natural),
    "scale": Coordinates(partial(from_logits, square=jnp.square), partial(to_logits, root=np.sqrt)),
    "log scale": Coordinates(
        partial(from_logits, square=lambda s: jnp.exp(2.0 * s)),
        partial(to_logits, root=lambda v: 0.5 * np.log(v)),
    ),
}

NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(8)  # exact for the polynomials below


@cache
def calculus(name: str) -> Callable[[Array, Array], tuple[Array, ...]]:
    """Gradient, Fisher matrix, conditional and observed information, all by autodiff.

    The Fisher matrix is the mean negative Hessian of log p(y, z), z summed and y by quadrature.
    """
    build = COORDINATES[name].build

    def likelihood(v: Array, y: Array) -> Array:
        return jax.nn.logsumexp(log_joint(*build(v), y), axis=-1).mean()

    @jax.jit
    def all_of_it(v: Array, y: Array) -> tuple[Array, ...]:
        rho = jax.nn.softmax(log_joint(*build(v), y), axis=-1)

        def q(u: Array) -> Array:
            return jnp.mean(jnp.sum(rho * log_joint(*build(u), y), axis=-1))

        pi, mu, variance = build(v)
        at = mu[:, None] + jnp.sqrt(variance)[:, None] * NODES  # (K, nodes)
        mass = pi[:, None] * WEIGHTS / WEIGHTS.sum()

        def expected(u: Array) -> Array:
            joint = log_joint(*build(u), at.ravel()).reshape(*at.shape, -1)
            return jnp.sum(mass * jnp.einsum("knk->kn", joint))

        return (
            jax.grad(likelihood)(v, y),
            -jax.hessian(expected)(v),
            -jax.hessian(q)(v),
            -jax.hessian(likelihood)(v, y),
            jax.grad(q)(v),
        )

    return all_of_it


step = jax.jit(em_step)
Parameters = tuple[np.ndarray, np.ndarray, np.ndarray]  # weights, means, variances


def em(p: Parameters, y: np.ndarray) -> Parameters:
    """The package's EM step."""
    pi, mu, variance = p
    new = step(GaussianMixture(np.log(pi), mu[:, None], np.sqrt(variance)[:, None]), y[:, None])
    return (
        special.softmax(np.asarray(new.logits)),
        np.asarray(new.means)[:, 0],
        np.asarray(new.scales)[:, 0] ** 2,
    )


def random_problem(seed: int, k: int, n: int = 200) -> tuple[Parameters, np.ndarray]:
    rng = np.random.default_rng(seed)
    p = rng.dirichlet(np.full(k, 3.0)), rng.normal(0.0, 2.0, k), rng.uniform(0.5, 2.0, k)
    return p, rng.normal(0.0, 2.0, n)


@cache
def converged(k: int = 2) -> tuple[Parameters, np.ndarray]:
    """A maximum of the likelihood of overlapping data, by many steps of EM in NumPy."""
    rng = np.random.default_rng(1)
    y = np.concatenate([rng.normal(-1.0, 0.8, 140), rng.normal(1.5, 0.6, 60)])
    pi, mu, variance = np.full(k, 1 / k), np.linspace(-1.0, 1.5, k), np.full(k, 0.5)
    for _ in range(4000):
        rho = special.softmax(np.log(pi) + stats.norm.logpdf(y[:, None], mu, variance**0.5), -1)
        pi, mu = rho.mean(0), rho.T @ y / rho.sum(0)
        variance = np.sum(rho * (y[:, None] - mu) ** 2, 0) / rho.sum(0)
    return (pi, mu, variance), y


PROBLEMS = [(seed, k) for k in (2, 3) for seed in range(6)]


# Proposition 3.1 and Corollary 3.2


@pytest.mark.claim("prop-gradient-identity")
@pytest.mark.parametrize("name", COORDINATES)
@pytest.mark.parametrize("k", [2, 3])
def test_gradient_of_q_is_that_of_the_likelihood(name: str, k: int) -> None:
    for seed in range(5):
        p, y = random_problem(seed, k)
        coordinates = COORDINATES[name]
        v = coordinates.read(*p)
        gradient, *_, of_q = calculus(name)(v, y)
        # Natural and mean parameters multiply by up to 1 / (variance^2), some hundreds.
        np.testing.assert_allclose(of_q, gradient, rtol=1e-11, atol=1e-11)


def test_identity_needs_the_present_responsibilities() -> None:
    """Away from theta_t it fails, which also shows that the test above could."""
    p, y = random_problem(0, 2)
    v = to_natural(*p)
    gradient = calculus("natural")(v, y)[0]
    stale = jax.nn.softmax(log_joint(*from_natural(v + 0.1), y), axis=-1)

    @jax.jit
    @jax.grad
    def of_stale_q(u: Array) -> Array:
        return jnp.mean(jnp.sum(stale * log_joint(*from_natural(u), y), axis=-1))

    of_q = of_stale_q(v)
    assert np.abs(of_q - gradient).max() > 1e-3


@nnx.jit(static_argnums=1)
def network_gradients(network: nnx.Module, objectives: Any, x: Array, y: Array) -> list[Array]:
    def gradient(objective: Any) -> Array:
        def loss(n: Any) -> Array:
            return objective(n(x), y).mean()

        return ravel_pytree(nnx.grad(loss)(network))[0]

    return [gradient(objective) for objective in objectives]


def equation_16(mixture: GaussianMixture, y: Array) -> Array:
    """By hand from the parameters, with the normal density of jax.scipy."""
    log_normal = jax.scipy.stats.norm.logpdf(y[:, None, :], mixture.means, mixture.scales)
    joint = jax.nn.log_softmax(mixture.logits) + log_normal.sum(axis=-1)
    return -jnp.sum(jax.lax.stop_gradient(jax.nn.softmax(joint)) * joint, axis=-1)


SHAPES = [(1, 1, 1), (4, 2, 2)]  # components, dimensions, trunks


@cache
def network(k: int, d: int, trunks: Any, dtype: str) -> tuple[Any, Any]:
    made = MixtureDensityNetwork(2, k, d, hidden=(6,), trunks=trunks, scale="exp", rngs=nnx.Rngs(0))
    graph, state = nnx.split(made)
    return graph, jax.tree.map(lambda a: np.asarray(a, dtype), state)


@pytest.mark.claim("cor-network-gradient")
@given(
    shape=st.sampled_from(SHAPES),
    dtype=st.sampled_from(["float32", "float64"]),
    seed=st.integers(0, 2**16),
    log_scale=st.floats(-3.0, 3.0),
    starved=st.floats(-50.0, 0.0),
)
@settings(max_examples=25, deadline=None, database=None, derandomize=True)
def test_network_gradients_agree(
    shape: tuple[int, int, int], dtype: str, seed: int, log_scale: float, starved: float
) -> None:
    """Any K, D, trunks and precision, narrow and broad, with a component of next to no weight."""
    k, d, _ = shape
    rng = np.random.default_rng(seed)
    graph, state = network(*shape, dtype)
    model = nnx.merge(graph, jax.tree.map(jnp.asarray, state))
    model.scales.bias[...] = jnp.full(k * d, log_scale, dtype)
    model.logits.bias[...] = jnp.asarray(np.append(np.zeros(k - 1), starved), dtype)
    x, y = (jnp.asarray(rng.normal(size=(7, n)), dtype) for n in (2, d))
    plain, *others = network_gradients(model, (nll, sgem, equation_16), x, y)
    assert plain.dtype == dtype
    scale = float(jnp.abs(plain).max())
    for other in others:
        # Targets up to some e^3 * 3 scales away: densities' exponents up to some thousands, whose
        # rounding the responsibilities inherit.
        assert float(jnp.abs(other - plain).max()) <= 1e4 * EPS[dtype] * scale


@pytest.mark.claim("cor-network-gradient")
def test_training_is_identical_up_to_rounding() -> None:
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(64, 2)))
    y = jnp.sin(3.0 * x[:, :1]) + 0.1 * rng.normal(size=(64, 1))
    batches = rng.integers(0, 64, size=(200, 16))

    graph, state = network(4, 1, 1, "float64")
    start, build = ravel_pytree(jax.tree.map(jnp.asarray, state))
    adam = optax.adam(1e-2)

    @jax.jit
    def train(start: Array) -> list[Array]:
        """200 updates with each objective, from the same start, on the same batches."""

        def run(objective: Any) -> Array:
            def update(carry: Any, rows: Array) -> Any:
                theta, memory = carry

                def loss(theta: Array) -> Array:
                    return objective(nnx.merge(graph, build(theta))(x[rows]), y[rows]).mean()

                change, memory = adam.update(jax.grad(loss)(theta), memory)
                return (theta + change, memory), None

            return jax.lax.scan(update, (start, adam.init(start)), batches)[0][0]

        return [run(objective) for objective in (nll, equation_16)]

    end, other = train(start)
    assert np.abs(end - start).max() > 0.1
    assert np.abs(other - end).max() < 1e-9


# Proposition 3.3: what holds exactly


@pytest.mark.claim("prop-em-is-ngd")
@pytest.mark.parametrize(("seed", "k"), PROBLEMS)
def test_em_is_a_unit_natural_step_in_mean_parameters(seed: int, k: int) -> None:
    p, y = random_problem(seed, k)
    m = to_mean(*p)
    gradient, fisher, *_ = calculus("mean")(m, y)
    expected = to_mean(*em(p, y))
    assert np.abs(expected - m).max() > 1e-2
    # The solve loses the condition number of sixteen digits.
    tolerance = 100 * 2.3e-16 * float(np.linalg.cond(fisher))
    assert tolerance < 1e-7
    natural = m + np.linalg.solve(fisher, gradient)
    np.testing.assert_allclose(natural, expected, atol=tolerance * np.abs(m).max())


def test_it_is_not_one_with_the_observed_information() -> None:
    """The Fisher matrix is that of the complete data; nor is it exact in other coordinates."""
    p, y = random_problem(0, 2)
    m, expected = to_mean(*p), to_mean(*em(p, y))
    gradient, _, _, observed, _ = calculus("mean")(m, y)
    assert np.abs(m + np.linalg.solve(observed, gradient) - expected).max() > 1e-3
    v = to_natural(*p)
    gradient, fisher, *_ = calculus("natural")(v, y)
    assert np.abs(v + np.linalg.solve(fisher, gradient) - to_natural(*em(p, y))).max() > 1e-3


# Proposition 3.3: what holds to second order


def errors(name: str, distances: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Lengths of EM steps at points ever closer to a maximum, and their distance from NGD."""
    star, y = converged()
    read, build = COORDINATES[name].read, COORDINATES["log scale"].build
    direction = np.random.default_rng(3).normal(size=5)
    steps, distance = [], []
    for e in distances:
        start = COORDINATES["log scale"].read(*star) + e * direction / np.linalg.norm(direction)
        p = tuple(np.asarray(part) for part in build(start))
        v, new = read(*p), read(*em(p, y))
        gradient, fisher, *_ = calculus(name)(v, y)
        steps.append(np.linalg.norm(new - v))
        distance.append(np.linalg.norm(new - v - np.linalg.solve(fisher, gradient)))
    return np.array(steps), np.array(distance)


def slope(steps: np.ndarray, distance: np.ndarray) -> float:
    return float(np.polyfit(np.log(steps), np.log(distance), 1)[0])


@pytest.mark.claim("prop-em-second-order")
@pytest.mark.parametrize("name", ["natural", "scale", "log scale"])
def test_difference_is_of_second_order(name: str) -> None:
    assert slope(*errors(name, 2.0 ** -np.arange(4, 11))) == pytest.approx(2.0, abs=0.05)


@pytest.mark.claim("prop-em-second-order")
@pytest.mark.parametrize("name", ["natural", "scale", "log scale"])
def test_leading_term_is_half_the_second_derivative(name: str) -> None:
    """The remainder after it is of third order."""
    star, y = converged()
    read = COORDINATES[name].read

    def g(m: Array) -> Array:
        """The coordinates as a function of mean parameters, differentiable."""
        pi, mu, v = from_mean(m)
        if name == "natural":
            a = jnp.log(pi) - 0.5 * jnp.log(v) - 0.5 * mu**2 / v
            return jnp.concatenate([a[:-1] - a[-1], mu / v, -0.5 / v])
        s = jnp.sqrt(v) if name == "scale" else 0.5 * jnp.log(v)
        return jnp.concatenate([jnp.log(pi[:-1] / pi[-1]), mu, s])

    @jax.jit
    def half_second(m: Array, delta: Array) -> Array:
        def along(u: Array) -> Array:
            return jax.jvp(g, (u,), (delta,))[1]

        return 0.5 * jax.jvp(along, (m,), (delta,))[1]

    lengths, remainders = [], []
    for e in 2.0 ** -np.arange(6, 11):
        start = to_mean(*star) + e * np.array([0.1, -0.3, 0.2, 0.2, 0.3])
        p = tuple(np.asarray(part) for part in from_mean(start))
        v, new = read(*p), read(*em(p, y))
        gradient, fisher, *_ = calculus(name)(v, y)
        delta = to_mean(*em(p, y)) - start
        error = new - v - np.linalg.solve(fisher, gradient)
        lengths.append(np.linalg.norm(delta))
        remainders.append(np.linalg.norm(error - half_second(start, delta)))
    assert slope(np.array(lengths), np.array(remainders)) == pytest.approx(3.0, abs=0.15)


@pytest.mark.claim("prop-em-second-order")
def test_order_is_one_with_known_weights() -> None:
    """The counterexample: only the means unknown, and weights that do not suit the data."""
    (_, mu, variance), y = converged()
    pi = np.array([0.5, 0.5])

    def responsibilities(mu: np.ndarray) -> np.ndarray:
        return special.softmax(np.log(pi) + stats.norm.logpdf(y[:, None], mu, variance**0.5), -1)

    def em_means(mu: np.ndarray) -> np.ndarray:
        rho = responsibilities(mu)
        return rho.T @ y / rho.sum(0)

    for _ in range(2000):
        mu = em_means(mu)
    steps, distance = [], []
    for e in 2.0 ** -np.arange(4, 11):
        at = mu + e * np.array([0.8, 0.6])
        mixture = GaussianMixture(np.log(pi), at[:, None], np.sqrt(variance)[:, None])
        fisher = np.asarray(complete_data_fisher(mixture).means)[:, 0]
        gradient = np.mean(responsibilities(at) * (y[:, None] - at) / variance, 0)
        steps.append(np.linalg.norm(em_means(at) - at))
        distance.append(np.linalg.norm(em_means(at) - at - gradient / fisher))
    assert slope(np.array(steps), np.array(distance)) == pytest.approx(1.0, abs=0.05)


# The conditional Hessian


def natural_statistics(p: Parameters, y: np.ndarray) -> np.ndarray:
    """What the E-step expects, minus the mean parameters."""
    pi, mu, variance = p
    rho = special.softmax(np.log(pi) + stats.norm.logpdf(y[:, None], mu, variance**0.5), -1)
    m_hat = np.concatenate([rho.mean(0)[:-1], rho.T @ y / len(y), rho.T @ y**2 / len(y)])
    return m_hat - to_mean(*p)


@pytest.mark.claim("prop-conditional-hessian")
@pytest.mark.parametrize("name", COORDINATES)
@pytest.mark.parametrize("k", [2, 3])
def test_conditional_hessian_is_the_fisher_matrix_and_a_correction(name: str, k: int) -> None:
    def eta(v: Array) -> Array:
        pi, mu, variance = COORDINATES[name].build(v)
        a = jnp.log(pi) - 0.5 * jnp.log(variance) - 0.5 * mu**2 / variance
        return jnp.concatenate([a[:-1] - a[-1], mu / variance, -0.5 / variance])

    second = jax.jit(jax.hessian(eta))
    for seed in range(3):
        p, y = random_problem(seed, k)
        v = COORDINATES[name].read(*p)
        _, fisher, conditional, *_ = calculus(name)(v, y)
        correction = np.einsum("i,ijk->jk", natural_statistics(p, y), second(v))
        size = float(np.abs(fisher).max())
        np.testing.assert_allclose(conditional, fisher - correction, atol=1e-11 * size)
        if name == "natural":
            np.testing.assert_allclose(conditional, fisher, atol=1e-11 * size)
        else:
            assert np.abs(conditional - fisher).max() > 1e-3 * size


@pytest.mark.claim("prop-conditional-hessian")
@pytest.mark.parametrize("name", COORDINATES)
def test_they_agree_at_a_stationary_point(name: str) -> None:
    star, y = converged()
    _, fisher, conditional, *_ = calculus(name)(COORDINATES[name].read(*star), y)
    np.testing.assert_allclose(conditional, fisher, atol=1e-11 * float(np.abs(fisher).max()))


# The rate of EM


@pytest.mark.claim("prop-em-rate")
def test_derivative_of_em_is_one_minus_the_share_of_information() -> None:
    star, y = converged()
    for name, (build, read) in COORDINATES.items():
        v = read(*star)
        _, fisher, _, observed, _ = calculus(name)(v, y)
        predicted = np.eye(5) - np.linalg.solve(fisher, observed)
        h = 1e-5 * np.maximum(1.0, np.abs(v))
        columns = []
        for i in range(5):
            e = np.eye(5)[i] * h
            ends = [
                read(*em(tuple(np.asarray(part) for part in build(v + s * e)), y)) for s in (1, -1)
            ]
            columns.append((ends[0] - ends[1]) / (2.0 * h[i]))
        # Central differences: h^2 times third derivatives.
        scale = np.abs(predicted).max()
        np.testing.assert_allclose(np.transpose(columns), predicted, atol=1e-6 * scale)
        eigenvalues = np.sort(np.linalg.eigvals(predicted).real)
        assert eigenvalues[0] > -1e-9
        assert eigenvalues[-1] < 1.0
        # The mean and the variance of the whole are right after a single step.
        np.testing.assert_allclose(eigenvalues[:2], 0.0, atol=1e-9)


@pytest.mark.claim("prop-em-rate")
@pytest.mark.parametrize(("seed", "k"), PROBLEMS[::2])
def test_observed_information_is_the_complete_less_the_missing(seed: int, k: int) -> None:
    p, y = random_problem(seed, k)
    pi, mu, variance = p
    _, fisher, _, observed, _ = calculus("natural")(to_natural(*p), y)
    rho = special.softmax(np.log(pi) + stats.norm.logpdf(y[:, None], mu, variance**0.5), -1)
    missing = np.zeros_like(fisher)
    for responsibility, value in zip(rho, y, strict=True):
        t = np.concatenate([np.eye(k)[:, :-1], np.eye(k) * value, np.eye(k) * value**2], axis=1)
        mean = responsibility @ t
        missing += (t * responsibility[:, None]).T @ t - np.outer(mean, mean)
    expected = fisher - missing / len(y)
    np.testing.assert_allclose(observed, expected, atol=1e-11 * float(np.abs(fisher).max()))
