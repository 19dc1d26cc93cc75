"""One simulation through the bridge with a real program and a fake client: success and failures."""

import os
import sys

import h5py
import numpy as np
import psutil
import pytest

from melissa_gen.bridge import BridgeJob
from melissa_gen.bridge.solve import solve
from melissa_gen.errors import ServerLost, StudyError


def processes_in(folder):
    """Processes whose working directory is in a folder."""
    found = []
    for pid in psutil.pids():
        try:
            if os.readlink(f"/proc/{pid}/cwd").startswith(str(folder)):
                found.append(pid)
        except OSError:
            continue
    return found


def test_all_time_steps_are_sent_and_the_folder_is_removed(bridged):
    b = bridged()
    solve(b.job, b.simulation)
    assert b.simulation.reason is None
    assert [u.tolist() for u in b.simulation.sent] == [[[0.5 + k] * 3] * 2 for k in range(4)]
    assert not b.folder.exists()


def test_steps_are_sent_while_the_command_runs(bridged):
    program = "import sys, time, numpy as np\n"
    program += "for k in range(3): np.save(f'u{k}.npy', np.zeros((2, 3)))\n"
    program += (
        "while True:\n    if open('input.txt').read() == 'go on': break\n    time.sleep(0.01)\n"
    )
    program += "np.save('u3.npy', np.ones((2, 3)))"
    b = bridged(command=[sys.executable, "-c", program])

    def go_on():
        if b.simulation.step == 2:  # the third may still be written
            (b.folder / "input.txt").write_text("go on")

    b.simulation.on_send = go_on
    solve(b.job, b.simulation)
    assert b.simulation.reason is None
    assert b.simulation.step == 4


@pytest.mark.parametrize(
    ("mishap", "sent", "words"),
    [
        ("exit", 2, ["the command ended with exit status 1", "the mesh is tangled"]),
        ("kill", 2, ["the command was ended by signal 9"]),
        (
            "nothing",
            0,
            ["no file matches simulation.bridge.reader.files 'u*.npy'", "output ends: a = 0.5"],
        ),
        ("short", 2, ["simulation 7 ended after 2 of 4 time steps"]),
        ("half", 2, ["time step 2: u2.npy can't be read"]),
        ("shape", 2, ["field 'u' has the global shape (2, 4); the study says (2, 3)"]),
        ("license", 0, ["exit status 3", "licence key?"]),
        ("libmpi", 0, ["exit status 1", "error while loading shared libraries: libmpi.so.40"]),
        ("hang", 1, ["there was no new time step for"]),
        ("child", 2, ["ended after 2 of 4", "it left 1 processes behind, which were ended"]),
        ("more", 4, ["the study has 4 time steps; this one is too many"]),
        ("nan", 2, ["field 'u' has 1 values that are NaN"]),
    ],
)
def test_a_failure_of_the_command_is_one_sentence(bridged, mishap, sent, words):
    b = bridged(mishap, timeout=5.0)
    solve(b.job, b.simulation)
    for word in words:
        assert word in b.simulation.reason
    assert "\n" not in b.simulation.reason
    assert b.simulation.step == sent
    assert (b.folder / "log.txt").exists(), "a failed simulation's folder is kept"
    assert processes_in(b.folder) == []


@pytest.mark.parametrize(
    ("output", "words"),
    [
        ("YOUR APPLICATION TERMINATED WITH THE EXIT STRING: Killed (signal 9)", "137 (killed"),
        ("no convergence", "9; its output ends"),
    ],
)
def test_a_rank_of_an_mpi_command_that_is_killed_is_told_from_one_that_exits(
    bridged, output, words
):
    b = bridged(command=[sys.executable, "-c", f"print({output!r}); raise SystemExit(9)"])
    solve(b.job, b.simulation)
    assert f"the command ended with exit status {words}" in b.simulation.reason


def test_a_gigabyte_on_the_terminal_is_not_a_gigabyte_on_the_disk(bridged):
    b = bridged("gigabyte", bridge={"keep": "always"})
    solve(b.job, b.simulation)
    assert b.simulation.reason is None
    log = b.folder / "log.txt"
    assert log.stat().st_size < 3e6
    assert "bytes left out" in log.read_text()


@pytest.mark.parametrize(
    ("keep", "mishap", "kept"),
    [
        ("never", "exit", False),
        ("failed", "exit", True),
        ("failed", "good", False),
        ("always", "good", True),
    ],
)
def test_which_folders_are_kept(bridged, keep, mishap, kept):
    b = bridged(mishap, bridge={"keep": keep})
    solve(b.job, b.simulation)
    assert b.folder.exists() == kept
    assert ("kept in" in (b.simulation.reason or "")) == (kept and mishap == "exit")


