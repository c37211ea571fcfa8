"""Schedules that follow the clock and say how much as well: the amount of an act depends on when it is."""

from __future__ import annotations

import math
from dataclasses import dataclass

from coppice.scheduler.triggers.base import Progress, Trigger, setting


def not_a_fraction(trigger: str, amount: float, of: str, why: str) -> str | None:
    """Why an amount is no fraction, or None."""
    if of not in ("now", "seed") or isinstance(amount, int) or not 0 <= amount <= 1:
        return f"{trigger} needs an amount that is a fraction from 0.0 to 1.0, {why}, but got {amount!r} (of {of})"
    return None


@dataclass(frozen=True)
class Cubic(Trigger):
    """Gradual pruning: after an act the sparsity is s_f - (s_f - s_i) (1 - x)^3, where x is the finished part of the span.

    The campaign's amount is s_f, the fraction that is gone in the end. Acts every `every` epochs, and once more at the end of the
    span (at the latest after the last epoch but one: what the last one changes is not trained). What each act removes is a
    fraction of the units there are: it takes for granted that the acts before it removed what they were asked for, and that
    nothing else adds or removes units. A rest over the end of the span leaves the last act out.
    """

    why = "much is removed while the network is young and learns fast, little when it has settled"
    paper = "Zhu and Gupta 2017, gradual magnitude pruning (arXiv 1710.01878, eq. 1)"
    kinds = ("prune",)
    by_the_clock = True

    end: float = setting(0.75, "acts until this epoch (or fraction of the trial, at most 1)", low=0.0)
    every: int = setting(1, "epochs between two acts", low=1)
    initial: float = setting(0.0, "sparsity s_i at the start of the span", low=0.0, high=0.99)
    power: float = setting(3.0, "3 is the paper's cube, 1 a straight line", low=1.0, high=5.0)

    def refuses(self, amount: float, of: str) -> str | None:
        """See `Trigger.refuses`."""
        if of == "now" and isinstance(amount, float) and not self.initial <= amount < 1:
            return f"cubic needs initial <= amount < 1, the final sparsity, but got initial={self.initial} and amount={amount}"
        return not_a_fraction("cubic", amount, of, "the final sparsity") or (
            "cubic needs a fraction of now; write the amount as a plain number" if of == "seed" else None)

    def last(self, progress: Progress) -> int:
        """See `Trigger.last`."""
        return max(self.first(progress), min(super().last(progress), progress.epochs - 1))

    def decides(self, progress: Progress) -> bool:
        """Whether an interval has passed, or the span ends, and there is something to remove."""
        since = progress.epoch - self.first(progress)
        due = since % self.every == 0 or progress.epoch == self.last(progress)
        return due and (since > 0 or self.initial > 0 or progress.epoch == self.last(progress))

    def sparsity(self, progress: Progress, epoch: int, final: float) -> float:
        """Sparsity after an act at the end of `epoch`, for this final sparsity."""
        first, last = self.first(progress), self.last(progress)
        x = 1.0 if last == first else min(1.0, max(0.0, (epoch - first) / (last - first)))
        return final - (final - self.initial) * (1 - x) ** self.power

    def amount(self, progress: Progress, amount: float) -> float:
        """The fraction of what there is now that must go."""
        before = self.sparsity(progress, progress.acted[-1], amount) if progress.acted else 0.0
        return max(0.0, (self.sparsity(progress, progress.epoch, amount) - before) / (1 - before))


@dataclass(frozen=True)
class Cosine(Trigger):
    """Every `every` epochs with an amount that falls from the campaign's to 0: amount (1 + cos(pi x)) / 2, x as in `cubic`.

    RigL's schedule of the fraction that is dropped and grown: amount 0.3, until 0.75 of training. x is counted from the start of
    the span.
    """

    why = "large changes early, none at the end, when the weights should settle"
    paper = "Evci et al. 2020, RigL (arXiv 1911.11134); Dettmers and Zettlemoyer 2019 (arXiv 1907.04840)"
    by_the_clock = True

    end: float = setting(0.75, "acts until before this epoch (or fraction of the trial, at most 1)", low=0.0)
    every: int = setting(1, "epochs between two acts", low=1)

    def refuses(self, amount: float, of: str) -> str | None:
        """See `Trigger.refuses`."""
        return None if of in ("now", "seed") else f"cosine needs an amount that is a number of units or a fraction, not {of}"

    def decides(self, progress: Progress) -> bool:
        """Whether an interval has passed, before the end, where the amount is 0."""
        return (progress.epoch - self.first(progress)) % self.every == 0 and progress.epoch < self.last(progress)

    def amount(self, progress: Progress, amount: float) -> float:
        """The amount at this epoch."""
        first, last = self.first(progress), self.last(progress)
        return amount * (1 + math.cos(math.pi * (progress.epoch - first) / (last - first))) / 2
