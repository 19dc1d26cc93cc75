"""The command line of `melissa-gen`, which parses options and calls the commands.

Errors end in one sentence on stderr; `--debug` shows the traceback.
"""

import contextlib
import errno
import io
import os
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Annotated, NoReturn

import typer
from rich.console import Console

from melissa_gen import __version__
from melissa_gen.errors import MelissaGenError, RunError, StudyError
from melissa_gen.launcher.global_options import GlobalOptionsGroup, LogLevel
from melissa_gen.launcher.jobs.signals import STOP_SIGNALS, ignore, is_ignored
from melissa_gen.logs import configured_command
from melissa_gen.report.steady_output import (
    discard_output,
    open_closed_descriptors,
    steady_output,
)
from melissa_gen.run_dir.folder import default_run_dir

__all__ = ["app", "main"]

STUDY_ERROR, ERROR, INTERRUPTED = 2, 1, 130

app = typer.Typer(
    name="melissa-gen",
    help="Train neural surrogates online, on simulations that run at the same time.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    cls=GlobalOptionsGroup,
)

StudyFile = Annotated[Path, typer.Argument(metavar="STUDY.yaml", help="The study file.")]
RunDir = Annotated[Path, typer.Argument(metavar="RUN_DIR", help="A run directory.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Set a key, e.g. training.batch_size=64."),
]
Profile = Annotated[
    str | None,
    typer.Option("--profile", metavar="NAME", help="Use the settings of a cluster."),
]


def main() -> None:
    """Runs the command line and ends the process with its exit status."""
    open_closed_descriptors()
    for stream in (sys.stdout, sys.stderr):
        # The names of files may hold bytes that no encoding has.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    for number in STOP_SIGNALS:
        signal.signal(number, ignore if is_ignored(number) else _interrupted)
    try:
        # Without standalone mode, typer returns the code of a typer.Exit that a command raised.
        code = app(standalone_mode=False)
        sys.stdout.flush()
        sys.exit(code if isinstance(code, int) else 0)
    except BrokenPipeError:
        # The reader has read enough, as in `melissa-gen schema | head`.
        discard_output()
        sys.exit(ERROR)
    except (typer.Abort, _InterruptedError):
        _print_message("interrupted")
        sys.exit(INTERRUPTED)
    except Exception as error:
        sys.exit(_print_error(error))


class _InterruptedError(BaseException):
    """Raised by SIGINT, SIGTERM or SIGHUP outside the main loop of a run, so that `finally` blocks are executed."""


def _interrupted(number: int, frame: FrameType | None) -> NoReturn:
    raise _InterruptedError


def _print_error(error: Exception) -> int:
    """Prints an error as one sentence, and returns the exit status."""
    from melissa_gen.launcher.jobs.execution import RunInterruptedError

    if "--debug" in sys.argv or "MELISSA_GEN_DEBUG" in os.environ:
        raise error
    if hasattr(error, "format_message"):
        # An error of typer about an option or argument.
        context = getattr(error, "ctx", None)
        usage = f"; see '{context.command_path} --help'" if context else ""
        if sentence := error.format_message().rstrip("."):
            _print_message(f"{sentence}{usage}")
        return STUDY_ERROR
    if isinstance(error, MelissaGenError):
        _print_message(str(error))
        if isinstance(error, RunInterruptedError):
            return INTERRUPTED
        return STUDY_ERROR if isinstance(error, StudyError) else ERROR
    if isinstance(error, OSError):
        if error.filename is None and error.errno in (errno.ENOSPC, errno.EIO):
            discard_output()
            _print_message(f"can't write the output: {error.strerror}")
            return ERROR
        where = f"{error.filename}: " if error.filename else ""
        _print_message(f"{where}{error.strerror or error}")
        return ERROR
    _print_message(
        f"unexpected {type(error).__name__}: {error}; run again with --debug for the traceback"
    )
    return ERROR


def _print_message(sentence: str) -> None:
    with contextlib.suppress(OSError, ValueError):
        print(f"melissa-gen: {sentence}", file=sys.stderr, flush=True)


def _with_profile(overrides: list[str] | None, profile: str | None) -> list[str]:
    return [*(overrides or ()), *([f"launcher.profile={profile}"] if profile else [])]


def _require(path: Path) -> None:
    if not path.is_file():
        msg = f"{path.parent} is not a run directory: it holds no {path.name}"
        raise RunError(msg)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"melissa-gen {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    context: typer.Context,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
    log_level: Annotated[
        LogLevel | None,
        typer.Option(help="Lowest level of messages in log files [default: info]."),
    ] = None,
    log_file: Annotated[
        Path | None, typer.Option(help="Also write the launcher's log to this file.")
    ] = None,
    verbose: Annotated[
        int,
        typer.Option("--verbose", "-v", count=True, help="Also print messages; -vv prints more."),
    ] = 0,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    if debug:
        # The server's ranks inherit this variable.
        os.environ["MELISSA_GEN_DEBUG"] = "1"
    context.with_resource(configured_command(log_level, log_file, verbose))


