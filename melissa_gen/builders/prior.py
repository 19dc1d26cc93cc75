"""Builds the prior of a study."""

from melissa_gen.sampling import Prior, read_points
from melissa_gen.study import Study

__all__ = ["prior_of"]


def prior_of(study: Study) -> Prior:
    """Returns the distribution of the study's parameters, including its constraints.

    Raises:
        StudyError: A constraint is invalid or leaves too small a feasible region, or the file of
            feasible points can't be read or has an invalid point.
    """
    points = None
    if study.feasible_points is not None:
        source = str(study.folder / study.feasible_points)
        points = read_points(source, list(study.parameters), "feasible_points")
    return Prior(study.parameters, study.constraints, points)
