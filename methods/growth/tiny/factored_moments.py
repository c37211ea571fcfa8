"""Moments of a wide layer that few samples and positions are known of, in factors."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from coppice.methods.growth.first_order.covariance import Moments, behind, coverage, inputs_of, mixed_coverage, sizes, zeros
from coppice.methods.growth.first_order.cross_moment import blocks, seen_gradients
from coppice.methods.growth.first_order.linearised import Linearised
from coppice.methods.growth.first_order.sweep import View
from coppice.methods.ranks import ALONE, Ranks

_SAME = 1e-2
"""Largest relative difference of inputs that are the same but for rounding."""


@dataclass
class FactoredMoments:
    """What `Moments` has, as X and the factors on the right of its products, with a column for each sample and position.

    Columns are never more than the entries of x, so that this is less than the moments and no list that grows with the data:
    where there are more, `Moments` takes over. As X = Q R with orthonormal Q, all that is asked of the moments has its answer in
    the coordinates Q^T x, exactly; the moments there are `reduced`. Only for one rank: factors of several cannot be added up.

    Attributes:
        bias: whether new rows of the producer have a bias of their own to choose.
        norm: whether a BatchNorm lies between.
        inputs: X, [x, columns].
        weights: how much the consumer reads of each, [columns].
        mean: sum of the columns, [x].
        seen: gradients as outgoing weights see them, [outgoing weights of a unit, columns]; None where it is not needed any more.
        between: the same of the inputs of a narrow linear consumer, [h and taps, columns]; else None.
        missing: the same of what is left to be done; None before `set_missing`.
        count: columns that are filled.
        again: of these, the ones that the second pass was at.
    """

    bias: bool
    norm: bool
    inputs: Tensor
    weights: Tensor
    mean: Tensor
    seen: Tensor | None
    between: Tensor | None
    missing: Tensor | None = None
    count: int = 0
    again: int = 0

    @staticmethod
    def of(view: View, bias: bool, between: bool, capacity: int) -> FactoredMoments | None:
        """All zero, for so many columns; None where these are none, or more than there are entries."""
        rows, columns, own = sizes(view, bias, between)
        if not 0 < capacity <= rows:
            return None
        made = partial(zeros, view.before)
        norm = view.site.batch_norm is not None
        held = made(rows, capacity), made(capacity), made(rows), made(columns, capacity), made(own, capacity) if own else None
        return FactoredMoments(bias, norm, *held)

    @property
    def entries(self) -> int:
        """Length of x, the producer's unfolded input (with a bias one more)."""
        return len(self.inputs)

    def fits(self, view: View) -> bool:
        """Whether there are columns left for these samples."""
        return self.count + len(view.before) * view.shape[2:].numel() <= len(self.weights)

    def add(self, view: View, path: Linearised, ranks: Ranks = ALONE) -> None:
        """Those of some more samples, which must fit."""
        assert self.seen is not None, "before `set_missing`"
        each, mixed = view.shape[2:].numel(), mixed_coverage(view, path, ranks)
        for part in blocks(len(view.before), len(self.inputs) * each * view.before.element_size() * 2):
            at = slice(self.count + part.start * each, self.count + part.stop * each)
            x = inputs_of(view.producer, view.before[part], self.bias)
            self.mean += x.sum(1).to(self.mean)
            self.inputs[:, at] = x
            self.weights[at] = coverage(view, path, part, mixed)
        _add_seen(self.seen, view, path, view.gradient, self.count)
        if self.between is not None:
            _add_seen(self.between, view, path, behind(view), self.count)
        self.count += len(view.before) * each

    def tensors(self) -> list[Tensor]:
        """All that is not None."""
        return [t for t in (self.inputs, self.weights, self.mean, self.seen, self.between) if t is not None]

    def sum(self, ranks: Ranks) -> None:
        """One rank has all samples."""
        assert ranks.size == 1, "factors of several ranks cannot be added up"

    def folded(self) -> Moments:
        """The same as moments, before `set_missing`; they have capacity for more."""
        x, weights = self.inputs[:, : self.count], self.weights[: self.count]
        rows, made = len(x), partial(zeros, x)
        plain = made(rows, rows) if self.norm else None
        cross, between = (None if t is None else x @ t[:, : self.count].to(x).T for t in (self.seen, self.between))
        moments = Moments(self.bias, cross, made(rows, rows), made(rows), 0, plain, between)
        moments.add_inputs(x, weights.to(x))
        return moments

    def set_missing(self, natural: Tensor | None, taps: int, keep: bool) -> None:
        """See `Moments.set_missing`."""
        assert self.seen is not None, "only once"
        self.missing = -self.seen if keep else self.seen.neg_()
        self.seen = self.seen if keep else None
        if natural is not None and self.between is not None:
            done = self.between.unflatten(0, (-1, taps))
            self.missing += torch.einsum("htr,oh->otr", done, natural.to(done)).flatten(0, 1)

    def add_done(self, view: View, path: Linearised, done: Tensor) -> None:
        """See `Moments.add_done`; the samples must be those of `add`, in their order.

        Raises:
            ValueError: they are not.
        """
        assert self.missing is not None, "after `set_missing`"
        each = view.shape[2:].numel()
        stop, first = self.again + len(view.before) * each, self.inputs[:, self.again : self.again + each]
        other = inputs_of(view.producer, view.before[:1], self.bias).to(first)
        if stop > self.count or float((other - first).norm()) > _SAME * float(first.norm()):
            raise ValueError(
                f"what goes into {view.site.producer} must be the same in both passes over the batches, but is not; make "
                "`batches` give the same samples each time it is called, and the network deterministic in eval mode."
            )
        _add_seen(self.missing, view, path, done, self.again)
        self.again = stop

    def reduced(self) -> tuple[Moments, Tensor]:
        """The moments of Q^T x, and Q, [x, columns]; what is here is gone then."""
        assert self.missing is not None, "after `set_missing`"
        basis, inner = torch.linalg.qr(self.inputs[:, : self.count])
        self.inputs, weights, self.between = self.mean, self.weights[: self.count].to(inner), None
        before = (inner * weights) @ inner.T
        missing, self.missing = self._product(inner, self.missing), None
        cross, self.seen = None if self.seen is None else self._product(inner, self.seen), None
        plain = inner @ inner.T if self.norm else None
        return Moments(self.bias, cross, before, self.mean, self.count, plain, None, missing), basis

    def _product(self, inner: Tensor, right: Tensor) -> Tensor:
        return inner @ right[:, : self.count].to(inner).T


def _add_seen(total: Tensor, view: View, path: Linearised, gradient: Tensor, first: int) -> None:
    """Add gradients as outgoing weights see them to the columns from `first` on."""
    each = view.shape[2:].numel()
    for part, which, seen in seen_gradients(view, path, gradient):
        total[which, first + part.start * each : first + part.stop * each] += seen
