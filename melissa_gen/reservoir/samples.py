"""Samples as the policies exchange them: put, drawn and restored samples."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = [
    "NO_INPUTS",
    "Batch",
    "Draw",
    "Inputs",
    "Sample",
    "SampleBlock",
    "Selection",
    "Stock",
    "StoredRows",
]


Inputs = Mapping[str, NDArray[Any]]
"""The fields that a simulation has sent once, by name; all its samples share them, and they never change."""
NO_INPUTS: Inputs = MappingProxyType({})


class Sample(NamedTuple):
    """Metadata of a completed sample, without its fields.

    Attributes:
        simulation: Number of the simulation.
        step: Time step.
        inputs: Input vector of the surrogate: parameters and time, `(n_inputs,)`.
        weight: Importance weight of the simulation.
        log_density: Log density with which its parameters were drawn; NaN if it is unknown.
        input_fields: The input fields of the simulation.
    """

    simulation: int
    step: int
    inputs: ArrayLike
    weight: float = 1.0
    log_density: float = math.nan
    input_fields: Inputs = NO_INPUTS


class SampleBlock(NamedTuple):
    """Metadata of several completed samples of one simulation.

    Attributes:
        simulation: Number of the simulation.
        steps: Time step of each sample, `(n,)`.
        inputs: Input vector of each sample, `(n, n_inputs)`.
        weight: Importance weight of the simulation.
        log_density: Log density with which its parameters were drawn; NaN if it is unknown.
        input_fields: The input fields of the simulation.
    """

    simulation: int
    steps: NDArray[np.int64]
    inputs: NDArray[Any]
    weight: float = 1.0
    log_density: float = math.nan
    input_fields: Inputs = NO_INPUTS

    @classmethod
    def of(cls, sample: Sample) -> Self:
        """Returns a block of one sample."""
        inputs = np.asarray(sample.inputs)[np.newaxis]
        return cls(sample.simulation, np.array([sample.step]), inputs, *sample[3:])

    def sample(self, number: int) -> Sample:
        """Returns one sample by its number in the block."""
        step, inputs = int(self.steps[number]), self.inputs[number]
        common = (self.weight, self.log_density, self.input_fields)
        return Sample(self.simulation, step, inputs, *common)

    def after(self, count: int) -> Self:
        """Returns the block without its first samples."""
        return self._replace(steps=self.steps[count:], inputs=self.inputs[count:])


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch of samples. Its arrays are copies; they do not change when samples are evicted.

    Attributes:
        count: Number of samples, at most the number requested.
        fields: Name of each field or input field to `(count, *shape)`, the first rows of the caller's `out`.
        inputs: Parameters and time, `(count, n_inputs)`.
        simulations: Simulation number of each sample, `(count,)`.
        steps: Time step of each sample, of a window its first one, `(count,)`.
        first_time: Whether this is the first draw of the sample, `(count,)`.
        slots: Slot of each sample at the time of the draw, `(count,)`. The slot may have been
            reused since.
        weights: Importance weight of each sample, `(count,)`: its probability under uniform
            eviction and uniform draws, divided by its probability under the policy.
        simulation_weights: Importance weight of the simulation of each sample, `(count,)`.
    """

    count: int
    fields: dict[str, NDArray[Any]]
    inputs: NDArray[Any]
    simulations: NDArray[np.int64]
    steps: NDArray[np.int64]
    first_time: NDArray[np.bool_]
    slots: NDArray[np.intp]
    weights: NDArray[np.float64]
    simulation_weights: NDArray[np.float64]


class Selection(NamedTuple):
    """The samples that a policy has selected for a draw.

    Attributes:
        slots: Slot of each sample.
        unseen: Whether each sample is drawn for the first time.
        weights: Importance weight of each sample (see `Batch`), `(n,)`.
    """

    slots: list[int]
    unseen: list[bool]
    weights: NDArray[np.float64]


class Draw(NamedTuple):
    """A draw whose rows can be read until `Policy.end_draw`.

    Attributes:
        selection: What was selected.
        windows: The slots of each item if an item has several time steps, else None.
        removed: The slots that the draw removes.
    """

    selection: Selection
    windows: list[list[int]] | None
    removed: list[int]


class Stock(NamedTuple):
    """What a policy can give at one instant.

    Attributes:
        ready: Whether a batch can be drawn.
        drained: Whether reception is closed and no sample is left to draw.
        blocked: Whether the most recent put was refused and there is still no room.
        items: Number of items that can be drawn: samples, or windows of several time steps.
        accepted: Number of stored samples that count for the pacing; see `Policy.accepted`.
        closed: Whether reception is closed.
    """

    ready: bool
    drained: bool
    blocked: bool
    items: int
    accepted: int
    closed: bool


class StoredRows(NamedTuple):
    """The samples in memory at one instant.

    Attributes:
        slots: Their slots, ascending, `(n,)`.
        columns: Name to one small value of each row, `(n,)`; copies that do not change.
    """

    slots: NDArray[np.intp]
    columns: dict[str, NDArray[Any]]
