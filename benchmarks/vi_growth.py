"""How does the time of an iteration grow with dimension, components and samples?

The program that is timed is the one that `fit_density` runs, a block of iterations, on a product of
Student-t distributions, which costs next to nothing. The number of components stays what it is at
the start: a block ends long before one would be added. Old samples are not used again, so that
every iteration draws the same number `n` for each of `K` components. Each of the `N = K n` samples
is weighed by all components and used for the estimates of all, hence an iteration may take

    O(K d^3 + K N d^2)

operations in `d` dimensions with Stein's estimator (SAMTRON): exponents of 3 in the dimension, 2 in
the number of components and 1 in the samples for each at most. MORE (ZAMTRUX) solves a regression
with `D = (d + 1)(d + 2) / 2` features for each component, O(K N D^2 + K D^3): at most 6 in the
dimension. Arrays have room for 8, 16, 32, ... components, and what is not used is computed too.

Compilation is apart, all programs are warm, and in every repetition each configuration has its
turn, in random order. The exponent is the slope of the logarithms over the upper half of the range
(from its geometric middle), one for each repetition: the median and the interval of order
statistics that covers it with at least 95 %::

    python benchmarks/vi_growth.py

writes the tables `times`, `medians` and `exponents` of `results/vi_growth`, in less than five
minutes on two cores.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import time
from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np
import pandas as pd

from ngem_tutorial import results
from ngem_tutorial.metrics import median_interval
from ngem_tutorial.vi import VIFit, fit_density, get_design, initial_mixture, targets
from ngem_tutorial.vi._gaussians import BUCKETS

RESULT = "vi_growth"


@dataclasses.dataclass(frozen=True)
class Sweep:
    """One of the three numbers is changed, the others are fixed."""

    method: str
    axis: str
    """`"dim"`, `"components"` or `"samples"`."""
    values: tuple[int, ...]
    bound: float
    """The exponent must not be above it."""
    dim: int = 10
    components: int = 8
    samples: int = 100
    """For each component."""

    def settings(self, value: int) -> tuple[int, int, int]:
        """Return dimension, components and samples for each, at a value of the axis."""
        at = {"dim": self.dim, "components": self.components, "samples": self.samples}
        at[self.axis] = value
        return at["dim"], at["components"], at["samples"]


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings."""

    sweeps: tuple[Sweep, ...] = (
        Sweep("SAMTRON", "dim", (2, 5, 10, 20, 40, 60, 100, 140, 200, 300), 3.0),
        Sweep("SAMTRON", "components", (1, 8, 16, 32, 64, 128, 256, 512), 2.0, samples=20),
        Sweep("SAMTRON", "samples", (25, 100, 400, 800, 1600, 3200), 1.0),
        Sweep("ZAMTRUX", "dim", (2, 5, 10, 14, 20), 6.0, components=2),
        Sweep("ZAMTRUX", "components", (1, 8, 16, 32, 64), 2.0, dim=5, samples=50),
    )
    repetitions: int = 9
    seconds: float = 0.1
    """A block has as many iterations as take about so long, one at least."""


class Case(NamedTuple):
    """A program that is warm."""

    sweep: int
    value: int
    fit: VIFit
    iterations: int
    """Of a timed block."""
    compile_seconds: float


def prepare(config: Config, sweep: int, value: int) -> Case:
    """Compile the program of a configuration, and run it.

    Args:
        config: the settings.
        sweep: which one.
        value: of its axis.

    Returns:
        The fit to go on from, and how long its blocks are.
    """
    chosen = config.sweeps[sweep]
    dim, components, samples = chosen.settings(value)
    design = get_design(chosen.method)
    design = dataclasses.replace(
        design,
        sampling=dataclasses.replace(design.sampling, number=samples, reuse=0.0),
        adaptation=dataclasses.replace(design.adaptation, every=100_000),
    )
    target = targets.student_products(jax.random.key(2), dim, 1)
    fit = fit_density(
        target.log_density,
        dim,
        key=jax.random.key(0),
        method=design,
        num_iterations=2,
        start=initial_mixture(jax.random.key(1), dim, components, spread=3.0, scale=2.0),
        progress=False,
    )
    fit, each = timed(fit, 2)
    iterations = int(np.clip(config.seconds / each, 1, 1000))
    return Case(sweep, value, fit, iterations, fit.compile_seconds)


def timed(fit: VIFit, iterations: int) -> tuple[VIFit, float]:
    """Go on with a fit.

    Args:
        fit: where to go on.
        iterations: how many.

    Returns:
        The longer fit, and the seconds of each new iteration.
    """
    longer = fit.extend(iterations, progress=False)
    seconds = longer.history["seconds"][-1] - fit.history["seconds"][-1]
    return longer, float(seconds) / iterations


