"""Where, and how many: selections turn scores into choices."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from methods.amount import Amount
from methods.graph.values import Element
from methods.parameters import parameter


@dataclass(frozen=True)
class Candidate:
    """An element that a method offers to change.

    Attributes:
        element: which.
        scores: see `methods.method.Measurement.scores`; empty when the method does not predict.
        room: how many units may be added (limit) or removed (size - minimum), a multiple of the quantum.
        seed_size: size in the network before any change, the base of `fraction of the seed network`.
        parameters_per_unit: parameters that one unit adds or removes.
        flops_per_unit: FLOPs of one forward of one sample that one unit adds or removes.
        active: units that there are now: the element's size, or the weights that are not masked.
        advised: how many units the method itself would add or remove; None when it does not say.
        shape: of the tensor, where the element is a tensor's weights.
    """

    element: Element
    scores: Tensor
    room: int
    seed_size: int
    parameters_per_unit: float
    flops_per_unit: float
    active: int
    advised: int | None = None
    shape: tuple[int, ...] = ()


@dataclass(frozen=True)
class Limit:
    """What an adaptation may spend (growing) or must leave (pruning); None means no limit."""

    parameters: float | None = None
    flops: float | None = None


@dataclass(frozen=True)
class Choice:
    """Units of one element: positions of offered new units (growing) or indices of units to remove (pruning)."""

    element: str
    units: tuple[int, ...]


class Selection(ABC):
    """Where and how many. Frozen values in, frozen values out."""

    @abstractmethod
    def choose(self, kind: str, candidates: Sequence[Candidate], amount: Amount, limit: Limit, turn: int) -> list[Choice]:
        """Choose units.

        Args:
            kind: `grow` or `prune`.
            candidates: what is offered.
            amount: how many: of each chosen element, or of all candidates together where the selection ranks them all.
            limit: most parameters/FLOPs the choice may add; for pruning the most it may remove.
            turn: how often this adaptation has acted before (round robin).
        """


def offered(kind: str, candidate: Candidate) -> int:
    """Most units of a candidate that can be chosen: its room, and no more than were scored."""
    room = candidate.room if kind == "grow" and len(candidate.scores) == 0 else min(candidate.room, len(candidate.scores))
    return room - room % candidate.element.quantum


def base(amount: Amount, candidate: Candidate) -> int:
    """What a fraction is taken of."""
    return candidate.seed_size if amount.of == "seed" else candidate.active


def is_count(amount: Amount, sizes: Sequence[int]) -> bool:
    """Whether an amount counts units: an int, a number above 1, or 1 where there is one unit each (layers, blocks)."""
    return isinstance(amount.value, int) or amount.value > 1 or (amount.value == 1 and all(s == 1 for s in sizes))


def rounded(units: float, quantum: int) -> int:
    """A number of units rounded to whole quanta, halves up."""
    return int(units / quantum + 0.5) * quantum


def asked(kind: str, candidate: Candidate, amount: Amount) -> float | None:
    """Units that an amount asks of one candidate by itself; None when it is a fraction or a count.

    Raises:
        ValueError: the amount is what the method advises, but it advises nothing.
    """
    if amount.of == "above":
        beyond = candidate.scores > amount.value if kind == "grow" else candidate.scores < amount.value
        return float(beyond.sum())
    if amount.of == "advised":
        if candidate.advised is None:
            raise ValueError("the amount must be a number where the method does not advise how many.")
        return candidate.advised
    return None


def wanted(kind: str, candidate: Candidate, amount: Amount) -> int:
    """Units that `amount` asks of one candidate, as far as it has them; the new size is a multiple where that is possible."""
    units = asked(kind, candidate, amount)
    if units is None:
        size = base(amount, candidate)
        units = amount.value if is_count(amount, [size]) else amount.value * size
    return fitting(kind, candidate, rounded(units, candidate.element.quantum), amount.multiple)


def fitting(kind: str, candidate: Candidate, count: int, multiple: int) -> int:
    """At most what is offered, such that the size becomes a multiple: the nearest one, downwards where the room ends."""
    most = offered(kind, candidate)
    if multiple == 1 or count == 0 or candidate.element.level not in ("channel", "head", "group"):
        return min(count, most)
    sign, size, quantum = (1 if kind == "grow" else -1), candidate.active, candidate.element.quantum
    reachable = [n for n in range(quantum, most + 1, quantum) if (size + sign * n) % multiple == 0]
    return min(reachable, key=lambda n: (abs(n - count), n), default=0)


def take(kind: str, candidate: Candidate, count: int) -> Choice:
    """`count` units of a candidate: the first ones offered when growing, the lowest scores when pruning."""
    if kind == "grow":
        return Choice(candidate.element.name, tuple(range(count)))
    order = candidate.scores.argsort(stable=True)[:count]
    return Choice(candidate.element.name, tuple(order.sort().values.tolist()))


@dataclass
class Budget:
    """What is left of a limit while choices are made."""

    parameters: float | None
    flops: float | None

    @staticmethod
    def of(limit: Limit) -> Budget:
        """All of it."""
        return Budget(limit.parameters, limit.flops)

    def spend(self, candidate: Candidate, count: int) -> int:
        """Take up to `count` units of a candidate as far as the budget reaches; returns how many."""
        for left, cost in ((self.parameters, candidate.parameters_per_unit), (self.flops, candidate.flops_per_unit)):
            if left is not None and (cost > 0 or left <= 0):
                count = min(count, int(left / cost) if cost > 0 and left > 0 else 0)
        count -= count % candidate.element.quantum
        if self.parameters is not None:
            self.parameters -= count * candidate.parameters_per_unit
        if self.flops is not None:
            self.flops -= count * candidate.flops_per_unit
        return count


@dataclass(frozen=True)
class All(Selection):
    """Every candidate, each by `amount` of its own size."""

    def choose(self, kind: str, candidates: Sequence[Candidate], amount: Amount, limit: Limit, turn: int) -> list[Choice]:
        """See `Selection.choose`; a limit is spent in the network's order."""
        budget = Budget.of(limit)
        counts = [(c, budget.spend(c, wanted(kind, c, amount))) for c in candidates]
        return [take(kind, c, n) for c, n in counts if n > 0]


