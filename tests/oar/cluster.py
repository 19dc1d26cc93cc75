"""A temporary OAR cluster: its database, server, sshd and two virtual nodes on this machine.

OAR's paths, its user and its nodes' names are the machine's own. So the cluster gets an /etc, a /usr and a /var of its
own, laid over this machine's in a mount namespace; packages are installed into those. Nothing of this machine changes,
and all of it, jobs included, ends with process 1 of the cluster's PID namespace.
"""

import contextlib
import functools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil

NODES = ("node1", "node2")
TOOLS = ("unshare", "nsenter", "setpriv", "mount", "apt-get")
COMMANDS = ("oarsub", "oarstat", "oardel")
MACHINE = Path(__file__).with_name("machine.sh")
INSTALL_PATIENCE = 300.0
PATIENCE = 120.0

OVERLAY = """
mount -t tmpfs over /tmp && mkdir /tmp/upper /tmp/work &&
mount -t overlay over -o lowerdir=/etc,upperdir=/tmp/upper,workdir=/tmp/work /etc
"""


class CannotInstall(Exception):
    """The packages of OAR can't be installed here."""


@functools.cache
def missing():
    """Returns why a cluster can't be started here, or ""."""
    if os.geteuid() != 0:
        return "OAR needs root: a mount namespace of its own, with packages of its own"
    if absent := [name for name in TOOLS if not shutil.which(name, path=_path())]:
        return f"OAR can't be installed: no {', '.join(absent)} on PATH"
    words = ["unshare", "--mount", "--pid", "--fork", "--mount-proc", "sh", "-ec", OVERLAY]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    return f"no overlay can be mounted here: {done.stderr.strip()}" if done.returncode else ""


def _path():
    return os.environ["PATH"] + ":/usr/sbin:/sbin"


