"""The page of experiments: its prose says what the stored results say; its pictures."""

from __future__ import annotations

import ast
import pathlib
import re

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.patches import Ellipse
from scipy import stats

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
    refused = outcomes[outcomes["refused"] > 0].set_index(["target", "method"]).sort_index()
    for key, share, found in (
        (("GMM20", "SEPIFUX"), 86, {1}),
        (("40 Gaussians", "SEPYFUX"), 90, {1, 2, 3}),
    ):
        runs = refused.loc[key]
        shares = 100.0 * runs["refused"] / (runs["iterations"] * runs["num_components"])
        assert round(shares.median()) == share
        assert set(runs["modes_found"]) == found


def test_what_the_page_says_of_numbers(outcomes: pd.DataFrame) -> None:
    runs = outcomes.set_index(["target", "method"]).sort_index()
    gmm = runs.loc["GMM20"]
    used = gmm.loc["SAMTRON", "evaluations"]
    assert (round(used.min(), -3), round(used.max(), -3)) == (80_000, 89_000)
    assert round(used.median(), -3) == 83_000
    assert (gmm.loc["SAPTRON", "modes_found"] == 1).all()
    by_values, by_gradients = gmm.loc["ZAMTRUX"], gmm.loc["SAMTRON"]
    evaluations = by_values["evaluations"].median() / by_gradients["evaluations"].median()
    assert 2.0 < evaluations < 2.5
    assert 6.0 < by_values["seconds"].median() / by_gradients["seconds"].median() < 8.0
    one_missing = gmm.loc[gmm["modes_found"] == 9, "forward_kl"]
    assert (round(one_missing.min()), round(one_missing.max())) == (5, 46)
    changed = gmm.loc[["SAMYRON", "SAMTFON", "SAMTRUN", "SAMTROX"]]
    worst = changed.reset_index().nlargest(1, "loss").iloc[0]
    assert (worst["method"], worst["modes_found"]) == ("SAMTRUN", 4)
    assert worst["loss"] == pytest.approx(0.92, abs=5e-3)
    gaussians = runs.loc[("40 Gaussians", "SAMTRON")]
    assert gaussians["modes_found"].median() == 37
    assert gaussians["forward_kl"].median() == pytest.approx(0.001, abs=5e-4)
    tails = runs.loc[("STM20", "SAMTRON")]
    assert tails["loss"].median() == pytest.approx(0.16, abs=5e-3)
    complete = tails.loc[tails["modes_found"] == 10, "loss"]
    assert (len(complete), *complete.agg(["min", "max"]).round(3)) == (8, 0.146, 0.174)
    assert runs.loc[("STM20", "ZAMTRUX"), "modes_found"].median() == 2
    cancer = runs.loc["breast cancer", "loss"]
    assert cancer["SEMTRON"].median() - cancer["SAMTRON"].median() == pytest.approx(0.6, abs=0.05)
    assert (runs.loc[("breast cancer", "SEMTRON"), "num_components"] == 1).all()
    assert (cancer["SAPTRON"] > 1e6).sum() == 10
    credit = runs.loc["German credit", "loss"]
    above = [
        round(losses[method].median() - losses["SAMTRON"].median())
        for losses in (cancer, credit)
        for method in ("SEPIFUX", "SEPYFUX")
    ]
    assert above == [24, 25, 56, 8]
    assert cancer["SAMYRON"].median() - cancer["SAMTRON"].median() < 0.05


def test_what_the_page_says_of_student_products(outcomes: pd.DataFrame) -> None:
    runs = outcomes[outcomes["target"] == "Student products"].pivot(index="seed", columns="method")
    loss, found, used = runs["loss"], runs["modes_found"], runs["evaluations"]
    values = [stats.wilcoxon(t["SAMTRON"], t["SEPYFUX"]).pvalue for t in (loss, found)]
    assert values == pytest.approx([0.08, 0.03], abs=5e-3)
    assert round(used["SAMTRON"].median(), -3) == 156_000
    assert (used["SEPYFUX"] == 300_000).all()


def test_modes_that_are_not_counted_are_near_others(outcomes: pd.DataFrame) -> None:
    """All 40 are counted in the one run whose means are all two deviations apart."""
    runs = outcomes[outcomes["target"].eq("40 Gaussians") & outcomes["method"].eq("SAMTRON")]
    found = runs.set_index("seed")["modes_found"]
    apart = {}
    for seed in found.index:
        key = jax.random.split(jax.random.key(seed), 3)[0]
        modes = variational.TARGETS["40 Gaussians"](key).modes
        apart[seed] = np.linalg.norm(modes[:, None] - modes, axis=-1)[~np.eye(40, dtype=bool)].min()
    far = pd.Series(apart) > 2.0
    assert far.sum() == 1
    assert ((found == 40) == far).all()


def page() -> str:
    """The text of the page."""
    return (pathlib.Path(__file__).parents[2] / "book/variational/experiments.md").read_text()


