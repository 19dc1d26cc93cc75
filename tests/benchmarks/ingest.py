"""Fields per second that reach the reservoir, compared with raw ZeroMQ, for three sizes.

By ipc and by tcp, with client and server on one machine: the client's buffers are shared memory, which the server reads
in place. And by tcp with payloads through the socket, as between machines.

Ours: the client (its own process: check of the values, private copy, wire, credit) to the ingest thread, assembler and
reservoir of another process, where a drawer marks samples as seen, so that eviction continues. A sample counts when it
is in the reservoir. There is no trainer.

Raw: pyzmq between two processes as fast as it goes: the sender hands the same ring of buffers to `send(copy=False)`
again and again, each once its tracker says that it is free; the receiver either does `recv_into` rows of an array as
large as the reservoir (rows) or `recv(copy=False)` and drops the frame (frames). The better of the two is what ours
is compared with, although a dropped frame is nowhere yet. Both ends share this machine's cores; the CPU seconds that
the receiving process takes per gigabyte say what would be left of that with the senders elsewhere.

Checked and copied: the same raw sender and receiver with the three passes over a field that streaming into a reservoir
requires. The sender looks for NaN and copies the field, because the solver continues in its array, and the
receiver copies the field into a row. The rest of the distance from raw is ours.

Each repetition starts fresh processes, warms them up, and counts over a window; the cases take turns.
"""

import multiprocessing
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import zmq
from loopback import ControlStandIn, Rank, Rate, flow_over, new_contact, stream, word_from
from measure import Result, Target, command_line, environment, finish, interleaved, ratio

from melissa_gen.builders.memory import allocator
from melissa_gen.study.flow import Flow, default_flow

WAYS = {"ipc": ("ipc", True), "tcp": ("tcp", True), "tcp, by socket": ("tcp", False)}
"""Transport, and whether the client's memory is read in place."""
SIZES = {"40 KB": (100, 100), "1 MiB": (512, 512), "4 MiB": (1024, 1024)}
RESERVOIR_BYTES = 256 << 20
RING = 8
SPAWN = multiprocessing.get_context("spawn")


def main() -> None:
    parser = command_line(__doc__)
    parser.add_argument(
        "--credit", type=int, help="time steps in flight (server.credit); by default a study's"
    )
    parser.add_argument("--sizes", nargs="*", choices=SIZES, default=list(SIZES))
    parser.add_argument("--ways", nargs="*", choices=WAYS, default=list(WAYS))
    parser.add_argument("--repetitions", type=int)
    parser.add_argument("--seconds", type=float, help="length of a window")
    args = parser.parse_args()
    repetitions = args.repetitions or (2 if args.quick else 7)
    warm, window = (0.4, args.seconds or 0.6) if args.quick else (1.0, args.seconds or 2.0)
    env = environment()
    result = Result(
        "Fields per second into the reservoir, against raw ZeroMQ",
        (
            *("size", "by", "ours/s", "ours MB/s", "raw rows/s", "raw frames/s", "ours / raw"),
            *("checked and copied / raw", "CPU s/GB ours", "CPU s/GB raw rows"),
        ),
    )
    for way in args.ways:
        transport, shared = WAYS[way]
        # As the launcher starts a server; the raw receiver has it too.
        os.environ.update(allocator(over_tcp=transport == "tcp"))
        for size in args.sizes:
            shape = SIZES[size]
            flow = default_flow(4 * int(np.prod(shape)), credit=args.credit)
            cases = _cases(transport, shape, flow, shared, warm, window)
            flows = interleaved(cases, repetitions)
            found = {name: [flow.rate for flow in flows[name]] for name in cases}
            best = max(("rows", "frames"), key=lambda name: statistics.median(found[name]))
            share = ratio(found["ours"], found[best])
            gigabytes = 4 * int(np.prod(shape)) / 1e9
            ours, rows, frames = (statistics.median(found[k]) for k in ("ours", "rows", "frames"))
            cpu = {k: statistics.median(f.cpu_seconds for f in flows[k]) / gigabytes for k in cases}
            line = (size, way, ours, ours * 1000 * gigabytes, rows, frames, share)
            floor = ratio(found["passes"], found[best])
            result.rows.append((*line, floor, cpu["ours"], cpu["rows"]))
            result.details[f"{size} {way}"] = {"rates": found, "cpu_seconds_per_gb": cpu}
            if size != "40 KB":
                result.targets.append(Target(f"ours / raw, {size}, {way}", 0.7, share))
    finish(result, env, args, "ingest")


def _cases(
    transport: str, shape: tuple[int, ...], flow: Flow, shared: bool, warm: float, window: float
) -> dict[str, Callable[[], Rate]]:
    return {
        "ours": lambda: ours(transport, shape, flow, shared, warm, window),
        "passes": lambda: raw(transport, shape, "passes", warm, window),
        "rows": lambda: raw(transport, shape, "rows", warm, window),
        "frames": lambda: raw(transport, shape, "frames", warm, window),
    }


# Ours.


