r"""The optimizers of the paper's Table 5 by name: Adam, Muon, SOAP and K-FAC.

Each entry of `OPTIMIZERS` is an `optimizer` for `ngem_tutorial.loop.train`; `muon(1e-3)` and
`soap(1e-3)` are optax transformations like any other, for `fit` or a loop. They act in the space
of the network's weights, on whatever gradient the objective gives; `ngem` acts before them, in
the space of the mixture's parameters. The paper names the optimizers and their learning rates and
nothing else: every other choice here is ours, and said where it is made.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from ngem_tutorial import _kfac_jax
from ngem_tutorial.mixtures import GaussianMixture

__all__ = ["KFAC", "OPTIMIZERS", "get_optimizer", "muon", "soap"]

Params = Any
Predict = Callable[[Params, Any], GaussianMixture]


def muon(learning_rate: ArrayLike | optax.Schedule) -> optax.GradientTransformation:
    """Muon (Jordan et al., 2024) with the step sizes of Liu et al. (2025).

    The momentum of every matrix, those of the output layers among them, is replaced by a matrix
    with the same singular vectors and singular values near one, times `0.2 sqrt(max(rows,
    columns))`. That gives steps of about Adam's size, so that one learning rate can serve both.
    Vectors (the biases) get Adam, with Nesterov's momentum as in `optax.contrib.muon`, at the same
    learning rate. There is no weight decay. Jordan et al. advise Adam for output layers; like
    optax's default, this one makes no exception, since a network of this size has one hidden
    matrix otherwise.

    Args:
        learning_rate: positive, or a schedule as optax has them.

    Returns:
        An optax transformation.
    """
    return optax.contrib.muon(learning_rate, consistent_rms=0.2)


# ------------------------------------------------------------------------------------------ SOAP


def soap(
    learning_rate: ArrayLike | optax.Schedule,
    *,
    b1: float = 0.95,
    b2: float = 0.95,
    eps: float = 1e-8,
    precondition_frequency: int = 10,
    max_size: int = 10_000,
) -> optax.GradientTransformationExtraArgs:
    """SOAP (Vyas et al., 2025, Algorithm 3): Adam in the eigenbasis of Shampoo's preconditioner.

    For a matrix with gradient `G`, `L` and `R` are moving averages of `G G^T` and `G^T G`. Adam
    runs in their eigenbases, which are refreshed by one step of power iteration and a QR
    decomposition. The second moment is updated on every step. As in the authors' code, the first
    call only initialises the preconditioner and changes no parameter, and a refresh orders the
    basis by decreasing eigenvalue. Vectors get Adam. There is no weight decay.

    Args:
        learning_rate: positive, or a schedule as optax has them, of the number of updates done.
        b1: decay of the momentum, in [0, 1).
        b2: decay of the second moment and of `L` and `R`, in [0, 1).
        eps: added to the root of the second moment.
        precondition_frequency: updates between two refreshes.
        max_size: a side longer than this keeps its own basis.

    Returns:
        An optax transformation whose `update` takes the extra argument `step`, the number of
        updates before this one; without it, the state's own count is used. Batched over seeds a
        count is one number per seed, and each update would pay for a refresh.

    Raises:
        ValueError: if `precondition_frequency` is not positive.
    """
    if precondition_frequency < 1:
        raise ValueError(f"precondition_frequency must be at least 1, got {precondition_frequency}")

    def init(params: Params) -> SoapState:
        leaves = [_initial_leaf(leaf, max_size) for leaf in jax.tree.leaves(params)]
        return SoapState(jnp.array(0, int), leaves)

    def first(leaf: _SoapLeaf, g: jax.Array) -> tuple[jax.Array, _SoapLeaf]:
        leaf = accumulate(leaf, g)
        bases = [None if s is None else jnp.linalg.eigh(s)[1][:, ::-1] for s in leaf.averages]
        return jnp.zeros_like(g), leaf._replace(bases=bases)

    def later(step: jax.Array, leaf: _SoapLeaf, g: jax.Array) -> tuple[jax.Array, _SoapLeaf]:
        # The line numbers are those of Algorithm 3.
        momentum = b1 * leaf.momentum + (1.0 - b1) * g  # 4
        second = b2 * leaf.second + (1.0 - b2) * _rotate(leaf.bases, g) ** 2  # 3, 7
        unbiased = jnp.sqrt(second / (1.0 - b2**step)) + eps
        adam = _rotate(leaf.bases, momentum) / (1.0 - b1**step) / unbiased  # 5, 8
        rate = learning_rate(step) if callable(learning_rate) else jnp.asarray(learning_rate)
        change = -rate * _rotate_back(leaf.bases, adam)  # 10, 11
        leaf = accumulate(leaf._replace(momentum=momentum, second=second), g)
        refresh = step % precondition_frequency == 0  # 15
        return change.astype(g.dtype), jax.lax.cond(refresh, _refresh, lambda leaf: leaf, leaf)

    def accumulate(leaf: _SoapLeaf, g: jax.Array) -> _SoapLeaf:
        outer = (g @ g.T, g.T @ g) if g.ndim == 2 else ()
        averages = [
            None if s is None else b2 * s + (1.0 - b2) * new  # 13, 14
            for s, new in zip(leaf.averages, outer, strict=True)
        ]
        return leaf._replace(averages=averages)

    def update(
        updates: Params, state: SoapState, params: Params = None, *, step: Any = None, **_: Any
    ) -> tuple[Params, SoapState]:
        step = state.updates if step is None else step

        def advance(leaf: _SoapLeaf, g: jax.Array) -> tuple[jax.Array, _SoapLeaf]:
            return jax.lax.cond(step == 0, first, lambda *args: later(step, *args), leaf, g)

        gradients, structure = jax.tree.flatten(updates)
        changes, leaves = zip(*map(advance, state.leaves, gradients), strict=True)
        return jax.tree.unflatten(structure, changes), SoapState(state.updates + 1, list(leaves))

    return optax.GradientTransformationExtraArgs(init, update)


class SoapState(NamedTuple):
    """State of `soap`."""

    updates: jax.Array
    leaves: list[_SoapLeaf]
    """In the order of the parameters' leaves."""


