"""A design: one choice for each of the seven modules, and its name of seven letters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from ngem_tutorial.vi import (
    adaptation,
    component_steps,
    component_updates,
    estimators,
    sampling,
    steps,
    weight_steps,
    weight_updates,
)

__all__ = ["MODULES", "NAMED", "Design", "get_design"]


@dataclass(frozen=True)
class Design:
    """One choice for each module; `get_design("SAMTRON")` makes it from letters.

    Example:
        >>> from dataclasses import replace
        >>> from ngem_tutorial.vi import get_design
        >>> from ngem_tutorial.vi.sampling import FromComponents
        >>> design = replace(get_design("SAMTRON"), sampling=FromComponents(number=50))
        >>> design.sampling.number, design.codeword
        (50, 'SAMTRON')
    """

    estimator: estimators.Estimator
    """How the natural gradient is estimated."""
    adaptation: adaptation.Adaptation
    """Whether the number of components changes."""
    sampling: sampling.Sampling
    """Where samples come from."""
    component_update: component_updates.ComponentUpdate
    """How a component moves."""
    component_step: steps.StepSize
    """How far."""
    weight_update: weight_updates.WeightUpdate
    """How the weights move."""
    weight_step: steps.StepSize
    """How far."""

    def __post_init__(self) -> None:
        """Check that each is a choice of its module."""
        for name, choices in MODULES.items():
            own = getattr(self, name)
            kinds = {type(choice).__name__: type(choice) for choice in choices.values()}
            if type(own) not in kinds.values():
                raise ValueError(f"{name} must be one of {', '.join(kinds)}, got {own!r}")

    @property
    def codeword(self) -> str:
        """The seven letters of the choices, whatever their options."""
        chosen = zip(MODULES.items(), (getattr(self, f.name) for f in fields(self)), strict=True)
        return "".join(
            next(letter for letter, choice in choices.items() if type(choice) is type(own))
            for (_, choices), own in chosen
        )


MODULES: dict[str, Mapping[str, Any]] = {
    "estimator": estimators.CHOICES,
    "adaptation": adaptation.CHOICES,
    "sampling": sampling.CHOICES,
    "component_update": component_updates.CHOICES,
    "component_step": component_steps.CHOICES,
    "weight_update": weight_updates.CHOICES,
    "weight_step": weight_steps.CHOICES,
}
"""The letters of each module, in the order of a codeword."""

NAMED: dict[str, str] = {
    "SAMTRON": "recommended by Arenz et al. (2023)",
    "ZAMTRUX": "VIPS (Arenz et al. 2020)",
    "SEPIFUX": "iBayes-GMM (Lin et al. 2019)",
    "SEPYFUX": "iBayes-GMM with the improved Bayesian learning rule (Lin et al. 2020)",
}
"""Codewords that are a published method."""


def get_design(codeword: str) -> Design:
    """Return the design with a name of seven letters.

    Args:
        codeword: a letter for each of `MODULES`, in their order; `"SAMTRON"` for instance.

    Returns:
        The design, each choice with its default options.

    Raises:
        ValueError: if the word has not seven letters, or a module does not have the letter.

    Example:
        >>> from ngem_tutorial.vi import get_design
        >>> type(get_design("SEPYFUX").component_update).__name__
        'ImprovedBayesianRule'
    """
    if not isinstance(codeword, str) or len(codeword) != len(MODULES):
        raise ValueError(
            f"method must be a Design or a word of {len(MODULES)} letters, one for each of "
            f"{', '.join(MODULES)}, got {codeword!r}"
        )
    chosen: dict[str, Any] = {}
    for position, (letter, (name, choices)) in enumerate(
        zip(codeword, MODULES.items(), strict=True)
    ):
        if letter not in choices:
            known = ", ".join(f"{key} ({type(c).__name__})" for key, c in choices.items())
            raise ValueError(
                f"letter {position + 1} of the method, {name}, must be one of {known}, "
                f"got {letter!r} in {codeword!r}"
            )
        chosen[name] = choices[letter]
    return Design(**chosen)
