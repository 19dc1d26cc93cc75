"""Each error in a study file is one sentence: file, key, what was found, what is legal, and the nearest spelling."""

import copy
import re
from pathlib import Path

import pytest
import yaml

from melissa_gen.errors import StudyError, nearest
from melissa_gen.study import load_study

HEAT = Path(__file__).parents[3] / "simulations" / "heat" / "study.yaml"


@pytest.fixture
def data():
    return copy.deepcopy(yaml.safe_load(HEAT.read_text()))


def put(data, key, value):
    *parents, last = key.split(".")
    for parent in parents:
        data = data.setdefault(parent, {})
    data[last] = value


def complaint(folder, text, overrides=()):
    """The sentence that a study file gets, without its path."""
    path = folder / "study.yaml"
    if isinstance(text, bytes):
        path.write_bytes(text)
    else:
        path.write_text(text if isinstance(text, str) else yaml.safe_dump(text))
    with pytest.raises(StudyError) as caught:
        load_study(path, overrides)
    sentence = str(caught.value)
    assert "\n" not in sentence
    assert len(sentence) < 500
    if not sentence.startswith("--set "):
        assert sentence.startswith(f"{path}:")
        sentence = re.sub(r"^\d+: ", "", sentence.removeprefix(f"{path}:")).strip()
    return sentence


@pytest.mark.parametrize(
    ("key", "nearest", "legal"),
    [
        ("trainng", "training", "reservoir"),
        ("training.batchsize", "batch_size", "learning_rate"),
        ("training.validation.evry", "every", "simulations"),
        ("simulation.fields.temperature.shap", "shape", "dtype"),
        ("simulation.times.intervall", "interval", "start"),
        ("surrogate.clas", "class", "arguments"),
        ("parameters.left_temperature.hihg", "high", "low"),
    ],
)
def test_unknown_key_at_any_depth_names_the_nearest(tmp_path, data, key, nearest, legal):
    put(data, key, 1)
    sentence = complaint(tmp_path, data)
    assert sentence.startswith(f"unknown key '{key}' (did you mean '{nearest}'?); legal: ")
    assert legal in sentence.split("legal: ")[1]


def test_renamed_key_names_its_new_name(tmp_path, data):
    put(data, "server.patience", 20)
    expected = "the key 'server.patience' was renamed to 'server.heartbeat_timeout'"
    assert complaint(tmp_path, data) == expected
    override = "server.patience=20"
    assert complaint(tmp_path, HEAT.read_text(), [override]) == f"--set {override}: {expected}"


def test_misspelt_required_key_is_named_before_the_missing_one(tmp_path, data):
    data["reservoir"]["capcity"] = data["reservoir"].pop("capacity")
    sentence = complaint(tmp_path, data)
    assert "unknown key 'reservoir.capcity' (did you mean 'capacity'?)" in sentence
    assert sentence.endswith("(and 1 more)")


