"""PBS and LSF as PSI/J speaks to them: its scripts, its commands, its reading of their answers.

What PSI/J's executors know of a scheduler is used, not their thread: that gives up every job as failed when three
questions in a row are not answered, takes a job that an answer leaves out for completed, and waits for a command
without end. The batch back end's own thread asks instead, and outlives a scheduler that is silent for a while.

Nothing of PSI/J's launchers is used either. The ranks are started by `mpirun`, which finds the job's nodes by itself.
"""

import io
import json
import re
import shlex
from collections.abc import Iterable
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from melissa_gen.errors import RunError, StudyError
from melissa_gen.launcher.backends.mpirun import MpiImplementation
from melissa_gen.launcher.backends.schedulers.base import (
    JobSpec,
    JobStatus,
    preamble,
    refuse_settings,
)
from melissa_gen.study import JobsSection

if TYPE_CHECKING:
    import psij
    from psij.executors.batch.batch_scheduler_executor import BatchSchedulerExecutor

__all__ = ["Psij"]

Executor = Literal["pbs", "lsf", "slurm"]
_WORLD = "@job@"
_SILENT = re.compile(
    r"can(no|')t connect|unable to contact|connection refused|not responding|LSF is down", re.I
)
_LIMIT = re.compile(r"limit|quota|exceed|too many", re.I)
_EVERYWHERE = {
    *("partition", "account", "reservation", "time", "nodes", "tasks_per_node", "modules"),
    *("prologue", "container", "python", "launcher_arguments", "directives"),
}
_CHUNKS = {"memory", "exclusive", "cpus_per_task", "gpus_per_task"}


class _Dialect(NamedTuple):
    """What differs between schedulers beyond what PSI/J knows of them."""

    directive: str
    name_option: str
    clock: Literal["seconds", "minutes"]
    legal: set[str]
    """Settings that its template writes, beside those that all of them write."""
    unknown: tuple[int, ...] = ()
    """Exit statuses of its query that only mean that some of the jobs are gone."""


_DIALECTS: dict[Executor, _Dialect] = {
    "pbs": _Dialect("#PBS", "-N ", "seconds", _CHUNKS, unknown=(35, 153)),
    "lsf": _Dialect("#BSUB", "-J ", "minutes", {"gpus_per_task"}, unknown=(255,)),
    "slurm": _Dialect("#SBATCH", "--job-name=", "seconds", _CHUNKS),
}
_MPIRUN: dict[MpiImplementation, list[str]] = {
    "hydra": [],
    "openmpi": ["--bind-to", "none"],
    "other": [],
}


