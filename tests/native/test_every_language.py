"""Behavior of the clients in C, Fortran and Python: the same scenarios with a probe in each language."""

import json
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import zmq

from melissa_gen.protocol.authenticator import Authenticator
from melissa_gen.protocol.contact import Contact
from melissa_gen.protocol.failures import Failure
from melissa_gen.protocol.sockets import bind_socket
from tests.proxy import Proxy

from .building import HERE
from .probing import FIELDS, SIMULATIONS, assert_whole, serve_probe, start, words

pytestmark = [pytest.mark.mpi, pytest.mark.long]


@pytest.fixture(params=["c", "fortran", "python"])
def language(request):
    return request.param


@pytest.fixture
def command(language, request):
    """The words that start the probe of a language."""
    if language == "python":
        return (sys.executable, HERE / "probe.py")
    return (request.getfixturevalue("probe" if language == "c" else "fortran_probe"),)


def reasons(server):
    return [str(Failure.received(failed.code, failed.values)) for failed in server.failed]


WAYS = {
    "ipc": {},
    "tcp": {"ipc": False},
    "tcp with data in the clear": {"ipc": False, "encrypt_data": False},
    "shared": {"shared": True},
    "refused": {"shared": True, "maps": False},
    "chunks": {"chunk": 2},
    "shared chunks": {"shared": True, "chunk": 2},
    "refused chunks": {"shared": True, "maps": False, "chunk": 2},
}


@pytest.mark.parametrize("way", WAYS)
def test_a_client_sends_the_fields_of_its_solver(serve, command, way):
    server = serve_probe(serve, ranks=2, credit=1, **WAYS[way])
    done = start(server, *command, "good")
    assert done.returncode == 0
    # If the server refuses shared memory, the solver works, but more slowly: one line of the log says so.
    said = (
        []
        if not way.startswith("refused")
        else ["there is no shared memory for the fields (not here): they are sent through a socket"]
    )
    assert done.stderr.splitlines() == said
    server.close()
    assert_whole(server)
    assert server.finalized == {(s, 0, s % 2): 3 for s in range(3)}
    assert server.failed == []
    assert (server.hello.job, server.hello.ranks) == ("job", 1)
    if "chunks" in way:
        # A buffer of two time steps holds those of two simulations of the same server rank.
        cuts = [(0, 0, 2), (0, 2, 1), (2, 0, 1), (2, 1, 2)]
        assert [cut for cut in server.cuts if cut[0] != 1] == cuts
    else:
        assert all(count == 1 for *_, count in server.cuts)


def test_a_slow_solver_sends_each_step_at_once(serve, command):
    server = serve_probe(serve, chunk=3, latency=0.0)
    done = start(server, *command, "good")
    assert (done.returncode, done.stderr) == (0, "")
    server.close()
    assert_whole(server)
    assert all(count == 1 for *_, count in server.cuts)


def test_the_steps_before_a_failure_arrive(serve, command):
    server = serve_probe(serve, chunk=3)
    start(server, *command, "nan")
    server.close()
    assert server.failed
    failed = server.failed[0]
    assert sum(n for s, _, n in server.cuts if s == failed.simulation) == failed.step


def test_blocks_that_are_not_contiguous_are_sent_as_they_are(serve, command):
    server = serve_probe(serve)
    done = start(server, *command, "strided")
    assert (done.returncode, done.stderr) == (0, "")
    server.close()
    assert_whole(server)


@pytest.mark.parametrize("way", ["ipc", "shared"])
def test_a_rank_may_have_no_part_of_a_field(serve, command, way):
    server = serve_probe(serve, **WAYS[way])
    done = start(server, *command, "no-part")
    assert (done.returncode, done.stderr) == (0, "")
    server.close()
    for sample in server.samples.values():
        assert np.isfinite(sample["a"]).all() and np.isnan(sample["b"]).all()
    assert server.finalized == {(s, 0, 0): 3 for s in range(3)}


