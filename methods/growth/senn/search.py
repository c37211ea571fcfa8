"""Candidates for new units and what each would add to the natural-gradient score of the layer that uses it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from coppice.methods.growth.first_order.cross_moment import run_rows
from coppice.methods.growth.first_order.sweep import View, layers_of, sweep
from coppice.methods.growth.first_order.unfold import unfolded
from coppice.methods.growth.senn.kfac import LayerScore, layer_gradients, layer_inputs
from coppice.methods.measures.site import Site
from coppice.methods.method import Context
from coppice.methods.ranks import ALONE

MOST_COLUMNS = 1024
"""Outgoing columns of all candidates of a site together; their second moment is a matrix of that size."""
_BLOCK_BYTES = 64 * 2**20
_STEP = 0.1


def taps_of(context: Context, site: Site) -> int:
    """Columns of the consumer for one unit, kernel positions included."""
    weight = layers_of(context.network, site)[1].weight
    return site.taps if weight.dim() == 2 else weight[0, 0].numel()


def draw(context: Context, site: Site, proposals: int) -> Tensor:
    """Random incoming weights, [candidates, entries (+ 1 for a bias)], as long as those of the existing units on average."""
    producer = layers_of(context.network, site)[0]
    length = float(producer.weight.detach().flatten(1).norm(dim=1).mean())
    count = max(1, min(proposals, MOST_COLUMNS // taps_of(context, site)))
    entries = producer.weight[0].numel()
    rows = torch.randn(count, entries + (producer.bias is not None), generator=context.generator, dtype=torch.float64)
    return (rows * (length / math.sqrt(entries))).to(producer.weight)


@dataclass
class Moments:
    """Sums over samples for the candidates of a site.

    Attributes:
        taps: columns of each.
        gradient: of their outgoing weights, after what existing inputs explain was taken off, [out, candidates * taps].
        second: second moment of their activations, [candidates * taps, candidates * taps].
    """

    taps: int
    gradient: Tensor
    second: Tensor

    def gains(self, score: LayerScore) -> Tensor:
        """Lower bound of what each would add, by itself: [candidates]."""
        taken = self.gradient.unflatten(1, (-1, self.taps)).movedim(1, 0)
        square = self.second.unflatten(0, (-1, self.taps)).unflatten(2, (-1, self.taps))
        return _gains(taken, square.diagonal(dim1=0, dim2=2).movedim(2, 0), score)


def _gains(gradient: Tensor, second: Tensor, score: LayerScore) -> Tensor:
    """Tr[S^-1 G A_p^-1 G^T] of each candidate, from G, [candidates, out, taps], and A_p, [candidates, taps, taps]."""
    whitened = torch.linalg.solve(second + _floor(second, score.ridge), gradient.transpose(1, 2))
    return ((score.inverse.to(gradient) @ gradient).transpose(1, 2) * whitened).sum((1, 2))


def _floor(second: Tensor, ridge: float) -> Tensor:
    """Ridge, at least what keeps candidates that are never active from a division by 0."""
    least = max(ridge, 1e-14 * float(second.detach().diagonal(dim1=-2, dim2=-1).max()), 1e-30)
    return least * torch.eye(second.shape[-1], dtype=second.dtype, device=second.device)


def _columns(view: View, rows: Tensor) -> Iterator[tuple[Tensor, slice]]:
    """What the consumer would see of candidates: [candidates * taps, samples * positions] of a few samples at a time."""
    producer, consumer, size = view.producer, view.consumer, view.site.size
    entries = producer.weight[0].numel()
    behind = []
    for some in rows.split(size):
        weight = some[:, :entries].unflatten(1, producer.weight.shape[1:])
        bias = some[:, entries] if some.shape[1] > entries else None
        made = run_rows(producer, view.before, weight, bias)
        z = torch.cat([made, made.new_zeros(len(made), size - len(some), *made.shape[2:])], 1)
        h = view.run(z)
        taps = view.site.taps if isinstance(consumer, nn.Linear) else 1
        behind.append(h[:, : len(some) * taps])
    seen = torch.cat(behind, 1)
    positions = view.gradient[0, 0].numel()
    taps = seen.shape[1] * (1 if isinstance(consumer, nn.Linear) else consumer.weight[0, 0].numel())
    step = max(1, _BLOCK_BYTES // (taps * positions * seen.element_size()))
    for start in range(0, len(seen), step):
        part = slice(start, start + step)
        yield unfolded(consumer, seen[part]).flatten(1), part


def _residual(view: View, score: LayerScore, part: slice) -> Tensor:
    """The part of the gradient that the consumer cannot follow with the inputs that it has: [out, samples * positions]."""
    gradient = layer_gradients(view.consumer, view.gradient[part]).flatten(1)
    return gradient - score.regression.to(gradient) @ layer_inputs(view.consumer, view.behind[part]).flatten(1)


def moments(
    context: Context, sites: Mapping[str, Site], rows: Mapping[str, Tensor], scores: Mapping[str, LayerScore], num_batches: int
) -> dict[str, Moments]:
    """Means over samples for the candidates of each site, float64; `scores` by name of the consumer."""
    sums: dict[str, Moments] = {}

    def use(name: str, view: View) -> None:
        for columns, part in _columns(view, rows[name]):
            if name not in sums:
                size = len(columns)
                zeros = [torch.zeros(n, size, dtype=torch.float64, device=columns.device) for n in (view.gradient.shape[1], size)]
                sums[name] = Moments(size // len(rows[name]), *zeros)
            sums[name].gradient += (_residual(view, scores[view.site.consumer], part) @ columns.T).double()
            sums[name].second += (columns @ columns.T).double()

    samples = sweep(context, sites, use, num_batches)
    context.ranks.sum(*(t for m in sums.values() for t in (m.gradient, m.second)))
    return {name: Moments(m.taps, m.gradient / samples, m.second / samples) for name, m in sums.items()}


def improve(
    context: Context, sites: Mapping[str, Site], rows: Mapping[str, Tensor], scores: Mapping[str, LayerScore], steps: int
) -> dict[str, Tensor]:
    """Candidates after some steps up the gradient of their own gains, on the first samples; lengths stay.

    Every rank does so on the same samples, and all take what rank 0 has found.
    """
    improved: dict[str, Tensor] = {}

    def use(name: str, view: View) -> None:
        if name not in improved:
            with torch.enable_grad():
                improved[name] = _climb(view, rows[name], scores[view.site.consumer], steps)

    sweep(replace(context, ranks=ALONE), sites, use, 1)
    return context.ranks.same(improved)


def _climb(view: View, rows: Tensor, score: LayerScore, steps: int) -> Tensor:
    lengths = rows.norm(dim=1, keepdim=True)
    best, highest = rows, rows.new_full((len(rows),), -1.0)
    for i in range(steps + 1):
        point = rows.detach().requires_grad_()
        columns, part = next(_columns(view, point))
        columns = columns.unflatten(0, (len(rows), -1))
        samples = len(view.gradient[part]) / view.each
        gradient = _residual(view, score, part).detach() @ columns.transpose(1, 2) / samples
        gains = _gains(gradient, columns @ columns.transpose(1, 2) / samples, score)
        better = (gains > highest).detach()
        best = torch.where(better.unsqueeze(1), rows, best)
        highest = torch.where(better, gains.detach(), highest)
        if i < steps:
            (up,) = torch.autograd.grad(gains.clamp(min=1e-30).log().sum(), point)
            moved = rows + _STEP * lengths * up / up.norm(dim=1, keepdim=True).clamp(min=1e-30)
            rows = moved * (lengths / moved.norm(dim=1, keepdim=True).clamp(min=1e-30))
    return best


def choose(measured: Moments, score: LayerScore, count: int) -> tuple[Tensor, Tensor]:
    """The candidates one after the other, each the best beside those before it: indices and gains, descending, on the CPU.

    What the chosen ones explain is taken off gradient and second moment of the others, so a second copy of one adds nothing, and
    the sum of the gains is a lower bound, too.
    """
    taps, left = measured.taps, Moments(measured.taps, measured.gradient.clone(), measured.second.clone())
    floor = _floor(measured.second, score.ridge)[:taps, :taps]
    candidates = measured.second.shape[0] // taps
    taken = torch.zeros(candidates, dtype=torch.bool, device=measured.second.device)
    order, gains = [], []
    for _ in range(min(count, candidates)):
        each = left.gains(score).masked_fill(taken, -1.0)
        best = int(each.argmax())
        own = slice(best * taps, (best + 1) * taps)
        order.append(best)
        gains.append(max(float(each[best]), 0.0))
        taken[best] = True
        share = torch.linalg.solve(left.second[own, own] + floor, left.second[own])
        gradient, second = left.gradient[:, own].clone(), left.second[:, own].clone()
        left.gradient -= gradient @ share
        left.second -= second @ share
    return torch.tensor(order, dtype=torch.long), torch.tensor(gains, dtype=torch.float64).cummin(0).values
