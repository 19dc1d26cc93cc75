"""Adapter for OAR, the scheduler of Grid'5000.

OAR allocates cores and starts one process on the first node. That process starts the ranks with `mpirun`, which
connects to the other nodes with `oarsh`.
"""

import getpass
import json
import re
import shlex
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from melissa_gen.errors import RunError
from melissa_gen.launcher.backends.mpirun import MpiImplementation
from melissa_gen.launcher.backends.schedulers.base import (
    JobSpec,
    JobStatus,
    SubmitError,
    check_settings,
    is_plain,
    preamble,
)

__all__ = ["Oar"]

_SUPPORTED = {
    *("partition", "account", "constraint", "reservation", "time", "nodes", "cpus_per_task"),
    *("modules", "prologue", "container", "python", "launcher_arguments", "directives"),
}
_QUEUED_STATES = {"waiting", "hold", "toackreservation", "tolaunch", "launching"}
_RUNNING_STATES = {"running", "suspended", "resuming", "finishing", "toerror"}
_UNREACHABLE = re.compile(
    r"can't connect|cannot connect|connection refused|timed? ?out|try again", re.I
)
_MPIRUN: dict[MpiImplementation, list[str]] = {
    "hydra": ["-launcher", "ssh", "-launcher-exec", "oarsh", "-f"],
    "openmpi": ["--mca", "plm_rsh_agent", "oarsh", "--bind-to", "none", "--machinefile"],
    "other": ["-machinefile"],
}


class Oar:
    """Adapter for OAR.

    Args:
        mpirun: Path of `mpirun` on the nodes.
        implementation: The MPI implementation that it belongs to.
        folder: Folder for the scripts and logs.

    Raises:
        RunError: OAR does not support the path of the folder.
    """

    name = "oar"

    def __init__(self, mpirun: str, implementation: MpiImplementation, folder: Path) -> None:
        if not is_plain(folder):
            # The script is started by a shell, which splits its path.
            msg = f"OAR does not support the path '{folder}'; choose a run directory without blanks and quotes"
            raise RunError(msg)
        self._mpirun, self._implementation = mpirun, implementation

    def script(self, job: JobSpec) -> str:
        """Renders a job script with its options in `#OAR` lines.

        `oarsub -S` passes these lines on verbatim, so they must not contain shell quotes.

        Raises:
            StudyError: The job requests something that this back end does not support.
        """
        settings = job.settings
        check_settings(self.name, settings, _SUPPORTED)
        each = settings.cpus_per_task or 1
        cores = f"/core={each * job.processes}"
        if settings.nodes:
            cores = f"/host={settings.nodes}/core={-(-each * job.processes // settings.nodes)}"
        if settings.time is not None:
            whole = round(settings.time)
            cores += f",walltime={whole // 3600}:{whole // 60 % 60:02}:{whole % 60:02}"
        options = [f"-n {job.title}", f"-l {cores}", f"-O {job.log}", f"-E {job.log}"]
        named = {"-q": settings.partition, "--project": settings.account, "-p": settings.constraint}
        options += [f"{key} {value}" for key, value in named.items() if value]
        options += [f"-t inner={settings.reservation}"] if settings.reservation else []
        options += settings.directives or []
        lines = ["#!/bin/bash -l" if settings.modules else "#!/bin/bash"]
        lines += [f"#OAR {option}" for option in options]
        lines += [*preamble(settings, job.environment), f"cd {shlex.quote(str(job.folder))}"]
        words = shlex.join([self._mpirun, *_MPIRUN[self._implementation]]) + ' "$OAR_NODEFILE" '
        ranks = ["-n", str(job.processes), *(settings.launcher_arguments or ())]
        lines.append(
            "exec " + words + shlex.join([*ranks, *(settings.container or ()), *job.command])
        )
        return "\n".join(lines) + "\n"

    def submit_command(self, script: Path, job: JobSpec) -> list[str]:
        """Renders the `oarsub` command."""
        return ["oarsub", "-S", str(script)]

    def job_id(self, output: str) -> str:
        """Parses the id from a line such as OAR_JOB_ID=17."""
        found = re.search(r"OAR_JOB_ID=(\d+)", output)
        if found is None:
            raise ValueError(output)
        return found[1]

    def classify_submit_error(self, message: str) -> SubmitError:
        """Classifies the error message of a command."""
        if _UNREACHABLE.search(message):
            return "unreachable"
        return "limit" if re.search("quota|too many|limit", message, re.I) else "rejected"

    def query_command(self, ids: Iterable[str]) -> list[str]:
        """Renders the `oarstat` command for the given jobs and for all unfinished jobs of this user."""
        wanted = f"job_user = '{getpass.getuser()}' AND state NOT IN ('Terminated', 'Error')"
        if numbers := ", ".join(ids):
            wanted += f" OR job_id IN ({numbers})"
        return ["oarstat", "-f", "-J", "--sql", wanted]

    def parse(self, output: str) -> dict[str, JobStatus]:
        """Parses the JSON output of `oarstat`, which is empty if there are no jobs."""
        answer = json.loads(output) if output.strip() else {}
        return {number: _job_status(job) for number, job in answer.items()}

    def history_command(self, job_id: str) -> list[str] | None:
        """Returns None; `oarstat` also lists jobs that have ended."""
        return None

    def parse_history(self, output: str) -> JobStatus | None:
        """Returns None; there is no history command."""
        return None

    def cancel_command(self, ids: Iterable[str], *, kill: bool) -> list[str]:
        """Renders the `oardel` command, which always sends SIGKILL."""
        return ["oardel", *ids]


def _job_status(job: dict[str, Any]) -> JobStatus:
    title, state = str(job.get("name") or ""), str(job.get("state", "")).lower()
    message = str(job.get("message") or "")
    if state in _QUEUED_STATES:
        return JobStatus(title, "queued", why=message)
    if state in _RUNNING_STATES:
        left = _seconds_left(job)
        return JobStatus(title, "running", seconds_left=left)
    raw = str(job.get("exit_code"))
    if state == "terminated" and raw.isdigit():
        status = int(raw)
        return JobStatus(title, "ended", -(status & 127) if status & 127 else status >> 8)
    events = {str(event["type"]) for event in job.get("events") or ()}
    why = f"OAR reports the state {state}"
    # At the time limit OAR itself requests the deletion of the job, so this case comes first.
    if "WALLTIME" in events:
        why = "it reached its time limit"
    elif "FRAG_JOB_REQUEST" in events:
        why = "it was canceled"
    return JobStatus(title, "ended", 1, why)


def _seconds_left(job: dict[str, Any]) -> float | None:
    """Returns the seconds until the time limit; None if the job has not started.

    OAR reports the start in seconds since the epoch, and the time limit in seconds.
    """
    try:
        start, limit = float(job["startTime"]), float(job["walltime"])
    except (KeyError, TypeError, ValueError):
        return None
    return start + limit - time.time() if start > 0 else None
