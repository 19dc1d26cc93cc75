"""Studies on SLURM: what the launcher costs, how late the first sample comes, and whether many clients lose anything.

On a throw-away cluster of four virtual nodes, all on this machine, so that all processes share its cores: figures of
time are upper bounds.

- jobs: a back end is given 1,000 client jobs that do nothing, 32 at a time; CPU seconds of the launcher's own process
  and of the commands that it runs, and queries per poll interval.
- first sample: a study of one server rank and one client, from the command to the first sample, against `srun` of the
  same two programs side by side: both need a Python with torch, and one with numpy, to start.
- many: 64 clients at a time send to two server ranks; accounting.
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml
from measure import Result, Target, command_line, environment, finish, interleaved

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from launcher.batch import BatchBackend
from launcher.slurm import Slurm
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
AS_SERVER = "import torch, mpi4py.MPI, zmq, h5py, torch.distributed, torch.utils.tensorboard"
AS_CLIENT = "import numpy, zmq"


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
    """The launcher's share of a core."""
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
    """From the command to the first sample, beyond what the two programs need to start."""
    cases = {
        "study": lambda: _setup(folder, clients=1, ranks=1, count=2),
        "srun": lambda: _srun(folder),
    }
    found = interleaved(cases, 1 if quick else 3)
    pairs = zip(found["study"], found["srun"], strict=True)
    overhead = sorted(a - b for a, b in pairs)[len(found["srun"]) // 2]
    result.rows += [
        ("command to first sample", min(found["study"]), "s"),
        ("srun of the same two programs", min(found["srun"]), "s"),
        ("overhead, median", overhead, "s"),
    ]
    result.targets.append(Target("overhead to the first sample, s", 5.0, overhead, at_least=False))
    result.details["first sample"] = found


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


def _run(folder: Path, clients: int, ranks: int, count: int) -> dict[str, object]:
    here = Path(tempfile.mkdtemp(dir=folder))
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
        "server": {"ranks": ranks, "patience": 60},
        "launcher": {"backend": "slurm", "clients": clients, "poll": 2},
    }
    (here / "study.yaml").write_text(yaml.safe_dump(study))
    command = Path(sys.executable).with_name("melissa-gen")
    words = [command, "run", here / "study.yaml", "--run-dir", here / "run"]
    done = subprocess.run(list(map(str, words)), capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"the study failed:\n{done.stdout}{done.stderr}")
    return dict(json.loads((here / "run" / "summary.json").read_text()))


def _setup(folder: Path, **sizes: int) -> float:
    return float(str(_run(folder, **sizes)["setup_seconds"]))


def _srun(folder: Path) -> float:
    """Seconds until both programs, started one after the other as a study must, are up."""
    began = time.monotonic()
    for program in (AS_SERVER, AS_CLIENT):
        words = ["srun", "--mpi=pmi2", "-Q", "-n1", sys.executable, "-c", program]
        subprocess.run(words, cwd=folder, check=True)
    return time.monotonic() - began


def _cpu() -> tuple[float, float]:
    spent = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return tuple(one.ru_utime + one.ru_stime for one in spent)  # type: ignore[return-value]


if __name__ == "__main__":
    main()
