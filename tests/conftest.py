"""What every test run needs: a quiet JAX that compiles a program once, an account of what was
skipped, and a limit on memory."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import gc
import importlib
import json
import os
import resource
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

# Before JAX starts. Without PJRT_NPROC=1, jax 0.10 can deadlock on two cores.
os.environ.setdefault("PJRT_NPROC", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # SOAP's small factorisations: threads hurt
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("NGEM_PROGRESS", "0")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

# A program is compiled by one process and found by the others, in later runs too: most of a test's
# time is compiling. The kernels of the notebooks inherit this.
os.environ.setdefault(
    "JAX_COMPILATION_CACHE_DIR", str(Path(__file__).resolve().parents[1] / ".pytest_cache" / "jax")
)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")

import jax
import jaxtyping
import pytest

# Shapes in the package's signatures are checked here; what a test starts is as users have it.
os.environ["NGEM_CHECK_SHAPES"] = "1"
jaxtyping.install_import_hook("ngem_tutorial", "shapes.check")
importlib.import_module("ngem_tutorial._typing")
del os.environ["NGEM_CHECK_SHAPES"]

if not hasattr(jax, "enable_x64"):  # before JAX 0.8 it was there
    jax.enable_x64 = jax.experimental.enable_x64

# A data set is there if, for each of its parts, one of the alternatives is.
DATA: dict[str, list[tuple[str, ...]]] = {
    "mnist": [
        tuple(f"{folder}{part}{suffix}" for folder in ("mnist/", "") for suffix in ("", ".gz"))
        for part in (
            "train-images-idx3-ubyte",
            "train-labels-idx1-ubyte",
            "t10k-images-idx3-ubyte",
            "t10k-labels-idx1-ubyte",
        )
    ],
    "uci": [(f"uci/{part}/data.txt",) for part in ("bostonHousing", "energy", "kin8nm")],
}
PROGRAMS = {"node"}
NO_SKIPS = os.environ.get("NGEM_NO_SKIPS") == "1"
MEMORY = 3.0  # GB that a process of the tests may take
PEAK_UNIT = 1e-9 if sys.platform == "darwin" else 1.024e-6  # GB; macOS counts bytes, Linux KiB
KEPT = {"after": 0.0}  # GB that this process had when it last gave back memory
PEAKS: dict[str, float] = {}  # GB that each process took


@pytest.fixture(scope="module")
def x64() -> Iterator[None]:
    """Compute in float64, so that a tolerance separates rounding from a mistake."""
    with jax.enable_x64(True):
        yield


@pytest.fixture
def compilations() -> Iterator[Callable[[], int]]:
    """How many programs XLA has compiled since the last time of asking."""
    import jax

    seen: list[str] = []

    def listen(event: str, duration: float, **_: Any) -> None:
        if event == "/jax/core/compile/backend_compile_duration":
            seen.append(event)

    def count() -> int:
        number = len(seen)
        seen.clear()
        return number

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield count
    if hasattr(jax.monitoring, "unregister_event_duration_listener"):  # not before JAX 0.8
        jax.monitoring.unregister_event_duration_listener(listen)


def memory(field: str) -> float:
    """Return how many GB this process has, `VmRSS`, or has had, `VmHWM`.

    Not all systems tell; then it is the most that it has had. `getrusage` alone will not do: a
    process that was started by a large one counts that one's memory as its own.
    """
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * PEAK_UNIT
    return int(status.split(f"{field}:")[1].split()[0]) * 1.024e-6


@pytest.fixture(scope="module", autouse=True)
def closed_figures() -> Iterator[None]:
    """Close the figures that a test file leaves behind."""
    yield
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close("all")


def pytest_runtest_teardown() -> None:
    """Give back compiled programs once they are many, and again when as many have come."""
    if memory("VmRSS") < max(MEMORY / 3, KEPT["after"] + MEMORY / 8):
        return
    if "ngem_tutorial._training.compilation" in sys.modules:
        sys.modules["ngem_tutorial._training.compilation"].clear()
    if "jax" in sys.modules:
        sys.modules["jax"].clear_caches()
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):  # glibc keeps freed memory otherwise
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    KEPT["after"] = memory("VmRSS")


@functools.cache
def missing(data: str) -> str | None:
    """Return why a data set or a program cannot be used, or `None` if it can."""
    if data == "browser":
        return importlib.import_module("browser").missing()
    if data in PROGRAMS:
        return None if shutil.which(data) else f"needs {data}, and it is not on the PATH"
    folder = os.environ.get("NGEM_DATA_DIR")
    if not folder:
        return f"needs {data}, and NGEM_DATA_DIR is not set"
    for alternatives in DATA[data]:
        if not any((Path(folder) / name).is_file() for name in alternatives):
            return f"needs {data}, and NGEM_DATA_DIR has no {alternatives[0]}"
    return None


def needs_of(item: pytest.Item) -> list[str]:
    """Return what a test, or the notebook that a cell is from, declares that it needs."""
    if item.path.suffix == ".ipynb":
        metadata = json.loads(item.path.read_text(encoding="utf-8"))["metadata"]
        return metadata.get("ngem", {}).get("needs", [])
    return [data for mark in item.iter_markers("needs") for data in mark.args]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        for reason in filter(None, map(missing, needs_of(item))):
            item.add_marker(pytest.mark.skip(reason=reason))


def skipped(config: pytest.Config) -> Counter[str]:
    """Return how many tests and notebook cells were skipped, by reason."""
    # Not counted by a hook of ours: reports on notebooks, outside this folder, would not reach it.
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    reports = reporter.stats.get("skipped", []) if reporter else []
    return Counter(report.longrepr[2].removeprefix("Skipped: ") for report in reports)


def slowest_pages(config: pytest.Config, number: int = 3) -> list[str]:
    """Return the notebooks that took longest, with their seconds: a reader waits for them too."""
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    spent: Counter[str] = Counter()
    for report in reporter.stats.get("passed", []) if reporter else []:
        page, _, _ = report.nodeid.partition(".ipynb::")
        if page != report.nodeid:
            spent[page.rpartition("/")[2]] += report.duration
    return [f"{page} {seconds:.0f} s" for page, seconds in spent.most_common(number)]


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Take over what a worker of pytest-xdist has said when it ended."""
    PEAKS.update(getattr(node, "workeroutput", {}).get("peaks", {}))


