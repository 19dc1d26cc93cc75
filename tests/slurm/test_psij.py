"""The PSI/J back end of PBS and LSF, tested on SLURM, the only scheduler of PSI/J that is available here."""

import sys

import pytest

from melissa_gen.launcher.backends.batch import BatchBackend
from melissa_gen.launcher.backends.mpirun import detect_implementation, find_mpirun
from melissa_gen.launcher.backends.schedulers.psij import Psij
from melissa_gen.study import JobsSection

from .cluster import wait_for_it
from .test_backend import end_of
from .test_modes import HEAT, SMALL, settings

pytestmark = [pytest.mark.slurm, pytest.mark.mpi]

RANK = "from mpi4py import MPI; print('of', MPI.COMM_WORLD.size, flush=True)"


@pytest.fixture
def wanted():
    """Requested resources by job name; "" stands for all other jobs."""
    return {"": JobsSection(time=600.0)}


@pytest.fixture
def backend(tmp_path, wanted):
    mpirun = find_mpirun()
    scheduler = Psij("slurm", mpirun, detect_implementation(mpirun), tmp_path)
    backend = BatchBackend(scheduler, tmp_path, tmp_path, wanted, interval=0.5)
    yield backend
    backend.close()
    assert backend.running == []


def test_ranks_on_two_nodes_are_one_world(backend, wanted):
    wanted[""] = JobsSection(nodes=2, tasks_per_node=2)
    backend.start("world", (sys.executable, "-c", RANK), 4, {})
    assert end_of(backend, "world")[:] == ("world", 0, ""), backend.log("world").read_text()
    said = backend.log("world").read_text()  # four ranks may write at once
    assert said.count("of") == said.count("4") == 4, said


def test_how_jobs_end(backend, cluster):
    backend.start("seven", ("sh", "-c", "exit 7"), 1, {})
    assert backend.queued == {"seven"}
    assert end_of(backend, "seven")[:] == ("seven", 7, "")
    backend.start("ours", ("sleep", "600"), 1, {})
    backend.start("theirs", ("sleep", "600"), 1, {})
    wait_for_it(lambda: not backend.queued, "their start")
    assert 0 < backend.seconds_left("ours") <= 600
    backend.terminate("ours")
    ended = end_of(backend, "ours")
    assert ended.code != 0
    assert ended.why == "", "we asked for it"
    cluster.ask("scancel", next(i for i, name, _ in cluster.jobs() if name.startswith("theirs")))
    ended = end_of(backend, "theirs")
    assert ended.code != 0
    assert ended.why == "it was canceled"


def test_a_job_that_is_not_begun_can_be_canceled(backend, cluster):
    cluster.ask("scontrol", "update", "PartitionName=main", "State=DOWN")
    try:
        backend.start("late", ("true",), 1, {})
        wait_for_it(lambda: cluster.jobs(), "its submission")
        backend.kill("late")
        assert end_of(backend, "late").code != 0
    finally:
        cluster.ask("scontrol", "update", "PartitionName=main", "State=UP")


def test_a_refusal_quotes_the_scheduler(backend, wanted):
    wanted[""] = JobsSection(partition="nowhere")
    backend.start("lost", ("true",), 1, {})
    ended = end_of(backend, "lost")
    assert ended.code == 1
    assert "Invalid partition" in ended.why


def test_a_whole_study_loses_nothing(module_runs, cluster):
    words = settings(SMALL | {"launcher.backend": "psij_slurm", "launcher.jobs.time": "10 min"})
    run_dir = module_runs.folder / "psij"
    run = module_runs.run(HEAT, *words, run_dir=run_dir, **cluster.whole_environment())
    assert run.code == 0, run.output
    run.assert_adds_up()
    assert run.summary["status"] == "finished"
    assert run.summary["simulations"] == {
        **{"planned": 16, "completed": 16},
        **{"failed": 0, "retried": 0},
    }
    samples = run.summary["samples"]
    assert samples["produced"] == samples["trained"] == 160
    script = (run_dir / "logs" / "server.sh").read_text()
    assert "PSIJ_NODEFILE" in script
