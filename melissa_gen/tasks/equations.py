"""Residuals of partial differential equations, with derivatives by automatic differentiation."""

from collections.abc import Callable, Mapping
from typing import Any

import torch

__all__ = ["EQUATIONS", "Residual", "burgers", "convection", "gradient", "heat"]

Values = Mapping[str, torch.Tensor]
Residual = Callable[..., Any]
"""Function of (u, parameters, coordinates), each a mapping of names to tensors whose first axis counts the n points;
returns `(n,)`, or `(n, E)` for E equations."""


def gradient(values: torch.Tensor, coordinate: torch.Tensor) -> torch.Tensor:
    """Differentiates values at points with respect to a coordinate of the same points.

    Args:
        values: `(n,)`: a field, a component of one, or a derivative.
        coordinate: `(n,)`: an entry of `coordinates`, such as `coordinates["x"]`.

    Returns:
        The derivatives `(n,)`, which can be differentiated again; zeros if the values do not depend on the coordinate.

    Example:
        >>> x = torch.tensor([1.0, 2.0], requires_grad=True)
        >>> gradient(x**3, x).tolist()
        [3.0, 12.0]
    """
    if not values.requires_grad:
        return torch.zeros_like(coordinate)
    # Each value depends on its own point only, so that the gradient of the sum holds all derivatives.
    (found,) = torch.autograd.grad(values.sum(), coordinate, create_graph=True, allow_unused=True)
    return torch.zeros_like(coordinate) if found is None else found


def heat(
    u: Values, parameters: Values, coordinates: Values, diffusivity: str | float = 1.0
) -> torch.Tensor:
    """Returns the residual of the heat equation: u_t - diffusivity (u_xx + u_yy + u_zz).

    Args:
        u: The only field.
        parameters: The parameters.
        coordinates: `t`, and one to three axes.
        diffusivity: A number, or the name of a parameter.
    """
    field = next(iter(u.values()))
    total = gradient(field, coordinates["t"])
    for axis in coordinates:
        if axis != "t":
            second = gradient(gradient(field, coordinates[axis]), coordinates[axis])
            total = total - _value(diffusivity, parameters) * second
    return total


def burgers(
    u: Values, parameters: Values, coordinates: Values, viscosity: str | float = 0.01
) -> torch.Tensor:
    """Returns the residual of the Burgers equation in one dimension: u_t + u u_x - viscosity u_xx.

    Args:
        u: The only field.
        parameters: The parameters.
        coordinates: `t` and `x`.
        viscosity: A number, or the name of a parameter.
    """
    field = next(iter(u.values()))
    u_t, u_x = gradient(field, coordinates["t"]), gradient(field, coordinates["x"])
    total: torch.Tensor = u_t + field * u_x
    return total - _value(viscosity, parameters) * gradient(u_x, coordinates["x"])


def convection(
    u: Values, parameters: Values, coordinates: Values, speed: str | float = 1.0
) -> torch.Tensor:
    """Returns the residual of the convection equation in one dimension: u_t + speed u_x.

    Args:
        u: The only field.
        parameters: The parameters.
        coordinates: `t` and `x`.
        speed: A number, or the name of a parameter.
    """
    field = next(iter(u.values()))
    u_t, u_x = gradient(field, coordinates["t"]), gradient(field, coordinates["x"])
    total: torch.Tensor = u_t + _value(speed, parameters) * u_x
    return total


def _value(given: str | float, parameters: Values) -> torch.Tensor | float:
    return parameters[given] if isinstance(given, str) else given


EQUATIONS: dict[str, Residual] = {"burgers": burgers, "convection": convection, "heat": heat}
