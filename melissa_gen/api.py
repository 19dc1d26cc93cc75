"""The commands `run`, `resume` and `compare` as Python functions, for scripts and notebooks.

The launcher is imported only when one of these functions is called.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from melissa_gen.report.live import LiveView
from melissa_gen.report.steady_output import steady_output
from melissa_gen.runs import Run, RunFailedError
from melissa_gen.study import Study

if TYPE_CHECKING:
    from melissa_gen.launcher.jobs.execution import RunOutcome
    from melissa_gen.report.comparison import Comparison

__all__ = ["compare", "resume", "run"]


def run(
    study: Study | str | Path,
    run_dir: str | Path | None = None,
    *,
    overrides: Mapping[str, Any] | None = None,
    quiet: bool = False,
) -> Run:
    """Runs a study to its end: solvers, training and sampling. The same as `melissa-gen run`.

    In a terminal the live view of the command is shown. Elsewhere, for example in a notebook, a line is printed every
    ten seconds. An interrupt (Ctrl-C, or the stop button of the notebook) ends the run with a checkpoint and a report.

    Args:
        study: The study, or its file.
        run_dir: The run directory, to which all files of the run are written; must not contain a run. Default:
            `runs/NAME-DATE` in the current folder.
        overrides: If `study` is a file, values that replace those of the file, by dotted key.
        quiet: Print nothing.

    Returns:
        The finished run.

    Raises:
        StudyError: The study has a mistake.
        RunFailedError: The run was started and did not finish; the attribute `run` of the error is the run.
        KeyboardInterrupt: The run was interrupted; `resume` continues it.
        MelissaGenError: The run could not be started.

    Example:
        >>> run = melissa_gen.run("study.yaml", overrides={"simulation.count": 50})
        >>> run.summary["validation"]["nrmse"]["mean"]
    """
    from melissa_gen.launcher.commands.run import run_study

    if not isinstance(study, Study):
        study = Study.load(study, overrides)
    elif overrides:
        message = (
            "overrides replace values of a study file; give the file, or pass them to Study.load"
        )
        raise TypeError(message)
    path = None if run_dir is None else Path(run_dir)
    with steady_output():
        outcome = run_study(study, path, _view(quiet))
    return _finished(outcome)


def resume(
    run_dir: str | Path | Run,
    *,
    simulations: int | None = None,
    overrides: Mapping[str, Any] | None = None,
    quiet: bool = False,
) -> Run:
    """Continues a run from its newest checkpoint, or extends a finished one, as `melissa-gen resume` does.

    Args:
        run_dir: The run or its directory.
        simulations: Number of simulations to which the run is extended.
        overrides: Values that replace those of the run's study, by dotted key. Only some keys may change.
        quiet: Print nothing.

    Returns:
        The finished run.

    Raises:
        RunFailedError: The run was continued and did not finish.
        KeyboardInterrupt: The run was interrupted again.
        StudyError: An override is wrong, or changes what must stay the same.
        MelissaGenError: The run has finished, is still running, or has no checkpoint.

    Example:
        >>> run = melissa_gen.resume("runs/heat-20261124-120000", simulations=200)
    """
    from melissa_gen.launcher.commands.resume import resume_run

    path = run_dir.path if isinstance(run_dir, Run) else Path(run_dir)
    values = dict(overrides or {})
    if simulations is not None:
        values["simulation.count"] = simulations
    with steady_output():
        outcome = resume_run(path, _view(quiet), overrides=values)
    return _finished(outcome)


def compare(runs: Sequence[Run | str | Path], labels: Sequence[str] | None = None) -> "Comparison":
    """Compares runs: their errors, their cost, and the differences between their studies.

    Args:
        runs: Runs or their directories; ratios are relative to the first one.
        labels: A name for each run; default: the names of their directories.

    Returns:
        The comparison: `.table()` returns the figures, `.write(path)` writes an HTML page. A notebook displays it as a
        table.

    Raises:
        DataError: A directory does not contain a run, or no run was given.
    """
    from melissa_gen.report.comparison import Comparison

    opened = [one if isinstance(one, Run) else Run.load(one) for one in runs]
    return Comparison([one.recorded for one in opened], labels)


def _view(quiet: bool) -> LiveView:
    """Returns the view of a call: the live view in a terminal, plain lines in a notebook."""
    return LiveView(Console(markup=False, force_jupyter=False, quiet=quiet))


def _finished(outcome: "RunOutcome") -> Run:
    from melissa_gen.launcher.jobs.outcome import INTERRUPTED

    if outcome.code == INTERRUPTED:
        raise KeyboardInterrupt(outcome.sentence)
    made = Run.load(outcome.run_dir)
    if outcome.code:
        raise RunFailedError(outcome.sentence, made)
    return made
