"""How well an acquisition predicts the errors of simulations, and the adaptive share that it therefore deserves.

When a point is drawn, the acquisition predicts its difficulty, which is measured later: each prediction precedes its
measurement, as in a cross-validation. The skill is a lower confidence bound of Spearman's rank correlation of the two,
over the last simulations. The gate multiplies the share of adaptive points. It is 0 without skill, so that all points
are those of the Sobol sequence, and 1 with high skill.

Reference: confidence bound: Bonett and Wright, "Sample size requirements for estimating Pearson, Kendall and Spearman
correlations", Psychometrika 65 (2000).
"""

from dataclasses import dataclass
from math import atanh, sqrt, tanh

import numpy as np
from numpy.typing import NDArray

from melissa_gen.sampling.acquisition.difficulty_ensemble import log_difficulty
from melissa_gen.sampling.acquisition.evidence_history import EvidenceTable

__all__ = ["Skill", "rank_correlation"]

Array = NDArray[np.float64]

# Largest and smallest number of simulations that are compared.
_MAX_COMPARED = 100
_MIN_COMPARED = 8
# One-sided 95 % bound.
_QUANTILE = 1.645
# Below this skill the gate is closed, and above the other it is open. At d = 100, where guidance was no better than a
# Sobol sequence, the rank correlation was 0.25 to 0.45; where guidance helped, it was 0.6 to 0.8.
_CLOSED, _OPEN = 0.2, 0.45


@dataclass(frozen=True)
class Skill:
    """The rank correlation of predicted and measured difficulties.

    Args:
        correlation: Spearman's rank correlation.
        compared: Number of simulations that were compared.
    """

    correlation: float = 0.0
    compared: int = 0

    @classmethod
    def measured(cls, table: EvidenceTable) -> "Skill":
        """Compares predictions and difficulties of the last 100 simulations of a history that have both."""
        both = table.rows(np.isfinite(table.predicted[:, 0]) & np.isfinite(table.difficulty))
        both = both.rows(slice(-_MAX_COMPARED, None))
        measured = log_difficulty(both.difficulty)
        return cls(rank_correlation(both.predicted[:, 0], measured), len(both))

    @property
    def known(self) -> bool:
        """Whether at least 8 simulations were compared."""
        return self.compared >= _MIN_COMPARED

    @property
    def lower(self) -> float:
        """The lower end of the one-sided 95 % confidence interval of the correlation; -1 if it is not known."""
        if not self.known:
            return -1.0
        error = sqrt((1.0 + 0.5 * self.correlation**2) / (self.compared - 3))
        bounded = min(max(self.correlation, -0.9999), 0.9999)
        return tanh(atanh(bounded) - _QUANTILE * error)

    @property
    def gate(self) -> float:
        """The part of the adaptive share that this skill deserves, in [0, 1]."""
        return min(max((self.lower - _CLOSED) / (_OPEN - _CLOSED), 0.0), 1.0)


def rank_correlation(first: Array, second: Array) -> float:
    """Returns Spearman's rank correlation of two columns (n,); 0 if one of them is constant or empty."""
    if len(first) == 0:
        return 0.0
    a, b = _ranks(first), _ranks(second)
    a, b = a - a.mean(), b - b.mean()
    size = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / size if size > 0.0 else 0.0


def _ranks(values: Array) -> Array:
    """Returns ranks (n,) from 1 on; equal values have their mean rank."""
    # scipy.stats.rankdata does the same, but importing scipy.stats takes 50 MB of memory.
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks: Array = (np.cumsum(counts) - (counts - 1) / 2)[place]
    return ranks
