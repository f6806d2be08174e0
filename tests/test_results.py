"""Results: what is saved comes back exactly, and nothing else is ever accepted."""

import csv
import datetime
import hashlib
import io
import json
import lzma
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

from ngem_tutorial import _files, _machine, results  # noqa: E402
from ngem_tutorial.results import ResultError  # noqa: E402

ARGUMENTS = {"configuration": {"rate": 0.1}, "seeds": [1, 2, 3]}


def save(table, name, *, allow_missing=(), seconds=1.5, **arguments):
    """Publish a set of one table."""
    tables = {"table": table}
    made = results.part(tables, seconds)
    return results.save(
        tables, name, parts=[made], allow_missing={"table": allow_missing}, **arguments
    )


def load(name, directory=None):
    return results.load(f"{name}/table" if isinstance(name, str) else name, directory)


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
        save(table, "any", directory=tmp_path, replace=True, **ARGUMENTS)
    except ValueError:
        assert not text.isprintable()  # plain text must be accepted
        return
    pd.testing.assert_frame_equal(load("any", tmp_path).table, table, check_exact=True)


def test_small_tables_are_plain_and_comparable(tmp_path):
    folder = save(a_table(), "two_gaussians/success.v1", directory=tmp_path, **ARGUMENTS)
    assert folder == tmp_path / "two_gaussians" / "success.v1"
    content = (folder / "table.csv").read_bytes()
    assert b"\r" not in content
    rows = list(csv.reader(content.decode().splitlines()))
    assert rows[0] == ["method", "seed", "nll", "collapsed"]
    assert rows[1] == ["nll", "1", "0.30000000000000004", "True"]
    assert len(rows) == 4
    save(a_table(), "again", directory=tmp_path, **ARGUMENTS)
    assert (tmp_path / "again" / "table.csv").read_bytes() == content
    assert sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()) == [
        "again/provenance.json",
        "again/table.csv",
        "two_gaussians/success.v1/provenance.json",
        "two_gaussians/success.v1/table.csv",
    ]


def test_large_tables_are_compressed_to_the_same_bytes_each_time(tmp_path):
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"method": ["NLL", "SGEM"] * 5000, "nll": rng.normal(size=10_000)})
    folders = [save(table, name, directory=tmp_path, **ARGUMENTS) for name in ("one", "two")]
    assert [p.name for p in sorted(folders[0].iterdir())] == ["provenance.json", "table.csv.xz"]
    content, again = ((folder / "table.csv.xz").read_bytes() for folder in folders)
    assert content == again
    plain = lzma.decompress(content)  # what any tool shows of it
    assert pd.read_csv(io.BytesIO(plain))["method"].tolist() == table["method"].tolist()
    assert len(content) < len(plain) / 2
    pd.testing.assert_frame_equal(load("one", tmp_path).table, table, check_exact=True)


