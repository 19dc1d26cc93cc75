"""The benchmarks, which no other test runs, import what exists."""

import ast
import importlib
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "benchmarks"
SCRIPTS = sorted(FOLDER.rglob("*.py"))


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: str(path.relative_to(FOLDER)))
def test_names_that_a_benchmark_imports_exist(script):
    for node in ast.walk(ast.parse(script.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            for name in node.names:
                assert exists(node.module, name.name, script), f"{node.module}.{name.name}"


def exists(module, name, script):
    """Whether a module of the project, or one beside the script, has the name; others are not looked at."""
    for folder in (script.parent, FOLDER):
        neighbor = folder / f"{module.replace('.', '/')}.py"
        if neighbor.exists():
            return name in top_level_names(neighbor)
    if module.split(".")[0] not in ("melissa_gen", "tests"):
        return True
    found = importlib.import_module(module)
    return hasattr(found, name) or f"{module}.{name}" in sys.modules


def top_level_names(path):
    """The names that a module defines or imports."""
    names = set()
    for node in ast.parse(path.read_text()).body:
        for one in ast.walk(node) if not isinstance(node, DEFINITIONS) else [node]:
            if isinstance(one, DEFINITIONS):
                names.add(one.name)
            elif isinstance(one, ast.Name) and isinstance(one.ctx, ast.Store):
                names.add(one.id)
            elif isinstance(one, ast.alias):
                names.add(one.asname or one.name)
    return names


DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
