"""New units orthogonal to the existing ones, as many as the activations have rank to spare (NORTH*, Maile et al. 2022)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from coppice.methods.companion import Companion
from coppice.methods.graph.values import Element
from coppice.methods.growth.first_order.covariance import inputs_of
from coppice.methods.growth.first_order.cross_moment import run_rows
from coppice.methods.growth.first_order.effective_rank import RankMemory, effective_ranks, unit_samples
from coppice.methods.growth.first_order.exact import Exact
from coppice.methods.growth.first_order.gradients import sites_of
from coppice.methods.growth.first_order.sweep import View, layers_of, sweep
from coppice.methods.measures.site import Site, site_of
from coppice.methods.method import Context, Measurement, parameter
from coppice.methods.network import Network
from coppice.methods.plan import GrowPlan

MOST_CANDIDATES = 1024
"""Of one element, for `init: select`."""
_CUT = 1e-10
"""Eigenvalues and singular values up to this times the largest count as 0."""


@dataclass(frozen=True)
class North(Exact):
    """Zero outgoing weights; incoming ones that make the new units as different as possible from the existing ones.

    `init: select` takes, one after the other, the candidate of `candidates` random ones a unit (at most 1024 in all) whose
    activations are, relative to their size, farthest from the span of those of existing and chosen units. `pre` draws weights
    whose pre-activations are orthogonal to the existing ones and to each other, `weight` draws from the kernel of the existing
    weights, `random` draws orthogonal rows. Where fewer directions than new units are free, those that are used least.

    `advised` is the excess of rank, k = max(0, floor(M (phi - gamma phi_0))) for M units of effective rank phi. phi_0 is what it
    was when it was first measured in the trial (the paper: before training), behind convolutions the largest so far; without
    a trial's memory it is 1, full rank.
    """

    kind = "grow"
    levels = ("channel",)
    why = "a layer whose neurons are all of use gets more, which differ from those that it has"
    paper = "Maile, Rachelson, Luga, Wilson 2022, when, where and how to add new neurons, NORTH* (arXiv 2202.08539)"
    preserves = True
    batch_norm = "new rows are scale 1, shift 0, mean 0, variance 1; the fan-out is zero; activations are those behind it"
    cost = "one forward per batch for all elements and one (select, pre) for each that grows; decompositions"
    when = ("rank",)
    advises = True
    measures_ranks: ClassVar[bool] = True

    init: str = parameter("select", "incoming weights", choices=("select", "pre", "weight", "random"))
    gamma: float = parameter(0.97, "share of the reference that rank must exceed; 0.9 for convolutions", low=0.0, high=2.0)
    threshold: float = parameter(0.01, "singular values up to this do not count", low=1e-6, high=10.0, log=True)
    scale: float = parameter(1.0, "length of new rows, relative to the mean of the old ones", low=1e-3, high=10.0, log=True)
    candidates: int = parameter(100, "select: random candidates for each new unit", low=1, high=1000)
    num_batches: int = parameter(4, "batches; take more samples than there are units", low=1, high=1000)

    def companion(self, network: Network) -> Companion | None:
        """See `Method.companion`."""
        return RankMemory()

    def measure(self, context: Context, elements: Sequence[Element], most: Mapping[str, int]) -> Measurement:
        """Effective ranks and how many units they advise; the signals are the largest rank and the largest excess."""
        sites = sites_of(context, elements)
        ranks = effective_ranks(context, sites, self.num_batches, self.threshold)
        advised = {name: self._excess(context, site, name, ranks[name]) for name, site in sites.items()}
        signals = {"rank": max(ranks.values()), "excess": float(max(advised.values()))} if ranks else {}
        return Measurement({e.name: torch.empty(0) for e in elements}, advised=advised, signals=signals)

    def _excess(self, context: Context, site: Site, name: str, rank: float) -> int:
        first, largest = 1.0, 1.0
        if isinstance(context.companion, RankMemory):
            first, largest = context.companion.remember(name, rank)
        reference = largest if isinstance(layers_of(context.network, site)[0], nn.Conv2d) else first
        return max(0, math.floor(site.size * (rank - self.gamma * reference) + 1e-9))

    def plan(self, context: Context, element: Element, units: Sequence[int], measurement: Measurement) -> GrowPlan:
        """See `Method.plan`."""
        site, count = site_of(context.network, element), len(units)
        weight = layers_of(context.network, site)[0].weight.detach()
        flat = weight.flatten(1).double()
        if self.init == "select":
            rows = self._selected(context, site, count, flat)
        elif self.init == "pre":
            rows = self._by_pre_activations(context, site, count, flat)
        else:
            free = flat[:0] if self.init == "random" else flat
            rows = orthonormal_rows(free, count, context.generator)
        rows = self._as_long_as(flat, rows)
        values = {f"{site.producer}.weight:0": rows.view(count, *weight.shape[1:]).to(weight)}
        return GrowPlan(element.name, count, values=values, produce="zero", consume="zero")

    def _by_pre_activations(self, context: Context, site: Site, count: int, flat: Tensor) -> Tensor:
        """Rows w with W S w + b mean(x)^T w = 0 and w^T S w' = 0, S the second moment of the producer's input x."""
        moments: list[Tensor] = []

        def use(name: str, view: View) -> None:
            x = inputs_of(view.producer, view.before, bias=True).double()
            moments.append(moments.pop() + x @ x.T if moments else x @ x.T)

        sweep(context, {"": site}, use, self.num_batches)
        context.ranks.sum(*moments)
        total = moments[0] / moments[0][-1, -1]
        second, mean = total[:-1, :-1], total[:-1, -1]
        values, vectors = torch.linalg.eigh(second)
        kept = values > values[-1] * _CUT
        back = vectors[:, kept] * values[kept].rsqrt()
        bias = layers_of(context.network, site)[0].bias
        made = flat @ second if bias is None else flat @ second + torch.outer(bias.detach().double(), mean)
        return orthonormal_rows(made @ back, count, context.generator) @ back.T

    def _as_long_as(self, flat: Tensor, rows: Tensor) -> Tensor:
        """Rows of `scale` times the mean norm of the existing ones; where these are zero, of `scale`."""
        length = self.scale * (float(flat.norm(dim=1).mean()) or 1.0)
        return rows / rows.norm(dim=1, keepdim=True).clamp(min=1e-30) * length

    def _selected(self, context: Context, site: Site, count: int, flat: Tensor) -> Tensor:
        number = max(count, min(self.candidates * count, MOST_CANDIDATES))
        drawn = torch.randn(number, flat.shape[1], generator=context.generator, dtype=torch.float64).to(flat)
        drawn = self._as_long_as(flat, drawn)
        gram: list[Tensor] = []

        def use(name: str, view: View) -> None:
            every = torch.cat([unit_samples(site, view.behind), *_activations(view, drawn)], 1).double()
            gram.append(gram.pop() + every.T @ every if gram else every.T @ every)

        sweep(context, {"": site}, use, self.num_batches)
        context.ranks.sum(*gram)
        return drawn[_farthest(gram[0], site.size, count)]


def _activations(view: View, rows: Tensor) -> list[Tensor]:
    """What units with these incoming weights send to the consumer, as many at a time as the site has: [samples, units] each."""
    weight, activations = rows.view(-1, *view.producer.weight.shape[1:]).to(view.before), []
    for part in weight.split(view.site.size):
        z = view.before.new_zeros(view.shape)
        z[:, : len(part)] = run_rows(view.producer, view.before, part)
        activations.append(unit_samples(view.site, view.run(z))[:, : len(part)])
    return activations


def _farthest(gram: Tensor, old: int, count: int) -> Tensor:
    """Candidates with the largest relative distance to the span of the old units and of those chosen before.

    Args:
        gram: H^T H of old units, then candidates.
        old: how many old units.
        count: how many candidates are chosen.
    """
    values, vectors = torch.linalg.eigh(gram[:old, :old])
    kept = values > values[-1].clamp(min=0) * _CUT
    half = (vectors[:, kept] * values[kept].rsqrt()).T @ gram[:old, old:]
    size = gram.diagonal()[old:]
    left = gram[old:, old:] - half.T @ half
    chosen: list[int] = []
    free = size > 0
    for _ in range(count):
        share = torch.where(free, left.diagonal() / size.clamp(min=1e-300), -torch.inf)
        share[chosen] = -torch.inf
        if not bool(torch.isfinite(share).any()):
            share = torch.zeros_like(share).index_fill(0, torch.tensor(chosen, dtype=torch.long), -1.0)
        best = int(share.argmax())
        chosen.append(best)
        if left[best, best] > 0:
            left = left - torch.outer(left[best], left[best]) / left[best, best]
    return torch.tensor(chosen, device=gram.device)


def orthonormal_rows(used: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Random orthonormal rows, [count, D], in the kernel of `used` [M, D]; more than fit in there use its weakest directions.

    More than D rows are orthonormal in groups of D.
    """
    width = used.shape[1]
    together = min(count, width)
    vectors = used[:0]
    if len(used):
        _, sigma, right = torch.linalg.svd(used, full_matrices=False)
        rank = int((sigma > sigma[:1] * _CUT).sum())
        vectors = right[: min(rank, width - together)]
    rows = []
    for start in range(0, count, max(together, 1)):
        drawn = torch.randn(width, min(together, count - start), generator=generator, dtype=torch.float64).to(used)
        for _ in range(2):
            drawn = drawn - vectors.T @ (vectors @ drawn)
        rows.append(torch.linalg.qr(drawn).Q.T)
    return torch.cat(rows)
