"""Schedules: the share of adaptive points as a function of what the sampler has learned."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

__all__ = ["MAX_SHARE", "GenerationRamp", "Ramp", "Schedule"]

# With at least a tenth of the points from the prior, importance weights p/q are at most 10.
MAX_SHARE = 0.9


class Schedule(ABC):
    """Base class of the schedules."""

    @abstractmethod
    def share(self, generation: int, simulations: int) -> float:
        """Returns the share ρ in [0, 0.9] of the next points.

        Args:
            generation: Number of times that the sampler has learned, at least 0.
            simulations: Number of simulations whose difficulties it has learned, at least 0.
        """


@dataclass(frozen=True)
class Ramp(Schedule):
    """Linear ramp from ρ = 0 before the first simulation to `max_share` at `simulations` simulations.

    The number of generations has no effect: a sampler that learns after each simulation has the same share as
    one that learns after every tenth.

    Args:
        max_share: Largest share of adaptive points, in [0, 0.9].
        simulations: Number of simulations after which it is reached, at least 0; 0 counts as 1, since nothing
            is adaptive before the first learning.
    """

    max_share: float = MAX_SHARE
    simulations: int = 12

    def share(self, generation: int, simulations: int) -> float:
        """Returns the share ρ of the next points."""
        return self.max_share * min(1.0, simulations / max(self.simulations, 1))


@dataclass(frozen=True)
class GenerationRamp(Schedule):
    """Linear ramp from ρ = 0 at generation 0 to `max_share` at generation `generations`.

    Args:
        max_share: Largest share of adaptive points, in [0, 0.9].
        generations: Generations over which it is reached, at least 1.
    """

    max_share: float
    generations: int

    def share(self, generation: int, simulations: int) -> float:
        """Returns the share ρ of the next points."""
        return self.max_share * min(1.0, generation / self.generations)
