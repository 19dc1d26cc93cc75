"""How a network is executed: its precision, and whether it is compiled."""

import contextlib
from typing import Any

import torch

from melissa_gen.errors import RunError
from melissa_gen.study import TrainingSection
from melissa_gen.surrogates import Surrogate
from melissa_gen.surrogates.network_class import input_dtype

__all__ = ["compile_network", "precision"]


def precision(name: str, device: torch.device) -> contextlib.AbstractContextManager[Any]:
    """Returns a context in which a network computes with the precision `training.precision`."""
    if name == "bf16":
        return torch.autocast(device.type, torch.bfloat16)
    return contextlib.nullcontext()


def compile_network(surrogate: Surrogate, training: TrainingSection, device: torch.device) -> None:
    """Compiles the network in place and runs it once, so that errors appear before the first sample.

    Raises:
        RunError: The network can't be compiled on this machine.
    """
    rows = training.batch_size
    inputs = torch.zeros(
        rows, surrogate.n_inputs, device=device, dtype=input_dtype(surrogate.network)
    )
    surrogate.network.compile()
    try:
        with precision(training.precision, device):
            output = surrogate.network(inputs)
        torch.autograd.grad(output.float().sum(), list(surrogate.network.parameters()))
    except Exception as error:
        lines = [line for line in str(error).splitlines() if line.strip()]
        reason = f"{type(error).__name__}: {lines[0] if lines else ''}"
        message = (
            f"training.compile is true, but torch.compile fails on this network here ({reason}); "
            "it needs a C++ compiler on the server's nodes (CXX): give one, or set training.compile to false"
        )
        raise RunError(message) from error
