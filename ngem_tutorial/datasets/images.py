"""Images of digits: MNIST and the small ones of scikit-learn.

Images are read from disk and checked; nothing is ever replaced silently by other data.
"""

from __future__ import annotations

import gzip
import hashlib
import math
import os
import tempfile
import zlib
from pathlib import Path
from typing import Final, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ngem_tutorial._files import cache_dir, write_atomically
from ngem_tutorial._install import require
from ngem_tutorial._typing import Float32, Int32
from ngem_tutorial.datasets._errors import DatasetError

__all__ = ["LabelledImages", "digits", "mnist"]


class LabelledImages(NamedTuple):
    """Grey images and the digits that they show.

    Attributes:
        images: `(N, P)` float32, a row of `P` pixels each, from 0 (background) to 1 (ink).
        labels: `(N,)` int32, 0 to 9.
    """

    images: Float32[np.ndarray, "N P"]
    labels: Int32[np.ndarray, " N"]


class _IdxFile(NamedTuple):
    """What an IDX file of unsigned bytes should hold; `sha256` is of the uncompressed file."""

    name: str
    shape: tuple[int, ...]
    sha256: str


_MNIST: Final[dict[str, tuple[_IdxFile, _IdxFile]]] = {
    "train": (
        _IdxFile(
            "train-images-idx3-ubyte",
            (60_000, 28, 28),
            "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        ),
        _IdxFile(
            "train-labels-idx1-ubyte",
            (60_000,),
            "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        ),
    ),
    "test": (
        _IdxFile(
            "t10k-images-idx3-ubyte",
            (10_000, 28, 28),
            "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        ),
        _IdxFile(
            "t10k-labels-idx1-ubyte",
            (10_000,),
            "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
        ),
    ),
}

_Split = Literal["train", "test"]


def digits(split: Literal["train", "test", "all"] = "all") -> LabelledImages:
    """Return the 1,797 images of 8 x 8 pixels that come with scikit-learn.

    They are not MNIST (Alpaydin and Kaynak's optical recognition of handwritten digits, UCI, the
    test part) and never stand in for it. The split is ours: every fifth image is for testing.

    Args:
        split: "train" (1,438 images), "test" (359), or "all" in the order of scikit-learn.

    Returns:
        Images `(N, 64)` in [0, 1] (the 17 grey levels over 16) and labels `(N,)`.

    Raises:
        ValueError: if there is no such split.
        ImportError: if scikit-learn is not installed.
    """
    bundled = require("sklearn.datasets").load_digits()
    is_test = np.arange(len(bundled.target)) % 5 == 4
    rows = {"train": ~is_test, "test": is_test, "all": np.full_like(is_test, True)}
    if split not in rows:
        raise ValueError(f"split must be one of {sorted(rows)}, got {split!r}")
    pixels = np.divide(bundled.data[rows[split]], 16.0).astype(np.float32)
    return LabelledImages(pixels, bundled.target[rows[split]].astype(np.int32))


def mnist(
    split: _Split = "train", data_dir: str | os.PathLike[str] | None = None
) -> LabelledImages:
    """Return MNIST, checked against the known SHA-256 of its files.

    The four IDX files (`train-images-idx3-ubyte`, ..., plain or with `.gz`) are taken from

    1. `data_dir` or, without it, the folder named by the environment variable `NGEM_DATA_DIR`:
       that folder or its subfolder `mnist`. If files are missing there, that is an error;
    2. else the cache, where an earlier download put them: `NGEM_CACHE_DIR`, or the usual place
       for caches on the platform, e.g. `~/.cache/ngem_tutorial`;
    3. else a download by pooch, from the addresses and with the checksums of
       tensorflow-datasets (without TensorFlow), into the cache.

    Args:
        split: "train" (60,000 images) or "test" (10,000).
        data_dir: a folder with the files.

    Returns:
        Images `(N, 784)` in [0, 1] (grey levels over 255), row by row, and labels `(N,)`.

    Raises:
        ValueError: if there is no such split.
        DatasetError: if a file is missing, truncated, corrupted or of the wrong shape, or if the
            download fails. The message names the file, what is wrong and what to do.
        ImportError: if the files have to be downloaded and pooch or tensorflow-datasets is not
            installed.

    References:
        LeCun, Cortes and Burges, "The MNIST database of handwritten digits".
    """
    if split not in _MNIST:
        raise ValueError(f"split must be one of {sorted(_MNIST)}, got {split!r}")
    folder = data_dir or os.environ.get("NGEM_DATA_DIR") or None
    if folder is not None:
        source = "data_dir" if data_dir else "the environment variable NGEM_DATA_DIR"
        paths = [_find(Path(folder).expanduser(), source, file.name) for file in _MNIST[split]]
        remedy = "Replace it by an intact copy of the MNIST file of that name."
    else:
        paths = [cache_dir() / "mnist" / file.name for file in _MNIST[split]]
        if not all(path.exists() for path in paths):
            _download_mnist(cache_dir())
        remedy = "Delete it, and it will be downloaded again."
    pixels, labels = (
        _read_idx(path, file, remedy) for path, file in zip(paths, _MNIST[split], strict=True)
    )
    scaled = np.divide(pixels.reshape(len(pixels), -1), np.float32(255), dtype=np.float32)
    return LabelledImages(scaled, labels.astype(np.int32))


def _find(folder: Path, source: str, name: str) -> Path:
    """Return where the file is: in `folder` or its subfolder `mnist`, plain or compressed."""
    candidates = [
        place / f"{name}{end}" for place in (folder / "mnist", folder) for end in ("", ".gz")
    ]
    for path in candidates:
        if path.exists():
            return path
    problem = "is missing" if folder.is_dir() else "is missing, and so is the folder"
    raise DatasetError(
        f"{folder}: the MNIST file {name} {problem}. Looked for it, plain and with .gz, in this "
        f"folder, named by {source}, and in its subfolder mnist. Put the four IDX files of MNIST "
        f"there, or leave {source} unset to have them downloaded."
    )


def _read_idx(path: Path, file: _IdxFile, remedy: str) -> NDArray[np.uint8]:
    """Return the array of an IDX file of unsigned bytes, read-only, once everything is checked."""
    header = 4 * (1 + len(file.shape))
    size = header + math.prod(file.shape)
    content = _content(path, size, remedy)

    def wrong(problem: str) -> DatasetError:
        return DatasetError(f"{path}: {problem}. {remedy}")

    if len(content) < header:
        raise wrong(f"truncated: {len(content)} bytes are less than its header of {header}")
    magic, *shape = (int(number) for number in np.frombuffer(content, ">u4", 1 + len(file.shape)))
    expected_magic = 0x0800 + len(file.shape)  # unsigned bytes, and the number of axes
    if magic != expected_magic:
        raise wrong(
            f"not the expected IDX file: starts with {magic:#06x}, not {expected_magic:#06x}"
        )
    if tuple(shape) != file.shape:
        raise wrong(f"has the shape {tuple(shape)}, not {file.shape}")
    if len(content) != size:
        problem = f"truncated: {len(content)}" if len(content) < size else f"more than {size}"
        raise wrong(f"{problem} bytes where its header announces {size}")
    digest = hashlib.sha256(content).hexdigest()
    if digest != file.sha256:
        raise wrong(f"corrupted: the SHA-256 of its content is {digest}, not {file.sha256}")
    return np.frombuffer(content, np.uint8, offset=header).reshape(file.shape)


def _content(path: Path, size: int, remedy: str) -> bytes:
    """Return the file's content, uncompressed, of which at most one byte more than `size`."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as stream:
            return stream.read(size + 1)
    except EOFError as error:
        raise DatasetError(f"{path}: truncated: its gzip stream has no end. {remedy}") from error
    except (gzip.BadGzipFile, zlib.error) as error:
        raise DatasetError(f"{path}: corrupted gzip file ({error}). {remedy}") from error
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read ({error.strerror}). {remedy}") from error


# ------------------------------------------------------------------------------------ download


def _download_mnist(cache: Path) -> None:
    """Download MNIST from the addresses that tensorflow-datasets knows, into `cache`/mnist.

    Only files whose content was checked get there, each in one step.
    """
    pooch = require("pooch")
    tfds = require("tensorflow_datasets")
    known = tfds.builder_cls("mnist").url_infos  # from addresses to sizes and checksums
    files = {f"{file.name}.gz": file for split in _MNIST.values() for file in split}
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".download-", dir=cache) as folder:
            paths = {
                Path(address).name: Path(
                    pooch.retrieve(
                        address, f"sha256:{info.checksum}", fname=Path(address).name, path=folder
                    )
                )
                for address, info in known.items()
            }
            for name, file in files.items():  # all of them are checked before the first is kept
                _read_idx(paths[name], file, "Try again.")
            for name, file in files.items():
                content = gzip.decompress(paths[name].read_bytes())
                write_atomically(cache / "mnist" / file.name, content)
    except DatasetError:
        raise
    except Exception as error:  # whatever the network, pooch or the file system raise
        raise DatasetError(
            f"{cache / 'mnist'}: MNIST is not there, and downloading it failed "
            f"({type(error).__name__}: {error}). Connect to the network and try again, or put the "
            "four IDX files of MNIST in a folder and name it by the environment variable "
            "NGEM_DATA_DIR."
        ) from error
