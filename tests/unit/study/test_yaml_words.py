"""The words of a study file follow YAML 1.2, unlike those of PyYAML."""

import math
from datetime import date

import pytest
import yaml

from melissa_gen.errors import StudyError
from melissa_gen.study.yaml_file import read_mapping


def value(tmp_path, word):
    file = tmp_path / "study.yaml"
    file.write_text(f"a: {word}\n")
    return read_mapping(file)["a"]


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("1e-3", 1e-3),
        ("1E5", 1e5),
        ("-.5e+2", -50.0),
        ("1.", 1.0),
        ("0", 0),
        ("-12", -12),
        ("true", True),
        ("False", False),
        ("null", None),
        (".inf", math.inf),
        ("[1, 2.5]", [1, 2.5]),
        # Text, where YAML 1.1 has a boolean, an octal, a sexagesimal number, or a date.
        ("on", "on"),
        ("yes", "yes"),
        ("No", "No"),
        ("y", "y"),
        ("010", "010"),
        ("0x1f", "0x1f"),
        ("1:30", "1:30"),
        ("1:30.5", "1:30.5"),
        ("1_000", "1_000"),
        ("2026-01-01", "2026-01-01"),
        ("1e5f", "1e5f"),
    ],
)
def test_words(tmp_path, word, expected):
    found = value(tmp_path, word)
    assert found == expected
    assert type(found) is type(expected)


def test_a_parameter_can_be_named_on(tmp_path):
    file = tmp_path / "study.yaml"
    file.write_text("parameters: {on: 1, no: 2, y: 3}\n")
    assert read_mapping(file) == {"parameters": {"on": 1, "no": 2, "y": 3}}


def test_anchors_and_merged_keys(tmp_path):
    file = tmp_path / "study.yaml"
    file.write_text("a: &x {low: 0, high: 1}\nb: {<<: *x, high: 2}\nc: *x\n")
    found = read_mapping(file)
    assert found["b"] == {"low": 0, "high": 2}
    assert found["c"] == found["a"]
    file.write_text("a: 1\nb: 2\na: 3\n")
    with pytest.raises(StudyError, match="the key 'a' is written twice"):
        read_mapping(file)


@pytest.mark.parametrize("word", ["on", "010", "1:30", "1e5", "1e-3", "2026-01-01", "1_000", "~"])
def test_written_text_is_text_in_every_version_of_yaml(tmp_path, word):
    from melissa_gen.study.yaml_file import to_yaml

    text = to_yaml({"a": word})
    (tmp_path / "study.yaml").write_text(text)
    assert read_mapping(tmp_path / "study.yaml") == {"a": word} == yaml.safe_load(text)
    assert not isinstance(yaml.safe_load(text)["a"], date)
