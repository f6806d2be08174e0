"""Figures: what is drawn equals what plain Python computes, in the colours of the methods."""

from __future__ import annotations

import inspect
import itertools
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import NormalDist, fmean, stdev
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import norm

matplotlib = pytest.importorskip("matplotlib")
pd = pytest.importorskip("pandas")
pytest.importorskip("seaborn")

import matplotlib.pyplot as plt  # noqa: E402
from matplotlib.axes import Axes  # noqa: E402
from matplotlib.colors import same_color, to_hex  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402

from ngem_tutorial import figures  # noqa: E402
from ngem_tutorial.figures import PALETTE  # noqa: E402
from ngem_tutorial.figures.style import style  # noqa: E402
from ngem_tutorial.mixtures import GaussianMixture  # noqa: E402

METHODS = ("damped nGEM", "NLL")  # not in the order of the palette
SEEDS = (1, 2, 3, 4)
UPDATES = (0, 10, 20)


@pytest.fixture(autouse=True)
def _close_figures() -> Iterator[None]:
    yield
    plt.close("all")


def curves() -> Any:
    """Recorded points of runs at two rates; one run of NLL is missing from update 10 on."""
    generator = np.random.default_rng(0)
    rows = []
    for rate, method, seed, update in itertools.product((0.01, 0.1), METHODS, SEEDS, UPDATES):
        lost = method == "NLL" and seed == 2 and update >= 10
        nll = math.nan if lost else generator.uniform(1.0, 3.0)
        rows.append((f"start {rate}", rate, method, seed, update, nll))
    names = ["initialisation", "learning_rate", "method", "seed", "update", "nll"]
    return pd.DataFrame(rows, columns=names)


def runs() -> Any:
    """Outcomes of runs, one row each; some are missing."""
    generator = np.random.default_rng(1)
    rows = []
    for start, parametrisation, method, rate, seed in itertools.product(
        ("σ = 1", "σ ~ U(0, 1)"), ("σ", "log σ"), METHODS, (0.01, 0.1), range(9)
    ):
        failed = generator.uniform() < 0.3
        excess = math.nan if failed else float(10.0 ** generator.uniform(-4, 1))
        rows.append((start, parametrisation, method, rate, seed, excess, 5 if failed else -1))
    names = ["initialisation", "parametrisation", "method", "learning_rate", "seed"]
    table = pd.DataFrame(rows, columns=[*names, "excess_nll", "failed_at"])
    return table.assign(success=table["excess_nll"] < 0.2)


def mixture(*batch: int, k: int = 2, d: int = 2, seed: int = 0) -> GaussianMixture:
    keys = jax.random.split(jax.random.key(seed), 3)
    return GaussianMixture(
        jax.random.normal(keys[0], (*batch, k)),
        jax.random.normal(keys[1], (*batch, k, d)),
        jax.random.uniform(keys[2], (*batch, k, d), minval=0.3),
    )


def density(m: GaussianMixture, y: np.ndarray) -> np.ndarray:
    """Density of a mixture of one dimension by SciPy, shape `(N,)`."""
    return np.sum(components(m, y), axis=0)


def components(m: GaussianMixture, y: np.ndarray) -> list[np.ndarray]:
    weights = np.exp(m.logits) / np.exp(m.logits).sum()
    parameters = zip(weights, m.means[:, 0], m.scales[:, 0], strict=True)
    return [float(w) * norm.pdf(y, float(mean), float(sd)) for w, mean, sd in parameters]


def panels(figure: Figure) -> list[Axes]:
    return [axis for axis in figure.axes if axis.axison]


def name(axis: Axes) -> str:
    """The label above a panel."""
    (text,) = [text.get_text() for text in axis.texts if text.get_position() == (0.0, 1.02)]
    return text


def line_of(axis: Axes, colour: str, number: int = 0) -> Any:
    """A line of some length in a colour."""
    lines = [line for line in axis.lines if same_color(line.get_color(), colour)]
    return [line for line in lines if len(line.get_xdata()) > 0][number]


