"""Figures, drawn from tables and mixtures. The same method has the same colour everywhere.

The functions that several pages use are names of this package; those of one page of the theory
are in a module of its own.
"""

from ngem_tutorial import _plot  # noqa: F401  # first, for its error
from ngem_tutorial.figures.densities import (
    conditional_densities,
    densities_with_components,
    density_grid,
    density_with_marginals,
    forward_and_inverse,
    mean_trajectories,
    one_and_two_modes,
)
from ngem_tutorial.figures.images import image_grid
from ngem_tutorial.figures.style import DASHES, PALETTE, check_format, write
from ngem_tutorial.figures.tables import CaptionedTable
from ngem_tutorial.figures.training import (
    convergence,
    outcome_distribution,
    seed_curves,
    success_curves,
    success_rates,
)

__all__ = [
    "DASHES",
    "PALETTE",
    "CaptionedTable",
    "check_format",
    "conditional_densities",
    "convergence",
    "densities_with_components",
    "density_grid",
    "density_with_marginals",
    "forward_and_inverse",
    "image_grid",
    "mean_trajectories",
    "one_and_two_modes",
    "outcome_distribution",
    "seed_curves",
    "success_curves",
    "success_rates",
    "write",
]
