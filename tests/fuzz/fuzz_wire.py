"""Fuzzes the decoder and the assembler's header checks; not part of the test suite.

Needs atheris (a wheel for the interpreter at hand), best in an environment of its own:

    python -m venv /tmp/fuzz && /tmp/fuzz/bin/pip install atheris numpy
    PYTHONPATH=. /tmp/fuzz/bin/python tests/fuzz/fuzz_wire.py -max_total_time=300 CORPUS_FOLDER

The corpus folder is filled with the messages of tests/unit/protocol/vectors.json when it is empty. Only
ProtocolError may escape from either; anything else, and an account that does not add up, ends the run with the
input that caused it.
"""

import json
import sys
from pathlib import Path

import atheris
import numpy as np

with atheris.instrument_imports(include=["melissa_gen"]):
    from melissa_gen.errors import ProtocolError
    from melissa_gen.protocol import wire
    from melissa_gen.reservoir.slot_store import SlotStore
    from melissa_gen.server.ingest.assembler import Assembler, Fate, Sender

VECTORS = Path(__file__).parents[1] / "unit" / "protocol" / "vectors.json"
FIELDS = (wire.StudyField("u", "float32", (4, 3)), wire.StudyField("p", "float64", (5,)))
SLOTS = 8


def assembler() -> tuple[Assembler, SlotStore]:
    store = SlotStore({f.name: (f.shape, f.dtype) for f in FIELDS}, SLOTS, n_inputs=1)
    return Assembler(FIELDS, 8, 4, 3, rank=0, ranks=2, store=store, flow=(4, 3)), store


def one_input(data: bytes) -> None:
    """Decodes and places messages, each preceded by its length in two bytes."""
    parts, store = assembler()
    held = 0
    while len(data) >= 2:
        size = int.from_bytes(data[:2], "little") or len(data)
        frame, data = data[2 : 2 + size], data[2 + size :]
        try:
            wire.decode(frame, *wire.MESSAGES)
            header = wire.decode_header(frame)
            message = wire.decode(frame, wire.Part, wire.Finalize)
        except ProtocolError:
            continue
        if not parts.has_room:
            parts.close_all()
        try:
            if isinstance(message, wire.Finalize):
                parts.finalize(message, header.rank)
                continue
            place = parts.place(message, header.rank)
        except ProtocolError:
            continue
        if isinstance(place, Fate):
            continue
        for block, (shape, dtype) in enumerate(place.payload):
            place.write(block, np.ones(shape, dtype))
        for whole in parts.received(place, Sender(b"x", message.buffer)):
            if whole.slot is not None:
                held += 1
                parts.reject(whole)
    parts.close_all()
    counts = parts.counters
    assert counts.produced == counts.received + counts.lost
    assert counts.received == counts.duplicate + counts.rejected
    assert store.free == SLOTS


def fill(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        return
    vectors = json.loads(VECTORS.read_text())
    for vector in vectors["messages"] + vectors["refused"]:
        raw = bytes.fromhex(vector["hex"])
        (folder / vector["name"]).write_bytes(len(raw).to_bytes(2, "little") + raw)
    blocks = [wire.Block(0, (0, 0), (4, 3)), wire.Block(1, (0,), (5,))]
    halves = [
        [wire.Block(0, (2 * r, 0), (2, 3)), wire.Block(1, (3 * r,), (3 - r,))] for r in (0, 1)
    ]
    raw = b""
    for rank, (places, ranks) in enumerate([(halves[0], 2), (halves[1], 2), (blocks, 1)]):
        part = wire.Part(ranks, 0, 0 if ranks == 2 else 1, 2, ranks, 0, 1, tuple(places))
        one = wire.encode(part, 1, rank % 2 if ranks == 2 else 0, bytes(16))
        raw += len(one).to_bytes(2, "little") + one
        end = wire.encode(wire.Finalize(ranks, 0, 8, ranks), 1, rank % ranks, bytes(16))
        raw += len(end).to_bytes(2, "little") + end
    (folder / "simulation").write_bytes(raw)


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        if not argument.startswith("-"):
            fill(Path(argument))
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()
