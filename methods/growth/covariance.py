"""Second moments of what two layers multiply their rows with, and what is solved with them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from methods.growth.cross_moment import add_cross_moment, blocks, moment_shape, sum_dtype
from methods.growth.linearised import Linearised
from methods.growth.sweep import View
from methods.growth.unfold import unfolded, unfolded_back
from methods.ranks import ALONE, Ranks

NARROW = 1024
"""Largest input of a linear consumer whose cross moment with the producer's input is taken along."""


def inputs_of(module: nn.Module, inputs: Tensor, bias: bool) -> Tensor:
    """[entries of a row (with a bias one more, all ones), samples and positions]."""
    found = unfolded(module, inputs).flatten(1)
    return torch.cat([found, found.new_ones(1, found.shape[1])]) if bias else found


@dataclass
class Moments:
    """Sums over samples at one site.

    With x the unfolded inputs of the producer (and 1 where new rows have a bias), h those of the consumer (and 1 where it has a
    bias), g the gradient at its output:

    Attributes:
        bias: whether new rows of the producer have a bias of their own to choose.
        cross: sum of x times g seen back through the consumer's taps and the path, [x, outgoing weights of a unit].
        before: sum of w x x^T over positions of the producer's output, w the number of the consumer's taps that read a position
            (times the square of the path's derivative, which is the derivative itself for ReLU), [x, x], lower triangle.
        mean: sum of x over positions, unweighted, [x].
        positions: how many of them.
        plain: sum of x x^T, unweighted, where a BatchNorm lies between; else None.
        behind: sum of h h^T, [h, h], lower triangle; None when not wanted.
        product: sum of h g^T, [h, out]; None when not wanted.
        between: of a narrow linear consumer the cross moment with h in the place of g, [x, h and taps]; else None.
    """

    bias: bool
    cross: Tensor
    before: Tensor
    mean: Tensor
    positions: int
    plain: Tensor | None
    behind: Tensor | None
    product: Tensor | None
    between: Tensor | None

    @staticmethod
    def of(view: View, bias: bool, existing: bool) -> Moments:
        """All zero; `existing` says whether those of the consumer's own weights are wanted."""
        rows, columns = moment_shape(view.producer, view.consumer, view.site.taps)
        rows, own = rows + bias, view.consumer.weight[0].numel() + (view.consumer.bias is not None)

        def zeros(*shape: int) -> Tensor:
            dtype = sum_dtype(torch.Size(shape).numel(), view.before.dtype)
            return torch.zeros(shape, dtype=dtype, device=view.before.device)

        plain = zeros(rows, rows) if view.site.batch_norm is not None else None
        behind, product = (zeros(own, own), zeros(own, len(view.consumer.weight))) if existing else (None, None)
        narrow = existing and isinstance(view.consumer, nn.Linear) and own * view.site.taps <= NARROW
        between = zeros(rows, own * view.site.taps) if narrow else None
        return Moments(bias, zeros(rows, columns), zeros(rows, rows), zeros(rows), 0, plain, behind, product, between)

    def add(self, view: View, path: Linearised, ranks: Ranks = ALONE) -> None:
        """Those of some more samples."""
        add_cross_moment(self.cross, view, path)
        size, mixed = view.before.element_size(), _mixed(view, path, ranks)
        for part in blocks(len(view.before), len(self.before) * view.shape[2:].numel() * size * 2):
            x = inputs_of(view.producer, view.before[part], self.bias)
            _add_lower(self.before, x * _coverage(view, path, part, mixed), x)
            self.mean += x.sum(1).to(self.mean)
            self.positions += x.shape[1]
            if self.plain is not None:
                self.plain += (x @ x.T).to(self.plain)
        if self.behind is None or self.product is None:
            return
        for part in blocks(len(view.behind), len(self.behind) * view.gradient.shape[2:].numel() * size):
            h = inputs_of(view.consumer, view.behind[part], view.consumer.bias is not None)
            _add_lower(self.behind, h, h)
            g = view.gradient[part].movedim(1, 0).reshape(view.gradient.shape[1], -1)
            self.product += (h @ g.T).to(self.product)
        if self.between is not None:
            add_cross_moment(self.between, view, path, inputs_of(view.consumer, view.behind, view.consumer.bias is not None).T)

    def sum(self, ranks: Ranks) -> None:
        """Make them those of the samples of all ranks."""
        found = (self.cross, self.before, self.mean, self.plain, self.behind, self.product, self.between)
        ranks.sum(*(t for t in found if t is not None))
        self.positions = ranks.count(self.positions)


