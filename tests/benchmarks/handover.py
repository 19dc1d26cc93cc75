"""Time from the end of a simulation to the next parameters: a persistent client against one process per simulation.

`melissa-gen run` on a tiny study, so that everything around is real: server with control thread, trainer, ingest and
sampler on the same cores, launcher, MPI world of one and of two ranks. Each client rank notes the time when it has
sent its last time step and when it holds the next parameters; finalize, the question, the answer and its way to all
ranks lie in between. A handover lasts from the last rank's end to the last rank's start.

The same study with `simulation.mode: per_simulation` starts `mpirun -n 1` or `-n 2` for each simulation; there the
end of a process, the launcher's notice of it, and the start of the next lie in between.
"""

import argparse
import itertools
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

from measure import Result, Target, command_line, environment, finish, quantile, run_study

STEPS, SHAPE = 2, (16, 16)
MODES = ("persistent", "per_simulation")


def main() -> None:
    parser = command_line(__doc__)
    parser.add_argument("--as-client", type=Path, metavar="FOLDER", help=argparse.SUPPRESS)
    parser.add_argument("--simulations", type=int, help="of a persistent client")
    parser.add_argument("--restarts", type=int, help="simulations with a process each")
    parser.add_argument("--sampler", default="diffusion_posterior", help="sampler.method")
    args = parser.parse_args()
    if args.as_client:
        client(args.as_client)
        return
    counts = {
        "persistent": args.simulations or (40 if args.quick else 301),
        "per_simulation": args.restarts or (5 if args.quick else 31),
    }
    env = environment()
    result = Result(
        "Milliseconds from the end of a simulation to the next parameters",
        ("client", "MPI ranks", "handovers", "median", "p95", "largest", "median / persistent"),
    )
    for ranks in (1, 2):
        middle: dict[str, float] = {}
        for mode in MODES:
            found = handovers(mode, ranks, counts[mode], args.sampler)
            middle[mode] = statistics.median(found)
            ratio = middle[mode] / middle["persistent"]
            tail = quantile(found, 0.95)
            result.rows.append((mode, ranks, len(found), middle[mode], tail, max(found), ratio))
            result.details[f"{mode}, {ranks}"] = found
        what = f"median ms, persistent, {ranks} rank{'s' * (ranks > 1)}"
        result.targets.append(Target(what, 1.0, middle["persistent"], at_least=False))
    finish(result, env, args, "handover")


def handovers(mode: str, ranks: int, count: int, sampler: str) -> list[float]:
    """Runs the study; returns milliseconds."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "times").mkdir()
        study = {
            "name": "handover",
            "parameters": {
                p: {"distribution": "uniform", "low": 0.0, "high": 1.0} for p in ("a", "b", "c")
            },
            "simulation": {
                "command": [sys.executable, __file__, "--as-client", str(folder / "times")],
                "count": count,
                "processes": ranks,
                "mode": mode,
                "time_steps": STEPS,
                "fields": {"u": {"shape": list(SHAPE)}},
            },
            "surrogate": {"arguments": {"hidden": [64, 64]}},
            "training": {"batch_size": 4, "validation": {"simulations": 0}},
            "reservoir": {"capacity": STEPS * count, "watermark": 4},
            "sampler": {"method": sampler, "generation_size": 10},
        }
        run_study(study, folder)
        return _between(folder / "times")


def _between(folder: Path) -> list[float]:
    """Milliseconds between simulations in the order in which they ran, the first handover left out: it is cold."""
    starts: dict[int, float] = {}
    ends: dict[int, float] = {}
    for file in folder.iterdir():
        for simulation, started, ended in json.loads(file.read_text()):
            starts[simulation] = max(starts.get(simulation, 0.0), started)
            ends[simulation] = max(ends.get(simulation, 0.0), ended)
    order = sorted(starts, key=lambda s: starts[s])[1:]
    return [1000 * (starts[b] - ends[a]) for a, b in itertools.pairwise(order)]


def client(folder: Path) -> None:
    """A solver that costs nothing, on any number of ranks."""
    import numpy as np
    from mpi4py import MPI

    from melissa_gen.client import Client

    comm = MPI.COMM_WORLD
    rows = SHAPE[0] // comm.size
    block = np.random.default_rng(comm.rank).random((rows, SHAPE[1]), np.float32)
    times = []
    with Client(comm) as connection:
        connection.field("u", shape=SHAPE, start=(rows * comm.rank, 0), extent=(rows, SHAPE[1]))
        for simulation in connection:
            started = time.monotonic()
            for _ in range(STEPS):
                simulation.send(u=block)
            times.append((simulation.number, started, time.monotonic()))
    (folder / f"{os.getpid()}.json").write_text(json.dumps(times))


if __name__ == "__main__":
    main()
