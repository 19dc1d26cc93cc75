"""The section of the training loop and of its validation."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from melissa_gen.distributions import Parameter
from melissa_gen.study.base_section import ClassSection, Section
from melissa_gen.study.word_types import Name
from melissa_gen.units import Duration

__all__ = [
    "BOUND",
    "BudgetSection",
    "ScheduleSection",
    "TrainingSection",
    "UntilSection",
    "ValidationSection",
    "ValidationSetSection",
]

Limit = Annotated[float, Field(gt=0)]
BOUND = "error_bound."
"""Begin of the names of the limits of bounds."""


SQUARED: dict[Literal["absolute", "relative"], Literal["mse", "relative"]] = {
    "absolute": "mse",
    "relative": "relative",
}
"""The loss that is the square of each metric."""


class ValidationSetSection(Section):
    """A further validation set: simulations with other parameters, or the trajectories of a file."""

    parameters: dict[Name, Parameter] = Field(default={})
    """Distributions from which the set is drawn; parameters that are not named keep their own."""
    points: list[dict[Name, float]] = Field(default=[])
    """The parameters of each simulation: a value for each parameter of the study."""
    file: str | None = Field(default=None, min_length=1)
    """A data set file of `melissa-gen generate`, of `record`, or of PDEBench; a relative path starts at the folder of
    the study."""
    values: dict[Name, float] = Field(default={})
    """Parameters of all trajectories of a file that has none, such as those of PDEBench."""
    simulations: int = Field(default=16, gt=0)
    """Size of a set that is drawn; of a file, its first trajectories, or all if it holds fewer."""
    seed: int = Field(default=20_000, ge=0)
    """Seed of the draws of the set."""

    @property
    def count(self) -> int:
        """Number of simulations, of a file at most."""
        return len(self.points) or self.simulations

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        given = {"parameters": self.parameters, "points": self.points, "file": self.file}
        found = [key for key, value in given.items() if value]
        if len(found) != 1:
            what = " and ".join(found) if found else "none of them"
            msg = f"a validation set has one of parameters, points and file; found {what}"
            raise ValueError(msg)
        if self.values and self.file is None:
            msg = "values are the parameters of a file; use parameters or points without a file"
            raise ValueError(msg)
        return self


class ValidationSection(Section):
    """Error on simulations drawn from the prior that are never trained on."""

    simulations: int = Field(default=16, ge=0)
    """Size of the set that is drawn from the prior; with 0, only `sets` are measured, and without these nothing."""
    every: int = Field(default=500, gt=0)
    """Batches between two validations."""
    seed: int = Field(default=20_000, ge=0)
    """Seed of the draws of the validation set; independent of the study's seed."""
    reuse: Literal["verified", "trusted", "never"] = "verified"
    """When a validation set of an earlier run is used again, if settings and files of the solver are the same:
    `verified`, after one of its simulations was solved again with the same result; `trusted`, without that, for a
    solver whose results are not reproducible; `never`."""
    sets: dict[Name, ValidationSetSection] = Field(default={}, max_length=100)
    """Further sets by name, whose errors are measured and shown apart: other distributions, chosen points, or files."""
    decides: Name | None = None
    """Name of the set whose errors `until`, a schedule by validations and callbacks use; none: that of the prior, or
    the first of `sets` if `simulations` is 0."""

    @property
    def total(self) -> int:
        """Number of simulations of all sets."""
        return self.simulations + sum(one.count for one in self.sets.values())

    @property
    def measures(self) -> bool:
        """Whether there is any validation set."""
        return self.total > 0

    @property
    def main(self) -> str | None:
        """Name of the set whose errors are the results of the run; None: that of the prior."""
        return None if self.simulations or not self.sets else self.decides or next(iter(self.sets))

    @model_validator(mode="after")
    def _known_sets(self) -> Self:
        if "prior" in self.sets:
            msg = (
                "validation.sets has the name prior, which results use for the set that is drawn from the "
                "distributions of the study; choose another name"
            )
            raise ValueError(msg)
        if self.decides is not None and self.decides not in self.sets:
            legal = ", ".join(self.sets) or "none, because there are no sets"
            msg = f"validation.decides is {self.decides}, which is not a name in validation.sets; legal: {legal}"
            raise ValueError(msg)
        return self


