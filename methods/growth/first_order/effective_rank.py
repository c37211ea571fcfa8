"""How many directions the activations of a layer really use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from coppice.methods.companion import Companion
from coppice.methods.measures.site import Site, sites_among
from coppice.methods.measures.statistics import Seen, observe, require_finite
from coppice.methods.method import Context, Method
from coppice.methods.selection.values import Permissible

THRESHOLD = 0.01
"""Singular values of activations / sqrt(n) up to this do not count (Maile et al. 2022)."""
BATCHES = 4
"""Batches that the signal looks at."""


def unit_samples(site: Site, behind: Tensor) -> Tensor:
    """The consumer's input with a column for each unit: [samples and positions, units]."""
    if behind.dim() == 2:
        return behind.unflatten(1, (-1, site.taps)).transpose(1, 2).flatten(0, 1)
    return behind.movedim(1, -1).flatten(0, -2)


def effective_rank(moment: Tensor, threshold: float = THRESHOLD) -> float:
    """The share of singular values of H / sqrt(n) above a threshold.

    Args:
        moment: H^T H / n, [units, units], of activations H [n, units].
        threshold: epsilon of the paper.
    """
    values = torch.linalg.eigvalsh((moment + moment.T) / 2)
    return float((values > threshold**2).double().mean())


def effective_ranks(context: Context, sites: Mapping[str, Site], num_batches: int, threshold: float) -> dict[str, float]:
    """Effective rank behind the activation of every site, positions counted as samples; float64 sums.

    Rank is at most the number of samples: take more of them than there are units.

    Raises:
        NonFiniteStatistics: activations are not finite.
    """
    sums: dict[str, Tensor] = {}
    counts: dict[str, int] = {}

    def use(seen: dict[str, Seen], inputs: Tensor) -> None:
        for name, site in sites.items():
            h = unit_samples(site, site.rows(seen[site.consumer].input)).double()
            sums[name] = sums.get(name, 0) + h.T @ h
            counts[name] = counts.get(name, 0) + len(h)

    observe(context, list(dict.fromkeys(s.consumer for s in sites.values())), use, num_batches, gradients=False)
    context.ranks.sum(*sums.values())
    for name, total in sums.items():
        require_finite(f"the activations of {name}", total)
    return {name: effective_rank(total / context.ranks.count(counts[name]), threshold) for name, total in sums.items()}


def effective_rank_signals(context: Context, method: Method, permissible: Sequence[Permissible]) -> dict[str, float]:
    """`rank_best`, the largest effective rank of the elements that may be changed, and `rank_mean`, their mean.

    With `num_batches` and `threshold` of a method that measures ranks itself. Left out where no element is a channel between
    two layers.
    """
    sites = sites_among(context.network, (p.element for p in permissible))
    own = bool(getattr(method, "measures_ranks", False))
    num_batches, threshold = (method.num_batches, method.threshold) if own else (BATCHES, THRESHOLD)  # type: ignore[attr-defined]
    ranks = list(effective_ranks(context, sites, num_batches, threshold).values()) if sites else []
    return {"rank_best": max(ranks), "rank_mean": sum(ranks) / len(ranks)} if ranks else {}


class RankMemory(Companion):
    """What the effective rank of each element was when it was first measured, and the largest that it has been.

    Attributes:
        known: element name -> (first, largest).
    """

    def __init__(self) -> None:
        self.known: dict[str, tuple[float, float]] = {}

    def remember(self, name: str, rank: float) -> tuple[float, float]:
        """Take note of a rank; returns the first and the largest one."""
        first, largest = self.known.get(name, (rank, rank))
        self.known[name] = (first, max(largest, rank))
        return self.known[name]

    def tensors(self) -> dict[str, Tensor]:
        """[first, largest] by element name."""
        return {name: torch.tensor(pair, dtype=torch.float64) for name, pair in self.known.items()}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """See `Companion.load`."""
        self.known = {name: (float(pair[0]), float(pair[1])) for name, pair in tensors.items()}
