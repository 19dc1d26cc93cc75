"""The steps of the optimizer: forward pass, loss and backward pass of each batch, and the update of the weights."""

import dataclasses
from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from melissa_gen.builders.training import (
    build_loss,
    build_optimizer,
    build_schedule,
    sample_error,
)
from melissa_gen.reservoir import Batch
from melissa_gen.server.training.batch_rows import BatchRows
from melissa_gen.server.training.divergence import DivergenceGuard
from melissa_gen.server.training.first_pass_losses import FirstPass
from melissa_gen.server.training.gradient_sum import GradientSum, reduce_gradients
from melissa_gen.server.training.importance import ImportanceWeights, bootstrap_weights
from melissa_gen.server.training.learning_rate import LearningRate
from melissa_gen.server.training.network_modes import compile_network, precision
from melissa_gen.server.training.scaling import rescale_moments
from melissa_gen.server.training.weight_average import WeightAverage
from melissa_gen.study import Study
from melissa_gen.surrogates import FNO, MLP, TFNO, UNO, DeepONet, Rescaling, Surrogate, UNet
from melissa_gen.surrogates.network_class import input_dtype
from melissa_gen.tasks import Rows, Task
from melissa_gen.tasks.base import Compared

__all__ = ["Learner"]


class Learner:
    """The surrogate in training, with all that an optimizer step needs.

    Args:
        study: The study.
        task: What an item of a batch is.
        surrogate: The surrogate, with inputs and outputs in physical units.
        rows: The rows of the batches.
        device: The device of the network.

    Attributes:
        surrogate: The surrogate in training.
        optimizer: The optimizer.
        guard: What happens after a batch that is not finite.
        rate: The learning rate.
        batches: Batches trained so far.
        steps: Steps of the optimizer so far, including those that were not taken because of a batch that is not finite.
        errors: What the sampler learns from: the square of the metric for each sample of this rank's last batch, or
            its loss if the study has no metric, `(n,)`.
    """

    def __init__(
        self, study: Study, task: Task, surrogate: Surrogate, rows: BatchRows, device: torch.device
    ) -> None:
        training = study.training
        self._task = task
        self.surrogate = surrogate.to(device)
        self._training, self._seed = training, study.seed
        self._rows, self._device, self._ranks = rows, device, dist.get_world_size()
        self._average = WeightAverage(self.surrogate, training.ema) if training.ema else None
        self._network = DistributedDataParallel(
            self.surrogate.network,
            device_ids=[device] if device.type == "cuda" else None,
            gradient_as_bucket_view=True,
            find_unused_parameters=_may_skip_parameters(self.surrogate),
        )
        self.optimizer = build_optimizer(training, self.surrogate, study.folder)
        self.rate = LearningRate(
            self.optimizer,
            build_schedule(training, self.optimizer, study.folder),
            per_batch=training.schedule is None or training.schedule.step == "batch",
            warmup=training.warmup,
        )
        self._loss = build_loss(study, self.surrogate)
        self._error = sample_error(study, self.surrogate, self._loss)
        self.errors = torch.zeros(0)
        self.guard = DivergenceGuard(training.on_divergence, self.surrogate, self.optimizer)
        self._first_pass = FirstPass(study.sampler.difficulty, self.surrogate)
        self._importance = ImportanceWeights(training.importance_exponent)
        self._sum = GradientSum(training.accumulate)
        self.batches = self.steps = 0
        if training.compile:
            compile_network(self.surrogate, training, device)

    def state(self) -> dict[str, Any]:
        """Returns the state for a checkpoint, of JSON types, without the weights and the optimizer."""
        return {
            "divergence": self.guard.state(),
            "learning_rate": self.rate.state(),
            "task": self._task.state(),
            "steps": self.steps,
        }

    def restore(self, state: Mapping[str, Any], batches: int, new_rank: bool) -> None:
        """Continues from the `state()` of an earlier server.

        Args:
            state: The state of this rank, or of rank 0.
            batches: Batches trained by the earlier server.
            new_rank: Whether the earlier server had fewer ranks, so that the state is that of rank 0.
        """
        self.batches, self.steps = batches, state.get("steps", batches)
        self.guard.restore(state["divergence"])
        self.rate.restore(state["learning_rate"])
        of_task = state.get("task", {})
        self._task.restore(self._task.state_of_new_rank(of_task) if new_rank else of_task)

    @property
    def model(self) -> Surrogate:
        """The surrogate that is validated and saved: with averaged weights if `training.ema` is set."""
        return self._average.surrogate if self._average else self.surrogate

    @property
    def learning_rate(self) -> float:
        """The learning rate of the next step."""
        return self.rate.at(self.steps, self.guard.rate_factor)

    @property
    def effective_share(self) -> float:
        """Effective sample size of the batches, relative to their size."""
        return self._importance.effective_share

    @property
    def between_steps(self) -> bool:
        """Whether no batch waits for the step of the optimizer to which it belongs."""
        return not self._sum.batches

    def train(
        self, batch: Batch | None, total: int
    ) -> tuple[torch.Tensor, list[tuple[int, float, float]]]:
        """Trains on a batch; the last of `training.accumulate` batches takes the optimizer's step (collective).

        Args:
            batch: The samples of this rank, whose rows were drawn; None if it has none.
            total: Samples of all ranks.

        Returns:
            The losses (n,) of this rank, computed before the step, and the difficulty of the new samples; see
            `FirstPass.measure`.
        """
        count = batch.count if batch else 0
        rows, weights = self._on_device(batch)
        if not self.batches:
            self._task.start(self.surrogate, rows)
            self.follow()
        if self.between_steps:
            self.guard.before_step(self.steps)
            self.optimizer.zero_grad(set_to_none=True)
        divisor, last = self._sum.add(total)
        # The ranks exchange the sum of the gradients, in the last backward pass of a step.
        with nullcontext() if last else self._network.no_sync():
            compared = self._compare(rows)
            of_members, of_mean = self._task.losses(self._loss, compared)
            each = of_members * self._bootstrap(batch, len(weights))
            # DDP averages the gradients over the ranks; the factor makes this the mean over all samples.
            factors = weights * (self._ranks / divisor)
            # The method has no type hints.
            (each.mean(dim=1) * factors).sum().backward()  # type: ignore[no-untyped-call]
        losses = of_mean.detach()[:count]
        self.errors = losses
        # Even if the loss is the square of the metric, that of a task may have further terms.
        if self._error is not self._loss:
            self.errors = self._task.errors(self._error, compared)[:count]
        if last:
            self._sum.average(self.surrogate.parameters())
        finite = self.guard.check(losses, gradients=last)
        found: list[tuple[int, float, float]] = []
        if finite and batch is not None and not self.guard.noticed:
            members = compared[0].members.detach()
            found = self._first_pass.measure(batch, self.errors, members, factors)
        self.batches += 1
        if last:
            self._update(finite)
        return losses, found

    def finish_step(self) -> bool:
        """Takes the step of the optimizer with fewer than `training.accumulate` batches (collective).

        Returns:
            Whether there was a batch that waited for it.
        """
        if self.between_steps:
            return False
        weights = list(self.surrogate.parameters())
        reduce_gradients(weights)
        self._sum.average(weights)
        self._update(self.guard.check(torch.zeros(0, device=self._device), gradients=True))
        return True

    def respond(self) -> tuple[str | None, float, float]:
        """Applies `training.on_divergence` after a batch that was not finite, on all ranks alike.

        Returns:
            The reason why the study must stop, or None; and the factors that convert earlier losses and errors,
            because earlier weights come with their earlier scale.
        """
        if not self.between_steps:
            # The batches before the one that is not finite are given up with it.
            self._end_step()
        width, rollbacks = self.surrogate.output_std.clone(), self.guard.rollbacks
        reason = self.guard.respond(self.batches, self.learning_rate)
        if reason is not None:
            return reason, 1.0, 1.0
        if self.guard.rollbacks > rollbacks:
            self.rate.reset()
            self._task.rolled_back()
            self.follow()
        factor = self.surrogate.recorded_factor(width)
        of_loss, of_errors = (1.0 if f.scale_free else factor for f in (self._loss, self._error))
        return None, of_loss, of_errors

    def follow(self) -> None:
        """Sets the averaged weights to those in training, after these were set from outside."""
        if self._average:
            self._average.reset(self.surrogate)

    def rescaled(self, rescaling: Rescaling) -> Rescaling:
        """Adapts the optimizer and the averaged weights to a changed scale of the output.

        Returns:
            What the change means for the loss, and with `recorded_factor` for the errors of samples.
        """
        recorded = self._error.adapt(rescaling).recorded_factor
        adapted = dataclasses.replace(self._loss.adapt(rescaling), recorded_factor=recorded)
        if self._average:
            self._average.rescale(self.surrogate)
        rescale_moments(self.optimizer, adapted)
        return adapted

    def drifted(self) -> bool:
        """Returns whether what the task takes from the data no longer fits that of this rank."""
        return self._task.drifted()

    def adapt(self) -> None:
        """Lets the task adapt what it takes from the data of all ranks (collective)."""
        average = [self._average.surrogate] if self._average else []
        rescaling = self._task.adapt([self.surrogate, *average])
        if rescaling is not None:
            rescale_moments(self.optimizer, rescaling)

    def _compare(self, rows: Rows) -> list[Compared]:
        """Returns the predictions for the rows, and what they are compared with."""
        # The made-up row of a rank that has never had data must not enter a running mean.
        if rows.made_up:
            self._network.eval()
        with precision(self._training.precision, self._device):
            compared = self._task.compare(self.surrogate, self._network, rows, self.batches)
        if rows.made_up:
            self._network.train()  # type: ignore[no-untyped-call]
        return compared

    def _update(self, finite: bool) -> None:
        """Updates the weights by the gradients, if these are finite, and ends the step."""
        if finite:
            self.guard.clip(self._training.clip_gradients)
            with self.rate.applied(self.steps, self.guard.rate_factor):
                self.optimizer.step()
            if self._average:
                self._average.update(self.surrogate, self.steps)
        self._end_step()

    def _end_step(self) -> None:
        self._sum.clear()
        self.rate.after_step()
        self.steps += 1

    def _on_device(self, batch: Batch | None) -> tuple[Rows, torch.Tensor]:
        """Returns the rows and their weights; only the rows of the batch have a weight above 0."""
        filled = self._rows.filled
        if filled:
            fields = {
                name: tensor[:filled].to(self._device, non_blocking=True)
                for name, tensor in self._rows.fields.items()
            }
            rows = Rows(torch.from_numpy(self._rows.inputs).to(self._device), fields)
        else:
            rows = self._task.example(self.surrogate)._replace(made_up=True)
        weights = np.zeros(len(rows.inputs), np.float32)
        if batch is not None:
            weights[: batch.count] = self._importance.of_batch(
                batch.simulation_weights, batch.weights
            )
        return rows, torch.from_numpy(weights).to(self._device)

    def _bootstrap(self, batch: Batch | None, rows: int) -> torch.Tensor:
        """Returns the bootstrap weight of each member for each row (n, M); all equal unless members are heads."""
        ensemble = self.surrogate.ensemble
        if batch is None or ensemble is None or ensemble[0] != "heads":
            return torch.ones(1, 1, device=self._device)
        weights = np.ones((rows, ensemble[1]), np.float32)
        weights[: batch.count] = bootstrap_weights(batch.simulations, ensemble[1], self._seed)
        return torch.from_numpy(weights).to(self._device)


def _may_skip_parameters(surrogate: Surrogate) -> bool:
    """Returns whether a forward pass may leave out parameters.

    The package's own networks never do. Those of neuraloperator leave out the same ones in each pass, if any: their
    forward pass does not depend on values, but their arguments decide which parameters it uses.
    """
    kinds = {type(network) for network in surrogate.networks()}
    if not kinds <= {MLP, DeepONet, UNet, FNO, TFNO, UNO}:
        return True
    return bool(kinds & {FNO, TFNO, UNO}) and _skips_parameters(surrogate)


def _skips_parameters(surrogate: Surrogate) -> bool:
    """Returns whether the output does not depend on all parameters, from one forward pass in evaluation mode."""
    network = surrogate.network
    dtype, device = input_dtype(network), surrogate.center.device
    network.eval()
    output = network(torch.zeros(2, surrogate.n_inputs, dtype=dtype, device=device))
    network.train()
    found = torch.autograd.grad(output.sum(), list(network.parameters()), allow_unused=True)
    return any(one is None for one in found)
