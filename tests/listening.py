"""The TCP sockets on which the processes of a study listen, as the kernel lists them."""

import os
import socket
from pathlib import Path
from typing import NamedTuple


class Listening(NamedTuple):
    """A listening socket: its address, its port and its inode."""

    address: str
    port: int
    inode: str


def listening_sockets(pids):
    """Process id to the sockets that it has open and that listen, from /proc/net/tcp and tcp6."""
    return {pid: _of_process(pid) for pid in pids}


def accepts(found, timeout=0.5):
    """Whether a listening socket accepts a connection of an unknown peer."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(found.address, found.address)
    try:
        socket.create_connection((host, found.port), timeout).close()
    except OSError:
        return False
    return True


def _of_process(pid):
    inodes = set()
    for link in Path(f"/proc/{pid}/fd").iterdir():
        try:
            target = os.readlink(link)
        except OSError:
            continue  # closed meanwhile
        if target.startswith("socket:["):
            inodes.add(target[8:-1])
    tables = [Path(f"/proc/{pid}/net/{name}").read_text() for name in ("tcp", "tcp6")]
    lines = [line.split() for text in tables for line in text.splitlines()[1:]]
    listen = "0A"
    return {
        Listening(*_address(line[1]), line[9])
        for line in lines
        if line[3] == listen and line[9] in inodes
    }


def _address(text):
    """The address and port that the kernel writes as hexadecimal words in the machine's byte order."""
    host, port = text.split(":")
    raw = b"".join(bytes.fromhex(host[n : n + 8])[::-1] for n in range(0, len(host), 8))
    family = socket.AF_INET if len(raw) == 4 else socket.AF_INET6
    return socket.inet_ntop(family, raw), int(port, 16)
