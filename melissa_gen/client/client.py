"""The client interface of a solver in Python.

Example:
    >>> with Client(comm) as client:
    ...     client.field("temperature", shape=(100, 100), start=(50, 0), extent=(50, 100))
    ...     for simulation in client:
    ...         for block in solve(simulation.parameters):
    ...             simulation.send(temperature=block)
"""

import logging
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from melissa_gen.client.communicator import Communicator, wrap_communicator
from melissa_gen.client.destination import Destination, IssuedSimulation, Placement
from melissa_gen.client.solver_values import real_array
from melissa_gen.client.user_messages import show_user
from melissa_gen.errors import ClientError, ServerLost, SimulationError
from melissa_gen.protocol.failures import Failure, failure_in

__all__ = ["Client", "Simulation"]

_log = logging.getLogger(__name__)


class Simulation:
    """One simulation that this client was asked to solve.

    Attributes:
        number: Number of the simulation in the study.
        attempt: Number of this attempt; 0 for the first.
        parameters: Parameter name to value, in physical units: int for a parameter of whole numbers (`integer`, and
            `categorical` with only whole numbers in the study), else float. A name that the study does not have
            raises a `ClientError` with the legal names.
        step: Time steps sent so far.
        inputs: Names of the inputs sent so far.
    """

    def __init__(self, client: "Client", issued: IssuedSimulation) -> None:
        self._client = client
        self.number = issued.simulation
        self.attempt = issued.attempt
        self.parameters: dict[str, float | int] = _Parameters(issued.parameters)
        self._issued = issued._replace(parameters=self.parameters)
        self.step = 0
        self.inputs: set[str] = set()

    def send_inputs(self, **inputs: npt.ArrayLike) -> None:
        """Sends this rank's block of inputs: fields that belong to the whole simulation, as the study declares them.

        Each input is sent once per simulation, before the first time step, in one call or in several. Its block is
        declared like that of a field.

        Args:
            **inputs: Name of each input to an array of the declared extent, as in `send`.

        Raises:
            SimulationError: An input is unknown, has another shape, contains NaN or Inf, was sent already, or comes
                after a time step. The simulation is given up.
            ServerLost: The server stopped.
        """
        self._client._send_inputs(self, inputs)

    def send(self, **fields: npt.ArrayLike) -> None:
        """Sends this rank's block of every field at the next time step.

        The values are copied before the call returns, so that the arrays can be reused at once. The call waits while
        the memory of the server is full.

        Args:
            **fields: Field name to array of the declared extent, in any order and with any strides in memory. Tensors
                and other arrays are converted. Masked values, and arrays that carry a unit, are refused.

        Raises:
            SimulationError: A field is missing or unknown, has another shape, contains NaN or Inf, or the study has
                fewer time steps. The simulation is given up.
            ServerLost: The server stopped.
        """
        self._client._send(self, fields)

    def fail(self, reason: str | Failure) -> None:
        """Gives up this simulation. The loop continues with the next one. All ranks must call it.

        Args:
            reason: Why, in one sentence. The server records it.
        """
        failure = reason if isinstance(reason, Failure) else Failure.of("given_up", text=reason)
        self._client._give_up(self, failure)


class _Parameters(dict[str, float | int]):
    """The parameters of a simulation, which name the legal names if a name is wrong."""

    def __missing__(self, name: str) -> float | int:
        raise ClientError(Failure.of("unknown_parameter", parameter=name, legal=list(self)))


