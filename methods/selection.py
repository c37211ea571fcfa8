"""Where, and how many: selections turn scores into choices."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from methods.graph.values import Element


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
    """

    element: Element
    scores: Tensor
    room: int
    seed_size: int
    parameters_per_unit: float
    flops_per_unit: float


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
    def choose(self, kind: str, candidates: Sequence[Candidate], amount: float, limit: Limit, turn: int) -> list[Choice]:
        """Choose units.

        Args:
            kind: `grow` or `prune`.
            candidates: what is offered.
            amount: fraction in (0, 1] of the current size (of the chosen elements, or of all candidates), or a count >= 1 if int.
            limit: most parameters/FLOPs the choice may add; for pruning the most it may remove.
            turn: how often this adaptation has acted before (round robin).
        """


def quanta(units: float, quantum: int) -> int:
    """A number of units rounded to whole quanta."""
    return int(units / quantum + 0.5) * quantum


def wanted(candidate: Candidate, amount: float) -> int:
    """Units that `amount` asks of one candidate: a count when it is a whole number above 1, else a fraction of its size."""
    units = amount if amount > 1 or candidate.element.size == 1 else amount * candidate.element.size
    return min(quanta(units, candidate.element.quantum), candidate.room)


def take(kind: str, candidate: Candidate, count: int) -> Choice:
    """`count` units of a candidate: the first ones offered when growing, the lowest scores when pruning."""
    if kind == "grow":
        return Choice(candidate.element.name, tuple(range(count)))
    order = candidate.scores.argsort(stable=True)[:count]
    return Choice(candidate.element.name, tuple(sorted(order.tolist())))


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
            if left is not None and cost > 0:
                count = min(count, int(left / cost))
        count -= count % candidate.element.quantum
        if self.parameters is not None:
            self.parameters -= count * candidate.parameters_per_unit
        if self.flops is not None:
            self.flops -= count * candidate.flops_per_unit
        return count


@dataclass(frozen=True)
class All(Selection):
    """Every candidate, each by `amount` of its own size."""

    def choose(self, kind: str, candidates: Sequence[Candidate], amount: float, limit: Limit, turn: int) -> list[Choice]:
        """See `Selection.choose`."""
        budget = Budget.of(limit)
        counts = [(c, budget.spend(c, wanted(c, amount))) for c in candidates]
        return [take(kind, c, n) for c, n in counts if n > 0]


@dataclass(frozen=True)
class RoundRobin(Selection):
    """One candidate at a time, in the network's order (GradMax's RoundRobin updater, AutoGrow)."""

    def choose(self, kind: str, candidates: Sequence[Candidate], amount: float, limit: Limit, turn: int) -> list[Choice]:
        """See `Selection.choose`; a candidate that yields nothing is passed over."""
        for offset in range(len(candidates)):
            candidate = candidates[(turn + offset) % len(candidates)]
            count = Budget.of(limit).spend(candidate, wanted(candidate, amount))
            if count > 0:
                return [take(kind, candidate, count)]
        return []


@dataclass(frozen=True)
class BestGain(Selection):
    """The candidate whose units promise most: the largest summed gain when growing, the smallest summed score when pruning.

    Candidates without a prediction are taken in the network's order, by turns.
    """

    def choose(self, kind: str, candidates: Sequence[Candidate], amount: float, limit: Limit, turn: int) -> list[Choice]:
        """See `Selection.choose`."""
        if kind == "grow" and all(len(c.scores) == 0 for c in candidates):
            return RoundRobin().choose(kind, candidates, amount, limit, turn)
        best: tuple[float, Choice] | None = None
        for candidate in candidates:
            count = Budget.of(limit).spend(candidate, wanted(candidate, amount))
            if count <= 0:
                continue
            scores = candidate.scores.sort(descending=kind == "grow").values[:count]
            value = float(scores.sum()) * (1 if kind == "grow" else -1)
            if best is None or value > best[0]:
                best = (value, take(kind, candidate, count))
        return [] if best is None else [best[1]]


@dataclass(frozen=True)
class GlobalRanking(Selection):
    """All units of all candidates in one ranking; `amount` is the fraction of all units (network slimming's global threshold).

    Scores are compared as they are; methods whose scores depend on the size of a layer normalise them themselves. Growing
    ranks predicted gains; without predictions it is `all`.
    """

    def choose(self, kind: str, candidates: Sequence[Candidate], amount: float, limit: Limit, turn: int) -> list[Choice]:
        """See `Selection.choose`."""
        if kind == "grow" and all(len(c.scores) == 0 for c in candidates):
            return All().choose(kind, candidates, amount, limit, turn)
        total = sum(c.element.size for c in candidates)
        left = int(amount if amount > 1 or total == len(candidates) else amount * total + 0.5)
        counts = _ranked_counts(kind, candidates, left)
        budget = Budget.of(limit)
        spent = [(c, budget.spend(c, n - n % c.element.quantum)) for c, n in zip(candidates, counts, strict=True)]
        return [take(kind, c, n) for c, n in spent if n > 0]


def _ranked_counts(kind: str, candidates: Sequence[Candidate], num: int) -> list[int]:
    """How many of the best `num` units of one common ranking belong to each candidate; none gives more than its room."""
    best = [c.scores.double().cpu().sort(descending=kind == "grow", stable=True).values[: c.room] for c in candidates]
    owners = torch.cat([torch.full((len(b),), i) for i, b in enumerate(best)])
    order = torch.cat(best).argsort(descending=kind == "grow", stable=True)[: max(num, 0)]
    return torch.bincount(owners[order], minlength=len(candidates)).tolist()
