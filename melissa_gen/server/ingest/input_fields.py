"""The inputs of simulations: fields that the ranks of a client send once per simulation, before its first time step."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from melissa_gen.errors import ProtocolError
from melissa_gen.protocol import wire
from melissa_gen.reservoir import NO_INPUTS, Inputs
from melissa_gen.server.ingest.tiling import covering, region_of

__all__ = ["InputFields"]


@dataclass
class _Attempt:
    """The inputs of one attempt: the arrays, and the block of each client rank by input."""

    ranks: int
    arrays: dict[str, npt.NDArray[Any]]
    blocks: dict[str, dict[int, wire.Block]] = field(default_factory=dict)
    # The fault, or () if there is none; known when the first sample of the attempt is complete.
    fault: tuple[str, ...] | None = None


class InputFields:
    """Assembles the inputs of the simulations of one server rank. Pure: without sockets, threads or clocks.

    The first sample of a simulation that is stored fixes its inputs; those of a later attempt must be equal. A sample
    holds a reference to them, so that they are freed with the last sample of the simulation.

    Args:
        inputs: The study's inputs.
    """

    def __init__(self, inputs: Sequence[wire.StudyField] = ()) -> None:
        self._inputs = tuple(inputs)
        self._attempts: dict[int, dict[int, _Attempt]] = {}
        self._fixed: dict[int, Inputs] = {}

    def __len__(self) -> int:
        """Number of simulations whose inputs are kept here."""
        return len(self._attempts.keys() | self._fixed.keys())

    def receive(self, message: wire.Input, rank: int) -> None:
        """Adds the block of a client rank.

        Raises:
            ProtocolError: The block does not match the study, or has arrived already.
        """
        where = f"an input of simulation {message.simulation}, rank {rank}"
        block = message.block
        if block.field >= len(self._inputs):
            text = f"{where}: the study has {len(self._inputs)} inputs, and no number {block.field}"
            raise ProtocolError(text)
        spec = self._inputs[block.field]
        region = region_of(block, spec.shape, where)
        if len(message.values) != int(np.prod(block.extent)) * np.dtype(spec.dtype).itemsize:
            text = f"{where}: '{spec.name}' has {len(message.values)} bytes, which is not the size of its block"
            raise ProtocolError(text)
        attempt = self._attempt(message)
        blocks = attempt.blocks.setdefault(spec.name, {})
        if rank in blocks:
            text = f"{where}: '{spec.name}' has arrived already"
            raise ProtocolError(text)
        blocks[rank] = block
        values = np.frombuffer(message.values, spec.dtype).reshape(block.extent)
        attempt.arrays[spec.name][region] = values

    def fault(self, simulation: int, attempt: int) -> tuple[str, ...]:
        """Returns code and input of the fault in the inputs of an attempt, else (); called at a complete sample.

        Each rank sends its inputs before its first part, so that what is missing then never arrives.
        """
        if not self._inputs:
            return ()
        found = self._attempts.get(simulation, {}).get(attempt)
        if found is None:
            return ("missing_input", self._inputs[0].name)
        if found.fault is None:
            found.fault = self._tested(found, self._fixed.get(simulation))
        return found.fault

    def knows(self, simulation: int, attempt: int) -> bool:
        """Whether samples of an attempt can still get their inputs."""
        return not self._inputs or attempt in self._attempts.get(simulation, {})

    def fix(self, simulation: int, attempt: int) -> Inputs:
        """Returns the inputs for a sample that is stored; the first one of a simulation fixes them."""
        if not self._inputs:
            return NO_INPUTS
        return self._fixed.setdefault(simulation, self._attempts[simulation][attempt].arrays)

    def remember(self, simulation: int, inputs: Inputs) -> None:
        """Fixes the inputs of a simulation of which samples of an earlier server are in memory."""
        if self._inputs:
            self._fixed[simulation] = inputs

    def end(self, simulation: int, attempt: int) -> None:
        """Drops the inputs of an attempt that is over, except those that samples of the simulation have fixed.

        Otherwise the inputs of all failed simulations that wait for another attempt would be in memory.
        """
        self._attempts.get(simulation, {}).pop(attempt, None)
        if not self._attempts.get(simulation):
            self._attempts.pop(simulation, None)

    def forget(self, simulation: int) -> None:
        """Drops the inputs of a simulation of which no further sample is stored."""
        self._attempts.pop(simulation, None)
        self._fixed.pop(simulation, None)

    def _attempt(self, message: wire.Input) -> _Attempt:
        """Returns the inputs of an attempt. A new attempt replaces those before it."""
        attempts = self._attempts.setdefault(message.simulation, {})
        if message.attempt not in attempts:
            for earlier in [number for number in attempts if number < message.attempt]:
                del attempts[earlier]
            arrays = {spec.name: np.empty(spec.shape, spec.dtype) for spec in self._inputs}
            attempts[message.attempt] = _Attempt(message.ranks, arrays)
        return attempts[message.attempt]

    def _tested(self, attempt: _Attempt, fixed: Inputs | None) -> tuple[str, ...]:
        for spec in self._inputs:
            blocks = attempt.blocks.get(spec.name, {})
            if len(blocks) < attempt.ranks:
                return ("missing_input", spec.name)
            if code := covering(spec.shape, blocks.values()):
                return (code, spec.name)
            if fixed is not None and not np.array_equal(
                fixed[spec.name], attempt.arrays[spec.name]
            ):
                return ("inputs_differ", spec.name)
        if fixed is not None:
            attempt.arrays = dict(fixed)
        return ()
