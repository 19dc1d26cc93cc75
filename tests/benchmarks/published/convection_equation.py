"""The convection equation with speed 30: its initial state and its exact solution, for `convection.yaml`."""

import torch


def initial(u, parameters, coordinates):
    """Returns the difference between the field at the initial time and sin(x)."""
    return u["u"] - torch.sin(coordinates["x"])


def exact(parameters, coordinates):
    """Returns the exact solution, a wave that moves with the speed beta."""
    return torch.sin(coordinates["x"] - parameters["beta"] * coordinates["t"])
