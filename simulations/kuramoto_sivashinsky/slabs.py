"""Fourier transforms of real 2-D fields that are distributed over MPI ranks in slabs.

A field of n x n points is partitioned along x, its Fourier coefficients along y. One transform
needs one all-to-all exchange. Only the coefficients that the 2/3 rule keeps are stored, so that
communication and computation are less than two thirds of those of a full transform.
"""

from typing import NamedTuple

import numpy as np
from mpi4py import MPI
from numpy.typing import NDArray
from scipy.fft import fft, ifft, irfft, rfft

__all__ = ["SlabTransform", "split"]

Field = NDArray[np.float64]
Spectrum = NDArray[np.complex128]


def split(count: int, parts: int, part: int) -> tuple[int, int]:
    """Splits `range(count)` into parts whose sizes differ by at most one; returns both ends of one."""
    return count * part // parts, count * (part + 1) // parts


class _Exchange(NamedTuple):
    """Buffers and MPI types for one batch size."""

    lines: Spectrum
    columns: Spectrum
    from_lines: list[MPI.Datatype]
    from_columns: list[MPI.Datatype]


class SlabTransform:
    """Transforms batches of b fields (b, ni, n) to coefficients (b, 2K + 1, mj) and back.

    ni is this rank's part of the n points along x, mj its part of the K + 1 wave numbers along y.
    K = (n - 1) // 3 is the largest wave number with 3 K < n. Pointwise products of two fields then
    have no aliasing error (Orszag, "On the elimination of aliasing in finite-difference schemes by
    filtering high-wavenumber components", 1971). Along x the wave numbers are 0..K, -K..-1. Along y
    only 0..K are stored, because the field is real.

    The field is the sum of coefficient * exp(i k.x): a forward transform divides by n^2. Data are
    exchanged with MPI subarray types (Dalcin, Mortensen and Keyes, "Fast parallel multidimensional
    FFT using advanced MPI", 2019).

    Args:
        comm: communicator whose ranks share the field.
        points: number of points n along each axis.

    Raises:
        ValueError: fewer than 4 points, or more ranks than wave numbers.
    """

    def __init__(self, comm: MPI.Comm, points: int) -> None:
        if points < 4:
            message = f"the resolution is {points} points along each axis: it needs at least 4"
            raise ValueError(message)
        self.comm = comm
        self.points = points
        self.cutoff = (points - 1) // 3
        ranks, rank = comm.Get_size(), comm.Get_rank()
        if ranks > self.cutoff + 1:
            message = (
                f"{ranks} MPI ranks can't share the {self.cutoff + 1} wave numbers of {points} x "
                f"{points} points: start fewer ranks or refine the resolution"
            )
            raise ValueError(message)
        self._all_rows = [split(points, ranks, r) for r in range(ranks)]
        self._all_columns = [split(self.cutoff + 1, ranks, r) for r in range(ranks)]
        self.rows = self._all_rows[rank]
        self.columns = self._all_columns[rank]
        self._exchanges: dict[int, _Exchange] = {}

    @property
    def wave_numbers(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Wave numbers of this rank's coefficients, along x as (2K + 1, 1), along y as (1, mj)."""
        kx = np.arange(2 * self.cutoff + 1)
        kx[self.cutoff + 1 :] -= 2 * self.cutoff + 1
        return kx[:, None], np.arange(*self.columns)[None, :]

    def forward(self, fields: Field) -> Spectrum:
        """Returns the coefficients (b, 2K + 1, mj) of fields (b, ni, n)."""
        exchange = self._exchange(len(fields))
        lines = rfft(fields, axis=2, norm="forward")[:, :, : self.cutoff + 1]
        if self.comm.Get_size() == 1:
            columns = lines
        else:
            exchange.lines[...] = lines
            columns = exchange.columns
            self._move(exchange.lines, exchange.from_lines, columns, exchange.from_columns)
        whole = fft(columns, axis=1, norm="forward")
        return np.concatenate(
            [whole[:, : self.cutoff + 1], whole[:, self.points - self.cutoff :]], axis=1
        )

    def inverse(self, spectra: Spectrum) -> Field:
        """Returns the fields (b, ni, n) of coefficients (b, 2K + 1, mj)."""
        exchange = self._exchange(len(spectra))
        columns = exchange.columns
        columns[:, : self.cutoff + 1] = spectra[:, : self.cutoff + 1]
        columns[:, self.cutoff + 1 : self.points - self.cutoff] = 0.0
        columns[:, self.points - self.cutoff :] = spectra[:, self.cutoff + 1 :]
        lines = ifft(columns, axis=1, norm="forward")
        if self.comm.Get_size() > 1:
            self._move(lines, exchange.from_columns, exchange.lines, exchange.from_lines)
            lines = exchange.lines
        return irfft(lines, n=self.points, axis=2, norm="forward")

    def _move(
        self,
        source: Spectrum,
        source_types: list[MPI.Datatype],
        target: Spectrum,
        target_types: list[MPI.Datatype],
    ) -> None:
        ones, zeros = [1] * len(source_types), [0] * len(source_types)
        self.comm.Alltoallw(
            [source, ones, zeros, source_types], [target, ones, zeros, target_types]
        )

    def _exchange(self, batch: int) -> _Exchange:
        """Returns the buffers and types for a batch size. They are created at the first call."""
        if batch not in self._exchanges:
            lines = (batch, self.rows[1] - self.rows[0], self.cutoff + 1)
            columns = (batch, self.points, self.columns[1] - self.columns[0])
            several = self.comm.Get_size() > 1
            self._exchanges[batch] = _Exchange(
                np.empty(lines if several else 0, np.complex128),
                np.empty(columns, np.complex128),
                [_part(lines, 2, ends) for ends in self._all_columns] if several else [],
                [_part(columns, 1, ends) for ends in self._all_rows] if several else [],
            )
        return self._exchanges[batch]

    def close(self) -> None:
        """Frees the MPI types. Must be called on every rank before MPI is finalized."""
        for exchange in self._exchanges.values():
            for kind in (*exchange.from_lines, *exchange.from_columns):
                kind.Free()
        self._exchanges.clear()


def _part(shape: tuple[int, int, int], axis: int, ends: tuple[int, int]) -> MPI.Datatype:
    """Returns the MPI subarray type of a range along one axis."""
    sizes, starts = list(shape), [0, 0, 0]
    sizes[axis], starts[axis] = ends[1] - ends[0], ends[0]
    return MPI.DOUBLE_COMPLEX.Create_subarray(shape, sizes, starts).Commit()
