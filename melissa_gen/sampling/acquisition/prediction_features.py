"""Features of the surrogate's prediction at points that have not been simulated.

Besides the difficulties measured in training, the current network is a source of information: where
the members of an ensemble disagree, or where the prediction changes quickly. A `Probe` returns such
features for any λ. The server creates a probe from a copy of the weights.
"""

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from melissa_gen.sampling.prior.joint_prior import Prior

__all__ = ["Probe", "Pullback", "UnitCubeProbe"]

Array = NDArray[np.float64]

# Maps the gradient of a function with respect to the features (n, k) to that with respect to λ (n, d).
Pullback = Callable[[Array], Array]


class Probe(Protocol):
    """Interface of a snapshot of the surrogate, which does not change.

    It is a structural type, because the package `surrogates`, which implements it, does not import
    this package.
    """

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the k features, for example "disagreement"."""

    @property
    def costly(self) -> bool:
        """Whether an evaluation costs about as much as training on a sample, so that fewer points are evaluated."""

    def features(self, points: Array) -> Array:
        """Returns the features (n, k), all finite, at points (n, d) in physical units."""

    def features_and_pullback(self, points: Array) -> tuple[Array, Pullback]:
        """Returns the features (n, k), and the function that maps gradients back through them."""

    def fields(self, points: Array) -> dict[str, NDArray[Any]]:
        """Returns the predicted fields by name (n, T, *shape), in physical units, at T times from first to last."""

    @property
    def field_bytes(self) -> int:
        """Memory of the fields that `fields` returns for one point."""

    def with_seen(self, points: Array) -> "Probe":
        """Returns a probe of the same surrogate with the points (m, d) that have been simulated."""


class UnitCubeProbe:
    """A probe whose points are in the unit cube. It remembers the last features: samplers ask for them repeatedly.

    Args:
        probe: Probe whose points are in physical units.
        prior: Prior distribution, which maps the unit cube to physical units.
    """

    def __init__(self, probe: Probe, prior: Prior) -> None:
        self._probe, self._prior = probe, prior
        self._last: tuple[Array, Array] | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the k features."""
        return self._probe.names

    @property
    def costly(self) -> bool:
        """Whether fewer points are evaluated."""
        return self._probe.costly

    def features(self, unit: Array) -> Array:
        """Returns the features (n, k) at points (n, axes) of the unit cube."""
        if self._last is None or not np.array_equal(self._last[0], unit):
            self._last = unit.copy(), self._probe.features(self._prior.from_unit(unit))
        return self._last[1]

    def features_and_pullback(self, unit: Array) -> tuple[Array, Pullback]:
        """Returns the features (n, k), and the function that maps gradients back through them to the cube."""
        found, back = self._probe.features_and_pullback(self._prior.from_unit(unit))
        stretch = self._prior.slope(unit)
        return found, lambda slope: back(slope)[:, self._prior.free_columns] * stretch

    def fields(self, unit: Array) -> dict[str, NDArray[Any]]:
        """Returns the predicted fields by name (n, T, *shape) at points (n, axes) of the unit cube."""
        return self._probe.fields(self._prior.from_unit(unit))

    @property
    def field_bytes(self) -> int:
        """Memory of the fields that `fields` returns for one point."""
        return self._probe.field_bytes

    def with_seen(self, points: Array) -> "UnitCubeProbe":
        """Returns a probe of the same surrogate with the points (m, axes) of the cube that have been simulated."""
        return UnitCubeProbe(self._probe.with_seen(self._prior.from_unit(points)), self._prior)
