"""The laboratory's JavaScript, run by node, against the package in float64."""

from __future__ import annotations

import html
import re
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import stats

from ngem_tutorial import GaussianMixture
from ngem_tutorial.datasets import synthetic
from ngem_tutorial.figures.style import DASHES, PALETTE
from ngem_tutorial.methods import get_method
from ngem_tutorial.objectives import nll, relaxation_schedule

pytestmark = [pytest.mark.needs("node"), pytest.mark.usefixtures("x64")]

BOOK = Path(__file__).resolve().parents[1] / "book"
SCRIPTS = BOOK / "_static" / "laboratory"
METHODS = ["NLL", "nGEM, paper's code", "nGEM, as derived", "damped nGEM"]

DRIVER = """
import { readFileSync } from "node:fs";
import * as drawing from "./drawing.js";
import * as mixture from "./mixture.js";
import * as settings from "./settings.js";
import { Training } from "./training.js";

// A training to its end, with the points of each update and the mixtures after it.
function train(query) {
  const training = new Training(settings.parse(query));
  const start = training.runs[0].mixture;
  const own = training.batch.bind(training);
  const batches = [];
  training.batch = () => batches[batches.push(own()) - 1];
  const mixtures = training.runs.map(() => []);
  while (!training.finished) {
    training.advance(1);
    training.runs.forEach((run, i) => mixtures[i].push(run.mixture));
  }
  const runs = training.runs.map(({ objective, failedAt, history }, i) => {
    return { objective, failedAt, history, mixtures: mixtures[i] };
  });
  return { runs, batches, start, points: training.points, truthNll: training.truthNll };
}

function numbers(make, seed, count) {
  const next = make(seed);
  return Array.from({ length: count }, next);
}

// Backgrounds and foregrounds of all pictures of a training, at its start and its end.
function pictures(query) {
  const training = new Training(settings.parse(query));
  const make = () => ["picture", "weightsChart", "likelihoodChart"].flatMap((name) => {
    const { background, foreground } = drawing[name](training, 340, name);
    return [background, foreground(training.runs[0])];
  });
  const before = make();
  training.advance(Infinity);
  const moved = make().filter((_, i) => i % 2);
  return [...before, ...moved];
}

const calls = { ...drawing, ...mixture, ...settings, train, pictures,
  uniformNumbers: (seed, count) => numbers(settings.uniform, seed, count),
  normalNumbers: (seed, count) => numbers(settings.normal, seed, count),
  constant: (name) => ({ ...drawing, ...mixture, ...settings })[name] };
const jobs = JSON.parse(readFileSync(0, "utf8"));
console.log(JSON.stringify(jobs.map(([name, ...args]) => calls[name](...args))));
"""


@pytest.fixture(scope="module")
def node(tmp_path_factory, run_node):
    """Call functions of the laboratory: a list of names with arguments, to a list of results."""
    folder = tmp_path_factory.mktemp("laboratory")
    shutil.copytree(SCRIPTS, folder, dirs_exist_ok=True)
    return run_node(folder, DRIVER)


Parameters = tuple[jax.Array, jax.Array, jax.Array]


def parameters(mixture: dict[str, Any]) -> Parameters:
    return tuple(jnp.asarray(mixture[n], float) for n in ("logits", "means", "logScales"))


@partial(jax.jit, static_argnums=0)
@partial(jax.grad, argnums=1)
def gradient(
    method: str, p: Parameters, y: jax.Array, counts: jax.Array, relaxation: jax.Array
) -> jax.Array:
    """Of the package's objective of a free mixture; a target counts as often as `counts` says."""
    chosen = get_method(method, coordinate="log_scale", unit="target")
    options = {"relaxation": relaxation} if chosen.schedule else {}
    values = chosen.objective(GaussianMixture(p[0], p[1], jnp.exp(p[2])), y, **options)
    return (counts * values).sum() / counts.sum()


@partial(jax.jit, static_argnums=0)
def trajectory(
    method: str, p: Parameters, y: jax.Array, counts: jax.Array, relaxations: jax.Array, rate: float
) -> Parameters:
    """Parameters after each update, on the targets that each of them counts."""
    optimizer = optax.sgd(rate)

    def update(carry, inputs):
        p, state = carry
        updates, state = optimizer.update(gradient(method, p, y, *inputs), state)
        p = optax.apply_updates(p, updates)
        return (p, state), p

    return jax.lax.scan(update, (p, optimizer.init(p)), (counts, relaxations))[1]