X = jnp.linspace(0.0, 1.0, 9)
MEANS = mixture()
DRAWINGS: dict[str, tuple[Callable[[], Figure], int]] = {
    "convergence": (lambda: figures.convergence(curves(), best=1.0, limits=(0, 4)), 2),
    "convergence by task": (
        lambda: figures.convergence(curves(), panels="initialisation", share_y=False), 2
    ),
    "success_curves": (
        lambda: figures.success_curves(curves(), best=1.0, tolerance=1.0, panels="initialisation"),
        2,
    ),
    "success_rates": (lambda: figures.success_rates(runs()), 4),
    "outcome_distribution": (lambda: figures.outcome_distribution(runs()), 2),
    "seed_curves": (
        lambda: figures.seed_curves(
            curves().query("method == 'NLL' and learning_rate == 0.1"),
            {"nll": "nats", "update": "count"},
            {"nll": {"level": 2.0}},
        ),
        2,
    ),
    "density_with_marginals": (
        lambda: figures.density_with_marginals({"a": mixture(), "b": mixture(seed=1)}, mixture()),
        2,
    ),
    "density_grid": (
        lambda: figures.density_grid(
            {"NLL": [mixture()] * 3, "damped nGEM": [mixture()] * 3}, mixture()
        ),
        6,
    ),
    "mean_trajectories": (
        lambda: figures.mean_trajectories(
            {"NLL, seed 1": mixture(5), "damped nGEM": mixture(5)}, MEANS
        ),
        2,
    ),
    "one_and_two_modes": (
        lambda: figures.one_and_two_modes(mixture(k=1, d=1), mixture(k=2, d=1)), 2
    ),
    "forward_and_inverse": (
        lambda: figures.forward_and_inverse(X[:, None], X[:, None] ** 2, X, X**2, X / 2), 2
    ),
    "densities_with_components": (
        lambda: figures.densities_with_components(
            {"a": mixture(d=1), "b": mixture(d=1), "c": mixture(d=1)}, X[:, None]
        ),
        3,
    ),
    "conditional_densities": (
        lambda: figures.conditional_densities(
            {label: mixture(9, k=3, d=1) for label in "abcd"}, X, columns=3
        ),
        4,
    ),
    "image_grid": (
        lambda: figures.image_grid(
            {"NLL": mixture(10, d=6), "damped nGEM": mixture(10, d=6)}, [0, 7, 9], shape=(2, 3)
        ),
        12,
    ),
}  # fmt: skip


def test_every_figure_is_drawn_here() -> None:
    own = {entry for entry in figures.__all__ if inspect.isfunction(getattr(figures, entry))}
    assert own - {"check_format", "write"} <= {label.split()[0] for label in DRAWINGS}


@pytest.mark.parametrize("drawing", DRAWINGS)
def test_a_figure_has_its_panels_and_leaves_the_style_as_it_was(drawing: str) -> None:
    draw, number = DRAWINGS[drawing]
    before = dict(plt.rcParams)
    figure = draw()
    assert dict(plt.rcParams) == before
    assert isinstance(figure, Figure)
    assert len(panels(figure)) == number
    assert not any(axis.get_title() for axis in figure.axes)
    assert not figure.get_suptitle()
    figure.draw_without_rendering()


# -------------------------------------------------------------------------------------- colours


@pytest.mark.parametrize(
    "drawing",
    [
        "convergence",
        "convergence by task",
        "success_curves",
        "success_rates",
        "outcome_distribution",
    ],
)
def test_a_method_has_its_colour_in_the_legend(drawing: str) -> None:
    figure = DRAWINGS[drawing][0]()
    legends = [axis.get_legend() for axis in figure.axes if axis.get_legend()] + figure.legends
    (legend,) = legends
    labels = [text.get_text() for text in legend.get_texts()]
    assert labels == ["NLL", "damped nGEM"]  # the palette's order, not the table's
    for label, handle in zip(labels, legend.legend_handles, strict=True):
        own = handle.get_color() if hasattr(handle, "get_color") else handle.get_edgecolor()[0]
        assert same_color(own, PALETTE[label])


