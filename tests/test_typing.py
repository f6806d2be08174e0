"""Shapes in signatures: checked in the tests, and nothing but text for users."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest

from ngem_tutorial import fisher, objectives
from ngem_tutorial.mixtures import GaussianMixture

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize(
    "call",
    [
        # Both would broadcast to another shape without a word.
        lambda: fisher.solve_damped_categorical_fisher(np.full(3, 1 / 3), np.ones((4, 3)), 0.1),
        lambda: fisher.solve_damped_categorical_fisher(np.full(3, 1 / 3), np.ones(1), 0.1),
    ],
)
def test_a_shape_that_nothing_else_checks_is_caught(call: Any) -> None:
    with pytest.raises(jaxtyping.TypeCheckError):
        call()


def test_a_result_of_another_shape_is_caught() -> None:
    """A gradient that lost its components passes unchecked into a mixture, and would broadcast."""
    leaves = [jnp.zeros(1), jnp.zeros((3, 1)), jnp.ones((3, 1))]
    mixture = GaussianMixture.tree_unflatten(None, leaves)
    with pytest.raises(jaxtyping.TypeCheckError, match="log_weights"):
        mixture.log_prob([0.0])


def test_the_packages_own_errors_come_first() -> None:
    with pytest.raises(ValueError, match="one target for each mixture"):
        objectives.ngem(GaussianMixture([0.0], [[0.0]], [[1.0]])[None], np.zeros((3, 1)))
    with pytest.raises(ValueError, match="coordinate must be one of"):
        fisher.gaussian_fisher(np.ones(3), "log")  # type: ignore[arg-type]


def test_users_need_no_jaxtyping() -> None:
    code = """
import sys
sys.modules["jaxtyping"] = sys.modules["beartype"] = None
import typing, jax, ngem_tutorial.em, ngem_tutorial.variants
from ngem_tutorial import objectives
assert typing.get_type_hints(objectives.nll)["return"] is jax.Array
"""
    environment = {k: v for k, v in os.environ.items() if k != "NGEM_CHECK_SHAPES"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
