import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from melissa_gen.study import Study, json_schema, load_study, write_study

HEAT = Path(__file__).parents[3] / "simulations" / "heat" / "study.yaml"


def round_trip(study, folder):
    path = folder / "resolved.yaml"
    write_study(study, path)
    return load_study(path, folder=study.folder)


def test_resolved_study_reads_back(tmp_path):
    study = load_study(HEAT)
    again = round_trip(study, tmp_path)
    assert again == study
    assert again.folder == HEAT.parent


def test_resolved_study_holds_every_default(tmp_path):
    path = tmp_path / "resolved.yaml"
    write_study(load_study(HEAT), path)
    text = path.read_text()
    for line in (
        "heartbeat_timeout: 20.0",
        "heartbeat: 1.0",
        "timeout: 60.0",
        "class: melissa_gen.surrogates.MLP",
    ):
        assert line in text


texts = st.one_of(
    st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=20),
    st.sampled_from(["1e-3", "yes", "no", "null", "~", "1", "1.5", ".inf", "0x10", "2020-01-01"]),
    st.sampled_from(["1_0", "12:30", "<<", "=", "- a", "# b", "'", '"', "1E5", "+.1e1", "", " a "]),
)


@settings(max_examples=50, deadline=None)
@given(values=st.lists(texts, min_size=1, max_size=5))
def test_any_text_round_trips(tmp_path_factory, values):
    study = load_study(HEAT)
    simulation = study.simulation.model_copy(
        update={"command": values, "environment": {f"V{n}": v for n, v in enumerate(values)}}
    )
    surrogate = study.surrogate.model_copy(update={"arguments": {"a": values, "b": 1e-7}})
    changed = study.model_copy(update={"simulation": simulation, "surrogate": surrogate})
    again = round_trip(changed, tmp_path_factory.getbasetemp())
    assert again.simulation.command == values
    assert list(again.simulation.environment.values()) == values
    assert again.surrogate.arguments == {"a": values, "b": 1e-7}


@settings(max_examples=30, deadline=None)
@given(number=st.floats(allow_nan=False, allow_infinity=False))
def test_any_number_reads_back(tmp_path_factory, number):
    study = load_study(HEAT, [f"sampler.arguments={{x: {number!r}}}"])
    assert study.sampler.arguments["x"] == number
    assert round_trip(study, tmp_path_factory.getbasetemp()).sampler.arguments["x"] == number


def test_relative_paths_start_at_the_studys_folder(tmp_path):
    assert load_study(HEAT).folder == HEAT.parent
    assert load_study(HEAT, folder=tmp_path).folder == tmp_path


def objects(node):
    if isinstance(node, dict):
        if node.get("type") == "object" and "properties" in node:
            yield node
        for value in node.values():
            yield from objects(value)
    elif isinstance(node, list):
        for value in node:
            yield from objects(value)


def resolve(schema, node):
    return schema["$defs"][node["$ref"].rsplit("/")[-1]] if "$ref" in node else node


def check(schema, node, value):
    """Follows a value through the schema: each key must be one of its properties."""
    node = resolve(schema, node)
    if "oneOf" in node:
        mapping = node["discriminator"]["mapping"]
        node = resolve(schema, {"$ref": mapping[value["distribution"]]})
    if "properties" in node:
        assert set(value) <= set(node["properties"])
        assert set(node.get("required", ())) <= set(value)
        for key, inner in value.items():
            check(schema, node["properties"][key], inner)
    elif isinstance(value, dict) and isinstance(node.get("additionalProperties"), dict):
        for inner in value.values():
            check(schema, node["additionalProperties"], inner)


def test_schema_covers_the_heat_study_and_allows_nothing_else():
    yaml = pytest.importorskip("yaml")
    schema = json.loads(json_schema())
    assert schema["$schema"].endswith("2020-12/schema")
    found = list(objects(schema))
    assert len(found) > 10
    assert all(node["additionalProperties"] is False for node in found)
    check(schema, schema, yaml.safe_load(HEAT.read_text()))
    resolved = load_study(HEAT).model_dump(mode="json", by_alias=True)
    assert set(resolved) == set(schema["properties"]) == set(Study.model_fields)


def test_the_schema_describes_the_keys():
    schema = json.loads(json_schema())
    training = schema["$defs"]["TrainingSection"]["properties"]
    assert "Samples per batch" in training["batch_size"]["description"]


def test_heat_study_fits_on_one_screen():
    assert len(HEAT.read_text().splitlines()) <= 50