def test_a_parameter_of_whole_numbers_is_an_integer(serve, command, language):
    # An integer that arithmetic has changed by round-off is rounded, and not truncated.
    sent = [(p, q - 1e-12) for p, q in SIMULATIONS]
    server = serve(FIELDS, 3, sent, ("p", "q"), integers=("q",))
    done = start(server, *command, "integer")
    assert (done.returncode, done.stderr) == (0, "")
    assert [line.strip() for line in done.stdout.splitlines()[:3]] == ["q 10", "q 20", "q 30"]
    if language != "python":
        done = start(serve_probe(serve), *command, "integer")
        assert done.returncode == 1
        assert "1 the parameter 'q' is a real number in the study" in done.stdout


@pytest.fixture
def behind_proxies(request):
    """Puts a server behind a proxy for each port, by its contact file; returns the proxies."""

    def place(server, **options):
        made = [Proxy(port, **options) for port in (server.contact.control, *server.contact.data)]
        for one in made:
            request.addfinalizer(one.close)
        control, *data = (one.endpoint for one in made)
        replace(server.contact, control=control, data=tuple(data)).write(server.path)
        return made

    return place


@pytest.mark.parametrize("fault", ["cut", "abandoned", "late"])
def test_faults_of_connections_lose_and_repeat_nothing(serve, command, behind_proxies, fault):
    server = serve_probe(serve, ranks=2, credit=1, ipc=False)
    proxies = behind_proxies(server, delay=0.05 if fault == "late" else 0.0)
    for proxy in proxies:
        if fault == "cut":
            # During the handshake (about 600 bytes), and inside of messages.
            proxy.cut_after(300, 1500, 2500, 3200)
        elif fault == "abandoned":
            proxy.abandon_after(1500, 2500)
    done = start(server, *command, "good")
    assert (done.returncode, done.stderr) == (0, "")
    server.close()
    assert_whole(server)
    assert server.finalized == {(s, 0, s % 2): 3 for s in range(3)}
    assert fault == "late" or all(proxy.cuts >= 2 for proxy in proxies), [p.cuts for p in proxies]


def test_the_tail_of_a_finished_client_waits_for_a_busy_server(serve, command):
    """A server that does not read for longer than a second gets all messages before the process ends."""
    server = serve_probe(serve, credit=9, heartbeat_timeout=60.0, reads=False)
    client = subprocess.Popen(words((*command, "good")), env=server.environment)
    try:
        assert server.told_done.wait(60)
        with pytest.raises(subprocess.TimeoutExpired):
            client.wait(2.5)
        server.reads.set()
        assert client.wait(60) == 0
    finally:
        client.kill()
        client.wait()
    server.close()
    assert_whole(server)
    assert set(server.finalized) == {(s, 0, 0) for s in range(3)}


def test_a_client_does_not_wait_for_a_server_that_is_gone(serve, command):
    server = serve_probe(serve, credit=9, heartbeat_timeout=2.0, reads=False)
    began = time.monotonic()
    assert start(server, *command, "good").returncode == 0
    assert time.monotonic() - began < 20
    assert server.told_done.is_set()


@pytest.mark.parametrize("port", ["control", "heartbeat", "data"])
def test_a_port_that_can_not_be_reached_is_named_before_the_first_simulation(serve, command, port):
    server = serve_probe(serve, ranks=2, ipc=False)
    with socket.create_server(("127.0.0.1", 0)) as closed:
        number = closed.getsockname()[1]
    endpoint = f"tcp://127.0.0.1:{number}"
    changed = {"data": (server.contact.data[0], endpoint)} if port == "data" else {port: endpoint}
    replace(server.contact, **changed).write(server.path)
    done = start(server, *command, "good")
    assert done.returncode == 1
    said = f"{socket.gethostname()} can't reach the training server at 127.0.0.1 on port {number}"
    assert f"1 {said}: Connection refused; is server.interface right" in done.stdout
    server.close()
    assert server.hello is None


