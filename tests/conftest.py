"""Whole studies run by the `melissa-gen` command, and the check that each leaves nothing behind.

The fixtures `runs` (one test) and `module_runs` (all tests of a file) hand out a `Runs`. Each has a folder of its own,
a TMPDIR of its own and a mark in the environment of all that it starts, so that several can work at the same time.
"""

import copy
import functools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, settings

from melissa_gen.logs import message_of
from tests import network
from tests.global_state import GlobalState

# The matrices of the tests are small. A second thread of the linear algebra library only waits for a core that another
# test uses, which multiplies the time of a test by ten. The library reads this number when numpy is imported.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

# The commands under test inherit which signals are ignored: SIGINT in a shell's background, SIGHUP under nohup.
for number in (signal.SIGINT, signal.SIGHUP):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(
            number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
        )

# An example that waits for a busy core is no failure.
settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")

PATIENCE = 120.0
"""Seconds that a test waits for something that must come; only a failure waits that long."""
MARK = "MELISSA_GEN_TEST"
MELISSA_GEN = (sys.executable, "-m", "melissa_gen.launcher.cli")

STUDY = {
    "name": "tiny",
    "parameters": {
        "a": {"distribution": "uniform", "low": -1, "high": 1},
        "b": {"distribution": "uniform", "low": 0, "high": 2},
    },
    "simulation": {
        "command": ["python", "solver.py"],
        "count": 6,
        "time_steps": 10,
        "fields": {"u": {"shape": [12, 4]}},
        "timeout": 60,
    },
    "surrogate": {"arguments": {"hidden": [16]}},
    "training": {"batch_size": 4, "validation": {"simulations": 0, "every": 20}},
    "reservoir": {"capacity": 40, "watermark": 4},
    "sampler": {"method": "uniform", "generation_size": 3},
    "server": {"ranks": 1, "heartbeat": 0.2},
    "launcher": {"clients": 2, "report": False},
    "seed": 3,
}

RECORDED = {"training": {"enabled": False}, "record": {"file": "record.h5"}}
"""Changes for a study that only records its simulations. It needs a third of the CPU time of one that trains, since
neither launcher nor server imports torch; jobs, messages, retries and accounting are the same."""


@pytest.fixture(autouse=True)
def same_state():
    """Seeds all global random generators before each test; fails a test that leaves global state changed."""
    random.seed(0)
    np.random.seed(0)
    if (torch := sys.modules.get("torch")) is not None:
        torch.manual_seed(0)
    before = GlobalState.now()
    yield
    changes = before.changes(GlobalState.now())
    before.restore()
    assert not changes, "the test left global state changed: " + "; ".join(changes)


def wait_for(condition, what, patience=PATIENCE):
    """Polls until the answer is true; returns the answer."""
    until = time.monotonic() + patience
    while not (found := condition()):
        assert time.monotonic() < until, f"waited in vain for {what}"
        time.sleep(0.02)
    return found


