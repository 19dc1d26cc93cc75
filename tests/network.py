"""A second network on this machine: a namespace connected by a pair of virtual interfaces."""

import contextlib
import functools
import os
import shutil
import socket
import subprocess
import sys
import uuid

# ip and nft stand in folders that are not on the PATH of every user.
os.environ["PATH"] += ":/usr/sbin:/sbin"

PACKAGES = ["iproute2", "nftables"]
CONNECT = "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), 20)"


class Network:
    """Commands with the prefix `inside` reach this machine at `address`, through the interface `interface`.

    Attributes:
        inside: Words to put before a command that is to run in it.
        interface: Our end of the pair.
        address: That end's address.
    """

    def __init__(self):
        mark = uuid.uuid4().hex[:6]
        self.interface = f"mg-{mark}"
        # 198.18.0.0/15 is kept for tests of networks (RFC 2544).
        number = 4 * (int(mark, 16) % 2**14)
        near, far = (f"198.18.{number >> 8}.{number % 256 + host}" for host in (1, 2))
        self.address = near
        hold = "echo; exec sleep infinity"  # the namespace lives as long as this process
        words = ["setpriv", "--pdeathsig", "TERM", "unshare", "--net", "sh", "-c", hold]
        self._holder = subprocess.Popen(words, stdout=subprocess.PIPE)
        self._holder.stdout.readline()
        there = str(self._holder.pid)
        self.inside = ["nsenter", f"--net=/proc/{there}/ns/net"]
        try:
            pair = ["type", "veth", "peer", "name", "away", "netns", there]
            _call("ip", "link", "add", self.interface, *pair)
            _call("ip", "address", "add", f"{near}/30", "dev", self.interface)
            _call("ip", "link", "set", self.interface, "up")
            _call(*self.inside, "ip", "address", "add", f"{far}/30", "dev", "away")
            for name in ("lo", "away"):
                _call(*self.inside, "ip", "link", "set", name, "up")
            _call(*self.inside, "ip", "route", "add", "default", "via", near)
        except BaseException:
            self.close()
            raise

    def reaches(self, address):
        """Whether a program inside can connect to a listening socket of this machine."""
        with socket.create_server((address, 0)) as listening:
            words = [*self.inside, sys.executable, "-c", CONNECT, address]
            port = str(listening.getsockname()[1])
            return subprocess.run([*words, port], check=False, capture_output=True).returncode == 0

    @contextlib.contextmanager
    def firewall(self, port):
        """Drops packets from inside to a port of this machine."""
        chain = "{ type filter hook output priority 0; policy accept; }"
        nft = [*self.inside, "nft", "add"]
        _call(*nft, "table", "ip", "wall")
        _call(*nft, "chain", "ip", "wall", "out", chain)
        _call(*nft, "rule", "ip", "wall", "out", "tcp", "dport", str(port), "drop")
        try:
            yield
        finally:
            _call(*self.inside, "nft", "delete", "table", "ip", "wall")

    def close(self):
        """Removes the pair of interfaces and the namespace."""
        subprocess.run(["ip", "link", "delete", self.interface], check=False, capture_output=True)
        self._holder.kill()
        self._holder.communicate()


@functools.cache
def missing():
    """Returns why a second network can't be created here, or ""; installs its tools if that is allowed."""
    if os.geteuid() != 0:
        return "only root can make a network namespace"
    if not all(shutil.which(name) for name in ("ip", "nft")):
        if not shutil.which("apt-get"):
            return "there is no ip or no nft on PATH, and no apt-get"
        for words in (["update"], ["install", "-y", "--no-install-recommends", *PACKAGES]):
            command = ["apt-get", "-qq", *words]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode != 0:
                return f"{' '.join(command)}: {done.stderr.strip()}"
    try:
        network = Network()
    except subprocess.CalledProcessError as error:
        return f"{' '.join(error.cmd)}: {error.stderr.strip()}"
    try:
        with network.firewall(1):
            return (
                ""
                if network.reaches(network.address)
                else "a firewall keeps virtual networks apart"
            )
    except subprocess.CalledProcessError as error:
        return f"{' '.join(error.cmd)}: {error.stderr.strip()}"
    finally:
        network.close()


def _call(*words):
    subprocess.run(words, check=True, capture_output=True, text=True)
