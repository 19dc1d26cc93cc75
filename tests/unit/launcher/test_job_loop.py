"""The main loop of the launcher, with a back end and a server that the test plays."""

import time
from dataclasses import replace

import pytest
import zmq

from melissa_gen.launcher.backends.base import SERVER, JobExit
from melissa_gen.launcher.jobs.loop import JobLoop, PreparationError, limits_of
from melissa_gen.launcher.jobs.signals import Signals
from melissa_gen.protocol import json_messages
from melissa_gen.protocol.contact import Contact
from melissa_gen.protocol.sockets import bind_socket
from melissa_gen.run_dir.server_failure import write_server_failure


class View:
    def update(self, status):
        pass

    def event(self, event):
        pass


class Backend:
    """Runs no process. At the end of its only client job, the message that it has connected is still unread."""

    queued = frozenset()

    def __init__(self, run_dir, clients=1):
        self.run_dir, self.context, self.started = run_dir, zmq.Context(), []
        self.clients = clients
        self.contact = Contact.new(0, "here", ipc=True, encrypt_data=False)
        self.socket, endpoint = bind_socket(self.context, self.contact, "control", "")
        self.contact = replace(self.contact, control=endpoint, heartbeat=endpoint, data=(endpoint,))
        self.launcher, self.ended = b"", False

    def start(self, name, command, processes, environment):
        self.started.append(name)
        if name == SERVER:
            self.contact.write(self.run_dir / "contact.json")

    def tell(self, kind, **values):
        message = json_messages.pack(self.contact.token, {"type": kind, **values})
        self.socket.send_multipart([self.launcher, *message])

    def meet(self):
        if not self.launcher and self.socket.poll(0):
            self.launcher = self.socket.recv_multipart()[0]
            self.tell("want", clients=self.clients, ended=0)

    def poll(self):
        self.meet()
        if "client-0" in self.started and not self.ended:
            self.ended = True
            self.tell("connected", job="client-0")
            self.tell("finished", status="finished")
            return [JobExit("client-0", 0)]
        return [JobExit(SERVER, 0)] if self.ended else []

    def notes(self):
        return []

    def seconds_left(self, name):
        return None

    def kill_all(self):
        pass

    terminate = kill = lambda self, name: None

    def close(self):
        self.context.destroy(linger=0)


class Failing(Backend):
    """All its client jobs end at the same time, without a message; then the server ends."""

    def poll(self):
        self.meet()
        if len(self.started) == 1 + self.clients and not self.ended:
            self.ended = True
            return [JobExit(name, 1) for name in self.started[1:]]
        return [JobExit(SERVER, 0)] if self.ended else []


def play(study, backend, limits):
    loop = JobLoop(study, backend.run_dir, backend, View(), limits, resume=False, next_job=0)
    try:
        with Signals() as signals:
            return loop.run(signals)
    finally:
        loop.close()


def test_a_client_that_ends_at_once_after_its_request_has_connected(study, tmp_path):
    backend = Backend(tmp_path)
    finish = play(study, backend, replace(limits_of(study), unconnected=1))
    assert (finish.status, backend.started) == ("finished", [SERVER, "client-0"])


def test_client_jobs_that_end_together_are_waited_for_once(study, tmp_path):
    clients = 50
    backend = Failing(tmp_path, clients)
    limits = replace(limits_of(study), clients=clients, unconnected=2 * clients, server_retries=0)
    began = time.monotonic()
    finish = play(study, backend, limits)
    assert (finish.status, len(backend.started)) == ("failed", 1 + clients)
    assert time.monotonic() - began < 5, "a wait of 0.2 s for each job"


class Refusing(Backend):
    """Its server refuses the study, before or after a client has started."""

    def __init__(self, run_dir, clients=1, *, at_once=False):
        super().__init__(run_dir, clients)
        self.at_once = at_once

    def start(self, name, command, processes, environment):
        if self.at_once:
            # It ends before its contact is public.
            self.started.append(name)
        else:
            super().start(name, command, processes, environment)

    def poll(self):
        self.meet()
        if self.ended or not (self.at_once or "client-0" in self.started):
            return []
        self.ended = True
        write_server_failure(self.run_dir, "the network does not fit", refused=True)
        return [JobExit(SERVER, 1)]

    def kill_all(self):
        self.poll = lambda: [JobExit(name, -9) for name in self.started[1:]]


def test_a_study_that_is_refused_while_clients_run_ends_and_is_not_tried_again(study, tmp_path):
    (tmp_path / "logs").mkdir()
    backend = Refusing(tmp_path)
    limits = replace(limits_of(study), server_retries=5)
    loop = JobLoop(study, tmp_path, backend, View(), limits, resume=False, next_job=0)
    try:
        with Signals() as signals:
            assert loop.run(signals).status == "failed"
    finally:
        loop.close()
    assert (loop.refused, backend.started) == (True, [SERVER, "client-0"])


def test_a_server_that_ends_before_the_validation_sets_are_made_ends_the_study(study, tmp_path):
    (tmp_path / "logs").mkdir()
    backend = Refusing(tmp_path, at_once=True)
    loop = JobLoop(study, tmp_path, backend, View(), limits_of(study), resume=False, next_job=0)
    try:
        loop.start()
        with pytest.raises(PreparationError):
            loop.check_start()
        with Signals() as signals:
            assert loop.run(signals).status == "failed"
    finally:
        loop.close()
    assert (loop.refused, backend.started) == (True, [SERVER])


def test_the_time_to_make_validation_sets_does_not_count_for_the_start_of_the_server(
    study, tmp_path, monkeypatch
):
    backend = Backend(tmp_path)
    loop = JobLoop(study, tmp_path, backend, View(), limits_of(study), resume=False, next_job=0)
    try:
        loop.start()
        loop.check_start()
        clock = time.monotonic
        monkeypatch.setattr(time, "monotonic", lambda: clock() + 1e6)
        with Signals() as signals:
            assert loop.run(signals).status == "finished"
    finally:
        loop.close()


def test_an_error_of_the_check_ends_the_loop(study, tmp_path):
    def check():
        raise PreparationError

    backend = Backend(tmp_path)
    loop = JobLoop(
        study, tmp_path, backend, View(), limits_of(study), resume=False, next_job=0, check=check
    )
    try:
        with Signals() as signals, pytest.raises(PreparationError):
            loop.run(signals)
    finally:
        loop.close()
