"""Mixtures of other components than diagonal Gaussians."""

from ngem_tutorial.components.full_gaussian import FullGaussianMixture

__all__ = ["FullGaussianMixture"]
