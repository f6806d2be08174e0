"""Two-Gaussians: settings of the paper, runs against NumPy, tables against loops."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import jax
import numpy as np
import pytest
from flax import nnx
from scipy.special import logsumexp, softmax

pd = pytest.importorskip("pandas")

from ngem_tutorial.experiments import two_gaussians  # noqa: E402
from ngem_tutorial.experiments._shared import draw_mixture  # noqa: E402
from ngem_tutorial.mixtures import GaussianMixture  # noqa: E402


def test_two_gaussians_has_the_settings_of_table_7() -> None:
    for config in (two_gaussians.Config(), two_gaussians.PRESETS["paper"]):
        assert config.learning_rates == (1e-1, 1e-2, 1e-3)
        assert (config.epochs, config.batch_size, config.size) == (50, 1, 200)
        assert config.record_at[-1] == 50 * 200
    assert two_gaussians.Config().seeds == two_gaussians.PRESETS["paper"].curve_seeds
    assert two_gaussians.Config().seeds == (1, 2, 3, 4, 5)
    assert len(two_gaussians.PRESETS["paper"].seeds) == 1000
    y = np.asarray(two_gaussians.data(two_gaussians.Config()).y)
    assert y.shape == (200, 2)
    assert ((y > 0).all(axis=1).sum(), (y < 0).all(axis=1).sum()) == (100, 100)
    model = draw_mixture(nnx.Rngs(0), "scale", (1.0, 1.0))
    assert model().num_components == 2


def test_the_last_update_is_recorded_whatever_the_spacing() -> None:
    config = two_gaussians.Config(size=10, batch_size=3, epochs=5, record_every=4)
    assert list(config.record_at) == [0, 4, 8, 12, 15]


@pytest.mark.parametrize("initialisation", list(two_gaussians.INITIALISATIONS))
@pytest.mark.parametrize("parametrisation", list(two_gaussians.PARAMETRISATIONS))
def test_initial_mixtures_are_drawn_as_announced(initialisation: str, parametrisation: str) -> None:
    coordinate = two_gaussians.PARAMETRISATIONS[parametrisation]
    low, high = two_gaussians.INITIALISATIONS[initialisation]

    def draw(key: jax.Array) -> GaussianMixture:
        mixture: GaussianMixture = draw_mixture(nnx.Rngs(key), coordinate, (low, high))()
        return mixture

    many = jax.vmap(draw)(jax.random.split(jax.random.key(0), 4000))
    for normal in (many.logits, many.means):
        values = np.asarray(normal).reshape(4000, -1)
        np.testing.assert_allclose(values.mean(axis=0), 0.0, atol=0.08)  # 5 / sqrt(4000)
        np.testing.assert_allclose(np.cov(values.T), np.eye(values.shape[1]), atol=0.12)
    scales = np.asarray(many.scales).reshape(4000, -1)
    if low == high:
        np.testing.assert_allclose(scales, low, rtol=1e-6)
    else:
        assert scales.min() > low
        assert scales.max() < high
        np.testing.assert_allclose(scales.mean(axis=0), (low + high) / 2, atol=0.025)
        np.testing.assert_allclose(scales.var(axis=0), (high - low) ** 2 / 12, atol=0.01)


def test_best_likelihood_is_that_of_scikit_learn_from_the_truth() -> None:
    sklearn = pytest.importorskip("sklearn.mixture")
    config = two_gaussians.Config(data_seed=3)
    y, truth = two_gaussians.data(config)
    peer = sklearn.GaussianMixture(
        2,
        covariance_type="diag",
        tol=1e-12,
        reg_covar=0.0,
        max_iter=1000,
        weights_init=np.asarray(truth.weights, float),
        means_init=np.asarray(truth.means, float),
        precisions_init=np.asarray(truth.scales, float) ** -2,
    ).fit(np.asarray(y, float))
    best = two_gaussians.best_nll(config)
    assert best == pytest.approx(-peer.score(np.asarray(y, float)), abs=1e-5)
    assert best < -float(truth.log_prob(y).mean()) - 1e-3


# Every update uses all of the points, so that NumPy can follow: the order does not matter. Some
# runs at the high rate fail.
TINY = two_gaussians.Config(
    size=10,
    epochs=8,
    batch_size=10,
    learning_rates=(2.0, 0.1),
    seeds=(1, 2, 3),
    methods=("NLL", "undamped nGEM"),
    initialisations=("σ ~ U(0, 1)",),
    record_every=1,
)
SETTINGS = ["initialisation", "parametrisation", "method", "learning_rate"]


@pytest.fixture(scope="module")
def table() -> Any:
    return two_gaussians.run(TINY)


class Reference:
    """Gradient descent on a mixture in NumPy, in double precision."""

    def __init__(self, mixture: GaussianMixture, y: Any) -> None:
        self.psi, self.mu, self.sigma = (
            np.asarray(leaf, float) for leaf in (mixture.logits, mixture.means, mixture.scales)
        )
        self.y = np.asarray(y, float)
        self.relaxation = 0.1  # of nGEM; zero after a tenth of the training, here after one update

    def joint(self) -> np.ndarray:
        z = (self.y[:, None] - self.mu) / self.sigma
        log_density = -0.5 * z**2 - np.log(self.sigma) - 0.5 * math.log(2 * math.pi)
        return np.log(softmax(self.psi)) + log_density.sum(-1)

    def nll(self) -> float:
        return float(-logsumexp(self.joint(), axis=1).mean())

    def step(self, method: str, parametrisation: str, rate: float) -> None:
        rho, pi = softmax(self.joint(), axis=1), softmax(self.psi)
        z = (self.y[:, None] - self.mu) / self.sigma
        if method == "NLL":
            mu = -rho[..., None] * z / self.sigma
            log_sigma = rho[..., None] * (1 - z**2)
            sigma = log_sigma / self.sigma
        else:  # divided by the Fisher blocks pi / sigma^2 and 2 pi / sigma^2, or 2 pi of log sigma
            damping = 0.0
            if method == "damped nGEM":
                damping, eps, self.relaxation = 0.25, self.relaxation, 0.0
                rho = (1 - eps) * rho + eps / len(pi)
                z = z if eps == 0.0 else np.clip(z, -0.5 / eps, 0.5 / eps)
            r = (rho / (pi + damping))[..., None]
            mu = -r * z * self.sigma
            log_sigma = 0.5 * r * (1 - z**2)
            sigma = log_sigma * self.sigma
        self.psi = self.psi - rate * (pi - rho).mean(0)
        self.mu = self.mu - rate * mu.mean(0)
        if parametrisation == "σ":
            self.sigma = self.sigma - rate * sigma.mean(0)
        else:
            self.sigma = self.sigma * np.exp(-rate * log_sigma.mean(0))


def start(
    seed: int, coordinate: Any, interval: tuple[float, float] = (0.0, 1.0)
) -> GaussianMixture:
    model_key, _ = jax.random.split(jax.random.key(seed))
    mixture: GaussianMixture = draw_mixture(nnx.Rngs(model_key), coordinate, interval)()
    return mixture


def test_runs_are_gradient_descent_as_numpy_does_it(table: Any) -> None:
    assert follow(table) > 1


def test_runs_of_the_default_are_too() -> None:
    """At a rate at which rounding does not grow from update to update."""
    gentle = dataclasses.replace(
        TINY, methods=("damped nGEM",), learning_rates=(0.01,), initialisations=("σ = 1",)
    )
    table = two_gaussians.run(gentle)
    assert follow(table, (1.0, 1.0)) == 0
    first, last = (table.loc[table["update"] == i, "nll"].to_numpy() for i in (0, 8))
    assert np.all(first - last > 0.01)  # it moves


def follow(table: Any, interval: tuple[float, float] = (0.0, 1.0)) -> int:
    """Compare runs with the reference, update by update; the number of those that fail."""
    y = two_gaussians.data(TINY).y
    failures = 0
    for settings, runs in table.groupby(SETTINGS):
        _, parametrisation, method, rate = settings
        for seed, run in runs.groupby("seed"):
            coordinate = two_gaussians.PARAMETRISATIONS[parametrisation]
            reference = Reference(start(seed, coordinate, interval), y)
            failed_at = run["failed_at"].iloc[0]
            for row in run.itertuples():
                with np.errstate(all="ignore"):
                    expected = reference.nll()
                    weights = softmax(reference.psi)
                    reference.step(method, parametrisation, rate)
                if not np.isfinite(expected):  # the loss of the update to come
                    assert failed_at == row.update + 1
                    failures += 1
                    break
                np.testing.assert_allclose(row.nll, expected, rtol=1e-3)
                entropy = -np.sum(weights * np.log(weights))
                np.testing.assert_allclose(row.entropy, entropy, rtol=1e-3, atol=1e-5)
            else:
                assert failed_at == -1
    return failures


def test_a_failed_run_has_no_values_from_its_failure_on(table: Any) -> None:
    failed = 0
    for _, run in table.groupby([*SETTINGS, "seed"]):
        (failed_at,) = set(run["failed_at"])
        failed += failed_at >= 0
        for row in run.itertuples():
            if 0 <= failed_at <= row.update:
                assert math.isnan(row.nll)
                assert math.isnan(row.entropy)
            elif failed_at < 0 or row.update < failed_at - 1:  # the loss that failed was there
                assert math.isfinite(row.nll)
                assert math.isfinite(row.entropy)
    assert 0 < failed < 24


def test_a_table_has_a_row_for_each_point_of_each_run(table: Any) -> None:
    assert set(table.columns) == {*SETTINGS, "seed", "update", "nll", "entropy", "failed_at"}
    expected = [
        (start, parametrisation, method, rate, seed, update)
        for start in ("σ ~ U(0, 1)",)
        for parametrisation in ("σ", "log σ")
        for method in ("NLL", "undamped nGEM")
        for rate in (2.0, 0.1)
        for seed in (1, 2, 3)
        for update in range(9)
    ]
    keys = table[[*SETTINGS, "seed", "update"]]
    assert list(keys.itertuples(index=False, name=None)) == expected


def test_a_table_is_what_training_returns_and_comes_out_alike_again(table: Any) -> None:
    pd.testing.assert_frame_equal(two_gaussians.run(TINY), table, check_exact=True)
    result = two_gaussians.train(TINY, "undamped nGEM", "log σ", 0.1, "σ ~ U(0, 1)")
    ours = table[table["method"] == "undamped nGEM"]
    rows = ours.query("parametrisation == 'log σ' and learning_rate == 0.1")
    assert result.failures == ()
    for name, values in result.metrics.items():
        np.testing.assert_array_equal(rows[name].to_numpy().reshape(values.shape), values)
    path = result.probes["mixture"]
    np.testing.assert_allclose(path.weight_entropy, result.metrics["entropy"], rtol=1e-5)
    for index, seed in enumerate(TINY.seeds):
        for a, b in zip(
            jax.tree.leaves(jax.tree.map(lambda leaf, i=index: leaf[i, 0], path)),
            jax.tree.leaves(start(seed, "log_scale")),
            strict=True,
        ):
            np.testing.assert_allclose(a, b, rtol=1e-5)


def test_outcomes_are_what_a_loop_over_the_rows_finds(table: Any) -> None:
    best, tolerance = two_gaussians.best_nll(TINY), 2.5
    found = two_gaussians.outcomes(table, best, tolerance)
    rows = list(table.itertuples(index=False))
    runs = list(dict.fromkeys(tuple(row)[:5] for row in rows))
    assert [tuple(row)[:5] for row in found.itertuples(index=False)] == runs
    for outcome in found.itertuples(index=False):
        own = [row for row in rows if tuple(row)[:5] == tuple(outcome)[:5]]
        first = -1
        for row in own:
            if first < 0 and row.nll - best < tolerance:
                first = row.update
        assert outcome.first_within == first
        assert outcome.failed_at == own[-1].failed_at
        for value, expected in (
            (outcome.excess_nll, own[-1].nll - best),
            (outcome.entropy, own[-1].entropy),
        ):
            assert value == pytest.approx(expected, abs=1e-4, nan_ok=True)
            assert math.isnan(value) or value == pytest.approx(round(value, 4), rel=1e-6)
    assert len(set(found["first_within"])) > 2
    expected = [value < tolerance for value in found["excess_nll"]]
    assert two_gaussians.succeeded(found, tolerance).tolist() == expected
    assert len(set(expected)) == 2


def test_outcomes_of_a_table_that_can_be_checked_by_eye() -> None:
    nan = math.nan
    values = {1: [5.0, 1.1, 2.0], 2: [5.0, nan, nan], 3: [1.05, 5.0, 1.19994]}
    table = pd.DataFrame(
        [
            ("σ = 1", "σ", "NLL", 0.1, seed, update, nll, 0.123456, 7 if seed == 2 else -1)
            for seed, curve in values.items()
            for update, nll in zip((0, 10, 20), curve, strict=True)
        ],
        columns=[*SETTINGS, "seed", "update", "nll", "entropy", "failed_at"],
    )
    found = two_gaussians.outcomes(table, best=1.0)
    assert found["seed"].tolist() == [1, 2, 3]
    np.testing.assert_array_equal(found["excess_nll"], [1.0, nan, 0.1999])
    assert found["entropy"].tolist() == [0.1235] * 3
    assert found["first_within"].tolist() == [10, -1, 0]
    assert found["failed_at"].tolist() == [-1, 7, -1]
    assert two_gaussians.succeeded(found).tolist() == [False, False, True]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"parametrisation": "sigma"}, "parametrisation must be one of σ, log σ, got 'sigma'"),
        ({"initialisation": "σ"}, "initialisation must be one of σ = 1, .* got 'σ'"),
        ({"method": "EM"}, "method must be one of .* got 'EM'"),
    ],
)
def test_unknown_settings_are_named(change: dict[str, str], message: str) -> None:
    settings = {"method": "NLL", "parametrisation": "σ", "initialisation": "σ = 1"}
    with pytest.raises(ValueError, match=message):
        two_gaussians.train(TINY, learning_rate=0.1, **(settings | change))  # type: ignore[arg-type]


# --------------------------------------------------------------------------------------- units


def test_units_are_the_parts_of_the_whole(table: Any) -> None:
    units = two_gaussians.units(dataclasses.replace(TINY, curve_seeds=(2, 3)))
    assert [unit.name for unit in units[:3]] == [
        "NLL-scale-start=0-1-lr=2",
        "NLL-scale-start=0-1-lr=0.1",
        "undamped-nGEM-scale-start=0-1-lr=2",
    ]
    assert len({unit.name for unit in units}) == len(units) == 8
    chosen = (units[0], units[5])  # NLL, some runs of which fail, and another parametrisation
    settings = [("σ", "NLL", 2.0), ("log σ", "NLL", 0.1)]
    for unit, (parametrisation, method, rate) in zip(chosen, settings, strict=True):
        tables = unit.run()
        rows = table[
            (table["parametrisation"] == parametrisation)
            & (table["method"] == method)
            & (table["learning_rate"] == rate)
        ]
        curves = rows[rows["seed"] > 1].drop(columns="failed_at").reset_index(drop=True)
        pd.testing.assert_frame_equal(
            tables["curves"], curves, check_dtype=False, rtol=0, atol=0.51e-6
        )
        expected = two_gaussians.outcomes(rows, two_gaussians.best_nll(TINY))
        pd.testing.assert_frame_equal(tables["outcomes"], expected)


def test_what_is_compared_with_table_1_is_the_entropy_at_the_end() -> None:
    outcomes = pd.DataFrame(
        [
            ("σ = 1", "σ", "NLL", 0.1, 1, math.nan),
            ("σ = 1", "log σ", "nGEM, paper's code", 0.001, 2, 0.69),
            ("σ ~ U(0, 1)", "σ", "NLL", 0.1, 1, 0.5),
        ],
        columns=[*SETTINGS, "seed", "entropy"],
    )
    rows = two_gaussians.measured({"outcomes": outcomes})
    assert set(rows["table"]) == {"Table 1"}
    assert set(rows["quantity"]) == {"entropy"}
    assert rows["condition"].tolist() == ["β = 0.1", "β = 0.001, log σ"]
    assert rows["method"].tolist() == ["NLL", "nGEM, paper's code"]
    assert rows["seed"].tolist() == [1, 2]
    np.testing.assert_array_equal(rows["value"], [math.nan, 0.69])


def test_sgem_takes_the_steps_of_nll() -> None:
    config = dataclasses.replace(
        TINY,
        batch_size=1,
        methods=("NLL", "SGEM"),
        parametrisations=("log σ",),
        learning_rates=(0.05,),
        seeds=(1, 2),
    )
    curves = two_gaussians.run(config).set_index([*SETTINGS, "seed", "update"])
    nll, sgem = (curves.xs(method, level="method")["nll"] for method in ("NLL", "SGEM"))
    assert nll.nunique() > 100
    np.testing.assert_allclose(nll, sgem, rtol=1e-4)
