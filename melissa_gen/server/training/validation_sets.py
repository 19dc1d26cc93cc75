"""The validation sets of a study: the one of the prior, and further ones by name."""

from collections.abc import Mapping
from typing import Any

import torch

from melissa_gen.server.training.validation import Errors, Validation, error_summary
from melissa_gen.surrogates import Surrogate

__all__ = ["ValidationSets"]


class ValidationSets:
    """Measures the errors on all validation sets of a study.

    Args:
        main: The set whose errors are the results: that of the prior, or one of `others`.
        others: Name of each further set to the set.
        decides: Name of the set whose errors decide when the study ends; None: the main one.
        error: Name of the error in results, `nrmse` or `rmse`.
    """

    def __init__(
        self,
        main: Validation,
        others: Mapping[str, Validation] | None = None,
        decides: str | None = None,
        error: str = "nrmse",
    ) -> None:
        self.main, self.others = main, dict(others or {})
        self._decides, self._error = decides, error

    @property
    def trajectories(self) -> list[dict[str, torch.Tensor]]:
        """The trajectories of the main set of this rank: field name to `(T, *shape)`."""
        return self.main.trajectories

    def measure(self, surrogate: Surrogate) -> tuple[dict[str, Any], Errors]:
        """Measures the errors on all sets (collective).

        Args:
            surrogate: The surrogate.

        Returns:
            The results, of JSON types, with those of the further sets under `sets`; and the errors that decide.
        """
        main = self.main.errors(surrogate)
        others = {
            name: main if one is self.main else one.errors(surrogate)
            for name, one in self.others.items()
        }
        sets = {name: self._results(errors) for name, errors in others.items()}
        decisive = main if self._decides is None else others[self._decides]
        return self._results(main) | {"sets": sets}, decisive

    def _results(self, errors: Errors) -> dict[str, Any]:
        return {
            self._error: error_summary(errors.total),
            "fields": errors.by_field_summary(),
            "correlation_time": float(errors.correlation_times.mean()),
            "log_spectral_error": errors.spectral,
            "against_time": errors.against_time(),
            "simulations": len(errors.total),
        }
