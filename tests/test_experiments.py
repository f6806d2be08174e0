"""The experiments: settings and numbers of the paper, runs against NumPy, tables against loops."""

from __future__ import annotations

import dataclasses
import math
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy.special import logsumexp, softmax

pd = pytest.importorskip("pandas")

from ngem_tutorial import datasets, results  # noqa: E402
from ngem_tutorial.experiments import inverse_mnist, methods, registry, two_gaussians  # noqa: E402
from ngem_tutorial.fisher import PRECONDITIONERS  # noqa: E402
from ngem_tutorial.mixtures import GaussianMixture  # noqa: E402
from ngem_tutorial.objectives import ngem, nll, sgem  # noqa: E402

# ------------------------------------------------------------------------------------- methods

MIXTURE = GaussianMixture(
    jnp.array([0.3, -0.4]),
    jnp.array([[0.0, 1.0], [1.0, -1.0]]),
    jnp.array([[0.5, 2.0], [1.5, 0.7]]),
)
POINT = jnp.array([0.4, 0.2])


def gradient(objective: Any) -> list[np.ndarray]:
    return [np.asarray(leaf) for leaf in jax.tree.leaves(jax.grad(objective)(MIXTURE, POINT))]


@pytest.mark.parametrize(
    ("method", "preconditioner"),
    [
        ("nGEM", PRECONDITIONERS["default"]),
        ("nGEM (listing)", PRECONDITIONERS["listing"]),
        ("nGEM (derived)", PRECONDITIONERS["derived"]),
        ("nGEM (damped)", PRECONDITIONERS["damped"]),
    ],
)
@pytest.mark.parametrize("coordinate", ["scale", "log_scale"])
def test_a_method_is_ngem_with_its_preconditioner(
    method: str, preconditioner: Any, coordinate: Any
) -> None:
    expected = partial(
        ngem, preconditioner=dataclasses.replace(preconditioner, coordinate=coordinate)
    )
    own = gradient(methods.get_objective(method, coordinate))
    for a, b in zip(own, gradient(expected), strict=True):
        np.testing.assert_array_equal(a, b)
    other = gradient(
        methods.get_objective(method, "scale" if coordinate != "scale" else "log_scale")
    )
    np.testing.assert_array_equal(own[0], other[0])
    assert not np.allclose(own[2], other[2])


def test_methods_are_distinct_and_plain_ones_are_plain() -> None:
    assert methods.get_objective("NLL", "log_scale") is nll
    assert methods.get_objective("SGEM") is sgem
    assert set(methods.METHODS) >= {"NLL", "SGEM", "nGEM"}
    compared = [methods.get_objective(method) for method in methods.METHODS if method != "SGEM"]
    logits = {tuple(gradient(objective)[0].round(4).tolist()) for objective in compared}
    assert len(logits) == len(compared) - 1  # NLL and nGEM share the gradient of the logits
    means = {tuple(gradient(objective)[1].round(4).ravel().tolist()) for objective in compared}
    assert len(means) == 3  # NLL, damped, and the rest


def test_an_objective_is_one_object_however_it_is_asked_for() -> None:
    """Programs are compiled once for an objective, compared by identity."""
    one = methods.get_objective("nGEM")
    assert methods.get_objective("nGEM", "scale") is one
    assert methods.get_objective(method="nGEM", coordinate="scale") is one
    assert methods.get_objective("nGEM", "log_scale") is not one


def test_unknown_methods_and_coordinates_are_named() -> None:
    with pytest.raises(ValueError, match=r"method must be one of NLL, SGEM, nGEM, .* got 'ngem'"):
        methods.get_objective("ngem")
    with pytest.raises(ValueError, match=r"coordinate must be one of .* got 'variance'"):
        methods.get_objective("nGEM", "variance")  # type: ignore[arg-type]


# ------------------------------------------------------------------------------- two Gaussians


