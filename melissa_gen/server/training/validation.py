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
        rows: Time steps that are predicted at once, which bounds the memory of a forward pass.
    """

    def __init__(self, path: Path, parameters: list[str], device: torch.device, rows: int) -> None:
        self._path, self._device, self._at_once = path, device, rows
        self._rank, self._ranks = dist.get_rank(), dist.get_world_size()
        with Dataset(path) as data:
            if list(data.names) != parameters:
                message = (
                    f"{path}: has the parameters {list(data.names)}; the study has {parameters}"
                )
                raise DataError(message)
            self._names = list(data.fields)
            self.parameters = np.asarray(data.parameters, np.float64)
            self._times = torch.from_numpy(np.asarray(data.times, np.float64)).to(device)
            self._rows = list(range(self._rank, len(data), self._ranks))
            self._fields = [
                {name: torch.from_numpy(array) for name, array in data.read(row).items()}
                for row in self._rows
            ]

    @property
    def trajectories(self) -> list[dict[str, torch.Tensor]]:
        """The trajectories of this rank: field name to `(T, *shape)`."""
        return self._fields

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

    def errors_of_mean(self) -> npt.NDArray[np.float64]:
        """Returns the NRMSE (n,) of predicting the mean of each field over the set (collective)."""
        names = self._names
        sums = torch.zeros(len(names), 2, dtype=torch.float64)
        for true in self._fields:
            sums += torch.tensor([[true[n].double().sum(), true[n].numel()] for n in names])
        sums = sums.to(self._device)
        dist.all_reduce(sums)
        means = dict(zip(names, (sums[:, 0] / sums[:, 1]).tolist(), strict=True))
        found = torch.zeros(len(self.parameters), dtype=torch.float64)
        for row, true in zip(self._rows, self._fields, strict=True):
            by_field = [nrmse(torch.full_like(t, means[n])[None], t[None]) for n, t in true.items()]
            found[row] = torch.stack(by_field).mean()
        found = found.to(self._device)
        dist.all_reduce(found)
        errors: npt.NDArray[np.float64] = found.cpu().numpy()
        return errors

    @staticmethod
    def summary(errors: npt.NDArray[np.float64]) -> dict[str, float]:
        """Returns mean, RMS, standard deviation, 95 % and 99 % quantiles and maximum of the errors."""
        return error_summary(errors)

    def save_cases(
        self, surrogate: Surrogate, path: Path, units: dict[str, str]
    ) -> npt.NDArray[np.float64]:
        """Writes all errors and the fields of the best, median and worst case (by rank 0; collective).

        Returns:
            The errors (n,).
        """
        errors = self.errors(surrogate)
        if self._rank != 0:
            return errors
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
        return errors

    @torch.no_grad()
    def _predict(self, surrogate: Surrogate, row: int) -> dict[str, torch.Tensor]:
        """Predicts a trajectory, some time steps at once: field to (T, *shape)."""
        point = torch.from_numpy(self.parameters[row]).to(self._device)
        parts: list[dict[str, torch.Tensor]] = []
        for times in torch.split(self._times, self._at_once):
            answer: Any = surrogate(point.expand(len(times), -1), times)
            named = answer if isinstance(answer, dict) else {next(iter(surrogate.fields)): answer}
            parts.append(named)
        return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


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
