"""Statistics of fields in one pass: moments, extremes, exceedance, quantiles, covariances and Sobol indices.

Each estimator holds arrays whose first axis is the time step, takes a few samples at a time, can be merged with that of
another rank, and saves its exact state. `StatisticsResults` is the HDF5 file of the estimates. The package imports
`errors` and nothing else of ours.
"""

from melissa_gen.statistics.field_statistics import ChosenStatistics, FieldStatistics
from melissa_gen.statistics.moments import Moments
from melissa_gen.statistics.quantiles import Quantiles
from melissa_gen.statistics.ranges import Exceedance, Extremes
from melissa_gen.statistics.results_file import STATISTICS_FILE, FieldResults, StatisticsResults
from melissa_gen.statistics.sobol_groups import SobolGroups
from melissa_gen.statistics.sobol_indices import SobolIndices
from melissa_gen.statistics.weights import effective_size, importance_weights

__all__ = [
    "STATISTICS_FILE",
    "ChosenStatistics",
    "Exceedance",
    "Extremes",
    "FieldResults",
    "FieldStatistics",
    "Moments",
    "Quantiles",
    "SobolGroups",
    "SobolIndices",
    "StatisticsResults",
    "effective_size",
    "importance_weights",
]
