"""The task `physics_informed`: a network of parameters, time and position that satisfies an equation."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import nn

from melissa_gen.errors import StudyError
from melissa_gen.surrogates import PointSurrogate, Surrogate
from melissa_gen.surrogates.training_loss import TrainingLoss
from melissa_gen.surrogates.user_functions import Function, call, load_function
from melissa_gen.tasks.arguments import require, require_count, require_number
from melissa_gen.tasks.base import Compared, Rows
from melissa_gen.tasks.collocation import RULES, Collocation, create_collocation
from melissa_gen.tasks.conditions import Condition, read_condition
from melissa_gen.tasks.equations import EQUATIONS
from melissa_gen.tasks.point_samplers import PointSamplers, SampledPoints
from melissa_gen.tasks.pointwise import Extent, Pointwise

__all__ = ["PhysicsInformed"]

_KEY = "surrogate.task.arguments.residual"


class _Parts(NamedTuple):
    """What is made of the arguments for one surrogate.

    Attributes:
        residual: The residual of the equation.
        conditions: Initial and boundary conditions.
        rule: Chooses the collocation points of this rank.
    """

    residual: Function
    conditions: list[Condition]
    rule: Collocation


class PhysicsInformed(Pointwise):
    """Minimizes the residual of an equation at collocation points, alone or beside simulated data.

    An item of a batch is a time step of a simulation. Its loss is the weighted sum of the error at some of its points,
    and of the mean squares of the residual and the conditions at points that are paired with its parameters, or with
    parameters of their own.

    Args:
        residual: `heat`, `burgers`, `convection`, or a function `file.py:function` of (u, parameters, coordinates) that
            returns the residual `(n,)`, or `(n, E)` for E equations; with arguments: `{function: ..., arguments: ...}`.
        points: Number of collocation points of a batch.
        collocation: `uniform`, `rad`, `rar_d`, `r3` or a method of `sampler`, which choose these points; with
            arguments: `{method: r3, causal: true}`.
        conditions: List of initial and boundary conditions.
        parameters: `batch`: the points of residual and conditions have the parameters of the rows of the batch;
            `uniform`: each has parameters of its own, uniform in their bounds, so that the equation holds between the
            simulations, too.
        weight: Weight of the residual in the loss.
        data: Weight of the simulated data in the loss; 0 for a study without a solver.
        data_points: Number of points of each time step at which the network is compared with the data.
        constraint: Function `file.py:function` of (u, parameters, coordinates) that returns fields which satisfy a
            condition by construction.
        solution: Function `file.py:function` of (parameters, coordinates) that returns the exact fields, for the
            validation of a study without a solver.
        coordinates: File of the coordinates of all points; see `Pointwise`.
        extent: Ends of each axis; see `Pointwise`.

    Raises:
        StudyError: An argument is not legal.
    """

    name = "physics_informed"
    differentiates = True

    def __init__(
        self,
        residual: str | Mapping[str, Any],
        points: int = 1000,
        collocation: str | Mapping[str, Any] = "uniform",
        conditions: Sequence[Mapping[str, Any]] = (),
        weight: float = 1.0,
        data: float = 1.0,
        data_points: int = 256,
        constraint: str | None = None,
        solution: str | Mapping[str, Any] | None = None,
        coordinates: str | None = None,
        extent: Extent | None = None,
        parameters: Literal["batch", "uniform"] = "batch",
    ) -> None:
        super().__init__(points, coordinates, extent)
        require_number("weight", weight, 0)
        require_number("data", data, 0)
        require_count("data_points", data_points)
        require("parameters", parameters, parameters in ("batch", "uniform"), "batch and uniform")
        self._anywhere = parameters == "uniform"
        require("conditions", conditions, isinstance(conditions, list | tuple), "lists")
        self._residual, self._collocation, self._conditions = residual, collocation, conditions
        self._weight, self._data, self._data_points = float(weight), float(data), data_points
        self._solution, self.constraint = solution, constraint
        self._parts: _Parts | None = None
        self._restored: dict[str, Any] = {}
        self._samplers: PointSamplers | None = None

    @property
    def needs_data(self) -> bool:
        """Whether the loss has a term of simulated data."""
        return self._data > 0

    def points_of_batch(self, rows: int) -> int:
        """Returns at how many points the network is evaluated in a batch of some rows, when it has a surrogate."""
        assert self._parts is not None
        rule, conditions = self._parts.rule, self._parts.conditions
        # A periodic condition compares two faces. The points of a pool are evaluated in pieces of `points`.
        drawn = sum((2 if one.periodic else 1) * one.points for one in conditions)
        return self._points + rule.largest + drawn + rows * self._data_points * self.needs_data

    def make_surrogate(self, **description: Any) -> Surrogate:
        """Creates the surrogate, and loads the functions of the user."""
        surrogate = super().make_surrogate(**description)
        assert isinstance(surrogate, PointSurrogate)
        self._make_parts(surrogate)
        return surrogate

    def solution(self, surrogate: Surrogate) -> Function | None:
        """Returns the exact solution of the study, or None."""
        if self._solution is None:
            return None
        key = "surrogate.task.arguments.solution"
        return load_function(key, self._solution, surrogate.base_folder)

    def state(self) -> dict[str, Any]:
        """Returns the collocation points of this rank."""
        return self._restored if self._parts is None else self._parts.rule.state()

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continues with the collocation points of an earlier server."""
        self._restored, self._parts = dict(state), None

    def state_of_new_rank(self, state: Mapping[str, Any]) -> Mapping[str, Any]:
        """Returns the state without the points and their sampler, so that no two ranks have the same ones."""
        return {n: value for n, value in state.items() if n not in ("population", "sampler")}

    def set_samplers(self, samplers: PointSamplers) -> None:
        """Receives the samplers that may draw collocation points."""
        self._samplers = samplers

    def start(self, surrogate: Surrogate, rows: Rows) -> None:
        """Draws the first collocation points, which differ between the ranks, on the device of the training."""
        assert isinstance(surrogate, PointSurrogate)
        self._make_parts(surrogate)

    def try_out(self, surrogate: Surrogate) -> None:
        """Evaluates the residual and the conditions once, before a study starts.

        Raises:
            StudyError: A function fails, or returns another shape, values that are not finite, or without a gradient.
        """
        assert isinstance(surrogate, PointSurrogate)
        parts = self._make_parts(surrogate)
        rows = self.example(surrogate)
        terms = self._terms(parts, surrogate, surrogate.network, rows.inputs)
        for key, values in terms:
            if not torch.isfinite(values).all():
                message = f"{key} returns NaN or infinity within the bounds of the study"
                raise StudyError(message)
            weights = [w for w in surrogate.parameters() if w.requires_grad]
            slopes: tuple[Any, ...] = (None,)
            if values.requires_grad:
                total = values.square().sum()
                slopes = torch.autograd.grad(total, weights, retain_graph=True, allow_unused=True)
            if not any(slope is not None and slope.any() for slope in slopes):
                message = f"{key} has no gradient: it does not depend on u, or detaches it"
                raise StudyError(message)

    def compare(
        self, surrogate: Surrogate, network: nn.Module, rows: Rows, batches: int
    ) -> list[Compared]:
        """Compares with the data, and returns for each term its mean squares `(n, M, 1)`, to be compared with zeros."""
        assert isinstance(surrogate, PointSurrogate)
        parts = self._parts or self._make_parts(surrogate)
        n, found = len(rows.inputs), []
        if self.needs_data:
            found.append(self._at_points(surrogate, network, rows, self._data_points))
        inputs = self._drawn_inputs(parts, surrogate) if self._anywhere else rows.inputs
        for _, values in self._terms(parts, surrogate, network, inputs):
            squares = values.square().mean(dim=2)
            if self._anywhere:
                means = squares.mean(dim=0).expand(n, -1)[..., None]
                found.append(Compared(means, torch.zeros_like(means[:, 0])))
                continue
            row = torch.arange(len(squares), device=squares.device) % n
            total = squares.new_zeros(n, squares.shape[1]).index_add(0, row, squares)
            count = torch.bincount(row, minlength=n)[:, None]
            # With fewer points than rows, a row without a point gets the mean of all points. The mean of the rows is
            # then that of the points.
            means = torch.where(count > 0, total / count.clamp(min=1), squares.mean(dim=0))
            means = means[..., None]
            found.append(Compared(means, torch.zeros_like(means[:, 0])))
        return found

    def _drawn_inputs(self, parts: _Parts, surrogate: PointSurrogate) -> torch.Tensor:
        """Draws parameters for each point of the largest term, with a time that is not used, `(n, d + 1)`."""
        count = max(parts.rule.largest, *(one.points for one in parts.conditions), 1)
        ends = torch.tensor([*surrogate.parameter_bounds.values(), surrogate.times])
        ends = ends.to(surrogate.center)
        low, high = torch.where(surrogate.log_inputs[:, None], ends.log(), ends).T
        drawn = low + (high - low) * torch.rand(count, len(low)).to(low)
        return torch.where(surrogate.log_inputs, drawn.exp(), drawn)

    def losses(
        self, loss: TrainingLoss, compared: Sequence[Compared]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns the weighted sums of the terms: `(n, M)` of each ensemble member, and of their mean `(n,)`."""
        assert self._parts is not None
        terms = list(compared)
        weights = [self._weight, *(one.weight for one in self._parts.conditions)]
        members: Any = 0.0
        mean: Any = 0.0
        if self.needs_data:
            data = terms.pop(0)
            members = self._data * loss.of_members(data.members, data.target)
            mean = self._data * loss(data.members.detach().float().mean(dim=1), data.target)
        for weight, term in zip(weights, terms, strict=True):
            members = members + weight * term.members[..., 0]
            mean = mean + weight * term.members[..., 0].detach().mean(dim=1)
        return members, mean

    @torch.no_grad()
    def errors(self, error: TrainingLoss, compared: Sequence[Compared]) -> torch.Tensor:
        """Returns the squares of the metric for the data of each row `(n,)`; without data, the losses."""
        return (
            super().errors(error, compared[:1])
            if self.needs_data
            else self.losses(error, compared)[1]
        )

    def _make_parts(self, surrogate: PointSurrogate) -> _Parts:
        axes, folder = ("t", *surrogate.axes), surrogate.base_folder
        self._parts = _Parts(
            load_function(_KEY, self._residual, folder, EQUATIONS),
            [
                read_condition(number, one, axes, folder, self._points)
                for number, one in enumerate(self._conditions)
            ],
            self._make_rule(len(axes), surrogate.center.device),
        )
        self._parts.rule.restore(self._restored)
        return self._parts

    def _make_rule(self, axes: int, device: torch.device) -> Collocation:
        """Creates the rule of the collocation points: one of `collocation`, or a sampler of the package."""
        given, names = self._collocation, () if self._samplers is None else self._samplers.names
        arguments: dict[str, Any] = dict(given) if isinstance(given, Mapping) else {"method": given}
        method = arguments.pop("method", None)
        if self._samplers is None or method in RULES or method not in names:
            return create_collocation(given, self._points, axes, device, names)
        every, seed = arguments.pop("every", None), int(torch.randint(2**31, ()))
        key = "surrogate.task.arguments.collocation"
        sampler = self._samplers.create(str(method), axes, seed, arguments, key)
        return SampledPoints(self._points, axes, device, sampler, every)

    def _terms(
        self, parts: _Parts, surrogate: PointSurrogate, network: nn.Module, inputs: torch.Tensor
    ) -> list[tuple[str, torch.Tensor]]:
        """Returns the key and the values `(m, M, E)` of the residual and of each condition at their points."""
        rule = parts.rule

        def absolute(places: torch.Tensor) -> torch.Tensor:
            pieces = []
            for some in torch.split(places, self._points):
                one = self._residual_at(parts, surrogate, surrogate.network, inputs, some)
                pieces.append(one.detach().norm(dim=2).mean(dim=1))
            return torch.cat(pieces)

        places = rule.draw(absolute)
        values = self._residual_at(parts, surrogate, network, inputs, places)
        rule_gate = rule.gate(places)
        rule.learn(values.detach().norm(dim=2).mean(dim=1))
        if rule_gate is not None:
            values = values * rule_gate[:, None, None]
        found = [(_KEY, values)]
        return found + [
            (one.key, self._condition(one, surrogate, network, inputs)) for one in parts.conditions
        ]

    def _residual_at(
        self,
        parts: _Parts,
        surrogate: PointSurrogate,
        network: nn.Module,
        inputs: torch.Tensor,
        places: torch.Tensor,
    ) -> torch.Tensor:
        """Returns the residuals `(m, M, E)` at points of the unit cube `(m, 1 + D)`."""
        point = _Point(surrogate, network, inputs, _physical(surrogate, places))
        return point.evaluated(_KEY, parts.residual)

    def _condition(
        self,
        one: Condition,
        surrogate: PointSurrogate,
        network: nn.Module,
        inputs: torch.Tensor,
    ) -> torch.Tensor:
        """Returns the values `(m, M, E)` that must be zero."""
        axes, ends = ("t", *surrogate.axes), _ends(surrogate)
        drawn = _physical(surrogate, one.places(axes, inputs.device))
        if one.function is not None:
            face = one.place(drawn, ends, one.at)
            return _Point(surrogate, network, inputs, face).evaluated(one.key, one.function)
        sides = []
        for side in ("low", "high"):
            face = one.place(drawn, ends, {**one.at, one.periodic: side})
            sides.append(_Point(surrogate, network, inputs, face).flat())
        return sides[0] - sides[1]


class _Point:
    """Predictions at points, with coordinates that they can be differentiated by.

    Args:
        surrogate: The surrogate.
        network: Its network, or a wrapper of it.
        inputs: Parameters and times `(n, d + 1)` of the batch; point j has the parameters of row j modulo n.
        places: Name of each coordinate to its physical values `(m,)`.
    """

    def __init__(
        self,
        surrogate: PointSurrogate,
        network: nn.Module,
        inputs: torch.Tensor,
        places: Mapping[str, torch.Tensor],
    ) -> None:
        self.coordinates = {name: x.detach().requires_grad_() for name, x in places.items()}
        count = len(self.coordinates["t"])
        row = torch.arange(count, device=inputs.device) % len(inputs)
        parameters = inputs[row, :-1]
        position = torch.stack([self.coordinates[axis] for axis in surrogate.axes], dim=1)
        self._surrogate = surrogate
        self.members = surrogate.outputs(network, parameters, self.coordinates["t"], position)
        names, kind = surrogate.parameter_bounds, position.dtype
        self.parameters = {n: parameters[:, k].to(kind) for k, n in enumerate(names)}
        self._count = count

    def flat(self) -> torch.Tensor:
        """Returns the values of all fields, standardized, `(m, M, V)`."""
        return self.members.flatten(2) if self.members.dim() > 2 else self.members[..., None]

    def evaluated(self, key: str, function: Function) -> torch.Tensor:
        """Returns the values `(m, M, E)` of a function of the user for each ensemble member.

        Raises:
            StudyError: The function fails, or returns another shape.
        """
        found = []
        for member in range(self.members.shape[1]):
            u = self._surrogate.physical(self.members[:, member])
            values = call(key, function, u, self.parameters, self.coordinates)
            shape = tuple(values.shape) if isinstance(values, torch.Tensor) else type(values)
            if not isinstance(shape, tuple) or shape[:1] != (self._count,) or len(shape) > 2:
                message = (
                    f"{key} returns {shape} for {self._count} points; it must be a tensor ({self._count},), or "
                    f"({self._count}, E) for E equations"
                )
                raise StudyError(message)
            found.append(values.float() if values.dim() == 2 else values.float()[:, None])
        # All weights need a gradient for the synchronization of the ranks, also those that a derivative removes.
        return torch.stack(found, dim=1) + 0.0 * self.members.sum()


def _ends(surrogate: PointSurrogate) -> dict[str, tuple[float, float]]:
    """Returns the ends of the time and of each axis."""
    ends = {name: (float(low), float(high)) for name, (low, high) in surrogate.extent.items()}
    return {"t": surrogate.times, **ends}


def _physical(surrogate: PointSurrogate, places: torch.Tensor) -> dict[str, torch.Tensor]:
    """Returns the physical coordinates `(m,)` of points of the unit cube `(m, 1 + D)`."""
    return {
        name: low + (high - low) * places[:, k]
        for k, (name, (low, high)) in enumerate(_ends(surrogate).items())
    }
