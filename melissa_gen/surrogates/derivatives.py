"""Derivatives of the predictions of a trained surrogate, in forward mode."""

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from melissa_gen.errors import DataError
from melissa_gen.surrogates.prediction_arguments import finite_numbers, require_mapping

if TYPE_CHECKING:
    from melissa_gen.surrogates.direct_surrogate import Surrogate

__all__ = ["Derivatives", "derivatives", "slopes_along"]

Derivatives = dict[str, dict[str, NDArray[np.float32]]]
Fields = Mapping[str, torch.Tensor]

_ROWS = 32
"""Values of an input field whose derivatives are computed in one pass."""
_LARGEST = 2**28
"""Largest number of derivatives of one field by the values of one input field: 1 GiB."""


def derivatives(
    surrogate: "Surrogate",
    function: Callable[[Fields], Fields],
    numbers: Mapping[str, float],
    given: Fields,
    directions: Mapping[str, ArrayLike] | None,
) -> Derivatives:
    """Returns the derivatives of a prediction with respect to numbers and given fields.

    Args:
        surrogate: The surrogate, in evaluation mode.
        function: Maps names to values `(n, *shape)` of n independent rows to the predicted fields `(n, *shape)`.
        numbers: Name to the value at which the derivatives are taken.
        given: The same for fields `(*shape)`.
        directions: Name of a given field to a direction `(*shape)`, along which its derivative is taken. The others
            are left out. None: the derivatives with respect to each value of each given field.

    Returns:
        Field name to input name to the derivatives: of the shape of the field for a number or along a direction, and
        `(*shape of the field, *shape of the input)` otherwise.

    Raises:
        DataError: A direction has another name or shape, there are too many derivatives, or the network has no
            derivatives in forward mode.
    """
    device = surrogate.center.device
    point = {
        name: torch.tensor(x, dtype=torch.float64, device=device) for name, x in numbers.items()
    }
    point |= given
    along = _checked(given, directions)
    found: Derivatives = {name: {} for name in surrogate.fields}
    for name, value in point.items():
        by_value = name in given and directions is None
        if by_value:
            parts = _units(value)
        elif name in numbers or name in along:
            parts = iter([(1, along.get(name, torch.ones_like(value))[None].to(value))])
        else:
            continue
        columns: dict[str, list[NDArray[np.float32]]] = {}
        for rows, tangent in parts:
            primals = {key: one.repeat(rows, *[1] * one.dim()) for key, one in point.items()}
            tangents = {key: torch.zeros_like(one) for key, one in primals.items()}
            tangents[name] = tangent
            for field, slope in slopes_along(surrogate, function, primals, tangents).items():
                if by_value and slope[0].numel() * value.numel() > _LARGEST:
                    raise DataError(_too_many(field, slope[0].numel(), name, value.numel()))
                columns.setdefault(field, []).append(slope.cpu().numpy())
        for field, slopes in columns.items():
            whole = np.concatenate(slopes)
            last = np.moveaxis(whole, 0, -1)
            found[field][name] = last.reshape(*last.shape[:-1], *(value.shape if by_value else ()))
    return found


def slopes_along(
    surrogate: "Surrogate", function: Callable[[Fields], Fields], primals: Fields, tangents: Fields
) -> Fields:
    """Returns the derivatives of each field along the tangents of each row.

    Args:
        surrogate: The surrogate, in evaluation mode.
        function: As for `derivatives`.
        primals: Name to the values `(n, *shape)` at which the derivatives are taken.
        tangents: Name to the directions `(n, *shape)`.

    Returns:
        Field name to the derivatives `(n, *shape)`.

    Raises:
        DataError: The network has no derivatives in forward mode.
    """
    try:
        with torch.no_grad():
            slopes: Fields = torch.func.jvp(function, (dict(primals),), (dict(tangents),))[1]
    except (NotImplementedError, RuntimeError) as error:
        message = (
            f"surrogate.class '{surrogate.class_path}' has no derivatives in forward mode: {error}"
        )
        raise DataError(message) from error
    return slopes


def _units(value: torch.Tensor) -> Iterator[tuple[int, torch.Tensor]]:
    """Yields blocks of the unit vectors of an input field `(*shape)`: their number, and `(rows, *shape)`."""
    for first in range(0, value.numel(), _ROWS):
        rows = min(_ROWS, value.numel() - first)
        block = torch.zeros(rows, value.numel(), dtype=value.dtype, device=value.device)
        block[torch.arange(rows), torch.arange(first, first + rows)] = 1.0
        yield rows, block.view(rows, *value.shape)


def _checked(given: Fields, directions: Mapping[str, ArrayLike] | None) -> dict[str, torch.Tensor]:
    """Returns the directions as tensors."""
    found = {}
    given_directions = {} if directions is None else directions
    require_mapping("directions", given_directions, f"{{'{next(iter(given))}': array}}")
    for name, direction in given_directions.items():
        if name not in given:
            message = f"directions names '{name}'; legal are the given fields: {', '.join(given)}"
            raise DataError(message)
        array, shape = finite_numbers(f"directions['{name}']", direction), tuple(given[name].shape)
        if array.shape != shape:
            message = f"directions['{name}'] has the shape {array.shape}; it must be {shape}"
            raise DataError(message)
        found[name] = torch.from_numpy(array.copy())
    return found


def _too_many(field: str, outputs: int, name: str, inputs: int) -> str:
    return (
        f"jacobian of '{field}' by each value of '{name}' has {outputs:,} x {inputs:,} values, more than {_LARGEST:,}; "
        f"give directions, such as {{'{name}': array}}"
    )
