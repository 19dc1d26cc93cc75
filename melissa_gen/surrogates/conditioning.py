"""How parameters and time enter a network: as inputs of their own, or by scaling and shifting its channels."""

from typing import Literal

import torch
from torch import nn

from melissa_gen.errors import StudyError, nearest

__all__ = ["Conditioning", "condition_of", "films_of", "modulated", "require_conditioning"]

Conditioning = Literal["film", "channels"]
"""`film` scales and shifts the channels of each block by numbers that a small network computes from parameters and time
(Perez et al., arXiv 1709.07871); `channels` adds each of them as a constant input field."""

_LEGAL = ("film", "channels")


def require_conditioning(conditioning: object) -> None:
    """Checks the argument `conditioning` of a network.

    Raises:
        StudyError: It is neither `film` nor `channels`.
    """
    if conditioning not in _LEGAL:
        message = (
            f"surrogate.arguments.conditioning is '{conditioning}': legal are {', '.join(_LEGAL)}"
            f"{nearest(str(conditioning), _LEGAL)}"
        )
        raise StudyError(message)


def condition_of(constants: int, width: int) -> nn.Sequential:
    """Creates the network that maps parameters and time `(n, constants)` to a condition `(n, width)`."""
    first, second = nn.Linear(constants, width), nn.Linear(width, width)
    return nn.Sequential(first, nn.SiLU(), second, nn.SiLU())


def films_of(width: int, channels: list[int]) -> nn.ModuleList:
    """Creates a layer for each of these numbers of channels, which maps a condition to scales and shifts.

    At first they are those of the identity.

    Args:
        width: Width of the condition.
        channels: Numbers of channels that are scaled and shifted.
    """
    films = nn.ModuleList(nn.Linear(width, 2 * count) for count in channels)
    for parameter in films.parameters():
        nn.init.zeros_(parameter)
    return films


def modulated(fields: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
    """Scales and shifts channels.

    Args:
        fields: Values `(n, channels, ...)`.
        numbers: Scales, relative to 1, and shifts: `(n, 2 * channels)`.
    """
    scale, shift = numbers.reshape(*numbers.shape, *[1] * (fields.dim() - 2)).chunk(2, 1)
    return fields * (1 + scale) + shift
