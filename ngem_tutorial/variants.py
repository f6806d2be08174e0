"""Other preconditioners of the negative log-likelihood, by name: the paper's, and their kin.

For comparison with `ngem`, and for the study of what it is made of. Each is an objective like `nll`
and compares, and hashes, by value: a program compiled for one serves its equal.
"""

from __future__ import annotations

import dataclasses
from typing import Literal, get_args, get_type_hints

import jax
import jax.numpy as jnp
import numpy as np

from ngem_tutorial._checks import check_choice, check_options
from ngem_tutorial._typing import Array, ArrayLike, Float, Scalar
from ngem_tutorial.fisher import Coordinate, relaxed_e_step, solve_damped_categorical_fisher
from ngem_tutorial.mixtures import GaussianMixture, check_mixture
from ngem_tutorial.objectives import with_gradient

__all__ = ["Variant", "as_derived", "eq68", "fully_damped", "paper_code", "undamped"]


@dataclasses.dataclass(frozen=True)
class Variant:
    r"""An objective with the value of `nll` and a gradient that is preconditioned as one chooses.

    With `pi` the weights, `rho` the responsibilities, `r = rho / pi`, `N_k` the density of
    component `k` at the target and `g` the plain gradient. Without arguments it is `ngem`.

    Args:
        logits: how the gradient of the logits is formed.

            - `"plain"`: `pi - rho`, the gradient itself.
            - `"natural"`: `mean(r) - r`, preconditioned by the Moore-Penrose inverse of
              `F = diag(pi) - pi pi^T` (equation (22)).
            - `"eq68"`: `1 - r`, preconditioned by the reflexive generalised inverse of
              equation (67), which the paper calls the Moore-Penrose inverse.
            - `"damped"`: `(F + damping I)^{-1} (pi - rho)`.
            - `"paper_code"`: `pi sum(r) - r`, what differentiating the code of Appendix C gives.
              It is not a gradient preconditioned by a Fisher matrix: its E-step ignores the
              weights, and separated components end at weights proportional to the square roots
              of the true ones.
        gaussians: the weight of component `k` on the natural gradient of its Gaussian.

            - `"damped"`: `rho_k / (pi_k + damping)`, at most `1 / damping`.
            - `"rho/pi"`: `r_k`, from the block `pi_k F_k` of equation (51). Unbounded as `pi_k`
              goes to zero.
            - `"rho"`: `rho_k`, which preconditions with `F_k` alone.
            - `"plain"`: no preconditioning, `rho_k` times the plain gradient of the Gaussian.
        coordinate: in which coordinate of the standard deviation the Fisher block acts: `"scale"`
            with `F = 2 / sigma^2` as in the paper (equation (21)), or `"log_scale"` with the
            constant `F = 2`. As steps of a free parameter they agree to first order (natural
            gradients do not depend on coordinates); as cotangents sent through a network they
            differ by the factor `sigma^2`. Without effect
            where the Gaussians are `"plain"`.
        damping: what `"damped"` adds, positive, in the units of a weight. Without effect where
            neither is `"damped"`.

    Raises:
        ValueError: if a choice is not among those listed or `damping` is not positive.

    Example:
        >>> import jax
        >>> from ngem_tutorial import GaussianMixture, Variant, ngem
        >>> mixture = GaussianMixture([0.0, 1.0], [[-1.0], [1.0]], [[1.0], [1.0]])
        >>> ours = jax.grad(ngem)(mixture, [0.5]).means
        >>> bool(abs(jax.grad(Variant())(mixture, [0.5]).means - ours).max() < 1e-6)
        True
        >>> Variant(damping=0.1).gaussians
        'damped'
    """

    logits: Literal["plain", "natural", "eq68", "damped", "paper_code"] = "plain"
    gaussians: Literal["damped", "rho/pi", "rho", "plain"] = "damped"
    coordinate: Coordinate = "log_scale"
    damping: float = 0.25

    def __post_init__(self) -> None:
        """Check the choices."""
        for name, hint in get_type_hints(type(self)).items():
            if choices := get_args(hint):
                check_choice(name, getattr(self, name), choices)
        check_options(1, damping=self.damping)

    def __call__(
        self,
        mixture: GaussianMixture,
        y: ArrayLike,
        *,
        unit: ArrayLike = 1.0,
        relaxation: Scalar = 0.0,
    ) -> Float[Array, "*batch"]:
        """The value of `nll`, the gradient of `gradient`; arguments and errors are those of `ngem`.

        Args:
            mixture: batch shape `(...)`.
            y: targets, shape `(..., D)`, with the mixture's batch shape, or of any for a mixture
                without.
            unit: the unit in which the means, and in the coordinate `"scale"` the scales, are
                measured: positive, a number or shape `(D,)`; 1 where the Gaussians are plain.
            relaxation: `eps`, a number from 0 to 1.

        Returns:
            Shape `(...)`, in nats.

        Raises:
            ValueError: if the shape of `y` does not fit the mixture or an option is out of range.
            TypeError: if it is differentiated twice.
        """
        self._check_options(mixture, unit, relaxation)
        options = {"unit": unit, "relaxation": relaxation}
        return with_gradient(self.gradient, mixture, y, name=str(self), **options)

    def gradient(
        self,
        mixture: GaussianMixture,
        y: ArrayLike,
        *,
        unit: ArrayLike = 1.0,
        relaxation: Scalar = 0.0,
    ) -> GaussianMixture:
        """The preconditioned gradient of the negative log-likelihood, equation (20) of the paper.

        Args:
            mixture: batch shape `(...)`.
            y: targets, shape `(..., D)`, with the mixture's batch shape, or of any for a mixture
                without.
            unit: as in `__call__`.
            relaxation: as in `__call__`; see `fisher.relaxed_e_step`.

        Returns:
            Cotangents of `logits`, `means` and `scales`, one for each target, to be minimised
            along.

        Raises:
            ValueError: if the shape of `y` does not fit the mixture or an option is out of range.
        """
        self._check_options(mixture, unit, relaxation)
        mixture, y = mixture.pair(y)
        z, pi, rho, ratio = relaxed_e_step(mixture, y, relaxation)
        match self.gaussians:
            case "damped":
                weight = rho / (pi + self.damping)
            case "rho/pi":
                weight = ratio
            case "rho" | "plain":
                weight = rho
        weight, sigma = weight[..., None], mixture.scales
        # The gradients of a Gaussian are -z / sigma and (1 - z^2) / sigma: (55) and (56).
        if self.gaussians == "plain":
            means, scales = -weight * z / sigma, weight * (1.0 - z**2) / sigma
        else:  # times the inverse of F_k, equation (21), in the chosen coordinates
            square = jnp.square(jnp.asarray(unit, z.dtype))
            means, half = -weight * sigma * z / square, 0.5 * weight * (1.0 - z**2)
            scales = half / sigma if self.coordinate == "log_scale" else half * sigma / square
        logits = self._logits(pi, rho, ratio)
        return GaussianMixture.tree_unflatten(None, [logits, means, scales])

    def _check_options(self, mixture: GaussianMixture, unit: ArrayLike, relaxation: Scalar) -> None:
        check_mixture(mixture)
        check_options(mixture.dim, unit=unit, relaxation=relaxation)
        known = not isinstance(unit, jax.core.Tracer)
        if self.gaussians == "plain" and not (known and np.all(np.asarray(unit) == 1)):
            raise ValueError("unit must be 1 where gaussians is 'plain': nothing is measured in it")

    def _logits(
        self,
        pi: Float[Array, "*batch K"],
        rho: Float[Array, "*batch K"],
        ratio: Float[Array, "*batch K"],
    ) -> Float[Array, "*batch K"]:
        match self.logits:
            case "plain":
                return pi - rho
            case "natural":
                return jnp.mean(ratio, axis=-1, keepdims=True) - ratio
            case "eq68":
                return 1.0 - ratio
            case "damped":
                return solve_damped_categorical_fisher(pi, pi - rho, self.damping)
            case "paper_code":
                return pi * jnp.sum(ratio, axis=-1, keepdims=True) - ratio


undamped = Variant("plain", "rho/pi", "scale")
"""Plain logits, and the Gaussians as in the paper: their weight `r_k` is unbounded."""

as_derived = Variant("natural", "rho/pi", "scale")
"""The natural gradient of section 3.3 with the true Moore-Penrose inverse."""

eq68 = Variant("eq68", "rho/pi", "scale")
"""The same with the inverse of equation (67), as equation (68) has it."""

paper_code = Variant("paper_code", "rho/pi", "scale")
"""What the code of Appendix C computes."""

fully_damped = Variant("damped", "damped", "scale", damping=0.01)
"""The natural gradient with `damping` added to every block."""
