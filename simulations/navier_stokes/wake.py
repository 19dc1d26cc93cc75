"""Incompressible flow past a cylinder in a channel, by finite elements, on any number of MPI ranks.

    du/dt + u.grad u = viscosity * lap u - grad p,    div u = 0

u is a parabola at the inflow (x = 0), 0 on the walls (y = 0, y = 0.41) and on the cylinder;
viscosity du/dn = p n at the outflow (x = 2.2), the do-nothing condition. The pressure is kinematic,
i.e. divided by the density.
"""

import math
from dataclasses import dataclass

import numpy as np
from channel import HEIGHT, LENGTH, ChannelMesh, Cylinder
from mpi4py import MPI
from numpy.typing import NDArray
from scipy.sparse import bmat, coo_matrix, csr_matrix, diags, vstack
from skfem import Basis, BilinearForm, ElementQuad1, ElementQuad2
from skfem.helpers import dot, grad
from slabs import split
from substructure import SubstructuredSolver

__all__ = ["FIELDS", "Case", "RegularMesh", "WakeSolver", "longest_time_step", "shares"]

Field = NDArray[np.float64]

FIELDS = ("velocity_x", "velocity_y", "pressure", "vorticity")
RAMP = 2.0
"""Start-up time of the inflow, in diameters that the mean inflow travels."""


@dataclass(frozen=True)
class Case:
    """Parameters of one simulation. The defaults are those of DFG 2D-2.

    Attributes:
        reynolds: inflow * 2 radius / viscosity.
        inflow: mean speed at the inflow in m/s. The maximum is 1.5 times the mean.
        center_x: x coordinate of the cylinder's center in m.
        center_y: y coordinate of the cylinder's center in m.
        radius: radius of the cylinder in m.

    Raises:
        ValueError: a value is out of range.
    """

    reynolds: float = 100.0
    inflow: float = 1.0
    center_x: float = 0.2
    center_y: float = 0.2
    radius: float = 0.05

    def __post_init__(self) -> None:
        for name in ("reynolds", "inflow"):
            value = getattr(self, name)
            if not 0.0 < value < math.inf:
                message = f"{name} is {value}: it must be a positive number"
                raise ValueError(message)
        _ = self.cylinder

    @property
    def cylinder(self) -> Cylinder:
        """Position and radius of the cylinder."""
        return Cylinder(self.center_x, self.center_y, self.radius)

    @property
    def viscosity(self) -> float:
        """Kinematic viscosity in m^2/s."""
        return self.inflow * 2.0 * self.radius / self.reynolds

    @property
    def time_unit(self) -> float:
        """Time in which the mean inflow travels one diameter, in seconds."""
        return 2.0 * self.radius / self.inflow


class _Operators:
    """Matrices of this rank's elements, in this rank's numbering of the unknowns."""

    def __init__(self, mesh: ChannelMesh, mine: NDArray[np.int64]) -> None:
        quadratic = Basis(mesh.mesh, ElementQuad2(), intorder=4, elements=mine)
        linear = Basis(mesh.mesh, ElementQuad1(), intorder=4, elements=mine)
        self.velocity_dofs = np.unique(quadratic.element_dofs)
        self.pressure_dofs = np.unique(linear.element_dofs)
        v, p = self.velocity_dofs, self.pressure_dofs
        self.mass = _mass.assemble(quadratic).tocsr()[v][:, v]
        self.stiffness = _stiffness.assemble(quadratic).tocsr()[v][:, v]
        self.divergence = tuple(
            form.assemble(quadratic, linear).tocsr()[p][:, v]
            for form in (_divergence_x, _divergence_y)
        )
        value, *slopes = _at_quadrature_points(
            quadratic, np.searchsorted(v, quadratic.element_dofs)
        )
        weights = diags(quadratic.dx.ravel())
        self.value_and_slopes = vstack([value, *slopes]).tocsr()
        self.test = (value.T @ weights).tocsr()
        self.lumped_mass = np.asarray(self.mass.sum(axis=1)).ravel()

    def advection(self, velocity: Field) -> Field:
        """Returns this rank's part (2, n) of the weak form of u.grad u."""
        values = (self.value_and_slopes @ velocity.T).reshape(3, -1, 2)
        (u, v), along_x, along_y = values[0].T, values[1], values[2]
        return (self.test @ (u[:, None] * along_x + v[:, None] * along_y)).T

    def vorticity(self, velocity: Field) -> Field:
        """Returns this rank's part (n,) of the weak form of dv/dx - du/dy."""
        values = (self.value_and_slopes @ velocity.T).reshape(3, -1, 2)
        return self.test @ (values[1, :, 1] - values[2, :, 0])


