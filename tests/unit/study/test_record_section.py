"""What a study says about recording, and about a study without a surrogate."""

import pytest
import yaml

from melissa_gen.builders.sampler import check_sampler
from melissa_gen.errors import StudyError
from melissa_gen.study import load_study
from tests.unit.small_study import write_small_study


@pytest.fixture
def small(tmp_path):
    return write_small_study(tmp_path / "study")


def test_a_study_records_nothing_unless_it_says_so(small):
    assert load_study(small).record is None
    study = load_study(small, ["record={}"])
    assert study.record.file == "record.h5" and study.record.fields is None


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (
            ["record.file=study.yaml"],
            "record.file 'study.yaml' has another suffix than .h5 or .hdf5",
        ),
        (["record.file=./validation.h5"], "is a file that the study writes itself"),
        (
            ["record.fields=[v]"],
            "record.fields has 'v', which is no field of the study; legal are u",
        ),
        (["statistics={quantiles: [0.5, 0.1, 0.5]}"], "names 0.5 more than once; write it once"),
        (["statistics={thresholds: {u: [1, 1]}}"], "names 1.0 more than once; write it once"),
        (["statistics={fields: [u, u]}"], "names u more than once; write it once"),
        (["statistics={quantiles: [1.5]}"], "quantiles.0 is 1.5; a number below 1 is legal"),
        (["statistics={thresholds: {v: [1]}}"], "thresholds has the field 'v'; legal are u"),
        (
            ["training.enabled=false"],
            "training.enabled is false, and nothing else uses the samples",
        ),
    ],
)
def test_mistakes_are_named(small, words, sentence):
    with pytest.raises(StudyError, match=sentence.replace(".", r"\.")):
        load_study(small, words)


@pytest.mark.parametrize("enabled", ["true", "false"])
@pytest.mark.parametrize("section", ["record", "statistics"])
def test_every_use_of_the_samples_may_have_several_server_ranks(small, section, enabled):
    words = [f"training.enabled={enabled}", f"{section}={{}}", "server.ranks=2"]
    assert load_study(small, words).server.ranks == 2


def test_a_study_without_training_needs_no_reservoir_and_no_sampler_that_learns(small):
    whole = yaml.safe_load(small.read_text())
    del whole["reservoir"]
    whole |= {"training": {"enabled": False}, "record": {}}
    small.write_text(yaml.safe_dump(whole))
    study = load_study(small)
    with pytest.raises(StudyError, match=r"training\.enabled is false; legal"):
        check_sampler(study)
    check_sampler(load_study(small, ["sampler.method=sobol"]))