class Run:
    """One `melissa-gen` process and the run directory that it writes."""

    def __init__(self, process, log, run_dir):
        self.process, self.log, self.run_dir = process, log, run_dir

    def wait(self, patience=PATIENCE):
        """Waits for the end of the process; returns the run."""
        try:
            self.process.wait(patience)
        except subprocess.TimeoutExpired:
            pytest.fail(f"still running after {patience} s; it has said:\n{self.output}")
        return self

    @property
    def code(self):
        """The exit status."""
        return self.process.returncode

    @property
    def output(self):
        """The output on the terminal, of both streams."""
        return self.log.read_text()

    @property
    def last_line(self):
        """The last line on the terminal: the sentence after a failure."""
        return self.output.strip().splitlines()[-1]

    @property
    def summary(self):
        """The content of `summary.json`."""
        return json.loads((self.run_dir / "summary.json").read_text())

    def simulations(self):
        """Simulation number to its line of `simulations.jsonl`."""
        lines = (self.run_dir / "simulations.jsonl").read_text().splitlines()
        return {line["simulation"]: line for line in map(json.loads, lines)}

    def events(self, kind=None):
        """Returns the complete events written so far, all or of one kind."""
        path = self.run_dir / "events.jsonl"
        text = path.read_text() if path.exists() else ""
        # The run may be in the middle of the last line.
        found = [json.loads(line) for line in text.splitlines(keepends=True) if line[-1] == "\n"]
        return [event for event in found if kind in (None, event["event"])]

    def wait_event(self, kind, count=1):
        """Waits until a number of events of one kind are written; returns them."""

        def look():
            found = self.events(kind)
            if len(found) < count and self.process.poll() is not None:
                pytest.fail(f"ended before '{kind}'; it has said:\n{self.output}")
            return found if len(found) >= count else None

        return wait_for(look, f"the event '{kind}'")

    def wait_batch(self):
        """Waits for the first batch, from which on a run that is stopped can be resumed."""

        def look():
            if self.process.poll() is not None:
                pytest.fail(f"ended before the first batch; it has said:\n{self.output}")
            return any(event["training"].get("batches") for event in self.events("status"))

        wait_for(look, "the first batch")

    def interrupt(self):
        """Ctrl-C: the signal goes to the whole foreground group."""
        os.killpg(self.process.pid, signal.SIGINT)

    def contact(self):
        """The content of the server's contact file."""
        path = self.run_dir / "contact.json"
        wait_for(path.exists, "the contact file")
        return json.loads(path.read_text())

    def assert_finished(self, retried=0):
        """Asserts that the study finished, every simulation has one line, and the accounting adds up.

        Args:
            retried: Restarts that are expected; more would hide a client that was lost for no reason.
        """
        assert self.code == 0, self.output
        summary = self.summary
        assert summary["status"] == "finished"
        self.assert_adds_up()
        planned = summary["simulations"]["planned"]
        assert sorted(self.simulations()) == list(range(planned))
        assert summary["samples"]["withdrawn"] == 0
        assert "training" not in summary or summary["training"]["batches"] > 0
        lost = [(event["job"], event["reason"]) for event in self.events("client_lost")]
        assert summary["simulations"]["retried"] == retried, lost

    def assert_server_log_is_clean(self):
        """Asserts that the server's log holds lines of melissa_gen alone, and no warning or error."""
        lines = (self.run_dir / "logs" / "server.log").read_text().splitlines()
        strange = [line for line in lines if line == message_of(line) or " INFO server" not in line]
        assert not strange, strange

    def assert_adds_up(self):
        """Asserts the three equations of the accounting."""
        s = self.summary["samples"]
        assert s["produced"] == s["received"] + s["lost"]
        assert s["received"] == s["stored"] + s["duplicate"] + s["rejected"]
        used = s["trained"] if "training" in self.summary else s["recorded"]
        assert s["stored"] == used + s["withdrawn"]