_mass = BilinearForm(lambda u, v, w: u * v)
_stiffness = BilinearForm(lambda u, v, w: dot(grad(u), grad(v)))
_divergence_x = BilinearForm(lambda u, q, w: grad(u)[0] * q)
_divergence_y = BilinearForm(lambda u, q, w: grad(u)[1] * q)


def _at_quadrature_points(basis: Basis, numbers: NDArray[np.int64]) -> list[csr_matrix]:
    """Returns matrices from nodal values to value and gradient at all quadrature points."""
    elements, points = basis.dx.shape
    rows = np.tile(np.arange(elements * points), basis.Nbfun)
    columns = np.repeat(numbers, points, axis=1).ravel()
    shape = (elements * points, int(numbers.max()) + 1)
    functions = [function[0] for function in basis.basis]
    parts = (
        [np.broadcast_to(np.asarray(f), basis.dx.shape) for f in functions],
        *([f.grad[axis] for f in functions] for axis in (0, 1)),
    )
    return [csr_matrix((np.stack(part).ravel(), (rows, columns)), shape) for part in parts]


class WakeSolver:
    """Solver with Taylor-Hood elements Q2/Q1, implicit Stokes operator and explicit advection.

    The scheme is of third order in space for the velocity and of second order for the pressure. It
    is of second order in time by backward differences (SBDF2: Ascher, Ruuth and Wetton,
    "Implicit-explicit methods for time-dependent partial differential equations", 1995), with one
    initial step of first order. Velocity and pressure are solved for together, so that there is no
    splitting error. The matrix is constant and factored once for each case. The scheme is stable for
    time steps below about 0.17 arc / (1.5 inflow * H / (H - 2 radius)), where arc is the length of an
    edge on the cylinder. The viscous term imposes no limit.

    The flow starts at rest. While it travels the first two diameters, the inflow increases, and the
    surface of the cylinder rotates and stops again. The rotation breaks the symmetry, so that vortex
    shedding starts early.

    Each rank owns the same number of elements, ordered along x. The result depends on the number of
    ranks only by rounding errors, which vortex shedding amplifies slowly.

    Args:
        comm: communicator whose ranks share the channel.
        case: parameters of the simulation.
        cells: elements along a quarter of the cylinder. All sizes are proportional to 1 / cells.
        interval: time between two outputs in seconds.
        substeps: time steps per interval; None: as few as the stability limit allows.
        kick: maximum speed of the cylinder's surface while it rotates, relative to the mean inflow.

    Attributes:
        stokes: solver of the linear system of each time step.
        unknowns: number of unknowns over all ranks.

    Raises:
        ValueError: there are too many ranks for the mesh, or too few cells.
    """

    def __init__(
        self,
        comm: MPI.Comm,
        case: Case,
        cells: int,
        interval: float,
        substeps: int | None = None,
        kick: float = 1.0,
    ) -> None:
        self.comm, self.case = comm, case
        self.mesh = ChannelMesh(case.cylinder, cells)
        if substeps is None:
            substeps = math.ceil(interval / longest_time_step(case, self.mesh.arc))
        self.interval, self.substeps, self.time_step = interval, substeps, interval / substeps
        self.time = 0.0
        parts = shares(comm.Get_size(), self.mesh)
        self._operators = _Operators(self.mesh, parts[comm.Get_rank()])
        self._boundary(kick)
        self._number(parts)
        self._first, self._later = (self._system(a / self.time_step) for a in (1.0, 1.5))
        self.stokes = self._later[1]
        self._start()

    def _boundary(self, kick: float) -> None:
        """Finds the nodes with prescribed velocity, and the velocity fields of inflow and rotation."""
        case, nodes = self.case, self._operators.velocity_dofs
        x, y = self.mesh.mesh.doflocs[:, nodes]
        dx, dy = x - case.center_x, y - case.center_y
        self._on_cylinder = np.abs(np.hypot(dx, dy) - case.radius) < 1e-6 * case.radius
        at_inflow = x < 1e-9
        at_wall = (y < 1e-9) | (y > HEIGHT - 1e-9)
        self._free = np.nonzero(~(self._on_cylinder | at_inflow | at_wall))[0]
        self._inflow = np.zeros((2, len(nodes)))
        self._inflow[0] = np.where(at_inflow, 6.0 * case.inflow * y * (HEIGHT - y) / HEIGHT**2, 0.0)
        turn = np.where(self._on_cylinder, kick * case.inflow / case.radius, 0.0)
        self._turning = np.stack([-turn * dy, turn * dx])

    def _prescribed(self, time: float) -> Field:
        """Returns the prescribed velocity (2, n), 0 at nodes where it is not prescribed."""
        passed = min(time / (RAMP * self.case.time_unit), 1.0)
        rise = math.sin(0.5 * math.pi * passed) ** 2
        turn = math.sin(math.pi * passed) ** 2 if passed < 1.0 else 0.0
        return rise * self._inflow + turn * self._turning

    def _number(self, parts: list[NDArray[np.int64]]) -> None:
        """Numbers the unknowns (u, v, p) that several ranks share, consistently on all ranks."""
        mesh, ops = self.mesh.mesh, self._operators
        self._nodes, self._vertices = mesh.doflocs.shape[1], mesh.nvertices
        touched = np.zeros(self._nodes, int)
        node_numbers = Basis(mesh, ElementQuad2(), intorder=1).element_dofs
        for part in parts:
            touched[np.unique(node_numbers[:, part])] += 1
        fixed = np.zeros(self._nodes, bool)
        x, y = mesh.doflocs
        distance = np.hypot(x - self.case.center_x, y - self.case.center_y)
        fixed |= np.abs(distance - self.case.radius) < 1e-6 * self.case.radius
        fixed |= (x < 1e-9) | (y < 1e-9) | (y > HEIGHT - 1e-9)
        velocities = np.nonzero((touched > 1) & ~fixed)[0]
        # Vertices have the same numbers in the quadratic and the linear elements.
        pressures = np.nonzero(touched[: self._vertices] > 1)[0]
        every = np.concatenate([velocities, velocities + self._nodes, pressures + 2 * self._nodes])
        free = ops.velocity_dofs[self._free]
        mine = np.concatenate([free, free + self._nodes, ops.pressure_dofs + 2 * self._nodes])
        shared = np.nonzero(np.isin(mine, every))[0]
        self._shared, self._place = shared, np.searchsorted(every, mine[shared])
        self._shared_count = len(every)
        self.unknowns = int(2 * (~fixed).sum() + self._vertices)

    def _system(self, rate: float) -> tuple[csr_matrix, SubstructuredSolver]:
        """Returns the momentum matrix with `rate` times the mass matrix, and the solver of the system."""
        ops, free = self._operators, self._free
        momentum = (rate * ops.mass + self.case.viscosity * ops.stiffness).tocsr()
        inner = momentum[free][:, free]
        bx, by = (-b[:, free] for b in ops.divergence)
        matrix = bmat([[inner, None, bx.T], [None, inner, by.T], [bx, by, None]])
        return momentum, SubstructuredSolver(
            self.comm, matrix, self._shared, self._place, self._shared_count
        )

    def _start(self) -> None:
        n = len(self._operators.velocity_dofs)
        self.velocity = np.zeros((2, n))
        self.pressure = np.zeros(len(self._operators.pressure_dofs))
        self._earlier: Field | None = None
        self._advection = self._earlier_advection = np.zeros((2, n))
        self._residual = np.zeros((2, int(self._on_cylinder.sum())))

    def step(self) -> None:
        """Advances the solution by one time step."""
        ops, free, dt = self._operators, self._free, self.time_step
        if self._earlier is None:
            (momentum, solver), history, advection = (
                self._first,
                self.velocity / dt,
                self._advection,
            )
        else:
            momentum, solver = self._later
            history = (2.0 * self.velocity - 0.5 * self._earlier) / dt
            advection = 2.0 * self._advection - self._earlier_advection
        self.time += dt
        given = self._prescribed(self.time)
        right = (ops.mass @ history.T).T - advection
        lifted = right - (momentum @ given.T).T
        divergence = ops.divergence[0] @ given[0] + ops.divergence[1] @ given[1]
        unknown = solver.solve(np.concatenate([lifted[0, free], lifted[1, free], divergence]))

        self._earlier, self.velocity = self.velocity, given
        self.velocity[0, free], self.velocity[1, free] = unknown[: 2 * len(free)].reshape(2, -1)
        self.pressure = unknown[2 * len(free) :]
        self._earlier_advection, self._advection = self._advection, ops.advection(self.velocity)
        self._last = (momentum, right)

    def advance(self) -> None:
        """Advances the solution by one output interval.

        Raises:
            ArithmeticError: the solution is not finite.
        """
        for _ in range(self.substeps):
            self.step()
        if not self.comm.allreduce(bool(np.isfinite(self.velocity).all()), MPI.LAND):
            message = (
                f"the flow blew up before {self.time:g} s: the time step {self.time_step:g} s is too "
                f"long for its velocity; more than {self.substeps} substeps are needed"
            )
            raise ArithmeticError(message)

    def coefficients(self) -> tuple[float, float]:
        """Returns drag and lift coefficient after the last step: 2 force / (inflow^2 * 2 radius).

        The force is the residual of the equations at the nodes of the cylinder, which is more
        accurate than the stress on the surface (John and Matthies, "Higher-order finite element
        discretizations in a benchmark problem for incompressible flows", 2001).
        """
        momentum, right = self._last
        rows = self._on_cylinder
        residual = right[:, rows] - (momentum[rows] @ self.velocity.T).T
        for axis, divergence in enumerate(self._operators.divergence):
            residual[axis] += divergence[:, rows].T @ self.pressure
        force = self.comm.allreduce(residual.sum(axis=1))
        scale = self.case.inflow**2 * self.case.radius
        return float(force[0] / scale), float(force[1] / scale)

    def nodal(self, names: list[str]) -> list[Field]:
        """Returns fields at all nodes of the whole mesh; the pressure at its vertices."""
        ops = self._operators
        sums = []
        for name in names:
            pressure = name == "pressure"
            numbers = ops.pressure_dofs if pressure else ops.velocity_dofs
            whole = np.zeros((2, self._vertices if pressure else self._nodes))
            if name == "vorticity":
                whole[:, numbers] = ops.vorticity(self.velocity), ops.lumped_mass
            elif pressure:
                whole[:, numbers] = self.pressure, np.ones(len(numbers))
            else:
                component = self.velocity[1 if name == "velocity_y" else 0]
                whole[:, numbers] = component, np.ones(len(numbers))
            sums.append(whole)
        # Values of several ranks are averaged. The vorticity is a projection with lumped mass.
        together = np.concatenate(sums, axis=1)
        self.comm.Allreduce(MPI.IN_PLACE, together)
        ends = np.cumsum([whole.shape[1] for whole in sums])[:-1]
        return np.split(together[0] / together[1], ends)


