"""Values that two processes share in memory are whole at every moment."""

import threading

from melissa_gen.reservoir import Stock, array_bytes, arrays_in
from melissa_gen.server.ingest.shared_state import SharedState, StateOfIngest, shared_specs
from melissa_gen.study import load_study
from tests.unit.small_study import write_small_study


def shared(tmp_path):
    """Returns two views of the same memory."""
    specs = shared_specs(load_study(write_small_study(tmp_path / "study")), 8)
    memory = memoryview(bytearray(array_bytes(specs)))
    return [SharedState(arrays_in(memory, specs)) for _ in range(2)]


def state(number):
    return StateOfIngest(
        Stock(True, False, True, number, number, False), number, number, False, False
    )


def test_a_reader_sees_one_of_the_states_that_were_written(tmp_path):
    writer, reader = shared(tmp_path)
    writer.write_ingest(state(0))
    over = threading.Event()

    def write():
        number = 0
        while not over.is_set():
            number += 1
            writer.write_ingest(state(number))

    thread = threading.Thread(target=write)
    thread.start()
    before = 0
    for _ in range(20_000):
        found = reader.read_ingest()
        assert found == state(found.arrivals) and found.arrivals >= before
        before = found.arrivals
    over.set()
    thread.join()


def test_arrivals_come_in_order_and_the_newest_ones_of_too_many(tmp_path):
    writer, reader = shared(tmp_path)
    writer.add_arrivals(0, [3, 4])
    writer.add_arrivals(2, [5])
    assert reader.arrivals(0, 3) == [3, 4, 5] and reader.arrivals(2, 3) == [5]
    writer.add_arrivals(3, list(range(16)))
    assert reader.arrivals(0, 19) == list(range(16))
