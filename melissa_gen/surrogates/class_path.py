"""Imports a class that a study names, from an installed package or a user's file."""

import importlib
import inspect
import pkgutil
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from melissa_gen.errors import StudyError, nearest
from melissa_gen.surrogates.source_files import class_name, import_file, source_file

__all__ = ["ClassKey"]


class ClassKey(NamedTuple):
    """A key of the study whose value names a class.

    Attributes:
        key: The key, for messages.
        base: Class from which the named one must be derived; None accepts any class.
        example: A legal value.
        module: Module in which a name without a module is looked up; None requires a module.
    """

    key: str
    base: type | None
    example: str
    module: str | None = None

    def load(self, class_path: str, base_folder: str | Path = ".") -> type:
        """Imports the class. A file can import installed packages and other files of its folder.

        Args:
            class_path: "package.module.Class" of an installed package, "module.Class" of a file in the base folder, or
                "file.py:Class".
            base_folder: Folder to which a relative path refers: that of the study file.

        Raises:
            StudyError: The file, module or class is missing, fails to import, or is not derived from `base`.
        """
        module, name = self._module_of(class_path, Path(base_folder)), class_name(class_path)
        found = getattr(module, name, None)
        legal = [key for key, value in vars(module).items() if self._accepts(value)]
        if found is None:
            message = f"{self.key} is '{class_path}', but it has no '{name}'{nearest(name, legal)}"
            raise StudyError(message)
        if not self._accepts(found):
            message = f"{self.key} is '{class_path}', which is not {self._described}"
            raise StudyError(message + nearest(name, legal))
        cls: type = found
        return cls

    def check_arguments(
        self, cls: type, given: dict[str, Any], arguments_key: str, first: tuple[Any, ...] = ()
    ) -> None:
        """Checks that a class accepts its arguments.

        Args:
            cls: The class.
            given: Its arguments by name.
            arguments_key: The key of the study that holds them.
            first: Positional arguments before them.

        Raises:
            StudyError: An argument is unknown or missing.
        """
        signature = inspect.signature(cls)
        try:
            signature.bind(*first, **given)
        except TypeError as error:
            names = list(signature.parameters)
            legal = [name for name in names[len(first) :] if name not in given]
            wrong = [name for name in given if name not in names]
            # The first problem may be another one, such as an argument that is missing.
            hint = nearest(wrong[0], legal) if wrong and f"'{wrong[0]}'" in str(error) else ""
            message = f"{arguments_key} do not match {cls.__name__}{signature}: {error}{hint}"
            raise StudyError(message) from error

    @property
    def _described(self) -> str:
        if self.base is None:
            return "a class"
        return (
            f"a {self.base.__module__.removesuffix('.modules.module')}.{self.base.__name__} class"
        )

    def _accepts(self, value: object) -> bool:
        return isinstance(value, type) and (self.base is None or issubclass(value, self.base))

    def _module_of(self, class_path: str, base_folder: Path) -> ModuleType:
        path = source_file(class_path, base_folder)
        if path is not None:
            root = path.parent if ":" in class_path else base_folder
            return self._run_file(class_path, path, root)
        module_name = class_path.rpartition(".")[0] or self.module
        if not module_name:
            message = (
                f"{self.key} is '{class_path}': legal are 'package.module.Class' and 'file.py:Class', "
                f"e.g. '{self.example}'"
            )
            raise StudyError(message)
        return self._import(class_path, module_name)

    def _run_file(self, class_path: str, path: Path, root: Path) -> ModuleType:
        if not path.is_file():
            others = [file.name for file in path.parent.glob("*.py")]
            hint = nearest(path.name, others)
            message = f"{self.key} is '{class_path}', but there is no file {path}{hint}"
            raise StudyError(message)
        try:
            module = import_file(path, root)
        except Exception as error:
            raise StudyError(self._failure(class_path, error)) from error
        if module is None:
            message = f"{self.key} is '{class_path}', but {path} is not a Python file (.py)"
            raise StudyError(message)
        return module

    def _import(self, class_path: str, name: str) -> ModuleType:
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as error:
            missing = error.name or ""
            if name != missing and not name.startswith(missing + "."):
                raise StudyError(self._failure(class_path, error)) from error
            parent, _, last = missing.rpartition(".")
            folders = importlib.import_module(parent).__path__ if parent else None
            hint = nearest(last, (module.name for module in pkgutil.iter_modules(folders)))
            message = f"{self.key} is '{class_path}', but there is no module '{missing}'{hint}"
            raise StudyError(message) from error
        except Exception as error:
            raise StudyError(self._failure(class_path, error)) from error

    def _failure(self, class_path: str, error: Exception) -> str:
        return (
            f"{self.key} is '{class_path}', which fails to import: {type(error).__name__}: {error}"
        )
