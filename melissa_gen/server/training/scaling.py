"""The scale of the fields during training: measured on all samples, and adapted when they outgrow it."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray

from melissa_gen.errors import RunError
from melissa_gen.reservoir import Source
from melissa_gen.surrogates import ChannelMoments, InputFieldSurrogate, Rescaling, Surrogate

__all__ = ["DRIFT", "Scaling", "rescale_moments"]

DRIFT = 2.0
"""Factor between the measured width and the width in use, from which on the scale is adapted."""
_VALUES_AT_ONCE = 1 << 22
_OF_GRADIENTS = ("exp_avg", "exp_inf", "grad_avg", "momentum_buffer")
_OF_SQUARES = ("exp_avg_sq", "max_exp_avg_sq", "square_avg", "sum")
"""Names of the running means and sums of gradients, and of their squares, in the optimizers of torch."""


_Changes = dict[str, dict[str, list[float]]]
"""Name of a field to `mean`, `width`, `previous_mean` and `previous_width` of its channels."""


class Scaling:
    """Measures the samples of the reservoir before they are drawn, and adapts the surrogate's scale.

    The statistics cover the validation set and all samples that were received, over all ranks. Each sample is measured
    before it can be drawn, so that a field that grows by orders of magnitude never reaches the loss on the old scale.

    Args:
        surrogate: The surrogate in training.
        reservoir: The reservoir of this rank.
        device: Device for collective operations.
    """

    def __init__(self, surrogate: Surrogate, reservoir: Source, device: torch.device) -> None:
        self._surrogate, self._reservoir, self._device = surrogate, reservoir, device
        # Moments of all ranks when they were last merged, and of this rank since then.
        self._merged = ChannelMoments.empty(len(surrogate.output_mean))
        self._recent = ChannelMoments.empty(len(surrogate.output_mean))
        # Smallest and largest values of the input fields, and of all fields on all ranks when they were last shared.
        self._ranges: dict[str, tuple[float, float]] = {}
        self._inputs = _InputScaling(surrogate, device)
        self._started = self._recheck = False

    @property
    def ranges(self) -> dict[str, tuple[float, float]]:
        """Name of each field and input field to the smallest and largest value that this rank knows of.

        After `share_ranges`, these are those of all ranks.
        """
        known, found = self._merged.merged([self._recent]), dict(self._ranges)
        for name, (first, last) in self._surrogate.channels.items():
            ends = known.low[first:last].min(), known.high[first:last].max()
            if np.isfinite(ends).all():
                low, high = self._surrogate.scales[name].back(torch.tensor(ends)).tolist()
                found[name] = _wider(found.get(name), low, high)
        return found

    def share_ranges(self) -> None:
        """Extends the ranges by those of the other ranks (collective)."""
        names = [*self._surrogate.fields, *self._reservoir.store.input_specs]
        found, nothing = self.ranges, (np.inf, -np.inf)
        pairs = [found.get(name, nothing) for name in names]
        ends = torch.tensor(pairs, dtype=torch.float64, device=self._device)
        ends[:, 1].neg_()
        dist.all_reduce(ends, dist.ReduceOp.MIN)
        for name, (low, negative) in zip(names, ends.tolist(), strict=True):
            if np.isfinite(low):
                self._ranges[name] = (low, -negative)

    def drifted(self) -> bool:
        """Measures the samples that have arrived; returns whether the scale in use does not fit them (this rank)."""
        slots = self._reservoir.take_arrivals()
        arrays = self._reservoir.store.arrays
        rows = max(1, _VALUES_AT_ONCE // max(array[0].size for array in arrays.values()))
        for first in range(0, len(slots), rows):
            part = slots[first : first + rows]
            self._measure({name: array[part] for name, array in arrays.items()})
        store = self._reservoir.store
        for slot in slots if store.input_specs else ():
            # All samples of a simulation have the same input fields.
            if store.steps[slot] == 0:
                self._measure_inputs(store.input_fields[slot])
        if not self._started or not (slots or self._recheck):
            return False
        self._recheck = False
        fitting = self._fitting(self._merged.merged([self._recent]))
        return self._inputs.drifted or _differs(fitting, self._in_use())

    def recheck(self) -> None:
        """Requests that the next `drifted` compares again, because earlier weights and scales were restored."""
        self._recheck = True

    def start(self, validation: Iterable[Mapping[str, torch.Tensor]]) -> None:
        """Sets the first scale (collective).

        Args:
            validation: Trajectories of the validation set that this rank holds: name to `(T, *shape)`.
        """
        for trajectory in validation:
            self._measure({name: values.numpy() for name, values in trajectory.items()})
        center, width = self._merge()
        parts = {name: slice(*ends) for name, ends in self._surrogate.channels.items()}
        self._surrogate.set_output_statistics(
            {name: center[part] for name, part in parts.items()},
            {name: width[part] for name, part in parts.items()},
        )
        self._surrogate.fix_input_scale()
        self._inputs.adapt(always=True)
        self._started = True

    def adapt(self) -> tuple[Rescaling | None, _Changes] | None:
        """Merges the statistics of all ranks and adapts the surrogate if its scale does not fit (collective).

        Returns:
            What changed in the output, if its scale did not fit, and the new and previous mean and width of the
            channels of each field and input field; None if all scales fit.
        """
        inputs = self._inputs.adapt()
        before, now = self._in_use(), self._merge()
        if not _differs(now, before):
            return (None, inputs) if inputs else None
        rescaling = self._surrogate.rescale_output(*now)
        return rescaling, _changes(self._surrogate.channels, now, before) | inputs

    def state(self) -> dict[str, Any]:
        """Returns the statistics for a checkpoint, of JSON types; the scale itself is saved with the surrogate."""
        return {
            "merged": _to_json(self._merged),
            "recent": _to_json(self._recent),
            "ranges": {name: list(ends) for name, ends in self._ranges.items()},
            "inputs": self._inputs.state(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continues from the `state()` of an earlier server, with the scale of the loaded surrogate."""
        self._merged, self._recent = _from_json(state["merged"]), _from_json(state["recent"])
        self._ranges = {name: (low, high) for name, (low, high) in state["ranges"].items()}
        # Earlier versions kept the scale of the first batch.
        if "inputs" in state:
            self._inputs.restore(state["inputs"])
        self._started = True

    def _in_use(self) -> NDArray[np.float64]:
        """Returns the centers and widths `(2, K)` of the surrogate's scale."""
        scale = torch.stack([self._surrogate.output_mean, self._surrogate.output_std])
        in_use: NDArray[np.float64] = scale.cpu().numpy()
        return in_use

    def _measure(self, fields: Mapping[str, NDArray[Any]]) -> None:
        tables = []
        for name, shape in self._surrogate.fields.items():
            scale, values = self._surrogate.scales[name], fields[name]
            if scale.kind == "log" and not (lowest := values.min()) > 0:
                message = (
                    f"simulation.fields.{name}.scale is log, but the field has the value {lowest:g}; "
                    "a log scale needs values above 0: set the scale to standard"
                )
                raise RunError(message)
            tables.append(scale.moments(values, shape).table)
        self._recent = self._recent.merged([ChannelMoments(np.concatenate(tables, axis=1))])

    def _measure_inputs(self, fields: Mapping[str, NDArray[Any]]) -> None:
        for name, values in fields.items():
            low, high = float(values.min()), float(values.max())
            self._ranges[name] = _wider(self._ranges.get(name), low, high)
        self._inputs.measure(fields)

    def _merge(self) -> NDArray[np.float64]:
        """Merges the statistics of all ranks; returns the fitting centers and widths `(2, K)` (collective)."""
        self._merged = self._merged.merged(_of_all_ranks(self._recent, self._device))
        self._recent = ChannelMoments.empty(len(self._surrogate.output_mean))
        return _agreed(self._fitting(self._merged), self._device)

    def _fitting(self, moments: ChannelMoments) -> NDArray[np.float64]:
        """Returns the centers and widths `(2, K)` that fit the statistics."""
        parts = [
            self._surrogate.scales[name].center_and_width(
                ChannelMoments(moments.table[:, first:last])
            )
            for name, (first, last) in self._surrogate.channels.items()
        ]
        return np.concatenate([np.stack(part) for part in parts], axis=1)


