"""Images: files against every way to be broken."""

import gzip
import hashlib
import io
import struct
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from ngem_tutorial import datasets
from ngem_tutorial.datasets import DatasetError
from ngem_tutorial.datasets import images as module

# ------------------------------------------------------------------------------------- digits


def test_digits_are_scikit_learns_in_the_unit_interval():
    sklearn_datasets = pytest.importorskip("sklearn.datasets")
    bundled = sklearn_datasets.load_digits()
    images, labels = datasets.digits()
    assert images.dtype == np.float32
    assert labels.dtype == np.int32
    np.testing.assert_array_equal(np.rint(images * 16), bundled.data)
    np.testing.assert_array_equal(labels, bundled.target)
    assert (images.min(), images.max()) == (0.0, 1.0)


def test_digits_split_is_a_partition():
    pytest.importorskip("sklearn")
    everything, train, test = (datasets.digits(split) for split in ("all", "train", "test"))
    assert (len(train.labels), len(test.labels)) == (1438, 359)
    np.testing.assert_array_equal(test.images, everything.images[4::5])
    rows = np.vstack([train.images, test.images])
    np.testing.assert_array_equal(
        rows[np.lexsort(rows.T)], everything.images[np.lexsort(everything.images.T)]
    )


def test_unknown_splits_are_rejected():
    pytest.importorskip("sklearn")
    with pytest.raises(ValueError, match=r"split must be one of \['test', 'train'\], got 'valid'"):
        datasets.mnist("valid")
    with pytest.raises(ValueError, match=r"split must be one of .* got 'valid'"):
        datasets.digits("valid")


# ------------------------------------------------------------------------ MNIST, the real one


@pytest.mark.needs("mnist")
@pytest.mark.parametrize(
    ("split", "per_class", "mean", "deviation"),
    [  # as published with the data and in every tutorial on it
        ("train", (5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949), 0.1307, 0.3081),
        ("test", (980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009), 0.1325, 0.3105),
    ],
)
def test_real_mnist_has_its_known_facts(split, per_class, mean, deviation):
    images, labels = datasets.mnist(split)
    assert images.shape == (sum(per_class), 784)
    assert images.dtype == np.float32
    assert labels.dtype == np.int32
    assert tuple(np.bincount(labels)) == per_class
    assert images.mean(dtype=np.float64) == pytest.approx(mean, abs=5e-5)
    assert images.std(dtype=np.float64) == pytest.approx(deviation, abs=5e-5)
    assert (images.min(), images.max()) == (0.0, 1.0)
    rows = images.reshape(-1, 28, 28)
    assert rows[:, :, :2].mean() < 1e-4 < rows[:, 10:18, 10:18].mean()  # upright, centred


# ---------------------------------------------------------- MNIST, small files in its formats


def idx(array):
    """Encode unsigned bytes as IDX, by the format's own description."""
    header = struct.pack(">HBB", 0, 8, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape)
    return header + array.tobytes()


class Tiny:
    """A tiny MNIST: arrays, and the content of the four files."""

    def __init__(self):
        generator = np.random.default_rng(0)
        self.arrays = {
            "train-images-idx3-ubyte": generator.integers(0, 256, (6, 4, 3)),
            "train-labels-idx1-ubyte": generator.integers(0, 10, (6,)),
            "t10k-images-idx3-ubyte": generator.integers(0, 256, (2, 4, 3)),
            "t10k-labels-idx1-ubyte": generator.integers(0, 10, (2,)),
        }
        self.files = {name: idx(a.astype(np.uint8)) for name, a in self.arrays.items()}

    def expected(self):
        """Describe the files as the package describes the real ones."""
        files = [
            module._IdxFile(name, self.arrays[name].shape, hashlib.sha256(content).hexdigest())
            for name, content in self.files.items()
        ]
        return {"train": (files[0], files[1]), "test": (files[2], files[3])}

    def write(self, folder, compressed):
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in self.files.items():
            if compressed:
                (folder / f"{name}.gz").write_bytes(gzip.compress(content))
            else:
                (folder / name).write_bytes(content)


