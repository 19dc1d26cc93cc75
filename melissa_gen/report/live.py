"""Live view of a run in a terminal, or periodic status lines if the output is not a terminal."""

import math
import time
from collections import deque
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.live import Live
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from melissa_gen.report.bottleneck import bottleneck
from melissa_gen.report.quantities import count, duration, megabytes, number, rate
from melissa_gen.report.views import say
from melissa_gen.report.waiting import group_of, solves, time_sentences, who_waits
from melissa_gen.run_dir.events import Event, error_name, number_at

__all__ = ["LiveView", "event_text", "status_line", "status_view"]

KEPT_EVENTS = 6
SHOWN_RANKS = 4
STYLES = {
    "good": "green",
    "busy": "cyan",
    "bad": "red",
    "dim": "bright_black",
    "bright": "blue",
    "seen": "blue dim",
}


class LiveView:
    """Shows the state of a run while the block runs.

    In a terminal the view is redrawn in place. Otherwise a status line is printed every `interval`
    seconds, and each notable event on a separate line.

    Args:
        console: The console; default: standard output.
        interval: Seconds between status lines if the output is not a terminal.

    Example:
        >>> with LiveView() as view:
        ...     for event in follow(run_dir / "events.jsonl"):
        ...         view.event(event)
    """

    def __init__(self, console: Console | None = None, interval: float = 10.0) -> None:
        # Error messages and paths may contain brackets, which must not be read as markup.
        self.console = console or Console(markup=False)
        self.interval = interval
        self._status: Event = {}
        self._recent: deque[Event] = deque(maxlen=KEPT_EVENTS)
        self._study = ""
        self._printed_at = -math.inf
        self._live: Live | None = None

    def __enter__(self) -> Self:
        if self.console.is_terminal:
            self._live = Live(
                console=self.console,
                get_renderable=lambda: status_view(self._status, list(self._recent), self._study),
                refresh_per_second=4,
            )
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._live is not None:
            self._live.stop()
        elif self._status:
            self._print(status_line(self._status))

    def update(self, status: Mapping[str, Any]) -> None:
        """Shows a new status."""
        self._status = dict(status)
        now = time.monotonic()
        if self._live is None and now - self._printed_at >= self.interval:
            self._printed_at = now
            self._print(status_line(status))

    def say(self, text: str | Text) -> None:
        """Prints a result line."""
        say(self.console, text)

    def event(self, event: Event) -> None:
        """Handles an event: a status updates the view, notable events are listed, others are ignored."""
        if event.get("event") == "status":
            self.update(event)
            return
        if event.get("event") == "run_started":
            self._study = str(event.get("study") or "")
        text = event_text(event)
        if text is None:
            return
        self._recent.append(event)
        if self._live is None:
            self._print(f"{_clock(event)} {text.plain}")

    def _print(self, line: str) -> None:
        self.console.print(Text(line), soft_wrap=True)


def status_line(status: Mapping[str, Any]) -> str:
    """Formats a status as one line of `key=value` words, with fixed keys in a fixed order."""
    simulations = group_of(status, "simulations")
    values = {
        "elapsed": count(number_at(status, "elapsed")),
        "completed": count(number_at(simulations, "completed")),
        "running": count(number_at(simulations, "running")),
        "failed": count(number_at(simulations, "failed")),
        "planned": count(number_at(simulations, "planned")),
        "received": count(number_at(status, "samples", "received")),
        "samples_per_second": rate(number_at(status, "samples_per_second")),
        "megabytes_per_second": rate(number_at(status, "megabytes_per_second")),
        "unseen": count(_total(status, "unseen")),
        "stored": count(_total(status, "stored")),
        "batches": count(number_at(status, "training", "batches")),
        "loss": number(number_at(status, "training", "loss")),
        "validation_mean": number(number_at(status, "validation", "mean")),
        "generation": count(number_at(status, "sampler", "generation")),
        "sampler": str(group_of(status, "sampler").get("state") or "-").replace(" ", "_"),
    }
    words = (f"{key}={value.replace(',', '').replace('–', '-')}" for key, value in values.items())
    return "status " + " ".join(words)


