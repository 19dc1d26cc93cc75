"""The error on simulations that are not used in training; they are distributed over the ranks."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed as dist

from melissa_gen.dataset import Dataset
from melissa_gen.server.coordination.events import JOINING, VALIDATING
from melissa_gen.server.training.spectra import (
    SPECTRAL_STEPS,
    energy_spectrum,
    grid_axes,
    log_difference,
)
from melissa_gen.surrogates import ChannelMoments, Metric, Surrogate
from melissa_gen.surrogates.losses import steps_correlated
from melissa_gen.surrogates.metric import Usual
from melissa_gen.tasks import Direct, Task

__all__ = ["Errors", "Validation", "error_summary"]

_PICTURE_STEPS = 3
_REPORTED_STEPS = 50
_VALUES_AT_ONCE = 1 << 18
"""Values of a trajectory that are compared at once, because a comparison takes several times their memory."""


@dataclass(frozen=True)
class Errors:
    """The error of every validation simulation, by the metric of the study.

    Attributes:
        total: Error of each of the n simulations, `(n,)`.
        by_field: The same for each field.
        steps: The K predicted time steps, `(K,)`.
        times: The physical times of these steps, `(K,)`.
        by_step: Error of each simulation at each of these steps, `(n, K)`.
        correlation_times: For each simulation, the physical time of the last step before the correlation of
            prediction and simulation falls below 0.8, mean over the fields, `(n,)`.
        spectral: Root mean square difference of the decimal logarithms of the energy spectra of prediction and
            simulation, mean over the simulations and the fields; NaN if no field is on a regular grid.
        spectra: For each field on a regular grid, the energy of each wavenumber at up to 10 of the predicted steps, of
            the simulations and of the predictions, mean over the set: `(2, S, wavenumbers)`.
        spectrum_times: The physical times of these S steps, `(S,)`.
    """

    total: npt.NDArray[np.float64]
    by_field: dict[str, npt.NDArray[np.float64]]
    steps: npt.NDArray[np.int64]
    times: npt.NDArray[np.float64]
    by_step: npt.NDArray[np.float64]
    correlation_times: npt.NDArray[np.float64]
    spectral: float
    spectra: dict[str, npt.NDArray[np.float64]]
    spectrum_times: npt.NDArray[np.float64]

    def by_field_summary(self) -> dict[str, dict[str, float]]:
        """Returns the statistics of each field's errors."""
        return {name: error_summary(errors) for name, errors in self.by_field.items()}

    def against_time(self) -> dict[str, list[float]]:
        """Returns statistics over the simulations at up to 50 of the predicted steps, evenly spaced."""
        count = len(self.steps)
        shown = np.unique(np.linspace(0, count - 1, min(count, _REPORTED_STEPS)).astype(int))
        errors = self.by_step[:, shown]
        return {
            "steps": self.steps[shown].tolist(),
            "times": self.times[shown].tolist(),
            "mean": errors.mean(axis=0).tolist(),
            "median": np.median(errors, axis=0).tolist(),
            "p95": np.quantile(errors, 0.95, axis=0).tolist(),
        }