def _add_lower(total: Tensor, left: Tensor, right: Tensor) -> None:
    """Add left right^T, which is symmetric, to the lower triangle (and to some of the upper one)."""
    size = max(64, -(-len(total) // 6))
    for start in range(0, len(total), size):
        stop = min(start + size, len(total))
        total[start:stop, :stop] += (left[start:stop] @ right[:stop].T).to(total)


def _coverage(view: View, path: Linearised, part: slice, mixed: Tensor | None) -> Tensor:
    """How much the consumer reads of each sample and position of the producer's output: [samples and positions of `part`]."""
    if path.diagonal is None:
        assert mixed is not None
        return mixed.expand(part.stop - part.start, *mixed.shape).reshape(-1)
    derivative = path.diagonal[part]
    return (_read(view, path)[part] * (derivative.square() if path.exact else derivative)).reshape(-1)


def _read(view: View, path: Linearised) -> Tensor:
    """How many of the consumer's taps read each sample and position of its input: [n, 1, positions...]."""
    if isinstance(view.consumer, nn.Linear):
        taps = view.site.taps
        return view.behind.new_ones(len(view.before), 1, *([taps] if len(path.shape) == 2 and taps > 1 else []))
    one = view.gradient[:, :1].new_ones(1, 1, *view.gradient.shape[2:])
    read = unfolded_back(view.consumer, one, path.shape).sum((0, 1)).unsqueeze(1)
    return read.expand(len(view.before), *read.shape[1:])


def _mixed(view: View, path: Linearised, ranks: Ranks) -> Tensor | None:
    """Coverage of each position through a path that mixes them; None for others.

    It is a mean over units and samples, as each unit may take another position (max-pooling); over those of all ranks where these
    have one draw of random points together.
    """
    if path.diagonal is not None:
        return None
    read = _read(view, path)
    pulled = path.pull(read.expand(-1, view.site.size, *read.shape[2:]).contiguous())
    if view.drawn is None:
        return pulled.mean((0, 1))
    total = pulled.sum((0, 1))
    ranks.sum(total)
    return total / (view.drawn[1] * pulled.shape[1])


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
    def of(moment: Tensor, ridge: float) -> Whitening:
        """That of a moment (its lower triangle) plus a ridge; where rounding makes it indefinite, without what is below it.

        The ridge is relative to the mean eigenvalue.
        """
        ridge = max(ridge, 10 * torch.finfo(moment.dtype).eps) * float(moment.diagonal().mean().clamp(min=1e-30))
        shifted = moment.clone()
        shifted.diagonal().add_(ridge)
        factor, failed = torch.linalg.cholesky_ex(shifted)
        if int(failed) == 0:
            return Whitening(factor, True)
        values, vectors = torch.linalg.eigh(moment, UPLO="L")
        kept = values > ridge
        return Whitening(vectors[:, kept] * values[kept].rsqrt(), False)

    def left(self, matrix: Tensor) -> Tensor:
        """W^T matrix."""
        return torch.linalg.solve_triangular(self.factor, matrix, upper=False) if self.triangular else self.factor.T @ matrix

    def back(self, matrix: Tensor) -> Tensor:
        """W matrix."""
        return torch.linalg.solve_triangular(self.factor.T, matrix, upper=True) if self.triangular else self.factor @ matrix


def solved(moment: Tensor, right: Tensor, ridge: float) -> Tensor:
    """The inverse of a second moment, with a ridge as in `Whitening.of`, times `right`."""
    whitening = Whitening.of(moment, ridge)
    return whitening.back(whitening.left(right))
