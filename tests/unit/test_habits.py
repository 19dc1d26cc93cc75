"""Rules for all source files: imports between packages, no import cycles, sizes, and names of modules."""

import ast
import graphlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "melissa_gen"
# Entry points that may start the launcher: the only modules of the package that import it.
STARTS_THE_LAUNCHER = {"melissa_gen.api"}
# Room -> rooms of the package that it must never import.
FORBIDDEN = {
    "errors": {"*"},
    "protocol": {"client", "server", "study", "sampling", "surrogates", "reservoir", "report"},
    "client": {"server", "study", "sampling", "surrogates", "reservoir", "report", "run_dir"},
    "study": {"server", "client", "sampling", "surrogates", "reservoir", "report", "run_dir"},
    "statistics": {"*"},
    "reservoir": {
        "tasks",
        "server",
        "client",
        "study",
        "sampling",
        "surrogates",
        "report",
        "run_dir",
    },
    "surrogates": {
        "tasks",
        "server",
        "client",
        "study",
        "sampling",
        "reservoir",
        "report",
        "run_dir",
    },
    "tasks": {
        "server",
        "client",
        "study",
        "sampling",
        "reservoir",
        "report",
        "run_dir",
        "builders",
    },
    "sampling": {"server", "client", "study", "surrogates", "reservoir", "report", "run_dir"},
    "run_dir": {"server", "client", "sampling", "reservoir", "surrogates", "tasks", "report"},
    "report": {"server", "client", "sampling", "reservoir", "surrogates"},
}
# Classes of one name, each with its reason: all other names of classes are unique.
SHARED_CLASS_NAMES = {
    "Tick": "the passage of time, an event of the machines of launcher and server"
}
# Functions above the limit, each with its reason.
LONG_FUNCTIONS: dict[str, str] = {}
LINES_OF_A_FILE, LINES_OF_A_FUNCTION = 500, 60
NATIVE = sorted((PACKAGE / "client" / "native").rglob("*.[chf]*"))


def sources():
    """Module name to file, of the package and the launcher; the link to the launcher is followed once."""
    found = {}
    for folder, prefix in ((PACKAGE, "melissa_gen"), (ROOT / "launcher", "melissa_gen.launcher")):
        for path in sorted(folder.rglob("*.py")):
            parts = path.relative_to(folder).with_suffix("").parts
            if folder == PACKAGE and parts[0] == "launcher":
                continue
            if parts[0] in ("examples", "scaffold"):
                continue
            names = parts[:-1] if parts[-1] == "__init__" else parts
            found[".".join((prefix, *names))] = path
    return found


SOURCES = sources()
TREES = {name: ast.parse(path.read_text("utf-8")) for name, path in SOURCES.items()}


def imports(nodes):
    """Modules of the package that the nodes import."""
    for node in nodes:
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            inner = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [name if name in SOURCES else node.module for name in inner]
        else:
            continue
        yield from (name for name in names if name.split(".")[0] == "melissa_gen")


def at_import(tree):
    """Yields the nodes that are executed when a module is imported, without functions and imports for type checkers."""
    pending = list(tree.body)
    while pending:
        node = pending.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            pending += node.orelse
            continue
        yield node
        pending += list(ast.iter_child_nodes(node))


def room(name):
    return name.split(".")[1] if "." in name else ""


@pytest.mark.parametrize("name", sorted(SOURCES))
def test_a_module_imports_only_what_its_room_may(name):
    forbidden = FORBIDDEN.get(room(name), set())
    for imported in set(imports(ast.walk(TREES[name]))):
        if room(imported) == "launcher" and room(name) != "launcher":
            assert name in STARTS_THE_LAUNCHER, f"{name} imports {imported}"
        elif room(imported) not in ("", room(name)):
            wrong = room(imported) in forbidden or ("*" in forbidden and room(imported) != "errors")
            assert not wrong, f"{name} imports {imported}"


