"""Storms: a small study under random faults, resumed until it is finished, followed by checks of all invariants.

Run by hand, for as long as wanted:

    python -m tests.faults.storm --storms 200 --seed 1000 --output docs/storms.jsonl
    python -m tests.faults.storm --seconds 300

Each storm prints its seed and its faults. The end is a table of the time to recover after each kind of fault. `--output
FILE` adds a line for each storm to a file. Storms that have passed according to the file are not played again, so that
many storms can be played in several sittings, and the table is that of the whole file. The storm with the seed S is
repeated by `--storms 1 --seed S`; the faults and their times are the same, the moments in the study where they strike
are not.
"""

import argparse
import contextlib
import functools
import html.parser
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path

from tests.conftest import Runs
from tests.faults import storm_machine, storm_records
from tests.faults.storm_faults import FAULTS, HEARTBEAT_TIMEOUT, PATIENCE, StormError, check

SOLVER = Path(__file__).parent / "solver.py"
STEPS, RANKS, CLIENTS = 10, 2, 4
FEWEST, PER_FAULT = 40, 20
"""Number of simulations of a study: the study has to last until its last fault strikes."""
RESUMES = 6
PROGRESS = ("simulation_finished", "run_finished")
"""Events after which a study has recovered."""
FIRST_PORT = 47_000
CHANGES = {
    "name": "storm",
    "simulation.command": ["python", "solver.py", "--pause", "0.05"],
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
        self.faults = self._choose(faults)
        self.count = FEWEST + PER_FAULT * len(self.faults)
        changes = CHANGES | {"simulation.count": self.count}
        self.study = self.runs.study(changes, solver=SOLVER)
        self.run_dir = self.machine.disk / "run"
        self.run = None
        self.recoveries = []

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
        # Clients work before the server trains. Until the first checkpoint, a killed study can't be resumed.
        self._progress(
            until=lambda: self._count() >= 3 and bool(self.run.events("checkpoint")),
            what="the first simulations",
        )
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
        planned = self.count * STEPS
        run.assert_adds_up()
        check(
            simulations["completed"] + simulations["failed"] == self.count,
            f"simulations do not add up: {simulations}",
        )
        check(simulations["failed"] == 0, f"simulations were given up: {simulations}\n{output}")
        lines = run.simulations()
        check(sorted(lines) == list(range(self.count)), f"lines of simulations: {sorted(lines)}")
        check(samples["trained"] <= planned, f"a sample counts as two: {samples}")
        check(samples["trained"] + samples["withdrawn"] >= planned, f"samples lack: {samples}")
        page = (self.run_dir / "report.html").read_text("utf-8")
        check(page.rstrip().endswith("</html>"), "report.html is cut off")
        check("can't be drawn" not in page, "a figure of the report can't be drawn")
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


def refuse(constant):
    """Refuses NaN and Infinity in JSON."""
    message = f"{constant} is not JSON"
    raise StormError(message)


def one(seed, faults=None):
    """Plays one storm; returns its record. The folder of a study that failed is kept and named on the terminal."""
    began, verdict = time.monotonic(), storm_records.PASSED
    folder = Path(tempfile.mkdtemp(prefix="storm-"))
    storm = Storm(folder, seed, faults)
    print(f"storm {seed}: {', '.join(storm.faults)}", flush=True)
    try:
        storm.play()
    except Exception as error:
        own = isinstance(error, StormError)
        verdict = (str(error) if own else f"an error of the storm itself: {error!r}").splitlines()[
            0
        ]
        text = str(error) if own else traceback.format_exc()
        print(f"storm {seed} failed: {text}\nkept in {keep(storm, folder)}", flush=True)
    finally:
        storm.close()
        shutil.rmtree(folder, ignore_errors=True)
    seconds = round(time.monotonic() - began, 1)
    recoveries = [(name, round(after, 2)) for name, after in storm.recoveries]
    return storm_records.Record(seed, storm.faults, recoveries, seconds, commit(), verdict)


def keep(storm, folder):
    """Copies run directory and terminals of a study; returns where to."""
    kept = Path(tempfile.mkdtemp(prefix="failed-storm-"))
    with contextlib.suppress(OSError, shutil.Error):
        shutil.copytree(storm.run_dir, kept / "run")
    for terminal in folder.glob("terminal-*.txt"):
        shutil.copy(terminal, kept)
    return kept


@functools.cache
def commit():
    """The short name of the commit of this checkout, with a "+" if files were changed; "" outside of a checkout."""
    words = ["git", "describe", "--always", "--dirty=+", "--exclude=*"]
    done = subprocess.run(words, cwd=SOLVER.parent, check=False, capture_output=True, text=True)
    return done.stdout.strip()


def main():
    """Plays storms until the number or the time is reached."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--storms", type=int, default=1_000_000)
    parser.add_argument("--seconds", type=float, default=float("inf"))
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    parser.add_argument("--faults", nargs="+", choices=sorted(FAULTS))
    parser.add_argument("--output", type=Path, metavar="FILE", help="read and extend the records")
    options = parser.parse_args()
    if options.faults and options.output:
        parser.error(
            "--output keeps storms whose faults follow from the seed; it excludes --faults"
        )
    if options.storms == 1_000_000 and options.seconds == float("inf"):
        options.seconds = 300.0
    if problem := storm_machine.missing():
        sys.exit(problem)
    records = storm_records.read(options.output) if options.output else []
    began, played = time.monotonic(), []
    for seed in storm_records.open_seeds(records, options.seed, options.storms):
        if time.monotonic() - began > options.seconds:
            break
        played.append(one(seed, options.faults))
        if options.output:
            storm_records.append(options.output, played[-1])
    print(storm_records.table(records + played))
    failed = [record for record in played if not record.passed]
    print(storm_records.account(records + played))
    print(*(f"storm {r.seed} ({', '.join(r.faults)}): {r.verdict}" for r in failed), sep="\n")
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
