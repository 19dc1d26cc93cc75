"""Time, memory and size of the report of a run with a million simulations.

A run directory is written as a server leaves it: a line of `simulations.jsonl` and two events for each simulation, a
status for each second, and a generation for each thousand simulations. A new process creates the report.
"""

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from measure import Result, Target, command_line, environment, finish

REPORT = "import sys; from melissa_gen.report.html import write_report; write_report(sys.argv[1])"
SIMULATIONS_PER_SECOND = 30


def main() -> None:
    parser = command_line(__doc__)
    parser.add_argument("--simulations", type=int, default=1_000_000, metavar="N")
    args = parser.parse_args()
    count = 20_000 if args.quick else args.simulations
    columns = ("simulations", "files, MB", "report, s", "memory, MB", "report, MB")
    result = Result(f"Report of a run of {count:,} simulations", columns)
    for number in sorted({max(count // 100, 1), max(count // 10, 1), count}):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder)
            files = write_run(path, number) / 1e6
            began = time.perf_counter()
            subprocess.run([sys.executable, "-c", REPORT, folder], check=True)
            seconds = time.perf_counter() - began
            memory = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e3
            page = (path / "report.html").stat().st_size / 1e6
            result.rows.append((number, files, seconds, memory, page))
    result.targets = [
        Target("memory, MB", 400.0, memory, at_least=False),
        Target("size of the report, MB", 5.0, page, at_least=False),
    ]
    finish(result, environment(), args, "large_runs")


def write_run(path: Path, count: int) -> int:
    """Writes the files of a run; returns their size in bytes."""
    random = np.random.default_rng(1)
    names = [f"p{place}" for place in range(5)]
    with (path / "simulations.jsonl").open("w") as file:
        for number in range(count):
            line = {
                "simulation": number,
                "parameters": dict(zip(names, random.random(5).tolist(), strict=True)),
                "method": "diffusion_posterior" if number % 2 else "prior",
                "generation": number // 1000,
                "log_density": 0.1,
                "difficulty": float(random.lognormal()),
                "attempts": 1,
                "status": "failed" if number % 100 == 0 else "finished",
                "reason": None,
                "code": None,
                "values": None,
                "issued_at": 1.76e9 + number / SIMULATIONS_PER_SECOND,
                "finished_at": 1.76e9 + number / SIMULATIONS_PER_SECOND + 2.0,
            }
            file.write(json.dumps(line) + "\n")
    with (path / "events.jsonl").open("w") as file:
        for number in range(count):
            file.writelines(json.dumps(event) + "\n" for event in _events(number))
    return sum(one.stat().st_size for one in path.iterdir())


def _events(number: int) -> list[dict[str, object]]:
    moment = 1.76e9 + number / SIMULATIONS_PER_SECOND
    one = {"time": moment, "simulation": number, "attempt": 0, "client": "client-3"}
    found: list[dict[str, object]] = [
        {"event": "simulation_issued", **one},
        {"event": "simulation_finished", **one, "seconds": 2.0, "samples": 100},
    ]
    if number % SIMULATIONS_PER_SECOND == 0:
        training = {"batches": number, "loss": 1.0 / (1 + number)}
        found.append({"event": "status", "time": moment, "training": training})
    if number % 1000 == 0:
        sizes = {"generation": number // 1000, "suggested": 1000, "adaptive": 500, "late": 0}
        found.append({"event": "generation", "time": moment, **sizes, "seconds": 1.0})
    return found


if __name__ == "__main__":
    main()
