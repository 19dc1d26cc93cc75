"""One simulation through the bridge: from its parameters to its last time step."""

import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from melissa_gen.bridge.command import Command
from melissa_gen.bridge.coordinates import record_coordinates
from melissa_gen.bridge.inputs import render_words, write_inputs
from melissa_gen.bridge.job_file import BridgeJob
from melissa_gen.bridge.readers import COORDINATES, OutputError, Reader, open_reader
from melissa_gen.client import Simulation
from melissa_gen.errors import MelissaGenError, ServerLost

__all__ = ["solve"]

LOG = "log.txt"
POLL_SECONDS = 0.02
SLOWEST_POLL = 1.0
PATIENCE = 0.9
"""Of the study's timeout: the bridge gives up before the server would, for it can say more."""
QUOTED_LINES = 3
QUOTED_CHARACTERS = 400


def solve(job: BridgeJob, simulation: Simulation) -> None:
    """Solves a simulation, or gives it up with one sentence.

    Args:
        job: What the study says.
        simulation: What to solve.

    Raises:
        ServerLost: The server stopped.
    """
    name = f"{simulation.number:06d}" + (f"-{simulation.attempt}" if simulation.attempt else "")
    folder = job.simulations / name
    command: Command | None = None
    failed = True
    try:
        words = _prepare(job, simulation, folder)
        command = Command(words, folder, folder / LOG, job.simulation.environment)
        _stream(job, simulation, folder, command)
        failed = False
    except ServerLost:
        raise
    except (MelissaGenError, OSError) as error:
        if command is not None:
            command.stop()
        simulation.fail(_reason(job, simulation, folder, command, error))
    finally:
        if command is not None:
            command.stop()
        keep = job.bridge.keep
        if keep == "never" or (keep == "failed" and not failed):
            shutil.rmtree(folder, ignore_errors=True)


def _prepare(job: BridgeJob, simulation: Simulation, folder: Path) -> list[str]:
    """Lays out the inputs in a fresh folder; returns the command's words."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    values = job.values(simulation.parameters)
    write_inputs(job.bridge.inputs, job.folder, folder, values)
    return render_words(job.simulation.command, values)


def _stream(job: BridgeJob, simulation: Simulation, folder: Path, command: Command) -> None:
    """Sends each time step as soon as it is complete, until the command has ended well."""
    limit = PATIENCE * job.simulation.timeout
    reader = open_reader(job.simulation, job.folder, folder)
    progressed, pause = time.monotonic(), POLL_SECONDS
    while True:
        code = command.poll()
        began = time.monotonic()
        sent = _send_next(job, simulation, reader, ended=code is not None)
        now = time.monotonic()
        if sent:
            progressed, pause = now, POLL_SECONDS
            continue
        if code is not None:
            break
        if now - progressed > limit:
            msg = f"there was no new time step for {now - progressed:.0f} s"
            raise OutputError(msg)
        command.wait(max(pause, now - began))
        pause = min(1.2 * pause, SLOWEST_POLL)
    if code != 0:
        what = f"exit status {code}" if code > 0 else f"signal {-code}"
        msg = f"the command ended with {what}"
        raise OutputError(msg)
    steps = job.simulation.time_steps
    if simulation.step < steps:
        msg = f"simulation {simulation.number} ended after {simulation.step} of {steps} time steps"
        raise OutputError(msg)


def _send_next(job: BridgeJob, simulation: Simulation, reader: Reader, *, ended: bool) -> bool:
    """Sends the next time step if it is complete; says whether it was."""
    found = reader.read(simulation.step, ended)
    if found is None:
        return False
    fields: dict[str, npt.NDArray[Any]] = {name: np.asarray(v) for name, v in found.items()}
    declared = job.simulation.fields
    if COORDINATES in fields and COORDINATES not in declared:
        record_coordinates(job.simulations.parent, fields.pop(COORDINATES))
    for name, array in fields.items():
        shape = tuple(declared[name].shape) if name in declared else array.shape
        if array.shape != shape:
            where = f"time step {simulation.step}: field '{name}'"
            msg = f"{where} has the global shape {array.shape}; the study says {shape}"
            raise OutputError(msg)
    simulation.send(**fields)
    return True


def _reason(
    job: BridgeJob,
    simulation: Simulation,
    folder: Path,
    command: Command | None,
    error: Exception,
) -> str:
    """One sentence: what went wrong, how the command's output ends, and where all of it is."""
    text = str(error)
    if isinstance(error, OSError):
        text = f"{error.filename or job.simulation.command[0]}: {error.strerror or error}"
    if not text.startswith("simulation "):
        text = f"simulation {simulation.number}, after {simulation.step} time steps: {text}"
    if command is not None:
        if command.stragglers:
            text += f"; it left {command.stragglers} processes behind, which were ended"
        lines = " | ".join(command.last_lines(QUOTED_LINES))[-QUOTED_CHARACTERS:]
        text += f"; its output ends: {lines}" if lines else "; it has printed nothing"
    return text if job.bridge.keep == "never" else f"{text}; kept in {folder}"
