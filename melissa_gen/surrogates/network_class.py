"""Imports and instantiates the network class that a study names, from a package or a user's file."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from melissa_gen.errors import StudyError
from melissa_gen.surrogates.class_path import ClassKey

__all__ = ["check_network", "construct", "input_dtype", "load_class", "output_shape_of"]

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


def check_network(
    network: nn.Module,
    class_path: str,
    n_inputs: int,
    output_shape: tuple[int, ...],
    members: int | None = None,
) -> None:
    """Runs a network once on zeros, so that a wrong shape is reported before the study starts.

    Args:
        network: The network.
        class_path: Its class in the study.
        n_inputs: Number of its inputs.
        output_shape: Shape of its output without the batch axis.
        members: Number of members of an ensemble, whose output has a member axis; or None.

    Raises:
        StudyError: The network fails, or its output has another shape.
    """
    training = network.training
    network.eval()
    try:
        with torch.no_grad():
            found = network(torch.zeros(2, n_inputs, dtype=input_dtype(network)))
    except Exception as error:
        message = (
            f"surrogate.class '{class_path}' fails on inputs of shape (2, {n_inputs}): "
            f"{type(error).__name__}: {error}"
        )
        raise StudyError(message) from error
    finally:
        network.train(training)
    shape = tuple(found.shape) if isinstance(found, torch.Tensor) else type(found).__name__
    if members is not None and shape == (2, members, *output_shape):
        return
    if shape != (2, *output_shape):
        message = (
            f"surrogate.class '{class_path}' returned {shape} for inputs "
            f"(2, {n_inputs}); it must be {(2, *output_shape)}, i.e. (n, *output_shape)"
        )
        raise StudyError(message)


def output_shape_of(shapes: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    """Returns the shape of the output for fields of these shapes, without the batch axis.

    Raises:
        StudyError: There is no field.
    """
    if not shapes:
        message = "a surrogate needs at least one field"
        raise StudyError(message)
    if len(shapes) == 1:
        return shapes[0]
    if len(set(shapes)) == 1:
        return (len(shapes), *shapes[0])
    return (sum(math.prod(shape) for shape in shapes),)
