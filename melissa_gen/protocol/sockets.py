"""Opens every ZeroMQ socket of melissa_gen, with its security, limits and timeouts."""

import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil
import zmq

from melissa_gen.errors import RunError, StudyError
from melissa_gen.protocol.authenticator import Authenticator
from melissa_gen.protocol.contact import Contact
from melissa_gen.protocol.handshake import watch_handshake
from melissa_gen.protocol.session import new_identity

__all__ = [
    "bind_socket",
    "choose_interface",
    "client_context",
    "connect_socket",
    "interface_address",
    "unreachable",
]

CONTROL_LIMIT = 16 << 20
"""Largest control message (bytes)."""

_USERNAME = b"melissa_gen"
"""Name with which a peer logs in to an unencrypted data socket; the password is the token in hexadecimal digits."""

_SILENCE_MILLISECONDS = 6000
"""Time after which a connection ends whose other end confirms no packet."""
_CONNECT_MILLISECONDS = 2000


def choose_interface(wanted: str, *, one_machine: bool) -> str:
    """Returns the network interface to bind to.

    Args:
        wanted: Name of the interface, or `auto`: loopback if all peers are on this machine, else the interface with the
            address of this host's name; if that is loopback, the interface of the default route.
        one_machine: Whether all peers are on this machine.
    """
    if wanted != "auto":
        return wanted
    owner = {
        address.address: name
        for name, addresses in psutil.net_if_addrs().items()
        for address in addresses
        if address.family == socket.AF_INET
    }
    loopback = owner.get("127.0.0.1", "lo")
    if one_machine:
        return loopback
    for find in (_address_of_name, _address_outward):
        found = owner.get(find(), loopback)
        if found != loopback:
            return found
    return loopback


def _address_of_name() -> str:
    try:
        return socket.gethostbyname(socket.gethostname())
    except OSError:
        return ""


def _address_outward() -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            # Sends nothing; it only looks up the route.
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return ""
        return str(probe.getsockname()[0])


def unreachable(endpoint: str, timeout: float = 10.0) -> str:
    """Tries to open a connection to a tcp endpoint of the server.

    Returns:
        "" if the endpoint can be reached or is not a tcp endpoint; else a sentence with hosts, port and reason.
    """
    if not endpoint.startswith("tcp://"):
        return ""
    host, _, port = endpoint.removeprefix("tcp://").rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout).close()
    except OSError as error:
        return (
            f"{socket.gethostname()} can't reach the training server at {host} on port {port}: "
            f"{error.strerror or error}; is server.interface right, and the port open between the nodes "
            "(server.ports)?"
        )
    return ""


def interface_address(name: str) -> str:
    """Returns the IPv4 address of a network interface.

    Raises:
        StudyError: The interface does not exist; the message lists those that do.
    """
    interfaces = psutil.net_if_addrs()
    for address in interfaces.get(name, []):
        if address.family == socket.AF_INET:
            return address.address
    legal = ", ".join(sorted(interfaces))
    msg = f"server.interface '{name}' has no IPv4 address on {socket.gethostname()}; legal: {legal}"
    raise StudyError(msg)