def test_two_gaussians_has_the_settings_of_table_7() -> None:
    for preset in (two_gaussians.Config(), two_gaussians.PRESETS["paper"]):
        assert preset.learning_rates == (1e-1, 1e-2, 1e-3)
        assert (preset.epochs, preset.batch_size, preset.size) == (50, 1, 200)
        assert preset.seeds == (1, 2, 3, 4, 5)
        assert preset.record_at[-1] == 50 * 200
    many = two_gaussians.PRESETS["initialisations"]
    assert len(many.seeds) == 1000
    same = dataclasses.replace(
        many, seeds=(1, 2, 3, 4, 5), initialisations=two_gaussians.Config().initialisations
    )
    assert same == two_gaussians.PRESETS["paper"]
    y = np.asarray(two_gaussians.data(two_gaussians.Config()).y)
    assert y.shape == (200, 2)
    assert ((y > 0).all(axis=1).sum(), (y < 0).all(axis=1).sum()) == (100, 100)
    model = two_gaussians.make_model(nnx.Rngs(0), "scale", (1.0, 1.0))
    assert model().num_components == 2


def test_two_gaussians_quotes_table_1() -> None:
    printed = """
    nGEM 0.660 0.03 0.691 0.00 0.692 0.00
    NLL  0.010 0.00 0.687 0.01 0.669 0.02
    """
    table = {}
    for line in printed.split("\n"):
        if line.strip():
            method, *numbers = line.split()
            values = [float(number) for number in numbers]
            table[method] = dict(
                zip((1e-1, 1e-2, 1e-3), zip(values[::2], values[1::2], strict=True), strict=True)
            )
    assert table == two_gaussians.PAPER_TABLE_1


def test_the_last_update_is_recorded_whatever_the_spacing() -> None:
    config = two_gaussians.Config(size=10, batch_size=3, epochs=5, record_every=4)
    assert list(config.record_at) == [0, 4, 8, 12, 15]


@pytest.mark.parametrize("initialisation", list(two_gaussians.INITIALISATIONS))
@pytest.mark.parametrize("parametrisation", list(two_gaussians.PARAMETRISATIONS))
def test_initial_mixtures_are_drawn_as_announced(initialisation: str, parametrisation: str) -> None:
    coordinate = two_gaussians.PARAMETRISATIONS[parametrisation]
    low, high = two_gaussians.INITIALISATIONS[initialisation]

    def draw(key: jax.Array) -> GaussianMixture:
        mixture: GaussianMixture = two_gaussians.make_model(
            nnx.Rngs(key), coordinate, (low, high)
        )()
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
    methods=("NLL", "nGEM"),
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
            r = (rho / pi)[..., None]
            mu = -r * z * self.sigma
            log_sigma = 0.5 * r * (1 - z**2)
            sigma = log_sigma * self.sigma
        self.psi = self.psi - rate * (pi - rho).mean(0)
        self.mu = self.mu - rate * mu.mean(0)
        if parametrisation == "σ":
            self.sigma = self.sigma - rate * sigma.mean(0)
        else:
            self.sigma = self.sigma * np.exp(-rate * log_sigma.mean(0))


def start(seed: int, coordinate: Any) -> GaussianMixture:
    model_key, _ = jax.random.split(jax.random.key(seed))
    mixture: GaussianMixture = two_gaussians.make_model(
        nnx.Rngs(model_key), coordinate, (0.0, 1.0)
    )()
    return mixture


def test_runs_are_gradient_descent_as_numpy_does_it(table: Any) -> None:
    y = two_gaussians.data(TINY).y
    failures = 0
    for settings, runs in table.groupby(SETTINGS):
        _, parametrisation, method, rate = settings
        for seed, run in runs.groupby("seed"):
            coordinate = two_gaussians.PARAMETRISATIONS[parametrisation]
            reference = Reference(start(seed, coordinate), y)
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
    assert failures > 1


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
        for method in ("NLL", "nGEM")
        for rate in (2.0, 0.1)
        for seed in (1, 2, 3)
        for update in range(9)
    ]
    keys = table[[*SETTINGS, "seed", "update"]]
    assert list(keys.itertuples(index=False, name=None)) == expected


def test_a_table_is_what_training_returns_and_comes_out_alike_again(table: Any) -> None:
    pd.testing.assert_frame_equal(two_gaussians.run(TINY), table, check_exact=True)
    result = two_gaussians.train(TINY, "nGEM", "log σ", 0.1, "σ ~ U(0, 1)")
    rows = table.query("method == 'nGEM' and parametrisation == 'log σ' and learning_rate == 0.1")
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
    again = two_gaussians.run_outcomes(TINY)
    pd.testing.assert_frame_equal(
        again, two_gaussians.outcomes(table, best, two_gaussians.TOLERANCE), check_exact=True
    )


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


