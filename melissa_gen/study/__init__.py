"""The study file: models of its sections with defaults, units and checks, and reading and writing it."""

from melissa_gen.study.field_section import FieldSection, FixedScaleSection
from melissa_gen.study.jobs_section import JobsSection
from melissa_gen.study.study import (
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
from melissa_gen.study.study_file import json_schema, load_study, write_study

__all__ = [
    "FieldSection",
    "FixedScaleSection",
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