def bind_socket(
    context: zmq.Context[Any],
    contact: Contact,
    name: str,
    address: str,
    *,
    limit: int = CONTROL_LIMIT,
    queue: int = 1000,
    data: bool = False,
    ports: Sequence[int] | None = None,
    authenticator: Authenticator | None = None,
) -> tuple[zmq.Socket[bytes], str]:
    """Opens a server socket (ROUTER) on ipc or a random tcp port.

    On tcp, peers are authenticated: by CURVE, which also encrypts, or on an unencrypted data socket by PLAIN with the
    token. The context needs an `Authenticator`.

    Args:
        context: The ZeroMQ context of the process.
        contact: Secrets and transport of this server process.
        name: Name of the ipc socket file, and of the socket in refusals.
        address: IPv4 address for tcp.
        limit: Largest frame that is accepted (bytes). A peer that sends a larger one is disconnected.
        queue: Largest number of queued messages per peer.
        data: Whether this is a data socket, which is encrypted only with `Contact.encrypt_data`.
        ports: First and last tcp port that may be used; None: any.
        authenticator: The one of the context, which then also counts peers that do not authenticate at all.

    Returns:
        The socket and the endpoint that peers connect to.

    Raises:
        RunError: No port is free.
    """
    bound = _open(context, zmq.ROUTER, limit, queue)
    # A peer that reconnects takes over from its old connection, whose end may not have been noticed.
    bound.router_handover = True
    if contact.runtime_folder:
        endpoint = f"ipc://{Path(contact.runtime_folder) / name}"
        bound.bind(endpoint)
        return bound, endpoint
    if contact.curve is not None:
        # The authenticator of the process decides who may connect; without one, nothing may.
        bound.zap_domain = name.encode()
        bound.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)
        if contact.encrypt_data or not data:
            bound.curve_server = True
            bound.curve_secretkey = contact.curve.server_secret.encode()
        else:
            bound.plain_server = True
        if authenticator is not None:
            authenticator.watch(bound, name)
    port = _bind(bound, address, ports)
    return bound, f"tcp://{address}:{port}"


def _bind(bound: zmq.Socket[bytes], address: str, ports: Sequence[int] | None) -> int:
    if ports is None:
        return bound.bind_to_random_port(f"tcp://{address}")
    for port in range(ports[0], ports[1] + 1):
        try:
            bound.bind(f"tcp://{address}:{port}")
        except zmq.ZMQError:
            continue
        return port
    msg = f"server.ports: no port from {ports[0]} to {ports[1]} is free on {address}; choose another or a wider range"
    raise RunError(msg)


def client_context(ranks: int) -> zmq.Context[Any]:
    """Returns a ZeroMQ context that may open all sockets of a client of this number of server ranks."""
    context: zmq.Context[Any] = zmq.Context()
    # The default is about 1000. Each rank needs one socket, and two that watch the handshake.
    context.set(zmq.MAX_SOCKETS, min(max(1023, 3 * ranks + 64), context.get(zmq.SOCKET_LIMIT)))
    return context


def connect_socket(
    context: zmq.Context[Any],
    contact: Contact,
    endpoint: str,
    *,
    data: bool = False,
    queue: int = 1000,
) -> zmq.Socket[bytes]:
    """Opens the socket of a peer (DEALER) and connects it to an endpoint of the server.

    Args:
        context: The ZeroMQ context of the process.
        contact: Secrets and transport of the server process.
        endpoint: The endpoint.
        data: Whether it is a data socket, which is encrypted only with `Contact.encrypt_data`, and whose handshake is
            watched (`melissa_gen.protocol.handshake`).
        queue: Largest number of queued messages; 0: no limit.
    """
    peer = _open(context, zmq.DEALER, CONTROL_LIMIT, queue)
    if data:
        watch_handshake(peer)
    # The server recognizes the socket after a reconnect.
    peer.routing_id = new_identity()
    peer.connect_timeout = _CONNECT_MILLISECONDS
    if contact.curve is not None and (contact.encrypt_data or not data):
        peer.curve_serverkey = contact.curve.server_public.encode()
        peer.curve_publickey = contact.curve.client_public.encode()
        peer.curve_secretkey = contact.curve.client_secret.encode()
    elif contact.curve is not None:
        peer.plain_username = _USERNAME
        peer.plain_password = contact.token.hex().encode()
    peer.connect(endpoint)
    return peer


def _open(context: zmq.Context[Any], kind: int, limit: int, queue: int) -> zmq.Socket[bytes]:
    opened: zmq.Socket[bytes] = context.socket(kind)
    opened.linger = 1000
    opened.maxmsgsize = limit
    opened.sndhwm = opened.rcvhwm = queue
    # A connection that a firewall or a router has dropped ends after some seconds, and another one is opened.
    opened.tcp_maxrt = _SILENCE_MILLISECONDS
    opened.tcp_keepalive = 1
    opened.tcp_keepalive_idle, opened.tcp_keepalive_intvl, opened.tcp_keepalive_cnt = 5, 2, 3
    opened.handshake_ivl = 10_000
    return opened
