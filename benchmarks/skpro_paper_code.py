"""Does a released library end at the square-root law? skpro's `MDNRegressor` on a skewed mixture.

skpro 2.16.0 has `MDNRegressor(loss="ngem")`. Its loss is the code of the paper's Appendix C, so its
weights should be those of the square-root law where the components do not overlap. The target
here does not depend on the input: +1 with a share of 0.9 and -1 with 0.1, plus N(0, 0.1^2).

skpro and PyTorch are not dependencies of this project. In an environment of your own::

    pip install skpro==2.16.0 torch
    python benchmarks/skpro_paper_code.py

writes the set `results/skpro_paper_code`, in a few minutes on one core.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import time
from typing import Any

import numpy as np
import pandas as pd

from ngem_tutorial import results

VERSION = "2.16.0"
RESULT, TABLE = "skpro_paper_code", "runs"


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings. What is not here is left at the library's default: Adam, ReLU, full batches."""

    shares: tuple[float, ...] = (0.5, 0.7, 0.9)
    """Of the targets near +1."""
    size: int = 1000
    noise: float = 0.1
    """Standard deviation of the targets around +1 and -1."""
    seeds: tuple[int, ...] = (1, 2, 3, 4, 5)
    """Of the data, and of the library's `random_state`."""
    learning_rates: tuple[tuple[str, float], ...] = (("nll", 0.01), ("ngem", 0.005))
    """For each loss; 0.01 is the default, and the library's documentation advises less for nGEM."""
    epochs: int = 1000
    hidden: tuple[int, ...] = (64, 32)


def require() -> dict[str, str]:
    """Return the versions of skpro and PyTorch, or say what to install.

    Returns:
        The versions by package.

    Raises:
        ModuleNotFoundError: if one of them is missing, or skpro is not the one meant.
    """
    found: dict[str, str] = {}
    for package in ("skpro", "torch"):
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            raise _unavailable(f"{package} is not installed") from None
    if found["skpro"] != VERSION:
        raise _unavailable(f"skpro is {found['skpro']}")
    return found


def _unavailable(problem: str) -> ModuleNotFoundError:
    return ModuleNotFoundError(
        f"{problem}; this benchmark takes skpro {VERSION} with PyTorch, which are not dependencies "
        f"of the project: pip install skpro=={VERSION} torch"
    )


def sample(config: Config, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw inputs that say nothing, and targets of which exactly that share is near +1.

    Args:
        config: the settings.
        share: of the targets near +1.
        seed: of NumPy's generator.

    Returns:
        `x`, uniform on (-1, 1), and `y`, both of shape `(N,)`.
    """
    rng = np.random.default_rng(seed)
    sign = np.where(np.arange(config.size) < round(share * config.size), 1.0, -1.0)
    x = rng.uniform(-1.0, 1.0, config.size)
    return x, rng.permutation(sign) + config.noise * rng.normal(size=config.size)


def run(config: Config, share: float, loss: str, learning_rate: float, seed: int) -> dict[str, Any]:
    """Fit the library's regressor once.

    Args:
        config: the settings.
        share: of the targets near +1.
        loss: `"nll"` or `"ngem"`.
        learning_rate: of Adam.
        seed: of data and network.

    Returns:
        Averages over the inputs: `weight` of the component with the larger mean, `spread` (the
        standard deviation of that weight over the inputs), `upper` and `lower` (means of the two
        components), `mean` (predicted) and `data_mean` (of the targets).
    """
    from skpro.regression.mdn import MDNRegressor

    x, y = sample(config, share, seed)
    inputs = pd.DataFrame({"x": x})
    model = MDNRegressor(
        n_gaussians=2,
        hidden_dims=list(config.hidden),
        epochs=config.epochs,
        lr=learning_rate,
        loss=loss,
        device="cpu",
        random_state=seed,
    ).fit(inputs, pd.DataFrame({"y": y}))
    predicted = model.predict_proba(inputs)
    pi = np.asarray(predicted.pi, dtype=float)
    mu = np.asarray(predicted.mu, dtype=float).reshape(pi.shape)
    rows, upper = np.arange(len(pi)), mu.argmax(axis=1)
    weight = pi[rows, upper]
    return {
        "weight": round(float(weight.mean()), 4),
        "spread": round(float(weight.std()), 4),
        "upper": round(float(mu.max(axis=1).mean()), 4),
        "lower": round(float(mu.min(axis=1).mean()), 4),
        "mean": round(float(np.asarray(predicted.mean()).mean()), 4),
        "data_mean": round(float(y.mean()), 4),
    }


def main(config: Config | None = None) -> None:
    """Run all shares, losses and seeds, and save the table."""
    config = config or Config()
    versions = require()
    commit, start = results.current_commit(), time.perf_counter()
    rows = []
    for share in config.shares:
        for loss, learning_rate in config.learning_rates:
            for seed in config.seeds:
                outcome = run(config, share, loss, learning_rate, seed)
                rows.append({"share": share, "loss": loss, "seed": seed, **outcome})
                print(rows[-1], flush=True)
    configuration = dataclasses.asdict(config)
    tables = {TABLE: pd.DataFrame(rows)}
    path = results.save(
        tables,
        RESULT,
        seeds=configuration.pop("seeds"),
        configuration=configuration,
        parts=[results.part(tables, time.perf_counter() - start, commit=commit)],
        extra={"libraries": versions},
        replace=True,
    )
    print(f"wrote {path.name}")


if __name__ == "__main__":
    main()
