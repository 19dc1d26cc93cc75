"""Which keys of a study may change when a run is resumed: every key does, or has a reason why it does not."""

import json
from pathlib import Path

import pytest

from melissa_gen.errors import StudyError
from melissa_gen.study import Study, changes_between, check_changes, load_study
from melissa_gen.study.changes import CHANGEABLE, FIXED

HEAT = Path(__file__).parents[3] / "simulations" / "heat" / "study.yaml"


def changed(*overrides):
    return changes_between(load_study(HEAT), load_study(HEAT, overrides))


@pytest.mark.parametrize(
    "override",
    [
        "simulation.count=10000",
        "simulation.timeout=9 s",
        "simulation.environment={A: b}",
        "training.learning_rate=3e-5",
        "training.validation.every=7",
        "launcher.clients=7",
        "launcher.client_jobs.time=2 h",
        "server={ranks: 3}",
    ],
)
def test_safe_keys_can_change(override):
    changes = changed(override)
    assert changes
    check_changes(changes, "uniform")


@pytest.mark.parametrize(
    ("override", "key", "reason"),
    [
        ("seed=5", "seed", "were drawn with it"),
        ("parameters.left_temperature.low=1", "parameters.left_temperature.low", "prior"),
        ("parameters.new={distribution: fixed, value: 1}", "parameters.new", "prior"),
        ("simulation.time_steps=80", "simulation.time_steps", "the same simulation"),
        ("simulation.command=[other]", "simulation.command", "the same simulation"),
        ("surrogate.arguments={hidden: [3]}", "surrogate.arguments", "the weights"),
        ("training.optimizer=SGD", "training.optimizer", "this optimizer"),
        ("training.validation.seed=1", "training.validation.seed", "the same validation set"),
        ("sampler.method=breed", "sampler.method", "the state of this sampler"),
        ("reservoir.capacity=5000", "reservoir.capacity", "the samples in memory"),
    ],
)
def test_unsafe_changes_are_refused_with_the_reason(override, key, reason):
    with pytest.raises(StudyError) as caught:
        check_changes(changed(override), "uniform")
    sentence = str(caught.value)
    assert sentence.startswith(f"{key}")
    for part in (
        reason,
        "Legal here: simulation.count,",
        "all keys of server, launcher and report",
    ):
        assert part in sentence


def test_the_ranks_of_a_run_with_groups_can_not_change():
    changes = changed("server.ranks=3")
    check_changes(changes, "uniform")
    with pytest.raises(StudyError, match=r"server\.ranks can't change from .* to 3 .* pick_freeze"):
        check_changes(changes, "pick_freeze")


def test_a_section_that_is_replaced_is_compared_key_by_key():
    with pytest.raises(StudyError, match=r"training\.validation"):
        check_changes(changed("training={batch_size: 16}"), "uniform")


def test_equal_studies_have_no_changes():
    assert changed("seed=1", "simulation.timeout=60 s") == {}


def test_every_key_of_a_study_has_a_decision():
    decided = [*CHANGEABLE, *FIXED]
    for name in Study.model_fields:
        inside = [key for key in decided if key.split(".")[0] == name]
        assert name in decided or inside, name
    # Each entry is a key that exists.
    whole = json.loads(load_study(HEAT).model_dump_json(by_alias=True))
    for entry in decided:
        node = whole
        for word in entry.split("."):
            node = node[word]
