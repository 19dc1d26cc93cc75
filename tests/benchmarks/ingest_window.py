"""Streams fields from the client into the reservoir of a server rank for some seconds, and prints what each costs.

A process of its own, so that `ingest.py` can compare commits: it imports the packages, and `loopback.py`, of the tree
that it is given. Client, wire, credit, ingest thread, assembler and reservoir are the real ones. A drawer marks samples
as seen, so that eviction continues. A sample counts when it is in the reservoir. There is no trainer.

The client runs in a second process, and its solver computes nothing. All times are CPU times, which depend less on the
load of the machine than the rate does.
"""

import argparse
import json
import multiprocessing
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

RESERVOIR_BYTES = 256 << 20
DEFAULT_CREDIT_BEFORE_CHUNKS = 16
"""Largest default of `server.credit` in commits that send one time step in a message."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tree", type=Path, help="root of the repository's tree")
    parser.add_argument("transport", choices=("ipc", "tcp"))
    parser.add_argument("shape", type=int, nargs="+")
    parser.add_argument("--credit", type=int)
    parser.add_argument("--unshared", action="store_true", help="send payloads through the socket")
    parser.add_argument("--uncounted", action="store_true", help="ingest counts no time")
    parser.add_argument("--warm", type=float, default=1.0)
    parser.add_argument("--seconds", type=float, default=2.0)
    args = parser.parse_args()
    tree = args.tree.resolve()
    sys.path[:0] = [str(tree), str(tree / "tests" / "benchmarks")]
    import melissa_gen

    assert Path(melissa_gen.__file__).is_relative_to(tree), melissa_gen.__file__
    if args.uncounted:
        from melissa_gen.server.stopwatch import Stopwatch

        # The client is another process, which does not use it.
        Stopwatch.lap = lambda self, part: None  # type: ignore[method-assign]
    print(json.dumps(measured(args, tuple(args.shape))))


def measured(args: argparse.Namespace, shape: tuple[int, ...]) -> dict[str, float]:
    """Returns fields per second, and CPU microseconds per field of the client and the server."""
    from loopback import ControlStandIn, Rank, new_contact, stream

    flow: Any = flow_of(4 * int(np.prod(shape)), args.credit)
    control = ControlStandIn(new_contact(args.transport), shape, flow)
    rank = Rank(control.contact, shape, rows_of(shape), 1, flow, shared=not args.unshared)
    rank.ingest.start()
    over = threading.Event()
    drawer = threading.Thread(target=draw, args=(rank, over))
    drawer.start()
    with tempfile.TemporaryDirectory() as folder:
        contact_file = Path(folder) / "contact.json"
        rank.contact.write(contact_file)
        spawn = multiprocessing.get_context("spawn")
        sender = spawn.Process(target=stream, args=(contact_file, shape, None), daemon=True)
        sender.start()
        assert sender.pid is not None
        drawing = thread_clock(drawer)
        ingest = next(one for one in threading.enumerate() if one.name == "ingest")
        clocks = {
            "client": process_clock(sender.pid),
            "ingest thread": thread_clock(ingest),
            "server": lambda: time.process_time() - drawing(),
        }
        while not stored(rank):
            if rank.state.error is not None or sender.exitcode is not None:
                sys.exit(f"nothing arrives: {rank.state.error or 'the client has ended'}")
            time.sleep(0.01)
        time.sleep(args.warm)
        found = window(lambda: stored(rank), clocks, args.seconds)
        control.end_clients()
        sender.join()
    over.set()
    drawer.join()
    rank.close()
    control.close()
    if rank.state.error is not None:
        sys.exit(f"the ingest thread failed: {rank.state.error}")
    return found | {"both": found["client"] + found["server"]}


def window(
    count: Callable[[], int], clocks: dict[str, Callable[[], float]], seconds: float
) -> dict[str, float]:
    """Returns how fast a counter grows, and the microseconds of each clock per count."""
    first, began = count(), time.perf_counter()
    before = {name: clock() for name, clock in clocks.items()}
    time.sleep(seconds)
    grown, took = count() - first, time.perf_counter() - began
    after = {name: clock() for name, clock in clocks.items()}
    return {"rate": grown / took} | {k: 1e6 * (after[k] - before[k]) / grown for k in clocks}


def draw(rank: Any, over: threading.Event) -> None:
    """Marks samples as seen until the end; no field is copied."""
    while not over.is_set():
        if rank.reservoir.draw(64, {}) is not None:
            rank.ingest.made_room()
        time.sleep(0.002)


def stored(rank: Any) -> int:
    """Returns the number of samples that the reservoir has accepted."""
    count: int = rank.reservoir.counters()["stored"]
    return count


def rows_of(shape: tuple[int, ...]) -> int:
    """Returns the capacity of the reservoir."""
    return max(64, min(2000, RESERVOIR_BYTES // (4 * int(np.prod(shape)))))


def flow_of(step_bytes: int, credit: int | None) -> Any:
    """Returns how the client sends, as this tree's `loopback` expects it."""
    try:
        from melissa_gen.study.flow import default_flow
    except ImportError:
        return credit or min(max(8_000_000 // step_bytes, 4), DEFAULT_CREDIT_BEFORE_CHUNKS)
    return default_flow(step_bytes, credit=credit)


def process_clock(pid: int) -> Callable[[], float]:
    """Returns the CPU clock of all threads of a process (seconds)."""
    # The number that clock_getcpuclockid(3) returns on Linux.
    return lambda: time.clock_gettime((~pid << 3) | 2)


def thread_clock(thread: threading.Thread) -> Callable[[], float]:
    """Returns the CPU clock of a thread of this process (seconds)."""
    assert thread.ident is not None
    clock = time.pthread_getcpuclockid(thread.ident)
    return lambda: time.clock_gettime(clock)


if __name__ == "__main__":
    main()
