"""The scale of the input fields, from the first batch of a training."""

import torch
import torch.distributed as dist

from melissa_gen.surrogates import InputFieldSurrogate
from melissa_gen.tasks.base import Rows

__all__ = ["scale_inputs"]


def scale_inputs(surrogate: InputFieldSurrogate, rows: Rows) -> None:
    """Sets the scale of the input fields from the first batch of all ranks (collective).

    Args:
        surrogate: The surrogate.
        rows: The first batch of this rank; the made-up row of a rank without data does not count.
    """
    names = surrogate.inputs
    sums = torch.zeros(len(names), 3, dtype=torch.float64, device=rows.inputs.device)
    for k, name in enumerate(() if rows.made_up else names):
        values = rows.fields[name].double()
        sums[k] = torch.stack(
            [values.sum(), values.square().sum(), values.new_tensor(values.numel())]
        )
    if dist.is_initialized():
        dist.all_reduce(sums)
    surrogate.set_input_scale(sums)
