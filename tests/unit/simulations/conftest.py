"""Modules and executables of the folders in simulations/, which are run by path and belong to no package."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

ROOT = Path(__file__).parents[3] / "simulations"


@pytest.fixture(scope="session")
def load():
    """Imports modules of a folder in simulations/ and leaves `sys.modules` unchanged.

    By default these are all modules except `network`, which needs torch.
    """

    def modules(folder, *names):
        everything = {path.stem for path in (ROOT / folder).glob("*.py")}
        names = names or everything - {"network"}
        outside = {name: sys.modules.pop(name, None) for name in names}
        sys.path.insert(0, str(ROOT / folder))
        try:
            return SimpleNamespace(**{name: __import__(name) for name in names})
        finally:
            sys.path.remove(str(ROOT / folder))
            for name, module in outside.items():
                sys.modules.pop(name, None)
                if module is not None:
                    sys.modules[name] = module

    return modules


@pytest.fixture(scope="session")
def run():
    """Runs an executable of a folder on one rank, without a server."""

    def script(path, *options):
        command = [sys.executable, str(ROOT / path), *map(str, options)]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)

    return script
