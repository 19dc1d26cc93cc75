"""Assembles samples from parts and counts them. Pure: without sockets, threads or clocks.

A sample is (simulation, attempt, time step). Its parts come from the ranks of one client, in any order. The first
complete sample of each (simulation, time step) is kept, from any attempt; all others are only counted.
"""

import math
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from melissa_gen.errors import ProtocolError
from melissa_gen.protocol import wire
from melissa_gen.protocol.failures import Failure
from melissa_gen.protocol.wire_types import REMEMBERED_BLOCKS
from melissa_gen.reservoir import SlotStore
from melissa_gen.server.ingest.done_steps import DoneSteps
from melissa_gen.server.ingest.input_fields import InputFields
from melissa_gen.server.ingest.samples import (
    Counters,
    Fate,
    Finalized,
    PartialSample,
    Region,
    Sender,
    Target,
    WholeSample,
)
from melissa_gen.server.ingest.tiling import covering, region_of

__all__ = ["Assembler", "Counters", "Fate", "Finalized", "Sender", "Target", "WholeSample"]


@dataclass
class _Attempt:
    """Progress of one attempt: its client ranks, steps seen and completed, ranks that have finalized."""

    ranks: int
    seen: bytearray
    complete: int = 0
    finalized: dict[int, int] = field(default_factory=dict)
    closed: bool = False
    fault: tuple[str, ...] = ()


