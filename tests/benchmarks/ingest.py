"""Fields per second that reach the reservoir, and the CPU time of each, for four sizes.

By ipc and by tcp, with client and server on one machine: the client's buffers are shared memory, which the server reads
in place. And by tcp with payloads through the socket, as between machines.

Ours: `ingest_window.py`. CPU microseconds per field of the client (check of the values, private copy, wire), of the
ingest thread, and of both processes with the threads of ZeroMQ.

Against raw ZeroMQ: pyzmq between two processes as fast as it goes: the sender hands the same ring of buffers to
`send(copy=False)` again and again, each once its tracker says that it is free; the receiver either does `recv_into`
rows of an array as large as the reservoir (rows) or `recv(copy=False)` and drops the frame (frames). The better of the
two is what ours is compared with, although a dropped frame is nowhere yet. Both ends share this machine's cores; the
CPU seconds that the receiving process takes per gigabyte say what would be left of that with the senders elsewhere.

Checked and copied: the same raw sender and receiver with the three passes over a field that streaming into a reservoir
requires. The sender looks for NaN and copies the field, because the solver continues in its array, and the
receiver copies the field into a row. The rest of the distance from raw is ours.

With `--against COMMIT`, ours is compared with an earlier commit instead of raw ZeroMQ: the commit is checked out into a
temporary worktree, and the ratios (now / then) are medians over neighboring windows.

With `--counters`, ours is compared with itself without the counters that say what the ingest thread spends its time on:
the ratios (counted / uncounted) of rate and CPU time are what the counters cost, at some eight readings of the clock a
message. Those of the client, which reads it twice or three times a time step, are counted in both.

Each repetition starts fresh processes, warms them up, and counts over a window; the cases take turns.
"""

import argparse
import contextlib
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import zmq
from ingest_window import rows_of
from loopback import word_from
from measure import ROOT, Result, Target, command_line, environment, finish, interleaved, ratio

from melissa_gen.builders.memory import allocator

Window = dict[str, float]
Case = Callable[..., Window]
"""Returns a window, given way, shape and the arguments of the command line."""

WAYS = {"ipc": ("ipc", True), "tcp": ("tcp", True), "tcp, by socket": ("tcp", False)}
"""Transport, and whether the client's memory is read in place."""
SIZES = {"4 KB": (32, 32), "40 KB": (100, 100), "1 MiB": (512, 512), "4 MiB": (1024, 1024)}
SMALL = ("4 KB", "40 KB")
"""Sizes without a target relative to raw ZeroMQ."""
KEYS = ("rate", "client", "ingest thread", "both")
COSTS = ("client µs", "ingest thread µs", "both µs")
SHARES = ("rate, ratio", "client, ratio", "ingest thread, ratio", "both, ratio")
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
    other = parser.add_mutually_exclusive_group()
    other.add_argument("--against", metavar="COMMIT", help="compare with this commit")
    other.add_argument(
        "--counters", action="store_true", help="compare with ingest that counts no time"
    )
    args = parser.parse_args()
    args.repetitions = args.repetitions or (2 if args.quick else 7)
    args.seconds = args.seconds or (0.6 if args.quick else 2.0)
    args.warm = 0.4 if args.quick else 1.0
    if args.against:
        compare(args)
    elif args.counters:
        cases = {"uncounted": partial(ours, ROOT, counted=False), "counted": partial(ours, ROOT)}
        side_by_side("Ingest with counters of its time (counted) and without", cases, args)
    else:
        against_raw(args)


def against_raw(args: argparse.Namespace) -> None:
    """Compares this tree with raw ZeroMQ."""
    env = environment()
    result = Result(
        "Fields per second into the reservoir, against raw ZeroMQ",
        (
            *("size", "by", "ours/s", "ours MB/s", "raw rows/s", "raw frames/s", "ours / raw"),
            *("checked and copied / raw", *COSTS, "CPU s/GB server", "CPU s/GB raw rows"),
        ),
    )
    for way in args.ways:
        transport = WAYS[way][0]
        # As the launcher starts a server; the raw receiver has it too.
        os.environ.update(allocator(over_tcp=transport == "tcp"))
        for size in args.sizes:
            shape = SIZES[size]
            cases = {"ours": partial(ours, ROOT, way, shape, args)} | {
                into: partial(raw, transport, shape, into, args)
                for into in ("passes", "rows", "frames")
            }
            windows = interleaved(cases, args.repetitions)
            found = {name: [one["rate"] for one in windows[name]] for name in cases}
            best = max(("rows", "frames"), key=lambda name: statistics.median(found[name]))
            share, floor = ratio(found["ours"], found[best]), ratio(found["passes"], found[best])
            bytes_each = 4 * int(np.prod(shape))
            rates = [statistics.median(found[name]) for name in ("ours", "rows", "frames")]
            costs = {key: median_of(windows["ours"], key) for key in (*KEYS[1:], "server")}
            per_gigabyte = [
                1e3 * cost / bytes_each
                for cost in (costs.pop("server"), median_of(windows["rows"], "server"))
            ]
            line = (size, way, rates[0], rates[0] * bytes_each / 1e6, *rates[1:], share, floor)
            result.rows.append((*line, *costs.values(), *per_gigabyte))
            result.details[f"{size} {way}"] = windows
            if size not in SMALL:
                result.targets.append(Target(f"ours / raw, {size}, {way}", 0.7, share))
    finish(result, env, args, "ingest")


