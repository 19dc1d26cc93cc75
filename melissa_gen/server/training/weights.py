"""The weights of the surrogate as bytes, for the sampler in the control process."""

import safetensors.torch
import torch

from melissa_gen.surrogates import Surrogate

__all__ = ["copied", "packed", "unpacked"]


def copied(surrogate: Surrogate) -> dict[str, torch.Tensor]:
    """Returns a copy of the weights in the memory of the host."""
    return {
        name: tensor.detach().to("cpu", copy=True).contiguous()
        for name, tensor in surrogate.state_dict().items()
    }


def packed(weights: dict[str, torch.Tensor]) -> bytes:
    """Returns weights in the format of safetensors."""
    data: bytes = safetensors.torch.save(weights)
    return data


def unpacked(data: bytes) -> dict[str, torch.Tensor]:
    """Returns the weights that `packed` has packed."""
    weights: dict[str, torch.Tensor] = safetensors.torch.load(data)
    return weights
