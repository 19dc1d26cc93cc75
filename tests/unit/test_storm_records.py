"""The file of storms can be continued, and the documentation has the table that follows from it."""

import pytest

from tests.faults import storm_records
from tests.faults.storm_faults import FAULTS
from tests.faults.storm_records import Record


def record(seed, verdict="passed", seconds=2.0):
    return Record(seed, ["full_disk"], [["full_disk", seconds]], 60.0, "abc1234", verdict)


def test_storms_that_have_passed_are_not_played_again(tmp_path):
    path = tmp_path / "storms.jsonl"
    assert storm_records.open_seeds(storm_records.read(path), 7, 3) == [7, 8, 9]
    for one in (record(7), record(8, "hangs")):
        storm_records.append(path, one)
    kept = storm_records.read(path)
    assert kept == [record(7), record(8, "hangs")]
    assert storm_records.open_seeds(kept, 7, 3) == [8, 9]


def test_the_table_has_the_storms_that_passed():
    lines = storm_records.table([record(1), record(2, seconds=4.0), record(3, "hangs", 90.0)])
    assert "| 2 | 3.0 | 4.0 |" in lines
    assert "90" not in lines


def test_failures_are_counted_and_what_followed_them():
    told = storm_records.account([record(1), record(2, "hangs"), record(3), record(4)])
    assert told == "4 storms with 4 faults were played; 1 of them failed. The last 2 passed."


@pytest.mark.parametrize("name", sorted(FAULTS))
def test_each_fault_has_a_sentence(name):
    assert storm_records.sentence(name)


def test_the_page_has_the_table_of_the_file():
    page = storm_records.PAGE.read_text("utf-8")
    records = storm_records.read(storm_records.RESULTS)
    hint = "run python -m tests.faults.storm_records"
    assert storm_records.written(page, records) == page, hint
    assert storm_records.account(records) in page