@app.command()
def run(
    study: StudyFile,
    run_dir: Annotated[
        Path | None, typer.Option(help="Where to write the run [default: runs/NAME-DATE].")
    ] = None,
    overrides: Overrides = None,
    profile: Profile = None,
) -> None:
    """Run a study: simulations, training and sampling."""
    from melissa_gen.launcher.commands.run import run_study
    from melissa_gen.report.live import LiveView
    from melissa_gen.study import load_study

    loaded = load_study(study, _with_profile(overrides, profile))
    with steady_output():
        code = run_study(loaded, run_dir, LiveView()).code
    raise typer.Exit(code)


@app.command()
def resume(
    run_dir: RunDir,
    simulations: Annotated[
        int | None, typer.Option(min=1, help="Extend the run to this number of simulations.")
    ] = None,
    overrides: Overrides = None,
) -> None:
    """Continue a run from its newest checkpoint, or extend a finished one by more simulations."""
    from melissa_gen.launcher.commands.resume import resume_run
    from melissa_gen.report.live import LiveView

    more = [f"simulation.count={simulations}"] if simulations else []
    with steady_output():
        code = resume_run(run_dir, LiveView(), overrides=[*(overrides or ()), *more]).code
    raise typer.Exit(code)


@app.command()
def stop(
    run_dir: RunDir,
    now: Annotated[
        bool,
        typer.Option("--now", help="Kill all jobs at once, without waiting for a checkpoint."),
    ] = False,
) -> None:
    """Stop a run from another terminal or machine; a checkpoint and a report are written."""
    from melissa_gen.launcher.commands.stop import ask_to_stop

    _require(run_dir / "run.json")
    holder = ask_to_stop(run_dir, now=now)
    print(f"{holder} stops the run{' now' if now else ', with a checkpoint and a report'}")


@app.command()
def check(study: StudyFile, overrides: Overrides = None, profile: Profile = None) -> None:
    """Check a study and run one of its simulations."""
    from melissa_gen.launcher.commands.check import check_study
    from melissa_gen.report.live import LiveView
    from melissa_gen.study import load_study

    words = _with_profile(overrides, profile)
    loaded = load_study(study, words)
    with steady_output():
        good = check_study(loaded, LiveView(), study, words)
    raise typer.Exit(0 if good else ERROR)


@app.command()
def render(
    study: StudyFile,
    run_dir: Annotated[
        Path | None, typer.Option(help="Where the run would be written [default: runs/NAME-DATE].")
    ] = None,
    overrides: Overrides = None,
    profile: Profile = None,
) -> None:
    """Print every script and command that a run would start or submit."""
    from melissa_gen.launcher.commands.render import render_study
    from melissa_gen.study import load_study

    loaded = load_study(study, _with_profile(overrides, profile))
    where = run_dir or default_run_dir(loaded.name, Path.cwd())
    print(render_study(loaded, where.absolute()), end="")


@app.command()
def init(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The folder to create.")],
    example: Annotated[str | None, typer.Option(help="Copy this example.")] = None,
    kind: Annotated[str | None, typer.Option(help="python, c, fortran or bridge.")] = None,
    command: Annotated[str | None, typer.Option(help="Your command, as in a shell.")] = None,
    parameter: Annotated[
        list[str] | None, typer.Option(metavar="NAME=LOW:HIGH", help="A parameter; repeatable.")
    ] = None,
    field: Annotated[
        list[str] | None, typer.Option(metavar="NAME=NxM", help="A field; repeatable.")
    ] = None,
    time_steps: Annotated[int | None, typer.Option(min=1, help="Per simulation.")] = None,
    reader: Annotated[str | None, typer.Option(help="Format of outputs (kind bridge).")] = None,
) -> None:
    """Create a study; prompts for options that are not given."""
    from melissa_gen.launcher.commands import init as module

    if example is not None:
        made = module.copy_example(example, folder)
    else:
        given = {
            "kind": kind,
            "command": command,
            "parameters": parameter and dict(map(module.parse_parameter, parameter)),
            "fields": field and dict(map(module.parse_field, field)),
            "time_steps": time_steps,
            "reader": reader,
        }
        known = {name: value for name, value in given.items() if value is not None}
        # The types of the options differ, and a dict has one type of values.
        answers = module.Answers(**known)  # type: ignore[arg-type]
        if sys.stdin.isatty():
            answers = module.ask(answers, given.keys() - known.keys())
        made = module.scaffold(answers, folder)
    for path in made:
        print(path)
    if any(path.name == "Makefile" for path in made):
        _print_message(f"next: make -C {folder}")
    study = next(path for path in made if path.suffix == ".yaml")
    _print_message(f"next: melissa-gen check {study}")


