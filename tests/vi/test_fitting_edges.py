"""`fit_density` at its edges: one dimension, extreme units, nothing to learn from, float64."""

from __future__ import annotations

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ngem_tutorial.components import FullGaussianMixture
from ngem_tutorial.vi import VIFit, fit_density, fitting, get_design, initial_mixture
from ngem_tutorial.vi._iteration import Problem, iterate, remember, run_block, weighted
from ngem_tutorial.vi._state import Archive
from ngem_tutorial.vi.adaptation import AdaptiveNumber
from ngem_tutorial.vi.component_updates import Direct
from ngem_tutorial.vi.sampling import FromComponents
from ngem_tutorial.vi.weight_updates import DirectWeights

KEY = jax.random.key(0)


def standard(x: jax.Array) -> jax.Array:
    return -0.5 * jnp.sum(x**2)


def two_modes(x: jax.Array) -> jax.Array:
    """Of weights 3/4 and 1/4."""
    return jnp.logaddexp(
        jnp.log(0.75) - 0.5 * jnp.sum((x - 4.0) ** 2),
        jnp.log(0.25) - 0.5 * jnp.sum((x + 4.0) ** 2),
    )


def assert_finite(fit: VIFit) -> None:
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(fit.mixture))
    assert np.isfinite(fit.history["elbo"]).all()


def test_one_dimension_with_weights_that_differ() -> None:
    start = FullGaussianMixture([0.0, 0.0], [[-2.0], [2.0]], [[[2.0]], [[2.0]]])
    fit = fit_density(two_modes, 1, key=KEY, method="SEMTRON", num_iterations=60, start=start)
    order = np.argsort(fit.mixture.means[:, 0])
    np.testing.assert_allclose(fit.mixture.means[order, 0], [-4.0, 4.0], atol=0.02)
    np.testing.assert_allclose(fit.mixture.covariances[order, 0, 0], 1.0, atol=0.03)
    np.testing.assert_allclose(fit.mixture.weights[order], [0.25, 0.75], atol=0.01)
    # The modes are eight deviations apart: log Z is that of one.
    assert fit.history["elbo"][-1] == pytest.approx(0.5 * np.log(2.0 * np.pi), abs=2e-3)
    assert set(map(len, fit.history.values())) == {60}
    np.testing.assert_array_equal(fit.history["iteration"], np.arange(1, 61))
    assert np.all(np.diff(fit.history["evaluations"]) >= 2)  # each component draws one at least
    assert fit.evaluations == fit.history["evaluations"][-1]
    assert np.all(fit.history["elbo_error"] >= 0)


@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_a_start_that_is_a_million_times_too_narrow_or_too_wide(scale: float) -> None:
    """One program does both: only the start differs."""
    start = initial_mixture(KEY, 2, mean=3.0 * max(scale, 1.0), spread=0.0, scale=scale)
    fit = fit_density(standard, 2, key=KEY, method="SEMTRON", num_iterations=120, start=start)
    assert_finite(fit)
    np.testing.assert_allclose(fit.mixture.mean, 0.0, atol=0.05)
    np.testing.assert_allclose(fit.mixture.covariance, np.eye(2), atol=0.05)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_a_start_of_either_precision_where_float64_is_on(precision: str) -> None:
    """The fit keeps the start's; components are deleted and added too."""
    start = initial_mixture(KEY, 2, 2, spread=3.0)
    start = jax.tree.map(lambda leaf: leaf.astype(precision), start)
    design = get_design("SAMTRON")
    adaptation = AdaptiveNumber(every=3, archive=200)
    design = dataclasses.replace(design, adaptation=adaptation)
    fit = fit_density(two_modes, 2, key=KEY, method=design, num_iterations=6, start=start)
    assert_finite(fit)
    assert fit.mixture.means.dtype == precision
    assert fit.mixture.num_components == 4


def test_nothing_to_learn_from_in_one_iteration_changes_nothing() -> None:
    """All samples are rejected: the regression refuses to update, and the weights stay."""
    start = initial_mixture(KEY, 2, 3, spread=2.0)
    problem = Problem(lambda x: -jnp.inf + 0.0 * x[0], get_design("ZEPIFUX"), False, 128)
    state = fitting._first_state(problem, start, KEY)
    after, _, _ = jax.jit(partial(iterate, problem))(state, jnp.asarray(1.0))
    np.testing.assert_array_equal(after.gaussians.means, state.gaussians.means)
    np.testing.assert_array_equal(after.factors, state.factors)
    np.testing.assert_allclose(after.log_weights, state.log_weights, atol=1e-6)
    assert int(after.rejected) == int(after.evaluations) > 0
    assert int(after.refused) == 3


