"""A temporary SLURM cluster: munged, slurmctld and four virtual nodes on this machine, in one folder."""

import contextlib
import functools
import getpass
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil

from tests.conftest import UNSHARE, may_unshare

NODES = ("n1", "n2", "n3", "n4")
CPUS = 20
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scancel", "srun", "scontrol")
OF_ACCOUNTING = (
    "slurmdbd",
    "sacct",
    "sacctmgr",
    "mariadbd",
    "mariadb-install-db",
    "my_print_defaults",
)
PATIENCE = 60.0

CONFIGURATION = """
ClusterName=throwaway
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={folder}/munge/socket,cred_expire=10
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
TmpFS={folder}/tmp/%n
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
SlurmdParameters=config_overrides
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
SchedulerParameters=batch_sched_delay=0,sched_interval=1,sched_min_interval=100000,bf_interval=1,bf_window=1440
SlurmdTimeout=10
SlurmctldTimeout=10
MessageTimeout=5
KillWait=5
OverTimeLimit=0
MinJobAge={memory}
MaxJobCount=5000
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
GresTypes=gpu
NodeName=n[1-4] Port=[{ports}] NodeHostname={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory=4000 Gres=gpu:fake:2
PartitionName=main Nodes=n[1-4] Default=YES State=UP PriorityTier=1 MaxTime=60
PartitionName=urgent Nodes=n[1-4] Default=NO State=UP PriorityTier=10 MaxTime=60
"""

ACCOUNTING = """
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort={port}
AccountingStoragePass={folder}/munge/socket
AccountingStorageEnforce=associations,limits,qos
"""
DATABASE = """
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket
DbdHost=localhost
DbdAddr=127.0.0.1
DbdPort={port}
SlurmUser={user}
StorageType=accounting_storage/mysql
StorageHost=localhost
StorageUser={user}
StorageLoc=slurm
PidFile={folder}/slurmdbd.pid
LogFile={folder}/slurmdbd.log
CommitDelay=0
"""


@functools.cache
def missing(*, accounting=False):
    """Returns why a cluster can't be started here, or ""; installs SLURM if that is allowed.

    Args:
        accounting: Whether it is to have a database of jobs and of limits.
    """
    programs = PROGRAMS + OF_ACCOUNTING * accounting
    packages = ["slurm-wlm", "munge"]
    if accounting:  # without mariadb-server, which would start a database of the whole system
        packages += ["slurmdbd", "mariadb-server-core", "mariadb-client-core"]
    absent = _absent(programs)
    if absent and os.geteuid() == 0 and shutil.which("apt-get"):
        quiet = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
        for words in (
            ["update"],
            ["install", "-y", "--no-install-recommends", *packages],
        ):
            command = ["apt-get", "-qq", *words]
            done = subprocess.run(command, env=quiet, capture_output=True, text=True, check=False)
            if done.returncode != 0:
                return f"SLURM can't be installed: {' '.join(command)}: {done.stderr.strip()}"
        absent = _absent(programs)
    return f"SLURM is not installed: no {', '.join(absent)} on PATH" if absent else ""


def _absent(programs):
    path = os.environ["PATH"] + ":/usr/sbin:/sbin"
    return [name for name in programs if not shutil.which(name, path=path)]


