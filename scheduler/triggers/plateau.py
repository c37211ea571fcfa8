"""When the network stops getting better."""

from __future__ import annotations

from dataclasses import dataclass

from coppice.scheduler.metrics import mode_of
from coppice.scheduler.triggers.base import Progress, Trigger, setting


@dataclass(frozen=True)
class Plateau(Trigger):
    """Acts when a metric has not improved for `patience` epochs.

    Counting starts anew after each act. An epoch improves when it is better than the best one since then by more than
    `threshold`, relative to that best one. A metric that is not finite does not improve.

    This is AutoGrow's growth after convergence; its paper watches the validation accuracy (`metric: val_accuracy, mode: max`)
    and calls a gain of less than 0.05 percent points none (`threshold: 5e-4`, here relative). Its best results come from growing
    before convergence, every 3 epochs (`periodic`); it stops growing after 200 epochs on CIFAR, 30 on ImageNet, without a gain.
    """

    why = "what the network can learn at its present size is learned before the size changes"
    paper = "Wen et al. 2019, AutoGrow (arXiv 1906.02909)"

    metric: str = setting("val_loss", "metric that is watched")
    mode: str | None = setting(None, "whether it should fall or rise; null: as the name says", choices=(None, "min", "max"))
    patience: int = setting(3, "epochs without improvement", low=1)
    threshold: float = setting(1e-3, "smallest relative improvement that counts", low=0.0, high=0.5)

    def __post_init__(self) -> None:
        """Raise ValueError where nothing says which end of the metric is good."""
        mode_of(self.metric, self.mode)

    def possible(self, progress: Progress) -> bool:
        """See `Trigger.possible`: there must have been enough epochs."""
        return super().possible(progress) and progress.epoch > self.patience

    def decides(self, progress: Progress) -> bool:
        """Whether the last `patience` epochs brought no improvement."""
        since = max((*progress.acted, 0))
        values = [progress.metric("plateau", self.metric, at) for at in range(since, len(progress.history))]
        if len(values) <= self.patience:
            return False
        sign = 1.0 if mode_of(self.metric, self.mode) == "min" else -1.0
        best, best_at = float("inf"), 0
        for at, value in enumerate(values):
            if best == float("inf") or sign * value < best - self.threshold * abs(best):
                best, best_at = sign * value, at
        return len(values) - 1 - best_at >= self.patience
