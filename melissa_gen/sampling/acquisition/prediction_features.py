"""Features of the surrogate's prediction at points that have not been simulated.

The difficulties measured in training are one source of information; the other is the present network:
where the members of an ensemble disagree, where the prediction is steep. A `Probe` returns such
features for any λ. The server creates one from a copy of the weights.
"""

from collections.abc import Callable
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from melissa_gen.sampling.prior.joint_prior import Prior

__all__ = ["Probe", "Pullback", "UnitCubeProbe"]

Array = NDArray[np.float64]

# From the slope of some number with respect to the features (n, k) to that with respect to λ (n, d).
Pullback = Callable[[Array], Array]


class Probe(Protocol):
    """Interface of a snapshot of the surrogate; it never changes afterwards.

    A structural type, because the surrogates' package, which implements it, does not import this one.
    """

    @property
    def names(self) -> tuple[str, ...]:
        """The k features, e.g. "disagreement"."""

    def features(self, points: Array) -> Array:
        """Features (n, k) of physical points (n, d), all finite."""

    def features_and_pullback(self, points: Array) -> tuple[Array, Pullback]:
        """The features, and the function that takes slopes back through them."""

    def with_seen(self, points: Array) -> "Probe":
        """The same surrogate, told which points (m, d) have been simulated."""


class UnitCubeProbe:
    """A probe that is asked in the unit cube.

    Args:
        probe: asked in physical units.
        prior: maps the cube to them.
    """

    def __init__(self, probe: Probe, prior: Prior) -> None:
        self._probe, self._prior = probe, prior

    @property
    def names(self) -> tuple[str, ...]:
        """The k features."""
        return self._probe.names

    def features(self, unit: Array) -> Array:
        """Features (n, k) of points of the cube (n, axes)."""
        return self._probe.features(self._prior.from_unit(unit))

    def features_and_pullback(self, unit: Array) -> tuple[Array, Pullback]:
        """Returns the features and the function that maps slopes back through them."""
        found, back = self._probe.features_and_pullback(self._prior.from_unit(unit))
        stretch = self._prior.slope(unit)
        return found, lambda slope: back(slope)[:, self._prior.free_columns] * stretch

    def with_seen(self, points: Array) -> "UnitCubeProbe":
        """Returns the same surrogate with the points (m, axes) of the cube that have been simulated."""
        return UnitCubeProbe(self._probe.with_seen(self._prior.from_unit(points)), self._prior)
