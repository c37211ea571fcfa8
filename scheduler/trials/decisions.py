"""Decisions of a trial scheduler are taken once, in the order of the reports, and stand; also those that nobody was there to see.

Ray Tune forgets what its schedulers know when its process ends. Here they come back from what the trials have reported, and a
report that no process has seen is judged when somebody looks again, as it would have been at the time.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ray.tune.schedulers import TrialScheduler

CONTINUE, STOP = TrialScheduler.CONTINUE, TrialScheduler.STOP
END = "END"
"""The trial came to its end with this report: there was nothing to decide."""
Report = Mapping[str, Any]
"""Numbers of one epoch; `epoch` among them, and `time` where it is known (seconds since 1970)."""


@dataclass(frozen=True)
class Decision:
    """What was decided on the report of an epoch: CONTINUE, STOP or END."""

    trial: str
    epoch: int
    decision: str


@dataclass(frozen=True)
class PastTrial:
    """Stands for a trial of before the restart: what a trial scheduler looks at when it is told a result."""

    trial_id: str
    config: dict[str, Any] = field(default_factory=dict)


class DecidedOnce(TrialScheduler):
    """Asks another trial scheduler once for each report, and keeps to what was decided. Labelled trials are left alone.

    Attributes:
        scheduler: what decides.
        stop_at: amounts at which every trial ends, by the reported name.
        first_rung: reported name and amount at which trials are judged for the first time; None where none is judged.
        on_decision: called with each new decision.
    """

    def __init__(self, scheduler: TrialScheduler) -> None:
        self.scheduler = scheduler
        self.stop_at: dict[str, float] = getattr(scheduler, "stop_at", {})
        self.first_rung: tuple[str, float] | None = getattr(scheduler, "first_rung", None)
        self.on_decision: Callable[[Decision], None] = lambda decision: None
        self._decided: dict[str, dict[int, str]] = {}
        self._told: dict[str, int] = {}
        self._added: set[str] = set()

    def __reduce__(self) -> tuple[type[DecidedOnce], tuple[TrialScheduler]]:
        """Ray Tune writes it down and nobody reads it again."""
        return DecidedOnce, (self.scheduler,)

    def keep(self, one: Decision) -> None:
        """From here on this is what was decided."""
        self._decided.setdefault(one.trial, {})[one.epoch] = one.decision

    def stopped_at(self, trial: str) -> int | None:
        """The epoch with whose report the trial was to stop, None where it was not."""
        return min((e for e, decision in self._decided.get(trial, {}).items() if decision == STOP), default=None)

    def judge(self, trial: Any, result: Report, *, last: bool = False) -> str:
        """The decision on a report: the one that was taken, or a new one. `last`: the trial came to its end with it."""
        name, epoch = trial.trial_id, int(result.get("epoch", 0))
        stopped, before = self.stopped_at(name), self._decided.get(name, {}).get(epoch)
        if stopped is not None and epoch > stopped:
            return STOP
        spent = self.spent(result)
        new = self._tell(trial, result, last or spent)
        new = STOP if spent and not last else new
        if before is None:
            self.keep(Decision(name, epoch, new))
            self.on_decision(Decision(name, epoch, new))
        return before or new

    def spent(self, result: Report) -> bool:
        """Whether the trial has had all that a trial gets."""
        return any(result.get(name, 0) >= amount for name, amount in self.stop_at.items())

    def _tell(self, trial: Any, result: Report, last: bool) -> str:
        """What the scheduler says to a report. It hears of each once."""
        name, epoch = trial.trial_id, int(result.get("epoch", 0))
        new = epoch > self._told.get(name, -1)
        if new and name not in self._added:
            self.scheduler.on_trial_add(None, trial)
            self._added.add(name)
        self._told[name] = max(epoch, self._told.get(name, -1))
        if not last:
            return str(self.scheduler.on_trial_result(None, trial, dict(result))) if new else CONTINUE
        if name in self._added:
            self._added.discard(name)
            self.scheduler.on_trial_complete(None, trial, dict(result))
        return END

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """The scheduler hears of a trial with its first report."""

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Whether the trial goes on."""
        return STOP if not trial.config.get("label") and self.judge(trial, result) == STOP else CONTINUE

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        """Let the last report count."""
        if not trial.config.get("label") and not result.get("interrupted"):
            self.judge(trial, result, last=bool(result.get("finished")) or not self.spent(result))

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None:
        """A worker died; its trial may go on."""

    def on_trial_remove(self, tune_controller: Any, trial: Any) -> None:
        """Nothing is kept of a trial that did not run."""

    def choose_trial_to_run(self, tune_controller: Any) -> Any:
        """As the scheduler chooses."""
        return self.scheduler.choose_trial_to_run(tune_controller)

    def set_search_properties(self, metric: str | None, mode: str | None, **spec: Any) -> bool:
        """The scheduler has its metric already."""
        return True

    def debug_string(self) -> str:
        """As the scheduler says."""
        return str(self.scheduler.debug_string())


def replay(
    scheduler: DecidedOnce, reports: Mapping[str, Sequence[Report]],
    decided: Sequence[Decision] = (), finished: Collection[str] = (), settled: Collection[str] = (),
) -> dict[str, int]:  # fmt: skip
    """Tell a new scheduler what it knew before a restart, and let it judge what nobody has seen, in the order of the reports.

    Args:
        scheduler: a new one.
        reports: by trial, from the first to the last.
        decided: what was decided before, in that order; it stands.
        finished: trials that came to their end with their last report.
        settled: trials with which nothing can be done any more: what they reported counts, and no decision falls on it.

    Returns:
        By trial, the epoch with which it stops: what it has reported since does not count.
    """
    waiting = {(name, int(r["epoch"])): r for name, reported in reports.items() for r in reported}
    last = {(name, int(reports[name][-1]["epoch"])) for name in finished if reports.get(name)}
    for one in decided:
        scheduler.keep(one)
    seen = {(d.trial, d.epoch): None for d in decided if (d.trial, d.epoch) in waiting}
    for trial, epoch in seen | dict.fromkeys(sorted(waiting, key=lambda key: waiting[key].get("time", 0.0))):
        result, end = waiting[trial, epoch], (trial, epoch) in last
        if trial in settled and (trial, epoch) not in seen:
            scheduler.keep(Decision(trial, epoch, END if end else CONTINUE))
        scheduler.judge(PastTrial(trial), result, last=end)
    stops = {name: scheduler.stopped_at(name) for name in reports if name not in settled}
    return {name: epoch for name, epoch in stops.items() if epoch is not None}
