"""Sampling of the next simulations: priors, difficulty, learned acquisitions, and one module per method.

`create(method, prior, seed, ...)` creates a `Sampler`, which suggests points and ingests evidence about
the difficulty of their simulations. The package works on numpy arrays of parameters in physical units.
It does not use a server or a socket, and imports only `melissa_gen.errors` and
`melissa_gen.distributions`.
"""

from melissa_gen.sampling.acquisition.difficulty import SIGNALS, DifficultyTracker, delta_loss
from melissa_gen.sampling.acquisition.prediction_features import Probe
from melissa_gen.sampling.acquisition.user_acquisition import Adjust
from melissa_gen.sampling.adaptive.acquisition_rule import adjust_acquisition
from melissa_gen.sampling.arguments import StudyFacts
from melissa_gen.sampling.base import PRIOR, Evidence, Proposals, Sampler, State, split_state
from melissa_gen.sampling.designs.table import read_points
from melissa_gen.sampling.prior.joint_prior import Prior
from melissa_gen.sampling.registry import METHODS, Method, check_arguments, create, register

__all__ = [
    "METHODS",
    "PRIOR",
    "SIGNALS",
    "Adjust",
    "DifficultyTracker",
    "Evidence",
    "Method",
    "Prior",
    "Probe",
    "Proposals",
    "Sampler",
    "State",
    "StudyFacts",
    "adjust_acquisition",
    "check_arguments",
    "create",
    "delta_loss",
    "read_points",
    "register",
    "split_state",
]
