"""Results: what is saved comes back exactly, and nothing else is ever accepted."""

import csv
import datetime
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import hypothesis.strategies as st
import jax
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

pd = pytest.importorskip("pandas")

from ngem_tutorial import _files, results  # noqa: E402
from ngem_tutorial.results import ResultError, load, save  # noqa: E402

ARGUMENTS = {"configuration": {"rate": 0.1}, "seeds": [1, 2, 3], "wall_time_s": 1.5}


def a_table(shift=0.0):
    return pd.DataFrame(
        {
            "method": ["nll", "ngem", "NA"],
            "seed": [1, 2, 3],
            "nll": [0.1 + 0.2 + shift, 1e-300, -1.0 / 3.0],
            "collapsed": [True, False, True],
        }
    )


# --------------------------------------------------------------------------------- round trip


def test_a_table_of_every_kind_comes_back_exactly(tmp_path):
    generator = np.random.default_rng(0)
    table = pd.DataFrame(
        {
            "text": ["", "NA", 'a "quoted", \n line', "nan", " é "],
            "half": generator.normal(size=5).astype(np.float16),
            "single": generator.normal(size=5).astype(np.float32),
            "double": generator.normal(size=5) * 10.0 ** np.array([-300, -5, 0, 5, 300]),
            "tiny": [5e-324, -0.0, 2.2250738585072014e-308, 1.7976931348623157e308, 0.1],
            "byte": np.arange(5, dtype=np.int8),
            "large": np.array([0, 1, 2, 3, 2**64 - 1], dtype=np.uint64),
            "yes": [True, False, True, True, False],
            "gaps": [1.0, np.nan, np.inf, -np.inf, 2.0],
        }
    )
    save(table, "all", directory=tmp_path, allow_missing=["gaps"], **ARGUMENTS)
    result = load("all", tmp_path)
    pd.testing.assert_frame_equal(result.table, table, check_exact=True)
    assert np.signbit(result.table["tiny"][1])


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    numbers=st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=5),
    text=st.text(max_size=5),
)
def test_what_cannot_come_back_is_not_saved(tmp_path, numbers, text):
    table = pd.DataFrame({"x": numbers, "text": [text] * len(numbers)})
    try:
        save(table, "any", directory=tmp_path, **ARGUMENTS)
    except ValueError:
        assert not text.isprintable()  # plain text must be accepted
        return
    pd.testing.assert_frame_equal(load("any", tmp_path).table, table, check_exact=True)


def test_the_file_is_plain_and_comparable(tmp_path):
    path = save(a_table(), "two_gaussians/success.v1", directory=tmp_path, **ARGUMENTS)
    assert path == tmp_path / "two_gaussians" / "success.v1.csv"
    content = path.read_bytes()
    assert b"\r" not in content
    rows = list(csv.reader(content.decode().splitlines()))
    assert rows[0] == ["method", "seed", "nll", "collapsed"]
    assert rows[1] == ["nll", "1", "0.30000000000000004", "True"]
    assert len(rows) == 4
    save(a_table(), "again", directory=tmp_path, **ARGUMENTS)
    assert (tmp_path / "again.csv").read_bytes() == content
    assert sorted(p.name for p in tmp_path.rglob("*") if p.is_file()) == [
        "again.csv",
        "again.json",
        "success.v1.csv",
        "success.v1.json",
    ]


def test_object_strings_and_filtered_rows_are_accepted(tmp_path):
    table = a_table().astype({"method": object})
    save(table[table["seed"] > 1], "part", directory=tmp_path, **ARGUMENTS)
    got = load("part", tmp_path).table
    assert got["method"].tolist() == ["ngem", "NA"]
    assert got.index.tolist() == [0, 1]


# --------------------------------------------------------------------------------- provenance


