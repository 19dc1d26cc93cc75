"""Detects batches whose loss or gradients are not finite, and applies `training.on_divergence`.

The gradients are equal on all ranks after their reduction, so that all ranks make the same decision whether to take the
optimizer's step. The losses differ between ranks: the reduction that precedes the next batch adds `noticed` of all
ranks, and all ranks then respond in the same way.
"""

import copy
import logging
import math
from typing import Any, Literal, NamedTuple

import torch

from melissa_gen.surrogates import Surrogate

__all__ = ["DivergenceGuard", "all_finite"]

ROLLBACKS = 4
RATE_FACTOR = 0.25
SKIPPED_IN_A_ROW = 100
STEPS_BETWEEN_COPIES = 200

_log = logging.getLogger(__name__)


class _Copy(NamedTuple):
    surrogate: dict[str, torch.Tensor]
    optimizer: dict[str, Any]


class DivergenceGuard:
    """Applies one of three policies after a batch whose loss or gradients are not finite.

    - `stop`: the study fails.
    - `rollback`: the weights and the optimizer of 200 to 400 steps before are restored, and the learning rate is
      divided by 4. After four rollbacks the study fails.
    - `skip`: the batch changes no weights. The study fails if a weight is not finite, or after 100 such batches in a
      row.

    Args:
        policy: The policy.
        surrogate: The surrogate in training.
        optimizer: Its optimizer.
        steps_between_copies: Steps of the optimizer between two copies of the weights for `rollback`.

    Attributes:
        noticed: Whether the last batch of this rank was not finite.
        rollbacks: Number of rollbacks so far.
        skipped: Number of batches so far that were not finite.
        gave_up: Whether the policy has ended the study; the weights are then not worth a checkpoint.
    """

    def __init__(
        self,
        policy: Literal["stop", "rollback", "skip"],
        surrogate: Surrogate,
        optimizer: torch.optim.Optimizer,
        steps_between_copies: int = STEPS_BETWEEN_COPIES,
    ) -> None:
        self._policy, self._surrogate, self._optimizer = policy, surrogate, optimizer
        self._every = steps_between_copies
        self.noticed = False
        self.rollbacks = 0
        self.skipped = 0
        self.gave_up = False
        self._in_a_row = 0
        self._checked = False
        self._norm = 0.0
        self._older: _Copy | None = None
        self._newer: _Copy | None = None
        self._copied_at = 0

    @property
    def rate_factor(self) -> float:
        """Factor of the learning rate: a quarter for each rollback."""
        return RATE_FACTOR**self.rollbacks

    def before_step(self, steps: int) -> None:
        """Copies the weights at regular intervals; called before the first batch of each step of the optimizer.

        Args:
            steps: Number of steps so far.
        """
        if self._policy != "rollback" or self._in_a_row:
            return
        if self._newer is None or steps - self._copied_at >= self._every:
            self._older, self._newer = self._newer, self._copy()
            self._copied_at = steps

    def check(self, losses: torch.Tensor, *, gradients: bool = True) -> bool:
        """Checks a batch after its backward pass; returns whether its gradients may be used.

        Args:
            losses: The losses `(n,)` of this rank.
            gradients: Whether the gradients are checked: those of all ranks together, before the optimizer's step.
        """
        checked = self._gradients() if gradients else []
        # One transfer from the device for both checks. The norm is infinite or NaN if any gradient is.
        checks = torch.stack([_norm(checked, losses.device), (losses.float() * 0).sum()])
        gradient, loss = checks.tolist()
        self._norm = gradient
        self.noticed = not (math.isfinite(gradient) and math.isfinite(loss))
        self._checked = gradients
        return math.isfinite(gradient)

    def clip(self, largest: float | None) -> None:
        """Scales the gradients of the last batch down to a norm of at most `largest`; None leaves them."""
        if largest is not None and self._norm > largest:
            for gradient in self._gradients():
                gradient.mul_(largest / self._norm)

    def respond(self, batches: int, rate: float) -> str | None:
        """Applies the policy, in the same way on all ranks.

        Args:
            batches: Number of batches trained so far.
            rate: The learning rate of the last batch.

        Returns:
            The reason why the study must stop, or None if training continues.
        """
        reason = self._respond(batches, rate)
        self.gave_up = reason is not None
        return reason

    def succeeded(self) -> None:
        """Ends a row of batches that were not finite, if a step was checked since the last of them.

        Called in each turn in which no rank has noticed such a batch. In some turns, no batch was trained.
        """
        if self._checked:
            self._in_a_row = 0

    def state(self) -> dict[str, int]:
        """Returns the counters for a checkpoint."""
        return {"rollbacks": self.rollbacks, "skipped": self.skipped}

    def restore(self, state: dict[str, int]) -> None:
        """Continues from the `state()` of an earlier server."""
        self.rollbacks, self.skipped = state["rollbacks"], state["skipped"]

    def _gradients(self) -> list[torch.Tensor]:
        return [p.grad for p in self._surrogate.parameters() if p.grad is not None]

    def _respond(self, batches: int, rate: float) -> str | None:
        self.noticed = self._checked = False
        self.skipped += 1
        self._in_a_row += 1
        what = f"the loss or its gradients were not finite at batch {batches} (learning rate {rate:.3g})"
        if self._policy == "stop":
            return (
                f"{what}; lower training.learning_rate, or set training.on_divergence to rollback"
            )
        if self._policy == "skip":
            return self._skip(what)
        if self.rollbacks == ROLLBACKS:
            return (
                f"{what}, after {ROLLBACKS} rollbacks to earlier weights; lower training.learning_rate, "
                "or check the network for operations without a finite result"
            )
        self.rollbacks += 1
        self._restore()
        _log.warning(
            "%s: earlier weights were restored, and the learning rate is now %.3g (rollback %d of at most %d)",
            what,
            rate * RATE_FACTOR,
            self.rollbacks,
            ROLLBACKS,
        )
        return None

    def _skip(self, what: str) -> str | None:
        if not all_finite(self._surrogate):
            return f"{what}, and the network has weights that are not finite; lower training.learning_rate"
        if self._in_a_row >= SKIPPED_IN_A_ROW:
            before = SKIPPED_IN_A_ROW - 1
            return f"{what}, nor at the {before} batches before; lower training.learning_rate"
        if self.skipped == 1:
            _log.warning("%s: this batch and all later ones of this kind are skipped", what)
        return None

    def _copy(self) -> _Copy:
        weights = {
            name: tensor.detach().clone() for name, tensor in self._surrogate.state_dict().items()
        }
        return _Copy(weights, copy.deepcopy(self._optimizer.state_dict()))

    def _restore(self) -> None:
        # The newer copy may already be on the way to the divergence.
        good = self._older or self._newer
        assert good is not None, "before_step was not called"
        self._surrogate.load_state_dict(good.surrogate)
        self._optimizer.load_state_dict(copy.deepcopy(good.optimizer))
        self._older, self._newer = None, good


def all_finite(surrogate: Surrogate) -> bool:
    """Returns whether all weights and buffers of a surrogate are finite."""
    tensors = surrogate.state_dict().values()
    return all(bool(torch.isfinite(tensor).all()) for tensor in tensors)


def _norm(gradients: list[torch.Tensor], device: torch.device) -> torch.Tensor:
    """Returns the norm of all gradients together, as a number of float32 or float64."""
    real = [torch.view_as_real(g) if g.is_complex() else g for g in gradients]
    return (
        torch.nn.utils.get_total_norm(real).to(device).float()
        if real
        else torch.zeros((), device=device)
    )
