"""The inputs of simulations, from the blocks of client ranks to the samples that carry them."""

import numpy as np
import pytest

from melissa_gen.errors import ProtocolError
from melissa_gen.protocol import wire
from melissa_gen.reservoir import SlotStore
from melissa_gen.server.ingest.assembler import Assembler, Fate, Sender
from melissa_gen.server.ingest.input_fields import InputFields

FIELD = wire.StudyField("u", "float32", (4,))
K, MASK = wire.StudyField("k", "float64", (4, 2)), wire.StudyField("mask", "float32", (3,))
HALVES = ((0, 3), (3, 1))


def values(shift=0.0):
    return {
        "k": np.arange(8.0).reshape(4, 2) + shift,
        "mask": np.arange(3, dtype="f4"),
    }


def inputs_of(rank, attempt=0, shift=0.0, names=("k", "mask")):
    """The messages of one of two ranks: rows of k, and the whole mask from rank 0."""
    first, count = HALVES[rank]
    given = values(shift)
    blocks = {
        "k": (wire.Block(0, (first, 0), (count, 2)), given["k"][first : first + count]),
        "mask": (wire.Block(1, (0,), (0 if rank else 3,)), given["mask"][: 0 if rank else 3]),
    }
    return [
        wire.Input(0, attempt, 2, block, part.tobytes())
        for block, part in (blocks[name] for name in names)
    ]


@pytest.fixture
def assembler():
    store = SlotStore({"u": (FIELD.shape, FIELD.dtype)}, 8, n_inputs=1)
    return Assembler([FIELD], 3, 2, 3, 0, 1, store, (4, 2), InputFields([K, MASK]))


def send_step(assembler, step, attempt=0, ranks=(0, 1)):
    """Sends the parts of a time step; returns what is complete by it."""
    found = []
    for rank in ranks:
        first, count = HALVES[rank]
        block = wire.Block(0, (first,), (count,))
        target = assembler.place(wire.Part(0, attempt, step, 1, 2, 0, 0, (block,)), rank)
        if isinstance(target, Fate):
            return target
        found = assembler.received(target, Sender(bytes([rank]), 0))
    return found


def send_inputs(assembler, attempt=0, shift=0.0, **options):
    for rank in (0, 1):
        for message in inputs_of(rank, attempt, shift, **options):
            assembler.receive_input(message, rank)


def test_all_samples_of_a_simulation_share_its_inputs(assembler):
    send_inputs(assembler)
    whole = [send_step(assembler, step)[0] for step in range(3)]
    assert all(one.inputs is whole[0].inputs for one in whole)
    for name, expected in values().items():
        np.testing.assert_array_equal(whole[0].inputs[name], expected)
    assembler.close(0, 0)
    assert len(assembler.inputs) == 1
    assembler.settle(0)
    assert len(assembler.inputs) == 0


@pytest.mark.parametrize(
    ("names", "fault"), [((), ("missing_input", "k")), (("k",), ("missing_input", "mask"))]
)
def test_a_sample_without_all_inputs_is_rejected(assembler, names, fault):
    send_inputs(assembler, names=names)
    (whole,) = send_step(assembler, 0)
    assert whole.slot is None
    assert f"the input '{fault[1]}' of the simulation is missing" in whole.refusal
    assert assembler.counters.rejected == 1
    finalized = [assembler.finalize(wire.Finalize(0, 0, 1, 2), rank)[0] for rank in (0, 1)]
    assert finalized[1].fault == fault


def test_an_attempt_with_the_same_inputs_continues_and_one_with_others_fails(assembler):
    send_inputs(assembler)
    (first,) = send_step(assembler, 0)
    assembler.close(0, 0)
    send_inputs(assembler, attempt=1)
    assert send_step(assembler, 1, attempt=1)[0].inputs is first.inputs
    assembler.close(0, 1)
    send_inputs(assembler, attempt=2, shift=1.0)
    (other,) = send_step(assembler, 2, attempt=2)
    assert other.slot is None
    assert "the input 'k' differs from the one that an earlier attempt" in other.refusal


def test_other_inputs_are_allowed_before_a_sample_is_stored(assembler):
    send_inputs(assembler)
    assembler.close(0, 0)
    send_inputs(assembler, attempt=1, shift=1.0)
    (whole,) = send_step(assembler, 0, attempt=1)
    np.testing.assert_array_equal(whole.inputs["k"], values(1.0)["k"])


def test_a_failed_attempt_leaves_no_inputs_behind_unless_a_sample_was_stored(assembler):
    send_inputs(assembler)
    assert len(assembler.inputs) == 1
    assembler.close(0, 0)
    assert len(assembler.inputs) == 0
    send_inputs(assembler, attempt=1)
    send_step(assembler, 0, attempt=1)
    assembler.close(0, 1)
    assert len(assembler.inputs) == 1
    assembler.settle(0)
    assert len(assembler.inputs) == 0


def test_a_resumed_server_compares_with_the_samples_in_memory(assembler):
    assembler.inputs.remember(0, values())
    send_inputs(assembler, shift=1.0)
    assert "differs" in send_step(assembler, 0)[0].refusal


def test_inputs_of_an_ended_attempt_are_ignored(assembler):
    assembler.close(0, 0)
    send_inputs(assembler)
    assert len(assembler.inputs) == 0
    assert send_step(assembler, 0, ranks=(0,)) is Fate.LATE
    assert assembler.counters.lost == 1


@pytest.mark.parametrize(
    ("block", "size", "sentence"),
    [
        (wire.Block(2, (0,), (3,)), 12, "the study has 2 inputs, and no number 2"),
        (wire.Block(1, (1,), (3,)), 12, "is outside the shape (3,)"),
        (wire.Block(1, (0, 0), (1, 3)), 12, "is outside the shape (3,)"),
        (wire.Block(1, (0,), (3,)), 11, "'mask' has 11 bytes"),
    ],
)
def test_an_input_that_does_not_match_the_study_is_refused(assembler, block, size, sentence):
    with pytest.raises(ProtocolError, match="an input of simulation 0, rank 0") as caught:
        assembler.receive_input(wire.Input(0, 0, 1, block, bytes(size)), 0)
    assert sentence in str(caught.value)
    assert len(assembler.inputs) == 0


def test_an_input_that_arrives_twice_is_refused(assembler):
    message = inputs_of(0)[0]
    assembler.receive_input(message, 0)
    with pytest.raises(ProtocolError, match="'k' has arrived already"):
        assembler.receive_input(message, 0)


def test_blocks_that_overlap_are_a_fault(assembler):
    for rank in (0, 1):
        for message in inputs_of(0):
            assembler.receive_input(message, rank)
    assert assembler.inputs.fault(0, 0) == ("blocks_overlap", "k")
