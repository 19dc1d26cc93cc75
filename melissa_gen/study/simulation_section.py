"""The section of the solver: how it is started and what it sends."""

from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from melissa_gen.errors import nearest
from melissa_gen.study.base_section import Section
from melissa_gen.study.bridge_section import BridgeSection, ReaderSection
from melissa_gen.study.field_section import FieldSection, InputSection
from melissa_gen.study.word_types import Name, Text, Variable
from melissa_gen.units import Duration, Unit

__all__ = ["MeshSection", "SimulationSection", "TimesSection"]

Interval = Annotated[list[float], Field(min_length=2, max_length=2)]


class TimesSection(Section):
    """Physical time of the samples: `start + step * interval`."""

    start: float = 0.0
    """Physical time of the first sample."""
    interval: float = Field(default=1.0, gt=0)
    """Physical time between two samples."""
    unit: Unit = "1"
    """Unit of both."""


class MeshSection(Section):
    """The points of an unstructured mesh, the same for all simulations of the study."""

    coordinates: Text
    """File of the coordinates, relative to the study's folder: `.npy` with an array (N, D), or `.csv` with a line for
    each of the N points; D is 1, 2 or 3. The points have the order of the fields' values."""
    cells: Text | None = None
    """File of the cells, `.npy` or `.csv`: the numbers of the points of each cell, from 0. For data sets."""


class SimulationSection(Section):
    """The solver: how it is started and what it sends."""

    command: list[Text] = Field(default=[])
    """Executable and arguments. `python` is the interpreter that runs melissa_gen; relative paths start at the study's
    folder. Only a study whose task is `physics_informed` can do without."""
    count: int = Field(gt=0, lt=2**31)
    """How many simulations to run."""
    processes: int = Field(default=1, gt=0, lt=2**31)
    """MPI ranks per simulation."""
    mode: Literal["persistent", "per_simulation"] = "persistent"
    """`persistent`: one MPI world solves many simulations; `per_simulation`: a new world for each."""
    fields: dict[Name, FieldSection] = Field(min_length=1, max_length=16)
    """Name of each field to its shape and type. A time step is complete when all fields of all ranks have arrived."""
    inputs: dict[Name, InputSection] = Field(default={}, max_length=16)
    """Name of each field that a simulation sends once, before its first time step, to its shape and type: an initial
    state, a coefficient, a forcing, or a mask of the geometry. They belong to all samples of the simulation."""
    time_steps: int = Field(gt=0, lt=2**31)
    """Samples that each simulation must send."""
    times: TimesSection = TimesSection()
    """Physical times of the time steps; the surrogate's input `time` is in this unit."""
    domain: dict[Literal["x", "y", "z"], Interval] = Field(default={})
    """Ends of the axes of a regular grid, x first; the points are the centers of its cells. For data sets."""
    mesh: MeshSection | None = None
    """Points and cells of an unstructured mesh, on which the fields have the shape [N], or with channels [N, C] or
    [C, N]. For data sets, the maps of the report, and the tasks `pointwise` and `physics_informed`."""
    timeout: Duration = 120.0
    """A simulation that makes no progress for this long is ended and started again (seconds)."""
    retries: int = Field(default=2, ge=0, le=1000)
    """Restarts of a simulation whose process died or was silent, before its point is dropped."""
    identical_failures: int = Field(default=5, gt=0)
    """The study fails when so many simulations have failed in the same way and none has finished, or ten times as many
    in a row later. The same way: the same exit status, field and step, and the same last line of the log except its
    numbers."""
    environment: dict[Variable, Text] = Field(default={})
    """Extra environment variables of the simulation."""
    bridge: BridgeSection | None = None
    """For a command that does not call melissa_gen: its input files, and how its output files are read."""

    @model_validator(mode="after")
    def _named(self) -> Self:
        taken = next((name for name in self.inputs if name in self.fields), None)
        if taken is not None:
            msg = f"inputs.{taken} is also the name of a field; give the input another name"
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _bridged(self) -> Self:
        if self.bridge is None:
            return self
        if self.inputs and self.bridge.input_reader is None:
            msg = (
                f"inputs.{next(iter(self.inputs))} would never arrive: name the files that hold it in "
                "bridge.input_reader, or remove it"
            )
            raise ValueError(msg)
        if self.bridge.input_reader is not None and not self.inputs:
            msg = "bridge.input_reader has nothing to read: declare the fields in simulation.inputs, or remove it"
            raise ValueError(msg)
        if self.processes != 1:
            msg = (
                f"processes {self.processes} would be ranks of the bridge, which has one; "
                "start the ranks of the solver in command, with its own mpirun"
            )
            raise ValueError(msg)
        _check_names("bridge.reader", self.bridge.reader, "fields", self.fields)
        _check_names("bridge.input_reader", self.bridge.input_reader, "inputs", self.inputs)
        return self


def _check_names(
    key: str, reader: ReaderSection | None, what: str, declared: Mapping[str, object]
) -> None:
    """Raises a `ValueError` if a reader names a field that the study does not have."""
    names = getattr(reader, "fields", {})
    unknown = next((name for name in names if name not in declared), None)
    if unknown is not None:
        msg = (
            f"{key}.fields.{unknown} is not one of the study's {what}"
            f"{nearest(unknown, declared)}; legal: {', '.join(declared)}"
        )
        raise ValueError(msg)
