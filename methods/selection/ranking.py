"""All units of all elements in one ranking."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from coppice.methods.parameters import parameter
from coppice.methods.selection.amount import Amount
from coppice.methods.selection.counting import at_most, base, is_count, possible_counts, requested, take
from coppice.methods.selection.each import All
from coppice.methods.selection.values import Candidate, Choice, Limit, Selection


@dataclass(frozen=True)
class Steps:
    """The units of one candidate, best first, in the steps in which they can be taken.

    Attributes:
        sizes: units of each step, float64; the first one may be another than the rest (up to the next multiple).
        scores: mean score of each step's units, float64: sorted, as the units are.
    """

    sizes: Tensor
    scores: Tensor

    @staticmethod
    def of(kind: str, candidate: Candidate, multiple: int, most: float | None = None) -> Steps:
        """Steps of a candidate, of at most `most` units where that is given."""
        possible = possible_counts(kind, candidate, multiple)
        if most is not None:
            possible = range(possible.start, at_most(possible, most) + 1, possible.step)
        scores = candidate.scores.double().sort(descending=kind == "grow", stable=True).values[: possible[-1] if possible else 0]
        if possible == range(1, len(scores) + 1):
            return Steps(torch.ones_like(scores), scores)
        ends = torch.tensor(list(possible), dtype=torch.long)
        sizes = ends.diff(prepend=torch.zeros(min(1, len(ends)), dtype=torch.long))
        sums = torch.cat([scores.new_zeros(1), scores.cumsum(0)])
        return Steps(sizes.double(), (sums[ends] - sums[ends - sizes]) / sizes)


@dataclass(frozen=True)
class GlobalRanking(Selection):
    """All units of all candidates in one ranking; `amount` is the fraction of all units, taken from its top.

    Growing ranks predicted gains; without predictions it is `all`. No candidate gives more than it may. Where units come in
    quanta, or sizes must be multiples, the mean score of such a step is ranked, and the last step is taken if at least half of it
    is asked for. An amount `above` is a threshold on the scores as they are ranked, after normalisation.
    """

    why = "one threshold for the whole network finds by itself how wide each layer should be"
    paper = "Liu et al. 2017, network slimming (arXiv 1708.06519); Wu et al. 2020, Firefly (arXiv 2102.08574)"
    by_element = False

    normalise: str = parameter(
        "none", "mean or largest absolute value by which the scores of a candidate are divided", choices=("none", "mean", "max")
    )

    def choose(self, kind: str, candidates: Sequence[Candidate], amount: Amount, limit: Limit, turn: int) -> list[Choice]:
        """See `Selection.choose`; a limit is spent on the best units first (the least important ones when pruning)."""
        if kind == "grow" and all(len(c.scores) == 0 for c in candidates):
            return All().choose(kind, candidates, amount, limit, turn)
        ranked = [replace(c, scores=self._normalised(c.scores)) for c in candidates if len(c.scores)]
        own = [requested(kind, c, amount) for c in ranked]
        steps = [
            Steps.of(kind, c, amount.multiple, n if amount.of == "above" else None) for c, n in zip(ranked, own, strict=True)
        ]
        if not any(len(s.sizes) for s in steps):
            return []
        counts = _taken(kind, ranked, steps, self._total(ranked, own, amount), limit)
        counts = [at_most(possible_counts(kind, c, amount.multiple), n) for c, n in zip(ranked, counts, strict=True)]
        return [take(kind, c, n) for c, n in zip(ranked, counts, strict=True) if n > 0]

    def _total(self, candidates: Sequence[Candidate], own: Sequence[float | None], amount: Amount) -> float:
        """Units of all candidates together; not rounded."""
        if any(units is not None for units in own):
            return sum(units or 0 for units in own)
        sizes = [base(amount, c) for c in candidates]
        return amount.value if is_count(amount, sizes) else amount.value * sum(sizes)

    def _normalised(self, scores: Tensor) -> Tensor:
        if self.normalise == "none":
            return scores
        sizes = scores.abs()
        return scores / (sizes.mean() if self.normalise == "mean" else sizes.max()).clamp(min=1e-30)


def _taken(
    kind: str, candidates: Sequence[Candidate], steps: Sequence[Steps], total: float, limit: Limit
) -> list[int]:
    """Units of each candidate when steps are taken, best first, until the total or the limit is reached."""
    owner = torch.cat([torch.full((len(s.sizes),), i) for i, s in enumerate(steps)])
    order = torch.cat([s.scores for s in steps]).argsort(descending=kind == "grow", stable=True)
    owner, sizes = owner[order], torch.cat([s.sizes for s in steps])[order]
    within = sizes.cumsum(0) - sizes / 2 <= total
    for left, costs in (
        (limit.parameters, [c.parameters_per_unit for c in candidates]),
        (limit.flops, [c.flops_per_unit for c in candidates]),
    ):
        if left is not None:
            spent = (torch.tensor(costs, dtype=torch.float64)[owner] * sizes).cumsum(0)
            within &= (spent <= left) & (left > 0)
    counts: list[float] = owner[within].bincount(sizes[within], minlength=len(candidates)).tolist()
    return [int(n) for n in counts]
