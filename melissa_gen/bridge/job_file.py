"""What the launcher tells a bridge: everything of the study that it needs, in one file."""

from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict

from melissa_gen.bridge.inputs import render_words, write_inputs
from melissa_gen.bridge.readers import check_reader
from melissa_gen.errors import StudyError
from melissa_gen.study import SimulationSection, Study
from melissa_gen.study.bridge_section import BridgeSection

__all__ = ["BridgeJob"]


class BridgeJob(BaseModel):
    """The job of a bridge.

    Attributes:
        simulation: The study's section, its command resolved.
        folder: The study's folder.
        simulations: Where each simulation gets a folder of its own.
        integers: Parameters that are whole numbers, and are written as such.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    simulation: SimulationSection
    folder: Path
    simulations: Path
    integers: list[str]

    @classmethod
    def of(cls, study: Study, command: tuple[str, ...], simulations: Path) -> Self:
        """Makes the job of a study, and tries what can be tried without running its command.

        Raises:
            StudyError: An input is not there, a template does not fit the parameters, or the reader can't be had.
        """
        simulation = study.simulation.model_copy(update={"command": list(command)})
        integers = [n for n, p in study.parameters.items() if p.distribution == "integer"]
        job = cls(
            simulation=simulation, folder=study.folder, simulations=simulations, integers=integers
        )
        values = job.values(dict.fromkeys(study.parameters, 1.0))
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
        check_reader(job.bridge.reader, job.folder)
        return job

    @classmethod
    def read(cls, path: Path) -> Self:
        """Reads the file that `write` wrote."""
        return cls.model_validate_json(path.read_text(encoding="utf-8"))

    def write(self, path: Path) -> None:
        """Writes the file, all at once: another bridge may be reading it."""
        partial = path.with_name(f"{path.name}.partial")
        partial.write_text(self.model_dump_json(by_alias=True), encoding="utf-8")
        partial.replace(path)

    @property
    def bridge(self) -> BridgeSection:
        """The section of the study."""
        assert self.simulation.bridge is not None
        return self.simulation.bridge

    def values(self, parameters: dict[str, float]) -> dict[str, object]:
        """What templates may name: the parameters, and the study's folder."""
        whole = {n: int(v) if n in self.integers else v for n, v in parameters.items()}
        return {"study_folder": str(self.folder), **whole}