@pytest.fixture
def tiny(monkeypatch, tmp_path):
    """The package expects the tiny MNIST; the cache is empty and no folder is named."""
    tiny = Tiny()
    monkeypatch.setattr(module, "_MNIST", tiny.expected())
    monkeypatch.delenv("NGEM_DATA_DIR", raising=False)
    monkeypatch.setenv("NGEM_CACHE_DIR", str(tmp_path / "cache"))
    return tiny


def assert_is_tiny(result, tiny, split="train"):
    prefix = {"train": "train", "test": "t10k"}[split]
    pixels = tiny.arrays[f"{prefix}-images-idx3-ubyte"].reshape(-1, 12)
    np.testing.assert_array_equal(result.images, (pixels / 255).astype(np.float32))
    np.testing.assert_array_equal(result.labels, tiny.arrays[f"{prefix}-labels-idx1-ubyte"])


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("subfolder", ["", "mnist"])
def test_files_are_found_plain_and_compressed(
    tiny, tmp_path, monkeypatch, split, compressed, subfolder
):
    tiny.write(tmp_path / "data" / subfolder, compressed)
    assert_is_tiny(datasets.mnist(split, tmp_path / "data"), tiny, split)
    monkeypatch.setenv("NGEM_DATA_DIR", str(tmp_path / "data"))
    assert_is_tiny(datasets.mnist(split), tiny, split)


def test_the_argument_goes_before_the_environment(tiny, tmp_path, monkeypatch):
    tiny.write(tmp_path / "data", compressed=True)
    monkeypatch.setenv("NGEM_DATA_DIR", str(tmp_path / "nowhere"))
    assert_is_tiny(datasets.mnist(data_dir=tmp_path / "data"), tiny)


def test_missing_files_are_an_error_even_with_a_full_cache(tiny, tmp_path, monkeypatch):
    tiny.write(tmp_path / "cache" / "mnist", compressed=False)
    assert_is_tiny(datasets.mnist(), tiny)
    monkeypatch.setenv("NGEM_DATA_DIR", str(tmp_path / "nowhere"))
    with pytest.raises(DatasetError, match="and so is the folder"):
        datasets.mnist()
    (tmp_path / "nowhere").mkdir()
    with pytest.raises(DatasetError) as caught:
        datasets.mnist()
    for part in (str(tmp_path / "nowhere"), "train-images-idx3-ubyte", "NGEM_DATA_DIR", "Put the"):
        assert part in str(caught.value)


