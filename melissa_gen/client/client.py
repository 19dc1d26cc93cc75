"""The client interface: three things for a person to learn.

Example:
    >>> with Client(comm) as client:
    ...     client.field("temperature", shape=(100, 100), start=(50, 0), extent=(50, 100))
    ...     for simulation in client:
    ...         for block in solve(simulation.parameters):
    ...             simulation.send(temperature=block)
"""

import os
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from melissa_gen.client.communicator import Communicator, wrap_communicator
from melissa_gen.client.destination import Destination, IssuedSimulation, Placement
from melissa_gen.errors import ClientError, ServerLost, SimulationError, nearest

__all__ = ["Client", "Simulation"]


class Simulation:
    """One simulation that this client was asked to solve.

    Attributes:
        number: Its number in the study.
        attempt: 0, or how often it was tried before.
        parameters: Name to value, in physical units.
        step: Time steps sent so far.
    """

    def __init__(self, client: "Client", issued: IssuedSimulation) -> None:
        self._client = client
        self._issued = issued
        self.number = issued.simulation
        self.attempt = issued.attempt
        self.parameters = issued.parameters
        self.step = 0

    def send(self, **fields: npt.ArrayLike) -> None:
        """Sends one time step of all fields: this rank's block of each.

        The values are copied before the call returns; the arrays may be reused at once. Waits while the server's
        memory is full.

        Args:
            **fields: Field name to array of the declared extent.

        Raises:
            SimulationError: A field is missing or unknown, has another shape, holds NaN or Inf, or this is a time step
                too many.
            ServerLost: The server stopped.
        """
        try:
            blocks = self._checked(fields)
        except SimulationError as error:
            self._client._give_up(self, str(error))
            raise
        self._client._destination.send(self._issued, self.step, blocks)
        self.step += 1

    def fail(self, reason: str) -> None:
        """Gives this simulation up; the loop goes on with the next one. All ranks must do so.

        Args:
            reason: One sentence; the server notes it.
        """
        self._client._give_up(self, reason)

    def _checked(self, fields: Mapping[str, npt.ArrayLike]) -> dict[str, npt.NDArray[Any]]:
        where = f"simulation {self.number}, time step {self.step}"
        declared = self._client._fields
        for name in fields:
            if name not in declared:
                legal = ", ".join(declared) or "none yet: call client.field(...) before the loop"
                msg = f"{where}: unknown field '{name}'{nearest(name, declared)}; declared: {legal}"
                raise SimulationError(msg)
        limit = self._client._destination.time_steps
        if limit is not None and self.step >= limit:
            msg = f"{where}: the study has {limit} time steps (0 to {limit - 1}); this one is too many"
            raise SimulationError(msg)
        blocks = {}
        for name, placement in declared.items():
            if name not in fields:
                msg = f"{where}: the field '{name}' is missing"
                raise SimulationError(msg)
            block = np.asarray(fields[name])
            if block.shape != placement.extent:
                msg = (
                    f"{where}: field '{name}' has shape {block.shape}; "
                    f"this rank declared the extent {placement.extent}"
                )
                raise SimulationError(msg)
            if block.dtype.kind not in "fiu":
                msg = f"{where}: field '{name}' is of type {block.dtype}; real numbers are expected"
                raise SimulationError(msg)
            if not _all_finite(block, placement.dtype):
                with np.errstate(over="ignore", invalid="ignore"):
                    bad = np.count_nonzero(~np.isfinite(block.astype(placement.dtype)))
                what = f"NaN, infinite or too large for {placement.dtype}"
                msg = f"{where}: field '{name}' has {bad} values that are {what}"
                raise SimulationError(msg)
            blocks[name] = block
        return blocks


