"""The ingest thread with its real sockets: invalid data of unknown peers and broken clients loses nothing."""

import math
import os
import time

import numpy as np
import pytest

from melissa_gen.protocol import wire
from melissa_gen.protocol.shared_memory import SharedBuffers
from melissa_gen.reservoir import create
from melissa_gen.server.ingest.assembler import Assembler, Fate, Sender
from melissa_gen.server.ingest.credit import CreditQueue
from melissa_gen.server.stopwatch import INGEST_PARTS
from tests.unit.server.ingest_rank import (
    CAPACITY,
    CREDIT,
    FIELDS,
    HALVES,
    STEPS,
    Rank,
    credit,
    part,
    payload,
    source,
)


def test_a_single_buffer_is_returned_when_idle(context, bound, peer):
    rank = Rank(context, bound, credit=8)
    client = peer("data")
    rank.assign()
    client.send(part(0, buffer=5), *payload(0))
    assert credit(client) == (5,)
    rank.end()


def test_freed_rows_are_used_at_once(context, bound, peer):
    """No report, which would also wake the thread, is due while the test runs."""
    rank = Rank(context, bound, report_seconds=1000.0)
    client = peer("data")
    rank.assign()
    client.send(part(0, buffer=0), *payload(0))
    assert credit(client) == (0,)
    # The trainer copies all rows but one, while no sample waits to be stored.
    copied = [rank.store.acquire() for _ in range(rank.store.free)]
    client.send(part(1, buffer=1), *payload(1))
    assert client.silent(50)
    for slot in copied:
        rank.store.release(slot)
    rank.ingest.made_room()
    assert credit(client) == (1,)
    rank.end()


def test_the_thread_says_where_its_time_went(context, bound, peer):
    began = time.monotonic()
    rank = Rank(context, bound, report_seconds=0.01)
    client = peer("data")
    rank.assign()
    # The reservoir holds two samples, of which none has been used: the third one waits for room.
    for step in range(3):
        client.send(part(step, buffer=step % 2), *payload(step))
    report = rank.wait(lambda r: r["pending"] and r["ingest"]["blocked"] > 0.05)
    passed, spent = time.monotonic() - began, report["ingest"]
    assert all(spent[part] > 0 for part in INGEST_PARTS)
    assert 0.05 < math.fsum(spent.values()) < passed
    later = rank.report()
    # Without a gap: what passes between two reports is counted.
    assert math.fsum(later["ingest"].values()) > math.fsum(spent.values())
    rank.end()


def test_half_of_the_buffers_are_returned_at_a_time_under_load():
    credit = CreditQueue(8)
    credit.add([Sender(b"quick", n) for n in range(4)] + [Sender(b"slow", 7)])
    assert credit.take_due(idle=False) == [(b"quick", (0, 1, 2, 3))]
    assert credit
    assert credit.take_due(idle=True) == [(b"slow", (7,))]
    assert not credit


def test_a_part_becomes_a_sample_with_its_inputs(rank, client):
    rank.assign(parameter=2.5)
    client.send(part(3, buffer=1), *payload(3))
    assert credit(client) == (1,)
    batch = rank.draw()
    u, p = source(3)
    assert np.array_equal(batch.fields["u"][0], u)
    assert np.array_equal(batch.fields["p"][0], p)
    assert batch.inputs.tolist() == [[2.5, 1.5]]
    assert (batch.simulations.tolist(), batch.steps.tolist()) == ([0], [3])


def test_blocks_that_are_not_contiguous_land_where_they_belong(rank, client):
    rank.assign()
    for number, blocks in enumerate(HALVES):
        client.send(part(2, blocks, ranks=2), *payload(2, blocks), rank=number)
    given = credit(client)
    while len(given) < 2:
        given += credit(client)
    assert given == (0, 0)
    batch = rank.draw()
    u, p = source(2)
    assert np.array_equal(batch.fields["u"][0], u)
    assert np.array_equal(batch.fields["p"][0], p)


def test_a_rank_may_have_no_part_of_a_field(rank, client):
    rank.assign()
    shares = [
        (wire.Block(0, (0, 0), FIELDS[0].shape), wire.Block(1, FIELDS[1].shape, (0,))),
        (wire.Block(0, (0, 0), (0, 0)), wire.Block(1, (0,), FIELDS[1].shape)),
    ]
    for number, blocks in enumerate(shares):
        client.send(part(2, blocks, ranks=2), *payload(2, blocks), rank=number)
    given = credit(client)
    while len(given) < 2:
        given += credit(client)
    batch = rank.draw()
    u, p = source(2)
    assert np.array_equal(batch.fields["u"][0], u)
    assert np.array_equal(batch.fields["p"][0], p)


