"""Adapter for PBS and LSF, which uses the script templates, commands and parsers of PSI/J.

PSI/J's polling thread is not used. It reports all jobs as failed after three failed queries in a row, reports a job
as completed if a query result omits it, and waits for commands without a timeout. The thread of the batch back end
queries the scheduler instead and tolerates a scheduler that does not respond for a while.

PSI/J's launchers are not used either. The ranks are started by `mpirun`, which detects the nodes of the job.

The adapter also supports SLURM, as `launcher.backend: psij_slurm`. This exists only to test the adapter against a
real scheduler; for studies on SLURM, use `slurm`.
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
    SubmitError,
    check_settings,
    is_plain,
    preamble,
)
from melissa_gen.study import JobsSection

if TYPE_CHECKING:
    import psij
    from psij.executors.batch.batch_scheduler_executor import BatchSchedulerExecutor

__all__ = ["Psij"]

Executor = Literal["pbs", "lsf", "slurm"]
_COMMAND_PLACEHOLDER = "@job@"
_UNREACHABLE = re.compile(
    r"can(no|')t connect|unable to contact|connection refused|not responding|LSF is down", re.I
)
_LIMIT = re.compile(r"limit|quota|exceed|too many", re.I)
_COMMON_SETTINGS = {
    *("partition", "account", "reservation", "time", "nodes", "tasks_per_node", "modules"),
    *("prologue", "container", "python", "launcher_arguments", "directives"),
}
_RESOURCE_SETTINGS = {"memory", "exclusive", "cpus_per_task", "gpus_per_task"}


class _Dialect(NamedTuple):
    """Differences between schedulers that PSI/J does not cover.

    Attributes:
        directive: Start of a line with an option in a job script.
        name_option: Option that sets the name of the job.
        clock: Unit in which the time limit ends.
        legal: Settings that PSI/J's template supports, in addition to the common ones.
        unknown: Exit statuses of the query command that only mean that some jobs are no longer known.
    """

    directive: str
    name_option: str
    clock: Literal["seconds", "minutes"]
    legal: set[str]
    unknown: tuple[int, ...] = ()


_DIALECTS: dict[Executor, _Dialect] = {
    "pbs": _Dialect("#PBS", "-N ", "seconds", _RESOURCE_SETTINGS, unknown=(35, 153)),
    "lsf": _Dialect("#BSUB", "-J ", "minutes", {"gpus_per_task"}, unknown=(255,)),
    "slurm": _Dialect("#SBATCH", "--job-name=", "seconds", _RESOURCE_SETTINGS),
}
_MPIRUN: dict[MpiImplementation, list[str]] = {
    "hydra": [],
    "openmpi": ["--bind-to", "none"],
    "other": [],
}


class Psij:
    """Adapter for a scheduler that PSI/J supports.

    Args:
        executor: Name of PSI/J's executor; "slurm" only for tests of this adapter.
        mpirun: Path of `mpirun` on the nodes.
        implementation: The MPI implementation that it belongs to.
        folder: Folder for the exit statuses that the job scripts write, on a file system that all nodes share.

    Raises:
        RunError: PSI/J is not installed, or does not support the path of the folder.
    """

    def __init__(
        self, executor: Executor, mpirun: str, implementation: MpiImplementation, folder: Path
    ) -> None:
        if not is_plain(folder):
            msg = f"PSI/J does not support the path '{folder}'; choose a run directory without blanks and quotes"
            raise RunError(msg)
        self.name: str = executor
        self._mpirun, self._implementation, self._folder = mpirun, implementation, folder
        self._dialect = _DIALECTS[executor]
        self._executor = _create_executor(executor)

    def script(self, job: JobSpec) -> str:
        """Renders PSI/J's template, and replaces the command of PSI/J's launcher by `mpirun`.

        Raises:
            StudyError: The job requests something that PSI/J does not support for this scheduler.
        """
        import psij

        settings, dialect = job.settings, self._dialect
        check_settings(self.name, settings, _COMMON_SETTINGS | dialect.legal)
        attributes = psij.JobAttributes(
            queue_name=settings.partition,
            account=settings.account,
            reservation_id=settings.reservation,
        )
        resources = _resources(job)
        spec = psij.JobSpec(
            executable=_COMMAND_PLACEHOLDER, resources=resources, attributes=attributes
        )
        context: dict[str, object] = {
            "job": psij.Job(spec),
            "psij": {"launch_command": [_COMMAND_PLACEHOLDER], "script_dir": str(self._folder)},
        }
        if settings.time is not None:
            context["formatted_job_duration"] = _format_duration(settings.time, dialect.clock)
        text = io.StringIO()
        self._executor.generate_submit_script(psij.Job(spec), context, text)
        own = [dialect.name_option + job.title, *(settings.directives or ())]
        top = ["#!/bin/bash -l" if settings.modules else "#!/bin/bash"]
        top += [f"{dialect.directive} {line}" for line in own]
        _, *rest = (line for line in text.getvalue().splitlines() if line.strip())
        script = "\n".join([*top, *rest]) + "\n"
        if self.name == "pbs":
            script = _with_chunks(script, settings, resources.computed_processes_per_node)
        return script.replace(f"{_COMMAND_PLACEHOLDER} ", self._command_lines(job))

    def _command_lines(self, job: JobSpec) -> str:
        words = [
            *(self._mpirun, *_MPIRUN[self._implementation], "-n", str(job.processes)),
            *(job.settings.launcher_arguments or ()),
            *(job.settings.container or ()),
            *job.command,
        ]
        lines = [*preamble(job.settings, job.environment), f"cd {shlex.quote(str(job.folder))}"]
        lines.append("exec " + shlex.join(words))
        return "\n".join(["(", *lines, f") >> {job.log} 2>&1 < /dev/null"])

    def submit_command(self, script: Path, job: JobSpec) -> list[str]:
        """Renders the `qsub`, `bsub` or `sbatch` command."""
        if self.name == "lsf":
            # Given a file name, bsub reads #BSUB lines only if lsf.conf enables it.
            return ["sh", "-c", f"bsub < {shlex.quote(str(script))}"]
        import psij

        return self._executor.get_submit_command(psij.Job(), script)

    def job_id(self, output: str) -> str:
        """Parses the job's id."""
        try:
            return self._executor.job_id_from_submit_output(output)
        except Exception:
            raise ValueError(output) from None

    def classify_submit_error(self, message: str) -> SubmitError:
        """Classifies the error message of a command.

        A submission that timed out is `rejected`: it may have been accepted, so it must not be repeated.
        """
        if _UNREACHABLE.search(message):
            return "unreachable"
        return "limit" if _LIMIT.search(message) else "rejected"

    def query_command(self, ids: Iterable[str]) -> list[str]:
        """Renders the query command for all jobs, which also succeeds if some of the jobs are no longer known."""
        command = self._executor.get_status_command(list(ids))
        unknown = "".join(f" || [ $s = {code} ]" for code in self._dialect.unknown)
        if not unknown:
            return command
        return ["sh", "-c", f'"$@"; s=$?; [ $s = 0 ]{unknown} || exit $s', "sh", *command]

    def parse(self, output: str) -> dict[str, JobStatus]:
        """Parses the output, and reads the exit statuses that the job scripts have written."""
        try:
            found = self._executor.parse_status_output(0, _repaired_output(self.name, output))
        except Exception as error:
            msg = f"PSI/J can't parse the output of the query: {type(error).__name__}: {error}"
            raise ValueError(msg) from None
        return {number: self._job_status(number, status) for number, status in found.items()}

    def history_command(self, job_id: str) -> list[str] | None:
        """Renders the command that prints the exit status that the job script has written."""
        return ["cat", str(self._folder / f"{job_id}.ec")]

    def parse_history(self, output: str) -> JobStatus | None:
        """Parses the exit status; None if the script has written none."""
        word = output.strip()
        return JobStatus("", "ended", int(word)) if word.isdigit() else None

    def cancel_command(self, ids: Iterable[str], *, kill: bool) -> list[str]:
        """Renders the `qdel`, `bkill` or `scancel` command, which sends SIGTERM, and later SIGKILL."""
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
            text = (self._folder / f"{number}.ec").read_text(encoding="utf-8")
        except OSError:
            text = ""
        if (written := self.parse_history(text)) is not None:
            return written
        if status.state == psij.JobState.COMPLETED:
            return JobStatus("", "ended")
        canceled = status.state == psij.JobState.CANCELED
        return JobStatus("", "ended", 1, "it was canceled" if canceled else message or "it failed")


