"""The control process of the server, as rank 0 sees it.

Control, heartbeats, ledger, sampler and event log run in a process of their own on rank 0's node, which rank 0 starts:
the interpreter of a trainer would keep a client waiting for milliseconds. This module imports neither torch nor
the samplers.
"""

import contextlib
import itertools
import subprocess
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, Any

from melissa_gen.errors import DataError, RunError, StudyError
from melissa_gen.protocol.contact import Contact
from melissa_gen.run_dir.checkpoint import begin_checkpoint
from melissa_gen.run_dir.checkpoint_folder import LATEST
from melissa_gen.run_dir.strict_json import plain
from melissa_gen.server.child_process import StartedProcess, ended_how
from melissa_gen.server.consumer import Consumer
from melissa_gen.server.link import Link
from melissa_gen.server.rank_state import SavedPart
from melissa_gen.server.setup import Checkpoint, RankSetup

if TYPE_CHECKING:
    from melissa_gen.surrogates import Surrogate

__all__ = ["ControlProcess"]

_POLL_SECONDS = 0.05
_END_SECONDS = 30.0
_ERRORS = {"StudyError": StudyError, "DataError": DataError}


class ControlProcess:
    """Passes on what rank 0 wants of the `Coordinator` in the process.

    The process ends with rank 0. Events and failures are sent without waiting; all other methods wait for an answer and
    raise the errors of the coordinator.

    Args:
        run_dir: The run directory.
        started: The process.
        lost: Ends all ranks of the server because this process has ended, or because it has found a rank that does not
            answer; takes the reason. Called in another thread.
    """

    def __init__(self, run_dir: Path, started: StartedProcess, lost: Callable[[str], None]) -> None:
        self._run_dir, self._lost = run_dir, lost
        self._process = started.process
        self._link = Link(started.descriptors[0])
        self._numbers = itertools.count(1)
        self._answers: dict[int, Future[Any]] = {}
        self._finished = False
        self._end_reason: str | None = None
        self._weights_wanted = False
        self._sending: threading.Thread | None = None
        threading.Thread(target=self._listen, name="control process", daemon=True).start()

    # What rank 0 wants.

    def open(self, setup: RankSetup, contact: Contact, checkpoint: Checkpoint | None) -> Contact:
        """Creates the coordinator; returns the contact with all endpoints.

        Args:
            setup: The study and this rank.
            contact: Secrets of this server process, and all ranks' data sockets.
            checkpoint: The checkpoint to continue from, or None.
        """
        text = self._ask(
            "open",
            ranks=setup.ranks,
            began=setup.began,
            cores=sorted(setup.ingest_cores) if setup.ingest_cores else None,
            contact=contact.to_json(),
            checkpoint=str(checkpoint.folder) if checkpoint else None,
        )
        return Contact.from_json(text)

    def start_serving(self, batches: int, restored: int) -> None:
        """Creates the first proposals and publishes the contact; called when all ranks are ready.

        Args:
            batches: Batches trained by earlier servers.
            restored: Samples of earlier servers that are in memory again.
        """
        self._ask("start_serving", batches=batches, restored=restored)

    def promise(self, each: float, control: float) -> None:
        """Records the memory limits of each rank and of the process (10**6 bytes)."""
        self._tell("promise", each=each, control=control)

    def event(self, event: str, **fields: Any) -> None:
        """Writes an event (any thread)."""
        self._tell("event", event=event, **plain({"time": time.time(), **fields}))

    def warn(self, message: str) -> None:
        """Writes a warning and shows it on the terminal."""
        self._tell("warn", message=message)

    def fail(self, reason: str) -> None:
        """Stops the study because something failed (any thread)."""
        self._tell("fail", reason=reason)

    def reach_goal(self, reason: str) -> None:
        """Ends the study as finished although not all simulations have run (any thread)."""
        self._tell("reach_goal", reason=reason)

    def offer(self, surrogate: "Surrogate", batches: int) -> None:
        """Sends the weights to the sampler if it has asked for them; called by the trainer between two steps.

        Args:
            surrogate: The surrogate in training.
            batches: Number of steps taken; an untrained surrogate is not sent.
        """
        if not self._weights_wanted or batches == 0:
            return
        # Copies of large weights must not pile up while the other process does not read.
        if self._sending is not None and self._sending.is_alive():
            return
        from melissa_gen.server.training.weights import copied, packed

        self._weights_wanted = False
        weights = copied(surrogate)

        def send() -> None:
            message = {"call": "weights", "arguments": {"batches": batches}}
            with contextlib.suppress(OSError):
                self._link.send(message, packed(weights))

        # The trainer does not wait until the other process has read them.
        self._sending = threading.Thread(target=send, name="weights", daemon=True)
        self._sending.start()

    def first_passes(self) -> dict[str, list[Any]]:
        """Returns `parameters`, `losses` and `weights` of simulations that training has used, in a run with a sampler.

        These are the simulations that the bounds of the surrogate's error need.
        """
        found: dict[str, list[Any]] = self._ask("first_passes")
        return found

    def begin_checkpoint(self, name: str, consumer: Consumer) -> None:
        """Creates the folder of a checkpoint, writes the model, and takes the state of the coordinator.

        This must be called before the states of the ranks are taken: all samples of a simulation that is finished in
        this state are then in the states of the ranks. An error stops the study.

        Args:
            name: Name of the folder in `checkpoints`.
            consumer: Consumer of this rank, which writes the model.
        """
        state: dict[str, Any] = {"began": time.monotonic(), "batches": consumer.progress}
        state["fit"] = consumer.fit_to_save
        try:
            folder = begin_checkpoint(self._run_dir / "checkpoints" / name)
            if state["fit"]:
                state |= consumer.save_model(folder)
        except (OSError, RunError) as error:
            self.fail(f"can't write the checkpoint: {error}")
        self._ask("begin_checkpoint", state=state)

    def publish_when_written(self, number: int, canceled: threading.Event) -> None:
        """Publishes the checkpoint `latest` as soon as all ranks have reported that their part is on disk (any thread).

        Args:
            number: Number of the checkpoint.
            canceled: Ends the wait.
        """
        while not self._ask("publish_if_written", name=LATEST, number=number):
            if canceled.wait(_POLL_SECONDS):
                return

    def publish(self, name: str, parts: list[SavedPart]) -> None:
        """Publishes a checkpoint of which all ranks have written their part; a full disk stops the study.

        Args:
            name: Name of the folder in `checkpoints`.
            parts: What the ranks have written.
        """
        self._ask("publish", name=name, parts=parts)

    @property
    def handing_over(self) -> bool:
        """Whether another server continues the study."""
        return bool(self._ask("handing_over"))

    def end_control(self) -> None:
        """Ends the sampler, and waits for the last reports of all ranks."""
        self._ask("end_control")

    def outcome(
        self, stopped: str | None, flaw: str | None, *, handover: bool
    ) -> tuple[str, str | None]:
        """Returns the status of the study at its end, and the reason unless it is `finished`.

        Args:
            stopped: The reason why this rank's consumer was stopped early, or None.
            flaw: The `flaw` of this rank's consumer.
            handover: Whether another server continues.
        """
        status, reason = self._ask("outcome", stopped=stopped, flaw=flaw, handover=handover)
        return status, reason

    def finish(
        self,
        stopped: str | None,
        flaw: str | None,
        peaks: list[float],
        results: dict[str, Any],
        *,
        handover: bool,
    ) -> None:
        """Ends the process, which writes the results unless another server continues.

        Args:
            stopped: The reason why the study was stopped early, or None.
            flaw: The `flaw` of this rank's consumer.
            peaks: The peak memory of each rank (10**6 bytes).
            results: The sections of consumer and side sinks in the summary.
            handover: Whether another server continues.
        """
        last = {"stopped": stopped, "flaw": flaw, "peaks": peaks, "handover": handover}
        self._ask("finish", results=plain(results), **last)
        # What its sockets still hold is sent within their linger time.
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_END_SECONDS)

    # Messages.

    def _tell(self, call: str, **arguments: Any) -> None:
        # The listening thread ends the server if the process has ended.
        with contextlib.suppress(OSError):
            self._link.send({"call": call, "arguments": arguments})

    def _ask(self, call: str, **arguments: Any) -> Any:
        number, answer = next(self._numbers), Future[Any]()
        self._answers[number] = answer
        message = {"call": call, "number": number, "arguments": arguments}
        with contextlib.suppress(OSError):
            self._link.send(message)
        if self._end_reason is not None:
            raise RunError(self._end_reason)
        return answer.result()

    def _listen(self) -> None:
        try:
            while True:
                message, _ = self._link.receive()
                self._take(message)
        except EOFError:
            if not self._finished:
                self._end(f"the control process of the server has ended {ended_how(self._process)}")
        except Exception as error:
            # Without this thread, no call would be answered.
            self._end(f"a message of the control process can't be read: {error!r}")

    def _take(self, message: dict[str, Any]) -> None:
        if "lost" in message:
            self._end(message["lost"])
        elif "number" not in message:
            self._weights_wanted = True
        else:
            self._finished = message.get("last", False)
            answer = self._answers.pop(message["number"])
            if "error" in message:
                kind = _ERRORS.get(message["kind"], RunError)
                answer.set_exception(kind(message["error"]))
            else:
                answer.set_result(message["value"])

    def _end(self, reason: str) -> None:
        self._end_reason = reason
        for answer in list(self._answers.values()):
            if not answer.done():
                answer.set_exception(RunError(reason))
        self._lost(reason)