class _SoapLeaf(NamedTuple):
    """State of one parameter of shape `(m, n)`; the last two are empty for a vector."""

    momentum: jax.Array
    second: jax.Array
    """Second moment in the eigenbasis."""
    averages: list[jax.Array | None]
    """`L` and `R`, shapes `(m, m)` and `(n, n)`."""
    bases: list[jax.Array | None]
    """`Q_L` and `Q_R`, likewise."""


def _initial_leaf(leaf: jax.Array, max_size: int) -> _SoapLeaf:
    sides = leaf.shape if leaf.ndim == 2 else ()
    zeros = [None if n > max_size else jnp.zeros((n, n), leaf.dtype) for n in sides]
    return _SoapLeaf(jnp.zeros_like(leaf), jnp.zeros_like(leaf), zeros, list(zeros))


def _rotate(bases: list[jax.Array | None], g: jax.Array) -> jax.Array:
    """`Q_L^T G Q_R`, a missing basis being the standard one."""
    left, right = bases or (None, None)
    g = g if left is None else left.T @ g
    return g if right is None else g @ right


def _rotate_back(bases: list[jax.Array | None], g: jax.Array) -> jax.Array:
    """`Q_L G Q_R^T`."""
    return _rotate([None if q is None else q.T for q in bases], g)


def _refresh(leaf: _SoapLeaf) -> _SoapLeaf:
    """One step of power iteration (Algorithm 4), in the order of decreasing eigenvalues."""
    second, bases = leaf.second, list(leaf.bases)
    for axis, (average, basis) in enumerate(zip(leaf.averages, leaf.bases, strict=True)):
        if average is None or basis is None:
            continue
        powered = average @ basis
        order = jnp.argsort(jnp.sum(basis * powered, axis=0), descending=True)
        bases[axis] = jnp.linalg.qr(powered[:, order])[0]
        second = jnp.take(second, order, axis=axis)
    return leaf._replace(second=second, bases=bases)


# ----------------------------------------------------------------------------------------- K-FAC


