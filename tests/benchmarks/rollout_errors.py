"""Errors of autoregressive surrogates on the simulations of a data set: of single steps, and of whole rollouts."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["rollout_errors"]

Array = NDArray[np.float64]


def rollout_errors(checkpoint: Path, data_set: Path, *, relative: bool = False) -> dict[str, Array]:
    """Returns the root mean square error of each simulation.

    Args:
        checkpoint: folder of the surrogate, whose history is one time step.
        data_set: file with the simulations.
        relative: divide by the root mean square of the simulation; otherwise by the standard deviation of the field.

    Returns:
        `one_step`: of single steps from each time step of the solver `(n,)`; `rollout`: from the first time step.
    """
    import torch

    from melissa_gen.dataset import Dataset
    from melissa_gen.surrogates import AutoregressiveSurrogate, load

    surrogate = load(checkpoint)
    assert isinstance(surrogate, AutoregressiveSurrogate)
    surrogate.eval()
    with Dataset(data_set) as data:
        simulations = [data.read(row) for row in range(len(data))]
        points, times = torch.from_numpy(data.parameters), torch.from_numpy(data.times)
    widths = {n: float(np.std([one[n] for one in simulations])) for n in surrogate.fields}
    found: dict[str, list[float]] = {"one_step": [], "rollout": []}
    with torch.no_grad():
        for point, true in zip(points, simulations, strict=True):
            scale = widths
            if relative:
                scale = {n: float(np.sqrt(np.mean(np.square(true[n][1:])))) for n in widths}
            steps = len(times) - 1
            given = surrogate.standardized(
                {n: torch.from_numpy(true[n][:-1, None].copy()) for n in widths}
            )
            (single,) = surrogate.rollout(point[None].repeat(steps, 1), times[:-1], given, 1)
            found["one_step"].append(_error(single, true, scale))
            rolled = list(surrogate.rollout(point[None], times[:1], given[:1], steps))
            whole = {n: torch.cat([one[n] for one in rolled]) for n in widths}
            found["rollout"].append(_error(whole, true, scale))
    return {kind: np.array(values) for kind, values in found.items()}


def _error(
    predicted: Mapping[str, Any], true: Mapping[str, NDArray[Any]], scale: Mapping[str, float]
) -> float:
    squares = [
        np.mean(np.square((predicted[name].numpy() - true[name][1:]) / width))
        for name, width in scale.items()
    ]
    return float(np.sqrt(np.mean(squares)))
