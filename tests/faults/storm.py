"""Storms: a small study under random faults, resumed until it is finished, followed by checks of all invariants.

Run by hand, for as long as wanted:

    python -m tests.faults.storm --storms 200 --seed 1
    python -m tests.faults.storm --seconds 300

Each storm prints its seed and its faults. The end is a table of the time to recover after each kind of fault, and
`--output FILE` writes the same as JSON. The storm with the seed S is repeated by `--storms 1 --seed S`; the faults
and their times are the same, the moments in the study where they strike are not.
"""

import argparse
import contextlib
import html.parser
import json
import os
import random
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path

from tests.conftest import Runs
from tests.faults import storm_machine

SOLVER = Path(__file__).parent / "solver.py"
COUNT, STEPS, RANKS, CLIENTS = 120, 10, 2, 4
HEARTBEAT_TIMEOUT = 4
PATIENCE = 150.0
"""Seconds without an event of progress after which a running study counts as hanging."""
RESUMES = 6
PROGRESS = ("simulation_finished", "run_finished")
"""Events after which a study has recovered."""
FIRST_PORT = 47_000
CHANGES = {
    "name": "storm",
    "simulation.command": ["python", "solver.py", "--pause", "0.05"],
    "simulation.count": COUNT,
    "simulation.time_steps": STEPS,
    "simulation.retries": 100,
    "simulation.timeout": 15,
    "server.ranks": RANKS,
    "server.transport": "tcp",
    "server.ports": [FIRST_PORT, FIRST_PORT + 15],
    "server.heartbeat_timeout": HEARTBEAT_TIMEOUT,
    "training.checkpoint_every": 1,
    "launcher.clients": CLIENTS,
    "launcher.report": True,
    "launcher.server_retries": 1,
    "sampler.method": "breed",
}


class StormError(AssertionError):
    """An invariant is violated."""


