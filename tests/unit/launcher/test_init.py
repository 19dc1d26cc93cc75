import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import typer
import yaml

from melissa_gen.errors import StudyError
from melissa_gen.launcher.commands.init import Answers, ask, copy_example, examples, scaffold
from melissa_gen.launcher.jobs.mpi_jobs import solver_command
from melissa_gen.study import load_study
from melissa_gen.study.yaml_file import read_mapping

EXAMPLES = sorted((Path(__file__).parents[3] / "simulations").glob("*/*.yaml"))
ANSWERS = {
    "parameters": {"nu": (0.1, 1.0), "speed": (-2.0, 3.0)},
    "fields": {"u": [4, 5], "p": [7]},
    "time_steps": 6,
}


@pytest.mark.parametrize("kind", ["python", "bridge"])
def test_a_scaffold_can_be_run_as_written(tmp_path, kind):
    files = scaffold(Answers(kind, **ANSWERS), tmp_path / "mine")
    study = load_study(files[0])
    assert study.name == "mine"
    assert list(study.parameters) == ["nu", "speed"]
    assert study.parameters["speed"].low == -2.0
    assert {n: f.shape for n, f in study.simulation.fields.items()} == ANSWERS["fields"]
    assert study.simulation.time_steps == 6
    assert (study.simulation.bridge is not None) == (kind == "bridge")
    assert solver_command(study)
    assert "#" in files[0].read_text(), "the study is explained"


HOSTILE = [
    "on",
    "no",
    "010",
    "1:30",
    "1e-3",
    "a: b",
    "x # y",
    "- z",
    "it's",
    '"q"',
    "%y",
    "é 日",
    "null",
]


@pytest.mark.parametrize("name", HOSTILE)
def test_every_reader_of_yaml_reads_a_scaffold_alike(tmp_path, name):
    parameters = {"on": (1e-7, 1e22), "no": (-1e-9, 0.0), "y": (0.1, 1.0)}
    answers = Answers("python", parameters=parameters, fields={"off": [4]}, time_steps=60)
    path = scaffold(answers, tmp_path / name)[0]
    found = read_mapping(path)
    assert yaml.safe_load(path.read_text()) == found
    assert found["name"] == name
    law = found["parameters"]["on"]
    assert (law["low"], law["high"]) == (1e-7, 1e22)
    load_study(path)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_every_reader_of_yaml_reads_an_example_alike(path):
    assert yaml.safe_load(path.read_text()) == read_mapping(path)


@pytest.mark.parametrize("kind", ["c", "fortran"])
def test_a_scaffold_in_another_language(tmp_path, kind):
    files = scaffold(Answers(kind, **ANSWERS), tmp_path / "mine")
    assert load_study(files[0]).simulation.command == ["./solver"]
    assert {"c": "solver.c", "fortran": "solver.f90"}[kind] in [path.name for path in files]


def test_the_users_own_command(tmp_path, monkeypatch):
    program = tmp_path / "bin" / "flow"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    command = "bin/flow --nu '{{ nu }}' input.txt"
    answers = Answers("bridge", command, reader="vtk", **ANSWERS)
    files = scaffold(answers, tmp_path / "mine")
    assert [path.name for path in files] == ["study.yaml", "input.txt.j2"]
    study = load_study(files[0])
    assert study.simulation.command == [str(program), "--nu", "{{ nu }}", "input.txt"]
    assert study.simulation.bridge.reader.format == "vtk"
    assert solver_command(study)


@pytest.mark.parametrize("reader", ["csv", "hdf5", "numpy", "vtk", "binary", "openfoam"])
def test_every_reader_is_legal(tmp_path, reader):
    (study, *_) = scaffold(Answers("bridge", "true", reader=reader), tmp_path / "mine")
    assert load_study(study).simulation.bridge.reader.format == reader


