"""Studies on SLURM: cost of the launcher, time to the first sample, and completeness with many clients.

On a throw-away cluster of four virtual nodes, all on this machine, so that all processes share its cores: figures of
time are upper bounds.

- jobs: a back end is given 1,000 client jobs that do nothing, 32 at a time; CPU seconds of the launcher's own process
  and of the commands that it runs, and queries per poll interval.
- first sample: a study of one server rank and one client, from the command to the end of its first simulation, which
  takes milliseconds, against `srun` of the same two programs, which only start and end: side by side, and in turn, as a
  study must, whose clients are submitted when the server can be reached. And where the time goes, step by step.
- many: 64 clients at a time send to two server ranks; accounting.
"""

import itertools
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import yaml
from measure import Result, Target, command_line, environment, finish, interleaved

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from melissa_gen.launcher.backends.batch import BatchBackend
from melissa_gen.launcher.backends.schedulers.slurm import Slurm
from melissa_gen.study import JobsSection
from tests.slurm.cluster import Cluster, missing

PARTS = ("jobs", "first", "many")
SOLVER = """
import numpy as np
from melissa_gen.client import Client
with Client() as client:
    client.field("u", shape=(16, 16))
    for simulation in client:
        for step in range(10):
            simulation.send(u=np.full((16, 16), simulation.parameters["a"] + step))
"""
AS_SERVER = """
import torch
import melissa_gen.server.rank, mpi4py.MPI, torch.distributed
torch.optim.Adam([torch.zeros(1, requires_grad=True)])  # for what it imports: a second or two
"""
AS_CLIENT = "import melissa_gen.client, numpy"


def main() -> None:
    parser = command_line(__doc__)
    parser.add_argument("--parts", nargs="*", choices=PARTS, default=list(PARTS))
    args = parser.parse_args()
    if problem := missing():
        sys.exit(problem)
    env = environment()
    result = Result("SLURM, four virtual nodes on one machine", ("what", "found", "unit"))
    measures = {"jobs": many_jobs, "first": first_sample, "many": many_clients}
    with tempfile.TemporaryDirectory(prefix="mgb-") as name:
        cluster = Cluster(Path(name) / "c")
        (Path(name) / "c").mkdir()
        try:
            cluster.start()
            os.environ.update(cluster.whole_environment())
            for part in args.parts:
                folder = Path(name) / part
                (folder / "logs").mkdir(parents=True)
                measures[part](folder, result, args.quick)
        finally:
            cluster.close()
    finish(result, env, args, "slurm")


def many_jobs(folder: Path, result: Result, quick: bool) -> None:
    """CPU share of the launcher."""
    count, at_once, interval = (60 if quick else 1000), 32, 1.0
    backend = BatchBackend(Slurm(), folder, folder / "logs", {"": JobsSection()}, interval=interval)
    began, before = time.monotonic(), _cpu()
    started = ended = 0
    while ended < count:
        while started < count and len(backend.running) < at_once:
            backend.start(f"client-{started}", ("true",), 1, {})
            started += 1
        for one in backend.poll():
            assert one.code == 0, one
            ended += 1
        time.sleep(0.05)  # as the launcher's loop does
    seconds, after = time.monotonic() - began, _cpu()
    backend.close()
    own, theirs = ((b - a) / seconds for a, b in zip(before, after, strict=True))
    per_poll = (backend.queries - 1) / (
        seconds / interval
    )  # the first one begins the first interval
    result.rows += [
        (f"{count} client jobs, {at_once} at a time", seconds, "s"),
        ("the launcher's own CPU", 100 * own, "% of a core"),
        ("that of sbatch and squeue", 100 * theirs, "% of a core"),
        ("queries per poll interval", per_poll, ""),
    ]
    result.targets += [
        Target("launcher's CPU, share of a core", 0.05, own, at_least=False),
        Target("queries per poll interval", 1.0, per_poll, at_least=False),
    ]


def first_sample(folder: Path, result: Result, quick: bool) -> None:
    """Time from the command to the first sample, without the start-up time of the two programs."""
    steps: list[dict[str, float]] = []

    def study() -> float:
        steps.append(_steps(folder))
        return sum(steps[-1].values())

    cases = {
        "study": study,
        "srun side by side": lambda: _srun(folder, together=True),
        "srun in turn": lambda: _srun(folder, together=False),
    }
    found = interleaved(cases, 1 if quick else 3)
    for case, seconds in found.items():
        result.rows.append((f"to the first sample: {case}", median(seconds), "s"))
    for step in steps[0]:
        result.rows.append((f"... of the study: {step}", median(one[step] for one in steps), "s"))
    for case in ("srun in turn", "srun side by side"):
        pairs = zip(found["study"], found[case], strict=True)
        overhead = median(a - b for a, b in pairs)
        result.rows.append((f"overhead over {case}", overhead, "s"))
    name = "overhead to the first sample over srun side by side, s"
    result.targets.append(Target(name, 5.0, overhead, at_least=False))
    result.details["first sample"] = found
    result.details["steps"] = steps


