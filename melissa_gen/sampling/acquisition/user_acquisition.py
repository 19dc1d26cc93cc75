"""An acquisition that a function of the user changes: a region of interest, an output functional, or another formula.

The function takes the parameters of n points, log a there and, if it asks for them, the fields that the surrogate
predicts, and returns the new log a. Its gradient is that of log a plus that of an interpolation of the change.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from melissa_gen.errors import DataError, StudyError
from melissa_gen.sampling.acquisition.adjusted_acquisition import AdjustedAcquisition
from melissa_gen.sampling.acquisition.base_acquisition import Acquisition
from melissa_gen.sampling.acquisition.evidence_history import EvidenceTable
from melissa_gen.sampling.acquisition.kernel_interpolation import KernelInterpolant
from melissa_gen.sampling.acquisition.prediction_features import Probe
from melissa_gen.sampling.base import State, part_of
from melissa_gen.sampling.prior.joint_prior import Prior

__all__ = ["Adjust", "UserAcquisition", "points_at_once"]

Array = NDArray[np.float64]
Fields = Callable[[], dict[str, NDArray[Any]]]
Adjust = Callable[[dict[str, Array], Array, Fields], Array]
"""Takes the parameters by name (n,), log a (n,), and a function without arguments that returns the predicted fields by
name (n, T, *shape), at T times from the first to the last; returns the new log a (n,). It is called for some points at
a time, so that its answer at a point must not depend on the others."""

_KEY = "sampler.acquisition"
# Points for one call, and the memory of their predicted fields, unless that of one point is larger.
_MOST_POINTS, _MOST_BYTES = 32, 32 << 20
# Draws of the prior at which the change is measured if the acquisition has no candidates, and those interpolated.
_DRAWS, _INTERPOLATED = 1024, 400
_SHORTEST = 0.25
# A weight of 0 is a log a of -infinity; it is raised to this much below the largest one.
_DEEPEST = 50.0


def points_at_once(field_bytes: int) -> int:
    """Returns the number of points for one call of the function, whose predicted fields are in memory together.

    Args:
        field_bytes: Memory of the predicted fields of one point.
    """
    return min(max(_MOST_BYTES // max(field_bytes, 1), 1), _MOST_POINTS)


class _NoSurrogateError(Exception):
    """The function asks for fields before there is a surrogate."""


class UserAcquisition(AdjustedAcquisition):
    """Passes the log a of another acquisition through a function of the user.

    Until the surrogate is available, a function that asks for its fields changes nothing. The mean of log a over the
    candidates stays as it is: only differences between points count.

    Args:
        inner: Acquisition that learns from difficulties.
        adjust: The function.
        prior: Prior distribution, which maps the unit cube to physical units.
        prior_draws: Function that draws n points (n, k) of the prior in the unit cube.
    """

    def __init__(
        self,
        inner: Acquisition,
        adjust: Adjust,
        prior: Prior,
        prior_draws: Callable[[int, np.random.Generator], Array],
    ) -> None:
        super().__init__(inner)
        self._adjust, self._prior, self._prior_draws = adjust, prior, prior_draws
        self._newest_probe: Probe | None = None
        self._probe: Probe | None = None
        self._change = KernelInterpolant()
        self._level = self._largest = 0.0

    @property
    def uses_surrogate(self) -> bool:
        """True: the function may ask for fields."""
        return True

    def observe(self, probe: Probe) -> None:
        """Keeps the snapshot of the surrogate, and passes it to the inner acquisition."""
        self._newest_probe = probe
        if self._probe is None:
            self._probe = probe
        self._inner.observe(probe)

    def fit(self, table: EvidenceTable, rng: np.random.Generator) -> None:
        """Fits the inner acquisition, and measures the change."""
        self._probe = self._newest_probe
        self._inner.fit(table, rng)
        if self.flat or table.unit.shape[1] == 0:
            self._candidates = self._inner.candidates
            return
        known = self._inner.candidates
        if known is None:
            unit = self._prior_draws(_DRAWS, rng)
            known = unit, self._inner.value(unit)
        unit, before = known
        self._change, self._level, self._largest = KernelInterpolant(), 0.0, np.inf
        after = self._adjusted(unit, before)
        self._largest = float(after.max())
        if self._largest == -np.inf:
            message = f"{_KEY} returns -infinity at all of {len(after)} draws of the prior"
            raise StudyError(message)
        after = np.maximum(after, self._largest - _DEEPEST)
        self._level = float((after - before).mean())
        some = slice(0, _INTERPOLATED)
        change = (after - before)[some] - self._level
        rate = max(float(change.std()), 1e-9) / _SHORTEST
        self._change.fit(unit[some], change, np.full((1, unit.shape[1]), rate))
        if self._inner.candidates is not None:
            self._candidates = unit, after - self._level

    def value(self, unit: Array) -> Array:
        """Returns log a (n,) at points (n, k) of the unit cube."""
        return self._adjusted(unit, self._inner.value(unit)) - self._level

    def value_and_gradient(self, unit: Array) -> tuple[Array, Array]:
        """Returns log a (n,) and its gradient (n, k) at points (n, k) of the unit cube, both with the interpolation."""
        value, gradient = self._inner.value_and_gradient(unit)
        change, slope = self._change.value_and_gradient(unit)
        return value + change, gradient + slope

    def difficulty(self, unit: Array) -> Array:
        """Returns log a (n,) without the change."""
        return self._inner.difficulty(unit)

    def state(self) -> State:
        """Returns everything that `restore` needs."""
        known = self._candidates
        return {
            "numbers": [self._level, self._largest],
            **({} if known is None else {"values": known[1].copy()}),
            **{f"change.{key}": value for key, value in self._change.state().items()},
            **{f"inner.{key}": value for key, value in self._inner.state().items()},
        }

    def restore(self, state: State) -> None:
        """Restores what `state` returned."""
        self._level, self._largest = state["numbers"]
        self._change.restore(part_of(state, "change."))
        self._inner.restore(part_of(state, "inner."))
        self._probe = self._newest_probe = None
        known = self._inner.candidates
        self._candidates = (known[0], np.array(state["values"])) if known else None

    def _adjusted(self, unit: Array, before: Array) -> Array:
        """Returns the new log a (n,): as the function gives it, or interpolated if it needs a surrogate first."""
        size = points_at_once(0 if self._probe is None else self._probe.field_bytes)
        parts = (_blocks(values, size) for values in (unit, before))
        try:
            found = [self._called(part, given) for part, given in zip(*parts, strict=True)]
        except _NoSurrogateError:
            return before + self._change.value(unit) + self._level
        after = np.concatenate(found) if found else before
        return np.maximum(after, self._largest - _DEEPEST) if self._largest < np.inf else after

    def _called(self, unit: Array, before: Array) -> Array:
        points = self._prior.from_unit(unit)
        names = dict(zip(self._prior.names, points.T, strict=True))

        def fields() -> dict[str, NDArray[Any]]:
            if self._probe is None:
                raise _NoSurrogateError
            return self._probe.fields(unit)

        try:
            found = np.asarray(self._adjust(names, before.copy(), fields), dtype=np.float64)
        except (_NoSurrogateError, DataError):
            raise
        except Exception as error:
            message = f"{_KEY} raises {type(error).__name__}: {error}"
            raise StudyError(message) from error
        if found.shape != before.shape or np.isnan(found).any() or (found == np.inf).any():
            what = f"the shape {found.shape}" if found.shape != before.shape else "NaN or infinity"
            message = f"{_KEY} returns {what} for {len(before)} points; a finite number for each is needed"
            raise StudyError(message)
        return found


def _blocks(values: Array, size: int) -> list[Array]:
    return np.array_split(values, -(-len(values) // size)) if len(values) else []
