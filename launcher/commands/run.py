"""The command `melissa-gen run`, which checks a study and runs it until it ends."""

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from rich.text import Text

from melissa_gen.builders.gpu import check_device
from melissa_gen.builders.memory import check_memory, disk_promise
from melissa_gen.builders.mesh import read_mesh
from melissa_gen.builders.sampler import check_sampler
from melissa_gen.errors import StudyError
from melissa_gen.launcher.backends.selection import check_backend
from melissa_gen.launcher.commands.generate import check_output
from melissa_gen.launcher.commands.validation_sets import check_sets, make_sets
from melissa_gen.launcher.jobs.execution import ResumeInfo, RunOutcome, can_resume, execute
from melissa_gen.launcher.jobs.mpi_jobs import solver_command
from melissa_gen.launcher.jobs.prometheus_process import written_for_prometheus
from melissa_gen.launcher.jobs.report_writer import living_report
from melissa_gen.launcher.jobs.tracker_processes import followed_by_trackers
from melissa_gen.report.key_figures import key_figures
from melissa_gen.report.trackers.packages import check_trackers
from melissa_gen.report.views import RunView
from melissa_gen.run_dir.folder import (
    create_default_run_dir,
    end_wait_for_sets,
    held_run_dir,
    read_purpose,
    record_run,
    withdraw_run,
)
from melissa_gen.run_dir.purpose import Purpose
from melissa_gen.study import Study

__all__ = ["execute_and_present", "run_study"]


def run_study(study: Study, run_dir: Path | None, view: RunView) -> RunOutcome:
    """Runs a study.

    Args:
        study: The study.
        run_dir: The run directory; it must not contain a run. None: a new directory `runs/NAME-DATE`.
        view: Displays the progress of the run.

    Returns:
        The outcome of the run.

    Raises:
        MelissaGenError: The run could not be started.
    """
    started = time.monotonic()
    check_sampler(study)
    check_device(study)
    check_memory(study)
    read_mesh(study)
    check_sets(study)
    solver_command(study)
    check_trackers(study.report.trackers)
    check_backend(study)
    if study.report.surrogate_indices:
        from melissa_gen.builders.surrogate_indices import check_surrogate_indices

        check_surrogate_indices(study)
    trains, early = study.training.enabled, _tries_early(study)
    if trains and early:
        _try_network(study)
    with _new_run_dir(study, run_dir) as run_dir:
        view.say(f"run directory {run_dir}")
        check_record(study, run_dir)
        if study.reservoir.checkpoint and study.training.enabled:
            view.say(disk_promise(study, run_dir))
        solved = trains and study.training.validation.measures
        if solved and early:
            make_sets(study, run_dir, view)
        beside = solved and not early
        record_run(study, run_dir, Purpose(untried=trains and not early, awaits_sets=beside))

        def prepare(check: Callable[[], None]) -> None:
            make_sets(study, run_dir, view, check)
            end_wait_for_sets(run_dir)

        info = ResumeInfo(started)
        return execute_and_present(study, run_dir, view, info, prepare if beside else None)


def _tries_early(study: Study) -> bool:
    """Whether this process tries the network before it creates the run directory, and not the server as it starts."""
    # No queue, and no tracker, should see a study whose network can't be trained.
    queued = study.launcher.backend != "local"
    tracked = bool(set(study.report.trackers) - {"tensorboard"})
    # The traceback of a mistake is one of this process then.
    debugged = "MELISSA_GEN_DEBUG" in os.environ
    # A machine with a GPU, for example. Nothing is saved then, and the trial may take longer than a server's start.
    return queued or tracked or debugged or "torch" in sys.modules


def _try_network(study: Study) -> None:
    """Tries the network of a study.

    Raises:
        StudyError: It can't be built or trained.
    """
    # Importing torch takes seconds.
    from melissa_gen.builders.surrogate import try_surrogate

    try_surrogate(study)


@contextlib.contextmanager
def _new_run_dir(study: Study, run_dir: Path | None) -> Iterator[Path]:
    """Holds the directory of a new run, see `held_run_dir`; withdraws a run that can't begin."""
    new = run_dir is None or not run_dir.exists()
    with held_run_dir(run_dir or create_default_run_dir(study.name, Path.cwd())) as held:
        try:
            yield held
        except StudyError:
            # Still locked: another run that is started in the directory now must not lose its files.
            withdraw_run(held, new=new)
            raise
        except BaseException:
            if (held / "run.json").exists() and read_purpose(held).awaits_sets:
                withdraw_run(held, new=False)
            raise


def execute_and_present(
    study: Study,
    run_dir: Path,
    view: RunView,
    info: ResumeInfo,
    prepare: Callable[[Callable[[], None]], None] | None = None,
) -> RunOutcome:
    """Runs the jobs of a prepared run directory until the study ends, with a report while it runs and at its end.

    See `execute`.
    """
    with followed_by_trackers(study.report.trackers, run_dir, view.say):
        outcome = _execute_with_report(study, run_dir, view, info, prepare)
        if study.report.surrogate_indices and outcome.summary["status"] == "finished":
            _compute_indices(study, run_dir, view)
        _present(outcome, study, run_dir, view)
    return outcome


def _execute_with_report(
    study: Study,
    run_dir: Path,
    view: RunView,
    info: ResumeInfo,
    prepare: Callable[[Callable[[], None]], None] | None,
) -> RunOutcome:
    """Runs the jobs of a prepared run directory until the study ends, with a report while it runs."""
    with contextlib.ExitStack() as stack:
        if (file := study.report.prometheus) is not None:
            stack.enter_context(written_for_prometheus(run_dir / file, study.name, run_dir))
        if study.launcher.report:
            stack.enter_context(living_report(run_dir))
        return execute(study, run_dir, view, info, prepare=prepare)


def check_record(study: Study, run_dir: Path) -> None:
    """Checks that the file in which a study is recorded can be written, and that its disk has room.

    Raises:
        RunError: It can't be written.
    """
    if study.record is None:
        return
    fields = study.simulation.fields if study.record.fields is None else study.record.fields
    share = sum(study.field_bytes(name) for name in fields)
    size = study.simulation.count * study.simulation.time_steps * share
    check_output(run_dir / study.record.file, size, what="record.file")


def _present(outcome: RunOutcome, study: Study, run_dir: Path, view: RunView) -> None:
    """Writes the report of a training run, and prints its key figures and the reason if it did not finish."""
    if study.launcher.report:
        _write_report(run_dir, view)
    for name, figures in key_figures(outcome.summary):
        view.say(f"{name:<12} {figures}")
    if outcome.summary["status"] != "finished" and can_resume(run_dir):
        view.say(f"to resume    melissa-gen resume {run_dir}")
    if outcome.sentence:
        view.say(Text.assemble((f"{study.name}: ", "red"), outcome.sentence))


def _compute_indices(study: Study, run_dir: Path, view: RunView) -> None:
    """Computes the Sobol indices of the surrogate; an error here is only printed."""
    # Imported here because importing torch takes seconds.
    from melissa_gen.builders.surrogate_indices import write_surrogate_indices

    view.say("Sobol indices of the surrogate ...")
    try:
        write_surrogate_indices(study, run_dir)
    except Exception as error:
        view.say(f"could not compute the Sobol indices of the surrogate: {error}")


def _write_report(run_dir: Path, view: RunView) -> None:
    """Writes the report; an error here is only printed and does not change the outcome of the run."""
    try:
        from melissa_gen.report.html import write_report

        path = write_report(run_dir)
    except Exception as error:
        view.say(f"could not write the report: {type(error).__name__}: {error}")
    else:
        view.say(f"report       {path}")
