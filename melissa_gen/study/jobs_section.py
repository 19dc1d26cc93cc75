"""What a study says about a batch scheduler: how jobs are placed, and for how long."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from melissa_gen.study.base_section import Section
from melissa_gen.units import Duration, Size

__all__ = ["JobsSection"]

Word = Annotated[str, Field(pattern=r"^[^\s'\"\\$`;&|<>]+$", max_length=200)]
Line = Annotated[str, Field(pattern=r"^[^\n\r]+$", max_length=1000)]
Count = Annotated[int, Field(gt=0, lt=2**31)]


class JobsSection(Section):
    """What a job requests from its scheduler, and what its script does before the program starts."""

    partition: Word | None = None
    """Partition, or queue."""
    account: Word | None = None
    """Account, or project, that is charged."""
    qos: Word | None = None
    """Quality of service."""
    constraint: Line | None = None
    """Features that its nodes must have (SLURM), or properties, in OAR's own words."""
    reservation: Word | None = None
    """Reservation to run in."""
    time: Duration | None = None
    """Time limit; none leaves it to the scheduler (seconds)."""
    nodes: Count | None = None
    """Nodes over which its tasks are spread; none leaves it to the scheduler."""
    tasks_per_node: Count | None = None
    """Tasks on each of its nodes; a task is an MPI rank."""
    cpus_per_task: Count | None = None
    """CPU cores of each task."""
    memory: Size | None = None
    """Memory on each of its nodes."""
    memory_per_cpu: Size | None = None
    """Memory for each CPU core that it has; excludes `memory`."""
    gpus_per_task: Count | None = None
    """GPUs of each task; a task sees only its own."""
    gres: Word | None = None
    """Generic resources on each of its nodes, such as `gpu:2`."""
    exclusive: bool | None = None
    """Whether it shares its nodes with no other job."""
    het_group: Annotated[int, Field(ge=0, lt=128)] | None = None
    """Allocation mode: the component of a heterogeneous allocation that it runs on."""
    modules: list[Word] | None = None
    """Modules to load, after `module purge`."""
    prologue: list[Line] | None = None
    """Lines of shell to run before the program, such as `source /opt/env.sh`."""
    container: list[Line] | None = None
    """Command that runs the program in a container, such as `[apptainer, exec, --nv, image.sif]`."""
    python: str | None = None
    """Python of the program; default: the one that the launcher runs on. In a container: `python3`."""
    mpi: Word | None = None
    """How `srun` starts MPI ranks: `pmi2` for MPICH (the default), `pmix` for Open MPI."""
    launcher_arguments: list[Word] | None = None
    """Further arguments of the command that starts the ranks (`srun`, or `mpirun`)."""
    directives: list[Line] | None = None
    """Further options for the scheduler, one on a line of its own, such as `--mail-type=END`."""

    @model_validator(mode="after")
    def _one_memory(self) -> Self:
        if self.memory is not None and self.memory_per_cpu is not None:
            msg = "memory and memory_per_cpu exclude each other; give one of them"
            raise ValueError(msg)
        return self

    def over(self, base: "JobsSection") -> "JobsSection":
        """Returns these settings, with those of `base` where nothing is set."""
        own = self.model_dump(exclude_none=True)
        if own.keys() & {"memory", "memory_per_cpu"}:
            base = base.model_copy(update={"memory": None, "memory_per_cpu": None})
        return base.model_copy(update=own)
