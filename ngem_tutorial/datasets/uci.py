"""Regression on tables: three data sets of the UCI collection, their standard splits, scalings.

The data sets and splits are those of Hernandez-Lobato and Adams (2015), which most papers on
predictive distributions use: twenty random splits into 90 % for training and 10 % for testing.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ngem_tutorial._files import cache_dir, write_atomically
from ngem_tutorial._install import require
from ngem_tutorial._typing import Float32
from ngem_tutorial.datasets._errors import DatasetError

__all__ = ["NUM_SPLITS", "SCALINGS", "UCI", "Regression", "Scaled", "rescale", "uci_split"]

NUM_SPLITS: Final = 20
"""Number of standard splits of each data set."""


class Regression(NamedTuple):
    """Inputs and targets for training and for testing, all of them float32.

    Attributes:
        x_train: features, shape `(N, F)`.
        y_train: targets, shape `(N, 1)`.
        x_test: features, shape `(M, F)`.
        y_test: targets, shape `(M, 1)`.
    """

    x_train: Float32[np.ndarray, "N F"]
    y_train: Float32[np.ndarray, "N 1"]
    x_test: Float32[np.ndarray, "M F"]
    y_test: Float32[np.ndarray, "M 1"]


class _Table(NamedTuple):
    """Where a table is and what it holds; `sha256` is of `_canonical(values)`."""

    folder: str
    openml_id: int
    shape: tuple[int, int]
    sha256: str


_TABLES: Final[dict[str, _Table]] = {
    "kin8nm": _Table(
        "kin8nm",
        189,
        (8192, 9),
        "a9b521d987d95f4944f69b82a8f721d0294779ff6c39ecc0a72de192c9b581a6",
    ),
    "energy": _Table(
        "energy",
        1472,
        (768, 9),
        "fab0c3a6241efe79a3d532e7049ae670c45ba4a60128db181bcda52b81199ddf",
    ),
    "housing": _Table(
        "bostonHousing",
        531,
        (506, 14),
        "dee3b9868116eca6f325b1ac4410072844dae943808ab1a19e60e613efecbf15",
    ),
}

UCI: Final[tuple[str, ...]] = tuple(_TABLES)
"""Names of the data sets."""


def uci_split(name: str, split: int, data_dir: str | os.PathLike[str] | None = None) -> Regression:
    """Return one of the twenty standard splits of a UCI data set, in its own units.

    - "kin8nm": the distance of the end of a robot's arm from a target, given the angles of its
      eight joints; 7,373 examples to train on and 819 to test on.
    - "energy": the heating load of a building (kWh per square metre and year), given eight
      properties; 691 and 77. The cooling load, which the collection has too, is left out, as in
      the standard splits.
    - "housing": the median value of homes in a district of Boston (1,000 dollars of 1970), given
      thirteen properties; 455 and 51. One of the properties is a transform of the share of Black
      inhabitants: a data set to compare methods with, not one to use.

    The table, `uci/<folder>/data.txt` with one row per example and the target last, is taken from

    1. `data_dir` or, without it, the folder named by the environment variable `NGEM_DATA_DIR`;
       `<folder>` is kin8nm, energy or bostonHousing. If it is missing there, that is an error;
    2. else the cache, where an earlier download put it: `NGEM_CACHE_DIR`, or the usual place for
       caches on the platform, e.g. `~/.cache/ngem_tutorial`;
    3. else a download from OpenML through scikit-learn, into the cache.

    Its values, in their order, are checked against a known SHA-256 wherever they come from. The
    splits are not read: the permutations of NumPy's legacy generator with the seed 1 are those of
    the published index files, number by number.

    Args:
        name: "kin8nm", "energy" or "housing".
        split: number of the split, 0 to 19.
        data_dir: a folder with the subfolder `uci`.

    Returns:
        The examples of the split, unscaled; see `rescale`.

    Raises:
        ValueError: if there is no such data set or split.
        DatasetError: if the table is missing, unreadable or has other values, or if the download
            fails. The message says what is wrong and what to do.
        ImportError: if the table has to be downloaded and scikit-learn is not installed.

    References:
        Hernandez-Lobato and Adams, "Probabilistic backpropagation for scalable learning of
        Bayesian neural networks", ICML 2015.
    """
    if name not in _TABLES:
        raise ValueError(f"name must be one of {', '.join(_TABLES)}, got {name!r}")
    if isinstance(split, bool) or not isinstance(split, (int, np.integer)):
        raise ValueError(f"split must be a whole number, got {split!r}")
    if not 0 <= split < NUM_SPLITS:
        raise ValueError(f"split must be from 0 to {NUM_SPLITS - 1}, got {split}")
    values = _read(_TABLES[name], data_dir)
    train, test = _rows(len(values), split)
    x, y = values[:, :-1].astype(np.float32), values[:, -1:].astype(np.float32)
    return Regression(x[train], y[train], x[test], y[test])


def _rows(size: int, split: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The rows for training and for testing: 90 % and the rest of the permutation `split`."""
    generator = np.random.RandomState(1)  # the legacy generator made the splits
    for _ in range(split):
        generator.permutation(size)
    order = generator.permutation(size)
    number = round(0.9 * size)
    return order[:number], order[number:]


def _read(table: _Table, data_dir: str | os.PathLike[str] | None) -> NDArray[np.float64]:
    """Find the table, or download it; check it."""
    place = Path("uci", table.folder, "data.txt")
    folder = data_dir or os.environ.get("NGEM_DATA_DIR") or None
    if folder is None:
        path = cache_dir() / place
        if not path.exists():
            _download(table, path)
        return _load(table, path, "Delete it, and it will be downloaded again.")
    source = "data_dir" if data_dir else "the environment variable NGEM_DATA_DIR"
    path = Path(folder).expanduser() / place
    if not path.exists():
        raise DatasetError(
            f"{path} is missing; the folder is named by {source}. Put the table there, or leave "
            f"{source} unset to have it downloaded."
        )
    return _load(table, path, "Replace it by an intact copy of the published file.")