def test_the_provenance_says_how_the_table_came_about(tmp_path):
    configuration = {"hidden": (128, 128), "rate": np.float32(0.5), "deep": {"flag": None}}
    before = datetime.datetime.now(datetime.UTC).replace(microsecond=0)
    path = save(
        a_table(),
        "run",
        configuration=configuration,
        seeds=range(1, 4),
        wall_time_s=12,
        directory=tmp_path,
        extra={"note": "é"},
    )
    provenance = load("run", tmp_path).provenance
    assert provenance == json.loads((tmp_path / "run.json").read_text(encoding="utf-8"))
    assert provenance["name"] == "run"
    assert provenance["configuration"] == {
        "hidden": [128, 128],
        "rate": 0.5,
        "deep": {"flag": None},
    }
    assert provenance["seeds"] == [1, 2, 3]
    assert provenance["wall_time_s"] == 12.0
    assert provenance["extra"] == {"note": "é"}
    date = datetime.datetime.fromisoformat(provenance["date"])
    assert date.utcoffset() == datetime.timedelta(0)
    assert before <= date <= datetime.datetime.now(datetime.UTC)
    assert provenance["rows"] == 3
    assert list(provenance["columns"].items()) == [
        ("method", "str"),
        ("seed", "int64"),
        ("nll", "float64"),
        ("collapsed", "bool"),
    ]
    assert provenance["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()


def test_the_provenance_names_the_machine_and_the_software(tmp_path):
    import flax
    import jaxlib
    import optax

    save(a_table(), "run", directory=tmp_path, **ARGUMENTS)
    provenance = load("run", tmp_path).provenance
    versions = provenance["versions"]
    assert versions["python"] == ".".join(str(part) for part in sys.version_info[:3])
    for module in (jax, jaxlib, flax, optax, np, pd):
        assert versions[module.__name__] == module.__version__
    assert "ngem_tutorial" in versions
    device = provenance["device"]
    assert device["platform"] == jax.default_backend()
    assert device["count"] == jax.device_count()
    assert device["cpu_cores"] == os.cpu_count()
    assert device["kind"]
    assert device["cpu_model"]


def git(folder, *arguments):
    identity = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    command = ["git", "-C", str(folder), *identity, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A repository with a committed package and pyproject.toml."""
    for variable in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(variable)
    package = tmp_path / "repository" / "package"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package.parent / "pyproject.toml").write_text("")
    git(package.parent, "init", "-q")
    git(package.parent, "add", ".")
    git(package.parent, "commit", "-q", "-m", "first")
    monkeypatch.setattr(results, "_PACKAGE", package)
    return package


def test_the_commit_is_the_one_of_the_package(checkout, tmp_path, monkeypatch):
    head = git(checkout, "rev-parse", "HEAD")

    def commit():
        save(a_table(), "run", **ARGUMENTS)  # also tests the default directory
        return load("run").provenance["commit"]

    assert commit() == {"hash": head, "dirty": False}
    assert commit() == {"hash": head, "dirty": False}  # the results of runs do not count
    assert (checkout.parent / "results" / "run.csv").is_file()
    (checkout / "new.py").write_text("")
    assert commit() == {"hash": head, "dirty": True}
    (checkout / "new.py").unlink()
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "elsewhere"))
    assert commit() == {"hash": head, "dirty": False}


def test_the_commit_is_unknown_outside_of_the_repository(checkout, tmp_path, monkeypatch):
    unknown = {"hash": "unknown", "dirty": None}
    stranger = checkout.parent / "site-packages" / "package"  # inside, but not part of it
    stranger.mkdir(parents=True)
    (stranger / "__init__.py").write_text("")
    assert results._commit(stranger) == unknown
    assert results._commit(tmp_path) == unknown
    monkeypatch.setenv("PATH", "")  # no git at all
    assert results._commit(checkout) == unknown


def test_an_installed_package_has_no_default_directory(checkout, monkeypatch):
    (checkout.parent / "pyproject.toml").unlink()
    with pytest.raises(ResultError, match="name the folder by the argument directory"):
        load("run")
    with pytest.raises(ResultError, match="argument directory"):
        save(a_table(), "run", **ARGUMENTS)


def test_the_default_directory_is_in_this_checkout():
    assert results.default_directory() == Path(__file__).resolve().parent.parent / "results"


# ------------------------------------------------------------------------------ save rejects


def duplicated():
    table = a_table()
    table.columns = ["a", "b", "a", "c"]
    return table


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (a_table().iloc[:0], r"table is empty: it has the shape \(0, 4\)"),
        (pd.DataFrame(index=[0, 1]), "table is empty"),
        (duplicated(), r"more than one column called \['a'\]"),
        (pd.DataFrame({0: [1.0]}), r"names are not strings: \[0\]"),
        (pd.DataFrame({"x": [1.0, np.nan]}), r"not finite in the column 'x', the first in row 1"),
        (pd.DataFrame({"x": [np.inf, 1.0]}), r"1 values .* in row 0: inf"),
        (pd.DataFrame({"x": ["a", None]}), "missing values in the column 'x'"),
        (pd.DataFrame({"x": pd.array([1, None], "Int64")}), "missing values in the column 'x'"),
        (pd.DataFrame({"x": [1 + 2j]}), "the dtype complex128 in the column 'x'"),
        (pd.DataFrame({"x": ["a", 1]}), "the dtype object in the column 'x'"),
        (pd.DataFrame({"x": pd.to_datetime(["2026-01-01"])}), r"dtype datetime64\[.*\] in the"),
        (a_table().set_index("seed"), r"named index \['seed'\]"),
        (pd.DataFrame({"x": ["a"], "y\r": ["b"]}), "cannot be read back from a CSV"),
        (pd.DataFrame({"x": [float(1)], "y": pd.Series(["\ud800"], dtype=object)}), "read back"),
    ],
)
def test_unfit_tables_are_rejected_and_nothing_is_written(tmp_path, table, message):
    with pytest.raises(ValueError, match=message):
        save(table, "bad", directory=tmp_path, **ARGUMENTS)
    assert list(tmp_path.iterdir()) == []


def test_missing_values_must_be_announced_for_the_right_column(tmp_path):
    table = pd.DataFrame({"x": [1.0, np.nan], "y": [np.nan, 1.0], "z": ["nan", "b"]})
    with pytest.raises(ValueError, match="the column 'y'"):
        save(table, "gaps", directory=tmp_path, allow_missing=["x"], **ARGUMENTS)
    with pytest.raises(ValueError, match=r"does not have: \['w'\]"):
        save(table, "gaps", directory=tmp_path, allow_missing=["w"], **ARGUMENTS)
    with pytest.raises(ValueError, match="collection of names, got 'xy'"):
        save(table, "gaps", directory=tmp_path, allow_missing="xy", **ARGUMENTS)
    with pytest.raises(ValueError, match="allow_missing names the column 'z'"):
        save(table, "gaps", directory=tmp_path, allow_missing=["x", "y", "z"], **ARGUMENTS)
    save(table, "gaps", directory=tmp_path, allow_missing=("x", "y"), **ARGUMENTS)
    pd.testing.assert_frame_equal(load("gaps", tmp_path).table, table)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"configuration": {"a": {"b": [1, object()]}}}, r"configuration\['a'\]\['b'\]\[1\] can"),
        ({"configuration": {"a": float("nan")}}, r"configuration\['a'\] cannot be kept as JSON"),
        ({"configuration": {"a": np.inf}}, r"configuration\['a'\] cannot"),
        ({"configuration": {"a": np.zeros(2)}}, r"configuration\['a'\] .* ndarray"),
        ({"configuration": {"a": {1, 2}}}, r"configuration\['a'\] .* set"),
        ({"configuration": {1: 2}}, "configuration has the key 1, which is not a string"),
        ({"configuration": 3.0 + 1j}, "configuration cannot be kept"),
        ({"extra": {"a": b"x"}}, r"extra\['a'\] .* bytes"),
        ({"seeds": [1, 2.5]}, "seeds must be whole numbers, got 2.5"),
        ({"seeds": [True]}, "seeds must be whole numbers, got True"),
        ({"wall_time_s": float("nan")}, "wall_time_s must be a number of seconds, got nan"),
        ({"wall_time_s": -1.0}, "wall_time_s must be"),
        ({"wall_time_s": "long"}, "wall_time_s must be"),
    ],
)
def test_unfit_arguments_are_rejected_and_nothing_is_written(tmp_path, changed, message):
    with pytest.raises(ValueError, match=message):
        save(a_table(), "bad", directory=tmp_path, **{**ARGUMENTS, **changed})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["", "/a", "a/", "a//b", "../a", "a/../b", "a\\b", "a b", ".a", 3])
def test_unfit_names_are_rejected(tmp_path, name):
    with pytest.raises(ValueError, match="name must be"):
        save(a_table(), name, directory=tmp_path, **ARGUMENTS)
    with pytest.raises(ValueError, match="name must be"):
        load(name, tmp_path)


# ------------------------------------------------------------------------------ load rejects


@pytest.fixture
def saved(tmp_path):
    """A folder with the result `run`."""
    save(a_table(), "run", directory=tmp_path, **ARGUMENTS)
    return tmp_path


def edit_provenance(folder, **changes):
    path = folder / "run.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize("missing", ["run.csv", "run.json"])
def test_a_missing_file_is_named(saved, missing):
    (saved / missing).unlink()
    with pytest.raises(
        ResultError, match=r"cannot be read \(No such file.* run its experiment"
    ) as e:
        load("run", saved)
    assert str(saved / missing) in str(e.value)


@pytest.mark.parametrize(
    "change",
    [
        lambda c: c.replace(b"1e-300", b"1e-301"),
        lambda c: c[:-1],
        lambda c: c + b"ngem,4,0.5,True\n",
        lambda c: c.replace(b"\n", b"\r\n"),
        lambda c: b"",
    ],
)
def test_a_changed_table_is_rejected(saved, change):
    path = saved / "run.csv"
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(ResultError, match=r"run\.csv: does not match its provenance: its SHA-256"):
        load("run", saved)


def test_line_ends_are_named_as_the_cause(saved):
    path = saved / "run.csv"
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    with pytest.raises(ResultError, match="must end in LF"):
        load("run", saved)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rows": 4}, "has 3 rows where its provenance says 4"),
        ({"columns": {"method": "str"}}, "its columns are .* not .'method'."),
        ({"columns": ["method"]}, "does not match its provenance"),
        (
            {"columns": {"seed": "int64", "method": "str", "nll": "float64", "collapsed": "bool"}},
            "its columns are",
        ),
        (
            {"columns": {"method": "str", "seed": "int64", "nll": "int64", "collapsed": "bool"}},
            "does not match its provenance",
        ),
        ({"columns": {"method": "strange"}}, "does not match its provenance"),
        ({"sha256": "0" * 64}, "not 0{64}"),
        ({"name": "other"}, "is the provenance of 'other'"),
        ({"format": 99}, "has the format 99, not 1"),
    ],
)
def test_a_changed_provenance_is_rejected(saved, changes, message):
    edit_provenance(saved, **changes)
    with pytest.raises(ResultError, match=message):
        load("run", saved)


@pytest.mark.parametrize(
    ("text", "message"),
    [("{", "is not valid JSON"), ("", "is not valid JSON"), ("[]", "is not the"), ("{}", "lacks")],
)
def test_an_unreadable_provenance_is_rejected(saved, text, message):
    (saved / "run.json").write_text(text)
    with pytest.raises(ResultError, match=message):
        load("run", saved)


# ------------------------------------------------------------------------------- interruptions


class Crash(BaseException):
    """Stands in for an interruption at the worst moment."""


def test_a_crash_between_the_files_is_noticed(saved, monkeypatch):
    original, calls = results.write_atomically, []

    def write(path, content):
        calls.append(path.suffix)
        if path.suffix == ".json":
            raise Crash
        original(path, content)

    monkeypatch.setattr(results, "write_atomically", write)
    with pytest.raises(Crash):
        save(a_table(shift=1.0), "run", directory=saved, **ARGUMENTS)
    assert calls == [".csv", ".json"]
    with pytest.raises(ResultError, match="does not match its provenance"):
        load("run", saved)
    with pytest.raises(Crash):
        save(a_table(), "fresh", directory=saved, **ARGUMENTS)
    with pytest.raises(ResultError, match=r"fresh\.json: cannot be read"):
        load("fresh", saved)


@pytest.mark.parametrize("moment", ["fsync", "replace"])
def test_a_crash_in_the_middle_of_a_write_leaves_the_old_result(saved, monkeypatch, moment):
    def crash(*_):
        raise Crash

    monkeypatch.setattr(_files.os, moment, crash)
    with pytest.raises(Crash):
        save(a_table(shift=1.0), "run", directory=saved, **ARGUMENTS)
    monkeypatch.undo()
    pd.testing.assert_frame_equal(load("run", saved).table, a_table())
    assert sorted(path.name for path in saved.iterdir()) == ["run.csv", "run.json"]


KILLED = """
import os, sys
from pathlib import Path
from ngem_tutorial import _files

def kill(descriptor):
    os._exit(9)  # as by SIGKILL: no handler, no clean-up

_files.os.fsync = kill
_files.write_atomically(Path(sys.argv[1]), b"half of a table")
"""


def test_a_killed_process_leaves_the_old_result(saved):
    ended = subprocess.run([sys.executable, "-c", KILLED, str(saved / "run.csv")], check=False)
    assert ended.returncode == 9
    assert len(list(saved.iterdir())) == 3  # the temporary file stays behind, and is not looked at
    pd.testing.assert_frame_equal(load("run", saved).table, a_table())


def test_a_full_disk_is_reported_and_leaves_the_old_result(saved, monkeypatch):
    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(_files.os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        save(a_table(shift=1.0), "run", directory=saved, **ARGUMENTS)
    monkeypatch.undo()
    pd.testing.assert_frame_equal(load("run", saved).table, a_table())
