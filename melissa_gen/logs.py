"""Configuration of the standard `logging` module in the processes of a run.

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
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

__all__ = [
    "LEVELS",
    "LEVEL_VARIABLE",
    "LineFormatter",
    "WarningCollector",
    "configure_process",
    "configured_command",
    "level_environment",
    "log_thread_error",
    "message_of",
    "run_log",
    "warnings_shown",
]

LEVEL_VARIABLE = "MELISSA_GEN_LOG_LEVEL"
"""Environment variable by which the launcher passes the level to the processes that it starts."""
LEVELS = ("debug", "info", "warning", "error")

_log = logging.getLogger(__name__)

_PACKAGE = "melissa_gen"
_PYTHON_WARNINGS = "py.warnings"
"""Logger to which `logging.captureWarnings` redirects the warnings of the module `warnings`."""
_LINE = re.compile(
    r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} (?:DEBUG|INFO|WARNING|ERROR|CRITICAL) [^\[\]]+ \[\d+\] [\w.]+: "
)


class LineFormatter(logging.Formatter):
    """Formats a record as a line of a log file.

    Args:
        process: Role of this process in the run, for example `launcher` or `server`.
        rank: MPI rank of this process; None for a process without ranks.
    """

    def __init__(self, process: str, rank: int | None = None) -> None:
        who = (process if rank is None else f"{process} rank {rank}").replace("%", "%%")
        super().__init__(
            f"%(asctime)s.%(msecs)03d %(levelname)s {who} [%(process)d] %(name)s: %(message)s",
            "%Y-%m-%d %H:%M:%S",
        )


def log_thread_error(error: threading.ExceptHookArgs) -> None:
    """Logs an error that has ended a thread as one line, and with its traceback at the level debug.

    It takes the place of `threading.excepthook`. Threads of melissa_gen handle their errors. Those of libraries, such
    as the writer of TensorBoard, raise them again in the thread that uses them; a full disk needs no traceback.
    SystemExit ends a thread without an error, as in Python itself.
    """
    if issubclass(error.exc_type, SystemExit):
        return
    name = error.thread.name if error.thread else "unknown"
    trace = error.exc_value if isinstance(error.exc_value, Exception) else None
    _log.warning("the thread %s has ended: %s: %s", name, error.exc_type.__name__, error.exc_value)
    _log.debug("its traceback:", exc_info=trace)


class WarningCollector(logging.Handler):
    """Collects the warnings and errors of a process, each text once, until `take` is called.

    Every rank of the server has a collector. Each rank reports the texts of `take` to rank 0, which passes them to
    `accept` of its own collector. Rank 0 writes the texts of its own `take` as `warning` events, which the launcher
    shows. A warning of all ranks is therefore shown once. All methods are thread-safe.

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
        """Adds the text of a record."""
        self.accept([_text_of(record)])

    def accept(self, texts: Iterable[str]) -> None:
        """Adds texts, for example of other ranks. Texts that were added before are ignored."""
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
    """Prints records to standard error, except those that a live view shows.

    `sys.stderr` is looked up for each record, because a live view replaces it to print above the view.
    """

    def emit(self, record: logging.LogRecord) -> None:
        if getattr(record, "shown_in_view", False):
            return
        level = f"{record.levelname.lower()}: " if record.levelno >= logging.WARNING else ""
        try:
            print(f"melissa-gen: {level}{_text_of(record)}", file=sys.stderr, flush=True)
        except Exception:
            self.handleError(record)


class _LogFile(logging.FileHandler):
    """Appends records to a file. If the disk is full, lines are lost, which is said once on standard error."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, encoding="utf-8")
        self._said = False

    def handleError(self, record: logging.LogRecord) -> None:
        """Handles an error while a record is written; called by `logging`."""
        error = sys.exception()
        if not isinstance(error, OSError):
            super().handleError(record)
        elif not self._said:
            self._said = True
            text = (
                f"can't write to the log {self.baseFilename}: {error.strerror}; its lines are lost"
            )
            print(f"melissa-gen: warning: {text}", file=sys.stderr, flush=True)

    def close(self) -> None:
        """Closes the file; what a full disk does not take is lost."""
        with suppress(OSError):
            super().close()


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
    """Configures logging in a process that the launcher starts.

    Lines are written to standard error, which the launcher redirects to the log file of the process.

    Args:
        process: Role of this process, for example `server`.
        rank: MPI rank of this process; None for a process without ranks.
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

    Warnings are printed to standard error. The level of the log files is passed to the processes of a run in the
    environment variable `MELISSA_GEN_LOG_LEVEL`.

    Args:
        level: Minimum level of messages in log files, one of `LEVELS`; default: the level of the environment, or
            `info`.
        file: Additional log file of this process.
        verbose: 1 also prints messages of level `info`, 2 also those of level `debug`.
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
    """Writes the messages of the launcher to the log file of a run while the block runs.

    Args:
        path: The file, usually `logs/launcher.log` of the run directory. Lines are appended.
    """
    with ExitStack() as stack:
        _attach_to_package(stack, _file_handler(path, "launcher", _level_of(os.environ)))
        yield


@contextmanager
def warnings_shown(show: Callable[[str], None]) -> Iterator[None]:
    """Shows the warnings and errors of this process in a view instead of on standard error while the block runs.

    Args:
        show: Function that shows the text of a warning.
    """
    with ExitStack() as stack:
        _attach_to_package(stack, _ViewHandler(show))
        yield


def level_environment(environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """Returns the environment variable that passes the log level to a job; {} if the level is the default.

    Args:
        environment: The environment; default: `os.environ`.
    """
    given = os.environ if environment is None else environment
    return {LEVEL_VARIABLE: given[LEVEL_VARIABLE]} if LEVEL_VARIABLE in given else {}


def message_of(line: str) -> str:
    """Returns a line of a log file without time, level, process and logger. Other lines are unchanged."""
    found = _LINE.match(line)
    return line[found.end() :] if found else line


def _text_of(record: logging.LogRecord) -> str:
    """Returns the message of a record as one line, without the source line that the module `warnings` adds."""
    text = record.getMessage()
    if record.name == _PYTHON_WARNINGS:
        text = text.partition("\n")[0]
    return " ".join(text.split())


def _level_of(environment: Mapping[str, str]) -> int:
    word = environment.get(LEVEL_VARIABLE, "info").lower()
    return getattr(logging, word.upper()) if word in LEVELS else logging.INFO


def _set_levels(level: int) -> None:
    """Sets the minimum level of messages: `level` for melissa_gen, at least `warning` for other packages."""
    _set_raw_levels(max(level, logging.WARNING), level)


def _set_raw_levels(root: int, package: int) -> None:
    logging.getLogger().setLevel(root)
    logging.getLogger(_PACKAGE).setLevel(package)


def _restore_level(before: str | None) -> None:
    os.environ.pop(LEVEL_VARIABLE, None)
    if before is not None:
        os.environ[LEVEL_VARIABLE] = before


def _file_handler(path: Path, process: str, level: int) -> logging.Handler:
    handler = _LogFile(path)
    handler.setFormatter(LineFormatter(process))
    handler.setLevel(level)
    return handler


def _attach_to_package(stack: ExitStack, handler: logging.Handler) -> None:
    """Attaches a handler to the loggers of melissa_gen and of Python warnings."""
    for name in (_PACKAGE, _PYTHON_WARNINGS):
        _attach(stack, handler, logging.getLogger(name))


def _attach(stack: ExitStack, handler: logging.Handler, logger: logging.Logger) -> None:
    logger.addHandler(handler)
    stack.callback(handler.close)
    stack.callback(logger.removeHandler, handler)
