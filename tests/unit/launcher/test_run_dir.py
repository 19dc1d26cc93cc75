import errno
import json
import os
import shutil
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import yaml

from melissa_gen.errors import RunError
from melissa_gen.run_dir.folder import (
    create_default_run_dir,
    default_run_dir,
    held_run_dir,
    record_run,
    write_json,
)


def test_the_default_is_dated_and_a_legal_name(study, tmp_path):
    path = default_run_dir("a b/../c", tmp_path, now=0.0)
    assert path.parent == tmp_path / "runs"
    assert path.name.startswith("a_b_.._c-19")


def test_studies_that_start_in_the_same_second_have_directories_of_their_own(study, tmp_path):
    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(lambda _: create_default_run_dir(study.name, tmp_path), range(8)))
    assert len(set(made)) == 8
    assert all(path.is_dir() for path in made)


def test_a_default_directory_that_can_not_be_created(study, tmp_path):
    (tmp_path / "runs").touch()
    with pytest.raises(
        RunError, match=r"can't create the run directory .* choose another --run-dir"
    ):
        create_default_run_dir(study.name, tmp_path)
    (tmp_path / "runs").unlink()
    (tmp_path / "runs").symlink_to(tmp_path / "gone" / "deep")
    with pytest.raises(RunError, match="can't create the run directory"):
        create_default_run_dir(study.name, tmp_path)


def test_a_new_run(study, tmp_path):
    with held_run_dir(tmp_path / "deep" / "run") as run_dir:
        record_run(study, run_dir)
    assert yaml.safe_load((run_dir / "study.yaml").read_text())["name"] == "small"
    run = json.loads((run_dir / "run.json").read_text())
    assert run["epoch"] == 0
    assert run["study_folder"] == str(study.folder)
    assert (run_dir / "logs").is_dir()


@pytest.mark.parametrize("name", ["run.json", "events.jsonl", "summary.json"])
def test_a_directory_with_a_run_is_refused(tmp_path, name):
    (tmp_path / name).touch()
    with pytest.raises(RunError, match=f"already holds a run \\({name}\\)"), held_run_dir(tmp_path):
        pass


def test_the_study_file_of_the_user_is_not_replaced(tmp_path):
    (tmp_path / "study.yaml").write_text("name: mine  # with remarks\n")
    with pytest.raises(RunError, match=r"study.yaml would be replaced"), held_run_dir(tmp_path):
        pass
    assert (tmp_path / "study.yaml").read_text() == "name: mine  # with remarks\n"


def test_a_start_that_failed_leaves_the_directory_usable(tmp_path):
    with pytest.raises(RuntimeError), held_run_dir(tmp_path):
        raise RuntimeError
    with held_run_dir(tmp_path):
        pass


def test_two_studies_in_one_directory(tmp_path):
    with held_run_dir(tmp_path), pytest.raises(RunError) as caught, held_run_dir(tmp_path):
        pass
    assert f"process {os.getpid()} on {socket.gethostname()}" in str(caught.value)


def test_a_place_that_can_not_be_written(tmp_path):
    (tmp_path / "file").touch()
    with (
        pytest.raises(RunError, match="can't write to the run directory"),
        held_run_dir(tmp_path / "file" / "run"),
    ):
        pass


def test_a_disk_that_is_full_already(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=4_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(RunError, match=r"is full: 4\.0 MB free"), held_run_dir(tmp_path):
        pass


def test_a_disk_that_becomes_full(tmp_path):
    with pytest.raises(RunError, match="No space left"), held_run_dir(tmp_path):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_an_error_elsewhere_is_not_blamed_on_the_directory(tmp_path):
    with pytest.raises(FileNotFoundError), held_run_dir(tmp_path):
        Path("/no/such/file").read_text()


class Unprintable:
    def __str__(self):
        return "\udc80".encode("utf-8").decode()


def test_json_files_are_replaced_atomically(tmp_path):
    path = tmp_path / "one.json"
    write_json(path, {"a": 1})
    with pytest.raises(UnicodeEncodeError):
        write_json(path, {"a": Unprintable()})
    assert json.loads(path.read_text()) == {"a": 1}
