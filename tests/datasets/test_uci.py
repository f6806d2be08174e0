"""The regression tables: published splits, every way to be broken, a network that is replaced."""

import gzip
import hashlib
import io
import json
import os
import sys
import urllib.error
from pathlib import Path

import numpy as np
import pytest

from ngem_tutorial.datasets import DatasetError, uci

# ------------------------------------------------------------------------- the real data sets


@pytest.mark.needs("uci")
@pytest.mark.parametrize(
    ("name", "sizes", "features", "mean", "extremes"),
    [  # as published with the data
        ("kin8nm", (7373, 819), 8, 0.714, (0.0402, 1.4585)),
        ("energy", (691, 77), 8, 22.31, (6.01, 43.1)),
        ("housing", (455, 51), 13, 22.53, (5.0, 50.0)),
    ],
)
def test_real_tables_have_their_known_facts(name, sizes, features, mean, extremes):
    data = uci.uci_split(name, 0)
    assert data.x_train.shape == (sizes[0], features)
    assert data.x_test.shape == (sizes[1], features)
    assert data.y_train.shape == (sizes[0], 1)
    assert data.y_test.shape == (sizes[1], 1)
    assert {part.dtype for part in data} == {np.dtype(np.float32)}
    targets = np.concatenate([data.y_train, data.y_test]).astype(float)
    assert targets.mean() == pytest.approx(mean, rel=1e-3)
    assert (targets.min(), targets.max()) == pytest.approx(extremes, abs=1e-4)


@pytest.mark.needs("uci")
@pytest.mark.parametrize("name", uci.UCI)
def test_splits_are_those_of_the_published_index_files(name):
    folder = Path(os.environ["NGEM_DATA_DIR"], "uci", uci._TABLES[name].folder)
    if not (folder / "index_train_0.txt").exists():
        pytest.skip(f"{folder} has no index files")
    values = np.loadtxt(folder / "data.txt")
    features = np.loadtxt(folder / "index_features.txt", dtype=int)
    target = np.loadtxt(folder / "index_target.txt", dtype=int)
    for split in range(uci.NUM_SPLITS):
        data = uci.uci_split(name, split)
        for part, x, y in (
            ("train", data.x_train, data.y_train),
            ("test", data.x_test, data.y_test),
        ):
            rows = np.loadtxt(folder / f"index_{part}_{split}.txt").astype(int)
            np.testing.assert_array_equal(x, values[np.ix_(rows, features)].astype(np.float32))
            np.testing.assert_array_equal(y[:, 0], values[rows, target].astype(np.float32))


# --------------------------------------------------------------------------- a table of our own

ROWS = np.array(
    [
        [0.5, 24, -1.25e-3, 7.0],
        [1.5, 1, 2.0, 8.5],
        [2.5, 2, 3.0, -0.0],
        [-3.5, 24, 1e6, 10.0],
        [4.5, 1, 5.0, 11.0],
        [5.5, 2, 6.0, 12.0],
        [6.5, 1, 7.0, 13.0],
        [7.5, 2, 8.0, 14.0],
        [8.5, 1, 9.0, 15.0],
        [9.5, 24, 10.0, 16.0],
    ]
)


def canonical(rows):
    """The rounded numbers, written down here a second time."""
    return "\n".join(" ".join("%.6g" % (v + 0.0) for v in row) for row in rows).encode()


@pytest.fixture
def tiny(monkeypatch, tmp_path):
    """A tiny "housing": no folder is named, the cache is empty; returns its place in a folder."""
    digest = hashlib.sha256(canonical(ROWS)).hexdigest()
    table = uci._Table("bostonHousing", 531, ROWS.shape, digest)
    monkeypatch.setitem(uci._TABLES, "housing", table)
    monkeypatch.delenv("NGEM_DATA_DIR", raising=False)
    monkeypatch.setenv("NGEM_CACHE_DIR", str(tmp_path / "cache"))
    return Path("uci", "bostonHousing", "data.txt")


def write(path, rows=ROWS, form="%r"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join("\t".join(form % float(v) for v in row) for row in rows) + "\n\n")


