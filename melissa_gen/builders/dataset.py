"""Data sets of a study: physical times, coordinates, settings that determine the content, and the writer."""

import json
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from melissa_gen.builders.fields import field_specs, input_specs
from melissa_gen.builders.mesh import read_mesh
from melissa_gen.builders.prior import prior_of
from melissa_gen.builders.solver_files import solver_files
from melissa_gen.dataset import Dataset, DatasetWriter, Trajectories
from melissa_gen.errors import DataError
from melissa_gen.run_dir.purpose import Purpose
from melissa_gen.sampling import Prior
from melissa_gen.study import SimulationSection, Study, TimesSection
from melissa_gen.study.bridge_section import BridgeSection

__all__ = [
    "check_dataset",
    "check_times",
    "clock",
    "dataset_settings",
    "dataset_writer",
    "grid_coordinates",
    "physical_times",
    "recorded_trajectories",
]


def dataset_writer(
    study: Study,
    path: Path,
    settings: dict[str, Any],
    *,
    resume: bool,
    fields: Collection[str] | None = None,
    rows: NDArray[np.bool_] | None = None,
) -> DatasetWriter:
    """Creates the data set file of a study, with a row for each of its simulations.

    Args:
        study: The study.
        path: The file.
        settings: Settings that determine the data, from `dataset_settings`.
        resume: Continue the partial file of an earlier server.
        fields: Names of the fields in the file; None: all.
        rows: Whether this writer writes the row of each simulation; None: all.

    Returns:
        The writer.

    Raises:
        DataError: The file can't be written.
    """
    sizes, mesh = field_specs(study.simulation), read_mesh(study)
    return DatasetWriter(
        path,
        {name: size for name, size in sizes.items() if fields is None or name in fields},
        study.simulation.time_steps,
        list(study.parameters),
        study.simulation.count,
        settings,
        physical_times(study.simulation),
        grid_coordinates(study.simulation),
        resume=resume,
        inputs=input_specs(study.simulation),
        mesh=mesh.arrays() if mesh else None,
        rows=rows,
    )


def check_dataset(study: Study, data: Dataset) -> None:
    """Checks that a data set has the parameters, fields and time steps of a study.

    Raises:
        DataError: It has others.
    """
    simulation = study.simulation
    data.require(
        list(study.parameters),
        field_specs(simulation),
        simulation.time_steps,
        input_specs(simulation),
    )


def recorded_trajectories(study: Study, purpose: Purpose) -> Trajectories:
    """Opens the data set files that a run trains on.

    Args:
        study: The study.
        purpose: Names the files, and the trajectories that are not trained on.

    Raises:
        DataError: A file can't be read, or is not of the study's simulation.
    """
    prior = prior_of(study)
    paths = [Path(name) for name in purpose.data]
    return Trajectories(paths, lambda data: _check_recorded(study, prior, data), purpose.held_out)


def _check_recorded(study: Study, prior: Prior, data: Dataset) -> None:
    """Checks that a file holds trajectories of a study: its fields, times, and points of its prior."""
    fields = list(study.simulation.fields)
    if len(fields) == 1:
        data.rename_tensor(fields[0])
    check_dataset(study, data)
    check_times(study, data)
    outside = np.flatnonzero(np.isneginf(prior.log_density(data.parameters)))
    if len(data) and len(outside):
        point = dict(zip(data.names, data.parameters[outside[0]].tolist(), strict=True))
        message = (
            f"{data.path} has a trajectory with {point}, which is outside the distributions in parameters; widen them, "
            "or use a file of this study"
        )
        raise DataError(message)


def check_times(study: Study, data: Dataset) -> None:
    """Checks that a data set has the physical times of a study, or none.

    Raises:
        DataError: It has others.
    """
    times = physical_times(study.simulation)
    numbers = np.arange(data.time_steps)
    if not (np.allclose(data.times, times) or np.array_equal(data.times, numbers)):
        message = (
            f"{data.path} has the physical times {data.times[0]:g} to {data.times[-1]:g}, but the study has "
            f"{times[0]:g} to {times[-1]:g}; correct simulation.times, or use a file of this study"
        )
        raise DataError(message)


def dataset_settings(
    study: Study, simulations: int, seed: int, files: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Returns the settings that determine the content of a data set, including hashes of the solver's files.

    Args:
        study: The study.
        simulations: Number of simulations.
        seed: Seed for drawing the parameters.
        files: Hashes of the files that the solver can read; default: they are computed.

    Returns:
        The settings in JSON types. Studies with equal settings produce equal data sets.
    """
    simulation = study.simulation
    settings = {
        "layout": 1,
        "parameters": {k: p.model_dump(exclude={"scale"}) for k, p in study.parameters.items()},
        "constraints": study.constraints,
        "feasible_points": study.feasible_points,
        "command": simulation.command,
        "processes": simulation.processes,
        "environment": simulation.environment,
        "fields": {
            k: f.model_dump(exclude={"scale", "channels"}) for k, f in simulation.fields.items()
        },
        "time_steps": simulation.time_steps,
        "times": simulation.times.model_dump(),
        "domain": simulation.domain,
        "bridge": _bridge_settings(simulation.bridge) if simulation.bridge else None,
        "simulations": simulations,
        "seed": seed,
        "files": dict(solver_files(study).digests if files is None else files),
    }
    if simulation.inputs:
        settings["inputs"] = {name: one.model_dump() for name, one in simulation.inputs.items()}
    if simulation.mesh:
        settings["mesh"] = simulation.mesh.model_dump()
    # Convert through JSON, so that the result compares equal to settings read from a file.
    plain: dict[str, Any] = json.loads(json.dumps(settings))
    return plain


def _bridge_settings(bridge: BridgeSection) -> dict[str, Any]:
    """Returns the settings of the bridge; without inputs they are those of data sets from before there were any."""
    unset = {"input_reader"} if bridge.input_reader is None else set()
    return bridge.model_dump(exclude={"keep", *unset})


def clock(times: TimesSection) -> Callable[[int], float]:
    """Returns the function from time step to physical time, in `simulation.times.unit`."""
    return lambda step: times.start + step * times.interval


def physical_times(simulation: SimulationSection) -> list[float]:
    """Returns the physical time of each sample of a trajectory, in `simulation.times.unit`."""
    time_of = clock(simulation.times)
    return [time_of(step) for step in range(simulation.time_steps)]


def grid_coordinates(simulation: SimulationSection) -> dict[str, list[float]]:
    """Returns the coordinates of the cell centers along each axis of `simulation.domain`."""
    if simulation.mesh is not None:
        return {}
    shape = next(iter(simulation.fields.values())).shape
    return {
        axis: [low + (high - low) * (cell + 0.5) / cells for cell in range(cells)]
        for (axis, (low, high)), cells in zip(simulation.domain.items(), shape, strict=False)
    }
