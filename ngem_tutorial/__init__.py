"""Natural gradient expectation maximisation for mixture density networks.

Objectives and models in JAX and Flax, with the closed-form Fisher matrices behind them.
"""

from ngem_tutorial.fisher import PRECONDITIONERS, Preconditioner, natural_gradient
from ngem_tutorial.mixtures import GaussianMixture
from ngem_tutorial.networks import LabelConditioned, MixtureDensityNetwork, PlainMixture
from ngem_tutorial.objectives import beta_nll, mse, ngem, nll, relaxation_schedule, sgem
from ngem_tutorial.training import Fit, NonFiniteError, fit

__version__ = "0.1.0"

__all__ = [
    "PRECONDITIONERS",
    "Fit",
    "GaussianMixture",
    "LabelConditioned",
    "MixtureDensityNetwork",
    "NonFiniteError",
    "PlainMixture",
    "Preconditioner",
    "beta_nll",
    "fit",
    "mse",
    "natural_gradient",
    "ngem",
    "nll",
    "relaxation_schedule",
    "sgem",
]
