"""Publishes the contact of a server while its main thread still prepares the training."""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path

from melissa_gen.server.setup import wait_for_sets

__all__ = ["EarlyService"]


class EarlyService:
    """Waits for the validation sets on a thread, and publishes the contact once they are complete.

    Solvers that make the sets and solvers of the study itself never run at the same time.

    Args:
        run_dir: The run directory.
        serve: Publishes the contact.
    """

    def __init__(self, run_dir: Path, serve: Callable[[], None]) -> None:
        self._run_dir, self._serve = run_dir, serve
        self._done: Future[None] = Future()
        threading.Thread(target=self._run, name="early service", daemon=True).start()

    def wait(self) -> None:
        """Waits until the contact is public.

        Raises:
            RunError: The launcher has ended before the validation sets were complete.
            Exception: Any other error of the thread.
        """
        self._done.result()

    def _run(self) -> None:
        try:
            wait_for_sets(self._run_dir)
            self._serve()
        except BaseException as error:
            self._done.set_exception(error)
        else:
            self._done.set_result(None)
