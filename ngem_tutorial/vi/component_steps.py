"""Module 5: the step size of a component.

It is fixed, falls with the number of its updates, or follows its reward `tau log w_o + R_o`.
"""

from __future__ import annotations

from ngem_tutorial.vi.steps import Adaptive, Decaying, Fixed, StepSize

__all__ = ["CHOICES"]

CHOICES: dict[str, StepSize] = {"F": Fixed(), "D": Decaying(), "R": Adaptive()}
"""The letters of this module."""
