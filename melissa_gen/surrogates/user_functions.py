"""Functions of the user that a task or a surrogate calls, by name in the study."""

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from melissa_gen.errors import StudyError, nearest
from melissa_gen.surrogates.class_path import ClassKey

__all__ = ["call", "load_function"]

Function = Callable[..., Any]


class _FunctionKey(ClassKey):
    """A key of the study whose value names a function."""

    @property
    def _described(self) -> str:
        return "a function"

    def _accepts(self, value: object) -> bool:
        return callable(value) and not isinstance(value, type)


def load_function(
    key: str,
    given: str | Mapping[str, Any],
    base_folder: str | Path,
    ready: Mapping[str, Function] | None = None,
) -> Function:
    """Imports a function that a study names.

    Args:
        key: The key of the study, for messages.
        given: `NAME` of a ready function, `package.module.function`, `file.py:function`; or a mapping with `function`
            and `arguments`, which are passed by name.
        base_folder: Folder to which a relative path refers.
        ready: Functions that have a name of their own.

    Raises:
        StudyError: The function can't be imported, or the mapping has another key.
    """
    section: dict[str, Any] = dict(given) if isinstance(given, Mapping) else {"function": given}
    arguments = section.pop("arguments", {})
    path = section.pop("function", None)
    if section or not isinstance(path, str) or not isinstance(arguments, Mapping):
        message = f"{key} is {given}: legal are a name, or {{function: NAME, arguments: {{...}}}}"
        raise StudyError(message)
    function = (ready or {}).get(path)
    if function is None and "." not in path:
        names = [*(ready or {}), "'file.py:function'"]
        message = f"{key} is '{path}': legal are {', '.join(names)}{nearest(path, ready or {})}"
        raise StudyError(message)
    if function is None:
        found: Any = _FunctionKey(key, None, "physics.py:residual").load(path, base_folder)
        function = found
    assert function is not None
    return functools.partial(function, **arguments) if arguments else function


def call(key: str, function: Function, *given: Any) -> Any:
    """Calls a function of the user.

    Raises:
        StudyError: It raises an exception.
    """
    try:
        return function(*given)
    except StudyError:
        raise
    except Exception as error:
        missing = f" (there is no {error})" if isinstance(error, KeyError) else f": {error}"
        message = f"{key} raises {type(error).__name__}{missing}"
        raise StudyError(message) from error
