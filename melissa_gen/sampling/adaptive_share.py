"""Schedules: the share of adaptive points as a function of the sampler's generation."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

__all__ = ["MAX_SHARE", "Ramp", "Schedule"]

# With at least a tenth of the points from the prior, importance weights p/q are at most 10.
MAX_SHARE = 0.9


class Schedule(ABC):
    """Base class of the schedules."""

    @abstractmethod
    def share(self, generation: int) -> float:
        """Returns the share ρ in [0, 0.9] of a generation.

        Args:
            generation: Number of times that the sampler has learned, at least 0.
        """


@dataclass(frozen=True)
class Ramp(Schedule):
    """Linear ramp from ρ = 0 at generation 0 to `max_share` at generation `generations`.

    Args:
        max_share: Largest share of adaptive points, in [0, 0.9].
        generations: Generations over which it is reached, at least 0; 0 counts as 1, since nothing
            is adaptive before the first learning.
    """

    max_share: float = MAX_SHARE
    generations: int = 3

    def share(self, generation: int) -> float:
        """Returns the share ρ of a generation."""
        if generation <= 0:
            return 0.0
        return self.max_share * min(1.0, generation / max(self.generations, 1))
