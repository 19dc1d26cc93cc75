"""Solves one simulation with the command of a study, from its parameters to its last time step."""

import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy.typing as npt

from melissa_gen.bridge.command import Command
from melissa_gen.bridge.coordinates import record_coordinates
from melissa_gen.bridge.inputs import render_words, write_inputs
from melissa_gen.bridge.job_file import BridgeJob
from melissa_gen.bridge.readers import (
    COORDINATES,
    OutputError,
    Reader,
    open_input_reader,
    open_reader,
)
from melissa_gen.client import Simulation
from melissa_gen.client.solver_values import real_array
from melissa_gen.errors import MelissaGenError, ServerLost
from melissa_gen.exit_status import status_of_job
from melissa_gen.protocol.failures import Failure
from melissa_gen.study import FieldSection, InputSection

__all__ = ["solve"]

LOG = "log.txt"
SHORTEST_POLL = 0.02
LONGEST_POLL = 1.0
TIMEOUT_FRACTION = 0.9
"""Fraction of `simulation.timeout` after which the bridge gives up: before the server, because it can report more."""
LINES_OF_MPIRUN = 20
"""Last lines of the command's output in which mpirun may say that a signal has ended a rank."""
QUOTED_LINES = 3
QUOTED_CHARACTERS = 400


def solve(job: BridgeJob, simulation: Simulation) -> None:
    """Solves a simulation, or gives it up with a reason.

    Args:
        job: The job of the bridge.
        simulation: The simulation to solve.

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
        failure = _failure(job, simulation, error)
        simulation.fail(failure.with_details(_details(job, folder, command)))
    finally:
        if command is not None:
            command.stop()
        keep = job.bridge.keep
        if keep == "never" or (keep == "failed" and not failed):
            shutil.rmtree(folder, ignore_errors=True)


def _prepare(job: BridgeJob, simulation: Simulation, folder: Path) -> list[str]:
    """Writes the inputs into an empty folder and returns the words of the command."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    values = job.values(simulation.parameters)
    write_inputs(job.bridge.inputs, job.folder, folder, values)
    return render_words(job.simulation.command, values)


def _stream(job: BridgeJob, simulation: Simulation, folder: Path, command: Command) -> None:
    """Sends each time step as soon as it is complete, until the command has ended.

    Raises:
        OutputError: The command failed, stalled, or wrote too few time steps or unreadable ones.
    """
    limit = TIMEOUT_FRACTION * job.simulation.timeout
    reader = open_reader(job.simulation, job.folder, folder)
    progressed, pause = time.monotonic(), SHORTEST_POLL
    while True:
        code = command.poll()
        began = time.monotonic()
        try:
            sent = _send_next(job, simulation, folder, reader, ended=code is not None)
        except OutputError:
            if not code:
                raise
            # The exit status of the command explains the missing output.
            sent = False
        now = time.monotonic()
        if sent:
            progressed, pause = now, SHORTEST_POLL
            continue
        if code is not None:
            break
        if now - progressed > limit:
            seconds = round(now - progressed)
            raise OutputError(Failure.of("no_output", **_where(simulation), seconds=seconds))
        command.wait(max(pause, now - began))
        pause = min(1.2 * pause, LONGEST_POLL)
    code = status_of_job(code, command.last_lines(LINES_OF_MPIRUN))
    if code > 0:
        raise OutputError(Failure.of("command_ended", **_where(simulation), exit_status=code))
    if code < 0:
        raise OutputError(Failure.of("command_killed", **_where(simulation), signal=-code))
    steps = job.simulation.time_steps
    if simulation.step < steps:
        values = {"simulation": simulation.number, "steps": simulation.step, "time_steps": steps}
        raise OutputError(Failure.of("too_few_steps", **values))


def _send_next(
    job: BridgeJob, simulation: Simulation, folder: Path, reader: Reader, *, ended: bool
) -> bool:
    """Sends the next time step if it is complete, the first one after the inputs; returns whether it was."""
    found = reader.read(simulation.step, ended)
    if found is None:
        return False
    inputs = open_input_reader(job.simulation, job.folder, folder) if not simulation.step else None
    if inputs is not None:
        given = inputs.read(0, True) or {}
        simulation.send_inputs(**_arrays(job, simulation, given, job.simulation.inputs))
    simulation.send(**_arrays(job, simulation, found, job.simulation.fields))
    return True


def _arrays(
    job: BridgeJob,
    simulation: Simulation,
    found: Mapping[str, npt.NDArray[Any]],
    declared: Mapping[str, InputSection | FieldSection],
) -> dict[str, npt.NDArray[Any]]:
    """Returns what a reader has found as real arrays of the declared shapes; records the coordinates among them.

    Raises:
        OutputError: An array has other values, or another shape.
    """
    fields: dict[str, npt.NDArray[Any]] = {}
    for name, values in found.items():
        array = real_array(values, **_where(simulation), field=name)
        if isinstance(array, Failure):
            raise OutputError(array)
        fields[name] = array
    if COORDINATES in fields and COORDINATES not in declared:
        record_coordinates(job.simulations.parent, fields.pop(COORDINATES))
    for name, array in fields.items():
        shape = tuple(declared[name].shape) if name in declared else array.shape
        if array.shape != shape:
            shapes = {"found": array.shape, "expected": shape}
            raise OutputError(Failure.of("wrong_shape", **_where(simulation), field=name, **shapes))
    return fields


def _where(simulation: Simulation) -> dict[str, int]:
    """The values of a failure that lies in the next time step."""
    return {"simulation": simulation.number, "step": simulation.step}


def _failure(job: BridgeJob, simulation: Simulation, error: Exception) -> Failure:
    """Returns the failure that an error stands for."""
    if error.args and isinstance(error.args[0], Failure):
        return error.args[0]
    if isinstance(error, OSError):
        file = error.filename or job.simulation.command[0]
        text = f"{file}: {error.strerror or error}"
        return Failure.of("other", **_where(simulation), text=text)
    code = "unreadable_output" if isinstance(error, OutputError) else "other"
    return Failure.of(code, **_where(simulation), text=str(error))


def _details(job: BridgeJob, folder: Path, command: Command | None) -> str:
    """Returns the end of the command's output, and the folder in which all of it is kept."""
    parts = []
    if command is not None:
        if command.stragglers:
            parts.append(f"it left {command.stragglers} processes behind, which were ended")
        lines = " | ".join(command.last_lines(QUOTED_LINES))[-QUOTED_CHARACTERS:]
        parts.append(f"its output ends: {lines}" if lines else "it has printed nothing")
    if job.bridge.keep != "never":
        parts.append(f"kept in {folder}")
    return "; ".join(parts)
