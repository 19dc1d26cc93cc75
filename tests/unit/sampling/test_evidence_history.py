"""The history of evidence: newest evidence wins, memory is bounded, and invalid values are refused."""

import numpy as np
import pytest

from melissa_gen.sampling import Evidence, Prior
from melissa_gen.sampling.acquisition.evidence_history import EvidenceHistory
from melissa_gen.sampling.adaptive.mixture import coverage

PRIOR = Prior.from_mapping({"a": {"low": 0.0, "high": 2.0}})


NAN = float("nan")


def word(simulation, difficulty=1.0, samples=1, at=1.0, failed=False, log_density=NAN, seconds=NAN):
    return Evidence(
        simulation, np.array([at]), difficulty, samples, failed, log_density, seconds=seconds
    )


def test_the_newest_evidence_replaces_older_evidence():
    records = EvidenceHistory(PRIOR, 10)
    records.add([word(1), word(2), word(1, 3.0, samples=5)])
    table = records.table()
    assert table.simulation.tolist() == [2, 1] and table.difficulty.tolist() == [1.0, 3.0]
    records.settle()
    records.add([word(1, 9.0, samples=4), word(2, 1.0, samples=1)])  # late, and repeated
    assert not records.changed and records.table().difficulty.tolist() == [1.0, 3.0]
    assert not records.table().fresh.any()


def test_a_run_time_that_becomes_known_later_is_new_evidence_and_stays_known():
    records = EvidenceHistory(PRIOR, 10)
    records.add([word(1, samples=4)])
    records.settle()
    records.add([word(1, samples=4, seconds=3.0)])
    assert records.changed and records.fresh == 0
    records.settle()
    records.add([word(1, samples=4, seconds=3.0)])  # repeated
    assert not records.changed
    records.add([word(1, 2.0, samples=5)])
    assert records.changed and records.table().seconds.tolist() == [3.0]


def test_bounded():
    records = EvidenceHistory(PRIOR, 3)
    records.add([word(i) for i in range(7)])
    assert records.table().simulation.tolist() == [4, 5, 6]


def test_failed_simulations_and_impossible_values():
    records = EvidenceHistory(PRIOR, 10)
    records.add([word(1, float("nan"), failed=True), word(2, 5.0)])
    records.add([word(3, at=9.0), word(4, -1.0), word(5, float("inf"))])
    records.add([Evidence(6, np.array([1.0, 1.0]), 1.0)])
    assert records.rejected == 4 and records.failed == 1 and len(records) == 2
    assert records.table().usable().simulation.tolist() == [2]
    records.add([word(1, 2.0, samples=1)])  # a retry completed after all
    assert records.failed == 0 and len(records.table().usable()) == 2


def test_weights_follow_the_proposal_density():
    records = EvidenceHistory(PRIOR, 10)
    log_p = -np.log(2.0)
    records.add([word(1, log_density=log_p + 1.0), word(2)])
    assert records.table().log_ratio.tolist() == pytest.approx([-1.0, 0.0])


def test_coverage():
    assert coverage((np.arange(100)[:, None] + 0.5) / 100) == pytest.approx(1.0)
    assert coverage(np.full((100, 3), 0.05)) == pytest.approx(0.1)
    assert coverage(np.empty((0, 2))) == 1.0