class Runs:
    """Writes studies into a folder, runs them, and finds all processes that they start."""

    def __init__(self, folder, inside=()):
        """Args: folder for studies and terminals; `inside`, words before each command (a namespace that it enters)."""
        self.folder = folder
        self.mark = uuid.uuid4().hex
        self.temporary = Path(tempfile.mkdtemp(prefix="mg-"))  # short: socket paths are limited
        self.started = []
        self.shared = self.temporary / "shm"
        self.shared.mkdir()
        self.private = may_unshare()
        self._prefix = [*inside, *([*UNSHARE, str(self.shared)] if self.private else [])]
        self._segments = segments()
        self._number = 0

    def study(self, changes=(), solver=None, base=STUDY, **more):
        """Writes `study.yaml`: the tiny study with `section.key` changed, and its solver beside it."""
        study = copy.deepcopy(base)
        for key, value in {**dict(changes), **more}.items():
            *path, last = key.split(".")
            node = study
            for part in path:
                node = node.setdefault(part, {})
            node[last] = value
        self._number += 1
        folder = self.folder / f"study-{self._number}"
        folder.mkdir()
        if solver is not None:
            shutil.copy(solver, folder / "solver.py")
        path = folder / "study.yaml"
        path.write_text(yaml.safe_dump(study, sort_keys=False))
        return path

    def environment(self, **more):
        """The environment of a command."""
        return os.environ | {MARK: self.mark, "TMPDIR": str(self.temporary)} | more

    def start(self, study, *options, run_dir=None, command=MELISSA_GEN, cwd=None, **environment):
        """Starts `melissa-gen run`."""
        run_dir = run_dir or study.parent / "run"
        where = ("--run-dir", run_dir) if run_dir is not cwd else ()
        return self.command(
            "run", study, *where, *options, run_dir=run_dir, command=command, cwd=cwd, **environment
        )

    def run(self, study, *options, **more):
        """Runs `melissa-gen run` to its end."""
        return self.start(study, *options, **more).wait()

    def command(self, *words, run_dir=None, command=MELISSA_GEN, cwd=None, **environment):
        """Starts any `melissa-gen` command."""
        log = self.folder / f"terminal-{len(self.started)}.txt"
        with log.open("wb") as file:
            process = subprocess.Popen(
                [*self._prefix, *command, *map(str, words)],
                stdout=file,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                cwd=cwd or self.folder,
                env=self.environment(COLUMNS="400", **environment),
                start_new_session=True,
            )
        run = Run(process, log, run_dir)
        self.started.append(run)
        return run

    def processes(self):
        """Returns the process id and command line of all living processes of these runs."""
        mark, found = f"{MARK}={self.mark}".encode(), {}
        for entry in Path("/proc").iterdir():
            try:
                if entry.name.isdigit() and mark in (entry / "environ").read_bytes():
                    line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                    found[int(entry.name)] = line
            except OSError:
                continue
        return found

    def ranks(self, word):
        """Returns the ids of processes with a word in their command line that ends so, without mpirun."""
        return sorted(
            pid
            for pid, line in self.processes().items()
            if f"{word} " in line and "mpirun" not in line and "hydra" not in line
        )

    def segments_of(self, word):
        """Returns the names of the open shared-memory segments of ranks with a word in their command line."""
        links = [link for pid in self.ranks(word) for link in Path(f"/proc/{pid}/fd").iterdir()]
        names = {link.readlink().name for link in links if link.is_symlink()}
        return {name for name in names if name.startswith("mpich_shm_")}

    def assert_processes_end(self, patience=10.0):
        """Asserts that all processes of these runs end."""
        wait_for(lambda: not self.processes(), f"the end of {self.processes()}", patience)

    def assert_nothing_left(self, patience=10.0):
        """Asserts that no process, no shared memory and no temporary folder of these runs remains."""
        self.assert_processes_end(patience)
        left = set(self.temporary.glob("melissa_gen-*"))
        left -= set(self.temporary.glob("melissa_gen-check-*"))  # logs that a sentence quotes
        assert not left, f"left in TMPDIR: {left}"
        if self.private:
            new = {path.name for path in self.shared.iterdir()}
        elif new := segments() - self._segments:
            new -= held_segments()
            new &= segments()  # a foreign world may have ended meanwhile
        assert not new, f"left in /dev/shm: {new}"

    def close(self):
        """Ends all processes that a failed test has left."""
        for pid in self.processes():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        shutil.rmtree(self.temporary, ignore_errors=True)


UNSHARE = ("unshare", "--mount", "sh", "-c", 'mount --bind "$0" /dev/shm && exec "$@"')


@functools.cache
def may_unshare():
    """Whether a command can have a private /dev/shm, so that segments of other worlds are not counted."""
    words = ["unshare", "--mount", "sh", "-c", "mount --bind /tmp /dev/shm"]
    try:
        return subprocess.run(words, capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def segments():
    """Names of MPICH's shared-memory segments on this machine."""
    return {path.name for path in Path("/dev/shm").glob("mpich_shm_*")}


def held_segments():
    """Returns the names of the segments that a process has open; other worlds may run at the same time."""
    found = set()
    for link in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            found.add(Path(os.readlink(link)).name)
        except OSError:
            continue
    return found


def _runs(folder):
    runs = Runs(folder)
    try:
        yield runs
        runs.assert_nothing_left()
    finally:
        runs.close()


@pytest.fixture
def runs(tmp_path):
    """Studies of one test."""
    yield from _runs(tmp_path)


@pytest.fixture(scope="module")
def module_runs(tmp_path_factory):
    """Studies that all tests of a file share."""
    yield from _runs(tmp_path_factory.mktemp("runs"))


@pytest.fixture
def second_network():
    """A separate network for the solvers of one test."""
    if problem := network.missing():
        pytest.skip(problem)
    second = network.Network()
    try:
        yield second
    finally:
        second.close()
