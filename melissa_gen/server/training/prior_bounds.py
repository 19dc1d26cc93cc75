"""Bounds of the surrogate's error over the prior while it trains, for `training.until`."""

from collections.abc import Callable

import numpy as np

from melissa_gen.sampling import Prior
from melissa_gen.sampling.designs.quasi_random import even_draws
from melissa_gen.study.training_section import BOUND
from melissa_gen.surrogates import FirstErrors, Surrogate
from melissa_gen.surrogates.evaluation import bounds_at

__all__ = ["BOUND_NAMES", "PriorBounds"]

_POINTS = 1024
_PERCENTILES = (50, 90, 99)

BOUND_NAMES = tuple(f"{BOUND}p{percent}" for percent in _PERCENTILES)
"""Names of the percentiles, in the order in which `PriorBounds` returns them."""


class PriorBounds:
    """Percentiles over the prior of the bounds that `Surrogate.error_bound` gives.

    They are measured at 1,024 draws of the prior, which stay the same.

    Args:
        prior: The distribution of the parameters.
        first_errors: Returns the errors of the first passes so far; None where there are none.
        level: Probability with which the error stays below the bound, in (0, 1).

    Attributes:
        level: The same.
    """

    def __init__(
        self, prior: Prior, first_errors: Callable[[], FirstErrors | None], level: float
    ) -> None:
        draws = even_draws(prior)(_POINTS, np.random.default_rng(0))
        self._points, self._first_errors, self.level = prior.from_unit(draws), first_errors, level

    def measure(self, surrogate: Surrogate) -> list[float]:
        """Returns the value of each of `BOUND_NAMES`; infinity while there are too few simulations."""
        known = self._first_errors()
        if known is None or not len(known):
            return [np.inf] * len(_PERCENTILES)
        bounds = bounds_at(surrogate, known, self._points, self.level)
        # Between two infinite values, `linear` would interpolate to NaN.
        found: list[float] = np.percentile(bounds, _PERCENTILES, method="higher").tolist()
        return found
