"""Reads study files, applies profiles and overrides, and writes complete study files."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError, ValidationInfo

from melissa_gen.errors import StudyError
from melissa_gen.study.cluster_profile import merge_profile
from melissa_gen.study.error_sentences import describe
from melissa_gen.study.yaml_file import line_of, read_mapping, to_yaml, yaml_value

__all__ = ["of_a_run", "read_study", "rechecked", "write_study"]

Model = TypeVar("Model", bound=BaseModel)

_RECORDED = "recorded"


def read_study(
    model: type[Model],
    path: Path,
    overrides: Iterable[str] | Mapping[str, Any] = (),
    *,
    recorded: bool = False,
) -> Model:
    """Reads a study file and checks it against a model.

    Args:
        model: The model of the file's sections.
        path: The YAML file.
        overrides: Values that replace those of the file: words `section.key=value` with YAML values, or a mapping of
            `section.key` to Python values.
        recorded: Whether the file is that of a run; see `of_a_run`.

    Returns:
        The sections, complete with defaults.

    Raises:
        StudyError: One sentence with the file, the key, what was found and what is legal.
    """
    data = read_mapping(path)
    sources: dict[str, str] = {}
    if isinstance(overrides, Mapping):
        for key, value in overrides.items():
            _put(data, key, value, source=f"override {key!r}")
            sources[key] = f"override {key!r}"
    else:
        for override in overrides:
            sources[_set(data, override)] = f"--set {override}"
    data = merge_profile(data, path.resolve().parent)
    try:
        return model.model_validate(data, context={_RECORDED: recorded})
    except ValidationError as error:
        location, text = describe(model, data, error)
        source = _source(sources, location)
        line = 0 if source else line_of(path, location)
        msg = f"{source or path}:{line}: {text}" if line else f"{source or path}: {text}"
        raise StudyError(msg) from None


def of_a_run(info: ValidationInfo) -> bool:
    """Returns whether the sections that are checked are those of a run.

    Rules that are newer than the runs which exist are only for new studies, so that the results of these runs can
    still be read.
    """
    return bool((info.context or {}).get(_RECORDED))


def _source(sources: Mapping[str, str], location: Sequence[Any]) -> str | None:
    """Returns the last override that has set a key or one of the sections around it; None if none has."""
    keys = {".".join(map(str, location[:end])) for end in range(1, len(location) + 1)}
    return next((words for key, words in reversed([*sources.items()]) if key in keys), None)


def rechecked(study: Model) -> Model:
    """Returns a study whose values were replaced, as it would be read from its file.

    Raises:
        StudyError: The values do not fit together; one sentence.
    """
    data = study.model_dump(mode="json", by_alias=True)
    try:
        return type(study).model_validate(data)
    except ValidationError as error:
        raise StudyError(describe(type(study), data, error)[1]) from None


def write_study(study: BaseModel, path: Path) -> None:
    """Writes a study including all defaults."""
    data = study.model_dump(mode="json", by_alias=True)
    path.write_text(to_yaml(data), encoding="utf-8")


def _set(data: dict[str, Any], override: str) -> str:
    """Applies an override of the form `section.key=value` and returns its key."""
    key, equals, text = override.partition("=")
    parts = key.strip().split(".")
    if not equals or not all(parts):
        msg = f"--set {override}: write section.key=value, for example --set training.batch_size=64"
        raise StudyError(msg)
    try:
        value = yaml_value(text)
    except ValueError:
        msg = f"--set {override}: the value is not valid YAML"
        raise StudyError(msg) from None
    key = ".".join(parts)
    _put(data, key, value, source=f"--set {override}")
    return key


def _put(data: dict[str, Any], key: str, value: Any, source: str) -> None:
    """Sets the value of a dotted key. `source` names the override in error messages."""
    *sections, last = key.split(".")
    node = data
    for section in sections:
        if node.get(section) is None:
            node[section] = {}
        node = node[section]
        if not isinstance(node, dict):
            msg = f"{source}: '{section}' is a value, not a section"
            raise StudyError(msg)
    node[last] = value
