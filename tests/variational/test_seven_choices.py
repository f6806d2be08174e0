"""The page on the seven choices: its proposition and its pictures."""

from __future__ import annotations

from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import pytest

from ngem_tutorial.figures import seven_choices as draw
from ngem_tutorial.vi import get_design
from ngem_tutorial.vi.component_updates import Direct, ImprovedBayesianRule
from ngem_tutorial.vi.estimators import Estimate

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.usefixtures("x64")


@pytest.mark.claim("prop-vi-regression")
def test_the_best_quadratic_has_the_expected_derivatives() -> None:
    """In two dimensions, by a product of Gauss-Hermite rules and autodiff."""

    def rho(z: jax.Array) -> jax.Array:
        return jnp.sin(z[0] + 0.5 * z[1]) + jnp.exp(-0.3 * z[1]) + 0.1 * z[0] ** 3 * z[1]

    nodes, weights = np.polynomial.hermite_e.hermegauss(40)
    z = np.stack(np.meshgrid(nodes, nodes, indexing="ij"), axis=-1).reshape(-1, 2)
    w = np.outer(weights, weights).ravel() / weights.sum() ** 2
    columns = [np.ones(len(z)), z[:, 0], z[:, 1]]
    columns += [-0.5 * z[:, 0] ** 2, -z[:, 0] * z[:, 1], -0.5 * z[:, 1] ** 2]
    features, root = np.stack(columns, axis=1), np.sqrt(w)
    values = np.asarray(jax.vmap(rho)(z))
    fitted = np.linalg.lstsq(root[:, None] * features, root * values, rcond=None)[0]
    slopes = np.asarray(jax.vmap(jax.grad(rho))(z))
    bends = np.asarray(jax.vmap(jax.hessian(rho))(z))
    np.testing.assert_allclose(fitted[1:3], w @ slopes, rtol=1e-8)
    curvature = -np.einsum("n,nij->ij", w, bends)
    np.testing.assert_allclose(fitted[[3, 4, 5]], curvature[[0, 0, 1], [0, 1, 1]], atol=1e-8)
    np.testing.assert_allclose(curvature, -np.einsum("n,ni,nj->ij", w, z, slopes), atol=1e-8)


def test_a_variance_at_most_doubles_under_the_improved_rule() -> None:
    """The exercise, from one end of the curvatures to the other."""
    for m in np.linspace(-50.0, 50.0, 101):
        estimate = Estimate(jnp.zeros(1), jnp.full((1, 1), m))
        step = ImprovedBayesianRule()(estimate, jnp.asarray(0.3), jnp.asarray(1.0))
        assert float(step.factor[0, 0]) ** 2 <= 2.0 + 1e-12
    still = Estimate(jnp.zeros(1), jnp.full((1, 1), -1.0 / 0.3))
    step = ImprovedBayesianRule()(still, jnp.asarray(0.3), jnp.asarray(1.0))
    assert float(step.factor[0, 0]) ** 2 == pytest.approx(2.0)


def test_a_direct_step_fails_in_a_heavy_tail() -> None:
    """The page's component: at mean 8 and scale 1 the precision would be negative."""
    z, w = np.polynomial.hermite_e.hermegauss(60)
    w /= w.sum()
    h = -3.0 * (8.0 + z) / (2.0 + (8.0 + z) ** 2) + z
    estimate = Estimate(jnp.asarray([w @ h]), jnp.asarray([[-(w @ (z * h))]]))
    assert float(1.0 + estimate.curvature[0, 0]) == pytest.approx(-0.044, abs=5e-4)
    assert not np.isfinite(Direct()(estimate, jnp.asarray(1.0), jnp.asarray(1.0)).factor).any()


def test_the_letters_of_the_table_are_those_of_the_package() -> None:
    from ngem_tutorial.vi.design import MODULES

    text = (ROOT / "book/variational/seven_choices.md").read_text()
    rows = [line for line in text.splitlines() if line.startswith("| ") and line[2].isdigit()]
    assert len(rows) == len(MODULES) == 7
    for row, choices in zip(rows, MODULES.values(), strict=True):
        letters = [part[0] for part in row.split("**")[1::2]]
        assert sorted(letters) == sorted(choices)
    assert get_design("SAMTRON").codeword == "SAMTRON"


def test_figures_show_every_line() -> None:
    x = np.arange(1, 5)
    figure = draw.curves(x, {"a": x, "b": 2 * x}, ("x", "y"), log=("x",), level=1.0)
    (axis,) = figure.axes
    assert axis.get_xscale() == "log"
    assert len(axis.lines) == 3
    panels = {"one": {"a": x}, "two": {"a": x, "b": x}}
    figure = draw.side_by_side(
        x, panels, "x", (None, 2.0), log=("two",), limits={"one": (0.0, 9.0)}
    )
    first, second = figure.axes
    assert first.get_ylim() == (0.0, 9.0)
    assert second.get_yscale() == "log"
    assert [len(axis.lines) for axis in figure.axes] == [1, 3]
    plt.close("all")
