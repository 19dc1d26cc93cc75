"""CPU time for each batch of the heat study, of this tree and of a commit from before there were tasks.

Both run `simulations/heat/study.yaml` of their own tree in turn, without a validation set, with uniform draws and many
batches for each simulation, so that training takes most of the time. The CPU time of all processes of the study is
counted, and the ratio (then / now, above 1 is faster now) means something on a busy machine, too.
"""

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

from ingest import checked_out
from measure import ROOT, Result, Target, command_line, environment, finish, interleaved, ratio

BEFORE = "c9ee2c5"
"""The last commit whose trainer knew parameters, time and fields only."""
WANTED = 0.98
PROGRAM = "import sys; from melissa_gen.launcher.cli import main; sys.exit(main())"


def main() -> None:
    """Runs both trees in turn, and prints the table."""
    parser = command_line(__doc__)
    parser.add_argument("--against", metavar="COMMIT", default=BEFORE)
    parser.add_argument("--simulations", type=int, default=12)
    parser.add_argument("--draws", type=int, default=50, help="of each sample")
    parser.add_argument("--repetitions", type=int, default=5)
    args = parser.parse_args()
    if args.quick:
        args.simulations, args.draws, args.repetitions = 4, 4, 1
    env = environment()
    with checked_out(args.against) as then:
        found = interleaved(
            {
                name: partial(_milliseconds, tree, args.simulations, args.draws)
                for name, tree in (("then", then), ("now", ROOT))
            },
            args.repetitions,
        )
    result = Result(
        f"CPU milliseconds for each batch of the heat study, now and at {args.against}",
        ("tree", "median", "least"),
    )
    for name, values in found.items():
        result.rows.append((name, statistics.median(values), min(values)))
    result.targets.append(Target("then / now", WANTED, ratio(found["then"], found["now"])))
    result.details |= found
    finish(result, env, args, "direct_task")


def _milliseconds(tree: Path, simulations: int, draws: int) -> float:
    """Runs the study of a tree with its own package; returns the CPU milliseconds for each batch."""
    settings = [
        f"simulation.count={simulations}",
        f"training.draws_per_sample={draws}",
        "training.validation.simulations=0",
        f"reservoir.capacity={simulations * 100}",
        "reservoir.watermark=64",
        "sampler.method=uniform",
        "sampler.arguments={}",
        "server.ranks=1",
        "launcher.clients=1",
    ]
    words = [word for setting in settings for word in ("--set", setting)]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with tempfile.TemporaryDirectory() as folder:
        run_dir = Path(folder) / "run"
        study = tree / "simulations" / "heat" / "study.yaml"
        command = [sys.executable, "-c", PROGRAM, "run", str(study), "--run-dir", str(run_dir)]
        environment = os.environ | {"PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1"}
        # A program of `-c` imports from its working directory first.
        done = subprocess.run(
            [*command, *words],
            cwd=tree,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            sys.exit(f"the study of {tree} failed:\n{done.stdout}{done.stderr}")
        batches = json.loads((run_dir / "summary.json").read_text())["training"]["batches"]
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    return 1000 * seconds / batches


if __name__ == "__main__":
    main()
