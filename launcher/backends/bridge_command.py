"""How the bridge is started in the place of a command that knows nothing of melissa_gen."""

from pathlib import Path

from melissa_gen.bridge import BridgeJob
from melissa_gen.study import Study

__all__ = ["bridge_command"]

JOB = "bridge.json"
SIMULATIONS = "simulations"


def bridge_command(
    study: Study, command: tuple[str, ...], python: str, folder: Path | None
) -> tuple[str, ...]:
    """Returns the bridge's command line, and writes its job file.

    Args:
        study: The study.
        command: Its command, resolved.
        python: The interpreter of the client's jobs.
        folder: Where the job file and the folders of the simulations go; None only checks that all is there.

    Raises:
        StudyError: An input or the reader is not there, or a template does not fit the parameters.
    """
    where = (folder or study.folder).absolute()
    job = BridgeJob.of(study, command, where / SIMULATIONS)
    if folder is not None and folder.is_dir():
        job.write(where / JOB)
    # -P: a file of the study's folder must not shadow a module that the bridge imports.
    return (python, "-P", "-m", "melissa_gen.bridge", str(where / JOB))