# ------------------------------------------------------------------------------- inverse MNIST

DIGITS = inverse_mnist.Config(
    num_components=2, hidden=(8,), epochs=2, batch_size=500, seeds=(1, 2), methods=("nGEM",),
    learning_rate=1e-2, records_per_epoch=3,
)  # fmt: skip


def test_inverse_mnist_has_the_settings_of_table_9_and_quotes_table_3() -> None:
    for config in (inverse_mnist.Config(), inverse_mnist.PRESETS["paper"]):
        assert config.num_components == 3
        assert config.hidden == (128, 128, 128, 128)
        assert (config.epochs, config.batch_size) == (100, 256)
        assert config.learning_rate == 3e-4
        assert config.seeds == (1, 2, 3, 4, 5)
    assert inverse_mnist.PAPER_TABLE_3 == {
        "nGEM": {"nll": (-1529.7, 101), "entropy": (0.454, 0.15)},
        "NLL": {"nll": (-1392.8, 178), "entropy": (0.207, 0.22)},
    }
    network = inverse_mnist.make_model(inverse_mnist.Config(), 4)(rngs=nnx.Rngs(0)).network
    assert network.activation == "gelu"


def test_a_network_is_one_object_for_equal_settings() -> None:
    one = inverse_mnist.make_model(DIGITS, 64)
    assert inverse_mnist.make_model(dataclasses.replace(DIGITS), 64) is one
    assert inverse_mnist.make_model(dataclasses.replace(DIGITS, min_scale=0.02), 64) is not one
    assert inverse_mnist.make_model(DIGITS, 63) is not one


def in_numpy(mixture: GaussianMixture, images: Any) -> tuple[float, float]:
    """Likelihood and entropy of the mixtures of ten classes, in double precision."""
    log_weights = np.log(softmax(np.asarray(mixture.logits, float), axis=-1))
    means, scales = np.asarray(mixture.means, float), np.asarray(mixture.scales, float)
    nats, entropy = 0.0, 0.0
    for label in range(10):
        pixels = images.images[images.labels == label].astype(float)
        joint = np.stack(
            [
                log_weights[label, k]
                - 0.5 * (((pixels - means[label, k]) / scales[label, k]) ** 2).sum(axis=1)
                - np.log(scales[label, k]).sum()
                for k in range(means.shape[1])
            ]
        )
        nats -= logsumexp(joint, axis=0).sum()
        entropy -= len(pixels) * (np.exp(log_weights[label]) * log_weights[label]).sum()
    number, size = images.images.shape
    return nats / number + 0.5 * size * math.log(2 * math.pi), entropy / number


def test_inverse_mnist_on_digits_against_numpy() -> None:
    images = datasets.digits()
    result = inverse_mnist.train(DIGITS, "nGEM", images)
    assert result.updates.tolist() == [0, 1, 2, 3, 4, 5, 6]
    path = result.probes["mixture"]
    assert path.means.shape == (2, 7, 10, 2, 64)
    for index, point in ((0, 0), (1, 3), (1, 6)):
        mixture = jax.tree.map(lambda leaf, at=(index, point): leaf[at], path)
        nats, entropy = in_numpy(mixture, images)
        assert result.metrics["nll"][index, point] == pytest.approx(nats, rel=1e-4)
        assert result.metrics["entropy"][index, point] == pytest.approx(entropy, rel=1e-4)
        assert float(mixture.scales.min()) >= DIGITS.min_scale
    assert (result.metrics["nll"][:, -1] < result.metrics["nll"][:, 0]).all()

    table = inverse_mnist.run(DIGITS, images)
    assert set(table) == {"method", "seed", "update", "loss", "nll", "entropy", "failed_at"}
    assert len(table) == 2 * 7
    np.testing.assert_array_equal(table["nll"], result.metrics["nll"].ravel())
    np.testing.assert_array_equal(table["loss"].isna(), table["update"] == 0)
    assert set(table["method"]) == {"nGEM"}
    assert set(table["failed_at"]) == {-1}

    wild = dataclasses.replace(DIGITS, learning_rate=1e30)
    failed = inverse_mnist.train(wild, "nGEM", images)
    rows = inverse_mnist.table("nGEM", failed)
    assert {failure.seed for failure in failed.failures} == {1, 2}
    for seed, run in rows.groupby("seed"):
        (expected,) = [failure.update for failure in failed.failures if failure.seed == seed]
        assert expected >= 1
        assert run["failed_at"].tolist() == [expected] * 7
        assert np.isfinite(run["nll"][run["update"] < expected - 1]).all()
        assert not np.isfinite(run["nll"].iloc[-1])