@dataclass(frozen=True)
class RoundRobin(Selection):
    """One candidate at a time, by turns, in the network's order (the RoundRobin updater of GradMax; AutoGrow)."""

    def choose(self, kind: str, candidates: Sequence[Candidate], amount: Amount, limit: Limit, turn: int) -> list[Choice]:
        """See `Selection.choose`; a candidate that yields nothing is passed over."""
        for offset in range(len(candidates)):
            candidate = candidates[(turn + offset) % len(candidates)]
            count = Budget.of(limit).spend(candidate, wanted(kind, candidate, amount))
            if count > 0:
                return [take(kind, candidate, count)]
        return []


@dataclass(frozen=True)
class BestGain(Selection):
    """The candidate whose units promise most: the largest summed gain when growing, the smallest mean score when pruning.

    Ties go to the first in the network's order. Where nothing is predicted, candidates are taken by turns.
    """

    def choose(self, kind: str, candidates: Sequence[Candidate], amount: Amount, limit: Limit, turn: int) -> list[Choice]:
        """See `Selection.choose`."""
        if kind == "grow" and all(len(c.scores) == 0 for c in candidates):
            return RoundRobin().choose(kind, candidates, amount, limit, turn)
        best: tuple[float, Choice] | None = None
        for candidate in candidates:
            count = Budget.of(limit).spend(candidate, wanted(kind, candidate, amount))
            if count <= 0:
                continue
            scores = candidate.scores.sort(descending=kind == "grow").values[:count]
            value = float(scores.sum()) if kind == "grow" else -float(scores.mean())
            if best is None or value > best[0]:
                best = (value, take(kind, candidate, count))
        return [] if best is None else [best[1]]


@dataclass(frozen=True)
class GlobalRanking(Selection):
    """All units of all candidates in one ranking; `amount` is the fraction of all units (network slimming's global threshold).

    Growing ranks predicted gains; without predictions it is `all`. No candidate gives more than its room.
    """

    normalise: str = parameter("none", "what the scores of a candidate are divided by first", choices=("none", "mean", "max"))

    def choose(self, kind: str, candidates: Sequence[Candidate], amount: Amount, limit: Limit, turn: int) -> list[Choice]:
        """See `Selection.choose`; a limit is spent on the best units first (the least important ones when pruning)."""
        if kind == "grow" and all(len(c.scores) == 0 for c in candidates):
            return All().choose(kind, candidates, amount, limit, turn)
        left = self._total(kind, candidates, amount)
        kept = [self._normalised(c.scores).sort(descending=kind == "grow", stable=True).values for c in candidates]
        kept = [s[: offered(kind, c)] for s, c in zip(kept, candidates, strict=True)]
        if left < 1 or not any(len(s) for s in kept):
            return []
        owner = torch.cat([torch.full((len(s),), i) for i, s in enumerate(kept)])
        order = owner[torch.cat(kept).argsort(descending=kind == "grow", stable=True)[:left]]
        counts = [
            fitting(kind, c, n, amount.multiple)
            for c, n in zip(candidates, _affordable(candidates, order, limit), strict=True)
        ]
        return [take(kind, c, n) for c, n in zip(candidates, counts, strict=True) if n > 0]

    def _total(self, kind: str, candidates: Sequence[Candidate], amount: Amount) -> int:
        own = [asked(kind, c, amount) for c in candidates]
        if any(units is not None for units in own):
            return int(sum(units or 0 for units in own))
        sizes = [base(amount, c) for c in candidates]
        return rounded(amount.value if is_count(amount, sizes) else amount.value * sum(sizes), 1)

    def _normalised(self, scores: Tensor) -> Tensor:
        if self.normalise == "none" or len(scores) == 0:
            return scores
        return scores / (scores.mean() if self.normalise == "mean" else scores.max()).clamp(min=1e-30)


def _affordable(candidates: Sequence[Candidate], order: Tensor, limit: Limit) -> list[int]:
    """Units of each candidate when units are taken in this order until the limit is reached, in whole quanta."""
    parameters = torch.tensor([c.parameters_per_unit for c in candidates], dtype=torch.float64)[order].cumsum(0)
    flops = torch.tensor([c.flops_per_unit for c in candidates], dtype=torch.float64)[order].cumsum(0)
    within = torch.ones(len(order), dtype=torch.bool)
    if limit.parameters is not None:
        within &= parameters <= limit.parameters
    if limit.flops is not None:
        within &= flops <= limit.flops
    counts: list[int] = order[within].bincount(minlength=len(candidates)).tolist()
    return [n - n % c.element.quantum for n, c in zip(counts, candidates, strict=True)]