def many_clients(folder: Path, result: Result, quick: bool) -> None:
    """Nothing is lost."""
    clients = 8 if quick else 64
    summary = _run(folder, clients=clients, ranks=2, count=2 * clients)
    samples, simulations = summary["samples"], summary["simulations"]
    result.rows += [
        (f"{clients} clients at a time, 2 ranks: completed", simulations["completed"], "sims"),
        ("samples produced", samples["produced"], ""),
        ("samples trained on", samples["trained"], ""),
        ("samples lost", samples["lost"], ""),
        ("clients started anew", simulations["retried"], ""),
        ("wall time", summary["wall_seconds"], "s"),
    ]
    lost = samples["produced"] - samples["trained"]
    result.targets.append(Target("samples lost or withdrawn", 0.0, lost, at_least=False))
    result.details["many"] = summary


def _run(
    folder: Path, clients: int, ranks: int, count: int, here: Path | None = None
) -> dict[str, object]:
    here = here or folder / "study"
    here.mkdir()
    (here / "solver.py").write_text(SOLVER)
    study = {
        "name": "small",
        "parameters": {"a": {"distribution": "uniform", "low": 0.0, "high": 1.0}},
        "simulation": {
            "command": ["python", "solver.py"],
            "count": count,
            "time_steps": 10,
            "fields": {"u": {"shape": [16, 16]}},
            "timeout": 300,
        },
        "surrogate": {"arguments": {"hidden": [16]}},
        "training": {"batch_size": 4, "validation": {"simulations": 0}},
        "reservoir": {"capacity": 10 * count, "watermark": 4},
        "sampler": {"method": "uniform"},
        "server": {"ranks": ranks, "heartbeat_timeout": 60},
        "launcher": {
            **{"backend": "slurm", "clients": clients, "poll": 2},
            "jobs": {
                "prologue": ["date +%s.%N"]
            },  # when a job begins, as the first words of its log
        },
    }
    (here / "study.yaml").write_text(yaml.safe_dump(study))
    command = Path(sys.executable).with_name("melissa-gen")
    words = [command, "run", here / "study.yaml", "--run-dir", here / "run"]
    done = subprocess.run(list(map(str, words)), capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"the study failed:\n{done.stdout}{done.stderr}")
    return dict(json.loads((here / "run" / "summary.json").read_text()))


def _steps(folder: Path) -> dict[str, float]:
    """Seconds of each step to the first sample."""
    moments = [time.time()]
    run = folder / f"study-{time.monotonic_ns()}" / "run"
    _run(folder, clients=1, ranks=1, count=2, here=run.parent)
    with (run / "events.jsonl").open() as file:
        events = [json.loads(line) for line in file]

    def first(kind: str) -> float:
        return float(min(event["time"] for event in events if event["event"] == kind))

    def submitted(job: str) -> float:
        return (run / "logs" / f"{job}.sh").stat().st_mtime

    def begun(job: str) -> float:
        return float((run / "logs" / f"{job}.log").read_text().split()[0])

    moments += [submitted("server"), begun("server"), first("server_ready")]
    moments += [submitted("client-0"), begun("client-0"), first("simulation_finished")]
    names = (
        *("the launcher's imports and checks", "the server in the queue", "its imports and start"),
        *("until a client is submitted", "the client in the queue", "its imports, first samples"),
    )
    pairs = itertools.pairwise(moments)
    return dict(zip(names, (after - before for before, after in pairs), strict=True))


def _srun(folder: Path, *, together: bool) -> float:
    """Seconds until both programs are up, started side by side or one after the other."""
    began = time.monotonic()
    started = []
    for program in (AS_SERVER, AS_CLIENT):
        words = ["srun", "--mpi=pmi2", "-Q", "-n1", sys.executable, "-c", program]
        started.append(subprocess.Popen(words, cwd=folder))
        if not together:
            started[-1].wait()
    if any(process.wait() for process in started):
        sys.exit("srun failed")
    return time.monotonic() - began


def _cpu() -> tuple[float, float]:
    own, children = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return own.ru_utime + own.ru_stime, children.ru_utime + children.ru_stime


if __name__ == "__main__":
    main()
