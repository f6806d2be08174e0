"""How long does `fit_density` take for what gmmvi, the reference implementation, reaches?

gmmvi (https://github.com/OlegArenz/gmmvi, in TensorFlow) is by the authors of the method. Both
codes run SAMTRON on the same targets, from the same start and with the same settings. *Default*
ones are those of gmmvi: 100 samples for each component, where old samples replace new ones (twice
as many count), and a component more every 30 iterations. Old samples are weighed by all Gaussians
that drew them, which takes gmmvi long; *no reuse* does without them. Both compute in single
precision with as many threads, each run in a process of its own, the two codes in turn and in a
random order for each seed.

Seconds are those of the iterations; set-up, tracing and compiling are apart. For gmmvi the latter
are the building of its objects, and the time by which calls in which TensorFlow traces last longer
than the next ones. This package does each run twice in its process: the second run finds all
programs compiled, and its times count; what the first one takes longer is called compiling. CPU
seconds are those of all threads, which a busy machine changes less. After every 30 iterations the
clock stops and the mixture is kept. All mixtures of both codes are judged afterwards, by this
package: loss is minus the ELBO (and plus `log Z`, where it is known), from fresh samples that are
not counted.

What differs: gmmvi keeps all samples and starts new components from 100,000 random ones, this
package keeps a random 100,000; gmmvi looks for components to delete in every iteration, this
package after every 30; this package solves for the step sizes of its trust regions to the end.
gmmvi's logistic regression has the opposite sign, so that its mixtures are mirrored before they are
judged.

gmmvi and TensorFlow are not dependencies of this project. In an environment of their own, beside a
checkout of gmmvi at commit 95c6b65::

    python3.11 -m venv gmmvi-env
    gmmvi-env/bin/pip install tensorflow==2.21.0 'tensorflow-probability[tf]==0.25.0' \
        mergedeep pyyaml matplotlib
    python benchmarks/vi_against_gmmvi.py --gmmvi gmmvi --python gmmvi-env/bin/python

writes the tables `runs`, `curves` and `ratios` of `results/vi_against_gmmvi`.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from vi_gmmvi import Recorder

from ngem_tutorial import results
from ngem_tutorial.components import FullGaussianMixture
from ngem_tutorial.experiments import variational
from ngem_tutorial.metrics import median_interval
from ngem_tutorial.vi import TargetError, fit_density, modes_found
from ngem_tutorial.vi.targets import Target

RESULT = "vi_against_gmmvi"
OURS, THEIRS = "ngem_tutorial", "gmmvi"
RUNNER = Path(__file__).resolve().parent / "vi_gmmvi.py"
COMMIT = "95c6b65"
"""Of gmmvi."""


@dataclasses.dataclass(frozen=True)
class Task:
    """A target, and where the codes are compared."""

    target: str
    """A key of `variational.TARGETS`."""
    losses: tuple[float, ...]
    """Levels that a run may reach, in nats."""
    evaluations: tuple[int, ...]
    """Numbers of evaluations that a run may reach; a run ends when it has reached the last."""
    iterations: int = 900
    """At most."""
    seeds: tuple[int, ...] = (1, 2, 3, 4, 5)
    """Of the target where it is drawn, and of the run."""
    setting: str = "default"
    """A name for the next three."""
    samples: int = 100
    """For each component."""
    reuse: float = 2.0
    """How many times that many old samples count."""
    every: int = 30
    """Iterations between two additions of a component."""


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings."""

    tasks: tuple[Task, ...] = (
        Task(
            "GMM20", (10.0, 1.0, 0.3, 0.1, 0.01), (30_000, 100_000, 300_000, 1_000_000),
            seeds=tuple(range(1, 11)), setting="no reuse", reuse=0.0,
        ),
        Task("GMM20", (10.0, 1.0, 0.3, 0.1, 0.01), (10_000, 20_000, 40_000)),
        Task(
            "breast cancer", (80.0, 79.0, 78.6, 78.4, 78.3), (30_000, 100_000, 300_000, 1_000_000),
            setting="no reuse", samples=200, reuse=0.0, every=10,
        ),
        Task("breast cancer", (80.0, 79.0, 78.6, 78.4, 78.3), (10_000, 30_000, 100_000)),
    )  # fmt: skip
    """Breast cancer without reuse has 200 samples and a component more every 10 iterations, as in
    `experiments.variational`."""
    method: str = "SAMTRON"
    checkpoint: int = 30
    """Iterations between two checkpoints."""
    limit: float = 60.0
    """A run ends at the checkpoint after so many seconds."""
    fresh: int = 10_000
    """Samples that each mixture is judged by."""
    points: int = 200
    """At how many points the two target densities are compared, for each sort of points."""
    threads: int = os.cpu_count() or 1
    """Of each code."""


