"""The three programs of a training: the start, the updates and the evaluation, for every seed."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from ngem_tutorial._checks import described
from ngem_tutorial._training.data import Data
from ngem_tutorial.methods import Method
from ngem_tutorial.mixtures import GaussianMixture, check_mixture
from ngem_tutorial.networks import InitialMeans, choose_initial_means
from ngem_tutorial.objectives import Objective, scale_unit
from ngem_tutorial.optimizers import KFAC
from ngem_tutorial.power import PowerSchedule, balance, pooled_unit, update_shares

__all__ = [
    "Network",
    "Program",
    "State",
    "Window",
    "advance",
    "check_shapes",
    "evaluate",
    "initialise",
    "run_keys",
]

Optimizer = Callable[..., optax.GradientTransformation]
Params = Any
_EVALUATION_BATCH = 1024
"""Examples whose metrics are computed at once, a bound on the memory."""
_NO_EPOCH = 2**32 - 1
"""What is folded into the shuffling key, in place of an epoch, for what the optimizer draws."""


class Network(NamedTuple):
    """A module without its values."""

    training: Any
    """Structure in training mode."""
    evaluation: Any
    """Structure in evaluation mode."""
    params: Params
    """Shapes of the parameters."""
    rest: Any
    """Shapes of the rest of the state."""
    num_components: int | None
    """`K` if the means can be set and the module was made without, else None."""

    @classmethod
    def of(cls, make_model: Callable[[nnx.Rngs], Any] | nnx.Module) -> Network:
        """Describe a module, which trains in training mode, or what its maker makes.

        The latter trains in the mode that it was made in: what the maker froze stays frozen.

        Raises:
            ValueError: if the maker makes something else.
        """
        is_trained = isinstance(make_model, nnx.Module)
        if is_trained:
            module: Any = nnx.eval_shape(lambda: nnx.clone(make_model))
            module.train()
        else:
            module = nnx.eval_shape(lambda: _made(make_model))
            for mode in ("deterministic", "use_running_average"):
                is_open = partial(_is_open, mode)
                module.set_attributes(is_open, **{mode: False}, raise_if_not_found=False)
        training, params, rest = split(module)
        module.eval()
        number = None
        can = not is_trained and callable(getattr(module, "set_initial_means", None))
        if can and not getattr(module, "has_initial_means", False):
            number = getattr(module, "num_components", None)
        return cls(training, split(module)[0], params, rest, number)


def _made(maker: Callable[[nnx.Rngs], Any]) -> nnx.Module:
    module = maker(nnx.Rngs(0))
    if not isinstance(module, nnx.Module):
        raise ValueError(
            "model must be a Flax NNX module or a function of nnx.Rngs that builds one, got a "
            f"function that returned {module if module is None else type(module).__name__}"
        )
    return module


def _is_open(mode: str, _: Any, module: Any) -> bool:
    """Whether a module was made without saying which of two modes it is in."""
    return getattr(module, mode, False) is None


def split(module: Any) -> tuple[Any, Params, Any]:
    """Return a module's structure, its parameters and the rest of its state."""
    parts: Any = nnx.split(module, nnx.Param, ...)
    return parts


def merge(network: Any, params: Params, rest: Any) -> Any:
    """Return the module of a structure and its state, whose variables belong to this trace."""
    return nnx.merge(network, *jax.tree.map(lambda leaf: leaf, (params, rest)))


class Program(NamedTuple):
    """What the updates depend on besides arrays."""

    network: Any
    """Structure of the module in training mode."""
    objective: Method
    relaxation: optax.Schedule | None
    optimizer: Optimizer
    batch_size: int

    @property
    def balanced(self) -> bool:
        """Whether the E-step needs the running mean of the responsibilities."""
        return isinstance(self.relaxation, PowerSchedule) and self.relaxation.strength > 0

    def values(
        self, mixture: Any, y: jax.Array, weights: Any, step: jax.Array, shares: Any
    ) -> jax.Array:
        """The objective of a batch before an update, a value per example."""
        options: dict[str, Any] = {}
        if isinstance(self.relaxation, PowerSchedule):
            schedule, now = self.relaxation, self.relaxation(step)
            # A power that stays is known before tracing: its formula is the cheaper one.
            exponent = now.exponent if schedule.fade > 0 else schedule.exponent
            options |= {"exponent": exponent, "relaxation": now.relaxation}
            if self.balanced:
                options["balance"] = balance(shares, now.strength)
        elif self.relaxation is not None:
            options["relaxation"] = self.relaxation(step)
        if self.objective.unit != "target":
            check_mixture(mixture)
            unit = scale_unit(mixture, weights if mixture.batch_shape else None)
            options["unit"] = pooled_unit(unit) if self.objective.unit == "pooled" else unit
        return self.objective.objective(mixture, y, **options)

    def updated_shares(
        self, shares: jax.Array, mixture: Any, y: jax.Array, weights: Any, step: Any, rate: float
    ) -> jax.Array:
        """The running mean of the responsibilities after a batch; as it is where none is used."""
        if not isinstance(self.relaxation, PowerSchedule) or not self.balanced:
            return shares
        used = balance(shares, self.relaxation(step).strength)
        return update_shares(shares, mixture, y, rate, balance=used, weights=weights)

    def transformation(
        self, rate: jax.Array, rest: Any, x: Any, key: jax.Array
    ) -> optax.GradientTransformationExtraArgs:
        """The optimizer; K-FAC needs the model, the batch and a key for it."""
        if not isinstance(self.optimizer, KFAC):
            return optax.with_extra_args_support(self.optimizer(rate))
        return self.optimizer(rate, lambda params, x: merge(self.network, params, rest)(x), x, key)


