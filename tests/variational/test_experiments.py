"""The page of experiments: its prose says what the stored results say; its pictures."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.patches import Ellipse

from ngem_tutorial.components import FullGaussianMixture
from ngem_tutorial.experiments import variational
from ngem_tutorial.figures import variational as draw
from ngem_tutorial.reproduction import registry
from ngem_tutorial.vi import targets


@pytest.fixture(scope="module")
def outcomes() -> pd.DataFrame:
    return registry.load("variational", "paper")["outcomes"]


def test_every_task_is_stored(outcomes: pd.DataFrame) -> None:
    config = variational.PRESETS["paper"]
    expected = {(t.target, m, s) for t in config.tasks for m in t.methods for s in config.seeds}
    found = list(zip(outcomes["target"], outcomes["method"], outcomes["seed"], strict=True))
    assert len(found) == len(expected)
    assert set(found) == expected


def test_no_divergence_is_below_zero(outcomes: pd.DataFrame) -> None:
    """Where log Z is known the loss is a divergence; its error is of 20,000 samples."""
    known = [t for t, make in variational.TARGETS.items() if t in set(outcomes["target"])]
    for name in known:
        if variational.TARGETS[name](jax.random.key(0)).log_evidence is None:
            continue
        runs = outcomes[(outcomes["target"] == name) & np.isfinite(outcomes["loss"])]
        assert (runs["loss"] >= -5.0 * runs["loss_error"].fillna(0.0) - 1e-4).all(), name


def test_settling_draws_the_axes_of_the_covariance() -> None:
    angle = 0.5
    turn = np.asarray([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    covariance = turn @ np.diag([4.0, 0.25]) @ turn.T
    mixture = FullGaussianMixture(
        np.zeros(1), np.asarray([[1.0, -1.0]]), np.linalg.cholesky(covariance)[None]
    )
    log_density = targets.banana().log_density
    figure = draw.settling(
        {"banana": log_density}, {"banana": {"end": mixture}}, {"banana": (-3.0, 3.0, -3.0, 3.0)}
    )
    (ellipse,) = (p for axis in figure.axes for p in axis.patches if isinstance(p, Ellipse))
    assert ellipse.width == pytest.approx(4.0, rel=1e-5)
    assert ellipse.height == pytest.approx(1.0, rel=1e-5)
    assert np.radians(ellipse.angle) % np.pi == pytest.approx(angle, rel=1e-5)
    assert ellipse.center == pytest.approx((1.0, -1.0))
    plt.close(figure)


def test_arms_end_where_the_target_says_that_they_do() -> None:
    """The density is highest at a goal: there the drawn arm ends."""
    straight = np.zeros((1, 10))
    bent = np.asarray([[np.pi / 2, *[0.0] * 9]])
    figure = draw.arms(np.concatenate([straight, bent]), [1.0, 0.5], [[10.0, 0.0]])
    lines = figure.axes[0].get_lines()
    np.testing.assert_allclose(lines[0].get_xydata()[-1], [10.0, 0.0], atol=1e-12)
    np.testing.assert_allclose(lines[1].get_xydata()[-1], [0.0, 10.0], atol=1e-12)
    theta = jnp.asarray(np.random.default_rng(0).normal(0.0, 0.4, 10))
    end = draw.arms(theta[None], [1.0], [[0.0, 0.0]]).axes[0].get_lines()[0].get_xydata()[-1]
    robot = targets.planar_robot(1)
    prior = np.asarray([1.0] + [0.2] * 9)
    expected = (
        -0.5 * np.sum((end - np.asarray([7.0, 0.0])) ** 2) / 1e-4
        - np.log(1e-4 * 2.0 * np.pi)
        - 0.5 * np.sum((np.asarray(theta) / prior) ** 2)
        - np.sum(np.log(prior * np.sqrt(2.0 * np.pi)))
    )
    assert float(robot.log_density(theta)) == pytest.approx(expected, rel=1e-4)
    plt.close("all")


def test_modes_has_a_dot_for_each_run() -> None:
    table = pd.DataFrame(
        {
            "target": ["grid"] * 4,
            "method": ["SAMTRON", "SAMTRON", "SEPYFUX", "SEPYFUX"],
            "modes_found": [25.0, 24.0, 3.0, np.nan],
            "num_modes": [25.0] * 4,
        }
    )
    figure = draw.modes(table, ["grid"], ["SAMTRON", "SEPYFUX"])
    dots = [line.get_xdata() for line in figure.axes[0].get_lines() if line.get_marker() != "None"]
    assert sorted(float(x) for row in dots for x in row) == [3.0, 24.0, 25.0]
    plt.close(figure)


def all_modes(outcomes: pd.DataFrame, target: str) -> dict[str, int]:
    """In how many of ten runs every mode was found, by method."""
    runs = outcomes[outcomes["target"] == target]
    assert (runs.groupby("method").size() == 10).all()
    return (runs["modes_found"] == runs["num_modes"]).groupby(runs["method"]).sum().to_dict()


def test_what_the_page_says_of_modes(outcomes: pd.DataFrame) -> None:
    assert all_modes(outcomes, "grid") == {"SAMTRON": 10, "ZAMTRUX": 10, "SEPIFUX": 0, "SEPYFUX": 0}
    ablation = all_modes(outcomes, "GMM20")
    assert ablation["SAMTRON"] == 10
    assert ablation["ZAMTRUX"] == 10
    assert ablation["SEMTRON"] == ablation["SAPTRON"] == 0
    others = {ablation[w] for w in ("SAMTRON", "SAMYRON", "SAMTFON", "SAMTRUN", "SAMTROX")}
    assert (min(others), max(others)) == (7, 10)
    for target in ("grid", "40 Gaussians", "GMM20"):  # three of five
        assert all_modes(outcomes, target)["SEPIFUX"] == 0
        assert all_modes(outcomes, target)["SEPYFUX"] == 0
    assert all_modes(outcomes, "STM20")["SAMTRON"] == 8
    products = all_modes(outcomes, "Student products")
    assert (products["SEPYFUX"], products["SAMTRON"]) == (10, 4)


def test_what_the_page_says_of_numbers(outcomes: pd.DataFrame) -> None:
    runs = outcomes.set_index(["target", "method"]).sort_index()
    gmm = runs.loc["GMM20"]
    assert gmm.loc["SAMTRON", "evaluations"].median() < 85_000
    assert (gmm.loc["SAPTRON", "modes_found"] == 1).all()
    by_values, by_gradients = gmm.loc["ZAMTRUX"], gmm.loc["SAMTRON"]
    evaluations = by_values["evaluations"].median() / by_gradients["evaluations"].median()
    assert 2.0 < evaluations < 2.5
    assert 6.0 < by_values["seconds"].median() / by_gradients["seconds"].median() < 8.0
    gaussians = runs.loc[("40 Gaussians", "SAMTRON")]
    assert gaussians["modes_found"].median() == 37
    assert gaussians["forward_kl"].median() == pytest.approx(0.001, abs=5e-4)
    assert runs.loc[("STM20", "SAMTRON"), "loss"].median() == pytest.approx(0.16, abs=5e-3)
    cancer = runs.loc["breast cancer", "loss"]
    assert cancer["SEMTRON"].median() - cancer["SAMTRON"].median() == pytest.approx(0.6, abs=0.05)
    assert (runs.loc[("breast cancer", "SEMTRON"), "num_components"] == 1).all()
    assert (cancer["SAPTRON"] > 1e6).sum() == 10


def test_what_the_page_says_of_larger_targets() -> None:
    runs = registry.load("variational_large", "paper")["outcomes"].set_index("target")
    assert runs.groupby("target").size().eq(10).all()
    assert runs.loc["GMM100", "modes_found"].median() == 6.0
    far = runs.loc["40 Gaussians, d = 50"]
    assert sorted(far["modes_found"]) == [1.0] * 9 + [2.0]
    assert far["loss"].median() == pytest.approx(np.log(40.0), abs=0.01)
    assert runs.loc["breast cancer", "loss"].median() < 78.2
    assert runs.loc["breast cancer", "evaluations"].max() <= 2.5e6
    assert runs.loc["planar robot", "loss"].median() < 12.05