def test_a_server_that_is_lost_ends_the_command(bridged):
    b = bridged("hang")

    def lose():
        raise ServerLost("the study is over")

    b.simulation.on_send = lose
    with pytest.raises(ServerLost):
        solve(b.job, b.simulation)
    assert b.simulation.reason is None
    assert processes_in(b.folder) == []


def test_a_command_that_can_not_be_started(bridged):
    b = bridged(command=["/no/such/solver"])
    solve(b.job, b.simulation)
    assert "/no/such/solver: No such file or directory" in b.simulation.reason


def test_inputs_and_arguments_are_rendered(bridged, tmp_path):
    case = tmp_path / "study" / "case"
    (case / "sub").mkdir(parents=True)
    (case / "sub" / "n.txt.j2").write_text("{{ n }} of {{ 2 * a }}")
    (case / "plain").write_text("{{ a }}")
    save = "import sys, numpy as np; [np.save(f'u{k}.npy', np.full((2, 3), float(sys.argv[1]))) for k in range(4)]"
    b = bridged(
        command=[sys.executable, "-c", save, "{{ a * 4 }}"],
        bridge={"inputs": {"case": ".", "input.j2": "deep/input"}, "keep": "always"},
    )
    solve(b.job, b.simulation)
    assert b.simulation.sent[0][0, 0] == 2.0
    assert (b.folder / "sub" / "n.txt").read_text() == "3 of 1.0"
    assert (b.folder / "plain").read_text() == "{{ a }}"
    assert (b.folder / "deep" / "input").read_text() == "a = 0.5\n"


def test_file_names_that_are_not_utf8_are_copied_and_listed(bridged, tmp_path):
    case = tmp_path / "study" / "case"
    case.mkdir()
    name = os.fsdecode(b"caf\xe9.txt")
    (case / name).write_text("input")
    b = bridged(
        command=["sh", "-c", "cp caf* out.txt"],
        bridge={"inputs": {"case": "."}, "keep": "always"},
    )
    solve(b.job, b.simulation)
    assert (b.folder / "out.txt").read_text() == "input"
    assert "no file matches" in b.simulation.reason and "caf?.txt" in b.simulation.reason


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            {"command": ["x", "{{ b }}"]},
            ["simulation.command: {{ b }}: 'b' is undefined", "legal:"],
        ),
        ({"command": ["x", "{{ a"]}, ["simulation.command:", "line 1 is not a Jinja template"]),
        (
            {"bridge": {"inputs": {"gone": "x"}}},
            ["simulation.bridge.inputs: there is no file or folder 'gone' in"],
        ),
    ],
)
def test_an_error_in_the_study_is_reported_before_the_command_starts(
    make_study, tmp_path, change, words
):
    study = make_study(**change)
    with pytest.raises(StudyError) as caught:
        BridgeJob.of(study, tuple(study.simulation.command), tmp_path)
    for word in words:
        assert word in str(caught.value)


def test_a_job_round_trips_through_its_file(bridged, tmp_path):
    job = bridged().job
    job.write(tmp_path / "job.json")
    assert BridgeJob.read(tmp_path / "job.json") == job


MESH = """
import sys
import numpy as np

def read(folder, step, ended):
    if not ended or step == 4:
        return None
    points = np.loadtxt(folder / "points")
    return {"u": np.zeros((2, 3)), "coordinates": points}
"""


def test_coordinates_are_recorded_once_and_must_agree(bridged, tmp_path):
    (tmp_path / "study" / "mesh.py").write_text(MESH)
    reader = {"format": "function", "function": "mesh.py:read"}
    b = bridged(command=["sh", "-c", "echo '0 1' > points"], bridge={"reader": reader})
    solve(b.job, b.simulation)
    solve(b.job, type(b.simulation)())
    assert b.simulation.reason is None
    path = tmp_path / "run" / "coordinates.h5"
    with h5py.File(path) as file:
        assert np.array_equal(file["points"][:], [0, 1])
    other = bridged(command=["sh", "-c", "echo '0 2' > points"], bridge={"reader": reader})
    solve(other.job, other.simulation)
    assert "its mesh of 2 points is not that of" in other.simulation.reason


def test_a_signal_ends_the_command_too(bridged):
    """On SIGTERM, the exception leaves `solve`, which ends the command."""
    b = bridged("hang")

    class Ended(BaseException):
        pass

    def end():
        raise Ended

    b.simulation.on_send = end
    with pytest.raises(Ended):
        solve(b.job, b.simulation)
    assert processes_in(b.folder) == []
