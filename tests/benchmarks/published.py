"""Cost of the published study: `melissa-gen run simulations/heat/study.yaml`.

100 simulations of 100 time steps on a 100 x 100 mesh, 2 server ranks, 2 clients of 2 ranks, the generative sampler.
All figures come from the run directory's `summary.json` and `events.jsonl`; wall time is counted from the first
sample on, and from the start of the command. The validation set is made anew.
"""

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from measure import HEAT, Result, Target, command_line, environment, finish

from melissa_gen.report.waiting import who_waits

QUICK = ("simulation.count=10", "training.validation.simulations=4", "reservoir.capacity=400")


def main() -> None:
    parser = command_line(__doc__)
    parser.add_argument("--run-dir", type=Path, help="keep the run directory here")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="settings")
    args = parser.parse_args()
    settings = [*(QUICK if args.quick else ()), *args.settings]
    env = environment()
    with tempfile.TemporaryDirectory() as scratch:
        run_dir = args.run_dir or Path(scratch) / "run"
        command = [str(Path(sys.executable).with_name("melissa-gen")), "run", str(HEAT)]
        overrides = [word for setting in settings for word in ("--set", setting)]
        done = subprocess.run([*command, "--run-dir", str(run_dir), *overrides], check=False)
        summary = json.loads((run_dir / "summary.json").read_text())
        events = [json.loads(line) for line in (run_dir / "events.jsonl").open()]
        shutil.rmtree(Path(scratch), ignore_errors=True)
    result = _result(summary, events)
    finish(result, env, args, "published")
    if done.returncode != 0:
        sys.exit(f"the study did not end well: exit status {done.returncode}")


def _result(summary: dict[str, Any], events: list[dict[str, Any]]) -> Result:
    result = Result("The published study, end to end", ("what", "value", "of", "share"))
    wall, setup = summary["wall_seconds"], summary["setup_seconds"]
    simulations, samples, sampler = (summary[k] for k in ("simulations", "samples", "sampler"))
    training, memory = summary["training"], summary["memory"]
    after = wall - setup
    share = sampler["seconds"] / wall
    add = result.rows.append
    add(("wall time after set-up, s", after, None, None))
    add(("wall time in all, s", wall, None, None))
    add(("set-up (validation set, start), s", setup, None, None))
    add(("simulations completed", simulations["completed"], simulations["planned"], None))
    add(("samples received", samples["received"], samples["produced"], None))
    add(("samples a second after set-up", samples["received"] / after, None, None))
    add(("batches a second after set-up", training["batches"] / after, None, None))
    add(("sampler, s, beside training", sampler["seconds"], wall, share))
    add(
        (
            "trainer without data, s",
            training["seconds"]["waiting"],
            wall,
            training["seconds"]["waiting"] / wall,
        )
    )
    peaks = memory["peak_rss_megabytes_per_rank"]
    for rank, (peak, promise) in enumerate(
        zip(peaks, memory["promised_megabytes_per_rank"], strict=True)
    ):
        add((f"peak memory of rank {rank}, MB, promised", peak, promise, peak / promise))
        result.targets.append(
            Target(f"peak / promised memory, rank {rank}", 1.0, peak / promise, False)
        )
    for name, value in summary["validation"]["nrmse"].items():
        add((f"validation NRMSE, {name}", value, None, None))
    result.targets.append(Target("wall time after set-up, s", 300.0, after, False))
    result.targets.append(Target("sampler's share of the wall time", 0.01, share, False))
    result.notes += [f"who waited: {line}" for line in _waiting(events)]
    result.details["summary"] = summary
    return result


def _waiting(events: list[dict[str, Any]]) -> list[str]:
    """Describes which part waited for which, on average from the first batch to the last sample."""
    statuses = [e for e in events if e["event"] == "status" and "waiting" in e]
    shares: dict[str, list[float]] = {}
    for status in statuses:
        for key, value in status["waiting"].items():
            if value is not None:
                shares.setdefault(key, []).append(float(value))
    mean = {key: sum(values) / len(values) for key, values in shares.items()}
    return [who_waits(mean)] if mean else []


if __name__ == "__main__":
    main()
