"""`melissa-gen check`: a study and one real simulation are tried before any hours are spent on them."""

import math
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.text import Text

from melissa_gen.builders.prior import check_sampler, prior_of
from melissa_gen.errors import MelissaGenError, RunError
from melissa_gen.launcher.backends.worlds import check_backend, solver_command
from melissa_gen.launcher.commands.collect import Timing, collect
from melissa_gen.launcher.commands.generate import sample_bytes
from melissa_gen.launcher.commands.key_location import place_of
from melissa_gen.launcher.commands.remedies import remedy
from melissa_gen.report.live import LiveView
from melissa_gen.report.quantities import duration, megabytes
from melissa_gen.study import Study

__all__ = ["check_study"]

TRIES = 6
"""Of one simulation, each with the study corrected by what the one before has shown."""
BATCHES_TIMED = 5


def check_study(
    study: Study, view: LiveView, path: Path | None = None, overrides: Iterable[str] = ()
) -> bool:
    """Tries everything that can be tried on one machine in the time of one simulation.

    Args:
        study: A study that has been read, and so is legal in itself.
        view: Where the findings are printed.
        path: The study file, to say which line to change.
        overrides: Values set over it.

    Returns:
        Whether the study can be run.
    """
    from melissa_gen.builders.memory import (
        GPU_MEGABYTES,
        check_memory,
        promised_megabytes,
        unknown_gpu,
    )

    lines = _Lines(view, path, overrides)
    lines.good(f"study '{study.name}': every key is legal")
    lines.attempt("sampler", lambda: check_sampler(study))
    lines.attempt("back end", lambda: check_backend(study))
    surrogate = lines.attempt("surrogate", lambda: _surrogate(study))
    lines.attempt("memory", lambda: check_memory(study))
    command = lines.attempt("command", lambda: _command(study))
    timing = _try_simulation(study, view, lines) if command is not None else None
    size, steps = sample_bytes(study), study.simulation.time_steps
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
        )
    if timing is not None and surrogate is not None:
        _project(study, timing, lines)
    return lines.all_good


class _Lines:
    """Prints findings and remembers whether all were good."""

    def __init__(self, view: LiveView, path: Path | None, overrides: Iterable[str]) -> None:
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
            self.note(f"   {place_of(key, self._path, self._overrides)}")

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


def _command(study: Study) -> str:
    words = solver_command(study)
    if study.simulation.bridge is not None:
        return f"{' '.join(study.simulation.command)} (through the bridge)"
    return " ".join(words)


def _surrogate(study: Study) -> str:
    from melissa_gen.builders.surrogate import build_surrogate  # torch: two seconds

    surrogate = build_surrogate(study)
    size = sum(p.numel() for p in surrogate.parameters())
    return f"{study.surrogate.class_path} with {size:,} parameters"


class _Observed:
    """A store that keeps of each field only what there is to say about it."""

    def __init__(self) -> None:
        self.steps: dict[str, int] = {}
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.ranges: dict[str, tuple[float, float]] = {}
        self.moved: set[str] = set()
        self._first: dict[str, npt.NDArray[Any]] = {}

    def begin(self, row: int, simulation: int, parameters: npt.ArrayLike, /) -> None:
        """There is only one."""

    def write(self, row: int, step: int, name: str, array: npt.NDArray[Any], /) -> None:
        """Looks at one field at one time step."""
        self.steps[name] = self.steps.get(name, 0) + 1
        self.shapes[name] = array.shape
        low, high = self.ranges.get(name, (math.inf, -math.inf))
        self.ranges[name] = min(low, float(array.min())), max(high, float(array.max()))
        first = self._first.setdefault(name, array.copy())
        if not np.array_equal(first, array):
            self.moved.add(name)

    def finish(self, row: int, /) -> None:
        """Nothing is kept open."""


def _try_simulation(study: Study, view: LiveView, lines: _Lines) -> Timing | None:
    """Solves one point of the prior; after a failure again, with what the solver has shown to be its own."""
    point = prior_of(study).sample(1, np.random.default_rng(study.seed)).tolist()
    work = Path(tempfile.mkdtemp(prefix="melissa_gen-check-"))
    tried, timing = study, None
    for number in range(TRIES):
        observed, logs = _Observed(), work / f"try-{number}"
        logs.mkdir()
        try:
            timing = collect(tried, point, observed, logs, view, "one simulation")
            break
        except RunError as error:
            found = remedy(str(error))
            if found is None:
                lines.bad(str(error))
                return None
            if tried.simulation.time_steps <= study.simulation.time_steps:
                lines.bad(str(error), found.key, found.fix)
            elif found.correct is not None:  # it was given more steps than the study has
                lines.note(f"   {found.fix.partition(',')[0]}")
            if found.correct is None:
                return None
            tried = found.correct(tried)
    else:
        return None
    shutil.rmtree(work)
    _describe(tried, observed, lines)
    size, steps = sample_bytes(tried), tried.simulation.time_steps
    seconds = timing.solve / steps
    lines.note(
        f"start {duration(timing.start)}, then {seconds:.3g} s and {_bytes(size)} per time step, "
        f"{_bytes(int(size / seconds))}/s"
    )
    return timing


def _describe(study: Study, observed: _Observed, lines: _Lines) -> None:
    for name, field in study.simulation.fields.items():
        low, high = observed.ranges[name]
        text = f"field '{name}': {observed.steps[name]} time steps of {list(observed.shapes[name])}"
        unit = "" if field.unit == "1" else f" {field.unit}"
        lines.good(f"{text}, from {low:.4g} to {high:.4g}{unit}, no NaN")
        if observed.steps[name] > 1 and name not in observed.moved:
            lines.note(f"it is the same at all time steps: does the solver send '{name}'?")


def _project(study: Study, timing: Timing, lines: _Lines) -> None:
    """Says how long all simulations and all of the training take, each on its own."""
    simulation, training = study.simulation, study.training
    rounds = math.ceil(simulation.count / study.launcher.clients)
    each = timing.solve + (timing.start if simulation.mode == "per_simulation" else 0.0)
    solving = timing.start + rounds * each
    lines.note(
        f"solving alone: {duration(solving)} for {simulation.count} simulations, "
        f"{study.launcher.clients} at a time"
    )
    draws = simulation.count * simulation.time_steps * training.draws_per_sample
    batches = math.ceil(draws / (training.batch_size * study.server.ranks))
    batch = _batch_seconds(study)
    lines.note(
        f"training alone: {duration(batches * batch)} for {batches:,} batches of {1e3 * batch:.3g} ms "
        f"(training.draws_per_sample {training.draws_per_sample:g})"
    )
    wall = max(solving, batches * batch)
    lines.note(f"wall time: {duration(wall)} at least, more where they share cores")


def _batch_seconds(study: Study) -> float:
    """The time of one training step on one rank, measured on random numbers."""
    import torch

    from melissa_gen.builders.surrogate import build_surrogate

    torch.set_num_threads(study.server.threads)
    network = build_surrogate(study).network
    optimizer = torch.optim.Adam(network.parameters())
    inputs = torch.rand(study.training.batch_size, len(study.parameters) + 1)
    best = math.inf
    for _ in range(BATCHES_TIMED):
        began = time.perf_counter()
        optimizer.zero_grad()
        network(inputs).square().mean().backward()
        optimizer.step()
        best = min(best, time.perf_counter() - began)
    return best


def _bytes(size: int) -> str:
    return megabytes(size / 1e6) if size >= 1e5 else f"{size / 1e3:.3g} kB"
