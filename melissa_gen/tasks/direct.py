"""The task `direct`: parameters and time to the fields at that time."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from melissa_gen.surrogates import Surrogate
from melissa_gen.tasks.base import Compared, Rows, Task, Window, joined

__all__ = ["Direct"]


class Direct(Task):
    """Maps parameters and time to the fields at that time; an item is one time step."""

    name = "direct"
    predicts_anywhere = True

    def __init__(self) -> None:
        self.window = Window()

    def make_surrogate(self, **description: Any) -> Surrogate:
        """Creates the surrogate."""
        description.pop("time_steps", None)
        return Surrogate(**description)

    def example(self, surrogate: Surrogate) -> Rows:
        """Returns the middle of the bounds, without fields."""
        return Rows(torch.from_numpy(surrogate.middle()).to(surrogate.center.device), {})

    def compare(
        self, surrogate: Surrogate, network: nn.Module, rows: Rows, batches: int
    ) -> list[Compared]:
        """Predicts the fields of each row."""
        inputs = surrogate.scale(rows.inputs[:, :-1], rows.inputs[:, -1])
        members = surrogate.members(network(inputs))
        # A rank that has never had data compares its prediction with itself.
        target = (
            surrogate.target(rows.fields) if rows.fields else members.float().mean(dim=1).detach()
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

        def parts(point: torch.Tensor) -> Iterator[Mapping[str, torch.Tensor]]:
            for some in torch.split(times, rows):
                begin_piece()
                answer: Any = surrogate(point.expand(len(some), -1), some)
                yield (
                    answer if isinstance(answer, dict) else {next(iter(surrogate.fields)): answer}
                )

        for point in parameters:
            yield joined(parts(point), len(times))
