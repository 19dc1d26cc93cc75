"""The batch back end on a real SLURM: GPUs, exit statuses and ends of jobs."""

import os
import sys

import pytest

from melissa_gen.launcher.backends.batch import BatchBackend
from melissa_gen.launcher.backends.schedulers.slurm import Slurm
from melissa_gen.study import JobsSection

from .cluster import wait_for_it

pytestmark = pytest.mark.slurm

ON_GPU = JobsSection(gpus_per_task=1)
PRINT = "import os; print('sees', os.environ.get('CUDA_VISIBLE_DEVICES'), flush=True)"


@pytest.fixture
def backend(tmp_path):
    settings = {"": JobsSection(), "server": ON_GPU}
    backend = BatchBackend(Slurm(), tmp_path, tmp_path, settings, interval=0.5)
    yield backend
    backend.close()
    assert backend.running == []


def end_of(backend, name):
    """Waits for a job's end."""
    found = []
    wait_for_it(
        lambda: found.extend(backend.poll()) or any(one.name == name for one in found), name
    )
    return next(one for one in found if one.name == name)


def test_each_rank_sees_its_own_gpu_and_a_solver_sees_none(backend):
    backend.start("server", (sys.executable, "-c", PRINT), 2, {})
    assert end_of(backend, "server").code == 0
    assert sorted(backend.log("server").read_text().split()) == ["0", "1", "sees", "sees"]
    backend.start("client-0", (sys.executable, "-c", PRINT), 2, {"CUDA_VISIBLE_DEVICES": ""})
    assert end_of(backend, "client-0").code == 0
    assert backend.log("client-0").read_text().split() == ["sees", "sees"]


def test_how_jobs_end(backend):
    backend.start("seven", ("sh", "-c", "exit 7"), 1, {})
    assert backend.queued == {"seven"}
    assert end_of(backend, "seven")[:] == ("seven", 7, "")
    backend.start("endless", ("sleep", "600"), 1, {})
    wait_for_it(lambda: "endless" not in backend.queued, "its start")
    assert 0 < backend.seconds_left("endless") <= 3600
    backend.terminate("endless")
    ended = end_of(backend, "endless")
    assert ended.code != 0
    assert ended.why == "", "we asked for it"


def test_a_job_that_is_not_begun_can_be_ended(backend, cluster):
    cluster.ask("scontrol", "update", "PartitionName=main", "State=DOWN")
    try:
        backend.start("late", ("true",), 1, {})
        wait_for_it(lambda: cluster.jobs(), "its submission")
        assert backend.queued == {"late"}
        backend.kill("late")
        assert end_of(backend, "late").code != 0
    finally:
        cluster.ask("scontrol", "update", "PartitionName=main", "State=UP")


def test_the_launchers_own_job_does_not_leak_into_others(backend, monkeypatch):
    monkeypatch.setenv("SLURM_NTASKS", "3")
    monkeypatch.setenv("SBATCH_PARTITION", "nowhere")
    monkeypatch.setenv("SLURM_JOB_ID", "1")
    backend.start("clean", ("sh", "-c", "echo ranks $SLURM_NTASKS"), 2, {})
    assert end_of(backend, "clean").code == 0
    assert backend.log("clean").read_text().split() == ["ranks", "2"] * 2
    assert os.environ["SLURM_NTASKS"] == "3"


@pytest.mark.parametrize(
    "name", ["plain", "with space", "per%cent%j", "quo'te", "back\\slash", "all %j '\"\\$HOME #;&"]
)
def test_a_job_in_a_folder_of_any_name(tmp_path, name):
    folder = tmp_path / name
    folder.mkdir()
    backend = BatchBackend(Slurm(), folder, folder, {"": JobsSection()}, interval=0.5)
    try:
        backend.start(
            "lost", ("sh", "-c", 'printf "%s\\n" "$PWD" "$1"', "sh", f"{folder}/a b"), 1, {}
        )
        assert end_of(backend, "lost").code == 0
        assert backend.log("lost").read_text().splitlines() == [str(folder), f"{folder}/a b"]
    finally:
        backend.close()