class ScheduleSection(ClassSection):
    """How the learning rate changes."""

    step: Literal["batch", "validation"] = "batch"
    """When the schedule advances: `batch`, after each step of the optimizer; `validation`, after each validation, which
    gives it the mean error if the class is `ReduceLROnPlateau`."""


class UntilSection(Section):
    """Accuracy at which the study ends, although not all simulations have run.

    The errors are those on the validation set. The bounds need no validation set.
    """

    mean: Limit | None = Field(default=None, alias="nrmse.mean")
    """Largest mean of the NRMSE."""
    rms: Limit | None = Field(default=None, alias="nrmse.rms")
    """Largest root mean square of the NRMSE."""
    p95: Limit | None = Field(default=None, alias="nrmse.p95")
    """Largest 95th percentile of the NRMSE."""
    p99: Limit | None = Field(default=None, alias="nrmse.p99")
    """Largest 99th percentile of the NRMSE."""
    max: Limit | None = Field(default=None, alias="nrmse.max")
    """Largest maximum of the NRMSE."""
    rmse_mean: Limit | None = Field(default=None, alias="rmse.mean")
    """Largest mean of the error, if `training.metric` is `absolute`."""
    rmse_rms: Limit | None = Field(default=None, alias="rmse.rms")
    """Its largest root mean square."""
    rmse_p95: Limit | None = Field(default=None, alias="rmse.p95")
    """Its largest 95th percentile."""
    rmse_p99: Limit | None = Field(default=None, alias="rmse.p99")
    """Its largest 99th percentile."""
    rmse_max: Limit | None = Field(default=None, alias="rmse.max")
    """Its largest maximum."""
    bound_p50: Limit | None = Field(default=None, alias="error_bound.p50")
    """Largest median, over draws of the prior, of the bound that `Surrogate.error_bound` gives the error there, in
    the unit of the metric."""
    bound_p90: Limit | None = Field(default=None, alias="error_bound.p90")
    """Largest 90th percentile of the bound over the prior."""
    bound_p99: Limit | None = Field(default=None, alias="error_bound.p99")
    """Largest 99th percentile of the bound over the prior."""
    bound_level: float = Field(default=0.9, gt=0, lt=1)
    """Probability with which the error stays below the bound."""
    patience: int = Field(default=1, gt=0)
    """Number of validations, or computations of the bounds, in a row that must be within these limits."""

    @property
    def limits(self) -> dict[str, float]:
        """Name of each statistic, such as `nrmse.p99`, to its limit."""
        fields = type(self).model_fields.items()
        given = {field.alias: getattr(self, name) for name, field in fields if field.alias}
        return {name: limit for name, limit in given.items() if limit is not None}

    @property
    def bounded(self) -> bool:
        """Whether there is a limit of the bounds."""
        return any(name.startswith(BOUND) for name in self.limits)

    def limits_of(self, error: str) -> list[str]:
        """Returns the names of the limits of an error, `nrmse` or `rmse`."""
        return [name for name in self.limits if name.startswith(f"{error}.")]

    @model_validator(mode="after")
    def _some_limit(self) -> Self:
        if not self.limits:
            msg = "until has no limit; give it one, such as nrmse.p99: 0.02"
            raise ValueError(msg)
        return self


class BudgetSection(Section):
    """Amount of training after which the study ends, although not all simulations have run."""

    batches: int | None = Field(default=None, gt=0)
    """Largest number of batches."""
    time: Duration | None = None
    """Longest time from the first batch on, waiting included (seconds); of a resumed run, of all parts together."""

    @model_validator(mode="after")
    def _some_limit(self) -> Self:
        if self.batches is None and self.time is None:
            msg = "budget has no limit; give it batches, time or both"
            raise ValueError(msg)
        return self


