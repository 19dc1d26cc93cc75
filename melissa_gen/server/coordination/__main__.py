"""The control process, which rank 0 of the server starts as `python -m melissa_gen.server.coordination`."""

import logging
import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import zmq

from melissa_gen.builders.descriptors import check_server_limit
from melissa_gen.errors import MelissaGenError
from melissa_gen.logs import WarningCollector
from melissa_gen.protocol.authenticator import Authenticator
from melissa_gen.protocol.contact import Contact
from melissa_gen.run_dir.checkpoint_folder import read_state
from melissa_gen.run_dir.server_failure import write_server_failure
from melissa_gen.server.child_process import run_child
from melissa_gen.server.coordination.coordinator import Coordinator
from melissa_gen.server.link import Link
from melissa_gen.server.rank_state import SavedPart
from melissa_gen.server.setup import Checkpoint, RankSetup
from melissa_gen.server.training.thread_placement import shorten_gil_switch_interval

_log = logging.getLogger("melissa_gen.server.coordination")

_SLOW = ("publish", "publish_if_written")
"""Calls that may write large files."""
_ABORT_SECONDS = 2.0
"""Time that rank 0 may take to end all ranks, before it counts as the one that does not answer."""


class _Service:
    """Answers the calls of rank 0 until its last one.

    Args:
        run_dir: The run directory.
        link: The connection to rank 0.
        rank_0: Process id of rank 0.
        warnings: The warnings of this process.
    """

    def __init__(self, run_dir: Path, link: Link, rank_0: int, warnings: WarningCollector) -> None:
        self._run_dir, self._link, self._rank_0, self._warnings = run_dir, link, rank_0, warnings
        self._context: zmq.Context[Any] = zmq.Context()
        self._calls: dict[str, Callable[..., Any]] = {"open": self._open}

    def run(self) -> None:
        """Handles calls.

        Raises:
            EOFError: Rank 0 has ended before its last call.
        """
        last = False
        while not last:
            message, payload = self._link.receive()
            call, arguments = message["call"], message["arguments"]
            if payload:
                arguments["payload"] = payload
            if "number" not in message:
                self._calls[call](**arguments)
            elif call in _SLOW:
                # Messages of the trainer must not wait for a disk.
                work = threading.Thread(
                    target=self._answer, args=(message,), name=call, daemon=True
                )
                work.start()
            else:
                last = self._answer(message)
        # Sends what is queued, for at most the linger time of the sockets: all of them are closed now.
        self._context.term()

    def _answer(self, message: dict[str, Any]) -> bool:
        """Carries out a call and sends its answer; returns whether it was the last one."""
        call = message["call"]
        answer: dict[str, Any] = {"number": message["number"], "last": call == "finish"}
        try:
            answer["value"] = self._calls[call](**message["arguments"])
        except MelissaGenError as error:
            answer |= {"error": str(error), "kind": type(error).__name__}
        except Exception as error:
            _log.exception("the control process can't carry out '%s'", call)
            answer |= {"error": f"{type(error).__name__}: {error}", "kind": "RunError"}
        self._link.send(answer)
        return call == "finish" and "error" not in answer

    def _open(
        self,
        ranks: int,
        began: float,
        cores: list[int] | None,
        contact: str,
        checkpoint: str | None,
    ) -> str:
        """Creates the coordinator; returns the contact with its endpoints."""
        if cores is not None:
            os.sched_setaffinity(0, cores)
        setup = replace(RankSetup.read(self._run_dir, 0, ranks), began=began)
        check_server_limit(setup.study)
        # Torch reads it when the sampler imports it.
        os.environ["OMP_NUM_THREADS"] = str(setup.study.server.threads)
        used = Checkpoint(Path(checkpoint), read_state(Path(checkpoint))) if checkpoint else None
        coordinator = Coordinator(
            setup,
            self._context,
            Contact.from_json(contact),
            used,
            self._abort,
            Authenticator(self._context, Contact.from_json(contact)),
            lambda: self._link.send({"wanted": "weights"}),
            self._warnings.take,
        )
        self._calls |= {
            "start_serving": coordinator.start_serving,
            "promise": coordinator.promise,
            "event": coordinator.event,
            "warn": coordinator.warn,
            "fail": coordinator.fail,
            "reach_goal": coordinator.reach_goal,
            "weights": coordinator.add_weights,
            "first_passes": coordinator.first_passes,
            "begin_checkpoint": coordinator.begin_checkpoint,
            "publish_if_written": coordinator.publish_if_written,
            "publish": lambda name, parts: coordinator.publish(name, _saved(parts)),
            "handing_over": lambda: coordinator.handing_over,
            "end_control": coordinator.end_control,
            "outcome": coordinator.outcome,
            "finish": coordinator.finish,
        }
        return coordinator.contact.to_json()

    def _abort(self, reason: str) -> None:
        """Lets rank 0 end all ranks; a rank 0 that does not answer is killed, and with it all others."""
        write_server_failure(self._run_dir, reason)
        # In another thread: a rank 0 that is frozen may not read.
        message = {"lost": reason}
        threading.Thread(target=self._link.send, args=(message,), daemon=True).start()
        time.sleep(_ABORT_SECONDS)
        os.kill(self._rank_0, signal.SIGKILL)


def _saved(parts: list[list[Any]]) -> list[SavedPart]:
    return [SavedPart(*part) for part in parts]


def main() -> None:
    """Runs the process."""
    run_child(_run)


def _run(run_dir: Path, descriptors: list[int], rank_0: int, warnings: WarningCollector) -> None:
    shorten_gil_switch_interval()
    _Service(run_dir, Link(descriptors[0]), rank_0, warnings).run()


if __name__ == "__main__":
    main()