def test_a_method_has_its_colour_without_a_legend() -> None:
    left, right = panels(DRAWINGS["mean_trajectories"][0]())
    assert same_color(left.lines[0].get_color(), PALETTE["NLL"])
    assert same_color(right.lines[0].get_color(), PALETTE["damped nGEM"])
    axis = panels(DRAWINGS["seed_curves"][0]())[0]
    assert {to_hex(line.get_color()) for line in axis.lines} == {
        PALETTE["NLL"].lower(),
        PALETTE["truth"].lower(),
    }
    images = panels(DRAWINGS["image_grid"][0]())
    assert same_color(images[0].spines["left"].get_edgecolor(), PALETTE["NLL"])
    assert same_color(images[-1].spines["left"].get_edgecolor(), PALETTE["damped nGEM"])


# Machado, Oliveira and Fernandes (2009): dichromacy, on linear RGB.
VISION = {
    "usual": np.eye(3),
    "protanopia": np.array(
        [
            [0.152286, 1.052583, -0.204868],
            [0.114503, 0.786281, 0.099216],
            [-0.003882, -0.048116, 1.051998],
        ]
    ),
    "deuteranopia": np.array(
        [
            [0.367322, 0.860646, -0.227968],
            [0.280085, 0.672501, 0.047413],
            [-0.011820, 0.042940, 0.968881],
        ]
    ),
    "tritanopia": np.array(
        [
            [1.255528, -0.076749, -0.178779],
            [-0.078411, 0.930809, 0.147602],
            [0.004733, 0.691367, 0.303900],
        ]
    ),
}


