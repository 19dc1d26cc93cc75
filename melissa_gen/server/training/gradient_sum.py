"""The gradients of several batches, which are added up for one step of the optimizer."""

from collections.abc import Iterable

import torch
import torch.distributed as dist

__all__ = ["GradientSum", "reduce_gradients"]


class GradientSum:
    """Counts the batches and samples whose gradients are added up, and turns the sum into the mean over all samples.

    All ranks add the same batches. How many samples a step will have is not known before its last batch. Each batch is
    therefore divided by the number of samples of the first one, and the sum is corrected at the end.

    Args:
        size: Batches of a step.

    Attributes:
        batches: Batches that were added since the last step.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self.batches = 0
        self._samples = self._divisor = 0

    def add(self, samples: int) -> tuple[int, bool]:
        """Counts a batch, before its backward pass.

        Args:
            samples: Samples of all ranks, at least 1.

        Returns:
            The number by which the sum of the losses of all ranks is divided; and whether the batch is the last one of
            a step.
        """
        if not self.batches:
            self._divisor = samples
        self.batches += 1
        self._samples += samples
        return self._divisor, self.batches == self._size

    @torch.no_grad()
    def average(self, weights: Iterable[torch.nn.Parameter]) -> None:
        """Turns the gradients into the mean over all samples that were added."""
        if self._samples != self._divisor:
            for weight in weights:
                if weight.grad is not None:
                    weight.grad.mul_(self._divisor / self._samples)

    def clear(self) -> None:
        """Begins a new step."""
        self.batches = self._samples = self._divisor = 0


@torch.no_grad()
def reduce_gradients(weights: Iterable[torch.nn.Parameter]) -> None:
    """Averages the gradients over the ranks, as the last batch of a step does (collective)."""
    trained = [weight for weight in weights if weight.requires_grad]
    used = torch.tensor([weight.grad is not None for weight in trained]).int()
    used = used.to(trained[0].device)
    dist.all_reduce(used)
    for weight, ranks in zip(trained, used.tolist(), strict=True):
        # The optimizer leaves out a weight without a gradient, such as one that no rank has used.
        if not ranks:
            continue
        if weight.grad is None:
            weight.grad = torch.zeros_like(weight)
        plain = torch.view_as_real(weight.grad) if weight.grad.is_complex() else weight.grad
        dist.all_reduce(plain)
        plain.div_(dist.get_world_size())
