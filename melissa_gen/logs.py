"""Set-up of the standard `logging` module in the processes of a run.

Every module logs to `logging.getLogger(__name__)`, and importing melissa_gen configures nothing. Only entry points
call the functions below: the command line `configured_command`, the server's ranks and the bridge `configure_process`.
A line of a log file names the time, the level, the process, its rank and the logger:

    2026-03-01 12:00:00.250 WARNING server rank 1 [4711] melissa_gen.server.rank: the message

The module imports nothing of melissa_gen, so that every package may use it.
"""

import logging
import os
import re
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

__all__ = [
    "LEVELS",
    "LEVEL_VARIABLE",
    "LineFormatter",
    "WarningCollector",
    "configure_process",
    "configured_command",
    "level_environment",
    "message_of",
    "run_log",
    "warnings_shown",
]

LEVEL_VARIABLE = "MELISSA_GEN_LOG_LEVEL"
"""Environment variable by which the launcher passes the level to the processes that it starts."""
LEVELS = ("debug", "info", "warning", "error")

_PACKAGE = "melissa_gen"
_PYTHON_WARNINGS = "py.warnings"
"""The logger that `logging.captureWarnings` sends the warnings of the module `warnings` to."""
_LINE = re.compile(
    r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} (?:DEBUG|INFO|WARNING|ERROR|CRITICAL) [^\[\]]+ \[\d+\] [\w.]+: "
)


class LineFormatter(logging.Formatter):
    """Formats a record as a line of a log file.

    Args:
        process: What this process is in the run, for example `launcher` or `server`.
        rank: Its MPI rank; None for a process without ranks.
    """

    def __init__(self, process: str, rank: int | None = None) -> None:
        who = (process if rank is None else f"{process} rank {rank}").replace("%", "%%")
        super().__init__(
            f"%(asctime)s.%(msecs)03d %(levelname)s {who} [%(process)d] %(name)s: %(message)s",
            "%Y-%m-%d %H:%M:%S",
        )


class WarningCollector(logging.Handler):
    """Keeps the warnings and errors of a process, each text once, until they are taken.

    Every rank of the server has one. A rank's report carries what `take` returns; rank 0 passes that to `accept` of
    its own collector, and writes what its own `take` returns as `warning` events, which the launcher shows. A warning
    that all ranks give is thereby shown once. All methods may be called from any thread.

    Example:
        >>> collector = WarningCollector()
        >>> logging.getLogger().addHandler(collector)
        >>> logging.getLogger("melissa_gen.server").warning("the disk is almost full")
        >>> collector.take()
        ['the disk is almost full']
    """

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._texts: list[str] = []
        self._known: set[str] = set()
        self._texts_lock = threading.Lock()

    def emit(self, record: logging.LogRecord) -> None:
        """Keeps the text of a record."""
        self.accept([_text_of(record)])

    def accept(self, texts: Iterable[str]) -> None:
        """Adds texts, for example those of other ranks; a text that was added before is left out."""
        with self._texts_lock:
            for text in texts:
                if text not in self._known:
                    self._known.add(text)
                    self._texts.append(text)

    def take(self) -> list[str]:
        """Returns the texts that were added since the last call."""
        with self._texts_lock:
            found, self._texts = self._texts, []
        return found


class _TerminalHandler(logging.Handler):
    """Prints records to the standard error, except those that a live view shows.

    The stream is looked up for each record: a live view replaces it to print above its picture.
    """

    def emit(self, record: logging.LogRecord) -> None:
        if getattr(record, "shown_in_view", False):
            return
        level = f"{record.levelname.lower()}: " if record.levelno >= logging.WARNING else ""
        try:
            print(f"melissa-gen: {level}{_text_of(record)}", file=sys.stderr, flush=True)
        except Exception:
            self.handleError(record)


class _ViewHandler(logging.Handler):
    """Shows warnings and errors in a view, and marks their records as shown."""

    def __init__(self, show: Callable[[str], None]) -> None:
        super().__init__(logging.WARNING)
        self._show = show

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._show(_text_of(record))
            record.shown_in_view = True
        except Exception:
            self.handleError(record)


def configure_process(process: str, rank: int | None = None) -> None:
    """Configures logging of a process that the launcher starts: its lines go to its standard error, which is its log.

    Args:
        process: What this process is, for example `server`.
        rank: Its MPI rank; None for a process without ranks.
    """
    stream = logging.StreamHandler()
    stream.setFormatter(LineFormatter(process, rank))
    logging.getLogger().addHandler(stream)
    _set_levels(_level_of(os.environ))
    logging.captureWarnings(True)


