"""Samplers with the interface of the gest-api generator standard, for libEnsemble, Xopt or Optimas.

Requires the package gest-api: `pip install 'melissa-gen[gest]'`.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from melissa_gen.errors import StudyError
from melissa_gen.sampling.base import Evidence
from melissa_gen.sampling.prior.joint_prior import Prior
from melissa_gen.sampling.registry import create

try:
    from gest_api import Generator
    from gest_api.vocs import VOCS, ContextualVariable, ContinuousVariable, MinimizeObjective
except ImportError:
    msg = "melissa_gen.sampling.gest_generator needs gest-api; install it with: pip install 'melissa-gen[gest]'."
    raise StudyError(msg) from None

__all__ = ["SamplerGenerator"]


# The package gest-api has no type hints.
class SamplerGenerator(Generator):  # type: ignore[misc]
    """A sampler with the interface of the gest-api standard.

    A continuous variable is uniform between its bounds, and a discrete variable has each of its values
    with equal probability. The only objective is the difficulty of a simulation. It is at least 0 and
    increases with the error of the surrogate. A result that is not a finite number marks a failed
    simulation.

    Args:
        vocs: Variables, constants and one objective, EXPLORE or MAXIMIZE.
        method: Name of the sampling method, one of `sampling.METHODS`.
        seed: Seed of the sampler.
        batch: Number of points if `suggest` is called without a number.
        max_adaptive_share: Largest share of adaptive points, in [0, 0.9].
        ramp_simulations: Number of simulations with a difficulty after which this share is reached.
        arguments: Arguments of the method.

    Raises:
        ValueError: The variables, objectives or constraints are not of the kind above.
        StudyError: The method is unknown, or an argument is illegal.

    Example:
        >>> vocs = VOCS(variables={"nu": [0.1, 1.0]}, objectives={"error": "EXPLORE"})
        >>> sorted(SamplerGenerator(vocs, "sobol").suggest(1)[0])
        ['_id', 'nu']
    """

    returns_id = True

    def __init__(
        self,
        vocs: VOCS,
        method: str = "adaptive",
        seed: int = 0,
        batch: int = 10,
        max_adaptive_share: float = 0.9,
        ramp_simulations: int = 12,
        arguments: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(vocs)
        self._names = list(vocs.variables)
        self._constants = {name: one.value for name, one in vocs.constants.items()}
        (self._objective,) = vocs.objectives
        self._batch = batch
        prior = Prior.from_mapping({name: _marginal(v) for name, v in vocs.variables.items()})
        self.sampler = create(method, prior, seed, max_adaptive_share, ramp_simulations, arguments)
        self._known: dict[int, tuple[float, int]] = {}
        self._next = 0

    def _validate_vocs(self, vocs: VOCS) -> None:
        if len(vocs.objectives) != 1:
            msg = f"a sampler needs one objective, the difficulty; found {len(vocs.objectives)}"
            raise ValueError(msg)
        (name, objective), *_ = vocs.objectives.items()
        if isinstance(objective, MinimizeObjective):
            msg = f"objective {name} is MINIMIZE; legal are EXPLORE and MAXIMIZE"
            raise ValueError(msg)
        if vocs.constraints:
            msg = f"a sampler can't learn constraints on outputs: {', '.join(vocs.constraints)}"
            raise ValueError(msg)
        for name, variable in vocs.variables.items():
            if isinstance(variable, ContextualVariable):
                msg = f"variable {name} is contextual; a sampler must choose every variable"
                raise ValueError(msg)

    def suggest(self, num_points: int | None = None) -> list[dict[str, Any]]:
        """Draws points.

        Args:
            num_points: Number of points; the default is `batch` of the constructor.

        Returns:
            For each point, the values of variables and constants by name, and its `_id`.
        """
        found = self.sampler.suggest(self._batch if num_points is None else num_points)
        points = []
        for row, density in zip(found.points.tolist(), found.log_density.tolist(), strict=True):
            self._known[self._next] = density, found.generation
            named = dict(zip(self._names, row, strict=True))
            points.append({**named, **self._constants, "_id": self._next})
            self._next += 1
        return points

    def ingest(self, results: list[dict[str, Any]]) -> None:
        """Adds the results of evaluated points.

        Args:
            results: For each point, the values of variables and objective by name, and its `_id`.
                Points of other generators have no `_id`.

        Raises:
            ValueError: An `_id` is not one of a suggested point, or a difficulty is negative.
        """
        evidence = []
        for result in results:
            number = result.get("_id")
            if number is None:
                # Another generator has drawn the point, from an unknown density.
                number, self._next = self._next, self._next + 1
                self._known[number] = float("nan"), 0
            elif int(number) not in self._known:
                msg = f"the _id {number} is not one of a suggested point"
                raise ValueError(msg)
            difficulty = float(result[self._objective])
            if difficulty < 0.0:
                msg = f"objective {self._objective} is {difficulty:g}; a difficulty must be at least 0"
                raise ValueError(msg)
            density, generation = self._known[int(number)]
            evidence.append(
                Evidence(
                    simulation=int(number),
                    parameters=np.array([float(result[name]) for name in self._names]),
                    difficulty=difficulty,
                    failed=not np.isfinite(difficulty),
                    log_density=density,
                    generation=generation,
                )
            )
        self.sampler.ingest(evidence)


def _marginal(variable: Any) -> dict[str, Any]:
    if isinstance(variable, ContinuousVariable):
        low, high = variable.domain
        return {"distribution": "uniform", "low": float(low), "high": float(high)}
    values = sorted(float(value) for value in variable.values)
    return {"distribution": "categorical", "values": values}