@pytest.mark.needs("mnist")
def test_inverse_mnist_on_mnist_against_numpy() -> None:
    images = datasets.mnist()
    config = inverse_mnist.Config(hidden=(16,), epochs=1, batch_size=6000, seeds=(3,))
    result = inverse_mnist.train(config, "NLL", images)
    assert result.updates.tolist() == [0, 10]
    mixture = jax.tree.map(lambda leaf: leaf[0, -1], result.probes["mixture"])
    assert mixture.means.shape == (10, 3, 784)
    nats, entropy = in_numpy(mixture, images)
    np.testing.assert_allclose(result.metrics["nll"][0, -1], nats, rtol=1e-4)
    np.testing.assert_allclose(result.metrics["entropy"][0, -1], entropy, rtol=1e-4)
    assert result.metrics["nll"][0, -1] < result.metrics["nll"][0, 0] - 1


# ------------------------------------------------------------------------------------ registry


def test_a_reproduced_table_comes_back_with_its_provenance(
    table: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = registry.Task(TINY, two_gaussians.run)
    monkeypatch.setitem(registry.EXPERIMENTS["two_gaussians"], "tiny", task)
    path = registry.reproduce("two_gaussians", "tiny", tmp_path / "new")
    assert path == tmp_path / "new" / "two_gaussians" / "tiny.csv"
    result = results.load("two_gaussians/tiny", tmp_path / "new")
    pd.testing.assert_frame_equal(result.table, table, check_exact=True)
    provenance = result.provenance
    assert provenance["seeds"] == [1, 2, 3]
    assert provenance["configuration"]["learning_rates"] == [2.0, 0.1]
    assert provenance["configuration"].keys() | {"seeds"} == {
        field.name for field in dataclasses.fields(TINY)
    }
    assert provenance["allow_missing"] == ["entropy", "nll"]


def test_a_table_with_infinite_values_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Targets too many scales away have an infinite likelihood, although every loss was finite."""

    def run(config: Any) -> Any:
        return pd.DataFrame({"seed": [1, 2], "nll": [1.0, math.inf], "entropy": [0.5, 0.6]})

    monkeypatch.setitem(registry.EXPERIMENTS["two_gaussians"], "tiny", registry.Task(TINY, run))
    registry.reproduce("two_gaussians", "tiny", tmp_path)
    result = results.load("two_gaussians/tiny", tmp_path)
    assert result.table["nll"].tolist() == [1.0, math.inf]
    assert result.provenance["allow_missing"] == ["nll"]


def test_what_cannot_be_reproduced_is_refused_before_computing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(config: Any) -> Any:
        pytest.fail("it computed")

    task = registry.Task(TINY, run)
    monkeypatch.setattr(registry, "EXPERIMENTS", {"two_gaussians": {"quick": task}})
    with pytest.raises(ValueError, match="experiment must be one of two_gaussians, got 'nope'"):
        registry.reproduce("nope", "quick", tmp_path)
    with pytest.raises(ValueError, match="preset must be one of quick, got 'nope'"):
        registry.reproduce("two_gaussians", "nope", tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        registry.reproduce("two_gaussians", "quick", tmp_path / "file" / "results")
    monkeypatch.setattr(results, "_PACKAGE", tmp_path / "ngem_tutorial")
    with pytest.raises(results.ResultError, match="not used from a checkout"):
        registry.reproduce("two_gaussians", "quick")


def test_the_registry_has_every_preset() -> None:
    for module in (two_gaussians, inverse_mnist):
        name = module.__name__.rpartition(".")[2]
        tasks = registry.EXPERIMENTS[name]
        assert {preset: task.config for preset, task in tasks.items()} == module.PRESETS
    runs = {preset: task.run for preset, task in registry.EXPERIMENTS["two_gaussians"].items()}
    assert runs["initialisations"] is two_gaussians.run_outcomes
    assert runs["paper"] is two_gaussians.run