@app.command()
def status(
    folder: Annotated[
        Path,
        typer.Argument(metavar="RUN_DIR", help="A run directory, or a folder of run directories."),
    ],
    follow: Annotated[
        bool,
        typer.Option("--follow", "-f", help="Update continuously; Ctrl-C closes only the view."),
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print a JSON list with an object for each run.")
    ] = False,
) -> None:
    """Show the state of a run, or a table of several runs, on any machine that can read the run directories."""
    from melissa_gen.launcher.commands import status as module

    single = module.is_run_dir(folder)
    runs = [folder] if single else module.runs_below(folder)
    if follow and (as_json or not single):
        raise typer.BadParameter("--follow shows one run directory, without --json")
    console = Console(markup=False)
    if as_json:
        print(module.states_json(runs))
    elif not single:
        module.show_runs(runs, console)
    elif follow:
        with contextlib.suppress(_InterruptedError):
            module.follow_status(folder, console)
    else:
        module.show_status(folder, console)


@app.command()
def report(run_dir: RunDir) -> None:
    """Write the report of a run to report.html."""
    from melissa_gen.report.html import write_report

    _require(run_dir / "study.yaml")
    print(write_report(run_dir))


@app.command()
def export(
    run_dir: RunDir,
    output: Annotated[Path, typer.Argument(metavar="FILE", help="The file: .pt2 or .onnx.")],
    batch_size: Annotated[
        int | None,
        typer.Option(min=1, help="Number of rows, for networks that fix it [default: any]."),
    ] = None,
) -> None:
    """Export the surrogate of a run to a file that works without melissa_gen: torch.export (.pt2) or ONNX (.onnx)."""
    from melissa_gen.runs import Run
    from melissa_gen.surrogates import export as write

    print(write(Run.load(run_dir).surrogate(), output, batch_size))


@app.command()
def compare(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN_DIR", help="Run directories.")],
    output: Annotated[Path, typer.Option(help="The HTML page to write.")] = Path("comparison.html"),
) -> None:
    """Compare runs: a table of their errors and costs, and one HTML page with curves and points."""
    from melissa_gen.api import compare as compared
    from melissa_gen.report.views import print_table

    made = compared(runs)
    print_table(Console(markup=False), made.columns(), made.cells())
    for remark in made.remarks():
        _print_message(remark)
    print(made.write(output))


@app.command()
def generate(
    study: StudyFile,
    simulations: Annotated[int, typer.Option(min=1, help="Number of simulations.")],
    output: Annotated[Path, typer.Option(help="The HDF5 file to write.")],
    seed: Annotated[int, typer.Option(min=0, help="Seed of the parameters' random draws.")] = 0,
    run_dir: Annotated[
        Path | None, typer.Option(help="Where to write the run [default: runs/NAME-data-DATE].")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file.")] = False,
    overrides: Overrides = None,
    profile: Profile = None,
) -> None:
    """Run simulations with parameters drawn from the prior, without training, and write an HDF5 file."""
    from melissa_gen.launcher.commands.generate import generate as solve
    from melissa_gen.report.live import LiveView
    from melissa_gen.study import load_study

    loaded = load_study(study, _with_profile(overrides, profile))
    with steady_output():
        view = LiveView()
        print(solve(loaded, output, simulations, seed, view, run_dir=run_dir, overwrite=overwrite))


@app.command()
def train(
    study: StudyFile,
    data: Annotated[
        list[Path] | None,
        typer.Option("--data", metavar="FILE", help="A data set file; repeatable."),
    ] = None,
    run_dir: Annotated[
        Path | None, typer.Option(help="Where to write the run [default: runs/NAME-DATE].")
    ] = None,
    overrides: Overrides = None,
    profile: Profile = None,
) -> None:
    """Train the surrogate of a study without solvers: on recorded data, or by its equation alone."""
    from melissa_gen.launcher.commands.train import train_alone, train_on_data
    from melissa_gen.report.live import LiveView
    from melissa_gen.study import load_study

    loaded = load_study(study, _with_profile(overrides, profile))
    with steady_output():
        view = LiveView()
        outcome = (
            train_on_data(loaded, data, run_dir, view)
            if data
            else train_alone(loaded, run_dir, view)
        )
    code = outcome.code
    raise typer.Exit(code)


@app.command()
def replay(
    run_dir: RunDir,
    output: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder for the trained surrogate.")
    ] = None,
) -> None:
    """Repeat the training of a recorded run on one CPU, and compare all losses and the final weights."""
    from melissa_gen.launcher.commands.replay import replay_run

    print(replay_run(run_dir, output))


@app.command()
def schema() -> None:
    """Print the JSON Schema of the study file, for editors."""
    from melissa_gen.study import json_schema

    print(json_schema())


@app.command()
def doctor() -> None:
    """Check the requirements of a study on this machine."""
    from melissa_gen.launcher.commands.doctor import examine

    raise typer.Exit(0 if examine(Console(markup=False)) else ERROR)


if __name__ == "__main__":
    main()
