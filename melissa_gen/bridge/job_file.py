"""The job file: everything that a bridge needs of a study, written by the launcher."""

from collections.abc import Mapping
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict

from melissa_gen.bridge.inputs import render_words, write_inputs
from melissa_gen.bridge.readers import INPUT_KEY, KEY, check_reader
from melissa_gen.errors import StudyError
from melissa_gen.study import SimulationSection, Study
from melissa_gen.study.bridge_section import BridgeSection

__all__ = ["BridgeJob"]


class BridgeJob(BaseModel):
    """The job of a bridge.

    Attributes:
        simulation: The section `simulation` of the study, with its command resolved.
        folder: Folder of the study.
        simulations: Folder in which every simulation gets a folder of its own.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    simulation: SimulationSection
    folder: Path
    simulations: Path

    @classmethod
    def of(cls, study: Study, command: tuple[str, ...], simulations: Path) -> Self:
        """Creates the job of a study, and checks all that can be checked without running the command.

        Args:
            study: The study.
            command: Its command, resolved.
            simulations: Folder for the folders of the simulations.

        Raises:
            StudyError: An input does not exist, a template does not fit the parameters, or the reader is unavailable.
        """
        simulation = study.simulation.model_copy(update={"command": list(command)})
        job = cls(simulation=simulation, folder=study.folder, simulations=simulations)
        values = job.values({n: 1 if p.whole else 1.0 for n, p in study.parameters.items()})
        try:
            render_words(job.simulation.command, values)
        except StudyError as error:
            msg = f"simulation.command: {error}"
            raise StudyError(msg) from None
        try:
            write_inputs(job.bridge.inputs, job.folder, None, values)
        except StudyError as error:
            msg = f"simulation.bridge.inputs: {error}"
            raise StudyError(msg) from None
        check_reader(job.bridge.reader, job.folder, KEY)
        if job.bridge.input_reader is not None:
            check_reader(job.bridge.input_reader, job.folder, INPUT_KEY)
        return job

    @classmethod
    def read(cls, path: Path) -> Self:
        """Reads the file that `write` wrote."""
        return cls.model_validate_json(path.read_text(encoding="utf-8"))

    def write(self, path: Path) -> None:
        """Writes the file atomically, because another bridge may be reading it."""
        partial = path.with_name(f"{path.name}.partial")
        partial.write_text(self.model_dump_json(by_alias=True), encoding="utf-8")
        partial.replace(path)

    @property
    def bridge(self) -> BridgeSection:
        """The section of the study."""
        assert self.simulation.bridge is not None
        return self.simulation.bridge

    def values(self, parameters: Mapping[str, float | int]) -> dict[str, object]:
        """Returns the names and values that templates can use: the parameters and `study_folder`."""
        return {"study_folder": str(self.folder), **parameters}