def test_one_missing_file_is_named(tiny, tmp_path):
    tiny.write(tmp_path / "data", compressed=True)
    (tmp_path / "data" / "train-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(DatasetError, match="the MNIST file train-labels-idx1-ubyte is missing"):
        datasets.mnist(data_dir=tmp_path / "data")
    assert_is_tiny(datasets.mnist("test", tmp_path / "data"), tiny, "test")


def flip(content, position):
    changed = bytearray(content)
    changed[position] ^= 0x40
    return bytes(changed)


@pytest.mark.parametrize(
    ("compressed", "damage", "message"),
    [
        (False, lambda c: c[:-1], r"truncated: 87 bytes where its header announces 88"),
        (False, lambda c: c[:9], r"truncated: 9 bytes are less than its header of 16"),
        (False, lambda c: b"", r"truncated: 0 bytes"),
        (False, lambda c: c + b"\0", r"more than 88 bytes"),
        (False, lambda c: b"GIF8" + c[4:], r"not the expected IDX file: starts with 0x47494638"),
        (False, lambda c: flip(c, 7), r"has the shape \(70, 4, 3\), not \(6, 4, 3\)"),
        (False, lambda c: flip(c, 40), r"corrupted: the SHA-256 of its content is [0-9a-f]{64},"),
        (True, lambda c: gzip.compress(c)[:-12], r"truncated: its gzip stream has no end"),
        (True, lambda c: gzip.compress(c)[:5], r"truncated: its gzip stream has no end"),
        (True, lambda c: c, r"corrupted gzip file \(Not a gzipped file"),
        (True, lambda c: flip(gzip.compress(c), -6), r"corrupted gzip file \(CRC check failed"),
        (True, lambda c: flip(gzip.compress(c), 12), r"corrupted"),
        (True, lambda c: gzip.compress(c + bytes(99)), r"more than 88 bytes"),
        (True, lambda c: gzip.compress(flip(c, 40)), r"corrupted: the SHA-256"),
        (True, lambda c: gzip.compress(c) + b"rubbish", r"corrupted gzip file"),
    ],
)
def test_a_damaged_file_is_named_with_what_is_wrong_and_what_to_do(
    tiny, tmp_path, compressed, damage, message
):
    tiny.write(tmp_path / "data", compressed)
    name = "train-images-idx3-ubyte"
    path = tmp_path / "data" / (f"{name}.gz" if compressed else name)
    path.write_bytes(damage(tiny.files[name]))
    with pytest.raises(DatasetError, match=message) as caught:
        datasets.mnist(data_dir=tmp_path / "data")
    assert str(path) in str(caught.value)
    assert "Replace it by an intact copy" in str(caught.value)


def test_a_label_file_in_the_place_of_the_images_is_noticed(tiny, tmp_path):
    tiny.write(tmp_path, compressed=False)
    labels = tiny.files["train-labels-idx1-ubyte"]
    (tmp_path / "train-images-idx3-ubyte").write_bytes(labels + bytes(20))
    with pytest.raises(DatasetError, match="starts with 0x0801, not 0x0803"):
        datasets.mnist(data_dir=tmp_path)


def test_a_folder_in_the_place_of_a_file_is_an_error(tiny, tmp_path):
    tiny.write(tmp_path, compressed=False)
    (tmp_path / "train-labels-idx1-ubyte").unlink()
    (tmp_path / "train-labels-idx1-ubyte").mkdir()
    with pytest.raises(DatasetError, match=r"train-labels-idx1-ubyte: cannot be read \(Is a dir"):
        datasets.mnist(data_dir=tmp_path)


# ----------------------------------------------------------------------------------- download


class Network:
    """Stands in for the lowest layer of the downloads: serves local bytes."""

    def __init__(self, contents):
        self.contents = contents
        self.requests = []
        self.lock = threading.Lock()

    def send(self, request):
        import requests

        name = request.url.rpartition("/")[2]
        with self.lock:
            self.requests.append((request.method, name))
        if name not in self.contents:
            raise requests.exceptions.ConnectionError("no route to host")
        response = requests.Response()
        response.status_code = 200
        response.url = request.url
        response.request = request
        response.raw = io.BytesIO(b"" if request.method == "HEAD" else self.contents[name])
        return response

    def downloads(self):
        return sorted(name for method, name in self.requests if method == "GET")


@pytest.fixture
def network(tiny, monkeypatch):
    """A network that serves the tiny MNIST under the addresses of the real one."""
    adapters = pytest.importorskip("requests.adapters")
    pytest.importorskip("tensorflow_datasets")
    network = Network({f"{name}.gz": gzip.compress(c) for name, c in tiny.files.items()})
    monkeypatch.setattr(
        adapters.HTTPAdapter, "send", lambda adapter, request, **_: network.send(request)
    )
    return network


@pytest.fixture
def registered(network, monkeypatch):
    """tensorflow-datasets expects the checksums of the tiny MNIST instead of the real ones."""
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core.download import checksums

    builder = tfds.builder_cls("mnist")
    tiny_infos = {}
    for address in builder.url_infos:
        content = network.contents[Path(address).name]
        digest = hashlib.sha256(content).hexdigest()
        tiny_infos[address] = checksums.UrlInfo(len(content), digest, Path(address).name)
    registry = checksums.get_all_url_infos()  # one dictionary for all, which managers change
    before = dict(registry)
    monkeypatch.setattr(builder, "url_infos", tiny_infos)
    yield
    registry.clear()
    registry.update(before)


@pytest.mark.usefixtures("registered")
def test_download_fills_the_cache_once(tiny, network, tmp_path):
    assert_is_tiny(datasets.mnist(), tiny)
    assert network.downloads() == sorted(f"{name}.gz" for name in tiny.files)
    cache = tmp_path / "cache"
    assert {path.name: path.read_bytes() for path in (cache / "mnist").iterdir()} == tiny.files
    assert [path.name for path in cache.iterdir()] == ["mnist"]  # no leftovers

    network.requests.clear()
    network.contents.clear()
    assert_is_tiny(datasets.mnist(), tiny)
    assert_is_tiny(datasets.mnist("test"), tiny, "test")
    assert network.requests == []


@pytest.mark.usefixtures("registered")
def test_download_needs_no_tensorflow(tiny, network):
    datasets.mnist()
    assert "tensorflow" not in sys.modules


@pytest.mark.usefixtures("registered")
def test_a_damaged_cache_is_an_error_and_is_repaired_once_deleted(tiny, network, tmp_path):
    datasets.mnist()
    path = tmp_path / "cache" / "mnist" / "train-labels-idx1-ubyte"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DatasetError, match=r"train-labels.* truncated.* Delete it, and it will be"):
        datasets.mnist()
    path.unlink()
    assert_is_tiny(datasets.mnist(), tiny)