def test_gradients_are_the_package_s(node):
    k, dim = 5, 2
    rng = np.random.default_rng(0)
    cases = []
    for spread, relaxation in ((0.5, 0.0), (4.0, 0.0), (4.0, 0.07)):
        mixture = {
            "logits": (spread * rng.normal(size=k)).tolist(),
            "means": rng.normal(0, spread, (k, dim)).tolist(),
            "logScales": rng.normal(0, 0.7, (k, dim)).tolist(),
        }
        y = rng.normal(0, 3, (7, dim)).tolist()
        cases += [(m, mixture, y, relaxation * (m == "damped nGEM")) for m in METHODS]
    results = node(*(["gradient", *case] for case in cases))
    for (method, mixture, y, relaxation), result in zip(cases, results, strict=True):
        expected = gradient(method, parameters(mixture), jnp.array(y), jnp.ones(7), relaxation)
        for ours, theirs in zip(parameters(result), expected, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-10, atol=1e-12)


TRAININGS = [
    "data=pair&k=3&share=0.97&start=far&rate=0.03&batch=20",
    "data=triangle&k=3&start=own&rate=0.01&batch=1&components=0.2,-1,0,1;0.5,3,0.5,0.7;0.3,0,2,2",
    "data=line&k=3&start=together&seed=2&rate=0.1",
]


@pytest.mark.parametrize("query", TRAININGS)
def test_trainings_are_the_package_s(node, query):
    """Each update of 100, all objectives from one start; every mixture on the way."""
    (training,) = node(["train", f"{query}&objectives=nll,code,derived,damped&updates=100"])
    points = jnp.asarray(training["points"])
    place = {tuple(point): i for i, point in enumerate(training["points"])}
    counts = np.zeros((100, 200))
    for update, batch in enumerate(training["batches"]):
        counts[update, [place[tuple(point)] for point in batch]] = 1.0
    assert [run["objective"] for run in training["runs"]] == METHODS
    for run in training["runs"]:
        assert run["failedAt"] is None
        scheduled = get_method(run["objective"]).schedule is not None
        relaxations = relaxation_schedule(100)(jnp.arange(100)) * scheduled
        rate = float(re.search(r"rate=([\d.]+)", query).group(1))
        expected = trajectory(
            run["objective"], parameters(training["start"]), points, counts, relaxations, rate
        )
        for i, name in enumerate(("logits", "means", "logScales")):
            ours = np.array([mixture[name] for mixture in run["mixtures"]])
            np.testing.assert_allclose(ours, expected[i], rtol=1e-5, atol=1e-5)
        end = GaussianMixture(*(leaf[-1] for leaf in expected[:2]), jnp.exp(expected[2][-1]))
        state = run["history"][-1]
        assert state["update"] == 100
        assert state["nll"] == pytest.approx(float(nll(end, points).mean()), abs=1e-5)
        np.testing.assert_allclose(state["weights"], end.weights, atol=1e-5)


def test_a_round_takes_every_point_once(node):
    (training,) = node(["train", "batch=20&updates=100&objectives=damped"])
    points = sorted(training["points"])
    rounds = np.array(training["batches"]).reshape(10, 200, 2).tolist()
    assert all(sorted(points_of_round) == points for points_of_round in rounds)
    assert rounds[0] != rounds[1]