class _InputScaling:
    """Measures the input fields of each simulation once, and adapts their scale when they outgrow it.

    The network keeps its weights, because weights that kept the function would have the effect of inputs that are as
    badly scaled as before.

    Args:
        surrogate: The surrogate in training; without input fields there is nothing to measure.
        device: Device for collective operations.
    """

    def __init__(self, surrogate: Surrogate, device: torch.device) -> None:
        self._surrogate = surrogate if isinstance(surrogate, InputFieldSurrogate) else None
        self._names = list(self._surrogate.inputs) if self._surrogate else []
        self._device = device
        self._merged = ChannelMoments.empty(len(self._names))
        self._recent = ChannelMoments.empty(len(self._names))

    def measure(self, fields: Mapping[str, NDArray[Any]]) -> None:
        """Measures the input fields of a simulation, by name."""
        each = [ChannelMoments.of(fields[name].reshape(1, 1, -1)).table for name in self._names]
        if each:
            self._recent = self._recent.merged([ChannelMoments(np.concatenate(each, axis=1))])

    @property
    def drifted(self) -> bool:
        """Whether the scale in use does not fit the simulations that this rank knows of."""
        found = self._merged.merged([self._recent])
        return bool(self._names) and _differs(self._fitting(found), self._in_use())

    def adapt(self, always: bool = False) -> _Changes:
        """Merges the statistics of all ranks, and sets the scale if it does not fit, or always (collective).

        Returns:
            What changed.
        """
        if self._surrogate is None or not self._names:
            return {}
        self._merged = self._merged.merged(_of_all_ranks(self._recent, self._device))
        self._recent = ChannelMoments.empty(len(self._names))
        before, now = self._in_use(), _agreed(self._fitting(self._merged), self._device)
        if not (always or _differs(now, before)):
            return {}
        self._surrogate.set_input_scale(*now)
        places = {name: (k, k + 1) for k, name in enumerate(self._names)}
        return _changes(places, self._in_use(), before)

    def state(self) -> dict[str, Any]:
        """Returns the statistics for a checkpoint, of JSON types; the scale itself is saved with the surrogate."""
        return {"merged": _to_json(self._merged), "recent": _to_json(self._recent)}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continues from the `state()` of an earlier server."""
        self._merged, self._recent = _from_json(state["merged"]), _from_json(state["recent"])

    def _in_use(self) -> NDArray[np.float64]:
        """Returns the centers and widths `(2, k)` of the surrogate's scale."""
        assert self._surrogate is not None
        scale = torch.stack([self._surrogate.field_mean, self._surrogate.field_std])
        in_use: NDArray[np.float64] = scale.cpu().numpy()
        return in_use

    def _fitting(self, moments: ChannelMoments) -> NDArray[np.float64]:
        """Returns the centers and widths `(2, k)` that fit the statistics; those in use of fields without values."""
        fitting = InputFieldSurrogate.usable_scale(moments.mean, moments.std)
        return np.where(moments.table[0] > 0, fitting, self._in_use())


