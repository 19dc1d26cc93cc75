"""Sessions of clients on a server rank: those of ended clients are forgotten, silent ones are recognized."""

from melissa_gen.protocol.session import Session
from melissa_gen.protocol.wire import Finalize, Header, Ping
from melissa_gen.server.ingest.client_sessions import ClientSessions


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def sessions_of(clock):
    return ClientSessions(silence=10.0, clock=clock)


def hear(sessions, identity, number, received=0, message=None):
    """A message of a client arrives; returns its session and whether the message is accepted."""
    header = Header(0, 0, 0, b"", number, received)
    session = sessions.heard(identity, header, message or Finalize(0, 0, 1, 1))
    return session, session.accept(number, received)


def answer(session):
    """The server sends an ordered message."""
    session.number()
    session.keep(b"credit")


def test_many_short_clients_leave_few_sessions():
    clock = Clock()
    sessions = sessions_of(clock)
    for client in range(1000):
        session, _ = hear(sessions, str(client).encode(), 1)
        answer(session)
        clock.now += 1.0
        sessions.forget_silent(kept=())
    assert len(sessions) <= 10


def test_a_client_that_is_heard_is_kept():
    clock = Clock()
    sessions = sessions_of(clock)
    for number in range(1, 8):
        assert hear(sessions, b"busy", number)[1]
        clock.now += 5.0
        sessions.forget_silent(kept=())
    assert sessions.get(b"busy") is not None


def test_clients_whose_memory_is_read_are_kept():
    clock = Clock()
    sessions = sessions_of(clock)
    for name in (b"shares", b"sends"):
        answer(hear(sessions, name, 1)[0])
    clock.now = 11.0
    sessions.forget_silent(kept={b"shares"})
    assert sessions.get(b"shares") is not None and sessions.get(b"sends") is None


def test_the_conversation_with_a_silent_client_goes_on_after_its_session_was_forgotten():
    clock = Clock()
    sessions, client = sessions_of(clock), Session()
    for _ in range(3):
        session, accepted = hear(sessions, b"slow", client.number(), client.received)
        client.keep(b"part")
        assert accepted
        answer(session)
        assert client.accept(session.sent, session.received)
    clock.now = 11.0
    sessions.forget_silent(kept=())
    session, accepted = hear(sessions, b"slow", client.number(), client.received)
    client.keep(b"part")
    assert accepted
    answer(session)
    assert client.accept(session.sent, session.received)
    assert client.unconfirmed == 0


def test_a_ping_of_a_silent_client_finds_everything_received():
    clock = Clock()
    sessions = sessions_of(clock)
    session, _ = hear(sessions, b"slow", 1)
    answer(session)
    clock.now = 11.0
    sessions.forget_silent(kept=())
    session, _ = hear(sessions, b"slow", 0, received=1, message=Ping(1))
    assert session.received == 1
    assert hear(sessions, b"slow", 2, received=1)[1]


def test_a_message_after_a_lost_first_one_is_not_accepted():
    """A client that has heard nothing of the server is new: its first message must arrive first."""
    assert not hear(sessions_of(Clock()), b"new", 2)[1]


def test_a_client_that_was_only_sent_pongs_goes_on_after_a_long_silence():
    """Its messages confirm nothing, as on a rank that owns none of its steps. It looks like a new client."""
    clock = Clock()
    sessions = sessions_of(clock)
    assert hear(sessions, b"slow", 1)[1]
    clock.now = 11.0
    sessions.forget_silent(kept=())
    assert hear(sessions, b"slow", 2)[1]


def test_a_client_gets_its_buffers_back_after_a_long_silence():
    clock = Clock()
    sessions = sessions_of(clock)
    session, _ = hear(sessions, b"slow", 1)
    answer(session)
    sessions.owe(b"slow", 2)
    clock.now = 11.0
    sessions.forget_silent(kept=())
    assert sessions.get(b"slow") is session
    sessions.owe(b"slow", -1)
    sessions.forget_silent(kept=())
    assert sessions.get(b"slow") is session
    sessions.owe(b"slow", -1)
    sessions.forget_silent(kept=())
    assert sessions.get(b"slow") is None