class Cluster:
    """Four virtual nodes of 20 CPUs and two simulated GPUs each, all on this machine.

    Args:
        folder: Where everything lives; its path must be short.
        accounting: Whether slurmdbd keeps a history of jobs, and jobs need an association that allows them.
    """

    def __init__(self, folder, *, accounting=False):
        self.folder, self.accounting = folder, accounting
        self.environment = {"SLURM_CONF": str(folder / "slurm.conf")}
        self._processes = {}

    def start(self):
        """Starts all daemons and waits until all nodes are idle; returns the cluster."""
        for name in (
            "munge",
            "state",
            "dev",
            "shm",
            *(f"{d}/{n}" for d in ("spool", "tmp") for n in NODES),
        ):
            (self.folder / name).mkdir(parents=True)
        first = _free_ports(2 + len(NODES))
        user, last = getpass.getuser(), first + len(NODES)
        text = CONFIGURATION.format(
            host=socket.gethostname().split(".")[0],
            user=user,
            folder=self.folder,
            controller=first,
            ports=f"{first + 1}-{last}",
            cpus=CPUS,
            memory=2 if self.accounting else 300,
        )
        if self.accounting:
            text += ACCOUNTING.format(folder=self.folder, port=last + 1)
        (self.folder / "slurm.conf").write_text(text)
        (self.folder / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\n")
        for number in range(2):
            (self.folder / "dev" / f"nvidia{number}").symlink_to("/dev/null")
        line = f"Name=gpu Type=fake File={self.folder}/dev/nvidia[0-1]\n"
        (self.folder / "gres.conf").write_text(line)
        self._start_munge()
        if self.accounting:
            database = DATABASE.format(folder=self.folder, port=last + 1, user=user)
            self._start_accounting(database, user)
        self.start_controller()
        for node in NODES:
            self.start_node(node)
        self.wait_idle()
        return self

    def _start_munge(self):
        folder = self.folder / "munge"
        folder.chmod(0o755)
        key = folder / "key"
        key.touch(0o600)
        key.write_bytes(os.urandom(128))
        files = {"key-file": "key", "socket": "socket", "pid-file": "pid", "log-file": "log"}
        files["seed-file"] = "seed"
        words = [f"--{option}={folder / name}" for option, name in files.items()]
        self._spawn("munged", "munged", "--foreground", "--force", "--num-threads=2", *words)
        _wait(lambda: (folder / "socket").exists(), "munged", self._said)

    def _start_accounting(self, configuration, user):
        """A database that listens on a socket in the folder alone, and slurmdbd, which may write into it."""
        data, answers = self.folder / "data", self.folder / "mariadb"
        own = [f"--user={user}", f"--datadir={data}"]
        words = [*own, "--auth-root-socket-user=" + user, "--skip-test-db"]
        install = ["mariadb-install-db", "--no-defaults", *words]
        done = subprocess.run(install, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        small = ["--innodb-buffer-pool-size=64M", "--innodb-flush-log-at-trx-commit=0"]
        self._spawn(
            "mariadbd",
            "mariadbd",
            "--no-defaults",
            *own,
            f"--socket={answers}",
            "--skip-networking",
            f"--pid-file={self.folder}/mariadbd.pid",
            *small,
        )
        _wait(answers.exists, "mariadbd", self._said)
        settings = self.folder / "slurmdbd.conf"
        settings.touch(0o600)
        settings.write_text(configuration)
        self._spawn("slurmdbd", "slurmdbd", "-D")
        _wait(lambda: "Cluster" in self.ask("sacctmgr", "show", "cluster"), "slurmdbd", self._said)
        self.account("add", "cluster", "throwaway")
        self.account("add", "account", "lab", "cluster=throwaway")
        self.account("add", "user", user, "account=lab", "defaultaccount=lab")

    def account(self, *words):
        """Changes the database of accounts, users and limits, by `sacctmgr`."""
        command = ["sacctmgr", "-i", *words]
        done = subprocess.run(
            command, env=self.whole_environment(), capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def start_controller(self):
        """Starts slurmctld."""
        self._spawn("slurmctld", "slurmctld", "-D", "-i")
        _wait(lambda: "UP" in self.ask("scontrol", "ping"), "slurmctld", self._said)

    def start_node(self, node):
        """Starts the slurmd of a node, whose jobs see a /dev/shm of the cluster's own.

        MPICH names its shared memory by the job's number, and leaves it behind when a job is killed; the next cluster's
        job of that number would take it for its own.
        """
        own = [*UNSHARE, str(self.folder / "shm")] if may_unshare() else []
        self._spawn(node, *own, "slurmd", "-D", "-N", node)

    def freeze_controller(self):
        """Stops slurmctld, which then does not answer, as under a high load."""
        self._processes["slurmctld"].send_signal(signal.SIGSTOP)

    def thaw_controller(self):
        """Continues slurmctld."""
        self._processes["slurmctld"].send_signal(signal.SIGCONT)

    def kill_controller(self):
        """Kills slurmctld."""
        process = self._processes.pop("slurmctld")
        process.kill()
        process.wait()

    def kill_node(self, node):
        """Kills slurmd of a node, its step daemons and all tasks, as in a power failure."""
        process = self._processes.pop(node)
        for pid in [process.pid, *self._stepds(node)]:
            with contextlib.suppress(psutil.Error):
                one = psutil.Process(pid)
                for victim in [one, *one.children(recursive=True)]:
                    victim.kill()
        process.wait()

    def out_of_time(self, job):
        """Lets a job exceed its time limit; slurmctld checks limits twice a minute and ends the job."""
        self.ask("scontrol", "update", f"JobId={job}", "EndTime=now+1")

    def _stepds(self, node):
        """The step daemons of a node, found by the sockets that they keep in its spool folder."""
        spool, found = f"{self.folder}/spool/{node}", []
        for one in psutil.process_iter(["pid", "name"]):
            if one.info["name"].startswith("slurmstepd"):
                with contextlib.suppress(psutil.Error, OSError):
                    files = Path("/proc/net/unix").read_text()
                    numbers = {line.split()[6] for line in files.splitlines() if spool in line}
                    for link in Path(f"/proc/{one.pid}/fd").iterdir():
                        target = os.readlink(link)
                        if target.startswith("socket:[") and target[8:-1] in numbers:
                            found.append(one.pid)
        return found

    def wait_idle(self):
        """Waits until no node is down or has a job."""
        _wait(
            lambda: self.ask("sinfo", "-h", "-p", "main", "-o", "%T").split() == ["idle"],
            "four idle nodes",
            lambda: self._said() + self.ask("sinfo", "-R"),
        )

    def ask(self, *command):
        """Runs a command of SLURM; returns what it prints."""
        done = subprocess.run(
            command, env=self.whole_environment(), capture_output=True, text=True, check=False
        )
        return done.stdout + done.stderr

    def whole_environment(self):
        """Returns the environment of processes that use this cluster."""
        path = {"PATH": os.environ["PATH"] + ":/usr/sbin"}
        return os.environ | self.environment | path

    def jobs(self):
        """Returns (id, name, state) of all jobs that have not ended."""
        lines = self.ask("squeue", "-h", "-o", "%i|%j|%T").splitlines()
        return [tuple(line.split("|")) for line in lines]

    def wait_for_end(self, job):
        """Waits for the end of a job, and of all components of a heterogeneous job."""

        def over():
            return job not in [number.partition("+")[0] for number, _, _ in self.jobs()]

        _wait(over, f"the end of job {job}", self._said, 180.0)

    def close(self):
        """Ends everything: jobs, daemons, step daemons."""
        if "slurmctld" in self._processes:
            self.thaw_controller()
            self.ask("scancel", "--user", getpass.getuser())
            with contextlib.suppress(AssertionError):
                _wait(lambda: not self.jobs(), "the end of all jobs", str)
        for node in NODES:
            for pid in self._stepds(node):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        for process in reversed(self._processes.values()):
            process.terminate()
        for process in self._processes.values():
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._processes.clear()

    def _spawn(self, name, *command):
        environment = self.whole_environment() | {"MYSQL_UNIX_PORT": f"{self.folder}/mariadb"}
        program = shutil.which(command[0], path=environment["PATH"])
        with (self.folder / f"{name}.out").open("ab") as log:
            self._processes[name] = subprocess.Popen(
                [
                    "setpriv",
                    "--pdeathsig",
                    "TERM",
                    program,
                    *command[1:],
                ],  # not to outlive a test that is killed
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _said(self):
        logs = [*self.folder.glob("*.out"), *self.folder.glob("*.log")]
        return "\n".join(f"{log.name}: {log.read_text()[-1500:]}" for log in logs)


def _free_ports(count):
    """Returns the first of some consecutive free ports."""
    for first in range(17_000, 30_000, 16):
        with contextlib.ExitStack() as stack, contextlib.suppress(OSError):
            for port in range(first, first + count):
                stack.enter_context(socket.create_server(("127.0.0.1", port)))
            return first
    message = "no free ports"
    raise OSError(message)


def wait_for_it(condition, what, patience=90.0):
    """Polls until the answer is true; returns the answer."""
    until = time.monotonic() + patience
    while not (found := condition()):
        assert time.monotonic() < until, f"waited in vain for {what}"
        time.sleep(0.05)
    return found


def _wait(condition, what, said, patience=PATIENCE):
    try:
        wait_for_it(condition, what, patience)
    except AssertionError as error:
        message = f"{error}; {said()}"
        raise AssertionError(message) from None


if __name__ == "__main__":  # for a person: python -m tests.slurm.cluster FOLDER, until Enter
    if problem := missing():
        sys.exit(problem)
    cluster = Cluster(Path(sys.argv[1]).resolve())
    try:
        cluster.start()
        print(f"export SLURM_CONF={cluster.environment['SLURM_CONF']}", flush=True)
        sys.stdin.readline()
    finally:
        cluster.close()
