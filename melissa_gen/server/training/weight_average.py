"""A running mean of the weights during training."""

import copy

import torch

from melissa_gen.surrogates import InputFieldSurrogate, Rescaling, Surrogate

__all__ = ["WeightAverage"]


class WeightAverage:
    """Exponential moving average (EMA) of the weights of a surrogate.

    The mean is usually a better model than the weights of a single step, because it averages over the noise of the
    last batches. In the first steps it follows the weights faster: the decay of step t is at most (1 + t) / (10 + t).

    Args:
        surrogate: The surrogate in training, before it is compiled.
        decay: Share of the mean that is kept at each step.

    Attributes:
        surrogate: The surrogate with the averaged weights, in evaluation mode.
    """

    def __init__(self, surrogate: Surrogate, decay: float) -> None:
        self._decay = decay
        self.surrogate = copy.deepcopy(surrogate).requires_grad_(requires_grad=False).eval()

    @torch.no_grad()
    def update(self, surrogate: Surrogate, steps: int) -> None:
        """Adds the weights of a step, and takes over the scale of the input fields.

        Args:
            surrogate: The surrogate in training.
            steps: Number of steps before this one.
        """
        new = 1.0 - min(self._decay, (1 + steps) / (10 + steps))
        mine, theirs = self.surrogate.network, surrogate.network
        for mean, weight in zip(mine.parameters(), theirs.parameters(), strict=True):
            mean.lerp_(weight, new)
        for kept, buffer in zip(mine.buffers(), theirs.buffers(), strict=True):
            kept.copy_(buffer)
        if isinstance(surrogate, InputFieldSurrogate) and surrogate.inputs:
            assert isinstance(self.surrogate, InputFieldSurrogate)
            self.surrogate.field_mean.copy_(surrogate.field_mean)
            self.surrogate.field_std.copy_(surrogate.field_std)

    def reset(self, surrogate: Surrogate) -> None:
        """Continues from the weights and the scale of a surrogate."""
        self.surrogate.load_state_dict(surrogate.state_dict())

    def rescale(self, surrogate: Surrogate) -> Rescaling:
        """Gives the mean the scale that the surrogate in training has now, with the effect of `rescale_output`."""
        scale = (surrogate.output_mean, surrogate.output_std)
        return self.surrogate.rescale_output(*(one.cpu().numpy() for one in scale))
