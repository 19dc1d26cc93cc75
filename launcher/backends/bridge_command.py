"""Renders the command of the bridge, which runs an unmodified solver and sends its output files to the server."""

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
        command: The solver's command with absolute paths.
        python: Python interpreter of the client jobs.
        folder: Folder for the job file and the folders of the simulations; None writes nothing and only checks that
            all inputs exist.

    Raises:
        StudyError: An input or the reader does not exist, or a template does not match the parameters.
    """
    target = (folder or study.folder).absolute()
    job = BridgeJob.of(study, command, target / SIMULATIONS)
    if folder is not None and folder.is_dir():
        job.write(target / JOB)
    # -P keeps files in the study's folder from shadowing modules that the bridge imports.
    return (python, "-P", "-m", "melissa_gen.bridge", str(target / JOB))