class Cluster:
    """Two virtual nodes of four cores each, both on this machine.

    Args:
        folder: Where everything lives.
    """

    def __init__(self, folder):
        self.folder = folder
        self._path = _path()
        self._unshare = None
        self._first = None

    def start(self):
        """Installs and starts OAR and waits for its nodes; returns the cluster.

        Raises:
            CannotInstall: The packages can't be had.
        """
        self.folder.chmod(0o755)  # OAR's user writes its log there
        for name in ("over", "bin"):
            (self.folder / name).mkdir()
        ports = _free_ports(2)
        namespaces = ["--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
        command = ["unshare", *namespaces, "sh", MACHINE, self.folder, *map(str, ports)]
        with (self.folder / "machine.log").open("wb") as log:
            self._unshare = subprocess.Popen(
                [
                    "setpriv",
                    "--pdeathsig",
                    "KILL",
                    *command,
                ],  # not to outlive a test that is killed
                env=os.environ | {"PATH": self._path},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._wait(
            lambda: psutil.Process(self._unshare.pid).children(), "a PID namespace", PATIENCE
        )
        (self._first,) = psutil.Process(self._unshare.pid).children()
        try:
            self._wait((self.folder / "installed").exists, "OAR's packages", INSTALL_PATIENCE)
        except AssertionError as error:
            if self._unshare.poll() is None:
                raise
            raise CannotInstall(str(error)) from None
        self._wait((self.folder / "ready").exists, "OAR's nodes", PATIENCE)
        for name in COMMANDS:
            path = self.folder / "bin" / name
            inside = " ".join(self._inside())
            path.write_text(
                f'#!/bin/sh\necho "{name} $*" >>{self.folder}/calls\n'
                f'exec {inside} --wd="$PWD" /usr/bin/{name} "$@"\n'
            )
            path.chmod(0o755)
        return self

    def _inside(self):
        return ["nsenter", f"--target={self._first.pid}", "--mount", "--pid"]

    def environment(self):
        """Environment variables of processes that use this cluster."""
        return {"PATH": f"{self.folder}/bin:{self._path}"}

    def ask(self, *command):
        """Runs a command on the cluster's machine; returns what it prints."""
        words = [*self._inside(), *map(str, command)]
        environment = os.environ | {"PATH": self._path}
        done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
        return done.stdout + done.stderr

    def details(self, *ids):
        """Returns the output of `oarstat -f -J` for some jobs, by id."""
        words = [word for one in ids for word in ("-j", one)]
        return json.loads(self.ask("oarstat", "-f", "-J", *words))

    def jobs(self):
        """Name to id of all jobs that have not ended."""
        text = self.ask("oarstat", "-J").strip()
        return {job["name"]: number for number, job in json.loads(text or "{}").items()}

    def calls(self, name):
        """Records the arguments of each call of a command on PATH."""
        path = self.folder / "calls"
        lines = path.read_text().splitlines() if path.exists() else []
        return [line.partition(" ")[2] for line in lines if line.startswith(f"{name} ")]

    @contextlib.contextmanager
    def frozen_database(self):
        """Stops the database of OAR; its commands get no answer meanwhile."""
        frozen = self._processes("postgres")
        for one in frozen:
            one.suspend()
        try:
            yield
        finally:
            for one in frozen:
                one.resume()

    @contextlib.contextmanager
    def without_server(self):
        """Ends the server of OAR (Almighty) and starts it again at the end."""
        for one in self._processes("Almighty"):
            one.kill()
        wait_for_it(lambda: not self._processes("Almighty"), "the end of Almighty")
        try:
            yield
        finally:
            self._daemon("Almighty")

    def _processes(self, word):
        found = []
        for one in self._first.children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                if word in " ".join(one.cmdline()[:2]):
                    found.append(one)
        return found

    def _daemon(self, name):
        """Starts a program inside, as a child of the cluster's process 1."""
        line = f'/usr/sbin/{name} >>"$0" 2>&1 </dev/null &'
        self.ask("sh", "-c", line, self.folder / f"{name}.log")

    @contextlib.contextmanager
    def without_cores(self):
        """Makes all nodes absent, so that no job starts meanwhile."""
        for state in ("Absent", "Alive"):
            for node in NODES:
                self.ask("oarnodesetting", f"--hostname={node}", f"--state={state}")
            if state == "Absent":
                yield

    def close(self):
        """Ends everything."""
        if self._unshare is not None:
            with contextlib.suppress(psutil.NoSuchProcess):
                (self._first or self._unshare).send_signal(signal.SIGKILL)
            self._unshare.wait()

    def _wait(self, condition, what, patience):
        def look():
            if self._unshare.poll() is not None:
                message = f"{what}: {self._said()}"
                raise AssertionError(message)
            return condition()

        try:
            wait_for_it(look, what, patience)
        except AssertionError as error:
            message = f"{error}; {self._said()}"
            raise AssertionError(message) from None

    def _said(self):
        logs = sorted(self.folder.glob("*.log"))
        return "\n".join(f"{log.name}: {log.read_text()[-1500:]}" for log in logs)


def _free_ports(count):
    """Returns some free ports."""
    with contextlib.ExitStack() as stack:
        servers = [stack.enter_context(socket.create_server(("", 0))) for _ in range(count)]
        return [server.getsockname()[1] for server in servers]


def wait_for_it(condition, what, patience=120.0):
    """Polls until the answer is true; returns the answer."""
    until = time.monotonic() + patience
    while not (found := condition()):
        assert time.monotonic() < until, f"waited in vain for {what}"
        time.sleep(0.05)
    return found


if __name__ == "__main__":  # for a person: a cluster in a folder, until Enter
    if problem := missing():
        sys.exit(problem)
    cluster = Cluster(Path(sys.argv[1]).resolve())
    try:
        cluster.start()
        print(f"export PATH={cluster.environment()['PATH']}", flush=True)
        sys.stdin.readline()
    finally:
        cluster.close()
