"""The objectives by the names of the figures."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ngem_tutorial.experiments import methods
from ngem_tutorial.fisher import PRECONDITIONERS, Preconditioner
from ngem_tutorial.mixtures import GaussianMixture
from ngem_tutorial.objectives import ngem, nll, sgem

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
        ("nGEM (undamped)", PRECONDITIONERS["undamped"]),
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
    assert set(methods.METHODS) >= {"NLL", "SGEM", "nGEM", "nGEM (undamped)"}
    compared = [methods.get_objective(method) for method in methods.METHODS if method != "SGEM"]
    logits = {tuple(gradient(objective)[0].round(4).tolist()) for objective in compared}
    assert len(logits) == len(compared) - 2  # NLL, nGEM and the undamped: plain logits
    means = {tuple(gradient(objective)[1].round(4).ravel().tolist()) for objective in compared}
    assert len(means) == 4  # NLL, nGEM, damped, and the rest


def test_an_objective_is_one_object_however_it_is_asked_for() -> None:
    """Programs are compiled once for an objective, compared by identity."""
    for method, own, other in (
        ("nGEM", "log_scale", "scale"),
        ("nGEM (undamped)", "scale", "log_scale"),
    ):
        one = methods.get_objective(method)
        assert methods.get_objective(method, own) is one
        assert methods.get_objective(method=method, coordinate=own) is one
        assert methods.get_objective(method, other) is not one


def test_ngem_is_the_default_of_the_package() -> None:
    for a, b in zip(gradient(methods.get_objective("nGEM")), gradient(ngem), strict=True):
        np.testing.assert_array_equal(a, b)


def test_unknown_methods_and_coordinates_are_named() -> None:
    with pytest.raises(ValueError, match=r"method must be one of NLL, SGEM, nGEM, .* got 'ngem'"):
        methods.get_objective("ngem")
    with pytest.raises(ValueError, match=r"coordinate must be one of .* got 'variance'"):
        methods.get_objective("nGEM", "variance")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"units must be one of .* got 'metres'"):
        methods.get_objective("nGEM", units="metres")  # type: ignore[arg-type]


def test_the_units_of_the_target_are_those_of_the_papers_variants_anyway() -> None:
    for method in methods.METHODS:
        same = methods.get_objective(method, units="target") is methods.get_objective(method)
        assert same == (method != "nGEM")
    ours = gradient(methods.get_objective("nGEM", units="target"))
    choice = Preconditioner(units="target")
    for a, b in zip(ours, gradient(partial(ngem, preconditioner=choice)), strict=True):
        np.testing.assert_array_equal(a, b)


def test_ngem_alone_has_a_schedule_and_it_is_one_object() -> None:
    for method in methods.METHODS:
        schedule = methods.get_relaxation(method, 500)
        assert (schedule is None) == (method != "nGEM")
    schedule = methods.get_relaxation("nGEM", 500)
    assert schedule is methods.get_relaxation("nGEM", 500)
    assert schedule is not methods.get_relaxation("nGEM", 501)
    assert schedule is not None
    found = [float(schedule(count)) for count in (0, 25, 50, 499)]
    np.testing.assert_allclose(found, [0.1, 0.05, 0.0, 0.0], rtol=1e-6)
    with pytest.raises(ValueError, match="num_updates must be at least 1, got 0"):
        methods.get_relaxation("nGEM", 0)


def test_slugs_are_names_of_files() -> None:
    slugs = [methods.slug(method) for method in methods.METHODS]
    assert slugs[:4] == ["NLL", "SGEM", "nGEM", "nGEM-undamped"]
    assert len(set(slugs)) == len(slugs)
    assert methods.slug("σ ~ U(0, 1), lr=0.1") == "U-0-1-lr=0.1"
