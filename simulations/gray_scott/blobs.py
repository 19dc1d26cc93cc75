"""Initial concentrations: Gaussian blobs of B in A, whose properties are parameters.

`blob_2_x` is the position of the second blob along x. All lengths are in units of the side.
"""

import argparse
import math
import re
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

__all__ = ["DEFAULT", "blob_parameter", "blobs", "is_blob"]

Field = NDArray[np.float64]

PROPERTIES = {
    "x": 0.5,
    "y": 0.5,
    "amplitude": 1.0,
    "width_x": 0.08,
    "width_y": 0.08,
    "correlation": 0.0,
}
"""Properties of a blob, with the values of those that are not given."""
DEFAULT = {"blob_1_x": 0.4, "blob_1_y": 0.4, "blob_2_x": 0.6, "blob_2_y": 0.55}
"""The initial state if neither the study nor the command line has one."""


def is_blob(name: str) -> bool:
    """Returns whether a parameter is a property of a blob."""
    return re.fullmatch(rf"blob_[1-9]\d*_({'|'.join(PROPERTIES)})", name) is not None


def blob_parameter(text: str) -> tuple[str, float]:
    """Converts the value of an option such as `blob_1_x=0.3`."""
    name, _, value = text.partition("=")
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not is_blob(name) or not math.isfinite(number):
        message = (
            f"'{text}' is not of the form blob_K_PROPERTY=X, with K = 1, 2, ... and PROPERTY one of "
            f"{', '.join(PROPERTIES)}"
        )
        raise argparse.ArgumentTypeError(message)
    return name, number


def blobs(x: Field, y: Field, parameters: Mapping[str, float]) -> tuple[Field, Field]:
    """Returns the concentrations of A and B: B is the mean of the blobs, A is 1 - B.

    Args:
        x: positions in units of the side, `(ni, 1)`.
        y: positions in units of the side, `(1, n)`.
        parameters: properties of the blobs.

    Raises:
        ValueError: a width is not positive, or a correlation not between -1 and 1.
    """
    numbers = sorted({name.split("_")[1] for name in parameters}, key=int)
    b = np.zeros((x.shape[0], y.shape[1]))
    for number in numbers:
        given = {one: parameters.get(f"blob_{number}_{one}", v) for one, v in PROPERTIES.items()}
        if min(given["width_x"], given["width_y"]) <= 0.0 or abs(given["correlation"]) >= 1.0:
            message = (
                f"blob {number} has widths of {given['width_x']:g} and {given['width_y']:g} and a "
                f"correlation of {given['correlation']:g}: widths must be positive, and the "
                "correlation between -1 and 1"
            )
            raise ValueError(message)
        along_x, along_y = (x - given["x"]) / given["width_x"], (y - given["y"]) / given["width_y"]
        rho = given["correlation"]
        distance = along_x**2 - 2.0 * rho * along_x * along_y + along_y**2
        b += given["amplitude"] * np.exp(-0.5 * distance / (1.0 - rho * rho))
    b /= max(len(numbers), 1)
    return 1.0 - b, b
