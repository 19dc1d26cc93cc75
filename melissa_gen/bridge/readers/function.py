"""Reads output with a function of the user, `read(folder, step, ended)`."""

import importlib.util
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy.typing as npt

from melissa_gen.bridge.readers.base import OutputError
from melissa_gen.errors import StudyError, nearest

__all__ = ["UserReader", "load_function"]


class UserReader:
    """Reads output with a function of the user.

    Args:
        name: The function as `file.py:function`.
        study: Folder of the study.
        folder: Folder of the simulation.
        key: Key of the reader in the study, for messages.
    """

    def __init__(self, name: str, study: Path, folder: Path, key: str) -> None:
        self._name, self._folder = name, folder
        self._function = load_function(name, study, key)

    def read(self, step: int, ended: bool) -> Mapping[str, npt.NDArray[Any]] | None:
        """Returns the fields that the function returns."""
        try:
            found = self._function(self._folder, step, ended)
        except Exception as error:
            msg = f"{self._name} failed: {type(error).__name__}: {error}"
            raise OutputError(msg) from error
        if found is not None and not isinstance(found, Mapping):
            msg = (
                f"{self._name} returned {type(found).__name__}; a mapping from field name to array is "
                "expected, or None while the time step is not complete"
            )
            raise OutputError(msg)
        return found


def load_function(name: str, study: Path, key: str) -> Callable[..., Any]:
    """Imports a function.

    Args:
        name: The function as `file.py:function`.
        study: Folder of the study.
        key: Key of the reader in the study, for messages.

    Raises:
        StudyError: The function does not exist, or the file can't be imported.
    """
    file, _, attribute = name.rpartition(":")
    path = study / file
    key = f"{key}.function"
    if not path.is_file():
        msg = f"{key}: there is no file '{file}' in {study}"
        raise StudyError(msg)
    spec = importlib.util.spec_from_file_location("melissa_gen_user_reader", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        msg = f"{key}: {path} can't be imported: {type(error).__name__}: {error}"
        raise StudyError(msg) from error
    function = getattr(module, attribute, None)
    if not callable(function):
        msg = f"{key}: {path} has no function '{attribute}'{nearest(attribute, vars(module))}"
        raise StudyError(msg)
    found: Callable[..., Any] = function
    return found
