"""Fit a Gaussian mixture to an unnormalised density: `fit_density` and what it returns."""

from __future__ import annotations

import dataclasses
import time
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final

import jax
import jax.numpy as jnp
import numpy as np

from ngem_tutorial._checks import (
    check_number,
    check_values,
    check_whole,
    checked_key,
    real_array,
)
from ngem_tutorial._training.compilation import Program, compiled
from ngem_tutorial._typing import ArrayLike
from ngem_tutorial.components import FullGaussianMixture
from ngem_tutorial.mixtures import GaussianMixture
from ngem_tutorial.vi import adaptation
from ngem_tutorial.vi._gaussians import BUCKETS, Gaussians, bucket, pad
from ngem_tutorial.vi._iteration import Problem, run_block
from ngem_tutorial.vi._progress import progress_bar
from ngem_tutorial.vi._state import Archive, State
from ngem_tutorial.vi._store import Store, grow
from ngem_tutorial.vi.checks import RUN_AWAY, TargetError, check_target, checked_start
from ngem_tutorial.vi.design import Design, get_design
from ngem_tutorial.vi.estimators import More

__all__ = ["VIFit", "fit_density", "initial_mixture"]


@dataclasses.dataclass(frozen=True, eq=False)
class VIFit:
    """What `fit_density` found, and how it got there.

    Example:
        >>> import jax
        >>> from ngem_tutorial.vi import fit_density
        >>> fit = fit_density(lambda x: -0.5 * x @ x, 2, key=jax.random.key(0), num_iterations=60)
        >>> longer = fit.extend(30)
        >>> int(longer.history["iteration"][-1])
        90
    """

    mixture: FullGaussianMixture
    """The approximation `q`."""
    history: Mapping[str, np.ndarray]
    """A value for each iteration: `iteration`, `elbo` (nats, of the mixture before it, estimated
    from its new samples), `elbo_error` (the standard error, from the spread of all samples in
    use), `evaluations` (of the target so far), `num_components`, `seconds` (since the start,
    without compiling). Samples without density are left out of the ELBO, although it is, strictly,
    minus infinity where there are any."""
    state: State
    """What the next iteration depends on."""
    problem: Problem
    """The target and the design."""
    temperature: float
    """`tau`."""
    compile_seconds: float
    """Time spent on compiling, and on making room for more components."""

    @property
    def evaluations(self) -> int:
        """At how many samples the target was evaluated."""
        return int(self.state.evaluations)

    @property
    def rejected(self) -> int:
        """At how many of them the density was zero; those are not used."""
        return int(self.state.rejected)

    @property
    def refused(self) -> int:
        """How many updates were not made.

        Of a component whose precision would not have been positive definite, or that would have
        been too narrow for its precision of numbers; or of the weights where the rewards were not
        finite.
        """
        return int(self.state.refused)

    def __repr__(self) -> str:
        """Say what was found, in a line."""
        elbo, error = self.history["elbo"], self.history["elbo_error"][-1]
        number, done = self.mixture.num_components, len(elbo)
        # Noise apart: the medians of the last two tenths of the iterations.
        part = max(1, done // 10)
        last, before = np.median(elbo[-part:]), np.median(elbo[-2 * part :][:part])
        rise = float(last - before) if np.isfinite([last, before]).all() else 0.0
        rising = f", {rise:.2g} more than {part} before" if rise > max(0.1, 3.0 * error) else ""
        return (
            f"VIFit({number} component{'s' * (number > 1)} in {self.mixture.dim} dimensions by "
            f"{self.problem.design.codeword}: ELBO {elbo[-1]:.6g} +- {error:.2g} nats after {done} "
            f"iterations{rising}, {self.evaluations} evaluations)"
        )

    def extend(self, num_iterations: int, *, progress: bool | None = None) -> VIFit:
        """Go on from here: the same numbers as if it had not stopped.

        Args:
            num_iterations: how many more.
            progress: as in `fit_density`.

        Returns:
            A new object with the whole history.

        Raises:
            ValueError: if the number is not positive.
            TargetError: as `fit_density`.
        """
        check_whole("num_iterations", num_iterations, 1)
        stop = int(self.state.iteration) + num_iterations
        return _run(self, stop, None, progress)


def initial_mixture(
    key: jax.Array,
    dim: int,
    num_components: int = 1,
    *,
    mean: ArrayLike = 0.0,
    spread: ArrayLike = 1.0,
    scale: ArrayLike = 1.0,
) -> FullGaussianMixture:
    """Draw a mixture to start from: means from a normal prior, one covariance for all.

    Args:
        key: a JAX random key.
        dim: `d`.
        num_components: `K`.
        mean: of the prior of the means, a number or shape `(d,)`.
        spread: its standard deviations, a number or shape `(d,)`, zero or more.
        scale: standard deviations of the components, a number or shape `(d,)`, positive.

    Returns:
        The mixture, with equal weights.

    Raises:
        ValueError: if a shape does not fit or a value is out of range.

    Example:
        >>> import jax
        >>> from ngem_tutorial.vi import initial_mixture
        >>> initial_mixture(jax.random.key(0), 2, 5, spread=3.0).means.shape
        (5, 2)
    """
    dim = check_whole("dim", dim, 1)
    number = check_whole("num_components", num_components, 1, BUCKETS[-1])
    values = {"mean": mean, "spread": spread, "scale": scale}
    arrays = {name: real_array(name, value) for name, value in values.items()}
    for name, value in arrays.items():
        if value.shape not in ((), (dim,)):
            raise ValueError(
                f"{name} must be a number or have shape (d,) = ({dim},), got {value.shape}"
            )
    check_values("mean", mean, "finite", np.isfinite)
    check_values("spread", spread, "finite and not negative", lambda s: np.isfinite(s) & (s >= 0))
    check_values("scale", scale, "finite and positive", lambda s: np.isfinite(s) & (s > 0))
    noise = jax.random.normal(key, (number, dim))
    means = arrays["mean"] + arrays["spread"] * noise
    factor = jnp.diag(jnp.broadcast_to(arrays["scale"].astype(means.dtype), (dim,)))
    factors = jnp.broadcast_to(factor, (number, dim, dim))
    return FullGaussianMixture(jnp.zeros(number), means, factors)


def fit_density(
    log_density: Callable[..., jax.Array],
    dim: int,
    *,
    key: jax.Array,
    method: str | Design = "SAMTRON",
    num_iterations: int = 500,
    max_evaluations: int | None = None,
    start: GaussianMixture | FullGaussianMixture | None = None,
    temperature: float = 1.0,
    noisy: bool = False,
    chunk: int = 128,
    progress: bool | None = None,
) -> VIFit:
    """Fit a Gaussian mixture `q` to a density `p~` that is known up to a constant.

    It maximises the ELBO `E_q[log p~ - tau log q]` by natural gradients of the components and of
    the weights. With the temperature `tau = 1` that minimises the reverse Kullback-Leibler
    divergence of `q` from the target.

    Args:
        log_density: `log p~`, a function of a point of shape `(d,)` in JAX that returns a number;
            minus infinity where the density is zero. Its gradient is taken by JAX where the method
            needs it; where there is none, `jax.pure_callback` makes a function of JAX of a program,
            for a method with `Z`. The integral of the density must be finite, which is not checked:
            without one the fit runs away, and its `repr` says that the ELBO rises. Nor is an index
            beyond `d`, which JAX moves to the last coordinate. With `noisy` a function of a point
            and a random key. Arrays that a function has inside are constants of the program that is
            compiled for it; those that a `jax.tree_util.Partial` binds are not, so that targets
            that differ in them alone share one program.
        dim: `d`.
        key: a JAX random key; the same key gives the same numbers.
        method: seven letters, one for each module (see `design.MODULES`), or a `Design`.
        num_iterations: how many to do.
        max_evaluations: stop after the block of iterations in which the target has been evaluated
            so often.
        start: a mixture of `d` dimensions without batch axes, for example one that was fitted by
            EM. By default one standard normal component: where the target is far from it or in
            other units, start with one of about its size, see `initial_mixture`. A new component
            has the shape of the first of these, and a size between its size and that of the present
            components.
        temperature: `tau`, positive.
        noisy: whether the log density is an estimate, for example from a minibatch: it then takes
            a random key as its second argument. The noise is in the ELBO of the history too, and
            the adaptation takes it for structure: judge such a fit by `diagnose` with the whole
            density, and prefer a fixed number of components (`E`) and more samples for each.
        chunk: at how many points the target is evaluated together; other draws for another number.
        progress: whether to show a bar; by default where the output is a terminal.

    Returns:
        The mixture, the history and the state.

    Raises:
        ValueError: if an argument is out of range, or `log_density` does not return a number,
            before anything is compiled; or if it is minus infinity at every sample of the first
            block of iterations.
        TargetError: if the target or its gradient is not a number at a sample.
        FloatingPointError: if a mean becomes infinite. A mixture that has become a billion times as
            wide as its start is a warning.

    Example:
        >>> import jax
        >>> from ngem_tutorial.vi import fit_density
        >>> log_density = lambda x: -0.5 * jax.numpy.sum((x - 3.0) ** 2 / 4.0)
        >>> fit = fit_density(log_density, 2, key=jax.random.key(0), num_iterations=60)
        >>> fit.mixture.mean.round(1).tolist()
        [3.0, 3.0]
    """
    dim = check_whole("dim", dim, 1)
    check_whole("num_iterations", num_iterations, 1)
    if max_evaluations is not None:
        check_whole("max_evaluations", max_evaluations, 1)
    check_number("temperature", temperature, "positive", lambda t: (t > 0) & np.isfinite(t))
    design = method if isinstance(method, Design) else get_design(method)
    chunk = check_whole("chunk", chunk, 1)
    key = checked_key(key)
    if not isinstance(noisy, bool):
        raise ValueError(f"noisy must be True or False, got {noisy!r}")
    mixture = None if start is None else checked_start("start", start, dim)
    if mixture is not None and mixture.num_components > BUCKETS[-1]:
        raise ValueError(
            f"start must have at most {BUCKETS[-1]} components, got {mixture.num_components}"
        )
    target = log_density if isinstance(log_density, jax.tree_util.Partial) else None
    function = log_density if target is None else target.func
    problem = Problem(function, design, noisy, chunk)
    dtype = jnp.result_type(float) if mixture is None else mixture.means.dtype
    check_target(log_density, (key,) if noisy else (), jax.ShapeDtypeStruct((dim,), dtype))
    if mixture is None:
        mixture = initial_mixture(key, dim, spread=0.0)
    state = _first_state(problem, mixture, key)._replace(target=target)
    names = ("iteration", "elbo", "elbo_error", "evaluations", "num_components", "seconds")
    history = {name: np.zeros(0) for name in names}
    fit = VIFit(mixture, history, state, problem, float(temperature), 0.0)
    return _run(fit, num_iterations, max_evaluations, progress)


def _first_state(problem: Problem, mixture: FullGaussianMixture, key: jax.Array) -> State:
    design = problem.design
    number, dim = mixture.means.shape
    dtype = mixture.means.dtype
    gaussians = Gaussians.of(mixture.means, mixture.factors)
    choice = design.adaptation
    archive = choice.archive if isinstance(choice, adaptation.AdaptiveNumber) else 1
    rows, slots = design.sampling.room(number), design.sampling.iterations()
    zero = jnp.zeros((), jnp.int32)
    state = State(
        gaussians=gaussians,
        factors=mixture.factors,
        log_weights=mixture.log_weights,
        num_components=zero + number,
        steps=jnp.full(number, design.component_update.first_step, dtype),
        updates=jnp.zeros(number, jnp.int32),
        ridge=jnp.full(number, _first_ridge(design), dtype),
        rewards=jnp.full((number, choice.history), -jnp.inf, dtype),
        weights=jnp.full((number, choice.history), -jnp.inf, dtype),
        weight_step=jnp.asarray(design.weight_update.first_step, dtype),
        elbo=jnp.asarray(-jnp.inf, dtype),
        store=Store.empty(gaussians, rows, slots, gradient=design.estimator.uses_gradient),
        archive=Archive(jnp.zeros((archive, dim), dtype), jnp.full(archive, -jnp.inf, dtype), zero),
        key=key,
        iteration=zero,
        evaluations=zero,
        rejected=zero,
        refused=zero,
        additions=zero,
        bad_point=jnp.zeros(dim, dtype),
        bad_value=jnp.zeros((), dtype),
        bad=jnp.zeros((), bool),
        initial_factor=mixture.factors[0],
        target=None,
    )
    return _grown(problem, state, bucket(number))


def _first_ridge(design: Design) -> float:
    return design.estimator.least if isinstance(design.estimator, More) else 0.0


def _grown(problem: Problem, state: State, size: int) -> State:
    """The state with room for more components."""
    dim = state.factors.shape[-1]
    rows = problem.design.sampling.room(size)
    identity = jnp.eye(dim)
    gaussians = Gaussians(
        pad(state.gaussians.means, size, 0.0),
        pad(state.gaussians.inverses, size, identity),
        pad(state.gaussians.log_dets, size, 0.0),
    )
    return state._replace(
        gaussians=gaussians,
        factors=pad(state.factors, size, identity),
        log_weights=pad(state.log_weights, size, -jnp.inf),
        steps=pad(state.steps, size, 1.0),
        updates=pad(state.updates, size, 0),
        ridge=pad(state.ridge, size, 1.0),
        rewards=pad(state.rewards, size, -jnp.inf),
        weights=pad(state.weights, size, -jnp.inf),
        store=grow(state.store, size, rows),
    )


def _run(fit: VIFit, stop: int, max_evaluations: int | None, progress: bool | None) -> VIFit:
    """Do blocks of iterations up to a number of iterations or evaluations."""
    state, problem, compile_seconds = fit.state, fit.problem, fit.compile_seconds
    temperature = jnp.asarray(fit.temperature, state.factors.dtype)
    columns = {name: [values] for name, values in fit.history.items()}
    clock = float(fit.history["seconds"][-1]) if len(fit.history["seconds"]) else 0.0
    length = problem.design.adaptation.every
    done = int(state.iteration)
    programs: dict[int, Program] = {}
    with progress_bar(progress, done, stop) as show:
        while done < stop:
            start = time.perf_counter()
            # Up to the next iteration after which components are added.
            number = min(length - done % length, stop - done)
            size = len(state.log_weights)
            if size not in programs:
                block, key = partial(_block, problem, length), ("vi block", problem, length)
                programs[size] = compiled(block, state, temperature, np.int32(0), key=key)
            compiling = time.perf_counter() - start
            state, record = programs[size](state, temperature, np.int32(number))
            record = jax.device_get(record)
            done += number
            if bool(state.bad):
                raise TargetError(np.asarray(state.bad_point), float(state.bad_value))
            if int(state.rejected) == int(state.evaluations):
                raise ValueError(
                    "log_density must be above minus infinity at some samples of the start, got "
                    f"minus infinity at all of {int(state.evaluations)}"
                )
            num_components = int(state.num_components)
            if not np.isfinite(state.gaussians.means[:num_components]).all():
                raise FloatingPointError(
                    f"the mixture is infinite after {done} iterations: {RUN_AWAY}"
                )
            if done % length == 0:
                state, more = _adapt(problem, state)
                compiling += more
            compile_seconds += compiling
            clock += time.perf_counter() - start - compiling
            _note(columns, record, done, number, num_components, clock)
            show(done, columns)
            if max_evaluations is not None and int(state.evaluations) >= max_evaluations:
                break
    history = {name: np.concatenate(parts) for name, parts in columns.items()}
    mixture = _mixture(state)
    _warn_of_width(fit.mixture, mixture)
    return dataclasses.replace(
        fit,
        mixture=mixture,
        history=history,
        state=state,
        compile_seconds=compile_seconds,
    )


_WIDEST: Final = 1e9
"""Times the deviation of the start: wider than that, a fit has most likely run away."""


def _warn_of_width(start: FullGaussianMixture, mixture: FullGaussianMixture) -> None:
    """Say so where a mixture is wider than any target that is in the units of its start."""
    wider = np.max(_width(mixture) / _width(start))
    if wider > _WIDEST:
        warnings.warn(
            f"the mixture is {wider:.0e} times as wide as its start: {RUN_AWAY}", stacklevel=4
        )


def _width(mixture: FullGaussianMixture) -> np.ndarray:
    """The root of the second moments around the first mean, in double precision, shape `(d,)`."""
    w, means, factors = (
        np.asarray(p, np.float64) for p in (mixture.weights, mixture.means, mixture.factors)
    )
    moments: np.ndarray = w @ (np.sum(factors**2, axis=-1) + (means - means[0]) ** 2)
    return np.sqrt(moments)


def _block(
    problem: Problem, length: int, state: State, temperature: jax.Array, number: jax.Array
) -> Any:
    return run_block(problem, state, temperature, length, number)


def _adapt(problem: Problem, state: State) -> tuple[State, float]:
    """Delete and add components, as the design says; and the seconds that compiling took."""
    choice, design = problem.design.adaptation, problem.design
    if not isinstance(choice, adaptation.AdaptiveNumber):
        return state, 0.0
    seconds = 0.0
    if int(state.num_components) > 1:
        start = time.perf_counter()
        delete = compiled(partial(adaptation.delete, choice), state, key=("vi delete", choice))
        seconds += time.perf_counter() - start
        state = delete(state)
    number = int(state.num_components)
    seen = bool((state.archive.log_target > -jnp.inf).any())
    if seen and number < min(choice.most, BUCKETS[-1]):
        start = time.perf_counter()
        if number == len(state.log_weights):
            state = jax.block_until_ready(_grown(problem, state, bucket(number + 1)))
        options = design.component_update.first_step, _first_ridge(design), problem.chunk
        add = compiled(
            lambda s: adaptation.add(choice, s, *options), state, key=("vi add", choice, *options)
        )
        seconds += time.perf_counter() - start
        state = add(state)
    return state, seconds


def _note(
    columns: dict[str, list[np.ndarray]],
    record: Any,
    done: int,
    number: int,
    num_components: int,
    clock: float,
) -> None:
    """Append the record of a block to the history."""
    before = columns["seconds"][-1]
    first = float(before[-1]) if len(before) else 0.0
    columns["iteration"].append(np.arange(done - number + 1, done + 1))
    for name in ("elbo", "elbo_error", "evaluations"):
        columns[name].append(np.asarray(getattr(record, name)[:number]))
    columns["num_components"].append(np.full(number, num_components))
    columns["seconds"].append(first + (clock - first) * np.arange(1, number + 1) / number)


def _mixture(state: State) -> FullGaussianMixture:
    number = int(state.num_components)
    return FullGaussianMixture(
        state.log_weights[:number], state.gaussians.means[:number], state.factors[:number]
    )
