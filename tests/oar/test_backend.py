"""The batch back end on a real OAR: ranks, states, exit statuses, ends, refusals and missing answers."""

import json
import os
import sys

import pytest

from melissa_gen.launcher.backends.batch import BatchBackend, BatchTimeouts
from melissa_gen.launcher.backends.mpirun import detect_implementation, find_mpirun
from melissa_gen.launcher.backends.schedulers.oar import Oar
from melissa_gen.study import JobsSection

from .cluster import NODES, wait_for_it

pytestmark = [pytest.mark.oar, pytest.mark.timeout(600)]

WHERE = """
from mpi4py import MPI
import os
with open(f"/proc/{os.getppid()}/environ") as file:  # of the proxy, which oarsh has started
    words = dict(word.partition("=")[::2] for word in file.read().split(chr(0)))
addresses = MPI.COMM_WORLD.gather(words["SSH_CONNECTION"].split()[2])
if addresses:
    print(*addresses)
"""
SETTINGS = {
    "": JobsSection(time=600.0),
    "struck": JobsSection(time=600.0, prologue=["kill -9 $$"]),
    # Without it MPICH forks the ranks of a node whose address is this machine's.
    "world": JobsSection(
        time=600.0, nodes=len(NODES), prologue=["export HYDRA_LAUNCHER_AUTOFORK=0"]
    ),
    "brief": JobsSection(time=5.0),
    "nowhere": JobsSection(partition="nowhere"),
    "huge": JobsSection(nodes=len(NODES) + 1),
    "picky": JobsSection(constraint="colour='red'"),
    "second": JobsSection(time=600.0, constraint="host='node2'", account="lab"),
    "container": JobsSection(time=600.0, nodes=1, directives=["-t container"]),
}


@pytest.fixture
def timeouts():
    """The usual timeouts of the back end; a test parametrizes this to change them."""
    return BatchTimeouts()


@pytest.fixture
def backend(tmp_path, timeouts):
    mpirun = find_mpirun()
    scheduler = Oar(mpirun, detect_implementation(mpirun), tmp_path)
    backend = BatchBackend(scheduler, tmp_path, tmp_path, SETTINGS, interval=0.5, timeouts=timeouts)
    yield backend
    backend.close(timeout=120)
    backend.poll()
    assert backend.running == []


def end_of(backend, *names):
    """Waits for the end of some jobs."""
    found = {}

    def look():
        found.update((one.name, one) for one in backend.poll())
        return found.keys() >= set(names)

    wait_for_it(look, f"the end of {names}")
    return [found[name] for name in names]


def begin(backend, *names):
    """Starts jobs that do nothing for a long time, and waits until they run."""
    for name in names:
        backend.start(name, ("sleep", "600"), 1, {})
    wait_for_it(lambda: not backend.queued, f"the start of {names}")


def number_of(cluster, name):
    """The id of a job."""
    (number,) = (i for title, i in cluster.jobs().items() if title.startswith(f"{name}-"))
    return number


def test_exit_statuses_and_a_world_on_two_nodes(backend):
    backend.start("world", (sys.executable, "-c", WHERE), 4, {})
    for name, word in (("zero", "true"), ("seven", "exit 7"), ("struck", "true")):
        backend.start(name, ("sh", "-c", word), 1, {})
    ends = end_of(backend, "zero", "seven", "struck", "world")
    assert [one[:] for one in ends[:3]] == [("zero", 0, ""), ("seven", 7, ""), ("struck", -9, "")]
    said = backend.log("world").read_text()
    assert ends[3].code == 0, said
    assert said.split() == ["127.0.0.2", "127.0.0.2", "127.0.0.3", "127.0.0.3"]


def test_placement_and_project_of_a_job(backend, cluster):
    begin(backend, "second")
    number = number_of(cluster, "second")
    job = cluster.details(number)[number]
    assert (job["assigned_network_address"], job["project"]) == (["node2"], "lab")


def test_a_job_inside_a_container_job(backend, cluster, tmp_path):
    begin(backend, "container")
    number = number_of(cluster, "container")
    settings = {"": JobsSection(time=60.0, reservation=number)}
    inner = BatchBackend(backend.scheduler, tmp_path, tmp_path, settings, interval=0.5)
    inner.start("inner", ("true",), 1, {})
    assert end_of(inner, "inner")[0].code == 0
    inner.close(timeout=120)


