"""Codewords and what they stand for."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from typing import Any

import pytest

from ngem_tutorial.vi import Design, get_design
from ngem_tutorial.vi.adaptation import AdaptiveNumber, FixedNumber
from ngem_tutorial.vi.component_updates import Direct, TrustRegion
from ngem_tutorial.vi.design import MODULES, NAMED
from ngem_tutorial.vi.estimators import More
from ngem_tutorial.vi.sampling import FromComponents, FromMixture
from ngem_tutorial.vi.weight_updates import DirectWeights


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


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: FromComponents(number=0), "number"),
        (lambda: FromComponents(memory=0), "memory"),
        (lambda: FromMixture(reuse=-0.5), "reuse"),
        (lambda: AdaptiveNumber(every=0), "every"),
        (lambda: AdaptiveNumber(patience=2), "patience"),
        (lambda: AdaptiveNumber(thresholds=()), "thresholds"),
        (lambda: AdaptiveNumber(archive=0), "archive"),
        (lambda: AdaptiveNumber(most=0), "most"),
        (lambda: FixedNumber(every=0), "every"),
        (lambda: More(samples=0), "samples"),
        (lambda: More(least=1e-3), "most"),
        (lambda: Direct(first_step=-1.0), "first_step"),
        (lambda: TrustRegion(first_step=math.nan), "first_step"),
        (lambda: DirectWeights(first_step=math.inf), "first_step"),
        (lambda: Design(*"SEMTRON"), "estimator"),
        (lambda: replace(get_design("SAMTRON"), sampling=Direct()), "sampling"),
    ],
)
def test_an_option_that_makes_no_sense_is_named(make: Any, name: str) -> None:
    with pytest.raises(ValueError, match=f"^{name} must"):
        make()
