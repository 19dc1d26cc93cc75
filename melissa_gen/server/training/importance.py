"""Weights of the loss: from where samples were proposed to the prior, and a bootstrap for the heads."""

from functools import lru_cache

import numpy as np
import numpy.typing as npt

__all__ = ["ImportanceWeights", "bootstrap_weights"]

Floats = npt.NDArray[np.float64]

_SMOOTHING = 0.98


class ImportanceWeights:
    """Self-normalised weights of each batch, and how many samples it is worth with them.

    Args:
        exponent: γ in [0, 1], of the reservoir's weights; the proposals' weights (p/q)^γ have it.

    Attributes:
        effective_share: Exponential mean over the batches of their effective sample size,
            (Σ w)² / Σ w², relative to their size; 1 where all weights are alike.
    """

    def __init__(self, exponent: float) -> None:
        self._exponent = exponent
        self.effective_share = 1.0

    def of_batch(self, proposed: Floats, drawn: Floats) -> npt.NDArray[np.float32]:
        """Weights (n,) of mean 1.

        Args:
            proposed: (p/q)^γ of each sample's simulation (n,).
            drawn: The reservoir's weight of each sample (n,); see `Batch`.
        """
        weights = proposed * drawn**self._exponent
        weights = weights / weights.mean()
        share = 1.0 / float(np.square(weights).mean())
        self.effective_share += (1.0 - _SMOOTHING) * (share - self.effective_share)
        return np.asarray(weights, dtype=np.float32)


def bootstrap_weights(
    simulations: npt.NDArray[np.int64], members: int, seed: int
) -> npt.NDArray[np.float32]:
    """Weights (n, M) by which each member counts each simulation: exponential draws of mean 1.

    Heads that share a trunk and see the same data alike would agree everywhere: each weighs the
    simulations in its own way (a Bayesian bootstrap), the same at every draw and on every rank.
    """
    rows = [_weights_of(int(n), members, seed) for n in simulations]
    return np.array(rows, dtype=np.float32)


@lru_cache(maxsize=100_000)
def _weights_of(simulation: int, members: int, seed: int) -> tuple[float, ...]:
    rng = np.random.default_rng([seed, simulation, members])
    return tuple(rng.exponential(size=members).tolist())