class State(NamedTuple):
    """What changes during training; every leaf has a leading axis of seeds."""

    params: Params
    rest: Any
    optimizer: Any
    key: jax.Array
    loss: jax.Array
    """Mean of the loss since the last recorded point."""
    failed_at: jax.Array
    """Number of updates after which a value was first found not to be finite, -1 if none."""
    failed_leaf: jax.Array
    """Position of the first such parameter, their number for the loss."""
    shares: jax.Array
    """Running mean of the responsibilities, shape `(K,)`; `(0,)` where none is used."""


class Window(NamedTuple):
    """The updates of one call; whole numbers, all of them data of the program."""

    start: Any
    stop: Any
    since: Any
    """The last recorded point."""
    epoch: Any
    """The epoch of the first row of `orders`."""
    every: Any
    """Updates between two looks at whether everything is finite."""


def run_keys(seed: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The keys of a run: for the model's random streams, and for the orders and the optimizer.

    Args:
        seed: of the run.

    Returns:
        Two JAX random keys.
    """
    model_key, key = jax.random.split(jax.random.key(seed))
    return model_key, key


def initialise(
    make_model: Callable[[nnx.Rngs], Any] | None,
    program: Program,
    seeds: jax.Array,
    rates: jax.Array,
    x: Any,
    given: tuple[Params, Any] | None,
    targets: jax.Array | None,
    method: InitialMeans = "kmeans++",
) -> State:
    """Build the state of each seed before the first update.

    Args:
        make_model: of `train`, or None for the given parameters and rest of the state.
        program: the rest of the settings.
        seeds: shape `(S,)`.
        rates: learning rates, shape `(S,)`.
        x: inputs of one batch.
        given: without an axis of seeds.
        targets: shape `(N, D)`, those that the means are chosen from, or None to leave them.
        method: how.

    Returns:
        The state.
    """

    def one(seed: jax.Array, rate: jax.Array) -> State:
        model_key, key = run_keys(seed)
        if make_model is not None:
            rngs = nnx.Rngs(model_key)
            model = make_model(rngs)
            if targets is not None:  # drawn last: all else is as without
                number = model.num_components
                means = choose_initial_means(rngs(), targets, number, method=method)
                model.set_initial_means(means)
            params, rest = split(model)[1:]
        else:
            assert given is not None
            params, rest = given
        return State(
            params=params,
            rest=rest,
            optimizer=program.transformation(rate, rest, x, key).init(params),
            key=key,
            loss=jnp.array(jnp.nan, float),
            failed_at=jnp.array(-1, jnp.int32),
            failed_leaf=jnp.array(-1, jnp.int32),
            shares=first_shares(params, rest),
        )

    def first_shares(params: Params, rest: Any) -> jax.Array:
        if not program.balanced:
            return jnp.zeros(0)
        mixture = jax.eval_shape(lambda: merge(program.network, params, rest)(x))
        return _equal_shares(program, mixture)

    return _over_seeds(one)(seeds, rates)


def advance(
    program: Program,
    state: State,
    rates: jax.Array,
    orders: jax.Array,
    data: Data,
    window: Window,
) -> State:
    """Do the updates of a window.

    Args:
        program: the settings.
        state: before.
        rates: learning rates, shape `(S,)`.
        orders: rows of the data for some epochs, shape `(S, epochs, N)`.
        data: the training data.
        window: which updates.

    Returns:
        The state afterwards.
    """
    batches = data.size // program.batch_size

    def update(step: jax.Array, s: State, rate: jax.Array, order: jax.Array) -> State:
        epoch, batch = jnp.divmod(step, batches)
        at = (epoch - window.epoch, batch * program.batch_size)
        rows = jax.lax.dynamic_slice(order, at, (1, program.batch_size))[0]
        x, y, weights = data.take(rows)

        def mean_loss(params: Params) -> tuple[jax.Array, Any]:
            model = merge(program.network, params, s.rest)
            mixture = model(x)
            values = program.values(mixture, y, weights, step, s.shares)
            shares = program.updated_shares(s.shares, mixture, y, weights, step, 1.0 / batches)
            if weights is not None:
                values = jnp.where(weights > 0, weights * values, 0)
            return jnp.mean(values), (split(model)[2], shares)

        def mean_value(params: Params, step: Any = None) -> jax.Array:
            """For line searches, which look for the names of all extra arguments here."""
            return mean_loss(params)[0]

        (loss, (rest, shares)), gradient = jax.value_and_grad(mean_loss, has_aux=True)(s.params)
        key = jax.random.fold_in(jax.random.fold_in(s.key, _NO_EPOCH), step)
        transformation = program.transformation(rate, s.rest, x, key)
        change, optimizer = transformation.update(
            gradient,
            s.optimizer,
            s.params,
            step=step,
            value=loss,
            grad=gradient,
            value_fn=mean_value,
        )
        return s._replace(
            params=optax.apply_updates(s.params, change),
            rest=rest,
            shares=shares,
            optimizer=optimizer,
            loss=s.loss + (loss - s.loss) / (step - window.since + 1),
        )

    def check(s: State, step: jax.Array) -> State:
        finite = [jnp.isfinite(leaf).all() for leaf in jax.tree.leaves((s.params, s.loss))]
        bad = ~jnp.stack(finite)
        first = (s.failed_at < 0) & bad.any()
        return s._replace(
            failed_at=jnp.where(first, step, s.failed_at),
            failed_leaf=jnp.where(first, jnp.argmax(bad).astype(jnp.int32), s.failed_leaf),
        )

    def many(s: State, rate: jax.Array, order: jax.Array) -> State:
        def part(carry: tuple[jax.Array, State]) -> tuple[jax.Array, State]:
            step, s = carry
            end = jnp.minimum(step + window.every, window.stop)
            s = jax.lax.fori_loop(step, end, lambda i, s: update(i, s, rate, order), s)
            return end, check(s, end)

        s = s._replace(loss=jnp.where(window.start == window.since, 0.0, s.loss))
        start = (window.start, s)
        return jax.lax.while_loop(lambda carry: carry[0] < window.stop, part, start)[1]

    return _over_seeds(many)(state, rates, orders)


def evaluate(
    network: Any,
    metrics: Mapping[str, Objective],
    probes: Mapping[str, Callable[[Any], Any]],
    state: State,
    data: Mapping[str, Data],
) -> dict[str, Any]:
    """The metrics averaged over data, the probes and the loss, for every seed.

    Args:
        network: structure of the module in evaluation mode.
        metrics: of a mixture and targets, a value per example.
        probes: of the module.
        state: the state.
        data: by name.

    Returns:
        The metrics under the name of the data, and `"loss"` and `"probes"`; leading axis `S`.
    """

    def one(s: State) -> dict[str, Any]:
        def sums(batch: Data) -> dict[str, jax.Array]:
            # Merged anew for each batch: a module may change its state when it is called.
            mixture = merge(network, s.params, s.rest)(batch.x)
            return {n: _weighted_sum(f(mixture, batch.y), batch) for n, f in metrics.items()}

        values: dict[str, Any] = {name: _mean(sums, part) for name, part in data.items()}
        recorded = {name: probe(merge(network, s.params, s.rest)) for name, probe in probes.items()}
        return values | {"loss": s.loss, "probes": recorded}

    return _over_seeds(one)(state)


def _weighted_sum(values: jax.Array, batch: Data) -> jax.Array:
    # What depends on the mixture alone is one number where the mixture has no batch axes.
    values = jnp.broadcast_to(values, batch.y.shape[:-1])
    if batch.weights is None:
        return jnp.sum(values)
    return jnp.sum(jnp.where(batch.weights > 0, batch.weights * values, 0))


def _mean(sums: Callable[[Data], dict[str, jax.Array]], data: Data) -> dict[str, jax.Array]:
    """Means over all examples, from sums over batches and over what is left."""
    size = min(_EVALUATION_BATCH, data.size)
    number = data.size // size
    whole = jax.tree.map(
        lambda leaf: leaf[: number * size].reshape(number, size, *leaf.shape[1:]), tuple(data)
    )
    parts = [jax.lax.map(lambda batch: sums(Data(*batch)), whole)]
    if number * size < data.size:
        parts.append(sums(data.take(slice(number * size, None))))
    count = data.y.size / data.y.shape[-1]
    return jax.tree.map(lambda *sums: sum(jnp.sum(part) for part in sums) / count, *parts)


def _over_seeds(one: Callable[..., Any]) -> Callable[..., Any]:
    """Batch a function over a leading axis of seeds.

    A single run is not batched: on a CPU that doubled the time of a large network's update.
    """

    def all_seeds(*arguments: Any) -> Any:
        if jax.tree.leaves(arguments)[0].shape[0] > 1:
            return jax.vmap(one)(*arguments)
        result = one(*jax.tree.map(lambda leaf: leaf[0], arguments))
        return jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], result)

    return all_seeds


# ------------------------------------------------------------------------------ before any of it


def check_shapes(
    network: Network,
    program: Program,
    metrics: Mapping[str, Objective],
    data: Data,
    judged: Mapping[str, Data],
) -> None:
    """Check on shapes alone that model, objective, metrics and data fit together.

    Args:
        network: the module.
        program: the settings.
        metrics: of a mixture and targets, a value per example.
        data: for the updates.
        judged: for the metrics, by name.

    Raises:
        ValueError: if the model does not return one mixture, or a function not one value, for each
            target of a batch.
    """
    batch = data.take(slice(0, program.batch_size))
    mixture = _abstract_mixture(network, batch)
    with _blaming(mixture, "objective"):
        values = jax.eval_shape(
            lambda m, y, w: program.values(m, y, w, jnp.array(0), _equal_shares(program, m)),
            mixture,
            batch.y,
            batch.weights,
        )
    _check_values("objective", values, batch)
    for part in judged.values():
        batch = part.take(slice(0, program.batch_size))
        mixture = _abstract_mixture(network, batch)
        for name, metric in metrics.items():
            with _blaming(mixture, f"metrics[{name!r}]"):
                values = jax.eval_shape(metric, mixture, batch.y)
            alone = getattr(mixture, "batch_shape", None) == () == getattr(values, "shape", None)
            if not alone or _depends_on_targets(metric, mixture, batch.y):
                _check_values(f"metrics[{name!r}]", values, batch)


def _equal_shares(program: Program, mixture: Any) -> jax.Array:
    """Where the running mean of the responsibilities starts; nothing where none is used."""
    k = mixture.num_components if program.balanced else 0
    return jnp.full(k, 1.0 / max(1, k))


@contextlib.contextmanager
def _blaming(mixture: Any, name: str) -> Iterator[None]:
    """Where a function fails on plain arrays, say that they are what the model returned."""
    try:
        yield
    except (AttributeError, TypeError, ValueError) as error:
        if isinstance(mixture, tuple | list | dict):
            got = f"a {type(mixture).__name__}"
        elif isinstance(mixture, jax.ShapeDtypeStruct):
            got = described(mixture)
        else:
            raise
        raise ValueError(
            "the model must return a GaussianMixture, or with standardize=False what objective and "
            f"metrics take; it returned {got}, on which {name} fails: {error}"
        ) from error


def _depends_on_targets(metric: Objective, mixture: Any, y: Any) -> bool:
    """Whether a metric of one mixture needs the targets; then it needs each by itself."""
    many = jax.ShapeDtypeStruct((1, *y.shape), jnp.asarray(y).dtype)
    try:  # JAX refuses to give the one result of what differs along the mapped axis.
        jax.eval_shape(jax.vmap(metric, in_axes=(None, 0), out_axes=None), mixture, many)
    except ValueError:
        return True
    return False


def _abstract_mixture(network: Network, batch: Data) -> Any:
    """What the module returns for a batch, without values."""

    def predict(params: Params, rest: Any, x: Any) -> Any:
        return merge(network.training, params, rest)(x)

    mixture = jax.eval_shape(predict, network.params, network.rest, batch.x)
    shape = batch.y.shape[:-1]
    if isinstance(mixture, GaussianMixture) and mixture.batch_shape not in (shape, ()):
        inputs = [jnp.shape(leaf) for leaf in jax.tree.leaves(batch.x)]
        raise ValueError(
            f"the model must return one mixture for each target: for y of shape {batch.y.shape} "
            f"and x of shape {', '.join(map(str, inputs))} it returned mixtures of batch shape "
            f"{mixture.batch_shape}, not {shape}. Is there an axis of length one too many in x?"
        )
    return mixture


def _check_values(name: str, values: Any, batch: Data) -> None:
    got, wanted = getattr(values, "shape", None), batch.y.shape[:-1]
    if got != wanted:
        raise ValueError(
            f"{name} must return one value per example, shape {wanted}, got "
            f"{'shape ' + str(got) if got is not None else type(values).__name__}"
            + (": do not take the mean" if got == () else "")
        )
