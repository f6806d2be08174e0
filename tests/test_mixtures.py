"""Gaussian mixtures against scipy, numpyro and closed forms."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from scipy import integrate, special, stats

from ngem_tutorial.mixtures import GaussianMixture

# Leading axes of the mixture and of the targets: equal, absent on one side, broadcast both ways.
BATCHES = [((), ()), ((4,), (4,)), ((), (5, 4)), ((4,), ()), ((3, 1), (4,)), ((2, 3), (3,))]

DENSITIES = (
    "component_log_prob",
    "log_prob",
    "log_responsibilities",
    "responsibilities",
    "standardize",
)

build = jax.jit(GaussianMixture)  # compiled: building many shapes operation by operation is slow


@pytest.fixture(params=["float32", "float64"])
def dtype(request: pytest.FixtureRequest) -> Iterator[Any]:
    """Run a test in both precisions, each as a user has it: float64 needs JAX's flag."""
    with jax.enable_x64(request.param == "float64"):
        yield np.dtype(request.param)


@pytest.fixture
def x64() -> Iterator[None]:
    with jax.enable_x64(True):
        yield


def make(
    batch: tuple[int, ...] = (), k: int = 3, d: int = 2, dtype: Any = np.float32, seed: int = 0
) -> GaussianMixture:
    rng = np.random.default_rng(seed)
    return build(
        rng.normal(size=(*batch, k)).astype(dtype),
        rng.normal(size=(*batch, k, d)).astype(dtype),
        rng.uniform(0.3, 2.0, size=(*batch, k, d)).astype(dtype),
    )


def targets(batch: tuple[int, ...] = (), d: int = 2, dtype: Any = np.float32) -> np.ndarray:
    return np.random.default_rng(9).normal(size=(*batch, d)).astype(dtype)


def reference(mixture: GaussianMixture, y: np.ndarray) -> dict[str, np.ndarray]:
    """Densities and gradients of the log-density by scipy in float64, from the rounded inputs."""
    psi, mu, sigma = (np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(mixture))
    y = np.asarray(y, np.float64)[..., None, :]
    log_pi = special.log_softmax(psi, axis=-1)
    component = stats.norm.logpdf(y, mu, sigma).sum(axis=-1)
    log_rho = special.log_softmax(log_pi + component, axis=-1)
    rho = np.exp(log_rho)
    z = (y - mu) / sigma
    return {
        "component_log_prob": component,
        "log_prob": special.logsumexp(log_pi + component, axis=-1),
        "log_responsibilities": log_rho,
        "responsibilities": rho,
        "standardize": z,
        "d_logits": rho - np.exp(log_pi),
        "d_means": rho[..., None] * z / sigma,
        "d_scales": rho[..., None] * (z**2 - 1) / sigma,
        "d_y": -np.sum(rho[..., None] * z / sigma, axis=-2),
    }


def assert_close(actual: Any, expected: Any, dtype: Any, magnitude: float = 1.0) -> None:
    """Equal up to some tens of roundings of numbers as large as `magnitude`."""
    tolerance = 64 * float(np.finfo(dtype).eps)
    np.testing.assert_allclose(actual, expected, rtol=tolerance, atol=tolerance * magnitude)


# Densities


@jax.jit
def densities(mixture: GaussianMixture, y: Any) -> dict[str, jax.Array]:
    return {name: getattr(mixture, name)(y) for name in DENSITIES}


@pytest.mark.parametrize(("batch", "y_batch"), BATCHES)
def test_densities_agree_with_scipy(
    batch: tuple[int, ...], y_batch: tuple[int, ...], dtype: Any
) -> None:
    mixture, y = make(batch, dtype=dtype), targets(y_batch, dtype=dtype)
    expected = reference(mixture, y)
    for name, value in densities(mixture, y).items():
        assert value.shape == expected[name].shape
        assert value.dtype == dtype
        # The log-densities are sums of terms of up to about 10, the squared distances.
        assert_close(value, expected[name], dtype, magnitude=10.0)


@pytest.mark.parametrize(("k", "d"), [(1, 1), (2, 5), (7, 1)])
def test_density_and_moments_agree_with_numpyro(k: int, d: int, dtype: Any) -> None:
    mixture, y = make((4,), k, d, dtype), targets((6, 4), d, dtype)

    @jax.jit
    def ours(m: GaussianMixture) -> list[jax.Array]:
        return [m.log_prob(y), m.mean, m.variance]

    @jax.jit
    def theirs(m: GaussianMixture) -> list[jax.Array]:
        other = dist.MixtureSameFamily(
            dist.Categorical(logits=m.logits), dist.Normal(m.means, m.scales).to_event(1)
        )
        return [other.log_prob(y), other.mean, other.variance]

    # Sums of squared distances, of up to five coordinates in the density.
    for value, expected in zip(ours(mixture), theirs(mixture), strict=True):
        assert_close(value, expected, dtype, magnitude=20.0)


