"""The picture of two modes: its JavaScript, run by node, against scipy."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import optimize, special, stats

pytestmark = pytest.mark.needs("node")

FITS = Path(__file__).resolve().parents[1] / "book" / "_static" / "two_modes" / "fits.js"
LARGEST = 10.0  # distance on the page
DRIVER = """
import { readFileSync } from "node:fs";
import * as fits from "./fits.js";

// The reverse fit at each of some distances, each from the one before.
function follow(distances, mass, q) {
  return distances.map((distance) => {
    const p = { distance, mass };
    q = fits.reverseFit(p, { ...q, settled: false });
    return { ...q, reverse: fits.reverse(p, q), forward: fits.forward(p, q) };
  });
}

const calls = { ...fits, follow };
const jobs = JSON.parse(readFileSync(0, "utf8"));
console.log(JSON.stringify(jobs.map(([name, ...args]) => calls[name](...args))));
"""
TARGETS = [
    {"distance": distance, "mass": mass}
    for distance in (0.0, 1.0, 3.0, 4.5, 6.3, LARGEST)
    for mass in (0.05, 0.3, 0.5, 0.95)
]

PANELS = 60  # of the quadrature by Gauss and Legendre on the interval from 0 to 1
ROOTS, ROOT_WEIGHTS = special.roots_legendre(20)
NODES = ((np.arange(PANELS)[:, None] + 0.5 * (ROOTS + 1)) / PANELS).ravel()
WEIGHTS = np.tile(0.5 * ROOT_WEIGHTS / PANELS, PANELS)


@pytest.fixture(scope="module")
def node(tmp_path_factory, run_node):
    """Call functions of the mathematics: a list of names with arguments, to a list of results."""
    folder = tmp_path_factory.mktemp("two_modes")
    shutil.copy(FITS, folder)
    return run_node(folder, DRIVER)


def log_target(p: dict[str, float], x: Any) -> Any:
    """The logarithm of two Gaussians of scale one."""
    half = 0.5 * p["distance"]
    terms = [
        np.log1p(-p["mass"]) + stats.norm.logpdf(x, -half),
        np.log(p["mass"]) + stats.norm.logpdf(x, half),
    ]
    return special.logsumexp(terms, axis=0)


def kl(log_a: Any, log_b: Any, low: float, high: float) -> float:
    """The divergence of two log-densities, of which the first is next to nothing outside."""
    x = low + (high - low) * NODES
    return float((high - low) * WEIGHTS @ (np.exp(log_a(x)) * (log_a(x) - log_b(x))))


def reverse(p: dict[str, float], mean: float, scale: float) -> float:
    log_q = partial(stats.norm.logpdf, loc=mean, scale=scale)
    width = 9 * scale
    return kl(log_q, lambda x: log_target(p, x), mean - width, mean + width)


def forward(p: dict[str, float], mean: float, scale: float) -> float:
    log_q = partial(stats.norm.logpdf, loc=mean, scale=scale)
    width = 0.5 * p["distance"] + 9
    return kl(lambda x: log_target(p, x), log_q, -width, width)


def reverse_at(p: dict[str, float], q: np.ndarray) -> float:
    """KL(q || p) of a mean and the logarithm of a scale, for an optimiser."""
    return reverse(p, q[0], np.exp(q[1]))


@pytest.mark.parametrize("fit", [(-2.1, 0.8), (0.4, 3.0), (5.0, 1.0)])
def test_divergences(node, fit):
    q = {"mean": fit[0], "scale": fit[1]}
    ours = node(*([name, p, q] for p in TARGETS for name in ("reverse", "forward")))
    theirs = [f(p, *fit) for p in TARGETS for f in (reverse, forward)]
    np.testing.assert_allclose(ours, theirs, rtol=1e-8, atol=1e-8)


def test_slope_and_curvature_of_the_target(node):
    points = np.linspace(-8, 8, 9)
    found = node(*(["target", p, x] for p in TARGETS for x in points))
    step = 1e-4
    for (p, x), ours in zip(((p, x) for p in TARGETS for x in points), found, strict=True):
        low, here, high = log_target(p, x + step * np.array([-1, 0, 1]))
        assert ours["value"] == pytest.approx(here, abs=1e-12)
        assert ours["slope"] == pytest.approx((high - low) / (2 * step), abs=1e-5)
        assert ours["curvature"] == pytest.approx((high - 2 * here + low) / step**2, abs=1e-4)


def test_the_forward_fit_is_the_best(node):
    """By an optimiser that knows values of the divergence only."""
    targets = [p for p in TARGETS if p["distance"] in (1.0, 6.3)]
    for p, ours in zip(targets, node(*(["forwardFit", p] for p in targets)), strict=True):
        least = forward(p, **ours)
        found = optimize.minimize(
            lambda q, p=p: forward(p, q[0], np.exp(q[1])),
            [0.1, 0.3],
            method="Nelder-Mead",
            options={"xatol": 1e-6, "fatol": 1e-12},
        )
        assert least == pytest.approx(found.fun, abs=1e-8)
        np.testing.assert_allclose(
            [ours["mean"], ours["scale"]], [found.x[0], np.exp(found.x[1])], atol=1e-4
        )


@pytest.mark.parametrize("p", TARGETS, ids=str)
@pytest.mark.parametrize("side", [-0.5, 0.0, 0.5])
def test_the_reverse_fit_is_a_minimum(node, p, side):
    """From both modes and the middle; scipy, started beside it, comes back to it."""
    (fit,) = node(["reverseFit", p, {"mean": side * p["distance"], "scale": 1}])
    assert fit["settled"]
    place = np.array([fit["mean"], np.log(fit["scale"])])
    found = optimize.minimize(
        lambda q: reverse_at(p, q), place + 0.03, method="Nelder-Mead",
        options={"xatol": 1e-8, "fatol": 1e-14},
    )  # fmt: skip
    np.testing.assert_allclose(place, found.x, atol=2e-5)
    assert reverse_at(p, place) == pytest.approx(found.fun, abs=1e-11)


def test_what_a_missing_mode_costs(node):
    """What the page says of modes that are far apart, on either of them."""
    for mass in (0.1, 0.3, 0.5, 0.8):
        for side, missing in ((-0.5, mass), (0.5, 1 - mass)):
            distances = [8.0, 9.0, LARGEST]
            q = {"mean": side * distances[0], "scale": 1}
            (fits, price) = node(
                ["follow", distances, mass, q], ["price", {"mass": mass}, {"mean": side}]
            )
            assert price == pytest.approx(-np.log(1 - missing), abs=1e-12)
            for distance, fit in zip(distances, fits, strict=True):
                assert price - 0.002 < fit["reverse"] <= price + 1e-8
                grown = 0.5 * missing * distance**2 - stats.entropy([mass, 1 - mass])
                assert fit["forward"] == pytest.approx(grown, rel=0.01)


def test_the_reverse_fit_holds_on_to_its_mode(node):
    """Modes that part are covered longer than modes that come back, and the left one is heavier."""
    distances = np.arange(0.0, LARGEST + 0.05, 0.1)
    (out,) = node(["follow", distances.tolist(), 0.3, {"mean": 0, "scale": 1}])
    (back,) = node(["follow", distances[::-1].tolist(), 0.3, out[-1]])

    def on_left(path: list[dict[str, float]]) -> np.ndarray:
        return np.array([q["mean"] for q in path]) < -0.45 * distances

    parting, returning = on_left(out), on_left(back[::-1])
    first = distances[parting & (distances > 2)].min()
    last = distances[returning & (distances > 2)].min()
    assert 3.5 < last < first - 0.2 < 5.5
    assert np.all(parting[distances >= first])
    (equal,) = node(["follow", distances.tolist(), 0.5, {"mean": 0, "scale": 1}])
    wide = np.sqrt(1 + 0.25 * LARGEST**2)
    assert abs(equal[-1]["mean"]) < 1e-3
    assert 0.8 * wide < equal[-1]["scale"] < wide
    assert equal[-1]["reverse"] > np.log(2) + 1


def test_the_curve_is_what_following_gives(node):
    """From the present fit outwards, with the present distance on it."""
    p, mass = {"distance": 6.1, "mass": 0.3}, 0.3
    (fit,) = node(["reverseFit", p, {"mean": 3, "scale": 1}])
    (curve,) = node(["branch", p, fit, LARGEST])
    distances = [at["distance"] for at in curve]
    assert distances == sorted(distances)
    assert (distances[0], distances[-1]) == (0, LARGEST)
    i = distances.index(6.1)
    up, down = node(
        ["follow", distances[i:], mass, fit], ["follow", distances[:i][::-1], mass, fit]
    )
    for name in ("reverse", "forward"):
        ours = [at[name] for at in curve]
        np.testing.assert_allclose(ours, [q[name] for q in down[::-1] + up], atol=1e-12)
    assert up[-1]["mean"] > 4
    assert down[-1]["reverse"] == pytest.approx(0.0, abs=1e-9)