def test_nan_fails_its_simulation_and_the_next_one_continues(serve, command):
    server = serve_probe(serve)
    done = start(server, *command, "nan")
    reason = (
        "simulation 1, time step 2: "
        "field 'a' has 2 values that are NaN, infinite or too large for float32, the first at (0, 3)"
    )
    assert done.stdout.splitlines() == [f"2 {reason}", "0 no error", "closed 0"]
    server.close()
    assert [(f.job, f.simulation, f.step) for f in server.failed] == [("job", 1, 2)]
    assert reasons(server) == [reason]
    assert (1, 2) not in server.samples
    assert_whole(server, (0, 2))
    assert {simulation for simulation, _, _ in server.finalized} == {0, 2}


@pytest.mark.parametrize(
    ("mode", "sentence"),
    [
        ("overflow", "field 'a' has 1 values that are NaN, infinite or too large for float32"),
        ("unknown-send", "simulation 0, time step 0: unknown field 'c'; declared: a, b"),
        ("twice", "simulation 0, time step 0: the field 'b' is missing ('a' was sent twice)"),
        ("wrong-count", "; this rank declared the extent (4, 6)"),
        ("half-step", "simulation 0, time step 2: the field 'b' is missing"),
        ("short", "simulation 0 ended after 2 of 3 time steps"),
        ("too-many", "time step 3: the study has 3 time steps; this one is too many"),
    ],
)
def test_invalid_fields_fail_their_simulation(serve, command, language, mode, sentence):
    if language == "python" and mode == "twice":
        return  # one call sends all fields, each by its name
    server = serve_probe(serve)
    done = start(server, *command, mode)
    assert done.returncode == 2
    assert sentence in done.stdout
    server.close()
    (failed,) = server.failed
    assert failed.simulation == 0
    assert sentence in reasons(server)[0]
    assert server.finalized == {}


INPUTS = {"k": ("float64", (2, 3))}


@pytest.mark.parametrize("way", ["ipc", "shared", "tcp"])
def test_inputs_arrive_once_before_the_first_time_step(serve, command, way):
    server = serve_probe(serve, ranks=2, inputs=INPUTS, **WAYS[way])
    done = start(server, *command, "input")
    assert (done.returncode, done.stderr) == (0, "")
    server.close()
    assert_whole(server)
    assert server.inputs.keys() == {(simulation, "k") for simulation in range(3)}
    for (simulation, _), k in server.inputs.items():
        np.testing.assert_array_equal(k, 10 * simulation + np.arange(6.0).reshape(2, 3))


@pytest.mark.parametrize(
    ("mode", "sentence"),
    [
        ("input-missing", "step 0: the input 'k' of the simulation is missing; send it before"),
        ("input-twice", "step 0: the input 'k' was sent already; send it once per simulation"),
        ("input-nan", "step 0: field 'k' has 1 values that are NaN, infinite or too large"),
        ("input-count", "; this rank declared the extent (2, 3)"),
        ("input-late", "step 1: the input 'k' was sent after a time step; send it before"),
    ],
)
def test_invalid_inputs_fail_their_simulation(serve, command, mode, sentence):
    server = serve_probe(serve, inputs=INPUTS)
    done = start(server, *command, mode)
    assert done.returncode == 2
    assert sentence in done.stdout
    server.close()
    assert sentence in reasons(server)[0]
    assert [failed.simulation for failed in server.failed] == [0]


@pytest.mark.parametrize(
    ("mode", "sentence"),
    [
        ("unknown-field", "field 'aa' is not in the study; it declares a, b"),
        ("wrong-shape", "field 'a' has the global shape (4, 7); the study says (4, 6)"),
        ("outside", "field 'a': the block start (2, 0), extent (4, 6) is not inside the shape"),
        ("undeclared", "the fields b of the study are not declared; declare every field before"),
        ("unknown-parameter", "the study has no parameter 'r'; it has p, q"),
    ],
)
def test_wrong_use_is_answered_with_a_sentence(serve, command, mode, sentence):
    server = serve_probe(serve)
    done = start(server, *command, mode)
    assert done.returncode == 1
    # Only Python looks for a similar name.
    assert sentence in done.stdout.replace(" (did you mean 'a'?)", "")
    server.close()
    (failed,) = server.failed
    assert failed.simulation == (0 if mode == "unknown-parameter" else -1)
    assert sentence in reasons(server)[0].replace(" (did you mean 'a'?)", "")