def test_a_job_that_waits(backend, cluster, tmp_path):
    with cluster.without_cores():
        backend.start("late", ("true",), 1, {})
        table = tmp_path / "jobs.json"

        def waiting():
            jobs = json.loads(table.read_text())["jobs"] if table.exists() else {}
            return jobs.get("late", {}).get("why")

        assert "R=1,W=0:10:0" in wait_for_it(waiting, "why it waits")
        assert backend.queued == {"late"}
        backend.kill("late")
        (ended,) = end_of(backend, "late")
    assert ended.code != 0
    assert ended.why == "", "we asked for it"


def test_a_time_limit(backend):
    begin(backend, "brief", "long")
    # OAR has the start of a job in whole seconds.
    assert 500 < backend.seconds_left("long") <= 601
    (ended,) = end_of(backend, "brief")
    assert (ended.code, ended.why) == (1, "it reached its time limit")
    assert backend.running == ["long"]


def test_jobs_that_are_deleted(backend, cluster):
    begin(backend, "ours", "theirs")
    cluster.ask("oardel", number_of(cluster, "theirs"))
    (theirs,) = end_of(backend, "theirs")
    assert (theirs.code, theirs.why) == (1, "it was canceled")
    backend.terminate("ours")
    (ours,) = end_of(backend, "ours")
    assert (ours.code, ours.why) == (1, "")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("nowhere", "The queue nowhere does not exist"),
        ("huge", "There are not enough resources for your request"),
        ("picky", 'column "colour" does not exist'),
    ],
)
def test_a_refusal_quotes_the_scheduler(backend, name, words):
    backend.start(name, ("true",), 1, {})
    (ended,) = end_of(backend, name)
    assert ended.code == 1
    assert ended.why.startswith("oar refused the job: ")
    assert words in ended.why


def test_one_question_for_all_jobs(backend, cluster):
    names = [f"job-{number}" for number in range(4)]
    with cluster.without_cores():
        for name in names:
            backend.start(name, ("true",), 1, {})
        wait_for_it(lambda: len(cluster.jobs()) == len(names), "their submission")
        before, asked = len(cluster.calls("oarstat")), backend.queries
        wait_for_it(lambda: backend.queries >= asked + 6, "some questions")
        calls, asked = cluster.calls("oarstat")[before:], backend.queries - asked
        assert abs(len(calls) - asked) <= 2  # each is read while the other continues
        numbers = ", ".join(number_of(cluster, name) for name in names)
        assert f"IN ({numbers})" in calls[-1]
        backend.kill_all()
        end_of(backend, *names)


def test_a_job_whose_number_was_not_heard(backend, cluster, tmp_path, monkeypatch):
    (tmp_path / "bin").mkdir()
    deaf = tmp_path / "bin" / "oarsub"
    path = os.environ["PATH"]
    deaf.write_text(f'#!/bin/sh\nPATH={path}\noarsub "$@"\necho timed out >&2\nexit 1\n')
    deaf.chmod(0o755)
    monkeypatch.setenv("PATH", f"{deaf.parent}:{path}")
    table = tmp_path / "jobs.json"
    with cluster.without_cores():
        backend.start("lonely", ("true",), 1, {})
        wait_for_it(lambda: table.exists() and '"queued"' in table.read_text(), "its number")
        assert len(cluster.jobs()) == 1
        backend.kill("lonely")
        assert end_of(backend, "lonely")[0].why == ""


@pytest.mark.parametrize("timeouts", [BatchTimeouts(command=10.0)])
def test_a_database_that_is_silent(backend, cluster):
    with cluster.without_cores():
        backend.start("steady", ("true",), 1, {})
        wait_for_it(cluster.jobs, "its submission")
        with cluster.frozen_database():
            wait_for_it(lambda: "timed out after 10 s" in "".join(backend.notes()), "a word on it")
        wait_for_it(lambda: "oar responds again" in "".join(backend.notes()), "its return")
        assert backend.running == ["steady"]
    assert end_of(backend, "steady")[0].code == 0


def test_a_server_that_dies(backend, cluster):
    begin(backend, "steady")
    notes = []
    with cluster.without_server():
        backend.start("next", ("true",), 1, {})
        wait_for_it(lambda: notes.extend(backend.notes()) or notes, "a word on it")
        assert "oar does not respond" in notes[0]
        assert "Cannot connect to executor" in notes[0]
        assert sorted(backend.running) == ["next", "steady"]
    assert end_of(backend, "next")[0].code == 0
    assert backend.running == ["steady"]