@pytest.mark.parametrize("name", ["normal", "uniform", "log_uniform", "fixed"])
def test_parameter_named_like_a_distribution_keeps_its_name(tmp_path, data, name):
    put(data, f"parameters.{name}", {"distribution": "uniform", "low": 1, "high": 2, "lo": 3})
    assert f"unknown key 'parameters.{name}.lo'" in complaint(tmp_path, data)


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("simulation.timeout", "5 K", ["simulation.timeout '5 K'", "not a unit of time", "'90 s'"]),
        ("simulation.timeout", "5 parsecs", ["'parsecs'", "not a unit of time", "'5 min'"]),
        ("simulation.timeout", "5 zorks", ["unknown unit 'zorks'", "'2 h'"]),
        ("simulation.timeout", "soon", ["'soon' is not a duration", "seconds as a number"]),
        ("simulation.timeout", "1e400 s", ["simulation.timeout", "finite"]),
        ("simulation.timeout", "0 s", ["'0 s'", "greater than 0"]),
        ("server.heartbeat_timeout", -1, ["server.heartbeat_timeout is -1", "greater than 0"]),
        ("reservoir.max_memory", "3 GP", ["'3 GP' is not a memory size", "GB", "GiB"]),
        ("reservoir.max_memory", "1e999 GB", ["reservoir.max_memory"]),
        ("simulation.fields.temperature.unit", "Q/K", ["'Q/K' is not a known unit", "kg/m^3"]),
        ("parameters.left_temperature.unit", "zork", ["'zork' is not a known unit", "write"]),
    ],
)
def test_wrong_unit(tmp_path, data, key, value, expected):
    put(data, key, value)
    sentence = complaint(tmp_path, data)
    for part in expected:
        assert part in sentence


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            {"reservoir.watermark": 3000},
            ["reservoir.watermark 3000 is above reservoir.capacity 2000", "at most 2000"],
        ),
        (
            {"training.batch_size": 500},
            ["training.batch_size 500 is above reservoir.watermark 200", "at most 200"],
        ),
        (
            {"simulation.processes": 10_001},
            ["simulation.processes 10001", "simulation.fields.temperature.shape", "at most 10000"],
        ),
        (
            {"simulation.count": 3},
            ["reservoir.watermark 200 is never reached", "1 of simulation.count 3", "at most 100"],
        ),
        (
            {"server.credit": 8, "server.chunk_steps": 4},
            ["server.credit 8 is less than 4 messages of server.chunk_steps 4", "at least 16"],
        ),
        (
            {"simulation.count": 1},
            ["server.ranks 2 is more than simulation.count 1", "at most 1 is legal"],
        ),
        (
            {"reservoir.policy": "fifo"},
            ["training.draws_per_sample 25 needs reservoir.policy reservoir", "1 is legal"],
        ),
        (
            {"training.max_draws_per_sample": 2},
            ["max_draws_per_sample 2 is below draws_per_sample 25"],
        ),
        ({"parameters.left_temperature.low": 501}, ["parameters.left_temperature", "501", "500"]),
        (
            {"parameters.x": {"distribution": "normal", "mean": 0, "std": 1, "low": 0}},
            ["parameters.x", "only one of low and high"],
        ),
        (
            {"parameters.x": {"distribution": "log_uniform", "low": 0, "high": 1}},
            ["parameters.x.low is 0", "greater than 0"],
        ),
    ],
)
def test_impossible_combination(tmp_path, data, changes, expected):
    for key, value in changes.items():
        put(data, key, value)
    sentence = complaint(tmp_path, data)
    for part in expected:
        assert part in sentence


@pytest.mark.parametrize("bound", [".inf", "-.inf", ".nan", "1e999"])
@pytest.mark.parametrize("key", ["low", "high"])
def test_bounds_are_finite(tmp_path, key, bound):
    override = f"parameters.left_temperature.{key}={bound}"
    sentence = complaint(tmp_path, HEAT.read_text(), [override])
    assert f"parameters.left_temperature.{key} is " in sentence
    assert "finite" in sentence


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("launcher.backend", "loacl", ["'loacl' (did you mean 'local'?)"]),
        ("reservoir.policy", "firro", ["'firro' (did you mean 'firo'?)", "'reservoir'"]),
        ("simulation.fields.temperature.dtype", "float16", ["float16", "'float32'", "'float64'"]),
        (
            "parameters.left_temperature.distribution",
            "unifrom",
            ["parameters.left_temperature.distribution is 'unifrom' (did you mean 'uniform'?)"],
        ),
        ("parameters.left_temperature", {"low": 1, "high": 2}, ["distribution' is missing"]),
        ("parameters.left_temperature", 5, ["parameters.left_temperature is 5"]),
        ("simulation.count", True, ["simulation.count is true", "an integer is legal"]),
        ("simulation.count", 1.5, ["simulation.count is 1.5", "integer"]),
        ("simulation.count", 0, ["simulation.count is 0", "greater than 0"]),
        ("simulation.fields.temperature.shape", [100, 0], ["shape.1 is 0", "greater than 0"]),
        ("simulation.fields.temperature.shape", [1] * 5, ["shape is [1, 1, 1, 1, 1]", "at most 4"]),
        ("simulation.fields", {"1a": {"shape": [1]}}, ["simulation.fields.1a"]),
        ("simulation.command", "python heat.py", ["simulation.command is", "list"]),
        ("simulation.command", ["python", 1], ["simulation.command.1 is 1", "string"]),
        ("training", [1] * 1000, ["training is [1, 1, 1, 1, 1, 1, ...]"]),
        ("server.ports", "5000-5010", ["write a list: ports: [5000, 5010]"]),
        ("name", "", ["name is ''"]),
        (3, 4, ["3 is not legal as a key"]),
        (None, 4, ["null is not legal as a key"]),
    ],
)
def test_wrong_value(tmp_path, data, key, value, expected):
    if isinstance(key, str):
        put(data, key, value)
    else:
        data[key] = value
    sentence = complaint(tmp_path, data)
    for part in expected:
        assert part in sentence


