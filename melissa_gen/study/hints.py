"""Hints in messages about a study: the legal word that was meant, and the line to write instead."""

import re
import shlex
from collections.abc import Iterable, Mapping
from typing import Any

import yaml

from melissa_gen.errors import nearest
from melissa_gen.study.yaml_file import yaml_value

__all__ = ["dotted_keys", "key_hint", "line_to_write", "word_hint"]

_MEANT = {
    "gpu": "cuda",
    "cuda:0": "cuda",
    "pbspro": "pbs",
    "torque": "pbs",
    "sbatch": "slurm",
    "lr": "learning_rate",
    "rate": "learning_rate",
    "epochs": "draws_per_sample",
    "workers": "clients",
    "jobs": "clients",
    "simulations": "count",
    "steps": "time_steps",
    "timesteps": "time_steps",
    "nprocs": "processes",
    "env": "environment",
    "once": "per_simulation",
    "network": "class",
    # Melissa.
    "nb_parameters": "parameters",
    "nb_time_steps": "time_steps",
    "num_samples": "time_steps",
    "parameter_sweep_size": "count",
    "client_executable": "command",
    "executable": "command",
    "executable_command": "command",
    "job_limit": "clients",
    "simulation_timeout": "timeout",
    "server_timeout": "heartbeat_timeout",
    "crashes_before_redraw": "retries",
    "per_server_watermark": "watermark",
    "buffer_size": "capacity",
    "buffer": "policy",
    "field_names": "fields",
    "dl_config": "training",
    "study_options": "simulation",
    "launcher_config": "launcher",
    "vary_parameters": "sampler",
    # PyTorch and Lightning.
    "optim": "optimizer",
    "scheduler": "schedule",
    "lr_scheduler": "schedule",
    "criterion": "loss",
    "loss_fn": "loss",
    "batch": "batch_size",
    "max_epochs": "draws_per_sample",
    "num_epochs": "draws_per_sample",
    "num_workers": "clients",
    "gradient_clip_val": "clip_gradients",
    "weight_decay": "decay",
    "val_check_interval": "every",
    "check_val_every_n_epoch": "every",
    "accelerator": "device",
    "devices": "ranks",
    "amp": "precision",
    "bf16-mixed": "bf16",
    "model": "surrogate",
    "trainer": "training",
    "random_seed": "seed",
    "seed_everything": "seed",
    # SLURM and other schedulers.
    "walltime": "time",
    "time_limit": "time",
    "queue": "partition",
    "mem": "memory",
    "mem_per_cpu": "memory_per_cpu",
    "ntasks_per_node": "tasks_per_node",
    "ppn": "tasks_per_node",
    "ntasks": "processes",
    "np": "processes",
    "mpi_ranks": "processes",
    "gpus": "gpus_per_task",
    "scheduler_type": "backend",
    "torchrun": "local",
    "openpbs": "pbs",
    "spectrum": "lsf",
    # Words of distributions and fields.
    "min": "low",
    "max": "high",
    "lower": "low",
    "upper": "high",
    "mu": "mean",
    "sigma": "std",
    "loguniform": "log_uniform",
    "gaussian": "normal",
    "choice": "categorical",
    "discrete": "categorical",
    "enum": "categorical",
    "constant": "fixed",
    "const": "fixed",
    "int": "integer",
    "randint": "integer",
    "dims": "shape",
    "size": "shape",
    "type": "distribution",
    "single": "float32",
    "double": "float64",
}
"""Words of other programs to the words of a study."""


def word_hint(word: str, legal: Iterable[str]) -> str:
    """Returns " (did you mean 'x'?)" for the legal word that has the same sense, or else the nearest spelling."""
    known = list(legal)
    meant = _MEANT.get(word.lower())
    return f" (did you mean '{meant}'?)" if meant in known else nearest(word, known)


def key_hint(word: str, legal: Iterable[str], everywhere: Iterable[str]) -> str:
    """Returns a hint for an unknown key.

    Args:
        word: The unknown key.
        legal: The keys of its section.
        everywhere: The dotted keys of all sections.
    """
    known, places = list(legal), list(everywhere)
    meant = _MEANT.get(word.lower(), word)
    if meant not in known:
        for wanted in (word, meant):
            found = [key for key in places if key.rpartition(".")[2] == wanted]
            if found and wanted not in known:
                return f" (did you mean '{found[0]}'?)"
    return word_hint(word, known)


def line_to_write(key: str, kind: str, value: Any, legal: Iterable[str]) -> str:
    """Returns what is legal in place of a value of the wrong type, with a line to write; "" if there is no example.

    Args:
        key: Last part of the key.
        kind: Type of pydantic's error.
        value: The value that was found.
        legal: The keys of the section, if a section is expected.
    """
    known = list(legal)
    if kind == "list_type" and isinstance(value, str) and value.strip():
        return f"write a list: {_line(key, _words(value))}"
    if kind == "list_type" and isinstance(value, int | float):
        return f"write a list: {_line(key, [value])}"
    if kind in ("model_type", "model_attributes_type", "dict_type"):
        if "shape" in known and isinstance(value, list):
            return f"write a section: {_line(key, {'shape': value})}"
        if kind == "model_attributes_type" and isinstance(value, list) and len(value) == 2:
            law = {"distribution": "uniform", "low": value[0], "high": value[1]}
            return f"write a section: {_line(key, law)}"
        return "a section is legal here" + (f", with the keys {', '.join(known)}" if known else "")
    if kind in ("int_type", "int_from_float", "float_type") and isinstance(value, str):
        if (number := _number(value)) is not None:
            return f"write a number without quotes: {_line(key, number)}"
        # In a whole number, a comma separates thousands.
        if kind == "float_type" and (number := _number(value.replace(",", "."))) is not None:
            return f"write a number with a point: {_line(key, number)}"
    if kind == "string_type" and isinstance(value, int | float) and not isinstance(value, bool):
        return f"write a string in quotes: {_line(key, str(value))}"
    return ""


def _number(text: str) -> int | float | None:
    """Returns the number that a text of the study file would be without quotes; None if it is no number."""
    try:
        value = yaml_value(text)
    except ValueError:
        return None
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def _line(key: str, value: Any) -> str:
    named: object = [value] if key.isdigit() else {key: value}
    text = yaml.safe_dump(named, default_flow_style=True, sort_keys=False, width=10_000)
    return text.strip()[1:-1]


def _words(text: str) -> list[str] | list[int]:
    between = re.fullmatch(r"\s*(\d+)\s*[-:,\s]\s*(\d+)\s*", text)
    if between:
        return [int(one) for one in between.groups()]
    try:
        return shlex.split(text)
    except ValueError:
        return text.split()


def dotted_keys(sections: Mapping[str, Iterable[str]]) -> list[str]:
    """Returns the keys of all sections as `section.key`, with the sections themselves last."""
    inner = [f"{name}.{key}" for name, keys in sections.items() for key in keys]
    return [*inner, *sections]
