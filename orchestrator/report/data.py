"""What a report shows, gathered from the folder of a campaign; nothing here knows how it is drawn."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

GROWING = ("grow", "insert")
SHRINKING = ("prune", "remove", "mask")


@dataclass(frozen=True)
class Change:
    """One structural event of a trial, as its events tell it."""

    epoch: int
    kind: str
    element: str
    size_before: int | None
    size_after: int | None
    parameters_before: int | None
    parameters_after: int | None
    function_change: float | None
    accepted: bool
    reason: str

    @property
    def grows(self) -> bool:
        """Whether it adds units, layers or blocks."""
        return self.kind in GROWING


@dataclass(frozen=True)
class TrialData:
    """One trial.

    Attributes:
        id: name of its folder.
        label: `static` or `big` for a trial that the others are compared with, else None.
        state: `waiting`, `running`, `finished`, `failed`, `stopped`, ...
        reason: why it failed or was stopped; empty otherwise.
        parameters_of: sampled values by their path in the campaign file.
        epochs: metrics after each epoch, oldest first.
        widths: size of each element after each epoch, as `epochs`.
        changes: structural events, oldest first.
        skipped: why adaptations did nothing, with their epoch.
        planned_epochs: how many epochs it was to train; 0 where that is not known.
        compared_with: the trial of the search that a labelled one belongs to; None where that is not known.
        began: seconds since 1970 of its first event; 0 where it has none.
        damage: what is wrong with the file of its events; empty where nothing is.
        compared_epoch: after which of that trial's epochs its architecture was taken; None where it was not.
    """

    id: str
    label: str | None
    state: str
    reason: str
    parameters_of: Mapping[str, Any] = field(default_factory=dict)
    epochs: tuple[Mapping[str, float], ...] = ()
    widths: tuple[Mapping[str, int], ...] = ()
    changes: tuple[Change, ...] = ()
    skipped: tuple[tuple[int, str], ...] = ()
    planned_epochs: int = 0
    compared_with: str | None = None
    compared_epoch: int | None = None
    began: float = 0.0
    damage: str = ""

    @property
    def name(self) -> str:
        """Its id, with its label where the id does not say it."""
        return f"{self.id} ({self.label})" if self.label and self.label not in self.id else self.id

    def last(self, name: str) -> float | None:
        """Value of a metric after the last epoch that reports it; None when none does or when it is not finite."""
        value = next((e[name] for e in reversed(self.epochs) if name in e), None)
        return value if value is not None and math.isfinite(value) else None

    def curve(self, name: str) -> list[tuple[float, float]]:
        """(epoch, finite value) of a metric."""
        return [(e["epoch"], e[name]) for e in self.epochs if name in e and math.isfinite(e[name])]

    def count(self, growing: bool) -> int:
        """How many accepted changes grew the network, or shrank it."""
        return sum(c.accepted and c.grows == growing for c in self.changes)

    @property
    def seconds(self) -> float:
        """Time spent in its epochs."""
        return sum(e.get("seconds", 0.0) for e in self.epochs)


@dataclass(frozen=True)
class ReportData:
    """One campaign.

    Attributes:
        name: of the campaign.
        folder: where it is.
        metric: what the search optimises.
        mode: `max` or `min`.
        created: when it began, in words; empty where that is not known.
        facts: (what, value) pairs for the header: data set, network, sampler, versions.
        trials: all trials in the order of their names.
        remarks: what is wrong with the folder as a whole, in sentences.
    """

    name: str
    folder: str
    metric: str
    mode: Literal["max", "min"]
    created: str
    facts: tuple[tuple[str, str], ...]
    trials: tuple[TrialData, ...]
    remarks: tuple[str, ...] = ()

    def better(self, a: float, b: float) -> bool:
        """Whether metric value `a` is better than `b`."""
        return a > b if self.mode == "max" else a < b

    @property
    def searched(self) -> tuple[TrialData, ...]:
        """The trials of the search, without those that they are compared with."""
        return tuple(t for t in self.trials if t.label is None)

    @property
    def best(self) -> TrialData | None:
        """The finished trial of the search with the best last value of the metric (any trial where none has finished)."""
        scored = [t for t in self.searched if t.last(self.metric) is not None and t.state != "failed"]
        return best_of([t for t in scored if t.state == "finished"] or scored, self.metric, self.mode)

    def labelled(self, label: str) -> TrialData | None:
        """The newest trial with this label that has a value of the metric and belongs to the best trial of now."""
        best = self.best.id if self.best else None
        own = [t for t in self._compared if t.label == label and t.compared_with in (None, best)]
        return max(own, key=lambda t: (len(t.id), t.id), default=None)

    @property
    def outdated(self) -> tuple[TrialData, ...]:
        """Other labelled trials with a value: of a trial that was the best before the campaign went on, or made otherwise."""
        return tuple(t for t in self._compared if t is not self.labelled(t.label or ""))

    @property
    def _compared(self) -> list[TrialData]:
        return [t for t in self.trials if t.label is not None and t.last(self.metric) is not None]

    @property
    def front(self) -> tuple[TrialData, ...]:
        """Finished trials of the search that no other one beats in the metric with at most as many parameters, by parameters."""
        done = [t for t in self.searched if t.state == "finished"]
        scored = [t for t in done if t.last(self.metric) is not None and t.last("parameters") is not None]
        ordered = sorted(scored, key=lambda t: (t.last("parameters"), self._cost(t)))
        front: list[TrialData] = []
        for trial in ordered:
            if not front or self._cost(trial) < self._cost(front[-1]):
                front.append(trial)
        return tuple(front)

    def _cost(self, trial: TrialData) -> float:
        value = trial.last(self.metric)
        return math.inf if value is None else -value if self.mode == "max" else value


def best_of(trials: Sequence[TrialData], metric: str, mode: str) -> TrialData | None:
    """The trial with the best last value; the one with fewer parameters, then the first, where that is equal."""
    sign = -1.0 if mode == "max" else 1.0
    return min(trials, key=lambda t: (sign * (t.last(metric) or 0.0), t.last("parameters") or 0.0, t.id), default=None)


@dataclass(frozen=True)
class OptionRow:
    """How the trials with one option of a searched choice did: `num` trials with a value, their mean and best."""

    option: str
    num: int
    mean: float
    best: float


def options(data: ReportData) -> dict[str, list[OptionRow]]:
    """For each searched value with few options (names, sub-trees, counts): how the trials with each of them did.

    Finished trials only: others were trained for less. Continuous values are left out: two trials hardly ever share one.
    """
    values: dict[str, dict[str, list[float]]] = {}
    for trial in data.searched:
        value = trial.last(data.metric)
        if value is None or trial.state != "finished":
            continue
        for path, chosen in trial.parameters_of.items():
            if isinstance(chosen, (str, bool, int)):
                values.setdefault(path, {}).setdefault(str(chosen), []).append(value)
    pick = max if data.mode == "max" else min
    tables = {}
    for path, by_option in values.items():
        if 2 <= len(by_option) <= 8:
            rows = [OptionRow(o, len(v), sum(v) / len(v), pick(v)) for o, v in by_option.items()]
            tables[path] = sorted(rows, key=lambda r: r.mean, reverse=data.mode == "max")
    return tables
