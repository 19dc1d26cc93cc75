"""The amount of training after which a study ends."""

from melissa_gen.study import BudgetSection

__all__ = ["Budget"]


class Budget:
    """Compares batches and time of the training with `training.budget`.

    Args:
        section: The section; None bounds nothing.

    Example:
        >>> Budget(BudgetSection(batches=100)).spent(100, 0.0)
        'training.budget is spent: 100 batches, at most 100 were wanted'
    """

    def __init__(self, section: BudgetSection | None) -> None:
        self._batches = section.batches if section else None
        self._seconds = section.time if section else None

    def spent(self, batches: int, seconds: float) -> str | None:
        """Returns a sentence if the budget is spent.

        Args:
            batches: Batches trained, over all servers of the run.
            seconds: Time of the training, over all servers of the run.
        """
        if self._batches is not None and batches >= self._batches:
            return (
                f"training.budget is spent: {batches} batches, at most {self._batches} were wanted"
            )
        if self._seconds is not None and seconds >= self._seconds:
            return f"training.budget is spent: {seconds:.0f} s of training, at most {self._seconds:g} s were wanted"
        return None
