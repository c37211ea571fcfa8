"""When: a trigger looks at a trial's progress and says whether its adaptation acts now."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Progress:
    """What a trigger may look at. Asked once at the end of each epoch.

    Attributes:
        epoch: number of finished epochs, 1 after the first.
        epochs: planned epochs of the trial.
        history: metrics of each finished epoch, oldest first (`train_loss`, `val_loss`, `val_accuracy`, `parameters`, ...).
        acted: epochs after which this adaptation acted before, oldest first.
    """

    epoch: int
    epochs: int
    history: tuple[Mapping[str, float], ...] = field(default_factory=tuple)
    acted: tuple[int, ...] = ()

    @property
    def fraction(self) -> float:
        """Finished part of the trial, in (0, 1]."""
        return self.epoch / self.epochs


class Trigger(ABC):
    """Subclasses are frozen dataclasses whose fields carry ranges in `metadata["parameter"]` (a mapping low/high/log/choices/help)."""

    @abstractmethod
    def fires(self, progress: Progress) -> bool:
        """Whether the adaptation acts now. A pure function of `progress`."""