def strangers_bytes(contact):
    good = wire.encode(part(0), contact.epoch, 0, contact.token)
    u, p = payload(0)
    return {
        "empty": [b""],
        "http": [b"GET / HTTP/1.1"],
        "many frames": [b"x"] * 50,
        "empty frames": [b""] * 5,
        "other version": [good[:4] + b"\x63\x00" + good[6:], u, p],
        "other token": [wire.encode(part(0), contact.epoch, 0, bytes(16)), u, p],
        "stale epoch": [wire.encode(part(0), contact.epoch - 1, 0, contact.token), u, p],
        "wrong kind": [wire.encode(wire.Done(), contact.epoch, 0, contact.token)],
        "no room for the count": [good[:-1], u, p],
        "too large a frame": [b"\0" * 200_000],
    }


STRANGERS = [
    "empty",
    "http",
    "many frames",
    "empty frames",
    "other version",
    "other token",
    "stale epoch",
    "wrong kind",
    "no room for the count",
    "too large a frame",
]


@pytest.mark.parametrize("what", STRANGERS)
def test_unauthenticated_bytes_lose_no_data(rank, client, peer, what):
    rank.assign()
    stranger = peer("data")
    client.send(part(0), *payload(0))
    assert credit(client) == (0,)
    stranger.socket.send_multipart(strangers_bytes(rank.contact)[what])
    client.send(part(1), *payload(1))
    assert credit(client) == (0,)
    if what != "too large a frame":  # that one ends at the socket
        rank.wait(lambda r: rank.refused)
        assert sum(rank.refused.values()) == 1
    assert stranger.silent()
    report = rank.end()
    assert report["counters"]["received"] == report["reservoir"]["stored"] == 2
    assert report["counters"]["lost"] == 0


@pytest.mark.parametrize(
    "broken",
    [
        payload(0)[:1],
        [],
        [*payload(0), b"more"],
        [payload(0)[0], payload(0)[1][:-1]],
        [payload(0)[0] + b"\0", payload(0)[1]],
        [payload(0)[0] * 50, payload(0)[1]],
        [b"", b""],
    ],
    ids=["one frame", "none", "three frames", "short", "long", "very long", "empty"],
)
def test_a_payload_that_differs_from_its_header_is_refused(rank, client, broken):
    rank.assign()
    client.send(part(0), *broken)
    assert credit(client) == (0,)
    client.send(part(1), *payload(1))
    assert credit(client) == (0,)
    assert np.array_equal(rank.draw().fields["u"][0], source(1)[0])
    rank.wait(lambda r: rank.refused)
    assert "payload has another size than its header says" in next(iter(rank.refused))
    client.send(wire.Finalize(0, 0, 2, 1))
    rank.wait(lambda r: rank.finalized)
    assert rank.finalized == [[0, 0, 2, 1, []]]
    counts = rank.end()["counters"]
    assert (counts["produced"], counts["received"], counts["lost"]) == (2, 1, 1)


def test_a_refused_header_gives_its_credit_back(rank, client):
    """Otherwise a client would wait for the credit forever."""
    client.send(part(STEPS, buffer=1), *payload(0))
    assert credit(client) == (1,)
    rank.wait(lambda r: rank.refused)
    assert "the study has 8 time steps" in next(iter(rank.refused))


def test_duplicates_are_counted_and_give_credit(rank, client):
    rank.assign()
    for attempt in (0, 1, 1):
        client.send(part(0, attempt=attempt), *payload(0))
        assert credit(client) == (0,)
    report = rank.end()
    assert report["counters"]["produced"] == report["counters"]["received"] == 2
    assert report["counters"]["duplicate"] == 1
    assert report["reservoir"]["stored"] == 1


def test_a_full_reservoir_withholds_credit_until_a_draw(rank, client):
    rank.assign()
    for step in range(CAPACITY):
        client.send(part(step), *payload(step))
        assert credit(client) == (0,)
    for buffer, step in enumerate((CAPACITY, CAPACITY + 1)):
        client.send(part(step, buffer=buffer), *payload(step))
    rank.wait(lambda r: r["pending"] == 2)
    assert client.silent()
    assert rank.draw() is not None
    assert credit(client) == (0,)
    rank.wait(lambda r: r["pending"] == 1)
    assert client.silent()


