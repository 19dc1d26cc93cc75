"""An ingest thread with its real sockets, and messages of clients."""

import numpy as np

from melissa_gen.protocol import json_messages, wire
from melissa_gen.reservoir import SlotStore, create
from melissa_gen.server.ingest.assembler import Assembler
from melissa_gen.server.ingest.receiver import Ingest
from melissa_gen.server.rank_state import RankState

FIELDS = (wire.StudyField("u", "float32", (4, 3)), wire.StudyField("p", "float64", (5,)))
WHOLE = (wire.Block(0, (0, 0), (4, 3)), wire.Block(1, (0,), (5,)))
HALVES = [
    (wire.Block(0, (0, 0), (4, 1)), wire.Block(1, (0,), (2,))),
    (wire.Block(0, (0, 1), (4, 2)), wire.Block(1, (2,), (3,))),
]
STEPS, CREDIT, CAPACITY = 8, 2, 2


def source(step):
    u = np.arange(12, dtype="f4").reshape(4, 3) + 100 * step
    p = np.arange(5, dtype="f8") - 100 * step
    return u, p


def payload(step, blocks=WHOLE):
    found = []
    for values, block in zip(source(step), blocks, strict=True):
        region = tuple(slice(s, s + e) for s, e in zip(block.start, block.extent, strict=True))
        found.append(np.ascontiguousarray(values[region]).tobytes())
    return found


class Rank:
    """An ingest thread, and a stand-in for rank 0."""

    def __init__(self, context, bound, credit=CREDIT, chunk=1, **options):
        contact, sockets = bound
        self.contact, self.control = contact, sockets["control"]
        sizes = {f.name: (f.shape, f.dtype) for f in FIELDS}
        self.store = SlotStore(sizes, CAPACITY + 2 * credit * chunk, n_inputs=2)
        self.reservoir = create("reservoir", self.store, CAPACITY, 1, seed=0)
        self.state = RankState()
        assembler = Assembler(FIELDS, STEPS, 2, 2, 0, 1, self.store, (credit, chunk))
        self.ingest = Ingest(
            context,
            contact,
            sockets["data"],
            assembler,
            self.reservoir,
            self.state,
            0,
            lambda step: 0.5 * step,
            memory_grace=0.0,
            **options,
        )
        self.ingest.start()
        self.identity = None
        self.refused = {}
        self.finalized = []
        assert self.report("rank_hello")["rank"] == 0
        self.out = {f.name: np.empty((8, *f.shape), f.dtype) for f in FIELDS}
        self.closed = False

    def report(self, kind="rank_report"):
        message = {"type": "ping"}
        while message["type"] == "ping":
            assert self.control.poll(10_000), "no report"
            self.identity, *frames = self.control.recv_multipart()
            message = json_messages.unpack(self.contact.token, frames)
        if message["type"] == "rank_report":
            for _, reason, count in message["refused"]:
                self.refused[reason] = self.refused.get(reason, 0) + count
            self.finalized += message["finalized"]
        assert message["type"] == kind
        return message

    def wait(self, condition):
        while not condition(report := self.report()):
            assert self.state.error is None
        return report

    def tell(self, kind, **values):
        frames = json_messages.pack(self.contact.token, {"type": kind, **values})
        self.control.send_multipart([self.identity, *frames])

    def assign(self, simulation=0, parameter=1.5):
        self.tell(
            "assigned", simulation=simulation, parameters=[parameter], weight=1.0, log_density=None
        )

    def draw(self, n=1):
        batch = self.reservoir.draw(n, self.out, below_watermark=True)
        self.ingest.made_room()
        return batch

    def end(self):
        """Ends the thread; returns the last report."""
        if not self.closed:
            self.closed = True
            self.ingest.close()
            report = self.wait(lambda r: r["last"])
            counts, held = report["counters"], report["reservoir"]
            assert counts["produced"] == counts["received"] + counts["lost"]
            assert counts["received"] == (held["stored"] + counts["duplicate"] + counts["rejected"])
            assert held["stored"] == held["trained"] + sum(held["withdrawn"].values())
            assert self.store.free == self.store.slots
            return report
        return None


def part(step, blocks=WHOLE, *, count=1, attempt=0, ranks=1, buffer=0, place=0, simulation=0):
    return wire.Part(simulation, attempt, step, count, ranks, buffer, place, tuple(blocks))


def credit(client):
    return client.receive(wire.Credit).buffers
