"""The network interface and address on which a server rank listens."""

from melissa_gen.protocol.sockets import choose_interface, interface_address
from melissa_gen.study import Study

__all__ = ["listening_address", "listening_interface"]


def listening_interface(study: Study) -> str:
    """Returns the network interface of this node that tcp sockets bind to."""
    return choose_interface(study.server.interface, one_machine=study.launcher.backend == "local")


def listening_address(study: Study) -> str:
    """Returns the IPv4 address that tcp sockets bind to; "" if all peers use ipc.

    Raises:
        StudyError: This node has no such interface.
    """
    return interface_address(listening_interface(study)) if study.over_tcp else ""
