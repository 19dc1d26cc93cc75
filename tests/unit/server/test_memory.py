from pathlib import Path

import pytest
import torch

from melissa_gen.builders.activations import activation_megabytes
from melissa_gen.builders.memory import (
    ARRIVED_BYTES,
    batch_megabytes,
    bookkeeping_megabytes,
    check_memory,
    checkpoint_megabytes,
    control_megabytes,
    disk_promise,
    model_megabytes,
    promised_megabytes,
    reservoir_megabytes,
    side_megabytes,
    staging_slots,
)
from melissa_gen.builders.surrogate import build_surrogate
from melissa_gen.builders.task import build_task
from melissa_gen.errors import StudyError
from melissa_gen.server.coordination.proposal_queue import known_bytes
from melissa_gen.server.coordination.simulation_table import row_bytes
from melissa_gen.study import load_study

HEAT = Path(__file__).parents[3] / "simulations" / "heat" / "study.yaml"


def test_a_reservoir_that_fits_is_accepted():
    check_memory(load_study(HEAT))


def test_the_largest_legal_capacity_is_named_and_is_legal():
    limit = ["reservoir.max_memory=30 MB"]
    study = load_study(HEAT, limit)
    with pytest.raises(StudyError) as caught:
        check_memory(study)
    sentence = str(caught.value)
    needed = reservoir_megabytes(study)
    assert f"reservoir.capacity 2000 needs {needed:.0f} MB in each of 2 server ranks" in sentence
    assert "reservoir.max_memory allows 30 MB" in sentence
    most = int(sentence.rsplit(" ", 1)[1])
    assert most > 200
    check_memory(load_study(HEAT, [*limit, f"reservoir.capacity={most}"]))
    with pytest.raises(StudyError):
        check_memory(load_study(HEAT, [*limit, f"reservoir.capacity={most + 1}"]))


def test_more_than_the_machine_has():
    study = load_study(HEAT, ["reservoir.capacity=1000000000"])
    with pytest.raises(StudyError, match=r"the free memory of this machine allows \d+ MB"):
        check_memory(study)


def test_samples_in_flight_have_reserved_rows():
    study = load_study(HEAT, ["launcher.clients=3", "server.credit=5"])
    assert staging_slots(study) == 20
    chunks = load_study(HEAT, ["launcher.clients=3", "server.chunk_steps=5", "server.credit=40"])
    assert chunks.flow == (8, 5)
    assert staging_slots(chunks) == 4 * 40 + 4


@pytest.mark.parametrize(
    ("side", "processes", "credit", "flow"),
    [
        (8, 1, None, (4, 25)),  # one simulation in all
        (32, 1, None, (4, 25)),
        (100, 1, None, (8, 6)),
        (100, 2, None, (7, 13)),
        (512, 1, None, (7, 1)),
        (1024, 1, None, (4, 1)),
        (4096, 1, None, (4, 1)),
        (100, 1, 16, (4, 4)),
        (100, 1, 2, (2, 1)),
    ],
)
def test_a_message_has_about_256_kib(side, processes, credit, flow):
    changes = [] if credit is None else [f"server.credit={credit}"]
    study = load_study(HEAT, [f"simulation.processes={processes}", *changes])
    study.simulation.fields["temperature"].shape[:] = [side, side]
    assert study.flow == flow


@pytest.mark.parametrize(
    ("change", "more"), [("server.device=cuda", 1400), ("training.compile=true", 200)]
)
def test_a_gpu_and_the_compiler_have_their_part_of_the_promise(change, more):
    plain = promised_megabytes(load_study(HEAT, ["server.device=cpu"]))
    study = load_study(HEAT, ["server.device=cpu", change])
    # The values within the network are in the memory of the GPU.
    within = activation_megabytes(study, build_task(study)) if "cuda" in change else 0.0
    assert promised_megabytes(study) == pytest.approx(plain + more - within)


def test_the_package_of_a_neural_operator_is_part_of_the_promise():
    pytest.importorskip("neuralop", reason="install melissa_gen[operators]")
    change = (
        "surrogate={class: melissa_gen.surrogates.FNO, arguments: {hidden_channels: 4, n_modes: 4}}"
    )
    study = load_study(HEAT, ["server.device=cpu", change])
    weights = sum(w.numel() * w.element_size() for w in build_surrogate(study).parameters()) / 1e6
    assert weights < 1
    assert 60 <= model_megabytes(study) < 60 + 14 * weights


def test_the_rows_of_a_batch_are_part_of_the_promise():
    row = load_study(HEAT).sample_bytes / 1e6
    task = "surrogate.task={class: autoregressive, arguments: {history: 3, rollout: 2}}"
    sizes = {32: [], 64: []}
    for size, promised in sizes.items():
        for change in ("surrogate.task=direct", task):
            changes = ["server.device=cpu", f"training.batch_size={size}", change]
            study = load_study(HEAT, [*changes, "training.validation.simulations=0"])
            within = activation_megabytes(study, build_task(study))
            promised.append(promised_megabytes(study) - within)
            # Five steps and their copy; three given steps for each of the two that are predicted.
            assert batch_megabytes(study) - within == pytest.approx(
                size * row * (16 if change == task else 2)
            )
    assert sizes[64][0] - sizes[32][0] == pytest.approx(32 * 2 * row)
    assert sizes[64][1] - sizes[32][1] == pytest.approx(32 * 16 * row)


