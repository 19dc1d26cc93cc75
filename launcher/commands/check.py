"""The command `melissa-gen check`, which validates a study and runs one real simulation."""

import json
import math
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from rich.text import Text

from melissa_gen.builders.gpu import check_device
from melissa_gen.builders.mesh import read_mesh
from melissa_gen.builders.sampler import check_sampler
from melissa_gen.errors import MelissaGenError
from melissa_gen.launcher.backends.local import last_lines
from melissa_gen.launcher.backends.selection import check_backend
from melissa_gen.launcher.commands.generate import dataset_study
from melissa_gen.launcher.commands.key_location import locate_key
from melissa_gen.launcher.commands.remedies import remedy
from melissa_gen.launcher.commands.validation_sets import check_sets
from melissa_gen.launcher.jobs.execution import (
    ResumeInfo,
    RunInterruptedError,
    RunOutcome,
    execute,
)
from melissa_gen.launcher.jobs.mpi_jobs import solver_command
from melissa_gen.launcher.jobs.outcome import INTERRUPTED
from melissa_gen.protocol.failures import Failure
from melissa_gen.report.quantities import duration, megabytes
from melissa_gen.report.trackers.packages import check_trackers
from melissa_gen.report.views import DataSetView, RunView
from melissa_gen.run_dir.events import Event, read_events
from melissa_gen.run_dir.folder import create_default_run_dir, held_run_dir, record_run
from melissa_gen.run_dir.purpose import Purpose
from melissa_gen.sinks import FieldObservation
from melissa_gen.study import Study

__all__ = ["check_study"]

MAX_ATTEMPTS = 6
"""Maximum number of attempts at the simulation; after each failure the study is corrected if possible."""
BATCHES_TIMED = 5
OBSERVATIONS = "observations.json"


def check_study(
    study: Study, view: RunView, path: Path | None = None, overrides: Iterable[str] = ()
) -> bool:
    """Checks a study, runs one of its simulations and estimates the resources of the whole run.

    Args:
        study: The study, whose keys were already validated when it was loaded.
        view: Prints the findings.
        path: The study file, whose lines the findings refer to.
        overrides: Values that `--set` set over the file.

    Returns:
        Whether no problem was found.
    """
    from melissa_gen.builders.memory import (
        GPU_MEGABYTES,
        check_memory,
        control_megabytes,
        disk_promise,
        promised_megabytes,
        unknown_gpu,
    )

    lines = _Findings(view, path, overrides)
    lines.good(f"study '{study.name}': every key is legal")
    lines.attempt("sampler", lambda: check_sampler(study))
    lines.attempt("back end", lambda: check_backend(study))
    trains = study.training.enabled
    surrogate = lines.attempt("surrogate", lambda: _surrogate(study)) if trains else None
    lines.attempt("memory", lambda: check_memory(study))
    if study.simulation.mesh is not None:
        lines.attempt("mesh", lambda: read_mesh(study))
    if trains and study.training.validation.sets:
        lines.attempt("validation sets", lambda: check_sets(study))
    _check_report(study, lines)
    command = lines.attempt("command", lambda: _command(study))
    timing = _try_simulation(study, view, lines) if command is not None else None
    size, steps = study.sample_bytes, study.simulation.time_steps
    samples, ranks = study.simulation.count * steps, study.server.ranks
    lines.note(
        f"all {study.simulation.count} simulations: {samples:,} samples of {_bytes(size)}, "
        f"{_bytes(samples * size)} in all"
    )
    kept = min(ranks * study.reservoir.capacity, samples)
    lines.note(
        f"reservoir: {_bytes(ranks * study.reservoir.capacity * size)} in {ranks} rank(s), "
        f"{kept:,} samples or {kept / samples:.0%} of all"
    )
    if surrogate is not None:
        lines.note(
            f"memory: at most {promised_megabytes(study):,.0f} MB in each of {ranks} server rank(s)"
            + (f", and {GPU_MEGABYTES:,.0f} more where a GPU is found" * unknown_gpu(study))
            + f"; at most {control_megabytes(study):,.0f} MB in the control process beside rank 0"
        )
    if study.reservoir.checkpoint:
        lines.note(disk_promise(study, Path.cwd()))
    if timing is not None and surrogate is not None:
        _project(study, timing, lines)
    return lines.all_good