@contextmanager
def configured_command(
    level: str | None = None, file: Path | None = None, verbose: int = 0
) -> Iterator[None]:
    """Configures logging of the command line while the block runs.

    Warnings are printed to the standard error. The level of the log files is passed on to the processes of a run by
    the environment variable `MELISSA_GEN_LOG_LEVEL`.

    Args:
        level: Least level of what is written to log files, one of `LEVELS`; default: that of the environment, or
            `info`.
        file: A file to which this process's lines are written in addition to the log of its run.
        verbose: 1 also prints messages of level `info`, 2 those of level `debug`.
    """
    root = logging.getLogger()
    terminal = _TerminalHandler()
    terminal.setLevel({0: logging.WARNING, 1: logging.INFO}.get(verbose, logging.DEBUG))
    with ExitStack() as stack:
        before = os.environ.get(LEVEL_VARIABLE)
        if level is not None:
            stack.callback(_restore_level, before)
            os.environ[LEVEL_VARIABLE] = level
        stack.callback(_set_raw_levels, root.level, logging.getLogger(_PACKAGE).level)
        _set_levels(min(_level_of(os.environ), terminal.level))
        _attach(stack, terminal, root)
        if file is not None:
            _attach(stack, _file_handler(file, "launcher", _level_of(os.environ)), root)
        logging.captureWarnings(True)
        stack.callback(logging.captureWarnings, False)
        yield


@contextmanager
def run_log(path: Path) -> Iterator[None]:
    """Writes the launcher's lines to the log of a run while the block runs.

    Args:
        path: The file, usually `logs/launcher.log` of the run directory; lines are appended.
    """
    with ExitStack() as stack:
        _attach_to_ours(stack, _file_handler(path, "launcher", _level_of(os.environ)))
        yield


@contextmanager
def warnings_shown(show: Callable[[str], None]) -> Iterator[None]:
    """Shows this process's warnings and errors in a view while the block runs, and not on the standard error.

    Args:
        show: Shows the text of a warning.
    """
    with ExitStack() as stack:
        _attach_to_ours(stack, _ViewHandler(show))
        yield


def level_environment(environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """Returns the variable that passes the level on to a job; {} where the level is the default.

    Args:
        environment: Usually `os.environ`, which is the default.
    """
    given = os.environ if environment is None else environment
    return {LEVEL_VARIABLE: given[LEVEL_VARIABLE]} if LEVEL_VARIABLE in given else {}


def message_of(line: str) -> str:
    """Returns a line of a log without time, level, process and logger; any other line is returned as it is."""
    found = _LINE.match(line)
    return line[found.end() :] if found else line


def _text_of(record: logging.LogRecord) -> str:
    """Returns a record's message as one line.

    `warnings.formatwarning` puts the source line below the message. It is left out.
    """
    text = record.getMessage()
    if record.name == _PYTHON_WARNINGS:
        text = text.partition("\n")[0]
    return " ".join(text.split())


def _level_of(environment: Mapping[str, str]) -> int:
    word = environment.get(LEVEL_VARIABLE, "info").lower()
    return getattr(logging, word.upper()) if word in LEVELS else logging.INFO


def _set_levels(level: int) -> None:
    """Lets messages of melissa_gen through from `level` on, those of other packages from `warning` on."""
    _set_raw_levels(max(level, logging.WARNING), level)


def _set_raw_levels(root: int, package: int) -> None:
    logging.getLogger().setLevel(root)
    logging.getLogger(_PACKAGE).setLevel(package)


def _restore_level(before: str | None) -> None:
    os.environ.pop(LEVEL_VARIABLE, None)
    if before is not None:
        os.environ[LEVEL_VARIABLE] = before


def _file_handler(path: Path, process: str, level: int) -> logging.Handler:
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(LineFormatter(process))
    handler.setLevel(level)
    return handler


def _attach_to_ours(stack: ExitStack, handler: logging.Handler) -> None:
    """Attaches a handler for the messages of melissa_gen and for the warnings of Python."""
    for name in (_PACKAGE, _PYTHON_WARNINGS):
        _attach(stack, handler, logging.getLogger(name))


def _attach(stack: ExitStack, handler: logging.Handler, logger: logging.Logger) -> None:
    logger.addHandler(handler)
    stack.callback(handler.close)
    stack.callback(logger.removeHandler, handler)