class Psij:
    """The language of a scheduler that PSI/J has an executor for.

    Args:
        executor: PSI/J's name of it.
        mpirun: Path of the launcher on the nodes.
        implementation: Whose it is.
        folder: Where a job's script leaves its exit status, on a disk that all nodes share.

    Raises:
        RunError: PSI/J is not installed, or can't write into such a folder.
    """

    def __init__(
        self, executor: Executor, mpirun: str, implementation: MpiImplementation, folder: Path
    ) -> None:
        if shlex.quote(str(folder)) != str(folder):
            msg = f"PSI/J can't write into '{folder}'; choose a run directory without blanks and quotes"
            raise RunError(msg)
        self.name: str = executor
        self._mpirun, self._flavour, self._folder = mpirun, implementation, folder
        self._dialect = _DIALECTS[executor]
        self._executor = _load(executor)

    def script(self, job: JobSpec) -> str:
        """Renders PSI/J's template, with our lines in the place of its launcher's.

        Raises:
            StudyError: The job asks for what PSI/J can't tell this scheduler.
        """
        import psij

        settings, dialect = job.settings, self._dialect
        refuse_settings(self.name, settings, _EVERYWHERE | dialect.legal)
        attributes = psij.JobAttributes(
            queue_name=settings.partition,
            account=settings.account,
            reservation_id=settings.reservation,
        )
        resources = _resources(job)
        spec = psij.JobSpec(executable=_WORLD, resources=resources, attributes=attributes)
        context: dict[str, object] = {
            "job": psij.Job(spec),
            "psij": {"launch_command": [_WORLD], "script_dir": str(self._folder)},
        }
        if settings.time is not None:
            context["formatted_job_duration"] = _clock(settings.time, dialect.clock)
        text = io.StringIO()
        self._executor.generate_submit_script(psij.Job(spec), context, text)
        own = [dialect.name_option + job.title, *(settings.directives or ())]
        top = ["#!/bin/bash -l" if settings.modules else "#!/bin/bash"]
        top += [f"{dialect.directive} {line}" for line in own]
        _, *rest = (line for line in text.getvalue().splitlines() if line.strip())
        script = "\n".join([*top, *rest]) + "\n"
        if self.name == "pbs":
            script = _with_chunks(script, settings, resources.computed_processes_per_node)
        return script.replace(f"{_WORLD} ", self._world(job))

    def _world(self, job: JobSpec) -> str:
        words = [
            *(self._mpirun, *_MPIRUN[self._flavour], "-n", str(job.processes)),
            *(job.settings.launcher_arguments or ()),
            *(job.settings.container or ()),
            *job.command,
        ]
        lines = [*preamble(job.settings, job.environment), f"cd {shlex.quote(str(job.folder))}"]
        lines.append("exec " + shlex.join(words))
        return "\n".join(["(", *lines, f") >> {job.log} 2>&1 < /dev/null"])

    def submit_command(self, script: Path, job: JobSpec) -> list[str]:
        """Renders `qsub`, `bsub` or `sbatch`."""
        if self.name == "lsf":  # from a file it reads #BSUB lines only where lsf.conf says so
            return ["sh", "-c", f"bsub < {shlex.quote(str(script))}"]
        import psij

        return self._executor.get_submit_command(psij.Job(), script)

    def job_id(self, output: str) -> str:
        """Reads a job's id."""
        try:
            return self._executor.job_id_from_submit_output(output)
        except Exception:
            raise ValueError(output) from None

    def classify_submit_error(self, message: str) -> Literal["no", "silent", "limit"]:
        """Judges the words of a refusal; a submission that timed out may have been taken, and is not made again."""
        if _SILENT.search(message):
            return "silent"
        return "limit" if _LIMIT.search(message) else "no"

    def query_command(self, ids: Iterable[str]) -> list[str]:
        """Renders the one command for all jobs; that some of them are gone is no failure."""
        command = self._executor.get_status_command(list(ids))
        unknown = "".join(f" || [ $s = {code} ]" for code in self._dialect.unknown)
        if not unknown:
            return command
        return ["sh", "-c", f'"$@"; s=$?; [ $s = 0 ]{unknown} || exit $s', "sh", *command]

    def parse(self, output: str) -> dict[str, JobStatus]:
        """Reads the answer, with the exit statuses that the jobs' scripts have left."""
        try:
            found = self._executor.parse_status_output(0, _mended(self.name, output))
        except Exception as error:
            msg = f"PSI/J can't read its answer: {type(error).__name__}: {error}"
            raise ValueError(msg) from None
        return {number: self._job_status(number, status) for number, status in found.items()}

    def history_command(self, job_id: str) -> list[str] | None:
        """Renders the command that prints the exit status which a job's script has left."""
        return ["cat", str(self._folder / f"{job_id}.ec")]

    def parse_history(self, output: str) -> JobStatus | None:
        """Reads it."""
        word = output.strip()
        return JobStatus("", "ended", int(word)) if word.isdigit() else None

    def cancel_command(self, ids: Iterable[str], *, kill: bool) -> list[str]:
        """Renders `qdel`, `bkill` or `scancel`: SIGTERM, and SIGKILL when the scheduler finds it is time."""
        first, *others = ids
        return [*self._executor.get_cancel_command(first), *others]

    def _job_status(self, number: str, status: "psij.JobStatus") -> JobStatus:
        import psij

        message = (status.message or "").strip()
        if not status.final:
            if status.state == psij.JobState.ACTIVE:
                return JobStatus("", "running")
            return JobStatus("", "queued", why=message)
        try:
            left = (self._folder / f"{number}.ec").read_text(encoding="utf-8")
        except OSError:
            left = ""
        if (own := self.parse_history(left)) is not None:
            return own
        if status.state == psij.JobState.COMPLETED:
            return JobStatus("", "ended")
        canceled = status.state == psij.JobState.CANCELED
        return JobStatus("", "ended", 1, "it was cancelled" if canceled else message or "it failed")


