"""The study file: its models, defaults, units and checks. It imports nothing of ours but the errors."""

from melissa_gen.study.cluster import JobsSection
from melissa_gen.study.load import json_schema, load_study, write_study
from melissa_gen.study.model import (
    FieldSection,
    LauncherSection,
    ReservoirSection,
    SamplerSection,
    ServerSection,
    SimulationSection,
    Study,
    SurrogateSection,
    TrainingSection,
    ValidationSection,
)

__all__ = [
    "FieldSection",
    "JobsSection",
    "LauncherSection",
    "ReservoirSection",
    "SamplerSection",
    "ServerSection",
    "SimulationSection",
    "Study",
    "SurrogateSection",
    "TrainingSection",
    "ValidationSection",
    "json_schema",
    "load_study",
    "write_study",
]
