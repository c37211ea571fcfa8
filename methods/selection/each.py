"""Selections that look at each element by itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from coppice.methods.parameters import parameter
from coppice.methods.selection.amount import Amount
from coppice.methods.selection.counting import Budget, possible_counts, take, wanted
from coppice.methods.selection.values import Candidate, Choice, Limit, Selection


@dataclass(frozen=True)
class All(Selection):
    """Every candidate, each by `amount` of its own size."""

    why = "the shape of the network is kept while its size changes"
    paper = "AllAtOnce of Evci et al. 2022 (arXiv 2201.05125); uniform pruning"

    def choose(self, kind: str, candidates: Sequence[Candidate], amount: Amount, limit: Limit, turn: int) -> list[Choice]:
        """See `Selection.choose`; a limit is spent in the network's order."""
        budget = Budget.of(limit)
        counts = [
            (c, budget.spend(c, wanted(kind, c, amount), possible_counts(kind, c, amount.multiple))) for c in candidates
        ]
        return [take(kind, c, n) for c, n in counts if n > 0]


@dataclass(frozen=True)
class Learned(All):
    """Every candidate, each by as many units as its method advises, and no more than `amount` asks.

    With the amount `advised` it is `all`; a number is an upper bound of what is advised.
    """

    why = "training itself says how wide each layer should be"
    paper = "ours; the auxiliary size of Radhakrishnan et al. 2025 (arXiv 2501.18012) and the rank of NORTH* say how many"

    def choose(self, kind: str, candidates: Sequence[Candidate], amount: Amount, limit: Limit, turn: int) -> list[Choice]:
        """See `Selection.choose`.

        Raises:
            ValueError: the method does not advise how many.
        """
        silent = [c.element.name for c in candidates if c.advised is None]
        if silent:
            raise ValueError(f"selection learned needs a method that advises how many units, but it says nothing of {silent[0]}.")
        bound = [min(c.advised or 0, wanted(kind, c, replace(amount, multiple=1))) for c in candidates]
        capped = [replace(c, advised=n) for c, n in zip(candidates, bound, strict=True)]
        choices = super().choose(kind, capped, Amount(0, "advised", amount.multiple), limit, turn)
        return choices


@dataclass(frozen=True)
class RoundRobin(Selection):
    """One candidate at a time, by turns, in the network's order."""

    why = "every layer gets its share without any prediction"
    paper = "RoundRobin of Evci et al. 2022 (arXiv 2201.05125); Wen et al. 2019, AutoGrow (arXiv 1906.02909)"

    def choose(self, kind: str, candidates: Sequence[Candidate], amount: Amount, limit: Limit, turn: int) -> list[Choice]:
        """See `Selection.choose`; a candidate that yields nothing is passed over."""
        for offset in range(len(candidates)):
            choices = All().choose(kind, [candidates[(turn + offset) % len(candidates)]], amount, limit, turn)
            if choices:
                return choices
        return []


@dataclass(frozen=True)
class RandomElement(Selection):
    """One candidate at a time, each time another one drawn uniformly: the control arm of selections."""

    why = "what every selection that measures must beat"
    paper = "control arm"

    seed: int = parameter(0, "of the draws; the same for the same number of acts before", low=0, high=2**31 - 1)

    def choose(self, kind: str, candidates: Sequence[Candidate], amount: Amount, limit: Limit, turn: int) -> list[Choice]:
        """See `Selection.choose`; a candidate that yields nothing is passed over."""
        draws = torch.Generator().manual_seed(self.seed * 1_000_003 + turn)
        for i in torch.randperm(len(candidates), generator=draws).tolist():
            choices = All().choose(kind, [candidates[i]], amount, limit, turn)
            if choices:
                return choices
        return []
