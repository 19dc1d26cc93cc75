"""Redis: a list that the solver appends to and the trainer takes from."""

import multiprocessing
import struct
import subprocess
import tempfile
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
from sources import Item, Source, in_flight, items

NEEDS = ("redis", "redis-server")
CONFIGURATION = (
    "a server on a Unix socket, no persistence, RPUSH and LPOP of up to 256 KiB, 8 MB in the list"
)
AT, KEY = struct.Struct("<qq"), "fields"


def stream(source: Source) -> Iterator[Item]:
    """Yields what is taken from the list."""
    with tempfile.TemporaryDirectory() as folder:
        where = f"{folder}/socket"
        words = ("--port", "0", "--unixsocket", where, "--save", "", "--appendonly", "no")
        quiet = ("--loglevel", "warning", "--dir", folder)
        server = subprocess.Popen(["redis-server", *words, *quiet], stdout=subprocess.DEVNULL)
        spawn = multiprocessing.get_context("spawn")
        sender = spawn.Process(target=send, args=(source, where), daemon=True)
        try:
            client = _connected(where)
            sender.start()
            left = source.count * source.steps
            while left:
                _, first = client.blpop([KEY])
                more = client.lpop(KEY, batch(source) - 1) if batch(source) > 1 else None
                for raw in (first, *(more or ())):
                    left -= 1
                    yield *AT.unpack_from(raw), np.frombuffer(raw, np.float32, offset=AT.size)
        finally:
            if sender.is_alive():
                sender.terminate()
            server.terminate()
            server.wait()


def batch(source: Source) -> int:
    """Returns the number of fields that are sent or taken at once."""
    return max(1, min(64, (1 << 18) // (4 * source.values)))


def _connected(where: str) -> Any:
    import redis

    client = redis.Redis(unix_socket_path=where)
    for _ in range(100):
        try:
            client.ping()
        except redis.exceptions.ConnectionError:
            time.sleep(0.05)
        else:
            break
    return client


def send(source: Source, where: str) -> None:
    """Solves and appends to the list."""
    client, raws = _connected(where), []
    for simulation, step, field in items(source):
        raws.append(AT.pack(simulation, step) + field.tobytes())
        if len(raws) >= batch(source) or step + 1 == source.steps:
            while client.rpush(KEY, *raws) > in_flight(source.values):
                raws = []
                while client.llen(KEY) > in_flight(source.values) // 2:
                    time.sleep(0.0005)
                break
            raws = []