def test_an_input_that_no_message_can_hold_is_refused_before_the_first_simulation(serve, command):
    server = serve_probe(serve, inputs={"k": ("float32", (1 << 16, 1 << 16))})
    done = start(server, *command, "input-large")
    assert done.returncode == 1
    sentence = "the input 'k': the block of one rank has 17179869184 bytes, and at most 4294967295"
    assert sentence in done.stdout
    server.close()
    assert sentence in reasons(server)[0]


def test_a_solver_gives_up_a_simulation_and_continues(serve, command):
    server = serve_probe(serve)
    assert start(server, *command, "fail").returncode == 0
    server.close()
    assert [(f.simulation, f.step) for f in server.failed] == [(0, 1)]
    assert reasons(server) == ["diverged"]
    assert_whole(server, (1, 2))


def test_closing_in_the_middle_is_a_failure_and_after_the_end_is_not(serve, command):
    server = serve_probe(serve)
    assert "closed 0" in start(server, *command, "leave").stdout
    server.close()
    assert server.finalized == {(0, 0, 0): 3}
    server = serve({**FIELDS}, 4, SIMULATIONS, ("p", "q"))
    assert "closed 2" in start(server, *command, "leave-early").stdout
    server.close()
    assert reasons(server) == ["simulation 0 ended after 3 of 4 time steps"]


def test_one_simulation_per_process(serve, command):
    server = serve_probe(serve)
    assert start(server, *command, "good", MELISSA_GEN_SIMULATION="2").returncode == 0
    server.close()
    assert {simulation for simulation, _ in server.samples} == {2}
    done = start(server, *command, "good", MELISSA_GEN_SIMULATION="two")
    assert "1 MELISSA_GEN_SIMULATION is 'two': not a number" in done.stdout


def test_a_silent_server_is_an_error_also_for_a_client_without_credit(serve, command):
    server = serve_probe(serve, mute_after=1, heartbeat_timeout=0.5)
    done = start(server, *command, "good")
    assert done.returncode == 3
    assert "3 the training server has been silent for" in done.stdout
    server.close()
    assert len(server.samples) == 2  # its credit
    beat = server.beats[-1]  # a client that lives shorter may end before its first
    elapsed, *parts = beat.spent
    assert beat.credit_seconds > 0 and min(parts) >= 0
    # The wait that has not ended is counted, too.
    assert elapsed - 0.3 < sum((*parts, beat.credit_seconds, beat.next_seconds)) < elapsed + 0.01


def test_a_solver_that_never_returns_is_ended_when_the_server_is_lost(serve, command, tmp_path):
    """Before, it removes the open shared memory of its MPI job, which MPICH would leave behind."""
    shared = Path("/dev/shm") / f"mpich_shm_{tmp_path.parent.name}{tmp_path.name}"
    shared.touch()
    try:
        server = serve_probe(serve, mute_after=1, heartbeat_timeout=0.5)
        done = start(server, "bash", "-c", 'exec 7<"$0"; exec "$@"', shared, *command, "stuck")
        assert done.returncode == -signal.SIGTERM
        assert "ending: the training server has been silent for" in done.stderr
        assert not shared.exists()
    finally:
        shared.unlink(missing_ok=True)


def test_a_stopping_server_sends_its_reason(serve, command):
    server = serve_probe(serve, stop="the study is over", mute_after=None, credit=1)
    done = start(server, *command, "good")
    assert done.returncode in (0, 3)  # noticed while asking (all done) or while sending
    if done.returncode:
        assert "3 the study is over" in done.stdout