@pytest.mark.parametrize("stage", ["connection", "one file"])
@pytest.mark.usefixtures("registered")
def test_offline_says_what_to_do_and_leaves_nothing(tiny, network, tmp_path, stage):
    if stage == "connection":
        network.contents.clear()
    else:
        del network.contents["t10k-images-idx3-ubyte.gz"]
    with pytest.raises(DatasetError, match=r"no route to host.*NGEM_DATA_DIR") as caught:
        datasets.mnist()
    assert str(tmp_path / "cache" / "mnist") in str(caught.value)
    if stage == "connection":  # noticed at once, not tried again and again
        assert len(network.requests) == 1
    assert list((tmp_path / "cache").iterdir()) == []


def test_files_other_than_registered_are_refused(tiny, network, tmp_path):
    import tensorflow_datasets as tfds

    addresses = tfds.builder_cls("mnist").url_infos
    assert {Path(address).name for address in addresses} == set(network.contents)
    with pytest.raises(DatasetError, match=r"SHA256 hash of downloaded file .* does not match"):
        datasets.mnist()
    assert list((tmp_path / "cache").iterdir()) == []


@pytest.mark.usefixtures("registered")
def test_files_with_the_right_name_and_the_wrong_content_are_refused(
    tiny, network, tmp_path, monkeypatch
):
    expected = tiny.expected()
    images, labels = expected["test"]
    expected["test"] = (images, labels._replace(sha256="0" * 64))
    monkeypatch.setattr(module, "_MNIST", expected)
    with pytest.raises(DatasetError, match=r"corrupted: the SHA-256.*, not 0{64}"):
        datasets.mnist()
    assert list((tmp_path / "cache").iterdir()) == []


@pytest.mark.parametrize(
    ("module", "call"),
    [
        ("tensorflow_datasets", datasets.mnist),
        ("pooch", datasets.mnist),
        ("sklearn.datasets", datasets.digits),
    ],
)
def test_a_missing_package_names_the_extra(tiny, monkeypatch, module, call):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=r"the extra data "):
        call()


def test_without_platformdirs_the_cache_must_be_named(tiny, monkeypatch):
    monkeypatch.delenv("NGEM_CACHE_DIR")
    monkeypatch.setitem(sys.modules, "platformdirs", None)
    with pytest.raises(ImportError, match=r"platformdirs .*the extra data "):
        datasets.mnist()


def test_the_default_cache_is_in_the_users_cache_folder(tiny, monkeypatch, tmp_path):
    monkeypatch.delenv("NGEM_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    tiny.write(tmp_path / "xdg" / "ngem_tutorial" / "mnist", compressed=False)
    assert_is_tiny(datasets.mnist(), tiny)
