"""Runs every benchmark, one after the other, and writes `results/NAME.json`.

    python tests/benchmarks/run_all.py [--quick] [--results FOLDER] [NAME ...]

Needs the machine to itself: all of them measure with every core.
"""

import argparse
import subprocess
import sys
import time
from pathlib import Path

NAMES = (
    *(
        "ingest",
        "trainer_beside_ingest",
        "trainer_step",
        "sinks_in_a_study",
        "first_sample",
        "handover",
        "online_offline",
        "published",
        "samplers",
        "sampler_cost",
    ),
    "bookkeeping",
    "large_runs",
    "navier_stokes",
    "slurm",
)


def main() -> None:
    here = Path(__file__).parent
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(NAMES)}")
    parser.add_argument("--quick", action="store_true", help="small and short")
    parser.add_argument("--results", type=Path, default=here / "results", metavar="FOLDER")
    args = parser.parse_args()
    if unknown := set(args.names) - set(NAMES):
        parser.error(f"no benchmark {', '.join(sorted(unknown))}; there are {', '.join(NAMES)}")
    failed = []
    for name in args.names or NAMES:
        command = [sys.executable, str(here / f"{name}.py"), "--json"]
        command += [str(args.results / f"{name}.json"), *(["--quick"] if args.quick else [])]
        began = time.monotonic()
        code = subprocess.run(command, check=False).returncode
        print(f"\n{name}: exit status {code} after {time.monotonic() - began:.0f} s", flush=True)
        if code:
            failed.append(name)
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
