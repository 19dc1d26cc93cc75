"""Weights of the loss: importance weights relative to the prior, and bootstrap weights of the heads."""

from functools import lru_cache

import numpy as np
import numpy.typing as npt

__all__ = ["ImportanceWeights", "bootstrap_weights"]

Floats = npt.NDArray[np.float64]

_SMOOTHING = 0.98


class ImportanceWeights:
    """Self-normalized importance weights of each batch, and their effective sample size.

    Args:
        exponent: Exponent γ in [0, 1], which is applied to the weights of the reservoir. The weights
            (p/q)^γ of the proposals already contain it.

    Attributes:
        effective_share: Exponential mean over the batches of the effective sample size,
            (Σ w)² / Σ w², relative to the batch size; 1 if all weights are equal.
    """

    def __init__(self, exponent: float) -> None:
        self._exponent = exponent
        self.effective_share = 1.0

    def of_batch(self, proposed: Floats, drawn: Floats) -> npt.NDArray[np.float32]:
        """Returns the weights (n,) of a batch, with mean 1.

        Args:
            proposed: (n,), (p/q)^γ of the simulation of each sample.
            drawn: (n,), weight of each sample that corrects the draw from the reservoir.
        """
        weights = proposed * drawn**self._exponent
        weights = weights / weights.mean()
        share = 1.0 / float(np.square(weights).mean())
        self.effective_share += (1.0 - _SMOOTHING) * (share - self.effective_share)
        return np.asarray(weights, dtype=np.float32)


def bootstrap_weights(
    simulations: npt.NDArray[np.int64], members: int, seed: int
) -> npt.NDArray[np.float32]:
    """Returns the bootstrap weights of the members: exponential draws with mean 1.

    Heads that share a trunk and are trained on the same data would agree everywhere. Each head
    therefore weights the simulations differently (Bayesian bootstrap). The weights of a simulation are
    the same for every draw and on every rank.

    Args:
        simulations: (n,), number of the simulation of each sample.
        members: Number of members M.
        seed: Seed of the draws.

    Returns:
        (n, M), weights.
    """
    rows = [_weights_of(int(n), members, seed) for n in simulations]
    return np.array(rows, dtype=np.float32)


@lru_cache(maxsize=100_000)
def _weights_of(simulation: int, members: int, seed: int) -> tuple[float, ...]:
    rng = np.random.default_rng([seed, simulation, members])
    return tuple(rng.exponential(size=members).tolist())