def test_weights_are_the_softmax_of_the_logits(dtype: Any) -> None:
    mixture = make((5,), 4, dtype=dtype)
    psi = np.asarray(mixture.logits, np.float64)
    weights, log_weights = jax.jit(lambda m: (m.weights, m.log_weights))(mixture)
    assert_close(weights, special.softmax(psi, axis=-1), dtype)
    assert_close(log_weights, special.log_softmax(psi, axis=-1), dtype)


@pytest.mark.parametrize("k", [1, 4])
def test_entropy_of_the_weights(k: int, dtype: Any) -> None:
    mixture = make((5,), k, dtype=dtype)
    p = special.softmax(np.asarray(mixture.logits, np.float64), axis=-1)
    entropy = jax.jit(lambda m: m.weight_entropy)
    assert_close(entropy(mixture), stats.entropy(p, axis=-1), dtype)
    uniform = build(np.full((5, k), 7.0, dtype), mixture.means, mixture.scales)
    assert_close(entropy(uniform), np.full(5, np.log(k)), dtype)


def test_density_integrates_to_one(x64: None) -> None:
    mixture = make(k=3, d=2, dtype=np.float64)
    # The trapezium rule is spectrally accurate here; 12 deviations of the widest to each side.
    grid = np.linspace(-24.0, 24.0, 1201)
    y = np.stack(np.meshgrid(grid, grid, indexing="ij"), axis=-1)
    density = np.exp(np.asarray(densities(mixture, y)["log_prob"]))
    assert density.sum() * (grid[1] - grid[0]) ** 2 == pytest.approx(1.0, abs=1e-12)


def test_inputs_are_promoted_to_one_floating_dtype() -> None:
    mixture = GaussianMixture([0, 0], [[0], [1]], np.ones((2, 1), np.float32))
    assert {leaf.dtype for leaf in jax.tree.leaves(mixture)} == {np.dtype("float32")}
    assert mixture.log_prob([1]) == mixture.log_prob(np.array([1.0], np.float32))
    with jax.enable_x64(True):
        mixed = GaussianMixture(np.zeros(1, np.float32), np.zeros((1, 1)), np.ones((1, 1)))
        assert {leaf.dtype for leaf in jax.tree.leaves(mixed)} == {np.dtype("float64")}
        kept = GaussianMixture(*(np.ones(s, np.float32) for s in ((1,), (1, 1), (1, 1))))
        assert {leaf.dtype for leaf in jax.tree.leaves(kept)} == {np.dtype("float32")}


def test_shape_properties() -> None:
    mixture = make((2, 5), 4, 3)
    assert (mixture.num_components, mixture.dim, mixture.batch_shape) == (4, 3, (2, 5))
    assert make().batch_shape == ()


# Transformations


@pytest.mark.parametrize("method", DENSITIES)
def test_jit_and_vmap_change_nothing(method: str) -> None:
    mixture, y = make((4,)), targets((4,))

    def call(m: GaussianMixture, t: Any) -> jax.Array:
        return getattr(m, method)(t)

    plain = call(mixture, y)
    compiled = jax.jit(call)
    assert_close(compiled(mixture, y), plain, np.float32, magnitude=10.0)
    assert_close(jax.jit(jax.vmap(call))(mixture, y), plain, np.float32, magnitude=10.0)
    for i in range(4):
        one = GaussianMixture(mixture.logits[i], mixture.means[i], mixture.scales[i])
        assert_close(compiled(one, y[i]), plain[i], np.float32, magnitude=10.0)


@pytest.mark.parametrize(("batch", "y_batch"), [((), ()), ((4,), (4,)), ((2, 1, 3), (1, 4, 3))])
def test_gradient_agrees_with_the_closed_form(
    batch: tuple[int, ...], y_batch: tuple[int, ...], dtype: Any
) -> None:
    mixture, y = make(batch, dtype=dtype), targets(y_batch, dtype=dtype)

    @jax.jit
    @partial(jax.grad, argnums=(0, 1))
    def gradient(m: GaussianMixture, t: jax.Array) -> jax.Array:
        return m.log_prob(t).sum()

    got, d_y = gradient(mixture, y)
    assert isinstance(got, GaussianMixture)
    expected = reference(mixture, y)

    def fold(name: str, shape: tuple[int, ...]) -> np.ndarray:
        """Sum over the axes along which the argument was broadcast."""
        value = expected[name]
        extra = value.ndim - len(shape)
        axes = [i + extra for i, n in enumerate(shape) if n == 1 and value.shape[i + extra] > 1]
        return value.sum(axis=(*range(extra), *axes)).reshape(shape)

    # Sums of up to 4 gradients, each at most about z^2 / sigma: tens.
    assert_close(got.logits, fold("d_logits", got.logits.shape), dtype, magnitude=4.0)
    assert_close(got.means, fold("d_means", got.means.shape), dtype, magnitude=50.0)
    assert_close(got.scales, fold("d_scales", got.scales.shape), dtype, magnitude=50.0)
    assert_close(d_y, fold("d_y", y.shape), dtype, magnitude=50.0)


# Extreme parameters


