"""How many units: from an amount to a count that the permissible number, quantum, multiple and limit allow."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from coppice.methods.selection.amount import Amount
from coppice.methods.selection.values import Candidate, Choice, Limit

SIZED = ("channel", "head", "group")
"""Levels whose sizes can be made a multiple of something."""


def offered(kind: str, candidate: Candidate) -> int:
    """Most units of a candidate that can be chosen: as many as are permissible, and no more than were scored."""
    most = candidate.most if kind == "grow" and len(candidate.scores) == 0 else min(candidate.most, len(candidate.scores))
    return most - most % candidate.element.quantum


def base(amount: Amount, candidate: Candidate) -> int:
    """What a fraction is taken of."""
    return candidate.seed_size if amount.of == "seed" else candidate.active


def is_count(amount: Amount, sizes: Sequence[int]) -> bool:
    """Whether an amount counts units: an int, or 1.0 where there is one unit each (layers, blocks)."""
    return isinstance(amount.value, int) or (amount.value == 1 and all(s == 1 for s in sizes))


def possible_counts(kind: str, candidate: Candidate, multiple: int = 1) -> range:
    """Numbers of units above 0 that may be chosen: whole quanta within what is offered, with a multiple as the new size.

    Layers, blocks, insertions and single weights have no size that could become a multiple.
    """
    quantum, most = candidate.element.quantum, offered(kind, candidate)
    if multiple == 1 or candidate.element.level not in SIZED:
        return range(quantum, most + 1, quantum)
    sign, step = (1 if kind == "grow" else -1), math.lcm(quantum, multiple)
    fitting = (n for n in range(quantum, step + 1, quantum) if (candidate.active + sign * n) % multiple == 0)
    return range(next(fitting, most + 1), most + 1, step)


def at_most(possible: range, units: float) -> int:
    """The largest possible count that is not above `units`, or 0."""
    if not possible or units < possible[0]:
        return 0
    if units >= possible[-1]:
        return possible[-1]
    return possible[math.floor((units - possible.start) / possible.step)]


def nearest(possible: range, units: float) -> int:
    """The possible count, or 0, that is nearest to `units`; the larger one of two."""
    below = at_most(possible, units)
    above = below + possible.step if below else possible.start
    return above if above in possible and above - units <= units - below else below


def requested(kind: str, candidate: Candidate, amount: Amount) -> float | None:
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
    """Units that `amount` asks of one candidate: the nearest possible count; of those beyond a score never more than there are.

    Where the new size must be a multiple, an amount that is nearer to none of the multiples than to the present size gives 0.
    """
    units = requested(kind, candidate, amount)
    possible = possible_counts(kind, candidate, amount.multiple)
    if units is None:
        size = base(amount, candidate)
        units = amount.value if is_count(amount, [size]) else amount.value * size
    return at_most(possible, units) if amount.of == "above" else nearest(possible, units)


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
        """A budget of which nothing is spent yet."""
        return Budget(limit.parameters, limit.flops)

    def spend(self, candidate: Candidate, count: int, possible: range | None = None) -> int:
        """Take up to `count` units of a candidate as far as the budget reaches; returns how many.

        Args:
            candidate: what the units cost.
            count: how many are wanted.
            possible: counts that are allowed beside 0; None: whole quanta.
        """
        if possible is None:
            possible = range(candidate.element.quantum, count + 1, candidate.element.quantum)
        count = at_most(possible, min(count, self._reach(candidate)))
        if self.parameters is not None:
            self.parameters -= count * candidate.parameters_per_unit
        if self.flops is not None:
            self.flops -= count * candidate.flops_per_unit
        return count

    def _reach(self, candidate: Candidate) -> float:
        """Units that what is left pays for."""
        reach = math.inf
        for left, cost in ((self.parameters, candidate.parameters_per_unit), (self.flops, candidate.flops_per_unit)):
            if left is None or (cost <= 0 < left):
                continue
            units = math.floor(left / cost) if left > 0 else 0
            reach = min(reach, units - (units * cost > left))
        return reach
