"""Natural-gradient variational inference with Gaussian mixtures.

`fit_density` fits a mixture to an unnormalised density. A method is a choice for each of seven
modules, `Design`; each module is a file of its own.
"""

from ngem_tutorial.vi.checks import TargetError
from ngem_tutorial.vi.design import Design, get_design
from ngem_tutorial.vi.diagnostics import Diagnosis, diagnose, modes_found
from ngem_tutorial.vi.fitting import VIFit, fit_density, initial_mixture

__all__ = [
    "Design",
    "Diagnosis",
    "TargetError",
    "VIFit",
    "diagnose",
    "fit_density",
    "get_design",
    "initial_mixture",
    "modes_found",
]
