"""Networks that stand in for a simulation, and what surrounds them: scaling, losses, files.

`Surrogate` wraps any `torch.nn.Module` (ours or the user's own) so that it speaks physical units;
`save` and `load` keep it as safetensors and JSON. Imports nothing of ours but the errors.
"""

from melissa_gen.surrogates.direct_surrogate import Surrogate
from melissa_gen.surrogates.last_layer import LastLayer
from melissa_gen.surrogates.losses import member_losses, nrmse, per_sample_loss
from melissa_gen.surrogates.mlp import MLP
from melissa_gen.surrogates.network_class import load_class
from melissa_gen.surrogates.surrogate_files import load, save
from melissa_gen.surrogates.surrogate_probe import SurrogateProbe

__all__ = [
    "MLP",
    "LastLayer",
    "Surrogate",
    "SurrogateProbe",
    "load",
    "load_class",
    "member_losses",
    "nrmse",
    "per_sample_loss",
    "save",
]
