"""The half of `vi_against_gmmvi.py` that runs in the environment of gmmvi, not in this project's.

It needs TensorFlow and gmmvi, and nothing of this project. It calls gmmvi as its example
`1_directly_using_gmmvi.py` does, with gmmvi's own target densities and default options::

    python benchmarks/vi_gmmvi.py PROBLEM.npz OUTCOME.npz

where `vi_against_gmmvi.py` writes the first file and reads the second.
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np


class Recorder:
    """The approximations of a run, one at each checkpoint, and what they cost.

    Args:
        density: log density of the target at the points of the problem, as the code computes it.
    """

    def __init__(self, density: Any) -> None:
        self.density = np.asarray(density)
        self.rows: list[tuple[int, int, int, float, float, float]] = []
        self.parameters: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []

    def note(
        self,
        iteration: int,
        evaluations: int,
        seconds: float,
        cpu_seconds: float,
        compile_seconds: float,
        parameters: tuple[Any, Any, Any],
    ) -> None:
        """Keep a checkpoint.

        Args:
            iteration: how many there were.
            evaluations: at how many samples the target was evaluated.
            seconds: so far, without compiling.
            cpu_seconds: the same, of all threads together.
            compile_seconds: so far: set-up, tracing and compiling.
            parameters: log-weights, means and Cholesky factors.
        """
        log_weights, means, factors = map(np.asarray, parameters)
        number = len(log_weights)
        self.rows.append((iteration, evaluations, number, seconds, cpu_seconds, compile_seconds))
        self.parameters.append((log_weights, means, factors))

    def save(self, path: str | Path, failure: str, versions: dict[str, str]) -> None:
        """Write everything.

        Args:
            path: of the file.
            failure: why the run ended early, empty if it did not.
            versions: of the packages.
        """
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024.0
        about = {"failure": failure, "versions": versions, "peak_memory_mib": memory}
        log_weights, means, factors = (
            np.concatenate(arrays) for arrays in zip(*self.parameters, strict=True)
        )
        np.savez(
            path,
            rows=np.asarray(self.rows, float),
            log_weights=log_weights,
            means=means,
            factors=factors,
            density=self.density,
            about=np.asarray(json.dumps(about)),
        )


def without_tracing(seconds: list[float], traces: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Take the tracing out of the durations of calls.

    A call in which a graph was traced also does an iteration; that is taken to last as long as
    the median of the next five calls without tracing.

    Args:
        seconds: of each call.
        traces: how many graphs had been traced after each.

    Returns:
        Seconds of the iterations and of the tracing, for each call.
    """
    durations, traced = np.asarray(seconds, float), np.diff(traces, prepend=0) > 0
    own = durations.copy()
    for i in np.flatnonzero(traced):
        later = durations[i + 1 :][~traced[i + 1 :]][:5]
        own[i] = min(durations[i], np.median(later)) if len(later) else 0.0
    return own, durations - own


def make_target(problem: Any) -> tuple[Any, float]:
    """Build gmmvi's own target density.

    Its logistic regression gives the label 1 the probability `sigmoid(-theta x)`: it is this
    project's at `-theta`, from a start that is symmetric. So what it finds is mirrored.

    Args:
        problem: the arrays of the problem.

    Returns:
        An `LNPDF` of gmmvi, and the sign of its points.
    """
    if "target_means" in problem:
        module = importlib.import_module("gmmvi.experiments.target_distributions.gmm")
        weights = np.exp(problem["target_log_weights"])
        means, covariances = problem["target_means"], problem["target_covariances"]
        return module.GMM_LNPDF(weights, means, covariances), 1.0
    name = "gmmvi.experiments.target_distributions.logistic_regression"
    return importlib.import_module(name).make_breast_cancer(), -1.0


