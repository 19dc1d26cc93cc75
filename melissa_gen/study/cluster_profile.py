"""Cluster profiles: a mapping of sections, like a study, that a study is laid over."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from melissa_gen.errors import StudyError, nearest

__all__ = ["lay_over_profile"]

_SHIPPED = Path(__file__).parent / "profiles"


def lay_over_profile(
    data: Mapping[str, Any], folder: Path, read: Callable[[Path], dict[str, Any]]
) -> dict[str, Any]:
    """Returns a study laid over the profile that its `launcher.profile` names: what the study says stands.

    Args:
        data: The study as it was written.
        folder: The study's folder, where a path starts.
        read: Reads a YAML file.

    Returns:
        The study complete with the profile's settings; it names no profile any more.

    Raises:
        StudyError: There is no such profile.
    """
    launcher = data.get("launcher")
    wanted = launcher.get("profile") if isinstance(launcher, dict) else None
    if not isinstance(wanted, str):
        return dict(data)
    merged = _over(data, read(_find(wanted, folder)))
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
        f"launcher.profile '{wanted}'{nearest(wanted, legal)} is not there; "
        f"legal: {', '.join(legal)}, or the path of a YAML file"
    )
    raise StudyError(msg)


def _over(upper: Mapping[str, Any], lower: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(lower)
    for key, value in upper.items():
        below = merged.get(key)
        nested = isinstance(value, dict) and isinstance(below, dict)
        merged[key] = _over(value, dict(below or {})) if nested else value
    return merged