LOG_WEIGHTS = [0.0, -30.0, -1e4]
SCALES = [1e-6, 1.0, 1e6]
DISTANCES = [0.0, 1.0, 1e3, 1e6]


def stress_grid(dtype: Any) -> tuple[GaussianMixture, np.ndarray]:
    """Two components, every combination of weight, both scales, and distance in scales.

    The target lies that many scales of one component from it, on either side of the second.
    """
    w, s, other, far = (
        a.ravel() for a in np.meshgrid(LOG_WEIGHTS, SCALES, SCALES, DISTANCES, indexing="ij")
    )
    logits = np.stack([w, np.zeros_like(w)], axis=-1)
    logits = np.concatenate([logits, logits[:, ::-1]])
    means = np.zeros((len(logits), 2, 1))
    means[:, 1] = 1.0
    scales = np.tile(np.stack([s, other], axis=-1), (2, 1))[..., None]
    y = np.tile(far * s, 2)[:, None]
    mixture = GaussianMixture(logits.astype(dtype), means.astype(dtype), scales.astype(dtype))
    return mixture, y.astype(dtype)


def test_extreme_parameters_give_right_and_finite_values(dtype: Any) -> None:
    mixture, y = stress_grid(dtype)
    expected = reference(mixture, y)
    got = jax.tree.map(np.asarray, densities(mixture, y))
    eps = np.finfo(dtype).eps
    for name in ("log_prob", "component_log_prob", "log_responsibilities"):
        value = got[name]
        assert np.isfinite(value).all()
        # A log-density is a sum whose largest term, z^2 / 2 or a log-weight, sets the rounding.
        terms = np.abs(expected["component_log_prob"]).max(axis=-1) + 1e4
        terms = terms if value.ndim == 1 else terms[:, None]
        assert np.all(np.abs(value - expected[name]) <= 16 * eps * terms)
    rho = got["responsibilities"]
    assert np.isfinite(rho).all()
    np.testing.assert_allclose(rho.sum(axis=-1), 1.0, atol=4 * eps)


def test_extreme_parameters_give_finite_gradients(dtype: Any) -> None:
    mixture, y = stress_grid(dtype)

    def value(m: GaussianMixture, t: jax.Array) -> jax.Array:
        return m.log_prob(t).sum() + m.weight_entropy.sum() + m.responsibilities(t)[:, 0].sum()

    gradients = jax.jit(jax.grad(value, argnums=(0, 1)))(mixture, y)
    for leaf in jax.tree.leaves(gradients):
        assert np.isfinite(leaf).all()


def test_a_dominant_component_has_the_right_gradient_at_any_scale(dtype: Any) -> None:
    """Where one responsibility is 1 the gradient is a single Gaussian's."""
    gradient = jax.jit(jax.grad(lambda m, y: m.log_prob(y)))
    for scale in np.array(SCALES, dtype):
        for distance in np.array(DISTANCES, dtype):
            # The other component is ten million scales further.
            mixture = GaussianMixture(
                np.zeros(2, dtype), np.array([[0.0], [-1e7 * scale]], dtype), np.full((2, 1), scale)
            )
            y = np.array([distance * scale], dtype)
            z = float(y[0]) / float(scale)
            got = gradient(mixture, y)
            assert_close(got.means[:, 0], [z / scale, 0.0], dtype, 0.0)
            # z^2 - 1 cancels at z = 1.
            magnitude = max(z**2, 1.0) / float(scale)
            assert_close(got.scales[:, 0], [(z**2 - 1) / scale, 0.0], dtype, magnitude)


@pytest.mark.parametrize("w", [-1.0, -5.0, -10.0, -1e3, -1e4])
def test_entropy_with_a_starved_component(w: float) -> None:
    mixture = GaussianMixture([0.0, w], [[0.0], [0.0]], [[1.0], [1.0]])
    value, gradient = jax.jit(jax.value_and_grad(lambda m: m.weight_entropy))(mixture)
    p = special.softmax(np.array([0.0, w]))
    # special.entr is -p log p with its limit 0; one rounding of the larger weight, which is 1.
    assert_close(value, special.entr(p).sum(), np.float32, magnitude=1 / 64)
    assert np.isfinite(gradient.logits).all()


# Samples and moments


@partial(jax.jit, static_argnums=2)
def draw(mixture: GaussianMixture, key: jax.Array, shape: tuple[int, ...] = ()) -> jax.Array:
    return mixture.sample(key, shape)


def marginal_cdf(mixture: GaussianMixture, d: int) -> Any:
    pi = special.softmax(np.asarray(mixture.logits, np.float64))
    mu, sigma = mixture.means[:, d], mixture.scales[:, d]
    return lambda x: stats.norm.cdf(np.asarray(x)[:, None], mu, sigma) @ pi


