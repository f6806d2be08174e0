"""The study of objectives: what is judged, and candidates against closed forms."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

from ngem_tutorial import ngem, nll, relaxation_schedule
from ngem_tutorial.experiments import objective_study as study
from ngem_tutorial.experiments.objective_study import CANDIDATES, Config, Free, Network
from ngem_tutorial.mixtures import GaussianMixture

CONFIG = Config()
Y = jnp.array([[0.3], [-0.4], [2.5]])
MIXTURE = GaussianMixture(
    jnp.array([0.2, -0.5]), jnp.array([[0.0], [2.0]]), jnp.array([[0.7], [1.3]])
)


def gradient(objective: Any, **keywords: Any) -> list[np.ndarray]:
    mean = jax.grad(lambda m: objective(m, Y, **keywords).mean())(MIXTURE)
    return [np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(mean)]


@pytest.mark.parametrize("method", ["annealed prior", "tempered"])
def test_an_annealed_candidate_ends_as_the_default(method: str) -> None:
    objective = CANDIDATES[method].objective
    ended = gradient(objective, relaxation=jnp.array(0.0))
    for a, b in zip(ended, gradient(ngem), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5)
    started = gradient(objective, relaxation=jnp.array(1.0))
    assert not np.allclose(started[0], ended[0], rtol=1e-2)
    np.testing.assert_allclose(objective(MIXTURE, Y, relaxation=0.5), nll(MIXTURE, Y), rtol=1e-5)


def test_the_annealed_e_steps_start_as_said() -> None:
    log_pi = special.log_softmax(np.asarray(MIXTURE.logits))
    log_normal = stats.norm.logpdf(np.asarray(Y), [0.0, 2.0], [0.7, 1.3])
    for method, joint in (
        ("annealed prior", log_normal),
        ("tempered", (log_pi + log_normal) / 10.0),
    ):
        unit = np.sqrt(0.7 * 1.3)
        options = {"unit": unit, "relaxation": jnp.array(1.0)}
        logits, means, _ = gradient(CANDIDATES[method].objective, **options)
        rho, pi = special.softmax(joint, axis=-1), np.exp(log_pi)
        np.testing.assert_allclose(logits, (pi - rho).mean(axis=0), rtol=1e-5)
        z = (np.asarray(Y) - [0.0, 2.0]) / [0.7, 1.3]
        expected = -(rho / (pi + 0.25) * np.array([0.7, 1.3]) / unit**2 * z).mean(axis=0)
        np.testing.assert_allclose(means[:, 0], expected, rtol=1e-5)


def test_the_dirichlet_prior_pushes_weights_apart_from_zero() -> None:
    logits, means, scales = gradient(CANDIDATES["Dirichlet prior"].objective)
    plain = gradient(ngem)
    # - 0.1 times the gradient of the mean log-weight, 1/K - pi.
    np.testing.assert_allclose(
        logits, plain[0] - 0.1 * (0.5 - special.softmax([0.2, -0.5])), rtol=1e-4, atol=1e-6
    )
    np.testing.assert_array_equal(means, plain[1])
    np.testing.assert_array_equal(scales, plain[2])


def test_the_paper_variants_take_the_coordinate_that_is_trained() -> None:
    for method in ("nGEM, paper's code", "nGEM, as derived", "undamped nGEM"):
        log, as_is = (study._candidate(method, c).objective for c in ("log_scale", None))
        a, b = gradient(log), gradient(as_is)
        np.testing.assert_array_equal(a[0], b[0])
        np.testing.assert_allclose(a[2] * [[0.7**2], [1.3**2]], b[2], rtol=1e-5)
    assert study._candidate("damped nGEM", "log_scale") is CANDIDATES["damped nGEM"]


def test_equal_candidates_are_one_to_a_compiled_program() -> None:
    assert hash(study.Annealed(1.0, 10.0)) == hash(CANDIDATES["tempered"].objective)
    assert study.Annealed(1.0, 10.0) == CANDIDATES["tempered"].objective
    assert study.Dirichlet() == CANDIDATES["Dirichlet prior"].objective
    one, two = (study._candidate("nGEM, paper's code", "log_scale") for _ in range(2))
    assert one == two
    assert hash(one) == hash(two)
    schedules = {name: method.schedule for name, method in CANDIDATES.items() if method.schedule}
    for name, schedule in schedules.items():
        assert schedule(500) == schedule(500)
        start = 1.0 if name in ("annealed prior", "tempered") else 0.1
        assert float(schedule(500)(0)) == pytest.approx(start)
    assert set(CANDIDATES) - set(schedules) == {
        "NLL", "nGEM, as derived", "nGEM, paper's code", "undamped nGEM", "not relaxed",
        "Dirichlet prior",
    }  # fmt: skip


def test_rows_of_a_free_task() -> None:
    task = Free(
        weight=0.9, methods=("NLL", "damped nGEM"), learning_rates=(0.1,), seeds=4, epochs=5
    )
    tables = study._run_free(CONFIG, task)
    runs, curves = tables["runs"], tables["curves"]
    assert runs["method"].tolist() == ["NLL"] * 4 + ["damped nGEM"] * 4
    assert runs["seed"].tolist() == [1, 2, 3, 4] * 2
    assert (runs["failed_at"] == -1).all()
    ours = runs[runs["method"] == "damped nGEM"]
    assert (ours["excess"] < study.SUCCESS).all()
    assert (ours["weight_error"] < 0.01).all()
    end = curves[curves["update"] == 1000].set_index("method")["median_excess"]
    assert end["damped nGEM"] == pytest.approx(ours["excess"].median(), rel=1e-3, abs=1e-5)
    own = curves[curves["method"] == "damped nGEM"]
    for row in ours.itertuples():
        assert row.first_within in set(own["update"])


def test_a_unit_changes_the_targets_and_the_truth_alike() -> None:
    one = study._sample(CONFIG, Network(weight=0.9), 0)
    small = study._sample(CONFIG, Network(weight=0.9, unit=0.05), 0)
    np.testing.assert_allclose(small.y, 0.05 * one.y, rtol=1e-5)
    gap = nll(small.truth(small.x), small.y) - nll(one.truth(one.x), one.y)
    np.testing.assert_allclose(gap, np.log(0.05), atol=1e-4)
    junction = study._sample(CONFIG, Network("Junction", 3), 0)
    assert np.abs(np.asarray(junction.y.mean(axis=0))).max() < 0.3
    assert np.asarray(junction.y.std(axis=0)).min() > 0.5
    with pytest.raises(ValueError, match="task must be Two-Sinusoids or Junction, got 'x'"):
        study._sample(CONFIG, Network("x"), 0)


STARTS = [
    (shift, scale, logit)
    for shift in (0.0, 30.0)
    for scale in (1e-3, 1.0, 1e3)
    for logit in (0, 20)
]


@pytest.mark.parametrize("k", [2, 5])
@pytest.mark.parametrize("rate", [1e-3, 1e-2, 1e-1])
def test_no_run_of_the_default_is_lost_over_the_stress_grid(k: int, rate: float) -> None:
    """Starts far away, tiny and huge scales, weights of e^-20: every value stays finite."""
    shift, scale, logit = (jnp.asarray(column) for column in zip(*STARTS, strict=True))
    keys = jax.random.split(jax.random.key(k), len(STARTS))
    y = jax.random.normal(jax.random.key(0), (40, 2)) + jnp.array([3.0, -1.0])
    schedule = relaxation_schedule(2000)

    def run(key: jax.Array, shift: Any, scale: Any, logit: Any) -> Any:
        start = (
            jnp.zeros(k).at[0].set(logit),
            shift + jax.random.normal(key, (k, 2)),
            jnp.full((k, 2), jnp.log(scale)),
        )

        def update(i: Any, p: Any) -> Any:
            def loss(p: Any) -> Any:
                mixture = GaussianMixture.tree_unflatten(None, (p[0], p[1], jnp.exp(p[2])))
                return ngem(mixture, y[i % 40], relaxation=schedule(i))

            step = rate * 0.5 * (1.0 + jnp.cos(jnp.pi * i / 2000))
            return jax.tree.map(lambda a, g: a - step * g, p, jax.grad(loss)(p))

        return jax.lax.fori_loop(0, 2000, update, start)

    ended = jax.jit(jax.vmap(run))(keys, shift, scale, logit)
    for leaf in ended:
        assert np.isfinite(leaf).all()