class Client:
    """A solver's connection to the training server, or to a file where there is no server.

    With `MELISSA_GEN_SERVER` in the environment (`melissa-gen run`, `generate` and `check` set it) samples are streamed
    to the server.
    Without it, one simulation with the given `parameters` is written to `output`.

    Args:
        comm: The MPI communicator whose ranks solve a simulation together, or None.
        parameters: Parameters of a run on its own, name to value.
        output: HDF5 file of a run on its own.

    Raises:
        ClientError: There is no server and no `output`, or the server refuses.
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
        self._destination: Destination = _open_destination(
            self._communicator, comm, parameters, output
        )

    def field(
        self,
        name: str,
        shape: Sequence[int],
        start: Sequence[int] | None = None,
        extent: Sequence[int] | None = None,
        dtype: npt.DTypeLike = "float32",
    ) -> None:
        """Declares a field and which block of it this rank has; once, before the loop.

        Args:
            name: The field's name in the study.
            shape: Global shape over all ranks.
            start: First index of this rank's block along each dimension; default: 0.
            extent: Size of this rank's block along each dimension; default: from `start` to the end.
            dtype: float32 or float64: the type in the file of a run without server. A server receives the type
                that the study declares, whatever the solver computes in.

        Raises:
            ClientError: The block is not inside the field, or the study declares another shape.
        """
        whole = tuple(int(n) for n in shape)
        first = tuple(int(n) for n in start) if start is not None else (0,) * len(whole)
        if len(first) != len(whole):
            msg = f"field '{name}': start {first} and shape {whole} have different lengths"
            raise ClientError(msg)
        size = (
            tuple(int(n) for n in extent)
            if extent is not None
            else tuple(n - s for n, s in zip(whole, first, strict=True))
        )
        inside = len(size) == len(whole) and all(
            s >= 0 and e > 0 and s + e <= n for n, s, e in zip(whole, first, size, strict=True)
        )
        if not inside:
            msg = f"field '{name}': the block start {first}, extent {size} is not inside the shape {whole}"
            raise ClientError(msg)
        if np.dtype(dtype) not in (np.dtype("float32"), np.dtype("float64")):
            msg = f"field '{name}': the type {np.dtype(dtype)} is not float32 or float64"
            raise ClientError(msg)
        self._fields[name] = self._destination.declare(
            name, Placement(whole, first, size, np.dtype(dtype))
        )

    def __iter__(self) -> Iterator[Simulation]:
        """Yields simulations to solve until there are no more; one that was given up is left as it is."""
        while (issued := self._destination.next()) is not None:
            simulation = self._current = Simulation(self, issued)
            yield simulation
            if self._current is not simulation:
                continue
            limit = self._destination.time_steps
            if limit is not None and simulation.step < limit:
                msg = f"simulation {simulation.number} ended after {simulation.step} of {limit} time steps"
                self._give_up(simulation, msg)
                raise SimulationError(msg)
            self._current = None
            self._destination.finalize(issued, simulation.step)

    def close(self) -> None:
        """Ends the connection."""
        self._destination.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Closes; after an error it also reports the simulation as failed and ends the other ranks."""
        if error is not None and self._current is not None and not isinstance(error, ServerLost):
            self._give_up(self._current, f"{type(error).__name__}: {error}")
        self.close()
        if error is not None and self._communicator.size > 1:
            if isinstance(error, ClientError):
                print(f"rank {self._communicator.rank}: {error}", file=sys.stderr, flush=True)
            else:
                traceback.print_exception(kind, error, trace)
            self._communicator.abort()

    def _give_up(self, simulation: Simulation, reason: str) -> None:
        if self._current is simulation:
            self._current = None
            self._destination.fail(simulation._issued, simulation.step, reason)


def _all_finite(block: npt.NDArray[Any], dtype: np.dtype[Any]) -> bool:
    """Whether all values are finite once they are of the type that is sent."""
    if block.dtype.kind == "f" and block.dtype.itemsize > dtype.itemsize:
        most = float(np.finfo(dtype).max)
        return bool(-most <= block.min() and block.max() <= most)  # false for NaN too
    return bool(np.isfinite(block).all())


def _open_destination(
    communicator: Communicator,
    comm: Any,
    parameters: Mapping[str, float] | None,
    output: str | Path | None,
) -> Destination:
    from melissa_gen.client.hdf5_output import Hdf5Output  # h5py is not needed online

    if server := os.environ.get("MELISSA_GEN_SERVER"):
        from melissa_gen.client.server_connection import ServerConnection

        return ServerConnection(communicator, Path(server))
    if output is None:
        msg = (
            "there is no training server (MELISSA_GEN_SERVER is not set) and no output file; "
            "start the solver with `melissa-gen run STUDY.yaml`, or pass output='FILE.h5'"
        )
        raise ClientError(msg)
    if communicator.rank == 0:
        print(f"no training server: writing to {output}", file=sys.stderr, flush=True)
    return Hdf5Output(communicator, comm, dict(parameters or {}), Path(output))
