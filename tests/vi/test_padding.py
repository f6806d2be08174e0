"""Room for components that are not there changes no number."""

from __future__ import annotations

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ngem_tutorial.vi import fitting, get_design, initial_mixture
from ngem_tutorial.vi._iteration import run_block
from ngem_tutorial.vi.sampling import FromComponents

pytestmark = pytest.mark.usefixtures("x64")
KEY = jax.random.key(0)


def log_density(x: jax.Array) -> jax.Array:
    return -0.5 * (x[0] - 1.0) ** 2 - jnp.cosh(x[1])


@pytest.mark.parametrize("codeword", ["SEMTRON", "SEPYFUX"])
def test_room_for_more_components_changes_no_number(codeword: str) -> None:
    design = get_design(codeword)
    if codeword[2] == "M":
        design = dataclasses.replace(design, sampling=FromComponents(number=20))
    start = initial_mixture(KEY, 2, 3, spread=2.0)
    start = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), start)
    problem = fitting.Problem(log_density, design, False, 32)
    state = fitting._first_state(problem, start, KEY)
    found = []
    for size in (8, 32):
        padded = fitting._grown(problem, state, size)
        after, record = jax.jit(partial(run_block, problem), static_argnums=2)(
            padded, jnp.asarray(1.0), 10, jnp.asarray(10)
        )
        found.append((after.gaussians.means[:3], after.log_weights[:3], record.elbo))
    for one, other in zip(*found, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-12)
