"""The error on simulations that are not used in training; they are distributed over the ranks."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed as dist

from melissa_gen.dataset import Dataset
from melissa_gen.errors import DataError
from melissa_gen.surrogates import Surrogate, nrmse

__all__ = ["Validation", "error_summary"]

_PICTURE_STEPS = 3


class Validation:
    """The validation set; each rank keeps a share of it in memory.

    Args:
        path: HDF5 file that `melissa-gen generate` wrote.
        parameters: Names in the order of the surrogate's inputs.
        device: The device of the network.
    """

    def __init__(self, path: Path, parameters: list[str], device: torch.device) -> None:
        self._path, self._device = path, device
        self._rank, self._ranks = dist.get_rank(), dist.get_world_size()
        with Dataset(path) as data:
            if list(data.names) != parameters:
                message = (
                    f"{path}: has the parameters {list(data.names)}; the study has {parameters}"
                )
                raise DataError(message)
            self.parameters = np.asarray(data.parameters, np.float64)
            self._times = torch.from_numpy(np.asarray(data.times, np.float64)).to(device)
            self._rows = list(range(self._rank, len(data), self._ranks))
            self._fields = [
                {name: torch.from_numpy(array) for name, array in data.read(row).items()}
                for row in self._rows
            ]

    def errors(self, surrogate: Surrogate) -> npt.NDArray[np.float64]:
        """Returns the NRMSE of every simulation (n,), over all fields and steps; the same on each rank."""
        found = torch.zeros(len(self.parameters), dtype=torch.float64, device=self._device)
        surrogate.eval()
        for row, true in zip(self._rows, self._fields, strict=True):
            predicted = self._predict(surrogate, row)
            by_field = [
                nrmse(predicted[n][None], t[None].to(self._device)) for n, t in true.items()
            ]
            found[row] = torch.stack(by_field).mean()
        surrogate.train()
        dist.all_reduce(found)
        errors: npt.NDArray[np.float64] = found.cpu().numpy()
        return errors

    @staticmethod
    def summary(errors: npt.NDArray[np.float64]) -> dict[str, float]:
        """Returns mean, RMS, standard deviation, 95 % and 99 % quantiles and maximum of the errors."""
        return error_summary(errors)

    def save_cases(self, surrogate: Surrogate, path: Path, units: dict[str, str]) -> None:
        """Writes all errors and the fields of the best, median and worst case (by rank 0; collective)."""
        errors = self.errors(surrogate)
        if self._rank != 0:
            return
        order = np.argsort(errors)
        cases = [int(order[0]), int(order[len(order) // 2]), int(order[-1])]
        steps = np.unique(np.linspace(0, len(self._times) - 1, _PICTURE_STEPS).astype(int))
        with Dataset(self._path) as data:
            true = [data.read(row) for row in cases]
            names = list(data.names)
        predicted = [self._predict(surrogate.eval(), row) for row in cases]
        field = next(iter(true[0]))
        np.savez_compressed(
            path,
            nrmse=errors,
            parameters=self.parameters,
            parameter_names=np.array(names),
            case_names=np.array(["best", "median", "worst"]),
            case_index=np.array(cases),
            time_steps=steps,
            field_name=np.array(field),
            unit=np.array(units[field]),
            true=np.stack([t[field][steps] for t in true]),
            predicted=np.stack([p[field][steps].cpu().numpy() for p in predicted]),
        )

    @torch.no_grad()
    def _predict(self, surrogate: Surrogate, row: int) -> dict[str, torch.Tensor]:
        point = torch.from_numpy(self.parameters[row]).to(self._device)
        answer: Any = surrogate(point.expand(len(self._times), -1), self._times)
        return answer if isinstance(answer, dict) else {next(iter(surrogate.fields)): answer}


def error_summary(errors: npt.NDArray[np.float64]) -> dict[str, float]:
    """Returns statistics of the errors (n,) of n simulations."""
    if not len(errors):
        return dict.fromkeys(("mean", "rms", "std", "p95", "p99", "max"), math.nan)
    return {
        "mean": float(errors.mean()),
        "rms": float(np.sqrt(np.square(errors).mean())),
        "std": float(errors.std()),
        "p95": float(np.quantile(errors, 0.95)),
        "p99": float(np.quantile(errors, 0.99)),
        "max": float(errors.max()),
    }