class _Findings:
    """Prints findings, and records whether all of them were good."""

    def __init__(self, view: RunView, path: Path | None, overrides: Iterable[str]) -> None:
        self._print = view.console.print
        self._path, self._overrides = path, list(overrides)
        self.all_good = True

    def good(self, text: str) -> None:
        self._print(Text("ok   ", style="green"), text, soft_wrap=True, highlight=False)

    def bad(self, text: str, key: str = "", fix: str = "") -> None:
        self.all_good = False
        self._print(Text("wrong", style="red"), text, soft_wrap=True, highlight=False)
        if fix:
            self.note(f"-> {fix}")
        if key and self._path is not None:
            self.note(f"   {locate_key(key, self._path, self._overrides)}")

    def note(self, text: str) -> None:
        self._print("     ", text, soft_wrap=True, highlight=False)

    def attempt(self, what: str, action: Callable[[], object]) -> object | None:
        try:
            found = action()
        except MelissaGenError as error:
            self.bad(f"{what}: {error}")
            return None
        self.good(f"{what}: {found}" if isinstance(found, str) else what)
        return found or what


def _check_report(study: Study, lines: _Findings) -> None:
    """Checks that what the section `report` asks for can be had."""
    # Imported here because importing torch takes seconds.
    from melissa_gen.builders.surrogate_indices import check_surrogate_indices

    if study.report.surrogate_indices:
        lines.attempt("Sobol indices of the surrogate", lambda: check_surrogate_indices(study))
    if set(study.report.trackers) - {"tensorboard"}:
        lines.attempt("trackers", lambda: check_trackers(study.report.trackers))


def _command(study: Study) -> str:
    words = solver_command(study)
    if study.simulation.bridge is not None:
        return f"{' '.join(study.simulation.command)} (through the bridge)"
    return " ".join(words)


def _surrogate(study: Study) -> str:
    # Importing torch takes two seconds, so it is postponed.
    from melissa_gen.builders.surrogate import build_surrogate, try_surrogate

    check_device(study)
    surrogate = build_surrogate(study)
    try_surrogate(study)
    size = sum(p.numel() for p in surrogate.parameters())
    return f"{study.surrogate.class_path} with {size:,} parameters"


@dataclass(frozen=True)
class _Timing:
    """Durations of the simulation in seconds.

    Attributes:
        start: From the start of the client job until it received the simulation.
        solve: From then until the simulation was complete.
    """

    start: float
    solve: float


def _try_simulation(study: Study, view: RunView, lines: _Findings) -> _Timing | None:
    """Runs one simulation with parameters drawn from the prior.

    After a failure the study is corrected to match the solver if possible, and the simulation is run again, so that
    one check finds several problems.
    """
    work = _work_folder(study)
    tried = study
    for number in range(MAX_ATTEMPTS):
        run_dir = work / f"attempt-{number}"
        outcome = _run_once(tried, run_dir, view)
        if outcome.code == INTERRUPTED:
            raise RunInterruptedError(outcome.sentence)
        if outcome.code == 0:
            break
        failure = _failure(run_dir, outcome)
        sentence, found = failure.sentence, remedy(failure)
        if found is None:
            lines.bad(sentence)
            return None
        if tried.simulation.time_steps <= study.simulation.time_steps:
            lines.bad(sentence, found.key, found.fix)
        elif found.correct is not None:
            # This attempt allowed more time steps than the study, to find out how many the solver sends.
            lines.note(f"   {found.fix.partition(',')[0]}")
        if found.correct is None:
            return None
        tried = found.correct(tried)
    else:
        return None
    timing = _timing(run_dir, outcome)
    observed = FieldObservation.read(run_dir / OBSERVATIONS)
    shutil.rmtree(work)
    _describe(tried, observed, lines)
    size, steps = tried.sample_bytes, tried.simulation.time_steps
    seconds = timing.solve / steps
    lines.note(
        f"start {duration(timing.start)}, then {seconds:.3g} s and {_bytes(size)} per time step, "
        f"{_bytes(int(size / seconds))}/s"
    )
    return timing


def _run_once(study: Study, run_dir: Path, view: RunView) -> RunOutcome:
    """Runs one simulation of a study without retries; a conformance sink observes its fields."""
    plan = dataset_study(study, 1)
    plan = plan.model_copy(update={"simulation": plan.simulation.model_copy(update={"retries": 0})})
    purpose = Purpose("conformance", str(run_dir / OBSERVATIONS), study.seed)
    started = time.monotonic()
    shown = _QuietView(view.console, "one simulation", study.simulation.time_steps)
    with held_run_dir(run_dir) as held:
        record_run(plan, held, purpose)
        return execute(plan, held, shown, ResumeInfo(started), unconnected=1)