def test_a_change_of_a_compressed_table_is_seen_in_the_summary(tmp_path):
    table = pd.DataFrame(
        {
            "method": ["NLL"] * 3 + ["SGEM"],
            "seed": [1, 2, 3, 4],
            "image": [f"{i:04x}" for i in range(4)],
            "nll": [1.0, 2.0, np.nan, 6.0],
            "yes": [True, False, True, True],
        }
    )
    save(table, "run", directory=tmp_path, allow_missing=["nll"], **ARGUMENTS)
    found = load("run", tmp_path).provenance["tables"]["table"]["summary"]
    assert found["method"] == {"counts": {"NLL": 3, "SGEM": 1}}
    assert found["seed"] == {"min": 1.0, "mean": 2.5, "max": 4.0}
    assert found["nll"] == {"min": 1.0, "mean": 3.0, "max": 6.0, "not_finite": 1}
    assert found["yes"] == {"counts": {"False": 1, "True": 3}}
    many = pd.DataFrame({"image": [f"{i:04x}" for i in range(40)]})
    save(many, "many", directory=tmp_path, **ARGUMENTS)
    summary = load("many", tmp_path).provenance["tables"]["table"]["summary"]
    assert summary == {"image": {"distinct": 40}}


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
        seconds=12,
        directory=tmp_path,
        extra={"note": "two  blanks, [1,  2] é"},
    )
    provenance = load("run", tmp_path).provenance
    assert provenance == json.loads((path / "provenance.json").read_text(encoding="utf-8"))
    assert provenance["name"] == "run"
    assert provenance["configuration"] == {
        "hidden": [128, 128],
        "rate": 0.5,
        "deep": {"flag": None},
    }
    assert provenance["seeds"] == [1, 2, 3]
    assert provenance["extra"] == {"note": "two  blanks, [1,  2] é"}
    (part,) = provenance["parts"]
    assert part["seconds"] == results.seconds(provenance) == 12.0
    assert part["peak_memory_mib"] > 10
    date = datetime.datetime.fromisoformat(part["date"])
    assert date.utcoffset() == datetime.timedelta(0)
    assert before <= date <= datetime.datetime.now(datetime.UTC)
    assert part["rows"] == {"table": [[0, 3]]}
    table = provenance["tables"]["table"]
    assert table["rows"] == 3
    assert list(table["columns"].items()) == [
        ("method", "str"),
        ("seed", "int64"),
        ("nll", "float64"),
        ("collapsed", "bool"),
    ]
    assert table["sha256"] == hashlib.sha256((path / "table.csv").read_bytes()).hexdigest()


def test_the_provenance_names_the_machine_and_the_software(tmp_path):
    import flax
    import jaxlib
    import optax

    save(a_table(), "run", directory=tmp_path, **ARGUMENTS)
    (part,) = load("run", tmp_path).provenance["parts"]
    versions = part["versions"]
    assert versions["python"] == ".".join(str(part) for part in sys.version_info[:3])
    for module in (jax, jaxlib, flax, optax, np, pd):
        assert versions[module.__name__] == module.__version__
    assert "ngem_tutorial" in versions
    assert "kfac_jax" in versions
    device = part["device"]
    assert device["x64"] is False
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
    monkeypatch.setattr(_machine, "PACKAGE", package)
    return package


def test_the_commit_is_the_one_of_the_package(checkout, tmp_path, monkeypatch):
    head = git(checkout, "rev-parse", "HEAD")

    def commit():
        save(a_table(), "run", replace=True, **ARGUMENTS)  # also tests the default directory
        return load("run").provenance["parts"][0]["commit"]

    assert commit() == {"hash": head, "dirty": False}
    assert commit() == {"hash": head, "dirty": False}  # the results of runs do not count
    assert (checkout.parent / "results" / "run" / "table.csv").is_file()
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
    assert _machine.commit(stranger) == unknown
    assert _machine.commit(tmp_path) == unknown
    monkeypatch.setenv("PATH", "")  # no git at all
    assert _machine.commit(checkout) == unknown


def test_an_installed_package_has_no_default_directory(checkout, monkeypatch):
    (checkout.parent / "pyproject.toml").unlink()
    with pytest.raises(ResultError, match=r"name the folder .--out FOLDER; in Python: directory=."):
        load("run")
    with pytest.raises(ResultError, match="name the folder"):
        save(a_table(), "run", **ARGUMENTS)


def test_an_installed_package_reads_the_results_that_it_brings(checkout, monkeypatch):
    save(a_table(), "run", **ARGUMENTS)
    (checkout.parent / "pyproject.toml").unlink()
    (checkout.parent / "results").rename(checkout / "_results")
    assert load("run").table.equals(a_table())
    with pytest.raises(ResultError, match="name the folder"):
        save(a_table(), "run", replace=True, **ARGUMENTS)


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
        ({"seconds": float("nan")}, "seconds must be a number of seconds, got nan"),
        ({"seconds": -1.0}, "seconds must be"),
        ({"seconds": "long"}, "seconds must be"),
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
    with pytest.raises(ValueError, match="name must be"):
        results.load_set(name, tmp_path)


