"""The learning rate of each step: the schedule, the warm-up, and the reductions after a divergence."""

import contextlib
import json
import logging
import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import torch
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

__all__ = ["LearningRate"]

_log = logging.getLogger(__name__)

_SCHEDULED = frozenset(
    {"lr", "initial_lr", "max_lr", "min_lr"}
    | {"betas", "momentum", "base_momentum", "max_momentum"}
)
"""Settings of a parameter group that the schedules of torch change."""


class LearningRate:
    """Sets the learning rate of an optimizer.

    The rate in the optimizer's parameter groups is that of the schedule. It is multiplied by the warm-up and the
    reductions only during a step, so that these factors do not enter the schedule.

    Args:
        optimizer: The optimizer, created with the initial rate.
        schedule: A schedule of this optimizer; None keeps its rate.
        per_batch: Whether the schedule advances after each step of the optimizer; otherwise after each validation.
        warmup: Number of steps of the optimizer over which the rate grows linearly to that of the schedule.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        schedule: LRScheduler | None = None,
        *,
        per_batch: bool = True,
        warmup: int = 0,
    ) -> None:
        self._optimizer, self._schedule = optimizer, schedule
        self._per_batch, self._warmup = per_batch, warmup
        # What the study says, and what the schedule has set before its first step.
        self._initial = [
            {key: group[key] for key in group if key != "params"}
            for group in optimizer.param_groups
        ]
        self._steps = 0
        self._errors: list[float] = []
        # Whether the schedule has a fixed number of steps and has taken all of them.
        self._ended = False
        # What tells one schedule from another: its class and its state before the first step.
        self._made = self._schedule_state()

    def at(self, steps: int, factor: float = 1.0) -> float:
        """Returns the rate of the next step (of the first parameter group).

        Args:
            steps: Number of steps of the optimizer so far.
            factor: Factor after divergences.
        """
        rate: float = self._optimizer.param_groups[0]["lr"] * self._factor(steps, factor)
        return rate

    @contextlib.contextmanager
    def applied(self, steps: int, factor: float = 1.0) -> Iterator[None]:
        """Applies warm-up and `factor` to the rates within a `with` block, for one step of the optimizer."""
        groups = self._optimizer.param_groups
        rates = [group["lr"] for group in groups]
        for group in groups:
            group["lr"] *= self._factor(steps, factor)
        try:
            yield
        finally:
            for group, rate in zip(groups, rates, strict=True):
                group["lr"] = rate

    def after_step(self) -> None:
        """Advances a schedule that steps with the optimizer."""
        self._steps += 1
        if self._schedule is not None and self._per_batch:
            self._advance(self._schedule.step)

    def after_validation(self, error: float) -> None:
        """Advances a schedule that steps with the validations.

        Args:
            error: Mean error of the validation set; the same on all ranks.
        """
        if self._schedule is None or self._per_batch:
            return
        self._errors.append(error)
        if isinstance(self._schedule, ReduceLROnPlateau):
            self._advance(partial(self._schedule.step, error))
        else:
            self._advance(self._schedule.step)

    def reset(self) -> None:
        """Sets the rates of the schedule again, after an earlier state of the optimizer was restored."""
        initial = [one["lr"] for one in self._initial]
        rates = initial if self._schedule is None else self._schedule.get_last_lr()
        for group, rate in zip(self._optimizer.param_groups, rates, strict=True):
            group["lr"] = rate

    def state(self) -> dict[str, Any]:
        """Returns the state for a checkpoint, of JSON types: the steps of the schedule so far, and where they led."""
        errors = [error if math.isfinite(error) else None for error in self._errors]
        # The name is that of earlier versions, in which each batch was a step.
        counts = {"batches": self._steps, "errors": errors}
        return counts | {"made": self._made, "now": self._schedule_state(), "ended": self._ended}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continues the schedule of an earlier server; called on a new object, after the optimizer was restored.

        A schedule or an initial rate that the study has changed since then counts from the first step: its steps are
        repeated, which takes some seconds for a million. So are those of a schedule whose state is not of JSON
        types.
        """
        for group, initial in zip(self._optimizer.param_groups, self._initial, strict=True):
            # An optimizer may have settings of its own there that change in training; those of the checkpoint stay.
            known = self._same_schedule(state)
            replaced = frozenset() if known else _SCHEDULED
            group.update({k: v for k, v in initial.items() if k in replaced or k not in group})
        errors = [math.nan if error is None else error for error in state["errors"]]
        if self._same_schedule(state):
            assert self._schedule is not None
            self._schedule.load_state_dict(state["now"]["state"])
            self._steps, self._errors, self._ended = state["batches"], errors, state["ended"]
            return
        with warnings.catch_warnings():
            # The schedule takes steps without the optimizer.
            warnings.filterwarnings("ignore", "Detected call of `lr_scheduler.step", UserWarning)
            for _ in range(state["batches"] if self._schedule is not None else 0):
                self.after_step()
            for error in errors:
                self.after_validation(error)
        self._steps = state["batches"]

    def _same_schedule(self, state: Mapping[str, Any]) -> bool:
        """Whether a state is that of this schedule, with the same arguments and initial rates."""
        known = self._made is not None and state.get("made") == self._made
        # The state of a schedule may stop to be of JSON types while it runs.
        return known and state.get("now") is not None

    def _schedule_state(self) -> dict[str, Any] | None:
        """Returns class and state of the schedule, of JSON types, or None if that is not possible."""
        if self._schedule is None:
            return None
        kind = type(self._schedule)
        state = {"class": f"{kind.__module__}.{kind.__qualname__}", "per_batch": self._per_batch}
        try:
            found: dict[str, Any] = json.loads(
                json.dumps(state | {"state": self._schedule.state_dict()}, allow_nan=False)
            )
        except (TypeError, ValueError):
            return None
        return found

    def _advance(self, step: Callable[[], None]) -> None:
        """Takes a step of the schedule; one that has no further step keeps its last rate.

        How many steps a study takes is not known before its end.
        """
        if self._ended:
            return
        try:
            step()
        except ValueError as reason:
            self._ended = True
            _log.warning(
                "training.schedule %s can't take a further step (%s): the learning rate stays as it is",
                type(self._schedule).__name__,
                reason,
            )

    def _factor(self, steps: int, factor: float) -> float:
        warmed = min(1.0, (steps + 1) / self._warmup) if self._warmup else 1.0
        return warmed * factor