def status_view(
    status: Mapping[str, Any],
    recent_events: Sequence[Event] = (),
    study: str = "",
    *,
    ended: bool = False,
) -> RenderableType:
    """Renders a status and the most recent events, for terminals of 80 x 24 characters and larger.

    Args:
        status: A `status` event; any key may be missing.
        recent_events: Events, oldest first; those that are not notable are omitted.
        study: Name of the study; default: the name in a `run_started` event among the events.
        ended: Whether the waiting times are those of the whole run, else those of the last second.
    """
    names = [event["study"] for event in recent_events if event.get("study")]
    table = Table.grid(padding=(0, 2), expand=True)
    table.add_column(style=STYLES["dim"], no_wrap=True, min_width=11)
    table.add_column(ratio=1, no_wrap=True, overflow="ellipsis")
    title = Text(study or (str(names[-1]) if names else "melissa-gen"), style="bold")
    title.append(f"   {_time(number_at(status, 'elapsed'))}", style=STYLES["dim"])
    table.add_row(Text("study"), title)
    _add_simulations(table, status)
    _add_samples(table, status)
    _add_reservoir(table, status)
    _add_training(table, status)
    _add_sampler(table, status)
    waits = who_waits(group_of(status, "waiting"), solved=solves(group_of(status, "clients")))
    waits += ", over the whole run" if ended else ""
    table.add_row("waiting", Text(waits, overflow="fold", no_wrap=False))
    # The seconds in `training` are those of the whole run.
    for name, parts in time_sentences(status if ended else {**status, "training": None}):
        table.add_row(name, Text(parts, overflow="fold" if ended else None, no_wrap=not ended))
    limit = bottleneck(status, trains="batches" in group_of(status, "training"))
    if ended and limit:
        told = Text(f"{limit.said} {limit.advice}".strip(), overflow="fold", no_wrap=False)
        table.add_row("bottleneck", told)
    lines = [(event, event_text(event)) for event in recent_events]
    notable = [(event, text) for event, text in lines if text is not None][-KEPT_EVENTS:]
    if notable:
        table.add_row("", "")
    for event, text in notable:
        table.add_row(_clock(event), text)
    return Padding(table, (0, 1))


def event_text(event: Event) -> Text | None:
    """Formats a notable event as one line; returns None for other events."""
    kind = event.get("event")

    def word(key: str) -> str:
        value = event.get(key)
        return "?" if value is None else " ".join(str(value).split())

    def size(key: str) -> str:
        return count(number_at(event, key))

    if kind == "run_started":
        ranks, clients = size("ranks"), size("clients")
        return Text(f"run started: {ranks} server rank(s), {clients} client(s)")
    if kind == "resumed":
        text = (
            f"resumed at batch {size('batches')}; simulations solved again: {size('solved_again')}"
        )
        return Text(text)
    if kind in ("server_ready", "memory_promised"):
        return _server_text(event, kind)
    if kind == "client_connected":
        return Text(f"client {word('job')} connected from {word('host')}", style=STYLES["dim"])
    if kind == "client_lost":
        return Text(f"client {word('job')} lost: {word('reason')}", style=STYLES["bad"])
    if kind == "client_failed":
        return Text(f"client {word('job')} failed: {word('reason')}", style=STYLES["bad"])
    if kind == "simulation_failed":
        dropped = "dropped" if event.get("dropped") else "will be tried again"
        text = f"simulation {word('simulation')} failed, {dropped}: {word('reason')}"
        return Text(text, style=STYLES["bad"])
    if kind == "generation":
        return _generation_text(event)
    if kind == "training_started":
        return Text(f"training started on {word('device')}, gradients by {word('gradients')}")
    if kind == "reception_over":
        return Text("all data received; training on the remaining samples")
    if kind == "validation":
        error = error_name(event)
        mean, worst = number_at(event, error, "mean"), number_at(event, error, "max")
        at = f"batch {size('batches')}"
        return Text(f"validation at {at}: {error.upper()} mean {number(mean)}, max {number(worst)}")
    if kind == "rescaled":
        return Text(_rescaled(event))
    if kind == "checkpoint":
        return Text(f"checkpoint {word('path')}", style=STYLES["dim"])
    if kind == "refused":
        text = f"refused {word('what')} ({size('count')}x): {word('reason')}"
        return Text(text, style=STYLES["bad"])
    if kind == "warning":
        return Text(word("message"), style="yellow")
    if kind == "stopping":
        return Text(f"stopping: {word('reason')}", style="yellow")
    if kind == "run_finished":
        good = event.get("status") == "finished"
        return Text(f"run {word('status')}", style=STYLES["good" if good else "bad"])
    return None


