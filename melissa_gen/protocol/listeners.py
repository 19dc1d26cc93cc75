"""TCP sockets on which libraries of this process listen, and a filter that closes them to new connections.

Gloo and the rendezvous store of torch.distributed authenticate no peer, and have no call that ends the listening. Once
the ranks have connected to each other, the kernel therefore drops every further packet to these sockets.
"""

import ctypes
import os
import socket
import struct
import sys
from collections.abc import Iterable
from typing import NamedTuple

import psutil

__all__ = ["Listener", "refuse_connections", "tcp_listeners"]

_SO_ATTACH_FILTER = 26
# One instruction of a classic BPF program: return 0, which drops the packet.
_DROP_ALL = struct.pack("HBBI", 0x06, 0, 0, 0)


class Listener(NamedTuple):
    """A TCP socket of this process that accepts connections."""

    descriptor: int
    address: str
    port: int


def tcp_listeners() -> set[Listener]:
    """Returns all TCP sockets on which this process listens."""
    return {
        Listener(found.fd, found.laddr.ip, found.laddr.port)
        for found in psutil.Process().net_connections("tcp")
        if found.status == psutil.CONN_LISTEN
    }


def refuse_connections(listeners: Iterable[Listener]) -> list[Listener]:
    """Closes listening sockets of this process to new connections; established ones are kept.

    Returns:
        The sockets that stay open, because the system has no such filter.
    """
    instruction = ctypes.create_string_buffer(_DROP_ALL, len(_DROP_ALL))
    program = struct.pack("HP", 1, ctypes.addressof(instruction))
    kept = []
    for listener in listeners:
        try:
            if sys.platform != "linux":
                raise OSError
            with socket.socket(fileno=os.dup(listener.descriptor)) as opened:
                opened.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)
        except OSError:
            kept.append(listener)
    return kept
