"""An autoregressive FNO of Korteweg-de Vries, trained online, and offline on the data that the online runs recorded.

Online is `melissa-gen run simulations/kdv/autoregressive.yaml` with 500 simulations and `record`; offline is
`melissa-gen train` with the same study on the recorded file, with a seed of its own for the weights and the draws. Both
are measured on the validation set of the online run, which has other simulations: relative errors (NRMSE) of single
steps from each time step of the solver, and of rollouts over all 75 intervals from the first one.

The noise is the difference between online runs with different seeds. `--simulations` makes a smaller table.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from measure import ROOT, Result, Target, command_line, environment, finish
from rollout_errors import rollout_errors

STUDY = ROOT / "simulations" / "kdv" / "autoregressive.yaml"
MINUTES = 15.0


def main() -> None:
    """Trains online and offline for each seed, and prints the table."""
    parser = command_line(__doc__)
    parser.add_argument("--simulations", type=int, default=500)
    parser.add_argument("--seeds", type=int, default=2, metavar="N")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="settings")
    args = parser.parse_args()
    if args.quick:
        args.simulations, args.seeds = 8, 1
        args.settings += ["reservoir.capacity=600", "reservoir.watermark=64"]
    env = environment()
    columns = ("training", "seed", "batches", "minutes", "one step", "one step p95", "rollout")
    result = Result(
        f"KdV with an FNO, {args.simulations} simulations", (*columns, "rollout median", "p95")
    )
    with tempfile.TemporaryDirectory() as scratch:
        found = [_pair(Path(scratch), args, seed) for seed in range(1, args.seeds + 1)]
    for pair in found:
        result.rows += [tuple(one["row"]) for one in pair.values()]
    minutes = [pair["online"]["minutes"] for pair in found]
    result.targets.append(Target("minutes online", MINUTES, max(minutes), at_least=False))
    result.notes.append(_comparison(found))
    result.details = {"runs": found}
    finish(result, env, args, "autoregressive")


def _pair(scratch: Path, args: Any, seed: int) -> dict[str, dict[str, Any]]:
    """Trains online with a seed, and offline on what was recorded."""
    online, offline = scratch / f"online-{seed}", scratch / f"offline-{seed}"
    common = [f"simulation.count={args.simulations}", *args.settings]
    _melissa_gen("run", online, [*common, f"seed={seed}", "record={file: record.h5}"])
    # The set of the online run is used for both.
    alone = ["training.validation={simulations: 0}", f"seed={100 + seed}"]
    _melissa_gen("train", offline, [*common, *alone], "--data", str(online / "record.h5"))
    found = {}
    for name, run_dir in (("online", online), ("offline", offline)):
        summary = json.loads((run_dir / "summary.json").read_text())
        errors = rollout_errors(
            run_dir / "checkpoints" / "final", online / "validation.h5", relative=True
        )
        one, whole = errors["one_step"], errors["rollout"]
        minutes = summary["wall_seconds"] / 60
        row = [name, seed, summary["training"]["batches"], minutes, one.mean()]
        row += [np.quantile(one, 0.95), whole.mean(), np.median(whole), np.quantile(whole, 0.95)]
        found[name] = {
            "minutes": minutes,
            "row": [value.item() if isinstance(value, np.generic) else value for value in row],
            "errors": {kind: values.tolist() for kind, values in errors.items()},
        }
    return found


def _melissa_gen(command: str, run_dir: Path, settings: list[str], *more: str) -> None:
    program = str(Path(sys.executable).with_name("melissa-gen"))
    words = [word for setting in settings for word in ("--set", setting)]
    subprocess.run(
        [program, command, str(STUDY), "--run-dir", str(run_dir), *more, *words], check=True
    )


def _comparison(found: list[dict[str, dict[str, Any]]]) -> str:
    """Describes the ratio of offline to online errors, beside that between online runs."""
    means = {
        name: np.array(
            [[np.mean(p[name]["errors"][k]) for k in ("one_step", "rollout")] for p in found]
        )
        for name in ("online", "offline")
    }
    ratios = np.exp(np.log(means["offline"] / means["online"]).mean(axis=0))
    text = f"offline / online: {ratios[0]:.2f} one step, {ratios[1]:.2f} rollout"
    if len(found) > 1:
        spread = means["online"].max(axis=0) / means["online"].min(axis=0)
        text += f"; largest / smallest online: {spread[0]:.2f} one step, {spread[1]:.2f} rollout"
    return text


if __name__ == "__main__":
    main()