def listed(name: str) -> object:
    """A literal that a cell of the page assigns to a name."""
    source = re.search(rf"^{name} = (.*?^[}}\]])", page(), re.DOTALL | re.MULTILINE)
    assert source is not None
    return ast.literal_eval(source[1])


def test_the_targets_are_what_the_page_says() -> None:
    tasks = {task.target: task for task in variational.PRESETS["paper"].tasks}
    told = listed("TARGETS")
    assert set(told) == set(tasks)
    for name, (dim, number, scale, _) in told.items():
        if name == "German credit":
            continue  # its file is not everywhere
        target = variational.TARGETS[name](jax.random.key(0))
        start = target.start(jax.random.key(1))
        assert (target.dim, start.num_components) == (dim, number), name
        assert np.allclose(np.diagonal(start.factors, 0, 1, 2), scale, rtol=6e-3), name
    fixed = {name: task.components for name, task in tasks.items()}
    assert [n for n, k in fixed.items() if k == 1] == ["breast cancer", "German credit"]
    assert {n: k for n, k in fixed.items() if k not in (1, 20)} == {"grid": 25, "40 Gaussians": 40}
    by_mixture = {n: task.mixture_samples for n, task in tasks.items()}
    assert all(by_mixture[n] == (100 if fixed[n] == 1 else 1000) for n in tasks)


def test_a_curve_judges_two_runs_early() -> None:
    curves = registry.load("variational", "paper")["curves"]
    mine = curves[curves["target"].eq("GMM20") & curves["method"].eq("SAMTRON")]
    ends = mine.groupby("seed")["evaluations"].max()
    last = mine[mine["evaluations"].le(86_000)].groupby("seed")["evaluations"].max()
    assert sorted(last[ends > 86_000]) == [51_272, 53_492]


def test_what_the_page_says_of_the_arm() -> None:
    """Its shares and log Z, by plain weights of draws from a wider prior."""
    rng = np.random.default_rng(3)
    bends = 0.4 * rng.normal(size=(1_000_000, 9))
    headings = np.cumsum(bends, axis=1)
    end = 1.0 + np.exp(1j * headings).sum(axis=1)
    near = np.abs(np.abs(end) - 7.0) < 0.1
    kept, aside = bends[near], np.angle(end[near])
    ratio = 2.0**9 * np.exp(-0.5 * (kept**2).sum(axis=1) * (1 / 0.2**2 - 1 / 0.4**2))
    goals = [
        sum(stats.norm.pdf(way - aside + 2.0 * np.pi * turn) for turn in range(-2, 3))
        for way in (0.0, np.pi / 2, np.pi, -np.pi / 2)
    ]
    z = np.asarray([(ratio * goal).sum() for goal in goals]) / (0.2 * 7.0 * len(bends))
    np.testing.assert_allclose(z / z.sum(), [0.345, 0.285, 0.083, 0.285], atol=0.03)
    assert np.log(z.sum()) == pytest.approx(-10.6, abs=0.15)
    robot = registry.load("variational_large", "paper")["outcomes"].set_index("target")
    losses = robot.loc["planar robot", "loss"]
    assert losses.median() - 10.61 == pytest.approx(1.4, abs=0.05)


def test_what_the_page_says_of_larger_targets() -> None:
    runs = registry.load("variational_large", "paper")["outcomes"].set_index("target")
    assert runs.groupby("target").size().eq(10).all()
    found = runs.loc["GMM100", "modes_found"]
    assert (found.min(), found.median(), found.max()) == (4, 6, 9)
    tasks = {task.target: task for task in variational.LARGE["paper"].tasks}
    assert tasks["GMM100"].iterations / tasks["GMM100"].every == 20
    assert (runs.loc["GMM100", "iterations"] == 600).all()
    far = runs.loc["40 Gaussians, d = 50"]
    assert sorted(far["modes_found"]) == [1.0] * 9 + [2.0]
    assert far["loss"].median() == pytest.approx(np.log(40.0), abs=0.01)
    assert runs.loc["breast cancer", "loss"].median() < 78.2
    assert runs.loc["breast cancer", "evaluations"].max() <= 2.5e6
    assert runs.loc["planar robot", "loss"].median() < 12.05


def test_what_the_page_says_of_300_dimensions() -> None:
    tables = registry.load("variational_large", "widest")
    runs = tables["outcomes"].set_index("seed")
    assert (len(runs), set(runs["target"]), set(runs["iterations"])) == (5, {"STM300"}, {100})
    assert sorted(runs["modes_found"]) == [3, 4, 5, 5, 9]
    assert (runs["num_modes"] == 20).all()
    assert runs["loss"].median() == pytest.approx(22.6, abs=0.05)
    assert runs["loss"].max() < 26.6
    assert np.log(20 / runs["modes_found"].median()) == pytest.approx(1.4, abs=0.05)
    curves = tables["curves"].pivot(index="iteration", columns="seed", values="elbo")
    assert (curves.iloc[-1] - curves.iloc[-2] > 0.5).all()  # the run's own estimates
