"""The model of a study file, with the checks that concern several sections."""

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, PrivateAttr, ValidationInfo, model_validator

from melissa_gen.distributions import Parameter
from melissa_gen.errors import StudyError
from melissa_gen.study.base_section import Section
from melissa_gen.study.flow import BUFFERS, Flow, default_flow
from melissa_gen.study.launcher_section import LauncherSection
from melissa_gen.study.record_section import RecordSection
from melissa_gen.study.report_section import ReportSection
from melissa_gen.study.reservoir_section import ReservoirSection
from melissa_gen.study.sampler_section import SamplerSection
from melissa_gen.study.server_section import ServerSection
from melissa_gen.study.simulation_section import SimulationSection
from melissa_gen.study.statistics_section import StatisticsSection
from melissa_gen.study.study_file import of_a_run, read_study, rechecked
from melissa_gen.study.surrogate_section import SurrogateSection
from melissa_gen.study.training_section import TrainingSection
from melissa_gen.study.word_types import Name

__all__ = ["Study", "json_schema", "load_study", "with_values"]


class Study(Section):
    """A study: one surrogate, trained online from one simulation code."""

    name: str = Field(min_length=1, max_length=100)
    """Name of the study; the default run directory is named after it."""
    parameters: dict[Name, Parameter] = Field(min_length=1, max_length=1000)
    """Name of each input parameter λ of the simulation to its distribution. Together they are the prior. The name
    `time` is taken, and no parameter can have the name of a field."""
    constraints: list[Annotated[str, Field(min_length=1, max_length=1000)]] = Field(
        default=[], max_length=100
    )
    """Conditions on the parameters that every simulation has to meet, such as `a + b <= 1`."""
    feasible_points: str | None = None
    """File of points (.csv with the names in its first line, .npy, .npz) that are draws of the prior, for correlated
    inputs or a region that no condition describes. The distributions of the parameters then only give the ranges."""
    simulation: SimulationSection
    """The solver: how it is started and what it sends."""
    surrogate: SurrogateSection = SurrogateSection()
    """The network that is trained."""
    training: TrainingSection = TrainingSection()
    """The training loop."""
    reservoir: ReservoirSection
    """The memory from which each server rank draws its batches."""
    sampler: SamplerSection = SamplerSection()
    """What chooses the parameters of the next simulations."""
    record: RecordSection | None = None
    """A file in which the samples are recorded while they arrive; none records nothing."""
    statistics: StatisticsSection | None = None
    """Statistics that are computed while the samples arrive; none computes none."""
    server: ServerSection = ServerSection()
    """The training server: ranks, device, network."""
    launcher: LauncherSection = LauncherSection()
    """How the jobs of server and simulations are started."""
    report: ReportSection = ReportSection()
    """What reports the progress to other programs."""
    seed: int = Field(default=0, ge=0, lt=2**63)
    """Seed of every random draw of the run: parameters, batches and initial weights."""

    _folder: Path = PrivateAttr(default=Path())

    @classmethod
    def load(
        cls, path: str | Path, overrides: Mapping[str, Any] | None = None, **sections: Any
    ) -> "Study":
        """Reads and checks a study file.

        Args:
            path: The YAML file.
            overrides: Values that replace the file's, by dotted key: `{"training.batch_size": 64}`.
            **sections: The same by section: `training={"batch_size": 64}`, `seed=1`. Keys that are not named keep
                the file's values.

        Returns:
            The study, complete with defaults.

        Raises:
            StudyError: One sentence with the file or the override, the key, what was found and what is legal.

        Example:
            >>> study = Study.load("study.yaml", {"simulation.count": 100}, sampler={"method": "breed"})
        """
        values = dict(overrides or {})
        for name, section in sections.items():
            values.update(_dotted(name, section))
        return load_study(Path(path), values)

    @property
    def folder(self) -> Path:
        """The folder to which relative paths in the study refer."""
        return self._folder

    @property
    def sample_bytes(self) -> int:
        """Bytes of the fields of one sample."""
        return sum(map(self.field_bytes, self.simulation.fields))

    @property
    def input_bytes(self) -> int:
        """Bytes of the input fields of one simulation."""
        inputs = self.simulation.inputs.values()
        return sum(math.prod(one.shape) * int(one.dtype[-2:]) // 8 for one in inputs)

    def field_bytes(self, name: str) -> int:
        """Returns the bytes of one field of one sample."""
        field = self.simulation.fields[name]
        return math.prod(field.shape) * int(field.dtype[-2:]) // 8

    @property
    def flow(self) -> Flow:
        """How one client rank sends time steps to one server rank."""
        server, simulation = self.server, self.simulation
        if server.chunk_steps is None:
            steps, ranks = simulation.time_steps, simulation.processes
            return default_flow(self.sample_bytes, ranks, steps, credit=server.credit)
        chunk = min(server.chunk_steps, simulation.time_steps)
        if server.credit is not None:
            return Flow(server.credit // chunk, chunk)
        return Flow(max(default_flow(self.sample_bytes).steps // chunk, BUFFERS), chunk)

    @property
    def over_tcp(self) -> bool:
        """Whether server and clients communicate by TCP instead of local sockets."""
        transport = self.server.transport
        return transport == "tcp" or (transport == "auto" and self.launcher.backend != "local")

    @model_validator(mode="after")
    def _solved(self) -> Self:
        task = self.surrogate.task
        name = task if isinstance(task, str) else task.class_path
        if not self.simulation.command and name != "physics_informed":
            msg = (
                "simulation.command is missing; name the solver's executable and its arguments, as in "
                "[python, solver.py] (only surrogate.task physics_informed can do without a solver)"
            )
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _distinct(self, info: ValidationInfo) -> Self:
        if of_a_run(info):
            return self
        fields, inputs = self.simulation.fields, self.simulation.inputs
        for key, names in (
            ("parameters", self.parameters),
            ("simulation.fields", fields),
            ("simulation.inputs", inputs),
        ):
            if "time" in names:
                msg = f"{key}.time: the name time is that of the physical time; use another one, such as end_time"
                raise ValueError(msg)
        taken = next((name for name in self.parameters if name in {**fields, **inputs}), None)
        if taken is not None:
            key = "simulation.fields" if taken in fields else "simulation.inputs"
            msg = f"parameters.{taken} has the name of {key}.{taken}; give one of them another name"
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _reachable(self) -> Self:
        ports = self.server.ports
        if ports is not None and ports[1] - ports[0] + 1 < self.server.ranks + 2:
            msg = (
                f"server.ports {ports} has {max(0, ports[1] - ports[0] + 1)} ports; each of the "
                f"{self.server.ranks} server ranks needs one and rank 0 two more"
            )
            raise ValueError(msg)
        if self.server.transport == "ipc" and self.launcher.backend != "local":
            msg = f"server.transport ipc needs one machine; with launcher.backend {self.launcher.backend} use tcp"
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _buffered(self) -> Self:
        credit, chunk = self.server.credit, self.server.chunk_steps or 1
        if credit is not None and chunk > 1 and credit < BUFFERS * chunk:
            msg = (
                f"server.credit {credit} is less than {BUFFERS} messages of server.chunk_steps {chunk}; "
                f"at least {BUFFERS * chunk} is legal"
            )
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _domain(self) -> Self:
        shapes = {len(field.shape) for field in self.simulation.fields.values()}
        axes = list(self.simulation.domain)
        # The points of a mesh have the axes of their coordinates, which `read_mesh` checks.
        fits = self.simulation.mesh is not None or shapes == {len(axes)}
        if axes and not (fits and axes == ["x", "y", "z"][: len(axes)]):
            msg = (
                f"simulation.domain has the axes {', '.join(axes)}; legal are x, y, z in this order, "
                "one for each dimension of every field's shape, or of the coordinates in simulation.mesh"
            )
            raise ValueError(msg)
        return self

    @model_validator(mode="before")
    @classmethod
    def _no_reservoir(cls, given: Any) -> Any:
        """Adds the reservoir to a study without training, which has none."""
        training = given.get("training") if isinstance(given, dict) else None
        trains = not isinstance(training, dict) or training.get("enabled") is not False
        if trains or "reservoir" in given:
            return given
        return {**given, "reservoir": {"capacity": 1, "watermark": 1}}

    @model_validator(mode="after")
    def _recorded(self) -> Self:
        if self.record is None:
            if not self.training.enabled and self.statistics is None:
                msg = (
                    "training.enabled is false, and nothing else uses the samples: add the section record or "
                    "statistics"
                )
                raise ValueError(msg)
            return self
        unknown = [name for name in self.record.fields or () if name not in self.simulation.fields]
        if unknown:
            msg = (
                f"record.fields has '{unknown[0]}', which is no field of the study; legal are "
                f"{', '.join(self.simulation.fields)}"
            )
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _countable(self) -> Self:
        section = self.statistics
        if section is None:
            return self
        fields = list(section.fields or self.simulation.fields)
        for key, names, legal in (
            ("fields", fields, list(self.simulation.fields)),
            ("thresholds", section.thresholds, fields),
        ):
            unknown = [name for name in names if name not in legal]
            if unknown:
                msg = f"statistics.{key} has the field '{unknown[0]}'; legal are {', '.join(legal)}"
                raise ValueError(msg)
        if section.sobol and self.sampler.method != "pick_freeze":
            msg = (
                "statistics.sobol needs the groups of simulations of sampler.method pick_freeze; "
                f"found {self.sampler.method}"
            )
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _parameters_of_sets(self) -> Self:
        for name, one in self.training.validation.sets.items():
            key, legal = f"training.validation.sets.{name}", ", ".join(self.parameters)
            words = [
                *one.parameters,
                *one.values,
                *(word for point in one.points for word in point),
            ]
            unknown = [word for word in words if word not in self.parameters]
            if unknown:
                msg = f"{key} has the parameter '{unknown[0]}'; legal are {legal}"
                raise ValueError(msg)
            if one.parameters and self.feasible_points is not None:
                msg = (
                    f"{key}.parameters has no effect, because the study draws from the file feasible_points; "
                    "use points or file instead"
                )
                raise ValueError(msg)
            for point in [*one.points, one.values] if one.values else one.points:
                missing = [word for word in self.parameters if word not in point]
                if missing:
                    msg = f"{key} has a point without '{missing[0]}'; each point has {legal}"
                    raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _whole_numbers_of_sets(self, info: ValidationInfo) -> Self:
        if of_a_run(info):
            return self
        whole = [name for name, one in self.parameters.items() if one.whole]
        for name, one in self.training.validation.sets.items():
            key = f"training.validation.sets.{name}"
            for word in whole:
                law = one.parameters.get(word)
                if law is not None and not law.whole:
                    msg = (
                        f"{key}.parameters.{word} is {law.distribution}, which draws fractions, but the values of "
                        f"{word} are whole numbers; use integer, or categorical with whole values"
                    )
                    raise ValueError(msg)
                given = [point[word] for point in [*one.points, one.values] if word in point]
                wrong = [value for value in given if value != round(value)]
                if wrong:
                    msg = f"{key} has {word} = {wrong[0]:g}, but the values of {word} are whole numbers"
                    raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if not self.training.enabled:
            return self
        reservoir, training = self.reservoir, self.training
        if reservoir.watermark > reservoir.capacity:
            raise _clash(
                "reservoir.watermark", reservoir.watermark, "reservoir.capacity", reservoir.capacity
            )
        if training.batch_size > reservoir.watermark:
            raise _clash(
                "training.batch_size",
                training.batch_size,
                "reservoir.watermark",
                reservoir.watermark,
            )
        if training.draws_per_sample > 1 and reservoir.policy != "reservoir":
            msg = (
                f"training.draws_per_sample {training.draws_per_sample:g} needs reservoir.policy reservoir; "
                f"{reservoir.policy} draws each sample only once, so 1 is legal"
            )
            raise ValueError(msg)
        preferring = (reservoir.eviction, reservoir.draws) != ("random", "uniform")
        if preferring and reservoir.policy != "reservoir":
            msg = (
                f"reservoir.eviction {reservoir.eviction} and reservoir.draws {reservoir.draws} need "
                f"reservoir.policy reservoir; {reservoir.policy} draws each sample only once"
            )
            raise ValueError(msg)
        ensemble = self.surrogate.ensemble
        if self.sampler.difficulty == "disagreement" and (
            ensemble is None or ensemble.kind == "snapshots"
        ):
            msg = (
                "sampler.difficulty disagreement needs several members at each batch; "
                "set surrogate.ensemble.kind to heads or members"
            )
            raise ValueError(msg)
        for name, field in self.simulation.fields.items():
            points = 1
            for size in field.shape:
                points *= size
            if self.simulation.processes > points:
                msg = (
                    f"simulation.processes {self.simulation.processes} is more than the {points} points of "
                    f"simulation.fields.{name}.shape; at most {points} is legal"
                )
                raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _shared(self) -> Self:
        simulation, ranks, watermark = self.simulation, self.server.ranks, self.reservoir.watermark
        if ranks > simulation.count:
            msg = (
                f"server.ranks {ranks} is more than simulation.count {simulation.count}: each simulation belongs to "
                f"one server rank; at most {simulation.count} is legal"
            )
            raise ValueError(msg)
        received = simulation.count // ranks * simulation.time_steps
        if watermark > received:
            msg = (
                f"reservoir.watermark {watermark} is never reached: each simulation belongs to one of the "
                f"{ranks} server ranks, and {simulation.count // ranks} of simulation.count {simulation.count} give a "
                f"rank {received} samples; at most {received} is legal"
            )
            raise ValueError(msg)
        return self


def load_study(
    path: Path,
    overrides: Iterable[str] | Mapping[str, Any] = (),
    folder: Path | None = None,
    *,
    recorded: bool = False,
) -> Study:
    """Reads and checks a study file.

    Args:
        path: The YAML file.
        overrides: Values that replace those of the file: words `section.key=value` with YAML values, or a mapping of
            `section.key` to Python values.
        folder: Folder to which relative paths in the study refer; default: the file's folder.
        recorded: Whether the file is `study.yaml` of a run directory. The rules that are only for new studies do not
            apply to it, because an earlier version may have run it.

    Returns:
        The study, complete with defaults.

    Raises:
        StudyError: One sentence with the file, the key, what was found and what is legal.
    """
    study = read_study(Study, path, overrides, recorded=recorded)
    study._folder = folder or path.resolve().parent
    try:
        str(study._folder).encode()
    except UnicodeEncodeError:
        msg = f"{path}: the name of the study's folder {study._folder} is not text in UTF-8; rename the folder"
        raise StudyError(msg) from None
    return study


def with_values(study: Study, values: Mapping[str, Any]) -> Study:
    """Returns a study with other sections, after all checks of a study file.

    Args:
        study: The study.
        values: Name of a section to the section.

    Raises:
        StudyError: The sections do not fit together; one sentence.
    """
    changed = rechecked(study.model_copy(update=dict(values)))
    changed._folder = study.folder
    return changed


def json_schema() -> str:
    """Returns the study file's JSON Schema, for editors that complete and check YAML."""
    schema = Study.model_json_schema(by_alias=True)
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    return json.dumps(schema, indent=2)


def _dotted(key: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Yields the values of nested sections with their dotted keys."""
    if isinstance(value, Mapping) and value:
        for name, inner in value.items():
            yield from _dotted(f"{key}.{name}", inner)
    else:
        yield key, value


def _clash(key: str, value: int, limit_key: str, limit: int) -> ValueError:
    return ValueError(f"{key} {value} is above {limit_key} {limit}; at most {limit} is legal")