def seen(colour: str, vision: str) -> np.ndarray:
    """CIELAB coordinates (D65) of a colour as somebody sees it."""
    rgb = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    linear = np.clip(VISION[vision] @ linear, 0.0, 1.0)
    to_xyz = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    t = np.array(to_xyz) @ linear / [0.9505, 1.0, 1.089]
    f = np.where(t > (6 / 29) ** 3, np.cbrt(t), t / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def closest(colours: list[str], vision: str) -> float:
    """The smallest difference between two colours; about 2 can just be noticed."""
    points = [seen(colour, vision) for colour in colours]
    return min(float(np.linalg.norm(a - b)) for a, b in itertools.combinations(points, 2))


@pytest.mark.parametrize("vision", VISION)
def test_colours_can_be_told_apart_without_colour_vision(vision: str) -> None:
    assert closest(list(PALETTE.values()), vision) > 15


def test_red_and_green_would_not_pass() -> None:
    assert closest(["#d62728", "#2ca02c"], "usual") > 100
    assert closest(["#d62728", "#2ca02c"], "deuteranopia") < 10


# ----------------------------------------------------------------------------------------- data


def wilson(k: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """The shares p at which k of n is just not significant: solves (k/n - p)^2 = z^2 p(1-p)/n."""
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    low, high = sorted(np.roots([1 + z**2 / n, -2 * k / n - z**2 / n, (k / n) ** 2]).real)
    return float(low), float(high)


def test_convergence_shows_means_and_deviations() -> None:
    table = curves()
    figure = figures.convergence(table, best=1.25)
    assert [name(axis) for axis in panels(figure)] == ["β = 0.1", "β = 0.01"]
    for axis, rate in zip(panels(figure), (0.1, 0.01), strict=True):
        bands = [band.get_paths()[0].vertices for band in axis.collections]
        for position, method in enumerate(("NLL", "damped nGEM")):
            values = {
                update: [
                    row.nll
                    for row in table.itertuples()
                    if (row.learning_rate, row.method, row.update) == (rate, method, update)
                    and not math.isnan(row.nll)
                ]
                for update in UPDATES
            }
            line = line_of(axis, PALETTE[method])
            assert list(line.get_xdata()) == list(UPDATES)
            np.testing.assert_allclose(line.get_ydata(), [fmean(v) for v in values.values()])
            edge = {(round(x), round(y, 6)) for x, y in bands[position]}
            for update, v in values.items():
                for sign in (-1, 1):
                    assert (update, round(fmean(v) + sign * stdev(v), 6)) in edge
        assert line_of(axis, PALETTE["truth"]).get_ydata()[0] == 1.25


def test_convergence_keeps_the_order_of_names() -> None:
    figure = DRAWINGS["convergence by task"][0]()
    assert [name(axis) for axis in panels(figure)] == ["start 0.01", "start 0.1"]


@pytest.mark.parametrize("confidence", [0.5, 0.95])
def test_success_curves_show_shares_and_wilson_intervals(confidence: float) -> None:
    table = curves()
    figure = figures.success_curves(
        table, best=1.0, tolerance=1.0, panels="learning_rate", confidence=confidence
    )
    for axis, rate in zip(panels(figure), (0.01, 0.1), strict=True):
        for position, method in enumerate(("NLL", "damped nGEM")):
            line = line_of(axis, PALETTE[method])
            edge = {
                (round(x), round(y, 6))
                for x, y in axis.collections[position].get_paths()[0].vertices
            }
            for update, share in zip(*line.get_data(), strict=True):
                near = [
                    row.nll < 2.0  # missing values are failures
                    for row in table.itertuples()
                    if (row.learning_rate, row.method, row.update) == (rate, method, update)
                ]
                assert len(near) == len(SEEDS)
                assert share == pytest.approx(sum(near) / len(near))
                for bound in wilson(sum(near), len(near), confidence):
                    assert (update, round(max(bound, 0.0), 6)) in edge


def test_success_rates_show_shares_intervals_and_failures() -> None:
    table = runs()
    figure = figures.success_rates(table, confidence=0.9)
    cells = itertools.product(("σ = 1", "σ ~ U(0, 1)"), (0.1, 0.01))
    for axis, (start, rate) in zip(panels(figure), cells, strict=True):
        assert name(axis) == f"start {start}, β = {rate:g}"
        if start == "σ ~ U(0, 1)":  # the row below
            assert [label.get_text() for label in axis.get_xticklabels()] == ["σ", "log σ"]
        for container, method in zip(axis.containers, ("NLL", "damped nGEM"), strict=True):
            points, _, (bars,) = container
            crosses = [line for line in axis.lines if line.get_marker() == "x"]
            (cross,) = [line for line in crosses if same_color(line.get_color(), PALETTE[method])]
            assert same_color(points.get_color(), PALETTE[method])
            assert list(points.get_xdata().round()) == [0, 1]
            for i, parametrisation in enumerate(("σ", "log σ")):
                own = [
                    row
                    for row in table.itertuples()
                    if row.initialisation == start
                    and row.learning_rate == rate
                    and (row.method, row.parametrisation) == (method, parametrisation)
                ]
                count = sum(row.success for row in own)
                assert points.get_ydata()[i] == pytest.approx(count / len(own))
                ends = sorted(bars.get_segments()[i][:, 1])
                np.testing.assert_allclose(ends, wilson(count, len(own), 0.9), atol=1e-9)
                bad = sum(row.failed_at >= 0 for row in own) / len(own)
                assert cross.get_ydata()[i] == pytest.approx(bad)


def test_outcome_distribution_ends_below_one_where_runs_are_missing() -> None:
    table = runs()
    figure = figures.outcome_distribution(table)
    ends = []
    for axis, rate in zip(panels(figure), (0.1, 0.01), strict=True):
        for method in METHODS:
            own = table[(table["learning_rate"] == rate) & (table["method"] == method)]
            excess = own["excess_nll"].tolist()
            line = line_of(axis, PALETTE[method])
            xs, ys = line.get_data()
            assert len(xs) == sum(not math.isnan(value) for value in excess)
            assert min(xs) == 1e-3  # smaller ones are drawn there
            assert line.get_drawstyle() == "steps-post"
            for x, y in zip(xs, ys, strict=True):
                if x > 1e-3:
                    assert y == pytest.approx(sum(value <= x for value in excess) / len(excess))
            ends.append(ys[-1])
            assert ys[-1] == pytest.approx(1 - sum(map(math.isnan, excess)) / len(excess))
    assert max(ends) < 1


def test_seed_curves_show_every_run() -> None:
    table = curves().query("method == 'NLL' and learning_rate == 0.1")
    axis = panels(figures.seed_curves(table, {"nll": "nats"}, {"nll": {"level": 2.5}}))[0]
    for i, seed in enumerate(SEEDS):
        expected = [row.nll for row in table.itertuples() if row.seed == seed]
        np.testing.assert_array_equal(axis.lines[i].get_ydata(), expected)
        assert list(axis.lines[i].get_xdata()) == list(UPDATES)
    assert axis.lines[len(SEEDS)].get_ydata()[0] == 2.5
    assert axis.get_ylabel() == "nats"


def test_densities_in_one_dimension_are_those_of_scipy() -> None:
    one, two = mixture(k=1, d=1), mixture(k=2, d=1, seed=3)
    for axis, m in zip(panels(figures.one_and_two_modes(one, two)), (one, two), strict=True):
        line = line_of(axis, PALETTE["damped nGEM"])
        np.testing.assert_allclose(line.get_ydata(), density(m, line.get_xdata()), atol=1e-5)
        mean = sum(float(w) * float(mu) for w, mu in zip(m.weights, m.means[:, 0], strict=True))
        assert axis.lines[-1].get_xdata()[0] == pytest.approx(mean, abs=1e-5)
    axis = panels(figures.densities_with_components({"a": two}, X[:, None]))[0]
    line, *parts = axis.lines
    np.testing.assert_allclose(line.get_ydata(), density(two, line.get_xdata()), atol=1e-5)
    for part, expected in zip(parts, components(two, line.get_xdata()), strict=True):
        np.testing.assert_allclose(part.get_ydata(), expected, atol=1e-5)
    area = sum(bar.get_width() * bar.get_height() for bar in axis.patches)
    assert area == pytest.approx(1.0)


def test_densities_in_two_dimensions_are_those_of_scipy() -> None:
    m = mixture(seed=2)
    axis = panels(figures.density_with_marginals({"a": m}, mixture()))[0]
    mesh = axis.collections[0]
    points, values = mesh.get_coordinates().reshape(-1, 2), np.asarray(mesh.get_array()).ravel()
    expected = sum(
        float(w) * norm.pdf(points, np.asarray(mu), np.asarray(sd)).prod(axis=1)
        for w, mu, sd in zip(m.weights, m.means, m.scales, strict=True)
    )
    np.testing.assert_allclose(values, expected, atol=1e-5)
    stars, dots = axis.lines
    np.testing.assert_allclose(np.transpose(stars.get_data()), mixture().means)
    np.testing.assert_allclose(np.transpose(dots.get_data()), m.means)
    data = np.random.default_rng(0).normal(size=(7, 2))
    axis = panels(figures.density_with_marginals({"a": m}, mixture(), points=data))[0]
    np.testing.assert_array_equal(np.transpose(axis.lines[0].get_data()), data)


def test_trajectories_run_from_the_first_mixture_to_the_last() -> None:
    path = mixture(5)
    axis = panels(figures.mean_trajectories({"damped nGEM": path}, mixture()))[0]
    for k in range(2):
        way, first, last = axis.lines[3 * k : 3 * k + 3]
        np.testing.assert_array_equal(np.transpose(way.get_data()), path.means[:, k])
        np.testing.assert_array_equal(np.ravel(first.get_data()), path.means[0, k])
        np.testing.assert_array_equal(np.ravel(last.get_data()), path.means[-1, k])


def test_conditional_densities_are_those_of_scipy() -> None:
    m = mixture(9, k=3, d=1)
    axis = panels(figures.conditional_densities({"a": m}, X))[0]
    mesh, *dots = axis.collections
    targets = np.linspace(-4.5, 4.5, 181)
    values = np.asarray(mesh.get_array())
    for i in range(9):
        single = jax.tree.map(lambda leaf, at=i: leaf[at], m)
        np.testing.assert_allclose(values[:, i], density(single, targets), atol=1e-5)
    for k, dot in enumerate(dots):
        np.testing.assert_allclose(dot.get_offsets()[:, 1], m.means[::4, k, 0])
        np.testing.assert_allclose(dot.get_sizes(), 12.0 * m.weights[::4, k], rtol=1e-5)


def test_image_grid_shows_the_mean_of_the_class_and_component() -> None:
    left, right = mixture(10, d=6), mixture(10, d=6, seed=1)
    figure = figures.image_grid({"NLL": left, "damped nGEM": right}, [0, 7, 9], shape=(2, 3))
    cells = itertools.product((left, right), range(2), (0, 7, 9))
    for axis, (m, k, label) in zip(panels(figure), cells, strict=True):
        (image,) = axis.images
        np.testing.assert_array_equal(np.ravel(image.get_array()), m.means[label, k])
        assert np.shape(image.get_array()) == (2, 3)
        assert axis.texts[0].get_text() == f"{float(m.weights[label, k]):.2f}"


# ----------------------------------------------------------------------------- style and files


def test_style_restores_what_it_set_and_nothing_else() -> None:
    """The backend of notebooks turns `interactive` on when the first figure is made."""
    before = dict(plt.rcParams)

    def draw() -> None:
        with style(**{"font.size": 3.0}):
            assert plt.rcParams["font.size"] == 3.0
            assert not plt.rcParams["axes.spines.top"]
            plt.rcParams["interactive"] = not before["interactive"]
            raise KeyError

    try:
        with pytest.raises(KeyError):
            draw()
        after = dict(plt.rcParams)
        assert after.pop("interactive") is not before.pop("interactive")
        assert after == before
    finally:
        plt.rcParams["interactive"] = False


def a_figure() -> Figure:
    figure = plt.figure(figsize=(2, 1), dpi=50)
    figure.subplots().plot([0, 1], [0, 1])
    return figure


@pytest.mark.parametrize("ending", ["png", "PNG", "pdf", "svg"])
def test_a_figure_is_written_in_the_format_of_the_ending(tmp_path: Path, ending: str) -> None:
    path = tmp_path / "new" / f"figure.{ending}"
    figures.check_format(path)
    figures.write(a_figure(), path)
    content = path.read_bytes()
    magic = {"png": b"\x89PNG", "pdf": b"%PDF", "svg": b"<?xml"}
    assert content.startswith(magic[ending.lower()])
    assert list(path.parent.iterdir()) == [path]
    if ending == "png":
        assert plt.imread(path).shape == (50, 100, 4)


@pytest.mark.parametrize("name", ["figure.docx", "figure", "png", ".png/figure"])
def test_an_unknown_format_is_named(tmp_path: Path, name: str) -> None:
    message = r"figure must end in one of .*pdf.*png.*, got .*"
    with pytest.raises(ValueError, match=message + name):
        figures.check_format(tmp_path / name)
    with pytest.raises(ValueError, match=message):
        figures.write(a_figure(), tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_write_leaves_the_old_figure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "figure.png"
    path.write_bytes(b"old")

    def interrupt(*arguments: Any, **options: Any) -> None:
        raise KeyboardInterrupt

    for target in ("os.replace", "os.fsync"):
        figure = a_figure()
        with monkeypatch.context() as patch:
            patch.setattr(target, interrupt)
            with pytest.raises(KeyboardInterrupt):
                figures.write(figure, path)
        assert path.read_bytes() == b"old"
        assert list(tmp_path.iterdir()) == [path]
    figure = a_figure()
    with monkeypatch.context() as patch:
        patch.setattr(figure, "savefig", interrupt)
        with pytest.raises(KeyboardInterrupt):
            figures.write(figure, path)
    assert path.read_bytes() == b"old"
    figures.write(figure, path)
    assert plt.imread(path).shape == (50, 100, 4)