def ours(
    transport: str, shape: tuple[int, ...], flow: Flow, shared: bool, warm: float, window: float
) -> Rate:
    """Samples into the reservoir."""
    with tempfile.TemporaryDirectory() as folder:
        control = ControlStandIn(new_contact(transport), shape, flow)
        here, there = SPAWN.Pipe()
        receiver = SPAWN.Process(
            target=_receive_ours,
            args=(there, control.contact.to_json(), shape, flow, shared, warm, window),
            daemon=True,
        )
        receiver.start()
        there.close()  # the end of the process then ends a wait for its word
        contact_file = Path(folder) / "contact.json"
        _write_contact(word_from(here, receiver), contact_file)
        sender = SPAWN.Process(target=stream, args=(contact_file, shape, None), daemon=True)
        sender.start()
        found: Rate = word_from(here, receiver, sender)
        control.end_clients()
        sender.join()
        here.send("end")
        receiver.join()
        control.close()
        shutil.rmtree(control.contact.runtime_folder or folder, ignore_errors=True)
    return found


def _write_contact(text: str, path: Path) -> None:
    from melissa_gen.protocol.contact import Contact

    Contact.from_json(text).write(path)


def _receive_ours(
    pipe: Connection,
    contact: str,
    shape: tuple[int, ...],
    flow: Flow,
    shared: bool,
    warm: float,
    window: float,
) -> None:
    from threading import Event, Thread

    from melissa_gen.protocol.contact import Contact

    rank = Rank(Contact.from_json(contact), shape, _rows(shape), 1, flow, shared=shared)
    rank.ingest.start()
    over = Event()

    def draw() -> None:
        while not over.is_set():
            if rank.reservoir.draw(64, {}) is not None:  # no field is copied
                rank.ingest.made_room()
            time.sleep(0.002)

    drawer = Thread(target=draw)
    drawer.start()
    pipe.send(rank.contact.to_json())

    def stored() -> int:
        count: int = rank.reservoir.counters()["stored"]
        return count

    while not stored():
        time.sleep(0.01)
        _check(rank)
    time.sleep(warm)
    pipe.send(flow_over(stored, window))
    _check(rank)
    pipe.recv()
    over.set()
    drawer.join()
    rank.close()


def _check(rank: Rank) -> None:
    if rank.state.error is not None:
        raise rank.state.error


def _rows(shape: tuple[int, ...]) -> int:
    return max(64, min(2000, RESERVOIR_BYTES // (4 * int(np.prod(shape)))))


# Raw.


def raw(transport: str, shape: tuple[int, ...], into: str, warm: float, window: float) -> Rate:
    """Messages that arrive."""
    with tempfile.TemporaryDirectory() as folder:
        address = f"ipc://{folder}/raw" if transport == "ipc" else "tcp://127.0.0.1:*"
        here, there = SPAWN.Pipe()
        receiver = SPAWN.Process(
            target=_receive_raw,
            args=(there, address, shape, into, warm, window),
            daemon=True,
        )
        receiver.start()
        there.close()
        sender = SPAWN.Process(
            target=_send_raw, args=(word_from(here, receiver), shape, into == "passes"), daemon=True
        )
        sender.start()
        found: Rate = word_from(here, receiver, sender)
        sender.terminate()
        sender.join()
        receiver.join()
    return found


def _send_raw(endpoint: str, shape: tuple[int, ...], passes: bool) -> None:
    socket = zmq.Context().socket(zmq.PUSH)
    socket.connect(endpoint)
    values = np.random.default_rng(0).random(shape, np.float32)
    ring = [values.copy() for _ in range(RING)]
    trackers: list[Any] = [None] * RING
    copied = values.nbytes < zmq.COPY_THRESHOLD  # then pyzmq copies, and there is nothing to track
    while True:
        for k in range(RING):
            if trackers[k] is not None:
                trackers[k].wait()
            if passes:
                assert np.isfinite(np.dot(values.ravel(), values.ravel()))
                np.copyto(ring[k], values)
            trackers[k] = socket.send(ring[k].data, copy=False, track=not copied)


def _receive_raw(
    pipe: Connection, address: str, shape: tuple[int, ...], into: str, warm: float, window: float
) -> None:
    socket = zmq.Context().socket(zmq.PULL)
    socket.bind(address)
    rows = np.zeros((_rows(shape), *shape), np.float32)
    pipe.send(socket.last_endpoint.decode().rstrip("\0"))
    views = [row.data for row in rows]

    def receive(count: int) -> None:
        if into != "frames":
            for k in range(count):
                socket.recv_into(views[k % len(views)])
        else:
            for _ in range(count):
                socket.recv(copy=False)

    burst = 16
    receive(len(rows))
    until = time.perf_counter() + warm
    while time.perf_counter() < until:
        receive(burst)
    received, worked, began = 0, time.process_time(), time.perf_counter()
    while (now := time.perf_counter()) < began + window:
        receive(burst)
        received += burst
    pipe.send(Rate(received / (now - began), (time.process_time() - worked) / received))


if __name__ == "__main__":
    main()
