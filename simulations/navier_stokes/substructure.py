"""Direct solver for sparse systems whose matrix is a sum over MPI ranks.

Each rank holds the part of the matrix that its elements contribute. Interior unknowns, which belong
to one rank only, are eliminated by a local sparse LU factorization. The remaining Schur complement
for the shared unknowns is a small dense system (Przemieniecki, "Matrix structural analysis of
substructures", 1963). The result is the direct solution for any number of ranks.
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
    """Factors a matrix once, for many solves.

    A solve needs one Allreduce of the shared unknowns, one sparse solve for the interior unknowns of
    this rank, and two products with a dense matrix of size interior by shared. The factorization
    needs one sparse solve for each shared unknown of this rank.

    Args:
        comm: communicator of the ranks.
        matrix: this rank's part, (n, n) in local numbering, with a symmetric pattern.
        shared: local numbers of the unknowns that other ranks share, (s,).
        place: their numbers among all shared unknowns, (s,), consistent on all ranks.
        count: total number of shared unknowns.

    Attributes:
        size: number n of unknowns of this rank.
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
        # Symmetric ordering with little pivoting: one third less fill-in for saddle point problems than column
        # ordering.
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
        """Returns this rank's unknowns (n,). `right` is this rank's contribution to the right-hand side."""
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