@pytest.mark.usefixtures("x64")
def test_room_that_grows_between_blocks_changes_no_number() -> None:
    """In the middle of a run the ring of samples has wrapped around; it is laid out anew."""
    sampling = FromComponents(number=20, reuse=2.0, memory=4)
    design = dataclasses.replace(get_design("SEMTRON"), sampling=sampling)
    start = initial_mixture(KEY, 2, 8, spread=3.0)
    problem = Problem(two_modes, design, False, 32)
    run = jax.jit(partial(run_block, problem), static_argnums=2)
    one = jnp.asarray(1.0)
    state, _ = run(fitting._first_state(problem, start, KEY), one, 12, jnp.asarray(12))
    assert int(state.evaluations) > len(state.store.x)  # it has
    wide = fitting._grown(problem, state, 16)
    for narrow_part, wide_part in zip(held(state), held(wide), strict=True):
        np.testing.assert_allclose(narrow_part, wide_part)
    after, record = run(state, one, 12, jnp.asarray(6))
    after_wide, record_wide = run(wide, one, 12, jnp.asarray(6))
    np.testing.assert_allclose(record.elbo, record_wide.elbo, rtol=1e-9)
    np.testing.assert_array_equal(record.evaluations, record_wide.evaluations)
    np.testing.assert_allclose(
        after.gaussians.means, after_wide.gaussians.means[:8], rtol=1e-8, atol=1e-10
    )
    np.testing.assert_allclose(after.log_weights, after_wide.log_weights[:8], rtol=1e-8)


def held(state: fitting.State) -> tuple[np.ndarray, ...]:
    """What a store holds, oldest first."""
    store = state.store
    rows = (int(store.first()) + np.arange(int(store.number()))) % len(store.x)
    samples = weighted(state, jnp.asarray(1.0))
    weights = samples.weights(jnp.asarray(rows))[:, : int(state.num_components)]
    columns = store.x, store.log_target, store.gradient, samples.log_background, samples.log_q
    return (*(np.asarray(column)[rows] for column in columns), np.asarray(weights))


def test_a_sample_enters_the_archive_once_and_only_if_it_has_density() -> None:
    """What was drawn is numbered; those with an odd number have no density."""
    archive = Archive(jnp.zeros((40, 1)), jnp.full(40, -jnp.inf), jnp.zeros((), jnp.int32))
    step = jax.jit(remember)
    for i in range(8):
        number = 16 * i + jnp.arange(16)
        log_target = jnp.where(number % 2 == 0, -number.astype(float), -jnp.inf)
        live = jnp.arange(16) < 13
        x = number[:, None].astype(float)
        archive = step(archive, jax.random.fold_in(KEY, i), x, log_target, live)
        there = np.asarray(archive.log_target) > -np.inf
        kept = np.asarray(archive.x)[there, 0]
        assert len(set(kept)) == len(kept) > 0
        assert np.all((kept % 2 == 0) & (kept % 16 < 13))
        np.testing.assert_array_equal(np.asarray(archive.log_target)[there], -kept)
        assert int(archive.seen) == 13 * (i + 1)


def test_all_samples_stay_in_the_archive_with_the_same_probability() -> None:
    """The expected share of each of four batches, over 200 archives."""

    def one(key: jax.Array) -> jax.Array:
        archive = Archive(jnp.zeros((40, 1)), jnp.full(40, -jnp.inf), jnp.zeros((), jnp.int32))
        for i in range(4):
            x, log_target = jnp.full((30, 1), i, float), jnp.zeros(30)
            archive = remember(
                archive, jax.random.fold_in(key, i), x, log_target, jnp.ones(30, bool)
            )
        return jnp.sum(archive.x == jnp.arange(4), axis=0)

    counts = np.asarray(jax.jit(jax.vmap(one))(jax.random.split(KEY, 200)))
    np.testing.assert_array_equal(counts.sum(axis=1), 40)
    # Two of a batch for the same place: a few of the newest are lost.
    np.testing.assert_allclose(counts.mean(axis=0), 10.0, atol=1.5)


