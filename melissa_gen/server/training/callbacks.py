"""Calls the user's callbacks during training, on rank 0."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from melissa_gen.builders.training import CALLBACK_METHODS
from melissa_gen.surrogates import Surrogate

__all__ = ["Callbacks", "Progress"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Progress:
    """State of the training that a callback receives.

    Attributes:
        batches: Batches trained so far.
        loss: Running mean of the loss.
        learning_rate: Learning rate of the next step.
        surrogate: The surrogate. A callback must not change it: the other ranks would keep other weights.
        errors: Statistics of the errors of the validation, such as `mean` and `p99`; empty if none was made.
    """

    batches: int
    loss: float
    learning_rate: float
    surrogate: Surrogate
    errors: dict[str, float] = field(default_factory=dict)


class Callbacks:
    """The callbacks of a study. One that raises an exception is not called again, and training continues.

    Args:
        callbacks: Name of each callback in messages, and the object; it has any of the methods `on_batch`,
            `on_validation` and `on_end`, which take a `Progress`.
    """

    def __init__(self, callbacks: Sequence[tuple[str, object]]) -> None:
        self._methods: dict[str, list[tuple[str, object, Callable[[Progress], object]]]] = {
            event: [
                (name, one, getattr(one, event)) for name, one in callbacks if hasattr(one, event)
            ]
            for event in CALLBACK_METHODS
        }

    def call(self, event: str, progress: Callable[[], Progress]) -> None:
        """Calls a method of all callbacks.

        Args:
            event: One of `CALLBACK_METHODS`.
            progress: Returns what they receive; called only if there is a callback.
        """
        if not self._methods[event]:
            return
        given = progress()
        for name, one, method in tuple(self._methods[event]):
            try:
                method(given)
            except Exception as error:
                _log.warning(
                    "training.callbacks: %s.%s failed at batch %d and is not called again: %s: %s",
                    name,
                    event,
                    given.batches,
                    type(error).__name__,
                    error,
                    exc_info=_log.isEnabledFor(logging.DEBUG),
                )
                self._remove(one)

    def _remove(self, callback: object) -> None:
        for event, methods in self._methods.items():
            self._methods[event] = [entry for entry in methods if entry[1] is not callback]
