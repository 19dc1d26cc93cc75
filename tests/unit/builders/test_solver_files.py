"""Which files decide whether a data set of an earlier solver is still valid."""

import os

import pytest
import yaml

from melissa_gen.builders.solver_files import FileLimits, changed_files, solver_files
from melissa_gen.study import load_study
from tests.unit.small_study import SMALL_STUDY


@pytest.fixture
def folder(study_file):
    write(study_file.parent / "solver.py")
    return study_file.parent


def write(path, text="1"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def files(folder, limits=None):
    return solver_files(load_study(folder / "study.yaml"), limits)


@pytest.mark.parametrize(
    "name",
    ["solver.py", "phys/core.py", "config.ini", "mesh/deep/er/fine.msh", "no_suffix", ".env"],
)
def test_a_file_that_the_solver_can_read_decides(folder, name):
    path = write(folder / name)
    before = files(folder).digests
    assert changed_files(before, files(folder).digests) == []
    path.write_text("2")
    assert changed_files(before, files(folder).digests) == [name]
    path.unlink()
    if name != "solver.py":
        assert changed_files(before, files(folder).digests) == [name]


@pytest.mark.parametrize(
    "name",
    [
        "study.yaml",
        "run/run.json",
        "run/logs/client-0.txt",
        "starting/.lock",
        "validation/CACHEDIR.TAG",
        "venv/pyvenv.cfg",
        "phys/__pycache__/core.cpython-311.pyc",
        ".git/HEAD",
        "run.log",
        "nohup.out",
        "data.h5.partial",
    ],
)
def test_outputs_and_the_study_itself_do_not_decide(folder, name):
    write(folder / "run/run.json", "{}")
    (folder / "starting/logs").mkdir(parents=True)
    path = folder / name
    if not path.exists():
        write(path)
    assert name not in files(folder).digests


def test_another_yaml_file_decides(folder):
    write(folder / "config.yaml", "parameters:\n  a: 1\n")
    assert "config.yaml" in files(folder).digests


def test_files_behind_links_decide_and_circles_end(folder, tmp_path):
    write(tmp_path / "shared" / "mesh.msh")
    (folder / "mesh").symlink_to(tmp_path / "shared")
    (folder / "circle").symlink_to(folder)
    found = files(folder).digests
    assert "mesh/mesh.msh" in found
    assert not any(name.startswith("circle/") for name in found)


def test_an_executable_and_inputs_outside_of_the_folder_decide(folder, tmp_path):
    program = write(tmp_path / "bin" / "flow")
    program.chmod(0o755)
    outside = SMALL_STUDY | {
        "simulation": SMALL_STUDY["simulation"] | {"command": [str(program), "-x"]},
    }
    write(folder / "study.yaml", yaml.safe_dump(outside))
    assert os.path.relpath(program, folder) in files(folder).digests


def test_a_large_file_is_compared_by_size_and_time_with_a_notice(folder):
    path = write(folder / "big.bin", "0123456789")
    limits = FileLimits(file_bytes=9)
    found = files(folder, limits)
    assert found.unhashed == ("big.bin",)
    assert "big.bin" in found.caveat()
    os.utime(path, ns=(1, 1))
    assert "big.bin" in changed_files(found.digests, files(folder, limits).digests)


def test_the_bytes_in_total_are_limited(folder):
    for number in range(5):
        write(folder / f"{number}.bin", "x" * 10)
    assert len(files(folder, FileLimits(total_bytes=25)).unhashed) >= 3


def test_the_number_of_files_is_limited_with_a_notice(folder):
    for number in range(5):
        write(folder / "many" / f"{number}.bin")
    found = files(folder, FileLimits(files=3))
    assert len(found.digests) == 3
    assert "more than 3 files" in found.caveat()


def test_names_that_are_not_utf8(folder):
    (folder / os.fsdecode(b"caf\xe9.ini")).write_text("1")
    assert os.fsdecode(b"caf\xe9.ini") in files(folder).digests
