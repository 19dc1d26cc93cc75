"""Difficulty signals, measured when a sample is drawn for the first time."""

import numpy as np
import numpy.typing as npt
import torch

from melissa_gen.reservoir import Batch
from melissa_gen.sampling import delta_loss
from melissa_gen.surrogates import LastLayer, Surrogate

__all__ = ["FirstPass"]


class FirstPass:
    """Measures one of `sampling.SIGNALS` on the samples that were never drawn before.

    `loss` and `delta_loss` need no further computation. `disagreement` needs the variance over the ensemble's members,
    averaged over the field. `gradient_norm` needs the gradients of the last layer.

    Args:
        signal: The signal.
        surrogate: The surrogate in training.
    """

    def __init__(self, signal: str, surrogate: Surrogate) -> None:
        self._signal = signal
        self._last = (
            LastLayer(surrogate.network, surrogate.n_inputs) if signal == "gradient_norm" else None
        )

    def measure(
        self, batch: Batch, losses: torch.Tensor, members: torch.Tensor, factors: torch.Tensor
    ) -> list[tuple[int, float, float]]:
        """Returns (simulation, loss, signal) of each new sample; called between the backward pass and the step.

        Args:
            batch: The batch of n samples.
            losses: (n,), error of each sample that the sampler learns from: see `Learner.errors`.
            members: (rows, M, ...), outputs of the members; the first n rows are the samples of the batch.
            factors: (rows,), factor of each loss in the sum whose gradient was computed.
        """
        fresh = batch.first_time
        if not fresh.any():
            return []
        values = losses.detach().cpu().double().numpy()
        signal = self._values(values, members, factors)
        columns = (batch.simulations[fresh], values[fresh], signal[fresh])
        return list(zip(*(column.tolist() for column in columns), strict=True))

    @torch.no_grad()
    def _values(
        self, losses: npt.NDArray[np.float64], members: torch.Tensor, factors: torch.Tensor
    ) -> npt.NDArray[np.float64]:
        if self._signal == "loss":
            return losses
        if self._signal == "delta_loss":
            return delta_loss(losses)
        if self._last is not None:
            found = self._last.influence(factors)[: len(losses)].clamp(min=0)
        else:
            found = members[: len(losses)].float().var(dim=1).flatten(1).mean(dim=1).sqrt()
        values: npt.NDArray[np.float64] = found.cpu().double().numpy()
        return values
