"""The sampler and the reservoir's eviction rule, as the sections of a study describe them."""

from pathlib import Path

import pytest

from melissa_gen.builders.prior import prior_of
from melissa_gen.builders.sampler import build_sampler, check_sampler, eviction_rule, study_facts
from melissa_gen.errors import StudyError
from melissa_gen.sampling import Evidence
from melissa_gen.study import load_study

HEAT = Path(__file__).parents[3] / "simulations" / "heat" / "study.yaml"


def study_with(*overrides, folder=None):
    return load_study(HEAT, overrides, folder)


def sampler_of(study):
    facts = study_facts(study.simulation, study.reservoir, study.server, study.folder)
    return build_sampler(study.sampler, prior_of(study), study.seed, facts)


def test_the_window_of_breed_is_the_number_of_simulations_in_the_reservoirs():
    study = study_with("sampler.method=breed", "server.ranks=2", "reservoir.capacity=300")
    facts = study_facts(study.simulation, study.reservoir, study.server, study.folder)
    assert facts.reservoir_simulations == 600 // study.simulation.time_steps
    assert sampler_of(study).name == "breed"


def test_a_latin_hypercube_has_as_many_points_as_simulations_are_planned():
    study = study_with("sampler.method=lhs", "simulation.count=40")
    axis = prior_of(study).to_unit(sampler_of(study).suggest(40).points)[:, 0]
    assert sorted((axis * 40).astype(int)) == list(range(40))


def test_the_path_of_a_table_starts_at_the_study_s_folder(tmp_path):
    study = study_with("sampler.method=table", "sampler.arguments.points=p.csv", folder=tmp_path)
    row = [p.low for p in study.parameters.values()]
    (tmp_path / "p.csv").write_text(
        ",".join(study.parameters) + "\n" + ",".join(map(str, row)) + "\n"
    )
    assert sampler_of(study).suggest(1).points.tolist() == [row]


def test_a_method_can_require_an_eviction_policy():
    study = study_with("sampler.method=r3")
    assert eviction_rule(study.sampler, study.reservoir) == "difficulty"
    study = study_with("sampler.method=uniform")
    assert eviction_rule(study.sampler, study.reservoir) == "random"
    study = study_with("sampler.method=uniform", "reservoir.eviction=difficulty")
    assert eviction_rule(study.sampler, study.reservoir) == "difficulty"


@pytest.mark.parametrize("policy", ["fifo", "firo"])
def test_a_policy_without_that_rule_is_refused(policy):
    study = study_with(
        "sampler.method=r3", f"reservoir.policy={policy}", "training.draws_per_sample=1"
    )
    with pytest.raises(
        StudyError, match=rf"sampler\.method r3 .* {policy} draws each sample only once"
    ):
        check_sampler(study)


def write_interest(folder):
    (folder / "interest.py").write_text(
        "class Cold:\n"
        "    def __init__(self, below: float = 200.0) -> None:\n"
        "        self.below = below\n"
        "    def __call__(self, parameters, log_a, fields):\n"
        "        return log_a + 3.0 * (parameters['initial_temperature'] < self.below)\n"
        "class Nothing:\n"
        "    pass\n"
    )


def test_a_class_of_the_user_changes_the_acquisition(tmp_path):
    write_interest(tmp_path)
    given = "sampler.acquisition={class: 'interest.py:Cold', arguments: {below: 150.0}}"
    study = study_with(given, "sampler.arguments={gate: false}", folder=tmp_path)
    check_sampler(study)
    sampler = sampler_of(study)
    for first in range(0, 80, 20):
        points = sampler.suggest(20).points
        sampler.ingest(
            [Evidence(first + k, point, float(point[1])) for k, point in enumerate(points)]
        )
    # An eighth of the prior is below 150.
    assert (sampler.suggest(100).points[:, 0] < 150.0).mean() > 0.3


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("{class: 'interest.py:Warm'}", "has no 'Warm'"),
        ("{class: 'interest.py:Nothing'}", "can't be called; define __call__"),
        ("{class: 'interest.py:Cold', arguments: {above: 1.0}}", "do not match Cold"),
    ],
)
def test_a_class_that_can_t_change_the_acquisition_is_refused(tmp_path, given, said):
    write_interest(tmp_path)
    with pytest.raises(StudyError, match=said):
        check_sampler(study_with(f"sampler.acquisition={given}", folder=tmp_path))


def test_a_method_without_an_acquisition_refuses_one(tmp_path):
    write_interest(tmp_path)
    given = "sampler.acquisition={class: 'interest.py:Cold'}"
    with pytest.raises(StudyError, match=r"sampler\.method sobol has no acquisition .* adaptive"):
        check_sampler(study_with(given, "sampler.method=sobol", folder=tmp_path))