def _generation_text(event: Event) -> Text:
    made, adaptive, all_of_them, late, paced = (
        count(number_at(event, key))
        for key in ("generation", "adaptive", "suggested", "late", "paced")
    )
    text = f"generation {made}: {adaptive} of {all_of_them} adaptive, {late} late"
    if number_at(event, "paced") > 0:
        text = f"{text}, {paced} paced"
    return Text(f"{text}, {duration(number_at(event, 'seconds'))}")


def _server_text(event: Event, kind: str) -> Text:
    """Formats the start of the server, and the memory that it promises."""
    if kind == "server_ready":
        return Text(f"server ready after {duration(number_at(event, 'seconds'))}")
    text = f"memory: at most {count(number_at(event, 'promised_megabytes'))} MB in each server rank"
    control = number_at(event, "promised_megabytes_of_control")
    text += f", {count(control)} MB in the control process" * math.isfinite(control)
    return Text(text)


def _rescaled(event: Event) -> str:
    """Describes the change of the fields' scales, by the channel that changed most."""
    changes = []
    for name, one in (event.get("fields") or {}).items():
        widths = zip(one["previous_width"], one["width"], strict=True)
        before, now = max(widths, key=lambda pair: abs(math.log(pair[1] / pair[0])))
        changes.append(f"{name} from {number(before)} to {number(now)}")
    return f"the scale of the fields was adapted to the samples: {', '.join(changes)}"


class _Bar:
    """A progress bar in colored parts, with a text to its right.

    Args:
        parts: Length and style of each part, in the unit of `total`.
        total: Length of the whole bar.
        text: Text to the right of the bar.
        width: Columns reserved for the text, so that bars in consecutive rows have equal lengths.
    """

    def __init__(
        self, parts: Sequence[tuple[float, str]], total: float, text: Text, width: int
    ) -> None:
        self.parts, self.total, self.text, self.width = parts, total, text, width

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        room = max(8, min(50, options.max_width - self.width - 1))
        line = Text(no_wrap=True, overflow="ellipsis")
        total = self.total if math.isfinite(self.total) and self.total > 0 else 0.0
        reached, drawn = 0.0, 0
        for length, style in self.parts:
            reached += length if math.isfinite(length) else 0.0
            end = min(room, round(room * reached / total)) if total else 0
            if end == drawn < room and length > 0 and total:
                # Every non-zero part has at least one character.
                end = drawn + 1
            line.append("━" * max(0, end - drawn), style=style)
            drawn = max(drawn, end)
        line.append("━" * (room - drawn), style="grey23")
        line.append(" ")
        line.append_text(self.text)
        yield line


def _add_simulations(table: Table, status: Mapping[str, Any]) -> None:
    group = group_of(status, "simulations")
    planned, completed, failed, running = (
        number_at(group, key) for key in ("planned", "completed", "failed", "running")
    )
    text = Text(f"{count(completed)} of {count(planned)} done")
    parts = ((completed, STYLES["good"]), (failed, STYLES["bad"]), (running, STYLES["busy"]))
    table.add_row("simulations", _Bar(parts, planned, text, 22))
    line = Text(f"{count(running)} running", style=STYLES["busy"])
    for key, style in (("waiting", ""), ("retried", ""), ("failed", STYLES["bad"])):
        value = number_at(group, key)
        if key != "failed" or value > 0:
            line.append(" · ", style=STYLES["dim"])
            line.append(f"{count(value)} {key}", style=style)
    table.add_row("", line)
    jobs = group_of(status, "jobs")
    for key, where in (("queued", "in the queue of the scheduler"), ("starting", "starting")):
        value = number_at(jobs, key)
        if value > 0:
            table.add_row("", Text(f"{count(value)} client jobs {where}", style=STYLES["dim"]))