def test_samples_have_the_marginal_distributions() -> None:
    mixture = make((3,), 3, 2, seed=4)
    y = np.asarray(draw(mixture, jax.random.key(0), (5000,)))
    assert y.shape == (5000, 3, 2)
    for b in range(3):
        one = jax.tree.map(lambda leaf, b=b: np.asarray(leaf)[b], mixture)
        for d in range(2):
            # Six tests at a fixed seed; a right sampler fails one of them once in 1,600 seeds.
            assert stats.kstest(y[:, b, d], marginal_cdf(one, d)).pvalue > 1e-4


def test_samples_have_the_joint_moments() -> None:
    """The covariance between coordinates comes only from the components moving together."""
    mixture = GaussianMixture(
        np.log([0.7, 0.2, 0.1]), [[-2.0, 1.0], [0.0, 0.0], [3.0, -4.0]], [[0.5, 1.0]] * 3
    )
    n = 20_000
    y = np.asarray(draw(mixture, jax.random.key(1), (n,)), np.float64)
    pi, mu = np.array([0.7, 0.2, 0.1]), np.asarray(mixture.means, np.float64)
    centred = mu - pi @ mu
    covariance = (centred.T * pi) @ centred + np.diag([0.25, 1.0])
    np.testing.assert_allclose(mixture.mean, pi @ mu, rtol=1e-6)
    np.testing.assert_allclose(mixture.variance, np.diag(covariance), rtol=1e-6)
    # Five standard errors, those of the products from the sample itself.
    error = y.mean(axis=0) - pi @ mu
    assert np.all(np.abs(error) < 5 * np.sqrt(np.diag(covariance) / n))
    products = np.einsum("ni,nj->nij", y - pi @ mu, y - pi @ mu)
    error = products.mean(axis=0) - covariance
    assert np.all(np.abs(error) < 5 * products.std(axis=0) / np.sqrt(n))


def test_samples_belong_to_their_mixture_and_key() -> None:
    means = np.array([[[-100.0]], [[100.0]]], np.float32)
    mixture = GaussianMixture(np.zeros((2, 1)), means, np.ones((2, 1, 1)))
    y = np.asarray(draw(mixture, jax.random.key(0), (7, 5)))
    assert y.shape == (7, 5, 2, 1)
    assert np.all(np.sign(y) == np.broadcast_to(np.sign(means[:, 0]), y.shape))
    assert len(np.unique(y)) == y.size
    np.testing.assert_array_equal(y, draw(mixture, jax.random.key(0), (7, 5)))
    assert not np.any(y == draw(mixture, jax.random.key(1), (7, 5)))


def test_sample_without_a_shape_and_without_jit(dtype: Any) -> None:
    mixture = make((2,), dtype=dtype)
    y = mixture.sample(jax.random.key(3))
    assert y.shape == (2, 2)
    assert y.dtype == dtype
    # The same draws but for the rounding of mu + sigma * noise: sums of terms of a few units.
    assert_close(draw(mixture, jax.random.key(3)), y, dtype, magnitude=5.0)


def test_a_weight_of_exp_minus_1e4_is_never_drawn() -> None:
    mixture = GaussianMixture([0.0, -1e4], [[0.0], [1e6]], [[1.0], [1.0]])
    assert np.abs(draw(mixture, jax.random.key(0), (1000,))).max() < 10.0


def test_moments_agree_with_quadrature(x64: None) -> None:
    mixture = make(k=3, d=1, dtype=np.float64)

    def moment(f: Any) -> float:
        density = jax.jit(lambda x: jnp.exp(mixture.log_prob(x[None])))
        return integrate.quad(lambda x: f(x) * float(density(x)), -25, 25, limit=200)[0]

    mean = moment(lambda x: x)
    # quad's default absolute tolerance is 1.5e-8.
    assert mixture.mean[0] == pytest.approx(mean, abs=1.5e-8)
    assert mixture.variance[0] == pytest.approx(moment(lambda x: (x - mean) ** 2), abs=1.5e-8)


# Marginals


def test_marginal_is_the_integral_over_the_other_coordinate(x64: None) -> None:
    mixture = make(k=3, d=2, dtype=np.float64)
    grid = np.linspace(-24.0, 24.0, 1201)  # the trapezium rule is spectrally accurate here
    for d in range(2):
        for x in (-1.0, 0.0, 2.0):
            y = np.stack([grid, grid], axis=-1)
            y[:, d] = x
            density = np.exp(np.asarray(densities(mixture, y)["log_prob"]))
            integral = density.sum() * (grid[1] - grid[0])
            value = np.exp(densities(mixture.marginal(d), np.array([x]))["log_prob"])
            assert value == pytest.approx(integral, rel=1e-12)


@pytest.mark.parametrize(
    ("dims", "columns"), [(1, [1]), (-1, [2]), ([2, 0], [2, 0]), ((0, -1), [0, 2]), ([1], [1])]
)
def test_marginal_takes_the_named_columns(dims: Any, columns: list[int]) -> None:
    mixture = make((2,), 4, 3)
    marginal = mixture.marginal(dims)
    np.testing.assert_array_equal(marginal.logits, mixture.logits)
    np.testing.assert_array_equal(marginal.means, np.asarray(mixture.means)[..., columns])
    np.testing.assert_array_equal(marginal.scales, np.asarray(mixture.scales)[..., columns])
    assert marginal.batch_shape == (2,)
    assert marginal.dim == len(columns)