def _create_executor(executor: Executor) -> "BatchSchedulerExecutor":
    """Creates PSI/J's executor; its polling thread stays idle because no job is submitted through it."""
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
            f"{job.log.stem}: {job.processes} ranks do not match launcher.*jobs.nodes and tasks_per_node; "
            f"PSI/J requires the same number of ranks on each node: {error.message}"
        )
        raise StudyError(msg) from None


def _with_chunks(script: str, settings: JobsSection, ranks: int) -> str:
    """Sets the number of CPUs and GPUs of each chunk, which are the resources on one node.

    PSI/J's template for PBS requests one CPU and no GPU per rank.

    Args:
        script: The script from PSI/J's template.
        settings: Requested resources.
        ranks: Number of ranks per node.
    """
    default = f":ncpus={ranks}:mpiprocs={ranks}"
    chunk = f":ncpus={ranks * (settings.cpus_per_task or 1)}:mpiprocs={ranks}"
    gpus = settings.gpus_per_task
    return script.replace(default, chunk + (f":ngpus={ranks * gpus}" if gpus else ""), 1)


def _format_duration(seconds: float, unit: Literal["seconds", "minutes"]) -> str:
    whole = timedelta(seconds=seconds) // timedelta(seconds=1)
    if unit == "minutes":
        minutes = -(-whole // 60)
        return f"{minutes // 60}:{minutes % 60:02}"
    return f"{whole // 3600}:{whole // 60 % 60:02}:{whole % 60:02}"


def _repaired_output(name: str, output: str) -> str:
    """Changes the output of a query where PSI/J's parser would fail.

    PBS omits the list of jobs if it is empty, LSF may omit the reason of a job that has ended, and SLURM may report
    reasons that PSI/J does not know.
    """
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
