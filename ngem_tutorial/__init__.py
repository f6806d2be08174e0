"""Natural gradient expectation maximisation for mixture density networks.

Objectives and models in JAX and Flax, with the closed-form Fisher matrices behind them.
"""

from ngem_tutorial import _flax  # noqa: F401  # first, for its error
from ngem_tutorial.em import em_step
from ngem_tutorial.fisher import natural_gradient
from ngem_tutorial.methods import METHODS, Method, get_method
from ngem_tutorial.mixtures import GaussianMixture
from ngem_tutorial.networks import (
    LabelConditioned,
    MixtureDensityNetwork,
    PlainMixture,
    Standardized,
    choose_initial_means,
)
from ngem_tutorial.objectives import (
    beta_nll,
    mse,
    ngem,
    nll,
    relaxation_schedule,
    scale_unit,
    sgem,
)
from ngem_tutorial.optimizers import get_optimizer
from ngem_tutorial.power import pooled_unit, whitened_nll
from ngem_tutorial.training import Fit, NonFiniteError, ScaleWarning, fit
from ngem_tutorial.variants import Variant

__version__ = "0.1.0.dev0"

__all__ = [
    "METHODS",
    "Fit",
    "GaussianMixture",
    "LabelConditioned",
    "Method",
    "MixtureDensityNetwork",
    "NonFiniteError",
    "PlainMixture",
    "ScaleWarning",
    "Standardized",
    "Variant",
    "beta_nll",
    "choose_initial_means",
    "em_step",
    "fit",
    "get_method",
    "get_optimizer",
    "mse",
    "natural_gradient",
    "ngem",
    "nll",
    "pooled_unit",
    "relaxation_schedule",
    "scale_unit",
    "sgem",
    "whitened_nll",
]