class Client:
    """Connection of a solver to the training server, or to a file if there is no server.

    If the environment variable `MELISSA_GEN_SERVER` is set (`melissa-gen run`, `generate` and `check` set it), samples
    are streamed to the server. Otherwise one simulation with the given `parameters` is written to `output`.

    Args:
        comm: The MPI communicator whose ranks solve each simulation together, or None. The client communicates on a
            duplicate of it: all ranks must create the client, and close it.
        parameters: Parameter name to value, for a run without a server.
        output: Path of the HDF5 file of a run without a server.

    Raises:
        ClientError: There is neither a server nor an `output`, or the server refuses the client.
    """

    def __init__(
        self,
        comm: Any | None = None,
        *,
        parameters: Mapping[str, float] | None = None,
        output: str | Path | None = None,
    ) -> None:
        self._communicator: Communicator = wrap_communicator(comm)
        self._fields: dict[str, Placement] = {}
        self._current: Simulation | None = None
        self._destination = _open_destination(self._communicator, parameters, output)

    def field(
        self,
        name: str,
        shape: Sequence[int],
        start: Sequence[int] | None = None,
        extent: Sequence[int] | None = None,
        dtype: npt.DTypeLike = "float32",
    ) -> None:
        """Declares a field and the block of it that this rank computes. Call it once, before the loop.

        Args:
            name: Name of the field in the study.
            shape: Shape of the whole field over all ranks.
            start: First index of this rank's block along each dimension; default: 0.
            extent: Size of this rank's block along each dimension; default: from `start` to the end. A rank that has
                no part of the field has an extent of 0 and sends an empty array.
            dtype: float32 or float64: the type in the file of a run without a server. A server receives the type
                that the study declares, whatever type the solver computes in.

        Raises:
            ClientError: The block is not inside the field, or the study declares another shape.
        """
        try:
            placement = _placement(name, shape, start, extent, np.dtype(dtype))
            self._fields[name] = self._destination.declare(name, placement)
        except ClientError as error:
            self._destination.fail(None, 0, failure_in(error))
            raise

    def __iter__(self) -> Iterator[Simulation]:
        """Yields the simulations to solve. A simulation that was given up is not completed."""
        while (issued := self._next()) is not None:
            simulation = self._current = Simulation(self, issued)
            yield simulation
            if self._current is simulation:
                self._end(simulation)

    def close(self) -> None:
        """Ends the current simulation, if the loop was left in it, and closes the connection.

        Raises:
            SimulationError: The simulation is not complete.
        """
        try:
            if self._current is not None:
                self._end(self._current)
        finally:
            self._destination.close()
        # Not after an error, which the other ranks may not have.
        self._communicator.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Closes the client. After an error it also reports the simulation as failed and ends the other ranks."""
        if error is None:
            self.close()
            return
        if self._current is not None and not isinstance(error, ServerLost):
            self._give_up(self._current, failure_in(error))
        self._current = None
        self._destination.close()
        if self._communicator.size > 1:
            rank = self._communicator.rank
            if isinstance(error, ClientError):
                show_user(_log, logging.ERROR, f"rank {rank}: {error}")
            else:
                show_user(_log, logging.ERROR, f"rank {rank}: the solver failed", error)
            self._communicator.abort()

    def _next(self) -> IssuedSimulation | None:
        try:
            return self._destination.next()
        except ClientError as error:
            if error.args and isinstance(error.args[0], Failure):  # wrong declarations
                self._destination.fail(None, 0, error.args[0])
            raise

    def _end(self, simulation: Simulation) -> None:
        """Completes the current simulation.

        Raises:
            SimulationError: Time steps are missing; the simulation is given up.
        """
        number, steps, limit = simulation.number, simulation.step, self._destination.time_steps
        if limit is not None and steps < limit:
            values = {"simulation": number, "steps": steps, "time_steps": limit}
            failure = Failure.of("too_few_steps", **values)
            self._give_up(simulation, failure)
            raise SimulationError(failure)
        self._current = None
        self._destination.finalize(simulation._issued, steps)

    def _send(self, simulation: Simulation, fields: Mapping[str, npt.ArrayLike]) -> None:
        called = time.monotonic()
        blocks = self._checked(simulation, fields)
        if isinstance(blocks, Failure):
            self._give_up(simulation, blocks)
            raise SimulationError(blocks)
        self._destination.send(simulation._issued, simulation.step, blocks, called)
        simulation.step += 1

    def _send_inputs(self, simulation: Simulation, inputs: Mapping[str, npt.ArrayLike]) -> None:
        called = time.monotonic()
        where = {"simulation": simulation.number, "step": simulation.step}
        legal = self._destination.possible_inputs
        blocks = {}
        for name, values in inputs.items():
            at = {**where, "field": name}
            block: npt.NDArray[Any] | Failure
            if not legal:
                block = Failure.of("no_inputs", **at)
            elif name not in legal:
                block = Failure.of("undeclared_field", **at, legal=list(legal))
            elif simulation.step:
                block = Failure.of("late_input", **at)
            elif name in simulation.inputs:
                block = Failure.of("repeated_input", **at)
            else:
                block = _block(values, self._fields[name], at)
            if isinstance(block, Failure):
                self._give_up(simulation, block)
                raise SimulationError(block)
            blocks[name] = block
        self._destination.send_inputs(simulation._issued, blocks, called)
        simulation.inputs.update(blocks)

    def _give_up(self, simulation: Simulation, failure: Failure) -> None:
        if self._current is simulation:
            self._current = None
            self._destination.fail(simulation._issued, simulation.step, failure)

    def _checked(
        self, simulation: Simulation, fields: Mapping[str, npt.ArrayLike]
    ) -> dict[str, npt.NDArray[Any]] | Failure:
        """Returns the blocks of a time step as arrays, or why they can't be sent."""
        where = {"simulation": simulation.number, "step": simulation.step}
        inputs, declared = self._destination.inputs, self._fields
        if inputs:
            declared = {name: place for name, place in declared.items() if name not in inputs}
        for name in fields:
            if name not in declared:
                legal = list(declared)
                return Failure.of("undeclared_field", **where, field=name, legal=legal)
        limit = self._destination.time_steps
        if limit is not None and simulation.step >= limit:
            return Failure.of("too_many_steps", **where, time_steps=limit)
        for name in inputs:
            if simulation.step == 0 and name not in simulation.inputs:
                return Failure.of("missing_input", **where, field=name)
        blocks = {}
        for name, placement in declared.items():
            if name not in fields:
                return Failure.of("missing_field", **where, field=name)
            block = _block(fields[name], placement, {**where, "field": name})
            if isinstance(block, Failure):
                return block
            blocks[name] = block
        return blocks