def _add_samples(table: Table, status: Mapping[str, Any]) -> None:
    samples = group_of(status, "samples")
    speed = number_at(status, "megabytes_per_second")
    line = Text(f"{count(number_at(samples, 'received'))} received")
    line.append(f" · {rate(number_at(status, 'samples_per_second'))} samples/s", style="bold")
    line.append(f" · {megabytes(speed)}/s", style="bold")
    for key in ("lost", "rejected", "duplicate"):
        value = number_at(samples, key)
        if value > 0:
            line.append(f" · {count(value)} {key}", style="" if key == "duplicate" else "red")
    table.add_row("samples", line)


def _add_reservoir(table: Table, status: Mapping[str, Any]) -> None:
    ranks = [rank for rank in status.get("reservoir") or [] if isinstance(rank, Mapping)]
    if not ranks:
        table.add_row("reservoir", Text("not filled yet", style=STYLES["dim"]))
        return
    wide = max(len(count(number_at(rank, "capacity"))) for rank in ranks)
    for place, rank in enumerate(ranks[:SHOWN_RANKS]):
        unseen, seen = number_at(rank, "unseen"), number_at(rank, "seen")
        text = Text(
            f"{count(number_at(rank, 'stored')):>{wide}} / {count(number_at(rank, 'capacity'))}"
        )
        text.append(f"  {count(unseen)} unseen", style=STYLES["bright"])
        parts = ((unseen, STYLES["bright"]), (seen, STYLES["seen"]))
        name = f"reservoir {place}" if len(ranks) > 1 else "reservoir"
        table.add_row(name, _Bar(parts, number_at(rank, "capacity"), text, 3 * wide + 12))
    if len(ranks) > SHOWN_RANKS:
        least = min(number_at(rank, "stored") for rank in ranks)
        most = max(number_at(rank, "stored") for rank in ranks)
        more = f"and {len(ranks) - SHOWN_RANKS} more ranks: {count(least)} to {count(most)} stored"
        table.add_row("", Text(more, style=STYLES["dim"]))


def _add_training(table: Table, status: Mapping[str, Any]) -> None:
    training = group_of(status, "training")
    line = Text(f"batch {count(number_at(training, 'batches'))}")
    line.append(f" · {rate(number_at(training, 'batches_per_second'))}/s")
    line.append(" · loss ")
    line.append(number(number_at(training, "loss")), style="bold")
    line.append(f" · learning rate {number(number_at(training, 'learning_rate'))}")
    table.add_row("training", line)
    validation = group_of(status, "validation")
    if not validation:
        table.add_row("validation", Text("none yet", style=STYLES["dim"]))
        return
    line = Text(f"{str(validation.get('error', 'nrmse')).upper()} mean ")
    line.append(number(number_at(validation, "mean")), style="bold")
    line.append(f" · p99 {number(number_at(validation, 'p99'))}")
    line.append(f" · max {number(number_at(validation, 'max'))}")
    table.add_row("validation", line)


def _add_sampler(table: Table, status: Mapping[str, Any]) -> None:
    sampler = group_of(status, "sampler")
    if not sampler:
        table.add_row("sampler", Text("not started", style=STYLES["dim"]))
        return
    line = Text(str(sampler.get("method") or "?"))
    line.append(f" · generation {count(number_at(sampler, 'generation'))}")
    line.append(f" · {count(number_at(sampler, 'adaptive'))} of ")
    line.append(f"{count(number_at(sampler, 'suggested'))} adaptive")
    if number_at(sampler, "late") > 0:
        line.append(f" · {count(number_at(sampler, 'late'))} late", style="yellow")
    if number_at(sampler, "paced") > 0:
        line.append(f" · {count(number_at(sampler, 'paced'))} paced", style="yellow")
    line.append(f" · {sampler.get('state') or '?'}", style=STYLES["dim"])
    table.add_row("sampler", line)


def _total(status: Mapping[str, Any], key: str) -> float:
    ranks = status.get("reservoir") or []
    return sum(number_at(rank, key) for rank in ranks) if ranks else math.nan


def _time(seconds: float) -> str:
    if not math.isfinite(seconds):
        return "starting"
    whole = int(seconds)
    return f"{whole // 3600:d}:{whole // 60 % 60:02d}:{whole % 60:02d}"


def _clock(event: Event) -> str:
    moment = number_at(event, "time")
    return time.strftime("%H:%M:%S", time.localtime(moment)) if math.isfinite(moment) else ""
