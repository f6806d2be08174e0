"""Module 7: the step size of the weights.

It is fixed, falls with the number of updates, or follows the ELBO.
"""

from __future__ import annotations

from ngem_tutorial.vi.steps import Adaptive, Decaying, Fixed, StepSize

__all__ = ["CHOICES"]

CHOICES: dict[str, StepSize] = {"X": Fixed(), "G": Decaying(), "N": Adaptive(least=0.0001)}
"""The letters of this module."""