class Storm:
    """One study and its faults.

    Attributes:
        recoveries: (name of the fault, seconds from its end to the next progress) for each fault.
    """

    def __init__(self, folder, seed, faults=None):
        self.random = random.Random(seed)
        self.machine = storm_machine.Machine(folder)
        self.runs = Runs(folder, self.machine.inside)
        storm_machine.call("mount", "--bind", self.machine.shm, self.runs.shared)
        self.machine.callback(storm_machine.call, "umount", "--lazy", self.runs.shared)
        self.study = self.runs.study(CHANGES, solver=SOLVER)
        self.run_dir = self.machine.disk / "run"
        self.run = None
        self.faults = self._choose(faults)
        self.recoveries = []
        self._struck = None

    def _choose(self, names):
        names = names or sorted(FAULTS)
        return [self.random.choice(names) for _ in range(self.random.randint(1, 4))]

    def close(self):
        """Ends all processes and removes the machine."""
        self.runs.close()
        self.machine.close()

    def play(self):
        """Runs the study through its faults to its end, and checks the end.

        Raises:
            StormError: Something that must hold does not.
        """
        self.run = self.runs.start(self.study, run_dir=self.run_dir, **self.machine.environment)
        self._progress(until=lambda: self._count() >= 3, what="the first simulations")
        for name in self.faults:
            time.sleep(self.random.uniform(0.0, 2.0))
            if self.run.process.poll() is not None:
                self._resume()
            FAULTS[name](self)
            self._recover(name)
        self._finish()
        self._check_end()

    def _recover(self, name):
        """Waits for the next progress, with a resumed study where this one has ended; notes the seconds."""
        began, count = time.monotonic(), self._count()
        for _ in range(RESUMES):
            self._progress(
                until=lambda: self._count() > count or self._ended(), what=f"recovery from {name}"
            )
            if self._count() > count or self._finished():
                self.recoveries.append((name, time.monotonic() - began))
                return
            self._resume()
        message = f"no progress after {name} and {RESUMES} resumes:\n{self.run.output}"
        raise StormError(message)

    def _resume(self):
        if self._finished():
            return
        self._check_stopped()
        self.run = self.runs.command(
            "resume", self.run_dir, run_dir=self.run_dir, **self.machine.environment
        )

    def _finish(self):
        """Waits for the end of the study; resumes it until it is finished."""
        for _ in range(RESUMES):
            self._progress(until=self._ended, what="the end")
            if self._finished():
                return
            self._resume()
        message = f"not finished after {RESUMES} resumes:\n{self.run.output}"
        raise StormError(message)

    def _progress(self, until, what):
        """Waits for progress; a running study without progress for a long time counts as hanging."""
        last, count = time.monotonic(), self._count()
        while not until():
            if self._count() != count:
                last, count = time.monotonic(), self._count()
            if self._ended() and not until():
                if what in ("the first simulations", "the end"):
                    message = f"ended before {what}:\n{self.run.output}"
                    raise StormError(message)
                return
            if time.monotonic() - last > PATIENCE:
                message = f"hangs: waited {PATIENCE:.0f} s for {what}\n{self.run.output}\n{self._stacks()}"
                raise StormError(message)
            time.sleep(0.05)

    def _stacks(self):
        return "\n".join(f"{pid}: {line}" for pid, line in self.runs.processes().items())

    def _ended(self):
        return self.run.process.poll() is not None

    def _finished(self):
        """Whether the study is finished, and its launcher has ended."""
        with contextlib.suppress(OSError, ValueError):
            return self._ended() and self.run.summary["status"] == "finished"
        return False

    def _count(self):
        return sum(len(self.run.events(kind)) for kind in PROGRESS) if self.run else 0

    def victims(self, word):
        """Returns the ids of processes with a word in their command line, or the id of the launcher."""
        if word == "launcher":
            return [self.run.process.pid]
        if word.startswith("mpirun"):
            of = word.removeprefix("mpirun ")
            return sorted(
                p for p, line in self.runs.processes().items() if "mpirun" in line and of in line
            )
        return self.runs.ranks(word)

    def kill(self, word, number=signal.SIGKILL):
        """Sends a signal to one of those processes; returns its id, or None if there is none."""
        for pid in self.random.sample(found := self.victims(word), min(1, len(found))):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
                return pid
        return None

    def port(self):
        """One of the server's ports."""
        contact = self.contact()
        endpoints = [contact["control"], contact["heartbeat"], *contact["data"]] if contact else []
        ports = [int(endpoint.rpartition(":")[2]) for endpoint in endpoints]
        return self.random.choice(ports) if ports else FIRST_PORT

    def contact(self):
        """The content of the contact file, or None."""
        with contextlib.suppress(OSError, ValueError):
            return json.loads((self.run_dir / "contact.json").read_text())
        return None

    def pause(self, low, high):
        """Lets a fault last for a random time."""
        time.sleep(self.random.uniform(low, high))

    def _check_stopped(self):
        """Checks a study that has ended and is not finished."""
        code = self.run.code
        if code not in (1, 130, -signal.SIGKILL):
            message = f"exit status {code}:\n{self.run.output}"
            raise StormError(message)
        check("Traceback" not in self.run.output, f"a traceback:\n{self.run.output}")

    def _check_end(self):
        """Checks a finished study."""
        run, output = self.run, self.run.output
        if not (self.run_dir / "report.html").exists():
            # The launcher was killed after the server had finished the study.
            report = self.runs.command("report", self.run_dir).wait()
            check(report.code == 0, report.output)
        check("Traceback" not in output, f"a traceback:\n{output}")
        summary = json.loads((self.run_dir / "summary.json").read_text(), parse_constant=refuse)
        check(summary["status"] == "finished", f"status {summary['status']}")
        samples, simulations = summary["samples"], summary["simulations"]
        run.assert_adds_up()
        check(
            simulations["completed"] + simulations["failed"] == COUNT,
            f"simulations do not add up: {simulations}",
        )
        check(simulations["failed"] == 0, f"simulations were given up: {simulations}\n{output}")
        lines = run.simulations()
        check(sorted(lines) == list(range(COUNT)), f"lines of simulations: {sorted(lines)}")
        check(samples["trained"] <= COUNT * STEPS, f"a sample counts as two: {samples}")
        check(
            samples["trained"] + samples["withdrawn"] >= COUNT * STEPS, f"samples lack: {samples}"
        )
        page = (self.run_dir / "report.html").read_text("utf-8")
        check(page.rstrip().endswith("</html>"), "report.html is cut off")
        html.parser.HTMLParser().feed(page)
        for line in (self.run_dir / "events.jsonl").read_text("utf-8").splitlines():
            json.loads(line, parse_constant=refuse)
        self.runs.assert_processes_end(patience=60)
        self._check_nothing_left()

    def _check_nothing_left(self):
        """Checks that only processes killed without cleanup have left segments and folders."""
        killed = any(name.startswith("kill") or "freeze" in name for name in self.faults)
        left = {path.name for path in self.machine.shm.iterdir()}
        left |= {path.name for path in self.runs.temporary.glob("melissa_gen-*")}
        check(not left or killed, f"left behind: {left}")


