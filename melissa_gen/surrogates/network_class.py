"""Imports and instantiates the network class that a study names, from a package or a user's file."""

from pathlib import Path
from typing import Any

import torch
from torch import nn

from melissa_gen.errors import StudyError
from melissa_gen.surrogates.class_path import ClassKey

__all__ = ["construct", "input_dtype", "load_class"]

KEY = ClassKey("surrogate.class", nn.Module, "melissa_gen.surrogates.MLP")


def load_class(class_path: str, base_folder: str | Path = ".") -> type[nn.Module]:
    """Imports a network class.

    A file can import installed packages and other files of its folder.

    Args:
        class_path: "package.module.Class" of an installed package, "module.Class" of a file in the base folder, or
            "file.py:Class".
        base_folder: Folder to which a relative path refers: that of the study file.

    Returns:
        The class.

    Raises:
        StudyError: The file, module or class is missing, fails to import, or is not an nn.Module.

    Example:
        >>> load_class("melissa_gen.surrogates.MLP").__name__
        'MLP'
    """
    return KEY.load(class_path, base_folder)


def construct(
    network: type[nn.Module],
    n_inputs: int,
    output_shape: tuple[int, ...],
    arguments: dict[str, Any],
) -> nn.Module:
    """Creates `network(n_inputs=..., output_shape=..., **arguments)`.

    Raises:
        StudyError: An argument is unknown or missing, or the constructor raises an exception.
    """
    given = {"n_inputs": n_inputs, "output_shape": output_shape, **arguments}
    KEY.check_arguments(network, given, "surrogate.arguments")
    try:
        return network(**given)
    except StudyError:
        raise
    except Exception as error:
        message = f"{KEY.key} {network.__name__} can't be created from surrogate.arguments: {error}"
        raise StudyError(message) from error


def input_dtype(network: nn.Module) -> torch.dtype:
    """Returns the real type of a network's inputs: that of its first weights, or float32 if it has none."""
    weight = next(network.parameters(), None)
    return torch.float32 if weight is None else weight.dtype.to_real()
