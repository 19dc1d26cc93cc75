"""Interface of the views that the launcher shows, and the view of runs without a trainer."""

import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Protocol, Self

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from melissa_gen.run_dir.events import Event, number_at

__all__ = ["DataSetView", "RunView", "print_table", "say"]


class RunView(Protocol):
    """Shows a run while the block runs. `LiveView` and `DataSetView` implement this interface."""

    console: Console

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...

    def update(self, status: Mapping[str, Any]) -> None:
        """Shows a new status."""
        ...

    def event(self, event: Event) -> None:
        """Shows an event if it is notable."""
        ...

    def say(self, text: str | Text) -> None:
        """Prints a result line."""
        ...


def say(console: Console, text: str | Text) -> None:
    """Prints a line without markup, highlighting and wrapping."""
    console.print(text, soft_wrap=True, highlight=False)


def print_table(console: Console, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Prints a transposed table, because few rows with many columns are too wide for a terminal.

    Args:
        console: The console. If it is not a terminal, lines are not wrapped.
        columns: Headings of the columns, which become rows.
        rows: Cells of each row. The first cell becomes the heading of a column.
    """
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column(columns[0])
    for row in rows:
        table.add_column(row[0], justify="right", overflow="fold")
    for place, name in enumerate(columns[1:], 1):
        table.add_row(name, *(row[place] for row in rows))
    if not console.is_terminal:
        console.width = max(console.measure(table).maximum, 80)
    console.print(table, highlight=False)


class DataSetView:
    """Shows the progress of a data set: one line, or two if the output is not a terminal.

    Args:
        console: The console.
        title: Description of the data set.
        samples: Total number of samples.
    """

    def __init__(self, console: Console, title: str, samples: int) -> None:
        self.console = console
        self._title, self._total = title, samples
        self._status = console.status(title) if console.is_terminal else None
        self._began = time.monotonic()
        self._problems: set[str] = set()

    def __enter__(self) -> Self:
        self._began = time.monotonic()
        if self._status is not None:
            self._status.start()
        else:
            self.say(f"{self._title} ...")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._status is not None:
            self._status.stop()
        if kind is None:
            self.say(f"{self._title} in {time.monotonic() - self._began:.1f} s")

    def update(self, status: Mapping[str, Any]) -> None:
        """Shows the percentage of samples received."""
        received = number_at(status, "samples", "received")
        if self._status is not None and self._total and received == received:
            self._status.update(f"{self._title}, {100 * received / self._total:.0f} %")

    def event(self, event: Event) -> None:
        """Prints warnings, refused messages and failed simulations, each text once."""
        text = ""
        if event.get("event") == "warning":
            text = str(event.get("message", ""))
        elif event.get("event") == "simulation_failed":
            text = f"simulation {event.get('simulation')} failed: {event.get('reason')}"
        elif event.get("event") == "client_failed":
            text = f"client {event.get('job')} failed: {event.get('reason')}"
        elif event.get("event") == "refused":
            text = f"refused ({event.get('what')}): {event.get('reason')}"
        if text and text not in self._problems:
            self._problems.add(text)
            self.say(text)

    def say(self, text: str | Text) -> None:
        """Prints a line."""
        say(self.console, text)
