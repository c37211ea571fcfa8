"""Units that do the same as others, up to a factor: how alike units are, and into which ones they can be merged.

What a unit computes is its effective fan-in w~ = [w; b]: the producer's row and bias, with a BatchNorm behind it folded in,
w = gamma W / sigma and b = beta + gamma (b - mean) / sigma, where sigma = sqrt(var + eps). A unit i with w~_i = f w~_j is f times
unit j behind any path that is positively homogeneous (f > 0), odd (f = -1), or both (any f); so the consumer's weights of j, plus
f times those of i, do what both did.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from coppice.methods.graph.values import Element
from coppice.methods.measures.site import NoSite, Site, entry_output, site_of, through
from coppice.methods.measures.statistics import require_finite
from coppice.methods.method import Context
from coppice.methods.network import Network

Path = Literal["homogeneous", "odd", "linear"]
EXACT = 1e-3
"""Largest relative difference at which the path counts as homogeneous or odd."""


@dataclass(frozen=True)
class Fan:
    """Effective fan-ins of a site's units.

    Attributes:
        vectors: [units, entries + 1], float64 on the CPU.
        path: what the path behind the units keeps.
    """

    vectors: Tensor
    path: Path

    def alike(self, units: Sequence[int] | None = None, others: Sequence[int] | None = None) -> Tensor:
        """How alike units are, [units, others], 1 where one can replace the other exactly.

        The cosine of their fan-ins, for a homogeneous path; its absolute value for a linear one; for an odd one also multiplied
        by the ratio of the smaller norm to the larger one. A unit of norm 0 is like every other.
        """
        a, b = self._rows(units), self._rows(others)
        na, nb = a.norm(dim=1, keepdim=True), b.norm(dim=1)
        both = na * nb
        cosine = torch.where(both > 0, a @ b.T / both.clamp(min=1e-300), torch.where(na > 0, 0.0, 1.0).double())
        if self.path == "homogeneous":
            return cosine
        if self.path == "linear":
            return cosine.abs()
        ratio = torch.minimum(na, nb) / torch.maximum(na, nb).clamp(min=1e-300)
        return torch.where(na > 0, cosine.abs() * ratio, 1.0)

    def factor(self, unit: int, other: int) -> float:
        """`unit` is this times `other`: the ratio of their norms (1 for an odd path), with the sign where the path keeps it."""
        a, b = self.vectors[unit], self.vectors[other]
        if float(a.norm()) == 0 or float(b.norm()) == 0:
            return 0.0
        if self.path == "homogeneous":
            return float(a.norm() / b.norm())
        sign = 1.0 if float(a @ b) >= 0 else -1.0
        return sign * (1.0 if self.path == "odd" else float(a.norm() / b.norm()))

    def nearest(self, units: Sequence[int]) -> dict[int, tuple[int, float]]:
        """For each of `units` the unit most like it among all others, and the factor, multiplied by how alike they are."""
        kept = sorted(set(range(len(self.vectors))) - set(units))
        best, at = self.alike(units, kept).max(1)
        targets = {}
        for unit, k, alike in zip(units, at.tolist(), best.tolist(), strict=True):
            targets[unit] = (kept[k], max(alike, 0.0) * self.factor(unit, kept[k]))
        return targets

    def _rows(self, units: Sequence[int] | None) -> Tensor:
        return self.vectors if units is None else self.vectors[list(units)]


def why_not_merge(context: Context, element: Element) -> str | None:
    """Why the units of an element cannot be merged; None when they can."""
    try:
        site = site_of(context.network, element)
    except NoSite as error:
        return f"its units cannot be merged: {error}"
    if path_kind(context, site) is None:
        return f"what lies between {site.producer} and {site.consumer} is neither positively homogeneous (ReLU) nor odd (tanh)"
    return None


def fan(context: Context, element: Element) -> Fan:
    """Fan-ins of an element that `why_not_merge` has nothing against.

    Raises:
        NonFiniteStatistics: weights or statistics are not finite.
    """
    site = site_of(context.network, element)
    path = path_kind(context, site)
    assert path is not None, "accepted before"
    vectors = fan_in(context.network, site)
    require_finite(f"the fan-in of {element.name}", vectors)
    return Fan(vectors, path)


def fan_in(network: Network, site: Site) -> Tensor:
    """[units, entries + 1]: row and bias of each unit, a BatchNorm folded in; float64 on the CPU."""
    producer = network.module.get_submodule(site.producer)
    assert isinstance(producer, (nn.Linear, nn.Conv2d)), "sites have these"
    weight = producer.weight.detach().double().cpu().flatten(1)
    bias = weight.new_zeros(len(weight)) if producer.bias is None else producer.bias.detach().double().cpu()
    if site.batch_norm is not None:
        norm = network.module.get_submodule(site.batch_norm)
        assert isinstance(norm, nn.modules.batchnorm._BatchNorm), "sites have these"
        mean, var = norm.running_mean, norm.running_var
        assert mean is not None and var is not None, "accepted before"
        scale = (var.detach().double().cpu() + norm.eps).rsqrt()
        shift = torch.zeros_like(scale)
        if norm.affine:
            scale, shift = scale * norm.weight.detach().double().cpu(), norm.bias.detach().double().cpu()
        weight, bias = weight * scale[:, None], shift + scale * (bias - mean.detach().double().cpu())
    return torch.cat([weight, bias[:, None]], 1)


def path_kind(context: Context, site: Site) -> Path | None:
    """What the path from the entry's output to the consumer's input keeps, measured by running it; None where neither.

    It must also treat all units, and all samples, alike. All is tried in one forward in evaluation mode, on copies of one sample.
    """
    network = context.network
    norm = network.module.get_submodule(site.entry)
    if isinstance(norm, nn.modules.batchnorm._BatchNorm) and norm.running_mean is None:
        return None
    inputs = next(iter(context.batches(1)))[0][:1]
    with torch.autocast(inputs.device.type, enabled=False):
        like = entry_output(network, site, inputs)
        z = torch.randn(like.shape, generator=torch.Generator().manual_seed(0)).to(like)
        units = -1 if site.tokens else 1
        tried = torch.cat([z, 2 * z, 0.5 * z, -z, z.roll(1, units)])
        behind = through(network, site, torch.cat([inputs] * 5), tried).double()
    if len(behind) % 5:
        return None
    at = behind.chunk(5)
    size = float(at[0].norm())

    def same(a: Tensor, b: Tensor) -> bool:
        return float((a - b).norm()) <= EXACT * size

    taps = behind.shape[units] // site.size
    if size == 0 or not same(at[0].roll(taps, units), at[4]):
        return None
    homogeneous = same(at[1] / 2, at[0]) and same(at[2] * 2, at[0])
    odd = same(-at[3], at[0])
    return "linear" if homogeneous and odd else "homogeneous" if homogeneous else "odd" if odd else None
