"""The leading singular vectors of a matrix: the directions in which new units gain most."""

from __future__ import annotations

import torch
from torch import Tensor

_FULL = 768
_ITERATIONS = 3


def leading(matrix: Tensor, count: int, threshold: float = 1e-6) -> tuple[Tensor, Tensor, Tensor]:
    """The first `count` singular triplets (left [rows, k], sigma [k], right [k, columns]), fewer where the rank is lower.

    Singular values up to `threshold` times the largest count as 0. Of matrices whose smaller side is above 768, where a full
    decomposition would take minutes, and a half of it at most is asked for, a randomised subspace iteration (Halko, Martinsson,
    Tropp 2011, algorithm 4.4) finds the triplets: its vectors are exactly orthonormal and its sigma the exact norms of the
    matrix times the right vectors, but vectors of nearly equal singular values may be mixed.
    """
    with torch.autocast(matrix.device.type, enabled=False):
        if min(matrix.shape) <= _FULL or 2 * count > min(matrix.shape):
            left, sigma, right = _by_products(matrix, count) if matrix.dtype == torch.float64 else _decomposed(matrix)
        else:
            left, sigma, right = _randomised(matrix, count)
    eps = torch.finfo(matrix.dtype).eps * max(matrix.shape)
    kept = min(int((sigma > sigma[:1] * max(threshold, eps)).sum()), count)
    return left[:, :kept], sigma[:kept], right[:kept]


def _decomposed(matrix: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    left, sigma, right = torch.linalg.svd(matrix, full_matrices=False)
    return left, sigma, right


def _by_products(matrix: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """By the spectrum of the smaller of A^T A and A A^T: several times faster, vectors exact to 1e-16 / (sigma / sigma_1)^2."""
    if matrix.shape[0] < matrix.shape[1]:
        right, sigma, left = _by_products(matrix.T, count)
        return left.T, sigma, right.T
    vectors = torch.linalg.eigh(matrix.T @ matrix).eigenvectors[:, -count:].flip(1)
    products = matrix @ vectors
    sigma = products.norm(dim=0)
    return products / sigma.clamp(min=torch.finfo(matrix.dtype).tiny), sigma, vectors.T


def _randomised(matrix: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    width = min(count + max(16, count // 8), *matrix.shape)
    start = torch.randn(matrix.shape[1], width, generator=torch.Generator().manual_seed(0)).to(matrix)
    basis = torch.linalg.qr(matrix @ start).Q
    for _ in range(_ITERATIONS):
        basis = torch.linalg.qr(matrix @ torch.linalg.qr(matrix.T @ basis).Q).Q
    left, _, right = torch.linalg.svd(basis.T @ matrix, full_matrices=False)
    products = matrix @ right.T
    sigma = products.norm(dim=0)
    order = sigma.argsort(descending=True, stable=True)
    return (basis @ left)[:, order], sigma[order], right[order]
