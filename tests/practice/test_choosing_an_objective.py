"""What "Choosing an objective" says of initial means, against the stored study."""

from __future__ import annotations

import pandas as pd
import pytest

from ngem_tutorial.experiments import default_study as study
from ngem_tutorial.reproduction import registry

SEEDED = ("NLL, k-means++", "k-means++, not relaxed", "balanced, damped logits, faded, k-means++")


@pytest.fixture(scope="module")
def success() -> pd.DataFrame:
    """A row for each task, a column for each candidate."""
    judged = study.judge(registry.load("default_study", "tuning_free"))
    return judged.pivot(index="task", columns="method", values="success")


@pytest.fixture(scope="module")
def difference() -> pd.DataFrame:
    judged = study.judge(registry.load("default_study", "tuning_free"))
    return judged.pivot(index="task", columns="method", values="minus_nll")


def test_random_starts_do_not_find_ten_modes(success: pd.DataFrame) -> None:
    seeded = [name for name in success if study.CANDIDATES[name].initial_means == "kmeans++"]
    ten = success.loc["10 modes, K=10, uneven"]
    assert (ten.drop(seeded) == 0).all()
    assert (ten[list(SEEDED)] > 0.5).all()


def test_of_twenty_modes_three_or_four_runs_in_ten_find_all(success: pd.DataFrame) -> None:
    assert set(success.loc["20 modes, K=20, uneven", list(SEEDED)].round(3)) == {0.3, 0.4}


def test_with_twice_as_many_components_every_run_succeeds(success: pd.DataFrame) -> None:
    tasks = [f"{n} modes, K={2 * n}, even" for n in (2, 3, 5, 10, 20)]
    assert (success.loc[tasks, list(SEEDED)] == 1).all(axis=None)


def test_the_start_is_worth_more_than_the_objective(difference: pd.DataFrame) -> None:
    """From ten modes on; before, all are within a tenth of a nat of each other."""
    unseeded = [name for name in difference if study.CANDIDATES[name].initial_means == "own"]
    many = [task for task in difference.index if task.startswith(("10 ", "20 "))]
    for task in many:
        assert difference.loc[task, "NLL, k-means++"] < difference.loc[task, unseeded].min()


def test_the_relaxed_start_hurts_where_the_means_start_well(success: pd.DataFrame) -> None:
    relaxed, not_relaxed = success["k-means++"], success["k-means++, not relaxed"]
    assert (relaxed <= not_relaxed).all()
    assert (relaxed < not_relaxed).sum() >= 3
