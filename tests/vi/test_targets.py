"""Targets against scipy and scikit-learn, and their samples against their densities."""

from __future__ import annotations

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression

from ngem_tutorial.vi import targets

pytestmark = pytest.mark.usefixtures("x64")
KEY = jax.random.key(3)
NORMALISED = {
    "gaussian_mixture": targets.gaussian_mixture(KEY, 3, 4),
    "unit_gaussians": targets.unit_gaussians(KEY, 2, 5),
    "student_mixture": targets.student_mixture(KEY, 3),
    "student_products": targets.student_products(KEY, 2, 3),
    "funnel": targets.funnel(2),
    "banana": targets.banana(),
    "gaussian_grid": targets.gaussian_grid(3),
}


@pytest.mark.parametrize("name", NORMALISED)
def test_samples_have_the_density(name: str) -> None:
    """Harmonic test: E_p[r(x) / p(x)] = 1 for every normalised r inside of p."""
    target = NORMALISED[name]
    assert target.log_evidence == 0.0
    assert target.sample is not None
    x = np.asarray(target.sample(jax.random.key(0), 100_000))
    assert x.shape == (100_000, target.dim)
    centre, spread = np.median(x, axis=0), np.percentile(x, 75, axis=0) - np.median(x, axis=0)
    inside = np.all(np.abs(x - centre) < spread, axis=1)
    density = np.exp(np.asarray(jax.vmap(target.log_density)(x[inside])))
    # The box's volume, by importance: sum over samples inside of 1 / p. Where p gets small it is
    # rough, so the box is where the samples are; its mean over a grid is the share inside.
    grid = centre + spread * np.random.default_rng(0).uniform(-1, 1, (200_000, target.dim))
    heights = np.exp(np.asarray(jax.vmap(target.log_density)(grid)))
    volume = np.prod(2.0 * spread)
    share, error = volume * heights.mean(), volume * heights.std() / np.sqrt(len(heights))
    counted = inside.mean()
    spread_of_count = np.sqrt(counted * (1 - counted) / len(x))
    assert abs(share - counted) < 5.0 * np.hypot(error, spread_of_count)
    assert np.all(density > 0)


def test_a_student_mixture_is_that_of_scipy() -> None:
    target = NORMALISED["student_mixture"]
    assert target.modes is not None
    _, shape_key = jax.random.split(KEY)
    # The targets of this file were drawn in float32, as users have it.
    a = 0.3 * np.asarray(jax.random.normal(shape_key, (10, 3, 3), jnp.float32), np.float64)
    scales = np.linalg.inv(np.swapaxes(a, -1, -2) @ a + np.eye(3))
    x = np.random.default_rng(1).normal(0, 10, (20, 3))
    parts = [
        stats.multivariate_t(mode, scale, df=2).pdf(x)
        for mode, scale in zip(target.modes, scales, strict=True)
    ]
    np.testing.assert_allclose(
        jax.vmap(target.log_density)(x), np.log(np.mean(parts, axis=0)), rtol=1e-5
    )


def test_student_products_are_those_of_scipy() -> None:
    target = NORMALISED["student_products"]
    x = np.random.default_rng(1).normal(0, 10, (20, 2))
    assert target.modes is not None
    parts = [stats.t(2).pdf(x - mode).prod(axis=1) for mode in target.modes]
    np.testing.assert_allclose(
        jax.vmap(target.log_density)(x), np.log(np.mean(parts, axis=0)), rtol=1e-10
    )


def test_a_funnel_is_that_of_scipy() -> None:
    x = np.random.default_rng(1).normal(0, 2, (20, 4))
    wanted = stats.norm(0, 3).logpdf(x[:, 0]) + np.sum(
        stats.norm(0, np.exp(x[:, :1] / 2)).logpdf(x[:, 1:]), axis=1
    )
    np.testing.assert_allclose(jax.vmap(targets.funnel(4).log_density)(x), wanted, rtol=1e-10)


def test_the_robot_is_where_its_angles_say() -> None:
    target = targets.planar_robot(1)
    straight = jnp.zeros(10)
    prior = stats.norm(0, [1.0] + [0.2] * 9).logpdf(0.0).sum()
    wanted = prior + stats.norm(0, 0.01).logpdf([3.0, 0.0]).sum()
    assert float(target.log_density(straight)) == pytest.approx(wanted, rel=1e-9)
    four = targets.planar_robot(4)
    turned = straight.at[0].set(jnp.pi / 2)
    assert float(four.log_density(turned)) > float(target.log_density(turned))
    start = four.start(KEY)
    assert start.means.shape == (300, 10)
    with pytest.raises(ValueError, match="num_goals must be from 1 to 4, got 5"):
        targets.planar_robot(5)


def test_the_mode_of_a_logistic_regression_is_scikits() -> None:
    """Maximum a posteriori with the prior N(0, 100 I): a ridge of C = 100, the intercept too."""
    data = load_breast_cancer()
    target = targets.breast_cancer()
    assert target.dim == 31
    x = np.column_stack([np.ones(len(data.data)), data.data / data.data.std(axis=0)])
    fitted = LogisticRegression(C=100.0, fit_intercept=False, tol=1e-10, max_iter=100_000)
    mode = jnp.asarray(fitted.fit(x, data.target).coef_[0])
    gradient = jax.grad(target.log_density)(mode)
    assert float(jnp.abs(gradient).max()) < 1e-2
    log_likelihood = fitted.predict_log_proba(x)[np.arange(len(x)), data.target].sum()
    prior = stats.norm(0, 10).logpdf(np.asarray(mode)).sum()
    assert float(target.log_density(mode)) == pytest.approx(log_likelihood + prior, rel=1e-4)


def test_data_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="labels must be 0 or 1"):
        targets.logistic_regression([[1.0], [2.0]], [1, 2])
    with pytest.raises(ValueError, match=r"shapes \(n, d\) and \(n,\)"):
        targets.logistic_regression([[1.0], [2.0]], [1])
    with pytest.raises(ValueError, match="none constant"):
        targets.logistic_regression([[1.0], [1.0]], [0, 1])
    with pytest.raises(FileNotFoundError, match=r"german\.data-numeric of Statlog"):
        targets.german_credit(tmp_path)


def test_german_credit_reads_the_file(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    table = np.column_stack([rng.normal(size=(50, 24)), rng.integers(1, 3, 50)])
    (tmp_path / "vi").mkdir()
    np.savetxt(tmp_path / "vi" / "german.data-numeric", table)
    target = targets.german_credit(tmp_path)
    assert target.dim == 25
    np.testing.assert_allclose(
        target.log_density(jnp.zeros(25)),
        50 * np.log(0.5) - 25 * (0.5 * np.log(2 * np.pi) + np.log(10)),
        rtol=1e-6,
    )
