"""Shapes in signatures: checked in the tests, and nothing but text for users."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
import typing
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest

from ngem_tutorial import fisher, networks, objectives, training
from ngem_tutorial.datasets import images, synthetic
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


def test_the_records_of_a_training_have_their_shapes() -> None:
    """Two runs of three recorded points: a curve that lost its runs would broadcast in a plot."""
    fitted = training.fit(
        lambda rngs: networks.MixtureDensityNetwork(1, 2, 1, hidden=(4,), rngs=rngs),
        objectives.nll, np.ones((8, 1)), np.arange(8.0)[:, None],
        epochs=2, batch_size=4, seeds=(0, 1), record_at=(0, 1, 2), validation=0.5,
    )  # fmt: skip
    for field, wrong in (("loss", fitted.loss[0]), ("validation", {"nll": fitted.loss.T})):
        with pytest.raises(jaxtyping.TypeCheckError, match=field):
            dataclasses.replace(fitted, **{field: wrong})


@pytest.mark.parametrize(
    "sample",
    [
        synthetic.two_gaussians(jax.random.key(0)),
        synthetic.two_sinusoids(jax.random.key(0)),
        synthetic.junction(jax.random.key(0)),
        images.digits(),
    ],
)
def test_the_arrays_of_a_data_set_are_as_annotated(sample: Any) -> None:
    hints = typing.get_type_hints(type(sample))
    shaped = {name: hint for name, hint in hints.items() if "jaxtyping" in repr(hint)}
    assert shaped
    with jaxtyping.jaxtyped("context"):
        for name, hint in shaped.items():
            assert isinstance(getattr(sample, name), hint), name


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


USER = """
import numpy as np
import jax.numpy as jnp
from ngem_tutorial import GaussianMixture, METHODS, MixtureDensityNetwork, fit, ngem, nll
from flax import nnx

mixture = GaussianMixture(logits=[0.0, 1.0], means=[[0.0], [4.0]], scales=[[1.0], [1.0]])
same = GaussianMixture(jnp.zeros(2), np.zeros((2, 1)), [[1.0], [1.0]])
weighted = GaussianMixture.from_weights([0.5, 0.5], means=[[0.0], [4.0]], scales=np.ones((2, 1)))
value: float = float(nll(mixture, np.array([0.5]))) + float(ngem(same, jnp.array([0.5])))
x = np.zeros((8, 1))
make = lambda rngs: MixtureDensityNetwork(1, 2, 1, rngs=rngs)
result = fit(make, METHODS["NLL"], x, x, epochs=1, batch_size=4)
network = MixtureDensityNetwork(1, 2, 1, rngs=nnx.Rngs(0))
mean = network(x).mean
targets = [[0.5], [1.5]]
values = nll(mixture, targets) + ngem(mixture, targets, unit=[1.0], damping=0.5)
moved = mixture.affine([1.0], [2.0])
fitted = fit(make, ngem, [[0.0], [1.0]], targets, weights=[1, 2], epochs=1, batch_size=2)
means = network([[0.0]]).means
"""


def test_the_code_of_users_passes_a_strict_type_checker(tmp_path: Path) -> None:
    (tmp_path / "user.py").write_text(USER)
    (tmp_path / "wrong.py").write_text(
        USER
        + 'GaussianMixture(1j, [["a"]], None)\nmixture.missing\nngem(mixture, "a", damping=[1.0])\n'
    )
    # Of the files that are named, as for a package that is installed.
    cache = ROOT / ".pytest_cache" / "mypy"
    # Only the files that are named are judged, as where the package is installed.
    options = ("--strict", "--follow-imports=silent", "--config-file=", f"--cache-dir={cache}")
    done = subprocess.run(
        [sys.executable, "-m", "mypy", *options, "user.py", "wrong.py"],
        cwd=tmp_path, env=os.environ | {"MYPYPATH": str(ROOT)}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    lines = done.stdout.splitlines()
    assert [line for line in lines if not line.startswith("wrong.py")] == lines[-1:], done.stdout
    assert any('"GaussianMixture" has no attribute "missing"' in line for line in lines)
    assert any('Argument 3 to "GaussianMixture" has incompatible type "None"' in li for li in lines)
    assert any('Argument "damping" to "ngem" has incompatible type "list' in line for line in lines)
