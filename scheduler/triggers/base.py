"""When: a trigger looks at a trial's progress and says whether its adaptation acts now."""

from __future__ import annotations

import dataclasses
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar


@dataclass(frozen=True)
class Progress:
    """What a trigger may look at. Asked once at the end of each epoch.

    Attributes:
        epoch: number of finished epochs, 1 after the first.
        epochs: planned epochs of the trial.
        history: metrics of each finished epoch, oldest first (`train_loss`, `val_loss`, `val_accuracy`, `parameters`, ...).
        acted: epochs after which this adaptation acted before, oldest first.
        changed: epochs after which any adaptation of the trial changed the network, oldest first.
        signals: what was measured on the network for this trigger (see `Trigger.wants`) after each epoch, oldest first; as
            long as `history`, or empty.
    """

    epoch: int
    epochs: int
    history: tuple[Mapping[str, float], ...] = field(default_factory=tuple)
    acted: tuple[int, ...] = ()
    changed: tuple[int, ...] = ()
    signals: tuple[Mapping[str, float], ...] = ()

    @property
    def fraction(self) -> float:
        """Finished part of the trial, in (0, 1]."""
        return self.epoch / self.epochs


def setting(
    default: Any, help: str, low: float | None = None, high: float | None = None, log: bool = False, choices: Sequence[Any] = ()
) -> Any:
    """A dataclass field of a trigger, with its range in `metadata["parameter"]`."""
    about = {"low": low, "high": high, "log": log, "choices": tuple(choices), "help": help}
    return dataclasses.field(default=default, metadata={"parameter": about})


@dataclass(frozen=True)
class Trigger(ABC):
    """When. Subclasses are frozen dataclasses of `setting` fields and say in `decides` when they would act.

    All share a span and a cooldown. `start` and `end` are epochs, or fractions of the trial where they are at most 1 (`end`) or
    below 1 (`start`); in campaign files they are written `from` and `until`.

    Class attributes:
        why: what it is good for, in a sentence.
        paper: where it comes from.
        wants: names of `methods.signals.SIGNALS` that it looks at; they are measured after each epoch.
    """

    why: ClassVar[str] = ""
    paper: ClassVar[str] = ""
    wants: ClassVar[tuple[str, ...]] = ()

    start: float = setting(0.0, "acts from this epoch (or fraction of the trial, below 1) on", low=0.0)
    end: float = setting(1.0, "acts until this epoch (or fraction of the trial, at most 1)", low=0.0)
    cooldown: int = setting(0, "epochs of rest after an act", low=0, high=100)
    refractory: int = setting(0, "epochs of rest after any change of the network, by whichever adaptation", low=0, high=100)

    def fires(self, progress: Progress) -> bool:
        """Whether the adaptation acts now. A pure function of `progress`."""
        if not self.first(progress) <= progress.epoch <= self.last(progress):
            return False
        if progress.acted and progress.epoch - progress.acted[-1] <= self.cooldown:
            return False
        if progress.changed and progress.epoch - progress.changed[-1] < self.refractory:
            return False
        return self.decides(progress)

    def amount(self, progress: Progress, amount: float) -> float:
        """What becomes of the campaign's amount (its number) when it fires now; schedules of sparsity override this."""
        return amount

    def first(self, progress: Progress) -> int:
        """First epoch of the span."""
        return math.ceil(self.start * progress.epochs if self.start < 1 else self.start)

    def last(self, progress: Progress) -> int:
        """Last epoch of the span."""
        return math.floor(self.end * progress.epochs if self.end <= 1 else self.end)

    @abstractmethod
    def decides(self, progress: Progress) -> bool:
        """Whether it would act, span and cooldown left aside."""