@pytest.mark.parametrize("dims", [3, -4, [0, 3], []])
def test_marginal_rejects(dims: Any) -> None:
    with pytest.raises(ValueError, match=r"dims must name coordinates from -3 to 2, got"):
        make(d=3).marginal(dims)


# The pytree


def test_leaves_have_their_names() -> None:
    paths, _ = jax.tree_util.tree_flatten_with_path(make())
    assert [jax.tree_util.keystr(path) for path, _ in paths] == [".logits", ".means", ".scales"]
    mixture = make()
    for (_, leaf), name in zip(paths, ("logits", "means", "scales"), strict=True):
        np.testing.assert_array_equal(leaf, getattr(mixture, name))


def test_it_cannot_be_changed() -> None:
    mixture = make()
    with pytest.raises(dataclasses.FrozenInstanceError):
        mixture.logits = jnp.zeros(3)  # type: ignore[misc]
    replaced = dataclasses.replace(mixture, logits=jnp.zeros(3))
    np.testing.assert_array_equal(replaced.logits, 0.0)
    np.testing.assert_array_equal(replaced.means, mixture.means)
    with pytest.raises(ValueError, match="logits"):
        dataclasses.replace(mixture, logits=jnp.zeros(4))


def test_tree_map_carries_anything() -> None:
    mixture = make()
    shapes = jax.tree.map(np.shape, mixture)
    assert isinstance(shapes, GaussianMixture)
    assert (shapes.logits, shapes.means, shapes.scales) == ((3,), (3, 2), (3, 2))
    negative = jax.tree.map(jnp.negative, mixture)  # not a mixture's values: a gradient's
    np.testing.assert_array_equal(negative.scales, -mixture.scales)
    nothing = jax.tree.map(lambda _: None, mixture)
    assert (nothing.logits, nothing.means, nothing.scales) == (None, None, None)
    assert jax.eval_shape(lambda m: m, mixture).means.shape == (3, 2)


def test_it_passes_through_jit_vmap_and_scan() -> None:
    mixture = make((4,))

    def shift(m: GaussianMixture) -> GaussianMixture:
        return GaussianMixture(m.logits, m.means + 1.0, m.scales)

    expected = np.asarray(mixture.means) + 1.0
    np.testing.assert_array_equal(jax.jit(shift)(mixture).means, expected)
    np.testing.assert_array_equal(jax.vmap(shift)(mixture).means, expected)
    last, means = jax.lax.scan(lambda m, _: (shift(m), m.means[0, 0]), mixture, length=3)
    assert isinstance(last, GaussianMixture)
    np.testing.assert_allclose(last.means, expected + 2.0, rtol=1e-6)
    np.testing.assert_allclose(means[2], expected[0, 0] + 1.0, rtol=1e-6)
    built = jax.vmap(lambda s: GaussianMixture(s * jnp.ones(2), jnp.ones((2, 1)), jnp.ones((2, 1))))
    assert built(jnp.arange(3.0)).batch_shape == (3,)


def test_known_parameters_are_accepted_and_checked_under_jit() -> None:
    mixture, y = make(), targets()
    marginal = jax.jit(lambda t: mixture.marginal(0).log_prob(t))(y[:1])
    np.testing.assert_allclose(marginal, mixture.marginal(0).log_prob(y[:1]), rtol=1e-5)
    logits, scales, zeros = jnp.zeros(3), jnp.ones((3, 2)), jnp.zeros((3, 2))
    moved = jax.jit(lambda mu: GaussianMixture(logits, mu, scales))(mixture.means)
    np.testing.assert_array_equal(moved.means, mixture.means)
    with pytest.raises(ValueError, match="scales must be positive"):
        jax.jit(lambda mu: GaussianMixture(logits, mu, zeros))(mixture.means)


# Errors