class Validation:
    """The validation set; each rank keeps a share of it in memory.

    Args:
        path: HDF5 file that `melissa-gen generate` wrote.
        device: The device of the network.
        rows: Time steps that are predicted at once, which bounds the memory of a forward pass.
        begin_piece: Called with an activity of `coordination.events` before each prediction and each collective.
        task: Predicts the trajectories.
        metric: What the error of a prediction is.
    """

    def __init__(
        self,
        path: Path,
        device: torch.device,
        rows: int,
        begin_piece: Callable[[str], None] = lambda activity: None,
        task: Task | None = None,
        metric: Metric | None = None,
    ) -> None:
        self._metric = metric or Metric()
        self._begin_piece, self._task = begin_piece, task or Direct()
        self._path, self._device, self._at_once = path, device, rows
        self._rank, self._ranks = dist.get_rank(), dist.get_world_size()
        with Dataset(path) as data:
            self._names = list(data.fields)
            self._shapes = {name: shape for name, (shape, _) in data.fields.items()}
            self.parameters = np.asarray(data.parameters, np.float64)
            self._times = torch.from_numpy(np.asarray(data.times, np.float64)).to(device)
            self._rows = list(range(self._rank, len(data), self._ranks))
            self._fields = [_tensors(data.read(row)) for row in self._rows]
            self._inputs = [self._inputs_of(data, row) for row in self._rows]
            mesh = bool(data.mesh)
        self._steps = self._task.predicted_steps(len(self._times))
        self._usual = self._usual_values()
        self._spectral = self._spectral_axes(mesh)
        count = len(self._steps)
        self._spectral_steps = np.unique(
            np.linspace(0, count - 1, min(count, SPECTRAL_STEPS)).astype(int)
        )

    @property
    def trajectories(self) -> list[dict[str, torch.Tensor]]:
        """The trajectories of this rank: field name to `(T, *shape)`."""
        return self._fields

    def errors(self, surrogate: Surrogate) -> Errors:
        """Returns the error of each simulation over the predicted steps; equal on all ranks (collective)."""
        surrogate.eval()
        given = [one | inputs for one, inputs in zip(self._fields, self._inputs, strict=True)]
        found = self._compared(self._predictions(surrogate, self._rows, given))
        surrogate.train()
        return found

    def errors_of_mean(self) -> Errors:
        """Returns the error of predicting the mean of each field over the set (collective)."""
        return self._compared(
            {
                name: torch.tensor(self._usual[name].mean, dtype=torch.float64).expand(
                    len(self._steps), *shape
                )
                for name, shape in self._shapes.items()
            }
            for _ in self._fields
        )

    def save_cases(
        self, surrogate: Surrogate, path: Path, units: dict[str, str], name: str = "nrmse"
    ) -> Errors:
        """Writes all errors and the fields of the best, median and worst case (by rank 0; collective).

        Args:
            surrogate: The surrogate.
            path: The file.
            units: Name of each field to its unit.
            name: Name of the error in the file.

        Returns:
            The errors.
        """
        found = self.errors(surrogate)
        if self._rank != 0:
            return found
        errors = found.total
        order = np.argsort(errors)
        cases = [int(order[0]), int(order[len(order) // 2]), int(order[-1])]
        shown = np.unique(np.linspace(0, len(self._steps) - 1, _PICTURE_STEPS).astype(int))
        with Dataset(self._path) as data:
            compared = [self._case(surrogate.eval(), data, row, shown) for row in cases]
            names = list(data.names)
        pictures: dict[str, Any] = {
            name: errors,
            f"{name}_by_step": found.by_step,
            f"field_{name}": np.stack(list(found.by_field.values()), axis=1),
        }
        for k, field in enumerate(self._names):
            # Without a number, the arrays of the first field.
            end = f"_{k}" if k else ""
            pictures[f"true{end}"] = np.stack([true[field] for true, _ in compared])
            if field in found.spectra:
                pictures[f"spectrum{end}"] = found.spectra[field]
            pictures[f"predicted{end}"] = np.stack([one[field] for _, one in compared])
        np.savez_compressed(
            path,
            parameters=self.parameters,
            parameter_names=np.array(names),
            case_names=np.array(["best", "median", "worst"]),
            case_index=np.array(cases),
            time_steps=np.array(self._steps)[shown],
            field_name=np.array(self._names[0]),
            unit=np.array(units[self._names[0]]),
            field_names=np.array(self._names),
            units=np.array([units[name] for name in self._names]),
            predicted_steps=found.steps,
            predicted_times=found.times,
            correlation_times=found.correlation_times,
            spectrum_times=found.spectrum_times,
            **pictures,
        )
        return found

    def _inputs_of(self, data: Dataset, row: int) -> dict[str, torch.Tensor]:
        """Returns the input fields of a simulation, if the task takes them: name to `(*shape)`."""
        return _tensors(data.read_inputs(row)) if self._task.takes_inputs else {}

    def _usual_values(self) -> dict[str, Usual]:
        """Returns the usual values of each field over the whole set (collective)."""
        sums = torch.zeros(len(self._names), 3, dtype=torch.float64)
        for true in self._fields:
            for k, name in enumerate(self._names):
                for some in self._pieces(true[name]):
                    values = some.double()
                    sums[k] += torch.tensor([values.sum(), values.square().sum(), values.numel()])
        sums = sums.to(self._device)
        dist.all_reduce(sums)
        means, roots = sums[:, 0] / sums[:, 2], (sums[:, 1] / sums[:, 2]).sqrt()
        widths = self._widths()
        return {
            name: Usual(mean, root, widths[name])
            for name, mean, root in zip(self._names, means.tolist(), roots.tolist(), strict=True)
        }

    def _widths(self) -> dict[str, torch.Tensor]:
        """Returns the widths of the scale of each field that fit the set; ones if they are not needed (collective)."""
        if not self._metric.needs_widths:
            return dict.fromkeys(self._names, torch.ones(1, dtype=torch.float64))
        found = {}
        for name in self._names:
            scale, shape = self._metric.scales[name], self._shapes[name]
            mine = ChannelMoments.empty(scale.count(shape)).merged(
                scale.moments(true[name].numpy(), shape) for true in self._fields
            )
            table = torch.from_numpy(mine.table).to(self._device)
            tables = [torch.empty_like(table) for _ in range(self._ranks)]
            dist.all_gather(tables, table)
            # In the same order on all ranks, so that they agree.
            whole = ChannelMoments.empty(mine.table.shape[1]).merged(
                ChannelMoments(one.cpu().numpy()) for one in tables
            )
            found[name] = torch.from_numpy(scale.center_and_width(whole)[1])
        return found

    def _compared(self, predictions: Iterable[dict[str, torch.Tensor]]) -> Errors:
        """Returns the errors of predictions of this rank's simulations, of all ranks together (collective)."""
        count = len(self.parameters)
        found = torch.zeros(count, len(self._names), dtype=torch.float64, device=self._device)
        parts = torch.zeros(count, len(self._steps) + 2, dtype=found.dtype, device=self._device)
        spectra = {
            name: torch.zeros(2, len(self._spectral_steps), self._wavenumbers(name)).to(found)
            for name in self._spectral
        }
        differences = torch.zeros(1, dtype=found.dtype, device=self._device)
        times = self._times[self._steps]
        # Where no step is correlated, the time before the first one.
        ends = torch.cat([self._times[max(self._steps[0] - 1, 0)][None], times])
        simulations = zip(self._rows, self._fields, strict=True)
        for predicted in predictions:
            row, true = next(simulations)
            for k, name in enumerate(self._names):
                usual, fields = self._usual[name], len(self._names)
                squares, correlated = self._squares(name, predicted[name], true[name])
                each = self._metric.from_squares(name, squares, usual)
                found[row, k] = each[0]
                parts[row, 1:] += self._metric.part(name, each, fields)
                parts[row, 0] += ends[correlated] / fields
                if name in spectra:
                    both = [
                        energy_spectrum(values[chosen].to(self._device), self._spectral[name])
                        for values, chosen in (
                            (true[name], np.array(self._steps)[self._spectral_steps]),
                            (predicted[name], self._spectral_steps),
                        )
                    ]
                    spectra[name] += torch.stack(both) / count
                    differences += log_difference(both[1], both[0]) / (count * len(spectra))
            # Before the next one is predicted.
            del predicted
        self._begin_piece(JOINING)
        dist.all_reduce(found)
        for one in (parts, differences, *spectra.values()):
            dist.all_reduce(one)
        errors = self._metric.total(parts[:, 1:]).cpu().numpy()
        return Errors(
            errors[:, 0],
            dict(zip(self._names, found.cpu().numpy().T, strict=True)),
            np.array(self._steps),
            times.cpu().numpy(),
            errors[:, 1:],
            parts[:, 0].cpu().numpy(),
            float(differences) if spectra else math.nan,
            {name: values.cpu().numpy() for name, values in spectra.items()},
            times.cpu().numpy()[self._spectral_steps],
        )

    def _spectral_axes(self, mesh: bool) -> dict[str, list[int]]:
        """Returns the axes of the grid of each field that has a spectrum."""
        scales = self._metric.scales
        axes = {
            name: grid_axes(shape, scales[name].channels if name in scales else None)
            for name, shape in self._shapes.items()
        }
        return {} if mesh else {name: found for name, found in axes.items() if found}

    def _wavenumbers(self, name: str) -> int:
        return min(self._shapes[name][axis] for axis in self._spectral[name]) // 2

    def _case(
        self, surrogate: Surrogate, data: Dataset, row: int, shown: npt.NDArray[np.int64]
    ) -> tuple[dict[str, npt.NDArray[Any]], dict[str, npt.NDArray[Any]]]:
        """Returns the simulated and the predicted fields of a simulation `(k, *shape)` at k of the predicted steps."""
        true = data.read(row)
        given = _tensors(true) | self._inputs_of(data, row)
        (predicted,) = self._predictions(surrogate, [row], [given])
        steps = np.array(self._steps)[shown]
        return (
            {name: true[name][steps] for name in self._names},
            {name: predicted[name].cpu().numpy()[shown] for name in self._names},
        )

    def _squares(
        self, name: str, predicted: torch.Tensor, true: torch.Tensor
    ) -> tuple[torch.Tensor, int]:
        """Compares a prediction `(K, *shape)` with a trajectory `(T, *shape)`.

        Returns:
            The squares of the metric over all predicted steps, and of each of them `(1 + K, 2)`; and the number of
            steps before the first one that is not correlated.
        """
        found, correlated, first = [], 0, 0
        for piece in self._pieces(predicted):
            one = piece.to(self._device)
            steps = self._steps[first : first + len(one)]
            wanted = true[steps].to(self._device)
            found.append(self._metric.squares(name, one, wanted, self._usual[name]))
            if correlated == first:
                correlated += steps_correlated(one, wanted)
            first += len(one)
        squares = torch.cat(found)
        return torch.cat([squares.mean(dim=0, keepdim=True), squares]), correlated

    def _pieces(self, values: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Splits a trajectory into parts of a few time steps."""
        rows = max(1, _VALUES_AT_ONCE // max(values[0].numel(), 1))
        return torch.split(values, rows)

    def _predictions(
        self,
        surrogate: Surrogate,
        rows: Sequence[int],
        true: Sequence[Mapping[str, torch.Tensor]],
    ) -> Iterator[dict[str, torch.Tensor]]:
        """Yields the prediction of each simulation: field name to `(K, *shape)`."""
        points = torch.from_numpy(self.parameters[list(rows)]).to(self._device)
        with torch.no_grad():
            yield from self._task.trajectories(
                surrogate,
                points,
                self._times,
                true,
                self._at_once,
                lambda: self._begin_piece(VALIDATING),
            )


def _tensors(arrays: Mapping[str, npt.NDArray[Any]]) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


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
