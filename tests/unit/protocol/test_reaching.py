import socket

import pytest
import zmq

from melissa_gen.errors import RunError
from melissa_gen.protocol.contact import Contact
from melissa_gen.protocol.sockets import bind_socket, choose_interface, unreachable


def test_a_server_that_can_not_be_reached_is_named_with_its_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert unreachable(f"tcp://127.0.0.1:{port}") == ""
    said = unreachable(f"tcp://127.0.0.1:{port}", timeout=1.0)
    assert said.startswith(f"{socket.gethostname()} can't reach the training server at 127.0.0.1")
    assert f"on port {port}: Connection refused" in said
    assert unreachable("ipc:///tmp/nothing") == ""


def test_ports_are_used_in_order_until_none_is_free():
    contact = Contact.new(0, "here", ipc=False, encrypt_data=False)
    with socket.create_server(("127.0.0.1", 0)) as server, zmq.Context() as context:
        taken = server.getsockname()[1]
        with pytest.raises(RunError, match=f"no port from {taken} to {taken} is free"):
            bind_socket(context, contact, "control", "127.0.0.1", ports=(taken, taken))
        context.destroy(linger=0)


def test_the_interface():
    assert choose_interface("ib0", one_machine=False) == "ib0"
    assert choose_interface("auto", one_machine=True) == "lo"
    assert choose_interface("auto", one_machine=False) in dict(socket.if_nameindex()).values()
