"""The training speed of a study with all sinks at once, relative to the same study that only trains.

Both run by `melissa-gen run`: the heat study with fewer simulations and without a validation set. With all sinks, it
also records all fields (`record`), and computes moments, extremes, a threshold, a quantile and covariances
(`statistics`). The speed is that of the batches from the first to the last one, while solvers, server ranks and the
writing share the cores. What comes after the last batch, above all the last checkpoint and the results, is measured
apart. The two take turns, and the ratio is the median over neighbors.
"""

import json
import statistics
import tempfile
from pathlib import Path
from typing import Any

import yaml
from measure import (
    HEAT,
    Result,
    Target,
    command_line,
    environment,
    finish,
    interleaved,
    ratio,
    run_study,
)

COUNT, QUICK_COUNT = 24, 4
ALONE, ALL = "training alone", "all sinks"
SINKS = {
    "record": {"file": "record.h5"},
    "statistics": {
        "thresholds": {"temperature": [400]},
        "quantiles": [0.5],
        "covariance": True,
    },
}


def main() -> None:
    """Measures, and prints the table."""
    parser = command_line(__doc__)
    parser.add_argument("--repetitions", type=int, default=3)
    args = parser.parse_args()
    env = environment()
    count, repetitions = (QUICK_COUNT, 1) if args.quick else (COUNT, args.repetitions)
    found = interleaved(
        {ALONE: lambda: training_speed(count, {}), ALL: lambda: training_speed(count, SINKS)},
        repetitions,
    )
    rates = {name: [rate for rate, _ in pairs] for name, pairs in found.items()}
    result = Result(
        f"Batches per second of the heat study with {count} simulations",
        ("sinks", "smallest", "largest", "relative to the training alone", "seconds at the end"),
        details={"rates_and_seconds_at_the_end": found},
    )
    for name, pairs in found.items():
        relative = ratio(rates[name], rates[ALONE])
        end = statistics.median(seconds for _, seconds in pairs)
        result.rows.append((name, min(rates[name]), max(rates[name]), relative, end))
    result.targets.append(Target("batch rate, all sinks", 0.97, ratio(rates[ALL], rates[ALONE])))
    finish(result, env, args, "sinks_in_a_study")


def training_speed(count: int, sections: dict[str, Any]) -> tuple[float, float]:
    """Runs the study once.

    Args:
        count: Number of simulations.
        sections: Sections that are added to the study.

    Returns:
        The batches per second, and the seconds from the last batch to the end of the run.
    """
    study = yaml.safe_load(HEAT.read_text(encoding="utf-8")) | sections
    study["simulation"] |= {"count": count, "command": _absolute(study["simulation"]["command"])}
    study["training"]["validation"] = {"simulations": 0}
    study["reservoir"] |= {"capacity": 20 * count, "watermark": 2 * study["training"]["batch_size"]}
    with tempfile.TemporaryDirectory() as folder:
        run_dir = run_study(study, Path(folder))
        summary = json.loads((run_dir / "summary.json").read_text(encoding="utf-8"))
        lines = (run_dir / "events.jsonl").read_text(encoding="utf-8").splitlines()
    last = {event["event"]: event for event in map(json.loads, lines)}
    begin, end = last["training_started"]["time"], last["run_finished"]["time"]
    # The last checkpoint begins after the last batch.
    trained = last["checkpoint"]["time"] - last["checkpoint"]["seconds"]
    return summary["training"]["batches"] / (trained - begin), end - trained


def _absolute(command: list[str]) -> list[str]:
    """Returns the command of the solver with the path of its script."""
    return [str(HEAT.parent / word) if word.endswith(".py") else word for word in command]


if __name__ == "__main__":
    main()