def assert_is_tiny(data, split=0):
    x, y = np.concatenate([data.x_train, data.x_test]), np.concatenate([data.y_train, data.y_test])
    assert (len(data.x_train), len(data.x_test)) == (9, 1)
    state = np.random.RandomState(1)
    order = [state.permutation(10) for _ in range(split + 1)][-1]
    np.testing.assert_array_equal(np.hstack([x, y]), ROWS[order].astype(np.float32))


@pytest.mark.parametrize("form", ["%r", "%.7e", "%20.9f"])
def test_a_table_is_read_however_its_numbers_are_written(tiny, tmp_path, monkeypatch, form):
    write(tmp_path / "data" / tiny, form=form)
    assert_is_tiny(uci.uci_split("housing", 0, tmp_path / "data"))
    monkeypatch.setenv("NGEM_DATA_DIR", str(tmp_path / "data"))
    assert_is_tiny(uci.uci_split("housing", 3), 3)


def test_the_argument_goes_before_the_environment(tiny, tmp_path, monkeypatch):
    write(tmp_path / "data" / tiny)
    monkeypatch.setenv("NGEM_DATA_DIR", str(tmp_path / "nowhere"))
    assert_is_tiny(uci.uci_split("housing", 0, tmp_path / "data"))
    with pytest.raises(DatasetError, match=r"nowhere.*is missing.*NGEM_DATA_DIR.*Put the table"):
        uci.uci_split("housing", 0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"has the shape \(.*\), not \(10, 4\)"),
        ("1 2 3 4\n" * 9, r"has the shape \(9, 4\), not \(10, 4\)"),
        ("1 2 3 4\n" * 10, r"other values: the SHA-256 of the rounded numbers is [0-9a-f]{64},"),
        ("1 2 3 4\n1 2\n", "is not a table of numbers"),
        ("a b c d\n", "is not a table of numbers"),
        ("1 2 3 nan\n" * 10, "other values"),
        (b"\xff\xfe\x00", "is not a table of numbers"),
    ],
)
def test_a_damaged_table_is_named_with_what_is_wrong_and_what_to_do(tiny, tmp_path, text, message):
    path = tmp_path / tiny
    path.parent.mkdir(parents=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(DatasetError, match=message) as caught:
        uci.uci_split("housing", 0, tmp_path)
    assert str(path) in str(caught.value)
    assert "Replace it by an intact copy" in str(caught.value)


@pytest.mark.parametrize("change", ["one value", "two rows"])
def test_a_changed_value_and_a_changed_order_are_noticed(tiny, tmp_path, change):
    rows = ROWS.copy()
    if change == "one value":
        rows[4, 2] += 1e-4
    else:
        rows[[2, 5]] = rows[[5, 2]]
    write(tmp_path / tiny, rows)
    with pytest.raises(DatasetError, match="other values"):
        uci.uci_split("housing", 0, tmp_path)


def test_a_folder_in_the_place_of_the_table_is_an_error(tiny, tmp_path):
    (tmp_path / tiny).mkdir(parents=True)
    with pytest.raises(DatasetError, match=r"cannot be read \(Is a directory\)"):
        uci.uci_split("housing", 0, tmp_path)


@pytest.mark.parametrize(
    ("name", "split", "message"),
    [
        ("boston", 0, "name must be one of kin8nm, energy, housing, got 'boston'"),
        ("energy", 20, "split must be from 0 to 19, got 20"),
        ("energy", -1, "split must be from 0 to 19, got -1"),
        ("energy", 1.0, "split must be a whole number, got 1.0"),
        ("energy", True, "split must be a whole number, got True"),
    ],
)
def test_unknown_names_and_splits_are_rejected(name, split, message):
    with pytest.raises(ValueError, match=message):
        uci.uci_split(name, split, "/nowhere")


# ------------------------------------------------------------------------------------- download


class Response(io.BytesIO):
    """What `urlopen` returns, as far as scikit-learn looks."""

    def info(self):
        return {}


class OpenML:
    """Stands in for the server: the tiny table as ARFF, with a nominal column and one too many."""

    def __init__(self, rows=ROWS):
        lines = [f"{a},'{b:g}',{c},{y},{2 * y}" for a, b, c, y in rows]
        attributes = ["a REAL", "b {'1','24','2'}", "c REAL", "y1 REAL", "y2 REAL"]
        head = [f"@ATTRIBUTE {attribute}" for attribute in attributes]
        arff = "\n".join(["@RELATION tiny", *head, "@DATA", *lines]) + "\n"
        self.arff = arff.encode()
        self.requests = []
        self.online = True

    def answer(self, address):
        if address.endswith("/features/531"):
            kinds = {"a": "numeric", "b": "nominal", "c": "numeric", "y1": "numeric"}
            return {
                "data_features": {
                    "feature": [
                        {
                            "index": str(index), "name": name, "data_type": kind,
                            "is_target": str(name == "y1").lower(),
                            "is_ignore": "false", "is_row_identifier": "false",
                        }
                        for index, (name, kind) in enumerate({**kinds, "y2": "numeric"}.items())
                    ]
                }
            }  # fmt: skip
        if address.endswith("/qualities/531"):
            quality = {"name": "NumberOfInstances", "value": str(len(ROWS))}
            return {"data_qualities": {"quality": [quality]}}
        assert address.endswith("/data/531"), address
        return {
            "data_set_description": {
                "id": "531", "name": "tiny", "version": "1", "format": "ARFF", "status": "active",
                "description": "", "md5_checksum": hashlib.md5(self.arff).hexdigest(),
                "url": "https://www.openml.org/data/v1/download/1/tiny.arff", "file_id": "1",
            }
        }  # fmt: skip

    def urlopen(self, request):
        address = getattr(request, "full_url", request)
        self.requests.append(address)
        if not self.online:
            raise urllib.error.URLError("no route to host")
        if "/api/" in address:
            return Response(json.dumps(self.answer(address)).encode())
        return Response(self.arff)


@pytest.fixture
def server(tiny, monkeypatch):
    openml = pytest.importorskip("sklearn.datasets._openml")
    server = OpenML()
    monkeypatch.setattr(openml, "urlopen", server.urlopen)
    monkeypatch.setattr(openml.time, "sleep", lambda seconds: None)
    return server


def test_download_fills_the_cache_once(tiny, server, tmp_path):
    assert_is_tiny(uci.uci_split("housing", 0))
    assert server.requests
    cached = tmp_path / "cache" / tiny
    assert [p for p in (tmp_path / "cache").rglob("*") if p.is_file()] == [cached]
    np.testing.assert_array_equal(np.loadtxt(cached), ROWS)

    server.requests.clear()
    server.online = False
    assert_is_tiny(uci.uci_split("housing", 1), 1)
    assert server.requests == []


def test_a_damaged_cache_is_an_error_and_is_repaired_once_deleted(tiny, server, tmp_path):
    uci.uci_split("housing", 0)
    cached = tmp_path / "cache" / tiny
    cached.write_text(cached.read_text()[:-20])
    with pytest.raises(DatasetError, match="Delete it, and it will be downloaded again"):
        uci.uci_split("housing", 0)
    cached.unlink()
    assert_is_tiny(uci.uci_split("housing", 0))


def test_offline_says_what_to_do_and_leaves_nothing(tiny, server, tmp_path):
    server.online = False
    with pytest.raises(DatasetError, match=r"no route to host.*NGEM_DATA_DIR") as caught:
        uci.uci_split("housing", 0)
    for part in (str(tmp_path / "cache" / tiny), "data set 531 of OpenML", "uci/bostonHousing"):
        assert part in str(caught.value)
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("change", ["order", "values", "rows"])
def test_other_data_under_the_same_number_are_refused(tiny, server, tmp_path, change):
    rows = {"order": ROWS[::-1], "values": ROWS * [1, 1, 1, 2], "rows": ROWS[:-1]}[change]
    server.arff = OpenML(rows).arff
    with pytest.raises(DatasetError, match="downloading data set 531 of OpenML failed"):
        uci.uci_split("housing", 0)
    assert not (tmp_path / "cache").exists()


def test_a_compressed_answer_is_understood(tiny, server, monkeypatch):
    openml = sys.modules["sklearn.datasets._openml"]

    class Compressed(Response):
        def info(self):
            return {"Content-Encoding": "gzip"}

    monkeypatch.setattr(
        openml, "urlopen", lambda request: Compressed(gzip.compress(server.urlopen(request).read()))
    )
    assert_is_tiny(uci.uci_split("housing", 0))


def test_a_missing_package_names_the_extra(tiny, monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(ImportError, match=r"the extra data "):
        uci.uci_split("housing", 0)


# -------------------------------------------------------------------------------------- scaling


def some_data():
    generator = np.random.default_rng(3)
    x = generator.normal(5.0, 3.0, (40, 3))
    x[:30, 2] = 4.0  # constant in the training data, not in the others
    y = generator.gamma(2.0, 10.0, (40, 1))
    parts = (x[:30], y[:30], x[30:], y[30:])
    return uci.Regression(*(part.astype(np.float32) for part in parts))


@pytest.mark.parametrize(
    ("scaling", "peer"),
    [
        ("standardised", ("StandardScaler", {})),
        ("[0, 1]", ("MinMaxScaler", {})),
        ("[-1, 1]", ("MinMaxScaler", {"feature_range": (-1, 1)})),
    ],
)
def test_scalings_are_those_of_scikit_learn(scaling, peer):
    preprocessing = pytest.importorskip("sklearn.preprocessing")
    data = some_data()
    scaled, offset, scale = uci.rescale(data, scaling)
    name, arguments = peer
    for train, test, got_train, got_test, columns in (
        (data.x_train, data.x_test, scaled.x_train, scaled.x_test, slice(0, 2)),
        (data.y_train, data.y_test, scaled.y_train, scaled.y_test, slice(None)),
    ):
        scaler = getattr(preprocessing, name)(**arguments).fit(train[:, columns].astype(float))
        expected = scaler.transform(train[:, columns].astype(float))
        np.testing.assert_allclose(got_train[:, columns], expected, atol=1e-5)
        expected = scaler.transform(test[:, columns].astype(float))
        np.testing.assert_allclose(got_test[:, columns], expected, atol=1e-5)
    for raw, ours in ((data.y_train, scaled.y_train), (data.y_test, scaled.y_test)):
        np.testing.assert_allclose(offset + scale * ours, raw, rtol=1e-5)
    moved = scaled.x_test[:, 2] - scaled.x_train[0, 2]
    np.testing.assert_allclose(moved, data.x_test[:, 2] - 4.0, rtol=1e-5)


def test_raw_changes_nothing_and_the_target_can_differ():
    data = some_data()
    scaled, offset, scale = uci.rescale(data, "raw")
    assert (offset, scale) == (0.0, 1.0)
    for before, after in zip(data, scaled, strict=True):
        np.testing.assert_array_equal(before, after)
    mixed = uci.rescale(data, "standardised", "[0, 1]")
    plain = uci.rescale(data, "standardised")
    np.testing.assert_array_equal(mixed.data.x_test, plain.data.x_test)
    assert mixed.data.y_train.min() == 0.0
    assert mixed.data.y_train.max() == 1.0
    assert mixed.scale == pytest.approx(np.ptp(data.y_train))


def test_a_density_changes_units_as_documented():
    """The mean negative log-density of raw targets is that of scaled ones plus log(scale)."""
    from scipy import stats

    data = some_data()
    scaled, offset, scale = uci.rescale(data, "[-1, 1]")
    nats = -stats.norm(0.1, 0.3).logpdf(scaled.y_test.astype(float)).mean()
    raw = -stats.norm(offset + scale * 0.1, scale * 0.3).logpdf(data.y_test.astype(float)).mean()
    assert raw == pytest.approx(nats + np.log(scale), rel=1e-5)


@pytest.mark.parametrize("argument", ["scaling", "target_scaling"])
def test_unknown_scalings_are_rejected(argument):
    message = rf"{argument} must be one of standardised, .*, raw, got 'log'"
    with pytest.raises(ValueError, match=message):
        uci.rescale(some_data(), **{"scaling": "raw", argument: "log"})