@pytest.mark.parametrize(
    ("answers", "words"),
    [
        ({"kind": "pyton"}, "kind 'pyton' (did you mean 'python'?)"),
        ({"kind": "bridge", "command": "x", "reader": "vtu"}, "reader 'vtu' (did you mean 'vtk'?)"),
        ({"kind": "bridge", "reader": "vtk"}, "needs your own --command"),
        ({"time_steps": 0}, "'0' is not a number of time steps"),
    ],
)
def test_an_answer_that_is_not_legal(tmp_path, answers, words):
    with pytest.raises(StudyError) as caught:
        scaffold(Answers(**answers), tmp_path / "mine")
    assert words in str(caught.value)
    assert not (tmp_path / "mine").exists()


def test_a_folder_in_use_is_not_changed(tmp_path):
    (tmp_path / "thesis").write_text("")
    with pytest.raises(StudyError, match="already exists and is not empty"):
        scaffold(Answers(), tmp_path)
    with pytest.raises(StudyError, match="already exists and is not empty"):
        copy_example("heat", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis"]


def test_missing_values_are_prompted_for(monkeypatch):
    replies = iter(["bridge", "./flow", "nu:1", "nu=0.1:1, b=2:3", "u=8x9", "12", "vtk"])
    asked = []

    def prompt(text, default):
        asked.append(text)
        return next(replies)

    monkeypatch.setattr(typer, "prompt", prompt)
    missing = {"kind", "command", "parameters", "fields", "time_steps", "reader"}
    answers = ask(Answers(), missing)
    assert answers == Answers(
        "bridge", "./flow", {"nu": (0.1, 1.0), "b": (2.0, 3.0)}, {"u": [8, 9]}, 12, "vtk"
    )
    assert len(asked) == 7, "a reply that is not legal is asked for again"


@pytest.mark.parametrize("name", examples())
def test_an_example_is_copied(tmp_path, name):
    studies = copy_example(name, tmp_path / "mine")
    # The first one is the one to check next.
    assert studies[0].name == "study.yaml" or not (tmp_path / "mine" / "study.yaml").exists()
    for path in studies:
        study = load_study(path)
        program = study.simulation.command[0]
        # The examples of other codes are copied whether or not the code is installed.
        if program == "python" or (study.folder / program).exists() or shutil.which(program):
            assert solver_command(study)
    assert not list((tmp_path / "mine").rglob("__pycache__"))


def test_an_unknown_example(tmp_path):
    with pytest.raises(StudyError, match=r"no example 'haet' \(did you mean 'heat'\?\); legal: .*"):
        copy_example("haet", tmp_path / "mine")


def test_scaffold_and_examples_are_in_the_wheel(tmp_path):
    """Built as pip would, from a copy, so that the working tree stays clean."""
    source = tmp_path / "source"
    here = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(__file__))))
    ignored = shutil.ignore_patterns(".git", ".venv", "tests", "runs", "*.egg-info", "build")
    shutil.copytree(here, source, symlinks=True, ignore=ignored)
    build = (
        "from setuptools.build_meta import build_wheel; import sys; print(build_wheel(sys.argv[1]))"
    )
    words = [sys.executable, "-c", build, str(tmp_path)]
    done = subprocess.run(words, cwd=source, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    wheel = tmp_path / done.stdout.split()[-1]
    listing = subprocess.run(
        [sys.executable, "-m", "zipfile", "-l", str(wheel)],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    for name in (
        "launcher/scaffold/study.yaml.j2",
        "launcher/examples/heat/study.yaml",
        "launcher/examples/openfoam_cavity/case/0/U.j2",
        "melissa_gen/client/native/CMakeLists.txt",
        "melissa_gen/bridge/__main__.py",
    ):
        assert name in listing


def test_a_scaffold_in_c_names_the_folder_of_the_native_client(tmp_path):
    made = scaffold(Answers(kind="c"), tmp_path / "mine")
    (makefile,) = (path for path in made if path.name == "Makefile")
    folders = re.findall(r"/\S*client/native", makefile.read_text())
    assert folders
    assert all((Path(folder) / "CMakeLists.txt").is_file() for folder in folders)