def test_there_is_no_import_cycle():
    graph = {
        name: {one for one in imports(at_import(tree)) if one != name and one in SOURCES}
        for name, tree in TREES.items()
    }
    # A package's __init__ gathers names of its modules; those do not import it back.
    graphlib.TopologicalSorter(graph).prepare()


# All other Python files: tests, benchmarks, examples, and scripts of the documentation and of any folder to come.
SCRIPTS = {
    str(path.relative_to(ROOT)): path
    for folder in sorted(ROOT.iterdir())
    if folder.is_dir() and folder.name not in ("build", "dist", "launcher", "melissa_gen", "shared")
    if not folder.name.startswith(".")
    for path in sorted(folder.rglob("*.py"))
}


def test_the_rules_hold_for_every_folder():
    folders = {name.split("/")[0] for name in SCRIPTS}
    assert {"docs", "simulations", "tests"} <= folders
    parts = {name.split("/")[1] for name in SCRIPTS if name.startswith("tests/")}
    assert {"benchmarks", "faults", "mpi", "native", "oar", "slurm", "unit"} <= parts


@pytest.mark.parametrize("name", [*sorted(SOURCES), *SCRIPTS])
def test_files_and_functions_stay_small(name):
    text = (SOURCES | SCRIPTS)[name].read_text("utf-8")
    assert len(text.splitlines()) <= LINES_OF_A_FILE
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = node.end_lineno - node.lineno + 1
            key = f"{name}.{node.name}"
            assert lines <= LINES_OF_A_FUNCTION or key in LONG_FUNCTIONS, f"{key}: {lines} lines"


def test_module_names_say_what_the_modules_hold():
    empty = {"utils", "util", "helpers", "helper", "misc", "common", "manager", "tools"}
    assert [name for name in SOURCES if name.rsplit(".", 1)[-1] in empty] == []


def test_a_class_name_stands_for_one_class():
    public = [
        node.name
        for tree in TREES.values()
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    ]
    repeated = {name for name in public if public.count(name) > 1}
    assert repeated == set(SHARED_CLASS_NAMES)


def test_every_package_says_what_it_holds():
    packages = [name for name, path in SOURCES.items() if path.name == "__init__.py"]
    assert [name for name in packages if not ast.get_docstring(TREES[name])] == []


def test_every_module_logs_by_the_standard_module():
    """Only the command line, the views and the servers' entry point print."""
    may = {"melissa_gen.launcher.cli", "melissa_gen.logs"}
    printing = {
        name
        for name, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "print"
    }
    assert printing <= may, printing - may


def private_members(tree):
    """Attributes with a leading underscore of anything but `self`, `cls`, `super()` and a few modules."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Attribute) or not node.attr.startswith("_"):
            continue
        if node.attr.endswith("_") or node.attr in ("_replace", "_asdict", "_fields"):
            continue
        owner = ast.unparse(node.value)
        if owner.split(".")[0].split("(")[0] not in ("self", "cls", "super", "os", "sys", "torch"):
            yield f"{owner}.{node.attr} in line {node.lineno}"


@pytest.mark.parametrize("path", NATIVE, ids=lambda path: str(path.relative_to(ROOT)))
def test_native_sources_stay_small(path):
    assert len(path.read_text("utf-8").splitlines()) <= LINES_OF_A_FILE


@pytest.mark.parametrize("name", [name for name in SCRIPTS if name.startswith("tests/")])
def test_tests_use_public_interfaces(name):
    tree = ast.parse(SCRIPTS[name].read_text("utf-8"))
    assert list(private_members(tree)) == []
    patched = [
        word.value.rsplit(".", 1)[-1]
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "monkeypatch.setattr"
        for word in node.args[:2]
        if isinstance(word, ast.Constant) and isinstance(word.value, str)
    ]
    constants = [name for name in patched if name.isupper() or name.startswith("_")]
    assert constants == [], "module constants are not patched; inject the value"