def _load(executor: Executor) -> "BatchSchedulerExecutor":
    """Makes PSI/J's executor; its thread finds nothing to do, since nothing is submitted through it."""
    try:
        import psij
        from psij.executors.batch.batch_scheduler_executor import BatchSchedulerExecutor
    except ImportError:
        msg = f"launcher.backend {executor} needs PSI/J; install it with: pip install 'melissa-gen[psij]'"
        raise RunError(msg) from None
    found = psij.JobExecutor.get_instance(executor)
    assert isinstance(found, BatchSchedulerExecutor)
    return found


def _resources(job: JobSpec) -> "psij.ResourceSpecV1":
    import psij

    settings = job.settings
    try:
        return psij.ResourceSpecV1(
            node_count=settings.nodes,
            process_count=job.processes,
            processes_per_node=settings.tasks_per_node,
            cpu_cores_per_process=settings.cpus_per_task,
            gpu_cores_per_process=settings.gpus_per_task,
            exclusive_node_use=bool(settings.exclusive),
            memory=settings.memory,
        )
    except psij.InvalidJobException as error:
        msg = (
            f"{job.log.stem}: {job.processes} ranks do not fit launcher.*jobs.nodes and tasks_per_node, "
            f"as PSI/J wants the same number on each node: {error.message}"
        )
        raise StudyError(msg) from None


def _with_chunks(script: str, settings: JobsSection, ranks: int) -> str:
    """PSI/J's template for PBS gives a rank one CPU and no GPU; a chunk is what its ranks on one node get."""
    each = f":ncpus={ranks}:mpiprocs={ranks}"
    mine = f":ncpus={ranks * (settings.cpus_per_task or 1)}:mpiprocs={ranks}"
    gpus = settings.gpus_per_task
    return script.replace(each, mine + (f":ngpus={ranks * gpus}" if gpus else ""), 1)


def _clock(seconds: float, unit: Literal["seconds", "minutes"]) -> str:
    whole = timedelta(seconds=seconds) // timedelta(seconds=1)
    if unit == "minutes":
        minutes = -(-whole // 60)
        return f"{minutes // 60}:{minutes % 60:02}"
    return f"{whole // 3600}:{whole // 60 % 60:02}:{whole % 60:02}"


def _mended(name: str, output: str) -> str:
    """Mends an answer where PSI/J stumbles: PBS knows no job, LSF has ended one, SLURM has a reason new to PSI/J."""
    if name == "pbs":
        return json.dumps({"Jobs": {}} | json.loads(output or "{}"))
    if name == "slurm":
        lines = (line.split()[:3] for line in output.splitlines())
        known = ("TimeLimit", "NodeDown")
        words = ((*line[:2], line[2] if line[2] in known else "NonZeroExitCode") for line in lines)
        return "\n".join(" ".join(line) for line in words)
    answer = json.loads(output)
    for record in answer["RECORDS"]:
        reasons = (record.get(f"{kind}_REASON") for kind in ("EXIT", "KILL", "SUSPEND"))
        record["reason"] = next(filter(None, reasons), "")
    return json.dumps(answer)
