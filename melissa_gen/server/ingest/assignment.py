"""What a rank knows of a simulation before its samples arrive."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple, Self

__all__ = ["Assignment"]


class Assignment(NamedTuple):
    """Parameters of a simulation, the importance weight of its samples, and the log density of its drawing."""

    parameters: tuple[float, ...]
    weight: float
    log_density: float = math.nan

    @classmethod
    def from_message(cls, message: Mapping[str, Any]) -> Self:
        """Reads the message of rank 0, in which the density is null if it is unknown."""
        density = message["log_density"]
        known = math.nan if density is None else float(density)
        return cls(tuple(message["parameters"]), message["weight"], known)
