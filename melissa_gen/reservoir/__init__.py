"""Training memory of one server rank: rows allocated once, and the policy that fills and reads them.

The ingest thread receives a field straight into a row of a `SlotStore`; a policy (`FIFO`, `FIRO`,
`Reservoir`) then decides when the row may be trained on and when it is free again. No sample moves
in memory between the socket and the batch. Imports nothing of ours but the errors.
"""

from melissa_gen.reservoir.base_policy import LOST_WITH_SERVER, Batch, Policy, Sample
from melissa_gen.reservoir.creation import create
from melissa_gen.reservoir.draw_once import FIFO, FIRO
from melissa_gen.reservoir.slot_store import FieldSpec, SlotStore, megabytes
from melissa_gen.reservoir.uniform_reservoir import Reservoir
from melissa_gen.reservoir.weighted_reservoir import WeightedReservoir

__all__ = [
    "FIFO",
    "FIRO",
    "LOST_WITH_SERVER",
    "Batch",
    "FieldSpec",
    "Policy",
    "Reservoir",
    "Sample",
    "SlotStore",
    "WeightedReservoir",
    "create",
    "megabytes",
]
