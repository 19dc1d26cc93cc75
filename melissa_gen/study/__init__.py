"""The study file: models of its sections with defaults, units and checks, and reading and writing it."""

from melissa_gen.study.base_section import ClassSection
from melissa_gen.study.changes import Change, changes_between, check_changes, value_of
from melissa_gen.study.field_section import FieldSection, FixedScaleSection, InputSection
from melissa_gen.study.jobs_section import JobsSection
from melissa_gen.study.launcher_section import LauncherSection
from melissa_gen.study.record_section import RecordSection
from melissa_gen.study.reservoir_section import ReservoirSection
from melissa_gen.study.sampler_section import SamplerSection
from melissa_gen.study.server_section import ServerSection
from melissa_gen.study.simulation_section import MeshSection, SimulationSection, TimesSection
from melissa_gen.study.statistics_section import StatisticsSection
from melissa_gen.study.study import Study, json_schema, load_study, with_values
from melissa_gen.study.study_file import write_study
from melissa_gen.study.surrogate_section import SurrogateSection
from melissa_gen.study.training_section import (
    BudgetSection,
    TrainingSection,
    ValidationSection,
    ValidationSetSection,
)

__all__ = [
    "BudgetSection",
    "Change",
    "ClassSection",
    "FieldSection",
    "FixedScaleSection",
    "InputSection",
    "JobsSection",
    "LauncherSection",
    "MeshSection",
    "RecordSection",
    "ReservoirSection",
    "SamplerSection",
    "ServerSection",
    "SimulationSection",
    "StatisticsSection",
    "Study",
    "SurrogateSection",
    "TimesSection",
    "TrainingSection",
    "ValidationSection",
    "ValidationSetSection",
    "changes_between",
    "check_changes",
    "json_schema",
    "load_study",
    "value_of",
    "with_values",
    "write_study",
]
