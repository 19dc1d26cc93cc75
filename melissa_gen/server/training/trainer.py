"""The training loop of one rank, in lockstep with all other ranks.

Before each batch, one small all-reduce collects which ranks can draw. Either all ranks draw or all wait, so that a rank
without data never blocks the others. A rank whose data has ended takes part with rows of weight 0 until all are done.
"""

import math
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
import torch.distributed as dist

from melissa_gen.builders.training import build_callbacks
from melissa_gen.errors import RunError
from melissa_gen.reservoir import Batch, Source
from melissa_gen.server.consumer import Hooks
from melissa_gen.server.coordination.events import FINISHING, LIMITED, SAVING, TRAINING, WAITING
from melissa_gen.server.rank_state import RankState
from melissa_gen.server.stopwatch import Stopwatch
from melissa_gen.server.training.batch_rows import BatchRows
from melissa_gen.server.training.budget import Budget
from melissa_gen.server.training.callbacks import Callbacks, Progress
from melissa_gen.server.training.goal import Goal
from melissa_gen.server.training.learner import Learner
from melissa_gen.server.training.pacing import StepDecision, Supply
from melissa_gen.server.training.prior_bounds import BOUND_NAMES, PriorBounds
from melissa_gen.server.training.scaling import Scaling
from melissa_gen.server.training.training_reservoir import study_pacing
from melissa_gen.server.training.validation import error_summary
from melissa_gen.server.training.validation_sets import ValidationSets
from melissa_gen.study import Study
from melissa_gen.surrogates import Surrogate
from melissa_gen.tasks import Task

__all__ = ["Trainer"]

_WAIT_SECONDS = 0.02
_SMOOTHING = 0.98


class _Turn(NamedTuple):
    """The decision of all ranks before a step.

    Attributes:
        pace: Whether a step is taken.
        mine: Number of samples that this rank draws.
        stop: Whether a rank was requested to stop.
        checkpoint: Whether a checkpoint is saved.
        diverged: Whether the loss or the gradients of the last batch were not finite on any rank.
        drifted: Whether the scale of the fields does not fit the samples of any rank.
        spent: Whether the budget of the training is spent.
    """

    pace: StepDecision
    mine: int
    stop: bool
    checkpoint: bool
    diverged: bool
    drifted: bool
    spent: bool


