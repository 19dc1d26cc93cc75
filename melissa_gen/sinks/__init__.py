"""Sinks: the receivers of the samples of a server rank.

The ingest thread assembles samples and puts them into one sink: the reservoir of a trainer, a data set file
(`DatasetSink`), or the observations of a conformance check (`ConformanceSink`). The package may import `reservoir`,
`protocol`, `dataset` and `errors`.
"""

from melissa_gen.sinks.base import Sink, StreamSink
from melissa_gen.sinks.conformance import ConformanceSink, FieldObservation
from melissa_gen.sinks.dataset import DatasetSink

__all__ = ["ConformanceSink", "DatasetSink", "FieldObservation", "Sink", "StreamSink"]
