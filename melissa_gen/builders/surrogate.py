"""Builds the surrogate of a study."""

from melissa_gen.builders.data_set import clock
from melissa_gen.study import Study
from melissa_gen.surrogates import Surrogate
from melissa_gen.surrogates.network_ensemble import Kind

__all__ = ["build_surrogate", "members_of"]


def build_surrogate(study: Study) -> Surrogate:
    """Creates the surrogate of a study. Its output scaling is set later, from the first data.

    Raises:
        StudyError: The network class can't be imported, or its output does not match the fields.
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
    """Returns kind and number of the ensemble members within the network, or None. Snapshots do not count."""
    ensemble = study.surrogate.ensemble
    if ensemble is None or ensemble.kind == "snapshots":
        return None
    return ensemble.kind, ensemble.count
