"""Sampling of the next simulations: priors, difficulty, the learned acquisition, and one module per method.

`create(method, prior, seed, ...)` makes a `Sampler`; it suggests points and ingests evidence of
how hard their simulations were to learn. All of it works on numpy arrays of physical parameters,
uses no server, socket or file, and imports only `melissa_gen.errors` and `melissa_gen.distributions`.
"""

from melissa_gen.sampling.acquisition.difficulty import SIGNALS, DifficultyTracker, delta_loss
from melissa_gen.sampling.acquisition.prediction_features import Probe
from melissa_gen.sampling.arguments import StudyFacts
from melissa_gen.sampling.base import PRIOR, Evidence, Proposals, Sampler, State, split_state
from melissa_gen.sampling.designs.table import read_points
from melissa_gen.sampling.prior.joint_prior import Prior
from melissa_gen.sampling.registry import METHODS, check_arguments, create

__all__ = [
    "METHODS",
    "PRIOR",
    "SIGNALS",
    "DifficultyTracker",
    "Evidence",
    "Prior",
    "Probe",
    "Proposals",
    "Sampler",
    "State",
    "StudyFacts",
    "check_arguments",
    "create",
    "delta_loss",
    "read_points",
    "split_state",
]