def pytest_sessionfinish(session: pytest.Session) -> None:
    name = getattr(session.config, "workerinput", {}).get("workerid", "pytest")
    PEAKS[name] = memory("VmHWM")
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["peaks"] = PEAKS
    elif session.exitstatus == pytest.ExitCode.OK and (
        max(PEAKS.values()) > MEMORY or (NO_SKIPS and skipped(session.config))
    ):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    reasons = skipped(terminalreporter.config)
    for reason, number in sorted(reasons.items()):
        terminalreporter.write_line(f"{number} skipped: {reason}")
    if NO_SKIPS and reasons:
        terminalreporter.write_line("NGEM_NO_SKIPS=1: the run fails because of what was skipped")
    if pages := slowest_pages(terminalreporter.config):
        terminalreporter.write_line(f"slowest pages: {', '.join(pages)}")
    peaks = ", ".join(f"{name} {peak:.1f} GB" for name, peak in sorted(PEAKS.items()))
    terminalreporter.write_line(f"peak memory: {peaks}")
    if max(PEAKS.values(), default=0) > MEMORY:
        terminalreporter.write_line(f"the run fails because a process took over {MEMORY:g} GB")


@pytest.fixture(scope="session")
def run_node() -> Callable[[Path, str], Callable[..., list[Any]]]:
    """From a folder of JavaScript modules and a driver: jobs to what node answers to them."""

    def prepare(folder: Path, driver: str) -> Callable[..., list[Any]]:
        (folder / "package.json").write_text('{"type": "module"}')
        (folder / "driver.js").write_text(driver)

        def call(*jobs: list[Any]) -> list[Any]:
            done = subprocess.run(
                ["node", "driver.js"],
                cwd=folder,
                input=json.dumps(jobs),
                capture_output=True,
                text=True,
                check=False,
                timeout=120,
            )
            assert done.returncode == 0, done.stderr
            return json.loads(done.stdout)

        return call

    return prepare
