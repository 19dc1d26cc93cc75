"""The task `operator`: the input fields of a simulation and its parameters to the fields at a time or at all times."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import nn

from melissa_gen.errors import StudyError
from melissa_gen.surrogates import OperatorSurrogate, Surrogate, TrajectorySurrogate
from melissa_gen.surrogates.training_loss import TrainingLoss
from melissa_gen.tasks.arguments import require
from melissa_gen.tasks.base import Compared, Rows, Task, Window, joined

__all__ = ["Operator"]


class Operator(Task):
    """Maps input fields and parameters to fields.

    Args:
        predicts: `field`: time is an input of the network, which predicts the fields at that time, and an item is one
            time step. `trajectory`: the network predicts all time steps in one pass, and an item is a simulation.

    Raises:
        StudyError: The argument is not legal.
    """

    name = "operator"
    predicts_anywhere = False
    takes_inputs = True

    def __init__(self, predicts: Literal["field", "trajectory"] = "field") -> None:
        require("predicts", predicts, predicts in ("field", "trajectory"), "field and trajectory")
        self.window, self._whole = Window(), predicts == "trajectory"

    def set_time_steps(self, time_steps: int) -> None:
        """Makes all time steps of a simulation the window if the network predicts trajectories.

        Raises:
            StudyError: A simulation has a single time step.
        """
        if not self._whole:
            return
        if time_steps < 2:
            message = (
                "surrogate.task.arguments.predicts is trajectory, but simulation.time_steps is 1: set predicts to "
                "field"
            )
            raise StudyError(message)
        self.window = Window(horizon=time_steps)

    def make_surrogate(self, **description: Any) -> Surrogate:
        """Creates the surrogate.

        Raises:
            StudyError: The study has no input fields.
        """
        time_steps = description.pop("time_steps", None)
        if not description.get("inputs"):
            message = (
                "surrogate.task operator needs input fields; declare them in simulation.inputs, and send them from the "
                "solver with send_inputs"
            )
            raise StudyError(message)
        if self._whole:
            return TrajectorySurrogate(time_steps=time_steps, **description)
        return OperatorSurrogate(**description)

    def example(self, surrogate: Surrogate) -> Rows:
        """Returns the middle of the bounds with input fields of their usual values, without fields."""
        inputs = torch.from_numpy(surrogate.middle()).to(surrogate.center.device)
        inputs = inputs[:, None] if self._whole else inputs
        return Rows(inputs, surrogate.example_fields(1))

    def compare(
        self, surrogate: Surrogate, network: nn.Module, rows: Rows, batches: int
    ) -> list[Compared]:
        """Predicts the fields of each row: `(n, M, *output_shape)`, or `(n, M, T, *output_shape)` of trajectories."""
        assert isinstance(surrogate, OperatorSurrogate)
        # The first time step of a window; the network of trajectories has no time among its inputs.
        first = rows.inputs[:, 0] if self._whole else rows.inputs
        encoded = surrogate.encoded(first[:, :-1], first[:, -1], rows.fields)
        members = surrogate.members(network(encoded))
        # A rank that has never had data compares its prediction with itself.
        target = (
            self._target(surrogate, rows.fields)
            if _has_data(surrogate, rows)
            else members.float().mean(dim=1).detach()
        )
        return [Compared(members, target)]

    def _target(
        self, surrogate: OperatorSurrogate, fields: Mapping[str, torch.Tensor]
    ) -> torch.Tensor:
        if not self._whole:
            return surrogate.target(fields)
        each = surrogate.target({name: fields[name].flatten(0, 1) for name in surrogate.fields})
        return each.reshape(-1, self.window.steps, *surrogate.output_shape)

    def losses(
        self, loss: TrainingLoss, compared: Sequence[Compared]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns the losses `(n, M)` and `(n,)`, of trajectories the mean over the time steps."""
        if not self._whole:
            return super().losses(loss, compared)
        each, mean = super().losses(loss, [_by_step(compared[0])])
        steps = self.window.steps
        return each.reshape(-1, steps, each.shape[1]).mean(dim=1), mean.reshape(-1, steps).mean(1)

    @torch.no_grad()
    def errors(self, error: TrainingLoss, compared: Sequence[Compared]) -> torch.Tensor:
        """Returns the squares of the metric `(n,)`, of trajectories the mean over the time steps."""
        if not self._whole:
            return super().errors(error, compared)
        found = super().errors(error, [_by_step(compared[0])])
        return found.reshape(-1, self.window.steps).mean(dim=1)

    def trajectories(
        self,
        surrogate: Surrogate,
        parameters: torch.Tensor,
        times: torch.Tensor,
        true: Sequence[Mapping[str, torch.Tensor]],
        rows: int,
        begin_piece: Callable[[], None],
    ) -> Iterator[dict[str, torch.Tensor]]:
        """Predicts some time steps of a simulation at once, or whole trajectories one after the other."""
        assert isinstance(surrogate, OperatorSurrogate)

        def parts(
            point: torch.Tensor, given: list[torch.Tensor]
        ) -> Iterator[dict[str, torch.Tensor]]:
            for some in torch.split(times, rows):
                begin_piece()
                fields = [values.expand(len(some), *values.shape) for values in given]
                yield surrogate(point.expand(len(some), -1), some, *fields)

        for point, one in zip(parameters, true, strict=True):
            given = [one[name].to(times.device) for name in surrogate.inputs]
            if self._whole:
                begin_piece()
                found = surrogate(point[None], *(values[None] for values in given))
                yield {name: found.pop(name)[0] for name in surrogate.fields}
            else:
                yield joined(parts(point, given), len(times))


def _by_step(compared: Compared) -> Compared:
    """Returns predictions and fields of trajectories with a row for each time step."""
    members = compared.members.movedim(1, 2).flatten(0, 1)
    return Compared(members, compared.target.flatten(0, 1))


def _has_data(surrogate: Surrogate, rows: Rows) -> bool:
    return next(iter(surrogate.fields)) in rows.fields
