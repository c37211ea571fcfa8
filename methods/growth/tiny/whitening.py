"""Inverse roots of second moments, and what is solved with them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Whitening:
    """W with W W^T the inverse of a second moment: of its Cholesky factor L, W = L^-T; or of its spectrum, W = V lambda^(-1/2).

    Attributes:
        factor: L, or W itself.
        triangular: which of them.
    """

    factor: Tensor
    triangular: bool

    @staticmethod
    def of(moment: Tensor, ridge: float, entries: int | None = None) -> Whitening:
        """That of a moment (its lower triangle) plus a ridge; where rounding makes it indefinite, without what is below it.

        The ridge is relative to the mean eigenvalue.

        Args:
            moment: [k, k]; the ridge is added in place.
            ridge: at least ten times the rounding error of the moment's type is taken.
            entries: how many eigenvalues there are, with those of 0 that `moment` leaves out; k by default.
        """
        mean = float((moment.diagonal().sum() / (entries or len(moment))).clamp(min=1e-30))
        ridge = max(ridge, 10 * torch.finfo(moment.dtype).eps) * mean
        moment.diagonal().add_(ridge)
        factor, failed = torch.linalg.cholesky_ex(moment)
        if int(failed) == 0:
            return Whitening(factor, True)
        values, vectors = torch.linalg.eigh(moment, UPLO="L")
        values -= ridge
        kept = values > ridge
        return Whitening(vectors[:, kept] * values[kept].rsqrt(), False)

    def left(self, matrix: Tensor) -> Tensor:
        """W^T matrix; a contiguous `matrix` may be overwritten with it."""
        if not self.triangular:
            return self.factor.T @ matrix
        if not matrix.is_contiguous():
            return torch.linalg.solve_triangular(self.factor, matrix, upper=False)
        torch.linalg.solve_triangular(self.factor.T, matrix.T, upper=True, left=False, out=matrix.T)
        return matrix

    def back(self, matrix: Tensor) -> Tensor:
        """The product W matrix, [k, columns]."""
        return torch.linalg.solve_triangular(self.factor.T, matrix, upper=True) if self.triangular else self.factor @ matrix


def solved(moment: Tensor, right: Tensor, ridge: float, entries: int | None = None) -> Tensor:
    """The inverse of a second moment, with a ridge that is added in place as in `Whitening.of`, times `right`."""
    whitening = Whitening.of(moment, ridge, entries)
    return whitening.back(whitening.left(right.to(moment.dtype, copy=True)))