@pytest.mark.parametrize("key", ["name", "parameters", "simulation", "reservoir"])
def test_missing_section(tmp_path, data, key):
    del data[key]
    assert complaint(tmp_path, data) == f"the key '{key}' is missing"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: 1\nb: 2\na: 3\n", "line 3 is not valid YAML: the key 'a' is written twice"),
        ("s:\n  a: 1\n  a: 2\n", "line 3 is not valid YAML: the key 'a' is written twice"),
        ("a: [1, 2\nb: 3\n", "is not valid YAML"),
        ("\tname: heat", "line 1 is not valid YAML: it contains a tab; indent with spaces"),
        ("a:\n  b: 1\n\tc: 2\n", "line 3 is not valid YAML: it contains a tab"),
        ("a: @x\n", "character '@' that cannot start any token"),
        ("a: 1\n---\nb: 2\n", "is not valid YAML"),
        ("? [1, 2]\n: 3\n", "line 1 is not valid YAML: a key is not a plain word"),
        ("a: &x {b: *x}", "is not valid YAML"),
        ("a: *nobody", "is not valid YAML"),
        ("a: !!int abc", "is not valid YAML"),
        ("a: !!python/object/apply:os.system [true]", "is not valid YAML"),
        ("[" * 5000, "is not valid YAML"),
        ("a: \x07", "is not valid YAML"),
        ("", "is empty; a study is a mapping"),
        ("# nothing\n", "is empty; a study is a mapping"),
        ("- a\n- b\n", "holds list; a study is a mapping"),
        ("heat", "holds str; a study is a mapping"),
        (b"name: caf\xe9\n", "is not a text file in UTF-8; save it with this encoding"),
        ("name: heat".encode("utf-16"), "is not a text file in UTF-8"),
        (bytes(range(256)) * 8, "is not a text file in UTF-8"),
        (b"\x00\x01\x02", "is not valid YAML"),
    ],
)
def test_not_a_study(tmp_path, text, expected):
    assert expected in complaint(tmp_path, text)


@pytest.mark.parametrize("change", [lambda text: text.replace("\n", "\r\n"), "\ufeff".__add__])
def test_line_ends_and_byte_order_mark_of_windows(tmp_path, data, change):
    path = tmp_path / "study.yaml"
    path.write_bytes(change(yaml.safe_dump(data)).encode())
    assert load_study(path).name == data["name"]


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(StudyError, match=r"nothing\.yaml: can't read the study file: No such file"):
        load_study(tmp_path / "nothing.yaml")
    with pytest.raises(StudyError, match=r"can't read the study file: Is a directory"):
        load_study(tmp_path)