def test_a_new_component_has_an_entropy_between_the_start_and_the_present() -> None:
    shares = []
    for seed in range(20):
        problem = Problem(standard, get_design("SAMTRON"), False, 64)
        start = FullGaussianMixture([0.0], [[0.0, 0.0]], [[[4.0, 0.0], [1.0, 4.0]]])
        state = fitting._first_state(problem, start, jax.random.key(seed))
        narrow = 0.1 * state.factors[0]
        factors = state.factors.at[0].set(narrow)
        gaussians = fitting.Gaussians.of(state.gaussians.means, factors)
        archive = state.archive._replace(
            log_target=state.archive.log_target.at[0].set(0.0), seen=jnp.asarray(1, jnp.int32)
        )
        state = state._replace(gaussians=gaussians, factors=factors, archive=archive)
        state, _ = fitting._adapt(problem, state)
        ratio = np.asarray(state.factors[1])[np.tril_indices(2)] / [4.0, 1.0, 4.0]
        np.testing.assert_allclose(ratio, ratio[0], rtol=1e-5)  # the shape of the start
        shares.append(np.log(ratio[0]) / np.log(0.1))
    assert 0.0 <= min(shares) < 0.3
    assert 0.7 < max(shares) <= 1.0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dim": 0}, "dim must be at least 1"),
        ({"num_components": 0}, "num_components must be"),
        ({"num_components": 1025}, "num_components must be"),
        ({"mean": [0.0, 0.0, 0.0]}, r"mean must be a number or have shape \(d,\) = \(2,\)"),
        ({"mean": np.nan}, "mean must be finite"),
        ({"spread": -1.0}, "spread must be finite and not negative"),
        ({"scale": [1.0, 0.0]}, "scale must be finite and positive"),
    ],
)
def test_a_start_that_cannot_be_drawn_is_named(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        initial_mixture(KEY, **({"dim": 2} | change))  # type: ignore[arg-type]


def test_a_target_may_return_a_wider_type_than_the_start_has() -> None:
    with jax.enable_x64(True):
        start = jax.tree.map(lambda a: a.astype(jnp.float32), initial_mixture(KEY, 2, 2))
        centre = np.asarray([2.0, 3.0])
        for method in ("SEMTRON", "ZEMTRUX"):
            fit = fit_density(
                lambda x: -0.5 * jnp.sum((x - centre) ** 2),
                2, key=KEY, start=start, num_iterations=3, method=method,
            )  # fmt: skip
            assert fit.mixture.means.dtype == jnp.float32
            assert_finite(fit)


def test_no_density_at_all_is_an_error() -> None:
    with pytest.raises(ValueError, match="log_density must be above minus infinity"):
        fit_density(lambda x: -jnp.inf + 0.0 * x[0], 2, key=KEY, num_iterations=3)


@pytest.mark.parametrize("key", [0, None, jax.random.split(KEY, 2), np.zeros(3, np.uint32)])
def test_what_is_no_key_is_named(key: object) -> None:
    with pytest.raises(ValueError, match="key must be one JAX random key"):
        fit_density(standard, 2, key=key)  # type: ignore[arg-type]


def test_both_kinds_of_keys_give_the_same_numbers() -> None:
    old = fit_density(standard, 2, key=jax.random.PRNGKey(3), num_iterations=3)
    new = fit_density(standard, 2, key=jax.random.key(3), num_iterations=3)
    np.testing.assert_array_equal(old.mixture.means, new.mixture.means)


@pytest.mark.parametrize("reuse", [0.0, 2.0])
def test_the_error_of_the_elbo_is_right_also_for_few_new_samples(reuse: float) -> None:
    """A mixture that hardly moves: the estimates scatter as their errors say.

    A little less where each component draws the same number: the errors are those of draws from
    the mixture, without strata.
    """
    start = FullGaussianMixture(
        jnp.log(jnp.asarray([0.5, 0.3, 0.2])),
        jnp.asarray([[-2.0, 0.0], [1.0, 1.0], [2.0, -2.0]]),
        jnp.stack([s * jnp.eye(2) for s in (1.0, 0.7, 1.3)]),
    )
    design = dataclasses.replace(
        get_design("SEMIFUX"),
        sampling=FromComponents(number=100, reuse=reuse),
        component_update=Direct(1e-9),
        weight_update=DirectWeights(1e-9),
    )
    fit = fit_density(standard, 2, key=KEY, method=design, start=start, num_iterations=600)
    elbo, error = (fit.history[name][60:] for name in ("elbo", "elbo_error"))
    x = start.sample(jax.random.key(5), 400_000)
    truth = float(jnp.mean(jax.vmap(standard)(x) - start.log_prob(x)))
    scores = (elbo - truth) / error
    assert abs(scores.mean()) < 0.2
    assert 0.75 < scores.std() < 1.15
