"""Raw pyzmq: the floor of a socket."""

import multiprocessing
import struct
import tempfile
import threading
from collections.abc import Iterator

import numpy as np
import zmq
from sources import Item, Source, in_flight, items

NEEDS = ("zmq",)
CONFIGURATION = "PUSH and PULL on ipc, header and buffer without copies, high-water mark of 8 MB"
AT = struct.Struct("<qq")


def stream(source: Source) -> Iterator[Item]:
    """Yields what arrives through the socket."""
    with tempfile.TemporaryDirectory() as folder, zmq.Context() as context:
        endpoint = f"ipc://{folder}/socket"
        pull = context.socket(zmq.PULL)
        pull.rcvhwm = in_flight(source.values)
        pull.bind(endpoint)
        spawn = multiprocessing.get_context("spawn")
        sender = spawn.Process(target=send, args=(source, endpoint), daemon=True)
        sender.start()
        try:
            while head := pull.recv():
                frame = pull.recv(copy=False)
                yield *AT.unpack(head), np.frombuffer(frame.buffer, np.float32)
        finally:
            sender.terminate()
            sender.join()
            pull.close(linger=0)


def send(source: Source, endpoint: str) -> None:
    """Solves and sends."""
    context = zmq.Context()
    push = context.socket(zmq.PUSH)
    push.sndhwm = in_flight(source.values)
    push.connect(endpoint)
    for simulation, step, field in items(source):
        push.send(AT.pack(simulation, step), zmq.SNDMORE)
        push.send(field, copy=False)
    push.send(b"")
    # Until the receiver ends this process: it would lose what it has not read when the connection is closed.
    threading.Event().wait()
