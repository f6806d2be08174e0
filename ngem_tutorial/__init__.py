"""Natural gradient expectation maximisation for mixture density networks.

Objectives and models in JAX and Flax, with the closed-form Fisher matrices behind them.
"""

from ngem_tutorial.fisher import natural_gradient
from ngem_tutorial.methods import METHODS, Method, get_method
from ngem_tutorial.mixtures import GaussianMixture
from ngem_tutorial.networks import LabelConditioned, MixtureDensityNetwork, PlainMixture
from ngem_tutorial.objectives import (
    beta_nll,
    mse,
    ngem,
    nll,
    relaxation_schedule,
    scale_unit,
    sgem,
)
from ngem_tutorial.training import Fit, NonFiniteError, fit
from ngem_tutorial.variants import Variant

__version__ = "0.1.0"

__all__ = [
    "METHODS",
    "Fit",
    "GaussianMixture",
    "LabelConditioned",
    "Method",
    "MixtureDensityNetwork",
    "NonFiniteError",
    "PlainMixture",
    "Variant",
    "beta_nll",
    "fit",
    "get_method",
    "mse",
    "natural_gradient",
    "ngem",
    "nll",
    "relaxation_schedule",
    "scale_unit",
    "sgem",
]