QUICK = Config(
    tasks=(
        Task("GMM20", (100.0, 10.0, 3.0), (3_000, 10_000), 90, (1,)),
        Task("breast cancer", (200.0, 100.0, 85.0), (3_000, 10_000), 90, (1,)),
    ),
    fresh=1_000,
)
"""Two short runs of each code, to see whether everything works."""


class Mixture(NamedTuple):
    """An approximation at a checkpoint, as arrays."""

    log_weights: np.ndarray
    means: np.ndarray
    factors: np.ndarray


ROWS = (
    "iterations", "evaluations", "components", "seconds", "cpu_seconds", "compile_seconds",
)  # fmt: skip
"""What `Recorder` notes."""


class Outcome(NamedTuple):
    """What a run wrote."""

    rows: np.ndarray
    """The columns of `ROWS`, a row a checkpoint."""
    mixtures: list[Mixture]
    density: np.ndarray
    """Of the target at the points of the problem."""
    about: dict[str, Any]


# ------------------------------------------------------------------------------------- the problem


@cache
def make_target(name: str, seed: int) -> tuple[Target, FullGaussianMixture]:
    """Return a target and its start.

    Args:
        name: a key of `variational.TARGETS`.
        seed: of both.

    Returns:
        The target, and the mixture to start from.
    """
    target_key, start_key, _ = jax.random.split(jax.random.key(seed), 3)
    target = variational.TARGETS[name](target_key)
    return target, target.start(start_key)


def gaussian_parameters(name: str, seed: int) -> dict[str, np.ndarray]:
    """Return the mixture that `targets.gaussian_mixture` draws, as arrays.

    A target keeps its means only, so the covariances are drawn once more; `check_density` would
    find a difference.

    Args:
        name: of a target.
        seed: of the target.

    Returns:
        Log-weights, means and covariances, or nothing for a target that is no mixture.
    """
    target, _ = make_target(name, seed)
    if not name.startswith("GMM") or target.modes is None:
        return {}
    number, dim = len(target.modes), target.dim
    key = jax.random.split(jax.random.split(jax.random.key(seed), 3)[0])[1]
    a = 0.1 * dim * np.asarray(jax.random.normal(key, (number, dim, dim)), np.float64)
    return {
        "target_log_weights": np.full(number, -np.log(number)),
        "target_means": target.modes,
        "target_covariances": np.swapaxes(a, -1, -2) @ a + np.eye(dim),
    }


def make_points(name: str, seed: int, number: int) -> np.ndarray:
    """Draw points to compare densities at: near the modes, if they are known, and from the start.

    Args:
        name: of the target.
        seed: of the target.
        number: of each sort.

    Returns:
        Shape `(n, d)`.
    """
    target, start = make_target(name, seed)
    key = jax.random.key(0)
    points = [start.sample(key, number)]
    if target.sample is not None:
        points.append(target.sample(key, number))
    else:  # a Gaussian posterior is narrower than its prior
        points.append(0.1 * start.sample(key, number))
    return np.concatenate([np.asarray(x) for x in points])


