import socket

import pytest

from melissa_gen.protocol.listeners import Listener, refuse_connections, tcp_listeners


def test_a_closed_listener_keeps_its_connections_and_accepts_no_new_one():
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = server.getsockname()
        mine = Listener(server.fileno(), *address)
        assert mine in tcp_listeners()
        with socket.create_connection(address) as early:
            accepted, _ = server.accept()
            with accepted:
                assert refuse_connections([mine]) == []
                with pytest.raises(TimeoutError):
                    socket.create_connection(address, 0.2)
                early.sendall(b"still here")
                assert accepted.recv(20) == b"still here"


def test_a_descriptor_that_is_no_socket_is_reported():
    gone = Listener(2**20, "127.0.0.1", 1)
    assert refuse_connections([gone]) == [gone]
