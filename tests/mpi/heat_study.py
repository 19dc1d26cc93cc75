"""The heat study in small, with two server ranks and clients of two ranks."""

from pathlib import Path

import yaml

HEAT = Path(__file__).parents[2] / "simulations" / "heat" / "study.yaml"
SMALL = {
    "simulation.command": "[python, heat.py, --mesh, '16', --steps, '10']",
    "simulation.count": 16,
    "simulation.time_steps": 10,
    "simulation.fields.temperature.shape": "[16, 16]",
    "surrogate.arguments.hidden": "[16]",
    "training.batch_size": 4,
    "server.credit": 2,  # no client runs far ahead of what was learned
    "training.draws_per_sample": 40,  # time for the sampler to learn before all is asked for
    "training.validation.simulations": 3,
    "training.validation.every": 40,
    "reservoir.capacity": 40,
    "reservoir.watermark": 5,
    "sampler.generation_size": 4,
    "server.heartbeat": 0.2,
}


def settings(changes):
    """The words `--set key=value ...`."""
    return [word for key, value in changes.items() for word in ("--set", f"{key}={value}")]


def heat():
    """The small heat study as a mapping, for `Runs.study`."""
    study = yaml.safe_load(HEAT.read_text())
    for key, value in (
        SMALL | {"training.validation.simulations": 0, "launcher.report": False}
    ).items():
        *path, last = key.split(".")
        node = study
        for part in path:
            node = node.setdefault(part, {})
        node[last] = yaml.safe_load(value) if isinstance(value, str) else value
    command = study["simulation"]["command"]
    command[1] = str(HEAT.parent / "heat.py")
    return study