class TrainingSection(Section):
    """The training loop."""

    batch_size: int = Field(default=32, gt=0)
    """Samples per batch and rank."""
    accumulate: int = Field(default=1, gt=0)
    """Batches whose gradients are added up for one step of the optimizer, which then sees `accumulate` * `batch_size`
    samples per rank at the memory of one batch. `halve_every`, `schedule`, `warmup` and `ema` count steps; all other
    keys count batches."""
    optimizer: Literal["Adam", "AdamW", "SGD"] | ClassSection = "Adam"
    """Class of `torch.optim`; `class` and `arguments` name any other of `torch.optim`, of a package or of a file."""
    learning_rate: float = Field(default=1e-3, gt=0)
    """Initial learning rate of the optimizer."""
    halve_every: int | None = Field(default=None, gt=0)
    """Steps after which the learning rate is halved, again and again; none keeps it constant."""
    schedule: ScheduleSection | None = None
    """A class of `torch.optim.lr_scheduler`, of a package or of a file, which sets the learning rate instead of
    `halve_every`."""
    warmup: int = Field(default=0, ge=0)
    """Steps over which the learning rate grows linearly to that of the schedule."""
    decay: Literal["all", "matrices"] = "all"
    """Parameters that the optimizer's `weight_decay` applies to: `all`; or `matrices`, without biases and the weights
    of normalization layers, which have one axis."""
    clip_gradients: float | None = Field(default=None, gt=0)
    """Largest norm of the gradients of all parameters together; larger ones are scaled down."""
    metric: Literal["absolute", "relative"] | None = None
    """What the error of a prediction is, for the loss (if `loss` is not given), the difficulty that the sampler learns
    from, the validation, `until` and the report: `absolute`, the root mean square error (RMSE) on the scale of the
    fields; `relative`, the RMSE divided by the root mean square of the true field (NRMSE). None: the difficulty is the
    loss, and the validation is relative."""
    loss: Literal["mse", "relative", "huber", "h1"] | ClassSection | None = None
    """Error of a sample that is minimized. `mse`: mean squared error on the scale of the fields; `relative`: mean
    squared error divided by the mean square of the sample's field, so that small fields count as much as large ones;
    `huber`: squared error that grows linearly for errors above 1; `h1`: mean squared error of the values and of their
    differences along the axes. `class` names a class whose objects take (output, target), both `(n, *shape)`, and
    return `(n,)` or `(n, *shape)`. None: the square of `metric`; `mse` without `metric`."""
    draws_per_sample: float = Field(default=1.0, ge=1.0)
    """The solvers wait until each stored sample has been drawn this often on average: more training per simulation."""
    max_draws_per_sample: float | None = Field(default=None, ge=1.0)
    """The trainer waits for new samples once each has been drawn this often on average; none never waits. Under this
    limit, a batch takes samples that were never drawn first."""
    importance_exponent: float = Field(default=0.5, ge=0.0, le=1.0)
    """Exponent of the weights prior / proposal in the loss: 0 trains on what was proposed, 1 corrects to the prior.
    In the benchmarks 0.5 lowers the largest errors without raising the mean error."""
    on_divergence: Literal["stop", "rollback", "skip"] = "rollback"
    """After a batch whose loss or gradients are not finite: `stop` fails the study; `rollback` restores the weights of
    200 to 400 steps before and divides the learning rate by 4, at most four times; `skip` leaves the batch out."""
    ema: float | None = Field(default=None, gt=0, lt=1)
    """Share of the running mean of the weights that is kept at each step, such as 0.999. The mean is validated, saved
    and used by the sampler; none uses the weights of the last batch."""
    precision: Literal["float32", "tf32", "bf16"] = "float32"
    """`bf16`: the network computes in bfloat16 where that is safe; weights, losses and optimizer state stay float32.
    `tf32`: matrix products on GPUs round their inputs to 10 bits."""
    compile: bool = False
    """Compile the network with `torch.compile`; the first batches take longer."""
    validation: ValidationSection = ValidationSection()
    """Error on simulations that are never trained on."""
    callbacks: list[ClassSection] = Field(default=[])
    """Classes whose methods `on_batch`, `on_validation` and `on_end` are called on the first rank of the server."""
    until: UntilSection | None = None
    """The study ends when the validation error, or the bound of the error, is this small, and runs no more
    simulations; none runs all."""
    budget: BudgetSection | None = None
    """The study ends after this many batches or this much time, whichever comes first; none trains on all
    simulations."""
    checkpoint_every: Duration = 60.0
    """Time between two checkpoints (seconds)."""
    enabled: bool = True
    """Whether a surrogate is trained; false needs another use of the samples, such as `record`."""

    @property
    def error_name(self) -> str:
        """Name of the validation error in results: `rmse` or `nrmse`."""
        return "rmse" if self.metric == "absolute" else "nrmse"

    @property
    def first_error_name(self) -> str | None:
        """Name of the error whose square is measured at first passes; None for a loss that is no square of one."""
        if self.metric is not None:
            return self.error_name
        loss = self.minimized
        return {"mse": "rmse", "relative": "nrmse"}.get(loss) if isinstance(loss, str) else None

    @property
    def minimized(self) -> str | ClassSection:
        """The loss: the given one, or the square of the metric."""
        return self.loss or SQUARED[self.metric or "absolute"]

    @property
    def optimizer_class(self) -> tuple[str, dict[str, Any]]:
        """Name and arguments of the optimizer's class."""
        if isinstance(self.optimizer, ClassSection):
            return self.optimizer.class_path, self.optimizer.arguments
        return self.optimizer, {}

    @property
    def schedule_class(self) -> tuple[str, dict[str, Any]] | None:
        """Name and arguments of the schedule's class; None if the learning rate is constant."""
        if self.schedule is not None:
            return self.schedule.class_path, self.schedule.arguments
        if self.halve_every is None:
            return None
        return "StepLR", {"step_size": self.halve_every, "gamma": 0.5}

    @model_validator(mode="after")
    def _one_schedule(self) -> Self:
        if self.schedule is not None and self.halve_every is not None:
            msg = "halve_every and schedule exclude each other; keep one of them"
            raise ValueError(msg)
        by_validation = self.schedule is not None and self.schedule.step == "validation"
        if by_validation and not self.validation.measures:
            msg = (
                "schedule.step is validation, but validation.simulations is 0 and there are no validation.sets; use "
                "batch"
            )
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _measured_goal(self) -> Self:
        if self.until is None:
            return self
        other = "rmse" if self.error_name == "nrmse" else "nrmse"
        if wrong := self.until.limits_of(other):
            right = f"{self.error_name}.{wrong[0].partition('.')[2]}"
            msg = f"until has {wrong[0]}, but metric is {self.metric or 'not set'}; write {right}"
            raise ValueError(msg)
        if self.until.limits_of(self.error_name) and not self.validation.measures:
            msg = "until needs a validation set, but validation.simulations is 0 and there are no validation.sets"
            raise ValueError(msg)
        if self.until.bounded and self.first_error_name is None:
            msg = "until has a limit of error_bound, but the loss is no error; set metric to absolute or relative"
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _draws(self) -> Self:
        top = self.max_draws_per_sample
        if top is not None and top < self.draws_per_sample:
            msg = (
                f"max_draws_per_sample {top:g} is below draws_per_sample {self.draws_per_sample:g}; "
                "trainer and solvers would wait for each other"
            )
            raise ValueError(msg)
        return self