# ------------------------------------------------------------------------------ load rejects


@pytest.fixture
def saved(tmp_path):
    """A folder with the result `run`."""
    save(a_table(), "run", directory=tmp_path, **ARGUMENTS)
    return tmp_path


def edit_provenance(folder, **changes):
    path = folder / "run" / "provenance.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def edit_table(folder, **changes):
    tables = results.read_provenance("run", folder)["tables"]
    edit_provenance(folder, tables={"table": {**tables["table"], **changes}})


@pytest.mark.parametrize("missing", ["table.csv", "provenance.json"])
def test_a_missing_file_is_named(saved, missing):
    (saved / "run" / missing).unlink()
    with pytest.raises(
        ResultError, match=r"cannot be read \(No such file.* run its experiment"
    ) as e:
        load("run", saved)
    assert str(saved / "run" / missing) in str(e.value)


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
    path = saved / "run" / "table.csv"
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(
        ResultError, match=r"table\.csv: does not match its provenance: its SHA-256"
    ):
        load("run", saved)


def test_line_ends_are_named_as_the_cause(saved):
    path = saved / "run" / "table.csv"
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    with pytest.raises(ResultError, match="must end in LF"):
        load("run", saved)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rows": 4}, r"do not have each of the 4 rows of 'table' once: \[\[0, 3\]\]"),
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
    ],
)
def test_a_changed_description_of_a_table_is_rejected(saved, changes, message):
    edit_table(saved, **changes)
    with pytest.raises(ResultError, match=message):
        load("run", saved)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "other"}, "is the provenance of 'other'"),
        ({"format": 99}, "has the format 99, not 2"),
        ({"parts": []}, "do not have each of the 3 rows of 'table' once"),
        ({"parts": [{"rows": {"table": [[0, 3]]}}]}, "lack date, seconds, .* in number 0"),
        ({"parts": [3]}, "is not the provenance of a set"),
        ({"tables": [3]}, "is not the provenance of a set"),
        ({"tables": {"table": {"rows": 3}}}, "lack file, sha256, .* of the table 'table'"),
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
    (saved / "run" / "provenance.json").write_text(text)
    with pytest.raises(ResultError, match=message):
        load("run", saved)


def test_a_table_that_the_set_does_not_have_is_named(saved):
    with pytest.raises(ResultError, match=r"run: has no table 'other', but table"):
        results.load("run/other", saved)
    with pytest.raises(ValueError, match="SET/TABLE, got 'run'"):
        results.load("run", saved)


def test_a_damaged_compressed_table_is_rejected(tmp_path):
    table = pd.DataFrame({"x": np.random.default_rng(0).normal(size=10_000)})
    path = save(table, "run", directory=tmp_path, **ARGUMENTS) / "table.csv.xz"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ResultError, match=r"table\.csv\.xz: does not match its provenance"):
        load("run", tmp_path)
    path.write_bytes(b"no compressed file")
    with pytest.raises(ResultError, match="does not match its provenance"):
        load("run", tmp_path)


# ------------------------------------------------------------------------------ sets as a whole


def test_a_stored_set_is_kept_unless_it_is_to_be_replaced(saved):
    with pytest.raises(ResultError, match="run: there is a set of this name"):
        save(a_table(shift=1.0), "run", directory=saved, **ARGUMENTS)
    pd.testing.assert_frame_equal(load("run", saved).table, a_table())
    save(a_table(shift=1.0), "run", directory=saved, replace=True, **ARGUMENTS)
    pd.testing.assert_frame_equal(load("run", saved).table, a_table(shift=1.0))


def test_a_table_of_another_name_leaves_nothing_of_the_old_set(saved):
    """A stray file in the folder is no table either."""
    tables = {"renamed": a_table()}
    (saved / "run" / "stray.csv").write_text("x\n1\n")
    made = [results.part(tables, 1.0)]
    results.save(tables, "run", parts=made, directory=saved, replace=True, **ARGUMENTS)
    assert list(results.load_set("run", saved).tables) == ["renamed"]
    names = sorted(path.name for path in (saved / "run").iterdir())
    assert names == ["provenance.json", "renamed.csv"]


