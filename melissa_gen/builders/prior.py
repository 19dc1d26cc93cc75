"""The prior that a study describes."""

from melissa_gen.sampling import Prior, read_points
from melissa_gen.study import Study

__all__ = ["prior_of"]


def prior_of(study: Study) -> Prior:
    """Returns the distribution of the study's parameters, its constraints included.

    Raises:
        StudyError: A constraint can't be read, or leaves next to nothing; the file of feasible
            points can't be read, or has a point that is not legal.
    """
    points = None
    if study.feasible_points is not None:
        source = str(study.folder / study.feasible_points)
        points = read_points(source, list(study.parameters), "feasible_points")
    return Prior(study.parameters, study.constraints, points)