def _load(table: _Table, path: Path, remedy: str) -> NDArray[np.float64]:
    try:
        with warnings.catch_warnings(action="ignore"):  # of an empty file; its shape tells
            values = np.loadtxt(path, ndmin=2)
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read ({error.strerror}). {remedy}") from error
    except ValueError as error:
        raise DatasetError(f"{path}: is not a table of numbers ({error}). {remedy}") from error
    if problem := _problem(table, values):
        raise DatasetError(f"{path}: {problem}. {remedy}")
    return values


def _problem(table: _Table, values: NDArray[np.float64]) -> str | None:
    """Say how the values differ from the expected ones, or None if they do not."""
    if values.shape != table.shape:
        return f"has the shape {values.shape}, not {table.shape}"
    digest = hashlib.sha256(_canonical(values)).hexdigest()
    if digest != table.sha256:
        return f"other values: the SHA-256 of the rounded numbers is {digest}, not {table.sha256}"
    return None


def _canonical(values: NDArray[np.float64]) -> bytes:
    """The values to six significant digits, the same however a file writes its numbers."""
    rows = (" ".join(f"{value:.6g}" for value in row) for row in values + 0.0)  # no -0
    return "\n".join(rows).encode()


def _download(table: _Table, path: Path) -> None:
    """Download a table from OpenML and keep it at `path` if its values are the expected ones."""
    fetch = require("sklearn.datasets").fetch_openml
    try:
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(action="ignore"):
            bunch = fetch(
                data_id=table.openml_id, target_column=None, as_frame=False, parser="liac-arff",
                data_home=folder, n_retries=1,
            )  # fmt: skip
        values = np.array(bunch.data, dtype=np.float64)
        for name, labels in bunch.categories.items():  # nominal columns are numbers all the same
            column = bunch.feature_names.index(name)
            values[:, column] = np.array(labels, np.float64)[values[:, column].astype(int)]
        values = values[:, : table.shape[1]]  # after the target of "energy" there is another one
        if problem := _problem(table, values):
            raise DatasetError(problem)
        text = "\n".join(" ".join(map(repr, row)) for row in values.tolist())
        write_atomically(path, f"{text}\n".encode())
    except Exception as error:  # whatever the network, scikit-learn or the file system raise
        raise DatasetError(
            f"{path} is not there, and downloading data set {table.openml_id} of OpenML failed "
            f"({type(error).__name__}: {error}). Connect to the network and try again, or put the "
            f"table in a folder as uci/{table.folder}/data.txt and name the folder by the "
            "environment variable NGEM_DATA_DIR."
        ) from error


# ------------------------------------------------------------------------------------- scaling


class Scaled(NamedTuple):
    """Data after `rescale`, and the way back for the targets.

    A density of the scaled targets times `1 / scale` is one of the raw targets: add `log(scale)`
    to a negative log-likelihood, and multiply a root mean square error by `scale`.

    Attributes:
        data: the scaled features and targets.
        offset: of the raw targets: `raw = offset + scale * scaled`.
        scale: likewise, in the units of the raw targets.
    """

    data: Regression
    offset: float
    scale: float


def _min_max(low: float, high: float) -> Callable[[NDArray], tuple[NDArray, NDArray]]:
    def fit(values: NDArray) -> tuple[NDArray, NDArray]:
        least, span = values.min(axis=0), np.ptp(values, axis=0)
        scale = span / (high - low)
        return least - low * scale, scale

    return fit


_SCALINGS: Final[dict[str, Callable[[NDArray], tuple[NDArray, NDArray]]]] = {
    "standardised": lambda values: (values.mean(axis=0), values.std(axis=0)),
    "[0, 1]": _min_max(0.0, 1.0),
    "[-1, 1]": _min_max(-1.0, 1.0),
    "raw": lambda values: (np.zeros(values.shape[1]), np.ones(values.shape[1])),
}

SCALINGS: Final[tuple[str, ...]] = tuple(_SCALINGS)
"""Names of the scalings: mean 0 and deviation 1, two intervals, and none."""


def rescale(data: Regression, scaling: str, target_scaling: str | None = None) -> Scaled:
    """Shift and scale every feature and the target, by statistics of the training data only.

    With an interval, the training data fill it; test data may lie outside.

    Args:
        data: what `uci_split` returned.
        scaling: one of `SCALINGS`. A feature that is constant in the training data is shifted
            only.
        target_scaling: of the target, if it differs.

    Returns:
        The scaled data, with what leads back to the raw targets.

    Raises:
        ValueError: if there is no such scaling.
    """
    for name, value in (
        ("scaling", scaling),
        ("target_scaling", scaling if target_scaling is None else target_scaling),
    ):
        if value not in _SCALINGS:
            raise ValueError(f"{name} must be one of {', '.join(_SCALINGS)}, got {value!r}")

    def scaled(train: NDArray, test: NDArray, choice: str) -> tuple[NDArray, ...]:
        offset, scale = _SCALINGS[choice](train.astype(np.float64))
        scale = np.where(scale > 0.0, scale, 1.0)
        parts = (((part - offset) / scale).astype(np.float32) for part in (train, test))
        return (*parts, offset, scale)

    x_train, x_test, *_ = scaled(data.x_train, data.x_test, scaling)
    y_train, y_test, offset, scale = scaled(data.y_train, data.y_test, target_scaling or scaling)
    return Scaled(Regression(x_train, y_train, x_test, y_test), float(offset[0]), float(scale[0]))
