"""The methods by the names of the tables and figures."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ngem_tutorial import methods, variants
from ngem_tutorial.methods import METHODS, Method, get_method
from ngem_tutorial.mixtures import GaussianMixture
from ngem_tutorial.objectives import ngem, nll, relaxation_schedule, scale_unit, sgem
from ngem_tutorial.power import whitened_nll
from ngem_tutorial.variants import Variant

MIXTURE = GaussianMixture(
    jnp.array([0.3, -0.4]),
    jnp.array([[0.0, 1.0], [1.0, -1.0]]),
    jnp.array([[0.5, 2.0], [1.5, 0.7]]),
)
POINT = jnp.array([0.4, 0.2])
WITHOUT_COORDINATE = ("NLL", "SGEM", "whitened NLL")
PRECONDITIONED = [name for name in METHODS if name not in WITHOUT_COORDINATE]


def gradient(objective: Any) -> list[np.ndarray]:
    return [np.asarray(leaf) for leaf in jax.tree.leaves(jax.grad(objective)(MIXTURE, POINT))]


def test_each_name_is_that_of_its_objective() -> None:
    assert {name: method.objective for name, method in METHODS.items()} == {
        "NLL": nll,
        "SGEM": sgem,
        "whitened NLL": whitened_nll,
        "damped nGEM": ngem,
        "undamped nGEM": variants.undamped,
        "nGEM, paper's code": variants.paper_code,
        "nGEM, as derived": variants.as_derived,
        "nGEM, eq. (68)": variants.eq68,
        "fully damped nGEM": variants.fully_damped,
    }
    for name, method in METHODS.items():
        assert method.name == name
        assert get_method(name) is not None
        assert get_method(name) == method


def test_methods_are_distinct_and_plain_ones_are_plain() -> None:
    compared = [method.objective for name, method in METHODS.items() if name != "SGEM"]
    logits = {tuple(gradient(objective)[0].round(4).tolist()) for objective in compared}
    assert len(logits) == len(compared) - 3  # NLL, whitened, damped and undamped: plain logits
    means = {tuple(gradient(objective)[1].round(4).ravel().tolist()) for objective in compared}
    assert len(means) == 5  # NLL, whitened, damped, fully damped, and the rest


@pytest.mark.parametrize("name", PRECONDITIONED)
@pytest.mark.parametrize("coordinate", ["scale", "log_scale"])
def test_a_method_in_another_coordinate_differs_in_the_scales_by_a_factor(
    name: str, coordinate: Any
) -> None:
    other = "scale" if coordinate == "log_scale" else "log_scale"
    one, two = (gradient(get_method(name, coordinate=c).objective) for c in (coordinate, other))
    np.testing.assert_array_equal(one[0], two[0])
    np.testing.assert_array_equal(one[1], two[1])
    ratio = (one[2] / two[2]) if coordinate == "scale" else (two[2] / one[2])
    np.testing.assert_allclose(ratio, np.asarray(MIXTURE.scales) ** 2, rtol=1e-5)


@pytest.mark.parametrize("name", METHODS)
def test_equal_methods_are_equal_and_hash_equal(name: str) -> None:
    """Programs are compiled once for a method, which is compared by value."""
    for options in (
        {},
        {"coordinate": "scale"},
        {"coordinate": "log_scale"},
        {"unit": "batch"},
        {"unit": "target", "coordinate": "scale"},
    ):
        one, two = get_method(name, **options), get_method(name, **options)  # type: ignore[arg-type]
        assert one == two
        assert hash(one) == hash(two)
    own = {"damped nGEM": "log_scale"}.get(name, "scale")
    assert get_method(name, coordinate=own) == METHODS[name]  # type: ignore[arg-type]
    changed = get_method(name, coordinate="scale" if own == "log_scale" else "log_scale")
    assert (changed == METHODS[name]) == (name in WITHOUT_COORDINATE)
    assert get_method("damped nGEM", coordinate="scale").objective == Variant(coordinate="scale")


def test_units_are_those_of_the_target_but_for_those_two() -> None:
    for name, method in METHODS.items():
        units = {"damped nGEM": "batch", "whitened NLL": "pooled"}
        assert method.unit == units.get(name, "target")
        assert get_method(name, unit="target").unit == "target"
        in_units_of_the_batch = get_method(name, unit="batch").unit == "batch"
        assert in_units_of_the_batch == (name not in ("NLL", "SGEM"))


def test_the_two_that_are_or_were_recommended_have_a_schedule() -> None:
    for name, method in METHODS.items():
        assert (method.schedule is None) == (name not in ("damped nGEM", "whitened NLL"))
    schedule = METHODS["damped nGEM"].schedule
    assert schedule is not None
    assert schedule(500) == relaxation_schedule(500)
    assert schedule(500) != schedule(501)
    found = [float(schedule(500)(count)) for count in (0, 25, 50, 499)]
    np.testing.assert_allclose(found, [0.1, 0.05, 0.0, 0.0], rtol=1e-6)


def test_unknown_names_are_errors() -> None:
    with pytest.raises(ValueError, match=r"method must be one of NLL, SGEM, .* got 'ngem'"):
        get_method("ngem")
    with pytest.raises(ValueError, match=r"coordinate must be one of .* got 'variance'"):
        get_method("damped nGEM", coordinate="variance")  # type: ignore[arg-type]
    with pytest.raises(
        ValueError, match=r"unit must be one of target, batch, pooled, got 'metres'"
    ):
        get_method("damped nGEM", unit="metres")  # type: ignore[arg-type]
    with pytest.raises(
        ValueError, match=r"unit must be one of target, batch, pooled, got 'metres'"
    ):
        Method("own", nll, unit="metres")  # type: ignore[arg-type]


def test_a_method_of_ones_own_is_a_value() -> None:
    own = Method("own", Variant(damping=0.1), relaxation_schedule, "batch")
    assert own == Method("own", Variant(damping=0.1), relaxation_schedule, "batch")
    assert own != dataclasses.replace(own, objective=Variant(damping=0.2))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"unit": "batch"}, "unit must be 'target': the objective of 'own' takes no unit"),
        (
            {"schedule": relaxation_schedule},
            "schedule must be None: the objective of 'own' takes no relaxation",
        ),
    ],
)
def test_an_objective_gets_what_it_takes(options: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Method("own", nll, **options)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (("own", "ngem"), "objective must be a function of a mixture and targets, got 'ngem'$"),
        ((ngem, "own"), "objective must be .* got 'own'"),
        (("own", Method), "objective must be .* got the class Method"),
        (("own", lambda mixture: 0.0), "objective must be .* got a function$"),
        (("own", ngem, 0.1), "schedule must be a function of the number of updates .* got 0.1"),
        (
            ("own", ngem, None, scale_unit),
            "unit must be one of target, batch, pooled, got <function",
        ),
    ],
)
def test_what_is_no_method_is_named(fields: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Method(*fields)


def test_slugs_are_names_of_files() -> None:
    slugs = [methods.slug(method) for method in METHODS]
    assert slugs[:4] == ["NLL", "SGEM", "whitened-NLL", "damped-nGEM"]
    assert slugs[5] == "nGEM-paper-s-code"
    assert len(set(slugs)) == len(slugs)
    assert methods.slug("σ ~ U(0, 1), lr=0.1") == "U-0-1-lr=0.1"
