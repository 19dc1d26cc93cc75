import json
import os
import socket
import stat
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from melissa_gen.errors import ProtocolError
from melissa_gen.protocol.contact import Contact, remove_stale_folders
from melissa_gen.protocol.shared_memory import this_machine


@pytest.fixture
def contact():
    contact = Contact.new(3, "node17", ipc=False, encrypt_data=True)
    return replace(
        contact,
        control="tcp://127.0.0.1:1",
        heartbeat="tcp://127.0.0.1:2",
        data=("tcp://127.0.0.1:3",),
    )


def test_peers_get_all_but_the_servers_secret(contact, tmp_path):
    path = tmp_path / "contact.json"
    contact.write(path)
    read = Contact.read(path)
    assert read == replace(contact, curve=replace(contact.curve, server_secret=""))
    assert contact.curve.server_secret not in path.read_text()
    assert Contact.from_json(contact.to_json()) == contact


def test_only_the_owner_can_read_the_file(contact, tmp_path):
    path = tmp_path / "contact.json"
    before = os.umask(0)
    try:
        contact.write(path)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_reader_of_the_old_file_reads_it_to_its_end(contact, tmp_path):
    path = tmp_path / "contact.json"
    contact.write(path)
    with path.open() as old:
        replace(contact, epoch=4).write(path)
        assert Contact.from_json(old.read()).epoch == 3
    assert Contact.read(path).epoch == 4
    assert os.listdir(tmp_path) == ["contact.json"]


def test_files_of_a_killed_server_do_not_block_the_next_one(contact, tmp_path):
    path = tmp_path / "contact.json"
    (tmp_path / "contact.json.partial").write_text("half")
    contact.write(path)
    assert Contact.read(path).epoch == 3


def test_a_link_is_not_followed(contact, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text("precious")
    (tmp_path / "contact.json.partial").symlink_to(elsewhere)
    contact.write(tmp_path / "contact.json")
    assert elsewhere.read_text() == "precious"


def test_secrets_are_not_shown(contact):
    shown = repr(contact)
    assert contact.token.hex() not in shown
    assert repr(contact.token) not in shown
    assert contact.curve.server_secret not in shown
    assert contact.curve.client_secret not in shown


def test_ipc_folder_is_private():
    contact = Contact.new(1, "node17", ipc=True, encrypt_data=False)
    folder = Path(contact.runtime_folder)
    try:
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert contact.curve is None
    finally:
        folder.rmdir()


def test_two_servers_share_no_secret():
    a, b = (Contact.new(1, "h", ipc=False, encrypt_data=True) for _ in range(2))
    assert a.token != b.token
    assert a.curve.server_secret != b.curve.server_secret


def test_memory_is_shared_with_the_ranks_on_this_machine(contact):
    here = this_machine()
    assert here
    spread = replace(contact, machines=("elsewhere", here, ""))
    assert [spread.shares_memory(rank) for rank in range(4)] == [False, True, False, False]


def test_missing_file_is_one_sentence(tmp_path):
    with pytest.raises(ProtocolError, match=r"c\.json: can't read the server's contact file: No"):
        Contact.read(tmp_path / "c.json")
    with pytest.raises(ProtocolError, match="Is a directory"):
        Contact.read(tmp_path)


def changed(contact, **values):
    return json.dumps(json.loads(contact.to_json()) | values)


@pytest.mark.parametrize(
    "values",
    [
        {"epoch": "3"},
        {"epoch": None},
        {"token": "zz"},
        {"token": "00"},
        {"token": 5},
        {"data": 5},
        {"data": [5]},
        {"machines": None},
        {"machines": [5]},
        {"control": None},
        {"curve": {"server_public": "x"}},
        {"curve": [1]},
        {"later": 1},
    ],
    ids=str,
)
def test_another_content_is_one_sentence(contact, tmp_path, values):
    path = tmp_path / "contact.json"
    path.write_text(changed(contact, **values))
    with pytest.raises(ProtocolError, match="is not a contact file of this version") as caught:
        Contact.read(path)
    assert str(caught.value).startswith(str(path))


@given(raw=st.binary(max_size=60) | st.sampled_from([b"\xff\xfe", b"[" * 50_000, b"null", b"{}"]))
def test_junk_is_one_sentence(tmp_path_factory, raw):
    path = tmp_path_factory.getbasetemp() / "junk.json"
    path.write_bytes(raw)
    with pytest.raises(ProtocolError, match="is not a contact file of this version"):
        Contact.read(path)


def test_folders_of_servers_that_were_killed_are_removed_and_no_others(tmp_path):
    folders = [tmp_path / f"melissa_gen-{name}" for name in ("alive", "dead", "check-1", "begun")]
    for folder in folders:
        folder.mkdir()
    alive, dead, logs, begun = folders
    (logs / "solver.log").touch()
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as killed:
        server.bind(str(alive / "control"))
        server.listen()
        killed.bind(str(dead / "control"))
        killed.listen()
        killed.close()
        assert remove_stale_folders(tmp_path) == [dead]
    assert set(tmp_path.iterdir()) == {alive, logs, begun}


LONG_FOLDER = """
import sys
from pathlib import Path
import zmq
from melissa_gen.protocol.contact import Contact, remove_runtime_folder, remove_stale_folders
from melissa_gen.protocol.sockets import bind_socket
contact = Contact.new(1, "node", ipc=True, encrypt_data=False)
context = zmq.Context()
bound, endpoint = bind_socket(context, contact, "heartbeat", "")
assert contact.runtime_folder not in map(str, remove_stale_folders())
bound.close()
context.term()
print(endpoint)
remove_runtime_folder(contact)
assert not Path(contact.runtime_folder).exists()
"""


@pytest.mark.parametrize(("length", "moved"), [(75, False), (76, True), (400, True)])
def test_a_folder_that_is_too_long_for_sockets_is_replaced_with_a_line(length, moved):
    with tempfile.TemporaryDirectory(dir="/tmp") as short:
        folder = Path(short)
        while len(str(folder)) < length:
            folder /= "x" * min(length - len(str(folder)) - 1, 200)
        folder.mkdir(parents=True)
        done = subprocess.run(
            [sys.executable, "-c", LONG_FOLDER],
            env=os.environ | {"TMPDIR": str(folder)},
            capture_output=True,
            text=True,
            check=True,
        )
    assert done.stdout.startswith("ipc:///tmp/melissa_gen-" if moved else f"ipc://{folder}/")
    line = f"{folder} is too long for the path of a socket; the sockets are in /tmp"
    assert done.stderr.splitlines() == [line] * moved
