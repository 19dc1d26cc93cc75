"""Bounds of a surrogate's error at any parameters, by weighted conformal prediction from the errors of first passes.

When training uses the samples of a simulation for the first time, the surrogate has not learned from them: their errors
are those of an unseen simulation. The parameters were drawn from a known density q, so that weights p/q make these
errors representative of the prior p. No further simulations are needed.

The surrogate improves while it trains. Therefore only the newest quarter of the simulations counts, or the newest 30 if
these are more. Their errors are not extrapolated: the surrogate improves until the end, but the later samples of a
simulation are used after the first ones have been learned, which makes their errors smaller. In the benchmarks the two
compensate each other, and the bounds are rather too high than too low.

A bound is interpolated between two of the errors, so that few simulations do not make it too high.

Reference: Tibshirani, Barber, Candès and Ramdas, "Conformal prediction under covariate shift", arXiv 1904.06019; the
scores are normalized by a local mean as in Lei et al., "Distribution-free predictive inference for regression",
arXiv 1604.04173.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from melissa_gen.errors import DataError

__all__ = ["FIRST_ERRORS", "FirstErrors", "scaled"]

Array = NDArray[np.float64]

FIRST_ERRORS = "first_errors.npz"
"""Name of the file in the folder of a saved surrogate."""
_NEWEST, _LEAST = 0.25, 30
_MOST = 2000
"""Largest number of simulations that are kept; more would make the bounds hardly more precise."""
_NEIGHBORS = 10
_SHRINKAGE = 2.0
"""Number of simulations that the mean over all of them counts in a local mean."""
_POINTS_AT_ONCE = 512


@dataclass(frozen=True)
class FirstErrors:
    """The first-pass errors of simulations of a training.

    Attributes:
        parameters: Physical parameters `(n, d)`.
        errors: Root mean square over the time steps of the errors of each simulation `(n,)`.
        weights: Importance weights p/q `(n,)`; 1 where the density q is not known.
        name: `nrmse`, relative to the magnitude of the fields, or `rmse`, in widths of their scales.
    """

    parameters: Array
    errors: Array
    weights: Array
    name: str

    @staticmethod
    def needed(count: int) -> NDArray[np.int64]:
        """Returns which of so many simulations, in the order in which they were drawn, the bounds need: ascending.

        These are the newest quarter, or the newest 30 if these are more; at most 2,000 of them.
        """
        first = count - min(max(int(np.ceil(_NEWEST * count)), _LEAST), count)
        if count - first <= _MOST:
            return np.arange(first, count)
        return np.linspace(first, count - 1, _MOST).round().astype(np.int64)

    def __len__(self) -> int:
        return len(self.errors)

    def write(self, folder: Path) -> None:
        """Writes `first_errors.npz`.

        Raises:
            OSError: The file can't be written.
        """
        np.savez(
            folder / FIRST_ERRORS,
            parameters=self.parameters,
            errors=self.errors,
            weights=self.weights,
            name=np.array(self.name),
        )

    @classmethod
    def read(cls, folder: Path) -> "FirstErrors | None":
        """Reads the file; None if there is none.

        Raises:
            DataError: The file is damaged.
        """
        path = folder / FIRST_ERRORS
        if not path.exists():
            return None
        try:
            with np.load(path) as file:
                return cls(
                    file["parameters"],
                    file["errors"],
                    file["weights"],
                    str(file["name"]),
                )
        except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
            message = f"{path} can't be read: {error}"
            raise DataError(message) from error

    def bound(self, unit: Array, own: Array, level: float) -> Array:
        """Returns what the error at each point stays below with probability `level`, for a draw of the prior.

        Args:
            unit: Points `(m, d)`, scaled alike on each axis.
            own: `parameters` on the same scale, `(n, d)`.
            level: Probability in (0, 1).

        Returns:
            Bounds `(m,)`; infinity if there are too few simulations for this level.
        """
        least = max(1e-9 * float(self.errors.max(initial=0.0)), 1e-300)
        score = np.log(np.maximum(self.errors, least))
        residual = score - _local_means(own, own, score, self.weights, leave_out=True)
        order = np.argsort(residual)
        # The point itself has the weight of a draw of the prior, and its score may be infinite.
        reached = np.cumsum(self.weights[order]) / (self.weights.sum() + 1.0)
        if not len(order) or level > reached[-1]:
            return np.full(len(unit), np.inf)
        # Between two scores, so that the bound is not too high by up to the weight of one of them.
        quantile = float(np.interp(level, reached, residual[order]))
        parts = np.array_split(unit, max(1, len(unit) // _POINTS_AT_ONCE))
        local = [_local_means(part, own, score, self.weights) for part in parts]
        bounds: Array = np.exp(np.concatenate(local) + quantile)
        return bounds


def scaled(
    points: Array, bounds: Mapping[str, Sequence[float]], logarithmic: Collection[str]
) -> Array:
    """Scales points `(n, d)` from the bounds of the parameters to [0, 1], on their log scales.

    Args:
        points: The points.
        bounds: Name of each parameter to its lower and upper bound, in the order of the columns.
        logarithmic: Names of the parameters on a log scale.
    """
    found = np.empty(points.shape)
    for axis, (name, (low, high)) in enumerate(bounds.items()):
        column, first, last = points[:, axis], low, high
        if name in logarithmic:
            column, first, last = np.log(np.maximum(column, 1e-300)), np.log(low), np.log(high)
        found[:, axis] = (column - first) / ((last - first) or 1.0)
    return found


def _local_means(
    points: Array, own: Array, score: Array, weights: Array, *, leave_out: bool = False
) -> Array:
    """Returns means of the scores (n,) at `own` near each of the points (m, d), shrunk to the mean of all: (m,).

    Args:
        points: The points.
        own: Where the scores were measured `(n, d)`.
        score: The scores.
        weights: Importance weights of the scores, for the mean of all.
        leave_out: Whether the points are `own`, and the score of each is left out.
    """
    if len(score) < 2:
        return np.full(len(points), score.mean() if len(score) else 0.0)
    square = ((points**2).sum(1)[:, None] - 2.0 * points @ own.T + (own**2).sum(1)).clip(min=0.0)
    if leave_out:
        np.fill_diagonal(square, np.inf)
    rank = min(_NEIGHBORS, len(score) - 2)
    reach = np.partition(square, rank, axis=1)[:, [rank]]
    kernel = np.exp(-square / np.maximum(reach, 1e-12))
    middle = float(np.average(score, weights=weights))
    means: Array = (kernel @ score + _SHRINKAGE * middle) / (kernel.sum(axis=1) + _SHRINKAGE)
    return means