def _of_all_ranks(mine: ChannelMoments, device: torch.device) -> list[ChannelMoments]:
    """Returns the statistics of each rank (collective)."""
    table = torch.from_numpy(mine.table).to(device)
    tables = [torch.empty_like(table) for _ in range(dist.get_world_size())]
    dist.all_gather(tables, table)
    return [ChannelMoments(one.cpu().numpy()) for one in tables]


def _agreed(scale: NDArray[np.float64], device: torch.device) -> NDArray[np.float64]:
    """Returns the scale of rank 0: ranks on different processors may round differently (collective)."""
    found = torch.from_numpy(scale).to(device)
    dist.broadcast(found, src=0)
    agreed: NDArray[np.float64] = found.cpu().numpy()
    return agreed


def _changes(
    places: Mapping[str, tuple[int, int]], now: NDArray[np.float64], before: NDArray[np.float64]
) -> _Changes:
    """Returns the change of the scale of each field, whose channels are in a range of the columns."""
    return {
        name: {
            "mean": now[0, first:last].tolist(),
            "width": now[1, first:last].tolist(),
            "previous_mean": before[0, first:last].tolist(),
            "previous_width": before[1, first:last].tolist(),
        }
        for name, (first, last) in places.items()
    }


@torch.no_grad()
def rescale_moments(optimizer: torch.optim.Optimizer, rescaling: Rescaling) -> None:
    """Adapts an optimizer's running means of the gradients and their squares to a rescaled output.

    They become those that training on the new scale would have led to, so that the next steps have their usual size.

    Args:
        optimizer: The optimizer; state with other names than those of the classes of torch is left as it is.
        rescaling: What was changed.
    """
    all_others = torch.tensor(rescaling.loss_factor)
    for parameter in (one for group in optimizer.param_groups for one in group["params"]):
        state = optimizer.state.get(parameter, {})
        factor = rescaling.factors.get(parameter, all_others)
        for names, power in ((_OF_GRADIENTS, 1), (_OF_SQUARES, 2)):
            for value in (state.get(name) for name in names):
                if isinstance(value, torch.Tensor) and value.shape == parameter.shape:
                    value.mul_(factor.to(value) ** power)


def _wider(known: tuple[float, float] | None, low: float, high: float) -> tuple[float, float]:
    """Returns the smallest range that holds a known one and another."""
    return (low, high) if known is None else (min(known[0], low), max(known[1], high))


def _differs(fitting: NDArray[np.float64], scale: NDArray[np.float64]) -> bool:
    """Returns whether any channel is wider, narrower or farther away than the scale in use by the factor `DRIFT`."""
    (center, width), (old_center, old_width) = fitting, scale
    reach = np.hypot(width, center - old_center) / old_width
    return bool(((reach > DRIFT) | (width * DRIFT < old_width)).any())


def _to_json(moments: ChannelMoments) -> list[list[float | None]]:
    # JSON has no infinity, which is the minimum of no values.
    return [[v if np.isfinite(v) else None for v in row] for row in moments.table.tolist()]


def _from_json(rows: list[list[float | None]]) -> ChannelMoments:
    nothing = (0.0, 0.0, 0.0, np.inf, -np.inf)
    return ChannelMoments(
        np.array(
            [[w if v is None else v for v in row] for row, w in zip(rows, nothing, strict=True)]
        )
    )
