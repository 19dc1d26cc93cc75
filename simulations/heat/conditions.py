"""Initial and boundary conditions of the heat equation, for `pinn.yaml`. Each returns what must be zero."""

from collections.abc import Mapping

from torch import Tensor

Values = Mapping[str, Tensor]


def initial(u: Values, parameters: Values, coordinates: Values) -> Tensor:
    """Returns the difference to the initial temperature, in kelvin."""
    return u["temperature"] - parameters["initial_temperature"]


def wall(u: Values, parameters: Values, coordinates: Values, name: str) -> Tensor:
    """Returns the difference to the temperature of a wall, in kelvin."""
    return u["temperature"] - parameters[name]
