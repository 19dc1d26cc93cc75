"""Python files of a network beside the study: which file defines it, and which files it imports."""

import hashlib
import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

__all__ = ["class_name", "import_file", "source_file", "source_files"]

_NEIGHBORS = "__study_neighbors__"


def class_name(class_path: str) -> str:
    """Returns the name of the class in "file.py:Class" or "package.module.Class"."""
    return class_path.rpartition(":" if ":" in class_path else ".")[2]


def source_file(class_path: str, base_folder: str | Path = ".") -> Path | None:
    """Returns the file that defines a network, or None for a class of an installed package.

    Args:
        class_path: Value of `surrogate.class` in the study file. "module.Class" names a file if `module.py` lies in
            the base folder.
        base_folder: Folder to which a relative path refers: that of the study file.
    """
    file, colon, _ = class_path.rpartition(":")
    if colon:
        return Path(base_folder, file).expanduser()
    module = class_path.rpartition(".")[0]
    beside = Path(base_folder, *module.split(".")).with_suffix(".py") if module else None
    return beside if beside is not None and beside.is_file() else None


def source_files(path: Path, root: Path) -> dict[Path, Path]:
    """Returns the file of a network and the files that it imports from its folder.

    Args:
        path: The file, which `import_file` has imported.
        root: Folder of the imported files.

    Returns:
        Path relative to the folder of a copy, to the file. The file of the network is at the top of the copy.
    """
    module = sys.modules.get(_module_name(path))
    neighbors = getattr(module, _NEIGHBORS, ())
    return {Path(path.name): path} | {
        one.relative_to(root.resolve()): one for one in neighbors if one != path.resolve()
    }


def import_file(path: Path, root: Path) -> ModuleType | None:
    """Executes a file as a module; it can import other files of a folder.

    Two studies in one process do not share modules: each file gets a module name of its own, and the modules that it
    imports from the folder are removed from `sys.modules` afterwards.

    Args:
        path: The file.
        root: Folder whose files can be imported.

    Returns:
        The module; None if the file is not a Python file.
    """
    spec = importlib.util.spec_from_file_location(_module_name(path), path)
    if spec is None or spec.loader is None:
        return None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    try:
        with _importable(root.resolve()) as neighbors:
            spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[spec.name]
        raise
    setattr(module, _NEIGHBORS, tuple(neighbors))
    return module


@contextmanager
def _importable(root: Path) -> Iterator[list[Path]]:
    """Makes the files of a folder importable; yields a list that holds the imported ones at the end."""
    known, found = set(sys.modules), list[Path]()
    sys.path.insert(0, str(root))
    importlib.invalidate_caches()
    try:
        yield found
    finally:
        sys.path.remove(str(root))
        for name in set(sys.modules) - known:
            file = getattr(sys.modules[name], "__file__", None)
            if file and Path(file).resolve().is_relative_to(root) and "site-packages" not in file:
                found.append(Path(file).resolve())
                if not name.startswith("_surrogate_"):
                    del sys.modules[name]


def _module_name(path: Path) -> str:
    digest = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:12]
    return f"_surrogate_{path.stem}_{digest}"