@dataclasses.dataclass(frozen=True)
class KFAC:
    """K-FAC (Martens and Grosse, 2015) for a network that returns mixtures, by kfac-jax.

    The gradient is multiplied by the inverse of an approximate Fisher matrix of the weights: one
    block per layer, each the Kronecker product of the second moments of the layer's inputs and of
    its back-propagated gradients. The Fisher matrix is that of the complete data, component and
    target, whose blocks are `fisher.complete_data_fisher`, since the one of the mixture itself has
    no closed form. It is the model's, not the empirical one: as in the paper of K-FAC, each
    update draws one component and target per example from the model and averages over time. It
    does not depend on the objective, so with `ngem` the gradient is preconditioned twice.

    The network must apply each dense layer once to each example; `LabelConditioned` and
    `PlainMixture` do not.

    Args:
        damping: added to each block, factored between its two sides.
        norm_constraint: bound of the squared length, in the approximate Fisher metric, of the step
            that one gradient gives (Ba et al., 2017).
        momentum: of the preconditioned steps.
        decay: of the moving averages of the second moments.
        inverse_period: updates between two inversions.
    """

    damping: float = 1e-3
    norm_constraint: float = 1e-2
    momentum: float = 0.9
    decay: float = 0.95
    inverse_period: int = 5

    def __call__(
        self, learning_rate: ArrayLike, predict: Predict, x: Any, key: jax.Array
    ) -> optax.GradientTransformationExtraArgs:
        """Make the transformation for one update.

        Args:
            learning_rate: positive.
            predict: `predict(params, x)`, the mixtures of a batch.
            x: the batch's inputs, or for `init` any of the same shape, leading axis `B`.
            key: a JAX random key for the draws from the model.

        Returns:
            An optax transformation whose `update` takes the extra argument `step`, the number of
            updates before this one.

        Raises:
            ImportError: if kfac-jax is not installed.
        """
        kfac_jax = _kfac_jax.load()
        estimator = kfac_jax.OptaxPreconditioner(
            lambda params, x: _register_complete_data_model(predict(params, x)),
            damping=self.damping,
            norm_constraint=self.norm_constraint / jnp.square(learning_rate),
            curvature_ema=self.decay,
            inverse_update_period=self.inverse_period,
            pmap_axis_name=None,
            distributed_inverses=False,
            distributed_precon_apply=False,
        )
        descent = optax.sgd(learning_rate, momentum=self.momentum)

        def init(params: Params) -> tuple[Any, Any]:
            with _kfac_jax.without_deprecations():
                return estimator.init((params, x), key), descent.init(params)

        def update(
            updates: Params, state: tuple[Any, Any], params: Params, *, step: Any, **_: Any
        ) -> tuple[Params, tuple[Any, Any]]:
            curvature, velocity = state
            curvature = curvature._replace(count=step)
            with _kfac_jax.without_deprecations():
                if not estimator.estimator.finalized:
                    estimator.estimator.finalize((params, x))
                curvature = estimator.maybe_update(curvature, (params, x), key)
                natural = estimator.apply(updates, curvature)
            change, velocity = descent.update(natural, velocity)
            return change, (curvature, velocity)

        return optax.GradientTransformationExtraArgs(init, update)


def _register_complete_data_model(mixture: GaussianMixture) -> jax.Array:
    """Tell kfac-jax the joint density of component and target whose Fisher matrix is wanted."""
    kfac_jax = _kfac_jax.load()
    weights, scales = jax.lax.stop_gradient((mixture.weights[..., None], mixture.scales))
    kfac_jax.register_categorical_predictive_distribution(mixture.logits)
    for z in (
        jnp.sqrt(weights) / scales * mixture.means,
        jnp.sqrt(2.0 * weights) * jnp.log(mixture.scales),
    ):
        kfac_jax.register_normal_predictive_distribution(
            z.reshape(z.shape[0], math.prod(z.shape[1:])), variance=1.0
        )
    return jnp.zeros(())


OPTIMIZERS: dict[str, Callable[..., optax.GradientTransformation]] = {
    "adam": optax.adam,
    "muon": muon,
    "soap": soap,
    "kfac": KFAC(),
}
"""Optimizers by name, each with its defaults: see `get_optimizer`."""


def get_optimizer(name: str) -> Callable[..., optax.GradientTransformation]:
    """Return the optimizer of a name, the same object at every call.

    Args:
        name: `"adam"` (Kingma and Ba, 2015), `"muon"`, `"soap"` or `"kfac"`.

    Returns:
        An `optimizer` for `ngem_tutorial.loop.train`.

    Raises:
        ValueError: if there is no such optimizer.

    Example:
        >>> from ngem_tutorial import get_optimizer
        >>> from ngem_tutorial.optimizers import muon
        >>> get_optimizer("muon") is muon
        True
    """
    if name not in OPTIMIZERS:
        raise ValueError(f"optimizer must be one of {', '.join(OPTIMIZERS)}, got {name!r}")
    return OPTIMIZERS[name]
