"""The surrogate as the sampler sees it: copies of the weights that the trainer makes between two steps."""

import copy
import threading

import torch

from melissa_gen.surrogates import Surrogate, SurrogateProbe

__all__ = ["Snapshots"]


class Snapshots:
    """Hands the trainer's weights to the sampler's thread.

    The sampler asks; the trainer, before its next step, copies the weights if they were asked for,
    and goes on. Without a question it does nothing. The probe is made and used in the sampler's
    thread, on the CPU, by as many torch threads as the rank has.

    The newest snapshots are kept: they are the members between which the probe sees disagreement.

    Args:
        surrogate: The surrogate before training, of which copies are made.
        members: Snapshots that a probe is made of, at least 1.
        patience: Seconds that the sampler waits for the trainer's next step; a validation, which
            takes longer, is not waited for, and the last snapshots serve again.
    """

    def __init__(self, surrogate: Surrogate, members: int = 3, patience: float = 1.0) -> None:
        self._template = _without_weights(surrogate)
        self._patience = patience
        self._members = members
        self._probe: SurrogateProbe | None = None
        self._batches = 0
        self._copied: tuple[int, dict[str, torch.Tensor]] | None = None
        self._asked = False
        self._condition = threading.Condition()

    def offer(self, surrogate: Surrogate, batches: int) -> None:
        """The trainer's moment between two steps: copies the weights where they were asked for.

        Args:
            surrogate: The surrogate in training.
            batches: Steps that it has taken; an untrained one is not copied.
        """
        if not self._asked or batches == 0:
            return
        weights = {
            name: tensor.detach().to("cpu", copy=True)
            for name, tensor in surrogate.state_dict().items()
        }
        with self._condition:
            self._copied, self._asked = (batches, weights), False
            self._condition.notify()

    def take(self) -> SurrogateProbe | None:
        """The sampler's question: a probe of the surrogate as it is now, None before training."""
        with self._condition:
            late, self._copied, self._asked = self._copied, None, True
            self._condition.wait_for(lambda: self._copied is not None, self._patience)
            copied = self._copied or late
            self._copied = None
        if copied is not None and copied[0] > self._batches:
            self._batches, weights = copied
            newest = self._with_weights(weights)
            if self._probe is None:
                self._probe = SurrogateProbe([newest])
            else:
                self._probe = self._probe.with_newer(newest, self._members)
        return self._probe

    def _with_weights(self, weights: dict[str, torch.Tensor]) -> Surrogate:
        """A surrogate that has these very tensors."""
        surrogate = copy.deepcopy(self._template)
        surrogate.load_state_dict(weights, assign=True)
        return surrogate


def _without_weights(surrogate: Surrogate) -> Surrogate:
    """A copy on the CPU, with all its buffers, whose parameters take no memory until some are assigned."""
    template = copy.deepcopy(surrogate).to("cpu")
    for module in template.modules():
        for name, parameter in module.named_parameters(recurse=False):
            setattr(module, name, torch.nn.Parameter(parameter.to("meta")))
    return template
