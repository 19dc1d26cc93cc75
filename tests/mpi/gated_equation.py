"""The convection equation, whose initial condition waits in batch 30 until the file `open` is in the study's folder."""

import time
from pathlib import Path

import torch

OPEN = Path(__file__).parent / "open"
calls = 0


def initial(u, parameters, coordinates):
    """Returns the difference between the field at the initial time and sin(x)."""
    global calls
    calls += 1
    while calls >= 30 and not OPEN.exists():
        time.sleep(0.01)
    return u["u"] - torch.sin(coordinates["x"])


def exact(parameters, coordinates):
    """Returns the exact solution, a wave that moves with the speed beta."""
    return torch.sin(coordinates["x"] - parameters["beta"] * coordinates["t"])
