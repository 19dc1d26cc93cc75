"""The task `autoregressive`: the fields at the last time steps to those at the next ones."""

from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from melissa_gen.errors import StudyError
from melissa_gen.surrogates import AutoregressiveSurrogate, Rescaling, Surrogate
from melissa_gen.surrogates.autoregressive_surrogate import Predicts
from melissa_gen.tasks.base import Compared, Rows, Task, Window
from melissa_gen.tasks.increment_scale import IncrementScale

__all__ = ["Autoregressive"]


class Autoregressive(Task):
    """Maps the fields at the last time steps, with the parameters, to the fields at the next ones.

    The input fields of a study (`simulation.inputs`) are further inputs of the network, the same at all steps.

    Args:
        history: Number of time steps that are given.
        rollout: Number of steps that are predicted one after another in training, each from the predictions before
            it. A list of `{batches: ..., rollout: ...}` changes it during training: each entry holds from that number
            of batches on.
        predicts: `field`: the network returns the next field; `increment`: its change, scaled to 1.
        noise: Standard deviation of the noise that is added to the given fields in training, in units of the fields'
            standard deviations.
        pushforward: Whether only the last step of a rollout has a gradient and a loss (Brandstetter et al.,
            arXiv 2202.03376).
        stride: Distance between two steps, in time steps of the simulation.
        time: Whether the physical time of the last given step is an input of the network.

    Raises:
        StudyError: An argument is not legal.
    """

    name = "autoregressive"
    predicts_anywhere = False
    takes_inputs = True

    def __init__(
        self,
        history: int = 1,
        rollout: int | Sequence[Mapping[str, int]] = 1,
        predicts: Predicts = "field",
        noise: float = 0.0,
        pushforward: bool = False,
        stride: int = 1,
        time: bool = False,
    ) -> None:
        self._schedule = _schedule(rollout)
        for name, value in (("history", history), ("stride", stride)):
            _check(name, value, isinstance(value, int) and value >= 1, "whole numbers from 1")
        _check("predicts", predicts, predicts in ("field", "increment"), "field and increment")
        _check("noise", noise, isinstance(noise, int | float) and noise >= 0, "numbers from 0")
        self.window = Window(history, max(steps for _, steps in self._schedule), stride)
        self._predicts, self._noise, self._pushforward = predicts, float(noise), pushforward
        self._time = time
        self._increments = IncrementScale() if predicts == "increment" else None

    def make_surrogate(self, **description: Any) -> Surrogate:
        """Creates the surrogate."""
        begin, end = description["times"]
        steps = description.pop("time_steps")
        return AutoregressiveSurrogate(
            history=self.window.history,
            predicts=self._predicts,
            stride=self.window.stride,
            time=self._time,
            interval=(end - begin) / max(steps - 1, 1),
            **description,
        )

    def example(self, surrogate: Surrogate) -> Rows:
        """Returns the middle of the bounds with fields of their usual values."""
        zeros = torch.zeros(1, *surrogate.output_shape, device=surrogate.center.device)
        steps = self.window.steps
        fields = {
            name: values[:, None].expand(1, steps, *values.shape[1:])
            for name, values in surrogate.physical(zeros).items()
        }
        assert isinstance(surrogate, AutoregressiveSurrogate)
        inputs = torch.from_numpy(surrogate.middle()).to(surrogate.center.device)
        return Rows(
            inputs[:, None].expand(1, steps, -1), fields | surrogate.example_inputs(len(inputs))
        )

    def start(self, surrogate: Surrogate, rows: Rows) -> None:
        """Sets the scale of the increments from the first batch of all ranks (collective)."""
        assert isinstance(surrogate, AutoregressiveSurrogate)
        if self._increments is not None:
            states = surrogate.standardized(rows.fields)
            self._increments.start(surrogate, self._first_change(rows, states))

    def drifted(self) -> bool:
        """Returns whether the scale of the increments no longer fits the batches of this rank."""
        return self._increments is not None and self._increments.drifted

    def adapt(self, surrogates: Sequence[Surrogate]) -> Rescaling | None:
        """Sets the scale of the increments again if it does not fit the batches of all ranks (collective)."""
        if self._increments is None:
            return None
        return self._increments.adapt(
            [one for one in surrogates if isinstance(one, AutoregressiveSurrogate)]
        )

    def rolled_back(self) -> None:
        """Measures the increments from now on."""
        if self._increments is not None:
            self._increments.forget()

    def state(self) -> dict[str, Any]:
        """Returns the measured scale of the increments."""
        return {} if self._increments is None else self._increments.state()

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continues from the `state()` of an earlier server."""
        if self._increments is not None:
            self._increments.restore(state)

    def state_of_new_rank(self, state: Mapping[str, Any]) -> Mapping[str, Any]:
        """Returns what the ranks of the earlier server have merged."""
        return {**state, "recent": [0.0, 0.0]} if state else state

    def _first_change(self, rows: Rows, states: torch.Tensor) -> torch.Tensor:
        """Returns the last given and the first predicted step of the rows that hold data."""
        last = self.window.history
        return states[: 0 if rows.made_up else None, last - 1 : last + 1]

    def rollout_at(self, batches: int) -> int:
        """Returns the number of steps that are predicted after this number of batches."""
        place = bisect_right([first for first, _ in self._schedule], batches)
        return self._schedule[max(place - 1, 0)][1]

    def compare(
        self, surrogate: Surrogate, network: nn.Module, rows: Rows, batches: int
    ) -> list[Compared]:
        """Predicts the steps of the rollout one after another."""
        assert isinstance(surrogate, AutoregressiveSurrogate)
        states = surrogate.standardized(rows.fields)
        if self._increments is not None:
            self._increments.add(surrogate, self._first_change(rows, states))
        given = states[:, : self.window.history]
        if self._noise:
            given = given + self._noise * torch.randn_like(given)
        steps, found = self.rollout_at(batches), []
        parameters, times = rows.inputs[..., :-1][:, 0], rows.inputs[..., -1]
        inputs = surrogate.inputs_of(rows.fields)
        for number in range(steps):
            last = self.window.history + number - 1
            # Without gradients, the synchronization of the ranks is bypassed as well.
            pushed = self._pushforward and number < steps - 1
            run = surrogate.network if pushed else network
            with torch.set_grad_enabled(not pushed):
                members = surrogate.step(run, parameters, times[:, last], given, inputs)
            if not pushed:
                found.append(Compared(members, states[:, last + 1]))
            following = members.float().mean(dim=1)
            given = torch.cat([given[:, 1:], following[:, None]], dim=1)
        return found

    def predicted_steps(self, time_steps: int) -> list[int]:
        """Returns the steps after the given ones, at the distance of the stride."""
        stride = self.window.stride
        return list(range(self.window.history * stride, time_steps, stride))

    def trajectories(
        self,
        surrogate: Surrogate,
        parameters: torch.Tensor,
        times: torch.Tensor,
        true: Sequence[Mapping[str, torch.Tensor]],
        rows: int,
        begin_piece: Callable[[], None],
    ) -> Iterator[dict[str, torch.Tensor]]:
        """Predicts simulations from their first steps, several at once."""
        assert isinstance(surrogate, AutoregressiveSurrogate)
        steps = self.predicted_steps(len(times))
        first = [number * self.window.stride for number in range(self.window.history)]
        for begin in range(0, len(true), rows):
            begin_piece()
            some = true[begin : begin + rows]
            given = surrogate.standardized(
                {
                    name: torch.stack([one[name][first] for one in some]).to(times.device)
                    for name in surrogate.fields
                }
            )
            inputs = surrogate.inputs_of(
                {
                    name: torch.stack([one[name] for one in some]).to(times.device)
                    for name in surrogate.inputs
                }
            )
            found = []
            start = times[first[-1]].expand(len(some))
            points = parameters[begin : begin + rows]
            for one in surrogate.rollout(points, start, given, len(steps), inputs):
                begin_piece()
                found.append({name: values.cpu() for name, values in one.items()})
            for number in range(len(some)):
                yield {
                    name: torch.stack([one[name][number] for one in found])
                    for name in surrogate.fields
                }


def _schedule(rollout: int | Sequence[Mapping[str, int]]) -> list[tuple[int, int]]:
    """Returns (first batch, steps) in ascending order."""
    entries = [{"batches": 0, "rollout": rollout}] if isinstance(rollout, int) else rollout
    legal = "a number from 1, or a list of {batches: 0, rollout: 1} with ascending batches from 0"
    try:
        found = [(entry["batches"], entry["rollout"]) for entry in entries]
        fits = (
            found[0][0] == 0
            and found == sorted(found)
            and all(isinstance(v, int) for entry in found for v in entry)
            and all(steps >= 1 for _, steps in found)
        )
    except (TypeError, KeyError, IndexError):
        fits = False
    _check("rollout", rollout, fits, legal)
    return found


def _check(name: str, value: object, fits: bool, legal: str) -> None:
    if not fits:
        message = f"surrogate.task.arguments.{name} is {value}: legal are {legal}"
        raise StudyError(message)
