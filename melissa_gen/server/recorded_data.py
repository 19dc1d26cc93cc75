"""Streams recorded trajectories, or none at all, to the server of this process, in the place of the solvers."""

import logging
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from melissa_gen.builders.dataset import recorded_trajectories
from melissa_gen.builders.fields import field_specs, input_specs
from melissa_gen.client.communicator import SingleProcess
from melissa_gen.client.destination import IssuedSimulation, Placement
from melissa_gen.client.server_connection import ServerConnection
from melissa_gen.dataset import Trajectories
from melissa_gen.errors import DataError, ServerLost
from melissa_gen.protocol.failures import Failure
from melissa_gen.server.setup import RankSetup
from melissa_gen.study import Study

__all__ = ["start_recorded_data"]

_log = logging.getLogger(__name__)


def start_recorded_data(setup: RankSetup, fail: Callable[[str], None]) -> None:
    """Starts the thread that sends the trajectories of the run's data files; the server must be reachable.

    The thread is a client like a solver: simulation n of the run is trajectory n of the files, the server asks for it
    when it has room, and accounting, flow control and resuming are those of every run. In a run without data, the time
    steps of a simulation have no values; they only give its parameters and times to the training.

    Args:
        setup: The study, and the files in its purpose.
        fail: Stops the study, with a sentence as the reason.
    """
    thread = threading.Thread(target=_stream, args=(setup, fail), name="recorded data", daemon=True)
    thread.start()


def _stream(setup: RankSetup, fail: Callable[[str], None]) -> None:
    try:
        if setup.purpose.alone:
            _send_all(setup, None)
            return
        with recorded_trajectories(setup.study, setup.purpose) as data:
            _send_all(setup, data)
    except ServerLost as lost:
        # The study has stopped, and its server needs no more data.
        _log.info("the recorded data is needed no more: %s", lost)
    except Exception as error:
        _log.exception("the recorded data can't be sent")
        fail(f"the recorded data can't be sent: {error}")


def _send_all(setup: RankSetup, data: Trajectories | None) -> None:
    connection = ServerConnection(SingleProcess(), Path(setup.run_dir / "contact.json"))
    try:
        simulation = setup.study.simulation
        for name, (shape, dtype) in (field_specs(simulation) | input_specs(simulation)).items():
            connection.declare(name, Placement(shape, (0,) * len(shape), shape, np.dtype(dtype)))
        while (issued := connection.next()) is not None:
            if data is None:
                _send_zeros(connection, issued, setup.study)
            else:
                _send_one(connection, issued, data)
    finally:
        connection.close()


def _send_zeros(connection: ServerConnection, issued: IssuedSimulation, study: Study) -> None:
    """Sends the time steps of a simulation that is not solved; the training does not read their values."""
    specs = field_specs(study.simulation)
    zeros = {name: np.zeros(shape, dtype) for name, (shape, dtype) in specs.items()}
    for step in range(study.simulation.time_steps):
        connection.send(issued, step, zeros, time.monotonic())
    connection.finalize(issued, study.simulation.time_steps)


def _check_finite(number: int, fields: Mapping[str, NDArray[Any]]) -> None:
    for name, values in fields.items():
        if not np.isfinite(values).all():
            message = f"field '{name}' of recorded trajectory {number} has NaN or infinity"
            raise DataError(message)


def _send_one(connection: ServerConnection, issued: IssuedSimulation, data: Trajectories) -> None:
    """Sends a trajectory; one that can't be read or is not finite fails as a simulation does."""
    step = 0
    try:
        inputs = data.inputs(issued.simulation)
        _check_finite(issued.simulation, inputs)
        given = {name: inputs[name] for name in connection.inputs}
        connection.send_inputs(issued, given, time.monotonic())
        for part in data.parts(issued.simulation):
            _check_finite(issued.simulation, part)
            for place in range(len(next(iter(part.values())))):
                fields = {name: part[name][place] for name in part}
                connection.send(issued, step, fields, time.monotonic())
                step += 1
    except DataError as error:
        connection.fail(issued, step, Failure.of("given_up", text=str(error)))
    else:
        connection.finalize(issued, step)
