"""Runs a study's solvers against a collector on this machine: for data sets, and to try a study."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from melissa_gen.errors import RunError
from melissa_gen.launcher.backends.local import last_lines
from melissa_gen.launcher.backends.worlds import client_world, make_backend
from melissa_gen.report.live import LiveView
from melissa_gen.server.coordination.collector import Collector, Store
from melissa_gen.study import Study

__all__ = ["Timing", "collect"]

POLL_MILLISECONDS = 20
SHORTEST_CONNECT = 30.0  # a solver's imports may take longer than its time steps
LAST_WORDS_MILLISECONDS = 200
EXIT_GRACE_SECONDS = 3.0  # after a world ended well, its last messages may still be under way
FAREWELL_SECONDS = 10.0


@dataclass(frozen=True)
class Timing:
    """How long things took (seconds).

    Attributes:
        start: From the start of the first world until it was handed a simulation.
        solve: From then on until that simulation was complete.
    """

    start: float
    solve: float


def collect(
    study: Study,
    points: Sequence[Sequence[float]],
    store: Store,
    work: Path,
    view: LiveView,
    title: str,
) -> Timing:
    """Solves simulations, at most `launcher.clients` at a time, and stores what they send.

    Args:
        study: The study.
        points: Parameter values of each simulation, in the study's order.
        store: Where samples go.
        work: Folder for logs.
        view: Where the progress is shown.
        title: What is being made.

    Raises:
        RunError: A simulation failed or made no progress; all others are ended.
    """
    worlds = _Worlds(study, points, store, work)
    began = time.monotonic()
    total = len(points) * study.simulation.time_steps
    try:
        with _Progress(view, title, total) as progress:
            while not worlds.over:
                worlds.turn()
                progress.update(worlds.collector.samples)
    finally:
        worlds.close()
    handed = worlds.collector.handed_out[0]
    return Timing(handed - began, worlds.collector.finished[0] - handed)


class _Worlds:
    """The worlds that solve, and what has been heard of each."""

    def __init__(
        self, study: Study, points: Sequence[Sequence[float]], store: Store, work: Path
    ) -> None:
        self._study, self._count = study, len(points)
        self._backend = make_backend(study, work)
        self._contact_file = work / "contact.json"
        self.collector = Collector(study, points, store, self._contact_file)
        self._alone = study.simulation.mode == "per_simulation"
        self._started = 0
        self._running: dict[str, float] = {}
        self._left: dict[str, float] = {}
        self._complete: float | None = None

    @property
    def over(self) -> bool:
        """Whether all is stored and all worlds have ended, or have had the time to."""
        if self._complete is None:
            return False
        return not self._running or time.monotonic() - self._complete > FAREWELL_SECONDS

    def turn(self) -> None:
        """Starts worlds, takes in what they sent, and looks after them."""
        self._start_worlds()
        self.collector.turn(POLL_MILLISECONDS)
        self._look_for_failures()
        for name, code, why in self._backend.poll():
            del self._running[name]
            self._ended(name, code, why)
        for name in self._backend.queued & self._running.keys():
            self._running[name] = time.monotonic()
        if self._complete is None:
            if self.collector.completed == self._count:
                self._complete = time.monotonic()
            else:
                self._look_for_silence()

    def close(self) -> None:
        """Ends what still runs."""
        self._backend.close()
        self.collector.close()
        self._contact_file.unlink(missing_ok=True)

    def _start_worlds(self) -> None:
        while len(self._running) < self._study.launcher.clients and self._wanted():
            name = f"solver-{self._started}"
            number = self._started if self._alone else None
            self._backend.start(*client_world(self._study, self._contact_file, name, number))
            self._started += 1
            self._running[name] = time.monotonic()

    def _wanted(self) -> bool:
        """Whether one more world would find something to solve."""
        if self._alone:
            return self._started < self._count
        to_come = sum(not self.collector.has_asked(name) for name in self._running)
        return to_come < self.collector.waiting

    def _ended(self, name: str, code: int, why: str) -> None:
        if self._complete is not None:
            return
        if code != 0:
            self.collector.turn(LAST_WORDS_MILLISECONDS)
            self._look_for_failures()
            if self.collector.completed < self._count:
                reason = f" ({why})" if why else ""
                self._fail(name, f"ended with exit status {code}{reason}")
        else:
            self._left[name] = time.monotonic()

    def _look_for_failures(self) -> None:
        if self.collector.failure is not None:
            job, reason = self.collector.failure
            self._fail(job, f"failed: {reason}", told=True)

    def _look_for_silence(self) -> None:
        now = time.monotonic()
        patience = max(self._study.simulation.timeout, SHORTEST_CONNECT)
        for name, since in self._running.items():
            if not self.collector.has_asked(name) and now - since > patience:
                self._fail(name, f"asked for no simulation within {patience:.0f} s")
        for name, since in list(self._left.items()):
            asked, open_ = self.collector.has_asked(name), self.collector.works_on(name)
            if asked and open_ is None:
                del self._left[name]
            elif now - since > EXIT_GRACE_SECONDS:
                what = "without asking for a simulation" if not asked else "in the middle of one"
                self._fail(name, f"ended with exit status 0 {what}")
        stuck = self.collector.stuck(now)
        if stuck is not None and stuck[0] in self._running:
            self._fail(*stuck)

    def _fail(self, name: str, what: str, *, told: bool = False) -> None:
        """Ends the generation with a sentence, which quotes the log unless the client has told all."""
        log = self._backend.log(name)
        lines = last_lines(log) if name else []
        ending = ""
        if lines:
            ending = f"; its log {log} ends: {lines[-1]}"
        elif name and not told:
            ending = f"; its log {log} is empty"
        msg = f"the solver ({' '.join(self._study.simulation.command)}) {what}{ending}"
        raise RunError(msg)


class _Progress:
    """One line that says how far a generation is; two lines where there is no terminal."""

    def __init__(self, view: LiveView, title: str, samples: int) -> None:
        self._console, self._title, self._total = view.console, title, samples
        self._status = self._console.status(title) if self._console.is_terminal else None
        self._started = time.monotonic()

    def __enter__(self) -> "_Progress":
        if self._status is not None:
            self._status.start()
        else:
            self._console.print(f"{self._title} ...", highlight=False)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._status is not None:
            self._status.stop()
        if kind is None:
            seconds = time.monotonic() - self._started
            self._console.print(f"{self._title} in {seconds:.1f} s", highlight=False)

    def update(self, samples: int) -> None:
        """Shows what share of all samples has come."""
        if self._status is not None:
            self._status.update(f"{self._title}, {100 * samples / self._total:.0f} %")
