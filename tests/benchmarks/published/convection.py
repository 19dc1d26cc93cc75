"""Physics-informed convection with speed 30, at the setting of Daw et al., arXiv 2207.02338: relative errors.

    python tests/benchmarks/published/convection.py RESULTS --methods r3 uniform --seeds 0 1 2

Each pair of a method and a seed is a run of `melissa-gen train` in the folder RESULTS. A run that was interrupted is
resumed, and one that has finished is kept, so that the command can be repeated until the table is complete.

The settings are those of the authors' code: sin(x) on 512 points and 251 times, four layers of 50 tanh units, Adam with
1e-3 and a factor of 0.9 every 5,000 batches, weights 100, 100 and 1, and 1,000 collocation points. Two are different:
the inputs of the network are scaled to [-1, 1], and the points of the initial and boundary conditions are drawn in each
batch.
"""

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path

STUDY = Path(__file__).with_name("convection.yaml")
STEPS = 251
COLLOCATION = {
    "uniform": "uniform",
    "r3": "r3",
    "causal_r3": "{method: r3, causal: true}",
    "rad": "rad",
    "rar_d": "rar_d",
}


def main() -> None:
    """Runs what is missing, and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("results", type=Path)
    parser.add_argument("--methods", nargs="+", choices=COLLOCATION, default=["r3"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4])
    parser.add_argument("--iterations", type=int, default=100_000)
    parser.add_argument("--table", action="store_true", help="only print the table of what exists")
    args = parser.parse_args()
    args.results.mkdir(parents=True, exist_ok=True)
    cells = [(method, seed) for seed in args.seeds for method in args.methods]
    for method, seed in cells:
        run_dir = args.results / f"{method}-{seed}"
        if not args.table and _status(run_dir) != "finished":
            _run(run_dir, method, seed, args.iterations)
    table = {m: [_last(args.results / f"{m}-{seed}") for seed in args.seeds] for m in args.methods}
    (args.results / "table.json").write_text(json.dumps(table, indent=1) + "\n")
    print("| method | relative L2 error | seeds | iterations |")
    print("|---|---|---|---|")
    for method, found in table.items():
        errors = [100 * error for iterations, error in found if iterations]
        batches = [iterations for iterations, _ in found if iterations]
        ours = (
            f"{statistics.mean(errors):.2f} ± {statistics.pstdev(errors):.2f} %" if errors else "-"
        )
        fewest = f"{min(batches):,}" if batches else "-"
        print(f"| {method} | {ours} | {len(errors)} | {fewest} |")


def _run(run_dir: Path, method: str, seed: int, iterations: int) -> None:
    """Starts or resumes a run."""
    program = str(Path(sys.executable).with_name("melissa-gen"))
    if (run_dir / "checkpoints").exists():
        subprocess.run([program, "resume", str(run_dir)], check=False)
        return
    settings = (
        f"seed={seed}",
        f"simulation.count={-(-iterations // STEPS)}",
        f"surrogate.task.arguments.collocation={COLLOCATION[method]}",
    )
    words = [word for setting in settings for word in ("--set", setting)]
    command = [program, "train", str(STUDY), "--run-dir", str(run_dir), *words]
    subprocess.run(command, check=False)


def _status(run_dir: Path) -> str:
    path = run_dir / "summary.json"
    return str(json.loads(path.read_text())["status"]) if path.exists() else ""


def _last(run_dir: Path) -> tuple[int, float]:
    """Returns the batches and the relative error of the last validation; (0, 0) if there is none."""
    path = run_dir / "events.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    found = [one for one in map(json.loads, lines) if one.get("event") == "validation"]
    return (found[-1]["batches"], found[-1]["nrmse"]["mean"]) if found else (0, 0.0)


if __name__ == "__main__":
    main()
