"""Surrogate networks: wrapping, input and output scaling, losses, ensembles, and file storage.

`Surrogate` wraps any `torch.nn.Module`, built-in or supplied by the user, so that its inputs and
outputs are in physical units. `save` and `load` store it as safetensors and JSON. From melissa_gen,
this package imports only `melissa_gen.errors` and `melissa_gen.error_bounds`.
"""

from melissa_gen.error_bounds import FirstErrors
from melissa_gen.surrogates.autoregressive_surrogate import AutoregressiveSurrogate
from melissa_gen.surrogates.deeponet import DeepONet
from melissa_gen.surrogates.direct_surrogate import Surrogate
from melissa_gen.surrogates.export import export
from melissa_gen.surrogates.field_scale import FieldScale
from melissa_gen.surrogates.input_field_surrogate import InputFieldSurrogate
from melissa_gen.surrogates.last_layer import LastLayer
from melissa_gen.surrogates.losses import member_losses, nrmse, per_sample_loss
from melissa_gen.surrogates.metric import Metric
from melissa_gen.surrogates.mlp import MLP
from melissa_gen.surrogates.moments import ChannelMoments
from melissa_gen.surrogates.network_class import load_class
from melissa_gen.surrogates.neural_operators import FNO, TFNO, UNO
from melissa_gen.surrogates.operator_surrogate import OperatorSurrogate
from melissa_gen.surrogates.output_layer import Rescaling
from melissa_gen.surrogates.point_surrogate import PointSurrogate
from melissa_gen.surrogates.sobol_indices import SurrogateIndices, sobol_indices
from melissa_gen.surrogates.surrogate_files import load, save
from melissa_gen.surrogates.surrogate_probe import SurrogateProbe
from melissa_gen.surrogates.trajectory_surrogate import TrajectorySurrogate
from melissa_gen.surrogates.unet import UNet

__all__ = [
    "FNO",
    "MLP",
    "TFNO",
    "UNO",
    "AutoregressiveSurrogate",
    "ChannelMoments",
    "DeepONet",
    "FieldScale",
    "FirstErrors",
    "InputFieldSurrogate",
    "LastLayer",
    "Metric",
    "OperatorSurrogate",
    "PointSurrogate",
    "Rescaling",
    "Surrogate",
    "SurrogateIndices",
    "SurrogateProbe",
    "TrajectorySurrogate",
    "UNet",
    "export",
    "load",
    "load_class",
    "member_losses",
    "nrmse",
    "per_sample_loss",
    "save",
    "sobol_indices",
]