def median_of(windows: list[Window], key: str) -> float:
    """Returns the median of one value of all windows."""
    return statistics.median(window[key] for window in windows)


# Ours.


def ours(
    tree: Path, way: str, shape: tuple[int, ...], args: argparse.Namespace, counted: bool = True
) -> Window:
    """Runs `ingest_window.py` on a tree; rate, and CPU microseconds of each side by name."""
    transport, shared = WAYS[way]
    command = [sys.executable, str(ROOT / "tests" / "benchmarks" / "ingest_window.py"), str(tree)]
    command += [
        transport,
        *map(str, shape),
        "--warm",
        str(args.warm),
        "--seconds",
        str(args.seconds),
    ]
    command += [] if shared else ["--unshared"]
    command += [] if counted else ["--uncounted"]
    command += ["--credit", str(args.credit)] if args.credit else []
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"no window with {tree}:\n{done.stdout}{done.stderr}")
    found: Window = json.loads(done.stdout.splitlines()[-1])
    return found


@contextlib.contextmanager
def checked_out(commit: str) -> Iterator[Path]:
    """A worktree of a commit, which is removed at the end."""
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "tree"
        git = ["git", "-C", str(ROOT), "worktree"]
        subprocess.run(
            [*git, "add", "--detach", str(tree), commit], check=True, capture_output=True
        )
        try:
            yield tree
        finally:
            subprocess.run([*git, "remove", "--force", str(tree)], check=True)


def compare(args: argparse.Namespace) -> None:
    """Compares this tree with an earlier commit."""
    with checked_out(args.against) as tree:
        cases = {"then": partial(ours, tree), "now": partial(ours, ROOT)}
        side_by_side(f"This tree (now) and {args.against} (then)", cases, args)


def side_by_side(title: str, cases: dict[str, Case], args: argparse.Namespace) -> None:
    """Compares two cases in neighboring windows; the ratios are those of the second to the first."""
    env = environment()
    first, second = cases
    columns = ("size", "by", *(f"{what}, {name}" for what in COSTS for name in cases))
    result = Result(title, (*columns, *SHARES))
    for way in args.ways:
        os.environ.update(allocator(over_tcp=WAYS[way][0] == "tcp"))
        for size in args.sizes:
            found = interleaved(
                {name: partial(case, way, SIZES[size], args) for name, case in cases.items()},
                args.repetitions,
            )
            values = {
                (key, name): [one[key] for one in found[name]] for key in KEYS for name in cases
            }
            medians = [statistics.median(values[key, name]) for key in KEYS[1:] for name in cases]
            shares = [ratio(values[key, second], values[key, first]) for key in KEYS]
            result.rows.append((size, way, *medians, *shares))
            result.details[f"{size} {way}"] = found
    finish(result, env, args, "ingest")


# Raw.


def raw(transport: str, shape: tuple[int, ...], into: str, args: argparse.Namespace) -> Window:
    """Rate of messages that arrive, and CPU microseconds of the receiving process."""
    with tempfile.TemporaryDirectory() as folder:
        address = f"ipc://{folder}/raw" if transport == "ipc" else "tcp://127.0.0.1:*"
        here, there = SPAWN.Pipe()
        receiver = SPAWN.Process(
            target=_receive_raw,
            args=(there, address, shape, into, args.warm, args.seconds),
            daemon=True,
        )
        receiver.start()
        there.close()
        sender = SPAWN.Process(
            target=_send_raw, args=(word_from(here, receiver), shape, into == "passes"), daemon=True
        )
        sender.start()
        found: Window = word_from(here, receiver, sender)
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
    rows = np.zeros((rows_of(shape), *shape), np.float32)
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
    microseconds = 1e6 * (time.process_time() - worked) / received
    pipe.send({"rate": received / (now - began), "server": microseconds})


if __name__ == "__main__":
    main()
