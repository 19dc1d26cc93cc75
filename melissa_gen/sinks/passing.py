"""The main sink of a study without a surrogate."""

from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

from melissa_gen.reservoir import Sample
from melissa_gen.sinks.base import StreamSink

__all__ = ["PassingSink"]


class PassingSink(StreamSink):
    """Only counts the samples, which the side sinks use.

    Args:
        store: The slots in which samples are assembled.
    """

    def consume(self, sample: Sample, fields: Mapping[str, NDArray[Any]]) -> None:
        """Does nothing."""
