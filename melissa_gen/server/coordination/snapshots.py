"""The newest weights of the surrogate in training, for the sampler."""

import copy
import logging
import threading
from collections.abc import Callable

import torch

from melissa_gen.builders.surrogate import build_surrogate
from melissa_gen.builders.task import build_task
from melissa_gen.server.training.weights import unpacked
from melissa_gen.study import Study
from melissa_gen.surrogates import Surrogate, SurrogateProbe

__all__ = ["Snapshots"]

_log = logging.getLogger(__name__)


class Snapshots:
    """Asks the trainer for its weights, which it sends before its next step.

    The probe is created and used in the sampler's thread, on the CPU. The newest snapshots are kept: the probe measures
    the disagreement between them.

    Args:
        study: The study, from which the surrogate is built.
        ask: Asks the trainer for its weights; `add` takes the answer.
        timeout: Seconds that the sampler waits for the trainer's next step. After that, for example during a
            validation, the previous snapshots are used again.
    """

    def __init__(self, study: Study, ask: Callable[[], None], timeout: float = 1.0) -> None:
        ensemble = study.surrogate.ensemble
        # Each further snapshot would cost a pass, and is less informative than novelty.
        self._members = ensemble.count if ensemble and ensemble.kind == "snapshots" else 1
        self._relative = study.training.metric == "relative"
        self._keep_fields = study.sampler.acquisition is not None
        with torch.random.fork_rng(devices=[]):
            # What is random in a network and not among its weights is the same as in the trainer's.
            torch.manual_seed(study.seed)
            task = build_task(study)
            self._template = _without_weights(build_surrogate(study, task))
        # Where the surrogate can't predict from parameters alone, the sampler learns without it.
        self._usable = task.predicts_anywhere
        if not self._usable and study.sampler.acquisition is not None:
            _log.warning(
                "sampler.acquisition gets no fields of the surrogate: those of the task %s are not predicted from "
                "parameters alone",
                study.surrogate.task,
            )
        self._ask, self._timeout = ask, timeout
        self._probe: SurrogateProbe | None = None
        self._batches = 0
        self._received: tuple[int, bytes] | None = None
        self._condition = threading.Condition()

    def add(self, batches: int, weights: bytes) -> None:
        """Adds the weights after a number of steps (any thread)."""
        with self._condition:
            self._received = batches, weights
            self._condition.notify()

    def take(self) -> SurrogateProbe | None:
        """Asks for weights; returns a probe of the current surrogate, or None before training."""
        if not self._usable:
            return None
        with self._condition:
            late, self._received = self._received, None
            self._ask()
            self._condition.wait_for(lambda: self._received is not None, self._timeout)
            received = self._received or late
            self._received = None
        if received is not None and received[0] > self._batches:
            weights = unpacked(received[1])
            # Predictions that are not finite would end the sampler: the earlier snapshots are used again.
            if all(bool(torch.isfinite(tensor).all()) for tensor in weights.values()):
                self._batches = received[0]
                self._add_member(weights)
        return self._probe

    def _add_member(self, weights: dict[str, torch.Tensor]) -> None:
        newest = copy.deepcopy(self._template)
        # The surrogate shares these tensors.
        newest.load_state_dict(weights, assign=True)
        if self._probe is None:
            self._probe = SurrogateProbe(
                [newest], relative=self._relative, keep_fields=self._keep_fields
            )
        else:
            self._probe = self._probe.with_newer(newest, self._members)


def _without_weights(surrogate: Surrogate) -> Surrogate:
    """Returns the surrogate with all buffers; its parameters take no memory until tensors are assigned."""
    for module in surrogate.modules():
        for name, parameter in module.named_parameters(recurse=False):
            setattr(module, name, torch.nn.Parameter(parameter.to("meta")))
    return surrogate
