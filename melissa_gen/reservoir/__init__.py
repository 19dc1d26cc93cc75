"""Training memory of one server rank: preallocated sample slots and the policies that manage them.

The ingest thread receives each field directly into a row of a `SlotStore`. A policy (`FIFO`,
`FIRO`, `Reservoir`, `WeightedReservoir`) then decides when the row can be trained on and when it is
evicted. A sample is copied once only, from its row into the training batch. From melissa_gen, this
package imports only `melissa_gen.errors`.
"""

from melissa_gen.reservoir.base_policy import Policy
from melissa_gen.reservoir.creation import create
from melissa_gen.reservoir.draw_once import FIFO, FIRO
from melissa_gen.reservoir.row_file import RowReader, RowSaver
from melissa_gen.reservoir.samples import (
    NO_INPUTS,
    Batch,
    Draw,
    Inputs,
    Sample,
    SampleBlock,
    Selection,
    Stock,
    StoredRows,
)
from melissa_gen.reservoir.segments import WindowShape
from melissa_gen.reservoir.shared_arrays import ArraySpec, array_bytes, arrays_in
from melissa_gen.reservoir.slot_store import FieldSpec, SampleRows, SlotStore, megabytes, row_specs
from melissa_gen.reservoir.source import Source
from melissa_gen.reservoir.totals import LOST_WITH_SERVER
from melissa_gen.reservoir.uniform_reservoir import Reservoir
from melissa_gen.reservoir.weighted_reservoir import WeightedReservoir

__all__ = [
    "FIFO",
    "FIRO",
    "LOST_WITH_SERVER",
    "NO_INPUTS",
    "ArraySpec",
    "Batch",
    "Draw",
    "FieldSpec",
    "Inputs",
    "Policy",
    "Reservoir",
    "RowReader",
    "RowSaver",
    "Sample",
    "SampleBlock",
    "SampleRows",
    "Selection",
    "SlotStore",
    "Source",
    "Stock",
    "StoredRows",
    "WeightedReservoir",
    "WindowShape",
    "array_bytes",
    "arrays_in",
    "create",
    "megabytes",
    "row_specs",
]