class _QuietView(DataSetView):
    """Displays only the progress; problems are printed as findings instead of events."""

    def event(self, event: Event) -> None:
        """Prints nothing."""


def _work_folder(study: Study) -> Path:
    """Returns a folder that all jobs of the study can access."""
    if study.launcher.backend == "local":
        return Path(tempfile.mkdtemp(prefix="melissa_gen-check-"))
    return create_default_run_dir(study.name, Path.cwd(), suffix="-check")


def _failure(run_dir: Path, outcome: RunOutcome) -> Failure:
    """Returns why the simulation failed."""
    events: dict[str, list[Event]] = {}
    for event in read_events(run_dir / "events.jsonl"):
        events.setdefault(event["event"], []).append(event)
    for kind, index in (("simulation_failed", -1), ("client_failed", 0), ("refused", 0)):
        if kind in events:
            failure = Failure.recorded(events[kind][index])
            break
    else:
        return Failure.of("other", text=outcome.sentence)
    # A client that ended without reporting a failure may have written the reason to its log.
    logs = sorted((run_dir / "logs").glob("client-*.log"))
    ending = last_lines(logs[-1]) if logs else []
    ended = failure.code in ("process_ended", "process_ended_early")
    if ended and ending and "details" not in failure.values:
        return failure.with_details(f"its log {logs[-1]} ends: {ending[-1]}")
    return failure


def _timing(run_dir: Path, outcome: RunOutcome) -> _Timing:
    line = json.loads((run_dir / "simulations.jsonl").read_text(encoding="utf-8"))
    issued, finished = float(line["issued_at"]), float(line["finished_at"])
    return _Timing(issued - (outcome.first_client or issued), finished - issued)


def _describe(study: Study, observed: dict[str, FieldObservation], lines: _Findings) -> None:
    for name, field in study.simulation.fields.items():
        seen = observed[name]
        unit = "" if field.unit == "1" else f" {field.unit}"
        lines.good(
            f"field '{name}': {seen.steps} time steps of {list(seen.shape)}, "
            f"from {seen.low:.4g} to {seen.high:.4g}{unit}, no NaN"
        )
        if seen.steps > 1 and not seen.varies:
            lines.note(
                f"its values are the same at all time steps: does the solver send '{name}' correctly?"
            )


def _project(study: Study, timing: _Timing, lines: _Findings) -> None:
    """Prints estimates of the time for all simulations and for the whole training, separately."""
    from melissa_gen.builders.task import build_task

    simulation, training = study.simulation, study.training
    rounds = math.ceil(simulation.count / study.launcher.clients)
    each = timing.solve + (timing.start if simulation.mode == "per_simulation" else 0.0)
    solving = timing.start + rounds * each
    lines.note(
        f"solving alone: {duration(solving)} for {simulation.count} simulations, "
        f"{study.launcher.clients} at a time"
    )
    windows = simulation.time_steps - build_task(study).window.span + 1
    draws = simulation.count * windows * training.draws_per_sample
    batches = math.ceil(draws / (training.batch_size * study.server.ranks))
    batch = _batch_seconds(study)
    lines.note(
        f"training alone: {duration(batches * batch)} for {batches:,} batches of {1e3 * batch:.3g} ms "
        f"(training.draws_per_sample {training.draws_per_sample:g})"
    )
    wall = max(solving, batches * batch)
    lines.note(f"wall time: at least {duration(wall)}, more if solvers and training share cores")


def _batch_seconds(study: Study) -> float:
    """Measures the time of one training step on one rank with random data, in seconds."""
    import torch

    from melissa_gen.builders.surrogate import training_trial

    threads = torch.get_num_threads()
    torch.set_num_threads(study.server.threads)
    try:
        trial, best = training_trial(study), math.inf
        for _ in range(BATCHES_TIMED):
            started = time.perf_counter()
            trial.step(study.training.batch_size)
            best = min(best, time.perf_counter() - started)
        return best
    finally:
        torch.set_num_threads(threads)


def _bytes(size: int) -> str:
    return megabytes(size / 1e6) if size >= 1e5 else f"{size / 1e3:.3g} kB"
