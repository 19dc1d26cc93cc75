"""The section of how the jobs of server and simulations are started."""

from typing import Literal, Self

from pydantic import Field, model_validator

from melissa_gen.study.base_section import Section
from melissa_gen.study.jobs_section import JobsSection
from melissa_gen.units import Duration

__all__ = ["LauncherSection"]


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
    """Clients that run at the same time: MPI jobs of `simulation.processes` ranks that solve simulations."""
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
    """Whether `report.html` is written while the study runs and when it ends; `melissa-gen report` always writes it."""
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
