"""Peers that need more file descriptors than a process may open are named before the study starts."""

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from melissa_gen.builders.descriptors import check_client_limit, check_server_limit
from melissa_gen.errors import RunError
from melissa_gen.protocol.descriptors import check_descriptors, server_descriptors
from melissa_gen.study import load_study

HEAT = Path(__file__).parents[3] / "simulations" / "heat" / "study.yaml"
LIMITED = """
import resource, sys
from pathlib import Path
from melissa_gen.errors import RunError
from melissa_gen.launcher.backends.selection import check_backend
from melissa_gen.study import load_study
study = load_study(Path(sys.argv[1]), ["launcher.clients=100", "simulation.processes=2"])
for hard in (4096, 512):
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
    try:
        check_backend(study)
    except RunError as error:
        print(error)
    print(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
"""

CONNECTING = """
import os
from melissa_gen.protocol.contact import Contact
from melissa_gen.protocol.descriptors import client_descriptors
from melissa_gen.protocol.handshake import Handshake
from melissa_gen.protocol.sockets import client_context, connect_socket
RANKS = 200
context, contact = client_context(RANKS), Contact(0, bytes(16), "here", "")
files = [os.memfd_create("values") for _ in range(RANKS)]
lines = []
for rank in range(RANKS):
    peer = connect_socket(context, contact, f"inproc://rank-{rank}", data=True)
    lines.append((peer, Handshake(peer)))
print(len(os.listdir("/proc/self/fd")), client_descriptors(RANKS))
os._exit(0)
"""


def test_the_limit_of_the_launcher_is_raised_or_named_before_a_study_starts():
    command = [sys.executable, "-c", LIMITED, str(HEAT)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    raised, sentence, limit = done.stdout.splitlines()
    assert (raised, limit) == ("4096", "512")
    assert sentence.startswith(
        "a server rank with 100 clients of 2 MPI ranks needs 1144 file descriptors, and the hard limit here is 512; "
        "raise the limit (ulimit -n) in /etc/security/limits.conf, in systemd by LimitNOFILE=, in SLURM by "
    )


def test_the_limit_of_a_server_grows_with_the_clients():
    study = load_study(HEAT, ["launcher.clients=300", "simulation.processes=4"])
    check_server_limit(study, 100_000)
    with pytest.raises(RunError, match="a server rank with 300 clients of 4 MPI ranks needs"):
        check_server_limit(study, 4096)


def test_the_limit_of_a_client_grows_with_the_server():
    study = load_study(HEAT, ["server.ranks=500", "simulation.count=1000"])
    check_client_limit(study, 10_000)
    with pytest.raises(RunError, match="a client of 500 server ranks needs 3128"):
        check_client_limit(study, 1024)


def test_a_client_that_opens_all_its_connections_at_once_has_descriptors_for_them():
    command = [sys.executable, "-c", CONNECTING]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    used, needed = map(int, done.stdout.split())
    # The connections are not open yet, nor the files of MPI and the solver.
    assert used + 200 + 50 < needed


@given(st.integers(1, 10**4), st.integers(1, 10**3), st.integers(1, 10**3), st.booleans())
def test_each_connection_has_a_descriptor(clients, processes, ranks, shared):
    needed = server_descriptors(clients, processes, ranks, shared_memory=shared)
    # The data connections, with a mapped memory file each, and those of control and heartbeats.
    assert needed > clients * processes * (1 + shared) + 2 * clients + ranks
    assert check_descriptors(needed, needed, "it") == ""
    assert check_descriptors(needed, needed - 1, "it").startswith(f"it needs {needed} file")
