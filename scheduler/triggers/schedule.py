"""Triggers that follow the clock of the trial."""

from __future__ import annotations

from dataclasses import dataclass

from coppice.scheduler.triggers.base import Progress, Trigger, setting


@dataclass(frozen=True)
class Never(Trigger):
    """Never acts: the control arm."""

    why = "what every other trigger must beat: the network stays as it is"
    paper = "control arm"

    def decides(self, progress: Progress) -> bool:
        """False after every epoch."""
        return False


@dataclass(frozen=True)
class Initial(Trigger):
    """Before the first step of training: pruning at initialisation, sparse random starts."""

    why = "the network has its sparsity or shape before it is trained, so that all of training is as cheap"
    paper = "Lee et al. 2019, SNIP (arXiv 1810.02340); Mocanu et al. 2018, SET (arXiv 1707.04780)"
    initially = True

    def decides(self, progress: Progress) -> bool:
        """Whether nothing was trained yet."""
        return progress.epoch == 0


@dataclass(frozen=True)
class Periodic(Trigger):
    """Every `every` epochs from the start of its span (the schedule of Net2Net, GradMax, RigL and most others)."""

    why = "nothing to measure and nothing to tune but one interval"
    paper = "Evci et al. 2022, GradMax (arXiv 2201.05125): 12 acts between 13 % and 48 % of training; AutoGrow: every 3 epochs"
    by_the_clock = True

    every: int = setting(1, "epochs between two acts", low=1)

    def decides(self, progress: Progress) -> bool:
        """Whether a whole number of intervals has passed since the span began."""
        return (progress.epoch - self.first(progress)) % self.every == 0
