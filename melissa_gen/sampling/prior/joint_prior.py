"""The prior p(λ) of named parameters, mapped to the unit cube by their CDFs, with constraints.

Samplers work in the unit cube, where the prior is uniform. The cube has one axis for each parameter
that varies. Fixed parameters and ranges of zero width have no axis. With constraints, the prior is the
uniform distribution on the feasible part of the cube.

A prior may also be given only by a table of points, for example for correlated inputs or for a region
that no expression describes. The prior is then the distribution of the rows of the table. The
distributions of the parameters still define the map to the cube. Such a prior has no density in closed
form. Densities are therefore relative to it: its own density is 1, which is sufficient for importance
weights p/q.
"""

from collections.abc import Mapping, Sequence
from math import log
from typing import Any

import numpy as np
from numpy.typing import NDArray

from melissa_gen.distributions import Distribution, Fixed, parse_parameter
from melissa_gen.errors import StudyError
from melissa_gen.sampling.prior.constraints import Constraint

__all__ = ["Prior"]

Array = NDArray[np.float64]

# The feasible share is estimated from this many blocks of draws; its standard error is below 0.4 %.
_BLOCK = 1024
_BLOCKS = 64
# Draws are repeated until they are feasible, which would take too long for a smaller share.
_LEAST_SHARE = 1e-3


