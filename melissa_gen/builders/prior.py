"""The prior that a study describes."""

from melissa_gen.sampling import Prior, check_arguments, read_points
from melissa_gen.study import Study

__all__ = ["check_sampler", "prior_of"]


def prior_of(study: Study) -> Prior:
    """Returns the distribution of the study's parameters, its constraints included.

    Raises:
        StudyError: A constraint can't be read, or leaves next to nothing; the file of feasible
            points can't be read, or has a point that is not legal.
    """
    parameters = {
        name: parameter.model_dump(exclude={"unit"}, exclude_none=True)
        for name, parameter in study.parameters.items()
    }
    points = None
    if study.feasible_points is not None:
        source = str(study.folder / study.feasible_points)
        points = read_points(source, list(study.parameters), "feasible_points")
    return Prior.from_mapping(parameters, study.constraints, points)


def check_sampler(study: Study) -> None:
    """Checks prior and sampler before anything is started.

    Raises:
        StudyError: The prior is not legal, the method or an argument is unknown, or the method
            needs more of the prior than a table of points.
    """
    prior = prior_of(study)
    sampler = study.sampler
    check_arguments(sampler.method, sampler.arguments, tabulated=prior.tabulated)