def write_problem(config: Config, task: Task, seed: int, path: Path, gmmvi: str) -> None:
    """Write what both codes read.

    Args:
        config: the settings.
        task: the target.
        seed: of the run.
        path: the file.
        gmmvi: the folder of the checkout.
    """
    _, start = make_target(task.target, seed)
    factors = np.asarray(start.factors)
    settings = {
        "target": task.target, "seed": seed, "iterations": task.iterations,
        "evaluations": task.evaluations[-1], "method": config.method, "samples": task.samples,
        "reuse": task.reuse, "every": task.every, "checkpoint": config.checkpoint,
        "limit": config.limit, "threads": config.threads, "gmmvi": gmmvi,
    }  # fmt: skip
    arrays: dict[str, Any] = {
        "settings": np.asarray(json.dumps(settings)),
        "start_log_weights": np.asarray(start.log_weights),
        "start_means": np.asarray(start.means),
        "start_covariances": factors @ np.swapaxes(factors, -1, -2),
        "points": make_points(task.target, seed, config.points),
    }
    np.savez(path, **(arrays | gaussian_parameters(task.target, seed)))


def check_density(name: str, seed: int, points: np.ndarray, theirs: np.ndarray) -> None:
    """Refuse two target densities that differ by more than single precision explains.

    Args:
        name: of the target.
        seed: of the target.
        points: shape `(n, d)`.
        theirs: gmmvi's log densities there.

    Raises:
        ValueError: if they differ.
    """
    ours = np.asarray(jax.vmap(make_target(name, seed)[0].log_density)(jnp.asarray(points)))
    wrong = ~np.isclose(ours, theirs, rtol=1e-4, atol=2e-3)
    if wrong.any():
        i = int(np.argmax(wrong))
        raise ValueError(
            f"{name}, seed {seed}: the log densities differ at {wrong.sum()} of {len(points)} "
            f"points, first {ours[i]} here and {theirs[i]} in gmmvi"
        )


# ------------------------------------------------------------------------------------ the two codes


class Checkpoint(NamedTuple):
    """Where a fit of this package is, and the seconds since its start."""

    iteration: int
    evaluations: int
    mixture: FullGaussianMixture
    wall: float
    cpu: float


def run_ours(problem: Any, outcome: str) -> None:
    """Run this package on a problem, in this process.

    Args:
        problem: arrays and settings.
        outcome: the file to write.
    """
    settings = json.loads(str(problem["settings"]))
    name, seed, step = settings["target"], settings["seed"], settings["checkpoint"]
    target, start = make_target(name, seed)
    recorder = Recorder(jax.vmap(target.log_density)(jnp.asarray(problem["points"])))
    task = variational.Task(
        name, samples=settings["samples"], reuse=settings["reuse"], every=settings["every"]
    )
    design = variational.design(task, settings["method"])
    key = jax.random.split(jax.random.key(seed), 3)[2]

    def go(most: int) -> tuple[list[Checkpoint], str]:
        found: list[Checkpoint] = []
        fit, wall, cpu, done = None, 0.0, 0.0, 0
        while done < most:
            number = min(step, most - done)
            begin, cpu_begin = time.perf_counter(), time.process_time()
            try:
                if fit is None:
                    fit = fit_density(
                        target.log_density, target.dim, key=key, method=design, start=start,
                        num_iterations=number, progress=False,
                    )  # fmt: skip
                else:
                    fit = fit.extend(number, progress=False)
            except TargetError as error:
                return found, str(error)[:300]
            jax.block_until_ready(fit.state)
            wall += time.perf_counter() - begin
            cpu += time.process_time() - cpu_begin
            done += number
            found.append(Checkpoint(done, fit.evaluations, fit.mixture, wall, cpu))
            slow = wall - fit.compile_seconds > settings["limit"]
            if slow or fit.evaluations >= settings["evaluations"]:
                break
        return found, ""

    first, failure = go(settings["iterations"])
    second, _ = go(first[-1].iteration)
    for cold, warm in zip(first, second, strict=False):
        if cold.evaluations != warm.evaluations:
            raise RuntimeError("two runs with one key differ")
        mixture = warm.mixture
        parameters = mixture.log_weights, mixture.means, mixture.factors
        compiling = max(0.0, cold.wall - warm.wall)
        recorder.note(*warm[:2], warm.wall, warm.cpu, compiling, parameters)
    recorder.save(outcome, failure, {"jax": jax.__version__})