@pytest.mark.parametrize(
    ("logits", "means", "scales", "message"),
    [
        ((3,), (3, 2), (3, 1), r"scales must have the shape of the means, \(3, 2\), got \(3, 1\)"),
        ((2,), (3, 2), (3, 2), r"logits must have shape \(\.\.\., K\) = \(3,\).* got \(2,\)"),
        ((1, 3), (3, 2), (3, 2), r"logits must have shape"),
        ((3,), (3,), (3,), r"means must have shape \(\.\.\., K, D\), .*got \(3,\)"),
        ((0,), (0, 2), (0, 2), r"means must have shape .*K and D >= 1, got \(0, 2\)"),
        ((3,), (3, 0), (3, 0), r"means must have shape .*got \(3, 0\)"),
    ],
)
def test_shapes_are_checked_also_under_jit(
    logits: Any, means: Any, scales: Any, message: str
) -> None:
    arguments = jnp.zeros(logits), jnp.zeros(means), jnp.ones(scales)
    with pytest.raises(ValueError, match=message):
        GaussianMixture(*arguments)
    with pytest.raises(ValueError, match=message):
        jax.jit(GaussianMixture)(*arguments)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("logits", np.nan, r"logits must be finite, got nan at \(1,\)"),
        ("logits", -np.inf, r"logits must be finite, got -inf at \(1,\)"),
        ("means", np.inf, r"means must be finite, got inf at \(1, 0\)"),
        ("scales", np.nan, r"scales must be finite, got nan at \(1, 0\)"),
        ("scales", np.inf, r"scales must be finite, got inf at \(1, 0\)"),
        ("scales", 0.0, r"scales must be positive, got 0.0 at \(1, 0\)"),
        ("scales", -1.0, r"scales must be positive, got -1.0 at \(1, 0\)"),
        ("means", 1j, "means must be real, got a complex array"),
    ],
)
def test_values_are_checked(name: str, value: complex, message: str) -> None:
    arguments = {"logits": np.zeros(2), "means": np.zeros((2, 1)), "scales": np.ones((2, 1))}
    arguments[name] = arguments[name].astype(type(value))
    arguments[name].flat[-1] = value
    with pytest.raises(ValueError, match=message):
        GaussianMixture(**arguments)


@pytest.mark.parametrize("method", DENSITIES)
def test_targets_of_the_wrong_shape_are_rejected(method: str) -> None:
    call = getattr(make((4,), 3, 2), method)
    for y in (np.zeros(()), np.zeros(3), np.zeros((4, 1))):
        with pytest.raises(ValueError, match=r"y must have shape \(\.\.\., D\) with D = 2.* got"):
            call(y)
    with pytest.raises(ValueError, match=r"leading axes of y, \(3,\), must broadcast .*\(4,\)"):
        call(np.zeros((3, 2)))


# Batches of mixtures, units, and draws at the edges


def batch_of(*shape: int, k: int = 3, d: int = 2) -> GaussianMixture:
    rng = np.random.default_rng(0)
    return GaussianMixture(
        rng.normal(size=(*shape, k)),
        rng.normal(size=(*shape, k, d)),
        rng.uniform(0.4, 1.6, size=(*shape, k, d)),
    )


@pytest.mark.parametrize(
    "index",
    [
        0,
        -1,
        np.int64(2),
        slice(1, 3),
        (1, 2),
        (slice(None), 0),
        (..., 1),
        None,
        np.array([0, 0, 3]),
    ],
    ids=str,
)
def test_a_batch_is_indexed_like_an_array_of_its_shape(index: Any) -> None:
    mixture = batch_of(4, 5)
    found = mixture[index]
    assert found.batch_shape == np.empty((4, 5))[index].shape
    positions = np.arange(20).reshape(4, 5)[index]
    for name in ("logits", "means", "scales"):
        leaf = np.asarray(getattr(mixture, name))
        expected = leaf.reshape(20, *leaf.shape[2:])[positions]
        np.testing.assert_array_equal(getattr(found, name), expected)


def test_an_index_out_of_range_is_an_error_and_not_the_last_mixture() -> None:
    mixture = batch_of(4)
    for index in (4, -5, (0, 0), np.array([0, 4])):
        with pytest.raises(IndexError):
            mixture[index]
    with pytest.raises(IndexError):
        batch_of()[0]
    traced = jax.jit(lambda i: mixture[i])
    assert np.isnan(traced(4).means).all()
    np.testing.assert_array_equal(traced(3).means, mixture.means[3])
    assert [m.batch_shape for m in batch_of(2, 3)] == [(3,), (3,)]
    assert len(batch_of(2, 3)) == 2
    with pytest.raises(TypeError, match="no length"):
        len(batch_of())


@pytest.mark.parametrize("scale", [2.5, -0.5, np.array([3.0, -0.01])], ids=str)
@pytest.mark.parametrize("shift", [0.0, np.array([1.0, -20.0])], ids=str)
def test_affine_is_the_mixture_in_other_units(shift: Any, scale: Any) -> None:
    with jax.enable_x64(True):
        mixture, y = batch_of(4), np.random.default_rng(1).normal(size=(4, 2))
        changed = mixture.affine(shift, scale)
        # The change of variables: densities are per unit of volume.
        volume = np.prod(np.abs(np.broadcast_to(scale, (2,))))
        np.testing.assert_allclose(
            changed.log_prob(shift + scale * y), mixture.log_prob(y) - np.log(volume), rtol=1e-9
        )
        np.testing.assert_allclose(changed.mean, shift + scale * mixture.mean, rtol=1e-12)
        np.testing.assert_allclose(changed.variance, scale**2 * mixture.variance, rtol=1e-12)
        np.testing.assert_array_equal(changed.logits, mixture.logits)
        same = jax.jit(GaussianMixture.affine)(mixture, shift, scale)
        np.testing.assert_allclose(same.scales, changed.scales, rtol=1e-12)


