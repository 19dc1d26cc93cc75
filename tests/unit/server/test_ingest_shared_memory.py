"""The ingest thread with its real sockets: values in the shared memory of clients."""

import os
import subprocess
import sys

import numpy as np
import pytest

from melissa_gen.protocol import wire
from melissa_gen.protocol.shared_memory import SharedBuffers
from tests.unit.server.ingest_rank import CREDIT, FIELDS, HALVES, credit, part, payload, source


def shared_client(client):
    """Offers memory as a client of all fields does; returns its buffers."""
    blocks = [((1, *f.shape), np.dtype(f.dtype)) for f in FIELDS]
    shared = SharedBuffers(CREDIT, blocks)
    client.send(wire.Share(os.getpid(), shared.descriptor, shared.nonce, CREDIT))
    assert credit(client) == tuple(range(CREDIT))
    return shared


def fill(shared, buffer, step):
    for array, values in zip(shared.arrays[buffer], source(step), strict=True):
        array[...] = values


def test_values_are_read_from_a_clients_memory(rank, client):
    rank.assign()
    shared = shared_client(client)
    for step in range(2):
        fill(shared, step, step)
        client.send(part(step, buffer=step))
        assert credit(client) == (step,)
        fill(shared, step, 99)  # credit is back: the buffer is the client's again
        batch = rank.draw()
        assert all(
            np.array_equal(batch.fields[f.name][0], v)
            for f, v in zip(FIELDS, source(step), strict=True)
        )
    assert rank.end()["counters"]["bytes"] == 2 * (48 + 40)


def test_blocks_from_the_memory_of_two_ranks(rank, peer):
    rank.assign()
    for number, blocks in enumerate(HALVES):
        client = peer("data")
        shared = SharedBuffers(
            CREDIT,
            [((1, *b.extent), np.dtype(f.dtype)) for b, f in zip(blocks, FIELDS, strict=True)],
        )
        client.send(wire.Share(os.getpid(), shared.descriptor, shared.nonce, CREDIT), rank=number)
        assert credit(client) == (0, 1)
        for array, raw in zip(shared.arrays[1], payload(2, blocks), strict=True):
            array[...] = np.frombuffer(raw, array.dtype).reshape(array.shape)
        client.send(part(2, blocks, ranks=2, buffer=1), rank=number)
    rank.wait(lambda r: r["reservoir"]["stored"] == 1)
    batch = rank.draw()
    u, p = source(2)
    assert np.array_equal(batch.fields["u"][0], u)
    assert np.array_equal(batch.fields["p"][0], p)


def unsealed(_):
    descriptor = os.memfd_create("unsealed", os.MFD_ALLOW_SEALING)
    os.write(descriptor, (7).to_bytes(8, "little") + bytes(4096))
    return wire.Share(os.getpid(), descriptor, 7, CREDIT)


BAD_OFFERS = {
    "no such process": lambda s: wire.Share(2**31 - 1, s.descriptor, s.nonce, CREDIT),
    "no such file": lambda s: wire.Share(os.getpid(), 99_999, s.nonce, CREDIT),
    "not memory": lambda s: wire.Share(os.getpid(), 0, s.nonce, CREDIT),
    "another's": lambda s: wire.Share(os.getpid(), s.descriptor, s.nonce + 1, CREDIT),
    "negative nonce": lambda s: wire.Share(os.getpid(), s.descriptor, -1, CREDIT),
    "can shrink": unsealed,
    "more than the credit": lambda s: wire.Share(os.getpid(), s.descriptor, s.nonce, CREDIT + 1),
}


@pytest.mark.parametrize("offer", BAD_OFFERS)
def test_memory_that_can_not_be_read_is_refused_and_frames_go_on(rank, client, offer):
    rank.assign()
    shared = SharedBuffers(CREDIT, [((2,), np.dtype("f4"))])
    client.send(BAD_OFFERS[offer](shared))
    assert client.receive(wire.Refused).reason
    client.send(part(0), *payload(0))
    assert credit(client) == (0,)


def test_a_part_beyond_the_clients_memory_is_lost_and_counted(rank, client):
    rank.assign()
    shared = SharedBuffers(CREDIT, [((2,), np.dtype("f4"))])  # smaller than the study's fields
    client.send(wire.Share(os.getpid(), shared.descriptor, shared.nonce, CREDIT))
    assert credit(client) == (0, 1)
    client.send(part(0, buffer=1))
    assert credit(client) == (1,)
    rank.wait(lambda r: rank.refused)
    report = rank.end()
    assert (report["counters"]["produced"], report["counters"]["lost"]) == (1, 1)


CHILD = """
import os, sys
import numpy as np
from melissa_gen.protocol.shared_memory import SharedBuffers
shared = SharedBuffers(2, [((1, 4, 3), np.dtype("f4")), ((1, 5), np.dtype("f8"))])
for buffer in shared.arrays:
    for array in buffer:
        array.fill(os.getpid())
print(os.getpid(), shared.descriptor, shared.nonce, flush=True)
sys.stdin.read()
"""


def test_memory_of_a_killed_client_is_read_and_then_released(rank, client):
    rank.assign()
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    pid, descriptor, nonce = map(int, child.stdout.readline().split())
    client.send(wire.Share(pid, descriptor, nonce, CREDIT))
    assert credit(client) == (0, 1)
    child.stdin.close()  # ended, but not yet waited for: still there
    client.send(part(0, buffer=1))
    assert credit(client) == (1,)
    assert (rank.draw().fields["u"][0] == pid).all()
    assert rank.ingest.mapped_clients == 1
    child.wait()
    child.stdout.close()
    rank.wait(lambda r: not rank.ingest.mapped_clients)