class Assembler:
    """Assembles the samples of one server rank.

    Args:
        fields: The study's fields.
        time_steps: Samples per simulation.
        simulations: Number of simulations.
        tries: Largest number of attempts at a simulation.
        rank: This server rank.
        ranks: Number of server ranks.
        store: Slots in which samples are assembled.
        flow: Number of buffers per client rank, and time steps that each holds.
        inputs: Assembles the inputs of the simulations.

    Attributes:
        inputs: Assembles the inputs of the simulations.
    """

    def __init__(
        self,
        fields: Sequence[wire.StudyField],
        time_steps: int,
        simulations: int,
        tries: int,
        rank: int,
        ranks: int,
        store: SlotStore,
        flow: tuple[int, int],
        inputs: InputFields | None = None,
    ) -> None:
        self.counters = Counters()
        self.inputs = InputFields() if inputs is None else inputs
        self._fields = tuple(fields)
        self._time_steps, self._simulations, self._tries = time_steps, simulations, tries
        self._rank, self._ranks = rank, ranks
        self.credit, self.chunk_steps = flow
        self._store = store
        self._samples: dict[tuple[int, int, int], PartialSample] = {}
        self._attempts: dict[tuple[int, int], _Attempt] = {}
        self._done = DoneSteps(simulations, time_steps, rank, ranks)
        # Simulations that are over, of which the newest still have records of their attempts, and all others a flag.
        self._settled: deque[int] = deque()
        self._forgotten = bytearray(simulations)
        self._known_regions: dict[tuple[wire.Block, ...], list[tuple[str, Region]]] = {}
        self._tilings: dict[tuple[tuple[wire.Block, ...], ...], tuple[str, ...]] = {}
        self._over = False

    @property
    def unfinished(self) -> int:
        """Number of samples of which parts are missing."""
        return len(self._samples)

    @property
    def attempts(self) -> int:
        """Number of attempts of which anything is known."""
        return len(self._attempts)

    @property
    def has_room(self) -> bool:
        """Whether slots are free for the new samples of any part."""
        return self._store.free >= self.chunk_steps

    def receive_input(self, message: wire.Input, rank: int) -> None:
        """Adds the block of an input of a simulation; ignored if the attempt is over.

        Args:
            message: The block, which has not been checked yet.
            rank: The client rank that sent it.

        Raises:
            ProtocolError: The message does not match the study.
        """
        self._check_names(message.simulation, message.attempt, rank, message.ranks)
        if self._forgotten[message.simulation]:
            return
        if not self._attempt(message.simulation, message.attempt, message.ranks).closed:
            self.inputs.receive(message, rank)

    def place(self, part: wire.Part, rank: int) -> Target | Fate:
        """Determines the destination of a part before its payload is read.

        Args:
            part: Header of the part, which has not been checked yet.
            rank: The client rank that sent it.

        Returns:
            The destination of the payload, or, if none of its time steps is stored, the reason for the first one.

        Raises:
            ProtocolError: The header does not match the study; nothing was allocated or counted.
        """
        self._check(part, rank)
        regions = self._regions(part, rank)
        if self._forgotten[part.simulation]:
            return Fate.REPEATED
        attempt = self._attempt(part.simulation, part.attempt, part.ranks)
        samples, places, fate = self._place(attempt, part, rank)
        if not samples:
            return fate
        rows = [(self._store.arrays[name], region) for name, region in regions]
        return Target(samples, places, part.count, part.blocks, rows, rank)

    def _place(
        self, attempt: _Attempt, part: wire.Part, rank: int
    ) -> tuple[list[PartialSample], list[int], Fate]:
        """Returns the samples that need the values of a part, their places in it, and the fate of the first other."""
        simulation, number, first = part.simulation, part.attempt, part.step
        seen, done, fates = attempt.seen, self._done.of(simulation), []
        late = attempt.closed and (attempt.ranks > 1 or not self.inputs.knows(simulation, number))
        samples: list[PartialSample | None] = []
        places = []
        for place, step in enumerate(range(first, first + part.count)):
            sample = None
            if seen[step]:
                sample = self._samples.get((simulation, number, step))
                if sample is None or rank in sample.ranks:
                    fates.append(Fate.REPEATED)
                    continue
            elif done[step] or late:
                fates.append(Fate.DUPLICATE if done[step] else Fate.LATE)
                continue
            samples.append(sample)
            places.append(place)
        self._count_unstored(attempt, fates)
        slots = iter(self._acquired(samples.count(None)))
        seen[first : first + part.count] = b"\1" * part.count
        found = []
        for place, known in zip(places, samples, strict=True):
            step = first + place
            sample = known or PartialSample(simulation, number, step, next(slots))
            self._samples[simulation, number, step] = sample
            found.append(sample)
        return found, places, fates[0] if fates else Fate.REPEATED

    def _acquired(self, count: int) -> list[int]:
        """Returns slots for new samples, which are counted as produced."""
        slots = self._store.acquire_all(count)
        if slots is None:
            message = "no slot is free: parts must not be read before one is"
            raise RuntimeError(message)
        self.counters.produced += count
        return slots

    def _count_unstored(self, attempt: _Attempt, fates: Sequence[Fate]) -> None:
        duplicate, late = fates.count(Fate.DUPLICATE), fates.count(Fate.LATE)
        self.counters.produced += duplicate + late
        self.counters.received += duplicate
        self.counters.duplicate += duplicate
        self.counters.lost += late
        attempt.complete += duplicate

    def received(self, target: Target, sender: Sender) -> list[WholeSample]:
        """Records that a part's payload has been received; returns the samples that are complete now."""
        sender.steps = len(target.samples)
        for block, (rows, _) in zip(target.blocks, target.rows, strict=True):
            self.counters.bytes += sender.steps * math.prod(block.extent) * rows.itemsize
        attempt = self._attempts[target.samples[0].simulation, target.samples[0].attempt]
        complete = []
        for sample in target.samples:
            sample.ranks[target.rank] = target.blocks
            sample.senders.append(sender)
            if len(sample.ranks) == attempt.ranks:
                complete.append(sample)
        return self._completed(complete, attempt) if complete else []

    def _completed(self, samples: Sequence[PartialSample], attempt: _Attempt) -> list[WholeSample]:
        """Decides which samples of an attempt are stored, of which all parts have arrived."""
        simulation, number = samples[0].simulation, samples[0].attempt
        inputs_fault, inputs = self.inputs.fault(simulation, number), None
        done, added, unused, found = self._done.of(simulation), [], [], []
        blocks: tuple[tuple[wire.Block, ...], ...] = ()
        fault: tuple[str, ...] = ()
        for sample in samples:
            key = (simulation, number, sample.step)
            del self._samples[key]
            ranks = sample.ranks
            own = tuple(
                [ranks[rank] for rank in sorted(ranks)] if len(ranks) > 1 else ranks.values()
            )
            # Neighbors have the same blocks: comparing them is faster than looking up their hash.
            if own != blocks:
                blocks, fault = own, self._tiling_fault(own) or inputs_fault
            if fault:
                attempt.fault = fault
                refusal = str(Failure.of(fault[0], field=fault[1]))
                self.counters.rejected += 1
                found.append(WholeSample(*key, None, sample.senders, refusal))
                unused.append(sample.slot)
            elif done[sample.step]:
                self.counters.duplicate += 1
                found.append(WholeSample(*key, None, sample.senders))
                unused.append(sample.slot)
            else:
                added.append(sample.step)
                if inputs is None:
                    inputs = self.inputs.fix(simulation, number)
                found.append(WholeSample(*key, sample.slot, sample.senders, None, inputs))
        self.counters.received += len(samples)
        attempt.complete += sum(one.refusal is None for one in found)
        self._done.add_all(simulation, added)
        self._store.release_all(unused)
        return found

    def damaged(self, target: Target) -> list[Sender]:
        """Drops the samples of a part whose payload had the wrong size; returns the senders of their other parts."""
        return [sender for sample in target.samples for sender in self._lose(sample)]

    def finalize(self, end: wire.Finalize, rank: int) -> tuple[Finalized | None, list[Sender]]:
        """Records that a client rank has sent everything; ends the attempt when all its ranks have.

        Returns:
            The ended attempt, or None while reports of client ranks are missing; and the senders of incomplete samples.

        Raises:
            ProtocolError: The message does not match the study.
        """
        self._check_names(end.simulation, end.attempt, rank, end.ranks)
        if self._forgotten[end.simulation]:
            return None, []
        attempt = self._attempt(end.simulation, end.attempt, end.ranks)
        if attempt.closed:
            return None, []
        attempt.finalized[rank] = end.steps
        if len(attempt.finalized) < end.ranks:
            return None, []
        steps = min(*attempt.finalized.values(), self._time_steps)
        senders = self.close(end.simulation, end.attempt)
        for step in range(steps):
            if not attempt.seen[step]:
                attempt.seen[step] = 1
                self.counters.produced += 1
                self.counters.lost += 1
        found = Finalized(end.simulation, end.attempt, steps, attempt.complete, attempt.fault)
        return found, senders

    def close(self, simulation: int, attempt: int) -> list[Sender]:
        """Closes an attempt: its incomplete samples are lost, and later parts are ignored.

        Returns:
            The senders of the incomplete samples.
        """
        if self._forgotten[simulation]:
            return []
        key = (simulation, attempt)
        if key not in self._attempts:
            self._attempts[key] = _Attempt(0, bytearray(self._time_steps))
        self._attempts[key].closed = True
        self.inputs.end(simulation, attempt)
        open_samples = [s for key, s in self._samples.items() if key[:2] == (simulation, attempt)]
        return [sender for sample in open_samples for sender in self._lose(sample)]

    def reject(self, whole: WholeSample) -> None:
        """Rejects a complete sample that can't be stored because the study is stopping."""
        self.counters.rejected += 1
        self.forget([(whole.simulation, whole.step)])
        if whole.slot is not None:
            self._store.release(whole.slot)

    def settle(self, simulation: int) -> list[int]:
        """Notes that the study needs nothing more of a simulation, whose attempts are all closed.

        The records of its attempts are kept for some time, to count what is still under way. Later parts are ignored.

        Returns:
            Simulations that are forgotten now, of which no sample will be stored any more.
        """
        self._settled.append(simulation)
        self.inputs.forget(simulation)
        gone = []
        while len(self._settled) * (self._time_steps + _ATTEMPT_BYTES) > _SETTLED_BYTES:
            oldest = self._settled.popleft()
            self._forgotten[oldest] = 1
            for attempt in range(self._tries):
                self._attempts.pop((oldest, attempt), None)
            gone.append(oldest)
        return gone

    def state(self, unseen: npt.NDArray[np.int64]) -> dict[str, Any]:
        """Returns the state for a checkpoint, with counters as if all incomplete samples had been lost.

        Args:
            unseen: (simulation, step) of complete samples that were never trained on, `(n, 2)`.

        Returns:
            The counters, the complete steps of each simulation, and `unseen`: JSON types and arrays.
        """
        counters = self.counters.as_dict()
        counters["lost"] += len(self._samples)
        return {"counters": counters, "done": self._done.state(), "unseen": unseen}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continues from the `state()` of an earlier server.

        Its complete samples are duplicates from now on, except the unseen ones, which are lost with its memory unless
        `remember` is called.
        """
        self.counters = Counters(**state["counters"])
        self._done.restore(state["done"])
        self.forget(state["unseen"].tolist())

    def forget(self, samples: Iterable[Sequence[int]]) -> None:
        """Marks samples (simulation, step) as not received, since they were lost before they were used."""
        for simulation, step in samples:
            self._done.remove(simulation, step)

    def remember(self, samples: Iterable[Sequence[int]]) -> None:
        """Marks samples (simulation, step) as received, since they are in memory again."""
        for simulation, step in samples:
            self._done.add(simulation, step)

    def has_all(self, simulation: int) -> bool:
        """Whether all samples of a simulation are complete."""
        return self._done.complete(simulation)

    def close_all(self) -> list[Sender]:
        """Closes all attempts, including those not seen yet.

        Returns:
            The senders of incomplete samples.
        """
        self._over = True
        return [sender for key in list(self._attempts) for sender in self.close(*key)]

    def _lose(self, sample: PartialSample) -> list[Sender]:
        del self._samples[(sample.simulation, sample.attempt, sample.step)]
        self._store.release(sample.slot)
        self.counters.lost += 1
        return sample.senders

    def _attempt(self, simulation: int, attempt: int, ranks: int) -> _Attempt:
        """Returns the attempt of a message; all its messages must name the same number of client ranks."""
        state = self._attempts.get((simulation, attempt))
        if state is None:
            state = _Attempt(ranks, bytearray(self._time_steps), closed=self._over)
            self._attempts[simulation, attempt] = state
        if state.ranks == 0:
            # The attempt was closed before its first message arrived.
            state.ranks = ranks
        if state.ranks != ranks:
            message = (
                f"simulation {simulation}, attempt {attempt}: a message of {ranks} client ranks "
                f"where others were of {state.ranks}"
            )
            raise ProtocolError(message)
        return state

    def _tiling_fault(self, blocks: tuple[tuple[wire.Block, ...], ...]) -> tuple[str, ...]:
        """Returns the fault of blocks that don't cover each field exactly, else (); cached per decomposition."""
        known = self._tilings.get(blocks)
        if known is None:
            codes = [
                covering(f.shape, [b for of_rank in blocks for b in of_rank if b.field == index])
                for index, f in enumerate(self._fields)
            ]
            faults = [(c, f.name) for c, f in zip(codes, self._fields, strict=True) if c]
            known = faults[0] if faults else ()
            if len(self._tilings) < _REMEMBERED_TILINGS:
                self._tilings[blocks] = known
        return known

    def _check_names(self, simulation: int, attempt: int, rank: int, ranks: int) -> None:
        if simulation >= self._simulations or attempt >= self._tries or rank >= ranks:
            message = f"simulation {simulation}, attempt {attempt}, rank {rank} of {ranks}: not in this study"
            raise ProtocolError(message)
        if wire.owner(simulation, self._ranks) != self._rank:
            message = f"simulation {simulation}: belongs to another server rank"
            raise ProtocolError(message)

    def _check(self, part: wire.Part, rank: int) -> None:
        self._check_names(part.simulation, part.attempt, rank, part.ranks)
        if part.step + part.count > self._time_steps:
            fault = f"the study has {self._time_steps} time steps"
        elif not 0 < part.count <= self.chunk_steps - part.place:
            fault = (
                f"{part.count} time steps from place {part.place} of a buffer of {self.chunk_steps}"
            )
        elif part.buffer >= self.credit:
            fault = f"buffer {part.buffer} is beyond the credit of {self.credit}"
        else:
            return
        message = f"part of simulation {part.simulation}, step {part.step}, rank {rank}: {fault}"
        raise ProtocolError(message)

    def _regions(self, part: wire.Part, rank: int) -> list[tuple[str, Region]]:
        """Returns each field's name and the region of its block; cached per blocks."""
        known = self._known_regions.get(part.blocks)
        if known is not None:
            return known
        where = f"part of simulation {part.simulation}, step {part.step}, rank {rank}"
        if sorted(block.field for block in part.blocks) != list(range(len(self._fields))):
            message = f"{where}: does not hold each field once"
            raise ProtocolError(message)
        found: list[tuple[str, Region]] = []
        for block in part.blocks:
            spec = self._fields[block.field]
            found.append((spec.name, region_of(block, spec.shape, where)))
        if len(self._known_regions) < REMEMBERED_BLOCKS:
            self._known_regions[part.blocks] = found
        return found


_REMEMBERED_TILINGS = 1024

_ATTEMPT_BYTES, _SETTLED_BYTES = 500, 4 << 20
"""Memory of the record of an attempt except its steps, and of all records of simulations that are over."""
