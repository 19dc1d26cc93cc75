"""Prints the memory that training and validation of a task take, and what is promised, for a program of its own."""

import gc
import json
import os
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
import torch.distributed as dist

from melissa_gen.builders.memory import (
    acquisition_megabytes,
    base_megabytes,
    promised_megabytes,
    reservoir_megabytes,
)
from melissa_gen.builders.surrogate import build_surrogate
from melissa_gen.builders.task import build_task
from melissa_gen.dataset import DatasetWriter
from melissa_gen.sampling.acquisition.base_acquisition import Acquisition
from melissa_gen.sampling.acquisition.prediction_features import UnitCubeProbe
from melissa_gen.sampling.acquisition.user_acquisition import UserAcquisition
from melissa_gen.sampling.prior.joint_prior import Prior
from melissa_gen.server.peak_memory import peak_megabytes
from melissa_gen.server.training.validation import Validation
from melissa_gen.study import Study
from melissa_gen.surrogates import SurrogateProbe
from tests.unit.server.trainers import study_of, trainer_of

STEPS, COUNT = 40, 2
NETWORKS = {
    "MLP": {"arguments": {"hidden": [2]}},
    "points": {"arguments": {"hidden": [8, 8], "activation": "tanh"}},
}
TASKS = {
    "direct": "direct",
    "autoregressive": {"class": "autoregressive", "arguments": {"history": 2, "rollout": 2}},
    "operator": "operator",
    "pointwise": {"class": "pointwise", "arguments": {"points": 2048}},
    "physics_informed": {
        "class": "physics_informed",
        "arguments": {"residual": "convection", "points": 8192},
    },
}


def measure(task: str, network: str) -> dict[str, float]:
    """Trains three batches and validates; returns the used and the promised memory, without the reservoir."""
    side = {"MLP": 384, "points": 256}[network]
    inputs = {"k": {"shape": [side, side]}} if task == "operator" else {}
    study = study_of(
        simulation={
            "count": COUNT,
            "time_steps": STEPS,
            "fields": {"u": {"shape": [side, side]}},
            "inputs": inputs,
        },
        surrogate={"task": TASKS[task], **NETWORKS[network]},
        training={
            "batch_size": 8,
            "validation": {"simulations": 3},
        },
        reservoir={"capacity": COUNT * STEPS, "watermark": 10},
        server={"ranks": 1, "device": "cpu"},
    )
    stored = (COUNT * STEPS + 1) * study.sample_bytes / 1e6
    promised = promised_megabytes(study) - base_megabytes(study) - reservoir_megabytes(study)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "validation.h5"
        write_set(path, side, inputs)
        load_libraries(study)
        before = settled()
        trainer, _ = trainer_of(study)
        rows = study.training.batch_size
        validation = Validation(path, torch.device("cpu"), rows, task=build_task(study))
        trainer.wait_for_first_samples()
        for _ in range(3):
            # All windows may have been drawn; the rows of the last batch are then used again.
            trainer.learn(trainer.draw(rows), rows)
        validation.errors(trainer.model)
        validation.save_cases(trainer.model, Path(folder) / "cases.npz", {"u": "K"})
        validation.errors_of_mean()
        used = peak_megabytes() - before - stored
    return {"used": used, "promised": promised}


def measure_acquisition(side: int) -> dict[str, float]:
    """Asks a function of a user for its acquisition; returns the used and the promised memory."""
    study = study_of(
        simulation={"fields": {"u": {"shape": [side, side]}}},
        surrogate=NETWORKS["MLP"],
        sampler={"acquisition": {"class": "own.py:Largest"}},
    )
    promised = acquisition_megabytes(study)
    prior = Prior.from_mapping({"a": study.parameters["a"].model_dump()})
    acquisition = UserAcquisition(Flat(), largest, prior, lambda n, random: random.random((n, 1)))
    probe = SurrogateProbe([build_surrogate(study)], keep_fields=True)
    acquisition.observe(UnitCubeProbe(probe, prior))
    unit = np.linspace(0.0, 1.0, 100)[:, None]
    acquisition.value(unit[:1])
    before = settled()
    acquisition.value(unit)
    return {"used": peak_megabytes() - before, "promised": promised}


def largest(parameters, log_a, fields):
    return log_a + np.square(fields()["u"]).max(axis=(1, 2, 3))


class Flat(Acquisition):
    """An acquisition that is the same everywhere."""

    def value_and_gradient(self, unit):
        return np.zeros(len(unit)), np.zeros(unit.shape)


def load_libraries(study: Study) -> None:
    """Takes a small step, because the libraries that it loads are part of the base."""
    surrogate = build_surrogate(study)
    optimizer = torch.optim.Adam(surrogate.parameters())
    surrogate.network(surrogate.random_inputs(2)).square().mean().backward()
    optimizer.step()


def write_set(path: Path, side: int, inputs: dict) -> None:
    given = {name: ((side, side), "f4") for name in inputs}
    with DatasetWriter(
        path, {"u": ((side, side), "f4")}, STEPS, ["a"], 3, {}, inputs=given
    ) as writer:
        for row in range(3):
            fields = {name: np.full((side, side), row, np.float32) for name in inputs}
            writer.begin(row, row, [0.3 * row], fields)
            for step in range(STEPS):
                wave = np.sin(0.01 * np.arange(side) * (row + 1) + step)
                writer.write(row, step, "u", wave * np.ones((side, 1)))
            writer.finish(row)


def settled() -> float:
    """Returns the memory of this process, from which its peak is measured from now on."""
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")
    return peak_megabytes()


if __name__ == "__main__":
    torch.set_num_threads(1)
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    task, network = sys.argv[1:3]
    found = measure_acquisition(512) if task == "acquisition" else measure(task, network)
    print(json.dumps(found), flush=True)
    os._exit(0)