class Prior:
    """Prior distribution of independent named parameters, restricted by constraints.

    Args:
        distributions: Distribution of each parameter by name, in the order of the columns of all
            arrays of points.
        constraints: Expressions over the names that every point must meet.
        points: (m, d), in physical units; the prior is the distribution of these rows. None: it is
            that of `distributions`.

    Raises:
        StudyError: There is no parameter, a constraint is illegal, less than a thousandth of the
            prior meets the constraints, or a row is outside the bounds or constraints.

    Example:
        >>> prior = Prior.from_mapping({"nu": {"distribution": "uniform", "low": 0, "high": 2}})
        >>> prior.from_unit(np.array([[0.25]]))
        array([[0.5]])
    """

    def __init__(
        self,
        distributions: Mapping[str, Distribution],
        constraints: Sequence[str] = (),
        points: Array | None = None,
    ) -> None:
        if not distributions:
            msg = "parameters is empty; a study needs at least one parameter."
            raise StudyError(msg)
        self.distributions: dict[str, Distribution] = {}
        self._free: list[int] = []
        for column, (name, distribution) in enumerate(distributions.items()):
            constant = distribution.constant
            if constant is None:
                self._free.append(column)
                self.distributions[name] = distribution
            else:
                self.distributions[name] = Fixed(distribution="fixed", value=constant)
        self._constraints = [Constraint(text, list(self.distributions)) for text in constraints]
        self._rows: Array | None = None
        self.feasible_share = 1.0 if points is not None else self._measured_share()
        if points is not None:
            self._rows = self._checked_rows(points)

    @classmethod
    def from_mapping(
        cls,
        parameters: Mapping[str, Mapping[str, Any]],
        constraints: Sequence[str] = (),
        points: Array | None = None,
    ) -> "Prior":
        """Creates the prior from the `parameters` and `constraints` of a study.

        Args:
            parameters: Fields of each parameter's distribution by name, its kind as `distribution`.
            constraints: Expressions over the names that every point must meet.
            points: (m, d), in physical units, the rows of a prior that is given only by points.

        Raises:
            StudyError: A distribution is unknown or has an illegal field, or as for the constructor.
        """
        distributions = {n: parse_parameter(n, given) for n, given in parameters.items()}
        return cls(distributions, constraints, points)

    @property
    def names(self) -> list[str]:
        """Parameter names in column order."""
        return list(self.distributions)

    @property
    def free_names(self) -> list[str]:
        """Names of the parameters that vary, in the order of the axes of the unit cube."""
        return [self.names[column] for column in self._free]

    @property
    def free_columns(self) -> list[int]:
        """Columns of the parameters that vary, in the order of the axes of the unit cube."""
        return list(self._free)

    @property
    def dimension(self) -> int:
        """Number of parameters d, including fixed ones."""
        return len(self.distributions)

    @property
    def unit_dimension(self) -> int:
        """Number of axes k of the unit cube: the number of parameters that vary."""
        return len(self._free)

    def to_unit(self, points: Array) -> Array:
        """Maps points (n, d) in physical units to the unit cube (n, k).

        Raises:
            ValueError: The points have another shape.
        """
        points = self._checked(points)
        unit = np.empty((len(points), self.unit_dimension))
        kinds = list(self.distributions.values())
        for axis, column in enumerate(self._free):
            unit[:, axis] = kinds[column].cdf(points[:, column])
        return unit

    def from_unit(self, u: Array) -> Array:
        """Maps points (n, k) of the unit cube to physical units (n, d), inside the support.

        Raises:
            ValueError: The points have another shape.
        """
        u = np.asarray(u, dtype=np.float64)
        if u.ndim != 2 or u.shape[1] != self.unit_dimension:
            msg = f"unit points have shape {u.shape}; (n, {self.unit_dimension}) is needed"
            raise ValueError(msg)
        axis_of = {column: axis for axis, column in enumerate(self._free)}
        points = np.empty((len(u), self.dimension))
        for column, distribution in enumerate(self.distributions.values()):
            coordinate = u[:, axis_of[column]] if column in axis_of else np.full(len(u), 0.5)
            points[:, column] = distribution.quantile(coordinate)
        return points

    def slope(self, u: Array) -> Array:
        """Returns the derivative (n, k) of each varying parameter along its axis at points (n, k) of the unit cube."""
        kinds = list(self.distributions.values())
        columns = [kinds[column].slope(u[:, axis]) for axis, column in enumerate(self._free)]
        return np.stack(columns, axis=1) if columns else np.empty((len(u), 0))

    def log_density(self, points: Array) -> Array:
        """Returns log p (n,) at points (n, d) in physical units.

        The density is in the inverse product of the units of the parameters that vary. It is 1 for
        a prior that is given only by points, and 0 outside the support.

        Raises:
            ValueError: The points have another shape.
        """
        points = self._checked(points)
        total = np.zeros(len(points))
        if self._rows is not None:
            return np.where(self.contains(points), total, -np.inf)
        for column, distribution in enumerate(self.distributions.values()):
            total += distribution.log_density(points[:, column])
        if self._constraints:
            total = np.where(self._meets(points), total - log(self.feasible_share), -np.inf)
        return total

    def contains(self, points: Array) -> NDArray[np.bool_]:
        """Returns whether each point (n, d) in physical units is in the support (n,)."""
        points = self._checked(points)
        inside = np.ones(len(points), dtype=bool)
        for column, distribution in enumerate(self.distributions.values()):
            inside &= distribution.contains(points[:, column])
        return inside & self._meets(points)

    def feasible(self, unit: Array) -> NDArray[np.bool_]:
        """Returns whether each point (n, k) of the unit cube meets the constraints (n,)."""
        if not self._constraints:
            return np.ones(len(unit), dtype=bool)
        return self._meets(self.from_unit(unit))

    @property
    def tabulated(self) -> bool:
        """Whether the prior is given only by a table of points."""
        return self._rows is not None

    @property
    def whole_cube(self) -> bool:
        """Whether every point of the unit cube is legal: there are neither constraints nor a table of points."""
        return self._rows is None and not self._constraints

    @property
    def constrained(self) -> bool:
        """Whether there are constraints."""
        return bool(self._constraints)

    def sample(self, n: int, rng: np.random.Generator) -> Array:
        """Draws n independent points (n, d) in physical units."""
        return self.from_unit(self.sample_unit(n, rng))

    def sample_unit(self, n: int, rng: np.random.Generator) -> Array:
        """Draws n independent feasible points (n, k) of the unit cube.

        From a table, rows are drawn without repetition until all rows have been drawn.
        """
        if self._rows is not None:
            rounds = -(-n // len(self._rows))
            order = [rng.permutation(len(self._rows)) for _ in range(rounds)]
            rows: Array = self._rows[np.concatenate([*order, np.empty(0, int)])[:n].astype(int)]
            return rows
        unit = rng.random((n, self.unit_dimension))
        if self._constraints:
            infeasible = np.flatnonzero(~self.feasible(unit))
            while len(infeasible) > 0:
                unit[infeasible] = rng.random((len(infeasible), self.unit_dimension))
                infeasible = infeasible[~self.feasible(unit[infeasible])]
        return unit

    def _meets(self, points: Array) -> NDArray[np.bool_]:
        columns = dict(zip(self.names, points.T, strict=True))
        met = np.ones(len(points), dtype=bool)
        for constraint in self._constraints:
            met &= constraint(columns)
        return met

    def _measured_share(self) -> float:
        """Estimates the share of the unit cube that meets the constraints, always from the same draws."""
        if not self._constraints:
            return 1.0
        rng = np.random.default_rng(0)
        met = 0
        for _ in range(_BLOCKS):
            met += int(self.feasible(rng.random((_BLOCK, self.unit_dimension))).sum())
        share = met / (_BLOCK * _BLOCKS)
        if share < _LEAST_SHARE:
            texts = ", ".join(f"'{constraint.text}'" for constraint in self._constraints)
            msg = (
                f"constraints {texts} leave {share:.2g} of the prior, at least {_LEAST_SHARE:g} is needed; "
                "narrow the bounds of the parameters to where the constraints can be met."
            )
            raise StudyError(msg)
        return share

    def _checked_rows(self, points: Array) -> Array:
        """Checks the rows of a table, and returns them as points (m, k) of the unit cube."""
        points = self._checked(points)
        outside = np.flatnonzero(~self.contains(points))
        if len(points) == 0 or len(outside) > 0:
            found = "has no rows"
            if len(outside) > 0:
                row = points[outside[0]]
                values = ", ".join(f"{n} {v:g}" for n, v in zip(self.names, row, strict=True))
                found = f"row {outside[0] + 1} ({values}) is outside the bounds or constraints"
            msg = f"feasible_points {found}; at least one row is needed, and every row must be a legal point."
            raise StudyError(msg)
        return self.to_unit(points)

    def _checked(self, points: Array) -> Array:
        points = np.asarray(points, dtype=np.float64)
        if points.ndim != 2 or points.shape[1] != self.dimension:
            msg = f"points have shape {points.shape}; (n, {self.dimension}) is needed"
            raise ValueError(msg)
        return points
