"""Selections that change one element: the one that promises most."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from coppice.methods.parameters import parameter
from coppice.methods.selection.amount import Amount
from coppice.methods.selection.counting import Budget, possible_counts, take, wanted
from coppice.methods.selection.each import RoundRobin
from coppice.methods.selection.values import Candidate, Choice, Limit, Selection


@dataclass(frozen=True)
class OneElement(Selection):
    """The candidate of the largest `value`; ties go to the first in the network's order."""

    def choose(self, kind: str, candidates: Sequence[Candidate], amount: Amount, limit: Limit, turn: int) -> list[Choice]:
        """See `Selection.choose`; where nothing is predicted, candidates are taken by turns."""
        if kind == "grow" and all(len(c.scores) == 0 for c in candidates):
            return RoundRobin().choose(kind, candidates, amount, limit, turn)
        best: tuple[float, Candidate, int] | None = None
        for candidate in candidates:
            possible = possible_counts(kind, candidate, amount.multiple)
            count = Budget.of(limit).spend(candidate, wanted(kind, candidate, amount), possible)
            if count <= 0 or (kind == "grow" and len(candidate.scores) == 0):
                continue
            scores = candidate.scores.sort(descending=kind == "grow").values[:count].double()
            value = self.value(kind, candidate, scores)
            if best is None or value > best[0]:
                best = (value, candidate, count)
        return [] if best is None else [take(kind, best[1], best[2])]

    @abstractmethod
    def value(self, kind: str, candidate: Candidate, scores: Tensor) -> float:
        """What is promised by the units with these scores, best first."""


@dataclass(frozen=True)
class BestGain(OneElement):
    """The candidate whose units promise most: the largest summed gain when growing, the smallest mean importance when pruning.

    `per: parameter` and `per: flop` divide the sum of gains, or of lost importances, by what the act adds or removes. Where that
    is not known before (insertions), or is nothing, the candidate comes last.
    """

    why = "units go where they lower the loss most"
    paper = "Verbockhaven et al. 2024, TINY (arXiv 2405.19816): largest sum of squared singular values; per cost: ours"

    per: str = parameter(
        "unit",
        "unit: sum of gains, or mean importance when pruning; parameter, flop: both sums, divided by the cost of the act",
        choices=("unit", "parameter", "flop"),
    )

    def value(self, kind: str, candidate: Candidate, scores: Tensor) -> float:
        """See `OneElement.value`."""
        if self.per == "unit":
            return float(scores.sum()) if kind == "grow" else -float(scores.mean())
        each = candidate.parameters_per_unit if self.per == "parameter" else candidate.flops_per_unit
        if each <= 0:
            return float("-inf")
        value = float(scores.sum()) / (each * len(scores))
        return value if kind == "grow" else -value


@dataclass(frozen=True)
class LargestScore(OneElement):
    """The candidate with the best single unit: the largest singular value when growing, the least important unit when pruning.

    `amount` says how many of its units go with it.
    """

    why = "one strong direction outweighs many weak ones"
    paper = "the largest singular value of Evci et al. 2022, GradMax (arXiv 2201.05125)"

    def value(self, kind: str, candidate: Candidate, scores: Tensor) -> float:
        """See `OneElement.value`."""
        return float(scores[0]) if kind == "grow" else -float(scores[0])
