"""Restores assembler and sink of a rank from a checkpoint, also of another number of ranks."""

import logging
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np
from numpy.typing import NDArray

from melissa_gen.errors import DataError
from melissa_gen.protocol import wire
from melissa_gen.reservoir import Policy, RowReader, StoredRows
from melissa_gen.run_dir.checkpoint_folder import rows_file
from melissa_gen.server.ingest.assembler import Assembler
from melissa_gen.server.ingest.done_steps import merged_done
from melissa_gen.server.setup import Checkpoint, RankSetup
from melissa_gen.sinks import FanOut

__all__ = ["redistributed", "restore_rank"]

_log = logging.getLogger(__name__)


def restore_rank(
    setup: RankSetup, checkpoint: Checkpoint, sink: FanOut, assembler: Assembler
) -> None:
    """Restores assembler and sinks, and the samples in memory if the checkpoint holds them.

    Samples that can't be read are counted as withdrawn, with a warning.
    """
    states = checkpoint.rank_states()
    state = redistributed(states, setup.ranks)[setup.rank]
    sink.restore(state["reservoir"])
    sink.restore_sides([one["reservoir"]["sides"] for one in states], setup.rank, setup.ranks)
    assembler.restore(state["assembler"])
    reservoir = sink.main
    if not isinstance(reservoir, Policy):
        return
    moved = len(states) != setup.ranks
    saved = [n for n, one in enumerate(states) if one["rows_saved"]]
    with ExitStack() as stack:
        parts = []
        for number in saved if moved else [n for n in saved if n == setup.rank]:
            path = rows_file(checkpoint.folder, number)
            try:
                reader = stack.enter_context(RowReader(path))
            except DataError as error:
                _log.warning("the samples in memory of server rank %d are lost: %s", number, error)
                continue
            owners = wire.owner(reader.columns["simulation"], setup.ranks)
            parts.append((reader, np.flatnonzero(owners == setup.rank)))
        rows = _read(parts, reservoir, np.random.default_rng([setup.study.seed, setup.epoch]))
    if rows is not None:
        reservoir.refill(rows)
        unseen = ~rows.columns["seen"]
        columns = rows.columns["simulation"][unseen], rows.columns["step"][unseen]
        kept = np.stack(columns, axis=1).tolist()
        assembler.remember(kept)
        sink.keep(map(tuple, kept))
        for slot in rows.slots.tolist() if reservoir.store.input_specs else ():
            simulation = int(reservoir.store.simulations[slot])
            if not assembler.has_all(simulation):
                assembler.inputs.remember(simulation, reservoir.store.input_fields[slot])


def redistributed(states: Sequence[Mapping[str, Any]], ranks: int) -> list[Mapping[str, Any]]:
    """Returns the states of assembler and reservoir for a number of ranks.

    Each sample in memory moves to the rank that owns it; the totals of all others are those of rank 0. The sums over
    all ranks remain the same.

    Args:
        states: The states of all earlier ranks, in order.
        ranks: Number of ranks now.
    """
    if len(states) == ranks:
        return list(states)
    assemblers = [state["assembler"] for state in states]
    reservoirs = [state["reservoir"] for state in states]
    unseen = np.concatenate([one["unseen"] for one in assemblers])
    owners = wire.owner(unseen[:, 0], ranks)
    counters = _summed([one["counters"] for one in reservoirs])
    done = merged_done([one["done"] for one in assemblers])
    found: list[Mapping[str, Any]] = []
    for rank in range(ranks):
        mine = unseen[owners == rank]
        more = {"stored": len(mine), "unseen": len(mine)}
        first = rank == 0
        if first:
            rest = len(unseen) - len(mine)
            more = {key: counters[key] - rest for key in more}
        nothing: dict[str, Any] = {key: {} if key == "withdrawn" else 0 for key in counters}
        # Sinks without a trainer draw nothing at random.
        random = reservoirs[rank].get("random") if rank < len(states) else None
        received = _summed([one["counters"] for one in assemblers])
        found.append(
            {
                "reservoir": {
                    "counters": (counters if first else nothing) | more,
                    "random": random,
                },
                "assembler": {
                    "counters": received if first else dict.fromkeys(received, 0),
                    "done": done,
                    "unseen": mine,
                },
            }
        )
    return found


def _summed(counters: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    total: dict[str, Any] = {}
    for one in counters:
        for key, value in one.items():
            if isinstance(value, Mapping):
                total[key] = _summed([total.get(key, {}), value])
            else:
                total[key] = total.get(key, 0) + value
    return total


def _read(
    parts: Sequence[tuple[RowReader, NDArray[np.intp]]], policy: Policy, random: np.random.Generator
) -> StoredRows | None:
    """Reads rows of several files into the slots of a policy; at most its capacity, first those never drawn."""
    seen = [reader.columns["seen"][rows] for reader, rows in parts]
    room = policy.restorable - sum(int((~one).sum()) for one in seen)
    found = []
    for number, (reader, rows) in enumerate(parts):
        drawn = rows[seen[number]]
        kept = random.choice(drawn, min(max(room, 0), len(drawn)), replace=False)
        room -= len(kept)
        new = rows[~seen[number]]
        wanted = np.sort(np.concatenate([kept, new[: len(new) + min(room, 0)]]))
        slots = np.array([policy.store.acquire() for _ in wanted], np.intp)
        try:
            reader.read(wanted, policy.store, slots)
        except DataError as error:
            for slot in slots.tolist():
                policy.store.release(slot)
            _log.warning("samples in memory of the earlier server are lost: %s", error)
            continue
        columns = {name: column[wanted] for name, column in reader.columns.items()}
        columns["place"] = columns["place"] + number * policy.capacity
        found.append(StoredRows(slots, columns))
    if not found:
        return None
    names = set.intersection(*(set(rows.columns) for rows in found))
    return StoredRows(
        np.concatenate([rows.slots for rows in found]),
        {name: np.concatenate([rows.columns[name] for rows in found]) for name in names},
    )
