"""Triggers that look at what the network costs, and at how well it generalises for it."""

from __future__ import annotations

import math
from dataclasses import dataclass

from coppice.scheduler.triggers.base import Progress, Trigger, setting
from coppice.scheduler.triggers.sparsity import not_a_fraction


@dataclass(frozen=True)
class Overfitting(Trigger):
    """Acts in intervals that grow with the overfitting risk ORL: I = I_max / (1 + exp(alpha - ORL)).

    ORL is the training accuracy minus the validation accuracy, in percent; for regression R^2 stands for accuracy (ours).
    I_max is the span divided by `acts`: the epochs after the span are the least number that the paper keeps for the final
    training. After that many acts it rests for good. Training accuracy is measured in eval mode on batches without augmentation.
    """

    why = "a network that fits its data too well gets no further capacity for a while"
    paper = "FRAGrow 2024: fast growth with an overfitting-dependent interval; alpha = 4"
    wants = ("train_accuracy",)

    acts: int = setting(5, "number of acts that are planned", low=1, high=1000)
    alpha: float = setting(4.0, "risk, in percent, at which the interval is half of the longest", low=-100.0, high=100.0)

    def decides(self, progress: Progress) -> bool:
        """Whether the interval has passed since the last act or the start of the span."""
        if len(progress.acted) >= self.acts:
            return False
        risk = self.risk(progress)
        if risk is None:
            return False
        since = progress.acted[-1] if progress.acted else self.first(progress)
        return progress.epoch - since >= self.interval(progress, risk)

    def risk(self, progress: Progress) -> float | None:
        """ORL, in percent; None where nothing was measured."""
        quality = "r2" if progress.signals and "train_r2" in progress.signals[-1] else "accuracy"
        train = progress.signal("overfitting", f"train_{quality}")
        return None if train is None else 100 * (train - progress.metric("overfitting", f"val_{quality}"))

    def interval(self, progress: Progress, risk: float) -> float:
        """Epochs between two acts at this risk."""
        longest = (self.last(progress) - self.first(progress)) / self.acts
        exponent = self.alpha - risk
        return longest / (1 + math.exp(exponent)) if exponent < 700 else 0.0


@dataclass(frozen=True)
class Compute(Trigger):
    """Acts each time a share of the trial's compute has been spent, counted from the start of its span.

    The trial's compute is `budget`, in FLOPs (three forwards a training sample), or, where none is given, what it would be if
    the network stayed as it was in the first epoch: the more it grows, the fewer epochs are between two acts. With a budget it
    does not act after that is spent. At most one act an epoch.
    """

    why = "changes are spread over what is paid for, not over epochs, which cost ever more while a network grows"
    paper = "ours"

    share: float = setting(0.1, "part of the compute between two acts", low=1e-4, high=1.0, log=True)
    budget: float | None = setting(None, "FLOPs of the whole trial; null: first epoch times number of epochs")

    def decides(self, progress: Progress) -> bool:
        """Whether another multiple of the share has been passed since the last act."""
        total = self.budget if self.budget is not None else self._spent(progress, 1) * progress.epochs
        start = self._spent(progress, max(0, self.first(progress) - 1))
        before = self._spent(progress, progress.acted[-1]) if progress.acted else start
        now = self._spent(progress, progress.epoch)
        if total <= 0 or (self.budget is not None and now > self.budget):
            return False
        step = self.share * total * (1 - 1e-12)
        return math.floor((now - start) / step) > math.floor((before - start) / step)

    def _spent(self, progress: Progress, epoch: int) -> float:
        """Compute until the end of an epoch."""
        return 0.0 if epoch == 0 else progress.metric("compute", "compute", epoch - 1)


@dataclass(frozen=True)
class Target(Trigger):
    """Grows or prunes until the network has a size, and holds it: acts while it is too small to grow, too large to prune.

    `size` is a number of parameters or of FLOPs. Within `tolerance` of it nothing happens. The campaign's amount is the largest
    fraction of one act; what is needed may be less: the size is taken to change with the power `order` of the widths. 2 is exact
    where both sides of every layer change; where they do not, each act comes nearer to the target from the same side. 1 is right
    for single weights, and where only every other layer changes.
    """

    why = "every trial of a search ends at the same size, so that what is compared is how well it is used"
    paper = "ours"

    size: float = setting(1e5, "parameters, or FLOPs of one forward of one sample", low=1.0)
    metric: str = setting("parameters", "what the size is measured in", choices=("parameters", "flops"))
    tolerance: float = setting(0.02, "relative distance from the size that is near enough", low=0.0, high=0.5)
    order: int = setting(2, "power of the widths with which the size changes", low=1, high=2)

    def refuses(self, amount: float, of: str) -> str | None:
        """See `Trigger.refuses`."""
        return not_a_fraction("target", amount, of, "the most that one act changes") or (
            "target needs a fraction of now; write the amount as a plain number" if of == "seed" else None)

    def decides(self, progress: Progress) -> bool:
        """Whether the network is too small (growing) or too large (pruning)."""
        ratio = self._now(progress) / self.size
        return ratio < 1 - self.tolerance if progress.kind == "grow" else ratio > 1 + self.tolerance

    def amount(self, progress: Progress, amount: float) -> float:
        """The fraction that is needed, at most the campaign's."""
        ratio = (self.size / self._now(progress)) ** (1 / self.order)
        return min(amount, max(0.0, ratio - 1 if progress.kind == "grow" else 1 - ratio))

    def _now(self, progress: Progress) -> float:
        return progress.metric("target", self.metric)
