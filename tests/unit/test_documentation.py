"""The documentation agrees with the code: generated pages are complete, and printed commands and studies are legal."""

import ast
import importlib
import inspect
import pkgutil
import re
import shlex
from pathlib import Path

import pytest
import typer.main
import yaml
from generators import MAKERS, c_api, commands, samplers, study_keys

from melissa_gen import sampling
from melissa_gen.launcher.cli import app
from melissa_gen.launcher.global_options import options_first
from melissa_gen.surrogates import Surrogate

ROOT = Path(__file__).resolve().parents[2]
PAGES = ROOT / "docs" / "pages"
TEXTS = {path.relative_to(PAGES).as_posix(): path.read_text() for path in PAGES.rglob("*.md")}
GENERATED = {path: text for make in MAKERS for path, text in make().items()}
MARKDOWN = TEXTS | {path: text for path, text in GENERATED.items() if isinstance(text, str)}
DOCUMENTS = MARKDOWN | {
    name: (ROOT / name).read_text()
    for name in (
        "README.md",
        "CONTRIBUTING.md",
        "simulations/README.md",
        "slurm/README.md",
        "tests/benchmarks/README.md",
    )
    if (ROOT / name).exists()
}
SINKS = ROOT / "melissa_gen" / "sinks"
RUN_DIRECTORY = TEXTS["reference/run-directory.md"]


def section(title):
    """Returns the text below one heading of the page on the run directory."""
    return RUN_DIRECTORY.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def rows(text):
    """Maps the code in the first cell of each table row to the whole row."""
    return {
        match["name"]: match[0]
        for match in re.finditer(r"^\| `(?P<name>[^`]+)` \|.*$", text, flags=re.M)
    }


def test_every_study_key_has_a_description_and_is_in_the_reference():
    page = GENERATED[study_keys.PATH]
    for part in study_keys.parts():
        for key in part.keys:
            where = f"{part.path} {part.choice} {key.name}"
            assert key.field.description, where
            assert f"| `{key.name}` |" in page, where


def test_every_argument_of_every_sampler_has_a_description():
    page = GENERATED[samplers.PATH]
    for name, method in sampling.METHODS.items():
        assert f"### `{name}`" in page
        for argument, field in method.arguments.model_fields.items():
            assert field.description, f"{name}: {argument}"


def test_every_command_and_option_is_in_the_reference():
    page = GENERATED[commands.PATH]
    for name, command in typer.main.get_command(app).commands.items():
        assert f"## `{name}`" in page
        for parameter in command.params:
            assert parameter.param_type_name == "argument" or parameter.opts[0] in page


def test_every_function_of_the_native_interfaces_is_in_the_reference():
    page = GENERATED[c_api.PATH]
    header = set(re.findall(r"\b(mg_\w+)\(", c_api.HEADER.read_text()))
    assert {one.name for one in c_api.functions()} >= {
        name for name in header if name != "mg_client"
    }
    assert len(c_api.fortran_calls()) == 8
    assert all(f"| `{name}` | `" in page for name in c_api.fortran_calls())


def written_events():
    """Returns the events that the server writes: name to the keys given beside it."""
    found: dict[str, set[str]] = {}
    for path in (ROOT / "melissa_gen" / "server").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call):
                continue
            if isinstance(node.func, ast.Name) and node.func.id == "WriteEvent":
                name, fields = (ast.unparse(given) for given in node.args)
                if name.startswith("'"):
                    found.setdefault(ast.literal_eval(name), set()).update(
                        re.findall(r"'(\w+)':", fields)
                    )
            if not isinstance(node.func, ast.Attribute):
                continue
            if node.func.attr not in ("event", "_event", "write_event") or not node.args:
                continue
            first = node.args[0]
            names = [first.body, first.orelse] if isinstance(first, ast.IfExp) else [first]
            for name in names:
                if isinstance(name, ast.Constant) and isinstance(name.value, str):
                    keys = {one.arg for one in node.keywords if one.arg} - {"forward"}
                    found.setdefault(name.value, set()).update(keys)
    return found


def test_every_event_is_in_the_reference_with_its_keys():
    written, documented = written_events(), rows(section("events.jsonl"))
    assert len(written) > 15
    assert written.keys() == documented.keys()
    for name, keys in written.items():
        missing = [key for key in keys if f"`{key}`" not in documented[name]]
        assert not missing, f"{name}: {missing}"


def dictionary_keys(function):
    """Returns the constant keys of all dictionaries in the functions of a name that write results."""
    found = set()
    for path in [*(ROOT / "melissa_gen" / "server").rglob("*.py"), *SINKS.glob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.FunctionDef) or node.name != function:
                continue
            if ast.unparse(node.returns or ast.Constant(None)) != "dict[str, Any]":
                continue
            mappings = [one for one in ast.walk(node) if isinstance(one, ast.Dict)]
            keys = [key for one in mappings for key in one.keys]
            found |= {key.value for key in keys if isinstance(key, ast.Constant)}
    return found