def call(code: str, problem: Path, outcome: Path, threads: int, python: str) -> None:
    """Run a code in a process of its own.

    Args:
        code: `OURS` or `THEIRS`.
        problem: the file to read.
        outcome: the file to write.
        threads: how many.
        python: the interpreter of gmmvi's environment.

    Raises:
        RuntimeError: if the process fails; with the end of what it printed.
    """
    commands = {
        OURS: [sys.executable, __file__, "--run", str(problem), str(outcome)],
        THEIRS: [python, str(RUNNER), str(problem), str(outcome)],
    }
    environment = {k: v for k, v in os.environ.items() if k != "JAX_COMPILATION_CACHE_DIR"}
    environment |= {"PJRT_NPROC": str(threads), "OPENBLAS_NUM_THREADS": str(threads)}
    environment |= {"OMP_NUM_THREADS": str(threads), "JAX_PLATFORMS": "cpu"}
    environment |= {"CUDA_VISIBLE_DEVICES": ""}
    if code == THEIRS:
        environment.pop("PYTHONPATH", None)
    done = subprocess.run(
        commands[code], env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{code} failed on {problem.name}:\n{done.stderr[-3000:]}")


def read_outcome(path: Path) -> Outcome:
    """Read what a run wrote.

    Args:
        path: of the file.

    Returns:
        The checkpoints.
    """
    with np.load(path) as file:
        rows = file["rows"]
        ends = np.cumsum(rows[:, 2].astype(int))[:-1]
        parts = (np.split(file[name], ends) for name in Mixture._fields)
        mixtures = [Mixture(*arrays) for arrays in zip(*parts, strict=True)]
        return Outcome(rows, mixtures, file["density"], json.loads(str(file["about"])))


# ------------------------------------------------------------------------------------ what came out


def judge(mixture: Mixture, target: Target, seed: int, number: int) -> tuple[float, float, float]:
    """Judge an approximation by fresh samples.

    Args:
        mixture: the approximation.
        target: the target.
        seed: of the samples.
        number: how many.

    Returns:
        Loss (minus the ELBO, to which `log Z` is added where it is known), its standard error,
        and how many modes it has, not a number where they are not known.
    """
    size = -(-len(mixture.means) // 16) * 16  # few programs
    missing = size - len(mixture.means)
    q = FullGaussianMixture(
        np.pad(mixture.log_weights, (0, missing), constant_values=-1e4),
        np.pad(mixture.means, ((0, missing), (0, 0))),
        np.concatenate([mixture.factors, np.tile(np.eye(target.dim), (missing, 1, 1))]),
    )
    weigh = _weigh(target.log_density, target.log_evidence or 0.0, number)
    values = np.asarray(weigh(q, jax.random.key(seed)), np.float64)
    modes = np.nan if target.modes is None else float(modes_found(q, target.modes))
    return float(values.mean()), float(values.std(ddof=1) / np.sqrt(number)), modes


@cache
def _weigh(log_density: Callable[..., jax.Array], log_evidence: float, number: int) -> Any:
    @jax.jit
    def weigh(q: FullGaussianMixture, key: jax.Array) -> jax.Array:
        x = q.sample(key, number)
        return q.log_prob(x) - jax.vmap(log_density)(x) + log_evidence

    return weigh


def curve(config: Config, task: Task, code: str, seed: int, outcome: Outcome) -> pd.DataFrame:
    """Judge all checkpoints of a run.

    Args:
        config: the settings.
        task: the target.
        code: that made it.
        seed: of the run.
        outcome: what it wrote.

    Returns:
        A row a checkpoint.
    """
    target, _ = make_target(task.target, seed)
    table = pd.DataFrame(outcome.rows, columns=list(ROWS)).astype(dict.fromkeys(ROWS[:3], int))
    judged = [judge(mixture, target, seed, config.fresh) for mixture in outcome.mixtures]
    table[["loss", "error", "modes"]] = np.asarray(judged).round(5)
    table[list(ROWS[3:])] = table[list(ROWS[3:])].round(5)
    head = {"target": task.target, "setting": task.setting, "code": code, "seed": seed}
    for position, (name, value) in enumerate(head.items()):
        table.insert(position, name, value)
    return table


COSTS = {
    "seconds": ["seconds"],
    "seconds with compiling": ["seconds", "compile_seconds"],
    "CPU seconds": ["cpu_seconds"],
    "evaluations": ["evaluations"],
}
"""What is compared: sums of columns."""


def cost_of(table: pd.DataFrame, measure: str, level: float, cost: str) -> float | None:
    """Say what a run had cost when it reached a level.

    Between two checkpoints the cost is interpolated linearly, but not for the modes.

    Args:
        table: the curve of a run.
        measure: `"loss"`, `"modes"` or `"evaluations"`.
        level: at most so much loss, or at least so many of the others.
        cost: one of `COSTS`.

    Returns:
        The cost, or None if the level was not reached.
    """
    values = table[measure].to_numpy(float)
    reached = values <= level if measure == "loss" else values >= level
    if not reached.any():
        return None
    i = int(np.argmax(reached))
    costs = table[COSTS[cost]].sum(axis=1).to_numpy(float)
    if i == 0 or measure == "modes" or not np.isfinite(values[i - 1]):
        return float(costs[i])
    share = (level - values[i - 1]) / (values[i] - values[i - 1])
    return float(costs[i - 1] + share * (costs[i] - costs[i - 1]))


def levels(task: Task, curves: pd.DataFrame) -> Iterator[tuple[str, float]]:
    """What the codes are compared at.

    Args:
        task: the target.
        curves: of its runs.

    Yields:
        Measures and levels.
    """
    yield from (("loss", level) for level in task.losses)
    yield from (("evaluations", float(level)) for level in task.evaluations)
    if curves["modes"].notna().any():
        yield from (("modes", float(level)) for level in (5, 9, 10))


def ratios(config: Config, curves: pd.DataFrame) -> pd.DataFrame:
    """Compare the two codes within each seed.

    Args:
        config: the settings.
        curves: of all runs.

    Returns:
        A row for each target, setting, level and cost: in how many seeds both codes, or one only,
        reached the level, the median costs of those that did, and where both did the median of
        gmmvi's cost over this package's, with the interval of order statistics that covers it with
        at least 95 %, or the whole range if there are too few.
    """
    rows = []
    for task in config.tasks:
        own = curves[(curves["target"] == task.target) & (curves["setting"] == task.setting)]
        seeds = sorted(set(own["seed"]))
        for measure, level in levels(task, own):
            for cost in COSTS:
                if cost == measure:
                    continue
                found = {
                    code: [
                        cost_of(
                            own[(own["code"] == code) & (own["seed"] == s)], measure, level, cost
                        )
                        for s in seeds
                    ]
                    for code in (OURS, THEIRS)
                }
                rows.append(
                    {"target": task.target, "setting": task.setting}
                    | {"measure": measure, "level": level, "cost": cost}
                    | compare(found[OURS], found[THEIRS])
                )
    return pd.DataFrame(rows)


def compare(ours: Sequence[float | None], theirs: Sequence[float | None]) -> dict[str, float]:
    """Compare costs in pairs.

    Args:
        ours: of this package, None where a level was not reached.
        theirs: of gmmvi, in the same order.

    Returns:
        Counts, medians, and the ratio with its interval.
    """
    both = [(a, b) for a, b in zip(ours, theirs, strict=True) if a is not None and b is not None]
    reached = [[cost for cost in costs if cost is not None] for costs in (ours, theirs)]
    medians = [float(np.median(costs)) if costs else np.nan for costs in reached]
    interval = median_interval([b / a for a, b in both]) if both else None
    return {
        "seeds": len(ours),
        "both": len(both),
        "only_ngem_tutorial": len(reached[0]) - len(both),
        "only_gmmvi": len(reached[1]) - len(both),
        "ngem_tutorial": medians[0],
        "gmmvi": medians[1],
        "ratio": np.nan if interval is None else interval.median,
        "low": np.nan if interval is None else interval.low,
        "high": np.nan if interval is None else interval.high,
    }


# ------------------------------------------------------------------------------------------ the run


def run(config: Config, gmmvi: str, python: str) -> tuple[dict[str, pd.DataFrame], dict[str, Any]]:
    """Run both codes on every target and seed, and judge them.

    Args:
        config: the settings.
        gmmvi: the folder of the checkout.
        python: the interpreter of its environment.

    Returns:
        Tables: `curves`, a row a checkpoint; `runs`, the last of them with the peak memory of the
        process and why it ended early; `ratios`. And the versions of gmmvi's packages.
    """
    curves, runs, versions = [], [], {}
    pairs = [(task, seed) for task in config.tasks for seed in task.seeds]
    with tempfile.TemporaryDirectory() as folder:
        for number, (task, seed) in enumerate(pairs):
            problem = Path(folder) / "problem.npz"
            write_problem(config, task, seed, problem, gmmvi)
            with np.load(problem) as file:
                points = file["points"]
            for i in np.random.default_rng(number).permutation(2):
                code = (OURS, THEIRS)[i]
                path = Path(folder) / f"{code}.npz"
                call(code, problem, path, config.threads, python)
                outcome = read_outcome(path)
                check_density(task.target, seed, points, outcome.density)
                if code == THEIRS:
                    versions = outcome.about["versions"]
                table = curve(config, task, code, seed, outcome)
                last = table.iloc[-1].to_dict()
                last |= {"peak_memory_mib": round(outcome.about["peak_memory_mib"], 1)}
                runs.append(last | {"failure": outcome.about["failure"]})
                curves.append(table)
                shown = ("target", "setting", "code", "seed", *ROWS, "loss", "modes")
                print(*(f"{name}={last[name]}" for name in shown), flush=True)
    table = pd.concat(curves, ignore_index=True)
    ratio = ratios(config, table)
    return {"runs": pd.DataFrame(runs), "curves": table, "ratios": ratio}, versions


def commit_of(gmmvi: str) -> str:
    """Return the commit of a checkout of gmmvi, which must be as it was published.

    Args:
        gmmvi: the folder.

    Returns:
        The commit.

    Raises:
        ValueError: if it is another commit than `COMMIT`, or a file was changed.
    """

    def git(*arguments: str) -> str:
        command = ["git", "-C", gmmvi, *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    commit, changes = git("rev-parse", "HEAD"), git("status", "--porcelain", "--untracked-files=no")
    if not commit.startswith(COMMIT) or changes:
        raise ValueError(f"{gmmvi} must be gmmvi at {COMMIT}, unchanged; it is {commit} {changes}")
    return commit


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark, print the ratios and save the tables.

    Args:
        arguments: of the command line.
    """
    parser = argparse.ArgumentParser(description="Compare fit_density with gmmvi.")
    parser.add_argument("--gmmvi", help="folder of the checkout of gmmvi")
    parser.add_argument("--python", help="the interpreter of its environment")
    parser.add_argument("--quick", action="store_true", help="two short runs of each code")
    parser.add_argument("--seeds", type=int, help="how many, instead of all")
    parser.add_argument("--threads", type=int, help="of each code, instead of one a core")
    parser.add_argument("--directory", help="where to write, instead of results/")
    parser.add_argument("--run", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.run:
        with np.load(options.run[0]) as problem:
            run_ours(problem, options.run[1])
        return
    if not options.gmmvi or not options.python:
        parser.error("--gmmvi and --python are needed")
    config = QUICK if options.quick else Config()
    if options.seeds:
        tasks = (dataclasses.replace(t, seeds=t.seeds[: options.seeds]) for t in config.tasks)
        config = dataclasses.replace(config, tasks=tuple(tasks))
    if options.threads:
        config = dataclasses.replace(config, threads=options.threads)
    gmmvi = str(Path(options.gmmvi).resolve())
    source = commit_of(gmmvi)
    commit, start = results.current_commit(), time.perf_counter()
    tables, versions = run(config, gmmvi, options.python)
    print(tables["ratios"].round(3).to_string(index=False))
    results.save(
        tables,
        RESULT,
        configuration=dataclasses.asdict(config),
        seeds=sorted({seed for task in config.tasks for seed in task.seeds}),
        parts=[results.part(tables, time.perf_counter() - start, commit=commit)],
        directory=options.directory,
        allow_missing={
            "runs": ["loss", "error", "modes"],
            "curves": ["loss", "error", "modes"],
            "ratios": ["ngem_tutorial", "gmmvi", "ratio", "low", "high"],
        },
        extra={"libraries": {"gmmvi": source} | versions},
        replace=True,
    )


if __name__ == "__main__":
    main()
