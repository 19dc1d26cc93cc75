"""The task `operator`: the input fields of a simulation, parameters and time to the fields at that time."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from melissa_gen.errors import StudyError
from melissa_gen.surrogates import OperatorSurrogate, Surrogate
from melissa_gen.tasks.base import Compared, Rows, Task, Window

__all__ = ["Operator"]


class Operator(Task):
    """Maps input fields, parameters and time to the fields at that time; an item is one time step."""

    name = "operator"
    predicts_anywhere = False
    takes_inputs = True

    def __init__(self) -> None:
        self.window = Window()

    def make_surrogate(self, **description: Any) -> Surrogate:
        """Creates the surrogate.

        Raises:
            StudyError: The study has no input fields.
        """
        description.pop("time_steps", None)
        if not description.get("inputs"):
            message = (
                "surrogate.task operator needs input fields; declare them in simulation.inputs, and send them from the "
                "solver with send_inputs"
            )
            raise StudyError(message)
        return OperatorSurrogate(**description)

    def example(self, surrogate: Surrogate) -> Rows:
        """Returns the middle of the bounds with input fields of their usual values, without fields."""
        inputs = torch.from_numpy(surrogate.middle()).to(surrogate.center.device)
        return Rows(inputs, surrogate.example_fields(1))

    def start(self, surrogate: Surrogate, rows: Rows) -> None:
        """Sets the scale of the input fields from the first batch of all ranks (collective)."""
        assert isinstance(surrogate, OperatorSurrogate)
        sums = torch.zeros(len(surrogate.inputs), 3, dtype=torch.float64, device=rows.inputs.device)
        # The made-up row of a rank without data has no fields, and does not count.
        for k, name in enumerate(surrogate.inputs if _has_data(surrogate, rows) else ()):
            values = rows.fields[name].double()
            sums[k] = torch.stack(
                [values.sum(), values.square().sum(), values.new_tensor(values.numel())]
            )
        if dist.is_initialized():
            dist.all_reduce(sums)
        surrogate.set_input_scale(sums)

    def compare(
        self, surrogate: Surrogate, network: nn.Module, rows: Rows, batches: int
    ) -> list[Compared]:
        """Predicts the fields of each row."""
        assert isinstance(surrogate, OperatorSurrogate)
        encoded = surrogate.encoded(rows.inputs[:, :-1], rows.inputs[:, -1], rows.fields)
        members = surrogate.members(network(encoded))
        # A rank that has never had data compares its prediction with itself.
        target = (
            surrogate.target(rows.fields)
            if _has_data(surrogate, rows)
            else members.float().mean(dim=1).detach()
        )
        return [Compared(members, target)]

    def trajectories(
        self,
        surrogate: Surrogate,
        parameters: torch.Tensor,
        times: torch.Tensor,
        true: Sequence[Mapping[str, torch.Tensor]],
        rows: int,
        begin_piece: Callable[[], None],
    ) -> Iterator[dict[str, torch.Tensor]]:
        """Predicts some time steps of a simulation at once."""
        assert isinstance(surrogate, OperatorSurrogate)
        for point, one in zip(parameters, true, strict=True):
            given = [one[name].to(times.device) for name in surrogate.inputs]
            parts: list[dict[str, torch.Tensor]] = []
            for some in torch.split(times, rows):
                begin_piece()
                fields = [values.expand(len(some), *values.shape) for values in given]
                parts.append(surrogate(point.expand(len(some), -1), some, *fields))
            yield {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def _has_data(surrogate: Surrogate, rows: Rows) -> bool:
    return next(iter(surrogate.fields)) in rows.fields
