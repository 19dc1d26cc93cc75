"""Builds the surrogate that a study names."""

from melissa_gen.builders.data_set import clock
from melissa_gen.study import Study
from melissa_gen.surrogates import Surrogate
from melissa_gen.surrogates.network_ensemble import Kind

__all__ = ["build_surrogate", "members_of"]


def build_surrogate(study: Study) -> Surrogate:
    """Returns the study's network with its input bounds; the output's scale is set when the first data are there.

    Raises:
        StudyError: The class can't be loaded or does not fit the fields.
    """
    time_of = clock(study)
    return Surrogate(
        {name: p.typical_range for name, p in study.parameters.items()},
        (time_of(0), time_of(study.simulation.time_steps - 1)),
        {name: f.shape for name, f in study.simulation.fields.items()},
        study.surrogate.class_path,
        study.surrogate.arguments,
        study.folder,
        members_of(study),
    )


def members_of(study: Study) -> tuple[Kind, int] | None:
    """Kind and number of the members that the network itself has; snapshots are none of its."""
    ensemble = study.surrogate.ensemble
    if ensemble is None or ensemble.kind == "snapshots":
        return None
    return ensemble.kind, ensemble.count
