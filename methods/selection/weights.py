"""Sparsity divided among tensors by their shapes alone: Erdos-Renyi-kernel and uniform."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from coppice.methods.parameters import parameter
from coppice.methods.selection.amount import Amount
from coppice.methods.selection.counting import Budget, at_most, base, is_count, offered, possible_counts, requested, take
from coppice.methods.selection.values import Candidate, Choice, Limit, Selection

ROUNDING = 1e-9
"""Weights by which a number may miss a whole one through rounding of floating-point numbers."""


def filled(shares: Tensor, low: Tensor, high: Tensor, total: float) -> Tensor:
    """Sizes that sum to `total`: a common factor times `shares`, held within `low` and `high`.

    With low = 0 and high = all weights of each tensor, it is the loop of RigL's code that makes tensors dense whose density would
    be above 1 and divides the rest among the others. All float64; `total` beyond what is possible gives the nearest possible.
    """
    bounds = torch.cat([low / shares, high / shares]).sort().values
    sums = (bounds[:, None] * shares).clamp(low, high).sum(1)
    i = int(torch.searchsorted(sums, torch.tensor(total, dtype=sums.dtype)))
    if i == 0:
        return low.clone()
    if i == len(sums):
        return high.clone()
    between = (bounds[i - 1] + bounds[i]) / 2 * shares
    free = (between > low) & (between < high)
    fixed = between.clamp(low, high)
    if not bool(free.any()):
        return fixed
    factor = (total - fixed[~free].sum()) / shares[free].sum()
    return torch.where(free, factor * shares, fixed)


@dataclass(frozen=True)
class ByShape(Selection):
    """Every tensor is brought as near as possible to the density that its shape asks for, at the number of weights that `amount`
    asks of all of them together. For single weights only.

    A tensor that pruning finds below its density keeps what it has, one that growing finds above it gets nothing; the others
    share. From a dense network this is the published division. Zeros are floor((1 - density) * size); growing rounds down too.
    The scores decide which weights of a tensor go or come. A limit lowers the number that is asked for.
    """

    first_dense: bool = parameter(False, "leave the first candidate, in the network's order, as it is", choices=(False, True))

    @abstractmethod
    def shares(self, candidates: Sequence[Candidate]) -> Tensor:
        """Number of active weights that each tensor would have, up to a common factor, float64."""

    def choose(self, kind: str, candidates: Sequence[Candidate], amount: Amount, limit: Limit, turn: int) -> list[Choice]:
        """See `Selection.choose`.

        Raises:
            ValueError: a candidate is not a tensor's weights.
        """
        others = [c for c in candidates if c.element.level != "weight" or not c.shape]
        if others:
            name, level = others[0].element.name, others[0].element.level
            problem = f"{type(self).__name__} divides single weights by their tensors' shapes, but {name} is of level {level}"
            raise ValueError(f"{problem}; use it with methods for weights.")
        candidates = candidates[1:] if self.first_dense else candidates
        if not candidates:
            return []
        counts = self._counts(kind, candidates, _total(kind, candidates, amount, limit))
        budget = Budget.of(limit)
        counts = [budget.spend(c, n) for c, n in zip(candidates, counts, strict=True)]
        return [take(kind, c, n) for c, n in zip(candidates, counts, strict=True) if n > 0]

    def _counts(self, kind: str, candidates: Sequence[Candidate], total: float) -> list[int]:
        """Weights that each tensor loses or gains."""
        sign = 1 if kind == "grow" else -1
        active = torch.tensor([c.active for c in candidates], dtype=torch.float64)
        most = torch.tensor([offered(kind, c) for c in candidates], dtype=torch.float64)
        low, high = (active, active + most) if kind == "grow" else (active - most, active)
        sizes = filled(self.shares(candidates), low, high, float(active.sum()) + sign * total)
        changes = (sign * (sizes - active)).tolist()
        return [at_most(possible_counts(kind, c), math.floor(n + ROUNDING)) for c, n in zip(candidates, changes, strict=True)]


def _total(kind: str, candidates: Sequence[Candidate], amount: Amount, limit: Limit) -> float:
    """Weights of all candidates together, not rounded, as far as the limit reaches."""
    own = [requested(kind, c, amount) for c in candidates]
    sizes = [base(amount, c) for c in candidates]
    total = amount.value if is_count(amount, sizes) else amount.value * sum(sizes)
    if any(units is not None for units in own):
        total = sum(units or 0 for units in own)
    if limit.parameters is not None:
        total = min(total, limit.parameters / max(1.0, *(c.parameters_per_unit for c in candidates)))
    return float(total)


@dataclass(frozen=True)
class ErdosRenyi(ByShape):
    """Density of a tensor: epsilon * (sum of dimensions / product of dimensions)^power, at most 1.

    `kernel: False` counts a convolution's input and output channels only (Erdos-Renyi without kernel).
    """

    why = "small and narrow tensors stay denser: connections go with the number of neurons, not with its square"
    paper = "Mocanu et al. 2018 (arXiv 1707.04780); with kernel: Evci et al. 2020, RigL, section 3 (arXiv 1911.11134)"

    kernel: bool = parameter(True, "the kernel's sizes count as dimensions", choices=(True, False))
    power: float = parameter(1.0, "exponent; 0 is uniform", low=0.0, high=4.0)

    def shares(self, candidates: Sequence[Candidate]) -> Tensor:
        """See `ByShape.shares`."""
        dims = [c.shape if self.kernel else c.shape[:2] for c in candidates]
        raw = [(sum(d) / math.prod(d)) ** self.power for d in dims]
        return torch.tensor([r * math.prod(c.shape) for r, c in zip(raw, candidates, strict=True)], dtype=torch.float64)


@dataclass(frozen=True)
class Uniform(ByShape):
    """The same density for every tensor, whatever it was before."""

    why = "the division that every other one must beat"
    paper = "Zhu and Gupta 2017 (arXiv 1710.01878); Evci et al. 2020, RigL, section 3 (arXiv 1911.11134)"

    def shares(self, candidates: Sequence[Candidate]) -> Tensor:
        """See `ByShape.shares`."""
        return torch.tensor([math.prod(c.shape) for c in candidates], dtype=torch.float64)
