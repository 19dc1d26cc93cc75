"""Builds the surrogate of a study, and tries to train it before the study starts."""

from typing import Any

import torch

from melissa_gen.builders.dataset import clock
from melissa_gen.builders.mesh import read_mesh
from melissa_gen.builders.scale import field_scale
from melissa_gen.builders.task import build_task
from melissa_gen.builders.training import (
    build_callbacks,
    build_loss,
    build_optimizer,
    build_schedule,
)
from melissa_gen.errors import StudyError
from melissa_gen.study import Study, SurrogateSection
from melissa_gen.surrogates import DeepONet, Surrogate
from melissa_gen.surrogates.network_ensemble import Kind
from melissa_gen.surrogates.training_trial import TrainingTrial
from melissa_gen.tasks import Task

__all__ = ["build_surrogate", "members_of", "training_trial", "try_surrogate"]


def build_surrogate(study: Study, task: Task | None = None) -> Surrogate:
    """Creates the surrogate of a study. Its output scaling is set later, from the data.

    Args:
        study: The study.
        task: Its task; default: a new one.

    Raises:
        StudyError: The network class can't be imported, or its output does not match the fields.
    """
    time_of = clock(study.simulation.times)
    task = task or build_task(study)
    more: dict[str, Any] = {}
    if task.takes_inputs:
        more["inputs"] = {name: one.shape for name, one in study.simulation.inputs.items()}
    surrogate = task.make_surrogate(
        parameters={name: p.typical_range for name, p in study.parameters.items()},
        times=(time_of(0), time_of(study.simulation.time_steps - 1)),
        time_steps=study.simulation.time_steps,
        fields={name: f.shape for name, f in study.simulation.fields.items()},
        class_path=study.surrogate.class_path,
        arguments=study.surrogate.arguments,
        base_folder=study.folder,
        ensemble=members_of(study.surrogate),
        scales={name: field_scale(field) for name, field in study.simulation.fields.items()},
        logarithmic=[name for name, p in study.parameters.items() if p.logarithmic],
        **more,
    )
    _set_points(study, surrogate)
    return surrogate


def _set_points(study: Study, surrogate: Surrogate) -> None:
    """Gives the points of the mesh to networks that take them.

    Raises:
        StudyError: The study has no mesh, or its points do not fit.
    """
    networks = [one for one in surrogate.networks() if isinstance(one, DeepONet) and one.mesh_axes]
    if not networks:
        return
    mesh = read_mesh(study)
    if mesh is None:
        message = (
            "surrogate.arguments.mesh_axes needs the points of a mesh: name their file in "
            "simulation.mesh.coordinates, or set mesh_axes to 0"
        )
        raise StudyError(message)
    for one in networks:
        one.set_points(torch.from_numpy(mesh.coordinates))


def members_of(surrogate: SurrogateSection) -> tuple[Kind, int] | None:
    """Returns kind and number of the ensemble members within the network, or None. Snapshots do not count."""
    ensemble = surrogate.ensemble
    if ensemble is None or ensemble.kind == "snapshots":
        return None
    return ensemble.kind, ensemble.count


def training_trial(study: Study) -> TrainingTrial:
    """Returns trial steps of a new surrogate of a study.

    Raises:
        StudyError: The surrogate, its optimizer, its schedule or its loss can't be built.
    """
    surrogate, training = build_surrogate(study), study.training
    optimizer = build_optimizer(training, surrogate, study.folder)
    build_schedule(training, optimizer, study.folder)
    loss = build_loss(study, surrogate)
    build_callbacks(training, study.folder)
    return TrainingTrial(surrogate, optimizer, loss, bf16=training.precision == "bf16")


def try_surrogate(study: Study) -> None:
    """Trains a new surrogate of a study for some steps on random data, on the CPU of this machine.

    Raises:
        StudyError: The network can't be built or trained.
    """
    with torch.random.fork_rng(devices=[]):
        training_trial(study).run(study.training.batch_size)
        task = build_task(study)
        task.try_out(build_surrogate(study, task))
