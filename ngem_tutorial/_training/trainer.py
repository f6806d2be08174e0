"""What drives the compiled programs of a training: orders of the examples, failures, choices."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ngem_tutorial._training.compilation import compiled
from ngem_tutorial._training.data import Data
from ngem_tutorial._training.program import (
    Network,
    Optimizer,
    Program,
    State,
    Window,
    advance,
    check_shapes,
    evaluate,
    initialise,
    run_keys,
    split,
)
from ngem_tutorial.methods import Method
from ngem_tutorial.networks import InitialMeans
from ngem_tutorial.objectives import Objective

__all__ = ["Failure", "Settings", "Trainer"]


class Failure(NamedTuple):
    """The first non-finite value of a run."""

    seed: int
    """Seed of the run."""
    update: int
    """Number of updates after which the value was there."""
    parameter: str
    """Path of the parameter, or `"loss"` if the loss alone was not finite."""


@dataclasses.dataclass(frozen=True)
class Settings:
    """The arguments of `train`, checked."""

    make_model: Any
    method: Method
    relaxation: optax.Schedule | None
    optimizer: Optimizer
    batch_size: int
    seeds: np.ndarray
    rates: np.ndarray
    metrics: Mapping[str, Objective]
    probes: Mapping[str, Callable[[Any], Any]]
    initial_means: InitialMeans | None
    """How means are chosen among the targets; None: they stay where the module has them."""
    must_set_means: bool
    """Whether it is an error where that cannot be done."""


class Orders:
    """A uniformly random order of the examples for each epoch and seed.

    In epoch `e` it is `jax.random.permutation(fold_in(key, e), N)` with the seed's shuffling key.
    JAX sorts by random numbers for it; in the compiled program, on a CPU, that took a seventh of
    the time of a training. Here NumPy sorts, on the host, some epochs at a time, and those that
    come next while the program computes. The epochs must be asked for in order.
    """

    CAPACITY = 2**17
    """Rows that are held at once, for all seeds together; one epoch at least."""

    def __init__(self, seeds: np.ndarray, size: int, num_epochs: int) -> None:
        self._keys = jax.vmap(lambda seed: run_keys(seed)[1])(jnp.asarray(seeds))
        self._size, self._num_epochs = size, num_epochs
        # As JAX: so often that two examples hardly share all of their random numbers.
        self._rounds = math.ceil(3.0 * math.log(max(1, size)) / math.log(2**32 - 1))
        self.epochs = max(1, self.CAPACITY // (size * len(seeds)))
        """Number of epochs that are held at once."""
        self.first = -self.epochs
        """The first of them."""
        self.rows = jnp.zeros((len(seeds), self.epochs, size), jnp.int32)
        """Shape `(S, epochs, N)`."""
        self._bits: tuple[int, jax.Array] | None = None
        self._next: tuple[int, np.ndarray] | None = None

    def move_to(self, epoch: int) -> None:
        """Hold an epoch, the same or a later one than before."""
        if epoch >= self.first + self.epochs:
            self.first += self.epochs * ((epoch - self.first) // self.epochs)
            if self._next is None or self._next[0] != self.first:
                self._next = self.first, _sorted_by(np.asarray(self._draw(self.first)))
            self.rows, self._next = jnp.asarray(self._next[1]), None
            after = self.first + self.epochs
            if after < self._num_epochs:
                # Asked of the device before the updates are: it works in that order.
                self._bits = after, self._draw(after)

    def prepare(self) -> None:
        """Sort what comes after the epochs that are held; to be called while the device works."""
        if self._bits is not None:
            after, bits = self._bits
            self._next, self._bits = (after, _sorted_by(np.asarray(bits))), None

    def _draw(self, first: int) -> jax.Array:
        epochs = first + jnp.arange(self.epochs)
        return _random_bits(self._keys, epochs, self._rounds, self._size)


@partial(jax.jit, static_argnums=(2, 3))
def _random_bits(keys: jax.Array, epochs: jax.Array, rounds: int, size: int) -> jax.Array:
    """The random numbers that `jax.random.permutation` sorts by, shape `(S, epochs, rounds, N)`."""

    def one(key: jax.Array, epoch: jax.Array) -> jax.Array:
        key, bits = jax.random.fold_in(key, epoch), []
        for _ in range(rounds):
            key, subkey = jax.random.split(key)
            bits.append(jax.random.bits(subkey, (size,), jnp.uint32))
        return jnp.stack(bits) if bits else jnp.zeros((0, size), jnp.uint32)

    return jax.vmap(jax.vmap(one, (None, 0)), (0, None))(keys, epochs)


def _sorted_by(bits: np.ndarray) -> np.ndarray:
    """Sort 0, 1, ... by the random numbers of each round, `(..., rounds, N)` to `(..., N)`."""
    places = np.arange(bits.shape[-1], dtype=np.uint64)
    rows = np.broadcast_to(places.astype(np.int32), (*bits.shape[:-2], bits.shape[-1]))
    for numbers in np.moveaxis(bits, -2, 0):
        # Number and place in one word: a plain sort is stable then, and fast.
        words = np.sort((numbers.astype(np.uint64) << np.uint64(32)) | places, axis=-1)
        order = (words & np.uint64(2**32 - 1)).astype(np.int64)
        rows = np.take_along_axis(rows, order, axis=-1)
    return rows


class Trainer:
    """The state of a training, and the programs that move it on.

    Made from them, it checks shapes, compiles and initialises.

    Args:
        settings: checked arguments.
        data: for the updates.
        judged: for the metrics, by name.
        num_updates: number of updates that will be asked for.
    """

    def __init__(
        self, settings: Settings, data: Data, judged: Mapping[str, Data], num_updates: int
    ) -> None:
        network = Network.of(settings.make_model)
        program = Program(
            network.training,
            settings.method,
            settings.relaxation,
            settings.optimizer,
            settings.batch_size,
        )
        check_shapes(network, program, settings.metrics, data, judged)
        targets = _targets(settings, network.num_components, data)
        start = time.perf_counter()
        self._seeds = settings.seeds
        self._names = _names(network.params)
        self._batches = data.size // settings.batch_size
        num_epochs = -(-num_updates // self._batches)
        self._orders = Orders(settings.seeds, data.size, num_epochs)
        self._rates = jnp.asarray(settings.rates)
        self._data = data.to_device()
        self._judged = {
            name: self._data if part is data else part.to_device() for name, part in judged.items()
        }
        self.done, self._recorded = 0, 0
        if targets is data.y:
            targets = self._data.y
        self.state = self._initialise(settings, program, targets)
        metrics, probes = dict(settings.metrics), dict(settings.probes)
        self._advance = compiled(
            partial(advance, program), *self._arguments(0), key=("advance", program)
        )
        self._evaluate = compiled(
            partial(evaluate, network.evaluation, metrics, probes),
            self.state,
            self._judged,
            key=("evaluate", network.evaluation, *metrics.items(), "probes", *probes.items()),
        )
        self.network = network.evaluation
        self.failures: tuple[Failure, ...] = ()
        self.compile_seconds = time.perf_counter() - start

    def _initialise(self, settings: Settings, program: Program, targets: Any) -> State:
        maker, given = settings.make_model, None
        if not isinstance(maker, type) and hasattr(maker, "eval"):  # a module
            maker, given = None, split(maker)[1:]
        x = self._data.take(slice(0, settings.batch_size)).x
        arguments = jnp.asarray(self._seeds), self._rates, x, given, targets
        method = settings.initial_means or "kmeans++"  # not used where there are no targets
        key = ("initialise", maker, program, method)
        block = partial(initialise, maker, program, method=method)
        return compiled(block, *arguments, key=key)(*arguments)

    def _arguments(self, stop: int, every: int | None = None) -> tuple[Any, ...]:
        every = max(1, stop - self.done) if every is None else every
        window = Window(self.done, stop, self._recorded, self._orders.first, every)
        window = Window(*map(np.int32, window))
        return self.state, self._rates, self._orders.rows, self._data, window

    def advance(self, point: int) -> int:
        """Do the updates up to a recorded point.

        Args:
            point: number of updates, not fewer than done.

        Returns:
            How many updates that were.
        """
        before = self.done
        while self.done < point:
            self._orders.move_to(self.done // self._batches)
            last = (self._orders.first + self._orders.epochs) * self._batches
            self._step(min(point, last))
        self._recorded = point
        return point - before

    def _step(self, stop: int) -> None:
        """One call of the program; if a run fails in it, a second one to see where."""
        state = self._advance(*self._arguments(stop))
        self._orders.prepare()
        failed = np.asarray(state.failed_at) >= 0
        if failed.sum() > len(self.failures):
            # Looked at after each update, it costs 3 %, and so only here.
            state = self._advance(*self._arguments(stop, every=1))
            updates, leaves = jax.device_get((state.failed_at, state.failed_leaf))
            self.failures = tuple(
                Failure(int(seed), int(update), self._names[leaf])
                for seed, update, leaf in zip(self._seeds, updates, leaves, strict=True)
                if update >= 0
            )
        self.state, self.done = state, stop

    def evaluate(self) -> dict[str, Any]:
        """Return metrics, loss and probes of the state, on the host, leading axis `S`."""
        return jax.device_get(self._evaluate(self.state, self._judged))

    @staticmethod
    def choose(mask: np.ndarray, new: State, old: State) -> State:
        """Return the states of the runs in a mask from `new`, the others from `old`."""
        if mask.all():
            return new
        if not mask.any():
            return old
        arguments = jnp.asarray(mask), new, old
        return compiled(_choose, *arguments, key="choose")(*arguments)


def _targets(settings: Settings, num_components: int | None, data: Data) -> Any:
    """The targets that initial means are chosen from, shape `(N, D)`; None if they are not."""
    if settings.initial_means is None:
        return None
    y = data.y
    if y.ndim > 2 or data.weights is not None:
        rows = y.reshape(-1, y.shape[-1])
        y = rows if data.weights is None else rows[np.asarray(data.weights).ravel() > 0]
    if num_components is not None and len(y) >= num_components:
        return y if y is data.y else jnp.asarray(y, float)
    if settings.must_set_means:
        reason = f"there are fewer targets than components, {len(y)} for {num_components}"
        if num_components is None:
            reason = (
                "the model has initial means, or was trained before, or has no `set_initial_means`"
            )
        raise ValueError(
            f"initial_means must be 'own' or left out, got {settings.initial_means!r}: {reason}"
        )
    return None


def _choose(mask: jax.Array, new: State, old: State) -> State:
    def leaf(a: jax.Array, b: jax.Array) -> jax.Array:
        return jnp.where(mask.reshape(-1, *(1,) * (a.ndim - 1)), a, b)

    return jax.tree.map(leaf, new, old)


def _names(params: Any) -> list[str]:
    """Names of the parameters and, last, of the loss."""
    paths = [path for path, _ in jax.tree_util.tree_leaves_with_path(params)]
    names = [jax.tree_util.keystr(path, simple=True, separator=".") for path in paths]
    return [*(name.removesuffix(".value") for name in names), "loss"]
