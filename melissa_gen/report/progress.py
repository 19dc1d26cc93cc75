"""The progress of a run that is not over, as the report shows it."""

import time
from dataclasses import dataclass

from melissa_gen.report.quantities import count, duration
from melissa_gen.run_dir.events import number_at
from melissa_gen.run_dir.recorded_run import RecordedRun

__all__ = ["RunProgress"]

SHORTEST_RELOAD, LONGEST_RELOAD = 10.0, 60.0


@dataclass(frozen=True)
class RunProgress:
    """What a page of a running study says beside the report.

    Attributes:
        share: Share of the simulations that are over, in [0, 1]; None before the first status.
        sentence: How far the study is.
        written: When the page was written (seconds since the epoch).
        interval: Time until it is written again (seconds).
        run_dir: The run directory.
    """

    share: float | None
    sentence: str
    written: float
    interval: float
    run_dir: str

    @property
    def moment(self) -> str:
        """Date and time at which the page was written."""
        return time.strftime("%H:%M:%S on %-d %B %Y", time.localtime(self.written))

    @property
    def pause(self) -> str:
        """The time until the page is written again, rounded."""
        return duration(max(1, round(self.interval / 5)) * 5)

    @property
    def reload(self) -> int:
        """Seconds after which a browser loads the page again."""
        return round(min(max(self.interval, SHORTEST_RELOAD), LONGEST_RELOAD))

    @classmethod
    def of(cls, run: RecordedRun, written: float, interval: float) -> "RunProgress":
        """Returns the progress at the last status of a run."""
        last = run.statuses[-1] if run.statuses else {}
        planned, completed, failed, running = (
            number_at(last, "simulations", key)
            for key in ("planned", "completed", "failed", "running")
        )
        folder = str(run.path)
        if not planned > 0:
            sentence = "The server and the first simulations are starting."
            return cls(None, sentence, written, interval, folder)
        over = completed + failed
        sentence = f"{count(over)} of {count(planned)} simulations are over, {count(running)} run."
        seconds = float(run.seconds[-1])
        if 0 < over < planned:
            rest = seconds * (planned - over) / over
            sentence += f" At this rate, the others need about {duration(rest)} more."
        elif over >= planned:
            sentence = f"All {count(planned)} simulations are over. The training continues."
        return cls(min(over / planned, 1.0), sentence, written, interval, folder)
