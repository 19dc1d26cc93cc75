"""Models of the sections of a study file: all keys with default, unit and limits."""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import ConfigDict, Field, PrivateAttr, model_validator

from melissa_gen.distributions import Parameter
from melissa_gen.errors import nearest
from melissa_gen.study.base_section import Section
from melissa_gen.study.bridge_section import BridgeSection
from melissa_gen.study.field_section import FieldSection
from melissa_gen.study.jobs_section import JobsSection
from melissa_gen.units import Duration, Size, Unit

__all__ = ["Study"]

Name = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,62}$")]
Variable = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
Text = Annotated[str, Field(pattern=r"^[^\x00]*$")]
Port = Annotated[int, Field(ge=1024, lt=2**16)]
Interval = Annotated[list[float], Field(min_length=2, max_length=2)]
_CREDIT_BYTES = 8_000_000


def default_credit(sample_bytes: int) -> int:
    """Returns the default of `server.credit`: 8 MB of samples, at least 4 and at most 16.

    The overhead per message makes more credit useful for small samples.
    """
    return min(max(_CREDIT_BYTES // sample_bytes, 4), 16)


class TimesSection(Section):
    """Physical time of the samples: `start + step * interval`."""

    start: float = 0.0
    """Physical time of the first sample."""
    interval: float = Field(default=1.0, gt=0)
    """Physical time between two samples."""
    unit: Unit = "1"
    """Unit of both."""


class SimulationSection(Section):
    """The solver: how it is started and what it sends."""

    command: list[Text] = Field(min_length=1)
    """Executable and arguments. `python` is the interpreter that runs melissa_gen; relative paths start at the study's
    folder."""
    count: int = Field(gt=0, lt=2**31)
    """How many simulations to run."""
    processes: int = Field(default=1, gt=0, lt=2**31)
    """MPI ranks per simulation."""
    mode: Literal["persistent", "per_simulation"] = "persistent"
    """`persistent`: one MPI world solves many simulations; `per_simulation`: a new world for each."""
    fields: dict[Name, FieldSection] = Field(min_length=1, max_length=16)
    """Name of each field to its shape and type. A time step is complete when all fields of all ranks have arrived."""
    time_steps: int = Field(gt=0, lt=2**31)
    """Samples that each simulation must send."""
    times: TimesSection = TimesSection()
    """Physical times of the time steps; the surrogate's input `time` is in this unit."""
    domain: dict[Literal["x", "y", "z"], Interval] = Field(default={})
    """Ends of the axes of a regular grid, x first; the points are the centers of its cells. For data sets."""
    timeout: Duration = 120.0
    """A simulation that makes no progress for this long is ended and started again (seconds)."""
    retries: int = Field(default=2, ge=0, le=1000)
    """Restarts of a simulation whose process died or was silent, before its point is dropped."""
    environment: dict[Variable, Text] = Field(default={})
    """Extra environment variables of the simulation."""
    bridge: BridgeSection | None = None
    """For a command that does not call melissa_gen: its input files, and how its output files are read."""

    @model_validator(mode="after")
    def _bridged(self) -> Self:
        if self.bridge is None:
            return self
        if self.processes != 1:
            msg = (
                f"processes {self.processes} would be ranks of the bridge, which has one; "
                "start the ranks of the solver in command, with its own mpirun"
            )
            raise ValueError(msg)
        names = getattr(self.bridge.reader, "fields", {})
        unknown = next((name for name in names if name not in self.fields), None)
        if unknown is not None:
            msg = (
                f"bridge.reader.fields.{unknown} is not one of the study's fields"
                f"{nearest(unknown, self.fields)}; legal: {', '.join(self.fields)}"
            )
            raise ValueError(msg)
        return self


class EnsembleSection(Section):
    """Several members, whose mean is the prediction. Their disagreement measures the uncertainty of the surrogate."""

    kind: Literal["heads", "snapshots", "members"] = "heads"
    """`heads`: one network with as many last layers; `members`: separate networks;
    `snapshots`: the weights at the last generations, at no cost, for the sampler alone."""
    count: int = Field(default=3, ge=2, le=64)
    """Number of members."""


class SurrogateSection(Section):
    """The network that learns the simulation."""

    class_path: str = Field(default="melissa_gen.surrogates.MLP", alias="class")
    """`package.module.Class` or `file.py:Class`, a `torch.nn.Module`; it may import other files of its folder."""
    arguments: dict[str, Any] = Field(default={})
    """Further arguments of its constructor."""
    task: Literal["direct"] = "direct"
    """`direct`: (parameters, time) to field."""
    ensemble: EnsembleSection | None = None
    """Members whose disagreement is measured. None is a single network; a method that needs members uses snapshots."""

    model_config = ConfigDict(populate_by_name=True)


class ValidationSection(Section):
    """Error on simulations drawn from the prior that are never trained on."""

    simulations: int = Field(default=16, ge=0)
    """Size of the validation set; 0 turns validation off."""
    every: int = Field(default=500, gt=0)
    """Batches between two validations."""
    seed: int = Field(default=20_000, ge=0)
    """Seed of the draws of the validation set; independent of the study's seed."""
    reuse: Literal["verified", "trusted", "never"] = "verified"
    """When a validation set of an earlier run is used again, if settings and files of the solver are the same:
    `verified`, after one of its simulations was solved again with the same result; `trusted`, without that, for a
    solver whose results are not reproducible; `never`."""


class TrainingSection(Section):
    """The training loop."""

    batch_size: int = Field(default=32, gt=0)
    """Samples per batch and rank."""
    optimizer: Literal["Adam", "AdamW", "SGD"] = "Adam"
    """Class of `torch.optim`."""
    learning_rate: float = Field(default=1e-3, gt=0)
    """Initial learning rate of the optimizer."""
    halve_every: int | None = Field(default=None, gt=0)
    """Batches after which the learning rate is halved, again and again; none keeps it constant."""
    draws_per_sample: float = Field(default=1.0, ge=1.0)
    """The solvers wait until each stored sample has been drawn this often on average: more training per simulation."""
    max_draws_per_sample: float | None = Field(default=None, ge=1.0)
    """The trainer waits for new samples once each has been drawn this often on average; none never waits. Under this
    limit, a batch takes samples that were never drawn first."""
    importance_exponent: float = Field(default=0.5, ge=0.0, le=1.0)
    """Exponent of the weights prior / proposal in the loss: 0 trains on what was proposed, 1 corrects to the prior.
    In the benchmarks 0.5 lowers the largest errors without raising the mean error."""
    on_divergence: Literal["stop", "rollback", "skip"] = "rollback"
    """After a batch whose loss or gradients are not finite: `stop` fails the study; `rollback` restores the weights of
    200 to 400 batches before and divides the learning rate by 4, at most four times; `skip` leaves the batch out."""
    precision: Literal["float32", "bf16"] = "float32"
    """`bf16`: the network computes in bfloat16 where that is safe; weights, losses and optimizer state stay float32."""
    compile: bool = False
    """Compile the network with `torch.compile`; the first batches take longer."""
    validation: ValidationSection = ValidationSection()
    """Error on simulations that are never trained on."""
    checkpoint_every: Duration = 60.0
    """Time between two checkpoints (seconds)."""

    @model_validator(mode="after")
    def _draws(self) -> Self:
        top = self.max_draws_per_sample
        if top is not None and top < self.draws_per_sample:
            msg = (
                f"max_draws_per_sample {top:g} is below draws_per_sample {self.draws_per_sample:g}; "
                "trainer and solvers would wait for each other"
            )
            raise ValueError(msg)
        return self


class ReservoirSection(Section):
    """The memory from which each server rank draws its batches."""

    policy: Literal["reservoir", "fifo", "firo"] = "reservoir"
    """`reservoir`: random draws with repetition, and a new sample replaces one that was drawn before; `fifo`: each
    sample once, in the order of arrival; `firo`: each sample once, in random order."""
    capacity: int = Field(gt=0, lt=2**31)
    """Samples per server rank."""
    watermark: int = Field(gt=0)
    """Samples per server rank before training starts."""
    eviction: Literal["random", "difficulty"] = "random"
    """Which sample that was drawn before makes room for a new one: `random`, any; `difficulty`, one whose last loss
    is not above the mean (as in R3)."""
    draws: Literal["uniform", "difficulty"] = "uniform"
    """How batches are drawn: uniformly, or half of them in proportion to the last loss."""
    max_memory: Size | None = None
    """A run does not start if the reservoir of a rank needs more; default: the free memory of the machine."""
    checkpoint: bool = True
    """Whether checkpoints hold the samples in memory. A resumed run then trains on them; without them, it begins with
    an empty reservoir, and the network may forget finished simulations. Needs twice the reservoir's size on disk."""


class SamplerSection(Section):
    """What chooses the parameters of the next simulations."""

    method: str = "diffusion_posterior"
    """Name of a sampling method; see the page on samplers for all of them."""
    max_adaptive_share: float = Field(default=0.9, ge=0.0, le=0.9)
    """Largest share of proposals that is not drawn from the prior."""
    ramp_generations: int = Field(default=3, ge=1)
    """Generations over which that share is reached."""
    generation_size: int = Field(default=10, gt=0)
    """Simulations proposed at a time."""
    difficulty: Literal["loss", "delta_loss", "disagreement", "gradient_norm"] = "loss"
    """Signal of difficulty, measured when a sample is first drawn: `loss`, its normalized
    loss; `delta_loss`, the excess of its loss over the batch; `disagreement` of the members of an ensemble;
    `gradient_norm`, the influence of its gradient at the last layer (arXiv 2110.08611)."""
    arguments: dict[str, Any] = Field(default={})
    """The method's own arguments."""


class ServerSection(Section):
    """The training server."""

    ranks: int = Field(default=1, gt=0, lt=2**16)
    """MPI ranks of the server; each trains a replica of the network on its own share of the samples."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """`auto`: the GPU that a rank has for itself, else the CPU; `cuda`: a GPU, shared if need be; `cpu`."""
    transport: Literal["auto", "ipc", "tcp"] = "auto"
    """`ipc` needs one machine; `auto` is ipc with the local back end, tcp with all others."""
    interface: str = "auto"
    """Network interface that tcp sockets bind to; `auto`: loopback with the local back end, otherwise the
    interface of the address that the node's name resolves to."""
    ports: Annotated[list[Port], Field(min_length=2, max_length=2)] | None = None
    """First and last port that tcp sockets may use, for example behind a firewall; none is any free port."""
    encrypt: Literal["all", "control"] = "all"
    """On tcp: CURVE on every socket, or on the control sockets only (data then carries the run's token)."""
    shared_memory: bool = True
    """Read the fields of clients on a rank's own machine from their memory instead of through sockets."""
    credit: int | None = Field(default=None, gt=0, le=1024)
    """Samples that one client rank may have in flight to one server rank; none is what 8 MB hold, from 4 to 16."""
    threads: int = Field(default=1, gt=0)
    """Torch threads per rank."""
    pin_ingest: bool = False
    """Keep the ingest thread off the trainer's core (needs two cores per rank)."""
    heartbeat: Duration = 1.0
    """Interval between two heartbeats of each peer (seconds)."""
    heartbeat_timeout: Duration = 20.0
    """Silence after which a peer counts as lost (seconds)."""
    progress_timeout: Duration = 600.0
    """The study fails if for this long no sample is received, no batch trained and no simulation finished, and the
    message says which part waits for which. Time in which a client solves, a validation runs, or client jobs are queued
    or start does not count; a warning is shown after half of it (seconds)."""
    stall_timeout: Duration = 600.0
    """Time in one step of the training loop, a validation or a checkpoint included, after which the server ends and
    names the rank that does not move (seconds)."""


class LauncherSection(Section):
    """How jobs are started."""

    backend: Literal["local", "slurm", "oar", "pbs", "lsf", "flux", "psij_slurm"] = "local"
    """`local` starts MPI jobs on this machine; every other value is a batch scheduler.

    `psij_slurm` exists only to test the PSI/J back end of `pbs` and `lsf` against a real SLURM. For studies on SLURM,
    use `slurm`, which supports more keys.
    """
    mode: Literal["jobs", "allocation"] = "jobs"
    """`jobs`: server and clients are separate jobs; `allocation` (SLURM): all run inside the launcher's own job."""
    profile: str | None = None
    """Cluster profile with default values for this study: a name in `slurm/`, or the path of a YAML file."""
    clients: int = Field(default=1, gt=0)
    """Simulation worlds that run at the same time."""
    connect_timeout: Duration | None = None
    """Time from the start of a client job until its first request (seconds); a solver's imports count.

    None means `simulation.timeout`, at least 30 s, and with a scheduler the time that it needs to start processes.
    """
    server_retries: int = Field(default=0, ge=0)
    """Servers that may die before the study fails: each is started again from its newest checkpoint."""
    mpirun: str | None = None
    """The mpirun to use; default: the one beside the Python interpreter, else the first on PATH."""
    poll: Duration = 2.0
    """Interval between two queries of the batch scheduler; each query covers all jobs (seconds)."""
    report: bool = True
    """Whether `report.html` is written when the run ends; `melissa-gen report` writes it at any time."""
    limit_margin: Duration = 120.0
    """The server saves a checkpoint and ends this long before its job's time limit (seconds)."""
    jobs: JobsSection = JobsSection()
    """Resources that all jobs request."""
    server_jobs: JobsSection = JobsSection()
    """Resources that the server's job requests in addition to those or instead of them."""
    client_jobs: JobsSection = JobsSection()
    """Resources that each client's job requests in addition to those or instead of them."""

    @model_validator(mode="after")
    def _allocation(self) -> Self:
        if self.mode == "allocation" and self.backend != "slurm":
            msg = (
                f"mode allocation needs backend slurm; with {self.backend} only mode jobs is legal"
            )
            raise ValueError(msg)
        return self

    @property
    def server_job(self) -> JobsSection:
        """Settings of the server's job."""
        return self.server_jobs.over(self.jobs)

    @property
    def client_job(self) -> JobsSection:
        """Settings of a client's job."""
        return self.client_jobs.over(self.jobs)


class Study(Section):
    """A study: one surrogate, trained online from one simulation code."""

    name: str = Field(min_length=1, max_length=100)
    """Name of the study; the default run directory is named after it."""
    parameters: dict[Name, Parameter] = Field(min_length=1, max_length=1000)
    """Name of each input parameter λ of the simulation to its distribution. Together they are the prior."""
    constraints: list[Annotated[str, Field(min_length=1, max_length=1000)]] = Field(
        default=[], max_length=100
    )
    """Conditions on the parameters that every simulation has to meet, such as `a + b <= 1`."""
    feasible_points: str | None = None
    """File of points (.csv with the names in its first line, .npy, .npz) whose law is the prior, for correlated inputs
    or a region that no condition describes; the parameters' distributions then only give the ranges."""
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
    server: ServerSection = ServerSection()
    """The training server: ranks, device, network."""
    launcher: LauncherSection = LauncherSection()
    """How the jobs of server and simulations are started."""
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
        # Imported here because the module imports this class.
        from melissa_gen.study.study_file import load_study

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
        fields = self.simulation.fields.values()
        return sum(math.prod(f.shape) * int(f.dtype[-2:]) // 8 for f in fields)

    @property
    def credit(self) -> int:
        """Samples that one client rank may have in flight to one server rank."""
        return self.server.credit or default_credit(self.sample_bytes)

    @property
    def over_tcp(self) -> bool:
        """Whether server and clients communicate by TCP instead of local sockets."""
        transport = self.server.transport
        return transport == "tcp" or (transport == "auto" and self.launcher.backend != "local")

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
    def _domain(self) -> Self:
        shapes = {len(field.shape) for field in self.simulation.fields.values()}
        axes = self.simulation.domain
        if axes and (shapes != {len(axes)} or list(axes) != ["x", "y", "z"][: len(axes)]):
            msg = (
                f"simulation.domain has the axes {', '.join(axes)}; legal are x, y, z in this order, "
                "one for each dimension of every field's shape"
            )
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _possible(self) -> Self:
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
        produced = self.simulation.count * self.simulation.time_steps
        if self.server.ranks * reservoir.watermark > produced:
            msg = (
                f"reservoir.watermark {reservoir.watermark} is never reached: {self.server.ranks} server ranks "
                f"share the {produced} samples that simulation.count * simulation.time_steps gives; "
                f"at most {produced // self.server.ranks} is legal"
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


def _dotted(key: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Yields the values of nested sections with their dotted keys."""
    if isinstance(value, Mapping) and value:
        for name, inner in value.items():
            yield from _dotted(f"{key}.{name}", inner)
    else:
        yield key, value


def _clash(key: str, value: int, limit_key: str, limit: int) -> ValueError:
    return ValueError(f"{key} {value} is above {limit_key} {limit}; at most {limit} is legal")
