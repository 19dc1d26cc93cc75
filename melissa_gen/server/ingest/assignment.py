"""What a rank knows of a simulation before its samples arrive."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Self

import numpy as np

from melissa_gen.reservoir import SampleBlock
from melissa_gen.server.ingest.samples import WholeSample

__all__ = ["Assignment"]


class Assignment(NamedTuple):
    """Parameters of a simulation, the importance weight of its samples, and the log density of its drawing."""

    parameters: tuple[float, ...]
    weight: float
    log_density: float = math.nan

    @classmethod
    def from_message(cls, message: Mapping[str, Any]) -> Self:
        """Reads the message of the control process, in which the density is null if it is unknown."""
        density = message["log_density"]
        known = math.nan if density is None else float(density)
        return cls(tuple(message["parameters"]), message["weight"], known)

    def block(self, whole: Sequence[WholeSample], time_of: Callable[[int], float]) -> SampleBlock:
        """Returns the metadata of samples of one attempt at the simulation.

        Args:
            whole: The samples.
            time_of: Function from time step to physical time.
        """
        steps = [one.step for one in whole]
        inputs = np.empty((len(steps), len(self.parameters) + 1))
        inputs[:, :-1] = self.parameters
        inputs[:, -1] = [time_of(step) for step in steps]
        common = (self.weight, self.log_density, whole[0].inputs)
        return SampleBlock(whole[0].simulation, np.array(steps, np.int64), inputs, *common)
