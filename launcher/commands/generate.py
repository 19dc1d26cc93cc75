"""Data sets without training: solvers send to a collector in this process, which writes HDF5."""

import hashlib
import json
import math
import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from melissa_gen.builders.prior import prior_of
from melissa_gen.dataset import Dataset, DatasetWriter
from melissa_gen.errors import DataError, RunError
from melissa_gen.launcher.commands.collect import collect
from melissa_gen.report.live import LiveView
from melissa_gen.study import Study

__all__ = ["generate", "physical_times", "sample_bytes", "settings_of", "validation_set"]

CODE = (".py", ".c", ".h", ".cc", ".cpp", ".hpp", ".f", ".f90", ".F90", ".so", ".sh")


def generate(
    study: Study, output: Path, simulations: int, seed: int, view: LiveView, title: str = "data set"
) -> Path:
    """Solves simulations drawn from the prior into one HDF5 file (PDEBench's layout).

    Args:
        study: Its `launcher.clients` worlds run at the same time.
        output: The file; replaced only once all is there.
        simulations: How many.
        seed: Of the draws.
        view: Where the progress is shown.
        title: What is being made, for the progress.

    Returns:
        The file.

    Raises:
        RunError: A simulation failed; the sentence quotes its log.
        StudyError: The solver is not there.
    """
    points = prior_of(study).sample(simulations, np.random.default_rng(seed))
    output = output.absolute()
    output.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f"{output.stem}-", suffix=".work", dir=output.parent))
    whole = work / "whole.h5"
    try:
        with DatasetWriter(
            whole,
            {name: (f.shape, f.dtype) for name, f in study.simulation.fields.items()},
            study.simulation.time_steps,
            list(study.parameters),
            simulations,
            settings_of(study, simulations, seed),
            physical_times(study),
            grid_coordinates(study),
        ) as writer:
            what = f"{title}: {simulations} simulations"
            collect(study, points.tolist(), writer, work, view, what)
        whole.replace(output)
        _save_beside(work, output)
    except RunError:  # its sentence quotes a log, which stays
        for part in work.glob("*.h5*"):
            part.unlink()
        raise
    except BaseException:
        shutil.rmtree(work)
        raise
    shutil.rmtree(work)
    return output


def _save_beside(work: Path, output: Path) -> None:
    """What a bridge has left: coordinates of an unstructured mesh, and the folders that the study keeps."""
    for name in ("coordinates.h5", "simulations"):
        left, target = work / name, output.with_name(f"{output.stem}.{name}")
        if left.is_dir() and target.is_dir():
            shutil.rmtree(target)
        if left.is_file() or (left.is_dir() and any(left.iterdir())):
            left.replace(target)


def validation_set(study: Study, cache: Path, view: LiveView) -> Path:
    """Returns the study's validation set, made anew only if none with the same settings is there.

    Args:
        study: The study.
        cache: Folder of such sets, each named after its settings.
        view: Where the progress is shown.
    """
    wanted = study.training.validation
    settings = settings_of(study, wanted.simulations, wanted.seed)
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()
    path = cache / f"{digest[:16]}.h5"
    with suppress(DataError):
        if path.exists():
            with Dataset(path) as data:
                if data.settings == settings and len(data) == wanted.simulations:
                    return path
    return generate(study, path, wanted.simulations, wanted.seed, view, "validation set")


def settings_of(study: Study, simulations: int, seed: int) -> dict[str, Any]:
    """Returns everything that decides what is in a data set, the solver's own files included."""
    simulation = study.simulation
    files = {path for path in study.folder.iterdir() if path.suffix in CODE and path.is_file()}
    files |= {study.folder / word for word in simulation.command if (study.folder / word).is_file()}
    bridge = simulation.bridge
    for source in bridge.inputs if bridge else ():
        path = study.folder / source
        files |= {one for one in (path, *path.rglob("*")) if one.is_file()}
    settings = {
        "layout": 1,
        "parameters": {k: p.model_dump() for k, p in study.parameters.items()},
        "constraints": study.constraints,
        "command": simulation.command,
        "processes": simulation.processes,
        "environment": simulation.environment,
        "fields": {k: f.model_dump() for k, f in simulation.fields.items()},
        "time_steps": simulation.time_steps,
        "times": simulation.times.model_dump(),
        "domain": simulation.domain,
        "bridge": bridge.model_dump(exclude={"keep"}) if bridge else None,
        "simulations": simulations,
        "seed": seed,
        "files": {
            os.path.relpath(path, study.folder): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(files)
        },
    }
    plain: dict[str, Any] = json.loads(json.dumps(settings))  # as it is read back
    return plain


def sample_bytes(study: Study) -> int:
    """Returns the size of one time step of all fields."""
    fields = study.simulation.fields.values()
    return sum(math.prod(f.shape) * np.dtype(f.dtype).itemsize for f in fields)


def physical_times(study: Study) -> list[float]:
    """Returns the physical time of each sample of a trajectory, in `simulation.times.unit`."""
    times = study.simulation.times
    return [times.start + step * times.interval for step in range(study.simulation.time_steps)]


def grid_coordinates(study: Study) -> dict[str, list[float]]:
    """Returns the cells' centres along each axis of `simulation.domain`."""
    shape = next(iter(study.simulation.fields.values())).shape
    return {
        axis: [low + (high - low) * (cell + 0.5) / cells for cell in range(cells)]
        for (axis, (low, high)), cells in zip(study.simulation.domain.items(), shape, strict=False)
    }
