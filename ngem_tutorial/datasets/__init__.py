"""The data of the experiments: synthetic generators with their truth, images, tables of UCI."""

from ngem_tutorial.datasets._errors import DatasetError
from ngem_tutorial.datasets.images import LabelledImages, digits, mnist
from ngem_tutorial.datasets.synthetic import (
    ConditionalSample,
    Sample,
    junction,
    two_gaussians,
    two_sinusoids,
)
from ngem_tutorial.datasets.uci import (
    NUM_SPLITS,
    SCALINGS,
    UCI,
    Regression,
    Scaled,
    rescale,
    uci_split,
)

__all__ = [
    "NUM_SPLITS",
    "SCALINGS",
    "UCI",
    "ConditionalSample",
    "DatasetError",
    "LabelledImages",
    "Regression",
    "Sample",
    "Scaled",
    "digits",
    "junction",
    "mnist",
    "rescale",
    "two_gaussians",
    "two_sinusoids",
    "uci_split",
]
