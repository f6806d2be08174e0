"""Codewords and what they stand for."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from ngem_tutorial.vi import get_design
from ngem_tutorial.vi.design import MODULES, NAMED


def test_all_432_words_are_designs_and_come_back() -> None:
    words = ["".join(letters) for letters in itertools.product(*MODULES.values())]
    assert len(words) == 432
    assert [get_design(word).codeword for word in words] == words
    assert len({get_design(word) for word in words}) == 432
    assert set(NAMED) <= set(words)


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("XAMTRON", r"letter 1 of the method, estimator, must be one of S \(Stein\), Z \(More\)"),
        ("SAMTQON", r"letter 5 .* component_step, must be one of F .*, D .*, R .*, got 'Q'"),
        ("SAMTRO", "word of 7 letters"),
        ("samtron", "letter 1"),
        (None, "word of 7 letters"),
    ],
)
def test_an_unknown_letter_is_named_with_those_of_its_module(word: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        get_design(word)
