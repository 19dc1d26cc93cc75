"""Probability distributions of one parameter: the models of a study's `parameters`, with their mathematics.

The study file is validated with these classes, and the samplers compute with the same objects. The package imports only
`melissa_gen.errors` and `melissa_gen.units`.
"""

from melissa_gen.distributions.continuous import EDGE, LogUniform, Normal, Uniform
from melissa_gen.distributions.discrete import Categorical, Fixed, Integer
from melissa_gen.distributions.distribution import Distribution
from melissa_gen.distributions.parameter import Parameter, parse_parameter

__all__ = [
    "EDGE",
    "Categorical",
    "Distribution",
    "Fixed",
    "Integer",
    "LogUniform",
    "Normal",
    "Parameter",
    "Uniform",
    "parse_parameter",
]
