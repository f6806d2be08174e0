"""Mixtures to bytes and back, and functions of mixtures exported."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
from flax import serialization

from ngem_tutorial import mixtures
from ngem_tutorial.mixtures import GaussianMixture
from ngem_tutorial.objectives import ngem, nll

MIXTURE = GaussianMixture([[0.0, 1.0]], [[[0.0], [3.0]]], [[[1.0], [2.0]]])
OTHER = GaussianMixture(jnp.zeros((1, 2)), jnp.zeros((1, 2, 1)), jnp.ones((1, 2, 1)))
Y = np.array([[0.5]], np.float32)


def test_bytes_bring_back_the_mixture_in_a_structure_too() -> None:
    content = serialization.to_bytes({"model": MIXTURE, "step": 3})
    restored = serialization.from_bytes({"model": OTHER, "step": 0}, content)
    assert restored["step"] == 3
    assert isinstance(restored["model"], GaussianMixture)
    jax.tree.map(np.testing.assert_array_equal, restored["model"], MIXTURE)
    np.testing.assert_array_equal(nll(restored["model"], Y), nll(MIXTURE, Y))


def test_a_gradient_is_saved_too() -> None:
    gradient = jax.grad(lambda m: nll(m, Y).sum())(MIXTURE)  # its scales are negative
    restored = serialization.from_bytes(OTHER, serialization.to_bytes(gradient))
    jax.tree.map(np.testing.assert_array_equal, restored, gradient)


def test_a_state_with_other_fields_is_refused() -> None:
    state = serialization.to_state_dict(MIXTURE)
    assert state.keys() == {"logits", "means", "scales"}
    with pytest.raises(ValueError, match=r"must have logits, means, scales, got logits, means$"):
        serialization.from_state_dict(MIXTURE, {k: state[k] for k in ("logits", "means")})


def gradient_step(mixture: GaussianMixture, y: jax.Array) -> GaussianMixture:
    gradient = jax.grad(lambda m: ngem(m, y).sum())(mixture)
    return jax.tree.map(lambda p, g: p - 0.1 * g, mixture, gradient)


LOAD = """
import sys
import jax, jax.export, numpy as np
import ngem_tutorial
from ngem_tutorial import GaussianMixture
with open(sys.argv[1], "rb") as file:
    exported = jax.export.deserialize(bytearray(file.read()))
mixture = GaussianMixture([[0.0, 1.0]], [[[0.0], [3.0]]], [[[1.0], [2.0]]])
stepped = exported.call(mixture, np.array([[0.5]], np.float32))
assert isinstance(stepped, GaussianMixture)
print(*np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(stepped)]).tolist())
"""


def test_an_exported_function_of_mixtures_runs_in_another_process(tmp_path: Path) -> None:
    exported = jax.export.export(jax.jit(gradient_step))(MIXTURE, Y)
    (tmp_path / "step.bin").write_bytes(exported.serialize())
    done = subprocess.run(
        [sys.executable, "-c", LOAD, str(tmp_path / "step.bin")],
        check=False, capture_output=True, text=True, cwd=Path(mixtures.__file__).parents[1],
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    wanted = np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(gradient_step(MIXTURE, Y))])
    np.testing.assert_allclose(np.array(done.stdout.split(), float), wanted, rtol=1e-6)


def test_the_module_can_be_reloaded() -> None:
    """As notebooks do: the name under which the type is exported is taken then."""
    spec = importlib.util.find_spec("ngem_tutorial.mixtures")
    assert spec is not None
    assert spec.loader is not None
    again = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(again)
    assert again.GaussianMixture is not GaussianMixture
    assert serialization.to_bytes(again.GaussianMixture([0.0], [[0.0]], [[1.0]]))