def test_an_unreadable_answer_to_a_heartbeat_does_not_end_a_client(serve, command):
    server = serve_probe(serve, noise=True, credit=1)
    assert start(server, *command, "good").returncode == 0
    server.close()
    assert_whole(server)


def test_a_refusal_and_a_missing_server_are_reported(serve, command, tmp_path):
    server = serve_probe(serve, refuse="a stale peer of epoch 1; this is epoch 2")
    assert "1 a stale peer of epoch 1; this is epoch 2" in start(server, *command).stdout

    def sentence(path):
        return start(server, *command, MELISSA_GEN_SERVER=str(path)).stdout

    assert "there is no training server (MELISSA_GEN_SERVER is not set)" in sentence("")
    absent = tmp_path / "absent.json"
    assert f"1 {absent}: can't read the server's contact file: No such file" in sentence(absent)
    good = json.loads(server.path.read_text())
    for damage in ({"token": "12"}, {"epoch": -1}, {"curve": {}}, {"data": [1]}, {"host": None}):
        absent.write_text(json.dumps(good | damage))
        assert "is not a contact file" in sentence(absent), damage
    absent.write_text("{" * 100_000)
    assert "is not a contact file" in sentence(absent)


def test_a_port_where_nothing_accepts_a_connection_is_named(serve, command):
    """The kernel completes connections to a server without free file descriptors; nothing answers on them."""
    server = serve_probe(serve, ranks=2, ipc=False, heartbeat_timeout=3.0)
    with socket.create_server(("127.0.0.1", 0)) as full:
        endpoint = f"tcp://127.0.0.1:{full.getsockname()[1]}"
        replace(server.contact, data=(server.contact.data[0], endpoint)).write(server.path)
        done = start(server, *command, "good")
    said = f"rank 0 of the client on {socket.gethostname()}: server rank 1 ({endpoint}) has not"
    assert done.returncode == 1
    assert f"1 {said} accepted the connection for" in done.stdout
    # The warning comes at half of the time.
    assert f"{said} accepted the connection for 2 s; it may have no file" in done.stderr


def test_without_shared_memory_the_fields_are_sent_through_a_socket_with_a_line(serve, command):
    """A limit on the size of files holds for shared memory too, wherever the system keeps it."""
    server = serve_probe(serve, ranks=2, shared=True)
    done = start(server, "bash", "-c", 'ulimit -f 0; exec "$0" "$@"', *command, "good")
    assert done.returncode == 0, done.stderr
    server.close()
    assert_whole(server)
    line = (
        "there is no shared memory for the fields (File too large): they are sent through a socket"
    )
    assert done.stderr.splitlines() == [line]


def test_the_limit_on_file_descriptors_is_raised_or_named(serve, command):
    server = serve_probe(serve)

    def limited(soft, hard):
        shell = f'ulimit -Sn {soft}; ulimit -Hn {hard}; exec "$0" "$@"'
        return start(server, "bash", "-c", shell, *command, "good")

    assert (done := limited(64, 1024)).returncode == 0, done
    done = limited(64, 100)
    assert done.returncode == 1
    assert (
        "1 a client of 1 server ranks needs 134 file descriptors, and the hard limit here is 100; "
        "raise the limit (ulimit -n)"
    ) in done.stdout


def test_a_client_whose_keys_the_server_refuses_says_so(serve, command):
    server = serve_probe(serve, ipc=False, encrypt_data=False)
    stranger = zmq.Context()
    other = Contact.new(7, "here", ipc=False, encrypt_data=False)
    Authenticator(stranger, other)
    refusing, endpoint = bind_socket(stranger, other, "data-0", "127.0.0.1", data=True)
    replace(server.contact, data=(endpoint,)).write(server.path)
    done = start(server, *command, "good")
    stranger.destroy(linger=0)
    assert refusing.closed
    assert done.returncode == 1
    assert f"server rank 0 ({endpoint}) refuses the keys of the contact file" in done.stdout
