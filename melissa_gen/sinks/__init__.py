"""What receives the stream of samples of a server rank.

The ingest thread assembles samples and puts them into one sink: the reservoir that a trainer draws from, a data set
file (`DataSetSink`), or the observations of a conformance check (`ConformanceSink`). May import `reservoir`,
`protocol`, the data set file and the errors.
"""

from melissa_gen.sinks.base import Sink, StreamSink
from melissa_gen.sinks.conformance import ConformanceSink, FieldObservation
from melissa_gen.sinks.data_set import DataSetSink

__all__ = ["ConformanceSink", "DataSetSink", "FieldObservation", "Sink", "StreamSink"]