def check(holds, otherwise):
    """Raises `StormError` unless something holds."""
    if not holds:
        raise StormError(otherwise)


def refuse(constant):
    """Refuses NaN and Infinity in JSON."""
    message = f"{constant} is not JSON"
    raise StormError(message)


FAULTS = {}


def fault(apply):
    """Registers a fault under the name of its function."""
    FAULTS[apply.__name__] = apply
    return apply


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


def table(recoveries):
    """Returns a Markdown table of the seconds to recover by fault."""
    lines = ["| fault | times | median (s) | longest (s) |", "| --- | --- | --- | --- |"]
    for name in sorted({name for name, _ in recoveries}):
        seconds = [s for n, s in recoveries if n == name]
        what = re.sub(r"\.$", "", FAULTS[name].__doc__.splitlines()[0])
        lines.append(
            f"| {what} | {len(seconds)} | {statistics.median(seconds):.1f} | {max(seconds):.1f} |"
        )
    return "\n".join(lines)


def one(seed, faults=None):
    """Plays one storm; returns its recoveries.

    Raises:
        StormError: Something that must hold does not; the folder of the study is kept and named.
    """
    folder = Path(tempfile.mkdtemp(prefix="storm-"))
    storm = Storm(folder, seed, faults)
    print(f"storm {seed}: {', '.join(storm.faults)}", flush=True)
    try:
        storm.play()
    except Exception as error:
        kept = Path(tempfile.mkdtemp(prefix=f"storm-{seed}-failed-"))
        shutil.copytree(storm.run_dir, kept / "run", dirs_exist_ok=True)
        for terminal in folder.glob("terminal-*.txt"):
            shutil.copy(terminal, kept)
        message = f"storm {seed} ({', '.join(storm.faults)}): {error}\nkept in {kept}"
        raise StormError(message) from error
    finally:
        storm.close()
        shutil.rmtree(folder, ignore_errors=True)
    return storm.recoveries


def main():
    """Plays storms until the number or the time is reached."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--storms", type=int, default=1_000_000)
    parser.add_argument("--seconds", type=float, default=float("inf"))
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    parser.add_argument("--faults", nargs="+", choices=sorted(FAULTS))
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    if options.storms == 1_000_000 and options.seconds == float("inf"):
        options.seconds = 300.0
    if problem := storm_machine.missing():
        sys.exit(problem)
    began, recoveries, failures, played = time.monotonic(), [], [], 0
    while played < options.storms and time.monotonic() - began < options.seconds:
        try:
            recoveries += one(options.seed + played, options.faults)
        except StormError as error:
            print(error, flush=True)
            failures.append(str(error).splitlines()[0])
        except Exception:
            traceback.print_exc()
            failures.append(f"storm {options.seed + played}: an error of the storm itself")
        played += 1
    print(table(recoveries))
    print(f"{played} storms from seed {options.seed}: {len(failures)} failed", *failures, sep="\n")
    if options.output:
        found = {"seed": options.seed, "storms": played, "failures": failures}
        options.output.write_text(json.dumps(found | {"recoveries": recoveries}, indent=1))
    sys.exit(bool(failures))


if __name__ == "__main__":
    main()
