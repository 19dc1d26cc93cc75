"""The sentence that names the bottleneck, says how far it is from what is possible, and what to change."""

import pytest

from melissa_gen.report.bottleneck import bottleneck
from melissa_gen.report.waiting import mean_shares, time_sentences

IDLE = {
    **{"rank": 0, "waiting": 0.9, "blocked": 0.0, "receiving": 0.02, "assembling": 0.02},
    **{"copying": 0.02, "storing": 0.02, "answering": 0.02, "drawing": 0.0},
}
BUSY = IDLE | {"rank": 2, "waiting": 0.12, "copying": 0.8, "megabytes_per_second": 1200.0}
TRAINING = {"batches": 300, "seconds": {"training": 8.0, "gathering": 1.0, "agreeing": 1.0}}


@pytest.mark.parametrize(
    ("waiting", "trains", "name", "advice"),
    [
        ({"trainer_for_data": 0.6, "clients_for_credit": 0.1}, True, "solvers", "launcher.clients"),
        ({"clients_for_credit": 0.3}, True, "training", "server.ranks"),
        ({"clients_for_credit": 0.3}, False, "sinks", "server.ranks"),
        ({"clients_for_parameters": 0.3}, True, "sampler", "sampler.generation_size"),
        ({"trainer_for_data": 0.01}, True, "none", ""),
        ({"clients_for_credit": 0.01}, False, "solvers", "launcher.clients"),
    ],
)
@pytest.mark.parametrize("ingest", [{}, IDLE])
def test_the_bottleneck_has_its_advice(waiting, trains, name, advice, ingest):
    found = bottleneck({"waiting": waiting, "ingest": ingest}, trains=trains)
    assert found.name == name
    assert advice in found.advice
    assert "bottleneck" in found.said and found.said.endswith(".") and found.said.count(".") == 1
    assert bottleneck({"waiting": {}, "ingest": ingest}, trains=trains) is None


def test_the_trainer_is_compared_with_training_on_data_in_memory():
    seconds = TRAINING["seconds"] | {"waiting": 10.0, "validating": 50.0}
    found = bottleneck(
        {
            "waiting": {"trainer_for_data": 0.5},
            "training": TRAINING | {"seconds": seconds},
            "clients": {"solving": 0.95},
        }
    )
    assert found.said == (
        "The solvers are the bottleneck: the trainer waits for data 50 % of the time; the trainer reaches 50 % of the "
        "30.0 batches/s that it would train with all data in memory; the clients solve 95 % of the time."
    )
    # A status has the seconds under other names.
    names = {f"{key}_seconds": value for key, value in seconds.items()}
    status = {"waiting": {"clients_for_credit": 0.2}, "training": {"batches": 300, **names}}
    found = bottleneck(status | {"training": status["training"] | {"waiting_seconds": 0.0}})
    assert "The training is" in found.said and "reaches 100 % of the 30.0 batches/s" in found.said


@pytest.mark.parametrize("wait", ["trainer_for_data", "clients_for_credit"])
def test_a_busy_ingest_is_the_bottleneck_whoever_waits_for_it(wait):
    found = bottleneck({"waiting": {wait: 0.4}, "ingest": BUSY})
    assert found.name == "ingest" and found.waits == wait
    assert found.said == (
        "The ingest of server rank 2 is the bottleneck: it is busy 88 % of the time, 80 % with copying values; it "
        "takes in 1.2 GB/s of the 1.5 GB/s at which it copies."
    )
    assert "server.ranks" in found.advice and "melissa-gen doctor" in found.advice


@pytest.mark.parametrize(
    ("part", "advice"),
    [
        ("receiving", "server.chunk_steps"),
        ("storing", "record and statistics"),
        ("drawing", "training.batch_size"),
    ],
)
def test_what_a_busy_ingest_does_decides_what_to_change(part, advice):
    busy = IDLE | {"waiting": 0.05, part: 0.85}
    found = bottleneck({"waiting": {"clients_for_credit": 0.4}, "ingest": busy})
    assert found.name == "ingest" and advice in found.advice


@pytest.mark.parametrize(
    ("waiting", "name", "words"),
    [
        ("trainer_for_data", "data", "the trainer waits for it 40 %"),
        ("clients_for_credit", "training", "the next simulations wait for room"),
        ("clients_for_parameters", "sampler", "wait for parameters"),
    ],
)
def test_recorded_data_has_no_solvers(waiting, name, words):
    for clients in ({"reading": 0.5, "sending": 0.1}, {"sending": 0.1}):
        found = bottleneck({"waiting": {waiting: 0.4}, "clients": clients})
        assert found.name == name and words in found.said
        assert "launcher.clients" not in found.advice and "Fewer clients" not in found.advice
        idle = bottleneck({"waiting": {waiting: 0.0}, "clients": clients})
        assert idle.said.startswith("There is no bottleneck: data and trainer")


def test_a_busy_ingest_of_which_nobody_waits_is_no_bottleneck():
    assert bottleneck({"waiting": {"trainer_for_data": 0.01}, "ingest": BUSY}).name == "none"
    waits = {"clients_for_parameters": 0.5, "trainer_for_data": 0.2}
    assert bottleneck({"waiting": waits, "ingest": BUSY}).name == "sampler"


def test_without_training_a_busy_ingest_that_stores_is_a_sink():
    busy = IDLE | {"waiting": 0.05, "storing": 0.85}
    found = bottleneck({"waiting": {"clients_for_credit": 0.4}, "ingest": busy}, trains=False)
    assert found.name == "sinks" and "storing samples" in found.said


def test_the_shares_of_a_run_are_the_means_of_its_statuses():
    statuses = [
        {"waiting": {"trainer_for_data": 0.2}, "ingest": BUSY, "clients": {"solving": 0.5}},
        {"waiting": {"trainer_for_data": 0.4}, "ingest": BUSY, "clients": {}},
        {"ingest": IDLE},
    ]
    found = mean_shares(statuses)
    assert found["waiting"] == pytest.approx({"trainer_for_data": 0.3})
    assert found["clients"] == {"solving": 0.5}
    assert found["ingest"]["rank"] == 2
    assert found["ingest"]["waiting"] == pytest.approx((0.12 + 0.12 + 0.9) / 3)


def test_each_process_says_where_its_time_went():
    found = dict(time_sentences({"training": TRAINING, "ingest": BUSY}))
    assert found["trainer"].startswith("80 % training steps, 10 % ")
    assert found["ingest 2"].startswith("80 % copying values, 12 % waiting for messages")
    assert found["clients"] == "–", "clients of an earlier version do not say it"
    clients = {"solving": 0.9, "sending": 0.1}
    found = dict(time_sentences({"ingest": IDLE, "clients": clients}))
    assert found["clients"] == "90 % solving, 10 % sending" and "trainer" not in found
    found = dict(time_sentences({"ingest": IDLE, "clients": {"reading": 0.3, "sending": 0.1}}))
    assert found["data"] == "75 % reading files, 25 % sending"
    found = dict(time_sentences({"ingest": IDLE, "clients": {"sending": 0.1}}))
    assert found.keys() == {"ingest"}, "an equation alone has neither solvers nor data"
