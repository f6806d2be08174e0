"""The README's first screen: its example does what it says, its table and figure are current."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import configure
import pytest
import readme

from ngem_tutorial import results

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
EXAMPLE = configure.Settings("octocat/hello-world", "1.2.3")


def test_table_and_figure_are_current(capsys):
    assert readme.main(["check"]) == 0, capsys.readouterr().out + "run `make notebooks`"
    assert (ROOT / readme.FIGURE).stat().st_size < 200_000
    assert f"]({readme.FIGURE.as_posix()})" in TEXT


def test_what_is_out_of_date_is_noticed_and_written(tmp_path, capsys):
    (tmp_path / "book").mkdir()
    shutil.copy(ROOT / "book/intro.ipynb", tmp_path / "book")
    (tmp_path / "README.md").write_text(TEXT.replace("| kin8nm | -1.67", "| kin8nm | -9.67"))
    assert readme.main(["check"], tmp_path) == 1
    assert "README.md is out of date" in capsys.readouterr().out
    assert not (tmp_path / readme.FIGURE).exists()
    assert readme.main([], tmp_path) == 0
    assert (tmp_path / "README.md").read_text() == TEXT
    assert readme.main(["check"], tmp_path) == 0


def test_the_table_has_the_numbers_of_the_stored_runs():
    """By another way: from the table of the experiment, not from the rows for the comparison."""
    final = results.load("uci_regression/paper/final").table
    scores = final[
        final["dataset"].eq("energy")
        & final["optimizer"].eq("Adam")
        & final["method"].eq("whitened NLL")
        & final["scaling"].eq("[0, 1]")
    ]["nll"]
    row = readme.rows().set_index("task").loc["Energy"]
    assert row["here: whitened NLL"] == f"{scores.mean():.2f} ± {scores.std(ddof=1):.2f}"
    assert row["runs"] == str(len(scores))


SNIPPETS = re.findall(r"^```python\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE)
BOTH_ANSWERS = """
truth = 1 + x[0, 0] ** 2
assert np.allclose(np.sort(mixture.means.ravel()), [-truth, truth], atol=0.15)
assert np.allclose(jax.nn.softmax(mixture.logits), 0.5, atol=0.1)
"""
SAME_VALUE_OTHER_GRADIENT = """
assert nll(mixture, y) == ngem(mixture, y)
assert not jnp.allclose(jax.grad(ngem)(mixture, y).means, jax.grad(nll)(mixture, y).means)
"""
ALL_AROUND_THE_RING = """
x = mixture.sample(jax.random.key(1), 4000)
assert abs(jnp.mean(jnp.linalg.norm(x, axis=1)) - 4.0) < 0.2
angles = jnp.arctan2(x[:, 1], x[:, 0])
shares = jnp.histogram(angles, bins=8, range=(-jnp.pi, jnp.pi))[0] / 4000
assert jnp.all(shares > 0.05)
"""


@pytest.mark.parametrize(
    ("code", "check"),
    list(
        zip(
            SNIPPETS,
            [BOTH_ANSWERS, SAME_VALUE_OTHER_GRADIENT, ALL_AROUND_THE_RING],
            strict=True,
        )
    ),
    ids=["train", "ngem", "fit_density"],
)
def test_the_snippets_do_what_the_readme_says(code, check):
    assert len([line for line in code.splitlines() if line]) <= 10
    command = [sys.executable, "-W", "error", "-c", code + check]
    subprocess.run(command, check=True, timeout=120, cwd=ROOT)


def test_links_in_full_for_an_index():
    text = readme.absolute(TEXT, EXAMPLE)
    assert "](https://github.com/octocat/hello-world/blob/v1.2.3/CONTRIBUTING.md)" in text
    assert (
        f"](https://github.com/octocat/hello-world/raw/v1.2.3/{readme.FIGURE.as_posix()})" in text
    )
    assert [link for link in re.findall(r"\]\(([^)]+)\)", text) if "://" not in link] == []
    with pytest.raises(ValueError, match="make configure REPOSITORY"):
        readme.absolute(TEXT, configure.Settings("", "1.2.3"))
