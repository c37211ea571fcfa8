"""Which dimension of a parameter each dimension of an optimizer's state belongs to.

The shapes alone may leave several answers: the state of an 8x8 weight may be a momentum, or a matrix over its rows. What the same
entry looks like for the optimizer's other parameters decides, then the numbers: momenta are neither symmetric nor orthogonal.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable, Sequence

import torch
from torch import Tensor

Layout = tuple[int | None, ...]
"""For each dimension of the state the parameter's dimension, or None where it has none."""

SAME, FLAT, FACTORED, CONSTANT, HISTORY = "same", "flat", "factored", "constant", "history"


def kinds_of(value: Sequence[int], shape: Sequence[int]) -> frozenset[str]:
    """The ways in which a state of the shape `value` may belong to a parameter of the shape `shape`."""
    value, shape = tuple(value), tuple(shape)
    n = len(shape)
    found = {
        SAME: value == shape,
        FLAT: value == (math.prod(shape),),
        FACTORED: value != shape and len(value) == n and all(v in (1, s) for v, s in zip(value, shape, strict=True)),
        CONSTANT: math.prod(value) == 1,
        HISTORY: len(value) == n + 1 and value[1:] == shape,
        "without last": n > 1 and value == shape[:-1],
        "without second last": n > 1 and value == (*shape[:-2], shape[-1]),
    }
    found |= {f"matrix {i}": value == (s, s) for i, s in enumerate(shape)}
    found |= {f"vector {i}": n > 1 and value == (s,) for i, s in enumerate(shape)}
    return frozenset(kind for kind, fits in found.items() if fits)


def layout_of(kind: str, value: Sequence[int], ndim: int) -> Layout:
    """The dimensions that a kind stands for; `FLAT` has those of the parameter, since the state is unfolded first."""
    every = tuple(range(ndim))
    if kind in (SAME, FLAT):
        return every
    if kind == FACTORED:
        return tuple(None if v == 1 else i for i, v in enumerate(value))
    if kind == CONSTANT:
        return (None,) * len(value)
    if kind == HISTORY:
        return (None, *every)
    if kind.startswith("without"):
        return every[:-1] if kind == "without last" else (*every[:-2], every[-1])
    dim = int(kind.split()[1])
    return (dim, dim) if kind.startswith("matrix") else (dim,)


def common_kinds(entries: Iterable[tuple[Sequence[int], Sequence[int]]]) -> frozenset[str]:
    """The kinds that fit all pairs of a state's and its parameter's shape."""
    sets = [kinds_of(value, shape) for value, shape in entries]
    return frozenset.intersection(*sets) if sets else frozenset()


def choose(
    key: str, value: Tensor, shape: Sequence[int], common: Collection[str], *, usual: bool, changing: Collection[int]
) -> str | None:
    """The kind of one state; None where it cannot be told.

    Args:
        key: name of the state; a number at its end, or its place in a list, is the dimension of a matrix.
        value: the state.
        shape: its parameter's shape.
        common: the kinds that fit all parameters.
        usual: the key is one that all optimizers use for a state of the parameter's own shape.
        changing: the parameter's dimensions that change; what differs in the others only is no question.
    """
    mine = kinds_of(value.shape, shape)
    kinds = sorted((mine & set(common)) or mine)
    if usual and SAME in kinds:
        return SAME
    if SAME in kinds and FLAT in kinds:
        kinds.remove(FLAT)
    square = [k for k in kinds if k.startswith("matrix")]
    if SAME in kinds and square:
        kinds = square if is_preconditioner(value) else [SAME]
    number = re.search(r"(\d+)\]?$", key)
    if number and f"matrix {number[1]}" in kinds:
        kinds = [f"matrix {number[1]}"]
    if HISTORY in kinds and len(kinds) > 1:
        kinds.remove(HISTORY)
    meanings = {_meaning(k, value.shape, len(shape), changing) for k in kinds}
    return kinds[0] if len(meanings) == 1 else None


def _meaning(kind: str, value: Sequence[int], ndim: int, changing: Collection[int]) -> tuple[bool, Layout]:
    layout = tuple(d if d in changing else None for d in layout_of(kind, value, ndim))
    return kind == FLAT and bool(changing), layout


def is_orthogonal(matrix: Tensor) -> bool:
    """Whether the columns are orthonormal, up to rounding."""
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or not matrix.is_floating_point():
        return False
    wide = matrix.detach().double() if matrix.device.type != "mps" else matrix.detach().float()
    return bool((wide.mT @ wide - torch.eye(len(wide), dtype=wide.dtype, device=wide.device)).abs().max() < 1e-2)


def is_preconditioner(matrix: Tensor) -> bool:
    """Whether a square matrix is symmetric (statistics, and roots of them) or orthogonal (their eigenvectors)."""
    scale = float(matrix.detach().abs().max())
    symmetric = scale > 0 and float((matrix - matrix.mT).detach().abs().max()) <= 1e-3 * scale
    return symmetric or is_orthogonal(matrix)