def configuration(settings: dict[str, Any], variance: float) -> dict[str, Any]:
    """Return gmmvi's default options for the method, with the three settings of the comparison.

    Args:
        settings: of the problem.
        variance: of the initial component; new ones are as wide at most.

    Returns:
        The dictionary that `GMMVI.build_from_config` takes.
    """
    configs = importlib.import_module("gmmvi.configs")
    config = configs.get_default_algorithm_config(settings["method"])
    config["sample_selector_config"] |= {
        "desired_samples_per_component": settings["samples"],
        "ratio_reused_samples_to_desired": settings["reuse"],
    }
    config["num_component_adapter_config"] |= {"add_iters": settings["every"]}
    start = {
        "use_diagonal_covs": False, "num_initial_components": 1, "prior_mean": 0.0,
        "prior_scale": variance**0.5, "initial_cov": variance,
    }  # fmt: skip
    common = {
        "model_initialization": start, "use_sample_database": True,
        "max_database_size": 10_000_000, "temperature": 1.0,
    }  # fmt: skip
    return configs.update_config(config, common)


def run(problem: Any, outcome: str) -> None:
    """Run gmmvi on a problem.

    Args:
        problem: arrays and settings.
        outcome: the file to write.
    """
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"
    settings = json.loads(str(problem["settings"]))
    sys.path.insert(0, str(Path(settings["gmmvi"]) / "src"))
    tf = importlib.import_module("tensorflow")
    tf.config.threading.set_intra_op_parallelism_threads(settings["threads"])
    tf.config.threading.set_inter_op_parallelism_threads(settings["threads"])
    mixtures = importlib.import_module("gmmvi.models.full_cov_gmm")
    wrapper = importlib.import_module("gmmvi.models.gmm_wrapper").GmmWrapper
    method = importlib.import_module("gmmvi.optimization.gmmvi").GMMVI
    tf.random.set_seed(settings["seed"])
    np.random.seed(settings["seed"])  # noqa: NPY002  # gmmvi uses it
    target, sign = make_target(problem)
    points = tf.convert_to_tensor(sign * problem["points"], tf.float32)
    recorder = Recorder(target.log_density(points).numpy())

    begin = time.perf_counter()
    covariances = problem["start_covariances"]
    config = configuration(settings, float(covariances[0, 0, 0]))
    start = mixtures.FullCovGMM(
        tf.exp(tf.convert_to_tensor(problem["start_log_weights"], tf.float32)),
        tf.convert_to_tensor(sign * problem["start_means"], tf.float32),
        tf.convert_to_tensor(covariances, tf.float32),
    )
    model = wrapper.build_from_config(model=start, config=config)
    gmmvi = method.build_from_config(config=config, target_distribution=target, model=model)
    setup = time.perf_counter() - begin

    seconds: list[float] = []
    cpu_seconds: list[float] = []
    traces: list[int] = []
    evaluations: list[int] = []
    failure = ""

    def parameters() -> tuple[Any, Any, Any]:
        own = gmmvi.model
        return own.log_weights.numpy(), sign * own.means.numpy(), own.chol_cov.numpy()

    kept = []
    for iteration in range(1, settings["iterations"] + 1):
        begin, cpu_begin = time.perf_counter(), time.process_time()
        try:
            gmmvi.train_iter()
        except tf.errors.OpError as error:
            failure = f"{type(error).__name__}: {error}"[:300]
            break
        seconds.append(time.perf_counter() - begin)
        cpu_seconds.append(time.process_time() - cpu_begin)
        traces.append(gmmvi.train_iter.experimental_get_tracing_count())
        if iteration % settings["checkpoint"] == 0 or iteration == settings["iterations"]:
            evaluations.append(int(gmmvi.sample_db.num_samples_written))
            kept.append((iteration, evaluations[-1], parameters()))
            if sum(seconds[1:]) > settings["limit"] or evaluations[-1] >= settings["evaluations"]:
                break
    own, tracing = without_tracing(seconds, traces)
    own_cpu, _ = without_tracing(cpu_seconds, traces)
    for iteration, number, arrays in kept:
        spent, cpu, compiling = (float(s[:iteration].sum()) for s in (own, own_cpu, tracing))
        recorder.note(iteration, number, spent, cpu, setup + compiling, arrays)
    probability = importlib.import_module("tensorflow_probability")
    versions = {"tensorflow": tf.__version__, "tensorflow-probability": probability.__version__}
    recorder.save(outcome, failure, versions)


if __name__ == "__main__":
    run(np.load(sys.argv[1]), sys.argv[2])