def run(config: Config) -> dict[str, pd.DataFrame]:
    """Time all configurations.

    Args:
        config: the settings.

    Returns:
        `times`: milliseconds of an iteration, by configuration and repetition; `medians` of them,
        with the seconds of compiling; `exponents`, see there.
    """
    cases = [
        prepare(config, i, value) for i, sweep in enumerate(config.sweeps) for value in sweep.values
    ]
    rows = []
    for repetition in range(1, config.repetitions + 1):
        for i in np.random.default_rng(repetition).permutation(len(cases)):
            case = cases[i]
            # From the same state each time: what is timed does not depend on the progress.
            _, seconds = timed(case.fit, case.iterations)
            rows.append(describe(config, case) | {"repetition": repetition, "ms": 1e3 * seconds})
    times = pd.DataFrame(rows)
    compiling = [describe(config, c) | {"compile_seconds": c.compile_seconds} for c in cases]
    keys = list(compiling[0])[:-1]
    medians = times.groupby(keys, sort=False, as_index=False)["ms"].median()
    medians = medians.merge(pd.DataFrame(compiling), on=keys)
    return {
        "times": times.round({"ms": 5}),
        "medians": medians.round({"ms": 5, "compile_seconds": 3}),
        "exponents": exponents(config, times),
    }


def describe(config: Config, case: Case) -> dict[str, str | int]:
    """Return the columns that name a configuration."""
    sweep = config.sweeps[case.sweep]
    dim, components, samples = sweep.settings(case.value)
    named: dict[str, str | int] = {"method": sweep.method, "axis": sweep.axis}
    return named | {"dim": dim, "components": components, "samples": samples}


def upper_half(values: Sequence[int]) -> list[int]:
    """Return the values from the geometric middle of their range on.

    Args:
        values: positive, at least two.

    Returns:
        Two of them at least.
    """
    ordered = sorted(values)
    middle = math.sqrt(ordered[0] * ordered[-1])
    return [value for value in ordered if value >= middle or value in ordered[-2:]]


def slope(x: Sequence[float], y: Sequence[float]) -> float:
    """Return the slope of `log y` over `log x`, by least squares."""
    return float(np.polyfit(np.log(x), np.log(y), 1)[0])


def exponents(config: Config, times: pd.DataFrame) -> pd.DataFrame:
    """Fit powers to the upper halves of the ranges.

    Args:
        config: the settings.
        times: of `run`.

    Returns:
        A row for each sweep: the median of the repetitions' exponents and its interval, the bound,
        and whether the whole interval is above it.
    """
    rows = []
    for sweep in config.sweeps:
        axis, values = sweep.axis, upper_half(sweep.values)
        own = times[(times["method"] == sweep.method) & (times["axis"] == axis)]
        own = own[own[axis].isin(values)].sort_values(axis)
        found = [slope(part[axis], part["ms"]) for _, part in own.groupby("repetition")]
        interval = median_interval(found)
        rows.append(
            {"method": sweep.method, "axis": axis, "from": values[0], "to": values[-1]}
            | {"exponent": interval.median, "low": interval.low, "high": interval.high}
            | {"bound": sweep.bound, "above": bool(interval.low > sweep.bound)}
        )
    return pd.DataFrame(rows)


QUICK = Config(
    (
        Sweep("SAMTRON", "dim", (2, 3, 4), 3.0, components=2, samples=10),
        Sweep("SAMTRON", "components", (1, 9), 2.0, dim=2, samples=10),
    ),
    repetitions=2,
    seconds=0.01,
)
"""To see whether everything works."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark, print medians and exponents, and save the tables.

    Args:
        arguments: of the command line.
    """
    parser = argparse.ArgumentParser(description="Time an iteration at growing sizes.")
    parser.add_argument("--quick", action="store_true", help="small sizes")
    parser.add_argument("--directory", help="where to write, instead of results/")
    options = parser.parse_args(arguments)
    config = QUICK if options.quick else Config()
    commit, start = results.current_commit(), time.perf_counter()
    tables = run(config)
    for name in ("medians", "exponents"):
        print(tables[name].round(3).to_string(index=False), end="\n\n")
    results.save(
        tables,
        RESULT,
        configuration=dataclasses.asdict(config),
        seeds=range(config.repetitions + 1),
        parts=[results.part(tables, time.perf_counter() - start, commit=commit)],
        directory=options.directory,
        extra={"buckets": BUCKETS},
        replace=True,
    )


if __name__ == "__main__":
    main()
