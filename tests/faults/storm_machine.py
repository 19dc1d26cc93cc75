"""A small machine for one storm, with a disk, a /dev/shm, a loopback network and a clock that faults can disturb."""

import contextlib
import functools
import shutil
import subprocess
import tempfile
from pathlib import Path

from tests import network

CLOCK_SOURCE = Path(__file__).parent / "other_clock.c"
DISK_MEGABYTES = 96
SHM_MEGABYTES = 96


@functools.cache
def missing():
    """Returns why the machine can't be created here, or ""; installs missing programs if that is allowed."""
    if problem := network.missing():
        return problem
    if lacking := [name for name in ("mkfs.ext4", "fsfreeze") if not shutil.which(name)]:
        return f"there is no {lacking[0]} on PATH"
    try:
        with tempfile.TemporaryDirectory() as folder, Machine(Path(folder)):
            return ""
    except subprocess.CalledProcessError as error:
        return f"{' '.join(map(str, error.cmd))}: {error.stderr.strip()}"


class Machine(contextlib.ExitStack):
    """Mounts and namespaces; `close` removes them.

    Attributes:
        disk: Folder on a disk of 96 MB of its own.
        shm: Folder in memory of 96 MB, which the commands of a storm see as /dev/shm.
        inside: Words before a command that runs in the network namespace of the machine.
        environment: Variables that give a command the machine's clock, where a C compiler is installed.
    """

    def __init__(self, folder):
        super().__init__()
        self.disk, self.shm = folder / "disk", folder / "shm"
        try:
            self._mount_disk(folder / "disk.img")
            self._mount("-t", "tmpfs", "-o", f"size={SHM_MEGABYTES}m", "tmpfs", folder=self.shm)
            self._open_network()
        except BaseException:
            self.close()
            raise
        self._offset = folder / "clock"
        self._offset.write_text("0")
        self.environment = {}
        if compiler := shutil.which("gcc"):
            library = folder / "clock.so"
            call(compiler, "-shared", "-fPIC", "-O2", "-o", library, CLOCK_SOURCE)
            self.environment = {
                "LD_PRELOAD": str(library),
                "MELISSA_GEN_TEST_CLOCK": str(self._offset),
            }

    def _mount_disk(self, image):
        with image.open("wb") as file:
            file.truncate(DISK_MEGABYTES * 2**20)
        call("mkfs.ext4", "-q", "-m", "0", image)
        self._mount("-o", "loop", image, folder=self.disk)

    def _mount(self, *words, folder):
        folder.mkdir()
        call("mount", *words, folder)
        self.callback(call, "umount", "--lazy", folder)

    def _open_network(self):
        hold = "ip link set lo up && echo && exec sleep infinity"
        words = ["setpriv", "--pdeathsig", "KILL", "unshare", "--net", "sh", "-c", hold]
        holder = subprocess.Popen(words, stdout=subprocess.PIPE)
        self.callback(holder.wait)
        self.callback(holder.kill)
        holder.stdout.readline()
        holder.stdout.close()
        self.inside = ["nsenter", f"--net=/proc/{holder.pid}/ns/net"]

    @contextlib.contextmanager
    def filter(self, port, verdict):
        """Applies an nftables verdict to all packets from and to a port."""
        chain = "{ type filter hook output priority 0; policy accept; }"
        nft = [*self.inside, "nft", "add"]
        call(*nft, "table", "ip", "storm")
        try:
            call(*nft, "chain", "ip", "storm", "out", chain)
            for side in ("dport", "sport"):
                call(*nft, "rule", "ip", "storm", "out", "tcp", side, str(port), *verdict.split())
            yield
        finally:
            call(*self.inside, "nft", "delete", "table", "ip", "storm")

    @contextlib.contextmanager
    def full(self, folder):
        """Fills the file system of a folder to the last byte."""
        ballast = folder / "ballast"
        with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
            for size in (2**20, 4096, 1):
                with contextlib.suppress(OSError):
                    while True:
                        file.write(bytes(size))
        try:
            yield
        finally:
            ballast.unlink(missing_ok=True)

    @contextlib.contextmanager
    def frozen_disk(self):
        """Blocks every write to the disk."""
        call("fsfreeze", "--freeze", self.disk)
        try:
            yield
        finally:
            call("fsfreeze", "--unfreeze", self.disk)

    @contextlib.contextmanager
    def other_time(self, seconds):
        """Changes the wall clock, and restores it."""
        self._set_clock(seconds)
        try:
            yield
        finally:
            self._set_clock(0)

    def _set_clock(self, seconds):
        new = self._offset.with_suffix(".new")
        new.write_text(str(seconds))
        new.replace(self._offset)


def call(*words):
    """Runs a command that must succeed."""
    subprocess.run(list(map(str, words)), check=True, capture_output=True, text=True)