def test_the_values_within_a_network_are_part_of_the_promise():
    network = "surrogate.class=melissa_gen.surrogates.UNet"
    size = "surrogate.arguments={width: 8, levels: 1}"
    task = "surrogate.task={class: autoregressive, arguments: {rollout: 3}}"
    keys = ["server.device=cpu", network, size]

    def within(*more):
        study = load_study(HEAT, [*keys, *more])
        return activation_megabytes(study, build_task(study))

    few, many, rolled = (
        within("training.batch_size=8"),
        within("training.batch_size=16"),
        within("training.batch_size=8", task),
    )
    image = 100 * 100 * 8 * 4 / 1e6
    # Each of the at least five convolutions keeps its input, and each normalization and activation, too.
    assert few > 8 * 10 * image and many == pytest.approx(2 * few)
    assert rolled == pytest.approx(3 * few, rel=0.05)


def test_what_scales_and_shifts_keep_is_part_of_the_promise():
    pytest.importorskip("neuralop", reason="install melissa_gen[operators]")

    def within(conditioning):
        sizes = f"hidden_channels: 8, n_modes: 4, n_layers: 2, conditioning: {conditioning}"
        network = f"{{class: melissa_gen.surrogates.FNO, arguments: {{{sizes}}}}}"
        keys = ["server.device=cpu", "training.batch_size=8", f"surrogate={network}"]
        study = load_study(HEAT, keys)
        return activation_megabytes(study, build_task(study))

    image = 100 * 100 * 8 * 4 / 1e6
    # Of the lifting and the two layers.
    assert within("film") - within("channels") > 3 * 8 * image


def test_the_promise_leaves_the_random_numbers_of_the_training_as_they_are():
    study = load_study(HEAT, ["server.device=cpu"])
    before = torch.get_rng_state()
    promised_megabytes(study)
    control_megabytes(study)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_records_of_all_simulations_are_part_of_the_promise():
    million = load_study(HEAT, ["server.device=cpu", "simulation.count=1000000"])
    parameters, promised = len(million.parameters), bookkeeping_megabytes(million)
    # Ledger, sampler, and difficulty with its copy.
    needed = row_bytes(parameters) + known_bytes(parameters) + 2 * 20
    assert 0.8 * promised < needed <= promised
    few = load_study(HEAT, ["server.device=cpu", "simulation.count=100"])
    more = control_megabytes(million) - control_megabytes(few)
    assert more == pytest.approx(promised, abs=0.1)
    arrived = promised_megabytes(million) - promised_megabytes(few)
    assert arrived == pytest.approx(ARRIVED_BYTES, abs=0.1)
    assert promised < 500


def test_the_snapshots_of_the_surrogate_are_part_of_the_promise_of_the_control_process():
    keys = ["surrogate.arguments={hidden: [1000, 1000]}"]
    large, few = load_study(HEAT, keys), load_study(HEAT)
    several = load_study(HEAT, [*keys, "surrogate.ensemble={kind: snapshots, count: 3}"])
    (one, more), least = map(control_megabytes, (large, several)), control_megabytes(few)
    weights = sum(w.numel() * w.element_size() for w in build_surrogate(large).parameters()) / 1e6
    assert more - one == pytest.approx(2 * weights)
    assert one - least > 2 * weights
    assert control_megabytes(large, samples=False) < least


def test_the_fields_that_an_acquisition_of_the_user_gets_are_part_of_the_promise_and_bounded():
    own = "sampler.acquisition={class: own.py:Own}"
    shape = "simulation.fields={temperature: {shape: [%d, %d]}}"
    keys = ["server.device=cpu", "surrogate.arguments={hidden: [2]}", "server.ranks=1"]
    more = []
    for side in (100, 1000, 2000):
        study = load_study(HEAT, [*keys, shape % (side, side)])
        asked = load_study(HEAT, [*keys, shape % (side, side), own])
        more.append(control_megabytes(asked) - control_megabytes(study))
    # The fields of 32 points, of 32 MiB, and of one point, at three times; with two copies.
    fields = [3 * 32 * 3 * 4e-2, 3 * 2 * 12.0, 3 * 3 * 16.0]
    assert all(least < found < 1.9 * least for least, found in zip(fields, more, strict=True)), more


def test_a_recording_of_small_fields_queues_the_inputs_of_more_simulations():
    keys = ["simulation.inputs={k: {shape: [1000]}}", "simulation.count=100000"]
    keys += ["simulation.fields.mark={shape: [2, 2]}", "record={}", "server.ranks=1"]
    whole, small = (
        side_megabytes(load_study(HEAT, [*keys, *more])) for more in ([], ["record.fields=[mark]"])
    )
    # The queue may hold a sample of each simulation.
    assert whole < 300 < 100_000 * 4000 / 1e6 <= small


def test_the_disk_space_of_checkpoints_is_known_before_the_start(tmp_path):
    study = load_study(HEAT)
    rows = reservoir_megabytes(study) * study.server.ranks
    assert 1.5 * rows < checkpoint_megabytes(study) < 2.1 * rows
    assert "but only" not in disk_promise(study, tmp_path)
    large = load_study(HEAT, ["reservoir.capacity=2000000000"])
    assert "reservoir.checkpoint to false" in disk_promise(large, tmp_path)
    assert checkpoint_megabytes(load_study(HEAT, ["reservoir.checkpoint=false"])) == 0.0


def test_the_spectrum_of_a_large_field_is_in_the_promised_memory():
    more = ["training.validation.simulations=0"]
    study, none = load_study(HEAT), load_study(HEAT, more)
    simulations, values = study.training.validation.simulations, 100 * 100
    each = study.simulation.time_steps * study.sample_bytes
    held = (simulations / study.server.ranks + 2) * each + 32 * study.sample_bytes
    assert promised_megabytes(study) - promised_megabytes(none) == pytest.approx(
        (held + 110 * values) / 1e6
    )
