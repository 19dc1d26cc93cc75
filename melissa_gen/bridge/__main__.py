"""Entry point of the bridge, `python -m melissa_gen.bridge JOB.json`, which the launcher starts."""

import logging
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import NoReturn

from melissa_gen.bridge.job_file import BridgeJob
from melissa_gen.bridge.solve import solve
from melissa_gen.client import Client
from melissa_gen.errors import MelissaGenError, ServerLost
from melissa_gen.logs import configure_process

_log = logging.getLogger("melissa_gen.bridge")


class _EndedError(BaseException):
    """A signal has asked this process to end. The command is ended while the exception propagates."""


def _end(number: int, frame: FrameType | None) -> NoReturn:
    for one in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(one, signal.SIG_IGN)
    raise _EndedError


def main() -> None:
    """Solves simulations until there are no more."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, _end)
    configure_process("bridge")
    job = BridgeJob.read(Path(sys.argv[1]))
    try:
        with Client() as client:
            for name, field in job.simulation.fields.items():
                client.field(name, field.shape, dtype=field.dtype)
            for name, one in job.simulation.inputs.items():
                client.field(name, one.shape, dtype=one.dtype)
            try:
                for simulation in client:
                    solve(job, simulation)
            except _EndedError:
                message = "the bridge was asked to end"
                # Not a failure of the simulation: the client does not report one for `ServerLost`.
                raise ServerLost(message) from None
    except _EndedError:
        sys.exit(1)
    except MelissaGenError as error:
        _log.error("%s", error)
        sys.exit(1)


if __name__ == "__main__":
    main()
