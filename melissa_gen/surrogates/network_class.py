"""Imports and instantiates the network class that a study names, from a package or a user's file."""

import importlib
import inspect
import pkgutil
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from melissa_gen.errors import StudyError, nearest
from melissa_gen.surrogates.source_files import class_name, import_file, source_file

__all__ = ["construct", "input_dtype", "load_class"]

KEY = "surrogate.class"


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
    path, name = source_file(class_path, base_folder), class_name(class_path)
    if path is not None:
        module = _run_file(
            class_path, path, path.parent if ":" in class_path else Path(base_folder)
        )
    else:
        module_name = class_path.rpartition(".")[0]
        if not module_name:
            message = (
                f"{KEY} is '{class_path}': legal are 'package.module.Class' and 'file.py:Class', "
                "e.g. 'melissa_gen.surrogates.MLP'"
            )
            raise StudyError(message)
        module = _import(class_path, module_name)
    found = getattr(module, name, None)
    networks = [key for key, value in vars(module).items() if _is_network(value)]
    if found is None:
        message = f"{KEY} is '{class_path}', but it has no '{name}'{nearest(name, networks)}"
        raise StudyError(message)
    if not _is_network(found):
        message = f"{KEY} is '{class_path}', which is not a torch.nn.Module class"
        raise StudyError(message + nearest(name, networks))
    network: type[nn.Module] = found
    return network


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
    try:
        inspect.signature(network).bind(**given)
    except TypeError as error:
        legal = [name for name in inspect.signature(network).parameters if name not in given]
        wrong = [name for name in given if name not in inspect.signature(network).parameters]
        hint = nearest(wrong[0], legal) if wrong else ""
        message = (
            f"surrogate.arguments do not match {network.__name__}"
            f"{inspect.signature(network)}: {error}{hint}"
        )
        raise StudyError(message) from error
    try:
        return network(**given)
    except StudyError:
        raise
    except Exception as error:
        message = f"{KEY} {network.__name__} can't be created from surrogate.arguments: {error}"
        raise StudyError(message) from error


def input_dtype(network: nn.Module) -> torch.dtype:
    """Returns the real type of a network's inputs: that of its first weights, or float32 if it has none."""
    weight = next(network.parameters(), None)
    return torch.float32 if weight is None else weight.dtype.to_real()


def _is_network(value: object) -> bool:
    return isinstance(value, type) and issubclass(value, nn.Module)


def _run_file(class_path: str, path: Path, root: Path) -> ModuleType:
    if not path.is_file():
        others = [file.name for file in path.parent.glob("*.py")]
        hint = nearest(path.name, others)
        message = f"{KEY} is '{class_path}', but there is no file {path}{hint}"
        raise StudyError(message)
    try:
        module = import_file(path, root)
    except Exception as error:
        raise StudyError(_failure(class_path, error)) from error
    if module is None:
        message = f"{KEY} is '{class_path}', but {path} is not a Python file (.py)"
        raise StudyError(message)
    return module


def _import(class_path: str, name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if name != missing and not name.startswith(missing + "."):
            raise StudyError(_failure(class_path, error)) from error
        parent, _, last = missing.rpartition(".")
        folders = importlib.import_module(parent).__path__ if parent else None
        hint = nearest(last, (module.name for module in pkgutil.iter_modules(folders)))
        message = f"{KEY} is '{class_path}', but there is no module '{missing}'{hint}"
        raise StudyError(message) from error
    except Exception as error:
        raise StudyError(_failure(class_path, error)) from error


def _failure(class_path: str, error: Exception) -> str:
    return f"{KEY} is '{class_path}', which fails to import: {type(error).__name__}: {error}"