def test_untrained_samples_of_a_checkpoint_are_accepted_again_by_the_next_server(rank, client):
    rank.assign()
    for step in range(2):
        client.send(part(step), *payload(step))
        assert credit(client) == (0,)
    trained = int(rank.draw().steps[0])
    client.send(part(2), *payload(2))
    assert credit(client) == (0,)
    client.send(part(3), *payload(3))
    rank.wait(lambda r: r["pending"] == 1)
    saved, saver = rank.ingest.state(None)
    assert saver is None

    assembler = Assembler(FIELDS, STEPS, 2, 2, 0, 1, rank.store, (CREDIT, 1))
    assembler.restore(saved["assembler"])
    reservoir = create("reservoir", rank.store, CAPACITY, 1, seed=1)
    reservoir.restore(saved["reservoir"])
    held, counts = reservoir.counters(), assembler.counters
    assert held["stored"] == counts.received == counts.produced == 4
    assert held["trained"] == 1
    assert held["withdrawn"] == {"lost with an earlier server": 3}
    for step in range(4):
        fate = assembler.place(part(step, attempt=1, ranks=2), 0)
        assert (fate is Fate.DUPLICATE) == (step == trained)
    assembler.close_all()


def test_a_simulation_is_reported_as_ended_when_its_samples_are_stored(rank, client):
    rank.assign()
    for step in range(CAPACITY):
        client.send(part(step), *payload(step))
        assert credit(client) == (0,)
    client.send(part(CAPACITY), *payload(CAPACITY))
    client.send(wire.Finalize(0, 0, CAPACITY + 1, 1))
    rank.wait(lambda r: r["pending"] == 1 and r["counters"]["received"] == CAPACITY + 1)
    client.send(part(CAPACITY, attempt=1), *payload(CAPACITY))
    rank.wait(lambda r: r["counters"]["duplicate"] == 1)
    assert rank.finalized == []
    rank.draw()
    rank.wait(lambda _: rank.finalized)
    assert rank.finalized == [[0, 0, CAPACITY + 1, CAPACITY + 1, []]]


def test_a_simulation_whose_samples_a_stop_rejects_is_not_reported_as_ended(rank, client):
    """A resumed study solves it again; if it counted as finished, these samples would never be trained."""
    rank.assign()
    for step in range(CAPACITY + 1):
        client.send(part(step), *payload(step))
    client.send(wire.Finalize(0, 0, CAPACITY + 1, 1))
    rank.wait(lambda r: r["pending"] == 1 and r["counters"]["received"] == CAPACITY + 1)
    rank.tell("stop", reason="enough")
    assert rank.end()["counters"]["rejected"] == 1
    assert rank.finalized == []


def test_a_sample_waits_for_the_assignment_of_its_simulation(rank, client):
    client.send(part(0), *payload(0))
    rank.wait(lambda r: r["pending"] == 1)
    assert client.silent()
    rank.assign()
    assert credit(client) == (0,)


def test_a_closed_attempt_gives_credit_back(rank, client):
    rank.assign()
    client.send(part(0, HALVES[0], ranks=2, buffer=1), *payload(0, HALVES[0]))
    rank.wait(lambda r: r["counters"]["produced"] == 1)
    assert client.silent()
    rank.tell("closed", simulation=0, attempt=0, over=False)
    assert credit(client) == (1,)
    client.send(part(1, HALVES[0], ranks=2), *payload(1, HALVES[0]))
    assert credit(client) == (0,)
    assert rank.end()["counters"]["lost"] == 2


def test_a_stop_rejects_waiting_samples_and_answers_all_clients(rank, client):
    rank.assign()
    for step in range(CAPACITY):
        client.send(part(step), *payload(step))
        assert credit(client) == (0,)
    client.send(part(2), *payload(2))
    client.send(part(3, HALVES[0], attempt=1, ranks=2, buffer=1), *payload(3, HALVES[0]))
    rank.wait(lambda r: r["pending"] == 1 and r["counters"]["produced"] == 4)
    rank.tell("stop", reason="enough")
    given = []
    while len(given) < 2:
        given += credit(client)
    assert sorted(given) == [0, 1]
    assert rank.state.stop_reason == "enough"
    client.send(part(4, HALVES[0], simulation=1, ranks=2), *payload(4, HALVES[0]))
    assert credit(client) == (0,)
    client.send(part(5), *payload(5))
    assert credit(client) == (0,)
    report = rank.end()
    assert report["counters"]["rejected"] == 2
    assert report["counters"]["lost"] == 2
    assert report["reservoir"]["withdrawn"] == {"stopped": 2}


