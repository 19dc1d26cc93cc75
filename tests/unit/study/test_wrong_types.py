"""A value of the wrong type, at any key of a study: one plain sentence, without words of Python or of our classes."""

import copy
import json
import re
from pathlib import Path

import pytest
from pydantic import ValidationError

from melissa_gen.errors import StudyError
from melissa_gen.study import Study, load_study
from melissa_gen.study.error_sentences import describe

HEAT = Path(__file__).parents[3] / "simulations" / "heat" / "study.yaml"
VALUES = [
    *("word", "", "a b\n", "1", 3, -1, 2.5, float("nan"), True, None),
    *([], [1, "a"], [[1]], {}, {"x": 1}, {"class": 3}, {1: 2}),
]
LEAKS = re.compile(
    r"Section|pydantic|instance of|[Ii]nput should|valid (dictionary|list|string|integer|number)|literal\[|\bdict\b|"
    r"\bNone\b|\bTrue\b|\bFalse\b|NoneType|_type\b|validat(or|ion error)|Traceback|value_error|regex|pattern '|"
    r"constrained|Annotated|function-"
)


def complete():
    """A study in which as many sections as possible are there."""
    data = json.loads(load_study(HEAT).model_dump_json(by_alias=True))
    data["surrogate"]["ensemble"] = {"kind": "heads", "count": 3}
    data["training"]["until"] = {"nrmse.mean": 0.1}
    data["training"]["optimizer"] = {"class": "Adam"}
    scale = data["simulation"]["fields"]["temperature"]
    scale["scale"] = {"mean": 0.0, "std": 1.0}
    Study.model_validate(data)
    return data


def leaves(node, path=()):
    for name, value in node.items():
        yield (*path, name)
        if isinstance(value, dict):
            yield from leaves(value, (*path, name))


COMPLETE = complete()
# Equal keys of the five parameters are tried once.
KEYS = [
    key
    for key in leaves(COMPLETE)
    if key[0] != "parameters" or key[1:2] in ((), ("left_temperature",))
]


@pytest.mark.parametrize("key", KEYS, ids=".".join)
def test_a_value_of_any_type_gets_one_plain_sentence(key):
    *sections, last = key
    for value in VALUES:
        data = copy.deepcopy(COMPLETE)
        node = data
        for section in sections:
            node = node[section]
        node[last] = value
        try:
            Study.model_validate(data)
        except ValidationError as error:
            location, sentence = describe(Study, data, error)
            assert not LEAKS.search(sentence), sentence
            assert "\n" not in sentence
            assert str(location[0] if location else key[0]) in sentence, sentence


@pytest.mark.parametrize(
    ("old", "new", "start", "words"),
    [
        ("batch_size: ", "batch_size: x", "batch_size", "an integer is legal"),
        ("watermark: ", "watermrk: ", "reservoir:", "unknown key 'reservoir.watermrk'"),
        ("capacity: 2000, ", "", "reservoir:", "the key 'reservoir.capacity' is missing"),
        ('"100", --steps', "100, --steps", "command:", "write a string in quotes: '100'"),
    ],
)
def test_the_sentence_has_the_line_of_the_study_file(tmp_path, old, new, start, words):
    path = tmp_path / "study.yaml"
    text = HEAT.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    lines = path.read_text().splitlines()
    (number,) = (n for n, one in enumerate(lines, 1) if one.strip().startswith(start))
    with pytest.raises(StudyError) as caught:
        load_study(path)
    assert str(caught.value).startswith(f"{path}:{number}: ")
    assert words in str(caught.value)