@pytest.mark.parametrize(
    ("title", "function"),
    [
        ("summary.json", "_summary"),
        ("summary.json", "summary"),
        ("simulations.jsonl", "line"),
    ],
)
def test_every_key_of_the_results_is_in_the_reference(title, function):
    keys = dictionary_keys(function)
    assert keys
    assert not [key for key in keys if f"`{key}`" not in section(title)]


LINK = re.compile(r"(?<!!)\[[^\]]*\]\((?P<target>[^)\s]+)\)|!\[[^\]]*\]\((?P<picture>[^)\s]+)\)")


def anchors(text):
    """Returns the anchors of a page's headings, as Python-Markdown names them."""
    found = set(re.findall(r"\{ *#([\w-]+) *\}", text))
    for heading in re.findall(r"^#+ +(.*)$", text, flags=re.M):
        plain = re.sub(r"[^\w\s-]", "", heading).strip().lower()
        found.add(re.sub(r"[-\s]+", "-", plain))
    return found


@pytest.mark.parametrize("name", sorted(DOCUMENTS))
def test_links_lead_somewhere(name):
    text = re.sub(r"^```.*?^```$", "", DOCUMENTS[name], flags=re.M | re.S)
    for match in LINK.finditer(text):
        target = match["target"] or match["picture"]
        if re.match(r"\w+:", target):
            continue
        file, _, anchor = target.partition("#")
        if name in MARKDOWN:
            path = (Path(name).parent / file).as_posix() if file else name
            path = "/".join(_resolved(path.split("/")))
            exists = path in MARKDOWN or path in GENERATED or (PAGES / path).exists()
            if anchor and exists:
                assert anchor in anchors(MARKDOWN[path]), f"{name}: {target}"
        else:
            exists = (ROOT / name).parent.joinpath(file).exists()
        assert exists, f"{name}: {target}"


def _resolved(parts):
    found: list[str] = []
    for part in parts:
        if part == "..":
            found.pop()
        elif part != ".":
            found.append(part)
    return found


def test_every_page_is_in_the_navigation():
    text = (ROOT / "docs" / "mkdocs.yml").read_text()
    listed = set(re.findall(r"[\w/-]+\.md", str(yaml.safe_load(text)["nav"])))
    assert listed == MARKDOWN.keys()


def printed_commands():
    """Returns every `melissa-gen` command in a block or in the text, with the page that has it."""
    found = []
    for name, text in DOCUMENTS.items():
        if name == commands.PATH:
            continue
        blocks = re.findall(r"^```(?:sh|bash|console|text)?\n(.*?)^```$", text, flags=re.M | re.S)
        lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
        inline = re.findall(r"`(melissa-gen [^`]+)`", text)
        for line in [*lines, *inline]:
            pieces = re.split(r"&&|;", line.strip().removeprefix("$ "))
            found += [(name, p.strip()) for p in pieces if p.strip().startswith("melissa-gen ")]
    return found


def listed_names():
    """Import paths of the names that the page of the Python interface lists: the heading, or else the name itself."""
    text = (PAGES / "reference" / "python.md").read_text("utf-8")
    for block in text.split("\n::: ")[1:]:
        name = block.split()[0]
        heading = re.search(r"heading: ([\w.]+)", block)
        yield heading[1] if heading else name


def test_the_public_python_names_are_those_of_the_page():
    listed = set(listed_names())
    assert len(listed) > 25
    for path in listed:
        package, _, name = path.rpartition(".")
        found, home = pkgutil.resolve_name(path), pkgutil.resolve_name(package)
        exported = inspect.ismodule(found) or inspect.isclass(home) or name in home.__all__
        assert exported, f"{path} is not in an __all__"
    # The names of the entry points are public without exception.
    for package in ("melissa_gen", "melissa_gen.client"):
        for name in set(importlib.import_module(package).__all__) - {"__version__", "Study"}:
            assert f"{package}.{name}" in listed


def test_printed_commands_are_legal():
    printed = printed_commands()
    assert len(printed) > 20
    group = typer.main.get_command(app)
    options = [one for one in group.params if "--version" not in one.opts]
    for _, line in printed:
        words = shlex.split(line.partition(" > ")[0], comments=True)[1:]
        if words in (["..."], ["--version"]) or words[0].isupper():
            continue
        front = options_first(words, options)
        at = next(n for n, word in enumerate(front) if word in group.commands)
        group.make_context("melissa-gen", [*front[:at], front[at]])
        if len(words) == 1:  # the name of a command in a sentence
            continue
        group.commands[front[at]].make_context(front[at], front[at + 1 :])


def test_the_printed_network_is_a_surrogate(tmp_path):
    text = TEXTS["how-to/own-network.md"]
    blocks = re.findall(r"^```(?:python|yaml)\n(.*?)^```$", text, flags=re.M | re.S)
    section = yaml.safe_load(blocks[0])["surrogate"]
    (tmp_path / "my_network.py").write_text(blocks[1])
    surrogate = Surrogate(
        {"viscosity": (0.1, 1.0)},
        (0.0, 1.0),
        {"u": (8, 8)},
        section["class"],
        section["arguments"],
        tmp_path,
    )
    assert surrogate.predict({"viscosity": 0.5}, time=0.5)["u"].shape == (8, 8)
