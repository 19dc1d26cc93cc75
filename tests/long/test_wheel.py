"""The package as a wheel and a source distribution, installed outside of the repository."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

pytestmark = [pytest.mark.mpi, pytest.mark.long, pytest.mark.timeout(900)]

ROOT = Path(__file__).parents[2]
SMALL = {
    "simulation.command": "[python, heat.py, --mesh, '16', --steps, '10']",
    "simulation.count": "6",
    "simulation.time_steps": "10",
    "simulation.fields.temperature.shape": "[16, 16]",
    "surrogate.arguments.hidden": "[16]",
    "training.batch_size": "4",
    "training.validation.simulations": "2",
    "reservoir.capacity": "40",
    "reservoir.watermark": "5",
}


def python(*words, cwd, interpreter=sys.executable):
    """Runs Python without the path of this environment; returns the output."""
    kept = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run(
        [str(interpreter), *map(str, words)],
        cwd=cwd,
        env=kept,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A copy of the tracked files, so that a build leaves nothing in the repository."""
    folder = tmp_path_factory.mktemp("source")
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split("\0")
    words = ["tar", "--create", "--file", str(folder / "files.tar"), "--directory", str(ROOT)]
    subprocess.run([*words, *filter(None, listed)], check=True)
    copy = folder / "melissa_gen"
    copy.mkdir()
    words = ["tar", "--extract", "--file", str(folder / "files.tar"), "--directory", str(copy)]
    subprocess.run(words, check=True)
    return copy


@pytest.fixture(scope="module")
def wheel(source):
    python("-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", "dist", ".", cwd=source)
    (found,) = (source / "dist").glob("*.whl")
    return found


def test_the_wheel_holds_one_package_with_its_data(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names if ".dist-info" not in name} == {"melissa_gen"}
    for name in (
        "melissa_gen/launcher/cli.py",
        "melissa_gen/py.typed",
        "melissa_gen/report/report.html",
        "melissa_gen/report/style.html",
        "melissa_gen/report/refresh.html",
        "melissa_gen/report/comparison.html",
        "melissa_gen/study/profiles/generic-gpu.yaml",
        "melissa_gen/client/native/CMakeLists.txt",
        "melissa_gen/launcher/examples/heat/study.yaml",
    ):
        assert name in names


def test_an_example_runs_from_a_wheel_in_an_empty_environment(wheel, runs):
    environment = runs.folder / "environment"
    python("-m", "venv", environment, cwd=runs.folder)
    interpreter = environment / "bin" / "python"
    words = ("--quiet", "--disable-pip-version-check", "--constraint", ROOT / "constraints.txt")
    python(
        "-m", "pip", "install", *words, f"{wheel}[mpi]", cwd=runs.folder, interpreter=interpreter
    )
    command = (str(environment / "bin" / "melissa-gen"),)
    made = runs.command("init", "--example", "heat", "heat", command=command, PYTHONPATH="").wait()
    assert made.code == 0, made.output
    settings = [word for key, value in SMALL.items() for word in ("--set", f"{key}={value}")]
    study = runs.folder / "heat" / "study.yaml"
    run = runs.run(study, *settings, command=command, PYTHONPATH="")
    run.assert_finished()
    where = python(
        "-c",
        "import melissa_gen; print(melissa_gen.__file__)",
        cwd=runs.folder,
        interpreter=interpreter,
    )
    assert Path(where.strip()).is_relative_to(environment)
    runs.assert_nothing_left()
