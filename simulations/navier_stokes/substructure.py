"""A direct solver for sparse systems whose matrix is a sum over MPI ranks.

Each rank holds the part of the matrix that its own elements make. Unknowns of one rank alone are
eliminated by a sparse LU of its own; what remains is a small dense system for the unknowns that
ranks share, the Schur complement (Przemieniecki, "Matrix structural analysis of substructures",
1963). The result is the direct solution, whatever the number of ranks.
"""

import numpy as np
from mpi4py import MPI
from numpy.typing import NDArray
from scipy.linalg import lu_factor, lu_solve
from scipy.sparse import csc_matrix, sparray, spmatrix
from scipy.sparse.linalg import splu

__all__ = ["SubstructuredSolver"]

Vector = NDArray[np.float64]


class SubstructuredSolver:
    """Factors once, solves often.

    A solve costs one Allreduce of the shared unknowns, one sparse solve with this rank's own and
    two products with a dense matrix, own by shared; building it costs one sparse solve for each
    unknown that this rank shares.

    Args:
        comm: communicator of the ranks.
        matrix: this rank's part, (n, n) in its own numbering; symmetric pattern.
        shared: this rank's unknowns that other ranks have too, (s,).
        place: their places among all shared unknowns, (s,), the same on every rank.
        count: number of all shared unknowns.

    Attributes:
        size: n.
    """

    def __init__(
        self,
        comm: MPI.Comm,
        matrix: spmatrix | sparray,
        shared: NDArray[np.int64],
        place: NDArray[np.int64],
        count: int,
    ) -> None:
        self._comm = comm
        self._shared, self._place, self._count = shared, place, count
        self.size = matrix.shape[0]
        own = np.ones(self.size, bool)
        own[shared] = False
        self._own = np.nonzero(own)[0]
        rows = matrix.tocsr()[self._own]
        # Symmetric pattern, little pivoting: for saddle points a third less fill than by columns.
        self._lu = splu(
            csc_matrix(rows[:, self._own]),
            permc_spec="MMD_AT_PLUS_A",
            diag_pivot_thresh=0.01,
            options={"SymmetricMode": True},
        )
        if count:
            below = matrix.tocsr()[shared]
            self._back = self._lu.solve(rows[:, shared].toarray())
            self._down = below[:, self._own].tocsr()
            schur = np.zeros((count, count))
            schur[np.ix_(place, place)] = below[:, shared].toarray() - self._down @ self._back
            comm.Allreduce(MPI.IN_PLACE, schur)
            self._schur = lu_factor(schur)

    def solve(self, right: Vector) -> Vector:
        """Returns this rank's unknowns (n,); `right` is its part of the right side, a summand."""
        result = np.empty_like(right)
        own = self._lu.solve(right[self._own])
        if self._count:
            sums = np.zeros(self._count)
            sums[self._place] = right[self._shared] - self._down @ own
            self._comm.Allreduce(MPI.IN_PLACE, sums)
            result[self._shared] = lu_solve(self._schur, sums)[self._place]
            own -= self._back @ result[self._shared]
        result[self._own] = own
        return result