class Trainer:
    """Trains the surrogate on batches from the reservoir.

    Args:
        study: The study.
        task: What an item of a batch is.
        surrogate: The surrogate, with inputs and outputs in physical units.
        reservoir: The reservoir of this rank.
        state: Shared with ingest.
        validation: Measures the errors on unseen simulations, or None.
        device: The device of the network.
        hooks: Functions that the loop calls.
        between_steps: Called before each step with the surrogate and the number of batches; may copy the weights.
        bounds: On rank 0, measures the bounds of the error if the goal has limits of them; else None.

    Attributes:
        surrogate: The network in training, in its physical units.
        optimizer: The optimizer.
        reservoir: This rank's memory.
        rows: The rows of the last batch.
        goal: The accuracy at which the study ends.
        guard: What happens after a batch that is not finite.
        learned: Whether any rank has trained a batch with a finite loss.
        samples_drawn: Samples drawn so far, over all ranks.
        watch: Where the time went.
        loss: Running mean of the loss; NaN before the first batch.
    """

    def __init__(
        self,
        study: Study,
        task: Task,
        surrogate: Surrogate,
        reservoir: Source,
        state: RankState,
        validation: ValidationSets | None,
        device: torch.device,
        hooks: Hooks,
        between_steps: Callable[[Surrogate, int], None],
        bounds: PriorBounds | None = None,
    ) -> None:
        self._study, self._training = study, study.training
        self.reservoir, self._state, self._validation = reservoir, state, validation
        self._device, self._hooks, self._between_steps = device, hooks, between_steps
        self._ranks, self._rank = dist.get_world_size(), dist.get_rank()
        self.rows = BatchRows(
            reservoir.store.arrays,
            self._training.batch_size,
            len(study.parameters) + 1,
            task.window.steps,
            input_specs=reservoir.store.input_specs if task.takes_inputs else None,
            pin=device.type == "cuda",
        )
        self._learner = Learner(study, task, surrogate, self.rows, device)
        self.surrogate, self.optimizer = self._learner.surrogate, self._learner.optimizer
        self.guard = self._learner.guard
        until = study.training.until
        self.goal = Goal(until.limits, until.patience) if until else Goal({}, 1)
        self._budget, self._budget_ended = Budget(study.training.budget), False
        self._bounded, self._bounds = until is not None and until.bounded, bounds
        mine = build_callbacks(study.training, study.folder) if self._rank == 0 else []
        self._callbacks = Callbacks(mine)
        self._scaling = Scaling(self.surrogate, reservoir, device)
        self._pacing = study_pacing(study, reservoir, self._ranks)
        self.samples_drawn = 0
        self.watch = Stopwatch()
        # Seconds before the first batch, such as those of clients in a queue, which are not training.
        self._waited = 0.0
        self.loss = math.nan
        self._rollbacks = 0
        self.learned = False
        # Totals of earlier servers that do not count for pacing, because the reservoir does not contain their samples.
        self._drawn_before = 0
        self._stored_before = 0
        self._saved = time.monotonic()

    def state(self) -> dict[str, Any]:
        """Returns the state of this rank for a checkpoint, of JSON types, without model and optimizer."""
        on_gpu = self._device.type == "cuda"
        return {
            "batches": self.batches,
            "samples_drawn": self.samples_drawn,
            "seconds": self.watch.seconds,
            "waited": self._waited,
            "scaling": self._scaling.state(),
            "loss": None if math.isnan(self.loss) else self.loss,
            "learner": self._learner.state(),
            "goal": self.goal.state(),
            "random": torch.get_rng_state().numpy().tobytes().hex(),
            "cuda_random": torch.cuda.get_rng_state(self._device).numpy().tobytes().hex()
            if on_gpu
            else None,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continues from the `state()` of an earlier server; model and optimizer were restored before."""
        self._learner.restore(state["learner"], state["batches"], new_rank=state["random"] is None)
        self.samples_drawn = state["samples_drawn"]
        self._restore_pacing()
        self.watch.restore(state.get("seconds", {}))
        self._waited = state.get("waited", 0.0)
        self.loss = math.nan if state["loss"] is None else state["loss"]
        self._rollbacks = self.guard.rollbacks
        self.goal.restore(state["goal"])
        self._scaling.restore(state["scaling"])
        if state["random"] is not None:
            torch.set_rng_state(_bytes(state["random"]))
        if state["cuda_random"] is not None and self._device.type == "cuda":
            torch.cuda.set_rng_state(_bytes(state["cuda_random"]), self._device)
        self._publish()

    def _restore_pacing(self) -> None:
        """Continues the pacing, to the share of the samples that are in memory again (collective)."""
        stored = self.reservoir.accepted
        kept = stored if self.reservoir.refilled else 0
        totals = torch.tensor([stored, kept], dtype=torch.int64, device=self._device)
        dist.all_reduce(totals)
        all_stored, all_kept = totals.tolist()
        share = all_kept / all_stored if all_stored else 0.0
        self._drawn_before = round(self.samples_drawn * (1.0 - share))
        self._stored_before = stored - all_kept // self._ranks

    def run(self) -> str | None:
        """Trains until the data has ended.

        Returns:
            None, or the reason why the study was stopped before the end of the data.
        """
        self.watch.start()
        if not self.batches:
            self.wait_for_first_samples()
        while True:
            turn = self._next_turn()
            if turn.diverged:
                reason, *factors = self._learner.respond()
                if reason is not None:
                    self._hooks.fail(reason)
                    return reason
                self._scaling.recheck()
                self._convert_losses(*factors)
            else:
                self.guard.succeeded()
            ends_step = turn.drifted or turn.pace.over or turn.stop or turn.spent
            if ends_step and self._learner.finish_step():
                # The next turn responds to gradients that are not finite, and decides again.
                self._scaling.recheck()
                continue
            if turn.drifted:
                self._rescale()
            if turn.pace.over:
                break
            if turn.stop:
                return self._state.stop_reason or "another server rank was requested to stop"
            if turn.checkpoint:
                self._saved = time.monotonic()
                self._state.begin_piece(SAVING)
                self._hooks.checkpoint()
                self.watch.lap("saving")
                self._publish()
            if turn.spent:
                self._end_budget()
            if turn.spent or not turn.pace.step:
                continue
            batch = None
            if turn.mine > 0:
                batch = self.draw(turn.mine)
            self.watch.lap("gathering")
            losses = self.learn(batch, turn.pace.total)
            self.record(batch, losses, turn.pace.total)
            self._callbacks.call("on_batch", self._progress)
            self.watch.lap("training")
            if self.batches % self._training.validation.every == 0:
                reached = self._measure()
                self.watch.lap("validating")
                self._publish()
                if reached is not None:
                    self._hooks.reached(reached)
        if self.batches:
            self._measure()
            self.watch.lap("validating")
        return self._state.stop_reason

    def _end_budget(self) -> None:
        """Validates, ends the study, and waits until that is known to all ranks."""
        if not self._budget_ended:
            self._budget_ended = True
            if self.batches % self._training.validation.every:
                self._measure()
                self.watch.lap("validating")
            self._hooks.reached(self._spent() or "training.budget is spent")
        time.sleep(_WAIT_SECONDS)
        self.watch.lap("waiting")

    def _spent(self) -> str | None:
        """Returns a sentence if the budget is spent; the time counts on rank 0, from which the others hear it."""
        seconds = 0.0 if self._rank else math.fsum(self.watch.seconds.values()) - self._waited
        return self._budget.spent(self.batches, seconds)

    def _progress(self, errors: dict[str, float] | None = None) -> Progress:
        """Returns what the callbacks receive."""
        return Progress(self.batches, self.loss, self.learning_rate, self.model, errors or {})

    def end(self) -> None:
        """Calls the callbacks for the end of the training."""
        self._callbacks.call("on_end", self._progress)

    def draw(self, count: int) -> Batch | None:
        """Draws samples from the reservoir into `rows`; None if it is empty."""
        return self.rows.draw(self.reservoir, count)

    def learn(self, batch: Batch | None, total: int) -> torch.Tensor:
        """Trains on a batch; returns the losses (n,) of this rank, computed before the optimizer's step."""
        losses, found = self._learner.train(batch, total)
        self._state.add_first_pass(found)
        return losses

    @property
    def batches(self) -> int:
        """Batches trained so far."""
        return self._learner.batches

    @property
    def model(self) -> Surrogate:
        """The surrogate that is validated and saved: with averaged weights if `training.ema` is set."""
        return self._learner.model

    @property
    def ranges(self) -> dict[str, tuple[float, float]]:
        """Name of each field and input field to its smallest and largest value in the samples that are known here."""
        return self._scaling.ranges

    def share_ranges(self) -> None:
        """Extends `ranges` by those of the other ranks (collective)."""
        self._scaling.share_ranges()

    @property
    def device_name(self) -> str:
        """Name of the GPU, or CPU."""
        return torch.cuda.get_device_name(self._device) if self._device.type == "cuda" else "CPU"

    @property
    def effective_share(self) -> float:
        """Effective sample size of the batches, relative to their size."""
        return self._learner.effective_share

    @property
    def learning_rate(self) -> float:
        """The learning rate of the next step."""
        return self._learner.learning_rate

    def _next_turn(self) -> _Turn:
        """Agrees with all ranks on the next step; waits briefly if no step is possible (collective)."""
        self._state.begin_turn()
        self._state.refresh()
        self._between_steps(self.model, self.batches)
        if self._state.error is not None:
            message = f"the ingest of server rank {self._rank} failed: {self._state.error}"
            raise RunError(message) from self._state.error
        mine = self._supply()
        if not mine.ready:
            self.reservoir.wait_ready(self._training.batch_size, _WAIT_SECONDS)
            mine = self._supply()
            self.watch.lap("waiting")
        due = (
            time.monotonic() - self._saved > self._training.checkpoint_every
            and self._hooks.may_checkpoint()
        )
        flags = (
            self._state.stop_reason is not None,
            due and self._rank == 0 and self.batches > 0 and self._learner.between_steps,
            self.guard.noticed,
            math.isfinite(self.loss),
            self._scaling.drifted() or self._learner.drifted(),
            self._spent() is not None,
        )
        vector = torch.tensor([*flags, *mine], dtype=torch.int64, device=self._device)
        dist.all_reduce(vector)
        stop, checkpoint, diverged, learned, drifted, spent, *supply = vector.tolist()
        self.learned = learned > 0
        total, drawn = Supply(*supply), self.samples_drawn - self._drawn_before
        pace = self._pacing.turn(total, drawn)
        self._state.now(_activity(pace))
        self.watch.lap("agreeing" if pace.step else "waiting")
        if not pace.step and self.batches:
            self._publish()
        if not pace.step and not stop and pace.ahead and mine.ready:
            # The condition changes only through the all-reduce above, which is repeated at this interval.
            time.sleep(_WAIT_SECONDS)
            self.watch.lap("waiting")
        allowance = self._pacing.allowance(mine.accepted, total, drawn)
        if allowance is not None:
            self.reservoir.allow_puts(self._stored_before + allowance)
        return _Turn(
            *(pace, mine.available, stop > 0, checkpoint > 0, diverged > 0, drifted > 0, spent > 0)
        )

    def _supply(self) -> Supply:
        return Supply.of(self.reservoir, self._training.batch_size, self._stored_before)

    def record(self, batch: Batch | None, losses: torch.Tensor, total: int) -> None:
        """Records a step in the totals, and the errors of its samples in the reservoir.

        Args:
            batch: What was trained on; None if this rank had no data.
            losses: The losses `(n,)` of this rank.
            total: Samples of all ranks.
        """
        self.samples_drawn += total
        if batch is not None and not self.guard.noticed:
            self.reservoir.update_losses(batch, self._learner.errors.cpu().double().numpy())
            mean = float(losses.double().mean())
            # The losses before a rollback belong to weights that were given up.
            fresh = math.isnan(self.loss) or self.guard.rollbacks > self._rollbacks
            self._rollbacks = self.guard.rollbacks
            smooth = mean if fresh else self.loss
            self.loss = _SMOOTHING * smooth + (1 - _SMOOTHING) * mean
        self._publish()

    def _publish(self) -> None:
        training = {
            "batches": self.batches,
            "samples_drawn": self.samples_drawn,
            "loss": self.loss,
            "learning_rate": self.learning_rate,
            **{f"{part}_seconds": seconds for part, seconds in self.watch.seconds.items()},
            "effective_share": self.effective_share,
        }
        self._state.publish(training)

    def wait_for_first_samples(self) -> None:
        """Waits for the watermark on all ranks, then sets the scale of the fields."""
        while True:
            turn = self._next_turn()
            self._waited = math.fsum(self.watch.seconds.values())
            if turn.pace.over or turn.stop:
                return
            if turn.pace.step:
                break
        self._hooks.event("training_started", device=self.device_name, gradients=dist.get_backend())
        self._scaling.start(self._validation.trajectories if self._validation else ())
        self._learner.follow()

    def _rescale(self) -> None:
        """Adapts the scale of the fields, and what the task takes from them, to all ranks (collective)."""
        self._learner.adapt()
        change = self._scaling.adapt()
        if change is None:
            return
        rescaling, fields = change
        if rescaling is not None:
            rescaling = self._learner.rescaled(rescaling)
            self._convert_losses(rescaling.loss_factor, rescaling.recorded_factor)
        self._hooks.event(
            "rescaled",
            batches=self.batches,
            in_last_layer=rescaling.in_last_layer if rescaling else None,
            fields=fields,
        )

    def _convert_losses(self, of_loss: float, of_errors: float) -> None:
        self.loss *= of_loss
        self.reservoir.rescale_losses(of_errors)

    def _measure(self) -> str | None:
        """Measures what there is to measure (collective); returns a sentence if the goal is reached by it."""
        measured = {}
        if self._validation is not None:
            summary = self._validate(self._validation)
            measured = {f"{self._training.error_name}.{key}": x for key, x in summary.items()}
        if self._bounded:
            measured |= self._bound()
        return self.goal.check(measured) if measured else None

    def _bound(self) -> dict[str, float]:
        """Measures the bounds of the error over the prior, the same on all ranks (collective)."""
        found = self._bounds.measure(self.model) if self._bounds else [math.inf] * len(BOUND_NAMES)
        values = torch.tensor(found, dtype=torch.float64, device=self._device)
        dist.broadcast(values, src=0)
        if self._bounds is not None:
            level, (p50, p90, p99) = self._bounds.level, values.tolist()
            self._hooks.event(
                "error_bound", batches=self.batches, level=level, p50=p50, p90=p90, p99=p99
            )
        return dict(zip(BOUND_NAMES, values.tolist(), strict=True))

    def _validate(self, validation: ValidationSets) -> dict[str, float]:
        """Measures the validation error (collective); returns the statistics that decide."""
        began = time.monotonic()
        results, errors = validation.measure(self.model)
        self._learner.rate.after_validation(float(errors.total.mean()))
        if self._rank == 0:
            seconds = time.monotonic() - began
            self._hooks.event("validation", batches=self.batches, seconds=seconds, **results)
        summary = error_summary(errors.total)
        self._callbacks.call("on_validation", lambda: self._progress(summary))
        return summary


def _activity(pace: StepDecision) -> str:
    """Returns what this rank does next; after the last batch it validates and writes its results."""
    if pace.over:
        return FINISHING
    if pace.step:
        return TRAINING
    return LIMITED if pace.ahead else WAITING


def _bytes(text: str) -> torch.Tensor:
    return torch.frombuffer(bytearray.fromhex(text), dtype=torch.uint8)
