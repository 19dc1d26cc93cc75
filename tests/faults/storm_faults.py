"""The faults of a storm. Each is a function of the storm, and its docstring is the sentence of the documentation."""

import contextlib
import os
import signal
import subprocess
import sys
import time

HEARTBEAT_TIMEOUT = 4
PATIENCE = 150.0
"""Seconds without an event of progress after which a running study counts as hanging."""


class StormError(AssertionError):
    """An invariant is violated."""


def check(holds, otherwise):
    """Raises `StormError` unless something holds."""
    if not holds:
        raise StormError(otherwise)


FAULTS = {}


def fault(apply):
    """Registers a fault under the name of its function."""
    FAULTS[apply.__name__] = apply
    return apply


def sentence(name):
    """Returns what a fault does, without a full stop."""
    return FAULTS[name].__doc__.splitlines()[0].removesuffix(".")


@fault
def kill_client_rank(storm):
    """A rank of a client is killed."""
    storm.kill("solver.py")


@fault
def kill_server_rank(storm):
    """A rank of the server is killed."""
    storm.kill("melissa_gen.server")


@fault
def kill_client_mpirun(storm):
    """The mpirun of a client is killed."""
    storm.kill("mpirun solver.py")


@fault
def kill_server_mpirun(storm):
    """The mpirun of the server is killed."""
    storm.kill("mpirun melissa_gen.server")


@fault
def kill_launcher(storm):
    """The launcher is killed; its children are not."""
    storm.kill("launcher")
    storm.run.process.wait()


def freeze(storm, word, low, high):
    """Stops a process for a while."""
    pid = storm.kill(word, signal.SIGSTOP)
    try:
        storm.pause(low, high)
    finally:
        if pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


@fault
def freeze_client(storm):
    """A rank of a client stands still for up to twice the heartbeat timeout."""
    freeze(storm, "solver.py", 0.1, 2 * HEARTBEAT_TIMEOUT)


@fault
def freeze_server(storm):
    """A rank of the server stands still for up to twice the heartbeat timeout."""
    freeze(storm, "melissa_gen.server", 0.1, 2 * HEARTBEAT_TIMEOUT)


@fault
def freeze_launcher(storm):
    """The launcher stands still for up to twice the heartbeat timeout."""
    freeze(storm, "launcher", 0.1, 2 * HEARTBEAT_TIMEOUT)


@fault
def cut_connections(storm):
    """Connections to one port are reset."""
    with storm.machine.filter(storm.port(), "reject with tcp reset"):
        storm.pause(0.05, 0.5)


@fault
def black_hole(storm):
    """Packets from and to one port disappear."""
    with storm.machine.filter(storm.port(), "drop"):
        storm.pause(0.5, 1.5 * HEARTBEAT_TIMEOUT)


@fault
def slow_network(storm):
    """One port passes 20 kB a second; the rest is dropped and sent again by TCP."""
    with storm.machine.filter(storm.port(), "limit rate over 20 kbytes/second drop"):
        storm.pause(1.0, 4.0)


@fault
def full_disk(storm):
    """The disk of the run directory is full for a while."""
    with storm.machine.full(storm.machine.disk):
        storm.pause(0.5, 3.0)


@fault
def full_shared_memory(storm):
    """/dev/shm is full for a while."""
    with storm.machine.full(storm.machine.shm):
        storm.pause(0.5, 3.0)


@fault
def frozen_disk(storm):
    """Writes to the disk of the run directory wait."""
    with storm.machine.frozen_disk():
        storm.pause(0.5, 1.5 * HEARTBEAT_TIMEOUT)


@fault
def clock_jump(storm):
    """The wall clock jumps by an hour or a day, and back."""
    with storm.machine.other_time(storm.random.choice([-86_400, -3600, 3600, 86_400])):
        storm.pause(0.5, 2.0)


@fault
def second_launcher(storm):
    """A second launcher resumes the run while the first is at work."""
    before = storm.run.process.poll()
    second = storm.runs.command(
        "resume", storm.run_dir, run_dir=storm.run_dir, **storm.machine.environment
    )
    deadline = time.monotonic() + PATIENCE
    while second.process.poll() is None and storm.run.process.poll() is None:
        check(time.monotonic() < deadline, f"a second launcher waits:\n{second.output}")
        time.sleep(0.05)
    if before is None and storm.run.process.poll() is None:
        check(second.code == 1, f"a second launcher ended with {second.code}:\n{second.output}")
        check("is still running" in second.output, second.output)
    elif second.process.poll() is None:
        # The first ended in between, so that the second is the one that continues.
        storm.run = second


@fault
def strange_messages(storm):
    """Corrupted, truncated and repeated messages arrive, with and without the keys of the run."""
    words = [sys.executable, "-m", "tests.faults.strange_messages", storm.run_dir / "contact.json"]
    command = [*storm.machine.inside, *words, storm.random.randrange(10**6)]
    done = subprocess.run(list(map(str, command)), check=False, capture_output=True, text=True)
    gone = "contact" in done.stderr or not (storm.run_dir / "contact.json").exists()
    check(done.returncode == 0 or gone, f"the stranger itself failed: {done.stderr}")
