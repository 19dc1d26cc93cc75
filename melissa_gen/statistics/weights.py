"""Importance weights of simulations that were not drawn from the prior.

Reference: Owen, "Monte Carlo theory, methods and examples", 2013, chapter 9 (self-normalized importance sampling).
"""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["effective_size", "importance_weights"]


def importance_weights(
    log_prior: ArrayLike, log_proposal: ArrayLike, known: ArrayLike | None = None
) -> NDArray[np.float64]:
    """Returns p/q of points that were drawn with density q, for expectations under the prior p.

    With a tenth of the points from the prior, no weight is above 10.

    Args:
        log_prior: log p at the points, `(n,)`.
        log_proposal: log q at the points when they were drawn, `(n,)`; NaN where unknown.
        known: Where q is known, `(n,)`; default: where it is finite. Elsewhere the weight is 1.
    """
    prior, proposal = np.asarray(log_prior, np.float64), np.asarray(log_proposal, np.float64)
    finite = np.isfinite(proposal) if known is None else np.asarray(known, bool)
    return np.exp(np.where(finite, prior - np.where(finite, proposal, 0.0), 0.0))


def effective_size(weight: NDArray[Any], weight_squares: NDArray[Any]) -> NDArray[np.float64]:
    """Returns the number of unweighted samples of the same worth, (sum of w)² / (sum of w²); 0 without samples."""
    squares = np.where(weight_squares > 0, weight_squares, 1.0)
    return np.asarray(weight * weight / squares, np.float64)
