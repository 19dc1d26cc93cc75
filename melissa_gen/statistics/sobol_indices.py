"""Sobol indices of first and total order from pick-freeze groups, by the estimator of Martinez.

A group has d + 2 simulations: A, B, and for each parameter i the simulation E_i, which has the parameters of A but the
i-th of B. The index of first order is the correlation of B and E_i, that of total order is 1 less the correlation of A
and E_i. Fisher's transformation of a correlation gives the confidence intervals.

References: Martinez, "Analyse de sensibilité globale par décomposition de la variance", 2011; Terraz, Ribes, Fournier,
Iooss, Raffin, "Melissa: large scale in transit sensitivity analysis avoiding intermediate files", 2017, section 3.
"""

from typing import Self

import numpy as np
from numpy.typing import NDArray

from melissa_gen.statistics.estimator import Array, Estimator, along

__all__ = ["SobolIndices"]

_NORMAL_95 = 1.959963984540054


class SobolIndices(Estimator):
    """Sobol indices of each time step and point.

    Args:
        steps: Number of time steps t.
        shape: Shape of the field.
        parameters: Number of parameters d.
    """

    def __init__(self, steps: int, shape: tuple[int, ...], parameters: int) -> None:
        self.arrays = {
            "groups": np.zeros(steps),
            # Means and sums of squares of A, B and all E_i, then the cross sums with A and with B.
            "mean": np.zeros((steps, parameters + 2, *shape)),
            "squares": np.zeros((steps, parameters + 2, *shape)),
            "cross_a": np.zeros((steps, parameters, *shape)),
            "cross_b": np.zeros((steps, parameters, *shape)),
        }

    def update(self, step: int, members: Array) -> None:
        """Adds the samples `(d + 2, *shape)` of a group at a time step, in the order A, B, E_1 to E_d."""
        arrays = self.arrays
        arrays["groups"][step] += 1
        count = float(arrays["groups"][step])
        delta = members - arrays["mean"][step]
        both = (count - 1) / count
        arrays["squares"][step] += delta * delta * both
        arrays["cross_a"][step] += delta[2:] * (delta[0] * both)
        arrays["cross_b"][step] += delta[2:] * (delta[1] * both)
        arrays["mean"][step] += delta / count

    def merge(self, other: Self) -> None:
        """Adds the groups of another estimator."""
        mine, theirs = self.arrays, other.arrays
        total = np.where(
            mine["groups"] + theirs["groups"] > 0, mine["groups"] + theirs["groups"], 1.0
        )
        delta = theirs["mean"] - mine["mean"]
        both = along(mine["groups"] * theirs["groups"] / total, delta)
        mine["squares"] += theirs["squares"] + delta * delta * both
        mine["cross_a"] += theirs["cross_a"] + delta[:, 2:] * delta[:, :1] * both
        mine["cross_b"] += theirs["cross_b"] + delta[:, 2:] * delta[:, 1:2] * both
        mine["mean"] += delta * along(theirs["groups"] / total, delta)
        mine["groups"] += theirs["groups"]

    def results(self) -> dict[str, NDArray[np.float64]]:
        """Returns the indices and the limits of their 95 % intervals, `(t, d, *shape)`, and the groups `(t,)`.

        They are NaN where the field does not vary, the limits also below four groups.
        """
        arrays = self.arrays
        squares = arrays["squares"]
        with np.errstate(divide="ignore", invalid="ignore"):
            first = arrays["cross_b"] / np.sqrt(squares[:, 2:] * squares[:, 1:2])
            frozen = arrays["cross_a"] / np.sqrt(squares[:, 2:] * squares[:, :1])
        # Round-off must not lead out of the domain of arctanh.
        first, frozen = (np.clip(one, -1.0, 1.0) for one in (first, frozen))
        low, high = _interval(first, arrays["groups"])
        frozen_low, frozen_high = _interval(frozen, arrays["groups"])
        return {
            "groups": arrays["groups"],
            "first_order": first,
            "first_order_low": low,
            "first_order_high": high,
            "total_order": 1 - frozen,
            "total_order_low": 1 - frozen_high,
            "total_order_high": 1 - frozen_low,
        }


def _interval(correlation: Array, groups: Array) -> tuple[Array, Array]:
    """Returns the limits of the 95 % confidence interval of correlations from a number of groups."""
    with np.errstate(divide="ignore", invalid="ignore"):
        width = _NORMAL_95 / np.sqrt(np.where(groups > 3, groups - 3, np.nan))
        center = np.arctanh(correlation)
    width = along(width, correlation)
    return np.tanh(center - width), np.tanh(center + width)
