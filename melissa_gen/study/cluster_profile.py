"""Cluster profiles: default values of a site for any keys of a study."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from melissa_gen.errors import StudyError, nearest
from melissa_gen.study.yaml_file import read_mapping

__all__ = ["merge_profile"]

_SHIPPED = Path(__file__).parent / "profiles"


def merge_profile(data: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Merges a study with the profile that its `launcher.profile` names. Values of the study take precedence.

    Args:
        data: The study as written in its file.
        folder: The study's folder, to which a relative path of a profile refers.

    Returns:
        The study including the settings of the profile, without `launcher.profile`.

    Raises:
        StudyError: The profile does not exist.
    """
    launcher = data.get("launcher")
    wanted = launcher.get("profile") if isinstance(launcher, dict) else None
    if not isinstance(wanted, str):
        return dict(data)
    merged = _merged(data, read_mapping(_find(wanted, folder)))
    return {**merged, "launcher": {**merged["launcher"], "profile": None}}


def _find(wanted: str, folder: Path) -> Path:
    if "/" in wanted or wanted.endswith((".yaml", ".yml")):
        return folder / wanted
    places = [folder / "slurm", _SHIPPED]
    for place in places:
        if (place / f"{wanted}.yaml").is_file():
            return place / f"{wanted}.yaml"
    legal = sorted({path.stem for place in places for path in place.glob("*.yaml")})
    msg = (
        f"launcher.profile '{wanted}'{nearest(wanted, legal)} does not exist; "
        f"legal: {', '.join(legal)}, or the path of a YAML file"
    )
    raise StudyError(msg)


def _merged(upper: Mapping[str, Any], lower: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(lower)
    for key, value in upper.items():
        below = merged.get(key)
        nested = isinstance(value, dict) and isinstance(below, dict)
        merged[key] = _merged(value, dict(below or {})) if nested else value
    return merged
