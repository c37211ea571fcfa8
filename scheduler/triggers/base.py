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
        history: metrics of each finished epoch, oldest first (`train_loss`, `val_loss`, `val_accuracy`, `parameters`, `flops`,
            `compute`, ...).
        acted: epochs after which this adaptation acted before, oldest first.
        changed: epochs after which any adaptation of the trial changed the network, oldest first.
        signals: what was measured on the network for this trigger (see `Trigger.wants`) after each epoch, oldest first; as
            long as `history`, or empty. A mapping is empty where nothing was or could be measured.
        kind: `grow` or `prune`: what the adaptation does.
    """

    epoch: int
    epochs: int
    history: tuple[Mapping[str, float], ...] = field(default_factory=tuple)
    acted: tuple[int, ...] = ()
    changed: tuple[int, ...] = ()
    signals: tuple[Mapping[str, float], ...] = ()
    kind: str = "grow"

    @property
    def fraction(self) -> float:
        """Finished part of the trial, in (0, 1]."""
        return self.epoch / self.epochs

    def metric(self, trigger: str, name: str, at: int = -1) -> float:
        """A metric of an epoch (`at` is its place in `history`).

        Raises:
            KeyError: the trial does not report it; the message lists what it does report.
        """
        return _found(f"{trigger} watches {name!r}, but the trial reports only", self.history, name, at)

    def signal(self, trigger: str, name: str, at: int = -1) -> float | None:
        """A signal of an epoch; None where nothing was measured.

        Raises:
            KeyError: something was measured, but not this; the message lists what was.
        """
        if self.signals and not self.signals[at]:
            return None
        return _found(f"{trigger} watches the signal {name!r}, but what is measured is only", self.signals, name, at)


def _found(intro: str, reports: Sequence[Mapping[str, float]], name: str, at: int) -> float:
    known = reports[at] if reports else {}
    if name not in known:
        raise KeyError(f"{intro} {sorted(known)}.")
    return float(known[name])


def setting(
    default: Any, help: str, low: float | None = None, high: float | None = None, log: bool = False, choices: Sequence[Any] = ()
) -> Any:
    """A dataclass field of a trigger, with its range in `metadata["parameter"]`."""
    about = {"low": low, "high": high, "log": log, "choices": tuple(choices), "help": help}
    return dataclasses.field(default=default, metadata={"parameter": about})


@dataclass(frozen=True)
class Trigger(ABC):
    """When. Subclasses are frozen dataclasses of `setting` fields and say in `decides` when they would act.

    All share a span, a cooldown and a refractory period. `start` and `end` are epochs, or fractions of the trial where they are
    at most 1 (`end`) or below 1 (`start`); in campaign files they are written `from` and `until`.

    Class attributes:
        why: what it is good for, in a sentence.
        paper: where it comes from.
        wants: names of `coppice.methods.adaptation.signals.SIGNALS` that it looks at; they are measured after
            each epoch in which it may act.
        remembers: whether it looks at what was measured earlier as well: then every epoch is measured.
        kinds: kinds of adaptations it is for.
        needs_advice: whether it is for methods only that say themselves how many units to change.
        initially: whether it is asked before the first epoch (as epoch 0), and never again.
        by_the_clock: whether `decides` looks at epochs only, and at no metric or signal.
    """

    why: ClassVar[str] = ""
    paper: ClassVar[str] = ""
    wants: ClassVar[tuple[str, ...]] = ()
    remembers: ClassVar[bool] = False
    kinds: ClassVar[tuple[str, ...]] = ("grow", "prune")
    needs_advice: ClassVar[bool] = False
    initially: ClassVar[bool] = False
    by_the_clock: ClassVar[bool] = False

    start: float = setting(0.0, "acts from this epoch (or fraction of the trial, below 1) on", low=0.0)
    end: float = setting(1.0, "acts until this epoch (or fraction of the trial, at most 1)", low=0.0)
    cooldown: int = setting(0, "epochs of rest after an act", low=0)
    refractory: int = setting(0, "epochs of rest after a change by any adaptation, also in the same epoch", low=0)

    def fires(self, progress: Progress) -> bool:
        """Whether the adaptation acts now. A pure function of `progress`."""
        return self.awake(progress) and self.decides(progress)

    def awake(self, progress: Progress) -> bool:
        """Whether it is within its span and not at rest."""
        if not self.first(progress) <= progress.epoch <= self.last(progress):
            return False
        if progress.acted and progress.epoch - progress.acted[-1] <= self.cooldown:
            return False
        return not (self.refractory and progress.changed and progress.epoch - progress.changed[-1] <= self.refractory)

    def possible(self, progress: Progress) -> bool:
        """Whether it may act after this epoch, whatever metrics and signals say; `progress` has none, and no acts."""
        return self.awake(progress) and (not self.by_the_clock or self.decides(progress))

    def amount(self, progress: Progress, amount: float) -> float:
        """What becomes of the campaign's amount (its number) when it fires now; schedules of sparsity override this."""
        return amount

    def refuses(self, amount: float, of: str) -> str | None:
        """Why an adaptation with this amount cannot have this trigger; None when it can.

        Args:
            amount: the campaign's amount; an int counts units.
            of: what it is an amount of: `now`, `seed`, `above` or `advised`.
        """
        return None

    def first(self, progress: Progress) -> int:
        """First epoch of the span."""
        return math.ceil(self.start * progress.epochs if self.start < 1 else self.start)

    def last(self, progress: Progress) -> int:
        """Last epoch of the span."""
        return math.floor(self.end * progress.epochs if self.end <= 1 else self.end)

    @abstractmethod
    def decides(self, progress: Progress) -> bool:
        """Whether it would act, span and rests left aside."""