@pytest.mark.parametrize(
    ("shift", "scale", "message"),
    [
        (0.0, 0.0, "scale must be finite and not zero, got 0.0"),
        (np.nan, 1.0, "shift must be finite, got nan"),
        (
            0.0,
            np.ones(3),
            r"scale must be a number or have shape \(D,\) = \(2,\), got shape \(3,\)",
        ),
    ],
)
def test_affine_checks_its_arguments(shift: Any, scale: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        batch_of().affine(shift, scale)


def test_a_number_of_samples_is_a_shape() -> None:
    mixture, key = batch_of(5), jax.random.key(0)
    np.testing.assert_array_equal(mixture.sample(key, 10), mixture.sample(key, (10,)))
    assert mixture.sample(key, np.int64(10)).shape == (10, 5, 2)
    assert mixture.sample(key, [2, 3]).shape == (2, 3, 5, 2)
    for shape in (-1, (2, -1), 1.5, "ten"):
        with pytest.raises(ValueError, match="shape must be a whole number or several"):
            mixture.sample(key, shape)  # type: ignore[arg-type]


def test_samples_come_with_their_components() -> None:
    apart = 100.0 * np.arange(3)[:, None] + 1000.0 * np.arange(4)[:, None, None]
    mixture = GaussianMixture(np.zeros((4, 3)), apart, np.full((4, 3, 1), 0.1))
    y, k = mixture.sample_with_components(jax.random.key(0), 200)
    assert y.shape == (200, 4, 1)
    assert k.shape == (200, 4)
    np.testing.assert_array_equal(np.round((y[..., 0] - 1000.0 * np.arange(4)) / 100.0), k)
    np.testing.assert_array_equal(mixture.sample(jax.random.key(0), 200), y)


def test_sampling_makes_no_array_of_every_component() -> None:
    k, d, n = 7, 11, 1000
    traced = jax.make_jaxpr(lambda m: m.sample(jax.random.key(0), n))(batch_of(k=k, d=d))

    def sizes(jaxpr: Any) -> Iterator[int]:
        for equation in jaxpr.eqns:
            yield from (int(np.prod(out.aval.shape)) for out in equation.outvars)
            for value in jax.tree.leaves(list(equation.params.values())):
                inner = getattr(value, "jaxpr", value)
                if hasattr(inner, "eqns"):
                    yield from sizes(inner)

    assert max(sizes(traced.jaxpr)) < n * k * d / 2


@pytest.mark.parametrize("temperature", [0.25, 1.0, 4.0])
def test_temperature_sharpens_weights_and_variances(temperature: float) -> None:
    mixture = GaussianMixture([1.0, 0.0], [[0.0], [100.0]], [[1.0], [2.0]])
    y, k = mixture.sample_with_components(jax.random.key(0), 20_000, temperature=temperature)
    share = special.softmax(np.array([1.0, 0.0]) / temperature)[1]
    assert np.mean(k) == pytest.approx(share, abs=5 * np.sqrt(share / 20_000))
    of_first = np.asarray(y)[np.asarray(k) == 0, 0]
    error = 5 * np.sqrt(2 / len(of_first))
    assert of_first.var() == pytest.approx(temperature, rel=error)


def test_a_temperature_is_positive() -> None:
    for temperature in (0.0, -1.0, np.inf):
        with pytest.raises(ValueError, match="temperature must be positive and finite"):
            batch_of().sample(jax.random.key(0), temperature=temperature)


def test_the_gradient_through_samples_says_that_it_lacks_the_logits() -> None:
    mixture, key = batch_of(), jax.random.key(0)

    def loss(m: GaussianMixture) -> jax.Array:
        return jnp.sum(m.sample(key, 10) ** 2)

    for run in (jax.grad(loss), jax.jit(jax.grad(loss)), jax.jacfwd(loss)):
        with pytest.raises(TypeError, match="no gradient with respect to the logits"):
            run(mixture)
    # The way out that the message names: the pathwise gradient of the rest.
    pathwise = jax.grad(
        lambda m: loss(dataclasses.replace(m, logits=jax.lax.stop_gradient(m.logits)))
    )(mixture)
    y, k = mixture.sample_with_components(key, 10)
    expected = np.zeros((3, 2))
    np.add.at(expected, np.asarray(k), 2 * np.asarray(y))
    np.testing.assert_allclose(pathwise.means, expected, rtol=1e-5)
    np.testing.assert_array_equal(pathwise.logits, 0.0)
    # One component is always the one that is drawn: a gradient of zero is right.
    single = jax.grad(loss)(batch_of(k=1))
    np.testing.assert_array_equal(single.logits, 0.0)


def test_entropy_with_a_weight_of_zero() -> None:
    logits = jnp.array([0.0, -jnp.inf, 1.0])

    def entropy(logits: jax.Array) -> jax.Array:
        return GaussianMixture(logits, jnp.zeros((3, 1)), jnp.ones((3, 1))).weight_entropy

    value, gradient = jax.jit(jax.value_and_grad(entropy))(logits)
    assert value == pytest.approx(stats.entropy(special.softmax([0.0, 1.0])), rel=1e-6)
    assert np.isfinite(gradient).all()


def test_marginal_takes_integers_of_numpy() -> None:
    mixture = batch_of()
    for dims in (np.int64(1), np.array(1), np.array([1]), (np.int32(1),)):
        np.testing.assert_array_equal(mixture.marginal(dims).means, mixture.means[..., [1]])
    for dims in (1.0, np.int64(2), [[0]], "0"):
        with pytest.raises(ValueError, match="dims must name coordinates from -2 to 1"):
            mixture.marginal(dims)  # type: ignore[arg-type]


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_parameters_in_16_bits_become_float32(dtype: str) -> None:
    single = batch_of(4)
    short = GaussianMixture(*(leaf.astype(dtype) for leaf in jax.tree.leaves(single)))
    for leaf, exact in zip(*map(jax.tree.leaves, (short, single)), strict=True):
        assert leaf.dtype == jnp.float32
        np.testing.assert_array_equal(leaf, exact.astype(dtype).astype(jnp.float32))


def test_pair_repeats_a_mixture_without_batch_axes_and_nothing_else() -> None:
    mixture, y = batch_of().pair(np.zeros((4, 5, 2), np.float16))
    assert mixture.batch_shape == (4, 5)
    assert y.dtype == mixture.means.dtype == jnp.float32
    with pytest.raises(ValueError, match="one target for each mixture"):
        batch_of(4).pair(np.zeros((5, 2)))


@pytest.mark.parametrize("batch", [(), (4,)])
def test_from_weights_has_these_weights(batch: tuple[int, ...]) -> None:
    weights = np.random.default_rng(0).dirichlet(np.ones(3), size=batch)
    means = np.zeros((*batch, 3, 2))
    mixture = GaussianMixture.from_weights(weights, means, means + 1.0)
    np.testing.assert_allclose(mixture.weights, weights, rtol=1e-5)
    np.testing.assert_allclose(mixture.logits, np.log(weights), rtol=1e-5)


def test_a_weight_of_zero_is_zero_and_everything_is_finite() -> None:
    def value(weights: jax.Array) -> jax.Array:
        mixture = GaussianMixture.from_weights(weights, [[0.0], [5.0]], [[1.0], [2.0]])
        return mixture.log_prob([0.5])

    weights = jnp.array([1.0, 0.0])
    mixture = GaussianMixture.from_weights(weights, [[0.0], [5.0]], [[1.0], [2.0]])
    np.testing.assert_array_equal(mixture.weights, weights)
    np.testing.assert_allclose(value(weights), stats.norm.logpdf(0.5), rtol=1e-5)
    np.testing.assert_array_equal(mixture.responsibilities([0.5]), weights)
    np.testing.assert_array_equal(mixture.weight_entropy, 0.0)
    assert np.isfinite(jax.jit(jax.grad(value))(weights)).all()


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([0.5, 0.4], r"weights must sum to one, got the sum 0.9"),
        ([1.5, -0.5], r"weights must be not negative and finite, got -0.5 at \(1,\)"),
        ([np.nan, 1.0], "weights must be not negative and finite, got nan"),
        ([0.2, 0.3, 0.5], r"logits must have shape"),
    ],
)
def test_from_weights_checks_them(weights: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GaussianMixture.from_weights(weights, [[0.0], [5.0]], [[1.0], [2.0]])


def test_from_weights_takes_the_rounding_of_16_bits() -> None:
    weights = jnp.full(3, 1 / 3, jnp.bfloat16)
    mixture = GaussianMixture.from_weights(weights, np.zeros((3, 1)), np.ones((3, 1)))
    assert mixture.logits.dtype == jnp.float32
    np.testing.assert_allclose(mixture.weights, 1 / 3, rtol=1e-2)


@pytest.mark.parametrize("dims", [[0, 0], [0, -2], [1, 0, 1]])
def test_a_marginal_has_each_coordinate_once(dims: list[int]) -> None:
    with pytest.raises(ValueError, match="dims must name each coordinate of the 2 once"):
        make().marginal(dims)


def test_a_mixture_on_the_host_is_indexed_like_one_of_jax() -> None:
    mixture = batch_of(4)
    for index in (0, slice(1, 3), np.array([3, -1])):
        got, expected = jax.device_get(mixture)[index], mixture[index]
        jax.tree.map(np.testing.assert_array_equal, got, expected)


def test_a_batch_is_iterated_over_and_a_single_mixture_is_not() -> None:
    mixture = batch_of(3, 2)
    parts = list(mixture)
    assert [part.batch_shape for part in parts] == [(2,)] * 3
    np.testing.assert_array_equal(parts[1].means, mixture.means[1])
    with pytest.raises(TypeError, match="iteration over a mixture without batch axes"):
        list(make())


def test_a_temperature_can_be_traced() -> None:
    mixture, key = batch_of(4), jax.random.key(0)
    for temperature in (0.25, 2.0):
        traced = jax.jit(lambda t: mixture.sample(key, 5, temperature=t))(temperature)
        expected = mixture.sample(key, 5, temperature=temperature)
        np.testing.assert_allclose(traced, expected, rtol=1e-5)
