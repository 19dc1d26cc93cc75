"""Copies of the surrogate's weights for the sampler, made by the trainer between two steps."""

import copy
import threading

import torch

from melissa_gen.surrogates import Surrogate, SurrogateProbe

__all__ = ["Snapshots"]


class Snapshots:
    """Passes the trainer's weights to the sampler's thread.

    The sampler requests a snapshot, and the trainer copies its weights before its next step. Without a request it does
    nothing. The probe is created and used in the sampler's thread, on the CPU.

    The newest snapshots are kept: the probe measures the disagreement between them.

    Args:
        surrogate: The surrogate before training, of which copies are made.
        members: Number of snapshots in a probe, at least 1.
        timeout: Seconds that the sampler waits for the trainer's next step. After that, for example during a
            validation, the previous snapshots are used again.
        relative: Whether errors are relative to the magnitude of the fields.
    """

    def __init__(
        self,
        surrogate: Surrogate,
        members: int = 3,
        timeout: float = 1.0,
        *,
        relative: bool = False,
    ) -> None:
        self._relative = relative
        self._template = _without_weights(surrogate)
        self._timeout = timeout
        self._members = members
        self._probe: SurrogateProbe | None = None
        self._batches = 0
        self._copied: tuple[int, dict[str, torch.Tensor]] | None = None
        self._asked = False
        self._condition = threading.Condition()

    def offer(self, surrogate: Surrogate, batches: int) -> None:
        """Copies the weights if a snapshot was requested; called by the trainer between two steps.

        Args:
            surrogate: The surrogate in training.
            batches: Number of steps taken; an untrained surrogate is not copied.
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
        """Requests a snapshot; returns a probe of the current surrogate, or None before training."""
        with self._condition:
            late, self._copied, self._asked = self._copied, None, True
            self._condition.wait_for(lambda: self._copied is not None, self._timeout)
            copied = self._copied or late
            self._copied = None
        # Predictions that are not finite would end the sampler: the earlier snapshots are used again.
        if copied is not None and copied[0] > self._batches and _finite(copied[1]):
            self._batches, weights = copied
            newest = self._with_weights(weights)
            if self._probe is None:
                self._probe = SurrogateProbe([newest], relative=self._relative)
            else:
                self._probe = self._probe.with_newer(newest, self._members)
        return self._probe

    def _with_weights(self, weights: dict[str, torch.Tensor]) -> Surrogate:
        """Returns a surrogate that shares these tensors."""
        surrogate = copy.deepcopy(self._template)
        surrogate.load_state_dict(weights, assign=True)
        return surrogate


def _finite(weights: dict[str, torch.Tensor]) -> bool:
    return all(bool(torch.isfinite(tensor).all()) for tensor in weights.values())


def _without_weights(surrogate: Surrogate) -> Surrogate:
    """Returns a copy on the CPU with all buffers; its parameters take no memory until tensors are assigned."""
    template = copy.deepcopy(surrogate).to("cpu")
    for module in template.modules():
        for name, parameter in module.named_parameters(recurse=False):
            setattr(module, name, torch.nn.Parameter(parameter.to("meta")))
    return template
