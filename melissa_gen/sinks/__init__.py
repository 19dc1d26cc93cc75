"""Sinks: the receivers of the samples of a server rank.

The ingest thread assembles samples and puts them into a `FanOut`. It stores each sample in the main sink: the reservoir
of a trainer, a data set file (`DatasetSink`), or the observations of a conformance check (`ConformanceSink`). It then
gives the sample to each `SideSink` of the study. The package may import `reservoir`, `protocol`, `dataset`,
`statistics` and `errors`.
"""

from melissa_gen.sinks.base import Sink, StreamSink
from melissa_gen.sinks.conformance import ConformanceSink, FieldObservation
from melissa_gen.sinks.dataset import DatasetSink
from melissa_gen.sinks.fan_out import FanOut
from melissa_gen.sinks.passing import PassingSink
from melissa_gen.sinks.record import QUEUE_BYTES, RecordSink
from melissa_gen.sinks.side_sink import Ranks, SideSink
from melissa_gen.sinks.statistics import FieldPlan, StatisticsPlan, StatisticsSink

__all__ = [
    "QUEUE_BYTES",
    "ConformanceSink",
    "DatasetSink",
    "FanOut",
    "FieldObservation",
    "FieldPlan",
    "PassingSink",
    "Ranks",
    "RecordSink",
    "SideSink",
    "Sink",
    "StatisticsPlan",
    "StatisticsSink",
    "StreamSink",
]