def test_the_relaxed_start_is_the_package_s(node):
    (lengths,) = node(["constant", "LENGTHS"])
    for length in lengths:
        done = range(0, length, length // 100)
        ours = node(*(["relaxationAt", length, count] for count in done))
        np.testing.assert_allclose(ours, relaxation_schedule(length)(jnp.array(done)), atol=1e-7)


def test_names_colours_and_dashes_are_those_of_the_figures(node):
    (objectives, styles, short) = node(
        *(["constant", c] for c in ("OBJECTIVES", "STYLES", "SHORT"))
    )
    assert list(objectives) == list(styles) == list(short.values()) == METHODS
    for name, style in styles.items():
        assert style["colour"] == PALETTE[name]
        assert [float(x) for x in style["dash"].split()] == list(DASHES[name])
        assert objectives[name].get("relaxed") == (get_method(name).schedule is not None)


@pytest.mark.parametrize("share", [0.4, 0.57, 0.97])
def test_points_are_from_the_truth(node, share):
    (sets,) = node(["constant", "DATA"])
    queries = [{"data": name, "share": share} for name in sets]
    results = node(*([f, query] for query in queries for f in ("truth", "points")))
    for data, truth, points in zip(sets.values(), results[::2], results[1::2], strict=True):
        logits, means, log_scales = (np.array(leaf) for leaf in parameters(truth))
        assert means.tolist() == data["means"]
        weights = [share, *[(1 - share) / (len(means) - 1)] * (len(means) - 1)]
        np.testing.assert_allclose(np.exp(logits), weights)
        counts = np.array(synthetic._counts(weights, 200))
        component = np.repeat(np.arange(len(means)), counts)
        noise = (np.array(points) - means[component]) / np.exp(log_scales)[component]
        assert stats.kstest(noise.ravel(), "norm").pvalue > 1e-3
        assert np.abs(noise).max() < 4.0  # of a point of another component it is not


@pytest.mark.parametrize("seed", [0, 1, 9999])
def test_random_numbers(node, seed):
    uniform, normal, again, other = node(
        ["uniformNumbers", seed, 20_000],
        ["normalNumbers", seed, 20_000],
        ["normalNumbers", seed, 10],
        ["normalNumbers", seed + 1, 10],
    )
    assert stats.kstest(uniform, "uniform").pvalue > 1e-3
    assert stats.kstest(normal, "norm").pvalue > 1e-3
    assert abs(np.corrcoef(normal[1:], normal[:-1])[0, 1]) < 0.03
    assert normal[:10] == again
    assert not set(again) & set(other)


def test_settings_survive_the_address(node):
    queries = [*TRAININGS, "", "objectives=nll,derived&relaxed=0&updates=3000&at=17"]
    once = node(*(["parse", query] for query in queries))
    texts = node(*(["format", settings] for settings in once))
    assert node(*(["parse", text] for text in texts)) == once
    assert texts[-2] == ""
    assert once[-1]["at"] == 17
    assert once[-1]["objectives"] == ["nll", "derived"]


NONSENSE = ["data=nowhere", "share=2", "share=", "k=0", "k=x", "rate=5", "objectives=adam"]
NONSENSE += ["start=own", "start=own&components=1,2", "at=-1", "unknown=1"]
NONSENSE += [f"start=own&components=0.5,0,0,1;0.5,{row}" for row in ("0,0,-1", "NaN,0,1", "0,0")]


def test_an_address_that_makes_no_sense_gives_the_usual_settings(node):
    usual, *settings = node(["constant", "DEFAULTS"], *(["parse", query] for query in NONSENSE))
    assert settings == [usual] * len(NONSENSE)


@pytest.mark.parametrize("query", ["data=line&k=3", "data=triangle&k=5&start=far"])
def test_pictures_hold_finite_numbers(node, query):
    """The coordinates in the markup, before and after a training."""
    (markup,) = node(["pictures", query])
    for text in markup:
        assert "NaN" not in text
        assert "Infinity" not in text
        assert "undefined" not in text
    assert len(set(markup)) == len(markup)


def links() -> list[str]:
    """The states that the page's links set."""
    page = (BOOK / "laboratory.md").read_text(encoding="utf-8")
    return [html.unescape(query) for query in re.findall(r'href="\?([^"#]*)#lab-run"', page)]


def test_what_the_page_says_happens(node):
    weights, step, start, unrelaxed = node(*(["train", query] for query in links()))
    ends = {run["objective"]: run["history"][-1] for run in weights["runs"]}
    for method, expected in {
        "NLL": (0.1, 0.9),
        "nGEM, paper's code": (0.25, 0.75),
        "damped nGEM": (0.1, 0.9),
    }.items():
        np.testing.assert_allclose(sorted(ends[method]["weights"]), expected, atol=0.005)

    failed = {run["objective"]: run["failedAt"] for run in step["runs"]}
    assert failed.pop("nGEM, as derived") < 200
    assert set(failed.values()) == {None}

    plain, damped = start["runs"]
    truth = start["truthNll"]
    assert (plain["objective"], damped["objective"]) == ("NLL", "damped nGEM")
    assert plain["history"][-1]["nll"] > truth + 2.0
    assert min(plain["history"][-1]["weights"]) < 0.01
    assert np.linalg.norm(np.array(plain["history"][-1]["means"][1]) - 8) < 0.1
    assert damped["history"][-1]["nll"] < truth
    np.testing.assert_allclose(damped["history"][-1]["weights"], 0.5, atol=0.01)

    (damped,) = unrelaxed["runs"]
    assert np.linalg.norm(np.array(damped["history"][-1]["means"][1]) - 8) < 0.1
