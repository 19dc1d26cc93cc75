"""The memory that a client shares with a server rank."""

import os
import subprocess
import sys
from contextlib import contextmanager

import pytest

from melissa_gen.protocol.shared_memory import SharedView

OFFER = """
import os, sys
import numpy as np
from melissa_gen.protocol.shared_memory import SharedBuffers
with open("/proc/sys/kernel/ns_last_pid", "w") as last:
    last.write(str({pid} - 1))
if os.fork() == 0:
    shared = SharedBuffers(1, [((2,), np.dtype("f8"))])
    shared.arrays[0][0][:] = 1.0, 2.0
    print(os.getpid(), shared.descriptor, shared.nonce, flush=True)
    sys.stdin.readline()
else:
    os.wait()
"""


@contextmanager
def offering(pid):
    """A process with a given number that offers its memory."""
    command = [sys.executable, "-c", OFFER.format(pid=pid)]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdin and process.stdout
    try:
        line = process.stdout.readline()
        yield tuple(map(int, line.split())) if line else process.communicate()[1].splitlines()[-1]
    finally:
        process.communicate("")


def free_number():
    """Returns the number of a process that has ended."""
    done = subprocess.Popen(["true"])
    done.wait()
    return done.pid


def test_a_process_with_the_number_of_an_ended_client_is_not_the_client():
    with offering(free_number()) as offer:
        if isinstance(offer, str):
            pytest.skip(f"a process can't be given a number: {offer}")
        first = offer
        view = SharedView(*first)
        assert view.alive
        block = ((), "f8")
        assert [a.tolist() for a in view.read((0, 0, 2), 2, [block])] == [[1.0, 2.0]]
        assert [a.tolist() for a in view.read((0, 1, 1), 2, [block])] == [[2.0]]
        assert view.read((0, 1, 2), 2, [block]) is None
        assert view.read((1, 0, 1), 2, [block]) is None
    assert not view.alive
    with offering(first[0]) as again:
        if isinstance(again, str) or again[0] != first[0]:
            pytest.skip(f"process {first[0]} was not free again: {again}")
        os.kill(first[0], 0)
        assert not view.alive
    view.close()