def test_parts_must_have_each_row_once(tmp_path):
    tables = {"table": a_table()}
    one, two = results.part(tables, 1.0), results.part(tables, 1.0)
    for rows in ([[0, 2]], [[0, 3], [2, 3]], [[1, 3]], [[0, 4]]):
        one["rows"] = {"table": rows}
        with pytest.raises(ValueError, match="parts do not have each of the 3 rows"):
            results.save(tables, "run", parts=[one], directory=tmp_path, **ARGUMENTS)
    one["rows"], two["rows"] = {"table": [[0, 1], [2, 3]]}, {"table": [[1, 2]]}
    results.save(tables, "run", parts=[one, two], directory=tmp_path, **ARGUMENTS)
    assert len(load("run", tmp_path).provenance["parts"]) == 2


def test_sets_are_combined_with_the_rows_of_each_machine():
    def of(machine, seconds, seed, **more):
        tables = {"final": pd.DataFrame({"seed": [seed]}), **more}
        made = results.part(tables, seconds, units=[f"seed={seed}"])
        made["device"] = made["device"] | {"cpu_model": machine}
        made["peak_memory_mib"] = 100 * seed
        return results.ResultSet(tables, {"name": f"seed={seed}", "parts": [made]})

    curve = pd.DataFrame({"update": [0, 1]})
    sets = [of("A", 1.0, 1), of("B", 2.0, 2, curve=curve), of("A", 4.0, 3, curve=curve)]
    tables, (first, second) = results.combine(sets)
    assert tables["final"]["seed"].tolist() == [1, 2, 3]
    assert tables["curve"]["update"].tolist() == [0, 1, 0, 1]
    assert first["rows"] == {"final": [[0, 1], [2, 3]], "curve": [[2, 4]]}
    assert second["rows"] == {"final": [[1, 2]], "curve": [[0, 2]]}
    assert (first["seconds"], second["seconds"]) == (5.0, 2.0)
    assert (first["peak_memory_mib"], second["peak_memory_mib"]) == (300, 200)
    assert first["units"] == ["seed=1", "seed=3"]
    assert [part["device"]["cpu_model"] for part in (first, second)] == ["A", "B"]

    neighbours = results.combine([of("A", 1.0, 1), of("A", 1.0, 2)])[1]
    assert [part["rows"] for part in neighbours] == [{"final": [[0, 2]]}]
    other = results.ResultSet({"final": pd.DataFrame({"x": [1]})}, sets[0].provenance)
    with pytest.raises(ResultError, match=r"'final' has the columns \['x'\], .* have \['seed'\]"):
        results.combine([sets[0], other])


def test_the_origin_of_a_set_is_told_part_by_part():
    def part(seconds, commit, **more):
        return {
            "seconds": seconds,
            "device": {"cpu_model": "Abacus 3", "platform": "cpu", "cpu_cores": 2},
            "date": "2026-01-02T03:04:05+00:00",
            "versions": {"jax": "0.10.2"},
            "commit": {"hash": commit * 40},
            **more,
        }

    machine = "on Abacus 3 (cpu, 2 cores), 2026-01-02, JAX 0.10.2, commit"
    assert results.origin({"parts": [part(30.0, "a")]}) == f"30 s {machine} `aaaaaaa`"
    both = {"parts": [part(600.0, "a"), part(7200.0, "b", methods=["A", "B"])]}
    assert results.origin(both) == (
        f"10 min {machine} `aaaaaaa`; A, B later, in 2.0 h {machine} `bbbbbbb`"
    )
    assert results.seconds(both) == 7800.0
    same = {"parts": [part(600.0, "a"), part(300.0, "a")]}
    assert results.origin(same) == f"15 min {machine} `aaaaaaa`"


