"""Moments of what a layer multiplies its rows with and of the gradients that these are to follow."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from coppice.methods.growth.first_order.cross_moment import add_cross_moment, blocks, moment_shape, sum_dtype
from coppice.methods.growth.first_order.linearised import Linearised
from coppice.methods.growth.first_order.sweep import View
from coppice.methods.growth.first_order.unfold import unfolded, unfolded_back
from coppice.methods.ranks import ALONE, Ranks

NARROW = 1024
"""Largest input of a linear consumer whose cross moment with the producer's input is taken along."""


def inputs_of(module: nn.Module, inputs: Tensor, bias: bool) -> Tensor:
    """[entries of a row (with a bias one more, all ones), samples and positions]."""
    rows = unfolded(module, inputs).flatten(1)
    return torch.cat([rows, rows.new_ones(1, rows.shape[1])]) if bias else rows


def zeros(like: Tensor, *shape: int) -> Tensor:
    """For sums of this shape, or their factors, on the device of `like`."""
    return torch.zeros(shape, dtype=sum_dtype(torch.Size(shape).numel(), like.dtype), device=like.device)


@dataclass
class Moments:
    """Sums over samples at one site, of its producer's input and what its consumer asks of it.

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
        between: of a narrow linear consumer the cross moment with h in the place of g, [x, h and taps]; else None.
        missing: the cross moment of what the existing weights leave to be done; None before `set_missing`.
    """

    bias: bool
    cross: Tensor | None
    before: Tensor
    mean: Tensor
    positions: int
    plain: Tensor | None
    between: Tensor | None
    missing: Tensor | None = None

    @staticmethod
    def of(view: View, bias: bool, between: bool) -> Moments:
        """All zero; `between` says whether it is wanted where the consumer is narrow."""
        rows, columns, own = sizes(view, bias, between)
        made = partial(zeros, view.before)
        plain = made(rows, rows) if view.site.batch_norm is not None else None
        return Moments(bias, made(rows, columns), made(rows, rows), made(rows), 0, plain, made(rows, own) if own else None)

    @property
    def entries(self) -> int:
        """Length of x, the producer's unfolded input (with a bias one more)."""
        return len(self.before)

    def add(self, view: View, path: Linearised, ranks: Ranks = ALONE) -> None:
        """Those of some more samples."""
        assert self.cross is not None, "before `set_missing`"
        add_cross_moment(self.cross, view, path)
        size, mixed = view.before.element_size(), mixed_coverage(view, path, ranks)
        for part in blocks(len(view.before), len(self.before) * view.shape[2:].numel() * size * 2):
            self.add_inputs(inputs_of(view.producer, view.before[part], self.bias), coverage(view, path, part, mixed))
        if self.between is not None:
            add_cross_moment(self.between, view, path, behind(view))

    def add_inputs(self, x: Tensor, weights: Tensor) -> None:
        """Those of x, [x, samples and positions], of which the consumer's taps read so much."""
        add_lower(self.before, x * weights, x)
        self.mean += x.sum(1).to(self.mean)
        self.positions += x.shape[1]
        if self.plain is not None:
            self.plain += (x @ x.T).to(self.plain)

    def tensors(self) -> list[Tensor]:
        """All that is not None."""
        return [t for t in (self.cross, self.before, self.mean, self.plain, self.between) if t is not None]

    def sum(self, ranks: Ranks) -> None:
        """Make them those of the samples of all ranks."""
        ranks.sum(*self.tensors())
        self.positions = ranks.count(self.positions)

    def set_missing(self, natural: Tensor | None, taps: int, keep: bool) -> None:
        """Set `missing`, without what the step [out, h] does where `between` tells; give up the cross moment unless `keep`."""
        assert self.cross is not None, "only once"
        self.missing = -self.cross if keep else self.cross.neg_()
        self.cross = self.cross if keep else None
        if natural is not None and self.between is not None:
            done = self.between.unflatten(1, (-1, taps))
            self.missing += torch.einsum("uht,oh->uot", done, natural.to(done)).flatten(1)

    def add_done(self, view: View, path: Linearised, done: Tensor) -> None:
        """Add to `missing` what is done at the consumer's output, of the samples of `view`."""
        assert self.missing is not None, "after `set_missing`"
        add_cross_moment(self.missing, view, path, done)

    def variance(self, incoming: Tensor, mean: Tensor) -> Tensor:
        """That of units with these incoming weights and means, [units], over samples and positions."""
        assert self.plain is not None, "taken where a BatchNorm lies between"
        squares = (incoming.to(self.plain) @ self.plain).double() * incoming
        return (squares.sum(1) / max(self.positions, 1) - mean.square()).clamp(min=0.0)


def sizes(view: View, bias: bool, between: bool) -> tuple[int, int, int]:
    """Entries of x, outgoing weights of a unit, and h times taps where `between` of a narrow consumer is wanted, else 0."""
    rows, columns = moment_shape(view.producer, view.consumer, view.site.taps)
    own = (view.consumer.weight[0].numel() + (view.consumer.bias is not None)) * view.site.taps
    return rows + bias, columns, own if between and isinstance(view.consumer, nn.Linear) and own <= NARROW else 0


def behind(view: View) -> Tensor:
    """Inputs of a linear consumer, with a one where it has a bias: [n, h]."""
    return inputs_of(view.consumer, view.behind, view.consumer.bias is not None).T


def add_lower(total: Tensor, left: Tensor, right: Tensor) -> None:
    """Add left right^T, which is symmetric, to the lower triangle (and to some of the upper one)."""
    size = max(64, -(-len(total) // 6))
    for start in range(0, len(total), size):
        stop = min(start + size, len(total))
        total[start:stop, :stop] += (left[start:stop] @ right[:stop].T).to(total)


def coverage(view: View, path: Linearised, part: slice, mixed: Tensor | None) -> Tensor:
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


def mixed_coverage(view: View, path: Linearised, ranks: Ranks) -> Tensor | None:
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
