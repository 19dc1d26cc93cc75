"""The rates of a status are those of this server process."""

from melissa_gen.server.coordination.status import StatusBoard

from .test_hostile_peers import REPORT


def test_what_an_earlier_server_has_done_is_no_rate_of_this_one():
    board = StatusBoard(1)
    training = {"batches": 10**6, "waiting_seconds": 5000.0, "training_seconds": 9000.0}
    board.report(REPORT | {"training": training})
    first = board.status({}, {}, [])
    assert first["training"]["batches_per_second"] == 0
    assert first["waiting"]["trainer_for_data"] == first["trainer"]["training"] == 0
    board.report(REPORT | {"training": training | {"batches": 10**6 + 5}})
    assert board.status({}, {}, [])["training"]["batches_per_second"] > 0