def shares(ranks: int, mesh: ChannelMesh) -> list[NDArray[np.int64]]:
    """Returns the elements of each rank: equal numbers, in the order of their centers along x.

    Raises:
        ValueError: there are fewer than 8 elements for each rank.
    """
    x, y = mesh.mesh.p[:, mesh.mesh.t].mean(axis=1)
    order = np.lexsort((y, np.round(x, 9)))
    if 8 * ranks > len(order):
        message = (
            f"{ranks} MPI ranks can't share the {len(order)} elements of the mesh, at least 8 each: "
            "start fewer ranks or refine the mesh"
        )
        raise ValueError(message)
    return [np.sort(order[slice(*split(len(order), ranks, r))]) for r in range(ranks)]


def longest_time_step(case: Case, arc: float) -> float:
    """Returns a time step in seconds slightly below the stability limit.

    The limit was determined empirically for Reynolds numbers up to 200.
    """
    fastest = 1.5 * case.inflow * HEIGHT / (HEIGHT - 2.0 * case.radius)
    return 0.16 * arc / fastest


class RegularMesh:
    """Regular mesh of cells over the channel, partitioned along x.

    `field[i, j]` is the value at the cell center x = (i + 1/2) 2.2 / nx, y = (j + 1/2) 0.41 / ny.
    Inside the cylinder all fields are 0.

    Args:
        comm: communicator of the ranks.
        shape: nx, ny.

    Raises:
        ValueError: there are more ranks than cells along x.
    """

    def __init__(self, comm: MPI.Comm, shape: tuple[int, int]) -> None:
        self.shape = shape
        first, last = split(shape[0], comm.Get_size(), comm.Get_rank())
        if comm.Get_size() > shape[0]:
            message = f"{comm.Get_size()} MPI ranks can't share a mesh of {shape[0]} cells along x"
            raise ValueError(message)
        self.start, self.extent = (first, 0), (last - first, shape[1])
        x = (np.arange(first, last) + 0.5) * (LENGTH / shape[0])
        y = (np.arange(shape[1]) + 0.5) * (HEIGHT / shape[1])
        self._points = np.stack(np.meshgrid(x, y, indexing="ij")).reshape(2, -1)

    def sampler(self, mesh: ChannelMesh) -> tuple[csr_matrix, csr_matrix]:
        """Returns matrices from quadratic and from linear nodal values to this rank's cells."""
        cylinder = mesh.cylinder
        dx, dy = self._points[0] - cylinder.x, self._points[1] - cylinder.y
        outside = np.nonzero(np.hypot(dx, dy) > cylinder.radius)[0]
        points = self._points[:, outside]
        elements = mesh.locate(points)
        mapping = mesh.mesh.mapping()
        local = mesh.coordinates(points, elements)
        found = []
        for element in (ElementQuad2(), ElementQuad1()):
            numbers = Basis(mesh.mesh, element, intorder=1).element_dofs
            values = [
                np.asarray(element.gbasis(mapping, local, i, tind=elements)[0]).ravel()
                for i in range(len(numbers))
            ]
            places = (np.tile(outside, len(numbers)), numbers[:, elements].ravel())
            shape = (self._points.shape[1], int(numbers.max()) + 1)
            found.append(coo_matrix((np.concatenate(values), places), shape).tocsr())
        return found[0], found[1]

    def sample(
        self, names: list[str], solver: WakeSolver, sampler: tuple[csr_matrix, csr_matrix]
    ) -> dict[str, Field]:
        """Returns this rank's cells (ni, ny) of each named field."""
        return {
            name: (sampler[1 if name == "pressure" else 0] @ values).reshape(self.extent)
            for name, values in zip(names, solver.nodal(names), strict=True)
        }
