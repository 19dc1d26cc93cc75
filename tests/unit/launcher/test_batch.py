"""The batch back end with a scheduler of shell commands that ignores some requests."""

import errno

import pytest

from melissa_gen.launcher.backends.batch import BatchBackend, BatchTimeouts
from melissa_gen.launcher.backends.schedulers.base import JobStatus
from melissa_gen.study import JobsSection
from tests.conftest import wait_for


class Forgetful:
    """A scheduler whose job runs until it has been canceled a number of times."""

    name = "forgetful"

    def __init__(self, folder, times):
        self.folder, self.times = folder, times
        (folder / "cancels").write_text("")

    def script(self, job):
        return job.title

    def submit_command(self, script, job):
        return ["echo", "7"]

    def job_id(self, output):
        return output.strip()

    def classify_submit_error(self, message):
        return "rejected"

    def query_command(self, ids):
        return ["cat", str(self.folder / "cancels")]

    def parse(self, output):
        state = "ended" if len(output.splitlines()) >= self.times else "running"
        return {"7": JobStatus("", state)}

    def cancel_command(self, ids, *, kill):
        return ["sh", "-c", f"echo {kill} {' '.join(ids)} >> {self.folder / 'cancels'}"]


@pytest.mark.parametrize(("way", "said"), [("terminate", 1), ("terminate", 3), ("kill", 6)])
def test_a_running_job_is_asked_again_to_end(tmp_path, way, said):
    timeouts = BatchTimeouts(repeat_terminate=0.05, repeat_kill=0.05)
    scheduler = Forgetful(tmp_path, said)
    backend = BatchBackend(scheduler, tmp_path, tmp_path, {"": JobsSection()}, 0.02, timeouts)
    backend.start("client-0", ("true",), 1, {})
    wait_for(lambda: not backend.queued, "the job to run")
    getattr(backend, way)("client-0")
    assert [one.name for one in wait_for(backend.poll, "its end")] == ["client-0"]
    kinds = {line.split()[0] for line in (tmp_path / "cancels").read_text().splitlines()}
    assert "True" in kinds if way == "kill" else kinds == {"False"}
    backend.close()


def test_an_unreadable_answer_changes_no_job(tmp_path):
    class Babbling(Forgetful):
        looks = 0

        def parse(self, output):
            self.looks += 1
            if 1 < self.looks < 6:
                message = "what is this"
                raise ValueError(message)
            return super().parse(output)

    scheduler = Babbling(tmp_path, 1)
    backend = BatchBackend(scheduler, tmp_path, tmp_path, {"": JobsSection()}, 0.02)
    backend.start("client-0", ("true",), 1, {})
    wait_for(lambda: scheduler.looks > 6, "answers that can be read")
    silence, again = backend.notes()
    assert silence.endswith("what is this")
    assert "responds again" in again
    assert (backend.running, backend.poll()) == (["client-0"], [])
    backend.close()


def test_a_command_that_can_not_be_killed_counts_as_silent(tmp_path, monkeypatch):
    """The commands of OAR run as another user."""

    class Slow(Forgetful):
        def submit_command(self, script, job):
            return ["sleep", "1.0"]

        def classify_submit_error(self, message):
            return "unreachable" if "timed out" in message else "rejected"

    def kill(process):
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr("subprocess.Popen.kill", kill)
    scheduler, timeouts = Slow(tmp_path, 1), BatchTimeouts(command=0.5)
    backend = BatchBackend(scheduler, tmp_path, tmp_path, {"": JobsSection()}, 0.02, timeouts)
    backend.start("client-0", ("true",), 1, {})
    assert "timed out" in wait_for(backend.notes, "a word on it")[0]
    assert (backend.running, backend.poll()) == (["client-0"], [])
    monkeypatch.undo()
    backend.kill("client-0")
    backend.close()


def test_remaining_time_is_estimated_if_the_scheduler_does_not_report_it(tmp_path):
    settings = {"": JobsSection(), "server": JobsSection(time=100.0)}
    backend = BatchBackend(Forgetful(tmp_path, 1), tmp_path, tmp_path, settings, 0.02)
    backend.start("server", ("true",), 1, {})
    wait_for(lambda: not backend.queued, "the job to run")
    assert 0 < backend.seconds_left("server") <= 100
    backend.close()


@pytest.mark.parametrize("name", ["server", "client-1"])
def test_a_queue_that_is_full_is_waited_for_once_one_got_in(tmp_path, name):
    """The first job of its kind may exceed the limit by itself and is therefore not retried."""
    full = tmp_path / "full"

    class Crowded(Forgetful):
        def submit_command(self, script, job):
            words = f"if [ -e {full} ]; then echo sorry >&2; echo full >&2; exit 1; fi; echo 7"
            return ["sh", "-c", words]

        def classify_submit_error(self, message):
            return "limit"

    settings = {"": JobsSection(), "server": JobsSection()}
    scheduler, timeouts = Crowded(tmp_path, 1), BatchTimeouts(resubmit=0.05)
    backend = BatchBackend(scheduler, tmp_path, tmp_path, settings, 0.02, timeouts)
    full.touch()
    backend.start(name, ("true",), 1, {})
    (ended,) = wait_for(backend.poll, "its end")
    assert ended.why == "forgetful refused the job: sorry; full"
    full.unlink()
    backend.start(name, ("true",), 1, {})
    wait_for(lambda: not backend.queued, "the job to run")
    backend.terminate(name)
    wait_for(backend.poll, "its end")
    full.touch()
    (tmp_path / "cancels").write_text("")
    backend.start(name, ("true",), 1, {})
    assert wait_for(backend.notes, "a word on the refusal") == [
        f"forgetful refused {name} for now; the submission is retried: sorry; full"
    ]
    full.unlink()
    wait_for(lambda: not backend.queued, "the job to run")
    assert backend.notes() == []
    backend.close()


def test_the_reason_for_waiting_in_the_queue_is_reported_once(tmp_path):
    class Held(Forgetful):
        looks = 0

        def parse(self, output):
            self.looks += 1
            return (
                super().parse(output)
                if output
                else {"7": JobStatus("", "queued", why="a limit", held=True)}
            )

    scheduler = Held(tmp_path, 1)
    backend = BatchBackend(scheduler, tmp_path, tmp_path, {"": JobsSection()}, 0.02)
    backend.start("client-0", ("true",), 1, {})
    wait_for(lambda: scheduler.looks > 5, "looks at the queue")
    assert backend.notes() == [
        "client-0 is held in the queue; the reason given by forgetful: a limit"
    ]
    backend.close()
