"""OAR, the scheduler of Grid'5000: scripts, commands and answers as pure functions.

OAR gives out cores and starts one process, on the first node; the ranks are started from there by `mpirun`, which
reaches the other nodes by `oarsh`.
"""

import getpass
import json
import re
import shlex
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

from melissa_gen.launcher.backends.mpirun import MpiImplementation
from melissa_gen.launcher.backends.schedulers.base import (
    JobSpec,
    JobStatus,
    preamble,
    refuse_settings,
)

__all__ = ["Oar"]

_LEGAL = {
    *("partition", "account", "constraint", "reservation", "time", "nodes", "cpus_per_task"),
    *("modules", "prologue", "container", "python", "launcher_arguments", "directives"),
}
_WAITS = {"waiting", "hold", "toackreservation", "tolaunch", "launching"}
_RUNS = {"running", "suspended", "resuming", "finishing", "toerror"}
_SILENT = re.compile(r"can't connect|cannot connect|connection refused|timed? ?out|try again", re.I)
_MPIRUN: dict[MpiImplementation, list[str]] = {
    "hydra": ["-launcher", "ssh", "-launcher-exec", "oarsh", "-f"],
    "openmpi": ["--mca", "plm_rsh_agent", "oarsh", "--bind-to", "none", "--machinefile"],
    "other": ["-machinefile"],
}


class Oar:
    """The language of OAR.

    Args:
        mpirun: Path of the launcher on the nodes.
        implementation: Whose it is.
    """

    name = "oar"

    def __init__(self, mpirun: str, implementation: MpiImplementation) -> None:
        self._mpirun, self._flavour = mpirun, implementation

    def script(self, job: JobSpec) -> str:
        """Renders the script; its options are in `#OAR` lines, which `oarsub -S` takes as they are: no shell quotes."""
        settings = job.settings
        refuse_settings(self.name, settings, _LEGAL)
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
        words = shlex.join([self._mpirun, *_MPIRUN[self._flavour]]) + ' "$OAR_NODEFILE" '
        ranks = ["-n", str(job.processes), *(settings.launcher_arguments or ())]
        lines.append(
            "exec " + words + shlex.join([*ranks, *(settings.container or ()), *job.command])
        )
        return "\n".join(lines) + "\n"

    def submit_command(self, script: Path, job: JobSpec) -> list[str]:
        """Renders `oarsub`."""
        return ["oarsub", "-S", str(script)]

    def job_id(self, output: str) -> str:
        """Reads the line OAR_JOB_ID=17."""
        found = re.search(r"OAR_JOB_ID=(\d+)", output)
        if found is None:
            raise ValueError(output)
        return found[1]

    def classify_submit_error(self, message: str) -> Literal["no", "silent", "limit"]:
        """Judges the words of a refusal."""
        if _SILENT.search(message):
            return "silent"
        return "limit" if re.search("quota|too many|limit", message, re.I) else "no"

    def query_command(self, ids: Iterable[str]) -> list[str]:
        """Renders one `oarstat` for these jobs, ended or not, and all others of this user that have not ended."""
        wanted = f"job_user = '{getpass.getuser()}' AND state NOT IN ('Terminated', 'Error')"
        if numbers := ", ".join(ids):
            wanted += f" OR job_id IN ({numbers})"
        return ["oarstat", "-f", "-J", "--sql", wanted]

    def parse(self, output: str) -> dict[str, JobStatus]:
        """Reads its JSON; where there is no such job it prints nothing."""
        answer = json.loads(output) if output.strip() else {}
        return {number: _job_status(job) for number, job in answer.items()}

    def history_command(self, job_id: str) -> list[str] | None:
        """OAR forgets no job: there is nothing else to ask."""
        return None

    def parse_history(self, output: str) -> JobStatus | None:
        """There is no such answer."""
        return None

    def cancel_command(self, ids: Iterable[str], *, kill: bool) -> list[str]:
        """Renders `oardel`, which sends SIGKILL in any case."""
        return ["oardel", *ids]


def _job_status(job: dict[str, Any]) -> JobStatus:
    title, state = str(job.get("name") or ""), str(job.get("state", "")).lower()
    message = str(job.get("message") or "")
    if state in _WAITS:
        return JobStatus(title, "queued", why=message)
    if state in _RUNS:
        left = _left(job)
        return JobStatus(title, "running", seconds_left=left)
    raw = str(job.get("exit_code"))
    if state == "terminated" and raw.isdigit():
        status = int(raw)
        return JobStatus(title, "ended", -(status & 127) if status & 127 else status >> 8)
    events = {str(event["type"]) for event in job.get("events") or ()}
    why = f"OAR calls it {state}"
    if "WALLTIME" in events:  # OAR asks itself to delete the job then
        why = "it reached its time limit"
    elif "FRAG_JOB_REQUEST" in events:
        why = "it was cancelled"
    return JobStatus(title, "ended", 1, why)


def _left(job: dict[str, Any]) -> float | None:
    """Seconds until the walltime; OAR gives the start as unix time, and the walltime in seconds."""
    try:
        start, limit = float(job["startTime"]), float(job["walltime"])
    except (KeyError, TypeError, ValueError):
        return None
    return start + limit - time.time() if start > 0 else None