def _placement(
    name: str,
    shape: Sequence[int],
    start: Sequence[int] | None,
    extent: Sequence[int] | None,
    dtype: np.dtype[Any],
) -> Placement:
    """Returns a block with its defaults filled in.

    Raises:
        ClientError: The block is not inside the field, or the type is not supported.
    """
    whole = tuple(int(n) for n in shape)
    first = tuple(int(n) for n in start) if start is not None else (0,) * len(whole)
    if len(first) != len(whole):
        raise ClientError(Failure.of("block_dimensions", field=name, start=first, shape=whole))
    size = (
        tuple(int(n) for n in extent)
        if extent is not None
        else tuple(n - s for n, s in zip(whole, first, strict=True))
    )
    inside = len(size) == len(whole) and all(
        s >= 0 and e >= 0 and s + e <= n for n, s, e in zip(whole, first, size, strict=True)
    )
    if not inside:
        values = {"start": first, "extent": size, "shape": whole}
        raise ClientError(Failure.of("block_outside", field=name, **values))
    if dtype not in (np.dtype("float32"), np.dtype("float64")):
        raise ClientError(Failure.of("wrong_dtype", field=name, dtype=str(dtype)))
    return Placement(whole, first, size, dtype)


def _block(
    values: npt.ArrayLike, placement: Placement, where: Mapping[str, Any]
) -> npt.NDArray[Any] | Failure:
    """Returns a block as an array, or why it can't be sent."""
    block = real_array(values, **where)
    if isinstance(block, Failure):
        return block
    failure = _wrong_values(block, placement, where)
    return block if failure is None else failure


def _wrong_values(
    block: npt.NDArray[Any], placement: Placement, where: Mapping[str, Any]
) -> Failure | None:
    """Returns why a block can't be sent, or None if it can."""
    if block.shape != placement.extent:
        return Failure.of("wrong_extent", **where, found=block.shape, extent=placement.extent)
    if not _all_finite(block, placement.dtype):
        with np.errstate(over="ignore", invalid="ignore"):
            wrong = np.argwhere(~np.isfinite(block.astype(placement.dtype)))
        # A value just above the largest one is rounded to it.
        if len(wrong) > 0:
            place = (wrong[0] + placement.start).tolist()
            values = {"count": len(wrong), "dtype": str(placement.dtype), "place": place}
            return Failure.of("not_finite", **where, **values)
    return None


def _all_finite(block: npt.NDArray[Any], dtype: np.dtype[Any]) -> bool:
    """Returns whether all values are certain to be finite after the conversion to `dtype`; fast."""
    if block.size == 0:
        return True
    if block.dtype.kind == "f" and block.dtype.itemsize > dtype.itemsize:
        largest = float(np.finfo(dtype).max)
        # Both comparisons are false for NaN.
        return bool(-largest <= block.min() and block.max() <= largest)
    # Faster than `all` for small blocks.
    return bool(np.count_nonzero(np.isfinite(block)) == block.size)


def _open_destination(
    communicator: Communicator,
    parameters: Mapping[str, float] | None,
    output: str | Path | None,
) -> Destination:
    # h5py is imported only without a server, pyzmq only with one.
    if server := os.environ.get("MELISSA_GEN_SERVER"):
        from melissa_gen.client.server_connection import ServerConnection

        return ServerConnection(communicator, Path(server))
    if output is None:
        msg = (
            "there is no training server (MELISSA_GEN_SERVER is not set) and no output file; "
            "start the solver with `melissa-gen run STUDY.yaml`, or pass output='FILE.h5'"
        )
        raise ClientError(msg)
    from melissa_gen.client.hdf5_output import Hdf5Output

    if communicator.rank == 0:
        show_user(_log, logging.INFO, f"no training server: writing to {output}")
    return Hdf5Output(communicator, dict(parameters or {}), Path(output))
