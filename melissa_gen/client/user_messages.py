"""Messages of the client that must reach the user, also in an application that has not configured logging."""

import logging
import sys

__all__ = ["show_user"]


def show_user(
    log: logging.Logger, level: int, text: str, error: BaseException | None = None
) -> None:
    """Logs a message; if the application has configured no logging, writes it to the standard error.

    Args:
        log: Logger of the calling module.
        level: Level of the message, for example `logging.ERROR`.
        text: The message.
        error: An exception whose traceback follows the message.
    """
    if _is_configured(log):
        log.log(level, "%s", text, exc_info=error)
        return
    info = None if error is None else (type(error), error, error.__traceback__)
    record = log.makeRecord(log.name, level, "", 0, "%s", (text,), info)
    handler = logging.StreamHandler(sys.stderr)
    handler.handle(record)
    handler.flush()


def _is_configured(log: logging.Logger) -> bool:
    """Returns whether a handler other than the library's own `NullHandler` would get a record."""
    current: logging.Logger | None = log
    while current is not None:
        if any(not isinstance(handler, logging.NullHandler) for handler in current.handlers):
            return True
        current = current.parent if current.propagate else None
    return False
