"""The page on the seven choices: its proposition and its pictures."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import jupytext
import matplotlib.pyplot as plt
import numpy as np
import pytest

from ngem_tutorial.figures import seven_choices as draw
from ngem_tutorial.vi import get_design
from ngem_tutorial.vi.component_updates import Direct, ImprovedBayesianRule
from ngem_tutorial.vi.estimators import Estimate

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "book/variational/seven_choices.md"
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

    text = PAGE.read_text()
    rows = [line for line in text.splitlines() if line.startswith("| ") and line[2].isdigit()]
    rows = [row.rpartition("|")[0].rpartition("|")[2] for row in rows]
    assert len(rows) == len(MODULES) == 7
    for row, choices in zip(rows, MODULES.values(), strict=True):
        assert sorted(row.split("`")[1::2]) == sorted(choices)
    assert get_design("SAMTRON").codeword == "SAMTRON"


def test_each_module_has_code_that_is_shown_a_picture_and_what_can_go_wrong() -> None:
    page = jupytext.read(PAGE, fmt="md:myst")
    sections: list[list[Any]] = []
    for cell in page.cells:
        if cell.cell_type == "markdown":
            for part in re.split(r"^(?=## )", cell.source, flags=re.MULTILINE):
                if part.startswith("## "):
                    sections.append([])
                if sections:
                    sections[-1].append(part)
        elif sections:
            sections[-1].append(cell)
    modules = [s for s in sections if re.match(r"## \d\. ", s[0])]
    assert len(modules) == 7
    for parts in modules:
        assert "**What can go wrong.**" in "".join(p for p in parts if isinstance(p, str))
        code = [part for part in parts if not isinstance(part, str)]
        shown = [c for c in code if "hide-input" not in c.metadata.get("tags", [])]
        assert any(c.source.startswith("def ") for c in shown)
        assert any("figure" in c.metadata.get("mystnb", {}) for c in code)


def rules(start: str) -> dict[str, Any]:
    """What the functions are that the page's cell with this beginning defines."""
    page = jupytext.read(PAGE, fmt="md:myst")
    (source,) = [c.source for c in page.cells if c.source.startswith(start)]
    functions = [n for n in ast.parse(source).body if isinstance(n, ast.FunctionDef)]
    scope = {"np": np, "jnp": jnp, "jax": jax}
    for node in functions:
        exec(ast.unparse(node), scope)
    return scope


def test_both_estimates_of_the_page() -> None:
    """Of a function that is not quadratic, against its derivatives by quadrature."""
    scope = rules("def estimate_S")
    zs = np.random.default_rng(3).normal(size=(400_000, 2))
    slopes = np.stack([np.cos(zs[:, 0]) + zs[:, 1], zs[:, 0] - np.sin(zs[:, 1])], axis=1)
    values = np.sin(zs[:, 0]) + zs[:, 0] * zs[:, 1] + np.cos(zs[:, 1])
    v = np.array([np.exp(-0.5), 0.0])  # E[cos z] = exp(-1/2), E[sin z] = 0
    M = np.array([[0.0, -1.0], [-1.0, np.exp(-0.5)]])
    for found in (scope["estimate_S"](zs, slopes), scope["estimate_Z"](zs, values)):
        np.testing.assert_allclose(found[0], v, atol=0.01)
        np.testing.assert_allclose(found[1], M, atol=0.015)


def test_the_covariance_of_a_new_component() -> None:
    """Between the start's entropy and the present one's, in the shape of the start."""
    rule = rules("def next_mean")["next_factor"]
    first = jnp.asarray([[2.0, 0.0], [0.5, 0.1]])
    np.testing.assert_allclose(rule(0.0, first, 3.0), first, rtol=1e-12)
    new = rule(1.0, first, 3.0)
    assert float(jnp.linalg.slogdet(new)[1]) == pytest.approx(3.0)
    np.testing.assert_allclose(new / first[0, 0], new[0, 0] / first[0, 0] * first / first[0, 0])


def test_figures_show_every_line() -> None:
    x = np.arange(1, 5)
    figure = draw.curves(x, {"a": x, "b": 2 * x}, ("x", "y"), log=("x",), level=1.0)
    (axis,) = figure.axes
    assert axis.get_xscale() == "log"
    assert len(axis.lines) == 3
    # The book's colours, as on the page of the experiments.
    assert [line.get_color() for line in axis.lines[:2]] == ["#0072B2", "#E69F00"]
    panels = {"one": {"a": x}, "two": {"a": x, "b": x}}
    figure = draw.side_by_side(
        x, panels, "x", (None, 2.0), log=("two",), limits={"one": (0.0, 9.0)}
    )
    first, second = figure.axes
    assert first.get_ylim() == (0.0, 9.0)
    assert second.get_yscale() == "log"
    assert [len(axis.lines) for axis in figure.axes] == [1, 3]
    plt.close("all")
