"""The interface of a task, and the window of time steps that one of its items needs."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import nn

from melissa_gen.errors import StudyError
from melissa_gen.surrogates import Rescaling, Surrogate
from melissa_gen.surrogates.training_loss import TrainingLoss
from melissa_gen.tasks.point_samplers import PointSamplers

__all__ = ["Compared", "Rows", "Task", "Window", "joined"]


@dataclass(frozen=True)
class Window:
    """The time steps of one simulation that an item needs.

    Attributes:
        history: Steps that are given.
        horizon: Steps that are predicted.
        stride: Distance between two of these steps, in time steps of the simulation.
    """

    history: int = 0
    horizon: int = 1
    stride: int = 1

    @property
    def steps(self) -> int:
        """Number of time steps in the window."""
        return self.history + self.horizon

    @property
    def span(self) -> int:
        """Number of time steps from the first to the last one of the window, both included."""
        return (self.steps - 1) * self.stride + 1


class Rows(NamedTuple):
    """The rows of a batch, on the device of the network.

    Attributes:
        inputs: Parameters and time in physical units, `(n, d + 1)`; `(n, steps, d + 1)` if the window has several
            steps.
        fields: Field name to physical values `(n, *shape)`, or `(n, steps, *shape)`. If the task takes input fields,
            also their names to `(n, *shape)`.
        made_up: Whether the rows are an `example`, on a rank that has no data yet.
    """

    inputs: torch.Tensor
    fields: Mapping[str, torch.Tensor]
    made_up: bool = False


class Compared(NamedTuple):
    """A prediction for each row, and what it is compared with; both are standardized.

    Attributes:
        members: The predictions of all M ensemble members, `(n, M, *output_shape)`.
        target: The simulated fields, `(n, *output_shape)`.
    """

    members: torch.Tensor
    target: torch.Tensor


class Task(ABC):
    """What one item of a batch is, and how a surrogate learns it.

    A task holds settings, and perhaps a `state` of its own. All methods that need the surrogate take it.

    Attributes:
        name: Name of the task in the study file.
        window: The time steps that an item needs.
        predicts_anywhere: Whether the surrogate predicts fields from parameters and times alone, as samplers that
            use its predictions need it.
        takes_inputs: Whether the surrogate gets the input fields of a simulation (`simulation.inputs`).
        of_points: Whether the network predicts single points, not whole fields.
        differentiates: Whether the loss needs derivatives of the network.
    """

    name: str
    window: Window
    predicts_anywhere: bool
    takes_inputs: bool = False
    of_points: bool = False
    differentiates: bool = False

    def set_domain(self, domain: Mapping[str, Sequence[float]]) -> None:  # noqa: B027
        """Receives `simulation.domain`: name of each axis to its [low, high]; empty if the study has none."""

    def set_time_steps(self, time_steps: int) -> None:  # noqa: B027
        """Receives `simulation.time_steps`, before anything is asked of the task."""

    @property
    def needs_data(self) -> bool:
        """Whether the loss has a term of simulated data, so that a solver or recorded data is needed."""
        return True

    def try_out(self, surrogate: Surrogate) -> None:  # noqa: B027
        """Evaluates functions of the user once, before a study starts.

        Args:
            surrogate: A new surrogate.

        Raises:
            StudyError: One of them fails.
        """

    def state(self) -> dict[str, Any]:
        """Returns what a checkpoint of this rank keeps of the task, of JSON types; most tasks have settings only."""
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:  # noqa: B027
        """Continues from the `state()` of an earlier server."""

    def state_of_new_rank(self, state: Mapping[str, Any]) -> Mapping[str, Any]:
        """Returns the part of rank 0's `state()` from which a rank continues that the earlier server did not have."""
        return state

    def set_mesh(self, coordinates: str) -> None:  # noqa: B027
        """Receives the file of `simulation.mesh.coordinates`, relative to the study's folder."""

    def set_samplers(self, samplers: PointSamplers) -> None:  # noqa: B027
        """Receives the samplers of the package, for a task that draws points."""

    def points_of_batch(self, rows: int) -> int:
        """Returns at how many points a network of single points is evaluated in a batch of some rows; else 0."""
        return 0

    @abstractmethod
    def make_surrogate(self, **description: Any) -> Surrogate:
        """Creates the surrogate of this task.

        Args:
            **description: Arguments of `Surrogate`, and `time_steps` of a simulation. If the task takes input fields,
                also `inputs`, the name of each to its shape.
        """

    @abstractmethod
    def example(self, surrogate: Surrogate) -> Rows:
        """Returns one made-up row, for a rank that has no data yet."""

    def start(self, surrogate: Surrogate, rows: Rows) -> None:
        """Sets what the surrogate takes from the data, before the first step of all ranks (collective).

        Args:
            surrogate: The surrogate, whose output has its scale.
            rows: The first batch of this rank.
        """
        return

    def drifted(self) -> bool:
        """Returns whether what `start` has set no longer fits the batches of this rank."""
        return False

    def adapt(self, surrogates: Sequence[Surrogate]) -> Rescaling | None:
        """Sets it again if it does not fit the batches of all ranks (collective).

        Args:
            surrogates: The surrogate in training, and that with averaged weights if there is one.

        Returns:
            What that means for the optimizer of the first; None if nothing was changed.
        """
        return None

    def rolled_back(self) -> None:  # noqa: B027
        """Called after earlier weights and scales of the surrogate were restored."""

    @abstractmethod
    def compare(
        self, surrogate: Surrogate, network: nn.Module, rows: Rows, batches: int
    ) -> list[Compared]:
        """Predicts each target of a batch during training.

        Args:
            surrogate: The surrogate in training.
            network: Its network, with synchronized gradients.
            rows: The rows.
            batches: Batches trained so far.

        Returns:
            At least one prediction for each row, with its target.
        """

    def losses(
        self, loss: TrainingLoss, compared: Sequence[Compared]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns the losses `(n, M)` of each ensemble member, and those of their mean `(n,)`.

        Args:
            loss: The loss of the study.
            compared: What `compare` has returned.
        """
        each = [loss.of_members(one.members, one.target) for one in compared]
        means = [loss(one.members.detach().float().mean(dim=1), one.target) for one in compared]
        if len(compared) == 1:
            return each[0], means[0]
        return torch.stack(each).mean(dim=0), torch.stack(means).mean(dim=0)

    @torch.no_grad()
    def errors(self, error: TrainingLoss, compared: Sequence[Compared]) -> torch.Tensor:
        """Returns the squares of the metric of the study for each row, the mean over the targets of an item, `(n,)`.

        Args:
            error: The square of the metric.
            compared: What `compare` has returned.
        """
        each = [error(one.members.float().mean(dim=1), one.target) for one in compared]
        return torch.stack(each).mean(dim=0)

    def predicted_steps(self, time_steps: int) -> list[int]:
        """Returns the time steps of a simulation that `trajectories` predicts; by default all."""
        return list(range(time_steps))

    @abstractmethod
    def trajectories(
        self,
        surrogate: Surrogate,
        parameters: torch.Tensor,
        times: torch.Tensor,
        true: Sequence[Mapping[str, torch.Tensor]],
        rows: int,
        begin_piece: Callable[[], None],
    ) -> Iterator[dict[str, torch.Tensor]]:
        """Predicts whole simulations.

        Args:
            surrogate: The surrogate, in evaluation mode.
            parameters: Physical values, `(m, d)`.
            times: Physical time of each time step, `(T,)`.
            true: For each of the m simulations, the field name with its simulated values `(T, *shape)`, of which a
                task may use the first steps. If the task takes input fields, also their names to `(*shape)`.
            rows: Largest number of rows of a forward pass.
            begin_piece: Called before each forward pass.

        Yields:
            For each simulation, the field name with the predicted steps `(K, *shape)`.
        """

    def check(self, time_steps: int) -> None:
        """Checks that a simulation is long enough.

        Args:
            time_steps: Time steps of a simulation.

        Raises:
            StudyError: The window is longer than a simulation.
        """
        if self.window.span > time_steps:
            message = (
                f"surrogate.task {self.name} needs windows of {self.window.span} time steps, but "
                f"simulation.time_steps is {time_steps}: shorten its history, rollout or stride, or send more steps"
            )
            raise StudyError(message)


def joined(parts: Iterable[Mapping[str, torch.Tensor]], steps: int) -> dict[str, torch.Tensor]:
    """Joins predictions of consecutive time steps, without a second copy of the whole trajectory.

    Args:
        parts: Field name to `(k, *shape)` for each part.
        steps: Number of time steps of all parts together.
    """
    whole: dict[str, torch.Tensor] = {}
    first = 0
    for part in parts:
        last = first
        for name, values in part.items():
            if name not in whole:
                whole[name] = values.new_empty((steps, *values.shape[1:]))
            last = first + len(values)
            whole[name][first:last] = values
        first = last
    return whole
