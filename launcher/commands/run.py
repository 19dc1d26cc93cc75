"""`melissa-gen run`: checks, starts and watches a study to its end."""

import shutil
import time
from pathlib import Path

from rich.text import Text

from melissa_gen.builders.memory import check_memory, promised_megabytes
from melissa_gen.builders.sampler import check_sampler
from melissa_gen.launcher.backends.selection import check_backend
from melissa_gen.launcher.commands.generate import validation_set
from melissa_gen.launcher.jobs.execution import ResumeInfo, RunOutcome, can_resume, execute
from melissa_gen.launcher.jobs.mpi_jobs import solver_command
from melissa_gen.report.key_figures import key_figures
from melissa_gen.report.views import RunView
from melissa_gen.run_dir.folder import held_run_dir, record_run
from melissa_gen.study import Study

__all__ = ["present", "run_study"]


def run_study(study: Study, run_dir: Path, view: RunView) -> RunOutcome:
    """Runs a study.

    Args:
        study: The study.
        run_dir: Where everything about the run is written; must not hold one.
        view: Shows the run.

    Returns:
        How it ended.

    Raises:
        MelissaGenError: It could not be started.
    """
    started = time.monotonic()
    check_sampler(study)
    check_memory(study)
    solver_command(study)
    check_backend(study)
    with held_run_dir(run_dir) as run_dir:
        view.say(f"run directory {run_dir}")
        promised = promised_megabytes(study)
        view.say(
            f"memory: at most {promised:,.0f} MB in each of {study.server.ranks} server rank(s)"
        )
        if study.training.validation.simulations > 0:
            _link(validation_set(study, run_dir.parent / "validation", view), run_dir)
        record_run(study, run_dir)
        outcome = execute(study, run_dir, view, ResumeInfo(started))
        present(outcome, study, run_dir, view)
        return outcome


def present(outcome: RunOutcome, study: Study, run_dir: Path, view: RunView) -> None:
    """Writes the report of a training run, and prints its key figures and why it did not finish."""
    _report(run_dir, view)
    for name, figures in key_figures(outcome.summary):
        view.say(f"{name:<12} {figures}")
    if outcome.summary["status"] != "finished" and can_resume(run_dir):
        view.say(f"to go on     melissa-gen resume {run_dir}")
    if outcome.sentence:
        view.say(Text.assemble((f"{study.name}: ", "red"), outcome.sentence))


def _link(source: Path, run_dir: Path) -> None:
    """Puts the validation set into the run directory, without a copy where the disk is the same."""
    target = run_dir / "validation.h5"
    target.unlink(missing_ok=True)
    try:
        target.hardlink_to(source)
    except OSError:
        shutil.copyfile(source, target)


def _report(run_dir: Path, view: RunView) -> None:
    """Writes the report; a report that fails does not change how the study ended."""
    try:
        from melissa_gen.report.html import write_report

        path = write_report(run_dir)
    except Exception as error:
        view.say(f"no report: {type(error).__name__}: {error}")
    else:
        view.say(f"report       {path}")
