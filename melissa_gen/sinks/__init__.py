"""Sinks: the receivers of the samples of a server rank.

The ingest thread assembles samples and puts them into one sink: the reservoir of a trainer, a data set file
(`DataSetSink`), or the observations of a conformance check (`ConformanceSink`). The package may import `reservoir`,
`protocol`, `dataset` and `errors`.
"""

from melissa_gen.sinks.base import Sink, StreamSink
from melissa_gen.sinks.conformance import ConformanceSink, FieldObservation
from melissa_gen.sinks.data_set import DataSetSink

__all__ = ["ConformanceSink", "DataSetSink", "FieldObservation", "Sink", "StreamSink"]