STORED = sorted(
    str(path.parent.relative_to(results.default_directory()))
    for path in results.default_directory().rglob("provenance.json")
    if "quick" not in path.parts and ".partial" not in path.parts
)


@pytest.mark.parametrize("name", STORED)
def test_a_stored_set_has_the_files_that_it_names_and_no_others(name):
    stored = results.load_set(name)  # checks each table
    folder = results.default_directory() / name
    names = {table["file"] for table in stored.provenance["tables"].values()}
    assert {path.name for path in folder.iterdir()} == names | {"provenance.json"}
    for table, described in stored.provenance["tables"].items():
        counted = described["summary"].get("method", {})
        if "distinct" in counted:  # too many to be counted one by one
            assert counted["distinct"] == stored.tables[table]["method"].nunique()
        elif counted:
            counts = stored.tables[table]["method"].value_counts().to_dict()
            assert counted["counts"] == counts


def test_there_are_stored_sets():
    assert len(STORED) >= 10


# ------------------------------------------------------------------------------- interruptions


class Crash(BaseException):
    """Stands in for an interruption at the worst moment."""


def two_tables(shift=0.0):
    return {"a": a_table(shift), "b": a_table(shift)}


@pytest.mark.parametrize("replace", [False, True])
@pytest.mark.parametrize(
    ("function", "call"),
    [
        *[("fsync", call) for call in (1, 2, 3)],
        *[("replace", call) for call in (1, 2, 3)],
        *[("rename", call) for call in (1, 2)],
    ],
)
def test_a_crash_at_any_moment_leaves_the_old_set_whole(
    tmp_path, monkeypatch, replace, function, call
):
    # As on a system that cannot exchange two names; for one that can, see below.
    monkeypatch.setattr(results, "exchange", lambda *_: False)

    def publish(tables):
        made = [results.part(tables, 1.0)]
        results.save(tables, "run", parts=made, directory=tmp_path, replace=replace, **ARGUMENTS)

    if replace:
        publish(two_tables())
    real, calls = getattr(os, function), []

    def crash(*arguments):
        calls.append(arguments)
        if len(calls) == call:
            raise Crash
        return real(*arguments)

    monkeypatch.setattr(os, function, crash)
    if (function, call, replace) == ("rename", 2, False):
        publish(two_tables(shift=1.0))  # there is one rename only, and it is the publication
        return
    with pytest.raises(Crash):
        publish(two_tables(shift=1.0))
    monkeypatch.undo()
    if replace:
        for table in results.load_set("run", tmp_path).tables.values():
            pd.testing.assert_frame_equal(table, a_table())
    left = [path.name for path in tmp_path.iterdir()]
    assert left == (["run"] if replace else [])


KILLED = """
import os, sys
from pathlib import Path
import pandas as pd
from ngem_tutorial import results

real, moment = results.exchange, sys.argv[2]

def exchange(*folders):
    if moment == "after":
        assert real(*folders)
    os._exit(9)  # as by SIGKILL: no handler, no clean-up

results.exchange = exchange
tables = {name: pd.DataFrame({"x": [9.0]}) for name in "ab"}
results.save(tables, "run", configuration={}, seeds=[], parts=[results.part(tables, 1.0)],
             directory=Path(sys.argv[1]), replace=True)
"""


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_killed_process_leaves_the_old_set_or_the_new_one(saved, moment):
    ended = subprocess.run([sys.executable, "-c", KILLED, str(saved), moment], check=False)
    assert ended.returncode == 9
    assert sorted(path.name for path in saved.iterdir()) == [".partial", "run"]
    if moment == "before":
        pd.testing.assert_frame_equal(load("run", saved).table, a_table())
    else:
        assert sorted(results.load_set("run", saved).tables) == ["a", "b"]


def test_a_full_disk_is_reported_and_leaves_the_old_set(saved, monkeypatch):
    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(_files.os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        save(a_table(shift=1.0), "run", directory=saved, replace=True, **ARGUMENTS)
    monkeypatch.undo()
    pd.testing.assert_frame_equal(load("run", saved).table, a_table())
