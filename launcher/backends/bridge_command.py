"""The command line that starts the bridge instead of the command of a study."""

from pathlib import Path

from melissa_gen.bridge import BridgeJob
from melissa_gen.study import Study

__all__ = ["bridge_command"]

JOB = "bridge.json"
SIMULATIONS = "simulations"


def bridge_command(
    study: Study, command: tuple[str, ...], python: str, folder: Path | None
) -> tuple[str, ...]:
    """Returns the command line of the bridge, and writes its job file.

    Args:
        study: The study.
        command: Its command, resolved.
        python: Path of the Python interpreter of the client jobs.
        folder: Folder for the job file and the folders of the simulations; None only checks the study.

    Raises:
        StudyError: An input or the reader does not exist, or a template does not fit the parameters.
    """
    where = (folder or study.folder).absolute()
    job = BridgeJob.of(study, command, where / SIMULATIONS)
    if folder is not None and folder.is_dir():
        job.write(where / JOB)
    # -P: a file in the folder of the study must not shadow a module that the bridge imports.
    return (python, "-P", "-m", "melissa_gen.bridge", str(where / JOB))
