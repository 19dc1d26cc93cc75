"""The contact file: the addresses at which clients and launcher reach the server, and the secrets of the run."""

import contextlib
import json
import logging
import operator
import os
import secrets
import shutil
import socket
import tempfile
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Self

import zmq

from melissa_gen.errors import ProtocolError
from melissa_gen.protocol.shared_memory import this_machine

__all__ = ["Contact", "Curve", "remove_runtime_folder", "remove_stale_folders", "socket_parent"]

_log = logging.getLogger(__name__)

_PREFIX = "melissa_gen-"
_LONGEST_PATH = 107
"""Bytes of the path of a Unix socket in Linux."""
_ROOM = len(f"/{_PREFIX}12345678/data-99999")
_SHORT_PARENTS = (Path("/tmp"), Path("/dev/shm"))
_KEY_LENGTH = 40
"""Characters of a CURVE key in Z85."""


@dataclass(frozen=True)
class Curve:
    """The CURVE keys (Z85 text) of one server process and of all its clients."""

    server_public: str
    server_secret: str = field(repr=False)
    client_public: str
    client_secret: str = field(repr=False)

    @classmethod
    def generate(cls) -> Self:
        """Generates new keys."""
        server, client = zmq.curve_keypair(), zmq.curve_keypair()
        return cls(*(key.decode() for key in (*server, *client)))


@dataclass(frozen=True)
class Contact:
    """Addresses and secrets of one server process."""

    epoch: int
    token: bytes = field(repr=False)
    host: str
    runtime_folder: str
    """Private folder with the ipc sockets; "" with tcp."""
    control: str = ""
    heartbeat: str = ""
    data: tuple[str, ...] = ()
    curve: Curve | None = None
    encrypt_data: bool = False
    machines: tuple[str, ...] = ()
    """For each server rank the machine on which it reads client buffers in shared memory; "" if it reads none."""

    @classmethod
    def new(cls, epoch: int, host: str, *, ipc: bool, encrypt_data: bool) -> Self:
        """Generates the secrets of a new server process, and creates its private folder for ipc."""
        folder = _create_ipc_folder() if ipc else ""
        curve = None if ipc else Curve.generate()
        return cls(
            epoch,
            secrets.token_bytes(16),
            host,
            folder,
            curve=curve,
            encrypt_data=encrypt_data,
        )

    def write(self, path: Path) -> None:
        """Writes the file for peers atomically, with mode 0600 and without the secret key of the server."""
        curve = self.curve and replace(self.curve, server_secret="")
        peers = replace(self, curve=curve)
        partial = path.with_name(path.name + ".partial")
        partial.unlink(missing_ok=True)
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(peers.to_json())
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)

    def to_json(self) -> str:
        """Returns the whole contact as JSON text, including the secrets."""
        return json.dumps(asdict(self) | {"token": self.token.hex()}, indent=1)

    def shares_memory(self, rank: int) -> bool:
        """Returns whether a server rank can read the buffers of this process in shared memory."""
        return rank < len(self.machines) and self.machines[rank] == this_machine() != ""

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Reads the text that `to_json` returns.

        Raises:
            ProtocolError: The text is not a contact of this version.
        """
        try:
            data = json.loads(text)
            keys = data.pop("curve")
            curve = None if keys is None else Curve(**keys)
            token = bytes.fromhex(data.pop("token"))
            ranks, machines = tuple(data.pop("data")), tuple(data.pop("machines"))
            contact = cls(token=token, curve=curve, data=ranks, machines=machines, **data)
            if len(token) != 16 or not 0 <= operator.index(contact.epoch) < 1 << 32:
                raise ValueError
            if curve and any(len(key) != _KEY_LENGTH for key in asdict(curve).values() if key):
                raise ValueError
            texts = (contact.host, contact.runtime_folder, contact.control, contact.heartbeat)
            if not all(isinstance(text, str) for text in (*texts, *ranks, *machines)):
                raise ValueError
            return contact
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            msg = "is not a contact file of this version"
            raise ProtocolError(msg) from None

    @classmethod
    def read(cls, path: Path) -> Self:
        """Reads the contact file of a run.

        Raises:
            ProtocolError: The file can't be read.
        """
        try:
            return cls.from_json(path.read_text(encoding="utf-8"))
        except OSError as error:
            msg = f"{path}: can't read the server's contact file: {error.strerror}"
            raise ProtocolError(msg) from None
        except UnicodeDecodeError:
            msg = f"{path}: is not a contact file of this version"
            raise ProtocolError(msg) from None
        except ProtocolError as error:
            msg = f"{path}: {error}"
            raise ProtocolError(msg) from None


def socket_parent() -> Path:
    """Returns the folder for the ipc folders: that for temporary files, or a shorter one if a socket has no room there.

    Raises:
        ProtocolError: There is no folder that is short enough.
    """
    wanted, *short = _socket_parents()
    if len(os.fsencode(wanted)) + _ROOM <= _LONGEST_PATH:
        return wanted
    for folder in short:
        if os.access(folder, os.W_OK | os.X_OK):
            return folder
    msg = f"{wanted} is too long for the path of a socket; set TMPDIR to a short folder"
    raise ProtocolError(msg)


def _create_ipc_folder() -> str:
    parent, wanted = socket_parent(), tempfile.gettempdir()
    if str(parent) != wanted:
        _log.warning(
            "%s is too long for the path of a socket; the sockets are in %s", wanted, parent
        )
    return tempfile.mkdtemp(prefix=_PREFIX, dir=parent)


def _socket_parents() -> tuple[Path, ...]:
    return Path(tempfile.gettempdir()), *_SHORT_PARENTS


def remove_runtime_folder(contact: Contact) -> None:
    """Removes the ipc sockets of a server that has ended, if they are on this machine."""
    folder = Path(contact.runtime_folder)
    if folder.parent in _socket_parents() and folder.name.startswith(_PREFIX):
        shutil.rmtree(folder, ignore_errors=True)


def remove_stale_folders(parent: Path | None = None) -> list[Path]:
    """Removes the ipc folders of killed servers of this user on this machine, and returns their paths.

    Args:
        parent: Folder that contains the ipc folders; None: the one that new servers use.
    """
    stale = []
    for folder in (parent or socket_parent()).glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):
            if folder.stat().st_uid != os.getuid():
                continue
            sockets = [path for path in folder.iterdir() if path.is_socket()]
            if sockets and not any(map(_has_listener, sockets)):
                shutil.rmtree(folder, ignore_errors=True)
                stale.append(folder)
    return stale


def _has_listener(path: Path) -> bool:
    """Returns whether a process listens on a socket, possibly in another container."""
    with socket.socket(socket.AF_UNIX) as peer:
        peer.setblocking(False)
        try:
            peer.connect(str(path))
        except ConnectionRefusedError:
            return False
        except OSError:
            # The listener is busy.
            return True
    return True