def test_a_batch_that_is_drawn_after_a_stop_stays_in_memory(rank, client):
    """The trainer learns of the stop later than ingest; a resumed study reads back what it drew in between."""
    rank.assign()
    for step in range(CAPACITY):
        client.send(part(step), *payload(step))
        assert credit(client) == (0,)
    rank.tell("reception_over")
    rank.tell("stop", reason="enough")
    client.send(part(5), *payload(5))
    rank.wait(lambda r: r["counters"]["rejected"] == 1)
    assert rank.state.stop_reason == "enough"
    rank.draw()
    memory = rank.reservoir.counters()
    assert memory["seen"] > 0 and memory["seen"] + memory["unseen"] == CAPACITY


def test_late_samples_after_the_end_of_reception_are_rejected(rank, client):
    """A simulation that was given up may have parts under way when the others are all done."""
    rank.assign()
    client.send(part(0), *payload(0))
    assert credit(client) == (0,)
    rank.tell("reception_over")
    assert rank.reservoir.wait_ready(2, timeout=10)
    while not rank.reservoir.closed:
        rank.report()
    client.send(part(1), *payload(1))
    assert credit(client) == (0,)
    assert rank.draw(4).count == 1
    assert rank.reservoir.drained
    report = rank.end()
    assert (report["counters"]["received"], report["counters"]["rejected"]) == (2, 1)


def test_first_pass_losses_are_reported_once(rank, client):
    rank.state.add_first_pass([(0, 0.5, 0.0)])
    report = rank.wait(lambda r: r["first_pass"])
    assert report["first_pass"] == [[0, 0.5, 0.0]]
    assert not rank.report()["first_pass"]


def test_a_lost_peer_does_not_stop_the_others(rank, client, peer):
    rank.assign()
    gone = peer("data")
    gone.send(part(0, HALVES[0], ranks=2), *payload(0, HALVES[0]))
    rank.wait(lambda r: r["counters"]["produced"] == 1)
    gone.socket.close(linger=0)
    rank.tell("closed", simulation=0, attempt=0, over=False)
    client.send(part(0, attempt=1), *payload(0))
    assert credit(client) == (0,)


@pytest.mark.parametrize("shared", [False, True], ids=["frames", "shared"])
def test_a_chunk_becomes_samples_and_gives_its_buffer_back_once(context, bound, peer, shared):
    rank = Rank(context, bound, credit=2, chunk=4)
    client = peer("data")
    rank.assign()
    memory = None
    if shared:
        memory = SharedBuffers(2, [((4, *f.shape), np.dtype(f.dtype)) for f in FIELDS])
        client.send(wire.Share(os.getpid(), memory.descriptor, memory.nonce, 2))
        assert credit(client) == (0, 1)

    def send(first, count, place, attempt):
        steps = map(payload, range(first, first + count))
        frames = [b"".join(one) for one in zip(*steps, strict=True)]
        if memory is not None:
            for array, raw in zip(memory.arrays[1], frames, strict=True):
                values = np.frombuffer(raw, array.dtype).reshape((count, *array.shape[1:]))
                array[place : place + count] = values
            frames = []
        client.send(part(first, count=count, buffer=1, place=place, attempt=attempt), *frames)

    send(0, 2, 1, 0)
    assert credit(client) == (1,)
    # The first two time steps are known already; there is room for no other than the next one after a draw.
    send(1, 3, 1, 1)
    rank.wait(lambda r: r["pending"] == 2)
    assert client.silent()
    found = {}
    while len(found) < 4:
        batch = rank.draw()
        if batch is not None:
            found[int(batch.steps[0])] = [batch.fields[f.name][0].copy() for f in FIELDS]
    assert credit(client) == (1,)
    for step, fields in found.items():
        assert all(np.array_equal(a, b) for a, b in zip(fields, source(step), strict=True))
    report = rank.end()
    counts = report["counters"]
    assert (counts["produced"], counts["duplicate"], counts["lost"]) == (5, 1, 0)
    assert rank.store.free == rank.store.slots