@pytest.mark.parametrize(
    ("override", "key", "value"),
    [
        ("training.batch_size=64", "training.batch_size", 64),
        ("training.batch_size = 64", "training.batch_size", 64),
        ("training.learning_rate=1e-4", "training.learning_rate", 1e-4),
        ("simulation.timeout=5 min", "simulation.timeout", 300.0),
        ("simulation.timeout=1e2 s", "simulation.timeout", 100.0),
        ("training.halve_every=null", "training.halve_every", None),
        ("simulation.environment={A: '1e-3'}", "simulation.environment", {"A": "1e-3"}),
        ("sampler.arguments.scale=1e-3", "sampler.arguments", {"scale": 1e-3}),
        ("simulation.fields.temperature.dtype=float64", None, None),
        ("name=a=b", "name", "a=b"),
        ("server.encrypt=control", "server.encrypt", "control"),
    ],
)
def test_value_set_over_the_file(override, key, value):
    study = load_study(HEAT, [override])
    if key is None:
        assert study.simulation.fields["temperature"].dtype == "float64"
        return
    for part in key.split("."):
        study = getattr(study, part)
    assert study == value


def test_the_last_value_set_wins():
    assert load_study(HEAT, ["seed=3", "seed=4"]).seed == 4


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("training.batch_size", "write section.key=value, for example --set training.batch_size="),
        ("=3", "write section.key=value"),
        ("training..batch_size=3", "write section.key=value"),
        (".=3", "write section.key=value"),
        ("", "write section.key=value"),
        ("seed=[1", "the value is not valid YAML"),
        ("simulation.command.0=x", "'command' is a value, not a section"),
        ("seed.x=1", "'seed' is a value, not a section"),
        ("seed=", "seed is null; an integer is legal"),
        ("seed=yes", "seed is 'yes'; an integer is legal"),
        ("parameters.a={distribution: uniform, low: cold, high: 3}", "a.low is 'cold'; a number"),
        ("training.batchsize=3", "unknown key 'training.batchsize' (did you mean 'batch_size'?)"),
    ],
)
def test_an_error_on_the_command_line_names_the_option(tmp_path, override, expected):
    sentence = complaint(tmp_path, HEAT.read_text(), [override])
    assert sentence.startswith(f"--set {override}: ")
    assert expected in sentence


