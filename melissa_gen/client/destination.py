"""The interface between a client and the destination of its samples: a training server or an HDF5 file."""

from collections.abc import Collection, Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from melissa_gen.protocol.failures import Failure

__all__ = ["Destination", "IssuedSimulation", "Placement"]


class Placement(NamedTuple):
    """The block of a field that one rank computes.

    Attributes:
        shape: Shape of the whole field.
        start: First index of the block along each dimension.
        extent: Size of the block along each dimension.
        dtype: Type in which the values are sent.
    """

    shape: tuple[int, ...]
    start: tuple[int, ...]
    extent: tuple[int, ...]
    dtype: np.dtype[Any]


class IssuedSimulation(NamedTuple):
    """A simulation that the client has been asked to solve.

    Attributes:
        simulation: Number of the simulation in the study.
        attempt: Number of this attempt; 0 for the first.
        parameters: Parameter name to value.
    """

    simulation: int
    attempt: int
    parameters: dict[str, float | int]


class Destination(Protocol):
    """Receives the samples of a client.

    Attributes:
        time_steps: Time steps of each simulation, or None if the solver decides.
    """

    time_steps: int | None

    @property
    def inputs(self) -> Collection[str]:
        """Names of the fields that are sent once per simulation."""

    @property
    def possible_inputs(self) -> Collection[str]:
        """Names of the declared fields that may be sent once per simulation."""

    def declare(self, name: str, placement: Placement) -> Placement:
        """Checks the declaration of a field and returns it with the type in which the values are sent."""

    def next(self) -> IssuedSimulation | None:
        """Waits for the next simulation; None if there are no more. Collective over the ranks."""

    def send(
        self,
        issued: IssuedSimulation,
        step: int,
        blocks: Mapping[str, npt.NDArray[Any]],
        called: float,
    ) -> None:
        """Copies this rank's blocks of one time step, which the solver has sent at a time (monotonic seconds)."""

    def send_inputs(
        self, issued: IssuedSimulation, blocks: Mapping[str, npt.NDArray[Any]], called: float
    ) -> None:
        """Copies this rank's blocks of inputs, before the first time step."""

    def finalize(self, issued: IssuedSimulation, steps: int) -> None:
        """Reports that the simulation is complete."""

    def fail(self, issued: IssuedSimulation | None, step: int, failure: Failure) -> None:
        """Reports that a simulation is given up, or, without a simulation, that a declaration is wrong."""

    def close(self) -> None:
        """Releases all resources."""