@pytest.mark.parametrize(
    ("word", "sentence"),
    [
        ("simulation.command=python wave.py", "write a list: command: [python, wave.py]"),
        ("simulation.command=./wave 'a b'", "write a list: command: [./wave, a b]"),
        ("simulation.command=[wave, 1]", "write a string in quotes: '1'"),
        ("simulation.times=5", "a section is legal here, with the keys start, interval, unit"),
        ("training=3", "training is 3; a section is legal here, with the keys batch_size"),
        ("simulation.fields={u: [8, 8]}", "write a section: u: {shape: [8, 8]}"),
        ("simulation.fields={u: {shape: 8}}", "write a list: shape: [8]"),
        ("simulation.count='5'", "write a number without quotes: count: 5"),
        ("parameters.left_temperature.low='1e-3'", "write a number without quotes: low: 0.001"),
        ("simulation.count='1,000'", "count is '1,000'; an integer is legal"),
        ("parameters.left_temperature.low='0,5'", "write a number with a point: low: 0.5"),
        (
            "parameters.left_temperature.low=cold",
            "parameters.left_temperature.low is 'cold'; a number is legal",
        ),
        ("parameters.left={distribution: choice, values: [1]}", "(did you mean 'categorical'?)"),
        ("parameters.left={distribution: constant, value: 1}", "(did you mean 'fixed'?)"),
        (
            "parameters.left={distribution: categorical, values: [1, steel]}",
            "values.1 'steel' is not a number; write a number for each category, such as 0 and 1",
        ),
        ("simulation.environment={A: 3}", "write a string in quotes: A: '3'"),
        (
            "parameters={a: [1, 2]}",
            "write a section: a: {distribution: uniform, low: 1, high: 2}",
        ),
        ("server.device=gpu", "(did you mean 'cuda'?)"),
        ("simulation.mode=once", "(did you mean 'per_simulation'?)"),
        ("launcher.backend=torque", "(did you mean 'pbs'?)"),
        ("training.lr=0.1", "(did you mean 'learning_rate'?)"),
        ("batch_size=3", "unknown key 'batch_size' (did you mean 'training.batch_size'?)"),
        ("simulation.batch_size=3", "(did you mean 'training.batch_size'?)"),
        ("clients=4", "(did you mean 'launcher.clients'?)"),
        ("epochs=4", "(did you mean 'training.draws_per_sample'?)"),
        ("training.batchsize=4", "(did you mean 'batch_size'?)"),
        ("job_limit=4", "(did you mean 'launcher.clients'?)"),
        ("simulation.nb_time_steps=4", "(did you mean 'time_steps'?)"),
        ("simulation.parameter_sweep_size=4", "(did you mean 'count'?)"),
        ("reservoir.buffer_size=4", "(did you mean 'capacity'?)"),
        ("training.weight_decay=0.1", "(did you mean 'decay'?)"),
        ("training.gradient_clip_val=1", "(did you mean 'clip_gradients'?)"),
        ("trainer={max_epochs: 3}", "(did you mean 'training'?)"),
        ("server.accelerator=gpu", "(did you mean 'device'?)"),
        ("launcher.jobs.walltime=1 h", "(did you mean 'time'?)"),
        ("launcher.jobs.queue=short", "(did you mean 'partition'?)"),
        ("launcher.jobs.mem=1 GB", "(did you mean 'memory'?)"),
        ("ntasks=4", "(did you mean 'simulation.processes'?)"),
        ("parameters.left_temperature.min=4", "(did you mean 'low'?)"),
        ("parameters.left_temperature.distribution=gaussian", "(did you mean 'normal'?)"),
        ("simulation.fields.temperature.dtype=double", "(did you mean 'float64'?)"),
    ],
)
def test_a_sentence_has_the_line_or_the_word_to_write(word, sentence):
    with pytest.raises(StudyError) as caught:
        load_study(HEAT, [word])
    assert sentence in str(caught.value)
    assert "instance of" not in str(caught.value)
    assert "Section" not in str(caught.value)


def test_the_beginning_of_a_word_is_recognized():
    legal = ["breed", "diffusion_posterior", "diffusion_prior", "energy", "flow"]
    assert nearest("difusion", legal) == " (did you mean 'diffusion_posterior'?)"
    assert nearest("xyz", legal) == ""


def test_an_input_can_not_have_the_name_of_a_field(tmp_path, data):
    put(data, "simulation.inputs.temperature", {"shape": [4]})
    sentence = complaint(tmp_path, data)
    assert "inputs.temperature is also the name of a field; give the input another name" in sentence


@pytest.mark.parametrize("key", ["parameters", "simulation.fields", "simulation.inputs"])
def test_nothing_has_the_name_of_the_physical_time(tmp_path, data, key):
    law = {"distribution": "uniform", "low": 0, "high": 1}
    put(data, f"{key}.time", law if key == "parameters" else {"shape": [100, 100]})
    sentence = complaint(tmp_path, data)
    assert f"{key}.time: the name time is that of the physical time; use another one" in sentence


@pytest.mark.parametrize("key", ["simulation.fields", "simulation.inputs"])
def test_a_parameter_can_not_have_the_name_of_a_field(tmp_path, data, key):
    put(data, "parameters.flux", {"distribution": "uniform", "low": 0, "high": 1})
    put(data, f"{key}.flux", {"shape": [100, 100]})
    sentence = complaint(tmp_path, data)
    assert f"parameters.flux has the name of {key}.flux; give one of them another name" in sentence


def test_inputs_of_a_bridge_need_a_reader(tmp_path, data):
    put(data, "simulation.inputs.k", {"shape": [4]})
    put(data, "simulation.processes", 1)
    put(data, "simulation.bridge", {"reader": {"format": "csv", "files": "u_*.csv"}})
    assert "inputs.k would never arrive: name the files that hold it in" in complaint(
        tmp_path, data
    )
